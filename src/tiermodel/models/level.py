"""Forecast how high the coming window will be, from how far a structural forecast missed in earlier windows.

Learned models rank customers well, but their mean drifts where the log is young (its first snapshots hold the heaviest
buyers), grows, shrinks or has seasons. A buy-till-you-die model needs no outcomes and so has no such drift: what it
missed in each earlier window is one number, and those numbers tell the lasting error and, a year back, the season.
Windows as long as the outcome's end early; shorter ones, between snapshots, tell what happened since.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize
from scipy.special import expit, logit

__all__ = [
    "Calibration",
    "Window",
    "calibrated",
    "chance_shift",
    "fit_calibration",
    "forecast_miss",
    "log_odds",
    "missed_by_date",
    "total_shift",
]

Floats = NDArray[np.float64]
Calibration = tuple[float, float]
"""Intercept and slope on the log-odds scale."""
Span = tuple[int, int, int]
"""The days after a date on which its window opens and closes, and on which all of it is known."""

_CALIBRATION_ROWS = 50.0
_EDGE = 1e-6
_FARTHEST = 12.0
_LEAST_SHARE = 0.02
# Standard deviations and widths of what is missed, on a logarithmic scale; chosen on seeded worlds and on earlier dates
# of the logs that benchmarks test on. Half or double of any one of them changes the mean error of the forecasts made at
# the end of these logs by under 5 %, with a shop that closes for weeks in summer among them by up to 15 %.
_YEARLY, _YEAR_DAYS = ((0.3, 1.25), (0.2, 0.3)), 365.25  # seasons of months, and of weeks
_DRIFT_SD, _DRIFT_DAYS = 0.15, 90.0
_LENGTH_SD, _WINDOW_SD, _YOUNG_SD = 0.35, 0.1, 0.6
_WITHIN = np.array([0.1, 0.3, 0.5, 0.7, 0.9])  # moments that stand for a window


def log_odds(p: Floats) -> Floats:
    """Give log(p / (1 - p)), p kept a millionth away from 0 and 1."""
    return logit(np.clip(p, _EDGE, 1 - _EDGE))


def calibrated(odds: Floats, calibration: Calibration) -> Floats:
    """Turn log-odds into probabilities by intercept and slope."""
    return np.clip(expit(calibration[0] + calibration[1] * odds), _EDGE, 1 - _EDGE)


def fit_calibration(seen: list[tuple[Floats, NDArray[np.bool_]]]) -> Calibration:
    """Fit intercept and slope by log loss, pulled to 0 and 1 as if by fifty rows; without later dates they stay."""
    if not seen:
        return 0.0, 1.0
    odds = np.concatenate([o for o, _ in seen])
    happened = np.concatenate([h for _, h in seen]).astype(float)
    pull = _CALIBRATION_ROWS / len(odds)

    def loss(theta: Floats) -> tuple[float, Floats]:
        score = theta[0] + theta[1] * odds
        missed = expit(score) - happened
        away = theta - np.array([0.0, 1.0])
        value = float(np.mean(np.logaddexp(0, score) - happened * score) + pull * away @ away)
        return value, np.array([missed.mean(), (missed * odds).mean()]) + 2 * pull * away

    found = minimize(loss, np.array([0.0, 1.0]), jac=True, method="L-BFGS-B", bounds=[(-3, 3), (0.2, 2)]).x
    return float(found[0]), float(found[1])


def chance_shift(odds: Floats, rate: float) -> float:
    """Give what to add to log-odds so that the mean probability is `rate`, kept within what the rows can tell.

    >>> round(chance_shift(np.zeros(10), 0.75), 3)
    1.099
    """
    half = 0.5 / max(len(odds), 1)
    wanted = min(max(rate, half), 1 - half)
    found, _ = brentq(lambda d: expit(odds + d).mean() - wanted, -_FARTHEST, _FARTHEST, full_output=True, disp=False)
    return float(found)


def total_shift(expected: Floats, total: float) -> float:
    """Give the logarithm of `total` over what was expected; a fiftieth of it at least, as returns may exceed it.

    >>> total_shift(np.array([1.0, 1.0]), 2.0)
    0.0
    """
    whole = max(float(expected.sum()), 1e-9)
    return float(np.log(max(total, _LEAST_SHARE * whole) / whole))


class Window(NamedTuple):
    """Hold what was missed, and its sampling variance, in the window of days `first` to `last` after a past `day`.

    It is known `over` days after that day; `history_days` had been seen before it.
    """

    day: pd.Timestamp
    first: int
    last: int
    over: int
    history_days: float
    missed: float
    variance: float

    @classmethod
    def of_chance(
        cls, span: Span, day: pd.Timestamp, since_first: Floats, odds: Floats, happened: NDArray[Any]
    ) -> Self:
        """Measure what log-odds lacked on average; `since_first` are the days since the customers' first purchase."""
        rate = (happened.sum() + 0.5) / (len(happened) + 1)
        variance = 1 / (len(happened) * rate * (1 - rate))
        return cls(day, *span, since_first.max(), chance_shift(odds, happened.mean()), float(variance))

    @classmethod
    def of_total(cls, span: Span, day: pd.Timestamp, since_first: Floats, expected: Floats, actual: Floats) -> Self:
        """Measure the logarithm of what came over what was expected."""
        mean = max(abs(float(actual.mean())), 1e-9)
        variance = min(float(actual.var()) / (len(actual) * mean**2), 1.0)
        return cls(day, *span, since_first.max(), total_shift(expected, float(actual.sum())), variance)


