"""The monitor of a model on a small shop: sound days, planted faults, matured scores, and the command line."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml

from commands import Run
from conftest import Once
from tiermodel.bundle.bundle import Bundle, load_bundle, save_bundle
from tiermodel.config.project import Project
from tiermodel.errors import DataError
from tiermodel.monitoring.matured import kept_tables
from tiermodel.monitoring.monitor import monitor
from tiermodel.predict import score
from worlds import TrainedWorld, small_project

LEARNED, NOW = date(2023, 9, 1), date(2023, 12, 20)
GRADINGS = (date(2023, 8, 1), date(2023, 9, 1), date(2023, 10, 1))


class Watched(NamedTuple):
    """Give a project, a bundle that says it was trained in September, and a folder with scores kept since."""

    project: Project
    bundle: Bundle
    folder: Path


@pytest.fixture(scope="module")
def watched(trained: TrainedWorld, once: Once) -> Watched:
    folder = once("watched", lambda folder: _made(trained, folder))
    return Watched(trained.project, load_bundle(folder / "bundle"), folder)


def _made(trained: TrainedWorld, folder: Path) -> Path:
    bundle = load_bundle(trained.bundle)
    save_bundle(replace(bundle, facts={**bundle.facts, "as_of": str(LEARNED)}), folder / "bundle")
    (folder / "scores").mkdir()
    for day in GRADINGS:
        score(trained.project, bundle, day, folder / "scores" / f"{day}.parquet", ledger=folder / "ledger")
    return folder


def spoilt(watched: Watched, path: Path, change: str) -> Project:
    """Write the shop's rows with a fault since October, and return the project that reads them."""
    rows = pd.read_parquet(str(watched.project.data.transactions.path))
    late = rows["day"] >= pd.Timestamp(2023, 10, 1)
    if change == "amount stuck":
        rows.loc[late, "amount"] = 7.0
    elif change == "a third without a customer":
        rows.loc[late & (np.random.default_rng(4).random(len(rows)) < 0.3), "customer"] = None
    elif change == "customers leave":
        leaving = rows["customer"].isin(rows["customer"].unique()[::2])
        rows = rows[~(late & leaving)]
    rows.to_parquet(path, index=False)
    return small_project(path)


def test_sound_days_need_nothing_and_the_same_run_gives_the_same_bytes(watched: Watched) -> None:
    kept = watched.folder / "scores"
    runs = [
        monitor(watched.project, watched.bundle, NOW, scores=kept, ledger=watched.folder / "ledger") for _ in range(2)
    ]
    assert [alarm.to_text("en") for alarm in runs[0].alarms] == []
    assert (runs[0].verdict, runs[0].advice.kind) == ("ok", "nothing")
    assert runs[0].to_json() == runs[1].to_json()
    matured = runs[0].figures["matured"]
    assert [row["as_of"] for row in matured] == [str(day) for day in GRADINGS]
    assert runs[0].figures["tiers"]["gradings"] == [str(day) for day in GRADINGS]


def test_what_follows_the_date_changes_nothing(watched: Watched, tmp_path: Path) -> None:
    whole = monitor(watched.project, watched.bundle, NOW, scores=watched.folder / "scores")
    rows = pd.read_parquet(str(watched.project.data.transactions.path))
    rows[rows["day"] < pd.Timestamp(NOW)].to_parquet(tmp_path / "t.parquet", index=False)
    cut = monitor(small_project(tmp_path / "t.parquet"), watched.bundle, NOW, scores=watched.folder / "scores")
    assert cut.to_json() == whole.to_json()


def test_matured_figures_equal_sums_by_hand(watched: Watched) -> None:
    done = monitor(watched.project, watched.bundle, NOW, scores=watched.folder / "scores")
    row, day = done.figures["matured"][0], GRADINGS[0]
    scores = pd.read_parquet(watched.folder / "scores" / f"{day}.parquet")
    rows = pd.read_parquet(str(watched.project.data.transactions.path))
    window = rows[(rows["day"] >= pd.Timestamp(day)) & (rows["day"] < pd.Timestamp(day) + pd.Timedelta(days=60))]
    bought = set(window["customer"][window["amount"] >= 0])
    known = scores[scores["churn_risk"].notna()]
    churned = ~known["customer_id"].isin(bought).to_numpy()
    p = known["churn_risk"].to_numpy()
    assert row["rate"] == pytest.approx(churned.mean(), abs=1e-6)
    assert row["log_loss"] == pytest.approx(-np.log(np.where(churned, p, 1 - p)).mean(), abs=1e-5)
    value = scores["customer_id"].map(window.groupby("customer")["amount"].sum()).fillna(0.0)
    held = (scores["expected_value_low"] - 1e-4 <= value) & (value <= scores["expected_value_high"] + 1e-4)
    assert row["interval_coverage"] == pytest.approx(held[scores["expected_value"].notna()].mean(), abs=1e-6)


