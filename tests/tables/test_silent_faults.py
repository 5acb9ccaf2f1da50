"""Inputs that no reader complains of, and that would change the answer without a word: each is read right, or said."""

from __future__ import annotations

import gzip
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tiermodel.config.data import Invoices
from tiermodel.config.project import Project
from tiermodel.errors import DataError, ProjectError, TooManyBadRowsError
from tiermodel.features.export import write_features
from tiermodel.features.panel import build_panel
from tiermodel.quality.check import check
from tiermodel.tables.history import History, read_history
from tiermodel.tables.plausible import isolated_after

COLUMNS = {"customer_id": "id", "time": "t", "amount": "amount"}
START = date(2023, 1, 1)


def project(folder: Path, rows: str, *, columns: dict[str, str] | None = None, **more: Any) -> Project:
    """Make a project of transactions in a file `s.csv`; `more` are keys of `data`, or of the project."""
    path = folder / "s.csv"
    path.write_text(rows, encoding="utf-8")
    table = {"path": str(path), "columns": columns or COLUMNS, **more.pop("table", {})}
    of_project = {name: more.pop(name) for name in ("timezone",) if name in more}
    return Project.model_validate({"version": 1, "name": "shop", "data": {"transactions": table, **more}, **of_project})


def customers_table(folder: Path, rows: str, columns: dict[str, str], **more: Any) -> dict[str, Any]:
    path = folder / "c.csv"
    path.write_text(rows, encoding="utf-8")
    return {"path": str(path), "columns": {"customer_id": "id", **columns}, **more}


def ids_of(history: History) -> list[Any]:
    return sorted(row[0] for row in history.connection.execute(history.rows_sql).fetchall())


def told(history: History) -> str:
    return "\n".join(words for table in history.tables.values() for words in table.account.warnings)


def daily(days: int, *extra: str, pause: tuple[int, int] = (0, 0)) -> str:
    """Return a log of four customers a day, and extra lines; no rows from `pause[0]` to `pause[1]`."""
    lines = [
        f"C{n},{START + timedelta(day)},{n + 1}"
        for day in range(days)
        for n in range(4)
        if not pause[0] <= day < pause[1]
    ]
    return "\n".join(["id,t,amount", *lines, *extra]) + "\n"


# what `latest` means


@pytest.mark.parametrize("ahead", [["2024-12-31"], ["2024-05-06"], ["2024-02-29", "2024-06-01", "2024-12-31"]])
def test_isolated_rows_do_not_decide_what_latest_means(tmp_path: Path, ahead: list[str]) -> None:
    found = read_history(project(tmp_path, daily(365, *(f"C1,{day},5" for day in ahead))))
    assert found.last_day == date(2023, 12, 31)
    assert (found.later_rows, found.account.quarantined) == (len(ahead), 0)
    assert f"row 1462: {ahead[0]}" in told(found)
    assert "the last plausible day is 2023-12-31" in told(found)


@pytest.mark.parametrize(
    ("rows", "last"),
    [
        (daily(365, "C1,2024-01-20,5"), date(2024, 1, 20)),  # three weeks
        (daily(365, "C1,2024-03-20,5", pause=(100, 150)), date(2024, 3, 20)),  # not twice the longest pause
        (daily(500, pause=(200, 370)), START + timedelta(499)),  # many rows after a long pause
        (daily(200, *("C1,2024-12-31,5",) * 9), date(2024, 12, 31)),  # more than one in a hundred
    ],
)
def test_what_is_no_isolated_row_counts(tmp_path: Path, rows: str, last: date) -> None:
    found = read_history(project(tmp_path, rows, table={"duplicates": "keep"}))
    assert (found.last_day, found.later_rows) == (last, 0)


def test_a_year_ahead_of_a_log_with_a_long_pause_is_isolated(tmp_path: Path) -> None:
    found = read_history(project(tmp_path, daily(500, "C1,2025-05-20,5", pause=(200, 370))))
    assert found.last_day == START + timedelta(499)
    assert isolated_after([0, 1, 171, 172, 600], [200, 200, 200, 200, 1]) == 172


