"""The compiled pass: one walk over every customer's rows notes sums and rhythm as known at any number of dates.

It turns customer-sorted Arrow batches into snapshots; an engine only has to sort and stream. All that is summed within
a day is a whole number, so neither batch size nor the order of a day's rows can change a bit of the result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tiermodel.arrays import Floats, Ints
from tiermodel.errors import DataError
from tiermodel.features.large_customer import DayRows, LargeCustomer
from tiermodel.features.measures import MONEY, UNKNOWN, measure_of
from tiermodel.features.row_columns import by_kind, read_rows
from tiermodel.tables.categories import is_text
from tiermodel.tables.row_kinds import KINDS

__all__ = ["RHYTHM", "Chunk", "Latest", "Plan", "Request", "walk", "whole_customers"]


RHYTHM = (
    "first_day", "last_day", "gap_last", "gap_max", "gap_square_sum", "amount_last_day", "amount_peak_day",
    "amount_peak_block", "active_blocks", "orders_decayed_30d", "orders_decayed_90d", "amount_decayed_90d",
    "amount_first_day", "first_seen",
)  # fmt: skip
"""The state of a customer at a date besides sums: days since 1970-01-01 of the first and last purchase; the last
and the largest gap between purchase days, and the sum of squared gaps; the net amount of the last and of the best
purchase day, and of the best 30-day block since the first purchase (among blocks with a row); the number of blocks
with a purchase; sums that halve every 30 (90) days; the net amount of the first purchase day; the day of the first
row of any kind. Days and amounts of purchases are NaN before the first purchase, gaps before the second; counts and
sums are 0."""

NEVER = np.iinfo(np.int32).min
"""A day that is not known, and a start before every row."""
_LARGEST_SUM = 9.0e18
LARGE_ROWS = 500_000
"""The rows of one customer above which they are kept on disk: some 150 MB, with all that is made of them."""


@dataclass(frozen=True, slots=True)
class Request:
    """A sum of a measure over the days [as_of + start, as_of + end); no start means from the first row on."""

    measure: str
    start: int | None
    end: int


@dataclass(frozen=True, slots=True)
class Latest:
    """A column of the latest row of a kind: `day`, `value`, or a column that only the table of that kind has."""

    kind: str
    column: str


@dataclass(frozen=True)
class Plan:
    """The request for a walk: at which dates (days since 1970-01-01, ascending), which sums and which latest rows."""

    as_of: tuple[int, ...]
    requests: tuple[Request, ...]
    latest: tuple[Latest, ...] = ()

    @property
    def measures(self) -> tuple[str, ...]:
        """The measures that are asked for, each once."""
        return tuple(dict.fromkeys(request.measure for request in self.requests))

    @property
    def end(self) -> int:
        """The first day that no date and no request looks at."""
        return max(self.as_of) + max(0, *(r.end for r in self.requests))

    def boundaries(self) -> tuple[NDArray[np.int32], Ints, Ints, Ints]:
        """Return the days at which running sums are noted, and the positions among them of dates, starts and ends.

        Dates have shape (dates,), starts and ends of the requests (requests, dates).
        """
        shape = len(self.requests), len(self.as_of)
        opened = np.array([[NEVER if r.start is None else day + r.start for day in self.as_of] for r in self.requests])
        closed = np.array([[day + r.end for day in self.as_of] for r in self.requests])
        days = np.unique(np.concatenate([[NEVER], self.as_of, opened.ravel(), closed.ravel()])).astype(np.int32)
        at, *index = (np.searchsorted(days, x) for x in (self.as_of, opened, closed))
        return days, at, index[0].reshape(shape), index[1].reshape(shape)


@dataclass(frozen=True)
class Chunk:
    """Results of a walk over whole customers: one row for each customer and date at which the customer was known.

    `sums` (requests, rows) and `rhythm` (`RHYTHM`, rows) are float64, amounts in currency units. `latest` has an array
    for each column asked for: float64 (NaN: none), or text as an Arrow array (null: none). `customer` holds positions
    in `customers`, `as_of` days since 1970-01-01. The rows used and the duplicates are counted by kind.
    """

    customers: pa.Array
    customer: Ints
    as_of: NDArray[np.int32]
    sums: Floats
    latest: list[Any]
    rhythm: Floats
    rows_used: Ints
    rows_duplicate: Ints


def whole_customers(
    batches: Iterable[pa.RecordBatch], large_rows: int | None = None
) -> Iterator[pa.Table | LargeCustomer]:
    """Yield sorted batches as tables that never split a customer: a batch's last customer waits for the next batch.

    A customer of whom more than `large_rows` rows wait (by default `LARGE_ROWS`) is kept on disk instead.
    """
    most = LARGE_ROWS if large_rows is None else large_rows
    held: list[pa.RecordBatch] = []
    large: LargeCustomer | None = None
    for read in batches:
        batch = read if large is None else large.take(read)
        if batch.num_rows == 0:
            continue
        key = batch.column("customer_id")
        if large is not None:
            yield large
            large = None
        elif held and held[-1].column("customer_id")[-1] != key[0]:
            yield pa.Table.from_batches(held)
            held = []
        others = np.flatnonzero(np.asarray(pc.not_equal(key, key[-1])))
        start = int(others[-1]) + 1 if others.size else 0  # where the batch's last customer begins
        if start > 0:
            yield pa.Table.from_batches([*held, batch.slice(0, start)])
            held = []
        held.append(batch.slice(start))
        if sum(rows.num_rows for rows in held) > most:
            large, held = LargeCustomer(held), []
    if large is not None:
        yield large
    if held:
        yield pa.Table.from_batches(held)


def walk(
    table: pa.Table | LargeCustomer, plan: Plan, named: Callable[[pa.Array], pa.Array] = lambda customers: customers
) -> Chunk:
    """Return every sum of the plan and the rhythm, for every customer and date with an earlier row of the customer.

    `table` has whole customers only. Raises `DataError` where amounts could add up beyond 64 bits; `named` turns the
    customer's id into the one that the message shows.
    """
    customers, starts, rows, used, duplicates = _day_rows(table, plan, named)
    days, at, opened, closed = plan.boundaries()
    as_of = np.array(plan.as_of, dtype=np.int32)
    seen = np.minimum.reduceat(np.where(rows.day == NEVER, np.iinfo(np.int32).max, rows.day), starts[:-1])
    known = len(as_of) - np.searchsorted(as_of, seen, side="right")
    offsets = np.append(0, np.cumsum(known)).astype(np.int64)
    which = np.array([plan.measures.index(r.measure) for r in plan.requests], dtype=np.int64)
    scale = np.array([MONEY if measure_of(r.measure).unit == "amount" else 1 for r in plan.requests], dtype=np.float64)
    kinds = tuple(dict.fromkeys(asked.kind for asked in plan.latest))
    slot = np.full(len(KINDS), -1, dtype=np.int64)
    slot[[KINDS[kind] for kind in kinds]] = range(len(kinds))
    sums = np.empty((len(plan.requests), offsets[-1]))
    rhythm = np.empty((len(RHYTHM), offsets[-1]), dtype=np.float64)
    row = np.empty((len(kinds), offsets[-1]), dtype=np.int64)
    history = (starts, seen, rows.day, rows.amount, rows.orders, rows.bought, rows.kind, rows.matrix)
    _walk(history, (days, at, opened, closed, which, scale, slot), offsets, (sums, rhythm, row))
    customer = np.repeat(np.arange(len(customers)), known)
    dates = as_of[np.arange(offsets[-1]) - np.repeat(offsets[1:], known) + len(as_of)]
    latest = [_found(rows, asked.column, row[kinds.index(asked.kind)]) for asked in plan.latest]
    return Chunk(customers, customer, dates, sums, latest, rhythm, used, duplicates)


def _day_rows(
    table: pa.Table | LargeCustomer, plan: Plan, named: Callable[[pa.Array], pa.Array]
) -> tuple[pa.Array, Ints, DayRows, Ints, Ints]:
    """Return the customers, each one's first row, the rows, and the rows used and left out as repeats, by kind."""
    if isinstance(table, LargeCustomer):
        columns = [asked.column for asked in plan.latest if asked.column != "value"]
        rows, used = table.by_day(plan.measures, plan.end, columns, lambda sums: _refuse(sums, table.customers, named))
        return table.customers, np.array([0, len(rows.day)]), rows, used, table.duplicates
    customers, starts, found, duplicates = read_rows(table)
    matrix = np.empty((len(found.day), len(plan.measures)), dtype=np.int64)
    for column, name in enumerate(plan.measures):
        matrix[:, column] = measure_of(name).expression(found)
    _refuse_overflow(matrix, starts, customers, named)
    rows = DayRows.of(found, matrix, {**found.columns, **found.texts})
    return customers, starts, rows, by_kind(found.kind[found.day < plan.end]), duplicates


