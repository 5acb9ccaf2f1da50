"""Churn risk: the calibrated probability of churning as the project defines it, by default no purchase in the window.

Five members are blended on the log-odds scale: a logistic regression on all inputs, a compact one on the few that
always matter, LightGBM, and what MBG/NBD and Pareto/NBD expect. The weights of the blend and the number of trees are
chosen on later snapshots than those the members were trained on, never on training rows; then the members are trained
again on everything. Windows that are not over yet are learned from as far as they have come (`between`). The level of
the coming window is forecast (`level`), so that the mean risk is right where the log is young, grows or has seasons.
Classes are never reweighted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from tiermodel.config.project import Churn, Outcome, Project
from tiermodel.errors import DataError
from tiermodel.features.frame import KEYS
from tiermodel.features.outcome import churn_window, outcome_span
from tiermodel.models.ahead import Ahead, Learned
from tiermodel.models.boosted import ROUNDS, Boosted, fit_boosted, side_by_side
from tiermodel.models.folds import rolling_folds
from tiermodel.models.inputs import COMPACT, EXPECTED
from tiermodel.models.level import Window, chance_shift, forecast_miss, log_odds, missed_by_date
from tiermodel.models.linear import Linear, fit_logistic
from tiermodel.models.signs import constraints

__all__ = ["MEMBERS", "SILENT", "ChurnModel", "at_risk", "fit_churn"]

Floats = NDArray[np.float64]
FEWEST_PER_CLASS = 20
MEMBERS = ("member_logistic", "member_compact", "member_trees", "member_btyd", "member_pareto")
"""What each member alone predicts at the level of the blend, in the blend's order: columns beside `predicted`."""

SILENT = (EXPECTED[0], EXPECTED[3])
"""The inputs that are members by themselves, the last ones."""

_PRIOR = np.array([0.2, 0.2, 0.5, 0.05, 0.05])  # of `MEMBERS`
_UNTESTED = np.array([0.2, 0.3, 0.3, 0.1, 0.1])  # where the history is too short for a later date: plainer ones carry
_PRIOR_ROWS, _PRIOR_DATES = 20.0, 0.02
_LEVEL = MEMBERS.index("member_btyd")  # whose misses forecast the level of the blend
_PRIOR_ROUNDS = 2
_EDGE = 1e-6


def at_risk(churn: Churn, outcome: Outcome, frame: pd.DataFrame) -> NDArray[np.bool_]:
    """Tell who can churn: customers with a purchase, recent and with a contract that ends where `churn` asks for it."""
    since = frame["days_since_last"]
    exposed = since.notna() if churn.active_days is None else since <= churn.active_days
    if churn.contract_renewal_days is not None:
        first, last = churn_window(churn, outcome)
        exposed &= frame["contract_days_left"].between(first, last, inclusive="left")
    return exposed.to_numpy()


@dataclass(frozen=True)
class ChurnModel:
    """Hold the members and the blend: an intercept, then the weights of the members in the order given."""

    names: tuple[str, ...]
    linear: Linear
    compact: Linear
    boosted: Boosted
    blend: tuple[float, ...]

    def predict(self, x: Floats) -> Floats:
        """Give each row's probability of no purchase; `x` has the columns `names`, in that order."""
        odds = _member_odds(self.linear, self.compact, self.boosted.predict(x), x, self.names)
        return _chance(odds, np.array(self.blend[1:]), self.blend[0])


def _member_odds(linear: Linear, compact: Linear, boosted: Floats, x: Floats, names: tuple[str, ...]) -> Floats:
    """Give every member's log-odds, shape (rows, members)."""
    structural = (log_odds(x[:, names.index(name)]) for name in SILENT)
    return np.column_stack([linear.decision(x), compact.decision(x), log_odds(boosted), *structural])


def _chance(odds: Floats, weights: Floats, intercept: float) -> Floats:
    total = np.full(len(odds), intercept)
    for member, weight in zip(odds.T, weights, strict=True):  # in one order, so that no batch size changes a bit
        total += weight * member
    return np.clip(expit(total), _EDGE, 1 - _EDGE)


