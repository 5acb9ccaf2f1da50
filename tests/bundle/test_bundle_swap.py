"""A bundle is replaced while others read it: whole at any moment, the old one or the new one, whatever step fails."""

from __future__ import annotations

import errno
import multiprocessing
import os
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from failpoints import KILL, failing
from tiermodel import disk
from tiermodel.bundle.bundle import Bundle, load_bundle, save_bundle
from tiermodel.bundle.files import read_files
from tiermodel.errors import ModelError, TierModelError
from worlds import TrainedWorld

SWAPS, FEWEST_READS = 200, 20
FORKS = multiprocessing.get_context("fork")


@pytest.fixture(scope="module")
def two(trained: TrainedWorld) -> tuple[Bundle, Bundle]:
    first = load_bundle(trained.bundle)
    return first, replace(first, name="another")


def read_in_a_loop(folder: Path, stop: Any, found: Any) -> None:
    """Count what a reader finds: the hash of the manifest, or what it was refused with."""
    seen: Counter[str] = Counter()
    while not stop.is_set():
        try:
            seen[read_files(folder)["bundle.json"][:80].decode()] += 1
        except ModelError as error:
            seen[f"refused: {error}"] += 1
    found.put(seen)


@pytest.fixture(autouse=True)
def without_loss_of_power(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what takes most of the time; it stays a step that can fail."""
    monkeypatch.setattr(disk, "fsync", lambda _: None)


@pytest.mark.parametrize("exchanges", [True, False], ids=["exchanged", "renamed twice"])
def test_a_reader_finds_a_whole_bundle_while_another_process_replaces_it(
    two: tuple[Bundle, Bundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, exchanges: bool
) -> None:
    if not exchanges:  # as on a file system that cannot do so
        monkeypatch.setattr(disk, "exchange", lambda *_: False)
    folder = save_bundle(two[0], tmp_path / "model")
    stop, found = FORKS.Event(), FORKS.Queue()
    reader = FORKS.Process(target=read_in_a_loop, args=(folder, stop, found))
    reader.start()
    for n in range(SWAPS):
        save_bundle(two[1 - n % 2], folder)
    stop.set()
    seen = found.get(timeout=60)
    reader.join()
    assert sum(seen.values()) >= FEWEST_READS
    assert len(seen) == 2, seen
    assert not [told for told in seen if told.startswith("refused")]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_linux_exchanges_two_folders_in_one_step(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text(name)
    if not disk.exchange(tmp_path / "a", tmp_path / "b"):
        pytest.skip("the file system of the temporary folder cannot exchange")
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["b"]
    with pytest.raises(FileNotFoundError, match="absent"):
        disk.exchange(tmp_path / "absent", tmp_path / "b")


def save_and_fail(bundle: Bundle, folder: Path, step: int, error: int, exchanges: bool) -> None:
    if not exchanges:
        disk.exchange = lambda *_: False
    with failing(step, error) as taken:
        try:
            save_bundle(bundle, folder)
        except (OSError, TierModelError):
            os._exit(7)
    os._exit(0 if len(taken) < step else 8)


@pytest.mark.parametrize("exchanges", [True, False], ids=["exchanged", "renamed twice"])
@pytest.mark.parametrize("error", [KILL, errno.ENOSPC], ids=["killed", "full disk"])
def test_whatever_step_fails_the_bundle_is_the_old_or_the_new_one(
    two: tuple[Bundle, Bundle], tmp_path: Path, error: int, *, exchanges: bool
) -> None:
    old, new = two
    folder, versions = save_bundle(old, tmp_path / "model"), list[str]()
    for step in range(1, 100):
        process = FORKS.Process(target=save_and_fail, args=(new, folder, step, error, exchanges))
        process.start()
        process.join(timeout=60)
        if process.exitcode == 0:
            break
        files = read_files(folder)
        versions.append("new" if files["bundle.json"] == new._files["bundle.json"] else "old")
        assert files["bundle.json"] in {old._files["bundle.json"], new._files["bundle.json"]}
        save_bundle(old, folder)  # the next run
        assert [path.name for path in tmp_path.iterdir()] == ["model"]
    else:
        raise AssertionError("no run of it ends")
    assert versions == sorted(versions, reverse=True)  # old, then new from some step on
    assert versions[0] == "old"
    assert error != KILL or versions[-1] == "new"


def test_a_bundle_that_vanishes_while_it_is_read_is_told(
    two: tuple[Bundle, Bundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_bundle(two[0], tmp_path / "model")
    names = os.listdir

    def listed(handle: int) -> list[str]:
        found = names(handle)
        (folder / "value.txt").unlink(missing_ok=True)
        return found

    monkeypatch.setattr(os, "listdir", listed)
    with pytest.raises(ModelError, match=r"value\.txt vanished; copy the bundle again"):
        read_files(folder)
    monkeypatch.undo()
    shutil.rmtree(folder)
    with pytest.raises(ModelError, match="so this is no bundle"):
        read_files(folder)
