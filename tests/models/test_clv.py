"""Lifetime value against closed forms, daily sums, and the way lifetimes adds it up."""

from __future__ import annotations

import math
from datetime import date

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import ArrayLike, NDArray
from pydantic import ValidationError
from scipy.special import hyperu

from tiermodel.config.project import Project
from tiermodel.config.targets import LifetimeValue
from tiermodel.features.outcome import Labels, LabelWindow
from tiermodel.features.panel import build_panel
from tiermodel.models.btyd.bg_nbd import BGNBD, MBGNBD
from tiermodel.models.btyd.clv import (
    DAYS_PER_YEAR,
    PurchaseModel,
    convert_rate,
    discount,
    discounted_purchases,
    lifetime_value,
)
from tiermodel.models.btyd.forecast import frequency_recency_age
from tiermodel.models.btyd.pareto_nbd import ParetoNBD
from tiermodel.predict import predict
from worlds import TrainedWorld

MODELS = [BGNBD(0.55, 60.0, 0.8, 2.4), MBGNBD(0.55, 60.0, 0.8, 2.4), ParetoNBD(0.6, 40.0, 0.7, 90.0)]
PAST = (np.array([0.0, 3.0, 20.0]), np.array([0.0, 200.0, 380.0]), np.array([1.0, 400.0, 400.0]))
every = pytest.mark.parametrize("model", MODELS, ids=lambda m: type(m).__name__)


class Steady:
    """Expect one purchase a day, for ever."""

    def expected_purchases(
        self,
        horizon: float,
        frequency: ArrayLike,
        recency: ArrayLike,  # noqa: ARG002
        age: ArrayLike,  # noqa: ARG002
    ) -> NDArray[np.float64]:
        """Give the horizon to everyone."""
        return np.full(np.shape(frequency), horizon)


@given(st.floats(-0.5, 3), st.floats(1, 400), st.floats(1, 400))
def test_rates_convert_there_and_back_and_compound(rate: float, days: float, to_days: float) -> None:
    assume(abs(math.log1p(rate)) * to_days / days < 10)  # beyond, all is lost, or more than a float can tell
    there = convert_rate(rate, days, to_days)
    assert convert_rate(there, to_days, days) == pytest.approx(rate, rel=1e-9, abs=1e-12)
    assert 1 + convert_rate(rate, days, 3 * days) == pytest.approx((1 + rate) ** 3)


@given(st.floats(0.001, 0.5), st.floats(0, 1500))
def test_a_steady_stream_is_worth_its_annuity(annual: float, horizon: float) -> None:
    force = math.log1p(annual) / DAYS_PER_YEAR
    found = discounted_purchases(Steady(), horizon, annual, 0, 0, 0)
    assert float(found) == pytest.approx(-math.expm1(-force * horizon) / force, rel=1e-4)


