"""Fitted features and customer scores: their values, and that one record has those of the batch."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pandas as pd
import pytest

from schemes_made import LEVELS, assert_equal_to_scheme, people, tiers_in_duckdb
from tiermodel.config.targets import Campaign
from tiermodel.errors import ProjectError
from tiermodel.features.frame import has_bought
from tiermodel.features.panel import build_panel
from tiermodel.predict.table import predict, score_schema
from tiermodel.tiers.customer_scores import HEADROOM, SCORES, SILENCE, index_of_score
from tiermodel.tiers.fitted_features import FITTED, FittedFeatures, fit_features
from tiermodel.tiers.fitted_scheme import fit_scheme
from tiermodel.tiers.schemes.load import parse_scheme
from worlds import LAST_DAY, TrainedWorld


def panel_of(trained: TrainedWorld) -> pd.DataFrame:
    return build_panel(trained.project, [LAST_DAY + timedelta(1)])


def test_silence_is_the_time_since_the_last_purchase_over_the_own_rhythm() -> None:
    frame = pd.DataFrame({
        "days_since_last": [50.0, 30.0, 200.0, np.nan], "purchase_days_total": [5.0, 2.0, 1.0, np.nan],
        "gap_days_max": [40.0, 10.0, np.nan, np.nan], "gap_days_mean": [25.0, 10.0, np.nan, np.nan],
    })  # fmt: skip
    fitted = FittedFeatures((SILENCE,), typical=100.0)
    np.testing.assert_array_equal(fitted.added_to(frame)[SILENCE], [50 / 50, 30 / 100, 200 / 100, np.nan])


def test_headroom_is_zero_for_the_lost_and_none_is_negative() -> None:
    frame = people(400)
    found = fit_features([HEADROOM], frame, 7)
    assert found is not None
    known = found.added_to(frame)
    assert (known[HEADROOM] >= 0).all()
    assert (known[HEADROOM][known[SILENCE] > 2] == 0).all()
    assert (known[HEADROOM][known[SILENCE] <= 2] > 0).any()


def test_a_score_is_the_weighted_mean_of_the_ranks_of_its_parts() -> None:
    frame = people(300)
    found = fit_features(["score_importance"], frame, 7)
    assert found is not None
    (index,) = found.indexes.values()
    assert [d.feature for d in index.dimensions] == ["net_amount_total", "days_since_first", "active_share"]
    assert sum(d.weight or 0 for d in index.dimensions) == pytest.approx(1)
    expected = np.zeros(len(frame))
    for d in index.dimensions:
        at = (np.arange(1, 101) - 0.5) / 100
        cuts = [np.sort(frame[d.feature])[int(np.ceil(q * len(frame))) - 1] for q in at]
        expected += (d.weight or 0) * np.array([sum(cut < x for cut in cuts) for x in frame[d.feature]])
    np.testing.assert_allclose(found.added_to(frame)["score_importance"], expected, atol=0.1)  # weights in thousandths


def test_whoever_has_no_fault_gets_all_points_of_it() -> None:
    overdue = np.r_[np.zeros(90), np.arange(1.0, 11.0)]
    frame = people(100).assign(overdue_amount=overdue, late_share_365d=overdue / 20)
    found = fit_features(["score_credit"], frame, 7)
    assert found is not None
    score = found.added_to(frame)["score_credit"]
    assert (score[:90] == 100).all()
    assert (score[90:] < 12).all()
    assert score[90:].is_monotonic_decreasing


def test_a_score_without_any_part_is_not_there_and_a_scheme_cannot_read_it() -> None:
    frame = people(100)
    found = fit_features(["score_willingness"], frame, 7)
    assert found is not None
    assert found.names == ()
    data = {
        "code": "w", "name_zh": "w", "name_en": "w", "kind": "share", "feature": "score_willingness",
        "levels": LEVELS[:2], "shares": {"low": 0.5, "mid": 0.5},
    }  # fmt: skip
    with pytest.raises(ProjectError, match="feature 'score_willingness' is not built"):
        fit_scheme(parse_scheme(data, "test", (60, 365)), frame, frame, 7)


@pytest.mark.parametrize(
    "feature", [SILENCE, HEADROOM, "score_loyalty", "score_importance", "score_service_need", "score_credit"]
)
def test_schemes_read_fitted_features_and_sql_computes_them_equally(feature: str) -> None:
    frame = people(500, prospects=20)
    frame["overdue_amount"] = frame["return_count_total"] * 10.0
    data = {
        "code": "f", "name_zh": "f", "name_en": "f", "kind": "thresholds", "levels": LEVELS,
        "rules": [
            {"level": "top", "when": [{"feature": feature, "top": 0.2}]},
            {"level": "mid", "when": [{"feature": feature, "above": 0}]},
            {"level": "low"},
        ],
    }  # fmt: skip
    fitted = fit_scheme(parse_scheme(data, "test", (60, 365)), frame, frame, 7)
    level, _ = fitted.assign(frame)
    assert len(set(level)) >= 2
    alone = [int(fitted.assign(frame.iloc[[row]])[0][0]) for row in range(0, 500, 50)]
    np.testing.assert_array_equal(alone, level[::50])
    assert_equal_to_scheme(tiers_in_duckdb(fitted, frame), fitted, frame)
    assert type(fitted).from_dict(fitted.to_dict()).to_dict() == fitted.to_dict()


def test_every_score_lies_between_0_and_100_and_missing_tables_leave_it_missing(trained: TrainedWorld) -> None:
    bundle, panel = trained.trained.bundle, panel_of(trained)
    table = predict(bundle, panel)
    assert list(table) == score_schema(bundle).names
    names = [score.name for score in SCORES]
    known = [name for name in names if table[name].notna().any()]
    assert {"score_loyalty", "score_importance", "score_potential"} <= set(known)
    assert table[[name for name in names if name not in known]].isna().all(axis=None)
    assert (table[known].isna() | ((table[known] >= 0) & (table[known] <= 100))).all(axis=None)
    assert table.loc[~has_bought(panel), "score_loyalty"].isna().all()
    again = predict(bundle, panel.iloc[[3]])
    pd.testing.assert_frame_equal(again[names], table[names].iloc[[3]].reset_index(drop=True))


def test_potential_is_nothing_for_lost_customers(trained: TrainedWorld) -> None:
    bundle, panel = trained.trained.bundle, panel_of(trained)
    lost = panel[panel["purchase_days_total"] > 1].head(20).assign(days_since_last=2000.0, days_since_first=2500.0)
    table = predict(bundle, lost)
    assert (table["potential"] == 0).all()
    assert (table["score_potential"] == 0).all()


def test_a_warning_is_a_risk_above_the_customers_own_threshold(trained: TrainedWorld) -> None:
    bundle, panel = trained.trained.bundle, panel_of(trained)
    plain = predict(bundle, panel)
    assert plain[["contact_threshold", "churn_warning"]].isna().all(axis=None)
    costs = Campaign(contact=1.0, incentive=5.0, accepted_share=0.3).model_dump()
    settings = {**bundle.settings, "churn": {**bundle.settings["churn"], "campaign": costs}}
    table = predict(replace(bundle, settings=settings), panel)
    known = table["churn_risk"].notna()
    needed = 6.0 / (0.3 * (table["clv"] - 5) + 5)  # the cost of a contact that is taken, over what it brings
    np.testing.assert_allclose(table["contact_threshold"][known & (needed <= 1) & (needed > 0)],
                               needed[known & (needed <= 1) & (needed > 0)], atol=1e-6)  # fmt: skip
    warned = table["churn_warning"] == "warning"
    np.testing.assert_array_equal(warned[known], (table["churn_risk"] >= table["contact_threshold"])[known])
    assert 0 < warned.sum() < known.sum()


def test_weights_of_every_score_add_up_and_its_parts_are_ranked_features() -> None:
    for score in SCORES:
        assert sum(part.weight for part in score.parts) == pytest.approx(1)
        names = [name.strip().format(longest=365) for part in score.parts for name in part.feature.split("|")]
        index = index_of_score(score, (365,), names)
        assert index is not None
        assert len(index.dimensions) == len(score.parts)
    assert set(FITTED) < {SILENCE, HEADROOM, *(score.name for score in SCORES)}
