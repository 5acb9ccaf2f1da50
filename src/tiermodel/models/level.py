"""Forecast how high the coming window will be, from how far a structural forecast missed at earlier dates.

Learned models rank customers well, but their mean drifts where the log is young (its first snapshots hold the heaviest
buyers), grows, shrinks or has seasons. A buy-till-you-die model needs no outcomes and so has no such drift: what it
missed at each earlier date is one number a date, and those numbers tell the lasting error and, a year back, the season.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize
from scipy.special import expit, logit

__all__ = [
    "Calibration",
    "calibrated",
    "chance_shift",
    "fit_calibration",
    "forecast_miss",
    "log_odds",
    "misses",
    "seasoned",
    "total_shift",
]

Floats = NDArray[np.float64]
Calibration = tuple[float, float]
"""Intercept and slope on the log-odds scale."""

_CALIBRATION_ROWS = 50.0
_EDGE = 1e-6
_FARTHEST = 12.0
_LASTING_SD, _DATE_SD = 0.3, 0.15
_HALF_LIFE_DAYS = 180.0
_YEAR_DAYS, _SEASON_DAYS = 365.25, 20.0
_YOUNG_DAYS = 60
_LEAST_SHARE, _NEVER = 0.02, 1e-9


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


def seasoned(rows: pd.DataFrame, span_days: int) -> list[pd.Timestamp]:
    """List the dates of a panel whose history is as long as an outcome window, and two months; else the last one.

    A young log shows its heaviest customers first, and what is missed then says little of what is missed later.
    """
    length = rows.groupby("as_of")["days_since_first"].max()
    long = length.index[length >= max(span_days, _YOUNG_DAYS)]
    return list(long if len(long) else length.index[-1:])


def misses(days: Iterable[pd.Timestamp], shift: Iterable[float]) -> pd.Series:
    """Pair dates with what was missed, sorted by date."""
    return pd.Series(list(shift), index=pd.DatetimeIndex(list(days)), dtype=float).sort_index()


def forecast_miss(missed: pd.Series, now: pd.Timestamp, span_days: int) -> float:
    """Forecast the miss at `now` from those at earlier dates, index dates, all windows over by then.

    The lasting error is a mean of the dates, those of half a year ago counting half, pulled to zero as far as few or
    scattered dates leave doubt: between dates the error has the variance seen (0.15 squared before any are), the
    lasting one has 0.3 squared, and windows that overlap count in part. The more the dates differ beyond 0.15, the more
    two of them say about `now`: the latest, as far as a yearly wave would carry it on, and the one a year ago, in the
    same season. Without dates the forecast is zero.

    >>> days = pd.DatetimeIndex(["2020-01-01", "2020-03-01", "2020-05-01"])
    >>> steady = forecast_miss(pd.Series([0.2, 0.2, 0.2], days), pd.Timestamp("2020-07-01"), 30)
    >>> round(steady, 3)
    0.196
    """
    if missed.empty:
        return 0.0
    ago = np.array([(now - day).days for day in missed.index], dtype=np.float64)
    weight = 0.5 ** (ago / _HALF_LIFE_DAYS)
    weight /= weight.sum()
    values = missed.to_numpy()
    mean = float(weight @ values)
    scatter = float(weight @ (values - mean) ** 2)
    apart = min(1 / float(weight @ weight), 1 + (ago.max() - ago.min()) / span_days)
    between = (_DATE_SD**2 + len(values) * scatter) / (1 + len(values))
    lasting = mean * _LASTING_SD**2 / (_LASTING_SD**2 + between / apart)
    signal = scatter / (scatter + _DATE_SD**2)
    carried = signal * max(0.0, float(np.cos(2 * np.pi * ago.min() / _YEAR_DAYS))) * float(values[-1] - mean)
    near = np.exp(-(((ago - _YEAR_DAYS) / _SEASON_DAYS) ** 2) / 2)
    seen = float(near.sum())
    season = float(near @ values) / seen if seen > _NEVER else 0.0
    share = signal * min(seen, 1.0)
    return (1 - share) * (lasting + carried) + share * season
