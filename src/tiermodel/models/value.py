"""Expected value in the outcome window, its median, and a 90 % interval.

Amounts have many zeros and a heavy tail. Three members are blended: a ridge on square roots, a Tweedie LightGBM, and
the spend that MBG/NBD with Gamma-Gamma expects. Half of the ridge reads a few inputs only, since many of them mislead
it in a young log. Outcome windows that are partly over enter as partial observations (`calibration.recent`). Blend,
median and interval (`value_spread`) are fitted to out-of-fold predictions. The window level, the total net value of all
customers, is forecast (`calibration.level`): returns count, so that totals add up, and intervals reach below zero where
values did.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from tiermodel.arrays import Flags, Floats, Ints
from tiermodel.config.learners import ValueLearners
from tiermodel.config.targets import Calendar
from tiermodel.errors import DataError
from tiermodel.features.frame import KEYS, has_bought
from tiermodel.features.outcome import LabelWindow, ValueLabel
from tiermodel.models.btyd.forecast import BTYD_INPUTS
from tiermodel.models.calibration.level import (
    AS_EXPECTED,
    LevelForecast,
    ObservedWindow,
    forecast_level,
    log_ratio_for_total,
    residuals_by_date,
)
from tiermodel.models.calibration.logit import log_odds
from tiermodel.models.calibration.recent import ForecastContext, PartialWindow, TrainingRows
from tiermodel.models.concentration import outweighing
from tiermodel.models.design_matrix import COMPACT
from tiermodel.models.learners.boosting import ROUNDS, Boosted, fit_boosted, map_threads
from tiermodel.models.learners.linear import Linear, averaged, fit_logistic, fit_ridge
from tiermodel.models.learners.monotone import monotone_constraints
from tiermodel.models.learners.time_split import FEWEST_POSITIVE as FEWEST
from tiermodel.models.learners.time_split import Fold, Split, both_classes, out_of_fold, split_by_date, stack_folds
from tiermodel.models.value_spread import Outlook, PastForecasts, Spread, fit_spread

__all__ = ["AMOUNT", "MEMBERS", "ValueModel", "fit_value", "squared_errors"]


Weights = tuple[float, float, float]
AMOUNT = ("net_amount_total", "purchase_days_total")
"""The inputs whose ratio is the amount per purchase."""
MEMBERS = ("member_ridge", "member_trees", "member_btyd")
"""The columns beside `predicted`: the prediction of each member alone at the blend's level, in the blend's order."""

_SPENT = ("order_amount_mean", "amount_decayed_90d", "peak_month_amount", BTYD_INPUTS[2])
_SPENT_LATELY = re.compile(r"net_amount_\d+d")
_UNEVEN, _SMALLEST = 3.0, 0.02
_NOTHING = "nothing"
_PRIOR_ROUNDS = 2
_PRIOR: Weights = (0.4, 0.45, 0.15)  # the ridge, the trees, MBG/NBD with Gamma-Gamma
_ALONE: tuple[Weights, ...] = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
_WEIGHTS: tuple[Weights, ...] = (_PRIOR, (0.7, 0.25, 0.05), (0.2, 0.75, 0.05), (0.25, 0.35, 0.4), (0.1, 0.2, 0.7))


@dataclass(frozen=True)
class ValueModel:
    """A fitted value model: its members, their factors (weight times level), and the spread of values around them.

    `chance` is a logistic regression of nothing, that is no value above zero. `least_amount` is the smallest amount per
    purchase, in currency units, by which the trees scale their prediction; 0 where they do not (`_scale`). `level` is
    the forecast of the total, in logarithms beside that of MBG/NBD with Gamma-Gamma. Where customers outweighed the
    others and were not learned from, `largest` is the largest forecast of that member among those who were: of larger
    ones it forecasts alone, times `alone`, since trees and ridge know nobody like them.
    """

    names: tuple[str, ...]
    linear: Linear
    boosted: Boosted
    chance: Linear
    least_amount: float = 0.0
    factors: Weights = _PRIOR
    spread: Spread = field(default_factory=Spread.none)
    level: LevelForecast = AS_EXPECTED
    largest: float = np.inf
    alone: float = 1.0

    def predict(self, x: Floats) -> Floats:
        """Return each row's expected value in currency units; `x` has the columns `names`, in that order."""
        members = self.members(x)
        return _beyond(_mix(self.factors, members), members, self.largest, self.alone)

    def outlook(self, x: Floats) -> Outlook:
        """Return each row's expected value, its median, and the bounds of its 90 % interval, in currency units."""
        return self.spread.outlook(self.predict(x), self.chance.decision(x))

    def members(self, x: Floats) -> Floats:
        """Return every member's prediction, shape (members, rows)."""
        return self._with_trees(x, [self.boosted.predict(x)])[0]

    def members_by_rounds(self, x: Floats) -> list[Floats]:
        """Return every member's prediction, shape (members, rows), with each number of trees in `ROUNDS`."""
        return self._with_trees(x, [np.exp(score) for score in self.boosted.scores(x, ROUNDS)])

    def _with_trees(self, x: Floats, trees: Sequence[Floats]) -> list[Floats]:
        squares, structural = np.maximum(self.linear.decision(x), 0.0) ** 2, _structural(x, self.names)
        scale = self.scale(x)
        return [np.stack([squares, times * scale, structural]) for times in trees]

    def scale(self, x: Floats) -> Floats:
        """Return what the trees' prediction is multiplied by: the row's amount per purchase, or 1."""
        return _scale(x, self.names, self.least_amount)


