"""Run commands as the console script does: in the process of the tests, or in one of their own."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

import tiermodel
from failpoints import failing
from tiermodel.cli.main import main
from worlds import bare_backtests, bare_runs, quick_fits

__all__ = ["FORKS", "Ran", "Run", "Started", "run_command"]


def _ours() -> list[str]:
    """Name the modules of ours, but those of extras; a module of the tests would be passed over without a word."""
    top = Path(tiermodel.__file__).parent
    found = (
        ".".join(("tiermodel", *path.relative_to(top).with_suffix("").parts)) for path in sorted(top.rglob("*.py"))
    )
    return [
        name
        for name in found
        if not name.startswith(("tiermodel.serving", "tiermodel.engines.spark")) and not name.endswith("__")
    ]


FORKS = multiprocessing.get_context("forkserver")
"""Forks a process without threads that has imported what takes seconds."""
FORKS.set_forkserver_preload([*_ours(), "optuna", "altair", "matplotlib.pyplot", "xlsxwriter"])


class Ran(NamedTuple):
    """What a command left: its exit code and what it wrote to each stream."""

    code: int
    out: str
    err: str


Run = Callable[..., Ran]


def run_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: object) -> Ran:
    """Run `tiermodel` with these words in the current folder."""
    monkeypatch.setattr(sys, "argv", ["tiermodel", *map(str, words)])
    capsys.readouterr()
    try:
        main()
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    return Ran(code, *capsys.readouterr())


class Started:
    """A command at work in a folder, in a process of its own, whose streams go to files beside that folder.

    It fits quickly: what it finds does not matter, only that it is at work. Its scratch is the folder `scratch` in its
    folder, where there is one. With a `fault`, the number of a step on the disk and an errno (or `KILL`), that step
    fails; `bare` leaves out what takes longest.
    """

    def __init__(self, folder: Path, *words: object, fault: tuple[int, int] | None = None, bare: bool = False) -> None:
        number = len(list(folder.parent.glob(f"{folder.name}.*.out")))
        self._out, self._err = (folder.with_name(f"{folder.name}.{number}.{name}") for name in ("out", "err"))
        self._out.touch()
        self._err.touch()
        given = str(folder), [str(self._out), str(self._err)], ["tiermodel", *map(str, words)], fault, bare
        self.process = FORKS.Process(target=_as_a_user, args=given)
        self.process.start()

    @property
    def said(self) -> str:
        """What the command wrote to its error stream so far."""
        return self._err.read_text(encoding="utf-8")

    @property
    def steps(self) -> list[str]:
        """The steps on the disk that a command with a fault took until it ended."""
        return self._err.with_suffix(".steps").read_text(encoding="utf-8").split()

    def wait(self) -> Ran:
        """Return what the command left, once it has ended; fail after two minutes."""
        self.process.join(timeout=120)
        assert self.process.exitcode is not None, self.said
        return Ran(self.process.exitcode, self._out.read_text(encoding="utf-8"), self.said)


def _as_a_user(folder: str, streams: list[str], words: list[str], fault: tuple[int, int] | None, bare: bool) -> None:
    for number, name in enumerate(streams, start=1):
        os.dup2(os.open(name, os.O_WRONLY), number)
    os.chdir(folder)
    scratch = Path(folder, "scratch")
    tempfile.tempdir = str(scratch) if scratch.is_dir() else None
    sys.argv = words
    with ExitStack() as stack:
        stack.enter_context(quick_fits())
        for less in (bare_runs, bare_backtests) if bare else ():
            stack.enter_context(less())
        taken = [] if fault is None else stack.enter_context(failing(*fault))
        try:
            main()
        finally:
            atexit._run_exitfuncs()  # which multiprocessing leaves out: scratch goes with its connection, or here
            Path(streams[-1]).with_suffix(".steps").write_text("\n".join(taken), encoding="utf-8")
