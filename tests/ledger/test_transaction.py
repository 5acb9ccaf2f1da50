"""Scores and ledger are one transaction: both new or both old, wherever a run ends; one run writes at a time."""

from __future__ import annotations

import errno
import multiprocessing
import re
import shutil
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa
import pytest
import yaml

from commands import Run
from failpoints import KILL, failing, failing_everywhere
from tiermodel.cli.main import main
from tiermodel.errors import OutputBusyError, OutputError
from tiermodel.features.panel import Tally, snapshot_batches
from tiermodel.ledger.files import journal_of, ledger_lock
from tiermodel.ledger.ledger import Ledger
from tiermodel.output import staged
from tiermodel.predict import batch, score
from worlds import TrainedWorld

FIRST, SECOND = date(2023, 6, 1), date(2023, 7, 31)
WHOLE = ["book/2023-06-01.parquet", "book/2023-07-31.parquet", "s.parquet", "s.quarantine.csv"]


class Shop(NamedTuple):
    """A folder with scores and a ledger of `FIRST`, and the same folder once `SECOND` is graded too."""

    old: Path
    new: Path
    project: Path
    bundle: Path

    def words(self, day: date = SECOND, out: str = "s.parquet") -> list[object]:
        """Give the words of a command that scores a date."""
        return ["score", self.project, "--model", self.bundle, "--as-of", day, "--out", out, "--ledger", "book"]


