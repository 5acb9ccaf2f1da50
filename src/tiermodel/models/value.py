"""Expected value in the outcome window, with an interval.

Purchase amounts are zero-heavy and heavy-tailed: a Tweedie LightGBM and a ridge on square roots are blended. The blend,
its level and the interval come from later snapshots than the members were trained on. Returns count: the level is that
of net value, so a forecast of all customers adds up, and intervals reach below zero where customers did.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tiermodel.config import Project
from tiermodel.errors import DataError
from tiermodel.features.outcome import outcome_span
from tiermodel.features.panel import KEYS
from tiermodel.models.boosted import ROUNDS, Boosted, fit_boosted, side_by_side
from tiermodel.models.folds import level_trust, rolling_folds
from tiermodel.models.linear import Linear, fit_ridge

__all__ = ["ValueModel", "fit_value"]

Floats = NDArray[np.float64]
COVERAGE = 0.90
FEWEST = 50
_BANDS = 10
_TWEEDIE = {"objective": "tweedie", "tweedie_variance_power": 1.2}
_EQUAL = 0.5
_PRIOR_ROUNDS = 3
_WEIGHTS = (0.0, 0.25, _EQUAL, 0.75, 1.0)


@dataclass(frozen=True)
class ValueModel:
    """Hold the two members, the trees' weight, both members' level, and the interval by band of the prediction."""

    names: tuple[str, ...]
    linear: Linear
    boosted: Boosted
    weight: float
    levels: tuple[float, float]
    band_edges: list[float]
    band_low: list[float]
    band_high: list[float]

    def predict(self, x: Floats) -> Floats:
        """Give each row's expected value in currency units; `x` has the columns `names`, in that order."""
        return _mix(self.weight, self.levels, _square(self.linear.decision(x)), self.boosted.predict(x))

    def interval(self, predicted: Floats) -> tuple[Floats, Floats]:
        """Give the bounds that held 90 % of later outcomes with predictions of this size."""
        band = np.searchsorted(np.array(self.band_edges), predicted, side="right")
        scale = predicted + _floor(self.band_edges)
        return np.array(self.band_low)[band] * scale, np.array(self.band_high)[band] * scale


