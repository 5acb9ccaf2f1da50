"""Hold the writers to: whole or not at all, one writer at a time, nothing a spreadsheet would run."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
import stat
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from failpoints import KILL, failing
from tiermodel import disk
from tiermodel.errors import OutputBusyError, OutputError, ProjectError
from tiermodel.locks import folder_lock, held_from_here
from tiermodel.output import (
    atomic_file,
    atomic_folder,
    settle,
    settle_beside,
    staged,
    unsettled,
    write_json,
    write_table,
)

TABLE = pa.table({"customer_id": ["=1+1", "B", None], "value": [1.5, None, 3.0]})


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def fail_after_writing(path: Path, name: str) -> None:
    with atomic_folder(path) if name else atomic_file(path) as temporary:
        (temporary / name).write_text("half")
        raise RuntimeError


def test_failed_write_keeps_the_old_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    path.write_text("old")
    with pytest.raises(RuntimeError):
        fail_after_writing(path, "")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["scores.csv"]


def test_second_writer_is_refused_while_the_first_writes(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    with atomic_file(path) as temporary:
        temporary.write_text("first")
        with pytest.raises(OutputBusyError, match="another run") as refusal, atomic_file(path):
            pass
        with ThreadPoolExecutor(1) as other, pytest.raises(OutputBusyError, match="another run"):
            other.submit(write_json, 1, path).result()
    assert refusal.value.exit_code == 6
    assert path.read_text() == "first"
    with atomic_file(path) as temporary:
        temporary.write_text("second")
    assert path.read_text() == "second"


def run(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(  # noqa: S603
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_killed_run_leaves_nothing_under_the_name_and_the_next_run_cleans_up(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    code = """
        import sys, time
        from pathlib import Path
        from tiermodel.output import atomic_file
        with atomic_file(Path(sys.argv[1])) as temporary:
            temporary.write_text("half")
            print("ready", flush=True)
            time.sleep(60)
    """
    with run(code, str(path)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        with pytest.raises(OutputBusyError, match="another run"), atomic_file(path):
            pass
        process.send_signal(signal.SIGKILL)
    assert not path.exists()
    assert any(name.endswith(".tmp") for name in names(tmp_path))
    with atomic_file(path) as temporary:
        temporary.write_text("whole")
    assert names(tmp_path) == ["scores.csv"]


def test_full_disk_is_an_output_error_without_a_partial_file(tmp_path: Path) -> None:
    code = """
        import resource, sys
        from pathlib import Path
        import pyarrow as pa
        from tiermodel.errors import OutputError
        from tiermodel.output import write_table
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        try:
            write_table(pa.table({"x": [i * 0.1 for i in range(100_000)]}), Path(sys.argv[1]))
        except OutputError as error:
            print(error.exit_code)
    """
    with run(code, str(tmp_path / "scores.parquet")) as process:
        out, err = process.communicate()
    assert (out, err) == ("7\n", "")
    assert names(tmp_path) == []


def test_path_through_a_file_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"), atomic_file(tmp_path / "file" / "scores.csv"):
        pass


def test_folder_is_swapped_whole(tmp_path: Path) -> None:
    path = tmp_path / "bundle"
    for text in ("one", "two"):
        with atomic_folder(path) as temporary:
            (temporary / text).write_text(text)
    assert names(path) == ["two"]
    with pytest.raises(RuntimeError):
        fail_after_writing(path, "three")
    assert names(path) == ["two"]
    assert names(tmp_path) == ["bundle"]


def test_parquet_keeps_values_types_and_page_checksums(tmp_path: Path) -> None:
    path = tmp_path / "scores.parquet"
    write_table(TABLE, path)
    assert pq.read_table(path).equals(TABLE)
    whole = path.read_bytes()
    write_table(TABLE.to_batches(), path, TABLE.schema)
    assert path.read_bytes() == whole

    big = pa.table({"x": pa.array(range(20_000), pa.int64())})
    write_table(big, path)
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 3] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(OSError, match=r"CRC|checksum|Corrupt"):
        pq.read_table(path, page_checksum_verification=True)


def test_csv_escapes_formulas_and_keeps_missing_apart_from_text(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    write_table(TABLE, path)
    assert path.read_text() == '"customer_id","value"\n"\'=1+1",1.5\n"B",\n,3\n'


def test_other_endings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match=r"\.xls: results are written as \.parquet or \.csv"):
        write_table(TABLE, tmp_path / "scores.xls")


def test_json_keeps_chinese_and_refuses_nan(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_json({"等级": 1}, path)
    assert path.read_text(encoding="utf-8") == '{\n  "等级": 1\n}\n'
    assert json.loads(path.read_text(encoding="utf-8")) == {"等级": 1}
    with pytest.raises(ValueError, match="Out of range"):
        write_json({"x": float("nan")}, path)
    assert names(tmp_path) == ["report.json"]


def test_a_run_killed_between_the_two_renames_loses_nothing(tmp_path: Path) -> None:
    target, old = tmp_path / "bundle", tmp_path / ".bundle.old"
    old.mkdir()
    (old / "model.txt").write_text("before")
    with pytest.raises(RuntimeError), atomic_folder(target):
        raise RuntimeError
    assert (target / "model.txt").read_text() == "before"
    assert not old.exists()


def test_the_current_folder_is_refused_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    for path in (Path(), Path("/")):
        with pytest.raises(OutputError, match=r"cannot be written: Is a directory"), atomic_file(path) as temporary:
            temporary.write_text("x")
    for path in (Path(), Path("..")):
        with pytest.raises(ProjectError, match="would be replaced: give a folder in it"), atomic_folder(path):
            pass
    with atomic_folder(Path("../there/.")) as temporary:
        (temporary / "x").write_text("x")
    assert (names(tmp_path), names(here)) == (["here", "there"], [])


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    with atomic_folder(tmp_path / "link") as temporary:
        (temporary / "x").write_text("x")
    assert names(tmp_path / "kept") == []
    assert names(tmp_path / "link") == ["x"]


def test_whatever_step_fails_is_told_and_the_file_is_old_or_new(tmp_path: Path) -> None:
    path, told = tmp_path / "x.json", []
    for step in range(1, 20):
        path.write_text("old")
        with failing(step, errno.EIO) as taken:
            try:
                write_json(1, path)
            except OutputError as error:
                assert "x.json cannot be written: Input/output error" in str(error)  # noqa: PT017
                told.append(taken[step - 1])
            else:
                break
        assert path.read_text() in {"old", "1\n"}
        assert names(tmp_path) == ["x.json"]
    assert {"write", "fsync", "rename"} <= set(told)
    assert (path.read_text(), len(told)) == ("1\n", len(taken))


def test_a_file_system_that_cannot_sync_folders_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sync = os.fsync

    def cannot(handle: int, *, files_too: bool = False) -> None:
        if files_too or stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "no")
        sync(handle)

    monkeypatch.setattr(os, "fsync", cannot)
    write_json(1, tmp_path / "x.json")
    monkeypatch.setattr(os, "fsync", partial(cannot, files_too=True))
    with pytest.raises(OSError, match="no"):
        write_json(2, tmp_path / "x.json")
    assert (tmp_path / "x.json").read_text() == "1\n"
    assert names(tmp_path) == ["x.json"]


@pytest.mark.parametrize("lasting", [False, True])
def test_files_that_belong_together_are_all_old_or_all_new(tmp_path: Path, lasting: bool) -> None:
    folder, journal = tmp_path / "book", tmp_path / "book" / ".journal.json"
    first, second, third = tmp_path / "first", folder / "second", tmp_path / "third"
    seen = []
    for step in range(1, 40):
        folder.mkdir(exist_ok=True)
        for path in (first, second, third):
            path.write_text("old")
        with failing(step, errno.EROFS, lasting=lasting) as taken:
            try:
                with staged(journal) as files:
                    for path in (first, second):
                        disk.write_bytes(files.add(path), b"new")
                    files.remove(third)
            except OSError as error:
                assert error.errno == errno.EROFS  # noqa: PT017
            except OutputError:
                pass
            now = {path: path for path in (first, second)} | unsettled(journal)
            assert len({now[path].read_text() for path in (first, second)}) == 1
        settle(journal)
        assert first.read_text() == second.read_text()
        assert third.exists() == (first.read_text() == "old")
        assert not journal.exists()
        if len(taken) < step:
            break
        seen.append(first.read_text())
        assert lasting or names(tmp_path) == ["book", "first", *(["third"] if seen[-1] == "old" else [])]
        for left in (*tmp_path.glob(".*"), *folder.glob(".*")):
            left.unlink()
    assert seen == sorted(seen, reverse=True)
    assert set(seen) == {"old", "new"}


def put_two(folder: Path, step: int) -> None:
    with failing(step, KILL), staged() as files:
        for name in ("f.csv", "f.quarantine.csv"):
            files.add(folder / name).write_text("new")


def test_files_that_belong_together_are_all_old_or_all_new_once_the_next_run_has_begun(tmp_path: Path) -> None:
    seen, between = set(), 0
    for step in range(1, 13):
        here = tmp_path / str(step)
        here.mkdir()
        paths = [here / "f.csv", here / "f.quarantine.csv"]
        for path in paths:
            path.write_text("old")
        process = multiprocessing.get_context("fork").Process(target=put_two, args=(here, step))
        process.start()
        process.join(60)
        between += len({path.read_text() for path in paths}) == 2
        settle_beside(paths[0])
        (text,) = {path.read_text() for path in paths}
        seen.add(text)
        with staged() as files:  # the next run, which fails, leaves nothing of the killed one
            files.add(paths[0])
            files.add(paths[1])
            files._moves.clear()
        assert [name for name in names(here) if not name.endswith(".lock")] == ["f.csv", "f.quarantine.csv"], step
    assert (seen, between > 0) == ({"old", "new"}, True)


def test_a_run_that_holds_its_outputs_from_the_beginning_is_the_only_one(tmp_path: Path) -> None:
    out, book = tmp_path / "s.csv", tmp_path / "book"
    with held_from_here([out], [book]):
        with atomic_file(out) as temporary:
            temporary.write_text("ours")
        with folder_lock(book):
            (book / "a.parquet").write_text("ours")
        with ThreadPoolExecutor(1) as other:  # of another run, which holds nothing
            for locked in (partial(write_json, 1, out), folder_lock(book).__enter__):
                with pytest.raises(OutputBusyError, match="another run"):
                    other.submit(locked).result()
    with atomic_file(out) as temporary:
        temporary.write_text("later")
    assert names(tmp_path) == ["book", "s.csv"]
