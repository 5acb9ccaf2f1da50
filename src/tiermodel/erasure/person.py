"""One person by id: which cells, rows and texts name the person, in whatever was written."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import pyarrow as pa

from tiermodel.config.project import Project
from tiermodel.output import escape_formulas
from tiermodel.tables.privacy import hash_key, public_ids
from tiermodel.words import words

__all__ = ["Person", "person_of"]

_ID = r"(^|[\W_])id($|[\W_])"
_SHORT_NUMBER = re.compile(r"[+-]?\d{1,7}")
_SEEN_BY_NOBODY = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]"
)


@dataclass(frozen=True)
class Person:
    """A person by the forms of the id that may be written: as given, as the tables read it, and hashed.

    `public` is the id in scores and ledger. Heads of columns in `heads` hold ids too, and where `only` is a head, no
    other column does; `mark` takes the place of an id within a text. An id that is a number of up to seven digits is
    looked for in columns of ids only, since amounts and counts may be the same number.
    """

    public: str
    forms: frozenset[str]
    mark: str
    heads: frozenset[str] = frozenset()
    fold: bool = False
    only: str = "customer_id"
    _known: dict[str, bool] = field(default_factory=dict, init=False, repr=False, compare=False)

    @cached_property
    def wide(self) -> frozenset[str]:
        """The forms that no amount or count can be."""
        return frozenset(form for form in self.forms if not _SHORT_NUMBER.fullmatch(form))

    @cached_property
    def _in_text(self) -> re.Pattern[str] | None:
        every = sorted({*self.wide, *map(html.escape, self.wide)}, key=len, reverse=True)
        found = "|".join(map(re.escape, every))
        return re.compile(rf"(?<!\w)({found})(?!\w)", re.IGNORECASE if self.fold else 0) if every else None

    @cached_property
    def in_page(self) -> re.Pattern[str]:
        """The pattern of the id in an HTML page: a short number as the whole text of an element only."""
        short = "|".join(re.escape(html.escape(form)) for form in sorted(self.forms - self.wide))
        parts = [rf">\s*({short})\s*<"] * bool(short)
        parts += [] if self._in_text is None else [self._in_text.pattern]
        return re.compile("|".join(parts), re.IGNORECASE if self.fold else 0)

    def holds_ids(self, head: str) -> bool:
        """Return whether a column or key of that name holds ids of customers."""
        if head not in self._known:
            ids, others = (
                "|".join(words(code)[key] for code in ("zh", "en")) for key in ("id_heads", "id_heads_of_others")
            )
            found = re.search(f"(?i){ids}|{_ID}", head) and not re.search(f"(?i){others}", head)
            self._known[head] = head in self.heads or head == self.only or bool(found)
        return self._known[head]

    def deciding(self, heads: Sequence[str]) -> Sequence[str]:
        """Return the columns whose cells decide whether a row is the person's: all where none is known to."""
        known = [head for head in (self.only, "customer_id") if head in heads]
        return known[:1] or heads

    def is_id(self, cell: str, head: str) -> bool:
        """Return whether a cell of the column `head` is the person's id."""
        cell = cell.strip()
        cell = cell.lower() if self.fold else cell
        found = cell in self.forms or (cell[:1] == "'" and cell[1:] in self.forms and escape_formulas(cell[1:]) == cell)
        return found and (cell.removeprefix("'") in self.wide or self.holds_ids(head))

    def without(self, text: str) -> str:
        """Return a text with the mark in place of the id."""
        return text if self._in_text is None else self._in_text.sub(self.mark, text)

    def may_be_in(self, content: bytes) -> bool:
        """Return whether the bytes of a file have the id somewhere, perhaps within another word."""
        content = content.lower() if self.fold else content
        return any(found in content for found in self._as_bytes)

    @cached_property
    def _as_bytes(self) -> tuple[bytes, ...]:
        pages = {form.encode(code, "ignore") for form in self.forms for code in ("utf-8", "gb18030", "utf-16-le")}
        pages |= {html.escape(form).encode() for form in self.forms}
        return tuple(sorted(pages - {b""}))

    @property
    def longest(self) -> int:
        """The bytes of the longest form."""
        return max(map(len, self._as_bytes))


def person_of(project: Project, customer: str, heads: Iterable[str] = ()) -> Person:
    """Return the person with an id, as the project's tables read ids; raises as `hash_key` does."""
    ids, key = project.data.ids, hash_key(project)
    fold, strip = ids is not None and ids.case == "fold", ids is not None and ids.invisible == "strip"
    read = unicodedata.normalize("NFC", customer.strip())
    read = _SEEN_BY_NOBODY.sub("", read) if strip else read
    read = read.lower() if fold else read
    public = str(public_ids(pa.array([read]), key)[0].as_py())
    given = customer.strip().lower() if fold else customer.strip()
    tables = (getattr(project.data, name) for name in ("transactions", "customers", "events", "invoices", "costs"))
    mapped = {table.columns.customer_id for table in tables if table is not None}
    named = {words(language)[key] for language in ("zh", "en") for key in ("customer", "ledger_customer")}
    mark = words(project.language)["erased_mark"]
    return Person(public, frozenset({given, read, public}), mark, frozenset({*heads, *mapped, *named}), fold)
