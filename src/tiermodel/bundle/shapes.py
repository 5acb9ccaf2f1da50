"""The shape of `bundle.json`: types, lengths and ranges of all that scores depend on, checked before anything is built.

Whoever can write a bundle can write its manifest too, so that hashes prove nothing against intent. What passes here
lets no model read beyond its arrays or run without an end; whether the numbers score is then tried (`golden`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import date
from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from tiermodel.config.project import Features
from tiermodel.config.targets import Churn, Outcome, Value
from tiermodel.models.churn import MEMBERS
from tiermodel.models.value import MEMBERS as VALUE_MEMBERS
from tiermodel.models.value_spread import CHANCE_GROUPS, QUANTILES
from tiermodel.tiers.customer_scores import SCORES
from tiermodel.tiers.fitted_features import FITTED
from tiermodel.tiers.kinds.index_points import STEPS
from tiermodel.tiers.lifecycle import MOST_DAYS
from tiermodel.tiers.schemes.schema import Index

__all__ = [
    "BundleShape", "FittedShape", "Number", "Numbers", "Part", "ReadableTree", "Shape", "first_problem", "points_fit",
    "require", "rising", "same_length",
]  # fmt: skip

_MOST_NODES = 511
_MOST_INPUTS = 5_000
_SHOWN = 60

Number = Annotated[float, Field(ge=-1e300, le=1e300)]
Numbers = list[Number]
Part = Annotated[float, Field(ge=0, le=1)]
"""A share or a probability."""
Text = Annotated[str, Field(max_length=10_000)]
_Positive = Annotated[float, Field(gt=0, le=1e300)]
_Parameter = Annotated[float, Field(ge=1e-6, le=1e6)]  # fits keep within e ** -9 and e ** 9
_TimeParameter = Annotated[float, Field(ge=1e-9, le=1e12)]  # the same, in days
_Position = Annotated[int, Field(ge=0, lt=_MOST_INPUTS)]
_Days = Annotated[int, Field(ge=1, le=10_000)]
_Figure = float | None  # of a report: not known where it is None


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


def _no_more_than(key: str, names: Collection[str], known: Collection[str], what: str) -> None:
    unknown = [name for name in names if name not in known]
    require(not unknown, f"{key}: {_shown(unknown[:1])[1:-1]} is no {what}")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


class _Scaled(Shape):
    """Bounds to clip to, and how to standardise."""

    low: Numbers
    high: Numbers
    middle: Numbers
    mean: Numbers
    scale: list[_Positive]

    def _check_scale(self, width: int, standardised: int) -> None:
        for key in ("low", "high", "middle"):
            same_length(key, getattr(self, key), width)
        for key in ("mean", "scale"):
            same_length(key, getattr(self, key), standardised)
        for n, (low, high) in enumerate(zip(self.low, self.high, strict=True)):
            require(low <= high, f"low: {low:g} at {n} is above high, {high:g}")


class LinearShape(_Scaled):
    """A `Linear` model."""

    shape: Literal["log", "root"]
    columns: list[_Position]
    flagged: list[_Position]
    coefficient: Numbers
    intercept: Number

    @model_validator(mode="after")
    def _lengths_fit(self) -> Self:
        width, terms = len(self.columns), len(self.columns) + len(self.flagged)
        self._check_scale(width, terms)
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
        _no_more_than(key, [self.spend, *sorted(self.tree.names)], features, "feature")


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
        _no_more_than(f"{key}.names", self.names, {*FITTED, *(score.name for score in SCORES)}, "fitted feature")
        _no_more_than(f"{key}.scores", self.scores, {score.name for score in SCORES}, "customer score")
        if self.peers is not None:
            self.peers.check_names(f"{key}.peers", features)


class _Mbg(Shape):
    r: _Parameter
    alpha: _TimeParameter
    a: _Parameter
    b: _Parameter


class _Gamma(Shape):
    p: _Parameter
    q: _Parameter
    v: _Positive


class _Pareto(Shape):
    r: _Parameter
    alpha: _TimeParameter
    s: _Parameter
    beta: _TimeParameter


class _Inputs(Shape):
    horizon: _Days
    silence: _Days
    purchases: _Mbg
    spend: _Gamma | None
    leaving: _Pareto


_Level = tuple[Number, Annotated[float, Field(ge=0, le=1e6)], bool]


class _Churn(Shape):
    linear: LinearShape
    compact: LinearShape
    blend: Annotated[Numbers, Field(min_length=len(MEMBERS) + 1, max_length=len(MEMBERS) + 1)]
    level: _Level


class _Spread(Shape):
    floor: Annotated[float, Field(ge=0, le=1e300)]
    edges: Numbers
    above: list[Numbers]
    below: list[Numbers]
    chance: tuple[Number, Number]
    sizes: Numbers
    reach: list[list[Part]]
    level_sd: Annotated[float, Field(ge=0, le=100)] = 0.0

    @model_validator(mode="after")
    def _tables_fit(self) -> Self:
        for key, rows, edges, columns in (
            ("above", self.above, self.edges, QUANTILES),
            ("below", self.below, self.edges, QUANTILES),
            ("reach", self.reach, self.sizes, CHANCE_GROUPS),
        ):
            same_length(key, rows, len(edges) + 1)
            for row in rows:
                same_length(key, row, columns)
        for row in (self.edges, self.sizes, *self.above, *self.below):
            rising("edges, sizes, above, below", row)
        return self


class _Value(Shape):
    linear: LinearShape
    chance: LinearShape
    least_amount: Annotated[float, Field(ge=0, le=1e300)]
    factors: Annotated[Numbers, Field(min_length=len(VALUE_MEMBERS), max_length=len(VALUE_MEMBERS))]
    spread: _Spread
    level: _Level


class _Tier(Shape):
    share_above: list[Part]
    mass: list[Annotated[float, Field(gt=0, le=1.01)]]


class _Prospects(Shape):
    names: list[Text]
    linear: LinearShape
    calibration: tuple[Number, Number]


class _Profile(Shape):
    share: _Figure
    customers: int | None
    marks: list[dict[str, Any]]


class _SegmentRule(Shape):
    paths: list[list[dict[str, Any]]]
    precision: _Figure
    recall: _Figure


class _Segments(_Scaled):
    """The state of `segments`; the figures of the search for them are for readers."""

    model_config = ConfigDict(extra="allow")

    features: list[Text]
    centres: Annotated[list[Numbers], Field(min_length=1, max_length=10_000)]
    method: Literal["kmeans", "gaussian_mixture", "hdbscan"] = "kmeans"
    log_weight: Numbers | None = None
    precision: list[list[Numbers]] | None = None
    segment: list[_Position] | None = None
    reach: list[float] | None = None
    codes: list[Annotated[int, Field(ge=1, le=10**9)]] | None = None
    last_code: Annotated[int, Field(ge=1, le=10**9)] | None = None
    stability: _Figure = None
    profiles: tuple[_Profile, ...] = ()
    names: tuple[dict[Literal["zh", "en"], Text], ...] = ()
    rules: tuple[_SegmentRule | None, ...] = ()

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        axes, centres = len(self.features), len(self.centres)
        self._check_scale(axes, axes)
        for centre in self.centres:
            same_length("centres", centre, axes)
        require((self.precision is None) == (self.log_weight is None), "precision, log_weight: one without the other")
        require((self.segment is None) == (self.reach is None), "segment, reach: one without the other")
        for key in ("log_weight", "precision", "segment", "reach"):
            same_length(key, getattr(self, key) or self.centres, centres)
        for factor in self.precision or []:
            for j, row in enumerate(factor):
                same_length("precision", row, axes)
                require(row[j] > 0 if j < axes else False, f"precision: {row[j]:g} on a diagonal")
            same_length("precision", factor, axes)
        groups = centres if self.segment is None else len(set(self.segment))
        require(self.segment is None or max(self.segment) == groups - 1, "segment: a number between is left out")
        if self.codes is not None:
            same_length("codes", self.codes, groups)
            require(len(set(self.codes)) == groups, "codes: one is there twice")
        if self.profiles:
            require(len(self.profiles) in {groups, groups + 1}, f"profiles: {len(self.profiles)} of {groups} segments")
        for key in ("names", "rules"):
            require(len(getattr(self, key)) <= len(self.profiles), f"{key}: more than profiles")
        return self


class _Panel(Shape):
    model_config = ConfigDict(extra="allow")
    every_days: Annotated[int, Field(ge=1, le=3660)]


class _Settings(Shape):
    """The sections of the project; those of the models are checked as in a project file."""

    model_config = ConfigDict(extra="allow")
    language: Literal["zh", "en"]
    timezone: Text
    currency: Text | None
    panel: _Panel
    features: dict[str, Any]
    outcome: dict[str, Any]
    churn: dict[str, Any]
    value: dict[str, Any]


def _settings(data: dict[str, Any]) -> dict[str, Any]:
    try:
        _Settings.model_validate(data)
    except ValidationError as error:
        raise ValueError(first_problem(error)) from None
    for key, section in (("features", Features), ("outcome", Outcome), ("churn", Churn), ("value", Value)):
        try:
            section.model_validate(data[key])
        except ValidationError as error:
            raise ValueError(f"{key}.{first_problem(error)}") from None
    return data


def _date(text: str) -> str:
    return date.fromisoformat(text).isoformat()


class _Facts(Shape):
    """Facts for readers; what scoring and promotion compare is checked."""

    model_config = ConfigDict(extra="allow")
    as_of: Annotated[str, AfterValidator(_date)]
    customers: Annotated[int, Field(ge=0, le=2**53)]
    later: dict[str, dict[str, _Figure]] = Field(default_factory=dict)
    versions: dict[str, Text] = Field(default_factory=dict)


class BundleShape(Shape):
    """The whole of `bundle.json`; the state of the scheme is checked with the scheme (`scheme_shapes`)."""

    format: int
    name: Annotated[str, Field(max_length=200)]
    settings: Annotated[dict[str, Any], AfterValidator(_settings)]
    columns: list[Text]
    features: Annotated[list[Text], Field(min_length=1, max_length=_MOST_INPUTS - 10)]
    inputs: _Inputs
    scheme: dict[Literal["scheme", "state"], dict[str, Any]]
    churn: _Churn
    value: _Value
    tier: _Tier
    segments: _Segments
    peers: PeersShape
    typical_rhythm: Annotated[float, Field(gt=0, le=MOST_DAYS)]
    upgrade: Part
    facts: _Facts
    scores: FittedShape | None = None
    prospects: _Prospects | None = None

    @model_validator(mode="after")
    def _parts_fit_together(self) -> Self:
        require(len(set(self.features)) == len(self.features), "features: a name is there twice")
        known = set(self.features)
        for key, names in (("segments.features", self.segments.features), ("prospects.names", self._prospect_names)):
            _no_more_than(key, names, known, "feature")
        self.peers.check_names("peers", known)
        if self.scores is not None:
            self.scores.check_names("scores", known)
        return self

    @property
    def _prospect_names(self) -> list[str]:
        return [] if self.prospects is None else self.prospects.names

    def check_inputs(self, width: int) -> None:
        """Raise `ValueError` where a linear model reads an input that there is not."""
        for key, linear in (
            ("churn.linear", self.churn.linear),
            ("churn.compact", self.churn.compact),
            ("value.linear", self.value.linear),
            ("value.chance", self.value.chance),
        ):
            linear.check_inputs(key, width)
        if self.prospects is not None:
            self.prospects.linear.check_inputs("prospects.linear", len(self.prospects.names))

    def check_levels(self, levels: int) -> None:
        """Raise `ValueError` where the model of the tier to come does not fit the levels of the scheme."""
        same_length("tier.share_above", self.tier.share_above, levels - 1)
        same_length("tier.mass", self.tier.mass, levels)


def first_problem(error: ValidationError) -> str:
    """Return the first problem in one line: key, what is wrong, and the value."""
    found = error.errors(include_url=False, include_context=False)
    key = ".".join(str(part) for part in found[0]["loc"])
    told = found[0]["msg"].removeprefix("Value error, ")
    value = found[0]["input"]
    shown = "" if isinstance(value, Mapping | BaseModel) or found[0]["type"] == "missing" else f", got {_shown(value)}"
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return f"{key}: {told}{shown}{more}" if key else f"{told}{more}"
