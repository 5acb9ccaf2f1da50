"""Before labels: the log loss and the error of values that the scores of today lead one to expect, and how wrong such.

Where probabilities are calibrated, they foretell their own log loss (as confidence-based performance estimation does);
what is not known is the level of the coming window, whose error gives the estimate its bounds. The absolute error of a
value is learned by size of the forecast from windows that are over (direct loss estimation). Both are shown beside what
they would have said at dates whose outcome is known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tiermodel.arrays import Flags, Floats
from tiermodel.monitoring.profiles import SHIFTS, Profiles

__all__ = ["Estimate", "estimates"]

_NORMAL = 1.645  # standard deviations on either side that hold 90 % of a normal distribution
_OFF = 0.12  # of a log loss: what it differs from the foretold one besides level and chance, as seasons change ranks
_CHECKED, _FEWEST = 13, 3  # dates, a fortnight apart
_HELD = 0.95  # of past misses: few of them are seen, and neighbours are alike


@dataclass(frozen=True)
class Estimate:
    """An error foretold, with the bounds that hold it nine times in ten, and its record at dates that are over.

    `checked` dates are over, `held` of them had the real error within the bounds; `mean_miss` is the mean absolute
    difference. NaN: nothing to tell.
    """

    name: str
    value: float
    low: float
    high: float
    checked: int
    held: int
    mean_miss: float

    def to_dict(self) -> dict[str, Any]:
        """Return the estimate as plain data."""
        return {**vars(self)}


def estimates(profiles: Profiles, level_sd: float, value_sd: float) -> list[Estimate]:
    """Return the estimates for the last date: `log_loss` of the churn risk, and `value_error`, MAE over mean value.

    `level_sd` and `value_sd` are the standard deviations of the level of a window, in log-odds and logarithms.
    """
    found = _log_loss(profiles, level_sd), _value_error(profiles, value_sd)
    return [one for one in found if one is not None]


def _log_loss(profiles: Profiles, level_sd: float) -> Estimate | None:
    s = profiles.sums
    n = s["at_risk"]
    if not n[-1]:
        return None
    with np.errstate(invalid="ignore", divide="ignore"):
        curves = s["loss_at"] / n[:, None]
        actual = s["loss"] / s["at_risk_known"]
        rates = s["risk"] / n
    bounds = np.array(
        [_bounds(curve, level_sd, rate, size) for curve, rate, size in zip(curves, rates, n, strict=True)]
    )
    return _checked("log_loss", curves[:, len(SHIFTS) // 2], bounds[:, 0], bounds[:, 1], actual)


def _bounds(curve: Floats, level_sd: float, rate: float, n: float) -> tuple[float, float]:
    """Return the least and the largest log loss if the level is off by what it may be, and customers vary by chance."""
    if not n or np.isnan(curve).any():
        return np.nan, np.nan
    middle = float(curve[len(SHIFTS) // 2])
    ends = np.interp([-_NORMAL * level_sd, _NORMAL * level_sd], SHIFTS, curve)
    chance = _NORMAL * float(np.hypot(np.sqrt(rate * (1 - rate) / n) * np.log(rate / (1 - rate)), _OFF * middle))
    below, above = middle - min(*ends, middle), max(*ends, middle) - middle
    return middle - float(np.hypot(below, chance)), middle + float(np.hypot(above, chance))


def _value_error(profiles: Profiles, value_sd: float) -> Estimate | None:
    s = profiles.sums
    over = ~np.isnan(s["error_bin"]).any(axis=1) & (s["rows_bin"].sum(axis=1) > 0)
    gap, whole = _gap(over), np.maximum(s["expected"], 1e-9)
    value, actual = np.full(len(over), np.nan), np.full(len(over), np.nan)
    actual[over] = s["error_bin"][over].sum(axis=1) / whole[over]
    for at in range(gap, len(over)):
        past = np.flatnonzero(over[: at - gap + 1])[-_CHECKED:]
        if len(past) >= _FEWEST:
            each = s["error_bin"][past].sum(axis=0) / np.maximum(s["rows_bin"][past].sum(axis=0), 1.0)
            value[at] = float(s["rows_bin"][at] @ each) / whole[at]
    low, high = (value * np.exp(sign * _NORMAL * value_sd) for sign in (-1, 1))
    return _checked("value_error", value, low, high, actual)


def _gap(over: Flags) -> int:
    """Return after how many dates an outcome is over, as the last dates show."""
    return int(len(over) - np.flatnonzero(over)[-1]) if over.any() else len(over)


def _checked(name: str, value: Floats, low: Floats, high: Floats, actual: Floats) -> Estimate | None:
    """Return the last value, with bounds that are wider where those of past dates were too narrow.

    How much too narrow is told, for every date, from the dates whose outcome was known by then.
    """
    if np.isnan(value[-1]) or np.isnan(low[-1]):
        return None
    over = ~np.isnan(actual) & ~np.isnan(value) & ~np.isnan(low)
    gap = _gap(over)
    half = np.where(actual >= value, high - value, value - low)
    off = np.abs(actual - value) / np.maximum(half, 1e-12)
    wider = np.ones(len(value))
    for at in range(gap, len(value)):
        past = np.flatnonzero(over[: at - gap + 1])[-_CHECKED:]
        if len(past) >= _FEWEST:
            wider[at] = max(1.0, float(np.quantile(off[past], _HELD)))
    low, high = value - wider * (value - low), value + wider * (high - value)
    known = np.flatnonzero(over)[-_CHECKED:]
    held = (low[known] <= actual[known]) & (actual[known] <= high[known])
    missed = float(np.mean(np.abs(actual[known] - value[known]))) if len(known) else np.nan
    return Estimate(name, float(value[-1]), float(low[-1]), float(high[-1]), len(known), int(held.sum()), missed)
