"""Try bad inputs on the command line: each is refused, quarantined, warned of, or right, by a stable code and place.

One row of `CASES` is one file and what must become of it. Where a row needs the user's word, that is a key of the
project file, never a flag: `encoding`, `where`, `currency`, `timezone`, `data.max_stale_days`, a mapping in SQL.
Rows with one order's id and different amounts are lines of that order: nothing tells which of two is wrong, so both
are kept.
"""

from __future__ import annotations

import csv
import gzip
import io
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from commands import Run

HEADER = b"id,when,amount,note\n"
GOOD = [b"K%02d,2024-01-%02d,%d.50,x\n" % (n, n % 28 + 1, n) for n in range(60)]
BODY = HEADER + b"".join(GOOD)  # 61 lines: what is appended starts on line 62
Content = bytes | Callable[[Path], object]


@dataclass(frozen=True)
class Case:
    """Say what a file holds, and what must become of it.

    `code` is the exit code of `tiermodel features`; `says` must be on the error stream; `bad` gives the rule of every
    quarantined row by its line; `used` counts the rows used and `customers` the customers written, where they matter.
    """

    name: str
    content: Content
    says: str = ""
    code: int = 0
    bad: dict[int, str] = field(default_factory=dict)
    used: int | None = None
    customers: set[str] | None = None
    file: str = "a.csv"
    table: dict[str, Any] = field(default_factory=dict)
    project: dict[str, Any] = field(default_factory=dict)
    words: tuple[str, ...] = ()


def one(name: str, line: str | bytes, rule: str, **more: Any) -> Case:
    """Make a case of good rows and one bad line after them."""
    raw = line.encode() if isinstance(line, str) else line
    return Case(name, BODY + raw + b"\n", bad={62: rule}, used=60, **more)


def fine(name: str, lines: str | bytes, ids: set[str], **more: Any) -> Case:
    """Make a case of good rows and others that are unusual, and right."""
    raw = lines.encode() if isinstance(lines, str) else lines
    return Case(name, BODY + raw, customers={f"K{n:02d}" for n in range(60)} | ids, **more)


def refused(name: str, content: Content, says: str, code: int = 3, **more: Any) -> Case:
    return Case(name, content, says, code, **more)


def parquet(**columns: Any) -> Callable[[Path], object]:
    table = {"id": ["A"] * 3, "when": [date(2024, 1, 1)] * 3, "amount": [1.0] * 3, "note": ["x"] * 3}
    return lambda path: pq.write_table(pa.table({**table, **columns}), path, write_page_checksum=True)


def parts(*tables: dict[str, Any]) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        path.mkdir()
        for number, columns in enumerate(tables):
            table = {"id": ["A"] * 3, "when": [date(2024, 1, 1)] * 3, "amount": [1.0] * 3, **columns}
            kept = {name: values for name, values in table.items() if values is not None}
            pq.write_table(pa.table(kept), path / f"{number}.parquet")

    return write


def damaged(change: Callable[[bytearray], object]) -> Callable[[Path], object]:
    """Write a sound Parquet file, then damage it."""

    def write(path: Path) -> None:
        count = 20_000
        table = {"id": range(count), "when": [date(2024, 1, 1)] * count, "amount": [1.0] * count}
        pq.write_table(pa.table(table), path, write_page_checksum=True, use_dictionary=False, compression=None)
        content = bytearray(path.read_bytes())
        change(content)
        path.write_bytes(content)

    return write


def archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("../../slipped.csv", BODY.decode())


def mixed_folder(path: Path) -> None:
    path.mkdir()
    parquet()(path / "a.parquet")
    for name in ("b.csv", "c.tmp", "_SUCCESS", ".hidden.parquet"):
        (path / name).write_bytes(BODY)


def csv_folder(second: bytes) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        path.mkdir()
        (path / "1.csv").write_bytes(BODY)
        (path / "2.csv").write_bytes(second)

    return write


