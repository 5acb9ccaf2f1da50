"""The rows of sorted tables as measures read them: equal rows left out, repeated keys counted, kinds told apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numba
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tiermodel.arrays import Flags, Ints
from tiermodel.errors import DataError
from tiermodel.features.measures import UNKNOWN, Rows
from tiermodel.tables.categories import is_text
from tiermodel.tables.row_kinds import KINDS

__all__ = ["UNSORTED", "by_kind", "counted_keys", "kinds_of", "measured", "read_rows", "repeats", "rows_by_kind"]

UNSORTED = "the row stream is not sorted by customer and day: the engine broke its promise; report this bug"


def read_rows(table: pa.Table) -> tuple[pa.Array, Ints, Rows, Ints]:
    """Return the customers, each one's first row, the rows without duplicates, and the duplicates by kind.

    Raises `DataError` where the table is not sorted.
    """
    table = table.combine_chunks()
    key = table.column("customer_id").chunk(0)
    new = np.empty(len(key), dtype=np.bool_)
    new[0] = True
    new[1:] = np.asarray(pc.not_equal(key[1:], key[:-1]))
    day = _values(table, "day")
    customers = key.filter(pa.array(new))
    if np.any((day[1:] < day[:-1]) & ~new[1:]) or pc.any(pc.greater_equal(customers[:-1], customers[1:])).as_py():
        raise DataError(UNSORTED)
    duplicates = np.zeros(len(KINDS), dtype=np.int64)
    if "row_key" in table.column_names:
        same = repeats(table, new)
        if same.any():
            duplicates = by_kind(kinds_of(table)[same])
            kept = ~same
            table, new = table.filter(pa.array(kept)).combine_chunks(), new[kept]
    starts = np.append(np.flatnonzero(new), len(new)).astype(np.int64)
    columns, eligible = counted_keys(table)
    nth = {name: _occurrences(starts, key, eligible[name]) for name, key in columns.items()}
    return customers, starts, measured(table, nth), duplicates


def rows_by_kind(table: pa.Table) -> tuple[Ints, Ints]:
    """Return the numbers of rows, and of rows that repeat another, of a sorted table, by the code of their kind."""
    if not table.num_rows:
        return by_kind(np.zeros(0, dtype=np.int8)), by_kind(np.zeros(0, dtype=np.int8))
    table = table.combine_chunks()
    same = np.zeros(table.num_rows, dtype=np.bool_)
    if "row_key" in table.column_names:
        key = table.column("customer_id").chunk(0)
        same[1:] = np.asarray(pc.equal(key[1:], key[:-1]))
        same = repeats(table, ~same)
    kinds = kinds_of(table)
    return by_kind(kinds[~same]), by_kind(kinds[same])


def repeats(table: pa.Table, new: Flags) -> Flags:
    """Return which rows equal the row before: sorted by a hash of the whole row, equal rows are neighbours.

    `new` are the rows with which a customer begins.
    """
    same = ~new
    for name in ("day", "order_key", "row_key"):
        values = _values(table, name)
        same[1:] &= values[1:] == values[:-1]
    return same


def kinds_of(table: pa.Table) -> NDArray[np.int8]:
    """Return each row's kind; where the stream has no such column, all rows are transactions."""
    return _values(table, "kind") if "kind" in table.column_names else np.zeros(table.num_rows, dtype=np.int8)


def by_kind(kinds: NDArray[np.int8]) -> Ints:
    """Return the numbers of rows by the code of their kind."""
    return np.bincount(kinds, minlength=len(KINDS))


def _values(table: pa.Table, name: str) -> NDArray[Any]:
    values: NDArray[Any] = table.column(name).chunk(0).to_numpy()  # without a copy, so missing values raise
    return values


def _sales(table: pa.Table) -> tuple[Ints, Flags]:
    """Return the amount of every transaction, 0 of other rows, and which rows are purchases."""
    amount: Ints = _values(table, "amount")
    if "kind" not in table.column_names:
        return amount, amount >= 0
    sale = kinds_of(table) == 0
    return np.where(sale, amount, 0), sale & (amount >= 0)


def counted_keys(table: pa.Table) -> tuple[dict[str, Ints], dict[str, Flags]]:
    """Return the columns whose repeated values are counted, and which rows count, by the name of the counts.

    The names are those in `Rows`, and `nth_of_return` for the lines of an order that is taken back.
    """
    amount, purchase = _sales(table)
    order, day = _values(table, "order_key"), _values(table, "day").astype(np.int64)
    keys = {"nth_of_order": order, "nth_of_return": order, "nth_of_day": day}
    rows = {"nth_of_order": purchase, "nth_of_return": amount < 0, "nth_of_day": purchase}
    for name in ("product", "category", "channel"):
        if f"{name}_key" in table.column_names:
            keys[f"nth_of_{name}"] = key = _values(table, f"{name}_key")
            rows[f"nth_of_{name}"] = purchase & (key != UNKNOWN)
    return keys, rows


def measured(table: pa.Table, nth: Mapping[str, NDArray[np.int32]]) -> Rows:
    """Return the rows of a table in one chunk with the counts of repeated values, by the names of `counted_keys`."""
    texts = {name: table.column(name).chunk(0) for name in filter(is_text, table.column_names)}
    others = {"customer_id", "row_key", *texts}
    columns = {name: _values(table, name) for name in table.column_names if name not in others}
    amount, purchase = _sales(table)
    none = np.zeros(0, dtype=np.int32)
    return Rows(
        day=columns["day"],
        amount=amount,
        value=columns["amount"],
        purchase=purchase,
        first_return=nth["nth_of_return"] == 0,
        nth_of_order=nth["nth_of_order"],
        nth_of_day=nth["nth_of_day"],
        nth_of_product=nth.get("nth_of_product", none),
        nth_of_category=nth.get("nth_of_category", none),
        nth_of_channel=nth.get("nth_of_channel", none),
        kind=kinds_of(table),
        columns=columns,
        texts=texts,
    )


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _occurrences(starts: Any, key: Any, eligible: Any) -> Any:
    """Return, for every eligible row, how many earlier eligible rows of the customer have the same key; -1 for others.

    A count of distinct keys is then a sum: of the rows that are the first (0) of their key.
    """
    widest = 1
    for c in range(len(starts) - 1):
        widest = max(widest, starts[c + 1] - starts[c])
    size = 2
    while size < 2 * widest:
        size *= 2
    slots = np.empty(size, dtype=np.int64)
    owner = np.full(size, -1, dtype=np.int64)
    seen = np.empty(size, dtype=np.int32)
    nth = np.full(len(key), -1, dtype=np.int32)
    for c in range(len(starts) - 1):
        mask = 2
        while mask < 2 * (starts[c + 1] - starts[c]):
            mask *= 2
        mask -= 1
        for i in range(starts[c], starts[c + 1]):
            if not eligible[i]:
                continue
            slot = np.int64((np.uint64(key[i]) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(33)) & mask
            while owner[slot] == c and slots[slot] != key[i]:
                slot = (slot + 1) & mask
            if owner[slot] != c:
                owner[slot] = c
                slots[slot] = key[i]
                seen[slot] = 0
            nth[i] = seen[slot]
            seen[slot] += 1
    return nth
