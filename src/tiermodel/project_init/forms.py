"""Forms of numbers and dates: how the values of a column are written, and the SQL that reads them."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tiermodel.project_init.headers import directory
from tiermodel.tables.remedies import date_calls
from tiermodel.tables.source import literal

__all__ = ["NumberForm", "TimeForm", "number_form", "time_form"]

_DIGITS = "０１２３４５６７８９．，－＋"
_MINUS = "\u2212"
_READ = re.compile(
    r"\d{4}[-/]\d{1,2}[-/]\d{1,2}([T ]\d{1,2}:\d{2}(:\d{2}(\.\d{1,9})?)?( ?(Z|UTC|GMT|[+-]\d{2}(:?\d{2})?))?)?"
    r"|(19|20)\d{2}(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])"
)
"""What the contract of the tables reads by itself."""
_OFFSET = re.compile(r"\d ?([+-]\d{2}):?(\d{2})?$")
_MOST_SHARE = 0.9
_PROBE = 100  # values that tell whether a column may be days at all
_SEPARATED = re.compile(r"\d{1,3}([.,' ]\d{3})+")


@dataclass(frozen=True)
class NumberForm:
    """How numbers are written: marks that are no part of them, the decimal mark, and other ways of minus.

    `share` (0–1) is that of the values that are numbers in this form; `values` are they.
    """

    gone: str
    decimal: str
    wide: bool
    minus: bool
    brackets: bool
    share: float
    values: tuple[float, ...]
    sign: str = ""

    @property
    def is_plain(self) -> bool:
        """Whether the contract reads the numbers as they are."""
        return not (self.gone or self.wide or self.minus or self.brackets or self.decimal == ",")

    def sql(self, column: str) -> str:
        """Return the SQL of the numbers, as text that the contract reads, of the SQL `column`."""
        text = column
        if self.wide:
            text = f"translate({text}, '{_DIGITS}', '0123456789.,-+')"
        if self.minus:
            text = f"replace({text}, '{_MINUS}', '-')"
        if self.brackets:
            text = f"regexp_replace({text}, '^\\((.*)\\)$', '-\\1')"
        if self.gone:
            text = f"regexp_replace({text}, {literal(f'[{self.gone}]')}, '', 'g')"
        return f"replace({text}, ',', '.')" if self.decimal == "," else text


def number_form(values: Sequence[str]) -> NumberForm | None:
    """Return the form of texts that are numbers, nearly all of them; None where they are not.

    >>> number_form(["1.234,50 €", "7,25"]).sql("betrag")
    "replace(regexp_replace(betrag, '[ .€]', '', 'g'), ',', '.')"
    >>> number_form(["12", "x", "y"]) is None
    True
    """
    tried = values[:_PROBE]
    if sum(bool(re.search(r"\d", value)) for value in tried) <= len(tried) / 2:
        return None
    wide = any(mark in value for value in values for mark in _DIGITS)
    bare = [unicodedata.normalize("NFKC", value) if wide else value for value in values]
    signs = directory()["signs"]
    told = [value for value in bare if re.search(r"\d", value)]  # a word among numbers has no marks of numbers
    outside = Counter(mark for value in told for mark in set(value) if not (mark.isdigit() or mark in "+-.,()"))
    letters = any(re.fullmatch(r"([A-Z]{3} ?[\d.,+-]+|[\d.,+-]+ ?[A-Z]{3})", value) for value in bare[:200])
    known = {mark for mark in outside if mark in signs or mark.isspace() or mark in f"'{_MINUS}"}
    strip = {mark for mark in known if mark != _MINUS}
    table = str.maketrans(dict.fromkeys(strip, ""))
    texts = [value.translate(table).replace(_MINUS, "-") for value in bare]
    if letters:
        texts = [re.sub(r"^[A-Z]{3}|[A-Z]{3}$", "", text) for text in texts]
    decimal, parted = _decimal(texts)
    # money with decimals has thousands in later rows, if not in these
    parted |= bool(strip & signs.keys()) and any(re.search(rf"\d\{decimal}\d\d$", text) for text in texts)
    thousands = {"." if decimal == "," else ","} if parted else set()
    brackets = any(text.startswith("(") and text.endswith(")") for text in texts)
    read = [_number(text, decimal, thousands) for text in texts]
    numbers = tuple(number for number in read if number is not None)
    if len(numbers) < _MOST_SHARE * len(values):
        return None
    gone = "".join(sorted(strip | thousands)) + ("A-Z" if letters else "")
    sign = next((signs[mark] for mark in outside if mark in signs), "")
    share = len(numbers) / len(values)
    return NumberForm(gone, decimal, wide, _MINUS in outside, brackets, share, numbers, sign)


def _decimal(texts: Iterable[str]) -> tuple[str, bool]:
    """Return the decimal mark of numbers, and whether the other mark parts their thousands."""
    commas = points = both_comma = both_point = short_comma = 0
    many_points = False
    for text in texts:
        last_comma, last_point = text.rfind(","), text.rfind(".")
        if last_comma >= 0 and last_point >= 0:
            both_comma += last_comma > last_point
            both_point += last_point > last_comma
        elif last_comma >= 0:
            commas += 1
            short_comma += not _SEPARATED.fullmatch(text.lstrip("+-("))
        elif last_point >= 0:
            points += 1
            many_points |= text.count(".") > 1
    if both_comma > both_point or (not both_point and short_comma and short_comma >= commas / 10 and not both_comma):
        return ",", both_comma > 0 or many_points
    return ".", both_point > 0 or commas > 0


def _number(text: str, decimal: str, thousands: set[str]) -> float | None:
    for mark in thousands:
        text = text.replace(mark, "")
    if text.startswith("(") and text.endswith(")"):
        text = f"-{text[1:-1]}"
    try:
        return (
            float(text.replace(decimal, ".")) if re.search(r"\d", text) and not re.search(r"[a-zA-Z_]", text) else None
        )
    except ValueError:
        return None


@dataclass(frozen=True)
class TimeForm:
    """How days are written: the calls that read them where the contract does not, the other order of day and month.

    `sql` is empty where the contract reads them as they are; `other` is the SQL if the month comes first where nothing
    tells, else empty. `offsets` are those of the values, such as +0800.
    """

    sql: str
    other: str
    share: float
    offsets: tuple[str, ...]


def time_form(values: Sequence[str], column: str) -> TimeForm | None:
    """Return the form of texts that are days, nearly all of them, with the SQL that reads `column`; None if not.

    >>> time_form(["31.01.2024", "02.02.2024"], "d").sql
    "coalesce(try_strptime(d, '%d.%m.%Y'), TRY_CAST(d AS TIMESTAMPTZ))"
    >>> time_form(["2024-01-31 10:00"], "d").sql, time_form(["a", "b"], "d") is None
    ('', True)
    """
    if not values:
        return None
    tried = values[:_PROBE]
    if sum(bool(_READ.fullmatch(value) or date_calls(value, column)) for value in tried) * 2 < len(tried):
        return None
    rest = [value for value in values if not _READ.fullmatch(value)]
    calls: dict[str, str] = {}  # by call with the day first, the one with the month first, or the same
    certain, read = Counter[str](), len(values) - len(rest)
    for value in rest:
        ways = date_calls(value, column)
        read += bool(ways)
        if len(ways) == 2:
            calls[ways[0]] = ways[1]
        elif ways:
            certain[ways[0]] += 1
    if read < _MOST_SHARE * len(values):
        return None
    offsets = {f"{found[1]}{found[2] or '00'}" for value in values if ":" in value and (found := _OFFSET.search(value))}
    first, other = _orders(calls, certain)
    sql, swapped = (f"coalesce({', '.join(c)}, TRY_CAST({column} AS TIMESTAMPTZ))" if c else "" for c in (first, other))
    return TimeForm(sql, swapped, read / len(values), tuple(sorted(offsets)))


def _orders(calls: dict[str, str], certain: Counter[str]) -> tuple[list[str], list[str]]:
    """Return the calls in the order of day and month that the values tell, and those of the other where none does."""
    day_first = sum(certain[call] for call in calls)
    month_first = sum(certain[call] for call in calls.values())
    others = [call for call in certain if call not in calls and call not in calls.values()]
    if not calls:
        return others, []
    days, months = [*calls, *others], [*calls.values(), *others]
    if day_first or month_first:
        return (days if day_first >= month_first else months), []
    return days, months
