"""The last plausible day of a log: `latest` is the day after it, whatever a few rows with wrong dates say."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

__all__ = ["LAST_ROWS", "early_rows", "isolated_after", "may_be_isolated"]

# At most this many rows, and 1 in 100, can be called isolated. They follow a silence of more than a month that is more
# than twice as long as any before it, or of more than two years. The clock is never read, so that only the other rows
# can show what the future is.
LAST_ROWS = 100
_SHARE, _MONTH, _TIMES, _TWO_YEARS = 100, 31, 2, 731


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
