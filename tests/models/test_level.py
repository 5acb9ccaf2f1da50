"""The level of the coming window: the Gaussian process against one day by day, seasons."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiermodel.models.calibration import level
from tiermodel.models.calibration.level import ObservedWindow, forecast_level

NOW = pd.Timestamp("2022-06-01")


def ended(days_ago: int, length: int, missed: float, *, seen: float = 400.0, variance: float = 0.01) -> ObservedWindow:
    """Give a window that was over so many days before `NOW`."""
    return ObservedWindow(NOW - pd.Timedelta(days=days_ago + length), 0, length, length, seen, missed, variance)


windows = st.lists(
    st.builds(
        ended,
        st.integers(0, 500),
        st.integers(7, 180),
        st.floats(-1, 1),
        seen=st.floats(10, 800),
        variance=st.floats(0.001, 0.5),
    ),
    min_size=1,
    max_size=6,
)


def by_days(seen: list[ObservedWindow], first: int, last: int) -> float:
    """Forecast in plain steps: a covariance for every pair of days, averaged over windows."""

    def covariance(one: range, other: range) -> float:
        total = 0.0
        for a in one:
            for b in other:
                for sd, width in level._YEARLY:
                    total += sd**2 * np.exp(-2 * (np.sin(np.pi * (a - b) / 365.25) / width) ** 2)
                total += level._DRIFT_SD**2 * np.exp(-abs(a - b) / level._DRIFT_DAYS)
        unlike = abs(np.log(len(one) / len(other)))
        return float(total / len(one) / len(other) + level._LENGTH_SD**2 * np.exp(-unlike))

    spans = [range((w.day - NOW).days + w.first, (w.day - NOW).days + w.last) for w in seen]
    ahead = range(first, last)
    noise = [
        w.variance + level._WINDOW_SD**2 + (level._YOUNG_SD * (w.last - w.first) / w.history_days) ** 2 for w in seen
    ]
    young = [level._YOUNG_SD * (w.last - w.first) / w.history_days for w in seen]
    common = level._YOUNG_SHARED * (np.outer(young, young) - np.diag(np.square(young)))
    known = np.array([[covariance(a, b) for b in spans] for a in spans]) + common + np.diag(noise)
    shared = np.array([covariance(a, ahead) for a in spans])
    return float(shared @ np.linalg.inv(known) @ np.array([w.residual for w in seen]))


@pytest.mark.parametrize(("first", "last"), [(0, 30), (7, 97), (0, 180)])
def test_five_moments_stand_for_the_days_of_a_window(first: int, last: int) -> None:
    seen = [ended(0, 30, 0.3), ended(60, 90, -0.2, seen=100), ended(330, 30, 0.5), ended(200, 60, 0.1, variance=0.2)]
    np.testing.assert_allclose(forecast_level(seen, NOW, first, last).residual, by_days(seen, first, last), atol=0.004)


@given(windows, st.randoms(use_true_random=False))
def test_order_decides_nothing(seen: list[ObservedWindow], shuffled: object) -> None:
    miss = forecast_level(seen, NOW, 0, 60).residual
    mixed = sorted(seen, key=lambda _: shuffled.random())  # type: ignore[attr-defined]
    np.testing.assert_allclose(forecast_level(mixed, NOW, 0, 60).residual, miss, atol=1e-9)
    assert abs(miss) < 2


@given(windows)
def test_a_window_that_is_not_over_tells_nothing(seen: list[ObservedWindow]) -> None:
    open_still = ended(-1, 30, 5.0)
    assert forecast_level([*seen, open_still], NOW, 0, 30).residual == forecast_level(seen, NOW, 0, 30).residual


def test_without_windows_nothing_is_missed() -> None:
    assert forecast_level([], NOW, 0, 30).residual == 0


def test_the_same_season_a_year_ago_tells_more_than_half_a_year_ago() -> None:
    steady = [ended(30 * k, 30, 0.0) for k in range(12)]
    a_year_ago, half_a_year_ago = list(steady), list(steady)
    a_year_ago[11], half_a_year_ago[5] = ended(330, 30, 1.0), ended(150, 30, 1.0)
    assert forecast_level(a_year_ago, NOW, 0, 30).residual > 3 * max(
        forecast_level(half_a_year_ago, NOW, 0, 30).residual, 0.05
    )


def test_a_break_of_four_weeks_a_year_ago_is_expected_in_the_same_weeks_only() -> None:
    a_year = [ended(30 * k, 30, 2.0 if k == 11 else 0.0) for k in range(13)]
    then, a_month_later = (forecast_level(a_year, NOW, first, first + 30).residual for first in (5, 35))
    assert then > 3 * max(a_month_later, 0.1)


def test_a_young_log_is_believed_less() -> None:
    old, young = (forecast_level([ended(0, 60, 1.0, seen=days)], NOW, 0, 60).residual for days in (400.0, 30.0))
    assert 0 < young < 0.5 * old


# the error of the level


@pytest.mark.parametrize("calm", [True, False])
def test_the_error_is_that_of_earlier_forecasts_and_smaller_where_a_year_was_seen(calm: bool) -> None:
    rng = np.random.default_rng(5)
    missed = rng.normal(0, 0.05 if calm else 1.0, 26)
    two_years = [ended(30 * k, 30, missed[k]) for k in range(26)]
    whole, short = forecast_level(two_years, NOW, 0, 30), forecast_level(two_years[:5], NOW, 0, 30)
    assert (whole.year_seen, short.year_seen) == (True, False)
    assert (whole.sd < 0.2) == calm
    assert (whole.sd < short.sd) == calm
    nothing = forecast_level([], NOW, 0, 30)
    assert 0.2 < nothing.sd < 0.6
    assert not nothing.year_seen


def test_a_launch_is_no_season() -> None:
    later = [ended(30 * k, 30, -0.2, seen=400.0 - 30 * k) for k in range(8)]
    launch = [ended(ago, 90, 0.5, seen=days) for ago, days in ((240, 90.0), (270, 60.0), (290, 40.0))]
    established = [w._replace(history_days=2_000.0) for w in launch]
    young, old = (forecast_level([*later, *w], NOW, 0, 60).residual for w in (launch, established))
    assert young < 0.5 * old


# known days


def test_known_days_move_the_level_of_windows_that_hold_them_only() -> None:
    closed = [(NOW - pd.Timedelta(days=40 * k)).date() for k in (1, 4, 7)]
    seen = [ended(40 * k - 20, 30, -0.6 if k in (1, 4, 7) else 0.0) for k in range(1, 9)]
    for days_ahead, moved in ((10, True), (200, False)):
        ahead = (NOW + pd.Timedelta(days=days_ahead)).date()
        calendar = {"closure": tuple((day, day + pd.Timedelta(days=6)) for day in (*closed, ahead))}
        plain, known = forecast_level(seen, NOW, 0, 30), forecast_level(seen, NOW, 0, 30, calendar)
        assert (known.residual < plain.residual - 0.2) == moved
    unknown = {"closure": ((NOW.date(), NOW.date()),)}
    assert forecast_level(seen, NOW, 0, 30, unknown).residual == pytest.approx(plain.residual)


def test_a_movable_holiday_is_a_share_of_each_window() -> None:
    start, length = np.array([0.0, 5.0, -40.0]), np.array([10.0, 30.0, 30.0])
    days = [((NOW + pd.Timedelta(days=8)).date(), (NOW + pd.Timedelta(days=14)).date())]
    np.testing.assert_allclose(level._share_of(days, NOW, start, length), [0.2, 7 / 30, 0.0])
