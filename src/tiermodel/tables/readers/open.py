"""Open a project's tables wherever they are: files, named files joined by a query, a database, or Python's memory."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, TypeAlias

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pandas.api.types import is_scalar

from tiermodel.config.data import DATABASES, Rows
from tiermodel.config.project import Project
from tiermodel.errors import DataError, ProjectError
from tiermodel.tables.personal_data import kind_by_name, looks_personal, names_column
from tiermodel.tables.privacy import masked, shows_values
from tiermodel.tables.readers.database import open_query
from tiermodel.tables.readers.files import open_files
from tiermodel.tables.readers.joined import open_joined
from tiermodel.tables.source import Source, check_names, from_batches

__all__ = ["Frame", "open_source"]

Frame: TypeAlias = "pd.DataFrame | pa.Table | pa.RecordBatchReader"
"""The rows of a table in Python's memory; an index is ignored."""


def open_source(
    connection: duckdb.DuckDBPyConnection,
    project: Project,
    name: str,
    frame: Frame | None = None,
    mappings: Collection[str] | None = None,
) -> Source:
    """Return a source with the view `NAME_source` of one of the project's tables, such as `transactions`.

    `frame` replaces the files or database of the project. Columns that stand in none of the `mappings` (None: all stand
    there) may be left out of a very wide table. Raises DataError for rows that cannot be read whole,
    OutputError for paths and servers that refuse access, ProjectError for a table with neither path nor frame.
    """
    rows: Rows = getattr(project.data, name)
    key, view = f"data.{name}", f"{name}_source"
    if frame is not None:
        return _from_frame(connection, view, f"{name} in memory", frame, rows.columns.customer_id)  # type: ignore[attr-defined]
    if rows.path is None:
        raise ProjectError(f"{key}.path: there is none; give a file, or hand the rows over: open_history({name}=frame)")
    if isinstance(rows.path, dict):
        return open_joined(connection, project, name, rows.path, rows)
    if isinstance(rows.path, str) and rows.path.lower().startswith(DATABASES):
        return open_query(connection, project, view, key, rows.path, rows.query or "")
    return open_files(connection, project, view, f"{key}.path", rows.path, rows.encoding, mappings)


def _from_frame(connection: duckdb.DuckDBPyConnection, view: str, what: str, frame: Frame, ids: str) -> Source:
    if isinstance(frame, pd.DataFrame):
        check_names(what, frame.columns)
        frame = pa.table({str(name): _array(what, str(name), frame[name], ids) for name in frame.columns})
    batches: Any = frame.to_batches() if isinstance(frame, pa.Table) else frame
    return from_batches(connection, view, what, frame.schema, batches)


def _array(what: str, name: str, column: pd.Series[Any], ids: str) -> pa.Array | pa.ChunkedArray:
    if isinstance(column.dtype, pd.SparseDtype):
        column = pd.Series(column.to_numpy(dtype=column.dtype.subtype), index=column.index)
    if isinstance(column.dtype, pd.DatetimeTZDtype):  # which pandas warns of that Arrow reads it without its zone
        return pc.assume_timezone(pa.array(column.dt.tz_convert(None), from_pandas=True), "UTC")
    if isinstance(column.dtype, pd.PeriodDtype):
        raise DataError(
            f"TM2056 {what}: column {name!r} holds periods: give days, as of frame[{name!r}].dt.to_timestamp()"
        )
    try:
        array = pa.array(column, from_pandas=True)
    except UnicodeEncodeError as error:
        raise DataError(
            f"TM2056 {what}: column {name!r} holds half a character, which is no text: correct it"
        ) from error
    except (pa.ArrowException, OverflowError) as error:
        known = {place: value for place, value in enumerate(column) if not is_scalar(value) or pd.notna(value)}
        if all(type(value) is int for value in known.values()):  # beyond 64 bits: exact as text
            return pa.array([str(value) if pd.notna(value) else None for value in column], pa.string())
        if len(kinds := {type(value) for value in known.values()}) == 1:
            raise DataError(
                f"TM2056 {what}: column {name!r} holds values of {kinds.pop().__name__}, which no table keeps: "
                "make them numbers, dates or text"
            ) from error
        personal = names_column(ids, name) or kind_by_name(name) is not None
        raise DataError(f"TM2056 {what}: column {name!r} mixes types: {_odd_one_out(known, personal)}") from error
    return pa.array(column.astype("string"), pa.string()) if pa.types.is_null(array.type) else array


def _odd_one_out(known: dict[int, Any], personal: bool) -> str:
    """Return a text with the first value of another type than that of the first; `known` has values by position.

    Values of a `personal` column are shown as their shapes.
    """
    one = next(iter(known.values()))
    place, other = next(((p, v) for p, v in known.items() if type(v) is not type(one)), next(iter(known.items())))
    first, odd = (
        masked(repr(each)) if not shows_values() and (personal or looks_personal(str(each))) else repr(each)
        for each in (one, other)
    )
    return (
        f"{first} is {type(one).__name__}, but at position {place} {odd} is {type(other).__name__}. "
        "Make all of one type, ids best as text."
    )
