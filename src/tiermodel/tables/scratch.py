"""Scratch folders: private, gone with the process that made them, or with the user's next run if it was killed."""

from __future__ import annotations

import fcntl
import os
import resource
import shutil
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

from tiermodel.errors import OutputError

__all__ = ["LIBRARIES", "new_folder", "refuse_little_memory", "remove_folder", "remove_orphans"]

LIBRARIES = 2_500_000_000
"""The addresses that libraries and threads take beside the memory for data, in bytes."""

_NAME, _TRIES = "tiermodel-", 3
_LOCKS: dict[Path, int] = {}


def refuse_little_memory(data: int = 0) -> None:
    """Raise `OutputError` where the shell limits a process's addresses to less than libraries and data take.

    `data` is the memory for data in bytes. Libraries that run out of addresses end the process, or wait for ever.
    """
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY and limit < LIBRARIES + data:
        needed, lower = -(-(LIBRARIES + data) // 1024), (limit - LIBRARIES) // 1_000_000
        instead = f", or set data.memory: {lower}MB" if lower >= 100 else ""
        raise OutputError(
            f"the shell allows a process {limit / 1e9:.1f} GB of addresses (ulimit -v {limit // 1024}), and this takes "
            f"{(LIBRARIES + data) / 1e9:.1f} GB: run ulimit -v {needed}{instead}"
        )


def new_folder() -> Path:
    """Return a new private folder, locked as long as this process lives; remove what killed runs of the user left."""
    remove_orphans()
    for _ in range(_TRIES):
        folder = Path(tempfile.mkdtemp(prefix=_NAME))
        if (lock := _locked(folder)) is not None:
            if folder.is_dir():
                _LOCKS[folder] = lock
                return folder
            os.close(lock)
        # another run took it for that of a killed one and removes it, or the file system has no locks
        shutil.rmtree(folder, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=_NAME))


def remove_folder(folder: Path) -> None:
    """Remove a folder, and let go of its lock."""
    shutil.rmtree(folder, ignore_errors=True)
    if (lock := _LOCKS.pop(folder, None)) is not None:
        os.close(lock)


def _locked(folder: Path) -> int | None:
    """Return the handle of a folder locked by this process; None where another holds it, or it is gone."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle


def remove_orphans() -> None:
    """Remove, once a process, the user's scratch folders that no living process holds; the kernel frees locks."""
    _remove_orphans(Path(tempfile.gettempdir()))


@cache
def _remove_orphans(root: Path) -> None:
    for folder in root.glob(f"{_NAME}*"):
        with suppress(OSError):
            if folder.is_symlink() or not folder.is_dir() or folder.stat().st_uid != os.getuid():
                continue
            if (lock := _locked(folder)) is not None:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(lock)