def _found(rows: DayRows, column: str, row: Ints) -> Any:
    """Return a column at some rows (-1: none), NaN where unknown; days as they are, all else in currency units.

    A column of text is returned as an Arrow array, null where unknown.
    """
    values = rows.value if column == "value" else rows.columns[column]
    if is_text(column):
        return values.take(pa.array(row, mask=row < 0)).cast(pa.string())
    is_day = values.dtype == np.int32
    unknown = (row < 0) | (values[row] == (NEVER if is_day else UNKNOWN))
    return np.where(unknown, np.nan, values[row] / (1 if is_day else MONEY))


def _refuse_overflow(matrix: Ints, starts: Ints, customers: pa.Array, named: Callable[[pa.Array], pa.Array]) -> None:
    largest = max(abs(int(matrix.max(initial=0))), abs(int(matrix.min(initial=0))))
    if largest * int(np.diff(starts).max()) < _LARGEST_SUM:
        return
    reach = np.add.reduceat(np.abs(matrix.astype(np.float64)), starts[:-1], axis=0).max(axis=1)
    worst = int(reach.argmax())
    _refuse(reach[worst : worst + 1], customers[worst : worst + 1], named)


def _refuse(reach: Floats, customer: pa.Array, named: Callable[[pa.Array], pa.Array]) -> None:
    """Raise `DataError` where a customer's sums of absolute values may exceed 64 bits."""
    largest = float(reach.max(initial=0.0))
    if largest >= _LARGEST_SUM:
        raise DataError(
            f"TM2044 customer {named(customer)[0].as_py()!r}: amounts add up to {largest / MONEY:.3g}, more than 64 "
            "bits hold; check the amount expression, or give amounts in a larger unit"
        )