def bomb(path: Path) -> None:
    with gzip.open(path, "wb", compresslevel=9) as file:
        file.write(HEADER)
        block = b"A,2024-01-01,1,x\n" * 500_000
        for _ in range(40):
            file.write(block)


def loop(path: Path) -> None:
    path.symlink_to(path.with_name("b"))
    path.with_name("b").symlink_to(path)


NULL_WORDS = ("NA", "null", "None", "NaN", "nil", "True")
TWICE = BODY + b"".join(GOOD)
# the rows that are good in every case hold x, so that the note of another can be a currency
IN_NOTE = {"columns": {"customer_id": "id", "time": "when", "amount": "amount",
                       "currency": "CASE note WHEN 'x' THEN 'CNY' ELSE note END"}}  # fmt: skip

FILES = [
    refused("B001 empty", b"", "TM1001 .* is empty"),
    Case("B001 empty, allowed", b"", "TM1002 there are 0 rows, as was allowed", words=("--allow-empty",), used=0),
    refused("B002 header only", HEADER, "TM1002 .* 0 rows"),
    Case("B002 header only, allowed", HEADER, "as was allowed", words=("--allow-empty",), used=0, customers=set()),
    refused("B004 byte order mark only", b"\xef\xbb\xbf", "TM1001"),
    refused("B005 no header", b"".join(GOOD), "TM1003 .*Put a line with a name for every column"),
    refused("B007 folder without data", lambda p: p.mkdir(), "TM1004 .* holds no"),
    refused("no such file", lambda _: None, "TM1004 .* does not exist"),
    Case("B008 mixed folder", mixed_folder, r"ignored \.hidden\.parquet, _SUCCESS, b\.csv, c\.tmp", used=1, file="a"),
    refused("B011 named pipe", os.mkfifo, "TM1004 .* is a pipe or a device"),
    refused("B014 links in a circle", loop, "TM1005", code=7),
    refused("B016 workbook as CSV", b"PK\x03\x04" + bytes(99), "TM1006 .*Excel"),
    refused("CSV as workbook", BODY, "TM1006 .* not an Excel workbook", file="a.xlsx"),
    refused("old workbook", b"\xd0\xcf\x11\xe0" + bytes(99), "TM1006", file="a.xls"),
    refused("B017 HTML", b"\n<!DOCTYPE html><html></html>", "TM1006 .* looks like HTML"),
    refused("PDF", b"%PDF-1.7\n", "TM1006 .* a PDF"),
    refused("B019 cut gzip", gzip.compress(BODY * 999)[:-40], "TM1007", file="a.csv.gz"),
    refused("not gzip", BODY, "TM1007", file="a.csv.gz"),
    refused("B020 bomb", bomb, "TM1008 .*expands", file="a.csv.gz"),
    refused("B022 archive", archive, "TM1010 .*never opened", file="a.zip"),
    Case("B023 no newline at the end", BODY[:-1], "TM1011 .*last line has no newline", used=60),
    one("B023 cut in a row", "Z,2024-0", "field_missing"),
    refused("B025 no newline at all", b"x" * (17 << 20), "TM1013"),
    refused("a line of 20 MB", BODY + b"x" * (20 << 20) + b"\n" + BODY, "TM1013 .*line 62"),
    one("B058 field of 1 MB", b"x" * 1_000_000 + b",2024-01-01,1,x", "line_too_long"),
    one("field of 10 MB", b"Z,2024-01-01,1," + b"x" * 10_000_000, "line_too_long"),
    one("quoted field of 10 MB", b'Z,2024-01-01,1,"' + b"x" * 10_000_000 + b'"', "line_too_long"),
    Case("field of 10 MB at a buffer's end", HEADER + b"A,2024-01-01,1,x\n" * 1_900_000 + b"y" * 10_000_000
         + b",2024-01-01,1,x\nZ,2024-01-01,1,x\n", bad={1_900_002: "line_too_long"}, customers={"A", "Z"}),
]  # fmt: skip

