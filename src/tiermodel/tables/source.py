"""A source: a DuckDB view of a table's rows as they were found, and the place of each row."""

from __future__ import annotations

import glob
import weakref
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from tiermodel.errors import DataError, ProjectError
from tiermodel.tables.scratch import new_folder, remove_folder

__all__ = [
    "FILE", "ROW", "WHOLE_ROW", "Layout", "Part", "Rejected", "Run", "Source", "check_names", "exactly", "from_batches",
    "from_copy", "literal", "quoted", "refuse_changed", "refuse_outputs", "run_here", "scratch_folder", "stamp",
]  # fmt: skip

FILE, ROW, WHOLE_ROW = "_file", "_row", "_tm_whole_row"
_BATCH = 10_000
NO_EXTENSIONS: Mapping[str, str] = dict.fromkeys(
    ("autoinstall_known_extensions", "autoload_known_extensions", "allow_community_extensions"), "false"
)
"""Settings of a new DuckDB under which a project file cannot make it fetch or load code."""


@dataclass(frozen=True)
class Part:
    """A Parquet file with rows of a view and the SQL that selects them, so that a part can be read alone."""

    path: str
    columns: str
    options: str = ""

    def rows(self, first: int = 0, last: int = 1 << 62) -> str:
        """Return the SELECT of the rows from number `first` to `last` of the file, counted from 0, as in the view."""
        scan = f"read_parquet({exactly(self.path)}, file_row_number = true{self.options})"
        return f"SELECT {self.columns} FROM {scan} WHERE file_row_number BETWEEN {first} AND {last}"


@dataclass(frozen=True)
class Rejected:
    """A record that is not a row: the line where it starts, the rule it breaks, and its first 200 characters."""

    file: str
    line: int
    rule: str
    text: str


@dataclass(frozen=True)
class Layout:
    """The lines of a file's records: from record number `rows[i]` on, line = number + `shifts[i]`."""

    rows: tuple[int, ...]
    shifts: tuple[int, ...]

    @classmethod
    def of(cls, header_lines: int, skipped: Iterable[int], many_lined: Iterable[tuple[int, int]] = ()) -> Layout:
        """Return the layout of a file with skipped lines (ascending) and records of many lines (number, further lines).

        >>> Layout.of(1, [3], [(2, 1)]).line(3)  # line 1 header, 2 record, 3 blank, 4-5 record, 6 record
        6
        """
        rows, shifts = [1], [header_lines]
        pending = list(reversed(list(skipped)))
        for row, further in (*many_lined, (1 << 62, 0)):
            while pending and pending[-1] - shifts[-1] <= row:
                rows.append(pending.pop() - shifts[-1])
                shifts.append(shifts[-1] + 1)
            while pending and pending[-1] <= row + shifts[-1] + further:
                pending.pop()
            rows.append(row + 1)
            shifts.append(shifts[-1] + further)
        return cls(tuple(rows), tuple(shifts))

    def line(self, row: int) -> int:
        """Return the line on which a record starts, both counted from 1."""
        return row + self.shifts[bisect_right(self.rows, row) - 1]


Stamp: TypeAlias = tuple[int, int, int, int]
"""Number, size and times of a file: other where it was written or replaced, by one of equal length too."""


def stamp(file: str) -> Stamp:
    """Return the stamp of a file; zeros where it is gone."""
    try:
        found = Path(file).stat()
    except OSError:
        return 0, 0, 0, 0
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def refuse_changed(seen: dict[str, Stamp]) -> None:
    """Raise DataError for a file that is no longer what it was when it was first read."""
    for file, before in seen.items():
        if stamp(file) != before:
            raise DataError(
                f"TM1014 {file} changed while it was read: nothing is written; run again when nobody writes it"
            )


def refuse_outputs(sources: Iterable[Source], *outputs: Path | None) -> None:
    """Raise ProjectError for an output that would replace an input."""
    for file in (file for source in sources for file in source.origins):
        for output in outputs:
            if output is not None and output.exists() and Path(file).exists() and output.samefile(file):
                raise ProjectError(f"{output} is one of the inputs, which no output replaces: give another name")


