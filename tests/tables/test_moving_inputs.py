"""Inputs that move: written while they are read, not written to the end, or named as an output; and scratch folders."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from commands import Run
from tiermodel.config.project import Project
from tiermodel.engines.dispatch import open_history
from tiermodel.errors import DataError, ProjectError
from tiermodel.features.export import write_features
from tiermodel.quality.check import check
from tiermodel.tables.history import read_history

SPARKS = "part-00000-0a1b2c3d-0a1b-2c3d-4e5f-0123456789ab-c000.snappy.parquet"


def table(ids: list[str]) -> pa.Table:
    return pa.table({"id": ids, "t": [date(2024, 1, 5)] * len(ids), "amount": [5.0] * len(ids)})


def project(path: Path, **more: Any) -> Project:
    columns = {"customer_id": "id", "time": "t", "amount": "amount"}
    data = {"transactions": {"path": str(path), "columns": columns}}
    return Project.model_validate({"version": 1, "name": "shop", "data": data, **more})


@pytest.mark.parametrize("how", ["written", "renamed", "gone"])
def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path, how: str) -> None:
    path, other = tmp_path / "s.parquet", tmp_path / "o.parquet"
    pq.write_table(table(["A", "B"]), path)
    pq.write_table(table(["C", "D"]), other)
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    assert path.stat().st_size == other.stat().st_size
    history = open_history(project(path))
    if how == "written":
        path.write_bytes(other.read_bytes())
        os.utime(path, ns=times)  # of equal length and time
    elif how == "renamed":
        other.rename(path)
    else:
        path.unlink()
    with pytest.raises(DataError if how != "gone" else Exception, match=r"TM1014 .*s.parquet changed|No files found"):
        write_features(project(path), "latest", tmp_path / "f.parquet", history=history)
    assert not (tmp_path / "f.parquet").exists()
    if how != "gone":
        with pytest.raises(DataError, match="TM1014"):
            check(project(path), history=history)


def test_what_spark_did_not_finish_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "sales"
    (folder / "day=1").mkdir(parents=True)
    pq.write_table(table(["A"]), folder / "day=1" / SPARKS)
    with pytest.raises(DataError, match=r"TM1012 .*has no _SUCCESS"):
        read_history(project(folder))
    assert read_history(project(folder / "**" / "*.parquet")).account.read == 1  # as the remedy says
    (folder / "_SUCCESS").touch()
    assert read_history(project(folder)).account.read == 1
    assert read_history(project(folder / "day=1")).account.read == 1
    (folder / "_temporary" / "0").mkdir(parents=True)
    with pytest.raises(DataError, match=r"TM1012 .*_temporary is there"):
        read_history(project(folder))


def test_an_output_never_replaces_an_input(tmp_path: Path, cli: Run) -> None:
    pq.write_table(table(["A"]), tmp_path / "s.parquet")
    (tmp_path / "link.parquet").symlink_to(tmp_path / "s.parquet")
    (tmp_path / "hard.parquet").hardlink_to(tmp_path / "s.parquet")
    before = (tmp_path / "s.parquet").read_bytes()
    data = project(tmp_path / "s.parquet").model_dump(mode="json", exclude={"folder"}, exclude_none=True)
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(data), encoding="utf-8")
    (tmp_path / "x").mkdir()
    for name in ("s.parquet", "./x/../s.parquet", "link.parquet", "hard.parquet"):
        done = cli("features", "p.yaml", "--as-of", "latest", "--out", name)
        assert (done.code, "is one of the inputs" in done.err) == (2, True), name
    assert (tmp_path / "s.parquet").read_bytes() == before
    (tmp_path / "o.quarantine.csv").write_text("id,t,amount\nA,2024-01-05,1\n", encoding="utf-8")
    with pytest.raises(ProjectError, match="is one of the inputs"):
        write_features(project(tmp_path / "o.quarantine.csv"), "latest", tmp_path / "o.csv")


AT_WORK = """
import sys, time
from tiermodel.cli import main as cli
from tiermodel.config.project import load_project
from tiermodel.tables.history import read_history

def wait(*_, **__):
    history = read_history(load_project("p.yaml"))
    print("at work", flush=True)
    time.sleep(60)

cli.run.commands["check"].callback = wait
sys.argv = ["tiermodel", "check", "p.yaml"]
cli.main()
"""


def at_work(folder: Path) -> subprocess.Popen[str]:
    """Start a run that has read a CSV file, whose copy is in a scratch folder, and waits."""
    (folder / "s.csv").write_text("id,t,amount\nA,2024-01-05,1\n", encoding="utf-8")
    data = project(folder / "s.csv").model_dump(mode="json", exclude={"folder"}, exclude_none=True)
    (folder / "p.yaml").write_text(yaml.safe_dump(data), encoding="utf-8")
    (folder / "scratch").mkdir(exist_ok=True)
    environment = {**os.environ, "TMPDIR": str(folder / "scratch")}
    run = subprocess.Popen(  # noqa: S603
        [sys.executable, "-c", AT_WORK], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert run.stdout is not None
    assert run.stdout.readline() == "at work\n"
    assert list((folder / "scratch").glob("tiermodel-*"))
    return run


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_run_and_leaves_nothing(number: signal.Signals, tmp_path: Path) -> None:
    run = at_work(tmp_path)
    run.send_signal(number)
    _, said = run.communicate(timeout=60)
    assert run.returncode == 128 + number
    assert said.strip().endswith("stopped")
    assert "Traceback" not in said
    assert not list((tmp_path / "scratch").iterdir())


def test_what_a_killed_run_leaves_is_gone_with_the_next_and_a_living_one_keeps_its_own(tmp_path: Path) -> None:
    living = at_work(tmp_path)
    own = set((tmp_path / "scratch").iterdir())
    killed = at_work(tmp_path)
    left = set((tmp_path / "scratch").iterdir()) - own
    killed.kill()
    killed.communicate(timeout=60)
    assert left
    third = at_work(tmp_path)
    now = set((tmp_path / "scratch").iterdir())
    assert not left & now
    assert own <= now
    for run in (living, third):
        run.terminate()
        run.communicate(timeout=60)
    assert not list((tmp_path / "scratch").iterdir())
