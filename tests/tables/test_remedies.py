"""Every remedy that is printed is tried: the expression for a bad value, pasted into a project file, reads that value.

The zone is not UTC, since what is right there only would go unseen.
"""

from __future__ import annotations

import re
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from advice import expressions_by_unit, mapped_as
from tiermodel.config.project import load_project
from tiermodel.errors import DataError, ProjectError
from tiermodel.tables.history import History, read_history
from tiermodel.tables.rules import RULES

ZONE = "Asia/Shanghai"
NEW_YEAR = date(2024, 1, 1)  # 1704040200000 ms: half past midnight in Shanghai, the day before in UTC
DATES = [
    ("31.01.2024", date(2024, 1, 31)),
    ("31.01.2024 23:30", date(2024, 1, 31)),
    ("31.01.24", date(2024, 1, 31)),
    ("2024.01.31", date(2024, 1, 31)),
    ("31/01/2024", date(2024, 1, 31)),
    ("01/31/2024", date(2024, 1, 31)),
    ("1/31/2024 5:06:07 PM", date(2024, 1, 31)),
    ("2024/1/31 5:06 PM", date(2024, 1, 31)),
    ("31-01-2024", date(2024, 1, 31)),
    ("31-Jan-2024", date(2024, 1, 31)),
    ("31 Jan 2024 23:30:01", date(2024, 1, 31)),
    ("Jan 31 2024", date(2024, 1, 31)),
    ("Jan 31, 2024", date(2024, 1, 31)),
    ("January 31, 2024", date(2024, 1, 31)),
    ("2024年1月31日", date(2024, 1, 31)),
    ("２０２４-01-31", date(2024, 1, 31)),
    ("２０２４／１／３１ ２３：３０", date(2024, 1, 31)),
    ("2024–01–31", date(2024, 1, 31)),
    ("３１．０１．２０２４", date(2024, 1, 31)),
    ("2024年01月31日 23:30", date(2024, 1, 31)),
    ("1704040200", NEW_YEAR),
    ("1704040200000", NEW_YEAR),
    ("1704040200000000", NEW_YEAR),
    ("20240131233000", date(2024, 1, 31)),
    ("202401312330", date(2024, 1, 31)),
    ("45322", date(2024, 1, 31)),
    ("45322.98", date(2024, 1, 31)),
]
EITHER = [("05/06/2024", date(2024, 6, 5), date(2024, 5, 6)), ("5-6-24 23:30", date(2024, 6, 5), date(2024, 5, 6))]
AMOUNTS = [
    ("¥71.09", 71.09),
    ("￥1,234.50", 1234.5),
    ("$3", 3),
    ("12元", 12),
    ("CNY 12.5", 12.5),
    ("12.5 EUR", 12.5),
    ("€ 1.234,50", 1234.5),
    ("1.234.567", 1234567),
    ("1,234,567", 1234567),
    ("-1,234.50", -1234.5),
    ("12,50", 12.5),
    ("1 000", 1000),
    ("1\u00a0000", 1000),
    ("(12.50)", -12.5),
    ("12.50-", -12.5),
    ("−12.5", -12.5),
    ("１２３．５", 123.5),
]
"""Values that no reader may guess, and what they mean."""


def opened(folder: Path, columns: dict[str, str], value: str, beside: str = "") -> History:
    """Read one row with the value in column `v`, and perhaps one with another, by a project file."""
    rows = [f'{number},"{one}",2024-01-05,7' for number, one in enumerate(filter(None, (value, beside)))]
    (folder / "s.csv").write_text("\n".join(["id,v,when,n", *rows]) + "\n", encoding="utf-8")
    table = {"path": "s.csv", "columns": columns}
    made = {"version": 1, "name": "shop", "timezone": ZONE, "data": {"transactions": table, "max_bad_share": 0.9}}
    (folder / "p.yaml").write_text(yaml.safe_dump(made, allow_unicode=True), encoding="utf-8")
    return read_history(load_project(folder / "p.yaml"))


def days(history: History) -> list[date]:
    found = history.connection.execute(f"SELECT day FROM ({history.rows_sql}) ORDER BY customer_id").fetchall()
    return [date(1970, 1, 1) + timedelta(days=day) for (day,) in found]


def amounts(history: History) -> list[float]:
    found = history.connection.execute(f"SELECT amount FROM ({history.rows_sql}) ORDER BY customer_id").fetchall()
    return [amount / 10_000 for (amount,) in found]


def columns(**given: str) -> dict[str, str]:
    return {"customer_id": "id", "time": "when", "amount": "n", **given}


