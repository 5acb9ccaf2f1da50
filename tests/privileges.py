"""Run a command as a user who is not root: root writes where the mode of a file forbids it."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import stat
import sys
from pathlib import Path

from tiermodel.cli.main import main

__all__ = ["read_only", "run_without_privileges"]

_FORKS = multiprocessing.get_context("fork")


def _without_privileges(words: tuple[str, ...], told: Path) -> None:
    """Run a command without the right of root to write where the mode of a file forbids it."""
    header, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()  # capabilities of this process
    assert ctypes.CDLL(None).capset(header, none) == 0
    with told.open("w") as file:
        sys.stderr = file
        sys.argv[1:] = list(words)
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        sys.stderr.flush()
        os._exit(code)


def run_without_privileges(words: tuple[str, ...], folder: Path) -> tuple[int, str]:
    """Run a command in the current folder, and return its exit code and what it said; notes go to a folder."""
    told = folder / "told.txt"
    told.touch()
    told.chmod(0o666)
    run = _FORKS.Process(target=_without_privileges, args=(words, told))
    run.start()
    run.join(60)
    return int(run.exitcode or 0), told.read_text()


def read_only(path: Path) -> None:
    """Take the right to write from a folder and all that is in it."""
    for one in (path, *path.rglob("*")):
        one.chmod(stat.S_IMODE(one.stat().st_mode) & ~0o222 | 0o444)
