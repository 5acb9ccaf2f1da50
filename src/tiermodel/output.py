"""Write results beside their final name and rename them over it: whole or not at all."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from tiermodel.errors import OutputError, ProjectError
from tiermodel.locks import disk_faults, output_lock, remove

__all__ = ["atomic_file", "atomic_folder", "escape_formulas", "to_jsonable", "write_json", "write_table"]

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, and put the file in place when the block ends well.

    Raises OutputBusyError while another run writes the same path, OutputError for a full disk or missing permission.
    """
    path = _absolute(path)
    with output_lock(path), disk_faults(path):
        temporary = _temporary(path)
        try:
            yield temporary
            _sync(temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        _sync(path.parent)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder beside `path`, and put it in the place of `path` when the block ends well.

    Raises what `atomic_file` raises, and ProjectError for a folder that the process is in.
    """
    path = _absolute(path)
    if Path.cwd().is_relative_to(path.resolve()):  # the process would stay in the old folder after the swap
        raise ProjectError(f"{path} is the current folder, or holds it, and would be replaced: give a folder in it")
    with output_lock(path), disk_faults(path):
        temporary, old = _temporary(path), path.with_name(f".{path.name}.old")
        if old.exists() and not path.exists():  # a run was killed between the two renames below
            old.replace(path)
        remove(old)
        temporary.mkdir()
        try:
            yield temporary
            for file in sorted(temporary.rglob("*")):
                _sync(file)
            if path.exists():
                path.replace(old)
            temporary.replace(path)
        finally:
            if old.exists() and not path.exists():
                old.replace(path)
            remove(temporary)
            remove(old)
        _sync(path.parent)


def write_table(table: pa.Table | Iterable[pa.RecordBatch], path: Path, schema: pa.Schema | None = None) -> None:
    """Write rows as Parquet (page checksums) or CSV (formula-like text made harmless), by the ending of `path`.

    Batches need `schema`. Raises ProjectError for any other ending.
    """
    ending = path.suffix.lower()
    if ending not in {".parquet", ".csv"}:
        raise ProjectError(f"{path}: results are written as .parquet or .csv; give one of these endings")
    batches: Iterable[pa.RecordBatch] = table.to_batches() if isinstance(table, pa.Table) else table
    schema = table.schema if isinstance(table, pa.Table) else schema
    if schema is None:
        raise TypeError("batches need a schema")
    with atomic_file(path) as temporary:
        if ending == ".parquet":
            _write_parquet(batches, temporary, schema)
        else:
            _write_csv(batches, temporary, schema)


def _write_parquet(batches: Iterable[pa.RecordBatch], path: Path, schema: pa.Schema) -> None:
    # On float64 features snappy writes a third faster than zstd at level 1, for a fifth more bytes.
    texts = [item.name for item in schema if _is_text(item.type)]
    with pq.ParquetWriter(path, schema, compression="snappy", use_dictionary=texts, write_page_checksum=True) as writer:
        for batch in batches:
            writer.write_batch(batch)


def _write_csv(batches: Iterable[pa.RecordBatch], path: Path, schema: pa.Schema) -> None:
    with pa.csv.CSVWriter(path, schema) as writer:
        for batch in batches:
            columns = [_escaped_column(column) if _is_text(column.type) else column for column in batch.columns]
            writer.write_batch(pa.record_batch(columns, schema=schema))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _escaped_column(column: pa.Array) -> pa.Array:
    dangerous = pc.match_substring_regex(column, f"^[{re.escape(''.join(_FORMULA))}]")
    quote, nothing = pa.scalar("'", column.type), pa.scalar("", column.type)
    return pc.if_else(dangerous, pc.binary_join_element_wise(quote, column, nothing), column)


def escape_formulas(cell: str) -> str:
    """Return the cell as text that no spreadsheet takes for a formula.

    >>> escape_formulas("=1+1"), escape_formulas("A-1")
    ("'=1+1", 'A-1')
    """
    return "'" + cell if cell.startswith(_FORMULA) else cell


def write_json(value: Any, path: Path) -> None:
    """Write a value as indented UTF-8 JSON with keys in their order; NaN and infinity are refused."""
    text = json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False)
    with atomic_file(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def to_jsonable(value: Any) -> Any:
    """Return the value as JSON can hold it: keys as text, NumPy numbers as Python's, NaN and infinity as null.

    >>> to_jsonable({1: (np.float64(0.5), float("nan"))})
    {'1': [0.5, None]}
    """
    if isinstance(value, Mapping):
        return {str(key): to_jsonable(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [to_jsonable(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _absolute(path: Path) -> Path:
    """Return the absolute path, which must end in a name (`/` does not); links are not followed."""
    path = Path(os.path.abspath(path))  # noqa: PTH100 pathlib's own keeps `..`, or follows links
    if not path.name:
        raise OutputError(f"{path} cannot be written: {os.strerror(errno.EISDIR)}")
    return path


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        with suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)