@dataclass(frozen=True)
class _Members:
    """Hold trained members, and what they say of rows."""

    names: tuple[str, ...]
    linear: Linear
    compact: Linear
    boosted: Boosted

    def odds(self, x: Floats, rounds: int) -> Floats:
        return _member_odds(self.linear, self.compact, self.boosted.predict(x, rounds), x, self.names)


def fit_churn(
    project: Project, panel: pd.DataFrame, inputs: Floats, names: list[str], ahead: Ahead
) -> tuple[ChurnModel, pd.DataFrame]:
    """Fit on a panel with outcomes, sorted by key, and its inputs, for the date and rows `ahead`.

    Also give the blend's out-of-time predictions: the keys, `actual` (1 = churned), and `predicted` by weights fitted
    on the other later dates, at the level forecast from what was over by then, beside `MEMBERS`; empty where no
    snapshot is late enough, and then weights for a short history stand. Raises `DataError` with fewer than 20 customers
    of either kind.
    """
    chosen = at_risk(project.churn, project.outcome, panel) & panel["outcome_churned"].notna().to_numpy()
    rows, x = panel[chosen].reset_index(drop=True), inputs[chosen]
    churned = (rows["outcome_churned"] == 1).to_numpy()
    fewest = int(min(churned.sum(), (~churned).sum()))
    if fewest < FEWEST_PER_CLASS:
        raise DataError(
            f"churn: only {int(churned.sum())} of {len(rows)} customer snapshots churned; "
            f"at least {FEWEST_PER_CLASS} that did and {FEWEST_PER_CLASS} that did not are needed: "
            "change outcome.horizon_days or bring more history"
        )
    span = outcome_span(project)
    few = [j for j, name in enumerate(names) if name in COMPACT]
    trees, c = project.models.churn.trees, project.models.churn.logistic_c
    target = {"objective": "binary", **constraints(trees, names, "churn")}

    history_days = rows.groupby("as_of")["days_since_first"].transform("max").to_numpy(dtype=np.float64)

    def members(task: tuple[pd.Timestamp, NDArray[np.int64]]) -> _Members:
        day, train = task
        train = _seasoned(train, history_days, churned, span)
        x_seen, y, counted = Learned.of(x[train], churned[train], ahead.cut(day))
        grown = fit_boosted(x_seen, y, names, ROUNDS[-1], project.seed, trees, counted, **target)
        linear, compact = (fit_logistic(x_seen, y > 0, columns, c, counted) for columns in (None, few))
        return _Members(tuple(names), linear, compact, grown)

    folds = [
        (train, test)
        for train, test in rolling_folds(rows["as_of"], span)
        if min(churned[train].sum(), (~churned[train]).sum()) >= FEWEST_PER_CLASS
    ]
    tasks = [(rows["as_of"].iloc[test[0]], train) for train, test in folds]
    *earlier, last = side_by_side(members, [*tasks, (ahead.day, np.arange(len(rows)))])
    window = churn_window(project.churn, project.outcome)
    structural = log_odds(x[:, names.index(EXPECTED[0])])
    missed = [*missed_by_date(Window.of_chance, (*window, span), rows, structural, churned), *ahead.missed]

    def level(odds: Floats, weights: Floats, day: pd.Timestamp) -> float:
        """Give the intercept at which the mean risk is what MBG/NBD expects, corrected by its misses known at a day."""
        rate = expit(odds[:, _LEVEL] + forecast_miss(missed, day, *window)).mean()
        return chance_shift(odds @ weights, float(rate))

    seen = [_Seen(t, churned[t], [m.odds(x[t], r) for r in ROUNDS]) for m, (_, t) in zip(earlier, folds, strict=True)]
    at, weights = _fit_blend(seen)
    intercept = level(last.odds(ahead.x, ROUNDS[at]), weights, ahead.day) if len(ahead.x) else 0.0
    blend = (intercept, *(float(w) for w in weights))
    model = ChurnModel(tuple(names), last.linear, last.compact, last.boosted.first(ROUNDS[at]), blend)
    return model, _out_of_time(rows, seen, level)


