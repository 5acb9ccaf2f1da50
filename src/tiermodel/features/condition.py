"""Say conditions on features in words, Chinese or English."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from tiermodel.words import in_language, words

__all__ = ["Condition", "Named", "Words", "feature_name", "number"]


class Named(Protocol):
    """Have a name in both languages, as a feature does."""

    @property
    def zh(self) -> str:
        """Give the Chinese name."""

    @property
    def en(self) -> str:
        """Give the English name."""


class Words(NamedTuple):
    """Name what is no feature, such as the points of a composite."""

    zh: str
    en: str


@dataclass(frozen=True, slots=True)
class Condition:
    """Bound one feature: `low` < x <= `high` (`closed_low`: `low` <= x < `high`); `missing` lets no value pass too."""

    feature: str
    low: float = -math.inf
    high: float = math.inf
    missing: bool = False
    closed_low: bool = False

    @property
    def impossible(self) -> bool:
        """Tell whether no number lies within the bounds, as between two equal cut points."""
        return self.low >= self.high

    def text(self, features: Mapping[str, Named], language: str) -> str:
        """Write the condition as a person reads it."""
        wording = words(language)
        above, below = ("≥", "<") if self.closed_low else (">", "≤")
        bounds = [f"{above} {number(self.low)}"] * (self.low > -math.inf) + [f"{below} {number(self.high)}"] * (
            self.high < math.inf
        )
        within = "" if self.impossible else wording["and"].join(bounds)
        if not within:
            within = wording["value_missing" if self.missing else "value_any"]
        elif self.missing:
            within += wording["or_missing"]
        return f"{feature_name(self.feature, features, language)} {within}"


def feature_name(feature: str, features: Mapping[str, Named], language: str) -> str:
    """Return a feature's name in words; the code where `features` does not have it."""
    entry = features.get(feature)
    return feature if entry is None else in_language(language, entry.zh, entry.en)


def number(value: float) -> str:
    """Print a number with every digit that counts, so that a bound is applied as it is read.

    >>> number(1234567.25), number(0.25), number(3.0)
    ('1,234,567.25', '0.25', '3')
    """
    return f"{value:,}".removesuffix(".0")
