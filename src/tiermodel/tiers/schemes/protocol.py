"""What a kind of scheme answers: a module with the functions of `SchemeKind`, registered in `scheme_kinds`, is one."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import pandas as pd

from tiermodel.arrays import Ints
from tiermodel.features.condition import Condition, Named
from tiermodel.tiers.schemes.schema import BaseScheme

__all__ = [
    "AppliedKind",
    "ExplainingKind",
    "FitContext",
    "LearningKind",
    "Reasons",
    "SchemeKind",
    "SqlLevel",
    "State",
    "Thresholds",
]

State = dict[str, Any]
"""What a fit froze: plain lists and numbers, as in JSON."""
Reasons = tuple[Ints, list[str]]
"""Positions in a list of words, shape (rows, 3), and the words."""
Thresholds = Iterable[tuple[str, Sequence[float]]]
"""Features, each with the values at which a level can change; a feature may be named more than once."""
S = TypeVar("S", bound=BaseScheme, contravariant=True)  # noqa: PLC0105  # the scheme's data class


@dataclass(frozen=True)
class FitContext:
    """Past snapshots with their outcomes, the seed, and gap plus horizon of the outcome in days: for kinds that learn.

    Without `label_delay_days`, the span is the days from the last past date to the snapshot.
    """

    history: pd.DataFrame
    seed: int
    label_delay_days: int | None = None


class SqlLevel(NamedTuple):
    """The level of a customer who bought, as an SQL expression that gives its number among all levels (0 lowest).

    `features` are the columns that the expressions read. `score` is an expression over them that `level` reads under
    the name `sql_terms.SCORE`, empty where it needs none.
    """

    level: str
    features: Collection[str]
    score: str = ""


class AppliedKind(Protocol[S]):
    """How a fitted state is applied to buyers. Ints are numbers among `bought_levels`, rules are counted from 0."""

    def assign(self, scheme: S, state: State, frame: pd.DataFrame, /) -> tuple[Ints, Ints]:
        """Return each row's level, and the rule that decided."""

    def sure_levels(self, scheme: S, state: State, frame: pd.DataFrame, /) -> tuple[Ints, Ints]:
        """Return each row's lowest level within the band for moving up, and highest within that for moving down.

        Asked only of a state that was fitted with a stability rule; `cut_points.band_edges` moves the cut points.
        """

    def levels_of_rules(self, scheme: S, state: State, /) -> Ints:
        """Return the level of every rule."""

    def conditions(self, scheme: S, state: State, /) -> list[list[Condition]]:
        """Return every rule's conditions, all of which a customer meets; none for whoever meets no other rule."""

    def thresholds(self, scheme: S, state: State, /) -> Thresholds:
        """Return the values at which a level can change; `ProjectError` where no single feature decides."""


class SchemeKind(AppliedKind[S], Protocol[S]):
    """A kind of scheme. What follows from the data alone, such as `ranks_by_shares`, its data class answers."""

    def fit(self, scheme: S, buyers: pd.DataFrame, context: FitContext, /) -> State:
        """Return the state, fitted on one snapshot of customers who bought, or on past snapshots."""

    def sql(self, scheme: S, state: State, /) -> SqlLevel:
        """Return the level as SQL, equal to `assign` for every row; NaN is NULL there."""


@runtime_checkable
class ExplainingKind(Protocol):
    """A kind with reasons of its own for each customer, where a rule's conditions say too little."""

    def explain(
        self, scheme: Any, state: State, frame: pd.DataFrame, features: Mapping[str, Named], language: str, /
    ) -> Reasons | None:
        """Return up to three reasons for every row; None where the conditions say enough."""


@runtime_checkable
class LearningKind(Protocol):
    """A kind whose levels are learned: its rules have figures, or only imitate a model that no rule can state."""

    def surrogate(self, state: State, /) -> State | None:
        """Return the state of the rules that imitate the model; None where the rules are what is applied."""

    def surrogate_line(self, state: State, language: str, /) -> str:
        """Return a line that says that the rules only imitate, and how near they come."""

    def rule_facts(self, state: State, language: str, /) -> list[str]:
        """Return what is known of every rule, such as its support, as words."""

    def without_texts(self, state: State, /) -> tuple[State, dict[str, str]]:
        """Return the state with file names in place of long texts, and the texts by file name."""

    def with_texts(self, state: State, files: Mapping[str, bytes], /) -> State:
        """Return the state that `without_texts` took apart; `KeyError` names a file that is missing."""
