"""Read one CSV file strictly: every column text, every record either copied to Parquet or listed as rejected."""

from __future__ import annotations

import codecs
import csv
import glob
import gzip
import io
import os
import re
import zlib
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import duckdb

from tiermodel.errors import DataError, OutputError, ProjectError

__all__ = ["Layout", "Rejected", "Table", "load"]

_CHUNK = 4 << 20
_BOM = codecs.BOM_UTF8
_LINE_LIMIT = 65_536
_BOMB_RATIO, _BOMB_BYTES = 200, 1 << 30
_RULES = {
    "MISSING COLUMNS": "field_missing",
    "TOO MANY COLUMNS": "field_extra",
    "UNQUOTED VALUE": "stray_quote",
    "LINE SIZE OVER MAXIMUM": "line_too_long",
    "INVALID ENCODING": "invalid_encoding",
}
_DATA_LIKE = re.compile(r"[+-]?\d+(\.\d+)?|\d{4}-\d{2}-\d{2}.*")


@dataclass(frozen=True)
class Rejected:
    """Hold one record that is not a row: where it starts, which rule it breaks, and its first 200 characters."""

    file: str
    line: int
    rule: str
    text: str


@dataclass(frozen=True)
class Layout:
    """Turn a record's number into its line: from record `rows[i]` on, line = number + `shifts[i]`."""

    rows: tuple[int, ...]
    shifts: tuple[int, ...]

    def line(self, row: int) -> int:
        """Return the line on which a record starts, both counted from 1."""
        return row + self.shifts[bisect_right(self.rows, row) - 1]


@dataclass(frozen=True)
class Table:
    """Hold what one CSV file became."""

    file: str
    header: tuple[str, ...]
    copy: Path
    rejected: tuple[Rejected, ...]
    layout: Layout
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class _Plain:
    path: Path
    lines: int
    blank: tuple[int, ...]
    ends_with_newline: bool


def load(connection: duckdb.DuckDBPyConnection, file: str, scratch: Path, encoding: str) -> Table:
    """Copy the well-formed records of a CSV file to Parquet with their numbers in `_row`, and list the others.

    Raises DataError for a file that is cut short, not text in `encoding`, or without a usable header.
    """
    plain = _plain(file, scratch, encoding)
    header, header_lines, delimiter = _header(file, plain.path)
    copy = scratch / "rows.parquet"
    _copy(connection, file, plain.path, (header, delimiter), copy)
    rejected, extents = _rejected(connection, file, plain.path)
    records = _count(connection, copy)
    _refuse_encoding(file, plain.path, rejected, records)
    skipped = sorted({*plain.blank, *(line for first, last in extents for line in range(first, last + 1))})
    many_lined = () if header_lines + records + len(skipped) == plain.lines else _many_lined(connection, copy, header)
    notes = (
        [] if delimiter == "," or file.endswith((".tsv", ".tsv.gz")) else [f"{file}: read with delimiter {delimiter!r}"]
    )
    notes += [f"{file}: skipped {len(plain.blank)} blank lines"] if plain.blank else []
    notes += [] if plain.ends_with_newline else [f"TM1011 {file}: the last line has no newline: is the file complete?"]
    return Table(file, header, copy, rejected, _layout(header_lines, skipped, many_lined), tuple(notes))


def _plain(file: str, scratch: Path, encoding: str) -> _Plain:
    """Return the file as UTF-8 with plain newlines: itself where it already is, else a copy in the scratch folder."""
    utf8 = _is_utf8(encoding)
    rewrite = file.endswith(".gz") or not utf8 or _needs_cleaning(file)
    target = scratch / "plain.csv"
    lines, blank, last = 0, list[int](), b"\n"
    with (target if rewrite else Path(os.devnull)).open("wb") as out:
        for chunk in _chunks(file, None if utf8 else encoding):
            if b"\n\n" in chunk or (last == b"\n" and chunk[:1] == b"\n"):
                starts = (last + chunk).split(b"\n")[1:-1]
                blank += [lines + number for number, text in enumerate(starts, 1) if not text]
            lines += chunk.count(b"\n")
            last = chunk[-1:]
            out.write(chunk)
    complete = last == b"\n"
    return _Plain(target if rewrite else Path(file), lines + (not complete), tuple(blank), complete)


