"""The definition of a feature: name, unit, meaning, and a formula over what is known of every customer at a date."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tiermodel.arrays import Floats
from tiermodel.config.project import FeatureGroup
from tiermodel.features.measures import measure_of
from tiermodel.features.stream import RHYTHM, Chunk, Latest, Plan, Request
from tiermodel.tables.categories import text_column

__all__ = ["Feature", "FeatureContext", "change", "columns_of", "context_from", "needs_of", "ratio"]


class FeatureContext:
    """What is known of every customer before the date, for formulas: arrays with one entry for each customer and date.

    Amounts are in currency units, times in days, `as_of` in days since 1970-01-01.
    """

    def __init__(
        self, as_of: NDArray[np.int32], rhythm: Floats, sums: Mapping[Request, Floats], latest: Mapping[Latest, Any]
    ) -> None:
        self.as_of = as_of
        self._rhythm: dict[str, Floats] = dict(zip(RHYTHM, rhythm, strict=True))
        self._sums = sums
        self._latest = latest

    def sum(self, measure: str, days: int | None = None, ago: int = 0) -> Floats:
        """Return the sum of a measure over the `days` days (None: all) that end `ago` days before the date.

        Raises `ValueError` for a span that does not lie before the date.
        """
        if ago < 0 or (days is not None and days < 1):
            raise ValueError(f"{measure}: a feature sums days before its date, not {days} days that end {ago} days ago")
        request = Request(measure, None if days is None else -(ago + days), -ago)
        return self._sums[request]

    def rhythm(self, name: str) -> Floats:
        """Return one of `RHYTHM`."""
        return self._rhythm[name]

    def latest(self, kind: str, column: str = "value") -> Floats:
        """Return a column of the latest row of a kind; NaN where there is none."""
        return self._latest[Latest(kind, column)]

    def text(self, name: str) -> Any:
        """Return a text attribute of the latest profile as an Arrow array; null where there is none."""
        return self._latest[Latest("profile", text_column(name))]

    def since(self, *kinds: str) -> Floats:
        """Return the days since the latest row of some kinds; NaN where there is none."""
        latest: Floats = np.fmax.reduce([self.latest(kind, "day") for kind in kinds])
        return self.as_of - latest

    @property
    def since_last(self) -> Floats:
        """The days since the last purchase; NaN without a purchase."""
        return self.as_of - self.rhythm("last_day")

    @property
    def since_first(self) -> Floats:
        """The days since the first purchase; NaN without a purchase."""
        return self.as_of - self.rhythm("first_day")

    @property
    def gap_mean(self) -> Floats:
        """The mean of the days between purchase days; NaN with fewer than two."""
        return ratio(self.rhythm("last_day") - self.rhythm("first_day"), self.sum("purchase_days") - 1)

    @property
    def gap_std(self) -> Floats:
        """The standard deviation of the days between purchase days; NaN with fewer than two."""
        gaps, span = self.sum("purchase_days") - 1, self.rhythm("last_day") - self.rhythm("first_day")
        # whole numbers until the root: a difference of means would cancel for customers with a regular rhythm
        return ratio(np.sqrt(gaps * self.rhythm("gap_square_sum") - span**2), gaps)


def ratio(part: Floats, whole: Floats) -> Floats:
    """Return the quotient where the divisor is positive, NaN elsewhere.

    >>> ratio(np.array([1.0, 1.0]), np.array([4.0, 0.0])).tolist()
    [0.25, nan]
    """
    share = np.full(np.shape(whole), np.nan)
    np.divide(part, whole, out=share, where=whole > 0)
    return share


def change(now: Floats, before: Floats) -> Floats:
    """Return the change between two spans from -1 (stopped) to 1 (started); NaN where both are zero."""
    return ratio(now - before, np.abs(now) + np.abs(before))


@dataclass(frozen=True, slots=True)
class Feature:
    """The definition of one feature.

    A name with `{w}` stands for a feature of every window up to `longest` days; `window` is set on those made from it.
    """

    name: str
    group: FeatureGroup | Literal["attribute", "custom"]
    unit: Literal["days", "count", "amount", "share", "ratio", "number", "text"]
    zh: str
    en: str
    formula: Callable[[FeatureContext, int], Floats]
    window: int = 0
    longest: int = 3660

    def compute(self, known: FeatureContext) -> Floats:
        """Return the feature of every customer and date; one of unit `text` as an Arrow array."""
        return self.formula(known, self.window)


class _Asked(dict[Any, Floats]):
    """A mapping that answers every key with an empty array and remembers the key."""

    def __missing__(self, question: Request | Latest) -> Floats:
        return self.setdefault(question, np.empty(0, dtype=np.float64))


def needs_of(features: Iterable[Feature]) -> tuple[tuple[Request, ...], tuple[Latest, ...]]:
    """Return the sums and latest rows that the formulas need, found by running each formula on no customers."""
    sums, latest = _Asked(), _Asked()
    known = FeatureContext(np.empty(0, dtype=np.int32), np.empty((len(RHYTHM), 0)), sums, latest)
    for feature in features:
        feature.compute(known)
    return tuple(sums), tuple(latest)


def context_from(chunk: Chunk, plan: Plan) -> FeatureContext:
    """Return the sums, rhythm and latest rows of a chunk for the formulas."""
    sums = dict(zip(plan.requests, chunk.sums, strict=True))
    return FeatureContext(chunk.as_of, chunk.rhythm, sums, dict(zip(plan.latest, chunk.latest, strict=True)))


def columns_of(feature: Feature) -> frozenset[str]:
    """Return the optional columns, kinds of events and tables that a feature needs."""
    sums, latest = needs_of([feature])
    found = {need for request in sums for need in measure_of(request.measure).needs}
    for asked in latest:
        of_kind = {"profile": (asked.column,), "signup": ("signup",), "paid": ("invoices",), "part_paid": ("invoices",)}
        found.update(of_kind.get(asked.kind, (asked.kind, "value") if asked.column == "value" else (asked.kind,)))
    return frozenset(found)
