"""Levels by a decision tree of few leaves, whose rules, with readable thresholds, are all that is applied.

The tree is grown by scikit-learn, then its thresholds are rounded and it is evaluated here, in double precision: what
people read is, to the last bit, what is applied.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from tiermodel.errors import DataError
from tiermodel.models.learners.readable_tree import freeze, leaf_of
from tiermodel.tiers.conditions import Condition
from tiermodel.tiers.cuts import band_edges
from tiermodel.tiers.kinds import LearnedScheme
from tiermodel.tiers.lessons import Lessons

__all__ = ["assign", "conditions", "grow", "imitate", "levels_of_rules", "span"]

Levels = NDArray[np.int64]
Floats = NDArray[np.float64]


def grow(scheme: LearnedScheme, lessons: Lessons, seed: int) -> dict[str, Any]:
    """Grow the tree, and give each leaf a level: the one that most of its customers belong to.

    Where the levels are shares of an order, leaves are filled into them from the top instead, so that the shares hold.
    """
    if lessons.rank is not None:
        return _ordered(scheme, lessons, lessons.rank, lessons.value, seed)
    grown = DecisionTreeClassifier(**_size(scheme, lessons), random_state=seed).fit(lessons.x, lessons.wanted)
    tree, leaf = freeze(grown.tree_, lessons.names, lessons.frame)
    level = np.array([np.bincount(lessons.wanted[leaf == n]).argmax() for n in range(leaf.max() + 1)])
    return _state(scheme, lessons, tree, leaf, level)


def imitate(scheme: LearnedScheme, lessons: Lessons, score: Floats, seed: int) -> dict[str, Any]:
    """Grow a tree that orders customers as a score does; `lessons.wanted` are the levels that the score gave them."""
    return _ordered(scheme, lessons, np.argsort(np.argsort(score, kind="stable")) / len(score), score, seed)


def _ordered(scheme: LearnedScheme, lessons: Lessons, rank: Floats, worth: Floats, seed: int) -> dict[str, Any]:
    grown = DecisionTreeRegressor(**_size(scheme, lessons), random_state=seed).fit(lessons.x, rank)
    tree, leaf = freeze(grown.tree_, lessons.names, lessons.frame)
    return _state(scheme, lessons, tree, leaf, _levels_by_worth(lessons.shares, leaf, worth))


def _size(scheme: LearnedScheme, lessons: Lessons) -> dict[str, int]:
    n = len(lessons.frame)
    if n < 2 * scheme.max_leaves:
        raise DataError(f"scheme {scheme.code}: {n} customers are too few to learn {scheme.max_leaves} leaves from")
    return {"max_leaf_nodes": scheme.max_leaves, "min_samples_leaf": max(1, int(scheme.min_leaf_share * n))}


def _state(
    scheme: LearnedScheme, lessons: Lessons, tree: dict[str, list[Any]], leaf: Levels, level: Levels
) -> dict[str, Any]:
    value = lessons.value
    facts = [
        {
            "support": float(np.mean(leaf == n)),
            "purity": float(np.mean(lessons.wanted[leaf == n] == level[n])),
            "value_mean": _mean_known(value[leaf == n]),
        }
        for n in range(len(level))
    ]
    missing = [name for name in dict.fromkeys(tree["feature"]) if name is not None and lessons.frame[name].isna().any()]
    state = {"tree": tree, "level": level.tolist(), "leaves": facts, "may_miss": missing}
    return state if scheme.stability is None else state | _bands(scheme, tree, lessons.frame)


def _mean_known(value: Floats) -> float | None:
    """Average what is known; of customers labelled today nobody knows yet what followed."""
    known = value[~np.isnan(value)]
    return float(known.mean()) if len(known) else None


def _levels_by_worth(shares: list[float], leaf: Levels, worth: Floats) -> Levels:
    """Fill the leaves, worth most first, into the levels from the top; a leaf goes where its middle falls."""
    ends = np.append(np.cumsum(shares[::-1])[:-1], 1.0)  # cumulated share from the top at which each level ends
    counts = np.bincount(leaf)
    order = np.argsort(-np.bincount(leaf, weights=worth) / counts, kind="stable")
    reached = np.cumsum(counts[order]) / len(leaf)
    middle = reached - counts[order] / len(leaf) / 2
    level = np.empty(len(counts), dtype=np.int64)
    level[order] = len(ends) - 1 - np.searchsorted(ends, middle - 1e-12)
    return level


def _bands(scheme: LearnedScheme, tree: dict[str, list[Any]], frame: pd.DataFrame) -> dict[str, Any]:
    """Give, for every split of the tree, the bounds that the band makes of its threshold."""
    bands: dict[str, Any] = {"up": [], "down": []}
    for name, threshold in zip(tree["feature"], tree["threshold"], strict=True):
        pairs = {} if name is None else band_edges(scheme, [threshold], frame[name].to_numpy(dtype=np.float64))
        for side, of_side in bands.items():
            of_side.append(pairs[side][0] if pairs else None)
    return bands


def assign(
    _scheme: LearnedScheme, state: dict[str, Any], frame: pd.DataFrame
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Give every buyer's level among `bought_levels`, and the rule that decided: the position of the leaf."""
    rule = leaf_of(state["tree"], frame)
    return np.array(state["level"])[rule], rule


