"""Columns that broke on a day: stuck at one value, without values, a value that vanished, is new, or was renamed.

What is unusual is told from the column's own past: the longest run of days on which it was constant, or a value was
away, before. Changes before the model was trained are what it has learned, and are not told.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tiermodel.monitoring.columns import TableDays
from tiermodel.tables.table import EPOCH

__all__ = ["ColumnChange", "column_changes", "unknown_share"]

_TIMES, _FEWEST_DAYS, _FEWEST_ROWS = 3, 5, 20  # a run counts if it is so many times the longest before, days and rows
_USUALLY_CONSTANT = 0.5
_EXPECTED = 25.0  # rows that a value which is away should have had by its share before
_NEW_SHARE, _ALIKE, _NEAR_DAYS = 0.01, 2.0, 14
_LATELY = 28


@dataclass(frozen=True)
class ColumnChange:
    """A change of a column: `kind` is stuck, missing, vanished, new or renamed; `since` the first day of it.

    `before` and `after` are values as they may be shown (empty: none), `share` that of the rows concerned.
    """

    kind: str
    table: str
    column: str
    since: date
    before: str = ""
    after: str = ""
    share: float = 1.0


def column_changes(tables: Iterable[TableDays], as_of: date, since: date) -> list[ColumnChange]:
    """Return the columns that changed on or after a day and still are as they became, before `as_of`."""
    found = [change for table in tables for change in _changes(table, as_of)]
    return [change for change in found if change.since >= since]


def _changes(table: TableDays, as_of: date) -> Iterator[ColumnChange]:
    present = (table.days["n"] > 0).to_numpy()
    days, rows = table.days.index.to_numpy()[present], table.days["n"].to_numpy()[present]
    if len(days) <= _FEWEST_DAYS:
        return
    stuck = set()
    for column, daily in table.columns.items():
        change = _stuck(table, column, daily[present], days, rows)
        if change is not None:
            stuck.add(column)
            yield change
    for column, values in table.counted.items():
        if column not in stuck:
            yield from _renamed(list(_moved(table, column, values[present], days, (as_of - EPOCH).days)))


def _stuck(
    table: TableDays, column: str, daily: pd.DataFrame, days: NDArray[Any], rows: NDArray[Any]
) -> ColumnChange | None:
    """Return the change of a column that is constant, or without a value, on all last days; None if none is unusual."""
    known = (daily["n"] > 0).to_numpy()
    low, high = daily["low"].to_numpy(dtype=object), daily["high"].to_numpy(dtype=object)
    last = low[-1] if known[-1] else None
    if known[-1]:
        same = np.array([bool(k and a == last and b == last) for k, a, b in zip(known, low, high, strict=True)])
        constant = np.array([bool(k and a == b) for k, a, b in zip(known, low, high, strict=True)])
    else:
        same = constant = ~known
    start = _run_start(same)
    longest = _longest(constant[:start])
    length, affected = len(days) - start, int(rows[start:].sum())
    usual = float(constant[:start].mean()) if start else 1.0
    if start == 0 or usual > _USUALLY_CONSTANT or affected < _FEWEST_ROWS:
        return None
    if length < max(_FEWEST_DAYS, _TIMES * longest):
        return None
    kind, shown = ("stuck", table.shown(_plain(last, daily))) if known[-1] else ("missing", "")
    return ColumnChange(kind, table.table, column, _day(days[start]), after=shown)


def _plain(value: Any, daily: pd.DataFrame) -> str:
    """Return a value as the table has it: numbers are counted in 1/10,000."""
    return f"{value / 10_000:g}" if "sum" in daily else str(value)


def _moved(table: TableDays, column: str, values: pd.DataFrame, days: NDArray[Any], end: int) -> Iterator[ColumnChange]:
    """Yield the values of a column that vanished or are new."""
    total = values.sum(axis=1).to_numpy(dtype=np.float64)
    for value in values.columns:
        here = values[value].to_numpy(dtype=np.float64)
        seen = here > 0
        first, last = int(seen.argmax()), int(len(seen) - 1 - seen[::-1].argmax())
        share = float(here[first : last + 1].sum() / max(total[first : last + 1].sum(), 1.0))
        away, before = total[last + 1 :], int(first)
        longest = _longest(~seen[first : last + 1])
        if last - first > 4 * _LATELY and share * away.sum() >= _EXPECTED and len(away) >= _TIMES * max(longest, 2):
            yield ColumnChange("vanished", table.table, column, _day(days[last + 1]), table.shown(value), "", share)
        enough = float(here[before:].sum()) >= _FEWEST_ROWS and share >= _NEW_SHARE
        if before > 4 * _LATELY and enough and len(days) - 1 - last <= max(longest, 2) and end - days[first] <= 364:
            yield ColumnChange("new", table.table, column, _day(days[first]), "", table.shown(value), share)


def _renamed(changes: list[ColumnChange]) -> Iterator[ColumnChange]:
    """Yield the changes, a value that vanished and one that is new about then with a like share as one that is renamed.

    A new value by itself is told only where it is one in twenty rows: shops do bring out new things.
    """
    gone = [change for change in changes if change.kind == "vanished"]
    new = [change for change in changes if change.kind == "new"]
    for old in gone:
        near = [one for one in new if abs((one.since - old.since).days) <= _NEAR_DAYS]
        near = [one for one in near if 1 / _ALIKE <= one.share / old.share <= _ALIKE]
        if near:
            best = min(near, key=lambda one: (abs(np.log(one.share / old.share)), one.after))
            new.remove(best)
            since = min(old.since, best.since)
            yield ColumnChange("renamed", old.table, old.column, since, old.before, best.after, old.share)
        else:
            yield old
    yield from (one for one in new if one.share >= 5 * _NEW_SHARE)


def unknown_share(table: TableDays, column: str, learned: date, as_of: date) -> float:
    """Return the share of the rows of the last 28 days whose value no row before the training had; NaN without rows."""
    values = table.counted[column]
    ordinal = values.index.to_numpy()
    start, end = (learned - EPOCH).days, (as_of - EPOCH).days
    lately = values[(ordinal >= end - _LATELY) & (ordinal < end)].sum()
    old = values[ordinal < start].sum() > 0
    total = float(lately.sum())
    return float(lately[~old].sum()) / total if total else float("nan")


def _run_start(flags: NDArray[Any]) -> int:
    """Return where the run of true flags begins that ends with the last one (their number: there is none)."""
    others = np.flatnonzero(~flags)
    return int(others[-1]) + 1 if len(others) else 0


def _longest(flags: NDArray[Any]) -> int:
    """Return the length of the longest run of true flags."""
    edges = np.flatnonzero(np.diff(np.r_[False, flags, False]))
    return int((edges[1::2] - edges[::2]).max()) if len(edges) else 0


def _day(ordinal: int) -> date:
    return EPOCH + timedelta(int(ordinal))
