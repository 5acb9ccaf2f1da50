"""Levels by a decision tree of few leaves with readable thresholds; its rules are exactly what is applied.

scikit-learn grows the tree; then its thresholds are rounded, and it is evaluated here in double precision, so that the
printed rules and the assigned levels agree to the last bit.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from tiermodel.arrays import Floats, Ints
from tiermodel.errors import DataError
from tiermodel.features.condition import Condition
from tiermodel.models.learners.readable_tree import (
    freeze,
    leaf_of,
    node_conditions,
    round_readable,
    without_idle_splits,
)
from tiermodel.tiers.kinds.cut_points import band_edges
from tiermodel.tiers.kinds.sql_terms import tree_sql
from tiermodel.tiers.learned.scheme import LearnedScheme
from tiermodel.tiers.learned.training_set import TrainingSet
from tiermodel.tiers.schemes.protocol import SqlLevel, Thresholds
from tiermodel.words import words

__all__ = [
    "assign",
    "conditions",
    "grow",
    "levels_of_rules",
    "rule_facts",
    "sql",
    "sure_levels",
    "thresholds",
]


def grow(scheme: LearnedScheme, training: TrainingSet, seed: int) -> dict[str, Any]:
    """Return a tree whose leaves have the level of most of their customers.

    Where levels are shares of an order, leaves are filled into the levels from the top instead, so that the shares
    hold.
    """
    if training.rank is not None:
        return _ordered(scheme, training, training.rank, seed)
    grown = DecisionTreeClassifier(**_size(scheme, training), random_state=seed).fit(training.x, training.target_level)
    tree, leaf = freeze(grown.tree_, training.names, training.frame)
    level = np.array([np.bincount(training.target_level[leaf == n]).argmax() for n in range(leaf.max() + 1)])
    return _state(scheme, training, tree, leaf, level)


def _ordered(scheme: LearnedScheme, training: TrainingSet, rank: Floats, seed: int) -> dict[str, Any]:
    grown = DecisionTreeRegressor(**_size(scheme, training), random_state=seed).fit(training.x, rank)
    tree, leaf = freeze(grown.tree_, training.names, training.frame)
    return _state(scheme, training, tree, leaf, _levels_by_worth(training.shares, leaf, training.value))


def _size(scheme: LearnedScheme, training: TrainingSet) -> dict[str, int]:
    n = len(training.frame)
    if n < 2 * scheme.max_leaves:
        raise DataError(f"scheme {scheme.code}: {n} customers are too few to learn {scheme.max_leaves} leaves from")
    return {"max_leaf_nodes": scheme.max_leaves, "min_samples_leaf": max(1, int(scheme.min_leaf_share * n))}


def _state(
    scheme: LearnedScheme, training: TrainingSet, tree: dict[str, list[Any]], leaf: Ints, level: Ints
) -> dict[str, Any]:
    """Return what is applied and what is told of it; splits between leaves of one level are left out."""
    tree, became = without_idle_splits(tree, level)
    leaf, level = became[leaf], level[np.unique(became, return_index=True)[1]]
    value = training.value
    facts = [
        {
            "support": float(np.mean(leaf == n)),
            "purity": float(np.mean(training.target_level[leaf == n] == level[n])),
            "value_mean": _mean_known(value[leaf == n]),
        }
        for n in range(len(level))
    ]
    missing = [
        name for name in dict.fromkeys(tree["feature"]) if name is not None and training.frame[name].isna().any()
    ]
    state = {"tree": tree, "level": level.tolist(), "leaves": facts, "may_miss": missing}
    return state if scheme.stability is None else state | _bands(scheme, tree, training.frame)


def _mean_known(value: Floats) -> float | None:
    """Return the mean of the known values; None where none is, as for customers labelled today."""
    known = value[~np.isnan(value)]
    return float(known.mean()) if len(known) else None


def _levels_by_worth(shares: list[float], leaf: Ints, worth: Floats) -> Ints:
    """Return the level of each leaf, filled from the top, most worth first; the leaf's middle decides."""
    ends = np.append(np.cumsum(shares[::-1])[:-1], 1.0)  # cumulated share from the top at which each level ends
    counts = np.bincount(leaf)
    order = np.argsort(-np.bincount(leaf, weights=worth) / counts, kind="stable")
    reached = np.cumsum(counts[order]) / len(leaf)
    middle = reached - counts[order] / len(leaf) / 2
    level = np.empty(len(counts), dtype=np.int64)
    level[order] = len(ends) - 1 - np.searchsorted(ends, middle - 1e-12)
    return level


