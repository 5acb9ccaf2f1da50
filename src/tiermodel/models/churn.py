"""Churn risk: the calibrated probability of churning as the project defines it, by default no purchase in the window.

Five members are blended on the log-odds scale: a logistic regression on all inputs, a compact one on the inputs that
always matter, LightGBM, and P(no purchase) by MBG/NBD and by Pareto/NBD. The weights of the blend and the number of
trees are chosen on out-of-fold predictions, never on training rows; then the members are trained again on all rows.
Outcome windows that are partly over enter as partial observations (`calibration.recent`). The base rate of the coming
window is forecast (`calibration.level`), so that the mean risk is right where the log is young, grows or has seasons.
Classes are never reweighted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.optimize import minimize
from scipy.special import expit

from tiermodel.arrays import Flags, Floats, Ints
from tiermodel.config.learners import ChurnLearners
from tiermodel.errors import DataError
from tiermodel.features.frame import KEYS
from tiermodel.features.outcome import ChurnLabel, at_risk
from tiermodel.models.btyd.forecast import BTYD_INPUTS
from tiermodel.models.calibration.level import (
    AS_EXPECTED,
    LevelForecast,
    ObservedWindow,
    forecast_level,
    residuals_by_date,
)
from tiermodel.models.calibration.logit import intercept_for_rate, log_odds
from tiermodel.models.calibration.recent import ForecastContext, TrainingRows
from tiermodel.models.design_matrix import COMPACT
from tiermodel.models.learners.boosting import ROUNDS, Boosted, fit_boosted, map_threads
from tiermodel.models.learners.linear import Linear, fit_logistic
from tiermodel.models.learners.monotone import monotone_constraints
from tiermodel.models.learners.time_split import (
    FEWEST_PER_CLASS,
    Fold,
    Split,
    both_classes,
    out_of_fold,
    split_by_date,
    stack_folds,
)

__all__ = ["MEMBERS", "P_ZERO_INPUTS", "ChurnModel", "fit_churn"]


_Fold = Fold[list[Floats]]  # the members' log-odds, shape (rows, members), per `ROUNDS`
MEMBERS = ("member_logistic", "member_compact", "member_trees", "member_btyd", "member_pareto")
"""The columns beside `predicted`: each member alone at the base rate of the blend, in the order of its weights."""

P_ZERO_INPUTS = (BTYD_INPUTS[0], BTYD_INPUTS[3])
"""The inputs that are P(no purchase) of a buy-till-you-die model: each is a member by itself, the last ones."""

_PRIOR = np.array([0.2, 0.2, 0.5, 0.05, 0.05])  # of `MEMBERS`
_UNTESTED = np.array([0.2, 0.3, 0.3, 0.1, 0.1])  # where the history is too short for a fold: simple members weigh more
_PRIOR_ROWS, _PRIOR_DATES = 20.0, 0.02
_BASE_RATE = MEMBERS.index("member_btyd")  # the member whose residuals forecast the base rate
_PRIOR_ROUNDS = 2
_EDGE = 1e-6


@dataclass(frozen=True)
class ChurnModel:
    """A fitted churn model: its members, and their blend as an intercept and the weights of `MEMBERS`.

    `level` is the forecast of the base rate, in log-odds beside that of MBG/NBD.
    """

    names: tuple[str, ...]
    linear: Linear
    compact: Linear
    boosted: Boosted
    blend: tuple[float, ...]
    level: LevelForecast = AS_EXPECTED

    def predict(self, x: Floats) -> Floats:
        """Return each row's probability of churning; `x` has the columns `names`, in that order."""
        return _blended(self.member_odds(x), np.array(self.blend[1:]), self.blend[0])

    def member_odds(self, x: Floats) -> Floats:
        """Return every member's log-odds, shape (rows, members)."""
        return self._with_trees(x, [self.boosted.predict(x)])[0]

    def member_odds_by_rounds(self, x: Floats) -> list[Floats]:
        """Return every member's log-odds, shape (rows, members), with each number of trees in `ROUNDS`."""
        return self._with_trees(x, [expit(score) for score in self.boosted.scores(x, ROUNDS)])

    def _with_trees(self, x: Floats, trees: Sequence[Floats]) -> list[Floats]:
        linear = self.linear.decision(x), self.compact.decision(x)
        structural = [log_odds(x[:, self.names.index(name)]) for name in P_ZERO_INPUTS]
        return [np.column_stack([*linear, log_odds(p), *structural]) for p in trees]


def _blended(odds: Floats, weights: Floats, intercept: float) -> Floats:
    total = np.full(len(odds), intercept)
    for member, weight in zip(odds.T, weights, strict=True):  # summed in one order: no batch size changes a bit
        total += weight * member
    return np.clip(expit(total), _EDGE, 1 - _EDGE)


