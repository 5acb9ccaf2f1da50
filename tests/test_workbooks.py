"""Results for spreadsheets: workbooks that read back as they were written, and CSV that Excel reads as UTF-8."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any

import openpyxl
import pandas as pd
import pyarrow as pa
import pytest
import yaml

from commands import Run
from failpoints import failing
from tiermodel import output
from tiermodel.errors import OutputError, ProjectError
from tiermodel.output import write_table
from tiermodel.tables import scratch
from worlds import TrainedWorld

ROWS = pa.table({
    "customer_id": ["007", "12345678901234567890", "=1+1", "客户1"],
    "order_id": pa.array([1, 2, 3, None], pa.int64()),
    "number": pa.array([2**60, -(10**15), 5, None], pa.int64()),
    "value": [0.1, float("nan"), -1e300, float("inf")],
    "as_of": pa.array([date(2024, 1, 31)] * 4, pa.date32()),
    "flag": [True, False, None, True],
    "text": ["https://example.com", "-5", None, "a\nb"],
})  # fmt: skip


def cells(path: Path) -> list[tuple[object, ...]]:
    return list(openpyxl.load_workbook(path).active.iter_rows(values_only=True))


def test_a_workbook_reads_back_as_it_was_written(tmp_path: Path) -> None:
    write_table(ROWS, tmp_path / "a.xlsx")
    head, *rows = cells(tmp_path / "a.xlsx")
    assert head == tuple(ROWS.column_names)
    day = pd.Timestamp("2024-01-31").to_pydatetime()
    assert rows == [
        ("007", "1", str(2**60), 0.1, day, True, "https://example.com"),
        ("12345678901234567890", "2", str(-(10**15)), None, day, False, "-5"),
        ("=1+1", "3", 5, -1e300, day, None, None),
        ("客户1", None, None, None, day, True, "a\nb"),
    ]
    book = openpyxl.load_workbook(tmp_path / "a.xlsx")
    assert book.active["A4"].data_type == "s"  # no formula
    assert book.active["G2"].hyperlink is None
    write_table(ROWS, tmp_path / "b.xlsx")
    assert (tmp_path / "a.xlsx").read_bytes() == (tmp_path / "b.xlsx").read_bytes()


def test_another_run_that_tidies_up_leaves_a_workbook_in_the_making(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()

    def batches() -> Iterator[pa.RecordBatch]:
        yield from ROWS.to_batches()
        scratch._remove_orphans.__wrapped__(tmp_path / "tmp")
        yield from ROWS.to_batches()

    write_table(batches(), tmp_path / "a.xlsx", ROWS.schema)
    assert len(cells(tmp_path / "a.xlsx")) == 1 + 2 * len(ROWS)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.xlsx", "tmp"]


def test_a_scratch_folder_that_another_run_takes_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between its making and its lock a folder looks like that of a killed run."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    make, made = tempfile.mkdtemp, list[str]()

    def taken_once(*given: Any, **named: Any) -> str:
        made.append(make(*given, **named))
        if len(made) == 1:
            scratch._remove_orphans.__wrapped__(tmp_path)
        return made[-1]

    monkeypatch.setattr("tempfile.mkdtemp", taken_once)
    folder = scratch.new_folder()
    scratch._remove_orphans.__wrapped__(tmp_path)
    assert [str(folder)] == made[1:]
    assert list(tmp_path.iterdir()) == [folder]
    scratch.remove_folder(folder)


def test_more_rows_than_a_sheet_has_are_refused_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "SHEET_ROWS", 4)
    with pytest.raises(ProjectError, match=r"a sheet has 4 rows, and there are more: write \.csv or \.parquet"):
        write_table(ROWS, tmp_path / "a.xlsx")
    assert not list(tmp_path.glob("*"))
    write_table(ROWS.slice(0, 3), tmp_path / "a.xlsx")
    with pytest.raises(ProjectError, match="longer than a cell"):
        write_table(pa.table({"text": ["x" * 40_000]}), tmp_path / "b.xlsx")


def test_scores_and_features_as_workbook_and_as_csv_for_excel(cli: Run, trained: TrainedWorld, tmp_path: Path) -> None:
    project, settings = (
        tmp_path / "p.yaml",
        trained.project.model_dump(mode="json", exclude={"folder"}, exclude_none=True),
    )
    project.write_text(yaml.safe_dump(settings), encoding="utf-8")
    score = ("score", project, "--model", trained.bundle, "--as-of", "2023-11-01", "--out")
    for name, more in (("s.xlsx", ()), ("s.csv", ()), ("e.csv", ("--excel",)), ("s.parquet", ())):
        assert cli(*score, name, *more).code == 0
    plain, marked = ((tmp_path / name).read_bytes() for name in ("s.csv", "e.csv"))
    assert marked == b"\xef\xbb\xbf" + plain
    wanted = pd.read_parquet(tmp_path / "s.parquet")
    found = pd.read_excel(tmp_path / "s.xlsx", dtype={"customer_id": str}, engine="openpyxl")
    assert list(found.columns) == list(wanted.columns)
    assert found["customer_id"].tolist() == wanted["customer_id"].tolist()
    for name in ("churn_risk", "expected_value", "tier"):
        pd.testing.assert_series_equal(found[name], wanted[name], check_dtype=False, rtol=1e-14)
    assert cli("features", project, "--as-of", "2023-11-01", "--out", "f.xlsx").code == 0
    assert len(cells(tmp_path / "f.xlsx")) == len(wanted) + 1


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_fails_at_a_step_is_said_and_leaves_no_part_of_a_workbook(tmp_path: Path, error: int) -> None:
    table, path = pa.table({"customer_id": ["1", "2"], "amount": [1.5, 2.5]}), tmp_path / "o.xlsx"
    with failing(1_000_000, error) as steps:
        write_table(table, path)
    assert "write" in steps
    for step in range(1, len(steps) + 1):
        path.unlink(missing_ok=True)
        with failing(step, error), suppress(OutputError):  # anything else is a bug, as of xlsxwriter's own errors
            write_table(table, path)
        assert not path.exists() or len(pd.read_excel(path, engine="openpyxl")) == 2
