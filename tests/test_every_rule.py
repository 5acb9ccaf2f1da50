"""Break every rule of the table once, by the smallest input, on the command line: exit code, code, place and remedy.

One row of `ROWS` is one rule. The exit code, the code and, of quarantined rows, the remedy are those that the table
states, so that what a reader of configs/rules.md expects is what happens.
"""

from __future__ import annotations

import csv
import gzip
import os
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from commands import Run
from tiermodel import open_history, score
from tiermodel.config.project import load_project
from tiermodel.errors import DataError
from tiermodel.tables.readers import csv_file, text_encoding
from tiermodel.tables.rule_table import rule_table
from worlds import TrainedWorld

HEADER = b"id,when,amount,note\n"
GOOD = HEADER + b"".join(b"K%02d,2024-01-%02d,%d.50,x\n" % (n, n % 28 + 1, n) for n in range(60))
FEATURES = ("features", "shop.yaml", "--as-of", "latest", "--out", "out.parquet")
CHECK = ("check", "shop.yaml")
Make = Callable[[Path], object]
"""Writes the input, or more of it, into a folder."""


@dataclass(frozen=True)
class Row:
    """Say what breaks a rule, and what is said of the place and the remedy.

    `make` is the content of the transactions, or writes it; `table` and `data` are more keys of the project. `place`
    and `remedy` are patterns in what is printed; of a quarantined row, its column, and a remedy for its value if any.
    `patch` stands in for what the outside does: another program that writes, a limit that a small file shall reach.
    """

    make: bytes | Make
    place: str
    remedy: str = ""
    file: str = "a.csv"
    table: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    words: tuple[str, ...] = FEATURES
    patch: Callable[[pytest.MonkeyPatch, Path], object] = lambda *_: None


def bad(line: str | bytes, column: str = "", remedy: str = "", **more: Any) -> Row:
    """Make a row of the table for one bad line among good ones."""
    raw = line.encode() if isinstance(line, str) else line
    return Row(GOOD + raw + b"\n", column, remedy, **more)


def columns(**more: str) -> dict[str, Any]:
    return {"columns": {"customer_id": "id", "time": "when", "amount": "amount", **more}}


def beside(name: str, content: str, mapped: dict[str, str], **more: Any) -> tuple[Make, dict[str, Any]]:
    """Make good transactions, a second table beside them, and the key under data that maps it."""

    def make(folder: Path) -> None:
        (folder / "a.csv").write_bytes(GOOD)
        (folder / "b.csv").write_text(content, encoding="utf-8")

    return make, {name: {"path": "b.csv", "columns": {"customer_id": "id", **mapped}, **more}}


def parquet(name: str = "a.parquet", *, checksums: bool = False, **more: Any) -> Callable[[Path], bytes]:
    def make(folder: Path) -> bytes:
        days = [date(2024, 1, 1) + timedelta(n % 50) for n in range(200)]
        table = {"id": [f"C{n:03}" for n in range(200)], "when": days, "amount": [n + 0.25 for n in range(200)], **more}
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(table), folder / name, use_dictionary=False, compression=None,
                       write_page_checksum=checksums)  # fmt: skip
        return (folder / name).read_bytes()

    return make


def flipped(value: bytes, byte: int, bit: int, *, checksums: bool = False) -> Make:
    """Write a sound file, then flip one bit of a value in it."""

    def make(folder: Path) -> None:
        content = bytearray(parquet(checksums=checksums)(folder))
        content[content.index(value) + byte] ^= 1 << bit
        (folder / "a.parquet").write_bytes(content)

    return make


def cut(folder: Path) -> None:
    content = parquet()(folder)
    (folder / "a.parquet").write_bytes(content[:900])


def differ(folder: Path) -> None:
    parquet("a/1.parquet")(folder)
    parquet("a/2.parquet", amount=list(range(200)))(folder)


def loop(folder: Path) -> None:
    (folder / "a.csv").symlink_to(folder / "b.csv")
    (folder / "b.csv").symlink_to(folder / "a.csv")


