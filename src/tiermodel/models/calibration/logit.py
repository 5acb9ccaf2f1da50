"""Log-odds, and their calibration by intercept and slope."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize
from scipy.special import expit, logit

from tiermodel.arrays import Floats
from tiermodel.models.learners.time_split import Fold, stack_folds

__all__ = ["Calibration", "calibrate_folds", "calibrated", "fit_calibration", "intercept_for_rate", "log_odds"]

Calibration = tuple[float, float]
"""Intercept and slope on the log-odds scale."""

_CALIBRATION_ROWS = 50.0
_EDGE = 1e-6
_FARTHEST = 12.0


def log_odds(p: Floats) -> Floats:
    """Return log(p / (1 - p)), p kept a millionth away from 0 and 1."""
    return logit(np.clip(p, _EDGE, 1 - _EDGE))


def calibrated(odds: Floats, calibration: Calibration) -> Floats:
    """Return the probabilities of log-odds under an intercept and slope, kept a millionth away from 0 and 1."""
    return np.clip(expit(calibration[0] + calibration[1] * odds), _EDGE, 1 - _EDGE)


def fit_calibration(folds: Sequence[tuple[Floats, NDArray[Any]]]) -> Calibration:
    """Return intercept and slope fitted by log loss to pairs of log-odds and labels (1, 0).

    They are shrunk to 0 and 1 with the weight of fifty rows; without folds they are 0 and 1.
    """
    if not folds:
        return 0.0, 1.0
    odds = np.concatenate([o for o, _ in folds])
    observed = np.concatenate([h for _, h in folds]).astype(float)
    penalty = _CALIBRATION_ROWS / len(odds)

    def loss(theta: Floats) -> tuple[float, Floats]:
        score = theta[0] + theta[1] * odds
        residual = expit(score) - observed
        deviation = theta - np.array([0.0, 1.0])
        value = float(np.mean(np.logaddexp(0, score) - observed * score) + penalty * deviation @ deviation)
        return value, np.array([residual.mean(), (residual * odds).mean()]) + 2 * penalty * deviation

    minimum = minimize(loss, np.array([0.0, 1.0]), jac=True, method="L-BFGS-B", bounds=[(-3, 3), (0.2, 2)]).x
    return float(minimum[0]), float(minimum[1])


def calibrate_folds(rows: pd.DataFrame, folds: Sequence[Fold[Floats]]) -> tuple[Calibration, pd.DataFrame]:
    """Return the calibration of out-of-fold log-odds, and each fold's predictions as calibrated on the others."""

    def of(folds: Sequence[Fold[Floats]]) -> Calibration:
        return fit_calibration([(fold.prediction, fold.observed) for fold in folds])

    def on_others(fold: Fold[Floats], others: Sequence[Fold[Floats]]) -> dict[str, Floats]:
        return {"predicted": calibrated(fold.prediction, of(others))}

    return of(folds), stack_folds(rows, folds, on_others)


def intercept_for_rate(odds: Floats, rate: float) -> float:
    """Return the intercept that sets the mean probability of log-odds to `rate`, kept half a row away from 0 and 1.

    It lies between -12 and 12; where none of these suffices, as after a pause of the whole log, it is the nearer end.

    >>> round(intercept_for_rate(np.zeros(10), 0.75), 3)
    1.099
    """
    half = 0.5 / max(len(odds), 1)
    target = min(max(rate, half), 1 - half)

    def over(intercept: float) -> float:
        return float(expit(odds + intercept).mean() - target)

    if over(_FARTHEST) <= 0:
        return _FARTHEST
    if over(-_FARTHEST) >= 0:
        return -_FARTHEST
    intercept, _ = brentq(over, -_FARTHEST, _FARTHEST, full_output=True, disp=False)
    return float(intercept)
