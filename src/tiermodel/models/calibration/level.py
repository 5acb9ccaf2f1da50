"""Forecast of the coming window's level (its base rate or total) from residuals in earlier windows.

Learned models rank customers well, but their mean drifts where the log is young (its first snapshots hold the heaviest
buyers), grows, shrinks or has seasons. A buy-till-you-die model needs no outcomes and so has no such drift. Its
residual in an earlier window is one number; together these numbers show its lasting error and, a year back, the season.
Outcome windows that are over lie far back; shorter windows between snapshots show the level since.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from typing import Any, NamedTuple, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tiermodel.arrays import Floats
from tiermodel.config.targets import NO_DAYS, Calendar
from tiermodel.features.outcome import LabelWindow
from tiermodel.models.calibration.logit import intercept_for_rate

__all__ = [
    "AS_EXPECTED",
    "LevelForecast",
    "ObservedWindow",
    "forecast_level",
    "log_ratio_for_total",
    "residuals_by_date",
]

_LEAST_SHARE = 0.02
# Standard deviations and widths of the residuals, on a logarithmic scale; chosen on seeded worlds and on earlier dates
# of the benchmarks' logs. Half or double of any one of them changes the mean error of forecasts at the end of these
# logs by under 5 %; by up to 15 % with a shop among them that closes for weeks in summer.
_YEARLY, _YEAR_DAYS = ((0.3, 1.25), (0.2, 0.3)), 365.25  # seasons of months, and of weeks
_DRIFT_SD, _DRIFT_DAYS = 0.15, 90.0
_LENGTH_SD, _WINDOW_SD, _YOUNG_SD = 0.35, 0.1, 0.6
_YOUNG_SHARED = 0.5  # of the noise of a young log: a launch is no season that comes again
_KNOWN_DAYS_SD = 5.0  # of a window that consists of known days only
_TYPICAL, _TYPICAL_WINDOWS = 0.45, 6  # squared error over variance of most logs, and how many windows it counts as
_MOST_OF_A_YEAR_AGO = 0.8
_WITHIN = np.array([0.1, 0.3, 0.5, 0.7, 0.9])  # the moments, as shares of a window, at which its covariance is taken


def log_ratio_for_total(expected: Floats, total: float) -> float:
    """Return the logarithm of `total` over the expected total; the ratio is 0.02 at least, as returns may exceed sales.

    >>> log_ratio_for_total(np.array([1.0, 1.0]), 2.0)
    0.0
    """
    whole = max(float(expected.sum()), 1e-9)
    return float(np.log(max(total, _LEAST_SHARE * whole) / whole))


class ObservedWindow(NamedTuple):
    """The residual of a buy-till-you-die forecast in the days `first` to `last` after a past day, and its variance.

    The residual is observed minus expected in log-odds for a rate, in logarithms for a total. It is known `known_after`
    days after `day`; `history_days` is the length of the history before `day`; `variance` is that of sampling.
    """

    day: pd.Timestamp
    first: int
    last: int
    known_after: int
    history_days: float
    residual: float
    variance: float

    @classmethod
    def of_rate(
        cls, window: LabelWindow, day: pd.Timestamp, since_first: Floats, odds: Floats, observed: NDArray[Any]
    ) -> Self:
        """Return the residual of a rate in log-odds; `since_first` are the days since customers' first purchases."""
        rate = (observed.sum() + 0.5) / (len(observed) + 1)
        variance = 1 / (len(observed) * rate * (1 - rate))
        residual = intercept_for_rate(odds, observed.mean())
        return cls(day, window.first, window.last, window.known_after, since_first.max(), residual, float(variance))

    @classmethod
    def of_total(
        cls, window: LabelWindow, day: pd.Timestamp, since_first: Floats, expected: Floats, actual: Floats
    ) -> Self:
        """Return the residual of a total: the logarithm of the observed over the expected one."""
        mean = max(abs(float(actual.mean())), 1e-9)
        variance = min(float(actual.var()) / (len(actual) * mean**2), 1.0)
        residual = log_ratio_for_total(expected, float(actual.sum()))
        return cls(day, window.first, window.last, window.known_after, since_first.max(), residual, variance)


def residuals_by_date(
    measure: Callable[..., ObservedWindow], window: LabelWindow, rows: pd.DataFrame, *columns: NDArray[Any]
) -> list[ObservedWindow]:
    """Return the window of every date: `measure` (`of_rate` or `of_total`) of the `columns` of its rows."""
    since = rows["days_since_first"].to_numpy(dtype=np.float64)
    dates = rows.groupby("as_of").indices
    return [measure(window, pd.Timestamp(day), since[at], *(c[at] for c in columns)) for day, at in dates.items()]  # type: ignore[arg-type]


class LevelForecast(NamedTuple):
    """The forecast of the residual in a coming window, its standard deviation, and whether the log shows a year before.

    `year_seen` is whether past windows cover most of the same days a year earlier: else no season is known.
    """

    residual: float
    sd: float
    year_seen: bool


