"""What would move a customer up: reaches the level when the row is graded again, and a smaller change does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commands import Run
from schemes_made import LEARNED
from tiermodel.errors import ProjectError
from tiermodel.features.condition import Words
from tiermodel.features.frame import has_bought
from tiermodel.features.panel import build_panel
from tiermodel.tiers.explain.next_tier import ACTIONS, COLUMNS, Action, changed, next_tier_actions, tier_thresholds
from tiermodel.tiers.fitted_scheme import FittedScheme, fit_scheme
from tiermodel.tiers.schemes.load import load_preset, parse_scheme
from worlds import LAST_DAY, TrainedWorld

SCHEMES = ("pyramid", "rfm", "rfm_score", "kaism", "spend_frequency", "vip_cascade", "learned", "abc_profit", "growth")


@pytest.fixture(scope="module")
def panel(trained: TrainedWorld) -> pd.DataFrame:
    return build_panel(trained.project, [LAST_DAY])


def fitted(name: str, panel: pd.DataFrame, trained: TrainedWorld) -> FittedScheme:
    if name == "learned":
        return trained.trained.bundle.scheme
    history = panel.assign(outcome_value=panel["net_amount_60d"])
    return fit_scheme(load_preset(name, (60, 365)), panel, history, 7)


def action_of(feature: str) -> Action:
    return next(a for a in ACTIONS if pd.Series([feature]).str.fullmatch(a.features).iloc[0])


@pytest.mark.parametrize("name", SCHEMES)
def test_the_change_reaches_the_level_and_no_smaller_one_does(
    name: str, panel: pd.DataFrame, trained: TrainedWorld
) -> None:
    try:
        scheme = fitted(name, panel, trained)
    except ProjectError:
        pytest.skip("the small world lacks its features")
    found = next_tier_actions(scheme, panel, trained.trained.bundle.features, "en")
    assert tuple(found.columns) == COLUMNS
    assert len(found)
    codes = scheme.scheme.codes
    rows = panel.set_index("customer_id", drop=False)
    level = dict(zip(panel["customer_id"], scheme.assign(panel)[0], strict=True))
    draw = np.random.default_rng(1)
    for feature, ways in found.groupby("feature"):
        action, before = action_of(str(feature)), rows.loc[ways["customer_id"]]
        steps = np.rint(np.abs(ways["change"]) * action.steps).to_numpy(dtype=np.int64)
        reached = scheme.assign(changed(before, action, steps))[0]
        assert [codes[n] for n in reached] == ways["reached_code"].tolist()
        old = np.array([level[c] for c in ways["customer_id"]])
        assert (reached > old).all()
        smaller = [steps - 1, *(draw.integers(0, steps) for _ in range(20))]
        for fewer in smaller:
            assert (scheme.assign(changed(before, action, fewer))[0] <= old).all()
    assert (found.groupby("customer_id")["passed_share"].diff().dropna() >= 0).all()
    assert found["easiness"].eq(found.groupby("customer_id", sort=False).cumcount() + 1).all()
    top = {c for c, n in level.items() if n == len(codes) - 1}
    assert not top & set(found["customer_id"])


def test_an_action_that_is_missing_for_a_customer_would_not_have_been_enough(
    panel: pd.DataFrame, trained: TrainedWorld
) -> None:
    scheme = fitted("rfm", panel, trained)
    found = next_tier_actions(scheme, panel, {}, "en")
    level = scheme.assign(panel)[0]
    low = panel[(level < len(scheme.scheme.codes) - 1) & has_bought(panel)]
    recent = set(found.loc[found["feature"] == "days_since_last", "customer_id"])
    rest = low[~low["customer_id"].isin(recent)]
    before = scheme.assign(rest)[0]
    for days in range(1, 400, 3):
        nearer = rest.assign(days_since_last=np.minimum(rest["days_since_last"], float(days)))
        assert (scheme.assign(nearer)[0] <= before).all()


def ladder(**change: Any) -> FittedScheme:
    levels = [{"code": c, "name_zh": c, "name_en": c} for c in ("low", "high")]
    rule = {"level": "high", "when": [{"feature": "net_amount_90d", **change}]}
    data = {"kind": "thresholds", "code": "x", "name_zh": "x", "name_en": "x", "levels": levels}
    scheme = parse_scheme({**data, "rules": [rule, {"level": "low"}]}, "x", (90,))
    return fit_scheme(scheme, snapshot([1.0]), snapshot([1.0]), 1)


def snapshot(spend: list[float]) -> pd.DataFrame:
    n = len(spend)
    return pd.DataFrame({
        "customer_id": [str(k) for k in range(n)], "as_of": pd.Timestamp("2024-01-01"),
        "days_since_last": 10.0, "days_since_first": 90.0, "net_amount_90d": spend, "net_amount_total": spend,
    })  # fmt: skip


@settings(max_examples=60)
@given(spend=st.integers(0, 99_999), bound=st.integers(0, 100_000), strict=st.booleans())
def test_a_bound_on_spend_asks_for_the_cents_that_are_missing(spend: int, bound: int, strict: bool) -> None:
    scheme = ladder(**{"above" if strict else "at_least": bound / 100})
    found = next_tier_actions(scheme, snapshot([spend / 100]), {}, "en")
    missing = bound - spend + (1 if strict else 0)
    if missing <= 0:
        assert found.empty
    else:
        assert found["change"].tolist() == [pytest.approx(missing / 100)]
        assert found["value_then"].tolist() == [pytest.approx((spend + missing) / 100)]


def test_the_words_name_the_feature_in_both_languages() -> None:
    names = {"net_amount_90d": Words("近90天净消费额", "net amount of the last 90 days")}
    scheme, row = ladder(at_least=155.0), snapshot([120.0])
    told = [next_tier_actions(scheme, row, names, language)["words"][0] for language in ("zh", "en")]
    assert told == ["近90天净消费额再增加 35（120 → 155）", "net amount of the last 90 days: 35 more (120 → 155)"]


def test_tenure_and_attributes_are_out_of_reach() -> None:
    features = ("days_since_first", "attribute_age", "active_share", "gap_days_mean", "days_known")
    for action in ACTIONS:
        assert not pd.Series(features).str.fullmatch(action.features).any()
    scheme = ladder(at_least=10.0)
    assert tier_thresholds(scheme) == {"net_amount_90d": [10.0]}
    learned = parse_scheme({**LEARNED, "learner": "ordinal_boosting"}, "x", (90, 365))
    score = FittedScheme(learned, {"surrogate": {}})
    with pytest.raises(ProjectError, match="no rules on single features"):
        tier_thresholds(score)


def test_the_command_line_writes_the_ways_up(cli: Run, trained: TrainedWorld, tmp_path: Path) -> None:
    project = tmp_path / "p.yaml"
    project.write_text(trained.project.model_dump_json(exclude={"folder"}, exclude_none=True))
    ran = cli(
        "upgrades", project, "--model", trained.bundle, "--as-of", LAST_DAY, "--out", "up.csv", "--language", "zh"
    )
    assert ran.code == 0, ran.err
    table = pd.read_csv("up.csv")
    assert tuple(table.columns) == COLUMNS
    assert f"{len(table):,} ways up for {table['customer_id'].nunique():,} customers" in ran.out
    assert table["words"].str.contains("再增加|减少").all()
