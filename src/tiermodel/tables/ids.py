"""Customer ids: how they are read, the same way in every table, and which of them look like one customer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from tiermodel.config.data import Ids
from tiermodel.errors import DataError, ProjectError
from tiermodel.tables.expressions import Expression
from tiermodel.tables.privacy import masked
from tiermodel.tables.rules import NOTHING, Parsed, digits, family, known, trimmed
from tiermodel.tables.source import literal
from tiermodel.words import words

__all__ = ["customer", "look_alikes"]

_LONGEST = 128
_EXACT_DIGITS = 18
_EXACT = {"FLOAT": 1 << 24, "DOUBLE": 1 << 53}  # whole numbers from here on share their bits with others
# 1.23E+11, 1,23E+11 of a German sheet, 1.23e+11 of pandas, 1.2345E11 of Java, and cells whose formula failed
_DAMAGED = r"(?i)[+-]?\d([.,]\d+)?e\+\d{1,3}|[+-]?\d[.,]\d+e\d{1,3}|#(ref|value|name\?|div/0|num)!?|#{3,}"
_WHOLE = r"^([+-]?\d+)\.0+$"
# Words that mean nothing in one program, and are the name of somebody in another.
_NULL_WORDS = "('na', 'n/a', 'nan', 'null', 'none', 'nil', 'true')"
# What stands in the place of an id in a line of totals, or under a table of a database's console.
_TOTALS = (
    r"(?i)((grand|sub|overall)[ -]?)?totals?\s*[:：]?|sum|summe|gesamt|subtotal|[合总小累]\s*计\s*[:：]?|总额|"
    r"\(?\d+ rows?( affected)?\)?"
)
# Control, joining and direction characters, variation selectors, fillers: nothing is seen of them.
_INVISIBLE = (
    r"[\x00-\x1f\x7f-\x9f\x{ad}\x{34f}\x{61c}\x{115f}\x{1160}\x{17b4}\x{17b5}\x{180b}-\x{180e}\x{200b}-\x{200f}"
    r"\x{202a}-\x{202e}\x{2060}-\x{206f}\x{3164}\x{fe00}-\x{fe0f}\x{feff}\x{ffa0}]"
)


def customer(expression: Expression, beside: tuple[str, Expression] | None, ids: Ids, *, words: bool) -> Parsed:
    """Return the SQL of ids: BIGINT where their type is a number, else trimmed NFC text; `13085.0` reads as `13085`.

    `beside` is a date column of the table, which distinguishes rows from a repeated header or a line of totals. Text
    that programs write for nothing is no id; `words` such as null and NA are one, or not.
    """
    kind, raw, clean = family(expression.type), "_tm_customer_id", "_tm_customer_id_clean"
    missing = ("customer_id_missing", f"{clean} IS NULL")
    if expression.type.endswith("]") or expression.type.startswith(("STRUCT", "MAP", "UNION")):
        raise ProjectError(
            f"columns.customer_id: {expression.text!r} is {expression.type}, not a number or text: map an "
            "expression that gives one value"
        )
    if kind == "integer":
        return Parsed(raw, raw, f"{clean}::BIGINT", (missing,))
    if kind == "float":
        whole = f"isfinite({clean}) AND abs({clean}) < {_EXACT[expression.type]} AND {clean} = trunc({clean})"
        value = f"CASE WHEN {whole} THEN TRY_CAST({clean} AS BIGINT) END"
        return Parsed(raw, raw, value, (missing, ("customer_id_not_integral", f"NOT ({whole})")))
    if kind == "decimal":
        small = digits(expression.type) <= _EXACT_DIGITS
        value = f"TRY_CAST({clean} AS BIGINT)" if small else f"{clean}::HUGEINT::VARCHAR"
        return Parsed(raw, raw, value, (missing, ("customer_id_not_integral", f"{clean} <> trunc({clean})")))
    return _text(expression, beside, ids, missing, words=words)


def _text(
    expression: Expression, beside: tuple[str, Expression] | None, ids: Ids, missing: tuple[str, str], *, words: bool
) -> Parsed:
    clean, text = "_tm_customer_id_clean", "_tm_customer_id_text"
    says_nothing = f"length({clean}) < 5 AND lower({clean}) IN {_NULL_WORDS}"
    if not words:
        missing = (missing[0], f"{missing[1]} OR ({says_nothing})")
    suspect = " OR ".join(f"contains({clean}, '{mark}')" for mark in "+.,#")
    rules = (
        *(_no_rows(text, clean, expression, *beside) if beside else ()),
        missing,
        ("customer_id_too_long", f"length({clean}) > {_LONGEST}"),
        ("customer_id_damaged", f"({suspect}) AND {_fully(clean, _DAMAGED)}"),
    )
    counters = (
        ("ids_cleaned", f"{text} <> _tm_customer_id::VARCHAR OR ({clean} <> {text} AND NOT contains({text}, '.0'))"),
        ("ids_whole", f"{clean} <> {text} AND contains({text}, '.0')"),
        ("ids_null_words", says_nothing),
        ("null_words", f"CASE WHEN {says_nothing} THEN lower({clean}) END"),
    )
    read = known("_tm_customer_id::VARCHAR", NOTHING)
    one = f"CASE WHEN contains({text}, '.0') THEN {_as_whole(f'nfc_normalize({text})')} ELSE nfc_normalize({text}) END"
    if ids.invisible == "strip":
        one = f"nullif({trimmed(_visible(one))}, '')"
    else:  # of an id of invisible characters only, nobody sees that it is there
        one = f"CASE WHEN {_fully(text, f'{_INVISIBLE}+')} THEN NULL ELSE {one} END"
    if ids.case == "fold":
        one = f"lower({one})"
    return Parsed(read, one, clean, rules, counters)


def _fully(text: str, pattern: str) -> str:
    return f"regexp_full_match({text}, {literal(pattern)})"


def _as_whole(text: str) -> str:
    return f"regexp_replace({text}, {literal(_WHOLE)}, '\\1')"


def _visible(text: str) -> str:
    return f"regexp_replace({text}, {literal(_INVISIBLE)}, '', 'g')"


def _no_rows(text: str, clean: str, expression: Expression, name: str, date: Expression) -> tuple[tuple[str, str], ...]:
    names = (text, expression), (f"_tm_{name}::VARCHAR", date)
    header = " AND ".join(f"{_as_name(here)} = {literal(_bare_name(each.text))}" for here, each in names)
    footer = f"_tm_{name}_clean IS NULL AND _tm_{name}_text IS NULL AND {_fully(clean, _TOTALS)}"
    return ("repeated_header", header), ("footer_total", footer)


def _as_name(text: str) -> str:
    """Return the SQL of a text as a name of a column: in lower case, without the blanks and marks around it."""
    return f"lower({trimmed(text)})"


def _bare_name(name: str) -> str:
    return name.strip().lower()


@dataclass(frozen=True)
class _Likeness:
    """A way in which ids of two customers can be alike: its code, the SQL that levels it, and the key that decides."""

    code: str
    key: str
    remedy: str
    level: str
    look: str


_SEEN = f"CASE WHEN regexp_matches(id, {literal(_INVISIBLE)}) THEN {_visible('id')} ELSE id END"
_SINGLE_WORDS = "bool_and(id = upper(id) OR NOT regexp_matches(id, '\\p{Ll}\\p{Lu}'))"
_LIKENESSES = (
    _Likeness("TM2004", "case", "fold", "lower(id)", _SINGLE_WORDS),
    _Likeness("TM2005", "invisible", "strip", _SEEN, "true"),
)


def look_alikes(
    connection: duckdb.DuckDBPyConnection,
    found: Iterable[str | pa.Table],
    ids: Ids,
    language: str,
    *,
    hide_values: bool,
) -> tuple[str, ...]:
    """Return warnings of ids, of all tables, that differ by case or by invisible characters only.

    `found` has the ids of each table: the SQL of a column `id`, or an Arrow table with it. Raises DataError where such
    ids look like one customer and the project's `data.ids` does not decide: single words such as `AB12` and `ab12` do,
    of mixed case, as in `xYz` and `xyZ`, ids only count.
    """
    selects = []
    for number, part in enumerate(found):
        if isinstance(part, pa.Table):
            connection.register(f"_tm_ids_{number}", part)
        selects.append(part if isinstance(part, str) else f"SELECT id FROM _tm_ids_{number}")
    if not selects:
        return ()
    every = f"SELECT DISTINCT id FROM ({' UNION ALL '.join(selects)}) WHERE id IS NOT NULL"
    asked = [one for one in _LIKENESSES if getattr(ids, one.key) is None]
    if not asked:
        return ()
    connection.execute(f"CREATE OR REPLACE TEMP TABLE _tm_ids AS {every}")
    warnings = tuple(filter(None, (_told(connection, one, language, hide_values=hide_values) for one in asked)))
    connection.execute("DROP TABLE _tm_ids")
    return warnings


def _told(connection: duckdb.DuckDBPyConnection, one: _Likeness, language: str, *, hide_values: bool) -> str:
    several = f"SELECT level FROM (SELECT {one.level} AS level FROM _tm_ids) GROUP BY level HAVING count(*) > 1"
    connection.execute(f"CREATE OR REPLACE TEMP TABLE _tm_levels AS {several}")  # the rest is done for these few only
    if not connection.execute("SELECT count(*) FROM _tm_levels").fetchall()[0][0]:
        return ""
    groups = (
        f"SELECT {one.look} AS alike, count(*) AS n, min(id) AS a, max(id) AS b FROM "
        f"(SELECT id, {one.level} AS level FROM _tm_ids) SEMI JOIN _tm_levels USING (level) GROUP BY level"
    )
    n, alike, first, last = connection.execute(
        f"SELECT sum(n)::BIGINT, bool_or(alike), first(a ORDER BY NOT alike, a), first(b ORDER BY NOT alike, a) "
        f"FROM ({groups})"
    ).fetchall()[0]
    shown = [masked(text) if hide_values else text for text in (first, last)]
    say = words(language)
    told = say[f"note_alike_{one.key}"].format(code=one.code, n=n, first=ascii(shown[0]), last=ascii(shown[1]))
    rest = say["note_alike_decide" if alike else "note_alike_apart"].format(key=one.key, remedy=one.remedy)
    if alike:
        raise DataError(told + rest)
    return told + rest