@pytest.mark.parametrize(
    "after", [[], ["2024-08-21"], ["2024-08-28"] * 4, [f"2024-09-{day:02}" for day in range(1, 31)] * 9]
)
def test_an_isolated_row_counts_for_dates_after_it_whatever_else_is_appended(tmp_path: Path, after: list[str]) -> None:
    """Law 1: what `latest` means may change as rows come in, no feature at a given date does."""
    rows = daily(365, "C1,2024-08-20,5", *(f"C2,{day},7" for day in after))
    history = read_history(project(tmp_path, rows, table={"duplicates": "keep"}))
    panel = build_panel(project(tmp_path, rows), [date(2024, 1, 1), date(2024, 8, 25)], history=history)
    days = panel.pivot(index="customer_id", columns="as_of", values="days_since_last").to_numpy()
    silent = (date(2024, 8, 25) - date(2023, 12, 31)).days
    assert days[1].tolist() == [1, 5]  # C1
    assert days[0].tolist() == days[3].tolist() == [1, silent]
    assert days[2].tolist() == [1, 4 if "2024-08-21" in after else silent]


def test_rows_after_the_last_plausible_day_are_no_part_of_what_check_describes(tmp_path: Path) -> None:
    refusing = customers_table(tmp_path, "id,out\nC1,true\nC2,false\n", {"opt_out": "out"})
    late = ("C1,2024-12-01,1e6", "C2,2024-12-31,1e6")
    for more, rows, later in (({}, 4 * 365, 2), ({"customers": refusing}, 3 * 365, 1)):
        found = check(project(tmp_path, daily(365, *late), **more))
        facts, account = found.facts, found.accounting
        assert (facts["last_day"], facts["rows"], facts["silent_days"]) == ("2023-12-31", rows, 0)
        assert (account.used, account.out_of_window, account.deduplicated) == (rows, later, 0)


def test_the_last_row_of_few_is_told(tmp_path: Path) -> None:
    found = read_history(project(tmp_path, daily(10, "C1,2024-01-20,5")))
    assert found.last_day == date(2024, 1, 20)
    assert "TM2067 after 374 days without a row come 1 more, up to 2024-01-20" in told(found)


def test_rows_years_before_all_others_are_told(tmp_path: Path) -> None:
    found = read_history(project(tmp_path, daily(60, "C1,1970-01-01,5")))
    assert "TM2067 1 rows are dated years before all others, the first 1970-01-01, the next 2023-01-01" in told(found)


# ids


def test_an_id_is_read_one_way_in_every_table(tmp_path: Path) -> None:
    rows = "id,t,amount\n"
    rows += "13085.0,2024-01-05,1\n13086.0,2024-01-06,1\n13086,2024-01-08,1\n7.00,2024-01-05,1\nG.0,2024-01-07,3\n"
    refusing = customers_table(tmp_path, "id,out\n13085,true\n13086,false\n9,yes\n", {"opt_out": "out"})
    found = read_history(project(tmp_path, rows, customers=refusing))
    assert ids_of(found)[:4] == ["13086", "13086", "13086", "7"]
    assert "13085" not in ids_of(found)
    assert "3 customer ids such as 13085.0 are read as 13085" in told(found)
    assert "1 of 2 customers who opted out or did not consent match nobody in another table" in told(found)


@pytest.mark.parametrize(
    ("first", "second", "key", "code"),
    [
        ("AB12", "ab12", {"case": "fold"}, "TM2004"),
        ("Ada@example.com", "ada@example.com", {"case": "fold"}, "TM2004"),
        ("A\u200b1", "A1", {"invisible": "strip"}, "TM2005"),
        ("A\u00ad1", "A\u20601", {"invisible": "strip"}, "TM2005"),
        ("\u202aA1\u202c", "A1", {"invisible": "strip"}, "TM2005"),
    ],
)
def test_ids_that_look_like_one_customer_are_refused_or_joined(
    tmp_path: Path, first: str, second: str, key: dict[str, str], code: str
) -> None:
    rows = f"id,t,amount\n{first},2024-01-05,1\n{second},2024-01-06,1\n"
    name, wanted = next(iter(key.items()))
    with pytest.raises(DataError, match=rf"{code} 2 customer ids differ.*data.ids: {{{name}: {wanted}}}"):
        read_history(project(tmp_path, rows))
    assert len(set(ids_of(read_history(project(tmp_path, rows, ids=key))))) == 1
    assert len(set(ids_of(read_history(project(tmp_path, rows, ids={name: "keep"}))))) == 2