PARQUET = [
    refused("B028 footer zeroed", damaged(lambda c: c.__setitem__(slice(-400, None), bytes(400))), "TM1101",
            file="a.parquet"),
    refused("cut short", damaged(lambda c: c.__delitem__(slice(1000, None))), "TM1101", file="a.parquet"),
    refused("B029 flipped bit", damaged(lambda c: c.__setitem__(50_000, c[50_000] ^ 4)), "TM1102 .*column 'id'",
            file="a.parquet"),
    refused("B031 types differ", parts({"amount": [1, 2, 3]}, {}), "TM1103 .*1.parquet: column 'amount' is DOUBLE",
            file="a"),
    refused("B032 column missing", parts({}, {"amount": None}), "TM1103 .*column 'amount' is missing", file="a"),
    *(Case(f"B034 {kind}", parquet(when=pa.array([datetime(2024, 1, 1)] * 3).cast(kind)), used=1, file="a.parquet")  # noqa: DTZ001
      for kind in (pa.timestamp("s"), pa.timestamp("ms"), pa.timestamp("us"), pa.timestamp("ns"), pa.date32())),
    Case("B034 int96", lambda p: pq.write_table(pa.table({"id": ["A"], "when": [datetime(2024, 1, 1)], "amount": [1]}),  # noqa: DTZ001
         p, use_deprecated_int96_timestamps=True), used=1, file="a.parquet"),
    Case("B035 decimal", parquet(amount=pa.array([Decimal("1.0000000001")] * 3, pa.decimal128(38, 10))), used=1,
         file="a.parquet"),
    Case("B037 pandas index", lambda p: pd.DataFrame({"id": ["A"], "when": ["2024-01-01"], "amount": [1]}, index=["k"])
         .to_parquet(p), "ignored the pandas index", used=1, file="a.parquet"),
    refused("B038 encrypted", b"PARE" + bytes(99), "TM1106", file="a.parquet"),
    refused("Parquet as CSV", b"PAR1" + bytes(99), "TM1006 .* is a Parquet file"),
    refused("dates as numbers", parquet(when=[19723] * 3), "TM2063 .*epoch_ms", code=2, file="a.parquet"),
    refused("amounts as flags", parquet(amount=[True] * 3), "not a number or text", code=2, file="a.parquet"),
    Case("NaN and infinity", parquet(amount=[1.0, float("nan"), float("-inf")]), file="a.parquet", used=1,
         project={"max_bad_share": 0.9}, bad={2: "amount_not_finite", 3: "amount_not_finite"}),
]  # fmt: skip

ENCODINGS = [
    refused("B040 GBK as UTF-8", "编号,when,amount\n张,2024-01-01,1\n".encode("gbk"), "TM1201 .*line 1.*gb18030"),
    refused("B040 GBK rows as UTF-8", HEADER + "张,2024-01-01,1,x\n".encode("gbk") * 9, "TM1201 .*line 2, byte offset"),
    Case("B041 GB18030 of four bytes", HEADER + "𠮷,2024-01-01,1,x\n".encode("gb18030"), customers={"𠮷"},
         table={"encoding": "gb18030"}),
    refused("B043 Latin-1", HEADER + "é,2024-01-01,1,x\n".encode("latin-1") * 9, "TM1201 .*line 2, byte offset 20, e9"),
    one("B044 GBK from some row on", "张,2024-01-01,1,x".encode("gbk"), "invalid_encoding"),
    one("B046 overlong UTF-8", b"C\xc0\xaf,2024-01-01,1,x", "invalid_encoding"),
    one("B047 surrogates", b"C\xed\xa0\x80,2024-01-01,1,x", "invalid_encoding"),
    refused("UTF-16 as UTF-8", BODY.decode().encode("utf-16"), "TM1201 .*utf-16"),
    refused("UTF-16 without a mark", BODY.decode().encode("utf-16-le"), "TM1201 .*utf-16"),
    refused("UTF-8 as UTF-16", BODY + b"\n" * (len(BODY) % 2), "TM1307", code=2, table={"encoding": "utf-16-be"}),
    refused("no such encoding", BODY, "utf-9", code=2, table={"encoding": "utf-9"}),
    one("NUL byte", b"C\0D,2024-01-01,1,x", "nul_byte"),
    fine("B049 control characters", "\x1b[31mE\x07,2024-01-01,1,x\n", {"\x1b[31mE\x07"}),
    fine("B050 right to left", "E\u202eF,2024-01-01,1,x\n", {"E\u202eF"}),
    fine("B052 composed and not", "\u00e9,2024-01-01,1,x\ne\u0301,2024-01-01,2,x\n", {"\u00e9"},
         says="1 rows: customer ids were trimmed or brought to one form"),
    fine("B055 emoji", "😀1,2024-01-01,1,x\n", {"😀1"}),
    fine("B056 padded", "A,2024-01-01,1,x\nA ,2024-01-01,2,x\n A,2024-01-01,3,x\n", {"A"}, says="2 rows: customer ids"),
]  # fmt: skip

