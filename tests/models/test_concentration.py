"""One customer who outweighs all others does not move what the others are worth."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tiermodel.bundle.bundle import load_bundle, save_bundle
from tiermodel.config.project import Project
from tiermodel.evaluation.attribution import value_contributions
from tiermodel.features.panel import build_panel
from tiermodel.models.calibration.logit import intercept_for_rate
from tiermodel.models.concentration import outweighing
from tiermodel.predict import predict
from tiermodel.quality.check import check
from tiermodel.tables.history import read_history
from tiermodel.training.train import train

END = date(2024, 1, 1)


def shop(folder: Path, rows: pd.DataFrame) -> Project:
    rows.to_csv(folder / "s.csv", index=False)
    table = {"path": str(folder / "s.csv"), "columns": {"customer_id": "id", "time": "t", "amount": "amount"}}
    settings: dict[str, Any] = {"outcome": {"horizon_days": 60}, "panel": {"every_days": 60, "snapshots": 3}}
    return Project.model_validate({"version": 1, "name": "shop", "data": {"transactions": table}, **settings})


def log(whale: float) -> pd.DataFrame:
    """Return a year of 120 customers, of whom number 7 spends `whale` times what others do."""
    random = np.random.default_rng(5)
    rows = []
    for customer in range(120):
        every, mean = random.gamma(3.0, 12.0), random.gamma(4.0, 8.0)
        day = random.uniform(0, 60)
        while day < 364:
            amount = round(random.gamma(5.0, mean / 5.0) * (whale if customer == 7 else 1), 2)
            rows.append((customer, START + timedelta(int(day)), amount))
            day += random.exponential(every) + 1
    return pd.DataFrame(rows, columns=["id", "t", "amount"])


START = END - timedelta(365)


def forecast(folder: Path, whale: float) -> pd.Series:
    folder.mkdir()
    project = shop(folder, log(whale))
    history = read_history(project)
    bundle = train(project, END, history=history).bundle
    scored = predict(bundle, build_panel(project, [END], history=history))
    return scored.set_index("customer_id")["expected_value"]


@pytest.mark.usefixtures("quick")
def test_one_customer_does_not_move_the_forecast_of_the_others(tmp_path: Path) -> None:
    plain, moved = forecast(tmp_path / "plain", 1.0), forecast(tmp_path / "whale", 100_000.0)
    others = plain.index != "7"
    assert moved[others].mean() == pytest.approx(plain[others].mean(), rel=0.05)
    assert moved["7"] > 1000 * plain["7"]


@pytest.mark.usefixtures("quick")
def test_who_outweighs_the_others_is_expected_to_spend_as_before(tmp_path: Path) -> None:
    rows, weeks = log(1.0), [START + timedelta(7 * week) for week in range(52)]
    rows = pd.concat([rows[rows["id"] != 7], pd.DataFrame({"id": 7, "t": weeks, "amount": 400.0})])
    own = 400.0 * len(weeks)
    project = shop(tmp_path, rows)
    history = read_history(project)
    bundle = train(project, END, history=history).bundle
    assert np.isfinite(bundle.value.largest)
    save_bundle(bundle, tmp_path / "bundle")
    panel = build_panel(project, [END], history=history)
    first, again = (predict(one, panel).set_index("customer_id") for one in (bundle, load_bundle(tmp_path / "bundle")))
    pd.testing.assert_frame_equal(first, again)
    x, value = bundle.inputs.matrix(panel), bundle.value
    baseline, each = value_contributions(value, x)
    np.testing.assert_allclose(baseline + each.sum(axis=1), value.predict(x), rtol=1e-6, atol=1e-6)
    usual = own * project.outcome.horizon_days / 365
    whale = first.loc["7"]
    assert whale["expected_value"] == pytest.approx(usual, rel=0.5)
    assert whale["expected_value_low"] < usual < whale["expected_value_high"]


def test_the_check_names_who_holds_most(tmp_path: Path) -> None:
    (found,) = (f for f in check(shop(tmp_path, log(1_000.0))).findings if f.code == "largest_value")
    assert "customer 7 holds 60% of all purchases" in found.text()
    assert not [f for f in check(shop(tmp_path, log(1.0))).findings if f.code == "largest_value"]


def test_the_check_names_nobody_by_an_address(tmp_path: Path) -> None:
    rows = log(1_000.0)
    rows["id"] = [f"user{number}@example.com" for number in rows["id"]]
    (found,) = (f for f in check(shop(tmp_path, rows)).findings if f.code == "largest_value")
    assert "customer aaaa9@aaaaaaa.aaa holds 60% of all purchases" in found.text()


def test_who_outweighs_is_told_by_share_and_by_the_middle() -> None:
    even = np.full(100, 3.0)
    assert not outweighing(even).any()
    assert not outweighing(np.append(np.zeros(60), 1.0)).any()
    assert not outweighing(np.array([1.0] * 10 + [1e9])).any()  # so few
    assert np.flatnonzero(outweighing(np.append(even, [1e6, 1e9]))).tolist() == [100, 101]


def test_an_intercept_out_of_reach_is_the_nearest_one() -> None:
    assert intercept_for_rate(np.full(9, -13.8), 0.9) == 12.0
    assert intercept_for_rate(np.full(9, 13.8), 0.1) == -12.0


@pytest.mark.usefixtures("quick")
def test_a_log_with_a_long_pause_trains(tmp_path: Path) -> None:
    rows = log(1.0)
    paused = rows[(rows["t"] < START + timedelta(100)) | (rows["t"] > START + timedelta(270))]
    assert train(shop(tmp_path, paused), "latest").bundle.version
