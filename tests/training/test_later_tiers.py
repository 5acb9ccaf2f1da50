"""Tiers of later snapshots by a scheme fitted before them, and who would change tier against a champion."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from tiermodel.features.panel import build_panel
from tiermodel.tiers.fitted_scheme import FittedScheme
from tiermodel.training.later_tiers import LEVELS, tier_changes, with_tiers
from worlds import TrainedWorld


def test_later_tiers_do_not_depend_on_what_came_after_them(trained: TrainedWorld) -> None:
    value = trained.trained.out_of_fold["value"]
    scheme, project = trained.trained.bundle.scheme, trained.project
    dates = sorted(pd.Timestamp(day).date() for day in value["as_of"].unique())
    rows = build_panel(project, dates, with_outcome=True)
    found = with_tiers(value.drop(columns=list(LEVELS)), rows, scheme, 60, 7)
    assert found[list(LEVELS)].notna().all(axis=None)
    first = found["as_of"] == found["as_of"].min()
    later = rows["as_of"] > rows["as_of"].min()
    amounts = [str(name) for name in rows if str(name).startswith("net_amount")]
    changed = rows.assign(**{name: np.where(later, rows[name] * 3, rows[name]) for name in amounts})
    again = with_tiers(value.drop(columns=list(LEVELS)), changed, scheme, 60, 7)
    pd.testing.assert_frame_equal(again[first], found[first])
    assert (again.loc[~first, "level"] >= found.loc[~first, "level"]).all()
    none = with_tiers(value.iloc[:0], rows, scheme, 60, 7)
    assert {*LEVELS} <= set(none)


def test_changes_count_customers_and_value_both_ways(trained: TrainedWorld) -> None:
    champion = trained.trained.bundle
    as_of = pd.Timestamp(champion.facts["as_of"]).date()
    snapshot = build_panel(trained.project, [as_of])
    same = tier_changes(champion, champion, snapshot)
    assert same is not None
    assert (same["up"], same["down"], same["moved_value"], same["customers"]) == (0, 0, 0.0, len(snapshot))
    level = champion.scheme.assign(snapshot)[0]
    cuts = [3 * cut for cut in champion.scheme.state["cuts"]]
    stricter = replace(champion, scheme=FittedScheme(champion.scheme.scheme, {**champion.scheme.state, "cuts": cuts}))
    down = tier_changes(champion, stricter, snapshot)
    assert down is not None
    assert down["down"] == (stricter.scheme.assign(snapshot)[0] < level).sum() > 0
    assert down["up"] == 0
    assert 0 < down["moved_value"] <= down["value"]
    assert tier_changes(champion, champion, snapshot.drop(columns=[champion.inputs.names[0]])) is None
