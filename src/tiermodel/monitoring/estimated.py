"""Before labels: the log loss and the error of values that the scores of today lead one to expect, and how wrong such.

Where probabilities are calibrated, they foretell their own log loss (as confidence-based performance estimation does).
The absolute error of a value is learned by size of the forecast from windows that are over (direct loss estimation).
How far off that may be is told by the same estimate at past dates whose outcome is known, as it would have been made
then; what the model itself says about the level of a coming window stands in where such dates are few.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
from scipy.stats import t as student

from tiermodel.arrays import Flags, Floats
from tiermodel.monitoring.drift import STEP_DAYS
from tiermodel.monitoring.profiles import SHIFTS, Profiles

__all__ = ["Estimate", "estimates"]

_HELD = 0.90
_FEWEST, _YEAR, _CHECKED = 3, 26, 13  # dates, a fortnight apart
_STATED = 2.0  # independent past errors that the model's own statement about levels counts for


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


def estimates(profiles: Profiles, level_sd: float, value_sd: float, delay_days: int, old_from: date) -> list[Estimate]:
    """Return the estimates for the last date: `log_loss` of the churn risk, and `value_error`, MAE over mean value.

    `level_sd` and `value_sd` are the standard deviations of the level of a window, in log-odds and logarithms, and
    `delay_days` the days until an outcome is known. Errors of dates before `old_from`, on which the log was shorter
    than the longest window, are left out as long as there are others.
    """
    old = np.array([day >= old_from for day in profiles.dates])
    found = _log_loss(profiles, level_sd, delay_days, old), _value_error(profiles, value_sd, delay_days, old)
    return [one for one in found if one is not None]


def _log_loss(profiles: Profiles, level_sd: float, delay_days: int, old: Flags) -> Estimate | None:
    s = profiles.sums
    n = s["at_risk"]
    if not n[-1]:
        return None
    with np.errstate(invalid="ignore", divide="ignore"):
        curves = s["loss_at"] / n[:, None]
        actual = s["loss"] / s["at_risk_known"]
        rates = s["risk"] / n
    stated = np.array(
        [_stated(curve, level_sd, rate, size) for curve, rate, size in zip(curves, rates, n, strict=True)]
    )
    return _checked("log_loss", curves[:, len(SHIFTS) // 2], stated, actual, delay_days, old)


def _stated(curve: Floats, level_sd: float, rate: float, n: float) -> float:
    """Return the standard deviation of a log loss, as a share of it: of the level, and by chance of customers."""
    middle = float(curve[len(SHIFTS) // 2])
    if not n or np.isnan(curve).any() or not middle:
        return np.nan
    level = float(np.abs(np.interp([-level_sd, level_sd], SHIFTS, curve) - middle).max())
    chance = float(np.sqrt(rate * (1 - rate) / n) * np.log(rate / (1 - rate)))
    return float(np.hypot(level, chance)) / middle


def _value_error(profiles: Profiles, value_sd: float, delay_days: int, old: Flags) -> Estimate | None:
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
    return _checked("value_error", value, np.full(len(over), value_sd), actual, delay_days, old)


def _gap(over: Flags) -> int:
    """Return after how many dates an outcome is over, as the last dates show."""
    return int(len(over) - np.flatnonzero(over)[-1]) if over.any() else len(over)


def _checked(name: str, value: Floats, stated: Floats, actual: Floats, delay_days: int, old: Flags) -> Estimate | None:
    """Return the last value, with bounds told by the errors of the year of estimates whose outcome is known by then.

    Errors are of logarithms. Neighbouring dates share most of their outcome, so they count as so many independent ones
    as fit into their time; the half-width is a quantile of Student's t.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.log(actual / value)
    over = np.isfinite(error)
    if np.isnan(value[-1]) or np.isnan(stated[-1]):
        return None
    gap, half = _gap(over), np.full(len(value), np.nan)
    for at in range(len(value)):
        known = np.flatnonzero(over[: max(at - gap + 1, 0)])
        past = known[old[known]] if old[known].sum() >= _FEWEST else known
        errors = error[past[-_YEAR:]]
        independent = len(errors) * STEP_DAYS / max(delay_days, STEP_DAYS)
        squares = _STATED * stated[at] ** 2 + independent * float(np.mean(errors**2) if len(errors) else 0.0)
        whole = _STATED + independent
        half[at] = student.isf((1 - _HELD) / 2, whole) * np.sqrt(squares / whole)
    known = np.flatnonzero(over)[-_CHECKED:]
    held = np.abs(error[known]) <= half[known]
    missed = float(np.mean(np.abs(actual[known] - value[known]))) if len(known) else np.nan
    low, high = (float(value[-1] * np.exp(sign * half[-1])) for sign in (-1, 1))
    return Estimate(name, float(value[-1]), low, high, len(known), int(held.sum()), missed)