def _bands(scheme: LearnedScheme, tree: dict[str, list[Any]], frame: pd.DataFrame) -> dict[str, Any]:
    """Return the band around the threshold of every split of the tree."""
    bands: dict[str, Any] = {"up": [], "down": []}
    for name, threshold in zip(tree["feature"], tree["threshold"], strict=True):
        # no band at a leaf, nor between known and missing values
        values = None if threshold is None else frame[name].to_numpy(dtype=np.float64)
        pairs = {} if values is None else band_edges(scheme, [threshold], values, "right")
        for side, of_side in bands.items():
            of_side.append(pairs[side][0] if pairs else None)
    return bands


def assign(_scheme: LearnedScheme, state: dict[str, Any], frame: pd.DataFrame) -> tuple[Ints, Ints]:
    """Return every buyer's level among `bought_levels`, and the rule that decided: the position of the leaf."""
    rule = leaf_of(state["tree"], frame)
    return np.array(state["level"])[rule], rule


def sure_levels(_scheme: LearnedScheme, state: dict[str, Any], frame: pd.DataFrame) -> tuple[Ints, Ints]:
    """Return the lowest level within the band for moving up, and the highest within the band for moving down."""
    return _reach(state, frame, "up")[0], _reach(state, frame, "down")[1]


def _reach(state: dict[str, Any], frame: pd.DataFrame, side: str) -> tuple[Ints, Ints]:
    """Return the lowest and highest level of the leaves within the band."""
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
        low, high = state[side][n] or (math.inf, math.inf)  # known or missing
        missing, missing_left = np.isnan(x), tree["missing_left"][n]
        here[tree["left"][n]] = mask & np.where(missing, missing_left, x <= high)
        here[tree["right"][n]] = mask & np.where(missing, not missing_left, x > low)
    return lowest, highest


def levels_of_rules(_scheme: LearnedScheme, state: dict[str, Any]) -> Ints:
    """Return the level, among `bought_levels`, of every leaf."""
    return np.array(state["level"])


def conditions(_scheme: LearnedScheme, state: dict[str, Any]) -> list[list[Condition]]:
    """Return each leaf's path, in the order of the leaves; bounds on the same feature are joined."""
    paths = node_conditions(state["tree"], state["may_miss"])
    return [path for path, name in zip(paths, state["tree"]["feature"], strict=True) if name is None]


def rule_facts(state: dict[str, Any], language: str) -> list[str]:
    """Return the support, the purity and the mean value that followed of every leaf, as text."""
    found = []
    for fact in state["leaves"]:
        value = "-" if fact["value_mean"] is None else f"{round_readable(fact['value_mean']):,.10g}"
        text = words(language)["rule_facts"]
        found.append(text.format(support=fact["support"], purity=fact["purity"], value=value))
    return found


def thresholds(_scheme: LearnedScheme, state: dict[str, Any]) -> Thresholds:
    """Return the thresholds of the splits; none of a split that only tells missing values from known ones."""
    splits = zip(state["tree"]["feature"], state["tree"]["threshold"], strict=True)
    return [(feature, [threshold]) for feature, threshold in splits if threshold is not None]


def sql(scheme: LearnedScheme, state: dict[str, Any]) -> SqlLevel:
    """Return the level as SQL."""
    levels = [str(scheme.bought_numbers[level]) for level in state["level"]]
    return SqlLevel(tree_sql(state["tree"], levels), {name for name in state["tree"]["feature"] if name is not None})