STRUCTURE = [
    Case("B061 tabs", BODY.replace(b",", b"\t"), "read with delimiter", used=60),
    Case("semicolons", BODY.replace(b",", b";"), "read with delimiter", used=60),
    fine("B062 delimiter in quotes", 'A,2024-01-01,1,"a,b|c"\n', {"A"}),
    refused("B064 quote never closed", HEADER + b'"A,2024-01-01,1,x\n' + b"".join(GOOD),
            "TM1302 .*line 2: a quote opens"),
    one("B065 stray quote", 'Z,2024-01-01,1,5" pipe', "stray_quote"),
    one("text after a quote", 'Z,2024-01-01,1,"5" pipe', "stray_quote"),
    fine("quotes doubled in quotes", 'A,2024-01-01,1,"5"" pipe"\n', {"A"}),
    fine("line break in quotes", 'A,2024-01-01,1,"a\n\nb"\n', {"A"}),
    one("B067 a field more", "Z,2024-01-01,1,x,y", "field_extra"),
    one("B068 a field less", "Z,2024-01-01,1", "field_missing"),
    Case("places after records of several lines", BODY
         + b'A,2024-01-01,1,"a\nb"\n\n"c\n\nd",2024-01-01,x,\n\nZ,x,1,x\n',
         bad={65: "amount_unparsable", 69: "time_unparsable"}, used=61),
    refused("B070 name twice", b"id,amount,Amount\n", "TM1306 .*two columns"),
    refused("B071 no name", b"id,,amount\n", "TM1306 .*column 2 has no name"),
    refused("B073 Chinese header", "客户编号,when,金额\nA,2024-01-01,1\n".encode(), "TM1307 .*客户编号", code=2),
    Case("B073 Chinese header, mapped", "客户编号,日期,金额\nA,2024-01-01,1\n".encode(), used=1,
         table={"columns": {"customer_id": "客户编号", "time": "日期", "amount": "金额"}}),
    refused("B074 renamed", BODY.replace(b"id,", b"ids,"), "TM1307 .*did you mean 'ids'", code=2),
    refused("B076 missing", b"id,when\nA,2024-01-01\n", "TM1307 .*no column 'amount'", code=2),
    Case("B079 line ends mixed", BODY.replace(b"x\nK3", b"x\r\nK3"), used=60),
    Case("B080 blank lines", BODY.replace(b"x\nK3", b"x\n\n\nK3"), "skipped 20 blank lines", used=60),
    one("B082 header again", HEADER[:-1], "repeated_header"),
    one("B083 totals", "TOTAL,,12345,", "footer_total"),
    one("totals in Chinese", "合计,,12345,", "footer_total"),
    Case("columns in another order in the second file", csv_folder(b"note,amount,when,id\nx,1,2024-01-01,A\n"), used=61,
         file="a"),
    refused("other columns in the second file", csv_folder(b"id,when,total\nA,2024-01-01,1\n"),
            "TM1103 .*amount, note, total", file="a"),
    refused("second file empty", csv_folder(b""), "TM1001 .*2.csv", file="a", words=("--allow-empty",)),
]  # fmt: skip

