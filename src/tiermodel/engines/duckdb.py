"""Sort rows by customer and day with DuckDB, spilling to disk where memory ends, and stream them in batches."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

import pyarrow as pa

from tiermodel.tables.contract import Transactions

__all__ = ["rows_from", "sorted_rows"]

BATCH_ROWS = 122_880  # DuckDB's own row group: larger batches are not filled
# The pass does not care for the order within a day, but equal rows must be neighbours to be found; a fourth key
# (the order) would more than double the time of the sort.
_SORT_KEYS = ("customer_id", "day", "row_key")


def sorted_rows(transactions: Transactions, before_day: int) -> Iterator[pa.RecordBatch]:
    """Stream the good rows before a day (counted from 1970-01-01), sorted by customer and day, equal rows together."""
    cursor = transactions.connection.cursor()
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
    found = transactions.connection.cursor().execute(query).fetchone()
    return int(found[0]) if found else 0
