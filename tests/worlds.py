"""Make a small shop's transactions: seeded, with habits, customers who leave, returns, ids easy to find again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from tiermodel.bundle.bundle import Bundle
from tiermodel.config.project import Project
from tiermodel.evaluation.bootstrap import paired_bootstrap
from tiermodel.tiers.fitted_scheme import FittedScheme
from tiermodel.tiers.schemes.load import parse_scheme, scheme_data
from tiermodel.training.train import Trained

__all__ = [
    "ID_MARK",
    "LAST_DAY",
    "TrainedWorld",
    "audited_project",
    "bare_backtests",
    "bare_runs",
    "quick_fits",
    "small_project",
    "small_world",
    "spoiled",
    "with_capacity",
]


ID_MARK = "ID-ZQX-"
FIRST_DAY, LAST_DAY = date(2022, 1, 1), date(2023, 12, 31)
_DAYS = (LAST_DAY - FIRST_DAY).days + 1


_QUICK: dict[str, dict[str, object]] = {
    "models.churn": {"ROUNDS": (5, 10, 15)},
    "models.value": {"ROUNDS": (5, 10, 15)},
    "models.future_tier": {"ROUNDS": 20},
    "evaluation.slices": {"MOST_DRAWS": 50},
    "models.learners.ordinal": {"ROUNDS": 20},
    "models.learners.neural": {"EPOCHS": 10},
    "segments.selection": {"COUNTS": (3, 4), "DRAWS": 2, "STARTS": 3},
    "training.facts": {"DRAWN_ROWS": 0},  # as few draws as there may be
    "training.tune_search": {"paired_bootstrap": partial(paired_bootstrap, draws=50)},
    "backtesting.backtest": {"DRAWN_ROWS": 0},
    "backtesting.tier_value": {"DRAWS_AT_MOST": 50},
    "tracking.comparison": {"DRAWS_AT_MOST": 200},
}


class TrainedWorld(NamedTuple):
    """A small world's project, what training it gave, and the folder of its bundle."""

    project: Project
    trained: Trained
    bundle: Path


def small_world(path: Path, customers: int = 400, seed: int = 7) -> Path:
    """Write two years of transactions, sorted by customer and day, as one Parquet file."""
    draw = np.random.default_rng(seed)
    found = [_history(draw, f"{ID_MARK}{number:06d}") for number in range(customers)]
    columns = {name: np.concatenate([rows[name] for rows in found]) for name in found[0]}
    day = pd.Timestamp(FIRST_DAY) + pd.to_timedelta(columns["day"], unit="D")
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame({**columns, "day": day}).to_parquet(path, index=False)
    return path