@pytest.fixture(scope="module")
def shop(trained: TrainedWorld, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """Score a few customers, one of whose rows is bad."""
    folder = tmp_path_factory.mktemp("shop")
    rows = pd.read_parquet(str(trained.project.data.transactions.path))
    few = rows[rows["customer"].isin(rows["customer"].unique()[:40])]
    pd.concat([few, few.head(1).assign(amount=float("nan"))]).to_csv(folder / "rows.csv", index=False)
    settings = trained.project.model_dump(mode="json", exclude={"folder"}, exclude_none=True)
    settings["data"]["transactions"]["path"] = str(folder / "rows.csv")
    (folder / "shop.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    made = Shop(folder / "old", folder / "new", folder / "shop.yaml", trained.bundle)
    made.old.mkdir()
    run_in(made.old, made.words(FIRST))
    (made.old / "s.quarantine.csv").write_text("of another day")
    shutil.copytree(made.old, made.new)
    run_in(made.new, made.words())
    assert names(made.new) == WHOLE
    return made


def run_in(folder: Path, words: list[object]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("sys.argv", ["tiermodel", *map(str, words)])
        main()


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def seen(folder: Path) -> tuple[bytes, bytes, list[date], Any]:
    """Tell what a reader finds: the scores, the rows beside them, and the ledger as our verbs read it."""
    book = Ledger(folder / "book")
    scores, beside = ((folder / name).read_bytes() for name in ("s.parquet", "s.quarantine.csv"))
    return scores, beside, book.graded, book.as_of(SECOND).to_json()


@pytest.fixture
def remembered(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Score `SECOND` once, and let every later run, which would find the same, write what was found."""
    found: list[pa.RecordBatch] = []
    counts, original = Tally(), snapshot_batches

    def again(history: Any, snapshots: Any, tally: Tally, then: Any) -> Iterator[pa.RecordBatch]:
        if not found:
            found.extend(original(history, snapshots, counts, then))
        vars(tally).update(vars(counts))
        return iter(found)

    monkeypatch.setattr(batch, "snapshot_batches", again)
    shutil.copytree(shop.old, tmp_path / "first")
    run_in(tmp_path / "first", shop.words())
    assert seen(tmp_path / "first") == seen(shop.new)


@pytest.mark.usefixtures("remembered")
@pytest.mark.parametrize("error", [KILL, errno.ENOSPC])
def test_scores_and_ledger_are_both_old_or_both_new_wherever_a_run_ends(shop: Shop, tmp_path: Path, error: int) -> None:
    here, old, new, found, tried = tmp_path / "here", seen(shop.old), seen(shop.new), [], set()
    assert old[2] == [FIRST]
    shutil.copytree(shop.old, here)
    for failed in failing_everywhere(here, shop.words(), error):
        assert failed.code == (-9 if error == KILL else OutputError.exit_code), failed
        left = tuple(re.sub(r"\.[0-9a-f]{8}\.tmp", ".tmp", name) for name in names(here))
        state = seen(here)
        assert state in (old, new), failed
        found.append(state == new)
        assert error == KILL or names(here) == (WHOLE if state == new else names(shop.old)), failed
        if error == KILL and left not in tried:  # it leaves most behind, and the same after many a step
            tried.add(left)
            run_in(here, shop.words())
            assert names(here) == WHOLE, failed
            assert seen(here) == new
        shutil.rmtree(here)
        shutil.copytree(shop.old, here)
    assert found == sorted(found)  # from one step on, all is new
    assert set(found) == {False, True}
    assert len(tried) > 5 or error != KILL
    assert names(here) == WHOLE


def test_a_grading_that_the_ledger_refuses_leaves_the_scores_as_they_were(shop: Shop, tmp_path: Path, cli: Run) -> None:
    shutil.copytree(shop.new, tmp_path, dirs_exist_ok=True)
    before = seen(tmp_path)
    late = yaml.safe_load(shop.project.read_text(encoding="utf-8"))
    rows = pd.read_csv(late["data"]["transactions"]["path"])
    extra = rows.head(1).assign(customer=rows["customer"].iloc[-2], amount=90_000.0, day="2023-07-30", order="late")
    pd.concat([rows, extra]).to_csv(tmp_path / "late.csv", index=False)
    late["data"]["transactions"]["path"] = "late.csv"
    (tmp_path / "late.yaml").write_text(yaml.safe_dump(late), encoding="utf-8")
    words = ["score", "late.yaml", *shop.words()[2:]]
    ran = cli(*words)
    assert ran.code == 2
    assert "holds another grading of 2023-07-31" in ran.err
    assert "--regrade --reason TEXT" in ran.err
    assert seen(tmp_path) == before


def put(folder: Path, new: Path, step: int) -> None:
    with failing(step, KILL), staged(journal_of(folder / "book")) as files:
        for name in ("s.parquet", "s.quarantine.csv", f"book/{SECOND}.parquet"):
            shutil.copy(new / name, files.add(folder / name))


def killed_between_the_renames(shop: Shop, folder: Path) -> Path:
    """Leave what a run leaves whose scores are in place, and whose ledger is not yet."""
    shutil.copytree(shop.old, folder)
    for step in range(1, 30):
        process = multiprocessing.get_context("fork").Process(target=put, args=(folder, shop.new, step))
        process.start()
        process.join(60)
        assert process.exitcode == -9
        if (folder / "s.parquet").read_bytes() == (shop.new / "s.parquet").read_bytes():
            break
        with ledger_lock(folder / "book"):
            assert not journal_of(folder / "book").exists()
    assert journal_of(folder / "book").exists()
    assert not (folder / "book" / f"{SECOND}.parquet").exists()
    return folder


def test_a_ledger_that_nobody_may_write_is_read_as_if_it_had_been_finished(shop: Shop, tmp_path: Path) -> None:
    here = killed_between_the_renames(shop, tmp_path / "here")
    left = names(here)
    for lasting in (errno.EROFS, errno.EACCES):
        with failing(1, lasting, lasting=True):
            assert Ledger(here / "book").as_of(SECOND).to_json() == seen(shop.new)[3]
    assert [name for name in names(here) if "lock" not in name] == [name for name in left if "lock" not in name]
    with ledger_lock(tmp_path / "other"):  # a moved folder finds its own files, and its scores where they were
        pass
    assert seen(here) == seen(shop.new)
    # scores that somebody has replaced since: there is nothing that the ledger could belong to
    again = killed_between_the_renames(shop, tmp_path / "again")
    (again / "s.parquet").write_bytes(b"other")
    assert Ledger(again / "book").graded == [FIRST]
    assert not journal_of(again / "book").exists()


def hold(folder: Path, ready: Any, end: Any) -> None:
    with ledger_lock(folder):
        ready.set()
        end.wait(60)


def test_one_run_writes_to_a_ledger_at_a_time(shop: Shop, tmp_path: Path, cli: Run) -> None:
    shutil.copytree(shop.old, tmp_path, dirs_exist_ok=True)
    before, forks = seen(tmp_path), multiprocessing.get_context("fork")
    ready, end = forks.Event(), forks.Event()
    other = forks.Process(target=hold, args=(tmp_path / "book", ready, end))
    other.start()
    try:
        assert ready.wait(60)
        ran = cli(*shop.words(out="other.parquet"))
        assert (ran.code, ran.out) == (OutputBusyError.exit_code, "")
        assert "book is being written by another run" in ran.err
        told = ("--customer", "x", "--from", SECOND, "--operator", "li", "--reason", "why")
        assert cli("ledger", "override", "book", *told).code == OutputBusyError.exit_code
        assert cli("ledger", "show", "book").code == 0  # who reads does not wait
    finally:
        end.set()
        other.join(60)
    assert seen(tmp_path) == before
    assert not (tmp_path / "other.parquet").exists()
    assert cli(*shop.words()).code == 0
    assert seen(tmp_path) == seen(shop.new)


def grade(folder: Path, words: list[object], start: Any, codes: Any) -> None:
    start.wait(60)
    try:
        run_in(folder, words)
        codes.put(0)
    except SystemExit as stop:
        codes.put(stop.code)


def test_two_runs_of_two_dates_at_once_grade_each_date_once_and_in_order(shop: Shop, tmp_path: Path) -> None:
    days = [SECOND, SECOND + timedelta(30)]
    here, forks = tmp_path / "here", multiprocessing.get_context("fork")
    shutil.copytree(shop.old, here)
    start, codes = forks.Event(), forks.Queue()
    runs = [forks.Process(target=grade, args=(here, shop.words(day, f"{day}.parquet"), start, codes)) for day in days]
    for process in runs:
        process.start()
    start.set()
    told = sorted(codes.get(timeout=120) for _ in runs)
    for process in runs:
        process.join(60)
    assert told in ([0, 0], [0, 2], [0, 6])  # 2: the later date came first
    done = Ledger(here / "book").graded
    assert len(done) == 1 + told.count(0)
    plain = tmp_path / "plain"
    shutil.copytree(shop.old, plain)
    for day in done[1:]:
        run_in(plain, shop.words(day, f"{day}.parquet"))
    written = {path.name: path.read_bytes() for path in (plain / "book").iterdir()}
    assert {path.name: path.read_bytes() for path in (here / "book").iterdir()} == written


def test_who_holds_the_lock_reads_what_the_ledger_holds_then(
    shop: Shop, trained: TrainedWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tiermodel.ledger import ledger as module  # noqa: PLC0415

    shutil.copytree(shop.old, tmp_path / "here")
    book, lock = tmp_path / "here" / "book", ledger_lock
    who = str(Ledger(book).as_of(FIRST)["customer_id"].iloc[0])

    def late(folder: Path) -> Any:
        monkeypatch.setattr(module, "ledger_lock", lock)
        code = Ledger(book).codes[-1]  # another run is done just before this one gets the lock
        Ledger(book).override(who, code, FIRST + timedelta(1), until=None, operator="li", reason="why")
        return lock(folder)

    monkeypatch.setattr(module, "ledger_lock", late)
    score(trained.project, trained.bundle, SECOND, tmp_path / "t.parquet", ledger=book)
    scores = pd.read_parquet(tmp_path / "t.parquet").set_index("customer_id")
    assert scores.loc[who, "reason_1"] == "set by hand"
