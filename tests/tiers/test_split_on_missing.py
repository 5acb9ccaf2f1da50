"""A tree that splits on whether a value is missing: the same from disk, in words, in SQL, and with stability."""

from __future__ import annotations

import json
from functools import cache

import duckdb
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from schemes_made import FEATURES, LEARNED, WINDOWS, people
from tiermodel.output import to_jsonable
from tiermodel.reporting import figures_model
from tiermodel.reporting.figures import FigureStyle
from tiermodel.tiers.explain.next_tier import tier_thresholds
from tiermodel.tiers.fitted_scheme import FittedScheme, fit_scheme
from tiermodel.tiers.schemes.load import parse_scheme

MISSES = "gap_days_mean"
BAND = {"up": {"band": 0.1}, "down": {"band": 0.1}}


@cache
def made() -> tuple[FittedScheme, pd.DataFrame]:
    """Fit levels to an outcome that depends on whether a feature is known, and on nothing else."""
    frame = people(800)
    draw = np.random.default_rng(3)
    known, either = draw.random(len(frame)) < 0.5, draw.integers(1, 3, len(frame)) * 10.0
    frame = frame.assign(**{MISSES: np.where(known, either, np.nan)}, outcome_value=np.where(known, 100.0, 1.0))
    data = {**LEARNED, "max_leaves": 3, "stability": BAND}
    return fit_scheme(parse_scheme(data, "test", WINDOWS), frame, frame, 7), frame


def test_the_scheme_from_disk_grades_as_the_one_in_memory() -> None:
    fitted, frame = made()
    assert (fitted.state["tree"]["feature"][0], fitted.state["tree"]["threshold"][0]) == (MISSES, None)
    again = FittedScheme.from_dict(json.loads(json.dumps(to_jsonable(fitted.to_dict()), allow_nan=False)))
    for one, other in zip(fitted.assign(frame), again.assign(frame), strict=True):
        np.testing.assert_array_equal(one, other)
    assert set(fitted.assign(frame)[0][frame[MISSES].isna()]).isdisjoint(fitted.assign(frame)[0][frame[MISSES].notna()])
    assert again.rules(FEATURES, "en") == fitted.rules(FEATURES, "en")
    low, high = fitted.kind.sure_levels(fitted.scheme, fitted.state, frame)
    level = fitted.kind.assign(fitted.scheme, fitted.state, frame)[0]
    assert (low <= level).all()
    assert (level <= high).all()


def test_the_rules_and_the_figure_say_missing_and_not_missing() -> None:
    fitted, _ = made()
    rules = "\n".join(fitted.rules(FEATURES, "en"))
    name = FEATURES[MISSES].en
    assert f"{name} missing" in rules
    assert f"{name} not missing" in rules
    assert "inf" not in rules
    assert all(np.isfinite(cuts).all() for cuts in tier_thresholds(fitted).values())
    levels = [str(code) for code in fitted.scheme.bought_levels]
    figure = figures_model.tree(FigureStyle("en"), fitted.state, levels, {})
    assert {"missing", "not missing"} <= {text.get_text() for axes in figure.axes for text in axes.texts}
    plt.close(figure)


def test_sql_grades_as_the_tree() -> None:
    fitted, frame = made()
    rows = frame.assign(**{MISSES: frame[MISSES].astype("Float64")})  # NULL, as in the feature table
    expression = fitted.kind.sql(fitted.scheme, fitted.state).level
    with duckdb.connect() as db:
        db.register("features", rows)
        found = db.execute(f"SELECT {expression} AS level FROM features").df()["level"]
    numbers = np.array(fitted.scheme.bought_numbers)
    np.testing.assert_array_equal(found, numbers[fitted.kind.assign(fitted.scheme, fitted.state, frame)[0]])
