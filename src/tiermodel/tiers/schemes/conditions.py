"""The schema of the parts of a scheme that customers meet: conditions and vetoes."""

from __future__ import annotations

import unicodedata
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

__all__ = ["Data", "Number", "Share", "TextBound", "Veto", "When"]


def _listed(given: Any) -> Any:
    """Return one value as a list of one."""
    return [given] if isinstance(given, str) else given


def _plain_values(values: tuple[str, ...]) -> tuple[str, ...]:
    """Return values as tables have them, trimmed and in one Unicode form; `ValueError` for empty ones and repeats."""
    plain = tuple(unicodedata.normalize("NFC", value.strip()) for value in values)
    if not plain or not all(plain):
        raise ValueError("write one value or more, none of them empty; customers without a value meet `missing: true`")
    if twice := [value for value in plain if plain.count(value) > 1]:
        raise ValueError(f"{twice[0]!r} is there twice")
    return plain


Share = Annotated[float, Field(gt=0, le=1)]
Number = Annotated[float, Field(allow_inf_nan=False)]
_Values = Annotated[tuple[str, ...], BeforeValidator(_listed), AfterValidator(_plain_values)]
_BOUNDS = ("at_least", "above", "at_most", "below", "top", "bottom")
_TEXTS = ("is", "is_not")


class Data(BaseModel):
    """An immutable part of a scheme that refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, serialize_by_alias=True)


class TextBound(NamedTuple):
    """The values that a text attribute has (`is`) or does not have (`is_not`)."""

    side: Literal["is", "is_not"]
    listed: tuple[str, ...]


class When(Data):
    """A condition: a bound on one feature, as a number or as a share of customers at its top or bottom, frozen at fit.

    `feature` may name alternatives, `a | b`; the first that is built is used. An `optional` condition is left out where
    its feature is not built. A missing value does not meet the condition, unless `missing` is set. A `sharp`
    condition has no band, whatever the stability rule; a yes/no one has none by itself. A text attribute (one of
    `data.customers.categories`) has values in place of a bound: one of `is`, or a value that is none of `is_not`.
    """

    feature: str
    at_least: Number | None = None
    above: Number | None = None
    at_most: Number | None = None
    below: Number | None = None
    top: Share | None = None
    bottom: Share | None = None
    is_one_of: Annotated[_Values | None, Field(alias="is")] = None
    is_not: _Values | None = None
    missing: bool = False
    optional: bool = False
    sharp: bool = False

    @model_validator(mode="after")
    def _one_bound(self) -> When:
        given = [kind for kind in _BOUNDS if getattr(self, kind) is not None]
        given += [] if self.text is None else [self.text.side]
        if len(given) != 1 or (self.is_one_of is not None and self.is_not is not None):
            raise ValueError(f"{self.feature}: needs one of {', '.join((*_BOUNDS, *_TEXTS))}, not {given or 'none'}")
        return self

    @property
    def text(self) -> TextBound | None:
        """The values of a text attribute; None where the condition is a bound on a number."""
        if self.is_one_of is not None:
            return TextBound("is", self.is_one_of)
        return None if self.is_not is None else TextBound("is_not", self.is_not)

    @property
    def bound(self) -> tuple[str, float]:
        """The kind of the bound on a number, and the bound."""
        return next((kind, float(v)) for kind in _BOUNDS if (v := getattr(self, kind)) is not None)

    def implies(self, other: When) -> bool:
        """Return whether every customer who meets this condition meets the other one too."""
        if self.feature != other.feature or (self.missing and not other.missing):
            return False
        if self.text is not None or other.text is not None:
            return self.text is not None and other.text is not None and _is_within(self.text, other.text)
        (kind, mine), (theirs, bound) = self.bound, other.bound
        if kind == theirs:
            return mine >= bound if kind in {"at_least", "above"} else mine <= bound
        return (kind, theirs) in {("above", "at_least"), ("below", "at_most")} and (
            mine >= bound if kind == "above" else mine <= bound
        )


def _is_within(mine: TextBound, other: TextBound) -> bool:
    """Return whether every value that `mine` allows is allowed by `other`."""
    own, theirs = set(mine.listed), set(other.listed)
    if mine.side == "is":
        return own <= theirs if other.side == "is" else not own & theirs
    return other.side == "is_not" and theirs <= own  # some value is in no list, so `is_not` is never within `is`


class Veto(Data):
    """A cap: customers who meet every condition, such as bad payers, get the level `highest` at most."""

    name_zh: str
    name_en: str
    highest: str
    when: Annotated[tuple[When, ...], Field(min_length=1)]
