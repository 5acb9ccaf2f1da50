"""Dates: the forms that leave no doubt, days that mean never, and the rules that other values break."""

from __future__ import annotations

from tiermodel.errors import ProjectError
from tiermodel.tables.expressions import Expression
from tiermodel.tables.rules import NEVER, NOTHING, REQUIRED, Parsed, known, trimmed
from tiermodel.tables.source import literal

__all__ = ["day"]

_MOMENT = r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?(Z|[+-]\d{2}(:?\d{2})?)?)?"
# Year first, so no doubt of day and month: 2024/6/1 9:05, and an offset, or UTC, after a blank.
_ZONE = r" ?(Z|UTC|GMT|[+-]\d{2}(:?\d{2})?)"
_OTHER = r"\d{4}[-/]\d{1,2}[-/]\d{1,2}([T ]\d{1,2}:\d{2}(:\d{2}(\.\d{1,9})?)?(" + _ZONE + ")?)?"
_EIGHT_DIGITS = r"(19|20)\d{2}(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])"
_FIRST, _LAST = "DATE '1900-01-01'", "DATE '2199-12-31'"
# What systems write for an end that is open, and for a day that was never set.
_OPEN_END, _OPEN = "DATE '2900-01-01'", "DATE '2099-12-31'"
_NOT_SET = NOTHING + "|NULL|null|None|NaN|nan|NaT|0000-00-00( 00:00:00)?|-?infinity"
_NAIVE = {"TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS"}


def day(column: str, expression: Expression, timezone: str, key: str) -> Parsed:
    """Return the SQL of the local calendar day since 1970-01-01, `NEVER` where there is none.

    Naive times are in `timezone`. In columns that may be empty, days far off mean never or since ever: from 2900 on,
    2099-12-31, 1900-01-01 and before; no row is valid from the end of time on.
    """
    kind, raw, clean = expression.type, f"_tm_{column}", f"_tm_{column}_clean"
    zone, is_open = literal(timezone), _open(column, clean)
    read = f"CASE WHEN {clean} BETWEEN {_FIRST} AND {_LAST} THEN ({clean} - DATE '1970-01-01')::INTEGER END"
    missing: tuple[tuple[str, str], ...]
    if column in REQUIRED:
        value, missing = read, ((f"{column}_missing", f"_tm_{column}_text IS NULL"),)
    else:
        value, missing = f"CASE WHEN {is_open} THEN {NEVER} ELSE coalesce({read}, {NEVER}) END", ()
    outside = f"{clean} NOT BETWEEN {_FIRST} AND {_LAST}"
    implausible = (f"{column}_implausible", f"{outside} AND NOT {is_open}" if is_open else outside)
    rules = (*missing, implausible)
    counters = ((f"{column}_open", f"coalesce({is_open}, false)"),) if is_open else ()
    if kind == "DATE":
        return Parsed(raw, raw, value, rules, counters)
    if kind in _NAIVE:
        return Parsed(raw, f"CAST({raw} AS DATE)", value, rules, counters)
    if kind in {"TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ_NS"}:
        return Parsed(raw, f"CAST({raw}::TIMESTAMPTZ AT TIME ZONE {zone} AS DATE)", value, rules, counters)
    if kind != "VARCHAR":
        raise ProjectError(_not_a_date(f"{key}.{column}", expression))
    return _of_text(column, value, zone, (missing, (implausible,)), counters)


def _open(column: str, clean: str) -> str:
    """Return the SQL of whether a day means never, or since ever; empty where the column must have a day."""
    if column in REQUIRED:
        return ""
    ever = f"{clean} <= {_FIRST}"
    return ever if column == "valid_from" else f"({ever} OR {clean} = {_OPEN} OR {clean} >= {_OPEN_END})"


def _not_a_date(place: str, expression: Expression) -> str:
    text = expression.inside
    forms = {
        f"to_timestamp({text})": "seconds since 1970",
        f"epoch_ms({text})": "milliseconds",
        f"DATE '1899-12-30' + floor({text})::INTEGER": "days of a spreadsheet",
        f"to_timestamp(({text} - 2440587.5) * 86400)": "days of julianday()",
        f"strptime({text}::BIGINT::VARCHAR, '%Y%m%d')": "20240131",
    }
    told = ", ".join(f"{form} for {unit}" for form, unit in forms.items())
    what = f"{expression.text!r} is {expression.type}, not a date, a timestamp or text"
    return f"TM2063 {place}: {what}. Map an expression: {told}."


def _of_text(
    column: str,
    value: str,
    zone: str,
    tests: tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]],
    counters: tuple[tuple[str, str], ...],
) -> Parsed:
    text, clean = f"_tm_{column}_text", f"_tm_{column}_clean"
    plain, other = (f"regexp_full_match({text}, {literal(form)})" for form in (_MOMENT, _OTHER))
    # The two usual forms need no search for an offset, which costs as much as the rest.
    usual = f"(strlen({text}) = 19 AND {text}[17] = ':') OR (strlen({text}) = 16 AND {text}[14] = ':')"
    aware = f"NOT ({usual}) AND contains({text}, ':') AND regexp_matches({text}, {literal(f'[0-9]{_ZONE}$')})"
    together = f"regexp_replace(replace({text}, '/', '-'), ' ?(Z|UTC|GMT)$', '+00')"
    together = f"regexp_replace({together}, ' ([+-]\\d{{2}}(:?\\d{{2}})?)$', '\\1')"
    naive = f"CAST(TRY_CAST({text} AS TIMESTAMP) AS DATE)"
    parsed = (
        f"CASE WHEN {plain} THEN CASE WHEN {aware} THEN {_local(text, zone)} ELSE {naive} END "
        f"WHEN {other} THEN CASE WHEN {aware} THEN {_local(together, zone)} ELSE {naive} END "
        f"WHEN regexp_full_match({text}, {literal(_EIGHT_DIGITS)}) THEN try_strptime({text}, '%Y%m%d')::DATE END"
    )
    unread = f"{clean} IS NULL AND {text} IS NOT NULL"
    missing, implausible = tests
    rules = (
        *missing,
        (f"{column}_numeric", f"{unread} AND regexp_full_match({text}, '\\d+(\\.\\d+)?')"),
        (f"{column}_unparsable", unread),
        *implausible,
    )
    counters += (f"{column}_aware", f"coalesce({aware}, false)"), (f"{column}_absent", f"{text} IS NULL")
    read = trimmed(f"_tm_{column}") if column in REQUIRED else known(f"_tm_{column}", _NOT_SET)
    return Parsed(read, parsed, value, rules, counters)


def _local(text: str, zone: str) -> str:
    return f"CAST(TRY_CAST({text} AS TIMESTAMPTZ) AT TIME ZONE {zone} AS DATE)"
