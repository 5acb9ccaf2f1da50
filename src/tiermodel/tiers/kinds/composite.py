"""The kind `composite`: levels by the points of a weighted index, and how sensitive they are to the weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from tiermodel.arrays import Floats, Ints
from tiermodel.features.condition import Condition, Named, Words, feature_name
from tiermodel.tiers.kinds import cut_points
from tiermodel.tiers.kinds.index_points import STEPS, dimension_points, fit_points, points_of, points_sql, thresholds_of
from tiermodel.tiers.kinds.sql_terms import SCORE, steps
from tiermodel.tiers.schemes.conditions import Share
from tiermodel.tiers.schemes.protocol import REASONS, FitContext, SqlLevel, Thresholds
from tiermodel.tiers.schemes.schema import BaseScheme, Index, check_shares
from tiermodel.tiers.schemes.weights import thousandths
from tiermodel.words import words

__all__ = [
    "POINTS",
    "CompositeScheme",
    "assign",
    "conditions",
    "explain",
    "fit",
    "levels_of_rules",
    "ranking",
    "sensitivity",
    "sensitivity_lines",
    "sql",
    "sure_levels",
    "thresholds",
]


POINTS = "points"
_CHANGE = 0.10
_SPLITS = (9, 24, 49, 74, 89)


class CompositeScheme(BaseScheme, Index):
    """Levels by the points of an index, which hold shares of the customers or start at given points."""

    monotone: ClassVar[bool] = True
    kind: Literal["composite"]
    shares: dict[str, Share] | None = None
    points: dict[str, Annotated[float, Field(gt=0, lt=100)]] | None = None

    @model_validator(mode="after")
    def _levels_are_cut(self) -> Self:
        if (self.shares is None) == (self.points is None):
            raise ValueError("shares: a composite needs either shares, or the points at which each level starts")
        if self.shares is not None:
            check_shares(self.shares, self)
        if self.points is not None:
            if list(self.points) != self.bought_levels[1:]:
                raise ValueError(f"points: give the start of each of {self.bought_levels[1:]}, in this order")
            for (low, a), (high, b) in pairwise(self.points.items()):
                if a >= b:
                    raise ValueError(f"points: {high!r} starts at {b:g}, not above {low!r} at {a:g}")
        if not self.dimensions:
            raise ValueError("dimensions: none of them is built")
        return self

    @property
    def ranks_customers(self) -> bool:
        """Whether the kind ranks customers by a number of its own: by the points."""
        return True

    @property
    def made_names(self) -> dict[str, Named]:
        """The name of the points."""
        return {POINTS: Words(*(words(language)["points"] for language in ("zh", "en")))}

    def indexes(self, state: dict[str, Any]) -> list[tuple[str, Index, Mapping[str, Any]]]:
        """Return the index of the points and its state."""
        return [(POINTS, self, state)]

    def ranked(self) -> Iterable[str]:
        """Return the features without which the scheme cannot be fitted."""
        return [d.feature for d in self.dimensions]


def fit(scheme: CompositeScheme, frame: pd.DataFrame, context: FitContext) -> dict[str, Any]:
    """Return dimensions, weights and the points at which each level starts, fitted on one snapshot of buyers."""
    state = fit_points(scheme, frame, context.common)
    values = points_of(scheme, state, frame)
    state["level_cuts"] = _level_cuts(scheme, values)
    state["may_miss"] = bool(np.isnan(values).any())
    state["sensitivity"] = sensitivity(scheme, state, frame)
    return state | cut_points.band_edges(scheme, state["level_cuts"], values)


def _level_cuts(scheme: CompositeScheme, values: Floats) -> list[float]:
    if scheme.points is not None:
        return list(scheme.points.values())
    return cut_points.share_cuts(scheme.ordered(scheme.shares or {}), values, capacity=scheme.capacities)


def sensitivity(scheme: CompositeScheme, state: dict[str, Any], frame: pd.DataFrame) -> dict[str, list[float]]:
    """Return, by dimension, the shares of customers whose level changes with 10 % less and 10 % more weight."""
    before = cut_points.level_of(state["level_cuts"], points_of(scheme, state, frame))
    changed: dict[str, list[float]] = {}
    for k, dimension in enumerate(scheme.dimensions):
        changed[dimension.feature] = []
        for factor in (1 - _CHANGE, 1 + _CHANGE):
            weights = [w * (factor if j == k else 1) for j, w in enumerate(state["weights"])]
            values = points_of(scheme, {**state, "weights": thousandths(weights)}, frame)
            after = cut_points.level_of(_level_cuts(scheme, values), values)
            changed[dimension.feature].append(float(np.mean(before != after)))
    return changed


def sensitivity_lines(state: dict[str, Any], features: Mapping[str, Named], language: str) -> list[str]:
    """Return a line of text for each dimension: the shares of `sensitivity`."""
    lines = []
    for feature, (less, more) in state.get("sensitivity", {}).items():
        name = feature_name(feature, features, language)
        lines.append(words(language)["sensitivity"].format(name=name, less=less, more=more))
    return lines


def assign(scheme: CompositeScheme, state: dict[str, Any], frame: pd.DataFrame) -> tuple[Ints, Ints]:
    """Return every buyer's level among `bought_levels`, and the rule: the level itself."""
    level = cut_points.level_of(state["level_cuts"], points_of(scheme, state, frame))
    return level, level


