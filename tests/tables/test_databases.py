"""Types of databases, as real servers and files hold them: each is read as what it is, or refused by name.

The zone is not UTC, since what is right there only would go unseen.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from adbc_driver_postgresql import dbapi

from advice import expressions_by_unit, mapped_as
from postgres import postgres
from tiermodel.config.project import load_project
from tiermodel.errors import DataError, ProjectError
from tiermodel.tables.history import History, read_history

ZONE = "Asia/Shanghai"
NEW_YEAR = date(2024, 1, 1)  # half past midnight in Shanghai is the day before in UTC


def opened(folder: Path, path: str, query: str, customers: str = "", **columns: str) -> History:
    """Read the columns id, t and a of a query, or what `columns` map instead, by a project file."""
    table: dict[str, Any] = {"path": path, "query": query}
    table["columns"] = {"customer_id": "id", "time": "t", "amount": "a", **columns}
    data: dict[str, Any] = {"transactions": table, "max_bad_share": 0.9}
    if customers:
        mapped = {"customer_id": "id", "valid_from": "since", "contract_end": "ends"}
        data["customers"] = {"path": path, "query": customers, "columns": mapped}
    made = {"version": 1, "name": "shop", "timezone": ZONE, "data": data}
    (folder / "p.yaml").write_text(yaml.safe_dump(made, allow_unicode=True), encoding="utf-8")
    return read_history(load_project(folder / "p.yaml"))


def rows(history: History) -> list[tuple[Any, date, float]]:
    sql = f"SELECT customer_id, day, amount FROM ({history.transactions_sql}) ORDER BY ALL"
    found = history.connection.execute(sql).fetchall()
    return [(customer, date(1970, 1, 1) + timedelta(days=day), amount / 10_000) for customer, day, amount in found]


def one(**values: str) -> str:
    """Return a query for a row whose values are SQL, good ones where none are given."""
    given = {"id": "'A'", "t": "date '2024-01-01'", "a": "7", **values}
    return "SELECT " + ", ".join(f"{sql} AS {name}" for name, sql in given.items())


# PostgreSQL


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgres() as url:
        with dbapi.connect(url) as database, database.cursor() as cursor:
            cursor.execute("CREATE TYPE rank AS ENUM ('gold', 'silver')")
            cursor.execute("CREATE DOMAIN price AS numeric(10, 2)")
            database.commit()
        yield url


@pytest.mark.parametrize(
    ("amount", "wanted"),
    [
        ("'$1,234.50'::money", 1234.5), ("'-$0.05'::money", -0.05), ("1234.5678::numeric", 1234.5678),
        ("12.5::numeric(60, 20)", 12.5), ("12.5::price", 12.5), ("0.1::real", 0.1), ("0.1::float8", 0.1),
        ("7::smallint", 7), ("4000000000::oid", 4e9), ("'12.50'::text", 12.5),
    ],
)  # fmt: skip
def test_an_amount_of_postgresql_is_what_the_server_shows(
    server: str, tmp_path: Path, amount: str, wanted: float
) -> None:
    assert rows(opened(tmp_path, server, one(a=amount) + " -- of one row")) == [("A", NEW_YEAR, wanted)]


@pytest.mark.parametrize(
    ("moment", "day"),
    [
        ("date '2024-01-01'", NEW_YEAR), ("timestamp '2024-01-01 00:30'", NEW_YEAR),
        ("timestamptz '2024-01-01 00:30+08'", NEW_YEAR), ("timestamptz '2023-12-31 16:30+00'", NEW_YEAR),
        ("'2024-01-01 00:30'::text", NEW_YEAR), ("'20240101'::char(20)", NEW_YEAR),
    ],
)  # fmt: skip
def test_a_time_of_postgresql_is_a_day_in_the_zone_of_the_project(
    server: str, tmp_path: Path, moment: str, day: date
) -> None:
    assert rows(opened(tmp_path, server, one(t=moment))) == [("A", day, 7)]


@pytest.mark.parametrize(
    ("customer", "wanted"),
    [
        ("'gold'::rank", "gold"), ("'ab'::char(8)", "ab"), ("true", "true"), ("(10::numeric ^ 45)::numeric(60)",
        "1" + "0" * 45), ("13085::numeric(12, 2)", "13085"), ("4000000000::oid", 4_000_000_000), ("'x'::name", "x"),
        ("'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        ("'10.0.0.1'::inet", "10.0.0.1"), ("ARRAY[1, 2]", "{1,2}"), ("ROW(1, 'a')", "(1,a)"), ("B'101'", "101"),
        ("interval '1 day 2 hours'", "1 day 02:00:00"), ("int4range(1, 5)", "[1,5)"), ("16777215::real", 16777215),
    ],
)  # fmt: skip
def test_an_id_of_postgresql_is_what_the_server_shows(
    server: str, tmp_path: Path, customer: str, wanted: str | int
) -> None:
    shown = {"10.0.0.1": "10.0.0.1/32"}.get(str(wanted), wanted)  # a cast to text says how wide the net is
    assert rows(opened(tmp_path, server, one(id=customer))) == [(shown, NEW_YEAR, 7)]


@pytest.mark.parametrize(
    ("values", "rule"),
    [
        ({"a": "'NaN'::numeric"}, "amount_not_finite"), ({"a": "'Infinity'::numeric"}, "amount_not_finite"),
        ({"a": "'-infinity'::float8"}, "amount_not_finite"), ({"a": "10::numeric ^ 45"}, "amount_too_large"),
        ({"a": "ARRAY[1, 2]"}, "amount_unparsable"), ({"a": "interval '1 day'"}, "amount_unparsable"),
        ({"t": "'infinity'::date"}, "time_implausible"), ({"t": "'infinity'::timestamptz"}, "time_implausible"),
        ({"t": "'-infinity'::timestamp"}, "time_implausible"), ({"t": "date '0044-03-15 BC'"}, "time_implausible"),
        ({"t": "date '5874897-12-31'"}, "time_implausible"), ({"t": "timestamp '294276-12-31'"}, "time_implausible"),
        ({"id": "123456789::real"}, "customer_id_not_integral"), ({"t": "timetz '12:30+08'"}, "time_unparsable"),
    ],
)  # fmt: skip
def test_a_value_of_postgresql_that_is_none_is_quarantined(
    server: str, tmp_path: Path, values: dict[str, str], rule: str
) -> None:
    with pytest.raises(DataError, match=rf"No row is good(.|\n)*{rule} \(TM"):
        opened(tmp_path, server, one(**values))


@pytest.mark.parametrize("kind", ["date", "timestamp", "timestamptz"])
def test_days_without_end_of_postgresql_mean_never(server: str, tmp_path: Path, kind: str) -> None:
    query = f"SELECT 'A' AS id, '{{}}infinity'::{kind} AS since, 'infinity'::{kind} AS ends"
    history = opened(tmp_path, server, one(), query.format("-"))
    ends = history.connection.execute(f"SELECT contract_end FROM ({history.selects['customers']})").fetchall()
    assert ends == [(-(2**31),)]
    with pytest.raises(DataError, match="valid_from_implausible"):  # no row is valid from the end of time on
        opened(tmp_path, server, one(), query.format(""))


@pytest.mark.parametrize(("values", "message"), [({"a": "true"}, "TM2045 .*amount"), ({"t": "time '12:30'"}, "TM2063")])
def test_a_type_of_postgresql_that_is_no_number_or_day_is_refused(
    server: str, tmp_path: Path, values: dict[str, str], message: str
) -> None:
    with pytest.raises(ProjectError, match=message):
        opened(tmp_path, server, one(**values))


# SQLite


def sqlite(folder: Path, *cells: tuple[Any, Any, Any], kinds: tuple[str, str, str] = ("", "", "")) -> str:
    """Write a table with columns id, t and a, declared as `kinds`, and return its address."""
    with closing(sqlite3.connect(folder / "s.db")) as database:
        columns = ", ".join(f"{name} {kind}" for name, kind in zip(("id", "t", "a"), kinds, strict=True))
        database.execute(f"CREATE TABLE s ({columns})")
        database.executemany("INSERT INTO s VALUES (?, ?, ?)", cells)
        database.commit()
    return "sqlite:///s.db"


SECONDS = 1704040200  # half past midnight of New Year in Shanghai
NUMBERED = [
    (SECONDS, "seconds since 1970"),
    (SECONDS + 0.25, "seconds since 1970"),
    (SECONDS * 1000, "milliseconds"),
    (SECONDS / 86400 + 2440587.5, "days of julianday()"),
    (20240101, "20240131"),
    (45292.5, "days of a spreadsheet"),
]


@pytest.mark.parametrize(("cell", "unit"), NUMBERED)
def test_a_day_of_sqlite_kept_as_a_number_is_refused_with_what_reads_it(tmp_path: Path, cell: float, unit: str) -> None:
    path = sqlite(tmp_path, ("A", cell, 7), ("B", cell, 7))
    with pytest.raises(ProjectError, match="TM2063") as refusal:
        opened(tmp_path, path, "SELECT * FROM s")
    expression = expressions_by_unit(str(refusal.value))[unit]
    read = rows(opened(tmp_path, path, "SELECT * FROM s", time=expression))
    assert read == [("A", NEW_YEAR, 7), ("B", NEW_YEAR, 7)]


@pytest.mark.parametrize("cell", [cell for cell, _ in NUMBERED if cell != 20240101])
def test_numbers_among_text_of_sqlite_get_a_remedy_that_keeps_the_text(tmp_path: Path, cell: float) -> None:
    path = sqlite(tmp_path, ("A", cell, 7), ("B", "2024-01-01 00:30:00", 7), ("C", "2023-12-31T16:30:00Z", 7))
    found = opened(tmp_path, path, "SELECT * FROM s WHERE id <> 'C'")
    (bad,) = found.bad_rows()
    assert bad[2:4] == ("time_numeric", "TM2063")
    (expression,) = mapped_as(bad[-1])
    read = rows(opened(tmp_path, path, "SELECT * FROM s", time=expression))
    assert [day for _, day, _ in read] == [NEW_YEAR] * 3


@pytest.mark.parametrize(
    ("cells", "kind", "wanted"),
    [
        ((12.5, "7.25"), "", [12.5, 7.25]), ((12.5, 7), "DECIMAL(10,2)", [12.5, 7]), (("12.5", "7"), "NUMERIC",
        [12.5, 7]), (("12.50", "7.00"), "TEXT", [12.5, 7]), ((b"12.5", 7), "", [12.5, 7]), ((2**53 + 1, 0.5), "",
        None), ((1e11, 123456.7891), "", [1e11, 123456.7891]), (("0.1", 1234567.8912), "", [0.1, 1234567.8912]),
    ],
)  # fmt: skip
def test_amounts_of_sqlite_are_read_whatever_their_cells_hold(
    tmp_path: Path, cells: tuple[Any, Any], kind: str, wanted: list[float] | None
) -> None:
    path = sqlite(tmp_path, *((name, "2024-01-01", cell) for name, cell in zip("AB", cells, strict=True)),
                  kinds=("", "", kind))  # fmt: skip
    found = opened(tmp_path, path, "SELECT * FROM s")
    if wanted is None:
        assert [bad[2] for bad in found.bad_rows()] == ["amount_too_large"]
        return
    assert [amount for *_, amount in rows(found)] == wanted


def test_ids_of_sqlite_beyond_the_digits_of_a_real_are_refused(tmp_path: Path) -> None:
    path = sqlite(tmp_path, (123456789012345678.0, "2024-01-01", 7), ("B", "2024-01-01", 7))
    with pytest.raises(DataError, match="TM2003"):
        opened(tmp_path, path, "SELECT * FROM s")


def test_bytes_of_sqlite_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = sqlite(tmp_path, (b"\xff\xfe", "2024-01-01", 7), ("B", "2024-01-01", 7))
    with pytest.raises(ProjectError, match=r"data.transactions.query: SQLite refuses it: .*UTF-8"):
        opened(tmp_path, path, "SELECT * FROM s")
