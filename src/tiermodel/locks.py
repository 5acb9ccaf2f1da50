"""Locks beside files and databases, so that one run writes at a time; the lock of a killed run ends with it."""

from __future__ import annotations

import errno
import glob
import os
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

from filelock import FileLock, Timeout

from tiermodel import disk
from tiermodel.errors import OutputBusyError, OutputError

__all__ = [
    "SQLITE", "database_lock", "database_of", "disk_faults", "first_line", "folder_lock", "held_from_here",
    "output_lock",
]  # fmt: skip

SQLITE = "sqlite:///"
"""How the address of a SQLite store begins."""

WAIT_SECONDS = 120.0  # for a database
_HELD: ContextVar[frozenset[Path]] = ContextVar("held", default=frozenset())
_FAULTS = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.EFBIG),
    *(errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG),
}


@contextmanager
def held_from_here(outputs: Collection[Path], folders: Collection[Path] = ()) -> Iterator[None]:
    """Lock outputs, and what is in some folders, until the block ends; whoever locks them within it has them already.

    So a run that takes long is refused in its beginning and not in its end. Raises what `output_lock` raises.
    """
    with ExitStack() as locks:
        for path in outputs:
            locks.enter_context(output_lock(path.absolute()))
        for folder in folders:
            locks.enter_context(folder_lock(folder))
        mine = {path.absolute() for path in outputs} | {_inside(folder).absolute() for folder in folders}
        token = _HELD.set(_HELD.get() | mine)
        try:
            yield
        finally:
            _HELD.reset(token)


@contextmanager
def output_lock(path: Path) -> Iterator[None]:
    """Lock an output while the block runs, and remove the temporary files that killed runs left beside it.

    Raises OutputBusyError while another run holds the lock, OutputError where it cannot be made.
    """
    with _held(path, 0, f"{path} is being written by another run: wait, or give another name"):
        with disk_faults(path):
            for stale in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
                disk.unlink(stale)
        yield


@contextmanager
def folder_lock(folder: Path, seconds: float = 0) -> Iterator[None]:
    """Lock what is in a folder while the block runs; the folder is made, and removed if it is empty in the end.

    Raises what `output_lock` raises, after so many seconds of waiting.
    """
    busy = f"{folder} is being written by another run: wait until it has ended, then run again"
    new = not folder.exists()
    try:
        with _held(_inside(folder), seconds, busy):
            yield
    finally:
        if new and folder.exists():
            with suppress(OSError):  # it is not empty
                folder.rmdir()


def _inside(folder: Path) -> Path:
    """Return the name whose lock is that of what is in a folder."""
    return folder / "folder"


@contextmanager
def _held(path: Path, seconds: float, busy: str) -> Iterator[None]:
    if path.absolute() in _HELD.get():
        yield
        return
    with disk_faults(path):
        lock = _acquire(path, seconds, busy)
    try:
        yield
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)  # before the release: the next run makes its own
        lock.release()


@contextmanager
def database_lock(database: Path) -> Iterator[None]:
    """Lock a database while the block runs; OutputBusyError after two minutes of waiting."""
    busy = f"{database} is in use by another run for minutes: wait for it, or stop it"
    lock = _acquire(database, WAIT_SECONDS, busy)
    try:
        yield
    finally:
        lock.release()


def _acquire(path: Path, seconds: float, busy: str) -> FileLock:
    """Return the acquired lock `.NAME.lock` beside a path; every call makes a lock of its own, in one process too."""
    disk.make_folder(path.parent)
    # A soft lock, the fallback of file systems without locks, would outlive a killed run.
    lock = FileLock(path.with_name(f".{path.name}.lock"), seconds, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        raise OutputBusyError(busy) from None
    return lock


def database_of(uri: str) -> Path | None:
    """Return the file of a SQLite store, from the current directory where it is relative; None for other stores."""
    return Path(uri.removeprefix(SQLITE)).absolute() if uri.startswith(SQLITE) else None


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or the name of its class where the message is empty."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


@contextmanager
def disk_faults(path: Path) -> Iterator[None]:
    """Raise a full disk, missing permission or impossible path as an OutputError about `path`."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FAULTS:
            raise
        raise OutputError(f"{path} cannot be written: {os.strerror(error.errno or 0)}") from error
