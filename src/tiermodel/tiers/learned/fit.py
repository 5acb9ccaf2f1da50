"""The kind `learned`: levels by a tree or by a strong learner's score; the learner is chosen on later snapshots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from tiermodel.arrays import Floats, Ints
from tiermodel.evaluation.bootstrap import draw_count
from tiermodel.evaluation.metrics import quadratic_weighted_kappa
from tiermodel.features.condition import Condition, Named
from tiermodel.models.learners.time_split import split_by_date
from tiermodel.tiers.learned import score, tree
from tiermodel.tiers.learned.scheme import LearnedScheme
from tiermodel.tiers.learned.training_set import TrainingSet, training_set_of
from tiermodel.tiers.schemes.protocol import AppliedKind, FitContext, Reasons, SqlLevel, State, Thresholds

__all__ = [
    "assign",
    "conditions",
    "explain",
    "fit",
    "key_levels",
    "levels_of_rules",
    "ranking",
    "rule_facts",
    "sql",
    "sure_levels",
    "surrogate",
    "surrogate_line",
    "thresholds",
    "with_texts",
    "without_texts",
]


_FOLDS = 2
_ROWS, _LEAST, _MOST = 1_000_000, 50, 400  # rows drawn in all, fewest and most draws of the bootstrap


@dataclass(frozen=True)
class _Trial:
    """The customers of a later date, with what followed, and the level that each learner gave them."""

    later: TrainingSet
    levels: Mapping[str, Ints]
    metrics: Sequence[dict[str, Any]]


def fit(scheme: LearnedScheme, snapshot: pd.DataFrame, context: FitContext) -> State:
    """Return the state fitted on past dates; a strong learner's score is cut on the snapshot of buyers.

    Every strong learner, and the tree that imitates it, is tried on up to two later dates of the training data;
    `trials` in the state keeps the metrics. `auto` takes the simplest of the three learners that is within one standard
    error of the best of them, or the tree where no date is late enough to try.
    """
    history, seed = context.history, context.seed
    training = training_set_of(scheme, snapshot, history, seed)
    if scheme.learner == "tree":
        return tree.grow(scheme, training, seed)
    learners = ["tree", *score.LEARNERS] if scheme.learner == "auto" else [scheme.learner]
    delay = context.label_delay_days or (snapshot["as_of"].max() - history["as_of"].max()).days
    tried = _trials(scheme, training, learners, seed, delay) if delay > 0 else []
    learner = _simplest_of_best(scheme, learners, tried, seed)
    state = _learned(scheme, learner, training, snapshot, seed)
    trials = state["trials"] = [row for trial in tried for row in trial.metrics]
    if "surrogate" in state:
        state["fidelity"] = _fidelity(scheme, state, snapshot, [t for t in trials if t["learner"] == learner])
    return state


def key_levels(scheme: LearnedScheme) -> list[int]:
    """Return the positions of the key levels in `bought_levels`; the highest alone where none is marked."""
    keys = {level.code for level in scheme.levels if level.key} or {scheme.codes[-1]}
    return [n for n, code in enumerate(scheme.bought_levels) if code in keys]


def _learned(
    scheme: LearnedScheme, learner: str, training: TrainingSet, snapshot: pd.DataFrame, seed: int
) -> dict[str, Any]:
    if learner == "tree":
        return tree.grow(scheme, training, seed)
    return score.fit(scheme, learner, training, snapshot, seed)


def _trials(
    scheme: LearnedScheme, training: TrainingSet, learners: Sequence[str], seed: int, label_delay_days: int
) -> list[_Trial]:
    """Return every learner's metrics on later dates, trained on dates whose outcome was known by then."""
    found = []
    for split in split_by_date(
        training.frame["as_of"], label_delay_days, _FOLDS, lambda rows: len(rows) >= 2 * scheme.max_leaves
    ):
        past, later = training.take(split.train), training.take(split.test)
        levels, metrics = {}, []
        for learner in learners:
            state = _learned(scheme, learner, past, later.frame, seed)
            level = levels[learner] = assign(scheme, state, later.frame)[0]
            row = {"learner": learner, "as_of": str(split.day.date()), "n": len(later.frame)}
            row |= learner_metrics(scheme, later.target_level, later.value, level)
            if "surrogate" in state:
                imitated = tree.assign(scheme, state["surrogate"], later.frame)[0]
                row["of_best_imitated"] = learner_metrics(scheme, later.target_level, later.value, imitated)["of_best"]
            metrics.append(row)
        found.append(_Trial(later, levels, metrics))
    return found


def learner_metrics(scheme: LearnedScheme, actual: Ints, value: Floats, level: Ints) -> dict[str, float | None]:
    """Return the kappa, the share of the value that key customers brought, and that over the most possible.

    The last, `of_best`, is 1 where no other customers, as many, brought more, so that schemes compare whose key levels
    differ in size. None where no value is known.
    """
    total, inside = np.nansum(value), np.isin(level, key_levels(scheme))
    most = np.sort(value[~np.isnan(value)])[::-1][: np.count_nonzero(inside & ~np.isnan(value))].sum()
    known = bool(total > 0 and most > 0)
    return {
        "qwk": _kappa(scheme, actual, level),
        "value_capture": float(np.nansum(value[inside]) / total) if known else None,
        "of_best": float(np.nansum(value[inside]) / most) if known else None,
    }