def test_ids_that_look_alike_in_two_tables_are_refused(tmp_path: Path) -> None:
    refusing = customers_table(tmp_path, "id,out\nc1,true\n", {"opt_out": "out"})
    with pytest.raises(DataError, match=r"TM2004 2 customer ids differ in upper and lower case only.*'A9' and 'a9'"):
        read_history(project(tmp_path, daily(3), customers=refusing))
    found = read_history(project(tmp_path, daily(3), customers=refusing, ids={"case": "fold"}))
    assert set(ids_of(found)) == {"c0", "c2", "c3"}


def test_ids_of_mixed_case_are_counted_only(tmp_path: Path) -> None:
    found = read_history(project(tmp_path, "id,t,amount\nxYz,2024-01-05,1\nxyZ,2024-01-06,1\n"))
    assert ids_of(found) == ["xYz", "xyZ"]
    assert "TM2004 2 customer ids differ in upper and lower case only" in told(found)


def test_ids_alike_are_not_shown_where_ids_are_hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ID_KEY", "0123456789abcdef0123456789abcdef")
    with pytest.raises(DataError, match="TM2004") as refusal:
        read_history(project(tmp_path, "id,t,amount\nABC,2024-01-05,1\nabc,2024-01-06,1\n", hash_ids="ID_KEY"))
    assert "ABC" not in str(refusal.value)


@pytest.mark.parametrize("space", ["\u2003", "\u202f", "\u00a0", "\u3000", "\t", "\u2009"])
def test_white_space_of_every_kind_around_ids_is_trimmed(tmp_path: Path, space: str) -> None:
    found = read_history(project(tmp_path, f"id,t,amount\nA{space},2024-01-05,1\n{space}A,2024-01-06,1\n"))
    assert ids_of(found) == ["A", "A"]


def test_long_numbers_beside_text_in_a_workbook_are_no_ids(tmp_path: Path) -> None:
    for cells in ([1234567890123456789, 1234567890123456700, "A7"], [1234567890123450.0, 1234567890123460.0]):
        book = openpyxl.Workbook()
        book.active.append(["id", "t", "amount"])
        for number, cell in enumerate(cells):
            book.active.append([cell, date(2024, 1, 5 + number), 10])
        book.save(tmp_path / "s.xlsx")
        with pytest.raises(DataError, match=r"(?s)Damaged customer ids.*TM2003.*row 2: id = '9.9999999999999.A.99'"):
            read_history(project(tmp_path, "", table={"path": str(tmp_path / "s.xlsx")}))
    book.active["A2"] = 1234567890123457  # a program's, exact: 16 digits that do not all end in 0
    book.save(tmp_path / "s.xlsx")
    found = read_history(project(tmp_path, "", table={"path": str(tmp_path / "s.xlsx")}))
    assert ids_of(found) == [1234567890123457, 1234567890123460]


@pytest.mark.parametrize(
    "spelling",
    ["1,23457E+11", "9,9E+12", "1.23457E+11", "1.23457e+11", "1.2345678E8", "1E+11", "#REF!", "#VALUE!", "####"],
)
def test_damaged_ids_are_refused(tmp_path: Path, spelling: str) -> None:
    rows = "id;t;amount\n" + "A;2024-01-05;5\n" * 99 + f"{spelling};2024-01-05;5\n"
    with pytest.raises(DataError, match="TM2003"):
        read_history(project(tmp_path, rows))


@pytest.mark.parametrize("spelling", ["1E5", "E+11", "5E", "3e7a", "A1.5E9", "#7", "#12-REF"])
def test_ids_that_are_not_damaged_are_kept(tmp_path: Path, spelling: str) -> None:
    assert ids_of(read_history(project(tmp_path, f"id,t,amount\n{spelling},2024-01-05,5\n"))) == [spelling]


@pytest.mark.parametrize("word", ["\\N", "(null)", "<NA>", "#N/A", "NULL", "null", "nan", "None"])
def test_words_for_nothing_are_no_customer(tmp_path: Path, word: str) -> None:
    rows = daily(50, *(f"{word},2023-02-{day:02},9" for day in range(1, 29)))
    with pytest.raises(TooManyBadRowsError, match=r"28 × customer_id_missing \(TM2010\)"):
        read_history(project(tmp_path, rows))
    found = read_history(project(tmp_path, rows, max_bad_share=0.5))
    assert set(ids_of(found)) == {"C0", "C1", "C2", "C3"}


