"""Campaign profit against golden values, brute force and numerical integration."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import beta

from tiermodel.arrays import Floats
from tiermodel.errors import DataError
from tiermodel.evaluation.profit import (
    Campaign,
    contact_threshold,
    decile_ratio,
    expected_maximum_profit,
    maximum_profit,
    profit_curve,
)


@pytest.fixture(scope="module")
def scored() -> tuple[Floats, Floats]:
    """Give the customers of the golden values: 15 % churn, a noisy score."""
    rng = np.random.default_rng(7)
    y = (rng.random(2000) < 0.15).astype(np.float64)
    return y, np.clip(0.15 + 0.25 * y + rng.normal(0, 0.12, 2000), 0.001, 0.999)


def brute_force(y: Floats, p: Floats, campaign: Campaign, accepted: float) -> float:
    """Try every threshold for one acceptance, in plain Python."""
    best = 0.0
    for threshold in sorted(set(p.tolist())):
        earned = 0.0
        for churned, risk in zip(y, p, strict=True):
            if risk >= threshold:
                kept = accepted * (campaign.value - campaign.incentive) - campaign.contact
                earned += kept if churned else -campaign.incentive - campaign.contact
        best = max(best, earned / len(y))
    return best


def test_golden_values(scored: tuple[Floats, Floats]) -> None:
    y, p = scored
    assert expected_maximum_profit(y, p) == pytest.approx((5.778454926057, 0.245463586839), abs=1e-9)
    assert maximum_profit(y, p) == pytest.approx((5.7435, 0.2575), abs=1e-9)
    assert expected_maximum_profit(y, np.round(p, 1)) == pytest.approx((5.516806686632, 0.274587636626), abs=1e-9)
    assert expected_maximum_profit(y, np.where(y == 1, 0.9, 0.1)).profit == pytest.approx(8.2320000000115, abs=1e-9)
    assert expected_maximum_profit(y, np.full(2000, 0.15)).profit == pytest.approx(0.666204239398, abs=1e-9)


customers = st.lists(st.tuples(st.booleans(), st.integers(0, 6)), min_size=1, max_size=25)


@given(customers, st.floats(1, 500), st.floats(0, 40), st.floats(0, 5))
def test_best_threshold_is_the_one_that_brute_force_finds(
    rows: list[tuple[bool, int]], value: float, incentive: float, contact: float
) -> None:
    y, p = np.array([r[0] for r in rows], dtype=float), np.array([r[1] / 7 for r in rows])
    campaign = Campaign(value, incentive, contact)
    expected = brute_force(y, p, campaign, campaign.accepted)
    assert maximum_profit(y, p, campaign).profit == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_expected_profit_is_the_mean_over_acceptance(seed: int) -> None:
    rng = np.random.default_rng(seed)
    y, p = (rng.random(30) < 0.4).astype(float), np.round(rng.random(30), 1)
    campaign = Campaign(value=60.0, incentive=4.0, contact=2.0)
    density = beta(campaign.alpha, campaign.beta).pdf
    expected, _ = quad(lambda g: brute_force(y, p, campaign, g) * density(g), 0, 1, limit=200)
    assert expected_maximum_profit(y, p, campaign).profit == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("churned", [0.0, 1.0])
def test_one_class_and_worthless_customers_have_an_answer(churned: float) -> None:
    y, p = np.full(4, churned), np.array([0.1, 0.4, 0.4, 0.9])
    found = expected_maximum_profit(y, p)
    assert found.profit == pytest.approx(56.0 * churned, abs=1e-3)
    assert expected_maximum_profit(y, p, Campaign(value=5.0)) == (0.0, 0.0)
    assert expected_maximum_profit(y, p, Campaign(incentive=0.0, contact=0.0)).profit == pytest.approx(60 * churned)


def test_equal_risks_and_the_order_of_rows_change_nothing(scored: tuple[Floats, Floats]) -> None:
    y, p = scored[0], np.round(scored[1], 1)
    backwards = expected_maximum_profit(y[::-1], p[::-1])
    assert backwards == pytest.approx(expected_maximum_profit(y, p), abs=1e-12)
    assert len(profit_curve(y, p)[0]) == len(np.unique(p)) + 1


def test_each_customer_counts_at_its_own_value() -> None:
    y, p = np.array([1.0, 1.0, 0.0]), np.array([0.9, 0.8, 0.1])
    shares, profit = profit_curve(y, p, value=[1000.0, 0.0, 50.0])
    assert shares.tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert (profit * 3).tolist() == pytest.approx([0.0, 296.0, 292.0, 281.0])
    assert maximum_profit(y, p, value=[1000.0, 0.0, 50.0]) == pytest.approx((296 / 3, 1 / 3))


def test_threshold_is_where_a_contact_pays_for_itself() -> None:
    campaign, values = Campaign(), np.array([30.0, 200.0, 5000.0])
    risk = contact_threshold(values, campaign)
    kept = campaign.accepted * (values - campaign.incentive) - campaign.contact
    assert risk * kept - (1 - risk) * (campaign.incentive + campaign.contact) == pytest.approx(0.0)
    assert np.isinf(contact_threshold([-100.0, 0.0, 10.0])).all()


def test_decile_ratio_takes_customers_in_part() -> None:
    assert decile_ratio(np.array([1.0, 2.0, 3.0, 4.0, 5.0])) == pytest.approx(2.5 / 0.5)
    assert np.isnan(decile_ratio(np.array([-1.0, 2.0, 3.0])))


def test_bad_campaigns_and_scores_are_refused() -> None:
    with pytest.raises(DataError, match="no campaign"):
        Campaign(contact=-1.0)
    with pytest.raises(DataError, match="not a probability"):
        expected_maximum_profit(np.array([0.0, 1.0]), np.array([0.1, 1.5]))
