"""The kinds `rfm` and `matrix`: two or three axes scored at frozen cut points, a level for every combination."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, Self

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from tiermodel.arrays import Floats, Ints
from tiermodel.features.condition import Condition, Named, Words
from tiermodel.tiers.kinds.cut_points import band_edges, score_cuts, scores_of
from tiermodel.tiers.kinds.index_points import fit_points, points_of, points_sql, thresholds_of
from tiermodel.tiers.kinds.sql_terms import SCORE, quoted, steps
from tiermodel.tiers.schemes.conditions import Data, Number
from tiermodel.tiers.schemes.protocol import FitContext, SqlLevel, Thresholds
from tiermodel.tiers.schemes.schema import Axis, BaseScheme, Index, Score
from tiermodel.words import in_language, words

__all__ = [
    "MatrixScheme",
    "RfmScheme",
    "assign",
    "axes",
    "conditions",
    "fit",
    "grades",
    "levels_of_rules",
    "sql",
    "sure_levels",
    "thresholds",
]

_MOST_CELLS = 1000  # combinations of three scores from 1 to 10


class Cell(Data):
    """A named set of score combinations, and the level of their customers."""

    name_zh: str
    name_en: str
    level: str
    r: tuple[int, ...]
    f: tuple[int, ...]
    m: tuple[int, ...]

    @property
    def scores(self) -> dict[str, tuple[int, ...]]:
        """The scores by axis."""
        return {"r": self.r, "f": self.f, "m": self.m}


class MatrixCell(Data):
    """A named set of score combinations, and the level of their customers; an axis left out may have any score."""

    name_zh: str
    name_en: str
    level: str
    scores: dict[str, tuple[int, ...]]


class GridScheme(BaseScheme):
    """A scheme that maps every combination of scores to one level."""

    @property
    def grid(self) -> Mapping[str, Score]:
        """The axes by name, in order."""
        raise NotImplementedError

    def word(self, axis: str, score: int) -> str:
        """Return a score as errors and names write it."""
        return f"{axis} {score}"

    def ranked(self) -> Iterable[str]:
        """Return the features without which the scheme cannot be fitted."""
        for axis in self.grid.values():
            index = index_of(axis)
            yield from [axis.feature] if index is None else [d.feature for d in index.dimensions]

    def combinations(self) -> Iterable[tuple[int, ...]]:
        """Return every combination of scores, the last axis fastest."""
        return itertools.product(*(range(1, axis.bins + 1) for axis in self.grid.values()))

    def is_in(self, cell: Cell | MatrixCell, scores: tuple[int, ...]) -> bool:
        """Return whether a combination of scores belongs to a cell."""
        by_axis = zip(self.grid, scores, strict=True)
        return all(axis not in cell.scores or score in cell.scores[axis] for axis, score in by_axis)

    def _check_cells(self, cells: Sequence[Cell | MatrixCell]) -> None:
        for cell in cells:
            self._check_cell(cell)
        for scores in self.combinations():
            found = [c.name_en for c in cells if self.is_in(c, scores)]
            if len(found) != 1:
                where = " ".join(self.word(a, s) for a, s in zip(self.grid, scores, strict=True))
                what = "no cell" if not found else f"{len(found)} cells ({', '.join(found)})"
                raise ValueError(f"cells: {where} belongs to {what}; each combination needs exactly one")

    def _check_cell(self, cell: Cell | MatrixCell) -> None:
        if cell.level not in self.bought_levels:
            raise ValueError(
                f"cells: {cell.name_en!r} goes to {cell.level!r}, which is not a level of customers who bought"
            )
        for name, axis in self.grid.items():
            unknown = [s for s in cell.scores.get(name, ()) if not 1 <= s <= axis.bins]
            if unknown:
                word = self.word(name, unknown[0])
                raise ValueError(f"cells: {cell.name_en!r} has {word}, but scores go from 1 to {axis.bins}")


class RfmScheme(GridScheme):
    """Scores of recency, frequency and money, with every combination in one named cell."""

    kind: Literal["rfm"]
    r: Score
    f: Score
    m: Score
    cells: Annotated[tuple[Cell, ...], Field(max_length=_MOST_CELLS)]

    @property
    def grid(self) -> Mapping[str, Score]:
        """The axes by name, in order."""
        return {"r": self.r, "f": self.f, "m": self.m}

    def word(self, axis: str, score: int) -> str:
        """Return a score as errors and names write it."""
        return f"{axis.upper()}{score}"

    @model_validator(mode="after")
    def _cells_partition_the_scores(self) -> Self:
        self._check_cells(self.cells)
        return self


class Combination(Data):
    """A rule that combines the scores of all axes into one number, and the number at which each level starts."""

    rule: Literal["sum", "lowest", "highest", "median"]
    at_least: dict[str, Number]


class MatrixScheme(GridScheme):
    """Scores of two or three axes, with every combination in one named cell, or combined by a rule."""

    kind: Literal["matrix"]
    axes: Annotated[dict[str, Axis], Field(min_length=2, max_length=3)]
    cells: Annotated[tuple[MatrixCell, ...], Field(max_length=_MOST_CELLS)] = ()
    combine: Combination | None = None

    @property
    def grid(self) -> Mapping[str, Score]:
        """The axes by name, in order."""
        return self.axes

    @model_validator(mode="after")
    def _cells_partition_the_scores(self) -> Self:
        if bool(self.cells) == (self.combine is not None):
            raise ValueError("cells: a matrix needs either cells or a rule to combine the scores")
        for cell in self.cells:
            if unknown := [axis for axis in cell.scores if axis not in self.axes]:
                raise ValueError(f"cells: {cell.name_en!r} scores {unknown[0]!r}; axes are {', '.join(self.axes)}")
        if self.cells:
            self._check_cells(self.cells)
        if self.combine is not None:
            self._check_combination(self.combine)
        return self

    def _check_combination(self, combine: Combination) -> None:
        if set(combine.at_least) != set(self.bought_levels[1:]):
            raise ValueError(f"combine: give the start of each of {self.bought_levels[1:]}")
        starts = [combine.at_least[code] for code in self.bought_levels[1:]]
        if starts != sorted(starts):
            raise ValueError(f"combine: the starts {combine.at_least} do not increase with the levels")
        reached = {self.combined(scores) for scores in self.combinations()}
        empty = [c for c in self.bought_levels if c not in reached]
        if empty:
            raise ValueError(f"combine: no combination of scores reaches {empty[0]!r}")

    @property
    def made_names(self) -> dict[str, Named]:
        """The names of the points of axes that score an index."""
        zh, en = (words(language)["axis_points"] for language in ("zh", "en"))
        return {
            f"points:{name}": Words(zh.format(name=a.name_zh), en.format(name=a.name_en))
            for name, a in self.axes.items()
        }

    def indexes(self, state: dict[str, Any]) -> list[tuple[str, Index, Mapping[str, Any]]]:
        """Return the indexes that axes score, with their names and fitted states."""
        return [
            (f"points:{name}", a.index, state["points"][name]) for name, a in self.axes.items() if a.index is not None
        ]

    def rule_names(self, language: str) -> list[str]:
        """Return the name of the cell of every combination of scores; a combination rule has none."""
        if not self.cells:
            return []
        cells = [_cell(self, scores) for scores in self.combinations()]
        return [in_language(language, cell.name_zh, cell.name_en) for cell in cells]

    def combined(self, scores: tuple[int, ...]) -> str:
        """Return the level of a combination of scores by the combination rule."""
        if self.combine is None:
            raise TypeError("the scheme has cells")
        ranked = sorted(scores)
        numbers = {
            "sum": sum(ranked),
            "lowest": ranked[0],
            "highest": ranked[-1],
            "median": ranked[(len(ranked) - 1) // 2],
        }
        number = numbers[self.combine.rule]
        return self.bought_levels[sum(number >= start for start in self.combine.at_least.values())]


Grid = RfmScheme | MatrixScheme


def index_of(axis: Score) -> Index | None:
    """Return the index that an axis scores; None where it scores one feature."""
    return getattr(axis, "index", None)


def fit(scheme: Grid, frame: pd.DataFrame, context: FitContext) -> dict[str, Any]:
    """Return the cut points of every axis, fitted on one snapshot of buyers."""
    state: dict[str, Any] = {"cuts": {}, "may_miss": []}
    common = (context.common or {}).get("points", {})
    points = {
        name: fit_points(index, frame, common.get(name))
        for name, axis in scheme.grid.items()
        if (index := index_of(axis)) is not None
    }
    if points:
        state["points"] = points
    edges: dict[str, Any] = {"up": {}, "down": {}}
    for name, axis in scheme.grid.items():
        values = _values(axis, name, state, frame)
        state["cuts"][name] = score_cuts(axis, values)
        if np.isnan(values).any():
            state["may_miss"].append(name)
        for side, pairs in band_edges(scheme, state["cuts"][name], values, "right").items():
            edges[side][name] = [[cut, cut] for cut in state["cuts"][name]] if axis.sharp else pairs
    return state if scheme.stability is None else state | edges


def _values(axis: Score, name: str, state: dict[str, Any], frame: pd.DataFrame) -> Floats:
    index = index_of(axis)
    if index is not None:
        return points_of(index, state["points"][name], frame)
    return frame[axis.feature].to_numpy(dtype=np.float64)


def assign(scheme: Grid, state: dict[str, Any], frame: pd.DataFrame) -> tuple[Ints, Ints]:
    """Return every buyer's level among `bought_levels`, and the rule that decided: the combination of scores."""
    rule = np.ravel_multi_index(list(_scores(scheme, state, frame).values()), [a.bins for a in scheme.grid.values()])
    return levels_of_rules(scheme, state)[rule], rule


