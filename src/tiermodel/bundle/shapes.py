"""Shapes of the parts that bundles and schemes have: types, lengths and ranges of numbers, trees, linear models."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from tiermodel.tiers.customer_scores import SCORES
from tiermodel.tiers.fitted_features import FITTED
from tiermodel.tiers.kinds.index_points import STEPS
from tiermodel.tiers.lifecycle import MOST_DAYS
from tiermodel.tiers.schemes.schema import Index

__all__ = [
    "MOST_INPUTS", "Figure", "FittedShape", "LinearShape", "Number", "Numbers", "Part", "PeersShape", "Position",
    "Positive", "ReadableTree", "Scaled", "Shape", "Text", "first_problem", "no_more_than", "points_fit", "require",
    "rising", "same_length",
]  # fmt: skip

_MOST_NODES = 511
MOST_INPUTS = 5_000
_SHOWN = 60

Number = Annotated[float, Field(ge=-1e300, le=1e300)]
Numbers = list[Number]
Part = Annotated[float, Field(ge=0, le=1)]
"""A share or a probability."""
Text = Annotated[str, Field(max_length=10_000)]
Positive = Annotated[float, Field(gt=0, le=1e300)]
Position = Annotated[int, Field(ge=0, lt=MOST_INPUTS)]
Figure = float | None  # of a report: not known where it is None


class Shape(BaseModel):
    """Data of a bundle: no number is converted from a text, none is NaN or infinite, no key is unknown."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, frozen=True)


def require(fits: bool, told: str) -> None:
    """Raise `ValueError` where something does not fit."""
    if not fits:
        raise ValueError(told)


def same_length(key: str, parts: Sequence[Any], wanted: int) -> None:
    """Raise `ValueError` where a list does not have the wanted length."""
    require(len(parts) == wanted, f"{key}: {len(parts)} long, not {wanted}")


def rising(key: str, numbers: Sequence[float]) -> None:
    """Raise `ValueError` where numbers fall."""
    for a, b in pairwise(numbers):
        require(a <= b, f"{key}: {b:g} stands after {a:g}")


def no_more_than(key: str, names: Collection[str], known: Collection[str], what: str) -> None:
    """Raise `ValueError` for a name that is not known."""
    unknown = [name for name in names if name not in known]
    require(not unknown, f"{key}: {_shown(unknown[:1])[1:-1]} is no {what}")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


class Scaled(Shape):
    """Bounds to clip to, and how to standardise."""

    low: Numbers
    high: Numbers
    middle: Numbers
    mean: Numbers
    scale: list[Positive]

    def check_scale(self, width: int, standardised: int) -> None:
        """Refuse lengths that differ, and a lower bound above the upper one."""
        for key in ("low", "high", "middle"):
            same_length(key, getattr(self, key), width)
        for key in ("mean", "scale"):
            same_length(key, getattr(self, key), standardised)
        for n, (low, high) in enumerate(zip(self.low, self.high, strict=True)):
            require(low <= high, f"low: {low:g} at {n} is above high, {high:g}")


class LinearShape(Scaled):
    """A `Linear` model."""

    shape: Literal["log", "root"]
    columns: list[Position]
    flagged: list[Position]
    coefficient: Numbers
    intercept: Number

    @model_validator(mode="after")
    def _lengths_fit(self) -> Self:
        width, terms = len(self.columns), len(self.columns) + len(self.flagged)
        self.check_scale(width, terms)
        same_length("coefficient", self.coefficient, terms)
        require(len(set(self.columns)) == width, "columns: an input is there twice")
        require(len(set(self.flagged)) == len(self.flagged), "flagged: an input is there twice")
        require(max(self.flagged, default=-1) < width, f"flagged: {max(self.flagged, default=0)} is no column")
        return self

    def check_inputs(self, key: str, width: int) -> None:
        """Refuse columns beyond the inputs."""
        most = max(self.columns, default=-1)
        require(most < width, f"{key}.columns: {most} is none of {width} inputs, counted from 0")


