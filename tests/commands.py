"""Run commands in the process of the tests, as the console script does."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NamedTuple

import pytest

from tiermodel.cli.main import main

__all__ = ["Ran", "Run", "run_command"]


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
