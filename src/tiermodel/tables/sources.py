"""Say what a source is: a DuckDB view of a table's rows as they were found, and where each of them stands."""

from __future__ import annotations

import glob
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from tiermodel.errors import DataError
from tiermodel.tables.csv_text import Layout, Rejected

__all__ = [
    "FILE",
    "ROW",
    "Part",
    "Run",
    "Source",
    "check_names",
    "exactly",
    "from_batches",
    "literal",
    "quoted",
    "run_here",
    "scratch_folder",
]

FILE, ROW = "_file", "_row"
_BATCH = 10_000


@dataclass(frozen=True)
class Part:
    """Name a Parquet file with rows of a view, and how they are selected from it, so that a part can be read alone."""

    path: str
    columns: str
    options: str = ""

    def rows(self, first: int = 0, last: int = 1 << 62) -> str:
        """Return the SELECT of the rows from number `first` to `last` of the file, from 0, as the view gives them."""
        scan = f"read_parquet({exactly(self.path)}, file_row_number = true{self.options})"
        return f"SELECT {self.columns} FROM {scan} WHERE file_row_number BETWEEN {first} AND {last}"


@dataclass(frozen=True)
class Source:
    """Name the view of a table's source rows, its columns with their DuckDB types, and the files behind it.

    The view also has `_file` and `_row` (number of the record in its file, from 1). For CSV, `rejected` tells which
    records have no place in the view, and `line` turns a record's number into a line of the file. `parts` are the files
    that the view reads, sorted by name; `beside` are other views that SQL over this one may use.
    """

    view: str
    columns: dict[str, str]
    files: tuple[str, ...]
    is_text: bool = False
    rejected: tuple[Rejected, ...] = ()
    warnings: tuple[str, ...] = ()
    layouts: dict[str, Layout] = field(default_factory=dict)
    parts: tuple[Part, ...] = ()
    beside: dict[str, Part] = field(default_factory=dict)

    def line(self, file: str, row: int) -> int:
        """Return the line of a CSV record, or the row number of a Parquet row, both from 1."""
        layout = self.layouts.get(file)
        return layout.line(row) if layout else row


Run: TypeAlias = Callable[[Source, str], Iterator[pa.RecordBatch]]
"""Run a query over the view of a source: once, or over one part of its rows after the other, in the order of `parts`.
A query is therefore one whose results for parts can be put together."""


def run_here(connection: duckdb.DuckDBPyConnection) -> Run:
    """Run queries once, over all rows, in this process."""

    def run(_: Source, sql: str) -> Iterator[pa.RecordBatch]:
        cursor = connection.cursor()
        # without insertion order DuckDB gives the batches of a sorted result in any order
        cursor.execute("SET preserve_insertion_order = true")
        yield from cursor.sql(sql).to_arrow_reader(_BATCH)

    return run


def quoted(name: str) -> str:
    """Return an SQL identifier.

    >>> quoted('5" pipe')
    '"5"" pipe"'
    """
    return '"' + name.replace('"', '""') + '"'


def literal(value: str) -> str:
    """Return an SQL string literal.

    >>> literal("it's")
    "'it''s'"
    """
    return "'" + value.replace("'", "''") + "'"


def exactly(file: str) -> str:
    """Return the SQL literal of one file: DuckDB takes a name for a glob."""
    return literal(glob.escape(file))


def scratch_folder(connection: duckdb.DuckDBPyConnection) -> Path:
    """Make a private folder that is removed with the connection."""
    folder = tempfile.mkdtemp(prefix="tiermodel-")
    weakref.finalize(connection, shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def check_names(what: str, names: Iterable[object]) -> None:
    """Refuse columns without a name of their own."""
    seen: set[str] = set()
    for place, name in enumerate(names, 1):
        if not isinstance(name, str) or not name.strip():
            raise DataError(f"TM1306 {what}: column {place} has no name of text: {name!r}. Name every column once.")
        if name.casefold() in seen:
            raise DataError(f"TM1306 {what}: two columns are named {name!r}. Name every column once.")
        if name.casefold() in {FILE, ROW}:
            raise DataError(f"TM1306 {what}: rename column {name!r}: the name is reserved")
        seen.add(name.casefold())


def from_batches(
    connection: duckdb.DuckDBPyConnection, view: str, what: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch]
) -> Source:
    """Copy streamed rows to a scratch file, in constant memory, and view it; `what` names them in messages."""
    check_names(what, schema.names)
    copy = scratch_folder(connection) / "rows.parquet"
    with pq.ParquetWriter(copy, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return from_copy(connection, view, what, copy)


def from_copy(connection: duckdb.DuckDBPyConnection, view: str, what: str, copy: Path) -> Source:
    """Make a view of a scratch file of rows in their order."""
    connection.execute(
        f"CREATE OR REPLACE VIEW {view} AS SELECT * EXCLUDE (file_row_number), {literal(what)} AS {FILE}, "
        f"file_row_number + 1 AS {ROW} FROM read_parquet({literal(str(copy))}, file_row_number = true)"
    )
    described = connection.execute(f"DESCRIBE {view}").fetchall()
    columns = {name: kind for name, kind, *_ in described if name not in {FILE, ROW}}
    selected = [*map(quoted, columns), f"{literal(what)} AS {FILE}", f"file_row_number + 1 AS {ROW}"]
    return Source(view, columns, (what,), parts=(Part(str(copy), ", ".join(selected)),))
