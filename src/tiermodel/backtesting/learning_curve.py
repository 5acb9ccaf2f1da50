"""Learning curve: the same customers and date, with models trained on fewer snapshots."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from typing import Any

import numpy as np
import pandas as pd

from tiermodel.arrays import Flags, Floats
from tiermodel.bundle.bundle import Bundle
from tiermodel.config.project import Project
from tiermodel.errors import DataError
from tiermodel.evaluation.metrics import churn_metrics, value_metrics
from tiermodel.features.frame import has_bought, rows_at
from tiermodel.features.outcome import Labels
from tiermodel.models.calibration.recent import forecast_context
from tiermodel.models.churn import ChurnModel, fit_churn
from tiermodel.models.design_matrix import design_matrix_of_panel
from tiermodel.models.value import ValueModel, fit_value
from tiermodel.training.dates import panel_dates
from tiermodel.words import words

__all__ = ["learning_curve"]


def learning_curve(
    project: Project, panel: pd.DataFrame, day: date, trained_on: Sequence[date], bundle: Bundle, notes: list[str]
) -> Iterator[dict[str, Any]]:
    """Yield the metrics at `day` of models trained on the latest 1, a quarter, half and all of the snapshots.

    `bundle` was trained on all of them. Each model knows only what training on its snapshots alone would know, of
    window levels and partial windows too. A length that is too short to train on is noted in `notes` instead.
    """
    now = pd.Timestamp(day)
    customers = panel[(panel["as_of"] == now) & has_bought(panel)].reset_index(drop=True)
    exposed = bundle.at_risk(customers)
    inputs, x_now = bundle.inputs, bundle.inputs.matrix(customers)
    names, whole = inputs.all_names, len(trained_on)
    labels, learners, every = Labels.of(project), project.models, project.panel.every_days
    for count in sorted({1, whole // 4, whole // 2, whole} - {0}):
        dates = sorted(trained_on)[-count:]
        rows = rows_at(panel, dates).reset_index(drop=True)
        churn, value = bundle.churn, bundle.value
        if count < whole:
            x = design_matrix_of_panel(rows, inputs.names, inputs.horizons)
            known = rows_at(panel, panel_dates(project, day, dates))
            risk, worth = forecast_context(labels, every, known, inputs.names, now, x_now[exposed], x_now)
            try:
                churn, _ = fit_churn(rows, x, names, labels.churn, learners.churn, risk, project.seed)
                value, _ = fit_value(rows, x, names, labels.value, learners.value, worth, project.seed)
            except DataError as error:
                text = words(project.language)["note_backtest_curve"]
                notes.append(text.format(day=day, n=count, error=error))
                continue
        about = {"as_of": str(day), "snapshots": count, "first_snapshot": str(dates[0]), "rows": len(rows)}
        yield about | _figures(customers, exposed, x_now, churn, value)


def _figures(
    customers: pd.DataFrame, exposed: Flags, x: Floats, churn: ChurnModel, value: ValueModel
) -> dict[str, float | None]:
    """Return the metrics of both models; those of churn are None where nobody is at risk."""
    churned = customers["outcome_churned"].to_numpy(dtype=np.float64)[exposed]
    risk: dict[str, float] = churn_metrics(churned, churn.predict(x[exposed])) if exposed.any() else {}
    expected = value.outlook(x)
    worth = value_metrics(customers["outcome_value"].to_numpy(), expected.mean, expected.median)
    return {name: risk.get(name) for name in ("log_loss", "auc", "ece")} | {
        name: worth[name] for name in ("gini", "mae")
    }