IDS = [
    fine("B085 leading zeros", "00123,2024-01-01,1,x\n", {"00123"}),
    fine("B086 leading zeros and none", "00123,2024-01-01,1,x\n123,2024-01-01,1,x\n", {"00123", "123"}),
    refused("B088 rounded by a spreadsheet", BODY + b"1.23457E+11,2024-01-01,1,x\n", "TM2003"),
    fine("B089 beyond doubles", "9007199254740993,2024-01-01,1,x\n9007199254740992,2024-01-01,1,x\n",
         {"9007199254740993", "9007199254740992"}),
    fine("B091 words for nothing", "".join(f"{word},2024-01-01,1,x\n" for word in NULL_WORDS),
         set(NULL_WORDS), says="6 customer ids read NA"),
    one("B092 empty", ",2024-01-01,1,x", "customer_id_missing"),
    one("blank", "   ,2024-01-01,1,x", "customer_id_missing"),
    Case("B094 one customer", HEADER + b"".join(b"A,2024-01-01,%d,x\n" % n for n in range(50)), used=50,
         customers={"A"}),
    fine("B095 formulas", "=HYPERLINK(1),2024-01-01,1,x\n@SUM,2024-01-01,1,x\n+1,2024-01-01,1,x\n＝1,2024-01-01,1,x\n",
         {"=HYPERLINK(1)", "@SUM", "+1", "＝1"}),
    fine("B097 SQL", "'; DROP TABLE t; --,2024-01-01,1,x\n", {"'; DROP TABLE t; --"}),
    fine("B098 paths", "../../etc/passwd,2024-01-01,1,x\nCON,2024-01-01,1,x\n", {"../../etc/passwd", "CON"}),
    one("B059 long", f"{'x' * 300},2024-01-01,1,x", "customer_id_too_long"),
    Case("B100 every row twice", TWICE, used=60),
    Case("B101 one order, two amounts", HEADER + b"A,2024-01-01,1,o1\nA,2024-01-01,2,o1\n", used=2, table={"columns": {
        "customer_id": "id", "time": "when", "amount": "amount", "order_id": "note"}}),
    Case("rows meant twice", TWICE, used=120, table={"duplicates": "keep"}),
]  # fmt: skip

AMOUNTS = [
    *(one(f"amount {value!r}", f"Z,2024-01-01,{value},x", f"amount_{rule}") for value, rule in (
        ("abc", "unparsable"), ("", "missing"), ("  ", "missing"), ("nan", "not_finite"), ("-NaN", "not_finite"),
        ("inf", "not_finite"), ("-Infinity", "not_finite"), ("1e400", "not_finite"), ("¥12.5", "unparsable"),
        ("12元", "unparsable"), ("$3", "unparsable"), ("(12.50)", "unparsable"), ("−12.5", "unparsable"),
        ("１２３", "unparsable"), ("0x1F", "unparsable"), ("1_000", "unparsable"), ('"1,000.00"', "unparsable"),
        ('"12,50"', "unparsable"), ("12.50-", "unparsable"), ("1 000", "unparsable"), ("12%", "unparsable"),
        ("1.2.3", "unparsable"), ("--1", "unparsable"), ("1e", "unparsable"), ("True", "unparsable"),
        ("92233720368547758.08", "too_large"), ("-9e13", "too_large"))),
    fine("amounts of every right form", "".join(f"A{n},2024-01-01,{v},x\n" for n, v in enumerate(
        ("1", "+1", "-1.5", ".5", "5.", "1e3", "1E-3", " 7 ", "0"))), {f"A{n}" for n in range(9)}),
    Case("B116 sums beyond reason", HEADER + b"A,2024-01-01,90000000000000,x\n" * 1000, "TM2044", code=3),
    fine("amounts of 10 billion", "A,2024-01-01,10000000000,x\nB,2024-01-01,-999999999999.9999,x\n", {"A", "B"}),
    Case("whole amounts so large", parquet(amount=pa.array([10**10, 10**12, -(10**11)])), used=3, file="a.parquet"),
    refused("sums beyond 64 bits", HEADER + b"".join(b"A,2024-01-01,%d,x\n" % (10**12 - n) for n in range(2000)),
            "more than 64 bits hold"),
    Case("B118 all the same", HEADER + b"".join(b"K%d,2024-01-01,10.00,x\n" % n for n in range(50)), used=50),
    Case("B119 refunds only", HEADER + b"".join(b"K%d,2024-01-01,-10.00,x\n" % n for n in range(50)), used=50),
    fine("B124 return without purchase", "A,2024-01-01,-5,x\n", {"A"}),
    *(one(f"currency {word!r}", f"Z,2024-01-01,1,{word}", rule, table=IN_NOTE,
        project=own) for word, rule, own in (
            ("XXX", "currency_unknown", {}), ("", "currency_missing", {}), ("yuan", "currency_unknown", {}),
            ("XXX", "currency_other", {"currency": "CNY"}), ("USD", "currency_other", {"currency": "CNY"}))),
    fine("B128 empty currency is the project's", "A,2024-01-01,1,\nB,2024-01-01,1, cny \n", {"A", "B"}, table=IN_NOTE,
        project={"currency": "CNY"}),
    refused("two currencies", BODY + b"A,2024-01-01,1,USD\n", "TM2052 .*CNY, USD", table=IN_NOTE),
]  # fmt: skip

