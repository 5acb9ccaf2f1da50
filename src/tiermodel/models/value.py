"""Expected value in the outcome window, with an interval.

Purchase amounts are zero-heavy and heavy-tailed: a ridge on square roots, a Tweedie LightGBM and what MBG/NBD with
Gamma-Gamma expects are blended. Half of the ridge reads a few inputs only, since many of them mislead it in a young
log. Windows that are not over yet are learned from as far as they have come (`between`). The blend and the interval
come from later snapshots than the members were trained on; the level is forecast (`level`), and it is that of net
value: returns count, so a forecast of all customers adds up, and intervals reach below zero where customers did.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tiermodel.config.project import Project
from tiermodel.errors import DataError
from tiermodel.features.frame import KEYS
from tiermodel.features.outcome import outcome_span
from tiermodel.models.ahead import Ahead, Learned
from tiermodel.models.boosted import ROUNDS, Boosted, fit_boosted, side_by_side
from tiermodel.models.folds import rolling_folds
from tiermodel.models.inputs import COMPACT, EXPECTED
from tiermodel.models.level import Window, forecast_miss, missed_by_date, total_shift
from tiermodel.models.linear import Linear, averaged, fit_ridge
from tiermodel.models.signs import constraints

__all__ = ["MEMBERS", "ValueModel", "fit_value", "squared_errors"]

Floats = NDArray[np.float64]
Weights = tuple[float, float, float]
COVERAGE = 0.90
FEWEST = 50
MEMBERS = ("member_ridge", "member_trees", "member_btyd")
"""What each member alone predicts at the level of the blend, in the blend's order: columns beside `predicted`."""

_SPENT = ("net_amount_{w}d", "order_amount_mean", "amount_decayed_90d", "peak_month_amount", EXPECTED[2])
_BANDS = 10
_PRIOR_ROUNDS = 2
_PRIOR: Weights = (0.4, 0.45, 0.15)  # the ridge, the trees, MBG/NBD with Gamma-Gamma
_ALONE: tuple[Weights, ...] = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
_WEIGHTS: tuple[Weights, ...] = (_PRIOR, (0.7, 0.25, 0.05), (0.2, 0.75, 0.05), (0.25, 0.35, 0.4), (0.1, 0.2, 0.7))


@dataclass(frozen=True)
class ValueModel:
    """Hold two members, the factors of all three (weight times level), and the interval by band of the prediction."""

    names: tuple[str, ...]
    linear: Linear
    boosted: Boosted
    factors: Weights
    band_edges: list[float]
    band_low: list[float]
    band_high: list[float]

    def predict(self, x: Floats) -> Floats:
        """Give each row's expected value in currency units; `x` has the columns `names`, in that order."""
        return _mix(self.factors, _members(self.linear, self.boosted.predict(x), x, self.names))

    def interval(self, predicted: Floats) -> tuple[Floats, Floats]:
        """Give the bounds that held 90 % of later outcomes with predictions of this size."""
        band = np.searchsorted(np.array(self.band_edges), predicted, side="right")
        scale = predicted + _floor(self.band_edges)
        return np.array(self.band_low)[band] * scale, np.array(self.band_high)[band] * scale


