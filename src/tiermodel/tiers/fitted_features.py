"""Features that are fitted on buyers, for schemes: silence by the own rhythm, headroom, and the customer scores.

They are made of features that are built and of a frozen state, when a customer is graded: one record has the values of
the batch, and the rules in SQL compute them in the same way.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from tiermodel.arrays import Floats
from tiermodel.features.condition import Named, Words
from tiermodel.features.frame import feature_names, with_columns
from tiermodel.models.potential import PeerGroups, fit_peer_groups
from tiermodel.tiers.customer_scores import HEADROOM, POTENTIAL, SCORES, SILENCE, index_of_score
from tiermodel.tiers.kinds.index_points import fit_points, points_of, points_sql, thresholds_of
from tiermodel.tiers.kinds.sql_terms import number, quoted, tree_sql
from tiermodel.tiers.lifecycle import LOST, MOST_DAYS, RHYTHM_DAYS, silence_ratio, typical_rhythm
from tiermodel.tiers.schemes.protocol import Thresholds
from tiermodel.tiers.schemes.schema import Index
from tiermodel.words import words

__all__ = ["FITTED", "FittedFeatures", "fit_features", "fitted_names", "headroom"]

_BY_NAME = {score.name: score for score in SCORES}
FITTED = (SILENCE, HEADROOM, *(name for name in _BY_NAME if name != POTENTIAL))
"""The names that schemes can read like features."""


def fitted_names() -> dict[str, Named]:
    """Return the names of the fitted features in both languages."""
    zh, en = words("zh"), words("en")
    names: dict[str, Named] = {name: Words(zh[name], en[name]) for name in (SILENCE, HEADROOM)}
    return names | {name: Words(score.zh, score.en) for name, score in _BY_NAME.items()}


@dataclass(frozen=True)
class FittedFeatures:
    """Frozen state of the fitted features that a scheme or a bundle reads.

    `typical` is the rhythm of customers without one of their own, in days; `peers` are groups of similar customers
    (None: no headroom is read); `scores` are the index and its cut points by name.
    """

    names: tuple[str, ...]
    typical: float
    peers: PeerGroups | None = None
    scores: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @cached_property
    def indexes(self) -> dict[str, Index]:
        """The index of every score, by name."""
        return {name: Index.model_validate(state["index"]) for name, state in self.scores.items()}

    def added_to(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return snapshot rows with the fitted features as further columns, float64."""
        made = {SILENCE: silence_ratio(frame, self.typical)}
        if self.peers is not None:
            made[HEADROOM] = headroom(self.peers, made[SILENCE], frame)
        for name, index in self.indexes.items():
            read = {d.feature: made.get(d.feature, frame.get(d.feature)) for d in index.dimensions}
            made[name] = points_of(index, dict(self.scores[name]), pd.DataFrame(read))
        return with_columns(frame, made)

    def thresholds(self) -> Thresholds:
        """Return the values of features at which a score changes."""
        for name, index in self.indexes.items():
            yield from thresholds_of(index, self.scores[name])

    def sql(self) -> Iterator[tuple[str, str, set[str]]]:
        """Yield every fitted feature, its SQL expression, and the columns that the expression reads, in order."""
        yield SILENCE, _silence_sql(self.typical), {"days_since_last", *RHYTHM_DAYS}
        if self.peers is not None:
            reference = tree_sql(self.peers.tree, [number(value) for value in self.peers.reference])
            zero = number(0.0)
            spend = f"GREATEST({quoted(self.peers.spend)}, {number(-1e300)})"  # no difference beyond a double
            below = f"GREATEST({reference} - {spend}, {zero})"
            lost = f"{SILENCE} > {number(LOST)} OR days_since_last IS NULL"
            read = {name for name in self.peers.tree["feature"] if name is not None}
            known = f"WHEN {quoted(self.peers.spend)} IS NOT NULL THEN {below}"
            yield HEADROOM, f"CASE WHEN {lost} THEN {zero} {known} END", {self.peers.spend, *read}
        for name, index in self.indexes.items():
            yield name, points_sql(index, self.scores[name]), {d.feature for d in index.dimensions} - set(FITTED)

    def to_dict(self) -> dict[str, Any]:
        """Return the state as plain data."""
        peers = {} if self.peers is None else {"peers": vars(self.peers)}
        return {"names": list(self.names), "typical_rhythm": self.typical, **peers, "scores": dict(self.scores)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> FittedFeatures:
        """Return the features that `to_dict` wrote."""
        peers = PeerGroups(**data["peers"]) if "peers" in data else None
        return cls(tuple(data["names"]), data["typical_rhythm"], peers, data["scores"])


def fit_features(names: Iterable[str], buyers: pd.DataFrame, seed: int) -> FittedFeatures | None:
    """Return the state of some fitted features on one snapshot of buyers; None where no name is one of them.

    A score without any part that is built is left out. The potential reads `EXPECTED_GROWTH`, a column of `buyers`.
    """
    named = set(names)
    wanted = [name for name in (*FITTED, POTENTIAL) if name in named]
    if not wanted:
        return None
    windows, typical = windows_of(feature_names(buyers)), typical_rhythm(buyers)
    needs_peers = HEADROOM in wanted or POTENTIAL in wanted
    peers = fit_peer_groups(buyers, f"net_amount_{max(windows)}d", seed) if needs_peers else None
    first = FittedFeatures((), typical, peers).added_to(buyers)
    indexes = {n: index_of_score(_BY_NAME[n], windows, feature_names(first)) for n in wanted if n in _BY_NAME}
    scores = {
        name: {"index": index.model_dump(mode="json"), **fit_points(index, first)}
        for name, index in indexes.items()
        if index is not None
    }
    return FittedFeatures(tuple(n for n in wanted if n in {SILENCE, HEADROOM, *scores}), typical, peers, scores)


def windows_of(names: Collection[str]) -> list[int]:
    """Return the window lengths of a project, in days, increasing; custom features may have windows of their own."""
    return sorted({int(found[1]) for name in names if (found := re.fullmatch(r"net_amount_(\d+)d", name))})


def headroom(peers: PeerGroups, silence: Floats, frame: pd.DataFrame) -> Floats:
    """Return how far the spend of each customer lies below that of similar ones, in currency units; 0 for the lost."""
    return np.where(silence <= LOST, peers.potential(frame), 0.0)


def _silence_sql(typical: float) -> str:
    most, one = number(MOST_DAYS), number(1.0)
    days, longest, mean = (f"LEAST(COALESCE({quoted(name)}, {one}), {most})" for name in RHYTHM_DAYS)
    own = f"LEAST(GREATEST({longest}, {number(2.0)} * GREATEST({mean}, {number(0.0)}), {one}), {most})"
    rhythm = f"CASE WHEN {days} >= {number(3.0)} THEN {own} ELSE GREATEST({number(typical)}, {own}) END"
    none = f"days_since_last < {number(1 / MOST_DAYS)}"
    return f"CASE WHEN {none} THEN {number(0.0)} ELSE days_since_last / {rhythm} END"