AS_EXPECTED = LevelForecast(0.0, 0.0, year_seen=True)
"""The level of a buy-till-you-die model, taken as certain."""


def forecast_level(
    windows: Sequence[ObservedWindow], day: pd.Timestamp, first: int, last: int, calendar: Calendar = NO_DAYS
) -> LevelForecast:
    """Return the forecast of the residual in the days `first` to `last` after a day.

    The residual is taken as a Gaussian process in time (kriging; Rasmussen and Williams 2006, chapter 2), and every
    window that is over by `day` as an observation of its average over that window. The covariance has yearly parts
    (seasons of months and of weeks), a part that drifts within months, a part shared by windows of similar length, and
    one for each kind of known days in `calendar`, by their share of a window. Windows after little history have more
    noise, half of it in common, since a young log shows its heaviest customers first. The forecast without windows is
    zero. Its standard deviation is scaled by how far earlier forecasts of windows of this length were off.

    >>> starts = pd.to_datetime(["2020-01-01", "2020-03-01", "2020-05-01"])
    >>> steady = [ObservedWindow(start, 0, 30, 30, 300.0, 0.2, 0.0) for start in starts]
    >>> level = forecast_level(steady, pd.Timestamp("2020-06-01"), 0, 30)
    >>> round(level.residual, 3), round(level.sd, 3), level.year_seen
    (0.175, 0.159, False)
    """
    seen = [w for w in windows if _known(w, day)]
    residual, variance = _forecast(seen, day, first, last, calendar)
    missed, earlier = _TYPICAL * _TYPICAL_WINDOWS, _TYPICAL_WINDOWS
    for w in seen:
        if (w.first, w.last) == (first, last) and w.history_days >= w.last:
            before, expected = _forecast([o for o in seen if _known(o, w.day)], w.day, first, last, calendar)
            missed += (w.residual - before) ** 2 / (expected + w.variance)
            earlier += 1
    return LevelForecast(residual, float(np.sqrt(variance * missed / earlier)), _year_seen(seen, day, first, last))


def _known(window: ObservedWindow, day: pd.Timestamp) -> bool:
    return bool(window.day + pd.Timedelta(days=window.known_after) <= day)


def _year_seen(seen: Sequence[ObservedWindow], day: pd.Timestamp, first: int, last: int) -> bool:
    """Return whether windows cover most of the days a year before those from `first` to `last` after a day."""
    then = np.arange(first, last) - _YEAR_DAYS
    covered = np.zeros(len(then), dtype=np.bool_)
    for w in seen:
        start = (w.day - day).days
        covered |= (start + w.first <= then) & (then < start + w.last)
    return bool(covered.mean() >= _MOST_OF_A_YEAR_AGO)


def _forecast(
    seen: Sequence[ObservedWindow], day: pd.Timestamp, first: int, last: int, calendar: Calendar
) -> tuple[float, float]:
    """Return the mean and the variance of the residual of a coming window, given windows that are over."""
    start = np.array([(w.day - day).days + w.first for w in seen] + [first], dtype=np.float64)
    length = np.array([w.last - w.first for w in seen] + [last - first], dtype=np.float64)
    moments = start[:, None] + length[:, None] * _WITHIN
    apart = np.abs(moments[:, None, :, None] - moments[None, :, None, :])
    season = np.sin(np.pi * apart / _YEAR_DAYS)
    yearly = sum(sd**2 * np.exp(-2 * (season / width) ** 2) for sd, width in _YEARLY)
    drifting = _DRIFT_SD**2 * np.exp(-apart / _DRIFT_DAYS)
    alike = _LENGTH_SD**2 * np.exp(-np.abs(np.log(length[:, None] / length)))
    shared = (yearly + drifting).mean(axis=(2, 3)) + alike
    for days in calendar.values():
        share = _share_of(days, day, start, length)
        shared += _KNOWN_DAYS_SD**2 * share[:, None] * share
    young = np.array([_YOUNG_SD * (w.last - w.first) / max(w.history_days, 1.0) for w in seen])
    noise = np.array([w.variance for w in seen]) + (1 - _YOUNG_SHARED) * young**2 + _WINDOW_SD**2
    own = shared[:-1, :-1] + _YOUNG_SHARED * young[:, None] * young + np.diag(noise)
    residuals = np.array([w.residual for w in seen])
    solved = np.linalg.solve(own, np.column_stack([residuals, shared[:-1, -1]]))
    mean, explained = shared[-1, :-1] @ solved
    return float(mean), float(max(shared[-1, -1] - explained, 0.0) + _WINDOW_SD**2)


def _share_of(days: Sequence[tuple[date, date]], day: pd.Timestamp, start: Floats, length: Floats) -> Floats:
    """Return the share of windows, given by start and length in days after a day, that lies in periods of days."""
    total = np.zeros(len(start))
    for opens, closes in days:
        begin, end = ((pd.Timestamp(one) - day).days for one in (opens, closes))
        total += np.clip(np.minimum(start + length, end + 1) - np.maximum(start, begin), 0.0, None)
    return total / length
