"""The shape of `bundle.json`: types, lengths and ranges of all that scores depend on, checked before anything is built.

Whoever can write a bundle can write its manifest too, so that hashes prove nothing against intent. What passes here
lets no model read beyond its arrays or run without an end; whether the numbers score is then tried (`golden`).
"""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, ValidationError, model_validator

from tiermodel.bundle.shapes import (
    MOST_INPUTS,
    Figure,
    FittedShape,
    LinearShape,
    Number,
    Numbers,
    Part,
    PeersShape,
    Position,
    Positive,
    Scaled,
    Shape,
    Text,
    first_problem,
    no_more_than,
    require,
    rising,
    same_length,
)
from tiermodel.config.project import Features
from tiermodel.config.targets import Churn, Outcome, Value
from tiermodel.models.churn import MEMBERS
from tiermodel.models.value import MEMBERS as VALUE_MEMBERS
from tiermodel.models.value_spread import CHANCE_GROUPS, QUANTILES
from tiermodel.tiers.lifecycle import MOST_DAYS

__all__ = ["BundleShape", "SegmentsShape"]

_Parameter = Annotated[float, Field(ge=1e-6, le=1e6)]  # fits keep within e ** -9 and e ** 9
_TimeParameter = Annotated[float, Field(ge=1e-9, le=1e12)]  # the same, in days
_Days = Annotated[int, Field(ge=1, le=10_000)]


class _Mbg(Shape):
    r: _Parameter
    alpha: _TimeParameter
    a: _Parameter
    b: _Parameter


class _Gamma(Shape):
    p: _Parameter
    q: _Parameter
    v: Positive


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
    largest: Annotated[float, Field(gt=0, le=1e300)] | None = None
    alone: Annotated[float, Field(gt=0, le=1e300)] | None = None


class _Tier(Shape):
    share_above: list[Part]
    mass: list[Annotated[float, Field(gt=0, le=1.01)]]


class _Prospects(Shape):
    names: list[Text]
    linear: LinearShape
    calibration: tuple[Number, Number]


class _Profile(Shape):
    share: Figure
    customers: int | None
    marks: list[dict[str, Any]]


class _SegmentRule(Shape):
    paths: list[list[dict[str, Any]]]
    precision: Figure
    recall: Figure


class SegmentsShape(Scaled):
    """The state of `segments`; the figures of the search for them are for readers."""

    model_config = ConfigDict(extra="allow")

    features: list[Text]
    centres: Annotated[list[Numbers], Field(min_length=1, max_length=10_000)]
    method: Literal["kmeans", "gaussian_mixture", "hdbscan"] = "kmeans"
    log_weight: Numbers | None = None
    precision: list[list[Numbers]] | None = None
    segment: list[Position] | None = None
    reach: list[float] | None = None
    codes: list[Annotated[int, Field(ge=1, le=10**9)]] | None = None
    last_code: Annotated[int, Field(ge=1, le=10**9)] | None = None
    stability: Figure = None
    profiles: tuple[_Profile, ...] = ()
    names: tuple[dict[Literal["zh", "en"], Text], ...] = ()
    rules: tuple[_SegmentRule | None, ...] = ()

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        axes, centres = len(self.features), len(self.centres)
        self.check_scale(axes, axes)
        for centre in self.centres:
            same_length("centres", centre, axes)
        require((self.precision is None) == (self.log_weight is None), "precision, log_weight: one without the other")
        require((self.segment is None) == (self.reach is None), "segment, reach: one without the other")
        for key in ("log_weight", "precision", "segment", "reach"):
            same_length(key, getattr(self, key) or self.centres, centres)
        for factor in self.precision or []:
            same_length("precision", factor, axes)
            for j, row in enumerate(factor):
                same_length("precision", row, axes)
                require(row[j] > 0, f"precision: {row[j]:g} on a diagonal")
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


_Count = Annotated[int, Field(ge=0, le=2**53)]


class _Importance(Shape):
    feature: Text
    size: Figure
    direction: Figure


class _Slice(Shape):
    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Figure]
    by: Text
    group: Text
    n: _Count


class _LevelFacts(Shape):
    year_seen: bool
    churn_points: Number
    value_low: Number
    value_high: Number


class _Facts(Shape):
    """Facts for readers: tables that the card, the report and the gate show or compare."""

    model_config = ConfigDict(extra="allow")
    as_of: Annotated[str, AfterValidator(_date)]
    customers: _Count
    snapshots: _Count | None = None
    history_days: _Count | None = None
    later: dict[str, dict[str, Figure]] = Field(default_factory=dict)
    later_dates: tuple[Annotated[str, AfterValidator(_date)], ...] = ()
    intervals: dict[str, dict[str, tuple[Figure, Figure]]] = Field(default_factory=dict)
    importance: dict[str, list[_Importance]] = Field(default_factory=dict)
    slices: tuple[_Slice, ...] = ()
    level: _LevelFacts | None = None
    versions: dict[str, Text] = Field(default_factory=dict)


class BundleShape(Shape):
    """The whole of `bundle.json`; the state of the scheme is checked with the scheme (`scheme_shapes`)."""

    format: int
    name: Annotated[str, Field(max_length=200)]
    settings: Annotated[dict[str, Any], AfterValidator(_settings)]
    columns: list[Text]
    features: Annotated[list[Text], Field(min_length=1, max_length=MOST_INPUTS - 10)]
    inputs: _Inputs
    scheme: dict[Literal["scheme", "state"], dict[str, Any]]
    churn: _Churn
    value: _Value
    tier: _Tier
    segments: SegmentsShape
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
            no_more_than(key, names, known, "feature")
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
