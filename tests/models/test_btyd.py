"""Buy-till-you-die models against published fits, closed forms, simulated customers and degenerate data.

`golden/cdnow_sample_*.csv` is the CDNOW 1/10 sample of Fader and Hardie (2,357 customers, first purchase in the first
quarter of 1997, observed to 1997-09-30), as it ships with the package lifetimes 0.11.3 under the MIT licence,
copyright 2015 Cameron Davidson-Pilon; times as days, equal customers counted.
"""

from __future__ import annotations

import math
from dataclasses import asdict, astuple
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import hyp2f1

from tiermodel.errors import DataError
from tiermodel.models.btyd import bg_nbd, gamma_gamma
from tiermodel.models.btyd.bg_nbd import BGNBD, MBGNBD
from tiermodel.models.btyd.gamma_gamma import GammaGamma
from tiermodel.models.btyd.likelihood import cells_of

Array = NDArray[np.float64]
Purchases = BGNBD | MBGNBD

GOLDEN = Path(__file__).parents[1] / "golden"
BG = BGNBD(r=0.55, alpha=60.0, a=0.8, b=2.4)
MBG = MBGNBD(r=0.55, alpha=60.0, a=0.8, b=2.4)
both = pytest.mark.parametrize("model", [BG, MBG], ids=["bg", "mbg"])


@pytest.fixture(scope="module")
def cdnow() -> tuple[Array, Array, Array]:
    """Return frequency, recency and age in weeks, one row a customer."""
    cells = np.loadtxt(GOLDEN / "cdnow_sample_cells.csv", delimiter=",", skiprows=2)
    rows = np.repeat(cells, cells[:, 3].astype(int), axis=0)
    return rows[:, 0], rows[:, 1] / 7, rows[:, 2] / 7


@pytest.fixture(scope="module")
def spend() -> tuple[Array, Array]:
    rows = np.loadtxt(GOLDEN / "cdnow_sample_spend.csv", delimiter=",", skiprows=2)
    return rows[:, 0], rows[:, 1]


def simulate(model: Purchases, n: int, horizon: float, seed: int) -> tuple[Array, Array, Array, Array]:
    """Return frequency, recency, age and the purchases of the next `horizon`, by the story the models tell."""
    rng = np.random.default_rng(seed)
    rate, leaving = rng.gamma(model.r, 1 / model.alpha, n), rng.beta(model.a, model.b, n)
    age = rng.integers(30, 700, n).astype(np.float64)
    frequency, recency, future, now = (np.zeros(n) for _ in range(4))
    alive = rng.random(n) >= leaving if model.dropout_after_first else np.ones(n, dtype=bool)
    while alive.any():
        now[alive] += rng.exponential(1 / rate[alive])
        before, after = alive & (now <= age), alive & (now > age) & (now <= age + horizon)
        frequency[before] += 1
        recency[before] = now[before]
        future[after] += 1
        alive = (before | after) & (rng.random(n) >= leaving)
    return frequency, recency, age, future


@pytest.mark.parametrize(
    ("kind", "published"),
    [(BGNBD, (0.243, 4.414, 0.793, 2.426)), (MBGNBD, (0.525, 6.183, 0.891, 1.614))],
    ids=["Fader, Hardie and Lee 2005", "Batislam, Denizel and Filiztekin 2007"],
)
def test_purchase_fits_equal_the_published_ones(
    cdnow: tuple[Array, Array, Array], kind: type[Purchases], published: tuple[float, ...]
) -> None:
    assert len(cdnow[0]) == 2357
    assert astuple(kind.fit(*cdnow)) == pytest.approx(published, abs=6e-4)


def test_bg_fit_to_four_digits(cdnow: tuple[Array, Array, Array]) -> None:
    assert astuple(BGNBD.fit(*cdnow)) == pytest.approx((0.2426, 4.4136, 0.7929, 2.4259), abs=6e-5)


def test_gamma_gamma_fit_equals_the_published_one(spend: tuple[Array, Array]) -> None:
    assert len(spend[0]) == 946
    assert astuple(GammaGamma.fit(*spend)) == pytest.approx((6.25, 3.74, 15.44), abs=0.01)


def test_a_fit_depends_on_the_unit_of_time_in_alpha_alone(cdnow: tuple[Array, Array, Array]) -> None:
    frequency, recency, age = cdnow
    weeks, days = BGNBD.fit(*cdnow), BGNBD.fit(frequency, 7 * recency, 7 * age)
    assert asdict(days) == pytest.approx(asdict(weeks) | {"alpha": 7 * weeks.alpha}, rel=1e-6)


