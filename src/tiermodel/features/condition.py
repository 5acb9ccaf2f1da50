"""Say conditions on features in words, Chinese or English."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

__all__ = ["Condition", "Named", "Words", "number"]


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
        entry = features.get(self.feature)
        name = self.feature if entry is None else (entry.zh if language == "zh" else entry.en)
        above, below = ("≥", "<") if self.closed_low else (">", "≤")
        bounds = [f"{above} {number(self.low)}"] * (self.low > -math.inf) + [f"{below} {number(self.high)}"] * (
            self.high < math.inf
        )
        words = "" if self.impossible else (" 且 " if language == "zh" else " and ").join(bounds)
        if not words:
            only, anything = ("无", "任意") if language == "zh" else ("missing", "anything")
            words = only if self.missing else anything
        elif self.missing:
            words += " 或无" if language == "zh" else " or missing"
        return f"{name} {words}"


def number(value: float) -> str:
    """Print a number with every digit that counts, so that a bound is applied as it is read.

    >>> number(1234567.25), number(0.25), number(3.0)
    ('1,234,567.25', '0.25', '3')
    """
    return f"{value:,}".removesuffix(".0")
