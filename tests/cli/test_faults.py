"""Every verb that writes, with a step on the disk that fails, and runs that meet: a sample of bench_faults."""

from __future__ import annotations

import errno
import zlib
from pathlib import Path

import pytest

from conftest import Once
from failpoints import KILL
from writing_verbs import COMMANDS, Shop, make_shop

SLOW = {"train", "backtest", "tune", "refresh", "report", "monitor", "promote", "rollback", "allocate", "upgrades"}
"""What takes a second and more of its own: in the benchmark alone."""


@pytest.fixture(scope="module")
def shop(once: Once) -> Shop:
    """Make the folders that verbs start from."""
    folder: Path = once("verbs", lambda folder: make_shop(folder).templates)
    return Shop(folder)


@pytest.mark.parametrize("verb", sorted(set(COMMANDS) - SLOW))
def test_a_step_that_fails_leaves_old_or_new_and_the_next_run_is_whole(shop: Shop, verb: str) -> None:
    clean, chosen = shop.clean(verb), zlib.crc32(verb.encode())
    step, error = 1 + chosen % len(clean.steps), (errno.ENOSPC, errno.EIO, KILL)[chosen // 7 % 3]
    assert shop.stopped(verb, clean, step, error) == [], (step, error)


def test_runs_that_meet(shop: Shop) -> None:
    assert shop.at_once(3, ["score"]) == []