DATES = [
    *(one(f"date {value!r}", f"Z,{value},1,x", f"time_{rule}") for value, rule in (
        ("31.01.2024", "unparsable"), ("01/31/2024", "unparsable"),
        ("2024年1月31日", "unparsable"), ("2024-02-30", "unparsable"), ("2100-02-29", "unparsable"),
        ("2024-13-01", "unparsable"), ("24-01-31", "unparsable"), ("Jan 31 2024", "unparsable"),
        ("2024-01-31 25:00", "unparsable"), ("2024-01", "unparsable"), ("tomorrow", "unparsable"),
        ("now", "unparsable"), ("infinity", "unparsable"), ("0000-00-00", "unparsable"), ("", "missing"),
        ("45322", "numeric"), ("1706659200", "numeric"), ("1706659200000", "numeric"),
        ("2567-01-01", "implausible"), ("0113-01-01", "implausible"), ("9999-12-31", "implausible"))),
    refused("B133 epochs", HEADER + b"A,1706659200,1,x\nB,1706659200000,1,x\n", "No row is good(.|\n)*TM2063"),
    refused("B134 spreadsheet serials", HEADER + b"A,45322,1,x\nB,45323,1,x\n", "TM2063.*epoch"),
    Case("B134 serials, mapped", HEADER + b"A,45322,1,x\nB,45323,1,x\n", used=2, table={"columns": {
        "customer_id": "id", "amount": "amount", "time": "DATE '1899-12-30' + \"when\"::INTEGER"}}),
    refused("B130 half the dates another way", BODY + b"Z,31.01.2024,1,x\n" * 30, "TM2062", code=4),
    Case("B137 years ahead", HEADER + b"".join(GOOD) * 4 + b"Z,2099-01-01,1,x\n", "TM2065 1 rows .*row 242: 2099-01-01",
         table={"duplicates": "keep"}, used=240),
    Case("B137 days ahead of the date", BODY + b"Z,2024-03-02,1,x\n", "1 out of window", used=60, words=("--as-of",
         "2024-03-01")),
    refused("B139 with and without zone", BODY + b"A,2024-01-01T00:00:00+08:00,1,x\n", "TM2066"),
    Case("B140 daylight saving", BODY + b"A,2024-03-31 02:30:00,1,x\nB,2024-10-27 02:30:00,1,x\n", used=62,
         project={"timezone": "Europe/Berlin"}),
    fine("B142 after 2038", "A,2038-01-19,1,x\n", {"A"}),
    fine("B136 1970", "A,1970-01-01,1,x\n", {"A"}),
    Case("B145 old", BODY, "TM2070 the last row is", words=("--as-of", "2027-01-28"), used=60),
    refused("B145 older than is allowed", BODY, "TM2070 .*max_stale_days is 30", words=("--as-of", "2027-01-28"),
            project={"max_stale_days": 30}),
    refused("B146 nothing before the date", BODY, "TM2071", words=("--as-of", "2020-01-01")),
    Case("B149 one row", HEADER + b"A,2024-01-01,1,x\n", used=1, customers={"A"}),
]  # fmt: skip

