"""Read the first sheet of an Excel workbook: a column of one kind keeps it, any other becomes text."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime
from typing import Any

import duckdb
import pyarrow as pa

from tiermodel.errors import DataError, EmptyInputError, ProjectError
from tiermodel.tables.source import Layout, Source, from_batches

__all__ = ["load"]

_EXACT = 1 << 53


def load(connection: duckdb.DuckDBPyConnection, view: str, file: str, warnings: tuple[str, ...]) -> Source:
    """Create a view over the first sheet, whose first row names the columns; other sheets are named in a warning.

    Raises DataError for a workbook that cannot be read, ProjectError where the extra `excel` is not installed.
    """
    try:
        from python_calamine import CalamineError, CalamineWorkbook  # noqa: PLC0415
    except ImportError:
        raise ProjectError(f"{file}: reading workbooks needs: pip install 'tiermodel[excel]'") from None
    try:
        book = CalamineWorkbook.from_path(file)
        rows = book.get_sheet_by_index(0).to_python(skip_empty_area=False)
    except CalamineError as error:
        raise DataError(f"TM1007 {file} cannot be read as a workbook: {error}. Save it again.") from error
    if not rows:
        raise EmptyInputError(f"TM1001 {file} is empty")
    names, *cells = _without_empty_columns(rows)
    if others := book.sheet_names[1:]:
        warnings += (f"{file}: read sheet {book.sheet_names[0]!r}, ignored {', '.join(others[:5])}",)
    blank = [place for place, row in enumerate(cells, 2) if all(cell == "" for cell in row)]
    kept = [row for row in cells if any(cell != "" for cell in row)]
    if blank:
        warnings += (f"{file}: skipped {len(blank)} blank rows",)
    columns = [_column(list(column)) for column in zip(*kept, strict=True)] or [pa.array([], pa.string())] * len(names)
    schema = pa.schema([(_text(name), column.type) for name, column in zip(names, columns, strict=True)])
    source = from_batches(connection, view, file, schema, [pa.record_batch(columns, schema=schema)])
    return replace(source, warnings=warnings, layouts={file: Layout.of(1, blank)})


def _without_empty_columns(rows: list[list[Any]]) -> list[list[Any]]:
    """Leave out columns without a name and a value, which a sheet has wherever a cell was once formatted."""
    used = [place for place, cells in enumerate(zip(*rows, strict=True)) if any(cell != "" for cell in cells)]
    return [[row[place] for place in used] for row in rows]


def _column(cells: list[Any]) -> pa.Array:
    """Give the cells of a column as Arrow; an empty cell is missing."""
    kinds = {type(cell) for cell in cells if cell != ""}
    values = [None if cell == "" else cell for cell in cells]
    if kinds <= {int, float} and kinds:
        numbers = [value for value in values if value is not None]
        if all(float(number).is_integer() and abs(number) < _EXACT for number in numbers):
            return pa.array([None if value is None else int(value) for value in values], pa.int64())
        return pa.array([None if value is None else float(value) for value in values], pa.float64())
    if kinds == {bool}:
        return pa.array(values, pa.bool_())
    if kinds and kinds <= {date, datetime}:
        return pa.array(
            [value if isinstance(value, datetime) else value and datetime(*value.timetuple()[:3]) for value in values],  # noqa: DTZ001 wall time
            pa.timestamp("us"),
        )
    return pa.array([None if value is None else _text(value) for value in values], pa.string())


def _text(cell: Any) -> str:
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)
