"""What a spreadsheet could take for a formula is text in every file, and no two ids become one on the way."""

from __future__ import annotations

import csv
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tiermodel as tm
from tiermodel.output import escape_formulas, write_table

HIDDEN = (
    "",
    "\u200b",
    "\ufeff",
    "\u00a0",
    "\u00ad",
    "\u202e",
    "\u2066",
    "\t",
    "\r",
    " ",
    "\u3000",
    "\u200b\u200e",
    "\x01",
)
SIGNS = ("=", "+", "-", "@", "＝", "＋", "－", "＠")
TEXTS = [f"{quote}{hidden}{sign}1" for quote in ("", "'", "''") for hidden in HIDDEN for sign in SIGNS]
PLAIN = ["A-1", "'abc", "1=1", "", "'", "张三", "a@b"]
POLICY = (
    "version: 1\nname: x\nlevels: {a: {}}\nactions: {call: {name_zh: a, name_en: a, cost: 1, gain: expected_value}}\n"
)


def test_signs_behind_what_nobody_sees_are_defused() -> None:
    for text in TEXTS:
        assert escape_formulas(text) == f"'{text}"
    assert list(map(escape_formulas, PLAIN)) == PLAIN
    assert len(set(map(escape_formulas, TEXTS + PLAIN))) == len(TEXTS + PLAIN)


@given(st.lists(st.text("'=+-@＝\u200b\ufeff \tA1", max_size=5), max_size=30))
def test_no_two_texts_become_one(texts: list[str]) -> None:
    assert len({escape_formulas(text) for text in texts}) == len(set(texts))


def test_csv_files_and_cells_of_workbooks_say_the_same(tmp_path: Path) -> None:
    table = pa.table({"customer_id": TEXTS + PLAIN})
    write_table(table, tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        found = [row["customer_id"] for row in csv.DictReader(file)]
    assert found == [escape_formulas(text) for text in TEXTS + PLAIN]
    shown = [text for text in TEXTS if "\x01" not in text and "\r" not in text]  # which no workbook holds as they are
    write_table(pa.table({"customer_id": shown}), tmp_path / "a.xlsx")
    cells = pd.read_excel(tmp_path / "a.xlsx", engine="openpyxl", dtype=str, keep_default_na=False)["customer_id"]
    assert cells.tolist() == shown


@pytest.mark.parametrize("ending", ["csv", "parquet", "xlsx"])
def test_our_own_reader_takes_off_what_was_put_on(ending: str, tmp_path: Path) -> None:
    ids = ["=1", "'=1", "''=1", "+1", "\u200b=1", "'abc", "A"]
    scores = pa.table({"customer_id": ids, "tier_code": ["a"] * len(ids), "expected_value": [5.0] * len(ids)})
    write_table(scores, tmp_path / f"s.{ending}")
    (tmp_path / "p.yaml").write_text(POLICY, encoding="utf-8")
    chosen = tm.allocate(tmp_path / f"s.{ending}", tmp_path / "p.yaml", 100)
    assert sorted(chosen["customer_id"]) == sorted(ids)
    tm.allocate(tmp_path / f"s.{ending}", tmp_path / "p.yaml", 100, tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        assert sorted(row["customer_id"] for row in csv.DictReader(file)) == sorted(map(escape_formulas, ids))