def _is_utf8(encoding: str) -> bool:
    try:
        return codecs.lookup(encoding).name in {"utf-8", "utf-8-sig", "ascii"}
    except LookupError:
        raise ProjectError(
            f"data.transactions.encoding: {encoding!r} is unknown; use e.g. utf-8, gb18030, latin-1, utf-16"
        ) from None


def _opened(file: str) -> BinaryIO:
    return gzip.open(file) if file.endswith(".gz") else Path(file).open("rb")  # type: ignore[return-value]


def _needs_cleaning(file: str) -> bool:
    with _opened(file) as stream:
        return stream.read(3) == _BOM or any(b"\r" in chunk for chunk in iter(lambda: stream.read(_CHUNK), b""))


def _chunks(file: str, encoding: str | None) -> Iterator[bytes]:
    """Yield the file's text as UTF-8 bytes with plain newlines, refusing damaged or exploding archives."""
    decoder = codecs.getincrementaldecoder(encoding)() if encoding else None
    limit = max(_BOMB_BYTES, _BOMB_RATIO * Path(file).stat().st_size) if file.endswith(".gz") else None
    offset, held = 0, b""
    try:
        with _opened(file) as stream:
            while raw := stream.read(_CHUNK):
                text = decoder.decode(raw).encode() if decoder else raw
                text = text.removeprefix(_BOM) if offset == 0 else text
                offset += len(raw)
                if limit and offset > limit:
                    raise DataError(f"TM1008 {file} expands to more than {_BOMB_RATIO} times its size: not read")
                text = held + text
                held = text[-1:] if text.endswith(b"\r") else b""
                text = text[: len(text) - len(held)]
                if text:
                    yield text.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in text else text
    except UnicodeDecodeError as error:
        raise DataError(
            f"TM1201 {file} is not {encoding}: byte offset {offset + error.start}, "
            f"{error.object[error.start : error.end].hex()}. Set data.transactions.encoding."
        ) from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"TM1007 {file} is a damaged or truncated gzip file: {error}") from error
    except OSError as error:
        raise OutputError(f"TM1005 {file} cannot be read: {error.strerror}") from error
    if held:
        yield b"\n"


def _header(file: str, plain: Path) -> tuple[tuple[str, ...], int, str]:
    """Return the column names, how many lines the header takes, and the delimiter."""
    with plain.open("rb") as stream:
        raw = stream.read(_LINE_LIMIT)
    first = raw.split(b"\n", 1)[0]
    try:
        line = first.decode()
    except UnicodeDecodeError as error:
        raise DataError(
            f"TM1201 {file} is not UTF-8: line 1, byte offset {error.start}, {first[error.start : error.end].hex()}. "
            "Set data.transactions.encoding, for Chinese text often gb18030."
        ) from error
    if not line.strip():
        raise DataError(f"TM1001 {file}: the first line is empty; it must name the columns")
    delimiter = next((mark for mark in ",\t;|" if mark in line), ",")
    delimiter = "\t" if file.endswith((".tsv", ".tsv.gz")) else delimiter
    reader = csv.reader(io.StringIO(raw.decode("utf-8", "replace")), delimiter=delimiter)
    names = tuple(name.strip() for name in next(reader))
    _check_names(file, names)
    return names, reader.line_num, delimiter


def _check_names(file: str, names: tuple[str, ...]) -> None:
    folded = [name.casefold() for name in names]
    repeated = sorted({name for name, key in zip(names, folded, strict=True) if folded.count(key) > 1})
    if not all(names) or repeated:
        what = f"{', '.join(repeated)} twice" if all(names) else f"nothing for column {names.index('') + 1}"
        raise DataError(f"TM1306 {file}: the header says {what}. Name every column once.")
    if sum(bool(_DATA_LIKE.fullmatch(name)) for name in names) * 2 > len(names):
        raise DataError(f"TM1003 {file}: the first line looks like data, not column names: {', '.join(names[:5])}")
    if reserved := {"_file", "_row"}.intersection(folded):
        raise DataError(f"TM1306 {file}: rename column {min(reserved)}: the name is reserved")


