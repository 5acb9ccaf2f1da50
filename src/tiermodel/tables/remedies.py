"""The remedy for one bad value: an expression that reads this value, to paste into the project file."""

from __future__ import annotations

import re
import unicodedata
from datetime import datetime

from tiermodel.tables.source import literal
from tiermodel.words import words

__all__ = ["date_calls", "remedy_for"]

# Forms of dates that a reader may not guess, or does not know, each with what strptime needs; the time is added.
_DATES = (
    (r"\d{1,2}\.\d{1,2}\.\d{4}", "%d.%m.%Y"),
    (r"\d{1,2}\.\d{1,2}\.\d{2}", "%d.%m.%y"),
    (r"\d{4}\.\d{1,2}\.\d{1,2}", "%Y.%m.%d"),
    (r"\d{4}年\d{1,2}月\d{1,2}日", "%Y年%m月%d日"),
    (r"[A-Za-z]{3} \d{1,2},? \d{4}", "%b %d %Y"),
    (r"[A-Za-z]{4,9} \d{1,2},? \d{4}", "%B %d %Y"),
    (r"\d{1,2}[- ][A-Za-z]{3}[- ]\d{4}", "%d-%b-%Y"),
    (r"\d{1,2}[- ][A-Za-z]{3}[- ]\d{2}", "%d-%b-%y"),
    (r"\d{4}[-/]\d{1,2}[-/]\d{1,2}", "%Y-%m-%d"),
)
_EITHER = re.compile(r"(\d{1,2})([/-])(\d{1,2})[/-](\d{4}|\d{2})")
_TIMES = (
    (r"", ""),
    (r" \d{1,2}:\d{2}", " %H:%M"),
    (r" \d{1,2}:\d{2}:\d{2}", " %H:%M:%S"),
    (r" \d{1,2}:\d{2}:\d{2}\.\d+", " %H:%M:%S.%n"),
    (r" \d{1,2}:\d{2} ?[AaPp][Mm]", " %I:%M %p"),
    (r" \d{1,2}:\d{2}:\d{2} ?[AaPp][Mm]", " %I:%M:%S %p"),
)
_EPOCHS = {10: "", 13: " / 1000", 16: " / 1000000", 19: " / 1000000000"}
_COMPACT = {12: "%Y%m%d%H%M%S", 10: "%Y%m%d%H%M"}
_JULIAN = r"24\d{5}"
_DAYS = ("time", "due", "issued", "paid", "disputed", "valid_from", "signup", "contract_end", "ingested_at")
_REQUIRED = ("customer_id", "time", "due", "amount", "cost")
_CALENDARS = (("buddhist", 2443, 2742, "> '2199'", "- 543"), ("minguo", 60, 199, "< '0200'", "+ 1911"))
# Digits of full width, and what looks like the marks of a date, with what the contract reads.
_WIDE, _PLAIN = "０１２３４５６７８９．／：－‐‑‒–—−", "0123456789./:-------"
_MONTHS = "janfebmaraprmayjunjulaugsepoctnovdec"
_SIGNS = "¥￥$€£₽₩₹元円"


_Told = tuple[str, ...]
"""A remedy: the key of its text after `remedy_`, and what stands in its blanks; empty for none."""


def remedy_for(rule: str, value: str, column: str, language: str = "en") -> str:
    """Return the remedy for a value that breaks a rule, with an expression over the SQL `column`; empty for none.

    >>> remedy_for("time_unparsable", "31.01.2024 17:30", "t")
    "map time to coalesce(try_strptime(t, '%d.%m.%Y %H:%M'), TRY_CAST(t AS TIMESTAMPTZ))"
    >>> remedy_for("amount_unparsable", "￥1,234.50", "amount")
    "map amount to regexp_replace(amount, '[,￥]', '', 'g')"
    """
    key, *blanks = _told(rule, value.strip(), column) or ("",)
    return words(language)[f"remedy_{key}"].format(*blanks) if key else ""


def _told(rule: str, value: str, column: str) -> _Told:
    name, _, fault = rule.rpartition("_")
    if fault == "numeric":
        return _numeric(name, value, column)
    if fault == "implausible":
        return _other_years(name, value, column)
    if fault == "missing" and name in _REQUIRED:
        return _without(name, value, column)
    if rule == "currency_other":
        left = f"where: upper(trim({column})) IS DISTINCT FROM {literal(value.upper())}"
        return "convert", left
    if fault != "unparsable":
        return ()
    return _date(name, value, column) if name in _DAYS else _money(name, value, column)


