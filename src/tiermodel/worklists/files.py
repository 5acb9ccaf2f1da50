"""Write work lists: each as CSV for programs and as a workbook for people, with headings in words."""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

import pyarrow as pa

from tiermodel import disk
from tiermodel.errors import DataError, ProjectError
from tiermodel.locks import disk_faults
from tiermodel.output import Staged, escape_formulas, write_table
from tiermodel.words import words

__all__ = ["COLUMNS", "ENDINGS", "LOCKED", "MOST_ROWS", "files_of", "schema_of", "write_list"]

ENDINGS = (".csv", ".xlsx")
MOST_ROWS = 1_048_575
"""The most customers of a list: the rows of a sheet, but for its head."""

LOCKED = "lists"
"""The name, in a folder of lists, whose lock is that of all of them."""

_WIDEST, _SAMPLE = 60, 200
_CUSTOMER = ("rank", "customer_id", "tier_code", "tier_name")
_REASONS = ("risk_reason_1", "risk_reason_2", "risk_reason_3")
_EFFECTS = ("risk_effect_1", "risk_effect_2", "risk_effect_3", "risk_effect_others")
COLUMNS = {
    "keep": (*_CUSTOMER, "value_at_risk", "churn_risk", "contact_threshold", "clv", "tier_set", *_REASONS, *_EFFECTS),
    "win_back": (*_CUSTOMER, "expected_worth", "chance_to_return", "worth_if_back", "days_since_last", "tier_set"),
    "develop": (
        *(*_CUSTOMER, "expected_gain", "upgrade_potential", "gain_if_up", "clv", "tier_set"),
        *("reached_code", "reached_name", "smallest_change"),
    ),
    "review": (*_CUSTOMER, "worth_in_doubt", "p_other_tier", "clv", "tier_set", "rules_code", "why"),
    "expiring_overrides": (
        *(*_CUSTOMER, "expires", "days_left", "stable_code", "stable_name", "operator", "reason"),
        *("also_due", "churn_risk", "clv"),
    ),
}
"""The columns of each list, in order; amounts are lifetime value in currency units, effects are log-odds."""

_COUNTS = {"rank", "days_left", "days_since_last"}
_TEXTS = {
    *_CUSTOMER[1:], *_REASONS, "reached_code", "reached_name", "smallest_change", "tier_set", "rules_code", "why",
    "stable_code", "stable_name", "operator", "reason", "also_due",
}  # fmt: skip
_SHARES = {"churn_risk", "contact_threshold", "chance_to_return", "upgrade_potential", "p_other_tier"}


def files_of(folder: Path, name: str) -> list[Path]:
    """Return the files of a list."""
    return [folder / f"{name}{ending}" for ending in ENDINGS]


def schema_of(name: str) -> pa.Schema:
    """Return the columns of a list with their types."""
    return pa.schema([(column, _type_of(column)) for column in COLUMNS[name]])


def _type_of(column: str) -> pa.DataType:
    if column in _TEXTS:
        return pa.string()
    if column == "expires":
        return pa.date32()
    return pa.int64() if column in _COUNTS else pa.float64()


def write_list(name: str, rows: pa.Table, folder: Path, day: date, language: str, into: Staged) -> None:
    """Write the rows of a list as CSV and as a workbook, put in place with the other files of `into`."""
    table, sheet = files_of(folder, name)
    write_table(rows, table, into=into)
    content = _workbook(name, rows, day, language)
    temporary = into.add(sheet)
    with disk_faults(sheet):
        disk.write_bytes(temporary, content)


def _workbook(name: str, rows: pa.Table, day: date, language: str) -> bytes:
    """Return a workbook of one sheet; the same rows give the same bytes."""
    try:
        import xlsxwriter  # noqa: PLC0415
    except ImportError:
        raise ProjectError("work lists as workbooks need: pip install 'xlsxwriter>=3.2'") from None
    wording, content = words(language), io.BytesIO()
    with xlsxwriter.Workbook(content, {"in_memory": True}) as book:
        book.set_properties({"created": datetime.combine(day, time())})
        sheet = book.add_worksheet(wording[f"list_{name}"])
        formats = {
            "share": book.add_format({"num_format": "0.0%"}),
            "amount": book.add_format({"num_format": "#,##0.00"}),
            "date": book.add_format({"num_format": "yyyy-mm-dd"}),
            "head": book.add_format({"bold": True, "text_wrap": True, "valign": "top"}),
        }
        for place, column in enumerate(rows.column_names):
            heading, cells = wording[f"list_{column}"], rows[column].to_pylist()
            sheet.set_column(place, place, _width(heading, cells[:_SAMPLE]))
            sheet.write_string(0, place, heading, formats["head"])
            _write_column(sheet, place, column, cells, formats)
        sheet.freeze_panes(1, 2)
        sheet.autofilter(0, 0, max(rows.num_rows, 1), rows.num_columns - 1)
    return content.getvalue()


def _write_column(sheet: Any, place: int, column: str, cells: Sequence[Any], formats: dict[str, Any]) -> None:
    kind = "share" if column in _SHARES else "amount"
    for row, cell in enumerate(cells, 1):
        if cell is None:
            continue
        if isinstance(cell, str):  # an id stays text, 007 too, and never becomes a formula or a link
            done = sheet.write_string(row, place, escape_formulas(cell))
            if done:
                raise DataError(f"{column} of row {row} is {len(cell):,} characters long, more than a cell holds")
        elif isinstance(cell, date):
            sheet.write_datetime(row, place, datetime.combine(cell, time()), formats["date"])
        elif column in _COUNTS:
            sheet.write_number(row, place, cell)
        elif abs(cell) < float("inf"):  # a sheet has no infinity: a contact that never pays has no threshold
            sheet.write_number(row, place, cell, formats[kind])


def _width(heading: str, cells: Sequence[Any]) -> float:
    """Return the width of a column, in characters; one of Chinese is as wide as two."""
    texts = [cell for cell in cells if isinstance(cell, str)]
    widest = max((sum(2 if ord(sign) > 0x2E7F else 1 for sign in text) for text in texts), default=12)
    return min(max(widest + 2, min(len(heading) * 2, 14), 10), _WIDEST)