CASES = [*FILES, *PARQUET, *ENCODINGS, *STRUCTURE, *IDS, *AMOUNTS, *DATES]
OF_DATA = ("max_bad_share", "max_stale_days")


def prepare(folder: Path, case: Case) -> None:
    path = folder / case.file if case.file != "a.csv" or isinstance(case.content, bytes) else folder / "a.csv"
    path = folder / f"a{''.join(Path(case.file).suffixes)}"
    if callable(case.content):
        case.content(path)
    else:
        path.write_bytes(case.content)
    columns = {"customer_id": "id", "time": "when", "amount": "amount"}
    table = {"path": path.name, "columns": columns, **case.table}
    data = {"transactions": table, **{key: value for key, value in case.project.items() if key in OF_DATA}}
    rest = {key: value for key, value in case.project.items() if key not in OF_DATA}
    project = {"version": 1, "name": "shop", "data": data, **rest}
    (folder / "shop.yaml").write_text(yaml.safe_dump(project, allow_unicode=True), encoding="utf-8")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_bad_input_becomes_what_is_stated(case: Case, tmp_path: Path, cli: Run) -> None:
    prepare(tmp_path, case)
    words = case.words if "--as-of" in case.words else ("--as-of", "latest", *case.words)
    done = cli("features", "shop.yaml", "--out", "out.parquet", *words)
    assert done.code == case.code, done.err
    assert "Traceback" not in done.err
    assert re.search(case.says, done.err), done.err
    quarantine = tmp_path / "out.quarantine.csv"
    if case.code:
        assert not list(tmp_path.glob("*out*"))  # nothing partial, nothing hidden
        assert case.code == 7 or not case.says or re.search(r"TM\d{4}|encoding", done.err)
        return
    found: dict[int, str] = {}
    if quarantine.exists():
        with quarantine.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        found = {int(row["row"]): row["rule"] for row in rows}
        assert all(row["remedy"] and re.fullmatch(r"TM\d{4}", row["code"]) for row in rows)
        assert len(found) == len(rows)
    assert found == case.bad
    account = re.search(r"transactions: ([\d,]+) read = ([\d,]+) used \+ ([\d,]+) duplicate \+ ([\d,]+) quarantined "
                        r"\+ ([\d,]+) filtered \+ ([\d,]+) out of window", done.err)  # fmt: skip
    assert account
    read, used, *others = (int(number.replace(",", "")) for number in account.groups())
    assert read == used + sum(others)
    assert others[1] == len(case.bad)
    assert case.used in {None, used}
    if case.customers is not None:
        assert set(pd.read_parquet(tmp_path / "out.parquet")["customer_id"]) == case.customers


@pytest.mark.parametrize("order", [lambda rows: rows, lambda rows: rows[::-1], lambda rows: rows[1::2] + rows[::2]])
def test_order_of_rows_and_columns_changes_no_byte(
    order: Callable[[list[bytes]], list[bytes]], tmp_path: Path, cli: Run
) -> None:
    prepare(tmp_path, Case("", BODY))
    assert cli("features", "shop.yaml", "--as-of", "latest", "--out", "one.parquet").code == 0
    shuffled = [b",".join(reversed(row.strip().split(b","))) + b"\n" for row in [HEADER, *order(GOOD)]]
    (tmp_path / "a.csv").write_bytes(b"".join(shuffled))
    assert cli("features", "shop.yaml", "--as-of", "latest", "--out", "two.parquet").code == 0
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()


