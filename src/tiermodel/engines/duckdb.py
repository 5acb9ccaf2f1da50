"""Sort rows by customer and day with DuckDB, spilling to disk beyond the memory limit, and stream them in batches."""

from __future__ import annotations

import math
import shutil
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import date, timedelta
from itertools import chain
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from tiermodel.config.project import Project
from tiermodel.errors import DataError, OutputError, TierModelError
from tiermodel.tables.history import History, connect
from tiermodel.tables.source import literal, scratch_folder
from tiermodel.tables.table import EPOCH

__all__ = ["BATCH_ROWS", "complete_until", "query_faults", "rows_from", "sort_keys", "sorted_again", "sorted_rows"]


BATCH_ROWS = 122_880
"""The rows of a batch: DuckDB's own row group, as larger batches are not filled."""
# The result of the pass does not depend on the order within a day, but equal rows must be neighbours to be found; a
# fourth key (the order) would more than double the time of the sort.
_SORT_KEYS = ("customer_id", "day", "row_key")
# A sort that spills can need more memory than its limit (DuckDB 2.0): rows that would not fit are first cut into ranges
# of customers, or of one customer's days, that do. Both are shares of data.memory.
_FITS, _RANGE = 0.7, 0.25
_SAMPLE = 20_000


def sorted_rows(history: History, before: str) -> Iterator[pa.RecordBatch]:
    """Yield the good rows that fulfil `History.before`, sorted by customer and day, equal rows together."""
    cursor = history.connection.cursor()
    with query_faults():
        # without insertion order DuckDB returns the batches of a sorted result in any order
        cursor.execute("SET preserve_insertion_order = true")
        columns = cursor.sql(history.rows_sql).columns
        keys = ", ".join(sort_keys(columns))
        selects, number = _grouped_first(history, cursor, before)
        for rows in _in_ranges(history, cursor, f"SELECT * FROM ({selects}) WHERE {before}", 8 * len(columns) * number):
            yield from cursor.sql(f"{rows} ORDER BY {keys}").to_arrow_reader(BATCH_ROWS)


def sort_keys(columns: Collection[str]) -> list[str]:
    """Return the sort keys among the columns, in order."""
    return [key for key in _SORT_KEYS if key in columns]


def sorted_again(project: Project, batches: Iterator[pa.RecordBatch], keys: str) -> Iterator[pa.RecordBatch]:
    """Yield batches sorted by other keys, spilling to disk; the keys must be unique."""
    first = next(batches, None)
    if first is None:
        return
    schema, faults = first.schema, list[Exception]()

    def watched() -> Iterator[pa.RecordBatch]:
        try:
            yield from chain([first], batches)
        except Exception as error:  # Arrow would raise it as an OSError
            faults.append(error)
            raise

    reader = pa.RecordBatchReader.from_batches(schema, watched())
    # a connection of its own: the threads of the connection that feeds the reader must not wait for the reader
    try:
        with connect(project) as connection, query_faults():
            connection.execute("SET preserve_insertion_order = true")
            for batch in connection.from_arrow(reader).order(keys).to_arrow_reader(BATCH_ROWS):
                yield batch.cast(schema)
    except TierModelError as error:
        raise faults[0] if faults else error from None


def _grouped_first(history: History, cursor: duckdb.DuckDBPyConnection, before: str) -> tuple[str, int]:
    """Return the SQL of all rows, and how many there are at most; tables that are grouped are so once, into a file."""
    selects, number = [], 0
    for name, rows in history.selects.items():
        if name in history.grouped:
            file = scratch_folder(history.connection) / "rows.parquet"
            cursor.execute(f"COPY (SELECT * FROM ({rows}) WHERE {before}) TO {literal(str(file))} (FORMAT parquet)")
            selects.append(f"SELECT * FROM read_parquet({literal(str(file))})")
            number += pq.read_metadata(file).num_rows
        else:
            selects.append(rows)
            account = history.tables[name].account
            number += account.read - account.filtered - account.quarantined
    return " UNION ALL ".join(selects), number