def _kappa(scheme: LearnedScheme, actual: Ints, level: Ints) -> float | None:
    kappa = quadratic_weighted_kappa(actual, level, len(scheme.bought_levels))
    return None if np.isnan(kappa) else kappa


def _simplest_of_best(scheme: LearnedScheme, learners: Sequence[str], tried: Sequence[_Trial], seed: int) -> str:
    """Return the first learner, `learners` being ordered from the simplest, within one standard error of the best.

    The best has the greatest sum of kappa and `of_best` over the dates; the error is that of a difference to the best,
    by a paired bootstrap over customers (one-standard-error rule: Breiman, Friedman, Olshen and Stone 1984).
    """
    if len(learners) == 1 or not tried:
        return learners[0]
    rng, rows = np.random.default_rng(seed), sum(len(trial.later.value) for trial in tried)
    draws = draw_count(rows, _ROWS, _LEAST, _MOST)
    worth = np.zeros((1 + draws, len(learners)))
    for trial in tried:
        actual, value = trial.later.target_level, trial.later.value
        for draw in range(1 + draws):
            drawn = rng.integers(0, len(value), len(value)) if draw else np.arange(len(value))
            for column, learner in enumerate(learners):
                figures = learner_metrics(scheme, actual[drawn], value[drawn], trial.levels[learner][drawn])
                worth[draw, column] += (figures["qwk"] or 0.0) + (figures["of_best"] or 0.0)
    behind = worth[:, [np.argmax(worth[0])]] - worth
    return learners[int(np.argmax(behind[0] <= behind[1:].std(axis=0)))]


def _fidelity(
    scheme: LearnedScheme, state: dict[str, Any], snapshot: pd.DataFrame, trials: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Return the agreement of tree and score on the snapshot, and the share of captured value that the tree keeps."""
    level, imitated = score.assign(scheme, state, snapshot)[0], tree.assign(scheme, state["surrogate"], snapshot)[0]
    kept = [t["of_best_imitated"] / t["of_best"] for t in trials if t["of_best"] and t["of_best_imitated"]]
    return {
        "equal": float(np.mean(level == imitated)),
        "qwk": _kappa(scheme, level, imitated),
        "value_kept": float(np.mean(kept)) if kept else None,
    }


def _applied(state: State) -> AppliedKind[LearnedScheme]:
    """Return the module that applies the state: `score` for a strong learner, else `tree`."""
    return score if "surrogate" in state else tree


def assign(scheme: LearnedScheme, state: State, frame: pd.DataFrame) -> tuple[Ints, Ints]:
    """Return every buyer's level among `bought_levels`, and the rule: the leaf, or the level itself for a score."""
    return _applied(state).assign(scheme, state, frame)


def sure_levels(scheme: LearnedScheme, state: State, frame: pd.DataFrame) -> tuple[Ints, Ints]:
    """Return the lowest level within the band for moving up, and the highest within the band for moving down."""
    return _applied(state).sure_levels(scheme, state, frame)


def ranking(scheme: LearnedScheme, state: State, frame: pd.DataFrame) -> Floats:
    """Return every buyer's score by a strong learner; NaN for a tree, whose scheme names a `priority` instead."""
    return score.ranking(scheme, state, frame) if "surrogate" in state else np.full(len(frame), np.nan)


def levels_of_rules(scheme: LearnedScheme, state: State) -> Ints:
    """Return the level, among `bought_levels`, of every rule."""
    return _applied(state).levels_of_rules(scheme, state)


def conditions(scheme: LearnedScheme, state: State) -> list[list[Condition]]:
    """Return every rule's conditions: the path to a leaf, or bounds on the score."""
    return _applied(state).conditions(scheme, state)


def thresholds(scheme: LearnedScheme, state: State) -> Thresholds:
    """Return the thresholds of a tree; `ProjectError` for a score."""
    return _applied(state).thresholds(scheme, state)


def sql(scheme: LearnedScheme, state: State) -> SqlLevel:
    """Return the level as SQL: of the tree, or of the tree that imitates a score."""
    return tree.sql(scheme, state.get("surrogate", state))


def explain(
    scheme: LearnedScheme, state: State, frame: pd.DataFrame, features: Mapping[str, Named], language: str
) -> Reasons | None:
    """Return the features with the largest effect on a score; None for a tree, whose conditions are enough."""
    return score.explain(scheme, state, frame, features, language) if "surrogate" in state else None


def surrogate(state: State) -> State | None:
    """Return the tree that imitates a score; None where a tree is applied itself."""
    return state.get("surrogate")


def surrogate_line(state: State, language: str) -> str:
    """Return a line on how closely the tree agrees with the score that it imitates."""
    return score.surrogate_line(state, language)


def rule_facts(state: State, language: str) -> list[str]:
    """Return the statistics of every leaf; an empty list for a score."""
    return [] if "surrogate" in state else tree.rule_facts(state, language)


def without_texts(state: State) -> tuple[State, dict[str, str]]:
    """Return the state with file names in place of the text of boosted trees, and the texts by file name."""
    return score.without_texts(state) if "surrogate" in state else (state, {})


def with_texts(state: State, files: Mapping[str, bytes]) -> State:
    """Return the state with the texts in place of their file names."""
    return score.with_texts(state, files) if "surrogate" in state else state