def _scores(scheme: Grid, state: dict[str, Any], frame: pd.DataFrame) -> dict[str, Ints]:
    """Return every row's score on each axis, from 0."""
    by_axis = scheme.grid.items()
    return {name: scores_of(a, state["cuts"][name], _values(a, name, state, frame)) - 1 for name, a in by_axis}


def axes(scheme: Grid) -> list[str]:
    """Return the names of the axes, in order."""
    return list(scheme.grid)


def grades(scheme: Grid, state: dict[str, Any], frame: pd.DataFrame) -> dict[str, tuple[Ints, list[str]]]:
    """Return, for each axis, every row's score from 0, and the names of the scores: labels, or numbers from 1."""
    scores = _scores(scheme, state, frame)
    return {name: (scores[name], _labels(axis)) for name, axis in scheme.grid.items()}


def _labels(axis: Score) -> list[str]:
    return list(getattr(axis, "labels", None) or map(str, range(1, axis.bins + 1)))


def sure_levels(scheme: Grid, state: dict[str, Any], frame: pd.DataFrame) -> tuple[Ints, Ints]:
    """Return the lowest level within the band for moving up, and the highest within the band for moving down."""
    values = {name: _values(axis, name, state, frame) for name, axis in scheme.grid.items()}
    lowest, _ = _reach(scheme, state, values, "up")
    _, highest = _reach(scheme, state, values, "down")
    return lowest, highest


