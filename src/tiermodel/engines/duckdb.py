"""Sort rows by customer and day with DuckDB, spilling to disk where memory ends, and stream them in batches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date

import duckdb
import pyarrow as pa

from tiermodel.errors import DataError, OutputError
from tiermodel.tables.contract import Transactions

__all__ = ["query_faults", "rows_from", "sorted_rows"]

BATCH_ROWS = 122_880  # DuckDB's own row group: larger batches are not filled
# The pass does not care for the order within a day, but equal rows must be neighbours to be found; a fourth key
# (the order) would more than double the time of the sort.
_SORT_KEYS = ("customer_id", "day", "row_key")


def sorted_rows(transactions: Transactions, before_day: int) -> Iterator[pa.RecordBatch]:
    """Stream the good rows before a day (counted from 1970-01-01), sorted by customer and day, equal rows together."""
    cursor = transactions.connection.cursor()
    with query_faults():
        # without insertion order DuckDB gives the batches of a sorted result in any order
        cursor.execute("SET preserve_insertion_order = true")
        rows = cursor.sql(transactions.rows_sql)
        keys = ", ".join(key for key in _SORT_KEYS if key in rows.columns)
        query = f"SELECT * FROM ({transactions.rows_sql}) WHERE day < {int(before_day)} ORDER BY {keys}"
        yield from cursor.sql(query).to_arrow_reader(BATCH_ROWS)


def rows_from(transactions: Transactions, day: int) -> int:
    """Count the good rows on or after a day."""
    if day > (transactions.last_day - date(1970, 1, 1)).days:
        return 0
    query = f"SELECT count(*) FROM ({transactions.rows_sql}) WHERE day >= {int(day)}"
    with query_faults():
        found = transactions.connection.cursor().execute(query).fetchone()
    return int(found[0]) if found else 0


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
