"""The band of the stability rule: it holds nobody for good, and no yes/no answer and no crowd at zero is within it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tiermodel.config.tiers import Downgrade, Stability, Upgrade
from tiermodel.features.frame import has_bought
from tiermodel.features.panel import build_panel
from tiermodel.tiers.fitted_scheme import FittedScheme, fit_scheme
from tiermodel.tiers.kinds.cut_points import band_edges
from tiermodel.tiers.schemes.load import load_preset, parse_scheme, preset_names
from tiermodel.tiers.stability.rule import replay
from worlds import LAST_DAY, small_project, small_world

WINDOWS, END = (60, 365), LAST_DAY + timedelta(1)
RULE = Stability(
    up=Upgrade(band=0.10, confirmations=2), down=Downgrade(band=0.15, confirmations=2, min_stay_days=60, grace_days=30)
)
SETTLED = 365 + 30 + 2 * 30  # window, grace, and two gradings to confirm


@pytest.fixture(scope="module")
def panel(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Return monthly snapshots of half a year, and of the years after the last row: everybody has stopped buying."""
    project = small_project(small_world(tmp_path_factory.mktemp("band") / "transactions.parquet", customers=300))
    dates = [END + timedelta(30 * k) for k in range(-6, SETTLED // 30 + 5)]
    found = build_panel(project, dates, with_outcome=True, known_until=END)
    return found.assign(attribute_strategic=(found["customer_id"].str[-1] == "7").astype(float))


def fit(scheme: Any, panel: pd.DataFrame, rule: Stability | None = RULE) -> FittedScheme:
    now = panel[panel["as_of"] == pd.Timestamp(END)]
    history = panel[panel["outcome_value"].notna()]
    return fit_scheme(scheme.model_copy(update={"stability": rule}), now, history, 7, 60)


@pytest.mark.parametrize("name", preset_names())
def test_whoever_stops_buying_reaches_the_tier_that_the_rules_give(name: str, panel: pd.DataFrame) -> None:
    fitted = fit(load_preset(name, WINDOWS), panel)
    tier, level = replay(fitted, panel)
    by_date = (
        panel[["customer_id", "as_of"]]
        .assign(tier=tier, level=level)
        .pivot_table(["tier", "level"], "customer_id", "as_of")
    )
    after = by_date["level"].columns >= pd.Timestamp(END + timedelta(SETTLED))
    tiers, levels = by_date["tier"].to_numpy(), by_date["level"].to_numpy()
    lasting = 4  # gradings for which the rules have said the same: longer than grace and confirmations
    for k in np.flatnonzero(after):
        steady = (levels[:, k - lasting : k] == levels[:, [k]]).all(axis=1)
        assert steady.mean() > 0.5
        np.testing.assert_array_equal(tiers[steady, k], levels[steady, k])


@pytest.mark.parametrize("name", preset_names())
def test_the_band_holds_the_level_and_few_may_stay_on_top_who_are_not(name: str, panel: pd.DataFrame) -> None:
    fitted, now = fit(load_preset(name, WINDOWS), panel), panel[panel["as_of"] == pd.Timestamp(END)]
    level, _ = fitted.assign(now)
    lowest, highest, bought = *fitted.sure_levels(now), has_bought(now)
    assert ((lowest <= level) & (level <= highest)).all()
    numbers = fitted.scheme.bought_numbers
    span = np.searchsorted(numbers, highest[bought]) - np.searchsorted(numbers, lowest[bought])
    assert span.max() <= (2 if len(numbers) > 3 else 1)
    top = fitted.scheme.codes.index(fitted.scheme.bought_levels[-1])
    may_stay = (highest == top)[has_bought(now)]
    assert may_stay.mean() - (level == top)[has_bought(now)].mean() <= 3 * RULE.down.band


def test_a_flag_of_the_business_has_no_band(panel: pd.DataFrame) -> None:
    """In trials every buyer could stay on top with the attribute `strategic` mapped, and nobody ever moved down."""
    now = panel[panel["as_of"] == pd.Timestamp(END)]
    fitted = fit(load_preset("five_levels", WINDOWS), panel)
    flagged = fitted.state["rules"][0][0]
    assert flagged["feature"] == "attribute_strategic"
    assert flagged["up"] == flagged["down"] == [1.0, 1.0]
    top = fitted.scheme.codes.index("strategic")
    may_stay = fitted.sure_levels(now)[1] == top
    assert (now["attribute_strategic"] == 1).to_numpy()[~may_stay].sum() == 0
    assert 0 < np.count_nonzero(may_stay) < len(now) / 2


def test_a_sharp_condition_has_no_band_and_a_scheme_without_one_keeps_its_version(panel: pd.DataFrame) -> None:
    levels = [{"code": c, "name_zh": c, "name_en": c} for c in ("low", "top")]
    when = {"feature": "net_amount_365d", "at_least": 200}
    data = {"code": "t", "name_zh": "t", "name_en": "t", "kind": "thresholds", "levels": levels}
    sharp, usual = (
        fit(parse_scheme({**data, "rules": [{"level": "top", "when": [w]}, {"level": "low"}]}, "t", WINDOWS), panel)
        for w in ({**when, "sharp": True}, when)
    )
    assert sharp.state["rules"][0][0]["down"] == [200.0, 200.0]
    assert usual.state["rules"][0][0]["down"] != [200.0, 200.0]
    assert "sharp" not in str(usual.to_dict())
    assert FittedScheme.from_dict(sharp.to_dict()).scheme == sharp.scheme


@given(
    values=st.lists(st.sampled_from([-5.0, 0.0, 0.0, 0.0, 1.0, 2.0, 2.5, 40.0]), min_size=2, max_size=60),
    cut=st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.5, 50.0]),
    band=st.floats(0, 0.49),
    side=st.sampled_from(["left", "right"]),
)
@example(values=[0.0, 0.0, 1.0, 2.0, *[2.5] * 10], cut=2.5, band=0.4, side="right")  # a crowd on the cut point
def test_a_band_holds_no_more_than_its_share_of_the_customers(
    values: list[float], cut: float, band: float, side: Any
) -> None:
    rule = Stability(up=Upgrade(band=band), down=Downgrade(band=band))
    scheme = load_preset("pyramid", WINDOWS).model_copy(update={"stability": rule})
    ((low, high),) = band_edges(scheme, [cut], np.array(values), side)["down"]
    assert low <= cut <= high
    most = round(band * len(values))

    def above(bound: float) -> int:
        return sum(x >= bound if side == "left" else x > bound for x in values)

    assert above(low) - above(cut) <= most
    assert above(cut) - above(high) <= most
    if set(values) == {0.0, 1.0} and cut == 0.5:  # a yes/no question
        assert above(low) == above(cut) == above(high)