def _floor(edges: list[float]) -> float:
    """Give the size below which intervals stop shrinking: a tenth of the middle prediction, never zero."""
    return max(edges[len(edges) // 2] / 10, 1e-6) if edges else 1.0


def _members(linear: Linear, boosted: Floats, x: Floats, names: tuple[str, ...]) -> Floats:
    """Give what every member expects, shape (members, rows); none below zero, net spend may be."""
    return np.stack([_square(linear.decision(x)), boosted, _structural(x, names)])


def _structural(x: Floats, names: tuple[str, ...]) -> Floats:
    return np.maximum(x[:, names.index(EXPECTED[2])], 0.0)


def _mix(factors: Weights, members: Floats) -> Floats:
    return factors[0] * members[0] + factors[1] * members[1] + factors[2] * members[2]


def _factors(weights: Weights, members: Floats, total: float) -> Weights:
    """Turn weights into factors with which the members' forecasts of these rows add up to a total."""
    sums = members.sum(axis=1)
    usable = np.where(sums > 0, weights, 0.0)
    a, b, c = (total * usable / max(float(usable.sum()), 1e-9) / np.where(sums > 0, sums, 1.0)).tolist()
    return a, b, c


def fit_value(
    project: Project, panel: pd.DataFrame, inputs: Floats, names: list[str], ahead: Ahead
) -> tuple[ValueModel, pd.DataFrame]:
    """Fit on a panel with outcomes, sorted by key, and its inputs, for the date and rows `ahead`.

    Also give the blend's out-of-time predictions, at the level forecast from what was over by their date, beside
    `MEMBERS`. Raises `DataError` where fewer than 50 customer snapshots have a positive outcome.
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
    learners, columns = project.models.value, tuple(names)
    target = {"objective": "tweedie", "tweedie_variance_power": learners.tweedie_power}
    target |= constraints(learners.trees, names, "value")
    few = _compact(project, names)

    def members(task: tuple[pd.Timestamp, NDArray[np.int64]]) -> _Members:
        day, train = task
        x_seen, y, counted = Learned.of(x[train], positive[train], ahead.cut(day))
        grown = fit_boosted(x_seen, y, names, ROUNDS[-1], project.seed, learners.trees, counted, **target)
        whole = counted._replace(link=np.zeros(len(y)))
        roots = np.sqrt(y * np.exp(-counted.link))
        wide, compact = (fit_ridge(x_seen, roots, of, learners.ridge_alpha, whole) for of in (None, few))
        return _Members(columns, averaged(wide, compact), grown)

    folds = [
        (train, test)
        for train, test in rolling_folds(rows["as_of"], outcome_span(project))
        if np.count_nonzero(positive[train]) >= FEWEST
    ]
    tasks = [(rows["as_of"].iloc[test[0]], train) for train, test in folds]
    *earlier, last = side_by_side(members, [*tasks, (ahead.day, np.arange(len(rows)))])
    level = _Level.of(project, rows, _structural(x, columns), actual, ahead.missed)

    seen = [_Seen(t, actual[t], [m.expect(x[t], r) for r in ROUNDS]) for m, (_, t) in zip(earlier, folds, strict=True)]
    at, weights = _settle(seen)
    coming = ahead.x if len(ahead.x) else x[rows["as_of"].to_numpy() == rows["as_of"].max()]
    expected = last.expect(coming, ROUNDS[at])
    factors = _factors(weights, expected, level.total(expected, ahead.day))
    later = _out_of_time(rows, seen, level)
    if seen:
        bands = _bands(later["predicted"].to_numpy(), later["actual"].to_numpy())
    else:  # no snapshot is late enough: the interval is that of the training rows, and no figure is given for later
        own = last.expect(x, ROUNDS[at])
        bands = _bands(_mix(_factors(weights, own, float(actual.sum())), own), actual)
    return ValueModel(columns, last.linear, last.boosted.first(ROUNDS[at]), factors, *bands), later


def _compact(project: Project, names: Sequence[str]) -> list[int]:
    """Give the positions of the few inputs that always matter to value."""
    spent = {name.format(w=w) for name in _SPENT for w in project.features.windows_days}
    return [j for j, name in enumerate(names) if name in {*COMPACT, *spent}]


@dataclass(frozen=True)
class _Members:
    """Hold trained members, and what they expect of rows."""

    names: tuple[str, ...]
    linear: Linear
    boosted: Boosted

    def expect(self, x: Floats, rounds: int) -> Floats:
        return _members(self.linear, self.boosted.predict(x, rounds), x, self.names)


@dataclass(frozen=True)
class _Level:
    """Hold the window, and what MBG/NBD with Gamma-Gamma misses as a rule, and in the windows that are over."""

    window: tuple[int, int]
    usual: float
    missed: list[Window]

    @classmethod
    def of(
        cls, project: Project, rows: pd.DataFrame, structural: Floats, actual: Floats, between: Sequence[Window]
    ) -> _Level:
        """Measure it on rows with outcomes, beside the windows between them. What is expected is spend, not margin."""
        usual = total_shift(structural, float(actual.sum())) if project.value.measure == "margin" else 0.0
        window = project.outcome.gap_days, project.outcome.gap_days + project.outcome.horizon_days
        usually, span = structural * np.exp(usual), (*window, outcome_span(project))
        return cls(window, usual, [*missed_by_date(Window.of_total, span, rows, usually, actual), *between])

    def total(self, members: Floats, day: pd.Timestamp) -> float:
        """Forecast the value of all customers: what the last member expects, corrected by its misses known at a day."""
        return float(members[-1].sum() * np.exp(self.usual + forecast_miss(self.missed, day, *self.window)))


def _out_of_time(rows: pd.DataFrame, seen: list[_Seen], level: _Level) -> pd.DataFrame:
    """Predict each later date by the blend that the others choose, and by every member alone."""
    later = [pd.DataFrame(columns=[*KEYS, "actual", "predicted", *MEMBERS])] if not seen else []
    for fold in seen:
        at, weights = _settle([other for other in seen if other is not fold])
        members, told = fold.members[at], rows[list(KEYS)].iloc[fold.rows].assign(actual=fold.actual)
        whole = level.total(members, told["as_of"].iloc[0])
        for name, blend in zip(("predicted", *MEMBERS), (weights, *_ALONE), strict=True):
            told[name] = _mix(_factors(blend, members, whole), members)
        later.append(told)
    return pd.concat(later, ignore_index=True)


@dataclass(frozen=True)
class _Seen:
    """Hold a later date's rows, what happened, and what the members predicted per `ROUNDS`, (members, rows)."""

    rows: NDArray[np.int64]
    actual: Floats
    members: list[Floats]


def _settle(seen: list[_Seen]) -> tuple[int, Weights]:
    """Choose the number of trees, an index of `ROUNDS`, and the weights on later dates, each at its exact level."""
    if not seen:
        return _PRIOR_ROUNDS, _PRIOR

    def errors(at: int, weights: Weights) -> Floats:
        exact = [_mix(_factors(weights, f.members[at], float(f.actual.sum())), f.members[at]) for f in seen]
        return squared_errors(np.concatenate(exact), np.concatenate([f.actual for f in seen]))

    at = int(np.argmin([errors(k, (0.0, 1.0, 0.0)).mean() for k in range(len(ROUNDS))]))
    found = _weight({w: errors(at, w) for w in _WEIGHTS})
    a, b, c = ((p + len(seen) * w) / (1 + len(seen)) for p, w in zip(_PRIOR, found, strict=True))
    return at, (a, b, c)  # the prior weighs as a date does, since customers of one date share its luck


def _square(root: Floats) -> Floats:
    return np.maximum(root, 0.0) ** 2


def squared_errors(predicted: Floats, actual: Floats) -> Floats:
    """Give squared errors, smallest for the mean, the largest thousandth cut so that no whale decides alone."""
    most = float(np.quantile(actual, 0.999))
    return np.square(np.minimum(predicted, most) - np.minimum(actual, most))


def _weight(errors: Mapping[Weights, Floats]) -> Weights:
    """Keep the prior weights unless others are better beyond chance: few dates cannot tell near-equal blends apart."""
    gains = {w: errors[_PRIOR] - e for w, e in errors.items() if w != _PRIOR}
    sure = {w: g.mean() for w, g in gains.items() if g.mean() > 2 * g.std() / np.sqrt(len(g))}
    return max(sure, key=lambda w: sure[w], default=_PRIOR)


def _bands(predicted: Floats, actual: Floats) -> tuple[list[float], list[float], list[float]]:
    """Take, in each tenth of the predictions, the quantiles of outcome over prediction (split conformal by band)."""
    edges = np.unique(np.quantile(predicted, np.arange(1, _BANDS) / _BANDS)).tolist()
    band = np.searchsorted(np.array(edges), predicted, side="right")
    times = actual / (predicted + _floor(edges))  # so that nothing bought is nothing, whatever was predicted
    low, high = [], []
    for b in range(len(edges) + 1):
        inside = times[band == b] if np.any(band == b) else times
        least = float(np.quantile(inside, (1 - COVERAGE) / 2, method="inverted_cdf"))
        # zeros are many: where they hold the lower bound, fewer than a twentieth lie below it
        reach = min(1.0, float(np.mean(inside < least)) + COVERAGE * (1 + 1 / len(inside)))
        low.append(least)
        high.append(float(np.quantile(inside, reach, method="inverted_cdf")))
    return edges, low, high
