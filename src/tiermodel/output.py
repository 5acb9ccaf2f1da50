"""Write results beside their final names and rename them over these: whole or not at all, several together."""

from __future__ import annotations

import codecs
import errno
import glob
import hashlib
import io
import json
import math
import os
import re
import stat
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from contextvars import ContextVar
from datetime import date, datetime
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from tiermodel import disk
from tiermodel.errors import OutputBusyError, OutputError, ProjectError
from tiermodel.locks import disk_faults, output_lock

__all__ = [
    "FORMULA",
    "FORMULA_SIGNS",
    "JOURNAL_ENDING",
    "SHEET_ROWS",
    "Staged",
    "asked_mode",
    "atomic_file",
    "atomic_folder",
    "beside",
    "check_ending",
    "check_writable",
    "escape_formulas",
    "file_sha256",
    "for_excel",
    "set_aside",
    "settle",
    "settle_beside",
    "staged",
    "to_jsonable",
    "unsettled",
    "write_json",
    "write_table",
]

FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""The signs at which a spreadsheet takes a text for a formula."""
JOURNAL_ENDING = ".journal"
"""How the name of a journal beside an output ends."""
# White space and characters that nobody sees, which a spreadsheet may pass over.
_UNSEEN = (
    "\x01-\x20\x7f-\xa0\u00ad\u034f\u061c\u115f\u1160\u1680\u17b4\u17b5\u180b-\u180e\u2000-\u200f\u2028-\u202f\u205f-\u206f"
    "\u3000\u3164\ufe00-\ufe0f\ufeff\uffa0"
)
FORMULA = f"^'*([\t\r\n]|[{_UNSEEN}]*[=+@＝＋－＠-])"
"""The pattern (of Python and RE2) of texts that get one more quote in a CSV file: formulas, with quotes before or not.

