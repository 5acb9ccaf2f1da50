"""Conditions on features, and their texts in Chinese or English."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from tiermodel.words import in_language, words

__all__ = ["Condition", "Named", "Words", "feature_name", "number"]


class Named(Protocol):
    """A thing with a name in both languages, such as a feature."""

    @property
    def zh(self) -> str:
        """The Chinese name."""

    @property
    def en(self) -> str:
        """The English name."""


class Words(NamedTuple):
    """A name in both languages of a quantity that is no feature, such as the points of a composite."""

    zh: str
    en: str


@dataclass(frozen=True, slots=True)
class Condition:
    """Bounds of a feature: `low` < x <= `high` (`closed_low`: `low` <= x < `high`); `missing` lets NaN pass too.

    A text attribute has one of `values`, or none of them if `excluded`.
    """

    feature: str
    low: float = -math.inf
    high: float = math.inf
    missing: bool = False
    closed_low: bool = False
    values: tuple[str, ...] = ()
    excluded: bool = False

    @property
    def impossible(self) -> bool:
        """Whether no number lies within the bounds, as between two equal cut points."""
        return self.low >= self.high

    def _within(self, language: str) -> str:
        """Return the values or bounds as a text; empty where every value is within, or none is."""
        wording = words(language)
        if self.values:
            joined = wording["comma" if self.excluded else "value_or"].join(self.values)
            return wording["value_is_not" if self.excluded else "value_is"].format(values=joined)
        above, below = ("≥", "<") if self.closed_low else (">", "≤")
        bounds = [f"{above} {number(self.low)}"] * (self.low > -math.inf)
        bounds += [f"{below} {number(self.high)}"] * (self.high < math.inf)
        return "" if self.impossible else wording["and"].join(bounds)

    def text(self, features: Mapping[str, Named], language: str) -> str:
        """Return the condition as a text."""
        wording = words(language)
        within = self._within(language)
        if not within:
            within = wording["value_missing" if self.missing else "value_known"]
        elif self.missing:
            within += wording["or_missing"]
        return f"{feature_name(self.feature, features, language)} {within}"


def feature_name(feature: str, features: Mapping[str, Named], language: str) -> str:
    """Return a feature's name in a language; its code where `features` does not have it."""
    entry = features.get(feature)
    return feature if entry is None else in_language(language, entry.zh, entry.en)


def number(value: float) -> str:
    """Return a number as text with all its significant digits, so that a bound is shown exactly.

    >>> number(1234567.25), number(0.25), number(3.0)
    ('1,234,567.25', '0.25', '3')
    """
    return f"{value:,}".removesuffix(".0")
