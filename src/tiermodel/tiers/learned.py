"""Learned levels: from lessons to a tree, or to a strong learner's score; the learner chosen on later snapshots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tiermodel.models.learners.time_split import rolling_folds
from tiermodel.models.metrics import quadratic_weighted_kappa
from tiermodel.tiers import leaves, scored
from tiermodel.tiers.kinds import LearnedScheme
from tiermodel.tiers.lessons import Lessons, lessons_of

__all__ = ["fit", "key_levels", "kind_of"]

Levels = NDArray[np.int64]
_FOLDS = 2


def fit(
    scheme: LearnedScheme, snapshot: pd.DataFrame, history: pd.DataFrame, seed: int, span_days: int | None = None
) -> dict[str, Any]:
    """Learn from past dates, and cut a strong learner's score on the snapshot of buyers.

    `span_days` is gap plus horizon of the outcome; without it, the days from the last past date to the snapshot. Every
    strong learner is tried on up to two later dates before its training's end, with the tree that imitates it; `trials`
    in the state keep the figures. `auto` takes the best of all three, the tree where no date is late enough to try.
    """
    lessons = lessons_of(scheme, snapshot, history, seed)
    if scheme.learner == "tree":
        return leaves.grow(scheme, lessons, seed)
    learners = ["tree", *scored.LEARNERS] if scheme.learner == "auto" else [scheme.learner]
    span = span_days or (snapshot["as_of"].max() - history["as_of"].max()).days
    trials = _trials(scheme, lessons, learners, seed, span) if span > 0 else []
    learner = _best(learners, trials)
    state = _learned(scheme, learner, lessons, snapshot, seed)
    state["trials"] = trials
    if "surrogate" in state:
        state["fidelity"] = _fidelity(scheme, state, snapshot, [t for t in trials if t["learner"] == learner])
    return state


def kind_of(state: dict[str, Any]) -> Any:
    """Give the module that applies a state: a tree's, or a score's."""
    return scored if "surrogate" in state else leaves


def key_levels(scheme: LearnedScheme) -> list[int]:
    """List the key levels by their number among those of buyers; the highest alone where none is marked."""
    keys = {level.code for level in scheme.levels if level.key} or {scheme.codes[-1]}
    return [n for n, code in enumerate(scheme.bought_levels) if code in keys]


def _learned(
    scheme: LearnedScheme, learner: str, lessons: Lessons, snapshot: pd.DataFrame, seed: int
) -> dict[str, Any]:
    if learner == "tree":
        return leaves.grow(scheme, lessons, seed)
    return scored.fit(scheme, learner, lessons, snapshot, seed)


def _trials(
    scheme: LearnedScheme, lessons: Lessons, learners: Sequence[str], seed: int, span_days: int
) -> list[dict[str, Any]]:
    """Train on dates whose outcome was known at a later date, and judge the levels there by what then followed."""
    found = []
    for train, test in rolling_folds(lessons.frame["as_of"], span_days, most=_FOLDS):
        past, later = lessons.take(train), lessons.take(test)
        if len(past.frame) < 2 * scheme.max_leaves:
            continue
        for learner in learners:
            state = _learned(scheme, learner, past, later.frame, seed)
            row = {"learner": learner, "as_of": str(later.frame["as_of"].iloc[0].date()), "n": len(later.frame)}
            row |= _judged(scheme, later, kind_of(state).assign(scheme, state, later.frame)[0])
            if "surrogate" in state:
                told = _judged(scheme, later, leaves.assign(scheme, state["surrogate"], later.frame)[0])
                row["of_best_imitated"] = told["of_best"]
            found.append(row)
    return found


def _judged(scheme: LearnedScheme, later: Lessons, level: Levels) -> dict[str, float | None]:
    """Give kappa, the share of the value that key customers brought, and that over the most they could have brought.

    The last compares schemes whose key levels are not equally large: it is 1 where no other customers, as many, brought
    more. None where nothing is known of the value.
    """
    value = later.value
    total, inside = np.nansum(value), np.isin(level, key_levels(scheme))
    most = np.sort(value[~np.isnan(value)])[::-1][: np.count_nonzero(inside & ~np.isnan(value))].sum()
    known = bool(total > 0 and most > 0)
    return {
        "qwk": _kappa(scheme, later.wanted, level),
        "value_capture": float(np.nansum(value[inside]) / total) if known else None,
        "of_best": float(np.nansum(value[inside]) / most) if known else None,
    }


def _kappa(scheme: LearnedScheme, actual: Levels, level: Levels) -> float | None:
    kappa = quadratic_weighted_kappa(actual, level, len(scheme.bought_levels))
    return None if np.isnan(kappa) else kappa


def _best(learners: Sequence[str], trials: Sequence[dict[str, Any]]) -> str:
    """Choose the learner with the greatest sum of kappa and captured value over the dates; the simplest of equals."""

    def worth(learner: str) -> float:
        return sum((t["qwk"] or 0.0) + (t["of_best"] or 0.0) for t in trials if t["learner"] == learner)

    return max(learners, key=worth)


def _fidelity(
    scheme: LearnedScheme, state: dict[str, Any], snapshot: pd.DataFrame, trials: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Say how well the tree imitates the score: on the snapshot, and in value captured on the dates tried."""
    level, told = (kind.assign(scheme, s, snapshot)[0] for kind, s in ((scored, state), (leaves, state["surrogate"])))
    kept = [t["of_best_imitated"] / t["of_best"] for t in trials if t["of_best"] and t["of_best_imitated"]]
    return {
        "equal": float(np.mean(level == told)),
        "qwk": _kappa(scheme, level, told),
        "value_kept": float(np.mean(kept)) if kept else None,
    }
