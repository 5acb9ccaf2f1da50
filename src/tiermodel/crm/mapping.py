"""The mapping file: which columns of the scores go to which fields of the CRM, and in which words."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from tiermodel.config.data import Section, Text
from tiermodel.config.packaged import packaged
from tiermodel.config.validation import checked, nearest
from tiermodel.config.yaml_reader import Loc, YamlSource, shown
from tiermodel.output import FORMULA_SIGNS

__all__ = [
    "ID",
    "LIMITS",
    "WEIGHT",
    "CrmField",
    "Limits",
    "Mapping",
    "Priority",
    "Target",
    "load_mapping",
    "mapping_names",
]

ID, WEIGHT = "customer_id", "priority_weight"
"""The column that says whose row it is, and the column that `priority` computes."""

Target = Literal["zoho", "fxiaoke", "csv"]

_EMPTY_OPTION = "-None-"  # Zoho's own option of a picklist for no choice
_API_NAME = re.compile(r"[A-Za-z]\w{0,99}(\.[A-Za-z]\w{0,99})?", re.ASCII)
_Amount = Annotated[float, Field(strict=True, ge=0, le=1e9, allow_inf_nan=False)]


class Limits(Section):
    """What one file of an import may hold: rows without the header, bytes before zipping, and columns."""

    rows: int
    bytes: int
    columns: int


_NONE = Limits(rows=1 << 40, bytes=1 << 60, columns=10_000)
LIMITS = {
    "zoho": Limits(rows=25_000, bytes=25_000_000, columns=200),
    "fxiaoke": _NONE,
    "csv": _NONE,
}
"""What one file may hold at most, by target: those of Zoho's bulk write; for 纷享销客 the mapping says."""


class CrmField(Section):
    """A field of the CRM: the column of the scores it shows, and how.

    A `picklist` has the `options` of the CRM, and `values` say which of them stands for a value of the column (without
    `values`, the value itself is an option). Text longer than `length` characters is cut, numbers are rounded to
    `decimals` (2 by default; infinite ones are left empty), and dates are written as 2026-11-29. With
    `compare: false`, a customer of whom nothing but this field has changed counts as unchanged.
    """

    column: Text
    compare: bool = True
    type: Literal["text", "number", "date", "picklist"] = "text"
    length: Annotated[int, Field(strict=True, ge=1, le=32_000)] | None = None
    decimals: Annotated[int, Field(strict=True, ge=0, le=9)] | None = None
    options: Annotated[tuple[Text, ...], Field(min_length=1, max_length=1000)] | None = None
    values: dict[str, Text] | None = None


class Priority(Section):
    """How much a customer weighs in production and queues: the weight of the level, times a factor.

    Work for a customer of weight 8 counts as four times that for one of weight 2. `factor` is an SQL expression over
    the columns of the scores. A weight depends on the customer alone, so that it changes only where the customer does.
    """

    levels: Annotated[dict[str, _Amount], Field(min_length=1)]
    factor: Text | None = None


class Mapping(Section):
    """A checked mapping file, for one audience: what is not mapped does not leave.

    `key` is the field that says whose record it is; its column is `customer_id`. `project` is the project whose scores
    it is for (without it, any). `rows_per_file` is the most rows that the CRM's import takes in one file.
    """

    version: Literal[1]
    name: Annotated[str, Field(pattern=r"^[^\W_][\w.-]{0,39}$")]
    to: Target
    audience: Text
    key: Text
    fields: Annotated[dict[str, CrmField], Field(min_length=1)]
    module: Annotated[str, Field(pattern=r"^[A-Za-z]\w{0,59}$")] = "customers"
    project: Text | None = None
    language: Literal["zh", "en"] | None = None
    rows_per_file: Annotated[int, Field(strict=True, ge=1)] | None = None
    priority: Priority | None = None

    @property
    def limits(self) -> Limits:
        """What one file may hold."""
        most = LIMITS[self.to]
        return most if self.rows_per_file is None else most.model_copy(update={"rows": self.rows_per_file})

    @property
    def digest(self) -> str:
        """The SHA-256 of what the mapping says; comments, and the order of keys other than fields, do not matter."""
        content = self.model_dump(mode="json")
        content["fields"] = list(content["fields"].items())  # their order is that of the columns
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def mapping_names() -> list[str]:
    """Return the names of the mappings that come with the package as examples, sorted."""
    return sorted(path.stem for path in packaged("mappings").glob("*.yaml"))