@every
@pytest.mark.parametrize("annual", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("horizon", [30, 365, 1095])
def test_a_purchase_is_worth_less_the_later_it_comes(model: PurchaseModel, annual: float, horizon: int) -> None:
    until = np.array([model.expected_purchases(day, *PAST) for day in range(horizon + 1)])
    factor = (1 + annual) ** (-(np.arange(horizon) + 0.5) / DAYS_PER_YEAR)
    daily = factor @ np.diff(until, axis=0)
    found = discounted_purchases(model, horizon, annual, *PAST)
    np.testing.assert_allclose(found, daily, rtol=2e-5)
    if annual == 0:
        np.testing.assert_array_equal(found, until[-1])


@every
def test_lifetimes_adds_months_up_at_their_ends(model: PurchaseModel) -> None:
    monthly = 0.01
    until = np.array([model.expected_purchases(30 * month, *PAST) for month in range(13)])
    theirs = (1 + monthly) ** -np.arange(1.0, 13) @ np.diff(until, axis=0)
    ours = discounted_purchases(model, 360, convert_rate(monthly, 30, DAYS_PER_YEAR), *PAST)
    np.testing.assert_allclose(ours, theirs * (1 + monthly) ** 0.5, rtol=1e-3)  # half a month earlier on average


def test_ten_years_are_the_published_closed_form() -> None:
    # DERT of Fader, Hardie and Lee, RFM and CLV (2005), by Tricomi's function: all to come, less what comes later.
    model = ParetoNBD(0.553, 10.578 * 7, 0.606, 11.669 * 7)
    frequency, recency, age = PAST
    force, horizon = math.log1p(0.15) / DAYS_PER_YEAR, 10 * DAYS_PER_YEAR
    r, alpha, s, beta = model.r, model.alpha, model.s, model.beta

    def endless(from_now: float) -> NDArray[np.float64]:
        since = beta + age + from_now
        return np.asarray(hyperu(s, s, force * since) * np.exp(-force * from_now))

    closed = model.p_alive(*PAST) * (r + frequency) / (alpha + age) * force ** (s - 1) * (beta + age) ** s
    closed *= endless(0.0) - endless(horizon)
    found = discounted_purchases(model, horizon, 0.15, frequency, recency, age)
    np.testing.assert_allclose(found, closed, rtol=2e-4)


# of customers, from their expected value


@pytest.fixture(scope="module")
def scored(trained: TrainedWorld) -> tuple[pd.DataFrame, NDArray[np.float64]]:
    frame = build_panel(trained.project, [date(2023, 11, 1)])
    bundle = trained.trained.bundle
    return frame, bundle.value.predict(bundle.inputs.matrix(frame))


def test_the_outcome_window_undiscounted_is_the_expected_value(
    trained: TrainedWorld, scored: tuple[pd.DataFrame, NDArray[np.float64]]
) -> None:
    model, window = trained.trained.bundle.inputs.forecaster.purchases, Labels.of(trained.project).value.window
    np.testing.assert_allclose(lifetime_value(model, window.days, 0.0, window, *scored), scored[1], rtol=1e-12)
    discounted = lifetime_value(model, window.days, 0.5, window, *scored)
    least = discount(window.days, 0.5)
    assert ((discounted <= scored[1]) & (discounted >= scored[1] * least)).all()


def test_one_record_equals_the_batch_and_a_gap_is_left_out(
    trained: TrainedWorld, scored: tuple[pd.DataFrame, NDArray[np.float64]]
) -> None:
    model, window = trained.trained.bundle.inputs.forecaster.purchases, LabelWindow(20, 80, 80)
    frame, value = scored
    whole = lifetime_value(model, 365, 0.1, window, frame, value)
    for i in range(0, len(frame), 37):
        assert lifetime_value(model, 365, 0.1, window, frame.iloc[i : i + 1], value[i : i + 1]) == whole[i]
        past = [column[:1] for column in frequency_recency_age(frame.iloc[i : i + 1])]
        purchases = model.expected_purchases(80, *past) - model.expected_purchases(20, *past)
        wanted = value[i] * discounted_purchases(model, 365, 0.1, *past) / purchases
        np.testing.assert_allclose(whole[i], wanted, rtol=1e-9)


def test_horizon_and_rate_are_stated_together(trained: TrainedWorld) -> None:
    given = trained.project.model_dump(mode="json", exclude={"folder"}, exclude_none=True)
    for clv, words in (({"horizon_days": 90}, "annual_rate"), ({"horizon_days": 90, "annual_rate": -0.1}, "0")):
        with pytest.raises(ValidationError, match=words):
            Project.model_validate({**given, "value": {"clv": clv}})
    assert trained.project.value.clv == LifetimeValue(horizon_days=365, annual_rate=0.1)


def test_the_score_table_and_the_card_state_it(
    trained: TrainedWorld, scored: tuple[pd.DataFrame, NDArray[np.float64]]
) -> None:
    bundle = trained.trained.bundle
    table = predict(bundle, scored[0])
    np.testing.assert_allclose(table["clv"], bundle.lifetime_value(*scored), atol=1e-4)
    assert "of the next 365 days, discounted at 10 % a year" in (trained.bundle / "card.md").read_text(encoding="utf-8")
    nobody = scored[0].assign(days_since_last=np.nan, days_since_first=np.nan)
    assert predict(bundle, nobody)["clv"].isna().all()
