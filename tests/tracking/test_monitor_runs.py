"""Runs of the monitor in the tracking store: one for each model, with a step for each date."""

from __future__ import annotations

import shutil
from datetime import date
from pathlib import Path

from histories import make_project
from tiermodel.monitoring.alarms import Advice
from tiermodel.monitoring.monitor import MonitorResult
from tiermodel.tracking import registry
from tiermodel.tracking.connection import opened_store


def test_the_metrics_of_one_run_draw_the_history(empty_store: Path, tmp_path: Path) -> None:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    base = make_project()
    project = base.model_copy(update={"tracking": base.tracking.model_copy(update={"uri": uri})})
    estimate = {"name": "log_loss", "value": 0.3, "low": 0.2, "high": 0.4}
    figures = {
        "inputs": {"largest": [{"name": "missing:gap_days_mean", "shift": 0.1}]}, "estimates": [estimate],
        "matured": [], "freshness": [], "model": {"age_days": 3},
    }  # fmt: skip
    for day in (date(2019, 1, 1), date(2019, 1, 2), date(2019, 1, 2)):
        result = MonitorResult(project.name, "shop-abc", day, (), Advice("nothing"), figures, "en")
        registry.log_monitoring(project, result)
    with opened_store(uri) as client:
        experiment = client.get_experiment_by_name(project.tracking.experiment or project.name)
        [run] = client.search_runs([experiment.experiment_id])
        history = client.get_metric_history(run.info.run_id, "estimated/log_loss")
    assert [(one.step, one.value) for one in history] == [(17897, 0.3), (17898, 0.3)]
    assert run.data.tags["verdict"] == "ok"
    assert run.data.metrics["drift/missing.gap_days_mean"] == 0.1
