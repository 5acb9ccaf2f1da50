"""Grading at one date: the level by the rules, the tier by the stability rule and overrides, and the reasons.

Each customer is graded alone; `tiers.capacity` fills the levels afterwards, where they have a capacity.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tiermodel.arrays import Flags, Floats, Ints
from tiermodel.features.condition import Named
from tiermodel.tiers.fitted_scheme import FittedScheme
from tiermodel.tiers.schemes.protocol import REASONS
from tiermodel.tiers.stability.rule import NOBODY, Position, StabilityState, regrade, replay_states, who_and_when
from tiermodel.words import words

__all__ = ["Grading", "grade"]


@dataclass(frozen=True)
class Grading:
    """A grading of one date, arrays of shape (rows,).

    `level` is the level by the rules and `rule` the index of the rule that decided (-1: no purchase yet). `tier` is in
    force, `before` was at the previous grading (NaN: none). `state` is the state of the stability rule, whose tier
    an override (`overridden`) leaves as it is. `kept` are the customers who have the tier of the last grading, since
    this scoring is none.
    """

    level: Ints
    rule: Ints
    tier: Ints
    before: Floats
    state: StabilityState
    overridden: Flags
    kept: Flags

    def reasons(
        self, fitted: FittedScheme, frame: pd.DataFrame, features: Mapping[str, Named], language: str
    ) -> tuple[Ints, list[str]]:
        """Return up to three reasons for every row, as positions in a list of words, shape (rows, 3), and that list.

        Where the tier differs from the level by the rules, or was set by hand, the first reason says so.
        """
        codes, texts = fitted.explain(frame, self.rule, features, language)
        wording = words(language)
        names = fitted.scheme.names(language)
        held = [wording[key].format(name=name) for key in ("tier_kept", "tier_graded_before") for name in names]
        place = len(texts) + self.level + np.where(self.kept, len(names), 0)
        first = np.where(self.overridden, len(texts) + len(held), place)
        shifted = np.column_stack([first, codes[:, : REASONS - 1]])
        differs = (self.tier != self.level) | self.overridden
        return np.where(differs[:, None], shifted, codes), [*texts, *held, wording["tier_by_hand"]]


def grade(
    fitted: FittedScheme, frame: pd.DataFrame, previous: pd.DataFrame | None = None, position: Position | None = None
) -> Grading:
    """Return the grading of snapshot rows of one date.

    Customers start from `position`, where a ledger has them. Without it, and for customers whom the ledger does not
    know, the stability rule starts from a replay of `previous`, their earlier snapshots. At a position between two
    gradings customers keep their tier, and those whom the ledger does not know get that of a grading on this day.
    """
    level, rule = fitted.assign(frame)
    state, in_force = _replayed(fitted, frame, previous)
    overridden = kept = np.zeros(len(frame), dtype=np.bool_)
    override = np.full(len(frame), NOBODY)
    if position is not None:
        known = position.state.tier != NOBODY
        state = position.state.where(known, state)
        in_force = np.where(position.in_force != NOBODY, position.in_force, NOBODY)
        override, overridden = position.override, position.override != NOBODY
    day = _day(frame)
    after = regrade(fitted.scheme.stability, state, level, fitted.sure_levels(frame), day)
    if position is not None and not position.grades:
        kept = position.state.tier != NOBODY
        after = state.where(kept, after)
        in_force = np.where(kept, in_force, NOBODY)
    tier = np.where(overridden, override, np.where(kept & (in_force != NOBODY), in_force, after.tier))
    before = np.where(in_force == NOBODY, np.nan, in_force.astype(np.float64))
    return Grading(level, rule, tier, before, after, overridden, kept)


def _day(frame: pd.DataFrame) -> int:
    """Return the day of the rows, counted from 1970-01-01; 0 where no row has a date."""
    days = frame["as_of"].dropna()
    return 0 if days.empty else int(days.iloc[:1].to_numpy().astype("datetime64[D]").astype(np.int64)[0])


def _replayed(fitted: FittedScheme, frame: pd.DataFrame, previous: pd.DataFrame | None) -> tuple[StabilityState, Ints]:
    """Return the state after a replay of the earlier snapshots, and the tier at the latest of them (-1: none)."""
    if previous is None or previous.empty:
        new = StabilityState.new(len(frame))
        return new, new.tier
    customer, day = who_and_when(previous)
    level, _ = fitted.assign(previous)
    _, state = replay_states(fitted.scheme.stability, customer, day, level, fitted.sure_levels(previous))
    place = pd.Index(previous["customer_id"].unique()).get_indexer(pd.Index(frame["customer_id"]))
    state = state.take(place)
    # the previous tier is that of the latest snapshot: a customer who was not in it had none
    latest = previous["customer_id"][(day == day.max())]
    return state, np.where(frame["customer_id"].isin(set(latest)), state.tier, NOBODY)