CHECKED = [
    ("B086 zeros", BODY + b"00123,2024-01-01,1,x\n123,2024-01-01,2,x\n", "TM2001"),
    ("B094 one customer", HEADER + b"".join(b"A,2024-01-01,%d,x\n" % n for n in range(50)), "TM2012"),
    ("B100 twice", TWICE, "60 rows repeat another row"),
    (
        "B118 same amounts",
        HEADER + b"".join(b"K%d,2024-01-01,10,x\n" % n for n in range(50)),
        "all amounts are the same",
    ),
    ("B119 refunds", HEADER + b"".join(b"K%d,2024-01-01,-10,x\n" % n for n in range(50)), "100.0% of the rows are ret"),
    ("B136 default date", BODY + b"".join(b"Z%d,1970-01-01,1,x\n" % n for n in range(6)), "dated 1970-01-01"),
    ("B137 far ahead", HEADER + b"".join(GOOD) * 4 + b"Z,2099-01-01,1,x\n", "TM2065"),
    ("B151 half of all rows", BODY + b"".join(b"A,2024-01-01,%d,x\n" % n for n in range(60)), "one customer holds 50%"),
]


@pytest.mark.parametrize(("content", "says"), [row[1:] for row in CHECKED], ids=[row[0] for row in CHECKED])
def test_the_check_warns(content: bytes, says: str, tmp_path: Path, cli: Run) -> None:
    prepare(tmp_path, Case("", content))
    done = cli("check", "shop.yaml")
    assert done.code == 3  # so few customers are below the floor
    assert says in done.out
    assert "Traceback" not in done.err


def test_control_and_direction_characters_of_values_are_never_printed_as_they_are(tmp_path: Path, cli: Run) -> None:
    row = "\x1b[31m\x07\u202eE,2024-01-01,x,x\n".encode()
    prepare(tmp_path, Case("", HEADER + row * 3))
    done = cli("features", "shop.yaml", "--as-of", "latest", "--out", "out.csv")
    assert done.code == 3
    assert not set(done.out + done.err) & {"\x1b", "\x07", "\u202e"}


# Root loads the packages, which are its own, by a first run; nobody does the second.
AS_NOBODY = """
import contextlib, os, sys
from tiermodel.cli.main import main
sys.argv[1:] = ["check", "shop.yaml"]
with contextlib.suppress(SystemExit):
    main()
os.chmod("a.csv", 0)
os.setuid(65534)
main()
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody who may not read")
def test_a_file_that_may_not_be_read_is_a_fault_of_permission(tmp_path: Path) -> None:
    prepare(tmp_path, Case("", BODY))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    scratch.chmod(0o777)
    for folder in (tmp_path, *tmp_path.parents[:3]):  # the last may be the folder of everybody's temporary files
        folder.chmod(folder.stat().st_mode | 0o055)
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", AS_NOBODY],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(scratch)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 7, done.stderr
    assert re.search("TM1005 .*permission denied", done.stderr)
    assert "Traceback" not in done.stderr


def test_formulas_are_defused_in_csv_and_kept_in_parquet(tmp_path: Path, cli: Run) -> None:
    ids = ["=HYPERLINK(1)", "@SUM", "+1", "-1", "＝1"]
    prepare(tmp_path, Case("", HEADER + "".join(f"{one},2024-01-01,1,x\n" for one in ids).encode()))
    for name in ("out.csv", "out.parquet"):
        assert cli("features", "shop.yaml", "--as-of", "latest", "--out", name).code == 0
    written = list(csv.DictReader(io.StringIO((tmp_path / "out.csv").read_text(encoding="utf-8"))))
    assert sorted(row["customer_id"] for row in written) == sorted(f"'{one}" for one in ids)
    assert sorted(pd.read_parquet(tmp_path / "out.parquet")["customer_id"]) == sorted(ids)
