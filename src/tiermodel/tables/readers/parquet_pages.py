"""Damage in the pages of a Parquet file: by their checksums, or by what its footer states of the values."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tiermodel.errors import DataError

__all__ = ["has_checksums", "refuse_flipped_bits", "values_outside"]

_ORDERED = (pa.types.is_integer, pa.types.is_floating, pa.types.is_string, pa.types.is_date)


def refuse_flipped_bits(file: str) -> None:
    """Raise DataError for a page that does not fit its checksum, where there is one (Spark's); DuckDB checks none."""
    if not has_checksums(file):
        return
    parquet = _opened(file)
    for group in range(parquet.num_row_groups):
        for column in range(parquet.metadata.num_columns):
            _read(parquet, file, group, parquet.metadata.schema.column(column).path)


def _opened(file: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file, page_checksum_verification=True)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"TM1101 {file} is damaged or cut short: {_first_line(error)}. Copy it again.") from error


def _first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0]


def _read(parquet: pq.ParquetFile, file: str, group: int, name: str) -> pa.Table:
    try:
        return parquet.read_row_group(group, columns=[name])
    except (OSError, pa.ArrowException) as error:
        where = f"{file}, row group {group}, column {name!r}"
        raise DataError(f"TM1102 {where} is damaged: {_first_line(error)}. Copy it again.") from error


def has_checksums(file: str) -> bool:
    """Return whether the first page header (Thrift compact: three i32 fields, perhaps a fourth, the CRC) has a CRC."""
    metadata = _opened(file).metadata
    if metadata.num_row_groups == 0 or metadata.num_columns == 0:
        return False
    chunk = metadata.row_group(0).column(0)
    with Path(file).open("rb") as stream:
        stream.seek(chunk.dictionary_page_offset or chunk.data_page_offset)
        head = stream.read(32)
    place = 0
    for _ in range(3):
        place += 1
        while place < len(head) and head[place] & 0x80:
            place += 1
        place += 1
    return head[place : place + 1] == b"\x15"


def values_outside(file: str, columns: Collection[str]) -> Iterator[dict[str, Any]]:
    """Yield what of a file contradicts its own footer: a flipped bit of a page without a checksum often does.

    Each is a dict of file, group, column, found, and the least and largest value (or number of missing ones) stated.
    Of a row group and column there is one at most. Raises DataError where a page cannot be read at all.
    """
    parquet = _opened(file)
    for group in range(parquet.num_row_groups):
        for place in range(parquet.metadata.num_columns):
            chunk = parquet.metadata.row_group(group).column(place)
            if chunk.path_in_schema not in columns or not chunk.is_stats_set:
                continue
            values = _read(parquet, file, group, chunk.path_in_schema).column(0)
            if found := _contradiction(values, chunk.statistics):
                yield {"file": file, "group": group, "column": chunk.path_in_schema, **found}


def _contradiction(values: pa.ChunkedArray, stated: pq.Statistics) -> dict[str, Any] | None:
    if stated.has_null_count and values.null_count != stated.null_count:
        number = f"{stated.null_count:,}"
        return {"found": f"{values.null_count:,} missing values", "least": number, "most": number}
    if not stated.has_min_max or not any(fits(values.type) for fits in _ORDERED):
        return None
    found = pc.min_max(values)
    for name in ("min", "max"):
        try:
            value = found[name].as_py()
        except (OverflowError, UnicodeDecodeError):  # a day after 9999, text that is not UTF-8
            return {"found": f"a {found[name].type} that is none", "least": repr(stated.min), "most": repr(stated.max)}
        if type(value) is type(stated.min) and not stated.min <= value <= stated.max:
            return {"found": repr(value), "least": repr(stated.min), "most": repr(stated.max)}
    return None