def _floor(edges: list[float]) -> float:
    """Give the size below which intervals stop shrinking: a tenth of the middle prediction, never zero."""
    return max(edges[len(edges) // 2] / 10, 1e-6) if edges else 1.0


def _mix(weight: float, levels: tuple[float, float], squared: Floats, boosted: Floats) -> Floats:
    return weight * levels[1] * boosted + (1 - weight) * levels[0] * squared


def fit_value(
    project: Project, panel: pd.DataFrame, inputs: Floats, names: list[str]
) -> tuple[ValueModel, pd.DataFrame]:
    """Fit on a panel with outcomes, sorted by key, and its inputs; also give the blend's out-of-time predictions.

    Raises `DataError` where fewer than 50 customer snapshots have an outcome, or none is positive.
    """
    chosen = (panel["days_since_last"].notna() & panel["outcome_value"].notna()).to_numpy()
    rows, x = panel[chosen].reset_index(drop=True), inputs[chosen]
    actual = rows["outcome_value"].to_numpy(dtype=np.float64)
    if np.count_nonzero(actual > 0) < FEWEST:
        raise DataError(
            f"value: {np.count_nonzero(actual > 0)} customer snapshots bought in their outcome window, not {FEWEST}: "
            "change outcome.horizon_days or bring more history"
        )
    positive = np.maximum(actual, 0.0)

    def members(train: NDArray[np.int64]) -> tuple[Linear, float, Boosted]:
        grown = fit_boosted(x[train], positive[train], names, ROUNDS[-1], project.seed, **_TWEEDIE)
        linear = fit_ridge(x[train], np.sqrt(positive[train]))
        return linear, _level(_square(linear.decision(x[train])), positive[train]), grown

    folds = [
        (train, test)
        for train, test in rolling_folds(rows["as_of"], outcome_span(project.outcome))
        if np.count_nonzero(positive[train]) >= FEWEST
    ]
    *earlier, last = side_by_side(members, [*(train for train, _ in folds), np.arange(len(rows))])
    linear, smear, boosted = last

    def see(fitted: tuple[Linear, float, Boosted], t: NDArray[np.int64]) -> _Seen:
        m, s, g = fitted
        trees = np.array([g.predict(x[t], r) for r in ROUNDS])
        return _Seen(rows["as_of"].iloc[t], actual[t], s * _square(m.decision(x[t])), trees)

    seen = [see(fitted, t) for fitted, (_, t) in zip(earlier, folds, strict=True)]
    span = outcome_span(project.outcome)
    settled = _settle(seen, span)
    predicted = [_apply(_settle([other for other in seen if other is not fold], span), fold) for fold in seen]
    later = pd.concat(
        [
            rows[list(KEYS)].iloc[t].assign(actual=actual[t], predicted=p)
            for (_, t), p in zip(folds, predicted, strict=True)
        ]
        or [pd.DataFrame(columns=[*KEYS, "actual", "predicted"])],
        ignore_index=True,
    )
    if seen:
        bands = _bands(np.concatenate(predicted), np.concatenate([fold.actual for fold in seen]))
    else:  # no snapshot is late enough: the interval is that of the training rows, and no figure is given for later
        bands = _bands(_apply(settled, see(last, np.arange(len(rows)))), actual)
    at, levels, weight = settled
    model = ValueModel(tuple(names), linear, boosted.first(ROUNDS[at]), weight, (smear * levels[0], levels[1]), *bands)
    return model, later


@dataclass(frozen=True)
class _Seen:
    """Hold what the members predicted for a later date, and what happened: amounts, those of the trees per `ROUNDS`."""

    as_of: pd.Series
    actual: Floats
    squared: Floats
    boosted: Floats


def _apply(settled: tuple[int, tuple[float, float], float], fold: _Seen) -> Floats:
    at, levels, weight = settled
    return _mix(weight, levels, fold.squared, fold.boosted[at])


def _settle(seen: list[_Seen], span_days: int) -> tuple[int, tuple[float, float], float]:
    """Choose the number of trees, an index of `ROUNDS`, both members' level and the trees' weight on later dates.

    Weights are compared at the exact level; the level itself is trusted as far as the dates allow.
    """
    if not seen:
        return _PRIOR_ROUNDS, (1.0, 1.0), _EQUAL
    actual = np.concatenate([fold.actual for fold in seen])
    squared = np.concatenate([fold.squared for fold in seen])
    boosted = np.hstack([fold.boosted for fold in seen])
    at = int(np.argmin([_errors(_level(p, actual) * p, actual).mean() for p in boosted]))
    exact = (_level(squared, actual), _level(boosted[at], actual))
    weight = _weight({w: _errors(_mix(w, exact, squared, boosted[at]), actual) for w in _WEIGHTS})
    trust = level_trust(pd.concat([fold.as_of for fold in seen]), span_days)
    return at, (exact[0] ** trust, exact[1] ** trust), weight


def _square(root: Floats) -> Floats:
    return np.maximum(root, 0.0) ** 2


def _errors(predicted: Floats, actual: Floats) -> Floats:
    """Give squared errors, smallest for the mean, the largest thousandth cut so that no whale decides alone."""
    most = float(np.quantile(actual, 0.999))
    return np.square(np.minimum(predicted, most) - np.minimum(actual, most))


def _weight(errors: Mapping[float, Floats]) -> float:
    """Keep equal weights unless others are better beyond chance: few dates cannot tell near-equal blends apart."""
    gains = {w: errors[_EQUAL] - e for w, e in errors.items() if w != _EQUAL}
    sure = {w: g.mean() for w, g in gains.items() if g.mean() > 2 * g.std() / np.sqrt(len(g))}
    return max(sure, key=lambda w: sure[w], default=_EQUAL)


def _level(predicted: Floats, actual: Floats) -> float:
    """Give the factor that makes the predictions add up to what happened, returns included; a twentieth at least."""
    expected = max(float(predicted.sum()), 1e-9)
    return max(float(actual.sum()), 0.05 * expected) / expected


def _bands(predicted: Floats, actual: Floats) -> tuple[list[float], list[float], list[float]]:
    """Take, in each tenth of the predictions, the quantiles of outcome over prediction (split conformal by band)."""
    edges = np.unique(np.quantile(predicted, np.arange(1, _BANDS) / _BANDS)).tolist()
    band = np.searchsorted(np.array(edges), predicted, side="right")
    times = actual / (predicted + _floor(edges))  # so that nothing bought is nothing, whatever was predicted
    low, high = [], []
    for b in range(len(edges) + 1):
        inside = times[band == b] if np.any(band == b) else times
        reach = min(1.0, COVERAGE / 2 + 0.5 + 1 / len(inside))
        low.append(float(np.quantile(inside, 1 - reach, method="inverted_cdf")))
        high.append(float(np.quantile(inside, reach, method="inverted_cdf")))
    return edges, low, high