@dataclass(frozen=True)
class Source:
    """The view of a table's source rows, its columns with their DuckDB types, and the files behind it.

    The view also has `_file` and `_row` (number of the record in its file, from 1). For CSV, `rejected` has the
    records that are not in the view. `layouts` has the lines of the records by file, where numbers and lines differ.
    `parts` are the files that the view reads, sorted by name; `beside` are other views that SQL over this one may use.
    The view of a very wide CSV has `WHOLE_ROW`, a hash of all columns, and of these only those that the project names;
    the view `head` has all columns of its first rows (None: the view itself has all columns).
    `origins` are the user's own files behind it all; `seen` has the stamps of those that are read more than once.
    """

    view: str
    columns: dict[str, str]
    files: tuple[str, ...]
    rejected: tuple[Rejected, ...] = ()
    warnings: tuple[str, ...] = ()
    layouts: dict[str, Layout] = field(default_factory=dict)
    parts: tuple[Part, ...] = ()
    beside: dict[str, Part] = field(default_factory=dict)
    origins: tuple[str, ...] = ()
    seen: dict[str, Stamp] = field(default_factory=dict)
    head: str | None = None

    @property
    def row_key(self) -> str:
        """The SQL of a hash of all columns of a row."""
        return WHOLE_ROW if self.head else f"hash({', '.join(map(quoted, self.columns))})"

    def line(self, file: str, row: int) -> int:
        """Return the line of a CSV record, the row of a sheet, or the number of any other row, all from 1."""
        layout = self.layouts.get(file)
        return layout.line(row) if layout else row


Run: TypeAlias = Callable[[Source, str], Iterator[pa.RecordBatch]]
"""A function that runs a query over the view of a source: once, or over one part of its rows after the other, in the
order of `parts`. The query must therefore be one whose results for parts can be merged."""


def run_here(connection: duckdb.DuckDBPyConnection) -> Run:
    """Return a function that runs queries once, over all rows, in this process."""

    def run(_: Source, sql: str) -> Iterator[pa.RecordBatch]:
        cursor = connection.cursor()
        # without insertion order DuckDB returns the batches of a sorted result in any order
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
    """Return a new private folder, which is removed with the connection."""
    folder = new_folder()
    weakref.finalize(connection, remove_folder, folder)
    return folder


def check_names(what: str, names: Iterable[object]) -> None:
    """Raise DataError for a column without a name, with the name of another, or with a reserved one."""
    seen: set[str] = set()
    names = list(names)
    if not names:
        raise DataError(f"TM1306 {what}: there is no column. Give a table with a name for every column.")
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
    """Return a view of streamed rows, copied to a scratch file in constant memory; `what` names them in messages."""
    check_names(what, schema.names)
    copy = scratch_folder(connection) / "rows.parquet"
    try:
        with pq.ParquetWriter(copy, schema) as writer:
            for batch in batches:
                writer.write_batch(batch)
    except pa.ArrowException as error:
        words = str(error).splitlines()[0]
        columns = [field.name for field in schema if str(field.type) in words]
        raise DataError(f"TM1101 {what}: {words}. Leave out or convert columns {columns or schema.names}.") from error
    return from_copy(connection, view, what, copy)


def from_copy(connection: duckdb.DuckDBPyConnection, view: str, what: str, copy: Path) -> Source:
    """Return a view of the rows of a scratch file, in their order."""
    connection.execute(
        f"CREATE OR REPLACE VIEW {view} AS SELECT * EXCLUDE (file_row_number), {literal(what)} AS {FILE}, "
        f"file_row_number + 1 AS {ROW} FROM read_parquet({literal(str(copy))}, file_row_number = true)"
    )
    described = connection.execute(f"DESCRIBE {view}").fetchall()
    columns = {name: kind for name, kind, *_ in described if name not in {FILE, ROW}}
    selected = [*map(quoted, columns), f"{literal(what)} AS {FILE}", f"file_row_number + 1 AS {ROW}"]
    return Source(view, columns, (what,), parts=(Part(str(copy), ", ".join(selected)),))
