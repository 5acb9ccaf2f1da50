"""Pareto/NBD against the published fit, the 2F1 form of its likelihood, quadrature, and simulated customers."""

from __future__ import annotations

import math
from dataclasses import asdict, astuple
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.special import hyp2f1

from tiermodel.errors import DataError
from tiermodel.models.btyd import pareto_nbd
from tiermodel.models.btyd.likelihood import cells_of
from tiermodel.models.btyd.pareto_nbd import ParetoNBD

Array = NDArray[np.float64]
GOLDEN = Path(__file__).parents[1] / "golden"
MODEL = ParetoNBD(r=0.6, alpha=40.0, s=0.7, beta=90.0)


@pytest.fixture(scope="module")
def cdnow() -> tuple[Array, Array, Array]:
    """Return frequency, recency and age in weeks, one row a customer (see test_btyd)."""
    cells = np.loadtxt(GOLDEN / "cdnow_sample_cells.csv", delimiter=",", skiprows=2)
    rows = np.repeat(cells, cells[:, 3].astype(int), axis=0)
    return rows[:, 0], rows[:, 1] / 7, rows[:, 2] / 7


def simulate(n: int, horizon: float, seed: int) -> tuple[Array, Array, Array, Array]:
    """Return frequency, recency, age and the purchases of the next `horizon`, by the story the model tells."""
    rng = np.random.default_rng(seed)
    rate = rng.gamma(MODEL.r, 1 / MODEL.alpha, n)
    left = rng.exponential(1 / rng.gamma(MODEL.s, 1 / MODEL.beta, n))
    age = rng.integers(30, 700, n).astype(np.float64)
    frequency, recency, future, now = (np.zeros(n) for _ in range(4))
    going = np.ones(n, dtype=bool)
    while going.any():
        now[going] += rng.exponential(1 / rate[going])
        going &= (now <= left) & (now <= age + horizon)
        before = going & (now <= age)
        frequency[before] += 1
        recency[before] = now[before]
        future[going & ~before] += 1
    return frequency, recency, age, future


def log_likelihood(model: ParetoNBD, x: float, recency: float, age: float) -> float:
    """Return one customer's log-likelihood in the published form (Fader and Hardie 2005), by 2F1."""
    r, alpha, s, beta = astuple(model)
    most, by_second = max(alpha, beta), s + 1 if alpha >= beta else r + x
    whole = r + s + x

    def part(t: float) -> float:
        return float(hyp2f1(whole, by_second, whole + 1, abs(alpha - beta) / (most + t)) / (most + t) ** whole)

    inside = (alpha + age) ** -(r + x) * (beta + age) ** -s + s / whole * (part(recency) - part(age))
    return math.lgamma(r + x) - math.lgamma(r) + r * math.log(alpha) + s * math.log(beta) + math.log(inside)


def test_the_fit_equals_the_published_one(cdnow: tuple[Array, Array, Array]) -> None:
    model = ParetoNBD.fit(*cdnow)
    assert astuple(model) == pytest.approx((0.553, 10.578, 0.606, 11.669), abs=1e-3)
    assert sum(log_likelihood(model, *row) for row in zip(*cdnow, strict=True)) == pytest.approx(-9595.0, abs=0.05)


def test_a_fit_depends_on_the_unit_of_time_in_scales_alone(cdnow: tuple[Array, Array, Array]) -> None:
    frequency, recency, age = cdnow
    weeks, days = ParetoNBD.fit(*cdnow), ParetoNBD.fit(frequency, 7 * recency, 7 * age)
    scaled = asdict(weeks) | {"alpha": 7 * weeks.alpha, "beta": 7 * weeks.beta}
    assert asdict(days) == pytest.approx(scaled, rel=1e-6)
    order = np.random.default_rng(0).permutation(len(frequency))
    assert ParetoNBD.fit(*(column[order] for column in cdnow)) == weeks


def test_a_fit_finds_the_parameters_of_simulated_customers() -> None:
    fitted = ParetoNBD.fit(*simulate(20_000, 0, seed=8)[:3])
    assert np.log(astuple(fitted)) == pytest.approx(np.log(astuple(MODEL)), abs=0.2)


@given(
    r=st.floats(0.1, 4),
    s=st.floats(0.1, 4),
    alpha=st.floats(0.5, 300),
    beta=st.floats(0.5, 300),
    x=st.integers(0, 12),
    seen=st.floats(0.05, 1),
    age=st.floats(1, 700),
)
def test_the_likelihood_is_the_published_one(
    r: float, s: float, alpha: float, beta: float, x: int, seen: float, age: float
) -> None:
    model = ParetoNBD(r, alpha, s, beta)
    recency = seen * age if x else 0.0
    assume(abs(alpha - beta) / (max(alpha, beta) + recency) < 0.95)  # nearer to 1, scipy's 2F1 loses digits
    cells = cells_of(np.array([float(x)]), np.array([recency]), np.array([age]))
    scaled = np.log([r, alpha / cells.unit, s, beta / cells.unit])
    ours = -pareto_nbd._loss(scaled, cells)[0] - x * math.log(cells.unit)
    assert ours == pytest.approx(log_likelihood(model, x, recency, age), rel=1e-7, abs=1e-7)


