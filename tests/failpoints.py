"""Let a command fail at each of its steps on the disk in turn: by an error of the disk, or killed on the spot.

Every write, fsync, rename and unlink of our outputs passes through `tiermodel.disk`; here these are counted, and the
one asked for fails.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from tiermodel import disk
from tiermodel.cli.main import main

__all__ = ["KILL", "Failed", "failing", "failing_everywhere"]

KILL = 0
"""Stands for no errno but for the end of the process, by SIGKILL."""

_MOST = 200  # steps that a command may take
_FORKS = multiprocessing.get_context("fork")  # of a process that is warm: a command then takes a part of a second


class Failed(NamedTuple):
    """A command that ended early: the number of the step that failed, its exit code (-9: killed), its last words."""

    step: int
    code: int
    said: str


@contextmanager
def failing(step: int, error: int, *, lasting: bool = False) -> Iterator[list[str]]:
    """Let one step on the disk of this process fail, counted from 1; yield a list that names the steps as they come.

    With `lasting` every later step fails too, as on a disk that is read-only from then on.
    """
    taken: list[str] = []

    def counted(name: str, original: Callable[..., Any], *given: Any) -> Any:
        taken.append(name)
        if len(taken) == step or (lasting and len(taken) > step):
            if error == KILL:
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(error, os.strerror(error))
        return original(*given)

    originals = {name: getattr(disk, name) for name in disk.STEPS}
    for name, original in originals.items():
        setattr(disk, name, partial(counted, name, original))
    try:
        yield taken
    finally:
        for name, original in originals.items():
            setattr(disk, name, original)


def failing_everywhere(folder: Path, words: list[object], error: int) -> Iterator[Failed]:
    """Run a command in a folder again and again, each time failing one step later, until no step of it fails.

    After each run its failure is yielded, for the caller to look at what is left and to put the folder back; after the
    last, which does not fail, nothing is. A failure that the command does not tell by its exit code is a fault.
    """
    notes = folder.with_name(f"{folder.name}.notes")
    for step in range(1, _MOST):
        process = _FORKS.Process(target=_run, args=(folder, [*map(str, words)], step, error, notes))
        process.start()
        process.join(timeout=120)
        assert process.exitcode is not None, f"step {step} hangs"
        said = notes.read_text(encoding="utf-8")
        if process.exitcode == 0:
            assert step > 1
            assert int(said.split()[-1]) < step, f"step {step} fails, and the command says nothing: {said}"
            return
        yield Failed(step, process.exitcode, said)
    raise AssertionError(f"{words} takes more than {_MOST} steps")


def _run(folder: Path, words: list[str], step: int, error: int, notes: Path) -> None:
    os.chdir(folder)
    sys.argv = ["tiermodel", *words]
    with notes.open("w", encoding="utf-8") as stream, failing(step, error) as taken:
        sys.stdout = sys.stderr = stream
        main()
        stream.write(f"\nsteps: {len(taken)}\n")
