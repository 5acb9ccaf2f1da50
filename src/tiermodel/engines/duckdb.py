"""Sort rows by customer and day with DuckDB, spilling to disk where memory ends, and stream them in batches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import duckdb
import pyarrow as pa

from tiermodel.errors import DataError, OutputError
from tiermodel.tables.history import EPOCH, History

__all__ = ["query_faults", "rows_from", "sorted_rows"]

BATCH_ROWS = 122_880  # DuckDB's own row group: larger batches are not filled
# The pass does not care for the order within a day, but equal rows must be neighbours to be found; a fourth key
# (the order) would more than double the time of the sort.
_SORT_KEYS = ("customer_id", "day", "row_key")


def sorted_rows(history: History, before_day: int) -> Iterator[pa.RecordBatch]:
    """Stream the good rows before a day (counted from 1970-01-01), sorted by customer and day, equal rows together."""
    cursor = history.connection.cursor()
    with query_faults():
        # without insertion order DuckDB gives the batches of a sorted result in any order
        cursor.execute("SET preserve_insertion_order = true")
        rows = cursor.sql(history.rows_sql)
        keys = ", ".join(key for key in _SORT_KEYS if key in rows.columns)
        query = f"SELECT * FROM ({history.rows_sql}) WHERE day < {int(before_day)} ORDER BY {keys}"
        yield from cursor.sql(query).to_arrow_reader(BATCH_ROWS)


def rows_from(history: History, day: int) -> dict[int, int]:
    """Count the good rows on or after a day, by the code of their kind."""
    if len(history.tables) == 1 and day > (history.last_day - EPOCH).days:
        return {}
    kind = "kind" if len(history.tables) > 1 else "0"
    query = f"SELECT {kind}, count(*) FROM ({history.rows_sql}) WHERE day >= {int(day)} GROUP BY 1"
    with query_faults():
        return dict(history.connection.cursor().execute(query).fetchall())


@contextmanager
def query_faults() -> Iterator[None]:
    """Turn DuckDB's faults into ours: OutputError for memory, disk and files, DataError for the rest."""
    try:
        yield
    except (duckdb.Error, OSError) as error:  # through an Arrow reader every fault is an OSError; its text says which
        words = str(error).split("\n", 1)[0]
        if words.startswith(("Out of Memory Error", "IO Error")):
            raise OutputError(
                f"the transactions cannot be read and sorted within data.memory and the disk: {words}. "
                "Raise data.memory, or set TMPDIR to a folder with more free space"
            ) from error
        raise DataError(f"TM1101 the transactions cannot be read to the end: {words}") from error
