"""What a message tells to write into the project file is written there, as text, and the run is right then.

The expressions for dates, amounts and numbers of an epoch are tried in test_remedies.py, those for units in
test_units.py, those for databases in test_databases.py. The zone is not UTC.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from advice import mapped_as
from commands import Run
from tiermodel.config.project import load_project
from tiermodel.errors import TierModelError
from tiermodel.tables.history import History, read_history

ZONE = "Asia/Shanghai"
Sales = list[tuple[str, date, float]]


class Shop:
    """A folder with a project file, whose lines are text, so that advice is pasted as a user pastes it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = "a.csv"
        self.columns = {"customer_id": "id", "time": "t", "amount": "a"}
        self.beside: list[str] = []  # lines beside the path
        self.data: list[str] = []  # lines under data
        self.top: list[str] = []

    def write(self, text: str | bytes) -> Shop:
        """Write the transactions."""
        content = text.encode() if isinstance(text, str) else text
        (self.folder / "a.csv").write_bytes(content)
        return self

    def read(self) -> History:
        """Write the project file and read its tables."""
        lines = ["version: 1", "name: shop", f"timezone: {ZONE}", *self.top, "data:", *(f"  {x}" for x in self.data)]
        lines += ["  max_bad_share: 0.9", "  transactions:", f"    path: {self.path}"]
        lines += [f"    {line}" for line in self.beside] + ["    columns:"]
        lines += [f"      {name}: {text}" for name, text in self.columns.items()]
        (self.folder / "p.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return read_history(load_project(self.folder / "p.yaml"))

    def refusal(self) -> str:
        """Return the message with which they are refused."""
        with pytest.raises(TierModelError) as refused:
            self.read()
        return str(refused.value)

    def remedy(self) -> str:
        """Return the remedy for the only bad row."""
        (bad,) = self.read().bad_rows()
        return bad[-1]


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def sales(history: History) -> Sales:
    sql = f"SELECT customer_id, day, amount FROM ({history.transactions_sql}) ORDER BY ALL"
    found = history.connection.execute(sql).fetchall()
    return [(customer, date(1970, 1, 1) + timedelta(days=day), amount / 10_000) for customer, day, amount in found]


GOOD: Sales = [("A", date(2024, 1, 1), 7.0)]
HEAD = "id,t,a,c\nA,2024-01-01,7,CNY\n"


@pytest.mark.parametrize(
    ("row", "top"),
    [
        (",2024-01-02,5,CNY", []), ('" ",2024-01-02,5,CNY', []), ("\\N,2024-01-02,5,CNY", []),
        ("(null),2024-01-02,5,CNY", []),
        ("B,,5,CNY", []), ("B,  ,5,CNY", []), ("B,2024-01-02,,CNY", []), ("B,2024-01-02,5,usd", ["currency: CNY"]),
    ],
)  # fmt: skip
def test_rows_are_left_out_by_the_where_that_the_remedy_gives(row: str, top: list[str], shop: Shop) -> None:
    shop.write(HEAD + row + "\n").top = top
    if top:
        shop.columns["currency"] = "c"
    shop.beside = [re.search(r"where: .*", shop.remedy())[0]]  # type: ignore[index]
    found = shop.read()
    assert (found.account.quarantined, found.account.filtered) == (0, 1)
    assert sales(found) == GOOD


def test_rows_without_a_value_are_left_out_where_numbers_and_days_have_their_types(shop: Shop) -> None:
    days = [date(2024, 1, 1), date(2024, 1, 2), None, date(2024, 1, 3)]
    table = {"id": [1, None, 3, 4], "t": days, "a": [7.0, 5.0, 5.0, None]}
    pq.write_table(pa.table(table), shop.folder / "a.parquet")
    shop.path = "a.parquet"
    tests = [re.search(r"where: (.*)", bad[-1])[1] for bad in shop.read().bad_rows()]  # type: ignore[index]
    assert len(tests) == 3
    shop.beside = [f"where: {' AND '.join(tests)}"]
    found = shop.read()
    assert found.account.quarantined == 0
    assert [amount for *_, amount in sales(found)] == [7]


@pytest.mark.parametrize(
    ("ids", "joined"),
    [(("AB12", "ab12"), ["ab12", "ab12"]), (("AB12", "AB12\u200b"), ["AB12", "AB12"])],
)  # fmt: skip
def test_ids_that_look_alike_are_joined_or_kept_by_what_the_message_says(
    ids: tuple[str, str], joined: list[str], shop: Shop
) -> None:
    shop.write("id,t,a\n" + "".join(f"{one},2024-01-0{n},7\n" for n, one in enumerate(ids, 1)))
    join, keep = re.findall(r"data\.(ids: \{.*?\})", shop.refusal())
    for advice, wanted in ((join, joined), (keep, sorted(ids))):
        shop.data = [advice]
        assert [customer for customer, *_ in sales(shop.read())] == wanted


@pytest.mark.parametrize("encoding", ["gb18030", "latin-1", "cp1252", "utf-16"])
def test_the_encoding_that_the_message_names_reads_the_file(encoding: str, shop: Shop) -> None:
    name = "张三" if encoding == "gb18030" else "é"
    shop.write(f"id,t,a\n{name},2024-01-01,7\n".encode(encoding))
    key, names = re.search(r"Set data\.transactions\.(encoding): (.*)\.$", shop.refusal()).groups()  # type: ignore[union-attr]
    assert encoding in re.findall(r"[a-z]+-?\d+", names)
    shop.beside = [f"{key}: {encoding}"]
    assert sales(shop.read()) == [(name, date(2024, 1, 1), 7.0)]


def test_the_currency_of_the_project_leaves_rows_in_others_aside(shop: Shop) -> None:
    shop.write(HEAD + "B,2024-01-02,5,USD\n").columns["currency"] = "c"
    assert "Set the project's `currency`" in shop.refusal()
    shop.top = ["currency: CNY"]
    found = shop.read()
    assert (sales(found), found.account.rules) == (GOOD, {"currency_other": 1})


def test_a_flag_is_a_number_by_the_expression_of_the_message(shop: Shop) -> None:
    table = {"id": ["A", "B"], "t": [date(2024, 1, 1)] * 2, "a": [True, False]}
    pq.write_table(pa.table(table), shop.folder / "a.parquet")
    shop.path = "a.parquet"
    shop.columns["amount"] = re.search(r"map (a::INTEGER)$", shop.refusal())[1]  # type: ignore[index]
    assert [amount for *_, amount in sales(shop.read())] == [1, 0]


def test_times_with_and_without_an_offset_are_read_by_the_expression_of_the_message(shop: Shop) -> None:
    shop.write("id,t,a\nA,2024-01-01 00:30:00,7\nB,2023-12-31T16:30:00Z,7\nC,2023-12-31T11:30:00-05:00,7\n")
    refused = shop.refusal()
    assert f"where those without are of {ZONE}" in refused
    shop.columns["time"] = mapped_as(refused)[0]
    assert [day for _, day, _ in sales(shop.read())] == [date(2024, 1, 1)] * 3


@pytest.mark.parametrize(
    ("written", "day"),
    [
        ("2567-02-28", date(2024, 2, 28)), ("2567-01-31 23:30:00", date(2024, 1, 31)),
        ("0113-01-31", date(2024, 1, 31)),
        ("0060-01-31", date(1971, 1, 31)), ("2443-01-31T00:30:00", date(1900, 1, 31)),
    ],
)  # fmt: skip
def test_years_of_other_calendars_are_read_by_the_expression_of_the_remedy(written: str, day: date, shop: Shop) -> None:
    shop.write(f"id,t,a\nA,2024-01-01,7\nB,{written},7\n")
    told = shop.remedy()
    assert told.endswith(("of Buddhist years", "of Minguo years"))
    shop.columns["time"] = mapped_as(told)[0]
    leap = written.replace("02-28", "02-29")
    shop.write(f"id,t,a\nA,2024-01-01,7\nB,{leap},7\n")
    assert sales(shop.read()) == [*GOOD, ("B", day + timedelta(leap != written), 7.0)]


def test_years_of_another_calendar_in_a_column_of_dates_are_read_too(shop: Shop) -> None:
    table = {"id": ["A", "B"], "t": [datetime(2024, 1, 1), datetime(2567, 1, 1, 23)], "a": [7, 7]}  # noqa: DTZ001
    pq.write_table(pa.table(table), shop.folder / "a.parquet")
    shop.path = "a.parquet"
    shop.columns["time"] = mapped_as(shop.remedy())[0]
    assert [day for _, day, _ in sales(shop.read())] == [date(2024, 1, 1)] * 2


def test_the_column_that_is_meant_is_there(shop: Shop) -> None:
    shop.write("id,time,amount\nA,2024-01-01,7\n").columns |= {"amount": "amuont", "time": "time"}
    shop.columns["amount"] = re.search(r"did you mean '(\w+)'", shop.refusal())[1]  # type: ignore[index]
    assert sales(shop.read()) == GOOD


def test_the_files_of_a_job_without_success_are_read_by_the_path_of_the_message(shop: Shop) -> None:
    folder = shop.folder / "job"
    folder.mkdir()
    table = {"id": ["A"], "t": [date(2024, 1, 1)], "a": [7]}
    pq.write_table(pa.table(table), folder / "part-00000-0a1b2c3d-0a1b-0a1b-0a1b-0a1b2c3d4e5f.parquet")
    shop.path = "job"
    shop.path = shop.refusal().partition("give the files: ")[2]
    assert sales(shop.read()) == GOOD


def beside(shop: Shop, name: str, content: str, columns: dict[str, str], **more: Any) -> list[str]:
    """Write a second table and return the lines that map it."""
    (shop.folder / "b.csv").write_text(content, encoding="utf-8")
    made = {name: {"path": "b.csv", "columns": {"customer_id": "id", **columns}, **more}}
    return yaml.safe_dump(made).splitlines()


def test_words_of_events_mean_what_kinds_says(shop: Shop) -> None:
    content, columns = "id,at,what\nA,2024-01-01,visit\nA,2024-01-01,dropped in\n", {"time": "at", "kind": "what"}
    shop.write(HEAD).data = beside(shop, "events", content, columns)
    told = shop.remedy()
    assert told.startswith("say by data.events.kinds which words mean one of ")
    assert "visit" in told.partition("one of ")[2].split(", ")
    shop.data = beside(shop, "events", content, columns, kinds={"visit": ["visit", "dropped in"]})
    assert shop.read().tables["events"].account.quarantined == 0


def test_text_of_customers_is_read_where_the_message_says(shop: Shop) -> None:
    content = "id,size\nA,big\nB,7\n"
    shop.write(HEAD).top = ["features: {attributes: [size]}"]
    shop.data = beside(shop, "customers", content, {}, attributes={"size": "size"})
    (bad,) = shop.read().bad_rows()
    assert bad[5] == "size = big"  # which of the attributes it is
    assert "declare text under data.customers.categories" in bad[-1]
    shop.top = []
    shop.data = beside(shop, "customers", content, {}, categories={"size": "size"})
    history = shop.read()
    found = history.connection.execute(f"SELECT text_size FROM ({history.selects['customers']}) ORDER BY 1").fetchall()
    assert (history.tables["customers"].account.quarantined, found) == (0, [("7",), ("big",)])


def test_a_number_is_a_text_attribute_by_the_expression_of_the_message(shop: Shop) -> None:
    given: Callable[[str], list[str]] = lambda text: beside(  # noqa: E731
        shop, "customers", "id,size\nA,7\n", {}, categories={"size": text}
    )
    shop.write(HEAD).data = given("size::DOUBLE")
    form = re.search(r"(column)(::BIGINT::VARCHAR)", shop.refusal())
    assert form
    shop.data = given(f"size::DOUBLE{form[2]}")
    history = shop.read()
    found = history.connection.execute(f"SELECT text_size FROM ({history.selects['customers']})").fetchall()
    assert found == [("7",)]


def test_equal_rows_are_kept_by_the_key_that_the_check_names(shop: Shop, cli: Run) -> None:
    shop.write(HEAD + "A,2024-01-01,7,CNY\n").read()
    told = cli("check", str(shop.folder / "p.yaml")).out
    key = re.search(r"data\.transactions\.(duplicates: keep)", told)
    assert key
    shop.beside = [key[1]]
    shop.read()
    assert "2 used + 0 deduplicated" in cli("check", str(shop.folder / "p.yaml")).out
