"""Forget one person: out of the ledger, for good, and out of every file of the folders that are named."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow.compute as pc

from tiermodel.config.project import Project
from tiermodel.crm.manifest import JOURNAL, finish_erasure
from tiermodel.erasure.exports import erase_exports, exports_of
from tiermodel.erasure.files import KINDS, digest_of, erase_json, files_below, may_name
from tiermodel.erasure.person import Person, person_of
from tiermodel.erasure.tables import erase_parquet
from tiermodel.errors import DataError, OutputBusyError, OutputError, ProjectError
from tiermodel.ledger.files import LedgerFile, journal_of, list_files, read_rows
from tiermodel.ledger.ledger import Ledger, writing
from tiermodel.ledger.tombstones import read_tombstones
from tiermodel.locks import output_lock
from tiermodel.output import JOURNAL_ENDING, Staged, settle_beside, staged
from tiermodel.tables.targets import input_files

__all__ = ["Forgotten", "forget"]

_JSON = (".json", ".jsonl")
_LOCK = re.compile(r"\.(.+)\.lock")
_TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f]{8}\.tmp")


@dataclass(frozen=True)
class Forgotten:
    """What was erased: rows by file, the pages removed, and files that still may name the person, to look at by hand.

    `short` tells that the id is a short number, which was looked for in columns of ids only.
    """

    rows: dict[str, int]
    pages: tuple[str, ...]
    left: tuple[str, ...]
    short: bool


def forget(
    project: Project, customer: str, ledger: str | Path, folders: Iterable[str | Path] = (), *, revoke: bool = False
) -> Forgotten:
    """Erase a person from a ledger and from the files of some folders, and return what was erased.

    In the ledger all rows of the person go: of every grading, superseded or not, and every override. They go together,
    or none does. A tombstone stays, and the person out of later scores and gradings with this ledger, until `revoke`
    removes it: then later rows begin anew, as those of a new customer. Files below the `folders` are replaced one by
    one, each whole or not at all, those of an export and its manifest together, so that the same command goes on where
    a killed one stopped. Rows are erased; where another text names the person, a mark takes its place; a page that
    names the person is removed. All other rows stay as they are. Digests of changed files follow in manifests, but for
    files that a run changed which was killed before it came to the manifest of another folder.

    The tables that the project reads are the user's own, and are not touched. Folders of bundles hold no rows.

    Raises
    ------
    DataError
        If nothing names the person, or a file of ours cannot be read.
    ProjectError
        If the ledger or a folder is not there, or a folder holds tables that the project reads.
    OutputBusyError
        If another run writes to the ledger or to one of the files.

    """
    book, person = Ledger(ledger).must_exist(), person_of(project, customer)
    if revoke:
        _revoke(book.folder, person, customer)
        return Forgotten({}, (), (), short=False)
    files = _files(project, [Path(folder) for folder in folders], book.folder)
    exports = exports_of(files)
    whole = {folder / name for folder, manifest in exports.items() for name in manifest.names}
    digests: dict[str, str] = {}
    tables = [path for path in files if path not in whole and path.suffix.lower() not in _JSON]
    texts = [path for path in files if path not in whole and path.suffix.lower() in _JSON]
    rows = _from_files(tables, person, digests)
    rows |= erase_exports(exports, person, digests)  # after the scores, whose digest is in the manifest
    rows |= _from_files(texts, person, digests)
    pages = [path for path in rows if not Path(path).exists()]
    rows = {path: n for path, n in rows.items() if path not in pages}
    if not rows and not pages and not _knows(book, person):
        raise DataError(
            f"nothing in {book.folder} and the folders given names customer {customer!r}: give the id as the project's "
            "tables have it"
        )
    wide = replace(person, forms=person.wide)
    rows |= _from_ledger(book.folder, person)
    left = [str(path) for path in files if path.exists() and wide.forms and _still_names(path, wide)]
    return Forgotten(rows, tuple(pages), tuple(left), short=len(person.wide) < len(person.forms))


def _files(project: Project, folders: Sequence[Path], ledger: Path) -> list[Path]:
    """Return the files to look at; `ProjectError` for a folder that is not there, or that holds the project's tables.

    Left out are the ledger and bundles. What killed runs left beside a file, and their locks, are removed.
    """
    found: dict[Path, None] = {}
    sources = input_files(project)
    for folder in folders:
        if not folder.is_dir():
            raise ProjectError(f"--in {folder}: there is no such folder; give one with scores, lists or exports")
        _finish_runs(folder)  # before what they left is removed
        for path in files_below(folder):
            whole = path.resolve()
            if not sources.isdisjoint((whole, *whole.parents)):
                raise ProjectError(
                    f"--in {folder} holds {path}, which the project reads: that is your own, and nothing here changes "
                    "it; erase the person there yourself, and give folders of results only"
                )
            if whole.is_relative_to(ledger.resolve()) or (
                (path.parent / "manifest.json").exists() and _is_bundle(path)
            ):
                continue
            found[path] = None
    return [path for path in found if not _is_left_over(path)]


def _is_left_over(path: Path) -> bool:
    """Return whether a file is a lock or what a killed run left; what no run at work holds is removed."""
    if path.name.endswith(".lock"):
        if left := _LOCK.fullmatch(path.name):  # its end removes the file, where it may be
            with suppress(OutputBusyError, OutputError), output_lock(path.with_name(left[1])):
                pass
        return True
    for part in (path, *path.parents):
        if left := _TEMPORARY.fullmatch(part.name):  # a file, or a folder of files
            with output_lock(part.with_name(left[1])):
                return True
    return False


def _finish_runs(folder: Path) -> None:
    """Finish what killed runs left to do in a folder: erasures from exports, and files that belong together."""
    for journal in [path for path in files_below(folder) if path.name.endswith(JOURNAL_ENDING)]:
        if journal.name == JOURNAL:
            finish_erasure(journal.parent)
        else:
            settle_beside(journal.with_name(journal.name[1 : -len(JOURNAL_ENDING)]))


def _is_bundle(path: Path) -> bool:
    return (path.parent / "bundle.json").exists()


def _knows(book: Ledger, person: Person) -> bool:
    """Return whether a ledger has rows of the person, or a tombstone."""
    if person.public in read_tombstones(book.folder):
        return True
    return any(pc.any(pc.equal(read_rows([file])["customer_id"], person.public)).as_py() for file in book.all_files)


def _from_ledger(folder: Path, person: Person) -> dict[str, int]:
    """Erase the person from a ledger, leaving a tombstone; return the rows by file."""
    rows: dict[str, int] = {}
    with writing(folder), staged(journal_of(folder)) as into:
        tombstones = read_tombstones(folder)
        tombstones.with_customer(person.public).write(folder, into)  # the first decides whether the others follow
        for file in list_files(folder):
            if lost := _from_grading(file, person, into):
                rows[str(file.path)] = lost
    return rows


def _from_grading(file: LedgerFile, person: Person, into: Staged) -> int:
    """Stage a file of a ledger without the person, and return how many rows it loses; an override goes as a whole."""
    if file.sequence and read_rows([file])["customer_id"].to_pylist() == [person.public]:
        into.remove(file.path)
        return 1
    return erase_parquet(file.path, person, into)


def _from_files(paths: Iterable[Path], person: Person, digests: dict[str, str]) -> dict[str, int]:
    """Erase the person from files, one by one, and return the rows of those that had some."""
    return {str(path): lost for path in paths if (lost := _from_file(path, person, digests))}


def _from_file(path: Path, person: Person, digests: dict[str, str]) -> int:
    """Erase the person from a file, if it is of a kind that we write; note its digest before and after."""
    kind = path.suffix.lower()
    if kind not in {*KINDS, *_JSON} or not ((digests and kind in _JSON) or may_name(path, person)):
        return 0
    before = digest_of(path)
    with staged() as into:
        lost = erase_json(path, person, into, digests) if kind in _JSON else KINDS[kind](path, person, into)
    if path.exists() and (after := digest_of(path)) != before:
        digests[before] = after
    return lost


def _still_names(path: Path, person: Person) -> bool:
    """Return whether a file that was not rewritten row by row has the id in its bytes."""
    return path.suffix.lower() not in {*KINDS, *_JSON} and may_name(path, person)


def _revoke(folder: Path, person: Person, customer: str) -> None:
    """Remove a person's tombstone; `DataError` where there is none."""
    with writing(folder), staged() as into:
        tombstones = read_tombstones(folder)
        if person.public not in tombstones:
            raise DataError(f"{folder} has no tombstone of customer {customer!r}: there is nothing to revoke")
        tombstones.without_customer(person.public).write(folder, into)
