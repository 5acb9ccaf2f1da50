"""Medians and intervals of value: intervals hold their forecast, and nine in ten values of all kinds of customer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.stats import norm

from tiermodel.arrays import Floats
from tiermodel.models.value_spread import PastForecasts, Spread, fit_spread


def drawn(seed: int, rows: int = 12_000, nothing: float = 0.77) -> tuple[PastForecasts, Floats]:
    """Draw customers of whom a share spends nothing, with the true mean and log-odds; also return the true median."""
    rng = np.random.default_rng(seed)
    odds = rng.normal(np.log(nothing / (1 - nothing)), 1.5, rows)
    chance, size, sd = 1 / (1 + np.exp(-odds)), np.exp(rng.normal(3, 1, rows)), 0.7
    value = np.where(rng.random(rows) < chance, 0.0, size * np.exp(rng.normal(0, sd, rows)))
    rank = (0.5 - chance) / (1 - chance)
    median = np.where(chance >= 0.5, 0.0, size * np.exp(sd * norm.ppf(np.clip(rank, 1e-9, 1))))
    return PastForecasts((1 - chance) * size * np.exp(sd**2 / 2), odds, value), median


amounts = st.floats(-1e6, 1e9, allow_subnormal=False)
spreads = st.integers(2, 400).flatmap(
    lambda n: st.tuples(
        arrays.arrays(np.float64, n, elements=st.floats(0, 1e9, allow_subnormal=False)),
        arrays.arrays(np.float64, n, elements=st.floats(-30, 30)),
        arrays.arrays(np.float64, n, elements=amounts),
    )
)


@given(spreads, st.floats(0, 2), st.data())
def test_no_interval_leaves_its_own_forecast_out(
    columns: tuple[Floats, Floats, Floats], level_sd: float, data: st.DataObject
) -> None:
    spread = fit_spread(PastForecasts(*columns))
    spread = Spread(**{**vars(spread), "level_sd": level_sd})
    mean = data.draw(arrays.arrays(np.float64, 20, elements=st.floats(0, 1e9, allow_subnormal=False)))
    odds = data.draw(arrays.arrays(np.float64, 20, elements=st.floats(-30, 30)))
    found = spread.outlook(mean, odds)
    for inside in (found.mean, found.median):
        assert (found.low <= inside).all()
        assert (inside <= found.high).all()
    assert np.isfinite(np.stack(found)).all()
    alone = spread.outlook(mean[3:4], odds[3:4])
    assert [column[0] for column in alone] == [column[3] for column in found]
    assert Spread.from_dict(spread.to_dict()) == spread


@pytest.mark.parametrize("nothing", [0.05, 0.4, 0.77, 0.97])
def test_nine_in_ten_values_are_held_also_among_the_many_and_the_few(nothing: float) -> None:
    spread = fit_spread(drawn(1, nothing=nothing)[0])
    fresh, median = drawn(2, nothing=nothing)
    found = spread.outlook(fresh.mean, fresh.nothing)
    held = (found.low <= fresh.actual) & (fresh.actual <= found.high)
    assert 0.88 < held.mean() < max(0.93, nothing + 0.02)
    edges = np.quantile(fresh.mean, [0.5, 0.8, 0.95])
    group = np.searchsorted(edges, fresh.mean)
    assert min(held[group == g].mean() for g in range(4)) > 0.85
    sure = fresh.nothing > np.log(9)
    assert (found.low[sure] == 0).all()
    assert not np.any(found.high[sure] < found.mean[sure])
    assert np.abs(found.median - fresh.actual).mean() < 1.02 * np.abs(median - fresh.actual).mean()
    assert np.abs(found.median - fresh.actual).mean() < np.abs(fresh.mean - fresh.actual).mean()


def test_intervals_reach_below_zero_where_values_did() -> None:
    past, _ = drawn(3, nothing=0.5)
    returned = np.random.default_rng(0).random(len(past.mean)) < 0.15
    spread = fit_spread(past._replace(actual=np.where(returned, -past.mean, past.actual)))
    found = spread.outlook(past.mean, past.nothing)
    assert np.mean(found.low < 0) > 0.9


def test_an_uncertain_level_widens_an_interval_as_independent_errors_add() -> None:
    spread = fit_spread(drawn(4, nothing=0.05)[0])
    mean, odds = np.full(1, 20.0), np.full(1, -6.0)
    plain, wide = (Spread(**{**vars(spread), "level_sd": sd}).outlook(mean, odds) for sd in (0.0, 0.5))
    middle = plain.median[0]
    up = np.log(plain.high[0] / middle)
    assert np.log(wide.high[0] / middle) == pytest.approx(np.hypot(up, 1.645 * 0.5), abs=0.02)
    assert wide.low[0] < plain.low[0]
    assert (wide.mean[0], wide.median[0]) == (plain.mean[0], plain.median[0])
