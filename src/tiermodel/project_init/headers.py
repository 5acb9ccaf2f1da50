"""What the columns of exports are called: the synonyms of `templates/headers.yaml`, and which columns carry them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import resources
from typing import Any

import yaml

__all__ = ["Named", "directory", "is_chinese", "layout_of", "named", "plain", "words_in"]

_UNITS = re.compile(r"[(（\[【][^()（）\[\]【】]*[)）\]】]\s*$")
_CHINESE = re.compile(r"[\u4e00-\u9fff]")
_SHORTEST = 4  # letters of a name that may be part of a longer one; two, where it is Chinese


@dataclass(frozen=True)
class Named:
    """A column that a role's name points to: `rank` is the better the lower, `exact` whether it is the name itself."""

    column: str
    rank: int
    exact: bool
    kind: str = ""


@cache
def directory() -> Mapping[str, Any]:
    """Return the content of `headers.yaml`."""
    text = (resources.files("tiermodel") / "templates" / "headers.yaml").read_text(encoding="utf-8")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in C it takes a tenth of the time
    return dict(yaml.load(text, loader))  # noqa: S506


@lru_cache(10_000)
def plain(name: str) -> str:
    """Return a name without case, spaces and punctuation, in one Unicode form.

    >>> plain("Lineitem_quantity"), plain("Created date (UTC)"), plain("Order #")
    ('lineitemquantity', 'createddateutc', 'order')
    """
    return "".join(mark for mark in unicodedata.normalize("NFKC", name).casefold() if mark.isalnum())


@lru_cache(10_000)
def _forms(name: str) -> tuple[str, ...]:
    """Return a column's name as it is compared: whole, and without a unit in brackets at its end."""
    return tuple(dict.fromkeys((plain(name), plain(_UNITS.sub("", name)) or plain(name))))


def is_chinese(names: Iterable[str]) -> bool:
    """Return whether half of the names, or more, have Chinese characters.

    >>> is_chinese(["客户", "amount", "日期"]), is_chinese(["客户", "amount", "day"])
    (True, False)
    """
    found = [bool(_CHINESE.search(name)) for name in names]
    return bool(found) and sum(found) * 2 >= len(found)


@cache
def _groups(role: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return the groups of a role: the kind of each, and its names as they are compared."""
    groups = directory()["roles"][role]
    pairs = ((group.get("kind", ""), group["names"]) if isinstance(group, dict) else ("", group) for group in groups)
    return tuple((kind, tuple(plain(str(name)) for name in names)) for kind, names in pairs)


def named(role: str, columns: Iterable[str]) -> list[Named]:
    """Return the columns that names of a role point to, the best first; those that only contain a name come last.

    >>> [found.column for found in named("time", ["Ship Date", "InvoiceDate", "Paid at"])]
    ['InvoiceDate', 'Paid at', 'Ship Date']
    """
    return sorted(_found(role, columns), key=lambda found: (not found.exact, found.rank))


def _found(role: str, columns: Iterable[str]) -> Iterator[Named]:
    for column in columns:
        for rank, (kind, names) in enumerate(_groups(role)):
            if any(form in names for form in _forms(column)):
                yield Named(column, rank, exact=True, kind=kind)
                break
        else:
            for rank, (kind, names) in enumerate(_groups(role)):
                if any(_within(name, plain(column)) for name in names):
                    yield Named(column, rank, exact=False, kind=kind)
                    break


def _within(name: str, column: str) -> bool:
    """Return whether a column's name begins or ends with a name that is long enough to mean something."""
    shortest = 2 if _CHINESE.search(name) else _SHORTEST
    return len(name) >= shortest and (column.startswith(name) or column.endswith(name))


def layout_of(columns: Iterable[str]) -> tuple[str, dict[str, list[str]]]:
    """Return the name of the layout that the columns are of, and its columns by role; empty where it is none."""
    by_name = {form: column for column in columns for form in reversed(_forms(column))}
    for layout in directory()["layouts"]:
        if all(plain(sign) in by_name for sign in layout["signs"]):
            wanted = {role: [one] if isinstance(one, str) else one for role, one in layout["columns"].items()}
            present = {
                role: [by_name[plain(n)] for n in names if plain(n) in by_name] for role, names in wanted.items()
            }
            return str(layout["name"]), {role: names for role, names in present.items() if names}
    return "", {}


def words_in(section: str, key: str, text: str) -> bool:
    """Return whether a value has one of the words of a list in it.

    >>> words_in("statuses", "left_out", "on-hold"), words_in("statuses", "left_out", "completed")
    (True, False)
    """
    value = plain(text)
    return any(plain(word) in value for word in directory()[section][key])