def missed_by_date(
    measure: Callable[..., Window], span: Span, rows: pd.DataFrame, *columns: NDArray[Any]
) -> list[Window]:
    """Apply `Window.of_chance` or `Window.of_total` to the rows of every date; columns as it takes them."""
    since = rows["days_since_first"].to_numpy(dtype=np.float64)
    dates = rows.groupby("as_of").indices
    return [measure(span, pd.Timestamp(day), since[at], *(c[at] for c in columns)) for day, at in dates.items()]  # type: ignore[arg-type]


def forecast_miss(windows: Sequence[Window], day: pd.Timestamp, first: int, last: int) -> float:
    """Forecast what will be missed from `first` to `last` days after a day.

    What is missed is taken as a Gaussian process in time (kriging; Rasmussen and Williams 2006, chapter 2) of which
    every window that is over by `day` shows an average: parts that come back every year, for months or for weeks, one
    that drifts within months, and one of its own for every length of window, alike for lengths alike. Windows seen from
    little history count less, since a young log shows its heaviest customers first. Without any the forecast is zero.

    >>> starts = pd.to_datetime(["2020-01-01", "2020-03-01", "2020-05-01"])
    >>> steady = [Window(start, 0, 30, 30, 300.0, 0.2, 0.0) for start in starts]
    >>> round(forecast_miss(steady, pd.Timestamp("2020-06-01"), 0, 30), 3)
    0.176
    """
    seen = [window for window in windows if window.day + pd.Timedelta(days=window.over) <= day]
    start = np.array([(w.day - day).days + w.first for w in seen] + [first], dtype=np.float64)
    length = np.array([w.last - w.first for w in seen] + [last - first], dtype=np.float64)
    moments = start[:, None] + length[:, None] * _WITHIN
    apart = np.abs(moments[:, None, :, None] - moments[None, :, None, :])
    season = np.sin(np.pi * apart / _YEAR_DAYS)
    yearly = sum(sd**2 * np.exp(-2 * (season / width) ** 2) for sd, width in _YEARLY)
    drifting = _DRIFT_SD**2 * np.exp(-apart / _DRIFT_DAYS)
    alike = _LENGTH_SD**2 * np.exp(-np.abs(np.log(length[:, None] / length)))
    shared = (yearly + drifting).mean(axis=(2, 3)) + alike
    young = np.array([_YOUNG_SD * (w.last - w.first) / max(w.history_days, 1.0) for w in seen])
    noise = np.array([w.variance for w in seen]) + young**2 + _WINDOW_SD**2
    return float(shared[-1, :-1] @ np.linalg.solve(shared[:-1, :-1] + np.diag(noise), [w.missed for w in seen]))
