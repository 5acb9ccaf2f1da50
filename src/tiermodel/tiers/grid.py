"""RFM and matrices: two or three axes scored at frozen cut points, every combination of scores in one named cell."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tiermodel.features.condition import Condition
from tiermodel.tiers.cuts import band_edges, score_cuts, scores_of
from tiermodel.tiers.kinds import MatrixScheme, RfmScheme
from tiermodel.tiers.parts import Index, Score
from tiermodel.tiers.points import fit_points, points_of

__all__ = ["assign", "cell_names", "conditions", "fit", "index_of", "levels_of_rules", "span"]

Grid = RfmScheme | MatrixScheme
Levels = NDArray[np.int64]


def index_of(axis: Score) -> Index | None:
    """Give the index that an axis scores, None where it scores one feature."""
    return getattr(axis, "index", None)


def fit(scheme: Grid, frame: pd.DataFrame) -> dict[str, Any]:
    """Freeze the cut points of every axis on one snapshot of buyers."""
    state: dict[str, Any] = {"cuts": {}, "may_miss": []}
    points = {name: fit_points(i, frame) for name, a in scheme.grid.items() if (i := index_of(a)) is not None}
    if points:
        state["points"] = points
    edges: dict[str, Any] = {"up": {}, "down": {}}
    for name, axis in scheme.grid.items():
        values = _values(axis, name, state, frame)
        state["cuts"][name] = score_cuts(axis, values)
        if np.isnan(values).any():
            state["may_miss"].append(name)
        for side, pairs in band_edges(scheme, state["cuts"][name], values).items():
            edges[side][name] = pairs
    return state if scheme.stability is None else state | edges


def _values(axis: Score, name: str, state: dict[str, Any], frame: pd.DataFrame) -> NDArray[np.float64]:
    index = index_of(axis)
    if index is not None:
        return points_of(index, state["points"][name], frame)
    return frame[axis.feature].to_numpy(dtype=np.float64)


def assign(scheme: Grid, state: dict[str, Any], frame: pd.DataFrame) -> tuple[Levels, Levels]:
    """Give every buyer's level among `bought_levels`, and the rule that decided: the combination of scores."""
    scores = [scores_of(a, state["cuts"][name], _values(a, name, state, frame)) for name, a in scheme.grid.items()]
    rule = np.ravel_multi_index([s - 1 for s in scores], [a.bins for a in scheme.grid.values()])
    return levels_of_rules(scheme, state)[rule], rule


def span(scheme: Grid, state: dict[str, Any], frame: pd.DataFrame) -> tuple[Levels, Levels]:
    """Give the lowest level within the band for moving up, and the highest within the band for moving down."""
    values = {name: _values(axis, name, state, frame) for name, axis in scheme.grid.items()}
    lowest, _ = _reach(scheme, state, values, "up")
    _, highest = _reach(scheme, state, values, "down")
    return lowest, highest


def _reach(scheme: Grid, state: dict[str, Any], values: dict[str, Any], side: str) -> tuple[Levels, Levels]:
    """Give the lowest and the highest level of all cells that the band leaves open."""
    low, high = [], []
    for name, axis in scheme.grid.items():
        ends = [scores_of(axis, [pair[k] for pair in state[side][name]], values[name]) - 1 for k in (0, 1)]
        low.append(np.minimum(*ends))
        high.append(np.maximum(*ends))
    levels, bins = levels_of_rules(scheme, state), [a.bins for a in scheme.grid.values()]
    widest = [int((h - lo).max(initial=0)) for lo, h in zip(low, high, strict=True)]
    lowest = np.full(len(low[0]), levels.max())
    highest = np.zeros(len(low[0]), dtype=np.int64)
    for steps in itertools.product(*(range(w + 1) for w in widest)):
        at = [np.minimum(lo + step, h) for lo, h, step in zip(low, high, steps, strict=True)]
        level = levels[np.ravel_multi_index(at, bins)]
        lowest, highest = np.minimum(lowest, level), np.maximum(highest, level)
    return lowest, highest


def levels_of_rules(scheme: Grid, _state: dict[str, Any]) -> Levels:
    """Give the level, among `bought_levels`, of every combination of scores."""
    return np.array([scheme.bought_levels.index(_level(scheme, c)) for c in scheme.combinations()])


def _cell(scheme: Grid, scores: tuple[int, ...]) -> Any:
    axes = scheme.grid
    return next(c for c in scheme.cells if all(s in c.at(a) for s, a in zip(scores, axes, strict=True)))


def _level(scheme: Grid, scores: tuple[int, ...]) -> str:
    if isinstance(scheme, MatrixScheme) and scheme.combine is not None:
        return scheme.combined(scores)
    return str(_cell(scheme, scores).level)


def cell_names(scheme: Grid, language: str) -> list[str]:
    """Name the cell of every combination of scores; a combination rule has none."""
    if not scheme.cells:
        return ["" for _ in scheme.combinations()]
    cells = [_cell(scheme, scores) for scores in scheme.combinations()]
    return [cell.name_zh if language == "zh" else cell.name_en for cell in cells]


def conditions(scheme: Grid, state: dict[str, Any]) -> list[list[Condition]]:
    """List each rule's conditions: one for each score."""
    return [
        [
            _bounds(axis, name, state["cuts"][name], s, name in state["may_miss"])
            for (name, axis), s in zip(scheme.grid.items(), c, strict=True)
        ]
        for c in scheme.combinations()
    ]


def _bounds(axis: Score, name: str, cuts: list[float], s: int, may_miss: bool) -> Condition:
    edges = [-np.inf, *cuts, np.inf]
    rank = s - 1 if axis.better == "higher" else axis.bins - s
    feature = axis.feature if index_of(axis) is None else f"points:{name}"
    return Condition(feature, edges[rank], edges[rank + 1], missing=may_miss and s == 1)
