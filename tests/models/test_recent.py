"""What happened between snapshots: counted from them alone, nothing from the future, cut windows as far as over."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tiermodel.config.project import Project
from tiermodel.features.frame import feature_names, has_bought
from tiermodel.features.outcome import Labels
from tiermodel.features.panel import build_panel
from tiermodel.models.btyd.bg_nbd import MBGNBD
from tiermodel.models.btyd.forecast import Horizons, frequency_recency_age, mean_purchase_amount
from tiermodel.models.btyd.gamma_gamma import GammaGamma
from tiermodel.models.calibration.logit import log_odds
from tiermodel.models.calibration.recent import partial_churn_windows, partial_value_windows, recent_residuals
from tiermodel.models.design_matrix import design_matrix_of_panel
from tiermodel.tables.history import read_history
from worlds import TrainedWorld

NOW = pd.Timestamp("2023-11-01")


@pytest.fixture(scope="module")
def quarterly(trained: TrainedWorld) -> Project:
    outcome = trained.project.outcome.model_copy(update={"horizon_days": 90})
    every = trained.project.panel.model_copy(update={"every_days": 30})
    return trained.project.model_copy(update={"outcome": outcome, "panel": every})


@pytest.fixture(scope="module")
def panel(quarterly: Project) -> pd.DataFrame:
    days = [date(2023, 11, 1) - timedelta(30 * k) for k in range(-2, 4)]
    return build_panel(quarterly, days, with_outcome=True, history=read_history(quarterly))


def test_what_happened_between_snapshots_is_counted_from_them(quarterly: Project, panel: pd.DataFrame) -> None:
    risk, total = recent_residuals(Labels.of(quarterly), 30, panel, NOW)
    assert [w.day for w in risk] == [w.day for w in total] == [NOW - pd.Timedelta(days=30 * k) for k in (1, 2, 3)]
    for window, worth in zip(risk, total, strict=True):
        here = panel[(panel["as_of"] == window.day) & has_bought(panel)].set_index("customer_id")
        then = panel[panel["as_of"] == window.day + pd.Timedelta(days=30)].set_index("customer_id").loc[here.index]
        silent = (then["days_since_last"] > 30).mean()
        past = frequency_recency_age(here)
        odds = log_odds(MBGNBD.fit(*past).p_zero(30, *past))
        assert (1 / (1 + np.exp(-odds - window.residual))).mean() == pytest.approx(silent, abs=1e-6)
        came = (then["net_amount_total"] - here["net_amount_total"]).sum()
        each = GammaGamma.fit(past[0], mean_purchase_amount(here)).expected_value(past[0], mean_purchase_amount(here))
        expected = (MBGNBD.fit(*past).expected_purchases(30, *past) * each).sum()
        assert expected * np.exp(worth.residual) == pytest.approx(came, rel=1e-6)


def test_later_snapshots_and_outcomes_tell_nothing(quarterly: Project, panel: pd.DataFrame) -> None:
    spoiled = panel.copy()
    spoiled.loc[spoiled["as_of"] > NOW, ["purchase_days_total", "net_amount_total"]] = 1e6
    spoiled[["outcome_purchase_days", "outcome_value", "outcome_churned"]] = 7.0
    assert recent_residuals(Labels.of(quarterly), 30, spoiled, NOW) == recent_residuals(
        Labels.of(quarterly), 30, panel, NOW
    )
    for cut in (partial_churn_windows, partial_value_windows):
        (clean,), (told,) = (cut(Labels.of(quarterly), one, ("days_since_last",), NOW) for one in (panel, spoiled))
        for ours, theirs in zip(clean, told, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_an_outcome_that_is_over_as_soon_needs_no_shorter_windows(quarterly: Project, panel: pd.DataFrame) -> None:
    project = quarterly.model_copy(update={"outcome": quarterly.outcome.model_copy(update={"horizon_days": 30})})
    assert recent_residuals(Labels.of(project), 30, panel, NOW) == ([], [])


def test_a_cut_window_is_what_the_totals_tell_of_it(quarterly: Project, panel: pd.DataFrame) -> None:
    names = tuple(feature_names(panel))
    (risk,), (worth,) = (
        cut(Labels.of(quarterly), panel, names, NOW) for cut in (partial_churn_windows, partial_value_windows)
    )
    then = panel[panel["as_of"] == NOW].set_index("customer_id")
    here = panel[(panel["as_of"] == NOW - pd.Timedelta(days=60)) & has_bought(panel)]
    later = then.loc[here["customer_id"]]
    past = frequency_recency_age(here)
    model = MBGNBD.fit(*past)
    for window in (risk, worth):
        assert window.share == 2 / 3  # 60 of 90 days; a window of 30 days ago is a third over only
        np.testing.assert_array_equal(window.x, design_matrix_of_panel(here, names, Horizons(90, 90)))
    np.testing.assert_array_equal(risk.observed, later["days_since_last"].to_numpy() > 60)
    part, whole = (log_odds(model.p_zero(days, *past)) for days in (60, 90))
    np.testing.assert_allclose(risk.offset, part - whole)
    spent = later["net_amount_total"].to_numpy() - here["net_amount_total"].to_numpy()
    np.testing.assert_allclose(worth.observed, np.maximum(spent, 0.0))
    ratio = model.expected_purchases(60, *past) / model.expected_purchases(90, *past)
    np.testing.assert_allclose(worth.offset, np.log(ratio))
    assert risk.offset.min() >= 0
    assert ratio.min() >= 2 / 3
    assert ratio.max() <= 1


def test_cut_windows_hold_those_at_risk_only(quarterly: Project, panel: pd.DataFrame) -> None:
    recent = quarterly.model_copy(update={"churn": quarterly.churn.model_copy(update={"active_days": 45})})
    (window,) = partial_churn_windows(Labels.of(recent), panel, ("days_since_last",), NOW)
    (everybody,) = partial_churn_windows(Labels.of(quarterly), panel, ("days_since_last",), NOW)
    kept = everybody.x[:, 0] <= 45
    np.testing.assert_array_equal(window.x, everybody.x[kept])
    np.testing.assert_array_equal(window.observed, everybody.observed[kept])


@pytest.mark.parametrize(
    ("section", "update", "silence", "spend"),
    [
        ("outcome", {"gap_days": 7}, 0, 0),
        ("churn", {"gap_days": 7}, 0, 1),
        ("churn", {"contract_renewal_days": 30}, 0, 1),
        ("value", {"measure": "margin"}, 1, 0),
        ("outcome", {"horizon_days": 30}, 0, 0),
        ("outcome", {"horizon_days": 61}, 1, 1),
        ("outcome", {"horizon_days": 60}, 1, 1),  # that of 30 days ago; the other is over
    ],
)
def test_windows_that_totals_do_not_tell_of_are_left_out(
    quarterly: Project, panel: pd.DataFrame, section: str, update: dict[str, Any], silence: int, spend: int
) -> None:
    changed = getattr(quarterly, section).model_copy(update=update)
    project = quarterly.model_copy(update={section: changed})
    assert len(partial_churn_windows(Labels.of(project), panel, ("days_since_last",), NOW)) == silence
    assert len(partial_value_windows(Labels.of(project), panel, ("days_since_last",), NOW)) == spend