_Fold = Fold["_Forecast"]


def _structural(x: Floats, names: tuple[str, ...]) -> Floats:
    return np.maximum(x[:, names.index(BTYD_INPUTS[2])], 0.0)


def _mix(factors: Weights, members: Floats) -> Floats:
    return factors[0] * members[0] + factors[1] * members[1] + factors[2] * members[2]


def _beyond(mixed: Floats, members: Floats, largest: float, alone: float) -> Floats:
    """Return the blend, and for rows beyond `largest` what the last member says, times `alone`."""
    return np.where(members[-1] > largest, alone * members[-1], mixed)


def _largest(structural: Floats, usual: Flags) -> float:
    """Return the largest forecast of rows that are learned from, infinite where all are."""
    return np.inf if usual.all() or not usual.any() else float(structural[usual].max())


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
    rows, at_row, actual = _labelled(panel)
    positive, columns = np.maximum(actual, 0.0), tuple(names)
    structural = _structural(inputs, columns)[at_row]
    usual = _usual(rows, structural, actual)
    learner = _Learner(names, learners, seed, _least_amount(inputs, at_row[usual], columns))

    def members(split: Split, rounds: int = ROUNDS[-1]) -> ValueModel:
        seen = split.train[usual[split.train]]
        return learner.fit(inputs, at_row[seen], positive[seen], context.partial_windows(split.day), rounds)

    splits = split_by_date(
        rows["as_of"], label.window.known_after, enough=lambda train: bool(np.count_nonzero(positive[train]) >= FEWEST)
    )
    models = map_threads(members, splits)
    of_usual = rows[usual].reset_index(drop=True), structural[usual], actual[usual]
    level = _WindowLevel.of(label, *of_usual, context)

    def blends(fold: _Fold, others: Sequence[_Fold]) -> dict[str, Floats]:
        """Return the predictions of a fold by the blend fitted on the others, and by every member alone."""
        at, weights = _fit_blend(others, usual)
        expected = fold.prediction.members[at]
        few = expected[:, usual[fold.rows]]
        total, kinds = level.total(few, fold.day), zip(("predicted", *MEMBERS), (weights, *_ALONE), strict=True)
        found = {name: _mix(_factors(blend, few, total), expected) for name, blend in kinds}
        before = (rows["as_of"] < fold.day).to_numpy()
        largest, alone = _largest(structural[before], usual[before]), _factors(_ALONE[-1], few, total)[-1]
        found["predicted"] = _beyond(found["predicted"], expected, largest, alone)
        return {**found, _NOTHING: fold.prediction.nothing}

    folds = list(out_of_fold(splits, models, actual, lambda model, rows: _Forecast.of(model, inputs[at_row[rows]])))
    at, weights = _fit_blend(folds, usual)
    last = members(Split.of_all(context.day, len(rows)), ROUNDS[at])
    coming = context.x if len(context.x) else inputs[at_row[rows["as_of"].to_numpy() == rows["as_of"].max()]]
    expected = last.members(coming)
    expected = expected[:, ~outweighing(expected[-1])]
    total = level.total(expected, context.day)
    factors, alone = _factors(weights, expected, total), _factors(_ALONE[-1], expected, total)[-1]
    predictions = stack_folds(rows, folds, blends, (*MEMBERS, _NOTHING))
    past = PastForecasts(*(predictions[n].to_numpy(dtype=np.float64) for n in ("predicted", _NOTHING, "actual")))
    if not folds:  # the spread is that of the training rows
        x = inputs[at_row]
        own = last.members(x)
        past = PastForecasts(_mix(_factors(weights, own, float(actual.sum())), own), last.chance.decision(x), actual)
    spread = replace(fit_spread(past), level_sd=level.unseen(context.day, predictions))
    largest = _largest(structural, usual)
    model = replace(last, factors=factors, spread=spread, level=level.at(context.day))
    model = replace(model, largest=largest, alone=alone) if np.isfinite(largest) and min(largest, alone) > 0 else model
    return model, predictions.drop(columns=_NOTHING)


