"""Read the first sheet of an Excel workbook: a column of one kind keeps it, any other becomes text."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import date, datetime
from decimal import Decimal
from itertools import compress, filterfalse
from typing import Any

import duckdb
import pyarrow as pa

from tiermodel.errors import DataError, EmptyInputError, ProjectError
from tiermodel.tables.source import Layout, Source, from_batches
from tiermodel.words import words

__all__ = ["load"]

_EXACT, _ROUNDED = 1 << 53, 10**15
_FEW_COLUMNS = 2


def load(
    connection: duckdb.DuckDBPyConnection, view: str, file: str, warnings: tuple[str, ...], language: str
) -> Source:
    """Return a source of the first sheet, whose first row below titles has the column names; warnings name the rest.

    Raises DataError for a workbook that cannot be read, ProjectError where the extra `excel` is not installed.
    """
    rows, sheets = _first_sheet(file)
    above, (names, *cells) = _below_titles(_without_empty_columns(rows))
    say = words(language)
    if others := sheets[1:]:
        warnings += (say["note_sheets"].format(file=file, first=sheets[0], others=say["comma"].join(others[:5])),)
    if titles := ["".join(map(_text, row)) for row in above if not _is_blank(row)]:
        shown = say["comma"].join(f"{title!r}" for title in titles[:5])
        warnings += (say["note_titles"].format(file=file, titles=shown),)
    blank = [place for place, row in enumerate(cells, len(above) + 2) if _is_blank(row)]
    if blank:
        warnings += (say["note_blank_rows"].format(file=file, n=len(blank)),)
    kept = list(filterfalse(_is_blank, cells))
    columns = list(map(_column, zip(*kept, strict=True))) or [pa.array([], pa.string())] * len(names)
    schema = pa.schema([(_text(name), column.type) for name, column in zip(names, columns, strict=True)])
    source = from_batches(connection, view, file, schema, [pa.record_batch(columns, schema=schema)])
    return replace(source, warnings=warnings, layouts={file: Layout.of(len(above) + 1, blank)})


def _first_sheet(file: str) -> tuple[list[list[Any]], list[str]]:
    """Return the rows of the first sheet, and the names of all sheets, its own first."""
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
    return rows, book.sheet_names


def _without_empty_columns(rows: list[list[Any]]) -> list[list[Any]]:
    """Return the rows without the columns that are empty, name and all: a sheet has them where cells were formatted."""
    used = [not _is_blank(cells) for cells in zip(*rows, strict=True)]
    return [list(compress(row, used)) for row in rows]


def _below_titles(rows: list[list[Any]]) -> tuple[list[list[Any]], list[list[Any]]]:
    """Return the rows above the names of columns, and the rest: a report has lines of one cell there, as its title.

    A sheet of fewer than three columns, or of such lines only, has none: its first row has the names.
    """
    first = next((place for place, row in enumerate(rows) if sum(cell != "" for cell in row) > 1), 0)
    split = first if len(rows[0]) > _FEW_COLUMNS else 0
    return rows[:split], rows[split:]


def _is_blank(cells: Iterable[Any]) -> bool:
    return all(cell == "" for cell in cells)


def _column(cells: Iterable[Any]) -> pa.Array:
    """Return the cells of a column as Arrow; an empty cell is missing."""
    convert, kind = _conversion([cell for cell in cells if cell != ""])
    return pa.array([None if cell == "" else convert(cell) for cell in cells], kind)


def _conversion(cells: list[Any]) -> tuple[Callable[[Any], Any], pa.DataType]:
    """Return the function that converts cells, and the type of their column; integers only where doubles are exact."""
    kinds = set(map(type, cells)) or {str}
    if kinds <= {int, float} and not _are_rounded(cells):
        whole = all(float(cell).is_integer() and abs(cell) < _EXACT for cell in cells)
        return (int, pa.int64()) if whole else (float, pa.float64())
    if kinds == {bool}:
        return bool, pa.bool_()
    if kinds <= {date, datetime}:
        return _moment, pa.timestamp("us")
    return _text, pa.string()


def _moment(value: date) -> datetime:
    return value if isinstance(value, datetime) else datetime(*value.timetuple()[:3])  # noqa: DTZ001 wall time


def _are_rounded(cells: list[float]) -> bool:
    """Return whether all whole numbers of 16 digits end in 0, as Excel, which keeps 15 digits, writes them."""
    long = [cell for cell in cells if _ROUNDED <= abs(cell) < _EXACT]
    return bool(long) and all(cell % 10 == 0 for cell in long)


def _text(cell: Any) -> str:
    """Return a cell as text; a number that a sheet cannot hold exactly is written as such, as 1.23E+18."""
    if not isinstance(cell, float) or not cell.is_integer():
        return str(cell)
    rounded = abs(cell) >= _EXACT or (abs(cell) >= _ROUNDED and cell % 10 == 0)
    return f"{Decimal(cell):.14E}" if rounded else str(int(cell))
