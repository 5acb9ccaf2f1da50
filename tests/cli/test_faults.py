"""Every verb that writes, with a step on the disk that fails, and runs that meet: a sample of bench_faults."""

from __future__ import annotations

import errno
import zlib
from pathlib import Path

import pytest

from conftest import Once
from failpoints import KILL
from writing_verbs import COMMANDS, Shop, make_shop

SLOW = {"train", "backtest", "tune", "refresh", "report", "promote", "rollback"}  # in the benchmark alone


@pytest.fixture(scope="module")
def shop(once: Once) -> Shop:
    """Make the folders that verbs start from."""
    folder: Path = once("verbs", lambda folder: make_shop(folder).templates)
    return Shop(folder)


@pytest.mark.parametrize("verb", sorted(set(COMMANDS) - SLOW))
def test_a_step_that_fails_and_a_kill_leave_old_or_new_and_the_next_run_is_whole(shop: Shop, verb: str) -> None:
    clean = shop.clean(verb)
    chosen = zlib.crc32(verb.encode())
    for error in (errno.ENOSPC if chosen % 2 else errno.EIO, KILL):
        step = 1 + chosen % len(clean.steps)
        assert shop.stopped(verb, clean, step, error) == [], (step, error)
        chosen //= 7


def test_runs_that_meet(shop: Shop) -> None:
    assert shop.at_once(3) == []
