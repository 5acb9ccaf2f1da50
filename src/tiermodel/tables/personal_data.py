"""Find columns of the source tables that look like personal data, by their names and by a sample of their values."""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import date
from typing import TypeAlias

import duckdb

from tiermodel.tables.source import ROW, Source, quoted

__all__ = ["CELLS", "Personal", "find_personal", "kind_by_name", "looks_personal", "names_column"]


_SAMPLE = 10_000  # rows
CELLS = 2_000_000
"""About how many cells are sampled of a very wide table, so fewer rows."""

_LEAST_SHARE = {"email": 0.01, "resident_id": 0.05, "mobile": 0.5, "bank_card": 0.9, "ip": 0.5}
_FEW, _LEAST_PREFIXES = 20, 5
_MOBILE = re.compile(r"(?:\+?86[- ]?|0086)?(1[3-9]\d)[- ]?\d{4}[- ]?\d{4}")
_EMAIL = re.compile(r"[^@\s]{1,64}@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}")
_RESIDENT = re.compile(r"[1-8]\d{5}((?:19|20)\d{2})(\d{2})(\d{2})\d{3}[\dXx]")
_CARD = re.compile(r"(?:62|4|5[1-5]|35|3[47])\d{11,17}")
_PHONE = re.compile(r"\+?[\d ()./-]{7,20}")
# The words in a column's name that mean a kind of personal data, unless a word of _NOT is in the name too.
_NAMES = {
    "email": r"e_?mail|邮箱|电子邮件",
    "resident_id": r"(?<![a-z])(id_?card|national_?id|resident_?id|passport|ssn)(?![a-z])|身份证|证件号|护照",
    "mobile": r"(?<![a-z])(tele)?phone|(?<![a-z])(mobile|cell|tel|msisdn)(?![a-z])|手机|电话|联系方式",
    "bank_card": r"(?<![a-z])(iban|bank_?card|bank_?account|card_?number)(?![a-z])|银行卡|银行账号",
    "ip": r"(?<![a-z])ip(v4|_?addr(ess)?)?(?![a-z])",
    "address": r"(?<![a-z])(postal_|home_|street_)?(address|addr|street)(?![a-z])|地址|住址",
    "birth": r"(?<![a-z])(birth|birth_?(day|date)|date_?of_?birth|dob)(?![a-z])|出生|生日",
    "name": r"^name$|(?<![a-z])(first|last|full|given|family|sur|nick|customer|client|member|user|contact|person)_?name"
    r"(?![a-z])|姓名|名字|昵称|联系人|收货人|^(客户|会员|用户)名$",
}
_NOT = re.compile(
    r"(?<![a-z])(type|kind|count|flag|source|domain|status|verified|opt|consent|has|is|sent|hash)(?![a-z])"
)


_Judged: TypeAlias = tuple[str, float, int, bool]
"""A kind, its share of the sampled values, their number, and whether the column's name says so."""


@dataclass(frozen=True)
class Personal:
    """A column that looks like a kind of personal data, in a `share` of the sampled rows that have a value.

    Its name says so if `by_name`; the customers' ids are made of it if `is_customer_id`.
    """

    column: str
    kind: str
    share: float
    sampled: int
    by_name: bool
    is_customer_id: bool