def test_a_fit_does_not_depend_on_the_order_of_rows(
    cdnow: tuple[Array, Array, Array], spend: tuple[Array, Array]
) -> None:
    order = np.random.default_rng(0).permutation(len(cdnow[0]))
    assert MBGNBD.fit(*(column[order] for column in cdnow)) == MBGNBD.fit(*cdnow)
    assert GammaGamma.fit(*(column[::-1] for column in spend)) == GammaGamma.fit(*spend)


@both
def test_a_fit_finds_the_parameters_of_simulated_customers(model: Purchases) -> None:
    frequency, recency, age, _ = simulate(model, 5000, 0, seed=8)
    fitted = type(model).fit(frequency, recency, age)
    assert np.log(astuple(fitted)) == pytest.approx(np.log(astuple(model)), abs=0.35)
    assert fitted.r / fitted.alpha == pytest.approx(model.r / model.alpha, rel=0.1)
    assert fitted.a / (fitted.a + fitted.b) == pytest.approx(0.25, abs=0.03)


def test_gamma_gamma_finds_the_parameters_of_simulated_customers() -> None:
    rng = np.random.default_rng(5)
    n = 20_000
    frequency = rng.integers(1, 8, n).astype(np.float64)
    mean_value = rng.gamma(4.0 * frequency, 1 / (frequency * rng.gamma(3.0, 1 / 20.0, n)))
    fitted = GammaGamma.fit(frequency, mean_value)
    assert astuple(fitted) == pytest.approx((4.0, 3.0, 20.0), rel=0.15)
    assert fitted.p * fitted.v / (fitted.q - 1) == pytest.approx(40.0, rel=0.02)


def log_likelihood(model: Purchases, x: float, recency: float, age: float) -> float:
    """Return one customer's log-likelihood in the form the papers print it, by the Beta and Gamma functions."""

    def log_beta(a: float, b: float) -> float:
        return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)

    n = x + model.dropout_after_first
    stayed = log_beta(model.a, model.b + n) - (model.r + x) * math.log(model.alpha + age)
    left = log_beta(model.a + 1, model.b + n - 1) - (model.r + x) * math.log(model.alpha + recency) if n else -math.inf
    purchases = math.lgamma(model.r + x) - math.lgamma(model.r) + model.r * math.log(model.alpha)
    return purchases - log_beta(model.a, model.b) + math.log(math.exp(stayed) + math.exp(left))


@both
def test_the_likelihood_of_cells_is_that_of_their_customers(
    model: Purchases, cdnow: tuple[Array, Array, Array]
) -> None:
    cells = cells_of(*cdnow)
    assert len(cells.share) == 1016
    one_by_one = np.mean([log_likelihood(model, *row) for row in zip(*cdnow, strict=True)])
    scaled = np.log([model.r, model.alpha / cells.unit, model.a, model.b])
    # Time in units of the mean age makes each of the purchases' densities larger by that unit.
    assert -bg_nbd._purchase_loss(scaled, cells, cells.frequency + model.dropout_after_first)[0] - cdnow[
        0
    ].mean() * np.log(cells.unit) == pytest.approx(one_by_one)


@both
@pytest.mark.parametrize("theta", [[0.0, 0.0, 0.0, 0.0], [-1.4, -2.0, -0.2, 0.9], [3.0, 2.0, -4.0, 5.0]])
def test_the_gradient_is_that_of_finite_differences(
    model: Purchases, theta: list[float], cdnow: tuple[Array, Array, Array], spend: tuple[Array, Array]
) -> None:
    cells = cells_of(*cdnow)
    chances = cells.frequency + model.dropout_after_first
    at, step = np.array(theta), 1e-5
    moves = step * np.eye(4)
    purchases = [
        bg_nbd._purchase_loss(at + m, cells, chances)[0] - bg_nbd._purchase_loss(at - m, cells, chances)[0]
        for m in moves
    ]
    assert bg_nbd._purchase_loss(at, cells, chances)[1] == pytest.approx(
        np.array(purchases) / (2 * step), rel=1e-5, abs=1e-7
    )
    frequency, mean_value = spend
    spent, three = frequency * mean_value / 40, at[:3]
    amount = [
        gamma_gamma._amount_loss(three + m, frequency, spent)[0]
        - gamma_gamma._amount_loss(three - m, frequency, spent)[0]
        for m in moves[:3, :3]
    ]
    found = gamma_gamma._amount_loss(three, frequency, spent)[1]
    assert found == pytest.approx(np.array(amount) / (2 * step), rel=1e-5, abs=1e-7)