def load_mapping(given: str | Path) -> Mapping:
    """Return a mapping by the path of its file, or by the name of an example that ships.

    Raises ProjectError: one line for each problem, with file:line:column, key, value at fault and remedy.

    >>> load_mapping("zoho_accounts").to
    'zoho'
    """
    shipped = str(given) in mapping_names()
    source = YamlSource(packaged("mappings") / f"{given}.yaml" if shipped else Path(given), "mapping file")
    mapping = checked(Mapping, source.read(), source)
    for loc, problem in _problems(mapping):
        source.note(source.place(loc, of_key=False), loc, problem)
    source.refuse_problems()
    return mapping


def _problems(mapping: Mapping) -> Iterator[tuple[Loc, str]]:
    """Yield the place and the problem of what does not fit together, or does not fit the CRM."""
    most = LIMITS[mapping.to]
    if len(mapping.fields) > most.columns:
        yield ("fields",), f"{len(mapping.fields)} fields, and {mapping.to} takes {most.columns}; map fewer"
    if mapping.rows_per_file is not None and mapping.rows_per_file > most.rows:
        yield ("rows_per_file",), f"{mapping.to} takes {most.rows} rows a file at most, got {mapping.rows_per_file}"
    if mapping.to == "fxiaoke" and mapping.rows_per_file is None:
        problem = "this key is required for fxiaoke; give the most rows that the import page of your tenant takes"
        yield ("rows_per_file",), problem
    yield from _key_problems(mapping)
    for name, field in mapping.fields.items():
        yield from (((("fields", name, *loc)), problem) for loc, problem in _name_problems(mapping.to, name))
        yield from (((("fields", name, *loc)), problem) for loc, problem in _field_problems(field))


def _key_problems(mapping: Mapping) -> Iterator[tuple[Loc, str]]:
    key = mapping.fields.get(mapping.key)
    if key is None:
        near = nearest(mapping.key, mapping.fields)
        hint = f"did you mean {near}?" if near else f"there are: {', '.join(mapping.fields)}"
        yield ("key",), f"there is no field {shown(mapping.key)} in fields; {hint}"
    elif not key.compare:
        yield ("fields", mapping.key, "compare"), "the key is always compared; remove compare"
    elif key.column != ID or key.type != "text":
        yield (
            ("fields", mapping.key, "column"),
            f"the key is text, column {ID}; got {key.column} ({key.type})",
        )
    if mapping.priority is not None and all(field.column != WEIGHT for field in mapping.fields.values()):
        yield ("priority",), f"no field has the column {WEIGHT}; add one with type: number, or remove priority"


def _name_problems(to: Target, name: str) -> Iterator[tuple[Loc, str]]:
    if to == "zoho" and not _API_NAME.fullmatch(name):
        yield (), "Zoho wants the API name of a field (letters, digits, _), as in Account_Number or Account_Name.id"
    elif _unsafe(name) or not name.strip():
        yield (), "a label is text on one line that begins with no formula sign (= + - @); write the CRM's own"


def _field_problems(field: CrmField) -> Iterator[tuple[Loc, str]]:
    for key, kind in (("length", "text"), ("decimals", "number"), ("options", "picklist"), ("values", "picklist")):
        if field.type != kind and getattr(field, key) is not None:
            yield (key,), f"belongs to type: {kind}, and this field is {field.type}; remove it, or change the type"
    if field.type != "picklist":
        return
    if field.options is None:
        yield (), "a picklist needs the options of the CRM; add options: [first, second]"
        return
    for place, option in enumerate(field.options):
        if field.options.count(option) > 1:
            yield ("options", place), f"{shown(option)} stands there more than once; keep one"
        if _unsafe(option) and option != _EMPTY_OPTION:
            yield ("options", place), f"{shown(option)} begins with a formula sign, or is not on one line; rename it"
    for value, option in (field.values or {}).items():
        if option not in field.options:
            near = nearest(option, field.options)
            hint = f"did you mean {near}?" if near else f"there are: {', '.join(field.options)}"
            yield ("values", value), f"there is no option {shown(option)} in options; {hint}"


def _unsafe(text: str) -> bool:
    return text.startswith(FORMULA_SIGNS) or any(ord(sign) < 32 or ord(sign) == 127 for sign in text)
