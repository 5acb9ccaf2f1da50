"""Keep how a model did out of time: a table without customer ids, figures by date, two pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd

from tiermodel.baselines import BASELINES
from tiermodel.config import Project
from tiermodel.features.outcome import churn_question
from tiermodel.figures import Pen, save_png
from tiermodel.figures_model import gains, reliability
from tiermodel.models.metrics import churn_metrics, ece_null_band, quadratic_weighted_kappa, value_metrics

__all__ = ["EVALUATION", "draw_evaluation", "evaluation_table", "metrics_by_date"]

EVALUATION = ("target", "question", "as_of", "customers", "key", "actual", "predicted")
"""The first columns of an evaluation: `key` numbers the customers, `customers` hashes who was judged on that date.

The columns `BASELINES` follow; evaluations kept by older versions end before.
"""


def evaluation_table(project: Project, later: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Give out-of-time predictions by target, sorted by date and customer, without ids.

    The columns are `EVALUATION`, then `BASELINES`, NaN where a frame of `later` does not have them.
    """
    span = f"the {project.outcome.horizon_days} days that follow a gap of {project.outcome.gap_days} days"
    questions = {
        "churn": churn_question(project),
        "value": f"{project.value.measure} in {span}",
        "tier": f"tier after {span}",
        "upgrade": f"in a higher tier after {span}, and {project.upgrade.stay_days} days later",
        "prospects": f"first purchase in {span}",
    }
    filled = {target: frame.sort_values(["as_of", "customer_id"]) for target, frame in later.items() if len(frame)}
    ids = sorted(set().union(*(frame["customer_id"] for frame in filled.values())))
    numbers = {customer: number for number, customer in enumerate(ids)}
    empty = pd.DataFrame({name: [] for name in (*EVALUATION, *BASELINES)})
    parts = [
        pd.DataFrame({
            "target": target,
            "question": questions[target],
            "as_of": frame["as_of"].dt.strftime("%Y-%m-%d"),
            "customers": frame.groupby("as_of")["customer_id"].transform(_hash_of_all),
            "key": frame["customer_id"].map(numbers).astype(np.int64),
            "actual": frame["actual"].astype(np.float64),
            "predicted": frame["predicted"].astype(np.float64),
            **frame.reindex(columns=list(BASELINES)).astype(np.float64),
        })
        for target, frame in filled.items()
    ]  # fmt: skip
    return pd.concat(parts, ignore_index=True) if parts else empty


def _hash_of_all(ids: pd.Series) -> str:
    return hashlib.sha256("\n".join(map(str, ids)).encode()).hexdigest()


def metrics_by_date(later: Mapping[str, pd.DataFrame]) -> Iterator[tuple[date, dict[str, float]]]:
    """Give each date's metrics, named `TARGET/METRIC`, of out-of-time predictions by target."""
    for target, frame in later.items():
        for day in frame["as_of"].unique():
            rows = frame[frame["as_of"] == day]
            yield (
                pd.Timestamp(day).date(),
                {f"{target}/{name}": value for name, value in _metrics(target, rows).items()},
            )


def _metrics(target: str, rows: pd.DataFrame) -> dict[str, float]:
    actual, predicted = rows["actual"].to_numpy(), rows["predicted"].to_numpy()
    if target in {"churn", "upgrade", "prospects"}:
        return churn_metrics(actual, predicted)
    if target == "value":
        return value_metrics(actual, predicted)
    levels = int(max(actual.max(), predicted.max())) + 1
    return {"n": len(rows), "qwk": quadratic_weighted_kappa(actual, predicted, levels)}


def draw_evaluation(project: Project, churn: pd.DataFrame, folder: Path) -> None:
    """Write `calibration.png`, a panel a date, and `gains.png` of the last date on which customers left."""
    pen, days = Pen(project.language), {}
    for day in sorted(churn["as_of"].unique()):
        rows = churn[churn["as_of"] == day]
        actual, predicted = rows["actual"].to_numpy(), rows["predicted"].to_numpy()
        days[str(pd.Timestamp(day).date())] = (actual, predicted, ece_null_band(predicted))
    if days:
        save_png(reliability(pen, days), folder / "calibration.png")
    if left := [day for day, (actual, *_) in days.items() if actual.any()]:
        actual, predicted, _ = days[left[-1]]
        save_png(gains(pen, actual, {f"{project.name} {left[-1]}": predicted}), folder / "gains.png")
