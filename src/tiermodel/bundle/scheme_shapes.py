"""The shape of the state of a fitted scheme, one for each kind: checked against the scheme that it belongs to."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationError

from tiermodel.bundle.shapes import (
    FittedShape,
    Number,
    Numbers,
    Part,
    ReadableTree,
    Shape,
    first_problem,
    no_more_than,
    points_fit,
    require,
    rising,
    same_length,
)
from tiermodel.tiers.fitted_features import FITTED
from tiermodel.tiers.kinds.composite import CompositeScheme
from tiermodel.tiers.kinds.rfm_matrix import MatrixScheme, RfmScheme, index_of
from tiermodel.tiers.kinds.share import ShareScheme
from tiermodel.tiers.kinds.thresholds import ThresholdScheme
from tiermodel.tiers.learned.scheme import LearnedScheme
from tiermodel.tiers.learned.score import SPLITS
from tiermodel.tiers.schemes.conditions import When
from tiermodel.tiers.schemes.schema import BaseScheme

__all__ = ["check_scheme"]

_Bands = list[tuple[Number, Number]]


class _Condition(Shape):
    feature: str
    side: Literal["at_least", "above", "below", "at_most", "is", "is_not"]
    missing: bool
    bound: Number | None = None
    values: list[str] | None = None
    up: tuple[Number, Number] | None = None
    down: tuple[Number, Number] | None = None


class _State(Shape):
    """What the state of any kind may have beside its own keys."""

    veto: tuple[list[_Condition], ...] = ()
    silent_after_days: Annotated[int, Field(ge=1, le=10_000)] | None = None
    fitted: FittedShape | None = None
    left_out: tuple[str, ...] = ()
    unseen_values: tuple[dict[str, Any], ...] = ()


class _Stratum(Shape):
    buyers: Annotated[int, Field(ge=1)]
    state: dict[str, Any]


class _Strata(Shape):
    model_config = ConfigDict(extra="allow")
    strata: dict[str, _Stratum] = Field(default_factory=dict)


class _Share(_State):
    cuts: Numbers
    may_miss: bool
    up: _Bands | None = None
    down: _Bands | None = None


class _Thresholds(_State):
    rules: list[list[_Condition]]


class _Points(Shape):
    cuts: list[Numbers]
    weights: list[Annotated[int, Field(ge=0, le=1000)]]


class _Grid(_State):
    cuts: dict[str, Numbers]
    may_miss: list[str]
    points: dict[str, _Points] = Field(default_factory=dict)
    up: dict[str, _Bands] | None = None
    down: dict[str, _Bands] | None = None


class _Composite(_State, _Points):
    level_cuts: Numbers
    may_miss: bool
    sensitivity: dict[str, tuple[Part, Part]]
    up: _Bands | None = None
    down: _Bands | None = None


class _Leaf(Shape):
    support: Part
    purity: Part
    value_mean: Number | None


class _Tree(_State):
    tree: ReadableTree
    level: list[int]
    leaves: list[_Leaf]
    may_miss: list[str]
    up: list[tuple[Number, Number] | None] | None = None
    down: list[tuple[Number, Number] | None] | None = None
    trials: tuple[dict[str, Any], ...] = ()


class _Boosted(Shape):
    trees: list[str | None]
    above: list[Part]


class _Network(Shape):
    middle: Numbers
    low: Numbers
    high: Numbers
    mean: Numbers
    scale: list[Annotated[float, Field(gt=0)]]
    into: list[Numbers]
    bias: Annotated[Numbers, Field(max_length=10_000)]
    out: Numbers
    start: Number


class _Fidelity(Shape):
    equal: Part
    qwk: Number | None
    value_kept: Number | None


class _Score(_State):
    learner: Literal["ordinal_boosting", "neural_network"]
    names: list[str]
    model: dict[str, Any]
    level_cuts: Numbers
    splits: list[Numbers]
    surrogate: _Tree
    trials: tuple[dict[str, Any], ...] = ()
    fidelity: _Fidelity
    up: _Bands | None = None
    down: _Bands | None = None


def check_scheme(scheme: BaseScheme, state: Mapping[str, Any], features: Collection[str]) -> None:
    """Raise `ValueError` where a state, as in `bundle.json`, is not that of its scheme on the bundle's features."""
    known = {*features, *FITTED, *scheme.text_features}
    try:
        strata = _Strata.model_validate_json(json.dumps(state)).strata
        require(not strata or scheme.strata is not None, "strata: the scheme has none")
        common = {key: part for key, part in state.items() if key != "strata"}
        for own in (common, *({**common, **stratum.state} for stratum in strata.values())):
            _check(scheme, own, known)
    except ValidationError as error:
        raise ValueError(f"scheme.state.{first_problem(error)}") from None
    except ValueError as error:
        raise ValueError(f"scheme.state.{error}") from None


def _check(scheme: BaseScheme, state: Mapping[str, Any], known: Collection[str]) -> None:
    shape, fits = _SHAPES[scheme.kind]
    if scheme.kind == "learned" and "surrogate" in state:
        shape, fits = _Score, _fits_score
    found = shape.model_validate_json(json.dumps(state))
    same_length("veto", found.veto, len(scheme.veto))
    for veto, conditions in zip(scheme.veto, found.veto, strict=True):
        _fits_conditions("veto", veto.when, conditions, known)
    if found.fitted is not None:
        found.fitted.check_names("fitted", known)
    fits(scheme, found, known)


