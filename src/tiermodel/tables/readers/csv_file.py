"""Read one CSV file strictly: every column text, every record either copied to Parquet or listed as rejected."""

from __future__ import annotations

import csv
import glob
import io
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa

from tiermodel.errors import DataError
from tiermodel.tables.personal_data import CELLS, names_column
from tiermodel.tables.privacy import masked, shows_values
from tiermodel.tables.readers.text_encoding import CHUNK, PlainText, not_utf8, plain_text
from tiermodel.tables.source import ROW, WHOLE_ROW, Layout, Rejected, check_names, literal, quoted
from tiermodel.words import words

__all__ = ["How", "Table", "load"]

_WIDE = 500  # columns beyond which those that no mapping names are hashed, not copied
_FURTHER, _MARKED = "_tm_further", "_tm_marked"
_LINE_LIMIT = 65_536
_RULES = {
    "MISSING COLUMNS": "field_missing",
    "TOO MANY COLUMNS": "field_extra",
    "UNQUOTED VALUE": "stray_quote",
    "LINE SIZE OVER MAXIMUM": "line_too_long",
    "INVALID ENCODING": "invalid_encoding",
}
_SAID = re.compile(r"\ufeff?sep=(.)\n", re.IGNORECASE)
_DATA_LIKE = re.compile(r"[+-]?\d+(\.\d+)?|\d{4}-\d{2}-\d{2}.*")


@dataclass(frozen=True)
class How:
    """How files are read: their encoding, which `key` of the project file sets, and the language of notes.

    `mappings` are the expressions in which every column stands that will be read; None where all are.
    """

    encoding: str
    key: str
    language: str
    mappings: Collection[str] | None = None

    def copied(self, header: tuple[str, ...]) -> tuple[str, ...]:
        """Return the columns to copy: all, but of a wide file only those that the mappings name."""
        mappings = self.mappings
        if mappings is None or len(header) <= _WIDE:
            return header
        sql = " ".join(mappings)
        folded = sql.casefold()

        def is_named(column: str) -> bool:
            written = column.replace('"', '""')  # as SQL has it between quotes
            return column in mappings or (written.casefold() in folded and names_column(sql, written))

        return tuple(filter(is_named, header))


@dataclass(frozen=True)
class Table:
    """A CSV file as read: its header, a Parquet copy of its records, the rejected records, and the lines of all.

    The copy of a wide file has the columns in `copied`, a hash of all in `WHOLE_ROW`, and the first rows in `head`.
    """

    file: str
    header: tuple[str, ...]
    copied: tuple[str, ...]
    copy: Path
    head: Path | None
    rejected: tuple[Rejected, ...]
    layout: Layout
    warnings: tuple[str, ...]


def load(connection: duckdb.DuckDBPyConnection, file: str, scratch: Path, how: How) -> Table:
    """Return a CSV file with its well-formed records copied to Parquet, numbered in `_row`, and the others rejected.

    Raises DataError for a file that is cut short, not text in the encoding that is set, or without a usable header.
    """
    key = how.key
    text = plain_text(file, scratch, how.encoding, key)
    header, header_lines, delimiter, before = _header(file, text.path, key)
    copied, scan = how.copied(header), _scan(text.path, header, delimiter, before)
    fields = header if copied == header else ()
    copy, head = scratch / "rows.parquet", None
    _copy(connection, file, scan, (header, copied), copy)
    rejected, extents = _rejected(connection, file, text.path)
    records = _count(connection, copy)
    _refuse_encoding(file, text.path, rejected, records, key)
    outside = {line for first, last in extents for line in range(first, last + 1)}
    skipped = sorted({*text.blank, *outside})
    one_lined = header_lines + records + len(skipped) == text.lines
    many_lined = () if one_lined else _holding(connection, copy, fields, ("\n",))
    layout = Layout.of(header_lines, skipped, many_lined)
    if records + layout.shifts[-1] != text.lines:
        raise DataError(
            f"TM1300 {file} cannot be read as CSV: {text.lines:,} lines are not {records:,} records and "
            f"{len(rejected):,} rejected ones. Is a quote opened and never closed?"
        )
    damaged = _damaged(connection, file, text, (fields, delimiter), copy, layout)
    if not fields:
        head = scratch / "head.parquet"
        _in_order(connection, f"COPY (FROM {scan} LIMIT {CELLS // len(header)}) TO {literal(str(head))}")
        connection.execute("DROP TABLE reject_errors; DROP TABLE reject_scans")
    blank = layout.shifts[-1] - header_lines - len(outside) - sum(further for _, further in many_lined)
    notes = _notes(file, delimiter, blank, how.language, complete=text.ends_with_newline)
    outcasts = tuple(sorted((*rejected, *damaged), key=lambda r: r.line))
    return Table(file, header, copied, copy, head, outcasts, layout, notes)