def _without(name: str, value: str, column: str) -> _Told:
    """Return the remedy for rows without an id, a day or a number: `value` is empty, or a word that means nothing."""
    if value and not any(unicodedata.category(mark)[0] in "LNPS" for mark in value):  # nothing that is seen
        return "without", name, f"regexp_matches({column}::VARCHAR, '[\\p{{L}}\\p{{N}}\\p{{P}}\\p{{S}}]')"
    empty = f"trim({column}::VARCHAR)"
    test = f"{empty} NOT IN ('', {literal(value)})" if value else f"{empty} <> ''"
    return "without", name, test


def _other_years(name: str, value: str, column: str) -> _Told:
    """Return the remedy for a year of another calendar; its 29th of February is a day of ours only, so it is text."""
    year = int(value[:4]) if re.match(r"\d{4}-", value) else 0
    written = f"left({column}::VARCHAR, 4)"
    for what, first, last, test, shift in _CALENDARS:
        if first <= year <= last:
            ours = f"({written}::INTEGER {shift})::VARCHAR || substr({column}::VARCHAR, 5)"
            return f"map_{what}", name, f"CASE WHEN {written} {test} THEN {ours} ELSE {column}::VARCHAR END"
    return ()


def _numeric(name: str, value: str, column: str) -> _Told:
    whole = value.partition(".")[0]
    number = f"TRY_CAST({column} AS DOUBLE)"
    seconds = {length: f"{number}{unit}" for length, unit in _EPOCHS.items()}
    if re.fullmatch(_JULIAN, whole):
        seconds[len(whole)] = f"({number} - 2440587.5) * 86400"
    if len(whole) in seconds:
        instant = _or_plain(f"to_timestamp({seconds[len(whole)]})", column)
        return f"map_{'julian' if re.fullmatch(_JULIAN, whole) else 'instant'}", name, instant
    for digits, pattern in _COMPACT.items():
        if re.fullmatch(rf"(19|20)\d{{{digits}}}", whole):
            return "map", name, _or_plain(_strptime(column, value, pattern), column)
    if len(whole) == 5:
        days = _or_plain(f"DATE '1899-12-30' + floor({number})::INTEGER", column)
        return "map_spreadsheet", name, days
    return ()


def _or_plain(sql: str, column: str) -> str:
    """Return the SQL of a value, or of one in the usual forms, with an offset or in the project's zone.

    Rows beside the bad one may be good, and must stay so.
    """
    return f"coalesce({sql}, TRY_CAST({column} AS TIMESTAMPTZ))"


def _date(name: str, value: str, column: str) -> _Told:
    plain, given = value, column
    if set(value) & set(_WIDE):
        plain, given = value.translate(str.maketrans(_WIDE, _PLAIN)), f"translate({column}, '{_WIDE}', '{_PLAIN}')"
    calls = [_or_plain(call, given) for call in date_calls(plain, given)]
    if len(calls) == 2:
        return "map_either", name, *calls
    if calls:
        return "map", name, *calls
    return ("no_day",) if _dated(plain) else ()


def _dated(value: str) -> bool:
    """Return whether a value has the form of a date, though it may be none.

    >>> _dated("2024-02-30"), _dated("2024-02"), _dated("2024-01-31 23:59:60")
    (True, False, True)
    """
    forms = [form for form, _ in _DATES] + [_EITHER.pattern]
    return any(re.fullmatch(form + time, value) for form in forms for time, _ in _TIMES)


def date_calls(value: str, column: str) -> tuple[str, ...]:
    """Return the SQL that reads a date whose form the contract does not read: two, where day or month may come first.

    >>> date_calls("31/01/2024", "t"), len(date_calls("03/01/2024", "t")), date_calls("soon", "t")
    (("try_strptime(t, '%d/%m/%Y')",), 2, ())
    """
    for time, clock in _TIMES:
        for form, pattern in _DATES:
            if re.fullmatch(form + time, value) and _is_day(value, pattern + clock):
                return (_strptime(column, value, pattern + clock),)
        if (found := re.fullmatch(_EITHER.pattern + time, value)) and max(int(found[1]), int(found[3])) <= 31:
            mark, year = found[2], "%Y" if len(found[4]) == 4 else "%y"
            orders = [f"%d{mark}%m{mark}{year}{clock}"] * (int(found[3]) <= 12)
            orders += [f"%m{mark}%d{mark}{year}{clock}"] * (int(found[1]) <= 12)
            return tuple(_strptime(column, value, order) for order in orders if _is_day(value, order))
    return ()