def written_meanwhile(patch: pytest.MonkeyPatch, folder: Path) -> None:
    load = csv_file.load

    def slowly(*given: Any) -> csv_file.Table:
        found = load(*given)
        (folder / "a.csv").write_bytes(GOOD + b"Z,2024-01-01,1,x\n")
        return found

    patch.setattr(csv_file, "load", slowly)


def sales(*lines: str) -> bytes:
    return HEADER + "".join(f"{line},x\n" for line in lines).encode()


IN_NOTE = columns(currency="CASE note WHEN 'x' THEN 'CNY' ELSE note END")
DAY = struct.pack("<i", 19723 + 7)
ODD_NOTE, NEVER_ENDS = b'""\0\xff,""\0 ,\r', b'"Z,2024-01-01,1,x\n'
PEOPLE, PROFILES = beside("customers", "id,size\nK01,big\nK02,7\n", {}, attributes={"size": "size"})
AS_TEXT = beside("customers", "id,size\nK01,1\n", {}, categories={"size": "size::DOUBLE"})
MANY = beside("customers", "id,city\n" + "".join(f"K{n},c{n}\n" for n in range(1001)), {}, categories={"city": "city"})
REFUSED = beside("customers", "id,no\n" + "".join(f"K{n:02},1\n" for n in range(60)), {"opt_out": "no"})
UNSURE = beside("customers", "id,no\nK01,perhaps\nK02,0\n", {"opt_out": "no"})
UNDATED = beside(
    "invoices",
    "id,due,total,part,paid\nK01,2024-01-05,7,2,\nK02,2024-01-05,7,2,2024-01-09\n",
    {"due": "due", "amount": "total", "paid_amount": "part", "paid": "paid"},
)
EVENTS = beside("events", "id,at,what\nK01,2024-01-05,visit\nK02,2024-01-05,dance\n", {"time": "at", "kind": "what"})