def _in_ranges(history: History, cursor: duckdb.DuckDBPyConnection, rows: str, size: int) -> Iterator[str]:
    """Yield queries that select all rows between them, each a range of sort keys that sorts in memory, in order.

    `size` is that of all rows, in bytes.
    """
    memory = _memory(cursor)
    if size <= _FITS * memory:
        yield rows
        return
    parts = math.ceil(size / (_RANGE * memory))
    keys = sort_keys(cursor.sql(rows).columns)
    sample = sorted(cursor.execute(f"SELECT {', '.join(keys)} FROM ({rows}) USING SAMPLE {_SAMPLE} ROWS").fetchall())
    cuts = _cuts([sample[len(sample) * n // parts] for n in range(1, parts)] if sample else [])
    # a range has the keys below its cut; a key equal to a cut starts the next range
    part = " ".join(f"WHEN {_below(keys, cut)} THEN {n}" for n, cut in enumerate(cuts))
    which = f"CASE {part} ELSE {len(cuts)} END" if cuts else "0"
    folder = scratch_folder(history.connection)
    cursor.execute("SET preserve_insertion_order = false")
    cursor.execute(f"COPY (SELECT *, {which} AS part FROM ({rows})) TO '{folder}' (FORMAT parquet, PARTITION_BY part)")
    cursor.execute("SET preserve_insertion_order = true")
    for n in range(len(cuts) + 1):
        if (folder / f"part={n}").is_dir():
            yield f"SELECT * FROM read_parquet('{folder}/part={n}/*.parquet', hive_partitioning = false)"
            shutil.rmtree(folder / f"part={n}")


def _cuts(found: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Return sorted keys as cuts, each once: customers, and whole keys of those who are there more than once.

    >>> _cuts([("a", 1, 5), ("b", 1, 7), ("b", 2, 9), ("b", 2, 9)])
    [('a',), ('b', 1, 7), ('b', 2, 9)]
    """
    times = Counter(key[0] for key in found)
    return list(dict.fromkeys(key if times[key[0]] > 1 else key[:1] for key in found))


def _below(keys: Sequence[str], cut: tuple[Any, ...]) -> str:
    """Return the condition that a row's first keys are below a cut.

    >>> _below(["customer_id", "day"], ("b", 1))
    "(customer_id < 'b' OR (customer_id = 'b' AND day < 1))"
    """
    name, value, rest = keys[0], _sql(cut[0]), cut[1:]
    return f"({name} < {value} OR ({name} = {value} AND {_below(keys[1:], rest)}))" if rest else f"{name} < {value}"


def _memory(cursor: duckdb.DuckDBPyConnection) -> float:
    """Return the memory limit in bytes."""
    text = cursor.execute("SELECT current_setting('memory_limit')").fetchall()[0][0]
    number, unit = text.split()
    return float(number) * 1024 ** ["bytes", "KiB", "MiB", "GiB", "TiB"].index(unit)


def _sql(key: int | str) -> str:
    return str(key) if isinstance(key, int) else literal(key)


def rows_from(history: History, day: int, arrived: int | None = None) -> Counter[int]:
    """Return the number of good rows that `history.before(day, arrived)` leaves out, by the code of their kind."""
    counts: Counter[int] = Counter()
    all_known = not history.later_rows and (arrived is None or not history.arrivals)
    if len(history.tables) == 1 and all_known and day > (history.last_day - EPOCH).days:
        return counts
    kind, before = "kind" if len(history.tables) > 1 else "0", history.before(day, arrived)
    with query_faults():
        for name, rows in history.selects.items():
            query = f"SELECT {kind} AS kind, count(*) AS rows FROM ({rows}) WHERE NOT {before} GROUP BY 1"
            for batch in history.run(history.tables[name].source, query):
                for found in batch.to_pylist():
                    counts[found["kind"]] += found["rows"]
    return counts


def complete_until(history: History, date_known: date) -> date:
    """Return the first day that may lack rows at a date: the day after the last of which rows have arrived."""
    end = min(history.last_day + timedelta(1), date_known)
    if not history.arrivals:
        return end
    known = history.before((end - EPOCH).days, (date_known - EPOCH).days)
    days = [history.first_day]
    with query_faults():
        query = f"SELECT max(day) AS day FROM ({history.selects['transactions']}) WHERE {known}"
        for batch in history.run(history.tables["transactions"].source, query):
            days += [EPOCH + timedelta(day + 1) for day in batch.column("day").to_pylist() if day is not None]
    return max(days)


@contextmanager
def query_faults() -> Iterator[None]:
    """Raise DuckDB's faults as ours: `OutputError` for memory, disk and files, `DataError` for the rest."""
    try:
        yield
    except (duckdb.Error, OSError) as error:  # through an Arrow reader every fault is an OSError; its text tells which
        words = str(error).split("\n", 1)[0]
        if words.startswith(("Out of Memory Error", "IO Error")):
            raise OutputError(
                f"the transactions cannot be read and sorted within data.memory and the disk: {words}. "
                "Raise data.memory, or set TMPDIR to a folder with more free space"
            ) from error
        raise DataError(f"TM1101 the transactions cannot be read to the end: {words}") from error