def find_personal(
    connection: duckdb.DuckDBPyConnection,
    source: Source,
    rows: int,
    customer_id: str,
    only: Collection[str] | None = None,
) -> tuple[Personal, ...]:
    """Return the columns, mapped or not, that look like personal data, by name and a sample of about 10,000 rows.

    Of a table of more than 200 columns fewer rows are sampled, the first ones where its view has not all columns.

    `rows` is about the number of rows of the source. The rows whose number has a hash that is a multiple of a step are
    sampled: the same rows every time.
    `customer_id` is the project's expression for the customers' ids. `only` are the columns to look at; None for all.
    """
    columns = {
        name: kind
        for name, kind in source.columns.items()
        if kind not in {"BOOLEAN", "BLOB"} and (only is None or name in only)
    }
    if not columns:
        return ()
    step = max(1, rows // max(min(_SAMPLE, CELLS // len(columns)), 1))
    select = ", ".join(f"{quoted(name)}::VARCHAR" for name in columns)
    drawn = source.head or f"{source.view} WHERE hash({quoted(ROW)}) % {step} = 0"
    sample = connection.execute(f"SELECT {select} FROM {drawn}").fetchall()
    found = []
    for (name, kind), cells in zip(columns.items(), zip(*sample, strict=True), strict=False):  # no rows: no cells
        values = list(filter(None, map(str.strip, filter(None, cells))))
        if values and (judged := _judged(name, kind, values)):
            found.append(Personal(name, *judged, is_customer_id=names_column(customer_id, name)))
    return tuple(found)


def names_column(expression: str, column: str) -> bool:
    """Return whether a mapping names a column: it is the column, or SQL over it.

    >>> names_column("upper(mail)", "mail"), names_column("email", "mail")
    (True, False)
    """
    return re.search(rf"(?<!\w){re.escape(column)}(?!\w)", expression, re.IGNORECASE) is not None


def looks_personal(value: str) -> bool:
    """Return whether one value looks like personal data, whatever its column is called.

    >>> looks_personal("138 0013 8000"), looks_personal("an@example.com"), looks_personal("2024-02-30")
    (True, True, False)
    """
    return any(test(value.strip()) for test in _TESTS.values())


def _judged(name: str, kind: str, values: list[str]) -> _Judged | None:
    """Return the kind that a column with these values looks like, if any."""
    dated, number = kind.startswith(("DATE", "TIME")), kind != "VARCHAR"
    named = kind_by_name(name)
    if named == "birth" and (dated or not number):
        return named, 1.0, len(values), True
    if dated:
        return None
    texts = [value.removesuffix(".0") for value in values] if kind in {"DOUBLE", "FLOAT"} else values
    return _judged_by_values(named, texts) or _judged_by_name(named, texts, number)


def _judged_by_values(named: str | None, texts: list[str]) -> _Judged | None:
    """Return the first kind that enough values look like, unless by chance and against the column's name."""
    times = Counter(texts)  # many columns have few distinct values
    for what, test in _TESTS.items():
        share = sum(number for text, number in times.items() if test(text)) / len(texts)
        if share >= _LEAST_SHARE[what] and (named == what or not _by_chance(what, texts)):
            return what, share, len(texts), named == what
    return None


def _judged_by_name(named: str | None, texts: list[str], number: bool) -> _Judged | None:
    """Return the kind that the column's name means where half of the values may be one: a phone, name or address."""
    if named == "mobile":
        share = sum(map(_is_phone, texts)) / len(texts)
        return (named, share, len(texts), True) if share >= 0.5 else None
    if named in {"name", "address"} and not number and sum(map(_has_letter, texts)) > len(texts) / 2:
        return named, 1.0, len(texts), True
    return None


def kind_by_name(name: str) -> str | None:
    """Return the kind of personal data that a column's name means, if any.

    >>> [kind_by_name(name) for name in ("CustomerName", "收货地址", "product_name", "email_opt_in")]
    ['name', 'address', None, None]
    """
    words = re.sub(r"[\s.-]+", "_", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name.strip())).lower()
    if _NOT.search(words):
        return None
    return next((kind for kind, pattern in _NAMES.items() if re.search(pattern, words)), None)


def _by_chance(what: str, texts: list[str]) -> bool:
    """Return whether values look like a kind by chance, as numbers in sequence do: they have few distinct prefixes."""
    if what not in {"mobile", "bank_card"}:
        return False
    distinct = set(texts)
    if what == "mobile":
        starts = {match[1] for text in distinct if (match := _MOBILE.fullmatch(text))}
        return len(distinct) >= _FEW and len(starts) < _LEAST_PREFIXES
    return len(distinct) < 5  # of five numbers all pass Luhn's test by chance once in 100,000 times


def _is_mobile(text: str) -> bool:
    return _MOBILE.fullmatch(text) is not None


def _is_email(text: str) -> bool:
    return _EMAIL.search(text) is not None


def _is_phone(text: str) -> bool:
    return _PHONE.fullmatch(text) is not None and sum(map(str.isdigit, text)) >= 7


def _has_letter(text: str) -> bool:
    return any(map(str.isalpha, text))


def _is_resident_id(text: str) -> bool:
    """Return whether date and check digit of a resident id are right (GB 11643).

    >>> _is_resident_id("11010519491231002X"), _is_resident_id("110105194912310021")
    (True, False)
    """
    match = _RESIDENT.fullmatch(text)
    if match is None:
        return False
    try:
        date(int(match[1]), int(match[2]), int(match[3]))
    except ValueError:
        return False
    total = sum(int(digit) * pow(2, 17 - place, 11) for place, digit in enumerate(text[:17]))
    return text[17].upper() == "10X98765432"[total % 11]


def _is_bank_card(text: str) -> bool:
    """Return whether length, issuer and check digit of a card number are right (Luhn).

    >>> _is_bank_card("4111 1111 1111 1111"), _is_bank_card("4111111111111112")
    (True, False)
    """
    digits = re.sub(r"[ -]", "", text)
    if _CARD.fullmatch(digits) is None:
        return False
    doubled = [int(d) * (1 + place % 2) for place, d in enumerate(reversed(digits))]
    return sum(n // 10 + n % 10 for n in doubled) % 10 == 0


def _is_ip(text: str) -> bool:
    if not {".", ":"} & set(text):
        return False
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return address.version == 4 or ":" in text


_TESTS: dict[str, Callable[[str], bool]] = {
    "email": _is_email,
    "resident_id": _is_resident_id,
    "mobile": _is_mobile,
    "bank_card": _is_bank_card,
    "ip": _is_ip,
}