def span(_scheme: LearnedScheme, state: dict[str, Any], frame: pd.DataFrame) -> tuple[Levels, Levels]:
    """Give the lowest level within the band for moving up, and the highest within the band for moving down."""
    return _reach(state, frame, "up")[0], _reach(state, frame, "down")[1]


def _reach(state: dict[str, Any], frame: pd.DataFrame, side: str) -> tuple[Levels, Levels]:
    """Give the lowest and the highest level of all leaves that the band leaves open."""
    tree, levels = state["tree"], np.array(state["level"])
    lowest, highest = np.full(len(frame), levels.max()), np.zeros(len(frame), dtype=np.int64)
    here = {0: np.ones(len(frame), dtype=np.bool_)}
    leaf = 0
    for n, name in enumerate(tree["feature"]):  # children come after their parent
        mask = here.pop(n)
        if name is None:
            lowest = np.where(mask, np.minimum(lowest, levels[leaf]), lowest)
            highest = np.where(mask, np.maximum(highest, levels[leaf]), highest)
            leaf += 1
            continue
        x = frame[name].to_numpy(dtype=np.float64)
        low, high = state[side][n]
        missing, missing_left = np.isnan(x), tree["missing_left"][n]
        here[tree["left"][n]] = mask & np.where(missing, missing_left, x <= high)
        here[tree["right"][n]] = mask & np.where(missing, not missing_left, x > low)
    return lowest, highest


def levels_of_rules(_scheme: LearnedScheme, state: dict[str, Any]) -> Levels:
    """Give the level, among `bought_levels`, of every leaf."""
    return np.array(state["level"])


def conditions(_scheme: LearnedScheme, state: dict[str, Any]) -> list[list[Condition]]:
    """List each leaf's path in the tree's order of leaves, the bounds on one feature taken together."""
    tree = state["tree"]
    found: dict[int, list[Condition]] = {}

    def descend(n: int, path: dict[str, Condition]) -> None:
        name = tree["feature"][n]
        if name is None:
            found[n] = list(path.values())
            return
        threshold, missing_left = tree["threshold"][n], tree["missing_left"][n]
        before = path.get(name, Condition(name, missing=name in state["may_miss"]))
        left = Condition(name, before.low, min(before.high, threshold), before.missing and missing_left)
        right = Condition(name, max(before.low, threshold), before.high, before.missing and not missing_left)
        others = {key: condition for key, condition in path.items() if key != name}  # the last split comes last
        descend(tree["left"][n], {**others, name: left})
        descend(tree["right"][n], {**others, name: right})

    descend(0, {})
    return [found[n] for n in sorted(found)]