OWN = {"name": "own", "name_zh": "自", "name_en": "own", "measure": "1 / amount::DOUBLE"}
ROWS = {
    "file_empty": Row(b"", "a.csv is empty"),
    "no_rows": Row(HEADER, "a.csv: there are 0 rows of transactions"),
    "no_rows_allowed": Row(HEADER, "0 rows, as was allowed", words=(*FEATURES, "--allow-empty")),
    "header_missing": Row(GOOD[len(HEADER) :], "a.csv: the first line", "Put a line with a name for every column"),
    "path_missing": Row(lambda _: None, r"data.transactions.path: .*a.csv does not exist"),
    "file_unreadable": Row(loop, "a.csv cannot be read"),
    "file_format": Row(b"%PDF-1.7\n", "a.csv is a PDF", "save it as plain CSV or Parquet"),
    "file_cut": Row(gzip.compress(GOOD)[:-9], "a.csv.gz is a damaged or truncated", "Copy it again", file="a.csv.gz"),
    "file_expands": Row(gzip.compress(HEADER + b"A,2024-01-01,1,x\n" * 99_999), "a.csv.gz expands", file="a.csv.gz",
                        patch=lambda patch, _: patch.setattr(text_encoding, "_BOMB_BYTES", 1 << 10)),
    "file_archive": Row(b"PK\3\4" + bytes(99), "a.zip is an archive", "unpack it", file="a.zip"),
    "last_line_open": Row(GOOD[:-1], "a.csv: the last line"),
    "job_unfinished": Row(lambda f: (f / "a" / "_temporary").mkdir(parents=True), "/a is being written",
                          "wait, or run the job again", file="a"),
    "line_endless": Row(GOOD + b"x" * (17 << 20), "a.csv, line 62"),
    "file_changed": Row(GOOD, "a.csv changed while it was read", "run again", patch=written_meanwhile),
    "rows_damaged": Row(cut, "a.parquet", "Copy it again", file="a.parquet"),
    "page_damaged": Row(flipped(DAY, 0, 0, checksums=True), "a.parquet, row group 0, column 'when'", "Copy it again",
                        file="a.parquet"),
    "parts_differ": Row(differ, r"2.parquet: column 'amount' is BIGINT, but DOUBLE in .*1.parquet", "Rewrite one",
                        file="a"),
    "folder_shadowed": Row(parquet("a/when=2023-01-01/1.parquet"), "column 'when'.*folders when=… are not", file="a"),
    "values_outside": Row(flipped(DAY, 1, 5), "a.parquet, row group 0, column when holds", "copy or write it again",
                          file="a.parquet", words=CHECK),
    "values_impossible": Row(flipped(DAY, 3, 7), "a.parquet: the transactions hold a day", "Copy or write it again",
                             file="a.parquet"),
    "file_encrypted": Row(b"PARE" + bytes(99), "a.parquet is an encrypted", file="a.parquet"),
    "encoding_wrong": Row(HEADER + "张,2024-01-01,1,x\n".encode("gbk") * 9, "a.csv is not UTF-8: line 2, byte offset",
                          r"Set data\.transactions\.encoding: .*gb18030"),
    "invalid_encoding": bad("张,2024-01-01,1,x".encode("gbk")),
    "nul_byte": bad(b"Z\0,2024-01-01,1,x"),
    "line_too_long": bad(b"x" * 70_000 + b",2024-01-01,1,x"),
    # DuckDB tells all faults apart today; one that it names otherwise must be a rejected record too
    "malformed": bad("Z,2024-01-01,1", patch=lambda patch, _: patch.setattr(csv_file, "_RULES", {})),
    "csv_unreadable": Row(GOOD + ODD_NOTE + b"\n" + GOOD, "a.csv cannot be read as CSV", "Is a quote opened"),
    "quote_open": Row(HEADER + NEVER_ENDS + GOOD, "a.csv, line 2: a quote opens here"),
    "stray_quote": bad('Z,2024-01-01,1,5" pipe'),
    "field_missing": bad("Z,2024-01-01,1"),
    "field_extra": bad("Z,2024-01-01,1,x,y"),
    "names_of_columns": Row(b"id,when,When,amount\n", "a.csv, in the header: two columns", "Name every column once"),
    "column_unknown": Row(GOOD.replace(b"id,", b"ids,"), r"data\.transactions\.columns\.customer_id",
                          "did you mean 'ids'"),
    "repeated_header": bad(HEADER.strip(), "id"),
    "footer_total": bad("TOTAL,,12345,", "id"),
    "leading_zeros": Row(GOOD + b"00123,2024-01-01,1,x\n123,2024-01-01,1,x\n", "1 customer ids.*00123", words=CHECK),
    "customer_id_damaged": bad("1.23457E+11,2024-01-01,1,x", "a.csv, row 62: id = '9.99999A.99'", "export ids as text"),
    "ids_case": bad("k01,2024-01-01,1,x", "'A99' and 'a99'", r"data\.ids: {case: fold}.*data\.ids: {case: keep}"),
    "ids_case_kept": bad("xYz,2024-01-01,1,x\nxyZ,2024-01-01,1,x", "'aAa' and 'aaA'", r"data\.ids: {case: fold}"),
    "ids_invisible": bad("K01\u200b,2024-01-01,1,x", "characters that nobody sees", r"data\.ids: {invisible: strip}"),
    "customer_id_missing": bad(",2024-01-01,1,x", "id", "where: .*id"),
    "customer_id_too_long": bad(f"{'x' * 129},2024-01-01,1,x", "id"),
    "one_customer": Row(sales(*(f"A,2024-01-01,{n}" for n in range(50))), "one customer holds 100%", words=CHECK),
    "customer_id_not_integral": Row(parquet(id=[0.5, *range(1, 200)]), "id", file="a.parquet"),
    "number_missing": bad("Z,2024-01-01,,x", "amount", "where: .*amount"),
    "number_unparsable": bad("Z,2024-01-01,abc,x", "amount"),
    "number_not_finite": bad("Z,2024-01-01,nan,x", "amount"),
    "number_too_large": bad("Z,2024-01-01,9e13,x", "amount"),
    "sum_too_large": Row(HEADER + b"".join(b"A,2024-01-01,%d,x\n" % (10**12 - n) for n in range(2000)), "customer 'A'"),
    "number_type": Row(parquet(amount=[True] * 200), r"data\.transactions\.columns\.amount: 'amount' is BOOLEAN",
                       "map amount::INTEGER", file="a.parquet"),
    "quantity_vast": bad("Z,2024-01-01,1,20240101", "a.csv, row 62", "is another column mapped",
                         table=columns(quantity="CASE note WHEN 'x' THEN '1' ELSE note END")),
    "amount_jumps": Row(sales(*(f"K{n},2024-0{n % 3 + 1}-01,{n + 40}{'00' * (n % 3 == 2)}" for n in range(90))),
                        "the median amount of 2024-03 is about", "map amount to amount / CASE WHEN"),
    "flag_unparsable": Row(UNSURE[0], "no", data=UNSURE[1]),
    "currency_missing": bad("Z,2024-01-01,1,", IN_NOTE["columns"]["currency"], table=IN_NOTE),
    "currency_unknown": bad("Z,2024-01-01,1,XXX", IN_NOTE["columns"]["currency"], table=IN_NOTE),
    "currency_other": bad("Z,2024-01-01,1,USD", IN_NOTE["columns"]["currency"], "where: .*'USD'", table=IN_NOTE,
                          data={"currency": "CNY"}),
    "currencies_mixed": bad("Z,2024-01-01,1,USD", "holds CNY, USD", "Set the project's `currency`", table=IN_NOTE),
    "kind_unknown": Row(EVENTS[0], "what", data=EVENTS[1]),
    "attribute_not_a_number": Row(PEOPLE, "attribute", "declare text under data.customers.categories",
                                  data={**PROFILES, "features": {"attributes": ["size"]}}),
    "custom_not_a_number": Row(GOOD + b"Z,2024-01-01,0,x\n", "custom", r"divide by nullif\(column, 0\)",
                               data={"features": {"custom": [OWN]}}),
    "category_type": Row(AS_TEXT[0], r"data\.customers\.categories\.size", "column::BIGINT::VARCHAR", data=AS_TEXT[1]),
    "category_many": Row(MANY[0], r"data\.customers\.categories\.city", "map a coarser expression", data=MANY[1]),
    "date_missing": bad("Z,,1,x", "when", "where: .*when"),
    "paid_amount_undated": Row(UNDATED[0], "part", data=UNDATED[1]),
    "arrived_late": Row(GOOD, "60 of 60 rows arrived a month", "map to ingested_at when a row arrived first",
                        table=columns(ingested_at="DATE '2024-06-01'")),
    "date_unparsable": bad("Z,tomorrow,1,x", "when"),
    "date_numeric": bad("Z,1704040200,1,x", "when", r"map time to coalesce\(to_timestamp\("),
    "date_type": Row(parquet(when=[19723] * 200), r"data\.transactions\.columns\.time", r"Map an expression: to_times",
                     file="a.parquet"),
    "date_implausible": bad("Z,2567-01-01,1,x", "when", "of Buddhist years$"),
    "date_default": Row(GOOD + b"Z,1970-01-01,1,x\nY,1970-01-01,1,x\n", "dated 1970-01-01", words=CHECK),
    "rows_far_ahead": Row(sales(*(f"K{n:02},2024-01-{n % 28 + 1:02},{n}" for n in range(200)), "Z,2099-01-01,1"),
                          "a.csv, row 202: 2099-01-01", "leave the row out by `where`"),
    "offsets_mixed": bad("Z,2024-01-01T00:00:00+08:00,1,x", "'when' mixes", r"map time to "),
    "rows_isolated": Row(sales(*(f"K{n:02},2024-01-01,{n}" for n in range(50)), "Z,2024-06-01,1"), "up to 2024-06-01"),
    "data_stale": Row(GOOD, "days older than 2027-01-28", words=("features", "shop.yaml", "--as-of", "2027-01-28",
                                                               "--out", "out.parquet")),
    "data_too_stale": Row(GOOD, "data.max_stale_days is 30", "bring the data up to date", data={"max_stale_days": 30},
                          words=("features", "shop.yaml", "--as-of", "2027-01-28", "--out", "out.parquet")),
    "nobody_before": Row(GOOD, "before 2020-01-01", "choose a later date", words=("features", "shop.yaml", "--as-of",
                                                                               "2020-01-01", "--out", "out.parquet")),
    "nobody_consents": Row(REFUSED[0], "none of 60 customers", "check data.customers.columns", data=REFUSED[1]),
}  # fmt: skip
ELSEWHERE = {"column_mixed", "score_of_the_past"}
"""Rules that no file breaks: rows in memory, and a model; their tests are below."""


