"""The probability of a rare event: the mean of a logistic regression and LightGBM, calibrated out of fold.

The two are averaged on the log-odds scale; intercept and slope of that mean are fitted to out-of-fold predictions, then
both members are trained again on all rows. Classes are never reweighted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from tiermodel.arrays import Flags, Floats, Ints
from tiermodel.models.calibration.logit import Calibration, calibrate_folds, calibrated, log_odds
from tiermodel.models.learners.boosting import Boosted, fit_boosted, map_threads
from tiermodel.models.learners.linear import Linear, fit_logistic
from tiermodel.models.learners.time_split import Split, both_classes, no_predictions, out_of_fold, split_by_date

__all__ = ["CalibratedEnsemble", "fit_calibrated_ensemble", "group_rates"]

_ROUNDS = 150
_FOLDS = 2
_GROUP_PRIOR = 20.0


@dataclass(frozen=True)
class CalibratedEnsemble:
    """A logistic regression and boosted trees, and the calibration (intercept, slope) of their mean log-odds."""

    names: tuple[str, ...]
    linear: Linear
    boosted: Boosted
    calibration: Calibration

    def predict(self, x: Floats) -> Floats:
        """Return each row's probability; `x` has the columns `names`, in that order."""
        return calibrated(_odds(self.linear, self.boosted, x), self.calibration)


def _odds(linear: Linear, boosted: Boosted, x: Floats) -> Floats:
    return (linear.decision(x) + log_odds(boosted.predict(x))) / 2


def group_rates(group: Ints, observed: Flags | Floats, now: Ints) -> Floats:
    """Return the past rate (or mean) of the group of each row in `now`, shrunk towards the overall one: a baseline.

    >>> group_rates(np.array([0, 0, 1]), np.array([True, True, False]), np.array([0, 1, 2])).round(2).tolist()
    [0.7, 0.63, 0.67]
    """
    size = int(max(group.max(initial=0), now.max(initial=0))) + 1
    count, seen = np.bincount(group, minlength=size), np.bincount(group, weights=observed, minlength=size)
    rates = (seen + _GROUP_PRIOR * observed.mean()) / (count + _GROUP_PRIOR)
    return np.asarray(rates[now])


def fit_calibrated_ensemble(
    rows: pd.DataFrame, x: Floats, observed: Flags, names: tuple[str, ...], delay_days: int, seed: int
) -> tuple[CalibratedEnsemble | None, pd.DataFrame]:
    """Return the model of rows sorted by key, or None where either class is too rare, and out-of-fold predictions.

    Labels are known after `delay_days`. Out-of-fold predictions have the keys, `actual` (1 = observed), and `predicted`
    as calibrated on the other folds.
    """
    if not both_classes(observed):
        return None, no_predictions(rows)

    def members(split: Split) -> tuple[Linear, Boosted]:
        train = split.train
        grown = fit_boosted(x[train], observed[train].astype(float), list(names), _ROUNDS, seed, objective="binary")
        return fit_logistic(x[train], observed[train]), grown

    splits = split_by_date(rows["as_of"], delay_days, _FOLDS, enough=lambda train: both_classes(observed[train]))
    *earlier, last = map_threads(members, [*splits, Split.of_all(rows["as_of"].max(), len(rows))])
    folds = list(out_of_fold(splits, earlier, observed.astype(float), lambda pair, at: _odds(*pair, x[at])))
    calibration, predictions = calibrate_folds(rows, folds)
    return CalibratedEnsemble(names, *last, calibration), predictions
