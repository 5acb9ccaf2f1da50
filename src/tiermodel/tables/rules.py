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
    "NEVER",
    "NOTHING",
    "RULES",
    "UNKNOWN",
    "Parsed",
    "Rule",
    "attribute",
    "category",
    "currency",
    "digits",
    "family",
    "flag",
    "key",
    "kind",
    "known",
    "money",
    "trimmed",
]


_UNIT = 10_000
REQUIRED = {"amount", "cost", "time", "due"}
NEVER = "(-2147483648)"
_ZERO = {"quantity", "discount"}
_LARGEST = 1_000_000_000_000
_VAST = 1_000_000
UNKNOWN = "(-9223372036854775807 - 1)"
_SPACE = literal(
    " \t\r\n\v\f\x85\u00a0\u1680\u2028\u2029\u202f\u205f\u3000\ufeff" + "".join(map(chr, range(0x2000, 0x200B)))
)
_BLANK = r"[\s\x0b\x{85}\p{Z}\x{feff}]"
_PADDED = f"^{_BLANK}|{_BLANK}$"
_FAMILIES = {
    **dict.fromkeys(("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER"), "integer"),
    **dict.fromkeys(("UBIGINT", "HUGEINT", "UHUGEINT"), "big"),
    **dict.fromkeys(("FLOAT", "DOUBLE"), "float"),
    "VARCHAR": "text",
}
_NUMBER = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"
_NOT_FINITE = r"(?i)[+-]?(nan|inf|infinity)"
_NOT_INTEGRAL = "a numeric id must be whole and exact: export ids as text"
_DAMAGED = "a spreadsheet or a program wrote the id as a rounded number (1.23E+11): export ids as text"
_PLAIN = (
    "write it with digits and a decimal point only "
    "(no currency sign or unit, thousands separator, brackets, full-width digits or minus)"
)
_SERIAL = (
    "an epoch or serial number: map to_timestamp(column::BIGINT) for seconds, epoch_ms(column::BIGINT) for "
    "milliseconds, DATE '1899-12-30' + floor(column::DOUBLE)::INTEGER for days of a spreadsheet"
)
_ISO = "write 2024-01-31 or 2024-01-31 17:30:00"
_YEARS = (
    "years before 1900 or after 2199 are taken for errors; of a Buddhist year take 543 off, of a Minguo year add 1911"
)
_UNDATED = "a payment without its day is known at no date: give `paid` a date, or leave `paid_amount` empty"
_CURRENCY = "amounts in one currency only have a sum: convert, or leave the row out by `where`"
_NUMBERS = (
    "attributes are numbers: declare text under data.customers.categories (for slices, conditions `is` and strata), or "
    "map a CASE that gives numbers"
)
# What programs write for nothing. The first are nobody's id; of the others an id, a name perhaps, is a doubtful case.
NOTHING = r"\\N|\(null\)|\(NULL\)|<null>|<NULL>|\[NULL\]|<NA>|#N/A|#NULL!"
_NOTHING = f"{NOTHING}|NULL|null|None|NaN|nan|NaT"
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
    return (
        *_missing_rule(column, "TM2060", "date"),
        Rule(f"{column}_numeric", "TM2063", column, _SERIAL),
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


DATES = ("time", "due", "issued", "paid", "disputed", "valid_from", "signup", "contract_end", "ingested_at")
FLAGS = ("consent", "opt_out")
MONEY = ("amount", "cost", "quantity", "discount", "value", "acquisition_cost", "paid_amount")
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
        *(rule for column in MONEY for rule in _money_rules(column)),
        Rule("currency_missing", "TM2052", "currency", "set `currency` in the project if empty stands for it"),
        Rule("currency_unknown", "TM2052", "currency", "write a code of three letters such as CNY"),
        Rule("currency_other", "TM2052", "currency", _CURRENCY),
        Rule("paid_amount_undated", "TM2061", "paid_amount", _UNDATED),
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


def money(column: str, expression: Expression, key: str) -> Parsed:
    """Return the SQL of a decimal number in 1/10,000 as BIGINT, rounded half away from zero; beyond 1e12 it is refused.

    Where it is missing, a quantity or discount counts as zero, any other as unknown.
    """
    kind, raw, clean = family(expression.type), f"_tm_{column}", f"_tm_{column}_clean"
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
        steps, exact = (trimmed(raw), number), _in_units(text, clean)
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
    if column == "paid_amount":
        rules = (*rules, ("paid_amount_undated", f"{clean} <> 0 AND _tm_paid_text IS NULL"))
    vast = (("quantity_vast", f"abs({clean}) >= {_VAST}"),) if column == "quantity" else ()
    return Parsed(*steps, f"coalesce({value}, {otherwise})", rules, (missing, *vast))


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
    if family(kind) not in {"integer", "text"} and kind != "BOOLEAN" and not kind.startswith("ENUM"):
        raise ProjectError(
            f"TM2055 {place}: {expression.text!r} is {kind}, not text: map an expression that gives text, such as a "
            "CASE or column::BIGINT::VARCHAR; numbers go under data.customers.attributes"
        )
    return Parsed(
        f"_tm_{column}::VARCHAR", f"nfc_normalize({trimmed(f'_tm_{column}_text')})", f"_tm_{column}_clean", ()
    )


def flag(column: str) -> Parsed:
    """Return the SQL of yes or no as BOOLEAN, NULL where it is missing."""
    raw, text, clean = f"_tm_{column}", f"_tm_{column}_text", f"_tm_{column}_clean"
    read = f"CASE WHEN lower({text}) IN {_YES} THEN true WHEN lower({text}) IN {_NO} THEN false END"
    unparsable = (f"{column}_unparsable", f"{clean} IS NULL AND {text} IS NOT NULL")
    return Parsed(known(f"{raw}::VARCHAR"), read, clean, (unparsable,))


def currency(own: str | None) -> Parsed:
    """Return the SQL of the currency code; where the project has its `own`, an empty cell means it, others are bad."""
    clean, code = "_tm_currency_clean", literal((own or "").upper())
    read = f"upper(coalesce(_tm_currency_text, {code}))"
    unknown = f"NOT regexp_full_match({clean}, '[A-Z]{{3}}') OR {clean} IN ('XXX', 'XTS')"
    without = (("currency_missing", f"{clean} = ''"), ("currency_unknown", unknown))
    tests = without if own is None else (("currency_other", f"{clean} <> {code}"),)
    return Parsed(trimmed("_tm_currency::VARCHAR"), read, clean, tests)


def kind(words: Mapping[EventKind, str | list[str]] | None) -> Parsed:
    """Return the SQL of the code of an event's kind; NULL, so to be filtered, for values that `words` does not list."""
    text = "_tm_kind_text"
    mapping: Mapping[Any, str | list[str]] = dict(zip(EVENTS, EVENTS, strict=True)) if words is None else words
    listed = [(KINDS[name], [value] if isinstance(value, str) else value) for name, value in mapping.items()]
    cases = (f"WHEN {text} IN ({', '.join(map(literal, values))}) THEN {code}" for code, values in listed)
    unknown = () if words else (("kind_unknown", "_tm_kind_clean IS NULL"),)
    return Parsed(trimmed("_tm_kind::VARCHAR"), f"(CASE {' '.join(cases)} END)::TINYINT", "_tm_kind_clean", unknown)


def trimmed(raw: str) -> str:
    """Return the SQL of a text without white space around it, NULL where nothing else is there."""
    # DuckDB's trim with a set of characters is four times slower than the test that avoids it.
    return f"nullif(CASE WHEN regexp_matches({raw}, {literal(_PADDED)}) THEN trim({raw}, {_SPACE}) ELSE {raw} END, '')"


def known(raw: str, words: str = _NOTHING) -> str:
    r"""Return the SQL of `trimmed`, NULL too where the text is what programs write for nothing, as `\N` or (null)."""
    suspect = f"regexp_matches({raw}, {literal(f'{_PADDED}|^({words})$')})"  # one test for both, as it costs the most
    bare = f"trim({raw}, {_SPACE})"
    found = f"CASE WHEN regexp_full_match({bare}, {literal(words)}) THEN NULL ELSE {bare} END"
    return f"nullif(CASE WHEN {suspect} THEN {found} ELSE {raw} END, '')"


def key(column: str, expression: Expression) -> str:
    """Return the SQL of a BIGINT key: integers as they are, other values hashed, NULL as the least BIGINT."""
    raw = f"_tm_{column}"
    if family(expression.type) == "integer":
        return f"coalesce({raw}::BIGINT, {UNKNOWN})"
    if expression.type == "VARCHAR":
        raw = known(raw)
    return f"CASE WHEN {raw} IS NULL THEN {UNKNOWN} ELSE (hash({raw}) >> 1)::BIGINT END"


def family(kind: str) -> str:
    """Return the family of a DuckDB type: integer, big, float, decimal, text or other."""
    return "decimal" if kind.startswith("DECIMAL") else _FAMILIES.get(kind, "other")


def digits(decimal: str) -> int:
    """Return the number of digits that a decimal type has before the point.

    >>> digits("DECIMAL(38,10)")
    28
    """
    width, scale = decimal.removeprefix("DECIMAL(").rstrip(")").split(",")
    return int(width) - int(scale)
