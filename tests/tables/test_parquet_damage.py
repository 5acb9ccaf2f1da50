"""One flipped bit in a Parquet file without checksums: refused, or told by name where the file's footer shows it."""

from __future__ import annotations

import struct
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tiermodel import check
from tiermodel.config.project import Project
from tiermodel.errors import DataError
from tiermodel.tables.readers.parquet_pages import has_checksums, values_outside

ROWS = 1_500
AMOUNT, DAY = 77.25, date(2024, 3, 1)


def project(path: Path) -> Project:
    columns = {"customer_id": "id", "time": "t", "amount": "a"}
    data = {"transactions": {"path": str(path), "columns": columns}, "max_bad_share": 0.5}
    return Project.model_validate({"version": 1, "name": "shop", "data": data})


def write(path: Path, *, checksums: bool = False) -> bytes:
    """Write a log of 150 customers, plainly, so that every value stands in it by its own bytes."""
    days = [date(2024, 1, 1) + timedelta(days=n % 200) for n in range(ROWS)]
    amounts = np.random.default_rng(3).uniform(1, 100, ROWS).round(2)
    amounts[700] = AMOUNT
    table = pa.table({"id": [f"C{n % 150:04}" for n in range(ROWS)], "t": days, "a": amounts})
    pq.write_table(table, path, use_dictionary=False, compression=None, write_page_checksum=checksums)
    return path.read_bytes()


def flipped(content: bytes, place: int, bit: int) -> bytes:
    changed = bytearray(content)
    changed[place] ^= 1 << bit
    return bytes(changed)


def found(path: Path) -> list[str]:
    return [item.text() for item in check(project(path)).findings if item.code == "values_outside"]


@pytest.mark.parametrize(
    ("value", "byte", "bit", "column"),
    [(struct.pack("<d", AMOUNT), 7, 6, "a"), (struct.pack("<d", AMOUNT), 7, 7, "a"),
     (struct.pack("<i", (DAY - date(1970, 1, 1)).days), 1, 5, "t"), (b"C0042", 0, 1, "id")],
    ids=["exponent of an amount", "sign of an amount", "high bit of a day", "letter of an id"],
)  # fmt: skip
def test_a_flipped_bit_that_the_footer_contradicts_is_told(
    value: bytes, byte: int, bit: int, column: str, tmp_path: Path
) -> None:
    path = tmp_path / "s.parquet"
    content = write(path)
    assert not found(path)
    path.write_bytes(flipped(content, content.index(value) + byte, bit))
    (words,) = found(path)
    assert f"{path}, row group 0, column {column} holds " in words
    assert "a flipped bit" in words
    assert words.endswith("(TM1105)")


def test_a_day_that_the_footer_rules_out_and_no_rule_would_let_pass_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.parquet"
    content = write(path)
    day = struct.pack("<i", (DAY - date(1970, 1, 1)).days)
    path.write_bytes(flipped(content, content.index(day) + 3, 7))  # DuckDB drops the test: the footer says it holds
    with pytest.raises(DataError, match=r"TM1105 .*a day before 1900 or after 2199"):
        check(project(path))


def test_flipped_bits_are_refused_or_told_where_the_footer_shows_them_and_never_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "s.parquet"
    content = write(path)
    draw = np.random.default_rng(11)
    fate: Counter[str] = Counter()
    for place in draw.integers(4, len(content) - 4, 25):
        path.write_bytes(flipped(content, int(place), int(draw.integers(8))))
        try:
            told = found(path)
        except DataError:
            fate["refused"] += 1
        else:
            fate["told" if told else "unseen"] += 1
    assert fate["told"] > 2
    assert fate["refused"] > 1


def test_files_with_and_without_checksums_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "s.parquet"
    for checksums in (True, False):
        write(path, checksums=checksums)
        assert has_checksums(str(path)) == checksums
        codes = [item.code for item in check(project(path)).findings]
        assert ("no_checksums" in codes) != checksums


def test_a_sound_file_of_any_type_contradicts_nothing(tmp_path: Path) -> None:
    moments = [datetime(2024, 1, 1, 0, 0, n, 5, tzinfo=UTC) for n in range(4)]
    columns = {
        "text": ["é", "z" * 9_000, None, ""], "float": [float("nan"), -0.0, 0.0, float("inf")], "none": [None] * 4,
        "small": pa.array([1, -1, None, 127], pa.int8()), "unsigned": pa.array([0, 2**64 - 1, 1, 2], pa.uint64()),
        "decimal": [Decimal("1.23"), None, Decimal("-9.99"), Decimal(0)], "flag": [True, None, False, True],
        "ns": pa.array(moments).cast(pa.timestamp("ns", "UTC")), "ms": pa.array(moments).cast(pa.timestamp("ms"),
        safe=False), "day": [date(1, 1, 1), date(9999, 12, 31), None, date(2024, 1, 1)], "bytes": [b"\xff", b"", None,
        b"a"], "words": pa.array(["a", "b", "a", None]).dictionary_encode(),
    }  # fmt: skip
    pq.write_table(pa.table(columns), tmp_path / "s.parquet", row_group_size=3)
    assert list(values_outside(str(tmp_path / "s.parquet"), set(columns))) == []