def _out_of_time(
    rows: pd.DataFrame, seen: list[_Seen], level: Callable[[Floats, Floats, pd.Timestamp], float]
) -> pd.DataFrame:
    """Predict each later date by the blend that the others choose, and by every member alone."""
    later = [pd.DataFrame(columns=[*KEYS, "actual", "predicted", *MEMBERS])] if not seen else []
    for fold in seen:
        at, weights = _fit_blend([other for other in seen if other is not fold])
        odds, told = fold.odds[at], rows[list(KEYS)].iloc[fold.rows].assign(actual=fold.churned.astype(float))
        for name, blend in zip(("predicted", *MEMBERS), (weights, *np.eye(len(MEMBERS))), strict=True):
            told[name] = _chance(odds, blend, level(odds, blend, told["as_of"].iloc[0]))
        later.append(told)
    return pd.concat(later, ignore_index=True)


def _seasoned(
    train: NDArray[np.int64], history_days: Floats, churned: NDArray[np.bool_], span: int
) -> NDArray[np.int64]:
    """Leave out the dates of a young log, which knows its heaviest customers only: history shorter than a window.

    Those with the longest history stay in any case, and all do where too few customers of either kind would be left.
    """
    seen = history_days[train]
    kept = train[seen >= min(span, seen.max())]
    return kept if min(churned[kept].sum(), (~churned[kept]).sum()) >= FEWEST_PER_CLASS else train


@dataclass(frozen=True)
class _Seen:
    """Hold a later date's rows, what happened, and the members' log-odds per `ROUNDS`."""

    rows: NDArray[np.int64]
    churned: NDArray[np.bool_]
    odds: list[Floats]


def _loss(weights: Floats, intercept: float, odds: Floats, churned: NDArray[np.bool_]) -> float:
    p = _chance(odds, weights, intercept)
    return float(-np.mean(np.log(np.where(churned, p, 1 - p))))


def _fit_blend(seen: list[_Seen]) -> tuple[int, Floats]:
    """Choose the number of trees, an index of `ROUNDS`, and non-negative weights near the prior, by log loss.

    Each date has an intercept of its own, so that its level decides nothing. Without later dates the weights are those
    for a short history.
    """
    if not seen:
        return _PRIOR_ROUNDS, _UNTESTED

    def prior_loss(at: int) -> float:
        shifts = [chance_shift(fold.odds[at] @ _PRIOR, fold.churned.mean()) for fold in seen]
        return float(np.mean([_loss(_PRIOR, d, f.odds[at], f.churned) for d, f in zip(shifts, seen, strict=True)]))

    at = int(np.argmin([prior_loss(k) for k in range(len(ROUNDS))]))
    sizes = [len(fold.rows) for fold in seen]
    odds = np.vstack([fold.odds[at] for fold in seen])
    design = np.hstack([odds, np.repeat(np.eye(len(seen)), sizes, axis=0)])
    churned = np.concatenate([fold.churned for fold in seen]).astype(float)
    # many customers of one date still are one date
    pull, members = max(_PRIOR_ROWS / len(churned), _PRIOR_DATES / len(seen) ** 2), len(_PRIOR)

    def loss(w: Floats) -> tuple[float, Floats]:
        score = design @ w
        gradient = design.T @ (expit(score) - churned) / len(churned)
        away = w[:members] - _PRIOR
        gradient[:members] += 2 * pull * away
        return float(np.mean(np.logaddexp(0, score) - churned * score) + pull * away @ away), gradient

    bounds = [(0, 3)] * members + [(-5, 5)] * len(seen)
    start = np.r_[_PRIOR, np.zeros(len(seen))]
    return at, minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x[:members]