def test_every_rule_of_the_table_is_broken_here() -> None:
    assert set(ROWS) | ELSEWHERE == set(rule_table())


def prepare(folder: Path, row: Row) -> None:
    if callable(row.make):
        row.make(folder)
    else:
        (folder / row.file).write_bytes(row.make)
    of_project: dict[str, Any] = {key: row.data[key] for key in ("currency", "features") if key in row.data}
    of_data = {key: value for key, value in row.data.items() if key not in of_project}
    table = {"path": row.file, **columns(), **row.table}
    made: dict[str, Any] = {"version": 1, "name": "shop", "timezone": "Asia/Shanghai", **of_project}
    made["data"] = {"transactions": table, "max_bad_share": 0.6, **of_data}
    (folder / "shop.yaml").write_text(yaml.safe_dump(made, allow_unicode=True), encoding="utf-8")


@pytest.mark.parametrize("name", ROWS)
def test_what_breaks_a_rule_ends_as_the_table_states(
    name: str, tmp_path: Path, cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    row, rule = ROWS[name], rule_table()[name]
    prepare(tmp_path, row)
    row.patch(monkeypatch, tmp_path)
    done = cli(*row.words)
    assert "Traceback" not in done.err
    if rule.then.startswith("exit"):
        assert done.code == int(rule.then.split()[1]), done.err
        assert not list(tmp_path.glob("*out*"))  # nothing partial, nothing hidden
    elif row.words[0] != "check":  # which refuses so few customers
        assert done.code == 0, done.err
    if rule.then == "quarantined":
        assert_quarantined(tmp_path, row, name)
        return
    said = done.out + done.err
    (line,) = (text for text in said.splitlines() if rule.code in text and re.search(row.place, said))
    assert re.search(row.place, said), said
    assert re.search(row.remedy, said), said
    assert rule.code in line


def assert_quarantined(folder: Path, row: Row, name: str) -> None:
    rule = rule_table()[name]
    (file,) = folder.glob("*.quarantine.csv")
    with file.open(newline="", encoding="utf-8") as stream:
        (found,) = list(csv.DictReader(stream))
    assert found["code"] == rule.code
    assert found["column"] == row.place
    assert os.path.basename(found["file"])[:1] in "ab"  # noqa: PTH119  # of the file that holds it
    if row.remedy:
        assert re.search(row.remedy, found["remedy"]), found
    else:
        assert found["remedy"] == rule.remedy[1]


def test_a_column_of_mixed_types_in_memory_is_refused(tmp_path: Path) -> None:
    prepare(tmp_path, Row(GOOD, ""))
    frame = pd.DataFrame({"id": ["A", 1], "when": ["2024-01-01"] * 2, "amount": [1, 2]})
    with pytest.raises(DataError, match=r"TM2056 .*column 'id' mixes types.*Make all of one type") as refusal:
        open_history(load_project(tmp_path / "shop.yaml"), transactions=frame)
    assert rule_table()["column_mixed"].then == f"exit {refusal.value.exit_code}"


def test_a_score_of_the_past_is_told(trained: TrainedWorld, tmp_path: Path) -> None:
    learned = date.fromisoformat(str(trained.trained.bundle.facts["as_of"]))
    tally = score(trained.project, trained.bundle, learned - timedelta(days=30), tmp_path / "s.csv")
    (words,) = (text for text in tally.accounts["transactions"].warnings if text.startswith("TM4001"))
    assert "to judge a model on the past, use `tiermodel backtest`" in words