def _notes(file: str, delimiter: str, blank: int, language: str, *, complete: bool) -> tuple[str, ...]:
    notes, say = [], words(language)
    if delimiter != "," and not file.endswith((".tsv", ".tsv.gz")):
        notes.append(say["note_delimiter"].format(file=file, delimiter=delimiter))
    if blank:
        notes.append(say["note_blank_lines"].format(file=file, n=blank))
    if not complete:
        notes.append(say["note_no_newline"].format(file=file))
    return tuple(notes)


def _header(file: str, plain: Path, key: str) -> tuple[tuple[str, ...], int, str, int]:
    """Return the column names, the lines of the header, the delimiter, and the lines before the names (`sep=;`)."""
    with plain.open("rb") as stream:
        raw = stream.read(_LINE_LIMIT)
    first = raw.split(b"\n", 1)[0]
    if (place := first.find(b"\0")) >= 0:
        raise not_utf8(file, 1, place, first[place : place + 1], key)
    try:
        line = first.decode()
    except UnicodeDecodeError as error:
        raise not_utf8(file, 1, error.start, first[error.start : error.end], key) from error
    if not line.strip():
        raise DataError(f"TM1001 {file}: the first line is empty; it must name the columns")
    text, before = raw.decode("utf-8", "replace"), 0
    if said := _SAID.match(text):  # Excel writes and reads such a line
        text, before = text[said.end() :], 1
    delimiter = "\t" if file.endswith((".tsv", ".tsv.gz")) else said[1] if said else _delimiter(text)
    reader = csv.reader(io.StringIO(text), delimiter=delimiter)
    names = tuple(name.strip() for name in next(reader))
    check_names(f"{file}, in the header", names)
    if sum(bool(_DATA_LIKE.fullmatch(name)) for name in names) * 2 >= len(names):
        raise DataError(
            f"TM1003 {file}: the first line looks like data, not column names: {', '.join(map(_shown, names[:5]))}. "
            "Put a line with a name for every column above it."
        )
    return names, before + reader.line_num, delimiter, before


def _shown(text: str) -> str:
    """Return a part of a record as a message may show it: it may hold ids and personal data."""
    return text if shows_values() else masked(text)


def _delimiter(text: str) -> str:
    """Return the mark that stands most often outside quotes in the first line; a comma where there is none.

    >>> _delimiter('id;t;amount;"Note, free, or none, at all"')
    ';'
    """
    bare = re.sub(r'"[^"]*"', "", text).split("\n", 1)[0]
    return max(",\t;|", key=bare.count)


def _scan(plain: Path, header: tuple[str, ...], delimiter: str, before: int) -> str:
    """Return the SQL of the file's records, every column as text, which keeps the rejected ones in tables beside."""
    names = ", ".join(f"{literal(name)}: 'VARCHAR'" for name in header)
    exactly = literal(glob.escape(str(plain)))
    return (
        f"read_csv({exactly}, auto_detect=false, header=true, skip={before}, delim={literal(delimiter)}, quote='\"', "
        f"escape='\"', new_line='\\n', columns={{{names}}}, store_rejects=true, rejects_limit=0, strict_mode=true, "
        f"null_padding=false, compression='none', max_line_size={_LINE_LIMIT})"
    )