@numba.njit(nogil=True, cache=True)
def _walk(history, plan, offsets, found):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, C901, PLR0912, PLR0915
    """Fill sums, rhythm and latest rows, customer by customer and day by day.

    Within a day only whole numbers are added, so the order of the day's rows is irrelevant to the last bit.
    """
    starts, seen, day, amount, orders, bought_on, kind, matrix = history
    days, at, opened, closed, which, scale, slot = plan
    sums, rhythm, latest = found
    n_measures, n_dates, n_kinds = matrix.shape[1], len(at), len(latest)
    last_row = np.empty(n_kinds, dtype=np.int64)
    noted = np.empty((n_measures, len(days)), dtype=np.int64)
    total = np.empty(n_measures, dtype=np.int64)
    rate_30, rate_90 = -math.log(2.0) / 30.0, -math.log(2.0) / 90.0
    for c in range(len(starts) - 1):
        row, end = starts[c], starts[c + 1]
        date0 = offsets[c + 1] - n_dates  # the customer's row of date 0; dates before the first row have none
        total[:] = 0
        last_row[:] = -1
        bought = False
        first = last = fold = day[row]
        gap = gap_max = gap_squares = first_amount = last_amount = peak_day = 0
        block = block_amount = peak_block = active = 0
        active_block = -1
        block_seen = False
        orders_30 = orders_90 = amount_90 = 0.0
        date = 0
        for b in range(len(days)):
            while row < end and day[row] < days[b]:
                today = day[row]
                day_amount = day_orders = 0
                traded = purchased = False
                while row < end and day[row] == today:
                    for m in range(n_measures):
                        total[m] += matrix[row, m]
                    day_amount += amount[row]
                    day_orders += orders[row]
                    if kind[row] == 0:
                        traded = True
                    if bought_on[row]:
                        purchased = True
                    if slot[kind[row]] >= 0:
                        last_row[slot[kind[row]]] = row
                    row += 1
                if purchased:
                    if bought:
                        gap = today - last
                        gap_max = max(gap_max, gap)
                        gap_squares += gap * gap
                        peak_day = max(peak_day, day_amount)
                    else:
                        first, bought, peak_day, first_amount = today, True, day_amount, day_amount
                    last, last_amount = today, day_amount
                if not traded:
                    continue
                if bought:
                    if (today - first) // 30 != block:
                        peak_block = max(peak_block, block_amount) if block_seen else block_amount
                        block, block_amount, block_seen = (today - first) // 30, 0, True
                    block_amount += day_amount
                    if purchased and active_block != block:
                        active_block = block
                        active += 1
                orders_30 = orders_30 * math.exp(rate_30 * (today - fold)) + day_orders
                orders_90 = orders_90 * math.exp(rate_90 * (today - fold)) + day_orders
                amount_90 = amount_90 * math.exp(rate_90 * (today - fold)) + day_amount
                fold = today
            for m in range(n_measures):
                noted[m, b] = total[m]
            if date < n_dates and at[date] == b:
                r = date0 + date
                if r >= offsets[c]:
                    since = days[b] - fold
                    rhythm[0, r] = first if bought else np.nan
                    rhythm[1, r] = last if bought else np.nan
                    rhythm[2, r] = gap if gap_max > 0 else np.nan
                    rhythm[3, r] = gap_max if gap_max > 0 else np.nan
                    rhythm[4, r] = gap_squares
                    rhythm[5, r] = last_amount / MONEY if bought else np.nan
                    rhythm[6, r] = peak_day / MONEY if bought else np.nan
                    best = max(peak_block, block_amount) if block_seen else block_amount
                    rhythm[7, r] = best / MONEY if bought else np.nan
                    rhythm[8, r] = active
                    rhythm[9, r] = orders_30 * math.exp(rate_30 * since)
                    rhythm[10, r] = orders_90 * math.exp(rate_90 * since)
                    rhythm[11, r] = amount_90 * math.exp(rate_90 * since) / MONEY
                    rhythm[12, r] = first_amount / MONEY if bought else np.nan
                    rhythm[13, r] = seen[c]
                    for k in range(n_kinds):
                        latest[k, r] = last_row[k]
                date += 1
        for k in range(len(which)):
            m = which[k]
            for date in range(offsets[c] - date0, n_dates):
                sums[k, date0 + date] = (noted[m, closed[k, date]] - noted[m, opened[k, date]]) / scale[k]