def _is_day(value: str, pattern: str) -> bool:
    """Return whether the calendar has the day, and the day the time, that a value of this form names.

    >>> _is_day("31.02.2024", "%d.%m.%Y"), _is_day("29.02.2024 17:30", "%d.%m.%Y %H:%M")
    (False, True)
    """
    # months as numbers, since names depend on Python's locale; a day does not depend on the noon or parts of a second
    parts = re.sub(r"(:\d{2})\.\d+| ?[AaPp][Mm]$|,", r"\1", value)
    parts = re.sub(r"[A-Za-z]+", lambda word: f"{_MONTHS.find(word[0][:3].lower()) // 3 + 1:02}", parts)
    ours = re.sub(r"%[bB]", "%m", pattern.replace(" %p", "").replace(".%n", ""))
    try:
        datetime.strptime(re.sub(r"[/ ]", "-", parts), re.sub(r"[/ ]", "-", ours))  # noqa: DTZ007  only whether it is
    except ValueError:
        return False
    return True


def _strptime(column: str, value: str, pattern: str) -> str:
    """Return the call that reads the value, whose separators may be others than those of the pattern."""
    given = column
    if "," in value:
        given = f"replace({column}, ',', '')"
    elif "-%b-" in pattern and " " in re.split(r"\d:", value)[0].strip()[:7]:
        pattern = pattern.replace("-", " ")
    elif pattern.startswith("%Y-") and "/" in value:
        pattern = pattern.replace("-", "/")
    if re.search(r"\d[AaPp][Mm]$", value):
        pattern = pattern.replace(" %p", "%p")
    return f"try_strptime({given}, '{pattern}')"


def _money(name: str, value: str, column: str) -> _Told:
    plain = "".join(
        unicodedata.normalize("NFKC", mark) if mark.isdigit() or mark in "．，－＋" else mark for mark in value
    )
    if plain != value:
        return "map", name, f"translate({column}, '０１２３４５６７８９．，－＋', '0123456789.,-+')"
    if "\u2212" in value:
        return "map", name, f"replace({column}, '\u2212', '-')"
    if re.fullmatch(r"\([\d.]+\)", value):
        return "map", name, f"regexp_replace({column}, '^\\((.*)\\)$', '-\\1')"
    if re.fullmatch(r"[\d.]+-", value):
        return "map", name, f"regexp_replace({column}, '^(.*)-$', '-\\1')"
    return _marks(name, value, column)


def _marks(name: str, value: str, column: str) -> _Told:
    """Return the remedy for signs of a currency, blanks, and commas that part thousands or decimals."""
    signs = {mark for mark in value if mark in _SIGNS or mark.isspace()}
    number = "".join(mark for mark in value if mark not in signs)
    if words := re.fullmatch(r"([A-Z]{3})?(.*?)([A-Z]{3})?", number):
        number = words[2]
    letters = "A-Z" if words and (words[1] or words[3]) else ""
    gone = "".join(sorted(signs)) + letters
    if re.fullmatch(r"[+-]?\d{1,3}(,\d{3})+\.\d+|[+-]?\d{1,3}(,\d{3}){2,}", number):
        return "map", name, f"regexp_replace({column}, '[,{gone}]', '', 'g')"
    if re.fullmatch(r"[+-]?\d{1,3}(\.\d{3})+,\d+|[+-]?\d{1,3}(\.\d{3}){2,}", number):
        return "map", name, f"replace(regexp_replace({column}, '[.{gone}]', '', 'g'), ',', '.')"
    inner = f"regexp_replace({column}, '[{gone}]', '', 'g')" if gone else column
    if re.fullmatch(r"[+-]?[1-9]\d{0,2},\d{3}", number):
        two = f"replace({inner}, ',', '')", f"replace({inner}, ',', '.')"
        return "map_comma", name, *two
    if re.fullmatch(r"[+-]?\d+,\d+", number):
        return "map", name, f"replace({inner}, ',', '.')"
    return ("map", name, inner) if gone and re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)", number) else ()
