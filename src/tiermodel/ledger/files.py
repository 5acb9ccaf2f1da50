"""The files of a tier ledger: their names and notes, the lock of the folder, and what a killed run left to finish."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from tiermodel import disk
from tiermodel.errors import LedgerError, OutputBusyError, OutputError, ProjectError
from tiermodel.ledger.rows import SCHEMA
from tiermodel.locks import disk_faults, first_line, folder_lock
from tiermodel.output import settle, unsettled
from tiermodel.words import in_language

__all__ = [
    "REPEATED", "LedgerFile", "Levels", "in_force", "journal_of", "ledger_lock", "list_files", "noted", "read_rows",
]  # fmt: skip

REPEATED = [item.name for item in SCHEMA if item.type == pa.string() and item.name != "customer_id"]
"""The columns of texts that repeat, which are read as dictionaries."""
_KEY = b"tiermodel"
_NAME = re.compile(r"(\d{4}-\d{2}-\d{2})(?:\.(r?)(\d+))?")
_FIRST = 19  # columns that every file has; those added later are missing in older files
_RESTORE = "put back a copy of the file from a backup: no other file has its rows"
_WAIT_SECONDS = 5.0  # for a run that puts its files in place, which takes less


class Levels(NamedTuple):
    """The language of a ledger, and its levels, lowest first: code, Chinese name, English name."""

    language: str
    names: tuple[tuple[str, str, str], ...]

    def in_language(self, language: str) -> dict[str, str]:
        """Return the name of every code in a language."""
        return {code: in_language(language, zh, en) for code, zh, en in self.names}


@dataclass(frozen=True)
class LedgerFile:
    """A file of a ledger: a grading of one day (`sequence` 0), or the `sequence`-th override from that day on.

    `path` is where it is read. `notes` are what the file says of itself: `levels` and `language`; `reason`,
    `supersedes` (names of files that it takes the place of) and `known_on` of a grading that corrects others.
    """

    name: str
    path: Path
    day: date
    sequence: int
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def known_on(self) -> date:
        """The day from which on this file was known: its own, or the last grading when a correction was made."""
        known = self.notes.get("known_on")
        return self.day if known is None else date.fromisoformat(known)

    @property
    def supersedes(self) -> tuple[str, ...]:
        """The names of the gradings that it takes the place of."""
        return tuple(self.notes.get("supersedes", ()))

    @property
    def follows(self) -> tuple[str, ...]:
        """The name of the grading before it, which it goes on from; none in a file of version 0.1.0."""
        return tuple(self.notes.get("follows", ()))

    @property
    def levels(self) -> Levels | None:
        """The names of the levels; None in a file that does not say."""
        if "levels" not in self.notes:
            return None
        return Levels(self.notes["language"], tuple((code, zh, en) for code, zh, en in self.notes["levels"]))


def journal_of(folder: Path) -> Path:
    """Return the file that notes what a run has to put in place together."""
    return folder / ".journal.json"


@contextmanager
def ledger_lock(folder: Path) -> Iterator[None]:
    """Lock a ledger for writing while the block runs, and finish or undo first what a killed run left.

    Raises `OutputBusyError` while another run writes to the ledger.
    """
    with folder_lock(folder):
        with disk_faults(folder):
            settle(journal_of(folder))
            for stale in (*folder.glob(".*.tmp"), *folder.glob(".*.parquet.lock")):  # nobody else writes here now
                disk.unlink(stale)
        yield


def list_files(folder: Path) -> list[LedgerFile]:
    """Return the files of a ledger by name; a run that was killed between two renames has been finished, or undone.

    Where the folder cannot be written, its files are read as if that had been done. Raises `ProjectError` for a Parquet
    file that is no part of a ledger, `LedgerError` for one that is damaged.
    """
    journal = journal_of(folder)
    if journal.exists():
        with suppress(OutputBusyError, OutputError), folder_lock(folder, _WAIT_SECONDS), disk_faults(folder):
            settle(journal)
    where = {path: path for path in folder.glob("*.parquet")}
    where |= {final: now for final, now in unsettled(journal).items() if final.parent == folder}
    return [_described(final, where[final]) for final in sorted(where)]


def _described(final: Path, path: Path) -> LedgerFile:
    schema = _schema(path)
    name = _NAME.fullmatch(final.stem)
    if not set(SCHEMA.names[:_FIRST]) <= set(schema.names) or name is None:
        raise ProjectError(f"{final} is no part of a tier ledger; give the ledger a folder of its own")
    for item in SCHEMA:
        if item.name in schema.names and schema.field(item.name).type != item.type:
            words = f"{path} is damaged: column {item.name} is {schema.field(item.name).type}, not {item.type}"
            raise LedgerError(f"{words}; {_RESTORE}")
    day, again, number = name.groups()
    notes = json.loads((schema.metadata or {}).get(_KEY, b"{}"))
    return LedgerFile(final.stem, path, date.fromisoformat(day), 0 if again or not number else int(number), notes)


def _schema(path: Path) -> pa.Schema:
    with _faults(path):
        return pq.read_schema(path)


def read_rows(files: Iterable[LedgerFile]) -> pa.Table:
    """Return the rows of some files, every page checked; texts that repeat are dictionaries.

    Raises `LedgerError` for a file that is damaged.
    """
    tables = []
    for file in files:
        with _faults(file.path):
            source = pq.ParquetFile(file.path, read_dictionary=REPEATED, page_checksum_verification=True)
            table = source.read().replace_schema_metadata()
        for item in SCHEMA:
            if item.name not in table.column_names:
                table = table.append_column(item, pa.nulls(len(table), item.type))
        tables.append(table.select(SCHEMA.names))
    return pa.concat_tables(tables, promote_options="permissive") if tables else SCHEMA.empty_table()


@contextmanager
def _faults(path: Path) -> Iterator[None]:
    """Raise what Arrow says of a damaged file as a `LedgerError` that names it."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise LedgerError(f"{path} is damaged: {first_line(error)}; {_RESTORE}") from None


def in_force(files: Sequence[LedgerFile]) -> list[LedgerFile]:
    """Return the files that no other of them takes the place of."""
    gone = {name for file in files for name in file.supersedes}
    return [file for file in files if file.name not in gone]


def noted(levels: Levels | None, **notes: Any) -> pa.Schema:
    """Return the columns of a file with its notes; those that are None or empty are left out."""
    known = {} if levels is None else {"language": levels.language, "levels": levels.names}
    told = {name: value for name, value in (known | notes).items() if value}
    return SCHEMA.with_metadata({_KEY: json.dumps(told, ensure_ascii=False)} if told else None)