def test_a_stuck_column_is_named_and_comes_first(watched: Watched, tmp_path: Path) -> None:
    done = monitor(spoilt(watched, tmp_path / "t.parquet", "amount stuck"), watched.bundle, date(2023, 11, 1))
    assert done.alarms[0].kind == "stuck"
    assert done.alarms[0].subject == "data.transactions.columns.amount"
    assert done.alarms[0].since == date(2023, 10, 1)
    assert (done.verdict, done.advice.kind, done.advice.subject) == ("act", "column", done.alarms[0].subject)


def test_rows_in_quarantine_are_named_with_their_share(watched: Watched, tmp_path: Path) -> None:
    project = spoilt(watched, tmp_path / "t.parquet", "a third without a customer")
    done = monitor(project, watched.bundle, date(2023, 11, 10))
    [found] = [alarm for alarm in done.alarms if alarm.kind == "column_bad"]
    assert found.subject == "data.transactions"
    assert found.figures["share"] == pytest.approx(0.3, abs=0.05)
    assert done.advice.kind == "column"


def test_churn_that_rose_is_found_once_its_labels_are_known(watched: Watched, tmp_path: Path) -> None:
    project = spoilt(watched, tmp_path / "t.parquet", "customers leave")
    ripe = monitor(project, watched.bundle, date(2023, 11, 30), scores=watched.folder / "scores")
    assert "level_churn" in {alarm.kind for alarm in ripe.alarms}
    assert ripe.figures["matured"][-1]["as_of"] == str(GRADINGS[-1])
    early = monitor(project, watched.bundle, date(2023, 11, 29), scores=watched.folder / "scores")
    assert early.figures["matured"][-1]["as_of"] == str(GRADINGS[-2])


def test_a_folder_without_scores_is_refused_with_a_remedy(tmp_path: Path) -> None:
    pq.write_table(pq.read_table(_table(tmp_path)), tmp_path / "other.parquet")
    with pytest.raises(DataError, match="give the folder that keeps the files of `tiermodel score --out`"):
        kept_tables(tmp_path, NOW)


def _table(folder: Path) -> Path:
    pd.DataFrame({"a": [1]}).to_parquet(folder / "a.parquet")
    return folder / "a.parquet"


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_command_says_what_to_do_and_exits_with_9(
    watched: Watched, tmp_path: Path, cli: Run, language: str
) -> None:
    project = spoilt(watched, tmp_path / "t.parquet", "amount stuck")
    settings = {**project.model_dump(mode="json", exclude_none=True), "language": language}
    settings.pop("folder", None)
    file = tmp_path / "project.yaml"
    file.write_text(yaml.safe_dump(settings, allow_unicode=True), encoding="utf-8")
    model = str(watched.folder / "bundle")
    out = tmp_path / "m.json"
    done = cli("monitor", str(file), "--model", model, "--as-of", "2023-11-01", "--out", str(out))
    assert done.code == 9, done.err
    told = json.loads(out.read_text(encoding="utf-8"))
    assert told["verdict"] == "act"
    assert told["alarms"][0]["text"] in done.out
    page = tmp_path / "report.html"
    assert cli("report", str(out), "--out", str(page), "--language", language).code == 0
    assert told["advice"]["text"] in page.read_text(encoding="utf-8")
    assert ("停在同一个值" if language == "zh" else "is stuck at 7") in done.out
    if language == "zh":
        return
    sound = cli("monitor", str(file), "--model", model, "--as-of", str(LEARNED + timedelta(1)), "--json")
    assert sound.code == 0, sound.out
    assert json.loads(sound.out)["advice"]["kind"] == "nothing"
