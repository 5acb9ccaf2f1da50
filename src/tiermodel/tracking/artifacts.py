"""The evaluation of a trained model and its learners: out-of-time predictions without ids, metrics, figures."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd

from tiermodel.arrays import Floats
from tiermodel.bundle.bundle import Bundle
from tiermodel.config.project import Project
from tiermodel.evaluation.baselines import BASELINES, OURS
from tiermodel.evaluation.metrics import ece_null_band
from tiermodel.features.outcome import churn_question
from tiermodel.models import churn, value
from tiermodel.reporting.figures import FigureStyle, concentration, save_png
from tiermodel.reporting.figures_model import gains, importance, input_names, reliability, residuals
from tiermodel.training.facts import metrics_for
from tiermodel.training.later_tiers import LEVELS

__all__ = ["EVALUATION", "MEMBERS", "LearnerMetrics", "draw_evaluation", "evaluation_table", "learner_metrics"]


EVALUATION = ("target", "question", "as_of", "customers", "key", "actual", "predicted")
"""The first columns of an evaluation table.

`question` is the definition of the label, `as_of` the snapshot date, `customers` a hash of the ids of all customers
predicted for that date, `key` the number of the customer from 0. The columns `BASELINES`, `MEMBERS` and `LEVELS`
follow, except in the tables of older versions.
"""

MEMBERS = tuple(dict.fromkeys((*churn.MEMBERS, *value.MEMBERS)))
"""The columns with the predictions of the single members of the churn blend and the value blend."""

_LEARNERS = {
    "predicted": (OURS, "served"),
    **{name: (name.removeprefix("member_"), "member") for name in MEMBERS},
    **{name: (name, "baseline") for name in BASELINES},
}


@dataclass(frozen=True)
class LearnerMetrics:
    """The metrics of one learner on one later snapshot date; `role` is served, member or baseline."""

    target: str
    learner: str
    role: str
    day: date
    metrics: dict[str, float]


def evaluation_table(project: Project, out_of_fold: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return the out-of-time predictions of all targets, sorted by date and customer, without customer ids.

    The columns are `EVALUATION`, `BASELINES`, `MEMBERS` and `LEVELS`, missing where a target has no such prediction.
    """
    window = f"the {project.outcome.horizon_days} days that follow a gap of {project.outcome.gap_days} days"
    questions = {
        "churn": churn_question(project.churn, project.outcome),
        "value": f"{project.value.measure} in {window}",
        "tier": f"tier after {window}",
        "upgrade": f"in a higher tier after {window}, and {project.upgrade.stay_days} days later",
        "prospects": f"first purchase in {window}",
    }
    filled = {
        target: frame.sort_values(["as_of", "customer_id"]) for target, frame in out_of_fold.items() if len(frame)
    }
    ids = sorted(set().union(*(frame["customer_id"] for frame in filled.values())))
    numbers = {customer: number for number, customer in enumerate(ids)}
    more = [*BASELINES, *MEMBERS]
    empty = pd.DataFrame({name: [] for name in (*EVALUATION, *more, *LEVELS)})
    parts = [
        pd.DataFrame({
            "target": target,
            "question": questions[target],
            "as_of": frame["as_of"].dt.strftime("%Y-%m-%d"),
            "customers": frame.groupby("as_of")["customer_id"].transform(_hash_of_all),
            "key": frame["customer_id"].map(numbers).astype(np.int64),
            "actual": frame["actual"].astype(np.float64),
            "predicted": frame["predicted"].astype(np.float64),
            **frame.reindex(columns=more).astype(np.float64),
            **frame.reindex(columns=list(LEVELS)).astype({name: np.float64 for name in LEVELS if name != "tier_code"}),
        })
        for target, frame in filled.items()
    ]  # fmt: skip
    return pd.concat(parts, ignore_index=True) if parts else empty


def _hash_of_all(ids: pd.Series) -> str:
    return hashlib.sha256("\n".join(map(str, ids)).encode()).hexdigest()


def learner_metrics(out_of_fold: Mapping[str, pd.DataFrame]) -> Iterator[LearnerMetrics]:
    """Yield the metrics of every learner on every date of the out-of-time predictions, which are given by target."""
    for target, frame in out_of_fold.items():
        for day, rows in frame.groupby("as_of"):
            for column, (learner, role) in _LEARNERS.items():
                if column in rows and rows[column].notna().all():
                    found = metrics_for(target, rows["actual"].to_numpy(), rows[column].to_numpy())
                    yield LearnerMetrics(target, learner, role, pd.Timestamp(str(day)).date(), found)


def draw_evaluation(project: Project, bundle: Bundle, out_of_fold: Mapping[str, pd.DataFrame], folder: Path) -> None:
    """Write the figures of the out-of-time predictions, and `importance.png` of the bundle's inputs.

    `calibration.png` and `residuals.png` have one panel a date, `gains.png` and `concentration.png` show the last date.
    A figure without predictions to draw is left out.
    """
    style, currency = FigureStyle(project.language), project.currency or ""
    if risks := _by_day(out_of_fold["churn"]):
        _draw_risks(style, project.name, risks, folder)
    if amounts := _by_day(out_of_fold["value"]):
        _draw_amounts(style, currency, amounts, folder)
    rows = bundle.facts["importance"]
    if any(rows.values()):
        names = input_names(style, bundle.features)
        save_png(importance(style, rows, names, currency), folder / "importance.png")


def _draw_risks(style: FigureStyle, name: str, risks: Mapping[str, tuple[Floats, Floats]], folder: Path) -> None:
    panels = {day: (actual, p, ece_null_band(p)) for day, (actual, p) in risks.items()}
    save_png(reliability(style, panels), folder / "calibration.png")
    if churned := [day for day, (actual, _) in risks.items() if actual.any()]:
        actual, predicted = risks[churned[-1]]
        save_png(gains(style, actual, {f"{name} {churned[-1]}": predicted}), folder / "gains.png")


def _draw_amounts(
    style: FigureStyle, currency: str, amounts: Mapping[str, tuple[Floats, Floats]], folder: Path
) -> None:
    save_png(residuals(style, amounts, currency), folder / "residuals.png")
    day, (actual, predicted) = list(amounts.items())[-1]
    curves = {style.words["curve_expected"]: predicted, style.words["curve_followed"].format(date=day): actual}
    if all(curve.sum() > 0 for curve in curves.values()):
        save_png(concentration(style, curves), folder / "concentration.png")


def _by_day(frame: pd.DataFrame) -> dict[str, tuple[Floats, Floats]]:
    """Return (actual, predicted) by date, earliest first."""
    return {
        str(pd.Timestamp(str(day)).date()): (rows["actual"].to_numpy(), rows["predicted"].to_numpy())
        for day, rows in frame.groupby("as_of")
    }