def test_a_few_customers_may_be_called_null(tmp_path: Path) -> None:
    found = read_history(project(tmp_path, daily(50, "Null,2023-02-01,9", "NA,2023-02-01,9")))
    assert {"Null", "NA"} < set(ids_of(found))
    assert "2 customer ids read NA, null, None" in told(found)


def test_words_for_nothing_are_no_order(tmp_path: Path) -> None:
    rows = "id,t,amount,order\n" + "".join(f"A,2024-01-{day:02},5,\\N\n" for day in range(1, 10))
    made = project(tmp_path, rows, columns={**COLUMNS, "order_id": "order"})
    found = read_history(made)
    assert len({row[3] for row in found.connection.execute(found.rows_sql).fetchall()}) == 9
    assert "9 rows without order_id" in told(found)


def test_bad_rows_of_another_table_are_written_too(tmp_path: Path) -> None:
    known = customers_table(tmp_path, "id,born\nC1,2020-01-01\nC2,yesterday\n", {"signup": "born"})
    write_features(project(tmp_path, daily(30), customers=known, max_bad_share=0.5), "latest", tmp_path / "o.csv")
    assert "signup_unparsable" in (tmp_path / "o.quarantine.csv").read_text(encoding="utf-8")


# folders and files


def partitioned(folder: Path, name: str) -> Path:
    """Write a folder of two files, each in a folder `NAME=…`, whose rows have a column `date` of their own."""
    for number, day in enumerate(("2024-06-29", "2024-06-30")):
        place = folder / f"{name}={day}"
        place.mkdir(parents=True)
        rows = {"id": ["a", "b"], "date": [date(2024, 1, 5 + number), date(2024, 2, 5)], "amount": [3.0, 4.0 + number]}
        pq.write_table(pa.table(rows), place / "part.parquet")
    return folder


def test_a_folder_never_takes_the_place_of_a_column(tmp_path: Path) -> None:
    path = str(partitioned(tmp_path / "h", "date"))
    found = read_history(project(tmp_path, "", table={"path": path, "columns": {**COLUMNS, "time": "date"}}))
    assert found.last_day == date(2024, 2, 5)
    assert "TM1104 column 'date' is that of the files" in told(found)
    path = str(partitioned(tmp_path / "g", "DATE"))
    found = read_history(project(tmp_path, "", table={"path": path, "columns": {**COLUMNS, "time": "date"}}))
    assert found.last_day == date(2024, 2, 5)


@pytest.mark.parametrize(
    "given", ["day=2020-01-01", "day=2020-01-01/*/*.parquet", "day=2020-01-01/month=2024-06-29/part.parquet"]
)
def test_folders_above_the_path_are_no_columns(tmp_path: Path, given: str) -> None:
    partitioned(tmp_path / "day=2020-01-01", "month")
    columns = {"customer_id": "id", "time": "day", "amount": "amount"}
    with pytest.raises(ProjectError, match=r"TM1307 .*no column 'day'"):
        read_history(project(tmp_path, "", table={"path": str(tmp_path / given), "columns": columns}))
    partitioned(tmp_path / "day=2020-01-01" / "x", "day")
    below = str(tmp_path / "day=2020-01-01" / "x")
    found = read_history(project(tmp_path, "", table={"path": below, "columns": columns}))
    assert (found.first_day, found.last_day) == (date(2024, 6, 29), date(2024, 6, 30))


def columns_of(content: str) -> dict[str, str]:
    return {**COLUMNS, "amount": "amount, net"} if "net" in content else COLUMNS


@pytest.mark.parametrize(
    "content",
    [
        'id;t;amount;"Note, free, of any kind, at all"\nA;2024-01-05;53.91;x\nB;2024-01-06;5;y\n',
        "sep=;\nid;t;amount\nA;2024-01-05;53.91\nB;2024-01-06;5\n",
        "\ufeffSEP=|\r\nid|t|amount\r\nA|2024-01-05|53.91\r\nB|2024-01-06|5\r\n",
        "sep=,\nid,t,amount\nA,2024-01-05,53.91\nB,2024-01-06,5\n",
        "id\tt\tamount\nA\t2024-01-05\t53.91\nB\t2024-01-06\t5\n",
        "id;amount, net;t\nA;53.91;2024-01-05\nB;5;2024-01-06\n",
    ],
)
@pytest.mark.parametrize("name", ["s.csv", "s.txt", "s.txt.gz"])
def test_text_files_of_every_dialect_are_read(tmp_path: Path, content: str, name: str) -> None:
    raw = content.encode()
    made = project(tmp_path, "", table={"path": str(tmp_path / name), "columns": columns_of(content)})
    (tmp_path / name).write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
    found = read_history(made)
    rows = found.connection.execute(f"SELECT customer_id, amount FROM ({found.rows_sql}) ORDER BY 1").fetchall()
    assert rows == [("A", 539_100), ("B", 50_000)]
    assert found.account.read == 2


