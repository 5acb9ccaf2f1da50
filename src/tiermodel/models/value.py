"""Expected value in the outcome window, with a 90 % interval.

Amounts have many zeros and a heavy tail. Three members are blended: a ridge on square roots, a Tweedie LightGBM, and
the spend that MBG/NBD with Gamma-Gamma expects. Half of the ridge reads a few inputs only, since many of them mislead
it in a young log. Outcome windows that are partly over enter as partial observations (`calibration.recent`). Blend and
interval are fitted to out-of-fold predictions. The window level, the total net value of all customers, is forecast
(`calibration.level`): returns count, so that totals add up, and intervals reach below zero where values did.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tiermodel.arrays import Flags, Floats
from tiermodel.config.learners import ValueLearners
from tiermodel.errors import DataError
from tiermodel.features.frame import has_bought
from tiermodel.features.outcome import LabelWindow, ValueLabel
from tiermodel.models.btyd.forecast import BTYD_INPUTS
from tiermodel.models.calibration.level import ObservedWindow, forecast_residual, log_ratio_for_total, residuals_by_date
from tiermodel.models.calibration.recent import ForecastContext, TrainingRows
from tiermodel.models.concentration import outweighing
from tiermodel.models.design_matrix import COMPACT
from tiermodel.models.learners.boosting import ROUNDS, Boosted, fit_boosted, map_threads
from tiermodel.models.learners.linear import Linear, averaged, fit_ridge
from tiermodel.models.learners.monotone import monotone_constraints
from tiermodel.models.learners.time_split import FEWEST_POSITIVE as FEWEST
from tiermodel.models.learners.time_split import Fold, Split, out_of_fold, split_by_date, stack_folds

__all__ = ["MEMBERS", "ValueModel", "fit_value", "squared_errors"]


Weights = tuple[float, float, float]
_Fold = Fold[list[Floats]]  # the members' predictions, shape (members, rows), per `ROUNDS`
COVERAGE = 0.90
MEMBERS = ("member_ridge", "member_trees", "member_btyd")
"""The columns beside `predicted`: the prediction of each member alone at the blend's level, in the blend's order."""

_SPENT = ("order_amount_mean", "amount_decayed_90d", "peak_month_amount", BTYD_INPUTS[2])
_SPENT_LATELY = re.compile(r"net_amount_\d+d")
_BANDS = 10
_PRIOR_ROUNDS = 2
_PRIOR: Weights = (0.4, 0.45, 0.15)  # the ridge, the trees, MBG/NBD with Gamma-Gamma
_ALONE: tuple[Weights, ...] = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
_WEIGHTS: tuple[Weights, ...] = (_PRIOR, (0.7, 0.25, 0.05), (0.2, 0.75, 0.05), (0.25, 0.35, 0.4), (0.1, 0.2, 0.7))


@dataclass(frozen=True)
class ValueModel:
    """A fitted value model: two members, the factors (weight times level) of all three, and an interval per band.

    `band_edges` separate bands of the prediction, in currency units; `band_low` and `band_high` are the bounds of
    value over prediction in each band.
    """

    names: tuple[str, ...]
    linear: Linear
    boosted: Boosted
    factors: Weights
    band_edges: list[float]
    band_low: list[float]
    band_high: list[float]

    def predict(self, x: Floats) -> Floats:
        """Return each row's expected value in currency units; `x` has the columns `names`, in that order."""
        return _mix(self.factors, self.members(x))

    def members(self, x: Floats) -> Floats:
        """Return every member's prediction, shape (members, rows)."""
        return self._with_trees(x, [self.boosted.predict(x)])[0]

    def members_by_rounds(self, x: Floats) -> list[Floats]:
        """Return every member's prediction, shape (members, rows), with each number of trees in `ROUNDS`."""
        return self._with_trees(x, [np.exp(score) for score in self.boosted.scores(x, ROUNDS)])

    def _with_trees(self, x: Floats, trees: Sequence[Floats]) -> list[Floats]:
        squares, structural = np.maximum(self.linear.decision(x), 0.0) ** 2, _structural(x, self.names)
        return [np.stack([squares, amount, structural]) for amount in trees]

    def interval(self, predicted: Floats) -> tuple[Floats, Floats]:
        """Return the bounds, in currency units, that held 90 % of out-of-fold values with predictions of this size."""
        band = np.searchsorted(np.array(self.band_edges), predicted, side="right")
        scale = predicted + _floor(self.band_edges)
        return np.array(self.band_low)[band] * scale, np.array(self.band_high)[band] * scale


