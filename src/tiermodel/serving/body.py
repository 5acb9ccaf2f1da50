"""The body of a request as typed columns: JSON of a fixed shape, with limits, and errors without its values."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np

from tiermodel.serving.faults import RequestError
from tiermodel.serving.raw_rows import NOTHING, Columns
from tiermodel.tables.source import FILE, ROW

__all__ = [
    "MOST_BYTES",
    "MOST_FEATURE_ROWS",
    "MOST_RAW_ROWS",
    "Wanted",
    "kind_of",
    "read_date",
    "read_features",
    "read_json",
    "read_tables",
]

MOST_BYTES = 16 << 20
MOST_FEATURE_ROWS, MOST_RAW_ROWS = 5_000, 50_000
_MOST_COLUMNS, _LONGEST_NAME, _LONGEST_TEXT = 200, 200, 2_000
_WHOLE, _LARGEST = 1 << 63, 1.7e308
_FIRST, _LAST = date(1950, 1, 1), date(2199, 12, 31)
_ODD = re.compile(rb"\\u(0000|[dD][89a-fA-F])")
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_KINDS = {str: "VARCHAR", int: "BIGINT", float: "DOUBLE", bool: "BOOLEAN"}
_NAMED = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "an object",
}


@dataclass(frozen=True)
class Wanted:
    """What a request may have: the features of the model, and the tables of the project with the columns it reads.

    Only these columns, in lower case, are named in errors: another name of a field may be anything.
    """

    numbers: tuple[str, ...]
    texts: tuple[str, ...]
    tables: Mapping[str, frozenset[str]]


def read_json(body: bytes) -> dict[str, Any]:
    """Return the object that a body holds; `RequestError` for anything else."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RequestError(400, f"the body is not UTF-8 at byte {error.start}") from None
    try:
        found = json.loads(text, parse_constant=_refused, object_pairs_hook=_each_once)
        if _ODD.search(body):
            json.dumps(found, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise RequestError(400, f"the body is not JSON: line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise RequestError(400, "the body is nested too deeply: objects in lists in one object are enough") from None
    except UnicodeEncodeError:
        raise RequestError(400, "a text holds half of a surrogate pair, which is no character") from None
    except ValueError:  # a number of thousands of digits
        raise RequestError(400, "a number has more digits than anything can hold") from None
    if b"\\u0000" in body and _has_nul(found):
        raise RequestError(400, "a text holds a NUL character")
    if not isinstance(found, dict):
        raise RequestError(422, f"the body is {_named(found)}; send an object with as_of and rows")
    return found


def _refused(_: str) -> Any:
    raise RequestError(400, "NaN and Infinity are no JSON; write null for a missing number")


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise RequestError(400, "an object has one key twice")
    return found


def _has_nul(found: Any) -> bool:
    return "\\u0000" in json.dumps(found).replace("\\\\", "")


def _named(value: Any) -> str:
    return "null" if value is None else _NAMED[type(value)]


def kind_of(body: Mapping[str, Any], wanted: Wanted) -> str:
    """Return `rows` for feature rows, `tables` for raw rows; `RequestError` where it is neither, or both."""
    if unknown := set(body) - {"as_of", "rows", *wanted.tables}:
        known = ", ".join(("as_of", "rows", *wanted.tables))
        raise RequestError(422, f"{len(unknown)} keys are unknown; known are {known}")
    raw = set(body) & set(wanted.tables)
    if ("rows" in body) == bool(raw):
        raise RequestError(422, f"send either rows (of features) or tables of the project: {', '.join(wanted.tables)}")
    return "tables" if raw else "rows"


def read_date(body: Mapping[str, Any]) -> date:
    """Return the date of a request."""
    text = body.get("as_of")
    try:
        found = date.fromisoformat(text if isinstance(text, str) and _DAY.fullmatch(text) else "")
    except ValueError:
        words = "give the first day that is not known, such as 2024-01-31; the server never reads the clock"
        raise RequestError(422, words, "as_of") from None
    if not _FIRST <= found <= _LAST:
        raise RequestError(422, f"the date is not within {_FIRST} to {_LAST}", "as_of")
    return found


def _rows(body: Mapping[str, Any], name: str, most: int) -> list[dict[str, Any]]:
    rows = body[name]
    if not isinstance(rows, list):
        raise RequestError(422, f"expected a list of objects, one a row, got {_named(rows)}", name)
    if len(rows) > most:
        raise RequestError(413, f"{len(rows):,} rows are more than {most:,}; send several requests", name)
    for place, row in enumerate(rows):
        if not isinstance(row, dict):
            raise RequestError(422, f"expected an object, got {_named(row)}", f"{name}[{place}]")
    return rows


def read_features(body: Mapping[str, Any], wanted: Wanted) -> tuple[list[str], dict[str, Any]]:
    """Return the customers of feature rows, and the features of the model by name; others are left out."""
    rows = _rows(body, "rows", MOST_FEATURE_ROWS)
    if not rows:
        raise RequestError(422, "there is no row", "rows")
    missing = [name for name in ("customer_id", *wanted.numbers, *wanted.texts) if name not in rows[0]]
    if missing:
        words = f"{len(missing)} fields are missing, such as {', '.join(missing[:5])}; a missing value is null"
        raise RequestError(422, words, f"rows[0].{missing[0]}")
    columns: dict[str, Any] = {name: _numbers(rows, name) for name in wanted.numbers}
    columns |= {name: _texts(rows, name) for name in wanted.texts}
    customers = _texts(rows, "customer_id", needed=True)
    for place, row in enumerate(rows):
        if row.get("as_of", body["as_of"]) != body["as_of"]:
            raise RequestError(422, "the row is of another date than as_of", f"rows[{place}].as_of")
    return customers, columns


def _field(rows: Sequence[Mapping[str, Any]], name: str) -> list[Any]:
    try:
        return [row[name] for row in rows]
    except KeyError:
        place = next(n for n, row in enumerate(rows) if name not in row)
        raise RequestError(422, "the field is missing; a missing value is null", f"rows[{place}].{name}") from None


def _numbers(rows: Sequence[Mapping[str, Any]], name: str) -> Any:
    values = _field(rows, name)
    if not {*map(type, values)} <= {int, float, type(None)}:
        place = next(n for n, value in enumerate(values) if type(value) not in {int, float, type(None)})
        raise RequestError(422, f"expected a number or null, got {_named(values[place])}", f"rows[{place}].{name}")
    try:
        found = np.array(values, dtype=np.float64)  # null becomes NaN
        large = np.flatnonzero(np.abs(found) > _LARGEST)
    except OverflowError:
        large = np.array([n for n, value in enumerate(values) if value is not None and abs(value) > _LARGEST])
    if large.size:
        raise RequestError(422, "the number is too large", f"rows[{large[0]}].{name}")
    return found


def _texts(rows: Sequence[Mapping[str, Any]], name: str, *, needed: bool = False) -> list[Any]:
    values = _field(rows, name)
    for place, value in enumerate(values):
        if not isinstance(value, str) and (needed or value is not None):
            raise RequestError(422, f"expected text, got {_named(value)}", f"rows[{place}].{name}")
        if value is not None and len(value) > _LONGEST_TEXT:
            raise RequestError(422, f"the text has more than {_LONGEST_TEXT:,} characters", f"rows[{place}].{name}")
    return values


def read_tables(body: Mapping[str, Any], wanted: Wanted) -> dict[str, Columns]:
    """Return the tables of raw rows as columns of one type each."""
    tables = {
        name: _columns(name, _rows(body, name, MOST_RAW_ROWS), known)
        for name, known in wanted.tables.items()
        if name in body
    }
    if not any(table.size for table in tables.values()):
        raise RequestError(422, "there is no row", next(iter(tables)))
    return tables


def _columns(table: str, rows: list[dict[str, Any]], known: frozenset[str]) -> Columns:
    names = list(dict.fromkeys(name for row in rows for name in row))
    folded = {name.casefold() for name in names}
    if len(names) > _MOST_COLUMNS or any(not name.strip() or len(name) > _LONGEST_NAME for name in names):
        raise RequestError(
            422, f"give at most {_MOST_COLUMNS} fields, with names of 1 to {_LONGEST_NAME} characters", table
        )
    if len(folded) < len(names) or folded & {FILE, ROW} or any(name.startswith("_tm_") for name in folded):
        raise RequestError(422, "two fields have one name, but for case, or a name is reserved", table)
    if rows and not names:
        raise RequestError(422, "the rows have no fields", table)
    values = {name: [row.get(name) for row in rows] for name in names}
    kinds = {}
    for name, found in values.items():
        try:
            kinds[name] = _kind(found)
        except _Odd as odd:
            shown = f".{name}" if name.casefold() in known else ", a field that the project does not read"
            raise RequestError(422, odd.words, f"{table}[{odd.place}]{shown}") from None
    return Columns(kinds, values, len(rows))


class _Odd(Exception):  # noqa: N818  caught in the function that asks
    """A value at a place of a column that no table can hold."""

    def __init__(self, place: int, words: str) -> None:
        super().__init__(words)
        self.place, self.words = place, words


def _kind(values: list[Any]) -> str:
    """Return DuckDB's type of a column; whole numbers beyond 64 bits become text, which is exact."""
    kinds = {*map(type, values)} - {type(None)}
    if kinds == {str}:
        if max(map(len, filter(None, values)), default=0) > _LONGEST_TEXT:
            place = next(n for n, value in enumerate(values) if value is not None and len(value) > _LONGEST_TEXT)
            raise _Odd(place, f"the text has more than {_LONGEST_TEXT:,} characters")
        return "VARCHAR"
    if kinds == {int} and not all(value is None or -_WHOLE <= value < _WHOLE for value in values):
        values[:] = [None if value is None else str(value) for value in values]
        return "VARCHAR"
    if kinds in ({int, float}, {float}):
        for place, value in enumerate(values):
            if value is not None and not -_LARGEST <= value <= _LARGEST:
                raise _Odd(place, "the number is too large")
        return "DOUBLE"
    if not kinds:
        return NOTHING
    if len(kinds) == 1 and kinds <= set(_KINDS):
        return _KINDS[kinds.pop()]
    first = next(type(value) for value in values if type(value) in _KINDS) if kinds & set(_KINDS) else None
    place = next(n for n, value in enumerate(values) if value is not None and type(value) is not first)
    words = f"expected text, a number, true, false or null, one type in all rows, got {_named(values[place])}"
    raise _Odd(place, words)
