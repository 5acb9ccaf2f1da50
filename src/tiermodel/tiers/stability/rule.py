"""The stability rule: hysteresis that keeps customers in their tier until a move is beyond doubt.

A grading gives every customer the lowest sure level (past every cut point by the band for moving up) and the highest
(by the band for moving down). A tier below the lowest sure level has a move up pending, a tier above the highest a move
down; between the two no move is pending, so constant input never moves a customer. A move is made once it has been
pending for the confirmations, the minimum stay and the downgrade grace, and goes no further than to that sure level.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import pandas as pd

from tiermodel.arrays import Flags, Ints
from tiermodel.config.tiers import Downgrade, Stability, Upgrade
from tiermodel.tiers.fitted_scheme import FittedScheme

__all__ = [
    "NOBODY",
    "Position",
    "StabilityState",
    "movement_shares",
    "regrade",
    "replay",
    "replay_levels",
    "replay_states",
    "who_and_when",
]


NOBODY = -1
"""No tier: the customer was never graded."""


@dataclass(frozen=True)
class StabilityState:
    """The state of the stability rule, arrays of shape (customers,); days are counted from 1970-01-01.

    `tier` is held since the day `since` (-1: never graded). `pending_moves` counts the gradings in a row with the same
    move pending, positive for a move up, negative for a move down, 0 for none; `pending_since` is the day of the first
    of them.
    """

    tier: Ints
    since: Ints
    pending_moves: Ints
    pending_since: Ints

    @classmethod
    def new(cls, n: int) -> StabilityState:
        """Return the state of `n` customers who were never graded."""
        return cls(np.full(n, NOBODY), *(np.zeros(n, dtype=np.int64) for _ in range(3)))

    def take(self, rows: Ints) -> StabilityState:
        """Return the state at some positions; -1 gives a customer who was never graded."""
        padded = [np.append(getattr(self, f.name), NOBODY if f.name == "tier" else 0) for f in fields(self)]
        return StabilityState(*(values[rows] for values in padded))

    def where(self, condition: Flags, other: StabilityState) -> StabilityState:
        """Return this state where a condition holds, the other state elsewhere."""
        return StabilityState(
            *(np.where(condition, getattr(self, f.name), getattr(other, f.name)) for f in fields(self))
        )


@dataclass(frozen=True)
class Position:
    """Where customers stand in a ledger before a grading, arrays of shape (customers,).

    `state` is the state of the stability rule and `in_force` the tier in force (-1: none); `override` is the tier
    that an operator set and that has not expired (-1: none). Without `grades` it is the position between two gradings,
    where nobody moves.
    """

    state: StabilityState
    in_force: Ints
    override: Ints
    grades: bool = True


def regrade(
    rule: Stability | None, before: StabilityState, level: Ints, sure_levels: tuple[Ints, Ints], day: int
) -> StabilityState:
    """Return the state after a grading: a new customer gets the level, others keep the tier or make an allowed move.

    `sure_levels` has the lowest and the highest sure level, `day` counts from 1970-01-01. Without a rule the tier is
    the level.
    """
    rule = rule or Stability()
    lowest, highest = sure_levels
    new = before.tier == NOBODY
    direction = np.where(new, 0, (lowest > before.tier).astype(np.int64) - (highest < before.tier))
    again = (direction != 0) & (np.sign(before.pending_moves) == direction)
    pending_moves = np.where(again, before.pending_moves + direction, direction)
    pending_since = np.where(again, before.pending_since, day)
    up = (direction > 0) & _allowed(rule.up, pending_moves, day - before.since)
    down = (
        (direction < 0)
        & _allowed(rule.down, pending_moves, day - before.since)
        & (day - pending_since >= rule.down.grace_days)
    )
    tier = np.select([new, up, down], [level, lowest, highest], before.tier)
    moved = new | up | down
    still = moved | (direction == 0)
    return StabilityState(
        tier, np.where(moved, day, before.since), np.where(still, 0, pending_moves), np.where(still, 0, pending_since)
    )


def _allowed(rule: Upgrade | Downgrade, pending_moves: Ints, stayed: Ints) -> Flags:
    """Return, for each customer, whether a pending move has its confirmations and the minimum stay is over."""
    return (np.abs(pending_moves) >= rule.confirmations) & (stayed >= rule.min_stay_days)


def replay(fitted: FittedScheme, panel: pd.DataFrame) -> tuple[Ints, Ints]:
    """Return each row's tier before capacity, graded date by date, and its level before the stability rule.

    The panel has one row for each customer and date, in any order. A customer who enters later is graded from then on;
    a customer who is missing at a date keeps the state.
    """
    level, _ = fitted.assign(panel)
    return replay_levels(fitted.scheme.stability, *who_and_when(panel), level, fitted.sure_levels(panel)), level


def who_and_when(panel: pd.DataFrame) -> tuple[Ints, Ints]:
    """Return each row's customer as a number from 0, and its day counted from 1970-01-01."""
    return pd.factorize(panel["customer_id"])[0], panel["as_of"].to_numpy().astype("datetime64[D]").astype(np.int64)


def replay_levels(
    rule: Stability | None, customer: Ints, day: Ints, level: Ints, sure_levels: tuple[Ints, Ints]
) -> Ints:
    """Return each row's tier, graded date by date from levels and sure levels that are known already."""
    return replay_states(rule, customer, day, level, sure_levels)[0]


def replay_states(
    rule: Stability | None, customer: Ints, day: Ints, level: Ints, sure_levels: tuple[Ints, Ints]
) -> tuple[Ints, StabilityState]:
    """Return each row's tier, graded date by date, and the last state of every customer, by number."""
    tier = level.copy()
    state = StabilityState.new(int(customer.max(initial=-1)) + 1)
    for now in np.unique(day):
        rows = np.flatnonzero(day == now)
        who = customer[rows]
        after = regrade(rule, state.take(who), level[rows], (sure_levels[0][rows], sure_levels[1][rows]), int(now))
        tier[rows] = after.tier
        for f in fields(StabilityState):
            getattr(state, f.name)[who] = getattr(after, f.name)
    return tier, state


def movement_shares(customer: Ints, day: Ints, tier: Ints) -> tuple[float, float]:
    """Return the share of customers who move from one date to the next, and the share of moves reversed at once.

    The first is the mean over pairs of dates; the second is over all moves whose next date is known. NaN where there
    are none. Customers are numbered from 0.
    """
    days, column = np.unique(day, return_inverse=True)
    t = np.full((int(customer.max(initial=-1)) + 1, len(days)), np.nan)
    t[customer, column] = tier
    pairs = ~np.isnan(t[:, 1:]) & ~np.isnan(t[:, :-1])
    moved = pairs & (t[:, 1:] != t[:, :-1])
    could = moved[:, :-1] & pairs[:, 1:]
    back = could & (t[:, 2:] == t[:, :-2])
    share = [m[p].mean() for m, p in zip(moved.T, pairs.T, strict=True) if p.any()]
    return float(np.mean(share)) if share else np.nan, float(back.sum() / could.sum()) if could.any() else np.nan
