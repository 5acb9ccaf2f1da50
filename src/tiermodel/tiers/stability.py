"""Keep customers in their tier until a move is beyond doubt: band, confirmations, minimum stay, downgrade grace.

A grading says of every customer the lowest level that is sure (past every cut point by the band for moving up) and the
highest (by the band for moving down). A customer whose level lies between them does not ask to move, so constant input
never moves anybody. Who asks often and long enough moves, no further than to the edge that is sure.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import pandas as pd

from tiermodel.arrays import Flags, Ints
from tiermodel.config.tiers import Downgrade, Stability, Upgrade
from tiermodel.tiers.assign import FittedScheme

__all__ = [
    "NOBODY",
    "Position",
    "Standing",
    "movement_shares",
    "regrade",
    "replay",
    "replay_levels",
    "replay_standing",
    "who_and_when",
]

NOBODY = -1


@dataclass(frozen=True)
class Standing:
    """Say where customers stand: their tier (-1: not graded yet), since which day, and what they ask for.

    `asked` counts the gradings in a row that asked to move, above zero upwards, below zero downwards; `asked_since` is
    the day of the first of them. Days are counted from 1970.
    """

    tier: Ints
    since: Ints
    asked: Ints
    asked_since: Ints

    @classmethod
    def new(cls, n: int) -> Standing:
        """Stand for customers who were never graded."""
        return cls(np.full(n, NOBODY), *(np.zeros(n, dtype=np.int64) for _ in range(3)))

    def take(self, rows: Ints) -> Standing:
        """Pick rows; -1 stands for a customer who was never graded."""
        padded = [np.append(getattr(self, f.name), NOBODY if f.name == "tier" else 0) for f in fields(self)]
        return Standing(*(values[rows] for values in padded))

    def where(self, condition: Flags, other: Standing) -> Standing:
        """Keep where a condition holds, take the other elsewhere."""
        return Standing(*(np.where(condition, getattr(self, f.name), getattr(other, f.name)) for f in fields(self)))


@dataclass(frozen=True)
class Position:
    """Say where customers stand in a ledger before a grading: for the stability rule, and the tier in force (-1: none).

    `override` is the tier that an operator set and that has not expired, else -1.
    """

    standing: Standing
    in_force: Ints
    override: Ints


def regrade(rule: Stability | None, before: Standing, level: Ints, span: tuple[Ints, Ints], day: int) -> Standing:
    """Grade again on a day: the level where nothing stood before, else the old tier or the one that the rule allows.

    `span` holds the lowest and the highest sure level, `day` counts from 1970. Without a rule the tier is the level.
    """
    rule = rule or Stability()
    lowest, highest = span
    new = before.tier == NOBODY
    wish = np.where(new, 0, (lowest > before.tier).astype(np.int64) - (highest < before.tier))
    again = (wish != 0) & (np.sign(before.asked) == wish)
    asked = np.where(again, before.asked + wish, wish)
    asked_since = np.where(again, before.asked_since, day)
    up = (wish > 0) & _allowed(rule.up, asked, day - before.since)
    down = (wish < 0) & _allowed(rule.down, asked, day - before.since) & (day - asked_since >= rule.down.grace_days)
    tier = np.select([new, up, down], [level, lowest, highest], before.tier)
    moved = new | up | down
    still = moved | (wish == 0)
    return Standing(
        tier, np.where(moved, day, before.since), np.where(still, 0, asked), np.where(still, 0, asked_since)
    )


def _allowed(rule: Upgrade | Downgrade, asked: Ints, stayed: Ints) -> Flags:
    return (np.abs(asked) >= rule.confirmations) & (stayed >= rule.min_stay_days)


def replay(fitted: FittedScheme, panel: pd.DataFrame) -> tuple[Ints, Ints]:
    """Grade every customer of a panel date by date; give each row's tier and its level before stability.

    The panel has one row for each customer and date, in any order. Who enters later is graded from then on; who is
    missing at a date keeps the standing.
    """
    level, _ = fitted.assign(panel)
    return replay_levels(fitted.scheme.stability, *who_and_when(panel), level, fitted.span(panel)), level


def who_and_when(panel: pd.DataFrame) -> tuple[Ints, Ints]:
    """Give every row's customer as a number from 0, and its day counted from 1970."""
    return pd.factorize(panel["customer_id"])[0], panel["as_of"].to_numpy().astype("datetime64[D]").astype(np.int64)


def replay_levels(rule: Stability | None, customer: Ints, day: Ints, level: Ints, span: tuple[Ints, Ints]) -> Ints:
    """Grade date by date from levels and spans that are known already; give each row's tier."""
    return replay_standing(rule, customer, day, level, span)[0]


def replay_standing(
    rule: Stability | None, customer: Ints, day: Ints, level: Ints, span: tuple[Ints, Ints]
) -> tuple[Ints, Standing]:
    """Grade date by date; give each row's tier, and where every customer, by number, stands in the end."""
    tier = level.copy()
    standing = Standing.new(int(customer.max(initial=-1)) + 1)
    for now in np.unique(day):
        rows = np.flatnonzero(day == now)
        who = customer[rows]
        after = regrade(rule, standing.take(who), level[rows], (span[0][rows], span[1][rows]), int(now))
        tier[rows] = after.tier
        for f in fields(Standing):
            getattr(standing, f.name)[who] = getattr(after, f.name)
    return tier, standing


def movement_shares(customer: Ints, day: Ints, tier: Ints) -> tuple[float, float]:
    """Give the share of customers who move from one date to the next, and of those the share who move straight back.

    The first is the mean over pairs of dates, the second counts all moves of which the date after is known; NaN where
    there are none. Customers are numbered from 0.
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
