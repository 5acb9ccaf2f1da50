"""The chance of something rare that may come: a logistic regression and trees, calibrated on later snapshots.

The two are averaged on the log-odds scale; slope and intercept of that average come from later snapshots than the
members were trained on, then the members are trained again on everything. Classes are never reweighted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tiermodel.features.frame import KEYS
from tiermodel.models.boosted import Boosted, fit_boosted, side_by_side
from tiermodel.models.folds import rolling_folds
from tiermodel.models.level import Calibration, calibrated, fit_calibration, log_odds
from tiermodel.models.linear import Linear, fit_logistic

__all__ = ["Chance", "fit_chance", "group_rates"]

Floats = NDArray[np.float64]
FEWEST = 20
"""So many of either kind are needed; with fewer there is no model."""

_ROUNDS = 150
_FOLDS = 2
_GROUP_PRIOR = 20.0


@dataclass(frozen=True)
class Chance:
    """Hold the two members and what calibrates their average: intercept, then slope."""

    names: tuple[str, ...]
    linear: Linear
    boosted: Boosted
    calibration: Calibration

    def predict(self, x: Floats) -> Floats:
        """Give each row's probability; `x` has the columns `names`, in that order."""
        return calibrated(_odds(self.linear, self.boosted, x), self.calibration)


def _odds(linear: Linear, boosted: Boosted, x: Floats) -> Floats:
    return (linear.decision(x) + log_odds(boosted.predict(x))) / 2


def group_rates(group: NDArray[np.int64], happened: NDArray[np.bool_] | Floats, now: NDArray[np.int64]) -> Floats:
    """Give the rate, or the mean, of each one's group in the past, small groups drawn to that of all: what to beat.

    >>> group_rates(np.array([0, 0, 1]), np.array([True, True, False]), np.array([0, 1, 2])).round(2).tolist()
    [0.7, 0.63, 0.67]
    """
    size = int(max(group.max(initial=0), now.max(initial=0))) + 1
    count, seen = np.bincount(group, minlength=size), np.bincount(group, weights=happened, minlength=size)
    rates = (seen + _GROUP_PRIOR * happened.mean()) / (count + _GROUP_PRIOR)
    return np.asarray(rates[now])


def fit_chance(
    rows: pd.DataFrame, x: Floats, happened: NDArray[np.bool_], names: tuple[str, ...], span_days: int, seed: int
) -> tuple[Chance | None, pd.DataFrame]:
    """Fit on rows sorted by key; what happened was known `span_days` after each. No model where too little happened.

    Also give out-of-time predictions: the keys, `actual`, and `predicted` as calibrated on the other later dates.
    """
    empty = pd.DataFrame({**{key: rows[key].iloc[:0] for key in KEYS}, "actual": [], "predicted": []})
    if min(happened.sum(), (~happened).sum()) < FEWEST:
        return None, empty

    def members(train: NDArray[np.int64]) -> tuple[Linear, Boosted]:
        grown = fit_boosted(x[train], happened[train].astype(float), list(names), _ROUNDS, seed, objective="binary")
        return fit_logistic(x[train], happened[train]), grown

    folds = [
        (train, test)
        for train, test in rolling_folds(rows["as_of"], span_days, _FOLDS)
        if min(happened[train].sum(), (~happened[train]).sum()) >= FEWEST
    ]
    *earlier, last = side_by_side(members, [*(train for train, _ in folds), np.arange(len(rows))])
    seen = [(test, _odds(*fitted, x[test])) for fitted, (_, test) in zip(earlier, folds, strict=True)]
    later = [empty]
    for test, odds in seen:
        calibration = fit_calibration([(o, happened[t]) for t, o in seen if t is not test])
        kept = rows[list(KEYS)].iloc[test]
        later.append(kept.assign(actual=happened[test].astype(float), predicted=calibrated(odds, calibration)))
    model = Chance(names, *last, fit_calibration([(odds, happened[test]) for test, odds in seen]))
    return model, pd.concat(later[1:] or later, ignore_index=True)