class ReadableTree(Shape):
    """A tree of `readable_tree`: children come after their parent, each is reached once."""

    feature: Annotated[list[Text | None], Field(min_length=1, max_length=_MOST_NODES)]
    threshold: list[Number | None]
    left: list[int]
    right: list[int]
    missing_left: list[bool]

    @model_validator(mode="after")
    def _is_a_tree(self) -> Self:
        nodes = len(self.feature)
        for key in ("threshold", "left", "right", "missing_left"):
            same_length(key, getattr(self, key), nodes)
        reached = [0] * nodes
        for n, name in enumerate(self.feature):
            for key, child in (("left", self.left[n]), ("right", self.right[n])):
                if name is None:
                    require(child == -1, f"{key}: {child} at node {n}, which is a leaf")
                else:
                    require(n < child < nodes, f"{key}: {child} at node {n} is no later node")
                    reached[child] += 1
        once = [False, *(count != 1 for count in reached[1:])]
        require(not any(once), f"left, right: node {once.index(True) if any(once) else 0} is not reached just once")
        return self

    @property
    def names(self) -> set[str]:
        """The features of the splits."""
        return {name for name in self.feature if name is not None}

    @property
    def leaves(self) -> int:
        """The number of leaves."""
        return self.feature.count(None)


class PeersShape(Shape):
    """`PeerGroups`."""

    spend: Text
    tree: ReadableTree
    reference: Numbers

    @model_validator(mode="after")
    def _a_reference_for_every_leaf(self) -> Self:
        same_length("reference", self.reference, self.tree.leaves)
        return self

    def check_names(self, key: str, features: Collection[str]) -> None:
        """Refuse a feature that the bundle does not have."""
        no_more_than(key, [self.spend, *sorted(self.tree.names)], features, "feature")


def _index(data: dict[str, Any]) -> dict[str, Any]:
    Index.model_validate(data)
    return data


class _IndexShape(Shape):
    index: Annotated[dict[str, Any], AfterValidator(_index)]
    cuts: list[Numbers]
    weights: list[Annotated[int, Field(ge=0, le=1000)]]

    @model_validator(mode="after")
    def _points_fit(self) -> Self:
        points_fit(self.cuts, self.weights, len(self.index["dimensions"]))
        return self


def points_fit(cuts: Sequence[Sequence[float]], weights: Sequence[int], dimensions: int) -> None:
    """Raise `ValueError` where the cut points or weights of an index do not fit its dimensions."""
    same_length("cuts", cuts, dimensions)
    same_length("weights", weights, dimensions)
    for each in cuts:
        same_length("cuts", each, STEPS)
        rising("cuts", each)


class FittedShape(Shape):
    """`FittedFeatures`."""

    names: list[Text]
    typical_rhythm: Annotated[float, Field(gt=0, le=MOST_DAYS)]
    scores: dict[str, _IndexShape]
    peers: PeersShape | None = None

    def check_names(self, key: str, features: Collection[str]) -> None:
        """Refuse names that are no customer scores, and features that the bundle does not have."""
        no_more_than(f"{key}.names", self.names, {*FITTED, *(score.name for score in SCORES)}, "fitted feature")
        no_more_than(f"{key}.scores", self.scores, {score.name for score in SCORES}, "customer score")
        if self.peers is not None:
            self.peers.check_names(f"{key}.peers", features)


def first_problem(error: ValidationError) -> str:
    """Return the first problem in one line: key, what is wrong, and the value."""
    found = error.errors(include_url=False, include_context=False)
    key = ".".join(str(part) for part in found[0]["loc"])
    told = found[0]["msg"].removeprefix("Value error, ")
    value = found[0]["input"]
    shown = "" if isinstance(value, Mapping | BaseModel) or found[0]["type"] == "missing" else f", got {_shown(value)}"
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return f"{key}: {told}{shown}{more}" if key else f"{told}{more}"
