"""Ask how much history the models need: train on fewer snapshots, judge on the same customers and date."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from tiermodel.bundle import Bundle
from tiermodel.config import Project
from tiermodel.errors import DataError
from tiermodel.models.ahead import Ahead
from tiermodel.models.between import cut_silence, cut_spend, missed_between
from tiermodel.models.churn import ChurnModel, fit_churn
from tiermodel.models.inputs import panel_matrix
from tiermodel.models.metrics import churn_metrics, value_metrics
from tiermodel.models.value import ValueModel, fit_value

__all__ = ["learning_curve"]


def learning_curve(
    project: Project, panel: pd.DataFrame, day: date, trained_on: Sequence[date], bundle: Bundle, notes: list[str]
) -> Iterator[dict[str, Any]]:
    """Give the figures at `day` of models that learned from the latest 1, a quarter, half and all of the snapshots.

    `bundle` was trained on all of them. A length that is too short to learn from is noted, not judged.
    """
    now = panel["as_of"] == pd.Timestamp(day)
    customers = panel[now & panel["days_since_last"].notna()].reset_index(drop=True)
    exposed = bundle.at_risk(customers)
    names, x_now = bundle.inputs.all_names, bundle.inputs.matrix(customers)
    missed_risk, missed_value = missed_between(project, panel, pd.Timestamp(day))
    between = project, panel, bundle.inputs.names
    risk = Ahead(pd.Timestamp(day), x_now[exposed], missed_risk, partial(cut_silence, *between))
    worth = Ahead(pd.Timestamp(day), x_now, missed_value, partial(cut_spend, *between))
    whole = len(trained_on)
    for count in sorted({1, whole // 4, whole // 2, whole} - {0}):
        dates = sorted(trained_on)[-count:]
        rows = panel[panel["as_of"].isin([pd.Timestamp(d) for d in dates])].reset_index(drop=True)
        churn, value = bundle.churn, bundle.value
        if count < whole:
            x = panel_matrix(rows, bundle.inputs.names, bundle.inputs.horizons)
            try:
                churn, _ = fit_churn(project, rows, x, names, risk)
                value, _ = fit_value(project, rows, x, names, worth)
            except DataError as error:
                notes.append(f"{day}, {count} snapshots: {error}")
                continue
        about = {"as_of": str(day), "snapshots": count, "first_snapshot": str(dates[0]), "rows": len(rows)}
        yield about | _figures(customers, exposed, x_now, churn, value)


def _figures(
    customers: pd.DataFrame,
    exposed: np.ndarray[Any, Any],
    x: np.ndarray[Any, Any],
    churn: ChurnModel,
    value: ValueModel,
) -> dict[str, float]:
    churned = customers["outcome_churned"].to_numpy(dtype=np.float64)[exposed]
    risk = churn_metrics(churned, churn.predict(x[exposed]))
    worth = value_metrics(customers["outcome_value"].to_numpy(), value.predict(x))
    return {name: risk[name] for name in ("log_loss", "auc", "ece")} | {name: worth[name] for name in ("gini", "mae")}