def _fits_conditions(key: str, wanted: Sequence[When], found: Sequence[_Condition], known: Collection[str]) -> None:
    same_length(key, found, len(wanted))
    for when, condition in zip(wanted, found, strict=True):
        require(when.feature == condition.feature, f"{key}: {condition.feature!r} stands in for {when.feature!r}")
        _fits_names(key, [condition.feature], known)
        of_text = condition.side in {"is", "is_not"}
        require(of_text == (when.text is not None), f"{key}: side {condition.side!r} of {when.feature!r}")
        require(of_text == (condition.values is not None), f"{key}: values of {when.feature!r}")
        require(of_text == (condition.bound is None), f"{key}: bound of {when.feature!r}")
        require((condition.up is None) == (condition.down is None), f"{key}: band of {when.feature!r}")


def _fits_names(key: str, names: Collection[str], known: Collection[str]) -> None:
    no_more_than(key, names, known, "feature")


def _fits_cuts(key: str, cuts: Sequence[float], wanted: int) -> None:
    same_length(key, cuts, wanted)
    rising(key, cuts)


def _fits_bands(scheme: BaseScheme, up: Sequence[Any] | None, down: Sequence[Any] | None, wanted: int) -> None:
    for side, bands in (("up", up), ("down", down)):
        require(bands is not None or scheme.stability is None, f"{side}: missing, and there is a stability rule")
        same_length(side, [None] * wanted if bands is None else bands, wanted)


def _fits_share(scheme: ShareScheme, state: _Share, known: Collection[str]) -> None:
    wanted = len(scheme.bought_levels) - 1
    _fits_names("feature", [scheme.feature], known)
    _fits_cuts("cuts", state.cuts, wanted)
    _fits_bands(scheme, state.up, state.down, wanted)


def _fits_thresholds(scheme: ThresholdScheme, state: _Thresholds, known: Collection[str]) -> None:
    same_length("rules", state.rules, len(scheme.rules))
    for rule, conditions in zip(scheme.rules, state.rules, strict=True):
        _fits_conditions("rules", rule.when, conditions, known)


def _fits_grid(scheme: RfmScheme | MatrixScheme, state: _Grid, known: Collection[str]) -> None:
    _fits_names("may_miss", state.may_miss, scheme.grid)
    require(list(state.cuts) == list(scheme.grid), f"cuts: of {list(state.cuts)}, not of {list(scheme.grid)}")
    for name, axis in scheme.grid.items():
        _fits_cuts(f"cuts.{name}", state.cuts[name], axis.bins - 1)
        up, down = (None if side is None else side.get(name, []) for side in (state.up, state.down))
        _fits_bands(scheme, up, down, axis.bins - 1)
        index = index_of(axis)
        require((index is None) == (name not in state.points), f"points: not of the axis {name!r}")
        if index is None:
            _fits_names(name, [axis.feature], known)
        else:
            _fits_names(name, [d.feature for d in index.dimensions], known)
            points_fit(state.points[name].cuts, state.points[name].weights, len(index.dimensions))


def _fits_composite(scheme: CompositeScheme, state: _Composite, known: Collection[str]) -> None:
    wanted = len(scheme.bought_levels) - 1
    _fits_names("dimensions", [d.feature for d in scheme.dimensions], known)
    points_fit(state.cuts, state.weights, len(scheme.dimensions))
    _fits_cuts("level_cuts", state.level_cuts, wanted)
    _fits_bands(scheme, state.up, state.down, wanted)


def _fits_tree(scheme: LearnedScheme, state: _Tree, known: Collection[str]) -> None:
    leaves, levels = state.tree.leaves, len(scheme.bought_levels)
    _fits_names("tree.feature", state.tree.names, known)
    _fits_names("may_miss", state.may_miss, known)
    same_length("level", state.level, leaves)
    same_length("leaves", state.leaves, leaves)
    wrong = [level for level in state.level if not 0 <= level < levels]
    require(not wrong, f"level: {wrong[:1]} is none of {levels} levels, counted from 0")
    _fits_bands(scheme, state.up, state.down, len(state.tree.feature))


def _fits_score(scheme: LearnedScheme, state: _Score, known: Collection[str]) -> None:
    levels, width = len(scheme.bought_levels), len(state.names)
    _fits_names("names", state.names, known)
    _fits_cuts("level_cuts", state.level_cuts, levels - 1)
    _fits_bands(scheme, state.up, state.down, levels - 1)
    same_length("splits", state.splits, width)
    for split in state.splits:
        _fits_cuts("splits", split, len(SPLITS))
    _fits_tree(scheme, state.surrogate, known)
    if state.learner == "ordinal_boosting":
        trees = _Boosted.model_validate_json(json.dumps(state.model))
        same_length("model.trees", trees.trees, levels - 1)
        same_length("model.above", trees.above, levels - 1)
        return
    network = _Network.model_validate_json(json.dumps(state.model))
    for key in ("middle", "low", "high", "mean", "scale", "into"):
        same_length(f"model.{key}", getattr(network, key), width)
    for row in (*network.into, network.out):
        same_length("model.into, model.out", row, len(network.bias))


_SHAPES: Mapping[str, tuple[type[_State], Callable[[Any, Any, Collection[str]], None]]] = {
    "share": (_Share, _fits_share),
    "thresholds": (_Thresholds, _fits_thresholds),
    "rfm": (_Grid, _fits_grid),
    "matrix": (_Grid, _fits_grid),
    "composite": (_Composite, _fits_composite),
    "learned": (_Tree, _fits_tree),
}
"""The shape of the state of each kind, and what makes it fit the scheme."""