def test_lines_after_a_sep_line_are_numbered_as_in_the_file(tmp_path: Path) -> None:
    found = read_history(
        project(tmp_path, "sep=;\nid;t;amount\nA;2024-01-05;1\n\nB;x;5\nC;2024-01-06\n", max_bad_share=0.9)
    )
    assert {row: rule for _, row, rule, *_ in found.bad_rows()} == {5: "time_unparsable", 6: "field_missing"}


# numbers in text

TEXTS = "id,t,amount,q,paid\nA,2024-01-05,0.40,1,900\nB,2024-01-05,1000,1,900\n"
TEXTS += "C,2024-01-05,20,3,20\nD,2024-01-05,9.5,10,9\n"


@pytest.mark.parametrize(
    ("where", "kept"),
    [
        ("amount NOT IN (0)", "ABCD"),
        ("amount IN (20.0, 9.50)", "CD"),
        ("nullif(amount, 0) > 9", "BCD"),
        ("amount IS DISTINCT FROM 1e3", "ACD"),
        ("amount > '9'", "BCD"),
        ("amount BETWEEN '9' AND '100'", "CD"),
        ("greatest(amount, 9.7) > 9.7", "BC"),
        ("least(amount, 9.7) < 9.7", "AD"),
        ("CASE amount WHEN 20 THEN true ELSE false END", "C"),
        ("trim(amount) > 9", "BCD"),
        ("coalesce(nullif(amount, ''), '0') * 2 > 20", "BC"),
        ("q > 2 OR amount + paid < 901", "ACD"),
        ("amount <> ''", "ABCD"),
        ("t >= '2024-01-05'", "ABCD"),
        ("paid::VARCHAR >= amount", "ABC"),
    ],
)
def test_numbers_compare_as_numbers(tmp_path: Path, where: str, kept: str) -> None:
    assert "".join(ids_of(read_history(project(tmp_path, TEXTS, table={"where": where})))) == kept


@pytest.mark.parametrize(
    "where", ["paid >= amount", "amount = paid", "amount IN (paid, q)", "least(paid, amount) > ''"]
)
def test_numbers_are_not_compared_as_text(tmp_path: Path, where: str) -> None:
    with pytest.raises(ProjectError, match="as text, in which 900 is more than 1000"):
        read_history(project(tmp_path, TEXTS, table={"where": where}))


def test_text_that_is_no_number_never_becomes_one(tmp_path: Path) -> None:
    rows = "id,t,amount\nA,2024-01-05,abc\nB,2024-01-05,5\n"
    for expression in ("greatest(amount, 3)", "nullif(amount, 0)"):
        found = read_history(project(tmp_path, rows, columns={**COLUMNS, "amount": expression}, max_bad_share=0.5))
        assert (ids_of(found), found.account.rules) == (["B"], {"amount_missing": 1})


# dates that mean never


@pytest.mark.parametrize("never", ["9999-12-31", "9999-12-31 23:59:59", "2999-12-31", "2099-12-31", "0001-01-01",
                                   "1900-01-01", "1753-01-01", "0000-00-00", "\\N", "NULL", "infinity"])  # fmt: skip
def test_days_that_mean_never_are_none_where_a_column_allows_it(tmp_path: Path, never: str) -> None:
    known = customers_table(tmp_path, f"id,until\nC0,{never}\nC1,2023-06-30\n", {"contract_end": "until"})
    found = read_history(project(tmp_path, daily(5), customers=known))
    ends = found.connection.execute(f"SELECT contract_end FROM ({found.rows_sql}) WHERE kind > 0 ORDER BY 1").fetchall()
    assert ends == [(-(2**31),), ((date(2023, 6, 30) - date(1970, 1, 1)).days,)]
    counted = never[0] in "12" or never.startswith(("0001", "9"))
    assert ("1 values of contract_end (until), such as 9999-12-31, mean none" in told(found)) == counted


