"""A customer with more rows than fit into memory: kept on disk, and summed by day before the walk.

All that the walk adds within a day are whole numbers, so days that are summed before give the same bits. Keys that
repeat, as of orders and products, are counted one column at a time.
"""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tiermodel.arrays import Flags, Floats, Ints
from tiermodel.errors import DataError
from tiermodel.features.measures import Rows, measure_of
from tiermodel.features.row_columns import UNSORTED, by_kind, counted_keys, kinds_of, measured, repeats
from tiermodel.locks import disk_faults
from tiermodel.tables.categories import is_text
from tiermodel.tables.row_kinds import KINDS

__all__ = ["DayRows", "LargeCustomer"]

_LZ4 = pa.ipc.IpcWriteOptions(compression="lz4")
_PARTS = 16  # in which the keys of one column are counted, one after the other


@dataclass(frozen=True)
class DayRows:
    """What the walk reads, a row for each row of a table, or for each day and kind of a large customer.

    `matrix` (rows, measures) holds the measures, `orders` the orders that begin, `bought` whether there is a purchase;
    `value` and `columns` (arrays, Arrow arrays of text) are those of the last of the rows.
    """

    day: NDArray[np.int32]
    kind: NDArray[np.int8]
    amount: Ints
    orders: Ints
    bought: Flags
    matrix: Ints
    value: Ints
    columns: Mapping[str, Any]

    @classmethod
    def of(cls, rows: Rows, matrix: Ints, columns: Mapping[str, Any]) -> DayRows:
        """Return rows as they are, with some of their columns."""
        orders, bought = (rows.nth_of_order == 0).astype(np.int64), rows.nth_of_day == 0
        return cls(rows.day, rows.kind, rows.amount, orders, bought, matrix, rows.value, columns)

    @classmethod
    def joined(cls, parts: Sequence[DayRows]) -> DayRows:
        """Return the rows of all parts, one after the other."""

        def of(name: str) -> Any:
            return np.concatenate([getattr(part, name) for part in parts])

        columns = {name: _concatenated([part.columns[name] for part in parts]) for name in parts[0].columns}
        names = ("day", "kind", "amount", "orders", "bought", "matrix", "value")
        return cls(**{name: of(name) for name in names}, columns=columns)

    def summed(self) -> DayRows:
        """Return one row for each day and kind: sums, and of all else the last."""
        order = np.lexsort((self.kind, self.day))  # stable: rows of one day and kind keep their order
        day, kind = self.day[order], self.kind[order]
        starts = np.flatnonzero(np.append(True, (day[1:] != day[:-1]) | (kind[1:] != kind[:-1])))
        last = order[np.append(starts[1:], len(order)) - 1]
        amount, orders = (np.add.reduceat(column[order], starts) for column in (self.amount, self.orders))
        bought = np.logical_or.reduceat(self.bought[order], starts)
        matrix = np.add.reduceat(self.matrix[order], starts, axis=0)
        columns = {name: each.take(pa.array(last) if is_text(name) else last) for name, each in self.columns.items()}
        return DayRows(day[starts], kind[starts], amount, orders, bought, matrix, self.value[last], columns)


def _concatenated(arrays: Sequence[Any]) -> Any:
    if isinstance(arrays[0], np.ndarray):
        return np.concatenate(arrays)
    return pa.concat_arrays([array.cast(pa.string()) for array in arrays])


