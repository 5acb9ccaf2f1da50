"""Every verb that writes says in its beginning what would stop it in the end: each obstacle, before a row is read.

The sources of the verbs are traps: they are not there, so that whoever reads before looking ends with another code.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from commands import Run
from privileges import read_only, run_without_privileges
from tiermodel.locks import folder_lock, output_lock
from worlds import small_project
from writing_verbs import COMMANDS, MAPPING, READS, every_verb

OTHERS = {  # where what stops them is held to elsewhere, by verb
    "promote", "rollback",  # a store that is read-only or silent: test_before_the_work; promoters at once: test_promote
    "ledger override", "ledger show", "forget",  # of a ledger that must be there: below
}  # fmt: skip
VERBS = sorted(set(COMMANDS) - OTHERS)


class Usage(NamedTuple):
    """What there is of a disk, in bytes."""

    total: int
    used: int
    free: int


def target_of(verb: str) -> Path:
    """Give what a verb writes."""
    words = COMMANDS[verb].words
    return Path("runs/folder") if verb == "refresh" else Path(words[words.index("--out") + 1])


def locked_of(verb: str) -> Path:
    return target_of(verb) / "lists" if verb == "lists" else target_of(verb)


@pytest.fixture
def shop(cli: Run, empty_store: Path, tmp_path: Path) -> Path:
    """Make a folder with a project file and nothing that it reads."""
    assert cli is not None  # which goes there
    (tmp_path / "store").mkdir()
    shutil.copy(empty_store, tmp_path / "store" / "mlflow.db")
    project = small_project(Path("never-read.parquet"), name="shop")
    settings = project.model_dump(mode="json", exclude={"folder"}, exclude_none=True)
    settings["tracking"] = {"uri": "sqlite:///store/mlflow.db"}
    (tmp_path / "shop.yaml").write_text(json.dumps(settings))
    (tmp_path / "desk.yaml").write_text(yaml.safe_dump(MAPPING))
    return tmp_path


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.name != ".mlflow.db.lock"}


def test_no_verb_is_forgotten() -> None:
    assert every_verb() == set(COMMANDS) | READS


@pytest.mark.parametrize("verb", VERBS)
def test_the_trap_works(cli: Run, shop: Path, verb: str) -> None:
    before = names(shop)
    assert cli(*COMMANDS[verb].words).code not in {0, 6, 7, 8}
    assert names(shop) - before <= {"models.yaml", "tune.db", "store/tune.db"}


@pytest.mark.parametrize("verb", VERBS)
def test_a_busy_target(cli: Run, shop: Path, verb: str) -> None:
    with folder_lock(shop / "runs") if verb == "refresh" else output_lock(shop / locked_of(verb)):
        done = cli(*COMMANDS[verb].words)
    assert (done.code, "is being written by another run: wait" in done.err) == (6, True), done.err


def test_a_busy_ledger(cli: Run, shop: Path) -> None:
    with folder_lock(shop / "book"):
        done = cli(*COMMANDS["score"].words)
    assert (done.code, "book is being written by another run" in done.err) == (6, True), done.err
    assert "s.parquet" not in names(shop)


@pytest.mark.parametrize("verb", VERBS)
def test_a_read_only_folder(shop: Path, verb: str) -> None:
    read_only(shop)
    for one in (shop / "store", shop / "store" / "mlflow.db"):
        one.chmod(0o777)
    code, said = run_without_privileges(COMMANDS[verb].words, shop)
    assert (code, "Traceback" in said) == (7, False), said
    assert "cannot be written: Permission denied" in said


@pytest.mark.parametrize("verb", sorted(set(VERBS) - {"refresh"}))
def test_a_full_disk(cli: Run, shop: Path, verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []

    def usage(folder: Path) -> Any:
        asked.append(folder)
        return Usage(10**9, 10**9 - 300_000, 300_000)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    done = cli(*COMMANDS[verb].words)
    assert done.code == 7, done.err
    assert "it takes about 1.0 MB" in done.err
    assert "has 0.3 MB left" in done.err
    assert asked[0] == shop


def test_an_output_that_is_there_stands_for_the_size_of_the_next(
    cli: Run, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (shop / "f.csv").write_bytes(b"0" * 5_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, 5_500_000))
    done = cli(*COMMANDS["features"].words)
    assert (done.code, "it takes about 6.0 MB" in done.err) == (7, True), done.err


def test_rows_that_do_not_fit_in_memory_need_scratch(cli: Run, shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (shop / "never-read.parquet").open("wb") as file:
        file.truncate(400_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, 300_000_000))
    done = cli(*COMMANDS["score"].words)
    assert (done.code, "set TMPDIR to a folder with more room, or raise data.memory" in done.err) == (7, True), done.err


@pytest.mark.parametrize("verb", ["features", "score", "upgrades", "backtest", "outcomes", "allocate"])
@pytest.mark.usefixtures("shop")
def test_another_ending(cli: Run, verb: str) -> None:
    swap = {"f.csv": "f.txt", "s.parquet": "s.txt", "u.xlsx": "u.xls", "p.parquet": "p", "o.csv": "o.doc", "a.csv": "a"}
    done = cli(*(swap.get(word, word) for word in COMMANDS[verb].words))
    assert (done.code, "results are written as .parquet or .csv, or .xlsx" in done.err) == (2, True), done.err
    assert "never-read" not in done.err


@pytest.mark.parametrize("verb", sorted(set(VERBS) - {"refresh", "train", "export", "init", "lists"}))
def test_a_folder_where_a_file_is_to_be(cli: Run, shop: Path, verb: str) -> None:
    (shop / target_of(verb)).mkdir()
    done = cli(*COMMANDS[verb].words)
    assert (done.code, "Is a directory" in done.err) == (7, True), done.err


@pytest.mark.parametrize(
    ("verb", "package", "remedy"),
    [
        ("tune", "optuna", "tiermodel[tune]"),
        ("report", "vl_convert", "tiermodel[report]"),
        ("serve", "uvicorn", "[serve]"),
    ],
)
@pytest.mark.usefixtures("shop")
def test_a_missing_extra(cli: Run, verb: str, package: str, remedy: str, monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "tiermodel.serving.server", raising=False)
    words = ("serve", "shop.yaml", "--model", "bundle") if verb == "serve" else COMMANDS[verb].words
    done = cli(*words)
    assert (done.code, remedy in done.err) == (2, True), done.err


def test_an_error_of_which_the_system_names_no_file(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        words = [sys.executable, "-m", "tiermodel", "show", "codes"]
        done = subprocess.run(words, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, check=False)  # noqa: S603
    assert done.returncode == 7
    assert f"the system does not say where: look at the disks of {tmp_path}" in done.stderr