class _Learner(NamedTuple):
    """What the members of every fold have in common."""

    names: list[str]
    learners: ValueLearners
    seed: int
    least_amount: float

    def fit(
        self, inputs: Floats, seen: Ints, positive: Floats, partial: Sequence[PartialWindow], rounds: int
    ) -> ValueModel:
        """Return the members fitted on some rows and their values, none below zero, and on partial outcome windows."""
        names, columns = self.names, tuple(self.names)
        few = [j for j, name in enumerate(names) if name in {*COMPACT, *_SPENT} or _SPENT_LATELY.fullmatch(name)]
        target = {"objective": "tweedie", "tweedie_variance_power": self.learners.tweedie_power}
        target |= monotone_constraints(self.learners.trees, names, "value")
        chance = _fit_chance(inputs, seen, positive, few)
        x_seen, y, weights = TrainingRows.with_partial(inputs[seen], positive, partial)
        scale = _scale(x_seen, columns, self.least_amount)
        middle = np.average(scale, weights=weights.sample_weight)
        scaled = weights._replace(offset=weights.offset + np.log(scale / middle))
        grown = fit_boosted(x_seen, y, names, rounds, self.seed, self.learners.trees, scaled, **target)
        no_offset = weights._replace(offset=np.zeros(len(y)))
        roots = np.sqrt(y * np.exp(-weights.offset))
        wide, compact = (fit_ridge(x_seen, roots, of, self.learners.ridge_alpha, no_offset) for of in (None, few))
        return ValueModel(columns, averaged(wide, compact), grown, chance, self.least_amount)


def _fit_chance(inputs: Floats, seen: Ints, positive: Floats, columns: list[int]) -> Linear:
    """Return a logistic regression of nothing on some rows and columns of the inputs.

    Where almost all rows, or none, have a value, it is an intercept alone.
    """
    nothing = positive <= 0
    if both_classes(nothing):
        return replace(fit_logistic(inputs[seen[:, None], columns], nothing), columns=columns)
    share = (nothing.sum() + 0.5) / (len(nothing) + 1)
    return Linear("log", [], [], [], [], [], [], [], [], float(log_odds(share)))


def _least_amount(inputs: Floats, seen: Ints, names: tuple[str, ...]) -> float:
    """Return the amount per purchase that 2 % of buyers stay below, where few buyers have most of the spend, else 0.

    Few have most where the mean buyer spent more than three times what the middle one did. There trees that predict
    amounts cannot tell the many small ones apart, so they predict multiples of each buyer's amount per purchase.
    """
    if not {*AMOUNT} <= set(names):
        return 0.0
    spent = inputs[seen, names.index(AMOUNT[0])]
    spent = spent[spent > 0]
    if not len(spent) or spent.mean() <= _UNEVEN * np.median(spent):
        return 0.0
    each = _amount_per_purchase(inputs, names)[seen]
    return float(np.quantile(each[each > 0], _SMALLEST))


