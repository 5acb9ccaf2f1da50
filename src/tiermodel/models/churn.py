"""Churn risk: the calibrated probability of no purchase in the outcome window.

A logistic regression and LightGBM are blended on the log-odds scale. The weights of the blend, its calibration and the
number of trees are fitted on later snapshots than those the members were trained on, never on training rows; then the
members are trained again on everything. Classes are never reweighted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, logit

from tiermodel.config import Project
from tiermodel.errors import DataError
from tiermodel.features.outcome import outcome_span
from tiermodel.features.panel import KEYS
from tiermodel.models.boosted import ROUNDS, Boosted, fit_boosted, side_by_side
from tiermodel.models.folds import level_trust, rolling_folds
from tiermodel.models.linear import Linear, fit_logistic

__all__ = ["ChurnModel", "at_risk", "fit_churn"]

Floats = NDArray[np.float64]
FEWEST_PER_CLASS = 20
_PRIOR = np.array([0.0, 0.3, 0.7])  # intercept, weight of the logistic, weight of the trees
_PRIOR_ROWS = 50.0
_PRIOR_ROUNDS = 3
_EDGE = 1e-6


def at_risk(active_days: int | None, frame: pd.DataFrame) -> NDArray[np.bool_]:
    """Tell who can churn: customers with a purchase, within the last `active_days` where that is set."""
    since = frame["days_since_last"]
    return (since.notna() if active_days is None else since <= active_days).to_numpy()


@dataclass(frozen=True)
class ChurnModel:
    """Hold the two members and the blend: intercept, weight of the logistic, weight of the trees."""

    names: tuple[str, ...]
    linear: Linear
    boosted: Boosted
    blend: tuple[float, float, float]

    def predict(self, x: Floats) -> Floats:
        """Give each row's probability of no purchase; `x` has the columns `names`, in that order."""
        return _blend(np.array(self.blend), self.linear.decision(x), self.boosted.predict(x))


def _log_odds(p: Floats) -> Floats:
    return logit(np.clip(p, _EDGE, 1 - _EDGE))


def _blend(weights: Floats, linear: Floats, boosted: Floats) -> Floats:
    return np.clip(expit(weights[0] + weights[1] * linear + weights[2] * _log_odds(boosted)), _EDGE, 1 - _EDGE)


def fit_churn(
    project: Project, panel: pd.DataFrame, inputs: Floats, names: list[str]
) -> tuple[ChurnModel, pd.DataFrame]:
    """Fit on a panel with outcomes, sorted by key, and its inputs; also give the blend's out-of-time predictions.

    The second frame has the keys, `actual` (1 = churned), and `predicted` by a blend fitted on the other later dates;
    it is empty where no snapshot is late enough, and then the prior blend stands uncalibrated. Raises
    `DataError` with fewer than 20 customers of either kind.
    """
    chosen = at_risk(project.churn.active_days, panel) & panel["outcome_purchase_days"].notna().to_numpy()
    rows, x = panel[chosen].reset_index(drop=True), inputs[chosen]
    churned = (rows["outcome_purchase_days"] == 0).to_numpy()
    fewest = int(min(churned.sum(), (~churned).sum()))
    if fewest < FEWEST_PER_CLASS:
        raise DataError(
            f"churn: only {int(churned.sum())} of {len(rows)} customer snapshots churned; "
            f"at least {FEWEST_PER_CLASS} that did and {FEWEST_PER_CLASS} that did not are needed: "
            "change outcome.horizon_days or bring more history"
        )

    def members(train: NDArray[np.int64]) -> tuple[Linear, Boosted]:
        grown = fit_boosted(x[train], churned[train].astype(float), names, ROUNDS[-1], project.seed, objective="binary")
        return fit_logistic(x[train], churned[train]), grown

    folds = [
        (train, test)
        for train, test in rolling_folds(rows["as_of"], outcome_span(project.outcome))
        if min(churned[train].sum(), (~churned[train]).sum()) >= FEWEST_PER_CLASS
    ]
    *earlier, (linear, boosted) = side_by_side(members, [*(train for train, _ in folds), np.arange(len(rows))])
    seen = [
        _Seen(rows["as_of"].iloc[t], churned[t], m.decision(x[t]), np.array([g.predict(x[t], r) for r in ROUNDS]))
        for (m, g), (_, t) in zip(earlier, folds, strict=True)
    ]
    span = outcome_span(project.outcome)
    at, weights = _fit_blend(seen, span)
    later = [
        rows[list(KEYS)]
        .iloc[t]
        .assign(
            actual=churned[t].astype(float),
            predicted=_apply(_fit_blend([other for other in seen if other is not fold], span), fold),
        )
        for (_, t), fold in zip(folds, seen, strict=True)
    ]
    model = ChurnModel(tuple(names), linear, boosted.first(ROUNDS[at]), (weights[0], weights[1], weights[2]))
    empty = pd.DataFrame(columns=[*KEYS, "actual", "predicted"])
    return model, pd.concat(later or [empty], ignore_index=True)


@dataclass(frozen=True)
class _Seen:
    """Hold what the members predicted on a later date, and what happened: log-odds, and probabilities per `ROUNDS`."""

    as_of: pd.Series
    churned: NDArray[np.bool_]
    linear: Floats
    boosted: Floats


def _apply(fitted: tuple[int, tuple[float, ...]], fold: _Seen) -> Floats:
    at, weights = fitted
    return _blend(np.array(weights), fold.linear, fold.boosted[at])


def _loss(weights: Floats, linear: Floats, boosted: Floats, actual: NDArray[np.bool_]) -> float:
    p = _blend(weights, linear, boosted)
    return float(-np.mean(np.log(np.where(actual, p, 1 - p))))


def _fit_blend(seen: list[_Seen], span_days: int) -> tuple[int, tuple[float, ...]]:
    """Choose the number of trees, an index of `ROUNDS`, and non-negative weights near the prior, by log loss.

    The level is trusted as far as the dates allow. Without later dates the prior stands.
    """
    if not seen:
        return _PRIOR_ROUNDS, tuple(_PRIOR)
    actual = np.concatenate([fold.churned for fold in seen])
    linear = np.concatenate([fold.linear for fold in seen])
    boosted = np.hstack([fold.boosted for fold in seen])
    at = int(np.argmin([_loss(_PRIOR, linear, p, actual) for p in boosted]))
    trust = level_trust(pd.concat([fold.as_of for fold in seen]), span_days)
    curvature = max(float(actual.var()), 1 / len(actual)) / 2
    # against this curvature of the loss, `trust` of the level error remains
    pull = np.array([curvature * (1 - trust) / trust, *(2 * [_PRIOR_ROWS / len(actual)])])
    found = minimize(
        lambda w: _loss(w, linear, boosted[at], actual) + float(np.sum(pull * (w - _PRIOR) ** 2)),
        _PRIOR,
        method="L-BFGS-B",
        bounds=[(-5, 5), (0, 3), (0, 3)],
    )
    return at, tuple(float(w) for w in found.x)
