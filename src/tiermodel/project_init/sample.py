"""Samples of the given files: some rows from the start, the middle and the end, read by the readers of the project."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa

from tiermodel import disk
from tiermodel.config.data import DATABASES
from tiermodel.config.project import Project
from tiermodel.errors import DataError, TierModelError
from tiermodel.project_init.encoding import encoding_of
from tiermodel.tables.personal_data import Personal, find_personal
from tiermodel.tables.readers.open import open_source
from tiermodel.tables.source import Part, Source, quoted, scratch_folder

__all__ = ["Given", "Sample", "given_tables", "sample_of"]

_BLOCK = 1 << 20  # bytes of each of the three places of a large text file
_WHOLE = 4 * _BLOCK
_ROWS = 7_000  # of each of three places
_TEXT = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".txt.gz")
_SQLITE = (".db", ".sqlite", ".sqlite3")
_TABLES = {
    "sqlite": "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite_%'",
    "postgresql": "SELECT table_name AS name FROM information_schema.tables "
    "WHERE table_schema = current_schema() ORDER BY 1",
}


@dataclass(frozen=True)
class Given:
    """What holds one table: files of one layout, a table of a database with the query of its rows, or a join.

    `names` are those by which the query of a join speaks of the files.
    """

    paths: tuple[str, ...]
    query: str = ""
    name: str = ""
    names: tuple[str, ...] = ()

    @property
    def path(self) -> str | list[str]:
        """The value of the project's key `path`."""
        return self.paths[0] if len(self.paths) == 1 else list(self.paths)


@dataclass(frozen=True)
class Sample:
    """Some rows of a table: its columns with their DuckDB types, the rows, the encoding, and what is personal data.

    `whole` says that they are all rows; `places` that they are of start, middle and end.
    """

    given: Given
    columns: dict[str, str]
    rows: pa.Table
    encoding: str
    whole: bool
    places: bool
    personal: tuple[Personal, ...]
    notes: tuple[str, ...]


def given_tables(connection: duckdb.DuckDBPyConnection, path: str) -> Iterator[Given]:
    """Yield what a path holds: itself, or each table of a database.

    Raises DataError for a file that is not there, and for a database without a table.
    """
    if path.lower().endswith(_SQLITE) and "://" not in path:
        if not Path(path).is_file():
            raise DataError(f"TM1004 {path} does not exist")
        path = f"sqlite:///{path}"
    if not path.lower().startswith(DATABASES):
        yield Given((path,), name=_short(path))
        return
    listed = _open(connection, Given((path,), _TABLES[path.split("://")[0].lower()]), "utf-8", "en")
    names = [str(name) for (name,) in connection.execute(f"SELECT name FROM {listed.view} ORDER BY 1").fetchall()]
    if not names:
        raise DataError(f"{path} has no table")
    yield from (Given((path,), f"SELECT * FROM {quoted(name)}", name) for name in names)


def _short(path: str) -> str:
    stem = Path(path).name.split(".")[0].replace("*", "")
    return stem or "rows"


def _project(given: Given, encoding: str, language: str) -> Project:
    """Return a project by which the readers open a table; its mappings are never bound."""
    rows = {"path": given.path, "encoding": encoding, "columns": dict.fromkeys(("customer_id", "time", "amount"), "x")}
    if given.query:
        rows["query"] = given.query
    settings = {"version": 1, "name": "init", "language": language, "data": {"transactions": rows}}
    return Project.model_validate({**settings, "folder": Path.cwd()})


def _open(connection: duckdb.DuckDBPyConnection, given: Given, encoding: str, language: str) -> Source:
    return open_source(connection, _project(given, encoding, language), "transactions")


def sample_of(connection: duckdb.DuckDBPyConnection, given: Given, language: str) -> Sample:
    """Return a sample of a table, its notes in a language; of a large text file only some blocks are read.

    Raises DataError where the rows cannot be read, as every verb does.
    """
    files = _files(given)
    texts = [file for file in files if file.name.lower().endswith(_TEXT)]
    encoding, taken, places = "utf-8", given, False
    if texts:
        blocks = {file: _blocks(file) for file in dict.fromkeys((texts[0], texts[-1]))}
        encoding = encoding_of([piece for pieces in blocks.values() for piece in pieces])
        if any(_is_large(file) for file in texts) or len(texts) > 2:
            copies = _copies(connection, blocks, encoding)
            taken, places = Given(copies), True
    elif given.query:
        taken = Given(given.paths, f"SELECT * FROM ({given.query}) AS given LIMIT {3 * _ROWS}", given.name)
    try:
        source = _open(connection, taken, encoding, language)
    except DataError as error:
        if not places:
            raise
        source, places = _first_blocks(connection, blocks, encoding, error, language), False
    rows, whole = _rows(connection, source)
    names = [_by_name(str(given.paths[0]), note) for note in source.warnings] if taken is given else []
    personal = find_personal(connection, source, rows.num_rows, "")
    whole = whole and taken is given
    return Sample(given, dict(source.columns), rows, encoding, whole, places, personal, tuple(names))