def sure_levels(scheme: CompositeScheme, state: dict[str, Any], frame: pd.DataFrame) -> tuple[Ints, Ints]:
    """Return the lowest level within the band for moving up, and the highest within the band for moving down."""
    return cut_points.sure_levels_of(state, points_of(scheme, state, frame))


def ranking(scheme: CompositeScheme, state: dict[str, Any], frame: pd.DataFrame) -> Floats:
    """Return the points."""
    return points_of(scheme, state, frame)


def levels_of_rules(scheme: CompositeScheme, _state: dict[str, Any]) -> Ints:
    """Return the level of every rule: its own number."""
    return np.arange(len(scheme.bought_levels))


def explain(
    scheme: CompositeScheme, state: dict[str, Any], frame: pd.DataFrame, features: Mapping[str, Named], language: str
) -> tuple[Ints, list[str]]:
    """Return the three dimensions with the largest effect on the points, each as bounds on the customer's value.

    The effect is the weighted distance from 50 points. A bound is one of the cut points with 10, 25, 50, 75 and 90 % of
    the customers at fit below.
    """
    points = dimension_points(scheme, state, frame)
    weights = np.array(state["weights"])[:, None]
    pull = np.where(points < 0, -1, np.abs(weights * (points - STEPS // 2)))
    strongest = np.argsort(-pull, axis=0, kind="stable")[:REASONS].T
    words: list[str] = []
    place = np.empty(points.shape, dtype=np.int64)
    for k, (dimension, cuts) in enumerate(zip(scheme.dimensions, state["cuts"], strict=True)):
        bounds = [cuts[at] for at in _SPLITS]
        place[k] = len(words) + cut_points.range_of(bounds, frame[dimension.feature].to_numpy(dtype=np.float64))
        words += [c.text(features, language) for c in cut_points.ranges(dimension.feature, bounds)]
    codes = np.take_along_axis(place.T, strongest, axis=1)
    empty = np.full((len(frame), max(0, REASONS - codes.shape[1])), len(words))
    return np.hstack([codes, empty]), [*words, ""]


def conditions(_scheme: CompositeScheme, state: dict[str, Any]) -> list[list[Condition]]:
    """Return every rule's condition: bounds on the points."""
    return cut_points.level_conditions(POINTS, state["level_cuts"], may_miss=state["may_miss"])


def thresholds(scheme: CompositeScheme, state: dict[str, Any]) -> Thresholds:
    """Return the values at which the points of a dimension change."""
    return thresholds_of(scheme, state)


def sql(scheme: CompositeScheme, state: dict[str, Any]) -> SqlLevel:
    """Return the level as SQL over the points."""
    level = steps(SCORE, ">=", state["level_cuts"], scheme.bought_numbers)
    return SqlLevel(level, {d.feature for d in scheme.dimensions}, points_sql(scheme, state))