def _reach(scheme: Grid, state: dict[str, Any], values: dict[str, Any], side: str) -> tuple[Ints, Ints]:
    """Return the lowest and highest level of the cells within the band."""
    low, high = [], []
    for name, axis in scheme.grid.items():
        ends = [scores_of(axis, [pair[k] for pair in state[side][name]], values[name]) - 1 for k in (0, 1)]
        low.append(np.minimum(*ends))
        high.append(np.maximum(*ends))
    levels, bins = levels_of_rules(scheme, state), [a.bins for a in scheme.grid.values()]
    widest = [int((h - lo).max(initial=0)) for lo, h in zip(low, high, strict=True)]
    lowest = np.full(len(low[0]), levels.max())
    highest = np.zeros(len(low[0]), dtype=np.int64)
    for further in itertools.product(*(range(w + 1) for w in widest)):
        at = [np.minimum(lo + step, h) for lo, h, step in zip(low, high, further, strict=True)]
        level = levels[np.ravel_multi_index(at, bins)]
        lowest, highest = np.minimum(lowest, level), np.maximum(highest, level)
    return lowest, highest


def levels_of_rules(scheme: Grid, _state: dict[str, Any]) -> Ints:
    """Return the level, among `bought_levels`, of every combination of scores."""
    return np.array([scheme.bought_levels.index(_level(scheme, c)) for c in scheme.combinations()])


def _cell(scheme: Grid, scores: tuple[int, ...]) -> Any:
    return next(c for c in scheme.cells if scheme.is_in(c, scores))


def _level(scheme: Grid, scores: tuple[int, ...]) -> str:
    if isinstance(scheme, MatrixScheme) and scheme.combine is not None:
        return scheme.combined(scores)
    return str(_cell(scheme, scores).level)


def conditions(scheme: Grid, state: dict[str, Any]) -> list[list[Condition]]:
    """Return every rule's conditions: one for each axis."""
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


def thresholds(scheme: Grid, state: dict[str, Any]) -> Thresholds:
    """Return the cut points of every axis, and of the dimensions where an axis scores an index."""
    for name, axis in scheme.grid.items():
        index = index_of(axis)
        if index is None:
            yield axis.feature, state["cuts"][name]
        else:
            yield from thresholds_of(index, state["points"][name])


def sql(scheme: Grid, state: dict[str, Any]) -> SqlLevel:
    """Return the level as SQL: the scores as one number, and the level of each number."""
    number = "0"
    for name, axis in scheme.grid.items():
        index = index_of(axis)
        x = quoted(axis.feature) if index is None else points_sql(index, state["points"][name])
        number = f"({number}) * {axis.bins} + {_score_sql(axis, state['cuts'][name], x)}"
    levels = [scheme.bought_numbers[k] for k in levels_of_rules(scheme, state)]
    cases = []
    for level in sorted(set(levels))[:-1]:
        listed = ", ".join(str(n) for n, other in enumerate(levels) if other == level)
        cases.append(f"WHEN {SCORE} IN ({listed}) THEN {level}")
    top = str(max(levels))
    return SqlLevel(f"CASE {' '.join(cases)} ELSE {top} END" if cases else top, set(scheme.ranked()), number)


def _score_sql(axis: Score, cuts: Sequence[float], x: str) -> str:
    """Return a score minus one as SQL; 0 for a missing value."""
    ranks = list(range(axis.bins)) if axis.better == "higher" else list(reversed(range(axis.bins)))
    return f"CASE WHEN {x} IS NULL THEN 0 ELSE {steps(x, '>', cuts, ranks)} END"
