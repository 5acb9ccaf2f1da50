"""The last plausible day of a log: `latest` is the day after it, whatever a few rows with wrong dates say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import pairwise
from typing import Any

from tiermodel.tables.contract import GOOD, LAST_ROWS, Contract
from tiermodel.tables.privacy import masked
from tiermodel.tables.source import FILE, ROW, Run, Source, quoted
from tiermodel.words import words

__all__ = ["Span", "early_rows", "far_off_words", "isolated_after", "may_be_isolated", "plausible_span"]

# At most LAST_ROWS rows, and 1 in 100, can be called isolated. They follow a silence of more than a month that is more
# than twice as long as any before it, or of more than two years. The clock is never read, so that only the other rows
# can show what the future is.
_SHARE, _MONTH, _TIMES, _TWO_YEARS = 100, 31, 2, 731
_FEW, _EXAMPLES = 100, 5


def may_be_isolated(last: Sequence[int], rows: int) -> bool:
    """Return whether a few rows follow a silence of over a month; `last` are the days of the last rows, descending.

    >>> may_be_isolated([400, 30, 30, 29], 1000), may_be_isolated([31, 30, 29], 1000)
    (True, False)
    """
    breaks = (n for n, (day, before) in enumerate(pairwise(last), 1) if day - before > _MONTH)
    return any(n * _SHARE <= rows for n in breaks)


def early_rows(first: Sequence[int], rows: int) -> int:
    """Return how many rows, 1 in 100 at most, come more than two years before the others, whose days `first` begins.

    >>> early_rows([0, 19000, 19001], 200), early_rows([18990, 19000], 200)
    (1, 0)
    """
    breaks = (n for n, (day, later) in enumerate(pairwise(first), 1) if later - day > _TWO_YEARS)
    return max((n for n in breaks if n * _SHARE <= rows), default=0)


def isolated_after(days: Sequence[int], rows: Sequence[int]) -> int | None:
    """Return the day after which a few isolated rows lie, None where there are none.

    `days` are the days with rows, ascending, and `rows` their numbers of rows.

    >>> isolated_after([1, 2, 4, 369], [90, 90, 90, 1]), isolated_after([1, 200, 369], [90, 90, 1])
    (4, None)
    """
    gaps = [later - day for day, later in pairwise(days)]
    most = min(LAST_ROWS, sum(rows) / _SHARE)
    found, after = None, 0
    for place in range(len(gaps), 0, -1):
        after += rows[place]
        if after > most:
            break
        usual = max(gaps[: place - 1], default=0)
        if gaps[place - 1] > min(max(_MONTH, _TIMES * usual), _TWO_YEARS):
            found = days[place - 1]
    return found


@dataclass(frozen=True)
class Span:
    """The first and the last plausible day of the transactions (days since 1970-01-01), and the rows dated after it.

    `examples` are some of these `later` rows: the file, the row, and the date as it stands there. `arrived` is the last
    plausible day on which a row arrived, where the transactions say it.
    """

    first: int
    last: int
    later: int = 0
    examples: tuple[tuple[str, int, str], ...] = ()
    arrived: int | None = None


def plausible_span(run: Run, contract: Contract, source: Source, good: dict[str, Any]) -> Span:
    """Return the span of the good transactions; they are read once more only where the last ones may be isolated."""
    first, rows = good["first"][0], f"FROM ({contract.checked}) WHERE _tm_rule = {GOOD}"
    last, later = _last_plausible(run, source, rows, "_tm_time_value", good["last"], good["rows"])
    arrived = None
    if arrivals := good.get("arrived"):
        arrived = _last_plausible(run, source, rows, "_tm_ingested_at_value", arrivals, good["rows"])[0]
    if not later:
        return Span(first, last, arrived=arrived)
    what = f"{quoted(FILE)} AS file, {quoted(ROW)} AS row, left(_tm_time::VARCHAR, 200) AS value"
    query = f"SELECT {what} {rows} AND _tm_time_value > {last} ORDER BY 1, 2 LIMIT {_EXAMPLES}"
    examples = [
        (row["file"], source.line(row["file"], row["row"]), _shown(contract, row["value"]))
        for batch in run(source, query)
        for row in batch.to_pylist()
    ]
    return Span(first, last, later, tuple(examples[:_EXAMPLES]), arrived)


def _last_plausible(
    run: Run, source: Source, rows: str, column: str, last: Sequence[int], count: int
) -> tuple[int, int]:
    """Return the last plausible day of a column of the good rows, and how many rows have later ones.

    `last` are the days of the last rows, descending.
    """
    if not may_be_isolated(last, count):
        return last[0], 0
    counts: Counter[int] = Counter()
    for batch in run(source, f"SELECT {column} AS day, count(*) AS n {rows} GROUP BY 1"):
        for found in batch.to_pylist():
            counts[found["day"]] += found["n"]
    days = sorted(counts)
    if (day := isolated_after(days, [counts[each] for each in days])) is None:
        return last[0], 0
    return day, sum(counts[each] for each in days if each > day)


def _shown(contract: Contract, value: str) -> str:
    return masked(value) if contract.hides("time", value) else value


def _apart(days: Sequence[int], rows: int) -> int:
    """Return how many of the first or last rows, half of all at most, are more than two years from the next; 0 if none.

    >>> _apart([19000, 18990, 10], 4), _apart([0, 0, 19000], 3), _apart([3, 2, 1], 3)
    (2, 0, 0)
    """
    breaks = (n for n, (day, other) in enumerate(pairwise(days), 1) if abs(day - other) > _TWO_YEARS)
    return next((n for n in breaks if n * 2 <= rows), 0)


def far_off_words(good: dict[str, Any], span: Span, language: str) -> Iterator[str]:
    """Yield warnings of a few rows far from all others: before them, and after the last plausible day."""
    say = words(language)
    first, last = good["first"], date(1970, 1, 1) + timedelta(days=span.last)
    if early := early_rows(first, good["rows"]) or _apart(first, good["rows"]):
        day, later = (date(1970, 1, 1) + timedelta(days=first[place]) for place in (0, early))
        yield say["note_early"].format(n=early, day=day, later=later)
    alone = good["rows"] < _FEW and len(good["last"]) > 1 and good["last"][0] - good["last"][1] > _MONTH
    if not span.later and (late := 1 if alone else _apart(good["last"], good["rows"])):
        days = good["last"][late - 1] - good["last"][late] - 1
        yield say["note_last_alone"].format(n=late, last=last, days=days)
    if span.later:
        places = "; ".join(say["note_place"].format(*example) for example in span.examples)
        yield say["note_far_off"].format(n=span.later, places=places, last=last)