def _copy(
    connection: duckdb.DuckDBPyConnection,
    file: str,
    scan: str,
    shape: tuple[tuple[str, ...], tuple[str, ...]],
    copy: Path,
) -> None:
    """Copy the records of a scan; of a wide file the columns to copy, what must be known of the others, and a hash."""
    header, copied = shape
    if copied != header:
        # in the order of the names: files of one table may have their columns in another
        whole = f"hash({', '.join(map(quoted, sorted(header)))}) AS {WHOLE_ROW}"
        further = f"length(_tm_fields) - length(replace(_tm_fields, chr(10), '')) AS {_FURTHER}"
        marked = f"contains(_tm_fields, chr(34)) OR contains(_tm_fields, chr(0)) AS {_MARKED}"
        selected = ", ".join([*map(quoted, copied), whole, further, marked])
        fields = f"concat({', '.join(map(quoted, header))}) AS _tm_fields"
        scan = f"(SELECT {selected} FROM (SELECT *, {fields} FROM {scan}))"
    try:
        _in_order(connection, f"COPY (SELECT *, row_number() OVER () AS {ROW} FROM {scan}) TO {literal(str(copy))}")
    except duckdb.Error as error:
        raise DataError(f"TM1300 {file} cannot be read as CSV: {str(error).splitlines()[0]}") from error


def _in_order(connection: duckdb.DuckDBPyConnection, statement: str) -> None:
    """Run a statement that takes records in the order of the file, which is so only while insertion order is kept."""
    connection.execute("SET preserve_insertion_order = true")
    try:
        connection.execute(statement)
    finally:
        connection.execute("SET preserve_insertion_order = false")


def _rejected(
    connection: duckdb.DuckDBPyConnection, file: str, plain: Path
) -> tuple[tuple[Rejected, ...], list[tuple[int, int]]]:
    """Return the rejected records and the first and last line of each."""
    found = connection.execute(
        "SELECT line_byte_position - 1 + length(raw) - length(ltrim(raw, chr(10))), kind, "
        "left(trim(raw, chr(10)), 200), "
        "length(trim(raw, chr(10))) - length(replace(trim(raw, chr(10)), chr(10), '')) FROM "
        "(SELECT line_byte_position, any_value(error_type::VARCHAR ORDER BY error_type) AS kind, "
        "coalesce(any_value(csv_line), '') AS raw FROM reject_errors GROUP BY ALL) ORDER BY 1"
    ).fetchall()
    connection.execute("DROP TABLE reject_errors; DROP TABLE reject_scans")
    # DuckDB counts records, not lines, so the lines are counted up to the position of each.
    lines = _lines_at(plain, [position for position, *_ in found])
    for line, (_, kind, text, further) in zip(lines, found, strict=True):
        if kind == "UNQUOTED VALUE" and further:
            raise DataError(f"TM1302 {file}, line {line}: a quote opens here and never closes: {_shown(text[:80])!r}")
    records = [
        Rejected(file, line, _RULES.get(kind, "malformed"), text)
        for line, (_, kind, text, _) in zip(lines, found, strict=True)
    ]
    return tuple(records), [(line, line + row[3]) for line, row in zip(lines, found, strict=True)]


def _lines_at(plain: Path, positions: list[int]) -> list[int]:
    """Return the line, from 1, at each of the ascending byte positions."""
    lines: list[int] = []
    before, offset = 1, 0
    with plain.open("rb") as stream:
        while len(lines) < len(positions):
            chunk, start = stream.read(CHUNK), 0
            while len(lines) < len(positions) and (not chunk or positions[len(lines)] < offset + len(chunk)):
                stop = positions[len(lines)] - offset
                before += chunk.count(b"\n", start, stop)
                start = stop
                lines.append(before)
            before += chunk.count(b"\n", start)
            offset += len(chunk)
    return lines


