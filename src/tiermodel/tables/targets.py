"""What a run is going to write: proven, and locked, before the run reads a row; what fails in the end is said then."""

from __future__ import annotations

import errno
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tiermodel.config.project import Project
from tiermodel.errors import OutputError
from tiermodel.locks import SQLITE, disk_faults, held_from_here
from tiermodel.output import check_ending, check_writable, refuse_current
from tiermodel.tables.table import TABLES

__all__ = ["input_files", "targets"]

_MEGABYTE = 1_000_000
_LEAST = _MEGABYTE  # of any output with what is written beside it
_SHARE = 20  # a table of customers takes about this part of the rows that it is made of, and more where they are few
_SPREAD = 4  # rows in memory take about so many times their bytes in a compressed file


@contextmanager
def targets(
    *files: Path | None,
    tables: Sequence[Path | None] = (),
    folders: Sequence[Path] = (),
    inside: Sequence[Path] = (),
    project: Project | None = None,
) -> Iterator[None]:
    """Lock what the block is going to write, and refuse before it what could not be written in the end.

    `tables` are files whose ending says their form, `folders` are replaced as a whole, `inside` are those whose
    content is changed. With a `project`, whose rows are read, there must be room for what they will take.

    Raises `OutputError` for what cannot be written and for a disk that is too full, `OutputBusyError` for what another
    run is writing, `ProjectError` for a table of another ending and a folder that the process is in.
    """
    asked = [path for path in tables if path is not None]
    whole = [path for path in (*asked, *files) if path is not None]
    for path in asked:
        check_ending(path)
    for folder in folders:
        refuse_current(folder)
    for path in whole:
        if path.is_dir():
            raise OutputError(f"{path} cannot be written: {os.strerror(errno.EISDIR)}; give the name of a file")
    places = [*whole, *folders, *(folder / "folder" for folder in inside)]
    made = {above for path in places for above in path.absolute().parents if not above.exists()}
    for path in places:
        check_writable(path)
    _check_room([*whole, *folders], project)
    try:
        with held_from_here([*whole, *folders], inside):
            yield
    finally:
        for above in sorted(made, key=lambda path: -len(path.parts)):
            with suppress(OSError):  # it holds what was written
                above.rmdir()


def input_files(project: Project) -> set[Path]:
    """Return the files and folders that a project reads."""
    found: set[Path] = set()
    for table in (getattr(project.data, name) for name in TABLES):
        given = () if table is None or table.path is None else table.path
        paths = [given] if isinstance(given, str) else given.values() if isinstance(given, dict) else given
        for path in paths:
            place = project.resolve(path.removeprefix(SQLITE))
            matches = [place] if Path(place).exists() else glob.glob(place, recursive=True)  # noqa: PTH207  absolute
            found |= {Path(os.path.realpath(match)) for match in matches}  # resolve() raises where links go in a circle
    return found


def _check_room(outputs: Sequence[Path], project: Project | None) -> None:
    """Raise `OutputError` where a disk has less room than outputs, or the rows that do not fit in memory, will take.

    An output takes what the one takes that it replaces, which stays until it is whole; a new one a share of the rows.
    """
    rows = 0 if project is None else sum(_size(path) for path in input_files(project))
    needed: dict[int, int] = {}
    for path in outputs:
        takes = (_size(path) or rows // _SHARE) + _LEAST
        here = _existing(path.absolute().parent)
        device = here.stat().st_dev
        needed[device] = needed.get(device, 0) + takes
        _refuse_full(here, needed[device], f"{path} cannot be written", "free some, or give another place")
    memory = 0 if project is None else project.data.memory_bytes
    if project is not None and rows * _SPREAD > memory:
        scratch = Path(tempfile.gettempdir())
        takes = rows + needed.get(scratch.stat().st_dev, 0)
        _refuse_full(
            scratch,
            takes,
            f"{scratch}, where rows wait that do not fit in data.memory, is too small",
            "set TMPDIR to a folder with more room, or raise data.memory",
        )


def _refuse_full(folder: Path, needed: int, what: str, remedy: str) -> None:
    with disk_faults(folder):
        free = shutil.disk_usage(folder).free
    if free < needed:
        takes, left = (f"{size / _MEGABYTE:,.1f} MB" for size in (needed, free))
        raise OutputError(f"{what}: it takes about {takes}, and the disk of {folder} has {left} left; {remedy}")


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size if path.is_file() else 0


def _existing(folder: Path) -> Path:
    return folder if folder.exists() else _existing(folder.parent)
