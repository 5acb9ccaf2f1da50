"""Levels by the points of a weighted index: cut points on the points, frozen; sensitivity to the weights told."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tiermodel.features.condition import Condition, Named
from tiermodel.tiers.cuts import band_edges, level_of, share_cuts
from tiermodel.tiers.kinds import CompositeScheme
from tiermodel.tiers.points import STEPS, dimension_points, fit_points, points_of
from tiermodel.tiers.weights import thousandths

__all__ = [
    "POINTS",
    "assign",
    "conditions",
    "explain",
    "fit",
    "levels_of_rules",
    "sensitivity",
    "sensitivity_lines",
    "span",
]

Levels = NDArray[np.int64]
POINTS = "points"
_CHANGE = 0.10
_SPLITS = (9, 24, 49, 74, 89)
_REASONS = 3


def fit(scheme: CompositeScheme, frame: pd.DataFrame) -> dict[str, Any]:
    """Freeze dimensions, weights and the points from which on each level starts, on one snapshot of buyers."""
    state = fit_points(scheme, frame)
    values = points_of(scheme, state, frame)
    state["level_cuts"] = _level_cuts(scheme, values)
    state["may_miss"] = bool(np.isnan(values).any())
    state["sensitivity"] = sensitivity(scheme, state, frame)
    return state | band_edges(scheme, state["level_cuts"], values)


def _level_cuts(scheme: CompositeScheme, values: NDArray[np.float64]) -> list[float]:
    if scheme.points is not None:
        return list(scheme.points.values())
    return share_cuts(scheme.ordered(scheme.shares or {}), values, capacity=scheme.capacities)


def sensitivity(scheme: CompositeScheme, state: dict[str, Any], frame: pd.DataFrame) -> dict[str, list[float]]:
    """Give, for every dimension, the share of customers whose level changes with 10 % less and 10 % more weight."""
    before = level_of(state["level_cuts"], points_of(scheme, state, frame))
    changed: dict[str, list[float]] = {}
    for k, dimension in enumerate(scheme.dimensions):
        changed[dimension.feature] = []
        for factor in (1 - _CHANGE, 1 + _CHANGE):
            weights = [w * (factor if j == k else 1) for j, w in enumerate(state["weights"])]
            values = points_of(scheme, {**state, "weights": thousandths(weights)}, frame)
            after = level_of(_level_cuts(scheme, values), values)
            changed[dimension.feature].append(float(np.mean(before != after)))
    return changed


def sensitivity_lines(state: dict[str, Any], features: Mapping[str, Named], language: str) -> list[str]:
    """Write, for every dimension, which share of the customers changes level with 10 % less and 10 % more weight."""
    lines = []
    for feature, (less, more) in state.get("sensitivity", {}).items():
        entry = features.get(feature)
        if language == "zh":
            name = feature if entry is None else entry.zh
            lines.append(f"{name}权重减少10%：{less:.1%} 的客户改变等级；增加10%：{more:.1%}")
        else:
            name = feature if entry is None else entry.en
            lines.append(f"weight of {name} 10 % less: {less:.1%} of the customers change level; 10 % more: {more:.1%}")
    return lines


def assign(scheme: CompositeScheme, state: dict[str, Any], frame: pd.DataFrame) -> tuple[Levels, Levels]:
    """Give every buyer's level among `bought_levels`, and the rule: the level itself."""
    level = level_of(state["level_cuts"], points_of(scheme, state, frame))
    return level, level


def span(scheme: CompositeScheme, state: dict[str, Any], frame: pd.DataFrame) -> tuple[Levels, Levels]:
    """Give the lowest level within the band for moving up, and the highest within the band for moving down."""
    values = points_of(scheme, state, frame)
    return level_of([high for _, high in state["up"]], values), level_of([low for low, _ in state["down"]], values)


def levels_of_rules(scheme: CompositeScheme, _state: dict[str, Any]) -> Levels:
    """Give the level of every rule: its own number."""
    return np.arange(len(scheme.bought_levels))


def explain(
    scheme: CompositeScheme, state: dict[str, Any], frame: pd.DataFrame, features: Mapping[str, Named], language: str
) -> tuple[Levels, list[str]]:
    """Give the three dimensions that moved the points most, away from 50, as bounds within which the customer lies.

    A bound is one of the cut points with 10, 25, 50, 75 and 90 % of the customers at fit below.
    """
    points = dimension_points(scheme, state, frame)
    weights = np.array(state["weights"])[:, None]
    pull = np.where(points < 0, -1, np.abs(weights * (points - STEPS // 2)))
    strongest = np.argsort(-pull, axis=0, kind="stable")[:_REASONS].T
    words: list[str] = []
    place = np.empty(points.shape, dtype=np.int64)
    for k, (dimension, cuts) in enumerate(zip(scheme.dimensions, state["cuts"], strict=True)):
        edges = [-np.inf, *(cuts[at] for at in _SPLITS), np.inf]
        x = frame[dimension.feature].to_numpy(dtype=np.float64)
        place[k] = len(words) + np.where(np.isnan(x), len(edges) - 1, np.searchsorted(edges[1:-1], x, side="left"))
        bounds = [Condition(dimension.feature, low, high) for low, high in pairwise(edges)]
        bounds.append(Condition(dimension.feature, np.inf, -np.inf, missing=True))
        words += [c.text(features, language) for c in bounds]
    codes = np.take_along_axis(place.T, strongest, axis=1)
    empty = np.full((len(frame), max(0, _REASONS - codes.shape[1])), len(words))
    return np.hstack([codes, empty]), [*words, ""]


def conditions(_scheme: CompositeScheme, state: dict[str, Any]) -> list[list[Condition]]:
    """List each rule's condition: the points."""
    edges = [-np.inf, *state["level_cuts"], np.inf]
    return [
        [Condition(POINTS, low, high, missing=state["may_miss"] and low == -np.inf, closed_low=True)]
        for low, high in pairwise(edges)
    ]
