"""The rules of every canonical column: which rows break the contract, and how the others become integers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from tiermodel.config.data import EventKind
from tiermodel.errors import ProjectError
from tiermodel.tables.expressions import Expression
from tiermodel.tables.row_kinds import EVENTS, KINDS
from tiermodel.tables.rule_table import rule_table
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
    "custom",
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
# What programs write for nothing. The first are nobody's id; of the others an id, a name perhaps, is a doubtful case.
NOTHING = r"\\N|\(null\)|\(NULL\)|<null>|<NULL>|\[NULL\]|<NA>|#N/A|#NULL!"
_NOTHING = f"{NOTHING}|NULL|null|None|NaN|nan|NaT"
_YES, _NO = "('true', 't', 'yes', 'y', '1', '是')", "('false', 'f', 'no', 'n', '0', '否')"


@dataclass(frozen=True)
class Rule:
    """A way in which a row can be bad: a stable name, a stable code, the column, the remedy, and what is wrong."""

    name: str
    code: str
    column: str
    remedy: str
    remedy_zh: str
    wrong_zh: str
    wrong_en: str


def _rule(name: str, column: str, like: str | None = None) -> Rule:
    """Return the rule of a column, with the code and remedy that the table has for its name, or for that of `like`."""
    row = rule_table()[like or name]
    return Rule(name, row.code, column, row.remedy[1], row.remedy[0], *row.wrong)


def _column_rules(column: str, like: str, *faults: str) -> Iterator[Rule]:
    """Yield the rules of a date (`like`) or number; only what is required can be missing."""
    for fault in ("missing", *faults) if column in REQUIRED else faults:
        yield _rule(f"{column}_{fault}", column, f"{like}_{fault}")


DATES = ("time", "due", "issued", "paid", "disputed", "valid_from", "signup", "contract_end", "ingested_at")
FLAGS = ("consent", "opt_out", "no_automated_decision")
MONEY = ("amount", "cost", "quantity", "discount", "value", "acquisition_cost", "paid_amount")
_RECORD = ("field_missing", "field_extra", "stray_quote", "line_too_long", "invalid_encoding", "nul_byte", "malformed")
_CUSTOMER = (
    "repeated_header", "footer_total", "customer_id_missing", "customer_id_too_long", "customer_id_not_integral",
    "customer_id_damaged",
)  # fmt: skip
RULES = {
    rule.name: rule
    for rule in (
        *(_rule(name, "") for name in _RECORD),
        *(_rule(name, "customer_id") for name in _CUSTOMER),
        *(rule for column in DATES for rule in _column_rules(column, "date", "numeric", "unparsable", "implausible")),
        *(
            rule
            for column in MONEY
            for rule in _column_rules(column, "number", "not_finite", "unparsable", "too_large")
        ),
        *(_rule(f"currency_{fault}", "currency") for fault in ("missing", "unknown", "other")),
        _rule("paid_amount_undated", "paid_amount"),
        *(_rule(f"{column}_unparsable", column, "flag_unparsable") for column in FLAGS),
        _rule("kind_unknown", "kind"),
        _rule("attribute_not_a_number", "attribute"),
        _rule("custom_not_a_number", "custom"),
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
        place = f"{key}.{column.removeprefix('attribute_').removeprefix('custom_')}"
        one = f"{expression.inside}::INTEGER" if expression.type == "BOOLEAN" else "an expression that gives a number"
        raise ProjectError(f"TM2045 {place}: {expression.text!r} is {expression.type}, not a number or text: map {one}")
    # TRY_CAST, because DuckDB drops bounds that hold by a Parquet file's statistics, and those leave NaN out.
    value = f"CASE WHEN {clean} {bounds} THEN {exact} END"
    if column in REQUIRED:
        return Parsed(*steps, value, (missing, *rules))
    otherwise = "0" if column in _ZERO else UNKNOWN
    if column == "paid_amount":
        rules = (*rules, ("paid_amount_undated", f"{clean} <> 0 AND _tm_paid_text IS NULL"))
    return Parsed(*steps, f"coalesce({value}, {otherwise})", rules, (missing,))


def _in_units(exact: str, size: str) -> str:
    """Return the SQL of a decimal number in 1/10,000; beyond 1e9 its product needs 128 bits, which are slower."""
    small, large = (f"(TRY_CAST({exact} AS DECIMAL({digits}, 4)) * {_UNIT})::BIGINT" for digits in (18, 38))
    return f"CASE WHEN abs({size}) < 1e9 THEN {small} ELSE {large} END"


def attribute(column: str, expression: Expression) -> Parsed:
    """Return the SQL of a number that models may use, in 1/10,000, unknown where it is missing."""
    parsed = money(column, expression, "data.customers.attributes")
    return replace(parsed, rules=tuple(("attribute_not_a_number", test) for _, test in parsed.rules), counters=())


def custom(column: str, expression: Expression) -> Parsed:
    """Return the SQL of the measure of a custom feature, in 1/10,000; unknown, and counted, where it is NULL."""
    parsed = money(column, expression, "features.custom")
    return replace(parsed, rules=tuple(("custom_not_a_number", test) for _, test in parsed.rules))


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
