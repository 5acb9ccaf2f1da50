"""What is refused is shown without telling who it was, unless that is asked for: ids, records, personal columns."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

import tiermodel as tm
from commands import Run
from tiermodel.errors import DataError
from tiermodel.tables.privacy import values_shown

GOOD = "".join(
    f"ZQX{n:03},2024-01-{n % 28 + 1:02},{n}.5,person{n}@example.com,199{n % 10}-02-0{n % 9 + 1}\n" for n in range(90)
)
HEADER = "id,when,amount,mail,born\n"
BAD = (
    "ZQX900,2024-02-30,1,a@example.com,1990-02-01\n"  # a date that is none: it tells nobody
    f"{'ZQX9' * 40},2024-01-01,1,a@example.com,1990-02-01\n"  # an id
    "ZQX901,2024-01-01,13800138000,a@example.com,1990-02-01\n"  # a telephone number in the place of an amount
    "ZQX902,2024-01-01,1,a@example.com,1990-02-01,more\n"  # a whole record
    'ZQX903,2024-01-01,1,a@example.com,born 5"\n'
    "ZQX904,2024-01-01,1x,a@example.com,1990-02-01\n"  # an amount that tells nobody
)
MARKS = ("ZQX", "13800138000", "example.com", "1990")


def shop(folder: Path, rows: str = HEADER + GOOD + BAD, columns: dict[str, str] | None = None, **data: Any) -> None:
    (folder / "s.csv").write_text(rows, encoding="utf-8")
    mapped = {"customer_id": "id", "time": "when", "amount": "amount", **(columns or {})}
    tables = {"transactions": {"path": "s.csv", "columns": mapped}, "max_bad_share": 0.5, **data}
    (folder / "shop.yaml").write_text(yaml.safe_dump({"version": 1, "name": "shop", "data": tables}), encoding="utf-8")


def quarantined(folder: Path) -> dict[int, tuple[str, str]]:
    with (folder / "out.quarantine.csv").open(newline="", encoding="utf-8") as stream:
        return {int(row["row"]): (row["column"], row["value"]) for row in csv.DictReader(stream)}


FEATURES = ("features", "shop.yaml", "--as-of", "latest", "--out", "out.parquet")


def test_the_quarantine_shows_shapes_of_ids_records_and_numbers_of_persons(tmp_path: Path, cli: Run) -> None:
    shop(tmp_path)
    done = cli(*FEATURES)
    assert done.code == 0, done.err
    text = (tmp_path / "out.quarantine.csv").read_text(encoding="utf-8")
    assert not any(mark in text + done.out + done.err for mark in MARKS)
    found = quarantined(tmp_path)
    assert found[92] == ("when", "2024-02-30")
    assert found[93] == ("id", "AAA9" * 15)
    assert found[95] == ("", "AAA999,9999-99-99,9,a@aaaaaaa.aaa,9999-99-99,aaaa")
    assert found[97] == ("amount", "1x")
    assert sorted(found) == [92, 93, 95, 96, 97]  # a sum of 13.8 thousand million is an amount


def test_who_asks_is_shown_what_stands_there(tmp_path: Path, cli: Run) -> None:
    shop(tmp_path)
    assert cli(*FEATURES, "--show-values").code == 0
    found = quarantined(tmp_path)
    assert found[93] == ("id", "ZQX9" * 40)
    assert found[95][1].startswith("ZQX902,2024-01-01,1,a@example.com")
    assert cli(*FEATURES).code == 0  # it was asked once, for one run
    assert quarantined(tmp_path)[93] == ("id", "AAA9" * 15)


def test_a_value_that_looks_personal_is_a_shape_in_any_column(tmp_path: Path, cli: Run) -> None:
    rows = "B,138 0013 8000,5\nC,2024-01-01,11010519491231002X\nD,2024-01-01,12 CNY\n"
    shop(tmp_path, "id,when,amount\n" + "".join(f"K{n},2024-01-02,{n}\n" for n in range(20)) + rows)
    assert cli(*FEATURES).code == 0
    values = {row: value for row, (_, value) in quarantined(tmp_path).items()}
    assert values == {22: "999 9999 9999", 23: "99999999999999999A", 24: "12 CNY"}


def test_columns_that_the_scan_flags_are_shapes(tmp_path: Path, cli: Run) -> None:
    people = "id,birthday,size\n" + "".join(f"ZQX{n:03},1990-02-0{n % 9 + 1},{n}\n" for n in range(80))
    (tmp_path / "c.csv").write_text(people + "ZQX080,1990-02-31,1\nZQX081,1990-02-01,x\n", encoding="utf-8")
    columns = {"customer_id": "id", "signup": "birthday"}
    shop(tmp_path, customers={"path": "c.csv", "columns": columns, "attributes": {"size": "size"}})
    project = yaml.safe_load((tmp_path / "shop.yaml").read_text(encoding="utf-8"))
    project["features"] = {"audited": ["size"]}
    (tmp_path / "shop.yaml").write_text(yaml.safe_dump(project), encoding="utf-8")
    assert cli(*FEATURES).code == 0
    found = quarantined(tmp_path)
    assert found[82] == ("birthday", "9999-99-99")
    assert found[83][1] == "size = x"


@pytest.mark.parametrize("verb", [("check", "shop.yaml"), FEATURES, ("train", "shop.yaml", "--out", "m"),
                                  ("backtest", "shop.yaml"), ("tune", "shop.yaml")])  # fmt: skip
def test_refusals_show_shapes_and_how_to_see_more(verb: tuple[str, ...], tmp_path: Path, cli: Run) -> None:
    shop(tmp_path, max_bad_share=0.0)
    done = cli(*verb)
    assert done.code == 4, done.err
    assert not any(mark in done.out + done.err for mark in MARKS)
    assert "row 93: id = 'AAA9AAA9" in done.err
    assert "--show-values" in done.err
    assert "ZQX9ZQX9" in cli(*verb, "--show-values").err


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ("".join(GOOD.splitlines(keepends=True)[:5]), "TM1003 .*AAA999, 9999-99-99, 9.9"),
        (HEADER + '"ZQX1,2024-01-01,1,a@example.com,x\n' + GOOD, "TM1302 .*AAA9,9999-99-99"),
        (HEADER + "ab1,2024-01-01,1,x,x\nAB1,2024-01-01,1,x,x\n", "TM2004 .*such as 'AA9' and 'aa9'"),
    ],
)
def test_what_refuses_a_whole_file_shows_shapes(rows: str, says: str, tmp_path: Path, cli: Run) -> None:
    shop(tmp_path, rows)
    done = cli(*FEATURES)
    assert (done.code, *(mark for mark in MARKS if mark in done.err)) == (3,)
    assert pd.Series([done.err]).str.contains(says)[0], done.err
    assert cli(*FEATURES, "--show-values").err != done.err


def test_frames_show_shapes_of_ids(tmp_path: Path) -> None:
    shop(tmp_path)
    project = tm.load_project(tmp_path / "shop.yaml")
    frame = pd.DataFrame({"id": ["ZQX1", 5], "when": ["2024-01-01"] * 2, "amount": [1, 2]}, dtype=object)
    with pytest.raises(DataError, match="'AAA9' is str, but at position 1 9 is int"):
        tm.check(project, history=frame)
    with values_shown(), pytest.raises(DataError, match="'ZQX1' is str"):
        tm.check(project, history=frame)


def test_hashed_ids_are_never_shown(tmp_path: Path, cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIERMODEL_ID_KEY", "k" * 32)
    shop(tmp_path, hash_ids="TIERMODEL_ID_KEY")
    assert cli(*FEATURES, "--show-values").code == 0
    assert not any(mark in (tmp_path / "out.quarantine.csv").read_text(encoding="utf-8") for mark in MARKS)