def _count(connection: duckdb.DuckDBPyConnection, copy: Path) -> int:
    row = connection.execute(f"SELECT count(*) FROM read_parquet({literal(str(copy))})").fetchone()
    return int(row[0]) if row else 0


def _refuse_encoding(file: str, plain: Path, rejected: tuple[Rejected, ...], records: int, key: str) -> None:
    """Raise DataError where more than one record in twenty is not UTF-8: the file has another encoding, no bad rows."""
    invalid = sum(record.rule == "invalid_encoding" for record in rejected)
    if invalid * 20 <= records + len(rejected):
        return
    offset = 0
    with plain.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                raise not_utf8(file, number, offset + error.start, line[error.start : error.end], key) from error
            offset += len(line)


def _holding(
    connection: duckdb.DuckDBPyConnection, copy: Path, fields: tuple[str, ...], marks: tuple[str, ...]
) -> tuple[tuple[int, int], ...]:
    """Return the numbers of the records whose fields have one of the characters, each with its further lines.

    Of a wide file (no `fields`), whose copy tells new lines from the other characters only, there may be more.
    """
    if not fields:
        test = f"{_FURTHER} > 0" if marks == ("\n",) else _MARKED
        rows = f"SELECT {ROW}, {_FURTHER} FROM read_parquet({literal(str(copy))}) WHERE {test} ORDER BY {ROW}"
        return tuple(connection.execute(rows).fetchall())
    test = " OR ".join(f"contains(fields, chr({ord(mark)}))" for mark in marks)
    return tuple(
        connection.execute(
            f"SELECT {ROW}, length(fields) - length(replace(fields, chr(10), '')) AS further "
            f"FROM (SELECT {ROW}, concat({', '.join(map(quoted, fields))}) AS fields "
            f"FROM read_parquet({literal(str(copy))})) WHERE {test} ORDER BY {ROW}"
        ).fetchall()
    )


def _damaged(
    connection: duckdb.DuckDBPyConnection,
    file: str,
    text: PlainText,
    shape: tuple[tuple[str, ...], str],
    copy: Path,
    layout: Layout,
) -> tuple[Rejected, ...]:
    """Remove from the copy, and return, records that DuckDB accepts: with NUL bytes, or quotes in unquoted fields."""
    marks = ('"',) * text.has_quotes + ("\0",) * text.has_nul
    suspects = _holding(connection, copy, shape[0], marks) if marks else ()
    if not suspects:
        return ()
    field = rb'(?:"(?:[^"]|"")*+"|[^"%s]*+)' % shape[1].encode()
    sound = re.compile(rb"%s(?:%s%s)*+" % (field, re.escape(shape[1].encode()), field))
    bad: dict[int, Rejected] = {}
    for row, raw in _records(text.path, layout, suspects):
        rule = "nul_byte" if b"\0" in raw else None if sound.fullmatch(raw) else "stray_quote"
        if rule:
            bad[row] = Rejected(file, layout.line(row), rule, raw.decode("utf-8", "replace")[:200])
    if bad:
        whole = copy.with_name("every_row.parquet")
        copy.rename(whole)
        connection.register("tiermodel_bad", pa.table({"row": list(bad)}))
        connection.execute(
            f"COPY (SELECT * FROM read_parquet({literal(str(whole))}) "
            f'WHERE {ROW} NOT IN (SELECT "row" FROM tiermodel_bad)) TO {literal(str(copy))}'
        )
        connection.unregister("tiermodel_bad")
        whole.unlink()
    return tuple(bad.values())


def _records(plain: Path, layout: Layout, wanted: tuple[tuple[int, int], ...]) -> Iterator[tuple[int, bytes]]:
    """Yield the number and the raw text of the wanted records (number, further lines), in their order."""
    with plain.open("rb") as stream:
        at = 1
        for row, further in wanted:
            for _ in range(layout.line(row) - at):
                stream.readline()
            yield row, b"".join(stream.readline() for _ in range(further + 1)).removesuffix(b"\n")
            at = layout.line(row) + further + 1
