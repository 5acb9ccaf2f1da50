"""The learning curve: each length of history is judged as training on it alone would be."""

from __future__ import annotations

from datetime import date, timedelta

import pandas as pd
import pytest

from tiermodel.backtesting.learning_curve import learning_curve
from tiermodel.config.project import Project
from tiermodel.evaluation.metrics import churn_metrics, value_metrics
from tiermodel.features.frame import has_bought, rows_at
from tiermodel.features.panel import build_panel
from tiermodel.tables.history import read_history
from tiermodel.training.dates import panel_dates, training_dates
from tiermodel.training.train import train
from worlds import TrainedWorld

DAY = date(2023, 9, 1)


def with_snapshots(project: Project, count: int) -> Project:
    return project.model_copy(update={"panel": project.panel.model_copy(update={"snapshots": count})})


@pytest.mark.usefixtures("quick")
def test_each_length_is_judged_as_training_on_its_snapshots_alone_would_be(trained: TrainedWorld) -> None:
    """A window of 90 days, looked at every 30: some are under way, and some between snapshots tell the level."""
    outcome = trained.project.outcome.model_copy(update={"horizon_days": 90})
    every = trained.project.panel.model_copy(update={"every_days": 30})
    project = with_snapshots(trained.project.model_copy(update={"outcome": outcome, "panel": every}), 4)
    history = read_history(project)
    dates = training_dates(project, DAY, history.first_day)
    others = {DAY - timedelta(50), DAY - timedelta(150), DAY + timedelta(30)}  # as test dates of a backtest need
    needed = sorted(panel_dates(project, DAY, dates) | others)
    panel = build_panel(project, needed, with_outcome=True, history=history)
    notes: list[str] = []
    alone = {count: train(with_snapshots(project, count), DAY, history=history).bundle for count in (1, 2, 4)}

    curve = list(learning_curve(project, panel, DAY, dates, alone[4], notes))

    assert [row["snapshots"] for row in curve] == [1, 2, 4]
    assert notes == []
    now = rows_at(panel, [DAY])
    buyers = now[has_bought(now)]
    for row in curve:
        bundle = alone[row["snapshots"]]
        x = bundle.inputs.matrix(buyers)
        risk = churn_metrics(buyers["outcome_churned"].to_numpy(), bundle.churn.predict(x))
        mean, median, _, _ = bundle.value.outlook(x)
        worth = value_metrics(buyers["outcome_value"].to_numpy(), mean, median)
        assert [row[name] for name in ("log_loss", "auc", "ece")] == [risk[name] for name in ("log_loss", "auc", "ece")]
        assert [row[name] for name in ("gini", "mae")] == [worth[name] for name in ("gini", "mae")]
        assert row["first_snapshot"] == str(dates[-row["snapshots"]])
        assert row["rows"] == len(rows_at(panel, dates[-row["snapshots"] :]))
    assert len({row["log_loss"] for row in curve}) == 3


@pytest.mark.usefixtures("quick")
def test_a_length_too_short_to_learn_from_is_noted(trained: TrainedWorld) -> None:
    project = trained.project
    history = read_history(project)
    dates = training_dates(project, DAY, history.first_day)
    panel = build_panel(project, sorted(panel_dates(project, DAY, dates)), with_outcome=True, history=history)
    panel.loc[panel["as_of"] == pd.Timestamp(dates[-1]), "outcome_churned"] = 1.0
    notes: list[str] = []
    (whole,) = learning_curve(project, panel, DAY, dates, trained.trained.bundle, notes)
    assert whole["snapshots"] == len(dates) == 3
    (note,) = notes
    assert note.startswith(f"{DAY}, 1 snapshots: churn: only ")