@both
def test_predictions_hold_for_simulated_customers_of_every_history(model: Purchases) -> None:
    horizon = 180.0
    frequency, recency, age, future = simulate(model, 200_000, horizon, seed=2)
    expected = model.expected_purchases(horizon, frequency, recency, age)
    p_zero = model.p_zero(horizon, frequency, recency, age)
    idle = (age - recency) / age
    groups = [frequency == 0, frequency == 1, (frequency > 1) & (idle > 0.4), (frequency > 1) & (idle <= 0.4)]
    for group in (*groups, frequency > 10):
        n = group.sum()
        assert n > 1000
        error = future[group] - expected[group]
        assert abs(error.mean()) < 4 * error.std() / np.sqrt(n)
        nothing = (future[group] == 0) - p_zero[group]
        assert abs(nothing.mean()) < 4 * nothing.std() / np.sqrt(n)


@given(
    x=st.integers(0, 200),
    a=st.floats(0.05, 5).filter(lambda a: abs(a - 1) > 1e-3),
    b=st.floats(0.5, 5),
    horizon=st.floats(0.1, 500),
)
def test_expected_purchases_equal_the_published_closed_form(x: int, a: float, b: float, horizon: float) -> None:
    # Fader, Hardie and Lee (2005), equation 10.
    r, alpha, age = 0.3, 30.0, 300.0
    c = a + b + x - 1
    assume(c > 0.05)
    model = BGNBD(r, alpha, a, b)
    recency = 0.9 * age if x else 0.0
    series = hyp2f1(r + x, b + x, c, horizon / (alpha + age + horizon))
    closed = c / (a - 1) * (1 - ((alpha + age) / (alpha + age + horizon)) ** (r + x) * series)
    closed *= model.p_alive(x, recency, age)[0]
    assert model.expected_purchases(horizon, x, recency, age)[0] == pytest.approx(closed, rel=1e-6)


@both
def test_expected_purchases_have_no_hole_at_a_equal_to_one(model: Purchases) -> None:
    near = [type(model)(0.5, 60.0, a, 2.0).expected_purchases(90, 3, 200, 250)[0] for a in (1 - 1e-6, 1.0, 1 + 1e-6)]
    assert near[1] == pytest.approx((near[0] + near[2]) / 2, rel=1e-9)


@given(
    x=st.integers(0, 10_000),
    idle_share=st.floats(0, 1),
    age=st.floats(0, 3000),
    parameters=st.tuples(*[st.floats(0.01, 50)] * 4),
    kind=st.sampled_from([BGNBD, MBGNBD]),
)
@settings(max_examples=200)
def test_laws_of_the_next_purchase(
    x: int, idle_share: float, age: float, parameters: tuple[float, float, float, float], kind: type[Purchases]
) -> None:
    model = kind(*parameters)
    history = (x, age * (1 - idle_share) if x else 0.0, age)
    alive = model.p_alive(*history)[0]
    assert 0 <= alive <= 1
    horizons = (0.0, 1e-12, 1.0, 30.0, 365.0, 1e6)  # up to a million purchases a day are expected here
    none = [model.p_zero(h, *history)[0] for h in horizons]
    assert none[0] == 1.0
    assert none[1] == pytest.approx(1.0, abs=1e-3)
    assert all(later <= sooner for sooner, later in pairwise(none))
    assert none[-1] >= 1 - alive - 1e-12
    expected = [model.expected_purchases(h, *history)[0] for h in horizons]
    assert expected[0] == 0.0
    assert all(later >= sooner for sooner, later in pairwise(expected))
    # At least one purchase is at most the expected number of them.
    assert all(1 - zero <= mean + 1e-9 for zero, mean in zip(none, expected, strict=True))


@both
def test_whoever_lives_buys_in_the_end(model: Purchases) -> None:
    alive = model.p_alive(5, 300, 400)[0]
    assert model.p_zero(1e12, 5, 300, 400)[0] == pytest.approx(1 - alive, abs=1e-9)


def test_a_one_order_customer_may_have_left_in_mbg_alone() -> None:
    assert BG.p_alive(0, 0, [10, 1000]).tolist() == [1.0, 1.0]
    soon, late = MBG.p_alive(0, 0, [10, 1000])
    assert 0.7 < soon < 0.8
    assert 0.3 < late < 0.5


def test_silence_lowers_and_recent_purchases_raise_the_hope() -> None:
    recency = np.array([100.0, 200.0, 300.0, 400.0])
    assert (np.diff(MBG.p_alive(4, recency, 400)) > 0).all()
    assert (np.diff(MBG.expected_purchases(90, 4, recency, 400)) > 0).all()