def _by_name(path: str, note: str) -> str:
    return note.replace(str(Path(path).absolute()), Path(path).name)


def _files(given: Given) -> list[Path]:
    """Return the files of a table, those of folders and globs sorted; none of a database."""
    if given.query:
        return []
    found: list[Path] = []
    for path in given.paths:
        place = Path(path)
        if place.is_dir():
            found += sorted(
                file for file in place.rglob("*") if file.is_file() and not file.name.startswith((".", "_"))
            )
        elif place.exists() or not re.search(r"[*?\[]", path):
            found.append(place)
        else:
            found += sorted(Path().glob(path) if not place.is_absolute() else Path("/").glob(path.lstrip("/")))
    return found


def _is_large(file: Path) -> bool:
    try:
        limit = _WHOLE // 8 if file.name.endswith(".gz") else _WHOLE
        return file.stat().st_size > limit
    except OSError:
        return False


def _blocks(file: Path) -> list[bytes]:
    """Return blocks of a text file: its start, and, where it is large and not packed, its middle and its end.

    Each begins and ends with a line; nothing where the file cannot be read, which the reader tells.
    """
    with suppress(OSError, EOFError):
        if file.name.endswith(".gz"):
            with gzip.open(file) as stream:
                return [_lines(stream.read(3 * _BLOCK), first=True)]
        size = file.stat().st_size
        with file.open("rb") as stream:
            if size <= _WHOLE:
                return [stream.read()]
            first = stream.read(_BLOCK)
            if first[:2] in {b"\xff\xfe", b"\xfe\xff"}:
                return [first[: first.rfind(b"\n") // 2 * 2 + (0 if first[:2] == b"\xff\xfe" else 2)]]
            pieces = [_lines(first, first=True)]
            for place in (size // 2, size - _BLOCK):
                stream.seek(place)
                pieces.append(_lines(stream.read(_BLOCK), first=False))
            return pieces
    return []


def _lines(block: bytes, *, first: bool) -> bytes:
    """Return the whole lines of a block; the start of a file begins with one."""
    start = 0 if first else block.find(b"\n") + 1
    return block[start : block.rfind(b"\n") + 1]


def _copies(
    connection: duckdb.DuckDBPyConnection, blocks: dict[Path, list[bytes]], encoding: str, most: int = 3
) -> tuple[str, ...]:
    """Write the blocks of each file to a scratch file, and return their paths."""
    made = []
    for number, (file, pieces) in enumerate(blocks.items()):
        ending = ".tsv" if ".tsv" in file.name.lower() else ".csv"
        copy = scratch_folder(connection) / f"{number}{ending}"
        whole = pieces[:1] if encoding.startswith("utf-16") else pieces[:most]
        disk.write_bytes(copy, b"".join(whole))
        made.append(str(copy))
    return tuple(made)


def _first_blocks(
    connection: duckdb.DuckDBPyConnection,
    blocks: dict[Path, list[bytes]],
    encoding: str,
    fault: DataError,
    language: str,
) -> Source:
    """Return a source of the first blocks only: a block in the middle may begin inside a quoted field."""
    copies = _copies(connection, blocks, encoding, most=1)
    try:
        return _open(connection, Given(copies), encoding, language)
    except TierModelError as error:
        words = str(error)
        for copy, file in zip(copies, blocks, strict=True):
            words = words.replace(copy, str(file))
        raise type(error)(words) from fault


def _rows(connection: duckdb.DuckDBPyConnection, source: Source) -> tuple[pa.Table, bool]:
    """Return rows from the start, the middle and the end of a source, and whether these are all."""
    connection.execute("SET preserve_insertion_order = true")
    names = ", ".join(map(quoted, source.columns))
    parts: Sequence[Part] = source.parts
    counts = [_count(connection, part) for part in parts]
    total = sum(counts)
    if total <= 3 * _ROWS:
        return connection.sql(f"SELECT {names} FROM {source.view}").to_arrow_table(), True
    pieces = []
    for start in (0, total // 2, total - _ROWS):
        before = 0
        for part, count in zip(parts, counts, strict=True):
            low, high = max(start - before, 0), min(start + _ROWS - before, count) - 1
            if low <= high:
                pieces.append(connection.sql(f"SELECT {names} FROM ({part.rows(low, high)})").to_arrow_table())
            before += count
    return pa.concat_tables(pieces, promote_options="permissive"), False


def _count(connection: duckdb.DuckDBPyConnection, part: Part) -> int:
    return int(connection.execute(f"SELECT count(*) FROM read_parquet('{part.path}')").fetchall()[0][0])