@given(
    r=st.floats(0.01, 9), s=st.floats(0.01, 9), alpha=st.floats(1e-3, 1e3), beta=st.floats(1e-3, 1e3),
    x=st.sampled_from([0, 1, 7, 300]), seen=st.floats(0.01, 0.99), age=st.floats(0.5, 3000),
)  # fmt: skip
def test_silence_is_its_integral_for_any_parameters(
    r: float, s: float, alpha: float, beta: float, x: int, seen: float, age: float
) -> None:
    start = seen * age if x else 0.0
    found = pareto_nbd._silence(ParetoNBD(r, alpha, s, beta), *(np.array([v]) for v in (float(x), start, age)))

    def there(y: float) -> float:
        return math.exp(
            -(r + x) * math.log1p((y - start) / (alpha + start)) - s * math.log1p((y - start) / (beta + start))
        )

    least = min(alpha, beta) + start

    def leaves(w: float) -> float:
        y = start + least * math.expm1(w)
        return s * there(y) / (beta + y) * least * math.exp(w)

    end = math.log1p((age - start) / least)
    edges = [end * 2.0**-k for k in range(11)]
    whole = sum(quad(leaves, a, b, epsabs=0, epsrel=1e-11)[0] for a, b in zip([*edges[1:], 0.0], edges, strict=True))
    assert found.total[0] == pytest.approx(there(age) + whole, rel=1e-6)
    assert 0 <= found.alive[0] <= found.total[0] <= 1 + 1e-12


def test_no_batch_size_changes_a_bit(cdnow: tuple[Array, Array, Array]) -> None:
    model, past = ParetoNBD(r=0.55, alpha=74.0, s=0.6, beta=82.0), [column[::7] for column in cdnow]
    whole = model.p_zero(60, *past)
    for size in (1, 2, 3, 5, 9, 17):
        parts = [model.p_zero(60, *(c[i : i + size] for c in past)) for i in range(0, len(whole), size)]
        np.testing.assert_array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize("theta", [[0.0, 0.0, 0.0, 0.0], [-1.4, -2.0, -0.2, 0.9], [2.0, 1.0, -2.0, 3.0]])
def test_the_gradient_is_that_of_finite_differences(theta: list[float], cdnow: tuple[Array, Array, Array]) -> None:
    cells, at, step = cells_of(*cdnow), np.array(theta), 1e-5
    moves = step * np.eye(4)
    slopes = [pareto_nbd._loss(at + m, cells)[0] - pareto_nbd._loss(at - m, cells)[0] for m in moves]
    assert pareto_nbd._loss(at, cells)[1] == pytest.approx(np.array(slopes) / (2 * step), rel=1e-5, abs=1e-7)


def test_predictions_hold_for_simulated_customers_of_every_history() -> None:
    horizon = 180.0
    *past, future = simulate(200_000, horizon, seed=2)
    frequency, recency, age = past
    expected, p_zero = MODEL.expected_purchases(horizon, *past), MODEL.p_zero(horizon, *past)
    idle = (age - recency) / age
    for group in (frequency == 0, frequency == 1, (frequency > 1) & (idle > 0.4), (frequency > 1) & (idle <= 0.4)):
        n = group.sum()
        assert n > 1000
        for error in (future[group] - expected[group], (future[group] == 0) - p_zero[group]):
            assert abs(error.mean()) < 4 * error.std() / np.sqrt(n)


@given(x=st.integers(0, 500), seen=st.floats(0, 1), age=st.floats(0, 10_000))
def test_probabilities_are_probabilities_and_hope_falls_with_time(x: int, seen: float, age: float) -> None:
    history = (x, seen * age if x else 0.0, age)
    alive = MODEL.p_alive(*history)[0]
    assert 0 <= alive <= 1 + 1e-12
    horizons = (0.0, 1.0, 30.0, 365.0, 1e5)
    none = [MODEL.p_zero(h, *history)[0] for h in horizons]
    expected = [MODEL.expected_purchases(h, *history)[0] for h in horizons]
    assert none[0] == pytest.approx(1.0, abs=1e-12)
    assert expected[0] == 0
    assert (np.diff(none) <= 1e-12).all()
    assert (np.diff(expected) >= 0).all()
    assert all(1 - zero <= mean + 1e-9 for zero, mean in zip(none, expected, strict=True))
    even = ParetoNBD(MODEL.r, MODEL.alpha, 1.0, MODEL.beta)  # the formula divides by s - 1
    near = ParetoNBD(MODEL.r, MODEL.alpha, 1.0 + 1e-9, MODEL.beta)
    assert even.expected_purchases(365, *history) == pytest.approx(near.expected_purchases(365, *history), rel=1e-6)


@pytest.mark.parametrize(
    "history",
    [
        ([3], [40], [60]),
        ([0], [0], [0]),
        ([0] * 500, [0] * 500, list(range(500))),
        ([0, 1, 10_000], [0, 20, 3000], [3000, 3000, 3000]),
        ([50] * 200, [400] * 200, [400] * 200),
        ([1] * 200, [1] * 200, [1000] * 200),
    ],
    ids=["one customer", "one order, today", "one-order customers", "huge frequency", "nobody leaves", "all leave"],
)
def test_hard_data_give_finite_models(history: tuple[list[float], ...]) -> None:
    model = ParetoNBD.fit(*history)
    assert np.isfinite(astuple(model)).all()
    for values in (model.p_alive(*history), model.p_zero(90, *history)):
        assert ((values >= 0) & (values <= 1)).all()
    expected = model.expected_purchases(90, *history)
    assert (np.isfinite(expected) & (expected >= 0)).all()


def test_impossible_input_is_refused() -> None:
    with pytest.raises(DataError, match="row 0: frequency 1, recency 5, age 4"):
        ParetoNBD.fit([1], [5], [4])
    with pytest.raises(DataError, match="horizon: -1"):
        MODEL.p_zero(-1, 0, 0, 10)
