"""Fit a scheme once, freeze it, assign levels with it: one customer as the batch, ties alike, with reasons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tiermodel.errors import DataError, ProjectError
from tiermodel.features.known import Feature
from tiermodel.features.panel import feature_names
from tiermodel.features.tree import round_readable
from tiermodel.tiers import learned, rfm, share
from tiermodel.tiers.scheme import LearnedScheme, RfmScheme, Score, ShareScheme, parse_scheme

__all__ = ["FittedScheme", "fit_scheme"]

_KINDS: Mapping[str, Any] = {"share": share, "rfm": rfm, "learned": learned}
REASONS = 3


@dataclass(frozen=True)
class FittedScheme:
    """Hold a scheme with its cut points or rules frozen; `state` is plain lists and numbers, as in JSON."""

    scheme: ShareScheme | RfmScheme | LearnedScheme
    state: dict[str, Any]

    def assign(self, frame: pd.DataFrame) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Give each row's level (0 lowest) and the index of the rule that decided, -1 where nothing was bought yet."""
        bought = frame["days_since_last"].notna().to_numpy()
        codes = self.scheme.codes
        level_of = np.array([codes.index(code) for code in self.scheme.bought_levels])
        level, rule = _KINDS[self.scheme.kind].assign(self.scheme, self.state, frame)
        return np.where(bought, level_of[level], self.scheme.no_purchase_level), np.where(bought, rule, -1)

    def reasons(self, features: Mapping[str, Feature], language: str) -> NDArray[Any]:
        """Write up to three reasons for every rule, shape (rules + 1, 3); the last row is for who never bought."""
        rows = [
            [c.text(features, language) for c in rule]
            for rule in _KINDS[self.scheme.kind].conditions(self.scheme, self.state)
        ]
        rows.append(["尚无购买" if language == "zh" else "no purchase yet"])
        # the last conditions of a path are the ones that set the customer apart from the nearest other level
        return np.array([(row[-REASONS:] + [""] * REASONS)[:REASONS] for row in rows], dtype=object)

    def rules(self, features: Mapping[str, Feature], language: str) -> list[str]:
        """Write every rule that a customer can meet as one line; learned rules with support, purity and value."""
        kind = _KINDS[self.scheme.kind]
        names = self.scheme.names(language)
        codes = self.scheme.codes
        lines = []
        for i, rule in enumerate(kind.conditions(self.scheme, self.state)):
            if any(condition.impossible for condition in rule):
                continue
            code = self.scheme.bought_levels[self._level_of_rule(i)]
            words = (" 且 " if language == "zh" else " and ").join(c.text(features, language) for c in rule)
            lines.append((codes.index(code), f"{names[codes.index(code)]} ({code}): {words}{self._facts(i, language)}"))
        return [line for _, line in sorted(lines, key=lambda pair: -pair[0])]

    def _level_of_rule(self, rule: int) -> int:
        if self.scheme.kind == "share":
            return rule
        if self.scheme.kind == "rfm":
            return int(rfm.levels_of_rules(self.scheme)[rule])
        return int(self.state["level"][rule])

    def _facts(self, rule: int, language: str) -> str:
        if self.scheme.kind != "learned":
            return ""
        fact = self.state["leaves"][rule]
        words = ("占比", "纯度", "后续价值") if language == "zh" else ("support", "purity", "value that followed")
        figures = (f"{fact['support']:.1%}", f"{fact['purity']:.0%}", f"{round_readable(fact['value_mean']):,.10g}")
        return f"  [{', '.join(f'{word} {figure}' for word, figure in zip(words, figures, strict=True))}]"

    def to_dict(self) -> dict[str, Any]:
        """Give scheme and state as plain data."""
        return {"scheme": self.scheme.model_dump(mode="json"), "state": self.state}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> FittedScheme:
        """Read what `to_dict` gave."""
        return cls(parse_scheme(data["scheme"], "bundle", (1,)), dict(data["state"]))


def fit_scheme(
    scheme: ShareScheme | RfmScheme | LearnedScheme, snapshot: pd.DataFrame, history: pd.DataFrame, seed: int
) -> FittedScheme:
    """Freeze a scheme: cut points on the latest snapshot, learned rules on past snapshots whose outcome is observed.

    Both frames are panels sorted by customer and date. Raises `ProjectError` where the scheme names a feature that is
    not there, `DataError` where the snapshot has nobody who bought.
    """
    bought = snapshot[snapshot["days_since_last"].notna()]
    if bought.empty:
        raise DataError(
            f"scheme {scheme.code}: none of {len(snapshot)} customers has bought; "
            "check that data.transactions.columns.amount is above zero for a purchase"
        )
    for score in _ranked(scheme):
        if score.feature not in feature_names(snapshot):
            raise ProjectError(
                f"scheme {scheme.code}: feature {score.feature!r} is not built; "
                f"there are {', '.join(feature_names(snapshot))}"
            )
        if bought[score.feature].isna().all():
            raise DataError(f"scheme {scheme.code}: no customer has a {score.feature!r}; rank by another feature")
    if isinstance(scheme, LearnedScheme):
        followed = history[history["days_since_last"].notna() & history["outcome_value"].notna()]
        return FittedScheme(scheme, learned.fit(scheme, followed, seed))
    return FittedScheme(scheme, _KINDS[scheme.kind].fit(scheme, bought))


def _ranked(scheme: ShareScheme | RfmScheme | LearnedScheme) -> list[ShareScheme | Score]:
    """List what names a feature to rank by."""
    if isinstance(scheme, RfmScheme):
        return [scheme.r, scheme.f, scheme.m]
    return [scheme] if isinstance(scheme, ShareScheme) else []