def _history(draw: np.random.Generator, customer: str) -> dict[str, NDArray[Any]]:
    """Draw one customer: a start, a rhythm, a day of leaving, a usual amount; one order in thirty is returned."""
    start, gap, usual = draw.integers(0, _DAYS * 2 // 3), draw.gamma(2.0, 12.0) + 2, draw.lognormal(3.0, 0.7)
    left = start + draw.exponential(400.0)
    days = start + np.cumsum(np.r_[0, draw.gamma(2.0, gap / 2, size=200)]).astype(np.int64)
    days = days[days < min(left, _DAYS)]
    amount = np.round(usual * draw.lognormal(0.0, 0.4, len(days)), 2)
    product = draw.integers(0, 40, len(days))
    back = np.flatnonzero((draw.random(len(days)) < 1 / 30) & (days < _DAYS - 1))  # returned the day after
    order = np.r_[np.arange(len(days)), back]
    return {
        "customer": np.full(len(order), customer, dtype=object),
        "day": np.r_[days, days[back] + 1],
        "order": np.array([f"{customer}/{n}" for n in order], dtype=object),
        "amount": np.r_[amount, -amount[back]],
        "product": product[order].astype(str).astype(object),
    }


def small_project(transactions: Path, **sections: Any) -> Project:
    """Make a small world's project, quick to train: an outcome of 60 days, three snapshots; sections as in a file."""
    columns = {
        "customer_id": "customer",
        "time": "day",
        "order_id": "order",
        "amount": "amount",
        "product_id": "product",
    }
    base = {
        "version": 1,
        "name": "small-world",
        "data": {"transactions": {"path": str(transactions), "columns": columns}},
        "features": {"windows_days": [60, 365]},
        "outcome": {"horizon_days": 60},
        "panel": {"every_days": 60, "snapshots": 3},
        "tiers": {"scheme": "pyramid"},
    }
    return Project.model_validate({**base, **sections})


def audited_project(transactions: Path, people: pd.DataFrame, **features: Any) -> Project:
    """Make a small world's project that knows its people: `customer` and their attributes, all to be audited."""
    people.to_parquet(transactions.with_name("people.parquet"), index=False)
    names = [name for name in people.columns if name != "customer"]
    plain = small_project(transactions)
    data = plain.data.model_dump(mode="json", exclude_none=True) | {
        "customers": {
            "path": str(transactions.with_name("people.parquet")),
            "columns": {"customer_id": "customer"},
            "attributes": {name: name for name in names},
        }
    }
    return small_project(transactions, data=data, features={"windows_days": [60, 365], "audited": names, **features})


@contextmanager
def quick_fits(*in_full: str) -> Iterator[None]:
    """Grow few trees and draw few resamples, where what is tested does not depend on how good the models are.

    Modules named `in_full` are left as they are.
    """
    with pytest.MonkeyPatch.context() as patch:
        for module, fewer in _QUICK.items():
            for name, value in fewer.items() if module not in in_full else ():
                patch.setattr(import_module(f"tiermodel.{module}"), name, value)
        yield


@contextmanager
def bare_backtests() -> Iterator[None]:
    """Backtest without the learning curve, lifetime value and other schemes, where nobody looks at them."""
    with pytest.MonkeyPatch.context() as patch:
        module = import_module("tiermodel.backtesting.backtest")
        patch.setattr(module, "learning_curve", lambda *_: [])
        patch.setattr(module, "_lifetime", lambda *_: pd.DataFrame())
        patch.setattr(import_module("tiermodel.backtesting.tiers"), "preset_names", list)
        yield


@contextmanager
def bare_runs() -> Iterator[None]:
    """Log neither pictures, the page nor the runs of the learners, which take seconds, where nobody looks at them."""
    with pytest.MonkeyPatch.context() as patch:
        registry = import_module("tiermodel.tracking.registry")
        patch.setattr(registry, "draw_evaluation", lambda *_: None)
        patch.setattr(registry, "_log_page", lambda *_: None)
        patch.setattr(registry, "learner_metrics", lambda _: [])
        yield


def spoiled(later: dict[str, pd.DataFrame], target: str, noise: float = 1.5) -> dict[str, pd.DataFrame]:
    """Spoil the out-of-time predictions of one target, churn on the log-odds scale, others by factors."""
    frame, draw = later[target], np.random.default_rng(3)
    predicted = frame["predicted"].to_numpy()
    if target == "churn":
        odds = np.log(predicted / (1 - predicted)) + draw.normal(0, noise, len(frame))
        return {**later, target: frame.assign(predicted=1 / (1 + np.exp(-odds)))}
    return {**later, target: frame.assign(predicted=predicted * draw.lognormal(0, 3 * noise, len(frame)))}


def with_capacity(bundle: Bundle, places: dict[str, int], **changes: Any) -> Bundle:
    """Give a trained pyramid other capacities, without a new fit."""
    data = scheme_data(bundle.scheme.scheme)
    levels = [{**level, "capacity": places.get(level["code"])} for level in data["levels"]]
    scheme = parse_scheme({**data, "levels": levels}, "test", (60, 365)).model_copy(update=changes)
    return replace(bundle, scheme=FittedScheme(scheme, bundle.scheme.state))