@both
def test_one_record_equals_the_batch(model: Purchases) -> None:
    frequency, recency, age, _ = simulate(model, 300, 0, seed=3)
    batch = model.expected_purchases(90, frequency, recency, age)
    single = [model.expected_purchases(90, *row)[0] for row in zip(frequency, recency, age, strict=True)]
    assert batch.tolist() == single


HARD = {
    "one customer": ([3], [40], [60]),
    "one customer, one order, today": ([0], [0], [0]),
    "one-order customers only": ([0] * 500, [0] * 500, list(range(500))),
    "huge frequency": ([0, 1, 10_000], [0, 20, 3000], [3000, 3000, 3000]),
    "nobody leaves": ([50] * 200, [400] * 200, [400] * 200),
    "everybody leaves at once": ([1] * 200, [1] * 200, [1000] * 200),
    "like clockwork": ([12] * 50 + [24] * 50, [360] * 50 + [720] * 50, [365] * 50 + [725] * 50),
    "all on the first day": ([0] * 9 + [1], [0] * 10, [0] * 10),
}


@pytest.mark.parametrize("history", HARD.values(), ids=HARD)
@pytest.mark.parametrize("kind", [BGNBD, MBGNBD])
def test_hard_data_give_finite_models(kind: type[Purchases], history: tuple[list[float], ...]) -> None:
    model = kind.fit(*history)
    assert np.isfinite(astuple(model)).all()
    assert (np.array(astuple(model)) > 0).all()
    for values in (model.p_alive(*history), model.p_zero(90, *history)):
        assert ((values >= 0) & (values <= 1)).all()
    expected = model.expected_purchases(90, *history)
    assert (np.isfinite(expected) & (expected >= 0)).all()


def test_one_order_customers_only_promise_almost_no_purchase() -> None:
    model = BGNBD.fit(*HARD["one-order customers only"])
    assert model.expected_purchases(90, 0, 0, 100)[0] < 0.01


@pytest.mark.parametrize(
    ("frequency", "mean_value"),
    [([1], [20.0]), ([2] * 50, [9.99] * 50), ([1, 1, 1, 10_000], [1e-3, 5.0, 1e9, 7.0]), ([1, 0, 2], [5.0, 0.0, -3.0])],
    ids=["one customer", "identical amounts", "wild amounts", "one usable customer"],
)
def test_hard_amounts_give_finite_values(frequency: list[int], mean_value: list[float]) -> None:
    model = GammaGamma.fit(frequency, mean_value)
    assert np.isfinite(astuple(model)).all()
    values = model.expected_value([0, *frequency], [np.nan, *mean_value])
    assert np.isfinite(values).all()


def test_identical_amounts_are_expected_again() -> None:
    model = GammaGamma.fit([2] * 50, [9.99] * 50)
    assert model.expected_value([0, 2], [0.0, 9.99]).tolist() == pytest.approx([9.99, 9.99], rel=0.01)


def test_expected_value_moves_from_all_customers_to_the_customers_own() -> None:
    model = GammaGamma(p=6.25, q=3.74, v=15.44)
    values = model.expected_value([0, 1, 10, 10_000], 100.0)
    assert values[0] == pytest.approx(model.p * model.v / (model.q - 1))
    assert (np.diff(values) > 0).all()
    assert values[-1] == pytest.approx(100.0, rel=1e-3)


@pytest.mark.parametrize(
    ("history", "message"),
    [
        (([], [], []), "no customers"),
        (([1], [5], [4]), "row 0: frequency 1, recency 5, age 4 is no history"),
        (([1, 0], [5, 3], [9, 9]), "row 1: frequency 0, recency 3"),
        (([1, -1], [5, 0], [9, 9]), "row 1: frequency -1"),
        (([1, 1], [5, math.nan], [9, 9]), "recency: row 1 is nan"),
    ],
)
def test_impossible_histories_are_refused(history: tuple[list[float], ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        BGNBD.fit(*history)


def test_impossible_horizons_and_amounts_are_refused() -> None:
    with pytest.raises(DataError, match="horizon: -1"):
        MBG.p_zero(-1, 0, 0, 10)
    with pytest.raises(DataError, match="none of 2 customers has a repeat purchase of positive value"):
        GammaGamma.fit([0, 3], [10.0, -5.0])


@both
def test_a_model_survives_json(model: Purchases) -> None:
    assert type(model)(**asdict(model)) == model