def _copy(
    connection: duckdb.DuckDBPyConnection, file: str, plain: Path, shape: tuple[tuple[str, ...], str], copy: Path
) -> None:
    header, delimiter = shape
    names = ", ".join(f"{_literal(name)}: 'VARCHAR'" for name in header)
    exactly = _literal(glob.escape(str(plain)))
    scan = (
        f"read_csv({exactly}, auto_detect=false, header=true, delim={_literal(delimiter)}, quote='\"', "
        f"escape='\"', new_line='\\n', columns={{{names}}}, store_rejects=true, rejects_limit=0, strict_mode=true, "
        f"null_padding=false, compression='none', max_line_size={_LINE_LIMIT})"
    )
    # Records are numbered in the order of the file only while insertion order is kept.
    connection.execute("SET preserve_insertion_order = true")
    try:
        connection.execute(f"COPY (SELECT *, row_number() OVER () AS _row FROM {scan}) TO {_literal(str(copy))}")
    except duckdb.Error as error:
        raise DataError(f"TM1300 {file} cannot be read as CSV: {str(error).splitlines()[0]}") from error
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
            raise DataError(f"TM1302 {file}, line {line}: a quote opens here and never closes: {text[:80]!r}")
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
            chunk, start = stream.read(_CHUNK), 0
            while len(lines) < len(positions) and (not chunk or positions[len(lines)] < offset + len(chunk)):
                stop = positions[len(lines)] - offset
                before += chunk.count(b"\n", start, stop)
                start = stop
                lines.append(before)
            before += chunk.count(b"\n", start)
            offset += len(chunk)
    return lines


def _count(connection: duckdb.DuckDBPyConnection, copy: Path) -> int:
    row = connection.execute(f"SELECT count(*) FROM read_parquet({_literal(str(copy))})").fetchone()
    return int(row[0]) if row else 0


def _refuse_encoding(file: str, plain: Path, rejected: tuple[Rejected, ...], records: int) -> None:
    """Refuse a file of which more than one record in twenty is not UTF-8: that is another encoding, not bad rows."""
    invalid = sum(record.rule == "invalid_encoding" for record in rejected)
    if invalid * 20 <= records + len(rejected):
        return
    offset = 0
    with plain.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                raise DataError(
                    f"TM1201 {file} is not UTF-8: line {number}, byte offset {offset + error.start}, "
                    f"{line[error.start : error.end].hex()}; {invalid} such records. "
                    "Set data.transactions.encoding, for Chinese text often gb18030, else latin-1 or cp1252."
                ) from error
            offset += len(line)


def _many_lined(
    connection: duckdb.DuckDBPyConnection, copy: Path, header: tuple[str, ...]
) -> tuple[tuple[int, int], ...]:
    names = ", ".join('"' + name.replace('"', '""') + '"' for name in header)
    return tuple(
        connection.execute(
            f"SELECT _row, length(fields) - length(replace(fields, chr(10), '')) AS further "
            f"FROM (SELECT _row, concat({names}) AS fields FROM read_parquet({_literal(str(copy))})) "
            "WHERE contains(fields, chr(10)) ORDER BY _row"
        ).fetchall()
    )


def _layout(header_lines: int, skipped: list[int], many_lined: tuple[tuple[int, int], ...]) -> Layout:
    """Walk skipped lines and records of many lines in the order of the file.

    >>> _layout(1, [3], ((2, 1),)).line(3)  # line 1 header, 2 record, 3 blank, 4-5 record, 6 record
    6
    """
    rows, shifts = [1], [header_lines]
    pending = list(reversed(skipped))
    for row, further in (*many_lined, (1 << 62, 0)):
        while pending and pending[-1] - shifts[-1] <= row:
            rows.append(pending.pop() - shifts[-1])
            shifts.append(shifts[-1] + 1)
        while pending and pending[-1] <= row + shifts[-1] + further:
            pending.pop()
        rows.append(row + 1)
        shifts.append(shifts[-1] + further)
    return Layout(tuple(rows), tuple(shifts))


def _literal(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
