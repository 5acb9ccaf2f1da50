"""Grade customers as of one date: the level by the rules, the tier by the stability rule and overrides, in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tiermodel.arrays import Flags, Floats, Ints
from tiermodel.features.condition import Named
from tiermodel.tiers.assign import REASONS, FittedScheme
from tiermodel.tiers.stability import NOBODY, Position, Standing, regrade, replay_standing, who_and_when

__all__ = ["Grading", "grade"]


@dataclass(frozen=True)
class Grading:
    """Hold every row's level by the rules, the rule, the tier in force, the one before (NaN: none), and the standing.

    `standing.tier` is the tier of the stability rule, which an override (`overridden`) leaves as it is.
    """

    level: Ints
    rule: Ints
    tier: Ints
    before: Floats
    standing: Standing
    overridden: Flags

    def reasons(
        self, fitted: FittedScheme, frame: pd.DataFrame, features: Mapping[str, Named], language: str
    ) -> tuple[Ints, list[str]]:
        """Give up to three reasons for every row: positions in a list of words, shape (rows, 3).

        Where the tier is not the level that the rules say, the first reason says so.
        """
        codes, words = fitted.explain(frame, self.rule, features, language)
        zh = language == "zh"
        held = [
            f"稳定规则保留等级，规则等级为{name}" if zh else f"kept by the stability rule; the rules say {name}"
            for name in fitted.scheme.names(language)
        ]
        by_hand = "人工指定等级" if zh else "set by hand"
        first = np.where(self.overridden, len(words) + len(held), len(words) + self.level)
        shifted = np.column_stack([first, codes[:, : REASONS - 1]])
        differs = (self.tier != self.level) | self.overridden
        return np.where(differs[:, None], shifted, codes), [*words, *held, by_hand]


def grade(
    fitted: FittedScheme, frame: pd.DataFrame, previous: pd.DataFrame | None = None, position: Position | None = None
) -> Grading:
    """Grade snapshot rows of one date, from where a ledger says customers stand, else from their earlier snapshots.

    A customer whom the ledger does not know stands where the earlier snapshots, replayed, leave him.
    """
    level, rule = fitted.assign(frame)
    standing, in_force = _replayed(fitted, frame, previous)
    overridden = np.zeros(len(frame), dtype=np.bool_)
    override = np.full(len(frame), NOBODY)
    if position is not None:
        known = position.standing.tier != NOBODY
        standing = position.standing.where(known, standing)
        in_force = np.where(position.in_force != NOBODY, position.in_force, NOBODY)
        override, overridden = position.override, position.override != NOBODY
    day = _day(frame)
    after = regrade(fitted.scheme.stability, standing, level, fitted.span(frame), day)
    tier = np.where(overridden, override, after.tier)
    before = np.where(in_force == NOBODY, np.nan, in_force.astype(np.float64))
    return Grading(level, rule, tier, before, after, overridden)


def _day(frame: pd.DataFrame) -> int:
    days = frame["as_of"].dropna()
    return 0 if days.empty else int(days.iloc[:1].to_numpy().astype("datetime64[D]").astype(np.int64)[0])


def _replayed(fitted: FittedScheme, frame: pd.DataFrame, previous: pd.DataFrame | None) -> tuple[Standing, Ints]:
    """Replay the earlier snapshots, oldest first; the tier in force is that of the stability rule."""
    if previous is None or previous.empty:
        new = Standing.new(len(frame))
        return new, new.tier
    customer, day = who_and_when(previous)
    level, _ = fitted.assign(previous)
    _, standing = replay_standing(fitted.scheme.stability, customer, day, level, fitted.span(previous))
    place = pd.Index(previous["customer_id"].unique()).get_indexer(pd.Index(frame["customer_id"]))
    standing = standing.take(place)
    # the previous tier is that of the latest snapshot: who was not in it had none
    latest = previous["customer_id"][(day == day.max())]
    return standing, np.where(frame["customer_id"].isin(set(latest)), standing.tier, NOBODY)