def fit_churn(
    panel: pd.DataFrame, inputs: Floats, names: list[str], label: ChurnLabel, learners: ChurnLearners,
    context: ForecastContext, seed: int,
) -> tuple[ChurnModel, pd.DataFrame]:  # fmt: skip
    """Return the model fitted on a panel with outcomes, sorted by key, for the date and rows of `context`.

    `inputs` is the panel's design matrix. Also return the blend's out-of-fold predictions: the keys, `actual`
    (1 = churned), and `predicted` by weights fitted on the other folds, at the base rate forecast from the windows that
    were over by its date, beside `MEMBERS`. Without a fold they are empty, and the weights are those for a short
    history. Raises `DataError` with fewer than 20 rows of either class.
    """
    rows, at_row, churned = _labelled(panel, label)
    window = label.window
    few = [j for j, name in enumerate(names) if name in COMPACT]
    target = {"objective": "binary", **monotone_constraints(learners.trees, names, "churn")}
    history_days = rows.groupby("as_of")["days_since_first"].transform("max").to_numpy(dtype=np.float64)

    def members(split: Split, rounds: int = ROUNDS[-1]) -> ChurnModel:
        train = _without_young_dates(split.train, history_days, churned, window.known_after)
        partial = context.partial_windows(split.day)
        x_seen, y, weights = TrainingRows.with_partial(inputs[at_row[train]], churned[train], partial)
        grown = fit_boosted(x_seen, y, names, rounds, seed, learners.trees, weights, **target)
        whole, compact = (fit_logistic(x_seen, y > 0, columns, learners.logistic_c, weights) for columns in (None, few))
        return ChurnModel(tuple(names), whole, compact, grown, ())

    splits = split_by_date(rows["as_of"], window.known_after, enough=lambda train: both_classes(churned[train]))
    models = map_threads(members, splits)
    structural = log_odds(inputs[at_row, names.index(BTYD_INPUTS[0])])
    past = residuals_by_date(ObservedWindow.of_rate, window, rows, structural, churned)
    residuals = [*past, *context.residuals]

    def level(day: pd.Timestamp) -> LevelForecast:
        return forecast_level(residuals, day, window.first, window.last, context.calendar)

    def intercept_at(odds: Floats, weights: Floats, day: pd.Timestamp) -> float:
        """Return the intercept that sets the mean risk to MBG/NBD's, corrected by its residuals known at `day`."""
        rate = expit(odds[:, _BASE_RATE] + level(day).residual).mean()
        return intercept_for_rate(odds @ weights, float(rate))

    def blends(fold: _Fold, others: Sequence[_Fold]) -> dict[str, Floats]:
        """Return the predictions of a fold by the blend fitted on the others, and by every member alone."""
        at, weights = _fit_blend(others)
        odds, kinds = fold.prediction[at], zip(("predicted", *MEMBERS), (weights, *np.eye(len(MEMBERS))), strict=True)
        return {name: _blended(odds, blend, intercept_at(odds, blend, fold.day)) for name, blend in kinds}

    observed = churned.astype(np.float64)
    folds = list(out_of_fold(splits, models, observed, lambda m, at: m.member_odds_by_rounds(inputs[at_row[at]])))
    at, weights = _fit_blend(folds)
    model = members(Split.of_all(context.day, len(rows)), ROUNDS[at])
    coming = context.x
    intercept = intercept_at(model.member_odds(coming), weights, context.day) if len(coming) else 0.0
    blend = (intercept, *(float(w) for w in weights))
    model = replace(model, blend=blend, level=level(context.day))
    return model, stack_folds(rows, folds, blends, MEMBERS)


def _labelled(panel: pd.DataFrame, label: ChurnLabel) -> tuple[pd.DataFrame, Ints, Flags]:
    """Return keys and age of the rows at risk whose label is known, their places, and whether each churned."""
    chosen = at_risk(label, panel) & panel["outcome_churned"].notna().to_numpy()
    rows = panel.loc[chosen, [*KEYS, "days_since_first"]].reset_index(drop=True)
    churned = panel.loc[chosen, "outcome_churned"].to_numpy() == 1
    if not both_classes(churned):
        raise DataError(
            f"churn: only {int(churned.sum())} of {len(rows)} customer snapshots churned; "
            f"at least {FEWEST_PER_CLASS} that did and {FEWEST_PER_CLASS} that did not are needed: "
            "change outcome.horizon_days or bring more history"
        )
    return rows, np.flatnonzero(chosen), churned


def _without_young_dates(train: Ints, history_days: Floats, churned: Flags, delay_days: int) -> Ints:
    """Return `train` without dates that had less than a window of history: a young log shows heavy buyers only.

    The dates with the longest history stay in any case, and all do where too few rows of either class would be left.
    """
    seen = history_days[train]
    kept = train[seen >= min(delay_days, seen.max())]
    return kept if both_classes(churned[kept]) else train


def _fit_blend(folds: Sequence[_Fold]) -> tuple[int, Floats]:
    """Return the number of trees, an index of `ROUNDS`, and non-negative weights near the prior, chosen by log loss.

    Each fold has an intercept of its own, so that its base rate decides nothing. Without folds the weights are those
    for a short history.
    """
    if not folds:
        return _PRIOR_ROUNDS, _UNTESTED

    def prior_loss(fold: _Fold, at: int) -> float:
        intercept = intercept_for_rate(fold.prediction[at] @ _PRIOR, fold.observed.mean())
        p = _blended(fold.prediction[at], _PRIOR, intercept)
        return float(-np.mean(np.log(np.where(fold.observed == 1, p, 1 - p))))

    at = int(np.argmin([np.mean([prior_loss(fold, k) for fold in folds]) for k in range(len(ROUNDS))]))
    sizes = [len(fold.rows) for fold in folds]
    odds = np.vstack([fold.prediction[at] for fold in folds])
    design = np.hstack([odds, np.repeat(np.eye(len(folds)), sizes, axis=0)])
    churned = np.concatenate([fold.observed for fold in folds])
    # the customers of one date share its chance events, so the prior weighs by the number of dates, too
    penalty, members = max(_PRIOR_ROWS / len(churned), _PRIOR_DATES / len(folds) ** 2), len(_PRIOR)

    def loss(w: Floats) -> tuple[float, Floats]:
        score = design @ w
        gradient = design.T @ (expit(score) - churned) / len(churned)
        deviation = w[:members] - _PRIOR
        gradient[:members] += 2 * penalty * deviation
        return float(np.mean(np.logaddexp(0, score) - churned * score) + penalty * deviation @ deviation), gradient

    bounds = [(0, 3)] * members + [(-5, 5)] * len(folds)
    start = np.r_[_PRIOR, np.zeros(len(folds))]
    return at, minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x[:members]