def _amount_per_purchase(x: Floats, names: tuple[str, ...]) -> Floats:
    spent, days = (x[:, names.index(name)] for name in AMOUNT)
    return spent / np.fmax(days, 1.0)


def _scale(x: Floats, names: tuple[str, ...], least: float) -> Floats:
    """Return each row's amount per purchase, `least` or more; 1 where `least` is 0."""
    return np.fmax(_amount_per_purchase(x, names), least) if least else np.ones(len(x))


class _Forecast(NamedTuple):
    """The members' predictions of a fold, shape (members, rows), per `ROUNDS`, and the log-odds of nothing."""

    members: list[Floats]
    nothing: Floats

    @classmethod
    def of(cls, model: ValueModel, x: Floats) -> _Forecast:
        """Return the predictions of a model without a level."""
        return cls(model.members_by_rounds(x), model.chance.decision(x))


def _labelled(panel: pd.DataFrame) -> tuple[pd.DataFrame, Ints, Floats]:
    """Return keys, age and spend of the rows of buyers whose value is known, their places, and their values."""
    chosen = has_bought(panel) & panel["outcome_value"].notna().to_numpy()
    rows = panel.loc[chosen, [*KEYS, "days_since_first", "net_amount_total"]].reset_index(drop=True)
    actual = panel.loc[chosen, "outcome_value"].to_numpy(dtype=np.float64)
    if np.count_nonzero(actual > 0) < FEWEST:
        raise DataError(
            f"value: {np.count_nonzero(actual > 0)} customer snapshots bought in their outcome window, not {FEWEST}: "
            "change outcome.horizon_days or bring more history"
        )
    return rows, np.flatnonzero(chosen), actual


@dataclass(frozen=True)
class _WindowLevel:
    """The forecast of window levels: the usual residual of MBG/NBD with Gamma-Gamma, and those of past windows.

    Residuals are logarithms of observed over expected totals.
    """

    window: LabelWindow
    usual: float
    residuals: list[ObservedWindow]
    calendar: Calendar

    @classmethod
    def of(
        cls, label: ValueLabel, rows: pd.DataFrame, structural: Floats, actual: Floats, context: ForecastContext
    ) -> _WindowLevel:
        """Return the residuals of rows with outcomes, beside those of recent windows; expected is spend, not margin."""
        usual = log_ratio_for_total(structural, float(actual.sum())) if label.is_margin else 0.0
        past = residuals_by_date(ObservedWindow.of_total, label.window, rows, structural * np.exp(usual), actual)
        return cls(label.window, usual, [*past, *context.residuals], context.calendar)

    def at(self, day: pd.Timestamp) -> LevelForecast:
        """Return the forecast of the residual from those known at `day`."""
        return forecast_level(self.residuals, day, self.window.first, self.window.last, self.calendar)

    def total(self, members: Floats, day: pd.Timestamp) -> float:
        """Return the forecast total of all customers: the last member's, corrected by its residuals known at `day`."""
        return float(members[-1].sum() * np.exp(self.usual + self.at(day).residual))

    def unseen(self, day: pd.Timestamp, past: pd.DataFrame) -> float:
        """Return the standard deviation of the total's logarithm beyond what past forecasts, out of fold, were off."""
        sums = past.groupby("as_of")[["predicted", "actual"]].sum().clip(lower=1e-9)
        missed = np.log(sums["actual"] / sums["predicted"]).clip(-1, 1) if len(sums) else pd.Series([0.0])
        return float(np.sqrt(max(self.at(day).sd ** 2 - float((missed**2).mean()), 0.0)))


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
        members = [fold.prediction.members[at][:, usual[fold.rows]] for fold in folds]
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