class LargeCustomer:
    """The sorted rows of one customer, on disk without those that repeat another; `duplicates` counts these by kind."""

    def __init__(self, batches: Sequence[pa.RecordBatch]) -> None:
        """Begin with the first rows."""
        self.customers = batches[0].column("customer_id").slice(0, 1)
        self.schema = batches[0].schema
        self.rows = 0
        self.duplicates = np.zeros(len(KINDS), dtype=np.int64)
        self._folder = Path(tempfile.gettempdir())
        self._last: pa.RecordBatch | None = None
        with disk_faults(self._folder):
            self._file = tempfile.TemporaryFile()  # noqa: SIM115  # lives as long as the object
        weakref.finalize(self, self._file.close)
        self._writer: Any = pa.ipc.new_stream(self._file, self.schema, options=_LZ4)
        for batch in batches:
            self._add(batch)

    @property
    def column_names(self) -> list[str]:
        """The names of the columns."""
        return list(self.schema.names)

    def take(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Add the customer's rows, with which a sorted batch begins, and return the rest.

        Raises `DataError` where the rows are of days before, `OutputError` for a full disk.
        """
        mine = int(pc.sum(pc.equal(batch.column("customer_id"), self.customers[0])).as_py() or 0)
        if mine:
            self._add(batch.slice(0, mine))
        return batch.slice(mine)

    def _add(self, batch: pa.RecordBatch) -> None:
        before = [] if self._last is None else [self._last]
        table = pa.Table.from_batches([*before, batch]).combine_chunks()
        day = table.column("day").to_numpy()
        if np.any(day[1:] < day[:-1]):
            raise DataError(UNSORTED)
        new = np.zeros(table.num_rows, dtype=np.bool_)
        new[0] = True
        same = repeats(table, new) if "row_key" in table.column_names else np.zeros(table.num_rows, dtype=np.bool_)
        same[: len(before)] = True  # written already, and counted
        self.duplicates += by_kind(kinds_of(table)[same]) - (by_kind(kinds_of(table)[:1]) if before else 0)
        self._last = table.slice(table.num_rows - 1).to_batches()[0]
        kept = table.filter(pa.array(~same))
        with disk_faults(self._folder):
            for part in kept.to_batches():
                self._writer.write_batch(part)
                self.rows += part.num_rows

    def tables(self) -> Iterator[pa.Table]:
        """Yield the rows in order, each table in one chunk."""
        if self._writer is not None:
            with disk_faults(self._folder):
                self._writer.close()
                self._file.flush()
            self._writer = None
        self._file.seek(0)
        for batch in pa.ipc.open_stream(self._file):
            yield pa.Table.from_batches([batch])

    def to_table(self) -> pa.Table:
        """Return all rows in memory, for what needs them together: late arrivals, and the renewal of contracts."""
        return pa.concat_tables(self.tables()).combine_chunks()

    def by_day(
        self, measures: Sequence[str], end: int, latest: Sequence[str], refuse: Callable[[Floats], None]
    ) -> tuple[DayRows, Ints]:
        """Return a row for each day and kind, in order, and the rows before `end` by kind.

        `latest` are the columns of which the last value is kept; `refuse` is called with the sum of absolute values of
        each measure as far as it has come, and raises where a sum may exceed 64 bits.
        """
        parts, used = list[DayRows](), np.zeros(len(KINDS), dtype=np.int64)
        reach = np.zeros(len(measures))
        for table, nth in self._counted_tables():
            rows = measured(table, nth)
            matrix = np.empty((table.num_rows, len(measures)), dtype=np.int64)
            for column, name in enumerate(measures):
                matrix[:, column] = measure_of(name).expression(rows)
            reach += np.abs(matrix.astype(np.float64)).sum(axis=0)
            refuse(reach)
            used += by_kind(rows.kind[rows.day < end])
            kept = {name: rows.texts[name] if is_text(name) else rows.columns[name] for name in latest}
            parts.append(DayRows.of(rows, matrix, kept).summed())
        return DayRows.joined(parts).summed(), used

    def _counted_tables(self) -> Iterator[tuple[pa.Table, dict[str, NDArray[np.int32]]]]:
        """Yield the rows with the counts of earlier rows with the same key, by the names of `counted_keys`."""
        names = list(counted_keys(next(self.tables()))[0])
        with ExitStack() as files, disk_faults(self._folder):
            counts = {name: files.enter_context(tempfile.TemporaryFile()) for name in names}
            for name, file in counts.items():
                self._counts(name).tofile(file)
                file.seek(0)
            for table in self.tables():
                yield table, {name: np.fromfile(file, np.int32, table.num_rows) for name, file in counts.items()}

    def _counts(self, name: str) -> NDArray[np.int32]:
        """Return the count of earlier rows with the same key for every row; -1 where none counts."""
        key, eligible = np.empty(self.rows, dtype=np.int64), np.empty(self.rows, dtype=np.bool_)
        at = 0
        for table in self.tables():
            keys, rows = counted_keys(table)
            key[at : at + table.num_rows], eligible[at : at + table.num_rows] = keys[name], rows[name]
            at += table.num_rows
        counts: NDArray[np.int32] = _occurrences(key, eligible, _PARTS)
        return counts


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _occurrences(key: Any, eligible: Any, parts: int) -> Any:
    """Return, for every eligible row, how many earlier eligible rows have the same key; -1 for others.

    The table of keys grows with the distinct keys of a part, so that neither many rows nor many keys take much memory.
    """
    nth = np.full(len(key), -1, dtype=np.int32)
    for part in range(parts):
        size = 1 << 10
        slots, seen = np.empty(size, dtype=np.int64), np.zeros(size, dtype=np.int32)
        filled = 0
        for i in range(len(key)):
            hashed = np.uint64(key[i]) * np.uint64(0x9E3779B97F4A7C15)
            if not eligible[i] or np.int64(hashed >> np.uint64(60)) % parts != part:
                continue
            if 2 * filled >= size:
                more_slots, more_seen = np.empty(2 * size, dtype=np.int64), np.zeros(2 * size, dtype=np.int32)
                for j in range(size):
                    if seen[j] > 0:
                        again = np.uint64(slots[j]) * np.uint64(0x9E3779B97F4A7C15)
                        slot = np.int64(again >> np.uint64(30)) & (2 * size - 1)
                        while more_seen[slot] > 0:
                            slot = (slot + 1) & (2 * size - 1)
                        more_slots[slot], more_seen[slot] = slots[j], seen[j]
                slots, seen, size = more_slots, more_seen, 2 * size
            slot = np.int64(hashed >> np.uint64(30)) & (size - 1)
            while seen[slot] > 0 and slots[slot] != key[i]:
                slot = (slot + 1) & (size - 1)
            if seen[slot] == 0:
                slots[slot] = key[i]
                filled += 1
            nth[i] = seen[slot]
            seen[slot] += 1
    return nth
