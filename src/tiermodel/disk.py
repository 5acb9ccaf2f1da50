"""The steps on the disk that write our outputs: each passes through here, so that a test can let any of them fail.

Callers name the module (`disk.rename(…)`): whoever replaces a function of `STEPS` sees every step of a run.
"""

from __future__ import annotations

import ctypes
import errno
import io
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

__all__ = ["STEPS", "create", "exchange", "fsync", "make_folder", "rename", "unlink", "write", "write_bytes"]

STEPS = ("write", "fsync", "rename", "exchange", "unlink", "make_folder")
"""The names of the steps."""

_BUFFER = 1 << 20
_NO_FOLDER_SYNC = {errno.EINVAL, errno.ENOTSUP}  # of file systems that cannot do so
_NO_EXCHANGE = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EXDEV}  # the same, such as NFS
_HERE, _EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux


class _NewFile(io.FileIO):
    """A file that passes each write to the step of that name."""

    def write(self, content: Any) -> int:
        """Write some bytes, and return how many were written."""
        with _naming(self.name):
            return write(super().write, content)


def create(path: Path) -> BinaryIO:
    """Return a new file, open for writing, buffered; one that is there is overwritten."""
    return io.BufferedWriter(_NewFile(path, "w"), _BUFFER)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a new file."""
    with create(path) as file:
        file.write(content)


@contextmanager
def _naming(path: object) -> Iterator[None]:
    """Let the system's errors name the file, which those of open files do not."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def write(to: Callable[[Any], int], content: Any) -> int:
    """Write bytes by a file's own `write`, and return how many were written."""
    return to(content)


def fsync(path: Path) -> None:
    """Make what a file or the names in a folder are now outlast a loss of power.

    A file system that cannot do so for folders is no error.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        with _naming(path):
            os.fsync(handle)
    except OSError as error:
        if not path.is_dir() or error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(handle)


def rename(source: Path, target: Path) -> None:
    """Put a file or folder in the place of another."""
    source.replace(target)


def exchange(one: Path, other: Path) -> bool:
    """Let two files or folders take each other's place in one step; False where the system cannot do so.

    It is Linux that can, on most of its file systems (ext4, XFS, Btrfs, tmpfs).
    """
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return False
    if call(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _NO_EXCHANGE:
        return False
    raise OSError(number, os.strerror(number), str(one), None, str(other))


def unlink(path: Path) -> None:
    """Remove a file, a link or a whole folder, whether it is there or not."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def make_folder(path: Path) -> None:
    """Make a folder and those above it, whether they are there or not."""
    path.mkdir(parents=True, exist_ok=True)