@pytest.mark.parametrize(("value", "day"), DATES)
def test_the_remedy_for_a_date_reads_it(value: str, day: date, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No row is good") as refusal:
        opened(tmp_path, columns(time="v"), value)
    (expression,) = mapped_as(str(refusal.value))
    assert days(opened(tmp_path, columns(time=expression), value)) == [day]


@pytest.mark.parametrize(("value", "first", "second"), EITHER)
def test_a_date_in_doubt_gets_two_remedies(value: str, first: date, second: date, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No row is good") as refusal:
        opened(tmp_path, columns(time="v"), value)
    by_day, by_month = mapped_as(str(refusal.value))
    assert days(opened(tmp_path, columns(time=by_day), value)) == [first]
    assert days(opened(tmp_path, columns(time=by_month), value)) == [second]


@pytest.mark.parametrize("value", ["2024-02-30", "31.02.2024", "Feb 30 2024", "2023年2月29日", "30/30/2024",
                                   "2024-01-31 25:00", "2024-01-31 23:59:60"])  # fmt: skip
def test_a_day_that_is_none_gets_no_expression(value: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the calendar has no such day or time: correct the row at its source"):
        opened(tmp_path, columns(time="v"), value)


def test_ids_of_which_nothing_is_seen_are_none_and_the_remedy_leaves_them_out(tmp_path: Path) -> None:
    rows_of = "id,t,a\n\u200b,2024-01-01,1\n\u200d\u2060,2024-01-01,1\n@,2024-01-01,1\n"
    (tmp_path / "s.csv").write_text(rows_of, encoding="utf-8")
    table: dict[str, Any] = {"path": "s.csv", "columns": {"customer_id": "id", "time": "t", "amount": "a"}}

    def rows() -> History:
        made = {"version": 1, "name": "x", "data": {"transactions": table, "max_bad_share": 0.9}}
        (tmp_path / "p.yaml").write_text(yaml.safe_dump(made))
        return read_history(load_project(tmp_path / "p.yaml"))

    first, second = rows().bad_rows()
    assert (first[2], first[-1]) == ("customer_id_missing", second[-1])
    table["where"] = first[-1].split("where: ")[1]
    found = rows()
    assert (list(found.bad_rows()), amounts(found)) == ([], [1])


def test_the_remedy_for_some_dates_keeps_the_others(tmp_path: Path) -> None:
    found = opened(tmp_path, columns(time="v"), "31.01.2024", "2024-02-01")
    (bad,) = found.bad_rows()
    (expression,) = mapped_as(bad[-1])
    assert days(opened(tmp_path, columns(time=expression), "31.01.2024", "2024-02-01")) == [
        date(2024, 1, 31),
        date(2024, 2, 1),
    ]


@pytest.mark.parametrize(("value", "amount"), AMOUNTS)
def test_the_remedy_for_an_amount_reads_it_and_plain_ones(value: str, amount: float, tmp_path: Path) -> None:
    found = opened(tmp_path, columns(amount="v"), value, "7.25")
    (bad,) = found.bad_rows()
    (expression,) = mapped_as(bad[-1])
    plain = 725 if "'.'" in expression and "[." in expression else 7.25
    assert amounts(opened(tmp_path, columns(amount=expression), value, "7.25")) == [amount, plain]


def test_a_comma_in_doubt_gets_two_remedies(tmp_path: Path) -> None:
    (bad,) = opened(tmp_path, columns(amount="v"), "1,234", "7.25").bad_rows()
    assert [amounts(opened(tmp_path, columns(amount=one), "1,234")) for one in mapped_as(bad[-1])] == [[1234], [1.234]]


@pytest.mark.parametrize(
    ("expression", "unit", "day"),
    [("v::BIGINT", "milliseconds", NEW_YEAR), ("45322.5 + 0 * n", "days of a spreadsheet", date(2024, 1, 31)),
     ("20240131 + 0 * n", "20240131", date(2024, 1, 31)), ("v::BIGINT // 1000", "seconds since 1970", NEW_YEAR)],
)  # fmt: skip
def test_the_remedy_for_a_column_of_numbers_reads_it(expression: str, unit: str, day: date, tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match=r"TM2063 data.transactions.columns.time") as refusal:
        opened(tmp_path, columns(time=expression), "1704040200000")
    told = expressions_by_unit(str(refusal.value))[unit]
    assert days(opened(tmp_path, columns(time=told), "1704040200000")) == [day]


def test_epoch_numbers_are_instants_however_they_are_read(tmp_path: Path) -> None:
    for expression in ("epoch_ms(v::BIGINT)", "make_timestamp(v::BIGINT * 1000)", "to_timestamp(v::BIGINT / 1000)"):
        assert days(opened(tmp_path, columns(time=expression), "1704040200000")) == [NEW_YEAR]


@pytest.mark.parametrize(
    "value",
    ["2024/06/11 12:36", "2024/6/11 9:05", "2024-6-11", "20240611", "2024/06/11", "2024-06-10 23:30:00 +0200",
     "2024-06-10 22:30:00 UTC", "2024-06-10 22:30:00.5 GMT", "2024/6/10 23:30 +02:00", "2024-06-10T22:30:00 Z",
     "2024-06-11 00:30:00 +08"],
)  # fmt: skip
def test_dates_that_leave_no_doubt_are_read(value: str, tmp_path: Path) -> None:
    assert days(opened(tmp_path, columns(time="v"), value)) == [date(2024, 6, 11)]


def test_every_rule_has_a_remedy() -> None:
    for rule in RULES.values():
        assert rule.remedy


def test_numbers_compared_as_text_get_a_remedy_that_works(tmp_path: Path) -> None:
    def kept(where: str) -> Any:
        (tmp_path / "s.csv").write_text("id,t,a,b\n1,2024-01-01,1000,900\n2,2024-01-01,20,20\n", encoding="utf-8")
        table = {"path": "s.csv", "where": where, "columns": {"customer_id": "id", "time": "t", "amount": "a"}}
        (tmp_path / "p.yaml").write_text(yaml.safe_dump({"version": 1, "name": "x", "data": {"transactions": table}}))
        return amounts(read_history(load_project(tmp_path / "p.yaml")))

    with pytest.raises(ProjectError, match="compares b with a as text") as refusal:
        kept("b >= a")
    told = re.search(r"write (.*) and (.*), or (.*) and (.*) where text is meant", str(refusal.value))
    assert told
    assert kept(f"{told[1]} >= {told[2]}") == [20]
    assert kept(f"{told[3]} >= {told[4]}") == [1000, 20]
