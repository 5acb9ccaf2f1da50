"""Tables in and out of Python's memory: a DataFrame in the place of a file, for reading and for writing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tiermodel.tables.scratch import new_folder, remove_folder

__all__ = ["as_file", "frame_of_table", "in_memory"]

_DAYS = ("as_of", "graded")


def frame_of_table(table: pa.Table) -> pd.DataFrame:
    """Return a table as a frame, dates as datetime64."""
    frame: pd.DataFrame = table.to_pandas(date_as_object=False)
    return frame


def in_memory(write: Callable[[Path], Any]) -> pd.DataFrame:
    """Return what a function writes to a .parquet file; the file itself does not stay.

    The warnings of the accounts in the result are in `attrs["warnings"]` of the frame.
    """
    with _scratch() as folder:
        path = folder / "table.parquet"
        result = write(path)
        frame = frame_of_table(pq.read_table(path, partitioning=None))
    accounts = getattr(result, "accounts", {})
    frame.attrs["warnings"] = [words for account in accounts.values() for words in account.warnings]
    return frame


@contextmanager
def as_file(table: pd.DataFrame | str | Path, name: str) -> Iterator[Path]:
    """Give the path of a table: that which it has, or of a DataFrame a file `name.parquet` that does not stay.

    Raises `TypeError` for anything else.
    """
    if isinstance(table, str | Path):
        yield Path(table)
        return
    if not isinstance(table, pd.DataFrame):
        raise TypeError(f"{name}: expected a DataFrame or the path of a table, got {type(table).__name__}")
    rows = pa.Table.from_pandas(table, preserve_index=False)
    for place, field in enumerate(rows.schema):
        if field.name in _DAYS and pa.types.is_timestamp(field.type):  # a day, which pandas has as an instant
            rows = rows.set_column(place, field.name, rows.column(place).cast(pa.date32()))
    with _scratch() as folder:
        path = folder / f"{name}.parquet"
        pq.write_table(rows, path)
        yield path


@contextmanager
def _scratch() -> Iterator[Path]:
    """Give a private folder that goes with the block, or with the user's next run where the process was killed."""
    folder = new_folder()
    try:
        yield folder
    finally:
        remove_folder(folder)
