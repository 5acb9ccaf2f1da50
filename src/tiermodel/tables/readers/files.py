"""Find Parquet, CSV and Excel files and open them as one DuckDB view; refuse files that cannot be read whole."""

from __future__ import annotations

import codecs
import glob
import os
import re
import shutil
import stat
import sys
from collections.abc import Collection
from dataclasses import replace
from itertools import chain
from pathlib import Path

import duckdb

from tiermodel.config.project import Project
from tiermodel.errors import DataError, EmptyInputError, OutputError, ProjectError
from tiermodel.tables.readers import csv_file, excel
from tiermodel.tables.readers.parquet_pages import refuse_flipped_bits
from tiermodel.tables.source import (
    FILE,
    ROW,
    WHOLE_ROW,
    Part,
    Source,
    exactly,
    literal,
    quoted,
    refuse_changed,
    scratch_folder,
    stamp,
)
from tiermodel.words import words

__all__ = ["open_files"]

_PARQUET = (".parquet", ".pq")
_CSV = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".txt", ".txt.gz")
_EXCEL = (".xlsx",)
_MAGIC = {
    b"PK\x03\x04": "an Excel workbook or a zip archive",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"%PDF": "a PDF",
    b"PARE": "an encrypted Parquet file",
    b"\x1f\x8b": "a gzip file",
    b"BZh91AY&SY": "a bzip2 file",
    b"\xfd7zXZ\x00": "an xz file",
    b"\x28\xb5\x2f\xfd": "a Zstandard file",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!\x1a\x07": "a rar archive",
    b"SQLite format 3\x00": "an SQLite database",
    b"ARROW1\x00": "an Arrow file",
    b"Obj\x01": "an Avro file",
    b"{\\rtf": "a text with formats (RTF)",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
    b"GIF89a": "a picture",
    b"\x7fELF": "a program",
}
# text that is no CSV
_HTML = re.compile(rb"\s*(<!--.*?-->\s*)*<(!doctype|html|\?xml)", re.IGNORECASE | re.DOTALL)
_JSON = re.compile(rb"""\s*(\[\s*)?\{\s*"[^"]*"\s*:""")
_SPARKS = re.compile(r"part-\d{5}-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_PANDAS_INDEX = re.compile(r"__index_level_\d+__")


def open_files(
    connection: duckdb.DuckDBPyConnection,
    project: Project,
    view: str,
    key: str,
    paths: str | list[str],
    encoding: str,
    mappings: Collection[str] | None = None,
) -> Source:
    """Return a source of files of one format, given by the paths, globs or folders at the project's `key`.

    Of a very wide CSV only the columns are copied that stand in `mappings`, the SQL that will be read; None for all.

    Parquet keeps its types; every CSV column is text. The path `-` is standard input. Raises DataError for files that
    cannot be read whole, EmptyInputError where the only one is empty, OutputError for paths without permission.
    """
    if paths == "-":
        given = _standard_input(connection, key)
        return _named(
            connection, view, open_files(connection, project, f"{view}_given", key, given, encoding, mappings)
        )
    roots, warnings = _find_files(project, key, [paths] if isinstance(paths, str) else paths)
    files = tuple(roots)
    seen = {file: stamp(file) for file in files}
    for file in files:
        _refuse_magic(file, alone=len(files) == 1 and key == "data.transactions.path")
    if files[0].lower().endswith(_PARQUET):
        return replace(_open_parquet(connection, view, roots, warnings, project.language), origins=files, seen=seen)
    if files[0].lower().endswith(_EXCEL):
        if len(files) > 1:
            raise ProjectError(f"{key}: {len(files)} workbooks; one at a time can be read: export them as CSV")
        source = excel.load(connection, view, files[0], warnings, project.language)
    else:
        how = csv_file.How(encoding, f"{'.'.join(key.split('.')[:2])}.encoding", project.language, mappings)
        source = _open_csv(connection, view, how, files, warnings)
    refuse_changed(seen)  # these are read from a copy from here on
    return replace(source, origins=files)


def _standard_input(connection: duckdb.DuckDBPyConnection, key: str) -> str:
    """Return the path of a copy of standard input, which is read more than once, with an ending by its first bytes."""
    if sys.stdin.isatty():
        raise DataError(f"TM1004 {key}: - is standard input, and nothing is piped into it")
    file = scratch_folder(connection) / "standard_input"
    with file.open("wb") as out:
        shutil.copyfileobj(sys.stdin.buffer, out)
    endings = {b"PAR1": ".parquet", b"\x1f\x8b": ".csv.gz", b"PK": ".xlsx"}
    head = _head(str(file))
    ending = next((ending for magic, ending in endings.items() if head.startswith(magic)), ".csv")
    return str(file.rename(file.with_suffix(ending)))


def _named(connection: duckdb.DuckDBPyConnection, view: str, source: Source, name: str = "standard input") -> Source:
    """Return the source with a name, the same in every run, in place of that of its scratch file."""
    connection.execute(
        f"CREATE OR REPLACE VIEW {view} AS SELECT * REPLACE ({literal(name)} AS {FILE}) FROM {source.view}"
    )
    rejected = tuple(replace(record, file=name) for record in source.rejected)
    warnings = tuple(warning.replace(source.files[0], name) for warning in source.warnings)
    layouts = {name: source.layouts[source.files[0]]} if source.layouts else {}
    return Source(view, source.columns, (name,), rejected, warnings, layouts, head=source.head)


def _find_files(project: Project, key: str, paths: list[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the data files of paths, each with the folder that was given, and warnings of files left out."""
    found: dict[str, str] = {}
    warnings: list[str] = []
    say = words(project.language)
    for path in paths:
        for match in _matches(project, path, key):
            files, ignored = _expand(match, key)
            root = match if Path(match).is_dir() else str(Path(match).parent)
            found |= dict.fromkeys(files, _root(project.resolve(path)) if match != project.resolve(path) else root)
            if ignored:
                shown = say["comma"].join(ignored[:5]) + " …" * (len(ignored) > 5)
                warnings.append(say["note_ignored"].format(match=match, files=shown))
    kinds = {ending for file in found for ending in (_PARQUET, _CSV, _EXCEL) if file.lower().endswith(ending)}
    if len(kinds) > 1:
        raise ProjectError(f"{key} mixes formats: {', '.join(list(found)[:5])}. Give one format.")
    return found, tuple(warnings)


def _root(pattern: str) -> str:
    """Return the folder above the first wildcard of a glob.

    >>> _root("/data/day=1/month=*/x.parquet")
    '/data/day=1'
    """
    parts = Path(pattern).parts
    return str(Path(*parts[: next(place for place, part in enumerate(parts) if glob.has_magic(part))]))


def _matches(project: Project, path: str, key: str) -> list[str]:
    """Return the paths that a glob matches, sorted; a path that exists, or has no wildcard, matches itself only."""
    resolved = project.resolve(path)
    if os.path.lexists(resolved) or not glob.has_magic(path):
        return [resolved]
    # Wildcard characters in the path of the project's folder are part of its name.
    folder = Path(glob.escape(os.path.abspath(project.folder)))  # noqa: PTH100 links are not followed
    # pathlib's glob would match hidden files.
    matches = sorted(glob.glob(project.model_copy(update={"folder": folder}).resolve(path), recursive=True))  # noqa: PTH207
    if not matches:
        raise DataError(f"TM1004 {key}: no file matches {resolved}")
    return matches


def _expand(path: str, key: str) -> tuple[list[str], list[str]]:
    """Return the data files of a path (itself, or those below a folder: one format) and the names of files left out."""
    try:
        mode = Path(path).stat().st_mode
    except FileNotFoundError:
        raise DataError(f"TM1004 {key}: {path} does not exist") from None
    except OSError as error:
        raise OutputError(f"TM1005 {path} cannot be read: {error.strerror}") from error
    if stat.S_ISREG(mode):
        return [_readable(path)], []
    if not stat.S_ISDIR(mode):
        raise DataError(f"TM1004 {path} is a pipe or a device: save it to a file, or pipe it in and give the path -")
    return _of_one_format(path)


def _of_one_format(path: str) -> tuple[list[str], list[str]]:
    """Return the data files below a folder, Parquet before CSV before workbooks, and the names of files left out."""
    _refuse_unfinished(path)
    every = sorted(str(file) for file in Path(path).rglob("*") if file.is_file())
    for endings in (_PARQUET, _CSV, _EXCEL):
        files = [file for file in every if file.lower().endswith(endings) and not _is_hidden(file, path)]
        if files:
            chosen = set(files)
            _refuse_uncommitted(path, files)
            return list(map(_readable, files)), [Path(file).name for file in every if file not in chosen]
    raise DataError(f"TM1004 {path} holds no .parquet, .csv, .csv.gz, .tsv, .txt or .xlsx file")


def _refuse_unfinished(path: str) -> None:
    if Path(path, "_temporary").is_dir():
        raise DataError(
            f"TM1012 {path} is being written, or a job failed: _temporary is there; wait, or run the job again"
        )


def _refuse_uncommitted(path: str, files: list[str]) -> None:
    """Raise DataError for files that Spark wrote, all of them, without its mark, there or above, that it ended."""
    if not all(_SPARKS.match(Path(file).name) for file in files):
        return
    folders = (Path(path), *Path(path).absolute().parents[:3])
    if not any((folder / "_SUCCESS").exists() or any(folder.glob("_committed_*")) for folder in folders):
        raise DataError(
            f"TM1012 {path} has no _SUCCESS, so the job that wrote it did not end: run it again, or, where it writes "
            f"no such file, give the files: {path}/**/*{Path(files[0]).suffix}"
        )


def _is_hidden(file: str, folder: str) -> bool:
    return any(part[0] in "._" for part in Path(file).relative_to(folder).parts)


def _readable(path: str) -> str:
    if not os.access(path, os.R_OK):
        raise OutputError(f"TM1005 {path} cannot be read: permission denied")
    return path


def _refuse_magic(file: str, *, alone: bool) -> None:
    head = _head(file)
    name = file.lower()
    if not _without_marks(head):
        raise (EmptyInputError if alone else DataError)(f"TM1001 {file} is empty")
    if name.endswith((".zip", ".tar", ".tar.gz", ".tgz", ".7z", ".rar")):
        raise DataError(f"TM1010 {file} is an archive, which is never opened: unpack it and give the file in it")
    if not name.endswith(_PARQUET + _CSV + _EXCEL):
        raise DataError(
            f"TM1006 {file}: give .parquet, .csv, .csv.gz, .tsv, .txt or .xlsx (save an old workbook as .xlsx)"
        )
    if name.endswith(_EXCEL):
        if not head.startswith(b"PK"):
            raise DataError(f"TM1006 {file} is not an Excel workbook, whatever its name says")
        return
    _refuse_other_content(file, head, parquet=name.endswith(_PARQUET))


def _refuse_other_content(file: str, head: bytes, *, parquet: bool) -> None:
    """Raise DataError for a file whose first bytes are not those of Parquet, or of CSV, though its name says so."""
    for magic, what in _MAGIC.items():
        if head.startswith(magic) and not (magic == b"\x1f\x8b" and file.lower().endswith(".gz")):
            code = "TM1106" if magic == b"PARE" else "TM1006"
            raise DataError(f"{code} {file} is {what}, whatever its name says: save it as plain CSV or Parquet")
    is_parquet = head.startswith(b"PAR1")
    if parquet != is_parquet:
        raise DataError(
            f"{'TM1006' if is_parquet else 'TM1101'} {file} is {'' if is_parquet else 'not '}a Parquet file"
        )
    text = _without_marks(head)
    if _HTML.match(text):
        raise DataError(f"TM1006 {file} looks like HTML, not data: is it a login page that was saved?")
    if _JSON.match(text):
        raise DataError(f"TM1006 {file} is JSON, whatever its name says: save it as plain CSV or Parquet")


def _without_marks(head: bytes) -> bytes:
    """Return the first bytes without byte order marks of UTF-8, of which programs in a row may each have put one."""
    while head.startswith(codecs.BOM_UTF8):
        head = head.removeprefix(codecs.BOM_UTF8)
    return head


def _head(file: str) -> bytes:
    try:
        with Path(file).open("rb") as stream:
            return stream.read(512)
    except OSError as error:
        raise OutputError(f"TM1005 {file} cannot be read: {error.strerror}") from error


def _open_parquet(
    connection: duckdb.DuckDBPyConnection, view: str, roots: dict[str, str], warnings: tuple[str, ...], language: str
) -> Source:
    files = tuple(roots)
    own = _refuse_drift(connection, files)
    names = "[" + ", ".join(exactly(file) for file in files) + "]"
    options = f", filename = '{FILE}', hive_partitioning = false"
    keys = _partition_keys(roots)
    shadowed = [name for name in keys if name.casefold() in own]
    folders = {name: _from_folder(name) for name in keys if name.casefold() not in own}
    beside = "".join(f", {sql} AS {quoted(name)}" for name, sql in folders.items())
    scan = f"read_parquet({names}, file_row_number = true{options})"
    index = [name for name, _ in _described(connection, scan) if _PANDAS_INDEX.fullmatch(name)]
    left_out = ", ".join(quoted(name) for name in ["file_row_number", FILE, *index])
    connection.execute(
        f"CREATE OR REPLACE VIEW {view} AS "
        f"SELECT * EXCLUDE ({left_out}){beside}, {FILE}, file_row_number + 1 AS {ROW} FROM {scan}"
    )
    columns = {name: kind for name, kind in _described(connection, view) if name not in {FILE, ROW}}
    say = words(language)
    notes = [say["note_pandas_index"].format(", ".join(index))] if index else []
    notes += [say["note_folders"].format(name) for name in shadowed]
    named = (f"{folders[name]} AS {quoted(name)}" if name in folders else quoted(name) for name in columns)
    selected = ", ".join([*named, FILE, f"file_row_number + 1 AS {ROW}"])
    parts = tuple(Part(file, selected, options) for file in sorted(files))
    return Source(view, columns, files, warnings=(*warnings, *notes), parts=parts)


def _partition_keys(roots: dict[str, str]) -> tuple[str, ...]:
    """Return the keys of folders `key=value` below the given paths, where they are the same for all files."""
    below = (Path(file).relative_to(root).parts[:-1] for file, root in roots.items())
    keys = {tuple(part.split("=")[0] for part in parts if "=" in part) for parts in below}
    return keys.pop() if len(keys) == 1 else ()


def _from_folder(key: str) -> str:
    """Return the SQL of the value in the last folder `key=value` of a file's path, as text."""
    value = f"regexp_extract({FILE}, {literal(f'.*/{re.escape(key)}=([^/]*)/')}, 1)"
    return f"nullif(url_decode({value}), '__HIVE_DEFAULT_PARTITION__')"


def _described(connection: duckdb.DuckDBPyConnection, relation: str) -> list[tuple[str, str]]:
    try:
        return [(name, kind) for name, kind, *_ in connection.execute(f"DESCRIBE FROM {relation}").fetchall()]
    except duckdb.Error as error:
        raise DataError(f"TM1101 the rows cannot be read: {_first_line(error)}") from error


def _refuse_drift(connection: duckdb.DuckDBPyConnection, files: tuple[str, ...]) -> set[str]:
    """Return the names of the columns, in lower case; the same in all files.

    Raises DataError for damaged Parquet files, and for files with other column names or types than the first.
    """
    first: dict[str, str] = {}
    for file in files:
        columns = _footer(connection, file)
        refuse_flipped_bits(file)
        first = first or columns
        for name in sorted(first.keys() | columns.keys()):
            if first.get(name) != columns.get(name):
                raise DataError(
                    f"TM1103 {file}: column {name!r} is {columns.get(name, 'missing')}, "
                    f"but {first.get(name, 'missing')} in {files[0]}. Rewrite one of them so that all files agree."
                )
    return {name.casefold() for name in first}


def _footer(connection: duckdb.DuckDBPyConnection, file: str) -> dict[str, str]:
    try:
        rows = connection.execute(f"DESCRIBE FROM read_parquet({exactly(file)}, hive_partitioning=false)").fetchall()
    except duckdb.Error as error:
        raise DataError(f"TM1101 {file} is damaged or cut short: {_first_line(error)}. Copy it again.") from error
    return {name: kind for name, kind, *_ in rows if not _PANDAS_INDEX.fullmatch(name)}


def _first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0]


def _open_csv(
    connection: duckdb.DuckDBPyConnection,
    view: str,
    how: csv_file.How,
    files: tuple[str, ...],
    warnings: tuple[str, ...],
) -> Source:
    tables = [csv_file.load(connection, file, scratch_folder(connection), how) for file in files]
    for table in tables:
        if set(table.header) != set(tables[0].header):
            odd = sorted(set(table.header) ^ set(tables[0].header))
            raise DataError(f"TM1103 {table.file}: columns differ from {tables[0].file}: {', '.join(odd)}")
    columns, head = ", ".join(map(quoted, tables[0].copied)), None
    if tables[0].head is not None:
        columns, head = ", ".join(filter(None, [columns, WHOLE_ROW])), f"{view}_head"
        connection.execute(f"CREATE OR REPLACE VIEW {head} AS FROM read_parquet({literal(str(tables[0].head))})")
    parts = [(table.file, f"{columns}, {ROW}, {literal(table.file)} AS {FILE}", table.copy) for table in tables]
    rows = (f"SELECT {selected} FROM read_parquet({literal(str(copy))})" for _, selected, copy in parts)
    connection.execute(f"CREATE OR REPLACE VIEW {view} AS {' UNION ALL '.join(rows)}")
    return Source(
        view,
        dict.fromkeys(tables[0].header, "VARCHAR"),
        files,
        rejected=tuple(chain.from_iterable(table.rejected for table in tables)),
        warnings=(*warnings, *chain.from_iterable(table.warnings for table in tables)),
        layouts={table.file: table.layout for table in tables},
        parts=tuple(Part(str(copy), selected) for _, selected, copy in sorted(parts)),
        head=head,
    )
