"""Capacity 名额: no more customers in a level than it has places, at every grading and for every kind of scheme.

The step follows the rules of the scheme, the stability rule and overrides, and is the one exception to two laws: here a
customer's tier depends on who else is graded that day. Levels fill from the highest to the lowest. Customers set there
by hand come first and are never moved, even where they alone are more than the places. The others come in the order of
priority, and whoever finds no place goes on to the next lower level, to stand in line there as everybody else does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tiermodel.arrays import Flags, Floats, Ints
from tiermodel.features.frame import has_bought
from tiermodel.features.sampling import id_hashes
from tiermodel.tiers.fitted_scheme import FittedScheme
from tiermodel.tiers.schemes.schema import BaseScheme
from tiermodel.words import words

__all__ = ["Claims", "LevelPlaces", "capacity_at_fit", "capacity_lines", "fill_levels", "fill_scheme", "lots_of"]

_NOT_GRADED = -1


@dataclass(frozen=True)
class Claims:
    """What customers come with, arrays of shape (customers,), in any order.

    `tier` is what the stability rule or an override gives, `held` the tier in force before (-1: none). Higher
    `priority` comes first, NaN last. `lot` decides between equals: the lower comes first. `fixed` customers are not to
    be moved: those set by hand and, between two gradings, those who keep their tier.
    """

    tier: NDArray[np.integer[Any]]
    held: NDArray[np.integer[Any]]
    priority: Floats
    lot: NDArray[np.uint64]
    fixed: Flags


@dataclass(frozen=True)
class LevelPlaces:
    """How a level filled: its `places`, who asked for one, and how many of them found none.

    `asked` counts the customers whom the rules put there, those who found no place above, and the `fixed`
    ones. `cut` is the priority of the last one in; None where nobody came in by priority.
    """

    tier: int
    places: int
    asked: int
    fixed: int
    no_place: int
    cut: float | None

    def to_dict(self, codes: Sequence[str]) -> dict[str, Any]:
        """Return the level as plain data, with the code of the tier."""
        return {**vars(self), "tier": codes[self.tier]}


def lots_of(customers: Iterable[str]) -> NDArray[np.uint64]:
    """Return the lot of every customer: a hash of the id, the same at every grading and with any other customers."""
    return id_hashes(np.array(list(customers), dtype=object), 0)


def fill_levels(
    claims: Claims, levels: Sequence[int], places: Mapping[int, int], band: float
) -> tuple[Ints, list[LevelPlaces]]:
    """Return each customer's tier after capacity, shape (customers,), and how each capped level filled, highest first.

    `levels` are the tiers of customers with a purchase, lowest first; the lowest has no capacity. `places` has the
    capped ones. Within a level customers come by priority, but those who were in it or above before are already there:
    they come before a newcomer who is ahead by at most `band`, a share of the customers with a priority. Equals are
    ordered by incumbency, then by the tier that the rules gave, then by lot. Nobody is moved up, and the order of the
    rows changes nothing.
    """
    tier = claims.tier.astype(np.int64)
    known = np.sort(claims.priority[~np.isnan(claims.priority)])
    steps = round(band * len(known))
    place = np.full(max(int(claims.held.max(initial=0)), int(tier.max(initial=0)), *levels) + 2, _NOT_GRADED)
    place[list(levels)] = np.arange(len(levels))  # a level of customers without a purchase has none; -1 is the last
    found = []
    for below, level in reversed(list(pairwise(levels))):
        if level not in places:
            continue
        here = tier == level
        asking = np.flatnonzero(here & ~claims.fixed)
        fixed = int(here.sum()) - len(asking)
        new = place[claims.held[asking]] < place[level]
        turn = 2 * (_ahead(known, claims.priority[asking]) - steps * ~new) + new
        inside, last = _first(turn, claims, asking, max(0, places[level] - fixed))
        tier[asking[~inside]] = below
        cut = np.nan if last is None else float(claims.priority[last])
        counts = (places[level], fixed + len(asking), fixed, int(np.count_nonzero(~inside)))
        found.append(LevelPlaces(level, *counts, None if np.isnan(cut) else cut))
    return tier, found


def _first(turn: Ints, claims: Claims, asking: Ints, free: int) -> tuple[Flags, int | None]:
    """Return which of those who ask are the first `free` in line, and who is the last of them (None: nobody)."""
    if free == 0 or not len(asking):
        return np.zeros(len(asking), dtype=np.bool_), None
    free = min(free, len(asking))
    last = np.partition(turn, free - 1)[free - 1]
    inside, equal = turn < last, np.flatnonzero(turn == last)
    who = asking[equal]
    line = equal[np.lexsort((claims.lot[who], -claims.tier[who].astype(np.int64)))][: free - np.count_nonzero(inside)]
    inside[line] = True
    return inside, int(asking[line[-1]])


def _ahead(known: Floats, priority: Floats) -> Ints:
    """Return how many of the sorted priorities are higher than each; all of them for NaN."""
    ahead = len(known) - np.searchsorted(known, priority, side="right")
    return np.where(np.isnan(priority), len(known), ahead)


def fill_scheme(scheme: BaseScheme, claims: Claims) -> tuple[Ints, list[LevelPlaces]]:
    """Return what `fill_levels` returns with the capacities of a scheme and the band of its rule for moving down.

    Without a stability rule those already in a level win ties only.
    """
    places = {scheme.codes.index(code): n for code, n in scheme.capacities.items() if n is not None}
    band = 0.0 if scheme.stability is None else scheme.stability.down.band
    return fill_levels(claims, scheme.bought_numbers, places, band)


def capacity_at_fit(fitted: FittedScheme, snapshot: pd.DataFrame) -> list[dict[str, Any]]:
    """Return how the capped levels would fill on a snapshot where nobody has a tier yet, highest first, as plain data.

    An empty list for a scheme without a capacity.
    """
    scheme = fitted.scheme
    if not any(scheme.capacities.values()):
        return []
    bought = snapshot[has_bought(snapshot)]
    level, _ = fitted.assign(bought)
    nobody, lots = np.full(len(bought), _NOT_GRADED), lots_of(bought["customer_id"].astype(str))
    claims = Claims(level, nobody, fitted.priority(bought), lots, np.zeros(len(bought), dtype=np.bool_))
    return [filled.to_dict(scheme.codes) for filled in fill_scheme(scheme, claims)[1]]


def capacity_lines(rows: Iterable[Mapping[str, Any]], scheme: BaseScheme, language: str) -> list[str]:
    """Return a line of text for each capped level: its places, who asked for one, and how many found none."""
    names, wording = dict(zip(scheme.codes, scheme.names(language), strict=True)), words(language)
    levels = {level.code: level for level in scheme.levels}
    lines = []
    for row in rows:
        level = levels[row["tier"]]
        span = ""
        if level.managers is not None:
            span = wording["span"].format(managers=level.managers, each=level.customers_per_manager)
        end = wording["places_short" if row["no_place"] else "places_enough"].format(n=row["no_place"])
        lines.append(wording["places"].format(name=names[row["tier"]], span=span, **row) + end)
    return lines
