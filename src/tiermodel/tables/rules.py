"""State, per canonical column, which rows break the contract, and how the others become integers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tiermodel.errors import ProjectError
from tiermodel.tables.expressions import Expression
from tiermodel.tables.sources import literal

__all__ = ["RULES", "UNIT", "UNKNOWN", "Parsed", "Rule", "customer", "day", "key", "money"]

UNIT = 10_000
REQUIRED = {"amount", "cost"}
_LONGEST_ID = 128
_EXACT_DIGITS = 18
_LARGEST = 1_000_000_000_000
_EXACT_DOUBLE = 1 << 53
UNKNOWN = "(-9223372036854775807 - 1)"
_SPACE = literal(" \t\r\n\u00a0\u3000\ufeff")
_PADDED = literal(r"^[\s\x{a0}\x{3000}\x{feff}]|[\s\x{a0}\x{3000}\x{feff}]$")
_INTEGERS = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER"}
_BIG_INTEGERS = {"UBIGINT", "HUGEINT", "UHUGEINT"}
_FLOATS = {"FLOAT", "DOUBLE"}
_NUMBER = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"
_NOT_FINITE = r"(?i)[+-]?(nan|inf|infinity)"
_MOMENT = r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?(Z|[+-]\d{2}(:?\d{2})?)?)?"
_OFFSET = r".{10}[T ].*(Z|[+-]\d{2}(:?\d{2})?)"
_EXCEL_ID = r"\d(\.\d+)?E\+\d{2,}"
_PLAIN = (
    "write it with digits and a decimal point only (no currency sign, thousands separator, brackets, full-width digits)"
)
_ISO = "write 2024-01-31 or 2024-01-31 17:30:00, or map time to an expression such as try_strptime(column, '%d.%m.%Y')"


@dataclass(frozen=True)
class Rule:
    """Name one way in which a row can be bad: a stable name, a stable code, the column, and what to do."""

    name: str
    code: str
    column: str
    remedy: str


def _money_rules(column: str) -> tuple[Rule, ...]:
    missing = (
        Rule(f"{column}_missing", "TM2040", column, "give every row a value, or leave such rows out by `where`"),
    )
    return (missing if column in REQUIRED else ()) + (
        Rule(
            f"{column}_not_finite", "TM2042", column, "NaN and infinity are not amounts: correct the row at its source"
        ),
        Rule(f"{column}_unparsable", "TM2041", column, _PLAIN),
        Rule(f"{column}_too_large", "TM2044", column, "values beyond 1e12 are taken for errors: correct the row"),
    )


RULES = {
    rule.name: rule
    for rule in (
        Rule("field_missing", "TM1304", "", "the record has too few fields: quote text that holds a line break"),
        Rule("field_extra", "TM1304", "", "the record has too many fields: quote text that holds the delimiter"),
        Rule("stray_quote", "TM1303", "", "double every quote inside quoted text"),
        Rule("line_too_long", "TM1205", "", "a record may be 64 KiB long: shorten it"),
        Rule("invalid_encoding", "TM1202", "", "the record is not UTF-8: set data.transactions.encoding or correct it"),
        Rule("malformed", "TM1300", "", "the record is not CSV: correct it"),
        Rule("repeated_header", "TM1309", "customer_id", "the header stands again among the rows: remove it"),
        Rule("footer_total", "TM1310", "customer_id", "a line of totals is not a transaction: remove it"),
        Rule("customer_id_missing", "TM2010", "customer_id", "leave rows without a customer out by `where`"),
        Rule("customer_id_too_long", "TM2011", "customer_id", "an id may be 128 characters long"),
        Rule(
            "customer_id_not_integral",
            "TM2013",
            "customer_id",
            "a numeric id must be whole and exact: export ids as text",
        ),
        Rule(
            "customer_id_damaged",
            "TM2003",
            "customer_id",
            "a spreadsheet rounded the id (1.23E+11): export ids as text",
        ),
        Rule("time_missing", "TM2060", "time", "give every row a date, or leave such rows out by `where`"),
        Rule("time_numeric", "TM2063", "time", "a serial or epoch number: map time to e.g. epoch_ms(column::BIGINT)"),
        Rule("time_unparsable", "TM2062", "time", _ISO),
        Rule("time_implausible", "TM2064", "time", "years before 1900 or after 2199 are taken for errors"),
        *_money_rules("amount"),
        *_money_rules("cost"),
        *_money_rules("quantity"),
        *_money_rules("discount"),
    )
}


@dataclass(frozen=True)
class Parsed:
    """Hold one canonical column as SQL in steps: `_tm_<column>` (as mapped) → `_text` → `_clean` → `_value` (final).

    `rules` are tests in the order in which they are tried, `counters` are tests whose hits are worth telling.
    """

    text: str
    clean: str
    value: str
    rules: tuple[tuple[str, str], ...]
    counters: tuple[tuple[str, str], ...] = ()


def customer(expression: Expression, time: Expression) -> Parsed:
    """Return ids as BIGINT where their type is a number, else as trimmed NFC text; text never becomes a number."""
    kind, raw, clean = _family(expression.type), "_tm_customer_id", "_tm_customer_id_clean"
    missing = ("customer_id_missing", f"{clean} IS NULL")
    if kind == "integer":
        return Parsed(raw, raw, f"{clean}::BIGINT", (missing,))
    if kind == "float":
        whole = f"isfinite({clean}) AND abs({clean}) < {_EXACT_DOUBLE} AND {clean} = trunc({clean})"
        value = f"CASE WHEN {whole} THEN TRY_CAST({clean} AS BIGINT) END"
        return Parsed(raw, raw, value, (missing, ("customer_id_not_integral", f"NOT ({whole})")))
    if kind == "decimal":
        value = (
            f"TRY_CAST({clean} AS BIGINT)"
            if _digits(expression.type) <= _EXACT_DIGITS
            else f"{clean}::HUGEINT::VARCHAR"
        )
        return Parsed(raw, raw, value, (missing, ("customer_id_not_integral", f"{clean} <> trunc({clean})")))
    text = "_tm_customer_id_text"
    totals = "'total', 'totals', 'sum', '合计', '总计', '小计'"
    rules = (
        ("repeated_header", f"{text} = {literal(expression.text)} AND _tm_time::VARCHAR = {literal(time.text)}"),
        ("footer_total", f"_tm_time_clean IS NULL AND lower({clean}) IN ({totals}) AND _tm_time_text IS NULL"),
        missing,
        ("customer_id_too_long", f"length({clean}) > {_LONGEST_ID}"),
        ("customer_id_damaged", f"contains({clean}, 'E+') AND regexp_full_match({clean}, {literal(_EXCEL_ID)})"),
    )
    unlike_float = f"CASE WHEN ends_with({clean}, '.0') THEN NOT regexp_full_match({clean}, '\\d+\\.0') ELSE true END"
    counters = (
        ("ids_cleaned", f"{clean} <> {text}"),
        ("ids_null_words", f"length({clean}) < 5 AND lower({clean}) IN ('na', 'n/a', 'nan', 'null', 'none', 'nil')"),
        ("ids_not_float", unlike_float),
    )
    return Parsed(f"{raw}::VARCHAR", f"nfc_normalize({_trimmed(text)})", clean, rules, counters)


def day(expression: Expression, timezone: str) -> Parsed:
    """Return the local calendar day since 1970-01-01; naive times are wall time in `timezone`."""
    kind, raw, clean = expression.type, "_tm_time", "_tm_time_clean"
    zone = literal(timezone)
    bounds = "DATE '1900-01-01' AND DATE '2199-12-31'"
    missing = ("time_missing", "_tm_time_text IS NULL")
    implausible = ("time_implausible", f"{clean} NOT BETWEEN {bounds}")
    value = f"CASE WHEN {clean} BETWEEN {bounds} THEN ({clean} - DATE '1970-01-01')::INTEGER END"
    if kind == "DATE":
        return Parsed(raw, raw, value, (missing, implausible))
    if kind in {"TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS"}:
        return Parsed(raw, f"CAST({raw} AS DATE)", value, (missing, implausible))
    if kind in {"TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ_NS"}:
        return Parsed(raw, f"CAST({raw}::TIMESTAMPTZ AT TIME ZONE {zone} AS DATE)", value, (missing, implausible))
    if kind != "VARCHAR":
        raise ProjectError(
            f"TM2063 data.transactions.columns.time: {expression.text!r} is {kind}, not a date, a timestamp or text. "
            "Map an expression: epoch_ms(column) for milliseconds, make_timestamp(column * 1000000) for seconds, "
            "DATE '1899-12-30' + column::INTEGER for spreadsheet serials."
        )
    text = "_tm_time_text"
    aware = f"length({text}) > 16 AND regexp_full_match({text}, {literal(_OFFSET)})"
    local = f"TRY_CAST({text} AS TIMESTAMPTZ) AT TIME ZONE {zone}"
    parsed = (
        f"CASE WHEN NOT regexp_full_match({text}, {literal(_MOMENT)}) THEN NULL "
        f"WHEN {aware} THEN CAST({local} AS DATE) ELSE CAST(TRY_CAST({text} AS TIMESTAMP) AS DATE) END"
    )
    rules = (
        missing,
        ("time_numeric", f"{clean} IS NULL AND regexp_full_match({text}, '\\d+(\\.\\d+)?')"),
        ("time_unparsable", f"{clean} IS NULL"),
        implausible,
    )
    return Parsed(_trimmed(raw), parsed, value, rules, (("times_aware", aware),))


def money(column: str, expression: Expression) -> Parsed:
    """Return a decimal number in 1/10,000 as BIGINT, rounded half away from zero; beyond 1e12 it is refused."""
    kind, raw, clean = _family(expression.type), f"_tm_{column}", f"_tm_{column}_clean"
    text = f"{raw}_text"
    bounds = f"BETWEEN -{_LARGEST} AND {_LARGEST}"
    missing = (f"{column}_missing", f"{text} IS NULL")
    rules: tuple[tuple[str, str], ...] = ((f"{column}_too_large", f"{clean} NOT {bounds}"),)
    if kind == "float":
        steps, exact = (raw, f"{text}::DOUBLE"), f"TRY_CAST(round({clean} * {UNIT}) AS BIGINT)"
        rules = ((f"{column}_not_finite", f"NOT isfinite({clean})"), *rules)
    elif kind in {"integer", "big", "decimal"}:
        steps, exact = (raw, text), f"(TRY_CAST({clean} AS DECIMAL(18, 4)) * {UNIT})::BIGINT"
    elif kind == "text":
        number = f"CASE WHEN regexp_full_match({text}, {literal(_NUMBER)}) THEN TRY_CAST({text} AS DOUBLE) END"
        steps, exact = (_trimmed(raw), number), f"(TRY_CAST({text} AS DECIMAL(18, 4)) * {UNIT})::BIGINT"
        not_a_number = f"{clean} IS NULL AND {text} IS NOT NULL"
        rules = (
            (f"{column}_not_finite", f"isinf({clean})"),
            (f"{column}_not_finite", f"{not_a_number} AND regexp_full_match({text}, {literal(_NOT_FINITE)})"),
            (f"{column}_unparsable", not_a_number),
            *rules,
        )
    else:
        raise ProjectError(
            f"data.transactions.columns.{column}: {expression.text!r} is {expression.type}, not a number or text"
        )
    # TRY_CAST, because DuckDB drops bounds that hold by a Parquet file's statistics, and those leave NaN out.
    value = f"CASE WHEN {clean} {bounds} THEN {exact} END"
    if column in REQUIRED:
        return Parsed(*steps, value, (missing, *rules))
    return Parsed(*steps, f"coalesce({value}, 0)", rules, (missing,))


def _trimmed(raw: str) -> str:
    # DuckDB's trim with a set of characters is four times slower than the test that spares it.
    return f"nullif(CASE WHEN regexp_matches({raw}, {_PADDED}) THEN trim({raw}, {_SPACE}) ELSE {raw} END, '')"


def key(column: str, expression: Expression) -> str:
    """Return SQL of a BIGINT for the value: integers as they are, the rest hashed, NULL as the least BIGINT."""
    raw = f"_tm_{column}"
    if _family(expression.type) == "integer":
        return f"coalesce({raw}::BIGINT, {UNKNOWN})"
    if expression.type == "VARCHAR":
        raw = _trimmed(raw)
    return f"CASE WHEN {raw} IS NULL THEN {UNKNOWN} ELSE (hash({raw}) >> 1)::BIGINT END"


def _family(kind: str) -> Literal["integer", "big", "float", "decimal", "text", "other"]:
    if kind in _INTEGERS:
        return "integer"
    if kind in _BIG_INTEGERS:
        return "big"
    if kind in _FLOATS:
        return "float"
    if kind.startswith("DECIMAL"):
        return "decimal"
    return "text" if kind == "VARCHAR" else "other"


def _digits(decimal: str) -> int:
    """Return how many digits may stand before the point.

    >>> _digits("DECIMAL(38,10)")
    28
    """
    width, scale = decimal.removeprefix("DECIMAL(").rstrip(")").split(",")
    return int(width) - int(scale)
