"""Metrics against values computed by hand, scikit-learn's, and the laws they must keep."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import rankdata
from sklearn.metrics import cohen_kappa_score, roc_auc_score
from sklearn.metrics import log_loss as sklearn_log_loss

from tiermodel.arrays import Floats, Ints
from tiermodel.errors import DataError
from tiermodel.evaluation.bootstrap import paired_bootstrap
from tiermodel.evaluation.metrics import (
    auc,
    churn_metrics,
    decile_mape,
    ece,
    ece_null_band,
    gini,
    gini_coefficient,
    herfindahl,
    log_loss,
    lorenz_curve,
    mean_ranks,
    pareto_share,
    quadratic_weighted_kappa,
    reliability_table,
    value_metrics,
    whale_curve,
)

amounts = st.integers(-1000, 1000).map(lambda cents: cents / 4)
pairs = st.integers(2, 40).flatmap(
    lambda n: st.tuples(arrays(np.float64, n, elements=amounts), st.permutations(range(n)))
)


@pytest.fixture(scope="module")
def churn() -> tuple[Floats, Floats]:
    rng = np.random.default_rng(7)
    predicted = np.round(rng.beta(1, 3, 3000), 3)
    return (rng.random(3000) < predicted).astype(np.float64), predicted


def test_churn_metrics_of_four_customers_by_hand() -> None:
    found = churn_metrics(np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8]))
    assert list(found) == ["n", "rate", "auc", "average_precision", "log_loss", "brier", "ece"]
    assert found == pytest.approx(
        {
            "n": 4,
            "rate": 0.5,
            "auc": 3 / 4,
            "average_precision": (1 / 1 + 2 / 3) / 2,
            "log_loss": -(math.log(0.9) + math.log(0.6) + math.log(0.35) + math.log(0.8)) / 4,
            "brier": (0.01 + 0.16 + 0.4225 + 0.04) / 4,
            "ece": (0.1 + 0.4 + 0.65 + 0.2) / 4,
        }
    )


def test_churn_metrics_agree_with_scikit_learn(churn: tuple[Floats, Floats]) -> None:
    found = churn_metrics(*churn)
    assert found["auc"] == pytest.approx(roc_auc_score(*churn), abs=1e-12)
    assert found["log_loss"] == pytest.approx(sklearn_log_loss(churn[0], np.clip(churn[1], 1e-15, 1)), abs=1e-12)


def test_one_class_has_no_auc_but_a_loss() -> None:
    nobody = churn_metrics(np.zeros(5), np.full(5, 0.25))
    assert math.isnan(nobody["auc"])
    assert math.isnan(nobody["average_precision"])
    assert nobody["log_loss"] == pytest.approx(-math.log(0.75))
    assert math.isnan(churn_metrics(np.ones(5), np.full(5, 0.25))["auc"])


def test_a_constant_prediction_ranks_nothing() -> None:
    found = churn_metrics(np.array([0, 1, 1, 1]), np.full(4, 0.75))
    assert (found["auc"], found["average_precision"], found["ece"]) == (0.5, 0.75, 0.0)


def test_certainty_gone_wrong_costs_a_finite_loss() -> None:
    assert log_loss(np.array([1, 0]), np.array([0.0, 0.0])) == pytest.approx(-math.log(1e-15) / 2)


def test_a_probability_of_one_falls_in_the_last_bin() -> None:
    assert ece(np.array([1.0, 0.0]), np.array([1.0, 0.0])) == 0.0
    assert ece(np.array([1, 0, 0]), np.array([0.95, 0.95, 1.0])) == pytest.approx((2.9 - 1) / 3)


@pytest.mark.parametrize(("n", "low", "high"), [(500, 0.055, 0.075), (2_000, 0.028, 0.037), (10_000, 0.012, 0.017)])
def test_perfect_calibration_still_shows_an_error(n: int, low: float, high: float) -> None:
    predicted = np.random.default_rng(n).beta(1, 3, n)
    assert low < ece_null_band(predicted, draws=200, seed=1) < high


def test_the_null_band_lets_a_calibrated_model_through_and_stops_a_biased_one() -> None:
    rng = np.random.default_rng(3)
    predicted = rng.beta(2, 5, 4000)
    band = ece_null_band(predicted, seed=1)
    passed = [ece(rng.random(4000) < predicted, predicted) < band for _ in range(200)]
    assert 0.89 < np.mean(passed) < 0.99
    assert ece(rng.random(4000) < predicted * 0.8, predicted) > band


def test_reliability_rows_by_hand() -> None:
    rows = reliability_table(np.array([0, 0, 0, 1, 1, 1, 1, 1, 1, 1]), np.repeat([0.1, 0.9], [4, 6]), bins=2)
    assert [row["count"] for row in rows] == [4, 6]
    assert [row["rate"] for row in rows] == [0.25, 1.0]
    # Wilson's interval for 1 of 4, from the textbook formula with z = 1.96.
    assert (rows[0]["low"], rows[0]["high"]) == pytest.approx((0.0456, 0.6994), abs=1e-4)
    assert (rows[1]["low"], rows[1]["high"]) == pytest.approx((0.6097, 1.0), abs=1e-4)


def test_reliability_bins_keep_every_customer_and_ties_together(churn: tuple[Floats, Floats]) -> None:
    rows = reliability_table(*churn)
    assert len(rows) == 10
    assert sum(row["count"] for row in rows) == len(churn[0])
    assert all(lower["predicted"] < upper["predicted"] for lower, upper in pairwise(rows))
    assert len(reliability_table(churn[0], np.full(len(churn[0]), 0.3))) == 1


def test_gini_by_hand_on_four_customers() -> None:
    actual = np.array([0.0, 0.0, 2.0, 8.0])
    # Cumulated best first: 8 10 10 10, excess over the diagonal 2.5 5 7.5 10 is 13; predicted order 2 10 10 10 gives 7.
    assert gini(actual, np.array([1.0, 2.0, 4.0, 3.0])) == pytest.approx(7 / 13)
    assert gini(actual, -actual) == pytest.approx(-1.0)
    assert gini(actual, np.zeros(4)) == 0.0
    assert math.isnan(gini(np.ones(4), actual))


def test_a_tie_is_worth_the_mean_of_its_orders() -> None:
    actual = np.array([0.0, 3.0, 5.0])
    orders = [gini(actual, np.array(p)) for p in ([1.0, 2.0, 3.0], [1.0, 3.0, 2.0])]
    assert gini(actual, np.array([1.0, 2.0, 2.0])) == pytest.approx(np.mean(orders))


@given(arrays(np.float64, st.integers(0, 50), elements=st.sampled_from([-np.inf, -1.5, 0.0, -0.0, 2.0, 7.0, np.inf])))
def test_ranks_are_those_of_scipy(values: Floats) -> None:
    assert mean_ranks(values).tolist() == rankdata(values).tolist()
    unknown = np.append(values, np.nan)
    assert np.isnan(mean_ranks(unknown)).all()
    assert np.isnan(rankdata(unknown)).all()


@given(pairs)
def test_gini_laws(drawn: tuple[Floats, list[int]]) -> None:
    actual, order = drawn
    predicted = np.asarray(order, dtype=np.float64) // 2
    value = gini(actual, predicted)
    if np.ptp(actual) == 0:
        assert math.isnan(value)
        return
    assert gini(actual, actual) == pytest.approx(1.0)
    assert -1 - 1e-9 <= value <= 1 + 1e-9
    assert gini(actual[order], predicted[order]) == pytest.approx(value, abs=1e-12)
    assert gini(100 * actual, np.exp(predicted / 10)) == pytest.approx(value, abs=1e-12)


@given(pairs)
@settings(max_examples=50)
def test_value_metrics_do_not_depend_on_the_order_of_rows_or_the_currency(drawn: tuple[Floats, list[int]]) -> None:
    actual, order = drawn
    predicted = actual[::-1] // 2
    found = value_metrics(actual, predicted)
    assert value_metrics(actual[order], predicted[order]) == pytest.approx(found, abs=1e-9, nan_ok=True)
    money = {"mae": 8.0, "rmse": 8.0}
    in_pence = {key: value * money.get(key, 1.0) for key, value in found.items()}
    assert value_metrics(8 * actual, 8 * predicted) == pytest.approx(in_pence, abs=1e-9, nan_ok=True)


def test_value_metrics_by_hand() -> None:
    found = value_metrics(np.array([0.0, 10.0, 20.0]), np.array([1.0, 15.0, 14.0]))
    assert list(found) == ["gini", "spearman", "mae", "rmse", "bias", "decile_mape"]
    assert found == pytest.approx(
        {
            "gini": 0.5,
            "spearman": 0.5,
            "mae": (1 + 5 + 6) / 3,
            "rmse": math.sqrt((1 + 25 + 36) / 3),
            "bias": 0.0,
            "decile_mape": (1.0 + 5 / 10 + 6 / 20) / 3,
        }
    )


def test_value_metrics_of_nothing_sold_are_undefined_not_infinite() -> None:
    found = value_metrics(np.zeros(3), np.array([0.0, 1.0, 2.0]))
    assert [key for key, value in found.items() if math.isnan(value)] == ["gini", "spearman", "bias"]
    assert found["decile_mape"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("actual", "predicted", "error"),
    [(0.0, 0.0, 0.0), (0.0, 5.0, 1.0), (-5.0, 5.0, 2.0), (-5.0, -4.0, 0.2), (4.0, 5.0, 0.25)],
)
def test_a_decile_without_sales_counts_a_bounded_error(actual: float, predicted: float, error: float) -> None:
    assert decile_mape(np.array([actual]), np.array([predicted])) == pytest.approx(error)


def test_deciles_are_ten_groups_of_equal_size() -> None:
    predicted = np.arange(1.0, 101.0)
    actual = predicted.copy()
    actual[90:] *= 2  # only the best decile is missed, by half
    assert decile_mape(actual, predicted) == pytest.approx(0.05)


def test_concentration_by_hand() -> None:
    values = np.array([1.0, 1.0, 2.0, 6.0, -2.0])
    shares, value = whale_curve(values)
    assert shares.tolist() == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert value.tolist() == pytest.approx([0, 0.75, 1.0, 1.125, 1.25, 1.0])
    assert lorenz_curve(values)[1].tolist() == pytest.approx([0, -0.25, -0.125, 0, 0.25, 1.0])
    assert pareto_share(values) == pytest.approx(0.75)
    assert pareto_share(values, top=0.3) == pytest.approx(0.875)
    assert herfindahl(values) == pytest.approx((1 + 1 + 4 + 36 + 4) / 64)
    assert gini_coefficient(np.array([1.0, 3.0])) == pytest.approx(0.25)
    assert gini_coefficient(np.full(7, 3.0)) == pytest.approx(0.0)


def test_shares_of_a_total_of_zero_are_undefined() -> None:
    for measure in (gini_coefficient, pareto_share, herfindahl):
        assert math.isnan(measure(np.array([1.0, -1.0])))


@given(arrays(np.float64, st.integers(1, 50), elements=st.integers(1, 500).map(float)))
def test_concentration_of_positive_values_ignores_currency_and_order(values: Floats) -> None:
    for measure in (gini_coefficient, pareto_share, herfindahl):
        assert measure(4 * values[::-1]) == pytest.approx(measure(values))
    assert 0.2 - 1e-9 <= pareto_share(values) <= 1
    assert 1 / len(values) - 1e-9 <= herfindahl(values) <= 1
    assert -1e-9 <= gini_coefficient(values) < 1


ratings = st.integers(2, 60).flatmap(lambda n: st.tuples(*[arrays(np.int64, n, elements=st.integers(0, 4))] * 2))


@given(ratings)
def test_kappa_is_symmetric_and_equals_the_weight_matrix_form(
    drawn: tuple[Ints, Ints],
) -> None:
    actual, predicted = drawn
    found = quadratic_weighted_kappa(actual, predicted, levels=5)
    assert quadratic_weighted_kappa(predicted, actual, levels=5) == pytest.approx(found, nan_ok=True)
    if math.isnan(found):
        assert len({*actual.tolist(), *predicted.tolist()}) == 1
        return
    assert found == pytest.approx(cohen_kappa_score(actual, predicted, weights="quadratic", labels=range(5)), abs=1e-9)


def test_kappa_refuses_a_tier_that_the_scheme_does_not_have() -> None:
    with pytest.raises(DataError, match="predicted: tier 4 is not among 0 to 3"):
        quadratic_weighted_kappa(np.array([0, 3]), np.array([0, 4]), levels=4)


@pytest.mark.parametrize("metric", [log_loss, auc, gini])
def test_bootstrap_finds_a_difference_and_no_difference(
    churn: tuple[Floats, Floats], metric: Callable[[Floats, Floats], float]
) -> None:
    actual, predicted = churn
    worse = np.clip(predicted + np.random.default_rng(1).normal(0, 0.2, len(actual)), 0.01, 0.99)
    difference, low, high = paired_bootstrap(metric, actual, predicted, worse, draws=200, seed=4)
    assert difference == metric(actual, predicted) - metric(actual, worse)
    assert low < difference < high
    assert low * high > 0
    assert paired_bootstrap(metric, actual, predicted, predicted, draws=20) == (0.0, 0.0, 0.0)
    assert paired_bootstrap(metric, actual, predicted, worse, draws=200, seed=4) == (difference, low, high)


def test_bootstrap_interval_covers_a_known_truth() -> None:
    rng = np.random.default_rng(11)
    covered = 0
    for trial in range(100):
        p = rng.beta(2, 3, 400)
        actual = (rng.random(400) < p).astype(np.float64)
        shifted = 0.1 + 0.7 * p
        truth = float(np.mean(p * np.log(shifted / p) + (1 - p) * np.log((1 - shifted) / (1 - p))))
        _, low, high = paired_bootstrap(log_loss, actual, p, shifted, draws=200, seed=trial)
        covered += low <= truth <= high
    assert 87 <= covered <= 100


def test_bootstrap_leaves_out_resamples_without_a_metric() -> None:
    actual = np.array([0.0, 0.0, 1.0])
    _, low, high = paired_bootstrap(auc, actual, np.array([0.1, 0.2, 0.9]), np.array([0.9, 0.5, 0.1]), draws=100)
    assert (low, high) == (1.0, 1.0)
    assert all(math.isnan(x) for x in paired_bootstrap(auc, np.zeros(3), np.arange(3.0), np.ones(3), draws=10))


@pytest.mark.parametrize(
    ("actual", "predicted", "message"),
    [
        ([], [], "equally long, filled"),
        ([0, 1], [0.5], "equally long, filled"),
        ([0, 1], [0.5, np.nan], "predicted: row 1 is nan"),
        ([0, np.inf], [0.5, 0.5], "actual: row 1 is inf"),
        ([0, 2], [0.5, 0.5], "actual: 2 is not 0 or 1"),
        ([0, 1], [0.5, 1.5], "predicted: 1.5 is not a probability"),
    ],
)
def test_churn_metrics_refuse_what_they_cannot_measure(
    actual: list[float], predicted: list[float], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        churn_metrics(np.array(actual), np.array(predicted))