def _floor(edges: list[float]) -> float:
    """Return the size below which intervals stop shrinking: a tenth of the middle prediction, never zero."""
    return max(edges[len(edges) // 2] / 10, 1e-6) if edges else 1.0


def _structural(x: Floats, names: tuple[str, ...]) -> Floats:
    return np.maximum(x[:, names.index(BTYD_INPUTS[2])], 0.0)


def _mix(factors: Weights, members: Floats) -> Floats:
    return factors[0] * members[0] + factors[1] * members[1] + factors[2] * members[2]


def _factors(weights: Weights, members: Floats, total: float) -> Weights:
    """Return weights scaled to factors with which the members' predictions for these rows add up to a total."""
    sums = members.sum(axis=1)
    usable = np.where(sums > 0, weights, 0.0)
    a, b, c = (total * usable / max(float(usable.sum()), 1e-9) / np.where(sums > 0, sums, 1.0)).tolist()
    return a, b, c


def fit_value(
    panel: pd.DataFrame, inputs: Floats, names: list[str], label: ValueLabel, learners: ValueLearners,
    context: ForecastContext, seed: int,
) -> tuple[ValueModel, pd.DataFrame]:  # fmt: skip
    """Return the model fitted on a panel with outcomes, sorted by key, for the date and rows of `context`.

    `inputs` is the panel's design matrix. Also return the blend's out-of-fold predictions: the keys, `actual`, and
    `predicted` at the level forecast from the windows that were over by its date, beside `MEMBERS`; all in currency
    units. Raises `DataError` where fewer than 50 rows have a positive value.
    """
    rows, x, actual = _labelled(panel, inputs)
    positive, columns = np.maximum(actual, 0.0), tuple(names)
    target = {"objective": "tweedie", "tweedie_variance_power": learners.tweedie_power}
    target |= monotone_constraints(learners.trees, names, "value")
    few = [j for j, name in enumerate(names) if name in {*COMPACT, *_SPENT} or _SPENT_LATELY.fullmatch(name)]

    usual = _usual(rows, _structural(x, columns), actual)

    def members(split: Split, rounds: int = ROUNDS[-1]) -> ValueModel:
        partial, seen = context.partial_windows(split.day), split.train[usual[split.train]]
        x_seen, y, weights = TrainingRows.with_partial(x[seen], positive[seen], partial)
        grown = fit_boosted(x_seen, y, names, rounds, seed, learners.trees, weights, **target)
        no_offset = weights._replace(offset=np.zeros(len(y)))
        roots = np.sqrt(y * np.exp(-weights.offset))
        wide, compact = (fit_ridge(x_seen, roots, of, learners.ridge_alpha, no_offset) for of in (None, few))
        return ValueModel(columns, averaged(wide, compact), grown, _PRIOR, [], [], [])

    splits = split_by_date(
        rows["as_of"], label.window.known_after, enough=lambda train: bool(np.count_nonzero(positive[train]) >= FEWEST)
    )
    models = map_threads(members, splits)
    of_usual = rows[usual].reset_index(drop=True), _structural(x, columns)[usual], actual[usual]
    level = _WindowLevel.of(label, *of_usual, context.residuals)

    def blends(fold: _Fold, others: Sequence[_Fold]) -> dict[str, Floats]:
        """Return the predictions of a fold by the blend fitted on the others, and by every member alone."""
        at, weights = _fit_blend(others, usual)
        expected = fold.prediction[at]
        few = expected[:, usual[fold.rows]]
        total, kinds = level.total(few, fold.day), zip(("predicted", *MEMBERS), (weights, *_ALONE), strict=True)
        return {name: _mix(_factors(blend, few, total), expected) for name, blend in kinds}

    folds = list(out_of_fold(splits, models, actual, lambda model, at: model.members_by_rounds(x[at])))
    at, weights = _fit_blend(folds, usual)
    last = members(Split.of_all(context.day, len(rows)), ROUNDS[at])
    coming = context.x if len(context.x) else x[rows["as_of"].to_numpy() == rows["as_of"].max()]
    expected = last.members(coming)
    expected = expected[:, ~outweighing(expected[-1])]
    factors = _factors(weights, expected, level.total(expected, context.day))
    predictions = stack_folds(rows, folds, blends, MEMBERS)
    if folds:
        bands = _bands(predictions["predicted"].to_numpy(), predictions["actual"].to_numpy())
    else:  # without folds the interval is that of the training rows
        own = last.members(x)
        bands = _bands(_mix(_factors(weights, own, float(actual.sum())), own), actual)
    return ValueModel(columns, last.linear, last.boosted, factors, *bands), predictions


def _labelled(panel: pd.DataFrame, inputs: Floats) -> tuple[pd.DataFrame, Floats, Floats]:
    """Return the rows of buyers whose value is known, their inputs, and their values."""
    chosen = has_bought(panel) & panel["outcome_value"].notna().to_numpy()
    rows, x = panel[chosen].reset_index(drop=True), inputs[chosen]
    actual = rows["outcome_value"].to_numpy(dtype=np.float64)
    if np.count_nonzero(actual > 0) < FEWEST:
        raise DataError(
            f"value: {np.count_nonzero(actual > 0)} customer snapshots bought in their outcome window, not {FEWEST}: "
            "change outcome.horizon_days or bring more history"
        )
    return rows, x, actual


@dataclass(frozen=True)
class _WindowLevel:
    """The forecast of window levels: the usual residual of MBG/NBD with Gamma-Gamma, and those of past windows.

    Residuals are logarithms of observed over expected totals.
    """

    window: LabelWindow
    usual: float
    residuals: list[ObservedWindow]

    @classmethod
    def of(
        cls, label: ValueLabel, rows: pd.DataFrame, structural: Floats, actual: Floats, recent: Sequence[ObservedWindow]
    ) -> _WindowLevel:
        """Return the residuals of rows with outcomes, beside those of recent windows; expected is spend, not margin."""
        usual = log_ratio_for_total(structural, float(actual.sum())) if label.is_margin else 0.0
        past = residuals_by_date(ObservedWindow.of_total, label.window, rows, structural * np.exp(usual), actual)
        return cls(label.window, usual, [*past, *recent])

    def total(self, members: Floats, day: pd.Timestamp) -> float:
        """Return the forecast total of all customers: the last member's, corrected by its residuals known at `day`."""
        residual = forecast_residual(self.residuals, day, self.window.first, self.window.last)
        return float(members[-1].sum() * np.exp(self.usual + residual))


def _usual(rows: pd.DataFrame, structural: Floats, actual: Floats) -> Flags:
    """Return the rows of customers who outweigh the others of their date neither before it, nor after, nor by forecast.

    The models and their level are those of these rows, so that one customer does not move what all others are worth.
    """
    found = np.ones(len(rows), dtype=np.bool_)
    spent = rows["net_amount_total"].to_numpy(dtype=np.float64)
    for at in rows.groupby("as_of").indices.values():
        found[at] = ~(outweighing(spent[at]) | outweighing(structural[at]) | outweighing(actual[at]))
    return found


def _fit_blend(folds: Sequence[_Fold], usual: Flags) -> tuple[int, Weights]:
    """Return the number of trees, an index of `ROUNDS`, and weights, chosen on folds' usual rows at their level."""
    if not folds:
        return _PRIOR_ROUNDS, _PRIOR
    observed = [fold.observed[usual[fold.rows]] for fold in folds]
    totals = [float(known.sum()) for known in observed]

    def errors(at: int, weights: Weights) -> Floats:
        members = [fold.prediction[at][:, usual[fold.rows]] for fold in folds]
        exact = [_mix(_factors(weights, m, total), m) for m, total in zip(members, totals, strict=True)]
        return squared_errors(np.concatenate(exact), np.concatenate(observed))

    at = int(np.argmin([errors(k, (0.0, 1.0, 0.0)).mean() for k in range(len(ROUNDS))]))
    best = _weight({w: errors(at, w) for w in _WEIGHTS})
    a, b, c = ((p + len(folds) * w) / (1 + len(folds)) for p, w in zip(_PRIOR, best, strict=True))
    return at, (a, b, c)  # the prior weighs as much as a date: the customers of one date share its chance events


def squared_errors(predicted: Floats, actual: Floats) -> Floats:
    """Return squared errors, both sides capped at the 99.9 % quantile, so that no single customer decides."""
    most = float(np.quantile(actual, 0.999))
    return np.square(np.minimum(predicted, most) - np.minimum(actual, most))


def _weight(errors: Mapping[Weights, Floats]) -> Weights:
    """Return the best weights, the prior ones unless others are better by more than two standard errors."""
    gains = {w: errors[_PRIOR] - e for w, e in errors.items() if w != _PRIOR}
    sure = {w: g.mean() for w, g in gains.items() if g.mean() > 2 * g.std() / np.sqrt(len(g))}
    return max(sure, key=lambda w: sure[w], default=_PRIOR)


def _bands(predicted: Floats, actual: Floats) -> tuple[list[float], list[float], list[float]]:
    """Return edges and bounds by tenth of the predictions: quantiles of value over prediction (split conformal)."""
    edges = np.unique(np.quantile(predicted, np.arange(1, _BANDS) / _BANDS)).tolist()
    band = np.searchsorted(np.array(edges), predicted, side="right")
    times = actual / (predicted + _floor(edges))  # relative, so that a value of zero is zero in every band
    low, high = [], []
    for b in range(len(edges) + 1):
        inside = times[band == b] if np.any(band == b) else times
        least = float(np.quantile(inside, (1 - COVERAGE) / 2, method="inverted_cdf"))
        # many values are zero: where they are the lower bound, fewer than a twentieth lie below it
        reach = min(1.0, float(np.mean(inside < least)) + COVERAGE * (1 + 1 / len(inside)))
        low.append(least)
        high.append(float(np.quantile(inside, reach, method="inverted_cdf")))
    return edges, low, high
