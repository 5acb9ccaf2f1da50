"""Backtests of short logs: what cannot be judged is left out with a note, and what cannot be trained is refused."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from commands import Run
from tiermodel.backtesting.backtest import backtest
from tiermodel.config.project import Project
from tiermodel.datasets.synthetic import make_world
from tiermodel.engines.dispatch import open_history
from tiermodel.errors import DataError
from worlds import bare_backtests, quick_fits

HORIZON = 28
COLUMNS = {name: name for name in ("customer_id", "time", "order_id", "amount")}


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    """Give ten months of a company that is older than its log."""
    table = make_world(seed=3, customers=300, days=700).tables["transactions"].to_pandas()
    table["time"] = pd.to_datetime(table["time"]).dt.floor("D")
    table = table[table["time"] >= table["time"].min() + pd.Timedelta(days=400)]
    return table[list(COLUMNS)].sort_values(["customer_id", "time"]).reset_index(drop=True)


def project(path: str = "rows.parquet", folds: int = 3) -> Project:
    data = {"transactions": {"path": path, "columns": COLUMNS}}
    outcome, played = {"horizon_days": HORIZON}, {"folds": folds}
    return Project.model_validate({"version": 1, "name": "short", "data": data, "outcome": outcome, "backtest": played})


def first_days(rows: pd.DataFrame, days: int) -> pd.DataFrame:
    return rows[rows["time"] < rows["time"].min() + pd.Timedelta(days=days)]


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("days", [2 * HORIZON + HORIZON, 2 * HORIZON + 60, 120, 150, 2 * HORIZON + 120])
def test_every_length_of_log_is_judged_or_noted(rows: pd.DataFrame, days: int) -> None:
    settings = project(folds=1)
    with quick_fits(), bare_backtests():
        done = backtest(settings, history=open_history(settings, transactions=first_days(rows, days)))
    (day,) = done.results["dates"]
    assert {row["model"] for row in done.results["churn"]} >= {"tiermodel", "mbg_nbd"}
    noted = [note for note in done.results["notes"] if note.startswith(f"{day}: ") and "higher tier" in note]
    assert bool(noted) != bool(done.results["upgrade"])
    assert np.isfinite(done.predictions[["churn_tiermodel", "value_tiermodel"]].to_numpy()).all()


@pytest.mark.usefixtures("compiled")
def test_a_shorter_log_is_refused_with_the_days_that_it_needs(rows: pd.DataFrame) -> None:
    settings, few = project(), first_days(rows, 3 * HORIZON - 1)
    with pytest.raises(DataError, match=f"a backtest needs {3 * HORIZON} days and more of history"):
        backtest(settings, history=open_history(settings, transactions=few))


@pytest.mark.usefixtures("compiled")
def test_a_date_before_which_nothing_can_be_trained_is_noted(rows: pd.DataFrame, tmp_path: Path, cli: Run) -> None:
    """Only six customers buy in the first month, so that the first test date has too little to learn from."""
    kept = first_days(rows, 150)
    opened = kept["time"] >= kept["time"].min() + timedelta(60)
    few = kept["customer_id"].isin(kept["customer_id"].unique()[:6])
    kept[opened | few].to_parquet(tmp_path / "rows.parquet", index=False)
    (tmp_path / "p.yaml").write_text(json.dumps(project(folds=3).model_dump(mode="json", exclude={"folder"})))
    with quick_fits(), bare_backtests():
        ran = cli("backtest", "p.yaml", "--out", "b.json")
    assert ran.code == 0
    found = json.loads((tmp_path / "b.json").read_text())
    left = [note for note in found["notes"] if "left out" in note]
    assert left
    assert all(note.split(":")[0] not in found["dates"] for note in left)
    assert {row["as_of"] for row in found["churn"]} == set(found["dates"])
    assert all(note in ran.out for note in found["notes"])
    early = open_history(project(folds=1), transactions=first_days(kept[opened | few], 85))
    with pytest.raises(DataError, match="at least 20 that did and 20 that did not are needed"):
        backtest(project(folds=1), history=early)  # its only date


@pytest.mark.usefixtures("compiled")
def test_a_date_at_which_nobody_is_at_risk_of_churn_is_noted(rows: pd.DataFrame) -> None:
    """The company was closed for twelve days before the test date, and at risk is who bought in the last ten."""
    kept, day = first_days(rows, 180), rows["time"].min() + pd.Timedelta(days=152)
    kept = kept[(kept["time"] < day - pd.Timedelta(days=12)) | (kept["time"] >= day)]
    settings = project().model_dump(mode="json", exclude_none=True, exclude={"folder"})
    settings |= {"churn": {"active_days": 10}, "backtest": {"dates": [str(day.date())]}}
    quiet = Project.model_validate(settings)
    with quick_fits():
        done = backtest(quiet, history=open_history(quiet, transactions=kept)).results
    assert f"{day.date()}: nobody is at risk of churn: churn is not judged" in done["notes"]
    assert done["churn"] == []
    assert {row["model"] for row in done["value"]} >= {"tiermodel", "naive_rate"}
    assert done["learning_curve"][-1]["auc"] is None