So no two texts become one, and whoever takes one quote off such a text has what it was.
"""
_IS_FORMULA = re.compile(FORMULA)
SHEET_ROWS = 1_048_576
"""The rows of a sheet, its head included."""
MODE = "TIERMODEL_OUTPUT_MODE"
"""The environment variable with the mode of every output file, in octal digits."""
_EXACT = 10**15
_FOR_EXCEL: ContextVar[bool] = ContextVar("for_excel", default=False)


class Staged:
    """Output files that are put in place together: until then, each is written beside its final name.

    `staged` makes one and puts its files in place. A journal notes what a killed run has to finish; without one that is
    given it lies beside the first file, and whoever writes that file next finishes first.
    """

    def __init__(self, locks: ExitStack, journal: Path | None) -> None:
        self._locks, self._journal, self._mode = locks, journal, asked_mode()
        self._moves: dict[Path, Path | None] = {}

    def add(self, path: Path) -> Path:
        """Return the temporary file to write in the place of `path`, which is locked until all is done.

        Raises OutputBusyError while another run writes the same path.
        """
        path = _absolute(path)
        self._locks.enter_context(output_lock(path))
        if self._journal is None:
            self._journal = journal_beside(path)
            if self._journal.exists():
                with disk_faults(path):
                    settle(self._journal)
        temporary = _temporary(path)
        self._moves[path] = temporary
        return temporary

    def remove(self, path: Path) -> None:
        """Let `path` be removed, where it is there, together with what is put in place."""
        path = _absolute(path)
        if path.exists():
            self._moves[path] = None

    def content(self, path: Path) -> Path:
        """Return where the content is that `path` will have: the temporary file, else the path itself."""
        return self._moves.get(_absolute(path)) or path

    def commit(self) -> None:
        """Put all files in place: the first of them decides, what fails before it is there leaves everything as it was.

        What fails after it is made up for by `settle`, which reads the journal.
        """
        moves = sorted(self._moves.items(), key=lambda move: move[1] is None)  # what is removed comes last
        for path, temporary in moves:
            if temporary is not None:
                with disk_faults(path):
                    _give_mode(temporary, path, self._mode)
                    disk.fsync(temporary)
        journal = self._journal if len(moves) > 1 else None
        if journal is not None:
            with disk_faults(journal):
                _write_journal(journal, moves)
        try:
            for path, temporary in moves:
                with disk_faults(path):
                    _put(path, temporary)
                    disk.fsync(path.parent)  # the first is on the disk before the second
            if journal is not None:
                with disk_faults(journal):
                    _forget(journal)
        except BaseException:
            if journal is not None:
                with suppress(OSError):
                    settle(journal)
            raise

    def clean_up(self) -> None:
        """Remove temporary files, but those that a journal still names."""
        for temporary in self._moves.values():
            if temporary is not None and temporary.exists() and not (self._journal and self._journal.exists()):
                with suppress(OSError):  # what stopped the run is what it should tell; the next run removes the file
                    disk.unlink(temporary)


@contextmanager
def staged(journal: Path | None = None) -> Iterator[Staged]:
    """Yield `Staged` files, all put in place when the block ends well, none otherwise.

    `journal` is a file that notes what a killed run has to finish: `settle` reads it. Without it that is a file beside
    the first output, which is read by whoever writes the output next. Raises OutputError for a full disk or missing
    permission.
    """
    with ExitStack() as locks:
        files = Staged(locks, journal)
        try:
            yield files
            files.commit()
        finally:
            files.clean_up()


def journal_beside(path: Path) -> Path:
    """Return the journal of an output, and of what is written together with it, where no other is given.

    >>> journal_beside(Path("features.csv")).name
    '.features.csv.journal'
    """
    return path.with_name(f".{path.name}{JOURNAL_ENDING}")


def settle_beside(path: Path) -> None:
    """Finish or undo what a run left that wrote an output, and files together with it, and was killed between two.

    Where nothing can be written, or another run is at work, nothing is done.
    """
    path = _absolute(path)
    if journal_beside(path).exists():
        with suppress(OutputBusyError, OutputError), output_lock(path), disk_faults(path):
            settle(journal_beside(path))


def asked_mode() -> int | None:
    """Return the mode that every output file gets, from the environment variable `MODE`; None where it is not set.

    Raises ProjectError for what is no mode with which the owner reads and writes.
    """
    asked = os.environ.get(MODE, "").strip()
    if not asked:
        return None
    if not re.fullmatch(r"0?[67][0-7]{2}", asked):
        raise ProjectError(
            f"{MODE}={asked!r}: expected three octal digits with which the owner reads and writes, as 600"
        )
    return int(asked, 8)


def _give_mode(temporary: Path, path: Path, mode: int | None) -> None:
    """Give a new file or folder, and all in it, the mode asked for, else that of what it replaces, if anything.

    Whoever may read a file may enter its folder.
    """
    for new in (temporary, *(temporary.rglob("*") if temporary.is_dir() else ())):
        old = path / new.relative_to(temporary)
        if mode is not None:
            new.chmod(mode | (mode & 0o444) >> 2 if new.is_dir() else mode)
        elif old.exists() and not old.is_symlink() and old.is_dir() == new.is_dir():
            new.chmod(stat.S_IMODE(old.stat().st_mode))


def settle(journal: Path) -> None:
    """Finish or undo what a run left that stopped between two renames; nothing where there is no journal.

    The first file decides: where it is there, by its digest, the others are put in place, else all are dropped.
    """
    for stale in journal.parent.glob(f"{glob.escape(journal.name)}.*.tmp"):
        disk.unlink(stale)
    for final, temporary, done in _noted(journal):
        if not done and temporary is not None:
            disk.unlink(temporary)
        elif done and (temporary is None or temporary.exists()):
            _put(final, temporary)
            disk.fsync(final.parent)
    _forget(journal)


def unsettled(journal: Path) -> dict[Path, Path]:
    """Return, for each file that a stopped run has still to put in place, where it is until then."""
    moves = _noted(journal)
    return {final: temporary for final, temporary, done in moves if done and temporary and temporary.exists()}


def _write_journal(journal: Path, moves: list[tuple[Path, Path | None]]) -> None:
    """Note the files, and the digest of the first, which decides."""
    here, digest = journal.parent, file_sha256(next(temporary for _, temporary in moves if temporary is not None))
    noted = [[_from(here, path), None if temporary is None else _from(here, temporary)] for path, temporary in moves]
    temporary = journal.with_name(f"{journal.name}.{uuid.uuid4().hex[:8]}.tmp")  # which the lock of the output removes
    try:
        disk.write_bytes(temporary, json.dumps({"sha256": digest, "moves": noted}, ensure_ascii=False).encode())
        disk.fsync(temporary)
        disk.rename(temporary, journal)
        disk.fsync(here)
    except BaseException:
        for path in (journal, temporary):
            with suppress(OSError):
                disk.unlink(path)
        raise


def _noted(journal: Path) -> list[tuple[Path, Path | None, bool]]:
    """Return the moves of a journal: the final path, the temporary (None: to remove), and whether it is to be done."""
    try:
        found = json.loads(journal.read_bytes())
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise OutputError(f"{journal} is damaged: {error}; remove it once no run is at work there") from None
    moves = [(journal.parent / final, journal.parent / old if old else None) for final, old in found["moves"]]
    done = moves[0][0].exists() and file_sha256(moves[0][0]) == found["sha256"]
    return [(final, temporary, done) for final, temporary in moves]


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _from(folder: Path, path: Path) -> str:
    """Return a path as seen from a folder, if it is in there: the folder may be moved."""
    return path.name if path.parent == folder.absolute() else str(path)


def _put(path: Path, temporary: Path | None) -> None:
    if temporary is None:
        disk.unlink(path)
    else:
        disk.rename(temporary, path)


def _forget(journal: Path) -> None:
    if journal.exists():
        disk.unlink(journal)
        disk.fsync(journal.parent)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, and put the file in place when the block ends well.

    Raises OutputBusyError while another run writes the same path, OutputError for a full disk or missing permission.
    """
    with staged() as files:
        temporary = files.add(path)
        with disk_faults(path):
            yield temporary


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder beside `path`, and put it in the place of `path` when the block ends well.

    An earlier folder and the new one take each other's place in one step, so that there is a whole one at any moment.
    Where the file system cannot do so, there is none of that name between two renames; the earlier one is `set_aside`
    then. Raises what `atomic_file` raises, and ProjectError for a folder that the process is in.
    """
    path = _absolute(path)
    refuse_current(path)
    mode = asked_mode()
    with output_lock(path), disk_faults(path):
        temporary, old = _temporary(path), set_aside(path)
        if old.exists() and not path.exists():  # a run was killed between two renames
            disk.rename(old, path)
        disk.unlink(old)
        disk.make_folder(temporary)
        try:
            yield temporary
            _give_mode(temporary, path, mode)
            for file in (*sorted(temporary.rglob("*")), temporary):
                disk.fsync(file)
            if not path.exists():
                disk.rename(temporary, path)
            elif not disk.exchange(temporary, path):
                disk.rename(path, old)
                disk.rename(temporary, path)
            disk.fsync(path.parent)  # the new folder is on the disk before the earlier one is removed
        finally:
            if old.exists() and not path.exists():
                disk.rename(old, path)
            disk.unlink(temporary)
            disk.unlink(old)


def set_aside(path: Path) -> Path:
    """Return where a folder is while another takes its place, where the file system cannot do that in one step."""
    return path.with_name(f".{path.name}.old")


def refuse_current(folder: Path) -> None:
    """Raise ProjectError for a folder that the process is in: it would stay in the old one after a swap."""
    if Path.cwd().is_relative_to(folder.resolve()):
        raise ProjectError(f"{folder} is the current folder, or holds it, and would be replaced: give a folder in it")


def check_writable(path: Path) -> None:
    """Raise OutputError where a file or folder could not be put in this place; nothing stays of the trial.

    It is for work that takes long: what cannot be written in the end is said before it starts.
    """
    path = _absolute(path)
    new = [folder for folder in path.parents if not folder.exists()]
    temporary = _temporary(path)
    with disk_faults(path):
        try:
            disk.make_folder(path.parent)
            disk.write_bytes(temporary, b"\0")
            disk.unlink(temporary)
        except BaseException:
            with suppress(OSError):
                disk.unlink(temporary)
            raise
        finally:
            for folder in new:
                with suppress(OSError):  # another run has put something into it
                    folder.rmdir()


def beside(path: Path, name: str) -> Path:
    """Return the file of a further table beside an output.

    >>> beside(Path("outcomes.csv"), "base").name
    'outcomes.base.csv'
    """
    return path.with_name(f"{path.stem}.{name}{path.suffix}")


def write_table(
    table: pa.Table | Iterable[pa.RecordBatch],
    path: Path,
    schema: pa.Schema | None = None,
    *,
    into: Staged | None = None,
) -> None:
    """Write rows as Parquet (page checksums), CSV (formula-like text made harmless) or a workbook, by the ending.

    Batches need `schema`. The file is put in place with the others of `into`, at once without it. Raises ProjectError
    for any other ending, and for more rows than a sheet has.
    """
    check_ending(path)
    batches: Iterable[pa.RecordBatch] = table.to_batches() if isinstance(table, pa.Table) else table
    schema = table.schema if isinstance(table, pa.Table) else schema
    if schema is None:
        raise TypeError("batches need a schema")
    write = _WRITERS[path.suffix.lower()]
    with nullcontext(into) if into is not None else staged() as files:
        temporary = files.add(path)
        with disk_faults(path), disk.create(temporary) as file:
            write(batches, file, schema)


def check_ending(path: Path) -> None:
    """Raise ProjectError where the ending of a file says no form in which a table is written."""
    if path.suffix.lower() not in _WRITERS:
        raise ProjectError(f"{path}: results are written as .parquet or .csv, or .xlsx; give one of these endings")


def _write_parquet(batches: Iterable[pa.RecordBatch], file: BinaryIO, schema: pa.Schema) -> None:
    # On float64 features snappy writes a third faster than zstd at level 1, for a fifth more bytes.
    texts = [item.name for item in schema if _is_text(item.type)]
    with pq.ParquetWriter(file, schema, compression="snappy", use_dictionary=texts, write_page_checksum=True) as writer:
        for batch in batches:
            writer.write_batch(batch)


def _write_csv(batches: Iterable[pa.RecordBatch], file: BinaryIO, schema: pa.Schema) -> None:
    if _FOR_EXCEL.get():
        file.write(codecs.BOM_UTF8)
    with pa.csv.CSVWriter(file, schema) as writer:
        for batch in batches:
            columns = [_escaped_column(column) if _is_text(column.type) else column for column in batch.columns]
            writer.write_batch(pa.record_batch(columns, schema=schema))


@contextmanager
def for_excel(asked: bool = True) -> Iterator[None]:
    """Begin every CSV that is written in this block with a byte order mark, without which Excel garbles Chinese."""
    token = _FOR_EXCEL.set(asked)
    try:
        yield
    finally:
        _FOR_EXCEL.reset(token)


def _write_workbook(batches: Iterable[pa.RecordBatch], file: BinaryIO, schema: pa.Schema) -> None:
    """Write a workbook of one sheet, row by row; ids and numbers of more than 15 digits are text, so nothing is lost.

    The same rows give the same bytes. A text is never a formula or a link; what is not known is an empty cell.
    """
    import xlsxwriter  # noqa: PLC0415  needed here alone

    scratch = Path(file.name).with_suffix(".rows.tmp")  # beside the output, whose next writer removes what a kill left
    archive = io.BytesIO()  # xlsxwriter would hide an error of the disk, and its archive fail again
    disk.make_folder(scratch)
    try:
        options = {"constant_memory": True, "tmpdir": str(scratch)}
        with xlsxwriter.Workbook(archive, options) as book:
            book.set_properties({"created": datetime(2000, 1, 1)})  # noqa: DTZ001  no clock: the same bytes
            sheet, day = book.add_worksheet(), book.add_format({"num_format": "yyyy-mm-dd"})
            for place, name in enumerate(schema.names):
                sheet.write_string(0, place, name)
            row = 0
            for batch in batches:
                if row + batch.num_rows >= SHEET_ROWS:
                    raise ProjectError(f"a sheet has {SHEET_ROWS:,} rows, and there are more: write .csv or .parquet")
                for cells in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    row += 1
                    for place, (name, cell) in enumerate(zip(schema.names, cells, strict=True)):
                        _write_cell(sheet, row, place, str(cell) if _is_id(name, cell) else cell, day)
            sheet.freeze_panes(1, 0)
    finally:
        disk.unlink(scratch)
    file.write(archive.getbuffer())


def _is_id(name: str, cell: Any) -> bool:
    return cell is not None and (name.endswith("_id") or (isinstance(cell, int) and abs(cell) >= _EXACT))


def _write_cell(sheet: Any, row: int, place: int, cell: Any, day: Any) -> None:
    if isinstance(cell, str):
        if sheet.write_string(row, place, cell):
            raise ProjectError(f"row {row}: a text of {len(cell):,} characters is longer than a cell of a sheet holds")
    elif isinstance(cell, bool):
        sheet.write_boolean(row, place, cell)
    elif isinstance(cell, date):  # a moment is one, too
        sheet.write_datetime(row, place, cell, day)
    elif cell is not None and math.isfinite(cell):
        sheet.write_number(row, place, cell)


_WRITERS = {".parquet": _write_parquet, ".csv": _write_csv, ".xlsx": _write_workbook}


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _escaped_column(column: pa.Array) -> pa.Array:
    dangerous = pc.match_substring_regex(column, FORMULA)
    quote, nothing = pa.scalar("'", column.type), pa.scalar("", column.type)
    return pc.if_else(dangerous, pc.binary_join_element_wise(quote, column, nothing), column)


def escape_formulas(cell: str) -> str:
    r"""Return the cell as text that no spreadsheet takes for a formula; no two cells become one.

    >>> escape_formulas("=1+1"), escape_formulas("'=1+1"), escape_formulas("\u200b=1"), escape_formulas("A-1")
    ("'=1+1", "''=1+1", "'\u200b=1", 'A-1')
    """
    return "'" + cell if _IS_FORMULA.match(cell) else cell


def write_json(value: Any, path: Path, *, into: Staged | None = None) -> None:
    """Write a value as indented UTF-8 JSON with keys in their order; NaN and infinity are refused.

    The file is put in place with the others of `into`, at once without it.
    """
    text = json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False)
    with nullcontext(into) if into is not None else staged() as files:
        temporary = files.add(path)
        with disk_faults(path):
            disk.write_bytes(temporary, f"{text}\n".encode())


def to_jsonable(value: Any) -> Any:
    """Return the value as JSON can hold it: keys as text, NumPy numbers as Python's, NaN and infinity as null.

    >>> to_jsonable({1: (np.float64(0.5), float("nan"))})
    {'1': [0.5, None]}
    """
    if isinstance(value, Mapping):
        return {str(key): to_jsonable(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [to_jsonable(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _absolute(path: Path) -> Path:
    """Return the absolute path, which must end in a name (`/` does not); links are not followed."""
    path = Path(os.path.abspath(path))  # noqa: PTH100 pathlib's own keeps `..`, or follows links
    if not path.name:
        raise OutputError(f"{path} cannot be written: {os.strerror(errno.EISDIR)}")
    return path


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
