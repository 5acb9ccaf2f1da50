"""The rules of every canonical column: which rows break the contract, and how the others become integers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from tiermodel.config.data import EventKind
from tiermodel.errors import ProjectError
from tiermodel.tables.expressions import Expression
from tiermodel.tables.row_kinds import EVENTS, KINDS
from tiermodel.tables.source import literal

__all__ = [
    "NEVER", "RULES", "UNKNOWN", "Parsed", "Rule", "attribute", "category", "currency", "customer", "day", "flag",
    "key", "kind", "money",
]  # fmt: skip

_UNIT = 10_000
REQUIRED = {"amount", "cost", "time", "due"}
NEVER = "(-2147483648)"
_ZERO = {"quantity", "discount"}
_LONGEST_ID = 128
_EXACT_DIGITS = 18
_LARGEST = 1_000_000_000_000
_EXACT_DOUBLE = 1 << 53
UNKNOWN = "(-9223372036854775807 - 1)"
_SPACE = literal(" \t\r\n\u00a0\u3000\ufeff")
_PADDED = literal(r"^[\s\x{a0}\x{3000}\x{feff}]|[\s\x{a0}\x{3000}\x{feff}]$")
_FAMILIES = {
    **dict.fromkeys(("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER"), "integer"),
    **dict.fromkeys(("UBIGINT", "HUGEINT", "UHUGEINT"), "big"),
    **dict.fromkeys(("FLOAT", "DOUBLE"), "float"),
    "VARCHAR": "text",
}
_NUMBER = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"
_NOT_FINITE = r"(?i)[+-]?(nan|inf|infinity)"
_MOMENT = r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?(Z|[+-]\d{2}(:?\d{2})?)?)?"
_OFFSET = r".{10}[T ].*(Z|[+-]\d{2}(:?\d{2})?)"
_NOT_INTEGRAL = "a numeric id must be whole and exact: export ids as text"
_DAMAGED = "a spreadsheet rounded the id (1.23E+11): export ids as text"
_EXCEL_ID = r"\d(\.\d+)?E\+\d{2,}"
_PLAIN = (
    "write it with digits and a decimal point only "
    "(no currency sign or unit, thousands separator, brackets, full-width digits or minus)"
)
_ISO = "write 2024-01-31 or 2024-01-31 17:30:00, or map an expression such as try_strptime(column, '%d.%m.%Y')"
_YEARS = (
    "years before 1900 or after 2199 are taken for errors; of a Buddhist year take 543 off, of a Minguo year add 1911"
)
_FUTURE = "nearly all rows are dated years earlier: correct the date, or leave the row out by `where`"
_CURRENCY = "amounts in one currency only have a sum: convert, or leave the row out by `where`"
_NUMBERS = (
    "attributes are numbers: declare text under data.customers.categories (for slices, conditions `is` and strata), or "
    "map a CASE that gives numbers"
)
_NULL_WORDS = "('na', 'n/a', 'nan', 'null', 'none', 'nil', 'true')"
_YES, _NO = "('true', 't', 'yes', 'y', '1', '是')", "('false', 'f', 'no', 'n', '0', '否')"


@dataclass(frozen=True)
class Rule:
    """A way in which a row can be bad: a stable name, a stable code, the column, and the remedy."""

    name: str
    code: str
    column: str
    remedy: str


def _missing_rule(column: str, code: str, what: str) -> tuple[Rule, ...]:
    remedy = f"give every row a {what}, or leave such rows out by `where`"
    return (Rule(f"{column}_missing", code, column, remedy),) if column in REQUIRED else ()


def _date_rules(column: str) -> tuple[Rule, ...]:
    serial = f"a serial or epoch number: map {column} to e.g. epoch_ms(column::BIGINT)"
    return (
        *_missing_rule(column, "TM2060", "date"),
        Rule(f"{column}_numeric", "TM2063", column, serial),
        Rule(f"{column}_unparsable", "TM2062", column, _ISO),
        Rule(f"{column}_implausible", "TM2064", column, _YEARS),
    )


def _money_rules(column: str) -> tuple[Rule, ...]:
    finite = "NaN and infinity are not amounts: correct the row at its source"
    return (
        *_missing_rule(column, "TM2040", "value"),
        Rule(f"{column}_not_finite", "TM2042", column, finite),
        Rule(f"{column}_unparsable", "TM2041", column, _PLAIN),
        Rule(f"{column}_too_large", "TM2044", column, "values beyond 1e12 are taken for errors: correct the row"),
    )


DATES = ("time", "due", "issued", "paid", "disputed", "valid_from", "signup", "contract_end")
FLAGS = ("consent", "opt_out")
MONEY = ("amount", "cost", "quantity", "discount", "value", "acquisition_cost")
RULES = {
    rule.name: rule
    for rule in (
        Rule("field_missing", "TM1304", "", "the record has too few fields: quote text that holds a line break"),
        Rule("field_extra", "TM1304", "", "the record has too many fields: quote text that holds the delimiter"),
        Rule("stray_quote", "TM1303", "", "put the text in quotes and double every quote in it"),
        Rule("line_too_long", "TM1205", "", "a record may be 64 KiB long: shorten it"),
        Rule(
            "invalid_encoding", "TM1202", "", "the record is not UTF-8: set `encoding` beside the path, or correct it"
        ),
        Rule("nul_byte", "TM1203", "", "the record holds a NUL byte: export the file again"),
        Rule("malformed", "TM1300", "", "the record is not CSV: correct it"),
        Rule("repeated_header", "TM1309", "customer_id", "the header stands again among the rows: remove it"),
        Rule("footer_total", "TM1310", "customer_id", "a line of totals is not a transaction: remove it"),
        Rule("customer_id_missing", "TM2010", "customer_id", "leave rows without a customer out by `where`"),
        Rule("customer_id_too_long", "TM2011", "customer_id", "an id may be 128 characters long"),
        Rule("customer_id_not_integral", "TM2013", "customer_id", _NOT_INTEGRAL),
        Rule("customer_id_damaged", "TM2003", "customer_id", _DAMAGED),
        *(rule for column in DATES for rule in _date_rules(column)),
        Rule("time_future", "TM2065", "time", _FUTURE),
        *(rule for column in MONEY for rule in _money_rules(column)),
        Rule("currency_missing", "TM2052", "currency", "set `currency` in the project if empty stands for it"),
        Rule("currency_unknown", "TM2052", "currency", "write a code of three letters such as CNY"),
        Rule("currency_other", "TM2052", "currency", _CURRENCY),
        *(Rule(f"{column}_unparsable", "TM2050", column, "write true or false, yes or no, 1 or 0") for column in FLAGS),
        Rule("kind_unknown", "TM2054", "kind", f"say by data.events.kinds which words mean one of {', '.join(EVENTS)}"),
        Rule("attribute_not_a_number", "TM2055", "attribute", _NUMBERS),
    )
}


@dataclass(frozen=True)
class Parsed:
    """A canonical column as SQL in steps: `_tm_<column>` (as mapped) → `_text` → `_clean` → `_value` (final).

    `rules` are tests by rule, in the order in which they are tried; `counters` are tests whose hits are reported.
    """

    text: str
    clean: str
    value: str
    rules: tuple[tuple[str, str], ...]
    counters: tuple[tuple[str, str], ...] = ()


def customer(expression: Expression, beside: tuple[str, Expression] | None) -> Parsed:
    """Return the SQL of ids: BIGINT where their type is a number, else trimmed NFC text.

    `beside` is a date column of the table, which distinguishes rows from a repeated header or a line of totals.
    """
    kind, raw, clean = _family(expression.type), "_tm_customer_id", "_tm_customer_id_clean"
    missing = ("customer_id_missing", f"{clean} IS NULL")
    if kind == "integer":
        return Parsed(raw, raw, f"{clean}::BIGINT", (missing,))
    if kind == "float":
        whole = f"isfinite({clean}) AND abs({clean}) < {_EXACT_DOUBLE} AND {clean} = trunc({clean})"
        value = f"CASE WHEN {whole} THEN TRY_CAST({clean} AS BIGINT) END"
        return Parsed(raw, raw, value, (missing, ("customer_id_not_integral", f"NOT ({whole})")))
    if kind == "decimal":
        small = _digits(expression.type) <= _EXACT_DIGITS
        value = f"TRY_CAST({clean} AS BIGINT)" if small else f"{clean}::HUGEINT::VARCHAR"
        return Parsed(raw, raw, value, (missing, ("customer_id_not_integral", f"{clean} <> trunc({clean})")))
    text = "_tm_customer_id_text"
    rules = (
        *(_no_rows(text, clean, expression, *beside) if beside else ()),
        missing,
        ("customer_id_too_long", f"length({clean}) > {_LONGEST_ID}"),
        ("customer_id_damaged", f"contains({clean}, 'E+') AND regexp_full_match({clean}, {literal(_EXCEL_ID)})"),
    )
    unlike_float = f"CASE WHEN ends_with({clean}, '.0') THEN NOT regexp_full_match({clean}, '\\d+\\.0') ELSE true END"
    counters = (
        ("ids_cleaned", f"{clean} <> {text}"),
        ("ids_null_words", f"length({clean}) < 5 AND lower({clean}) IN {_NULL_WORDS}"),
        ("ids_not_float", unlike_float),
    )
    return Parsed(f"{raw}::VARCHAR", f"nfc_normalize({_trimmed(text)})", clean, rules, counters)


def _no_rows(text: str, clean: str, expression: Expression, name: str, date: Expression) -> tuple[tuple[str, str], ...]:
    totals = "'total', 'totals', 'sum', '合计', '总计', '小计'"
    header = f"{text} = {literal(expression.text)} AND _tm_{name}::VARCHAR = {literal(date.text)}"
    footer = f"_tm_{name}_clean IS NULL AND lower({clean}) IN ({totals}) AND _tm_{name}_text IS NULL"
    return ("repeated_header", header), ("footer_total", footer)


def day(column: str, expression: Expression, timezone: str, key: str, last: int | None = None) -> Parsed:
    """Return the SQL of the local calendar day since 1970-01-01, `NEVER` where there is none.

    Naive times are in `timezone`. Days after `last` are taken for errors.
    """
    kind, raw, clean = expression.type, f"_tm_{column}", f"_tm_{column}_clean"
    text, zone = f"_tm_{column}_text", literal(timezone)
    bounds = "DATE '1900-01-01' AND DATE '2199-12-31'"
    missing = ((f"{column}_missing", f"{text} IS NULL"),) if column in REQUIRED else ()
    implausible = [(f"{column}_implausible", f"{clean} NOT BETWEEN {bounds}")]
    implausible += [(f"{column}_future", f"{clean} > DATE '1970-01-01' + {last}")] if last is not None else []
    value = f"CASE WHEN {clean} BETWEEN {bounds} THEN ({clean} - DATE '1970-01-01')::INTEGER END"
    value = value if column in REQUIRED else f"coalesce({value}, {NEVER})"
    if kind == "DATE":
        return Parsed(raw, raw, value, (*missing, *implausible))
    if kind in {"TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS"}:
        return Parsed(raw, f"CAST({raw} AS DATE)", value, (*missing, *implausible))
    if kind in {"TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ_NS"}:
        return Parsed(raw, f"CAST({raw}::TIMESTAMPTZ AT TIME ZONE {zone} AS DATE)", value, (*missing, *implausible))
    if kind != "VARCHAR":
        raise ProjectError(
            f"TM2063 {key}.{column}: {expression.text!r} is {kind}, not a date, a timestamp or text. "
            "Map an expression: epoch_ms(column) for milliseconds, make_timestamp(column * 1000000) for seconds, "
            "DATE '1899-12-30' + column::INTEGER for spreadsheet serials."
        )
    aware = f"length({text}) > 16 AND regexp_full_match({text}, {literal(_OFFSET)})"
    local = f"TRY_CAST({text} AS TIMESTAMPTZ) AT TIME ZONE {zone}"
    parsed = (
        f"CASE WHEN NOT regexp_full_match({text}, {literal(_MOMENT)}) THEN NULL "
        f"WHEN {aware} THEN CAST({local} AS DATE) ELSE CAST(TRY_CAST({text} AS TIMESTAMP) AS DATE) END"
    )
    unread = f"{clean} IS NULL AND {text} IS NOT NULL"
    rules = (
        *missing,
        (f"{column}_numeric", f"{unread} AND regexp_full_match({text}, '\\d+(\\.\\d+)?')"),
        (f"{column}_unparsable", unread),
        *implausible,
    )
    counters = (f"{column}_aware", f"coalesce({aware}, false)"), (f"{column}_absent", f"{text} IS NULL")
    return Parsed(_trimmed(raw), parsed, value, rules, counters)


def money(column: str, expression: Expression, key: str) -> Parsed:
    """Return the SQL of a decimal number in 1/10,000 as BIGINT, rounded half away from zero; beyond 1e12 it is refused.

    Where it is missing, a quantity or discount counts as zero, a value or acquisition cost as unknown.
    """
    kind, raw, clean = _family(expression.type), f"_tm_{column}", f"_tm_{column}_clean"
    text = f"{raw}_text"
    bounds = f"BETWEEN -{_LARGEST} AND {_LARGEST}"
    missing = (f"{column}_missing", f"{text} IS NULL")
    rules: tuple[tuple[str, str], ...] = ((f"{column}_too_large", f"{clean} NOT {bounds}"),)
    if kind == "float":
        steps, exact = (raw, f"{text}::DOUBLE"), f"TRY_CAST(round({clean} * {_UNIT}) AS BIGINT)"
        rules = ((f"{column}_not_finite", f"NOT isfinite({clean})"), *rules)
    elif kind in {"integer", "big", "decimal"}:
        steps, exact = (raw, text), _in_units(clean, clean)
    elif kind == "text":
        number = f"CASE WHEN regexp_full_match({text}, {literal(_NUMBER)}) THEN TRY_CAST({text} AS DOUBLE) END"
        steps, exact = (_trimmed(raw), number), _in_units(text, clean)
        not_a_number = f"{clean} IS NULL AND {text} IS NOT NULL"
        rules = (
            (f"{column}_not_finite", f"isinf({clean})"),
            (f"{column}_not_finite", f"{not_a_number} AND regexp_full_match({text}, {literal(_NOT_FINITE)})"),
            (f"{column}_unparsable", not_a_number),
            *rules,
        )
    else:
        place = f"{key}.{column.removeprefix('attribute_')}"
        raise ProjectError(f"TM2045 {place}: {expression.text!r} is {expression.type}, not a number or text")
    # TRY_CAST, because DuckDB drops bounds that hold by a Parquet file's statistics, and those leave NaN out.
    value = f"CASE WHEN {clean} {bounds} THEN {exact} END"
    if column in REQUIRED:
        return Parsed(*steps, value, (missing, *rules))
    otherwise = "0" if column in _ZERO else UNKNOWN
    return Parsed(*steps, f"coalesce({value}, {otherwise})", rules, (missing,))


def _in_units(exact: str, size: str) -> str:
    """Return the SQL of a decimal number in 1/10,000; beyond 1e9 its product needs 128 bits, which are slower."""
    small, large = (f"(TRY_CAST({exact} AS DECIMAL({digits}, 4)) * {_UNIT})::BIGINT" for digits in (18, 38))
    return f"CASE WHEN abs({size}) < 1e9 THEN {small} ELSE {large} END"


def attribute(column: str, expression: Expression) -> Parsed:
    """Return the SQL of a number that models may use, in 1/10,000, unknown where it is missing."""
    parsed = money(column, expression, "data.customers.attributes")
    return replace(parsed, rules=tuple(("attribute_not_a_number", test) for _, test in parsed.rules), counters=())


def category(column: str, expression: Expression) -> Parsed:
    """Return the SQL of a text attribute, trimmed and in one Unicode form (NFC); NULL where it is missing or empty."""
    kind, place = expression.type, f"data.customers.categories.{column.removeprefix('text_')}"
    if _family(kind) not in {"integer", "text"} and kind != "BOOLEAN" and not kind.startswith("ENUM"):
        raise ProjectError(
            f"TM2055 {place}: {expression.text!r} is {kind}, not text: map an expression that gives text, such as a "
            "CASE or column::BIGINT::VARCHAR; numbers go under data.customers.attributes"
        )
    return Parsed(
        f"_tm_{column}::VARCHAR", f"nfc_normalize({_trimmed(f'_tm_{column}_text')})", f"_tm_{column}_clean", ()
    )


def flag(column: str) -> Parsed:
    """Return the SQL of yes or no as BOOLEAN, NULL where it is missing."""
    raw, text, clean = f"_tm_{column}", f"_tm_{column}_text", f"_tm_{column}_clean"
    read = f"CASE WHEN lower({text}) IN {_YES} THEN true WHEN lower({text}) IN {_NO} THEN false END"
    unparsable = (f"{column}_unparsable", f"{clean} IS NULL AND {text} IS NOT NULL")
    return Parsed(_trimmed(f"{raw}::VARCHAR"), read, clean, (unparsable,))


def currency(own: str | None) -> Parsed:
    """Return the SQL of the currency code; where the project has its `own`, an empty cell means it, others are bad."""
    clean, code = "_tm_currency_clean", literal((own or "").upper())
    read = f"upper(coalesce(_tm_currency_text, {code}))"
    unknown = f"NOT regexp_full_match({clean}, '[A-Z]{{3}}') OR {clean} IN ('XXX', 'XTS')"
    without = (("currency_missing", f"{clean} = ''"), ("currency_unknown", unknown))
    tests = without if own is None else (("currency_other", f"{clean} <> {code}"),)
    return Parsed(_trimmed("_tm_currency::VARCHAR"), read, clean, tests)


def kind(words: Mapping[EventKind, str | list[str]] | None) -> Parsed:
    """Return the SQL of the code of an event's kind; NULL, so to be filtered, for values that `words` does not list."""
    text = "_tm_kind_text"
    mapping: Mapping[Any, str | list[str]] = dict(zip(EVENTS, EVENTS, strict=True)) if words is None else words
    listed = [(KINDS[name], [value] if isinstance(value, str) else value) for name, value in mapping.items()]
    cases = (f"WHEN {text} IN ({', '.join(map(literal, values))}) THEN {code}" for code, values in listed)
    unknown = () if words else (("kind_unknown", "_tm_kind_clean IS NULL"),)
    return Parsed(_trimmed("_tm_kind::VARCHAR"), f"(CASE {' '.join(cases)} END)::TINYINT", "_tm_kind_clean", unknown)


def _trimmed(raw: str) -> str:
    # DuckDB's trim with a set of characters is four times slower than the test that avoids it.
    return f"nullif(CASE WHEN regexp_matches({raw}, {_PADDED}) THEN trim({raw}, {_SPACE}) ELSE {raw} END, '')"


def key(column: str, expression: Expression) -> str:
    """Return the SQL of a BIGINT key: integers as they are, other values hashed, NULL as the least BIGINT."""
    raw = f"_tm_{column}"
    if _family(expression.type) == "integer":
        return f"coalesce({raw}::BIGINT, {UNKNOWN})"
    if expression.type == "VARCHAR":
        raw = _trimmed(raw)
    return f"CASE WHEN {raw} IS NULL THEN {UNKNOWN} ELSE (hash({raw}) >> 1)::BIGINT END"


def _family(kind: str) -> str:
    return "decimal" if kind.startswith("DECIMAL") else _FAMILIES.get(kind, "other")


def _digits(decimal: str) -> int:
    """Return the number of digits that a decimal type has before the point.

    >>> _digits("DECIMAL(38,10)")
    28
    """
    width, scale = decimal.removeprefix("DECIMAL(").rstrip(")").split(",")
    return int(width) - int(scale)
