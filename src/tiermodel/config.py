"""Read one YAML file as one project: typed, frozen, every default written once."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, available_timezones

from pydantic import BaseModel, ConfigDict, Field, field_validator

__all__ = ["Project", "load_project"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Columns(_Section):
    """Map our column names to theirs: a source column's name, or an SQL expression over source columns."""

    customer_id: str
    time: str
    amount: str
    order_id: str | None = None
    product_id: str | None = None
    category: str | None = None
    quantity: str | None = None
    cost: str | None = None
    discount: str | None = None
    channel: str | None = None


class Transactions(_Section):
    """Say where the transaction rows are and what their columns mean."""

    path: str | list[str]
    where: str | None = None
    columns: Columns
    encoding: str = "utf-8"
    duplicates: Literal["drop", "keep"] = "drop"


class Data(_Section):
    """Say where the tables are and how strict to be."""

    engine: Literal["duckdb"] = "duckdb"
    transactions: Transactions
    max_bad_share: Annotated[float, Field(ge=0, le=1)] = 0.05
    memory: str = "1500MB"


class Features(_Section):
    """Choose the feature groups and the window lengths, in days."""

    groups: tuple[Literal["rfm", "loyalty", "potential"], ...] = ("rfm", "loyalty", "potential")
    windows_days: tuple[Annotated[int, Field(ge=1, le=3660)], ...] = (30, 90, 180, 365)


class Outcome(_Section):
    """Set the window in which the outcome is observed: [as_of + gap, as_of + gap + horizon), in days."""

    horizon_days: Annotated[int, Field(ge=1, le=3660)] = 90
    gap_days: Annotated[int, Field(ge=0, le=3660)] = 0


class Panel(_Section):
    """Set how many snapshots to stack and how far apart, in days."""

    every_days: Annotated[int, Field(ge=1, le=366)] = 30
    snapshots: Annotated[int, Field(ge=1, le=120)] = 12


class Tiers(_Section):
    """Name the scheme: a preset, a path to a scheme file, or the scheme itself."""

    scheme: str | dict[str, Any] = "pyramid"


class Churn(_Section):
    """Say who can churn: customers with a purchase in the last `active_days` days (all buyers where it is not set)."""

    active_days: Annotated[int, Field(ge=1)] | None = None


class Value(_Section):
    """Choose what is predicted: the amount, or the margin where `cost` is mapped."""

    measure: Literal["amount", "margin"] = "amount"


class Backtest(_Section):
    """Choose the test dates; without them, the last `folds` dates whose outcome is fully observed."""

    dates: tuple[date, ...] | None = None
    folds: Annotated[int, Field(ge=1, le=24)] = 3


class Tracking(_Section):
    """Say where MLflow keeps runs and models, and under which experiment (the project's name where not set)."""

    uri: str = "sqlite:///mlflow.db"
    experiment: str | None = None


class Project(_Section):
    """Hold one project file, checked; `folder` is where relative paths start."""

    version: Literal[1]
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    language: Literal["zh", "en"] = "en"
    timezone: str = "UTC"
    currency: str | None = None
    data: Data
    features: Features = Features()
    outcome: Outcome = Outcome()
    panel: Panel = Panel()
    tiers: Tiers = Tiers()
    churn: Churn = Churn()
    value: Value = Value()
    backtest: Backtest = Backtest()
    tracking: Tracking = Tracking()
    seed: int = 7
    folder: Path = Path()


def load_project(path: str | Path) -> Project:
    """Read and check a project file."""
    raise NotImplementedError