def test_a_row_is_valid_since_ever_but_not_from_the_end_of_time_on(tmp_path: Path) -> None:
    rows = "id,since\nC0,0001-01-01\nC1,9999-12-31\n"
    known = customers_table(tmp_path, rows, {"valid_from": "since"})
    found = read_history(project(tmp_path, daily(5), customers=known, max_bad_share=0.5))
    assert found.tables["customers"].account.rules == {"valid_from_implausible": 1}
    profiles = found.connection.execute(f"SELECT day FROM ({found.rows_sql}) WHERE kind > 0").fetchall()
    assert profiles == [(-(2**31),)]


# rows that repeat another


def test_the_money_of_equal_rows_is_told_with_what_keeps_them(tmp_path: Path) -> None:
    made = project(tmp_path, "id,t,amount\n" + "A,2024-01-05,3.00\n" * 3 + "B,2024-01-05,1.00\n")
    (found,) = (finding for finding in check(made).findings if finding.code == "duplicates")
    assert "amounts of 6.00 in all, 60.0% of the total; where they are meant, set" in found.text()
    assert "金额合计 6.00，占全部金额的 60.0%" in found.text("zh")
    tally = write_features(made, "latest", tmp_path / "o.csv")
    assert any(
        "2 rows that repeat another" in words and "duplicates: keep" in words for words in tally.account.warnings
    )


def test_quantities_beyond_reason_are_told(tmp_path: Path) -> None:
    rows = "id,t,amount,n\nA,2024-01-05,3,4294967295\nB,2024-01-05,3,999999\n"
    assert "1 rows have a quantity of 1,000,000 or more" in told(
        read_history(project(tmp_path, rows, columns={**COLUMNS, "quantity": "n"}))
    )


# invoices paid in part


def bills(folder: Path, rows: str, **columns: str) -> Project:
    path = folder / "bills.csv"
    path.write_text(rows, encoding="utf-8")
    names = {"customer_id": "id", "amount": "total", "due": "due", "paid": "paid", "paid_amount": "part"} | columns
    return project(
        folder, daily(60), invoices={"path": str(path), "columns": names, "duplicates": "keep"}, max_bad_share=1.0
    )


def test_what_is_left_of_an_invoice_stays_open(tmp_path: Path) -> None:
    rows = (
        "id,total,due,paid,part\n"
        "C0,100,2023-01-20,2023-01-10,40\n"  # in time: 60 are overdue from the due day on
        "C1,100,2023-01-20,2023-02-10,40\n"  # late: 100, then 60
        "C2,100,2023-01-20,2023-01-10,\nC2,100,2023-01-20,2023-01-10,150\n"  # all of it, and more
        "C3,100,2023-01-20,,\nC3,100,2023-01-20,,0\n"
    )
    shop = bills(tmp_path, rows)
    shop = shop.model_copy(update={"features": shop.features.model_copy(update={"groups": ("credit",)})})
    panel = build_panel(shop, [date(2023, 2, 1), date(2023, 2, 20)])
    then, now = (panel[panel["as_of"] == day] for day in ("2023-02-01", "2023-02-20"))
    for name, was, comes in (
        ("open_amount", [60, 100, 0, 200], [60, 60, 0, 200]),
        ("overdue_amount", [60, 100, 0, 200], [60, 60, 0, 200]),
        ("overdue_count", [1, 1, 0, 2], [1, 1, 0, 2]),
    ):
        assert (then[name].tolist(), now[name].tolist()) == (was, comes)
    assert now["days_since_payment"].tolist()[:3] == [41, 10, 41]
    assert now["days_since_payment"].isna().tolist() == [False, False, False, True]


def test_a_payment_without_its_day_is_quarantined(tmp_path: Path) -> None:
    history = read_history(
        bills(tmp_path, "id,total,due,paid,part\nC0,100,2023-01-20,,40\nC1,100,2023-01-20,2023-01-10,40\n")
    )
    assert history.tables["invoices"].account.rules == {"paid_amount_undated": 1}
    [row] = history.bad_rows()
    assert row[1:6] == (2, "paid_amount_undated", "TM2061", "part", "40")
    with pytest.raises(ValueError, match=r"paid_amount\s.*needs `paid` beside it"):
        Invoices.model_validate({"columns": {"customer_id": "id", "amount": "a", "due": "d", "paid_amount": "p"}})
