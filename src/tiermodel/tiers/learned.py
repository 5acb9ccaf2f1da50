"""Learned levels: a decision tree of few leaves whose rules, with readable thresholds, are the model itself.

Two targets. `future_value`: leaves are ordered by the value that followed past snapshots and filled into the levels
from the top. `clusters`: k-means groups ordered by value, and a tree that tells them apart. The tree is grown by
scikit-learn, then its thresholds are rounded and it is evaluated here, in double precision: what people read is, to the
last bit, what is applied.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from tiermodel.errors import DataError
from tiermodel.features.panel import feature_names
from tiermodel.features.tree import freeze, leaf_of
from tiermodel.tiers.conditions import Condition
from tiermodel.tiers.cuts import band_edges
from tiermodel.tiers.kinds import LearnedScheme
from tiermodel.tiers.segments import assign_segments, fit_segments

__all__ = ["assign", "conditions", "fit", "levels_of_rules", "span"]

Levels = NDArray[np.int64]


def fit(scheme: LearnedScheme, frame: pd.DataFrame, seed: int) -> dict[str, Any]:
    """Learn the tree and each leaf's level from stacked snapshots of buyers with their observed `outcome_value`."""
    names = feature_names(frame)
    x = frame[names].to_numpy(dtype=np.float64)
    value = frame["outcome_value"].to_numpy(dtype=np.float64)
    if len(frame) < 2 * scheme.max_leaves:
        raise DataError(
            f"scheme {scheme.code}: {len(frame)} customers are too few to learn {scheme.max_leaves} leaves from"
        )
    size = {"max_leaf_nodes": scheme.max_leaves, "min_samples_leaf": max(1, int(scheme.min_leaf_share * len(frame)))}
    if scheme.target == "clusters":
        segments = fit_segments(frame, len(scheme.bought_levels), seed)
        wanted = assign_segments(segments, frame)
        grown = DecisionTreeClassifier(**size, random_state=seed).fit(x, wanted)
        tree, leaf = freeze(grown.tree_, names, frame)
        level = np.array([np.bincount(wanted[leaf == n]).argmax() for n in range(leaf.max() + 1)])
    else:
        rank = _rank_within_date(frame["as_of"].to_numpy(), value)
        grown = DecisionTreeRegressor(**size, random_state=seed).fit(x, rank)
        tree, leaf = freeze(grown.tree_, names, frame)
        level = _levels_by_value(scheme, leaf, value)
        wanted = np.minimum(np.searchsorted(np.cumsum(_shares(scheme)), rank - 1e-12), len(level) - 1)
    facts = [
        {
            "support": float(np.mean(leaf == n)),
            "purity": float(np.mean(wanted[leaf == n] == level[n])),
            "value_mean": float(value[leaf == n].mean()),
        }
        for n in range(len(level))
    ]
    missing = [name for name in dict.fromkeys(tree["feature"]) if name is not None and frame[name].isna().any()]
    state = {"tree": tree, "level": level.tolist(), "leaves": facts, "may_miss": missing}
    return state if scheme.stability is None else state | _bands(scheme, tree, frame)


def _bands(scheme: LearnedScheme, tree: dict[str, list[Any]], frame: pd.DataFrame) -> dict[str, Any]:
    """Give, for every split of the tree, the bounds that the band makes of its threshold."""
    bands: dict[str, Any] = {"up": [], "down": []}
    for name, threshold in zip(tree["feature"], tree["threshold"], strict=True):
        pairs = {} if name is None else band_edges(scheme, [threshold], frame[name].to_numpy(dtype=np.float64))
        for side, of_side in bands.items():
            of_side.append(pairs[side][0] if pairs else None)
    return bands


def _rank_within_date(dates: NDArray[Any], value: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rank from 0 to 1 within each date, so that a rich season does not pass for a rich customer."""
    rank = np.empty(len(value))
    for day in np.unique(dates):
        here = dates == day
        rank[here] = rankdata(value[here]) / np.count_nonzero(here)
    return rank


def _shares(scheme: LearnedScheme) -> list[float]:
    return [(scheme.shares or {})[code] for code in scheme.bought_levels]


def _levels_by_value(scheme: LearnedScheme, leaf: NDArray[np.int64], value: NDArray[np.float64]) -> NDArray[np.int64]:
    """Fill the leaves, most valuable first, into the levels from the top; a leaf goes where its middle falls."""
    ends = np.append(
        np.cumsum(_shares(scheme)[::-1])[:-1], 1.0
    )  # cumulated share from the top at which each level ends
    counts = np.bincount(leaf)
    order = np.argsort(-np.bincount(leaf, weights=value) / counts, kind="stable")
    reached = np.cumsum(counts[order]) / len(leaf)
    middle = reached - counts[order] / len(leaf) / 2
    level = np.empty(len(counts), dtype=np.int64)
    level[order] = len(ends) - 1 - np.searchsorted(ends, middle - 1e-12)
    return level


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
