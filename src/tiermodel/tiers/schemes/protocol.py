"""The protocol of a kind of scheme: a module with the functions of `SchemeKind`, registered in `scheme_kinds`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import pandas as pd

from tiermodel.arrays import Floats, Ints
from tiermodel.features.condition import Condition, Named
from tiermodel.tiers.schemes.schema import BaseScheme

__all__ = [
    "REASONS",
    "AppliedKind",
    "AxisKind",
    "ExplainingKind",
    "FitContext",
    "LearningKind",
    "RankingKind",
    "Reasons",
    "SchemeKind",
    "SqlLevel",
    "State",
    "Thresholds",
]


REASONS = 3
"""Reasons for a tier, at most."""
State = dict[str, Any]
"""The frozen result of a fit: plain lists and numbers, as in JSON."""
Reasons = tuple[Ints, list[str]]
"""Up to three reasons for each row, as positions in a list of words, shape (rows, 3), and that list."""
Thresholds = Iterable[tuple[str, Sequence[float]]]
"""Features, each with the values at which a level can change; a feature may be named more than once."""
S = TypeVar("S", bound=BaseScheme, contravariant=True)  # noqa: PLC0105  # the scheme's data class


@dataclass(frozen=True)
class FitContext:
    """What a kind that learns reads beside the snapshot: past snapshots with their outcomes, and the seed.

    `label_delay_days` is gap plus horizon of the outcome, in days; None stands for the days from the last past date to
    the snapshot. For a stratum, `common` is the state fitted on all buyers: points of an index are counted as there, so
    that they can be compared between strata.
    """

    history: pd.DataFrame
    seed: int
    label_delay_days: int | None = None
    common: State | None = None


class SqlLevel(NamedTuple):
    """The level of a customer who bought as an SQL expression, a position among all levels (0 lowest).

    `features` are the columns that the expressions read. `score` is an expression that `level` reads under the name
    `sql_terms.SCORE`; empty where `level` needs none.
    """

    level: str
    features: Collection[str]
    score: str = ""


class AppliedKind(Protocol[S]):
    """How a fitted state is applied to buyers: levels are positions in `bought_levels`, rules are counted from 0."""

    def assign(self, scheme: S, state: State, frame: pd.DataFrame, /) -> tuple[Ints, Ints]:
        """Return each row's level, and the index of the rule that decided."""

    def sure_levels(self, scheme: S, state: State, frame: pd.DataFrame, /) -> tuple[Ints, Ints]:
        """Return each row's lowest level within the band for moving up, and highest level within that for moving down.

        Only for a state that was fitted with a stability rule; `cut_points.band_edges` moves the cut points.
        """

    def levels_of_rules(self, scheme: S, state: State, /) -> Ints:
        """Return the level of every rule."""

    def conditions(self, scheme: S, state: State, /) -> list[list[Condition]]:
        """Return every rule's conditions, all of which its customers meet; none for the rule of all other customers."""

    def thresholds(self, scheme: S, state: State, /) -> Thresholds:
        """Return the values at which a level can change; `ProjectError` where it depends on no single feature."""


class SchemeKind(AppliedKind[S], Protocol[S]):
    """A kind of scheme; what follows from the scheme alone, such as `ranks_customers`, its data class answers."""

    def fit(self, scheme: S, buyers: pd.DataFrame, context: FitContext, /) -> State:
        """Return the state, fitted on one snapshot of customers who bought, or on past snapshots."""

    def sql(self, scheme: S, state: State, /) -> SqlLevel:
        """Return the level as SQL, equal to `assign` for every row; NaN is NULL in SQL."""


@runtime_checkable
class ExplainingKind(Protocol):
    """A kind with its own reasons for each customer, where the conditions of a rule say too little."""

    def explain(
        self, scheme: Any, state: State, frame: pd.DataFrame, features: Mapping[str, Named], language: str, /
    ) -> Reasons | None:
        """Return up to three reasons for every row; None where the conditions of the rules are enough."""


@runtime_checkable
class AxisKind(Protocol):
    """A kind that scores customers on several axes, each of which is a result of its own."""

    def axes(self, scheme: Any, /) -> Iterable[str]:
        """Return the names of the axes, in order."""

    def grades(self, scheme: Any, state: State, frame: pd.DataFrame, /) -> dict[str, tuple[Ints, list[str]]]:
        """Return, for each axis, every row's score from 0, and a name for each score, lowest first."""


@runtime_checkable
class RankingKind(Protocol):
    """A kind that ranks customers by a number of its own, such as points; its scheme says so in `ranks_customers`."""

    def ranking(self, scheme: Any, state: State, frame: pd.DataFrame, /) -> Floats:
        """Return the number of each buyer, higher first; NaN where the buyer has none."""


@runtime_checkable
class LearningKind(Protocol):
    """A kind with learned levels: its rules have statistics, or are those of a tree that imitates the model."""

    def surrogate(self, state: State, /) -> State | None:
        """Return the state of the tree that imitates the model; None where the rules themselves are applied."""

    def surrogate_line(self, state: State, language: str, /) -> str:
        """Return a line of text: the rules imitate a model, and how closely they agree with it."""

    def rule_facts(self, state: State, language: str, /) -> list[str]:
        """Return the statistics of every rule, such as its support, as text."""

    def without_texts(self, state: State, /) -> tuple[State, dict[str, str]]:
        """Return the state with file names in place of long texts, and the texts by file name."""

    def with_texts(self, state: State, files: Mapping[str, bytes], /) -> State:
        """Return the state with the texts in place of their file names; `KeyError` names a file that is missing."""
