"""Tuning: the command line, resuming, the same trials again, nothing seen of the date that judges."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

import tiermodel.tracking.registry  # noqa: F401  it settles the environment of MLflow
from commands import Run, Started
from tiermodel.bundle.bundle import load_bundle
from tiermodel.config.learners import Models, Trees
from tiermodel.config.project import Project, load_project, project_digest
from tiermodel.errors import DataError, OutputError
from tiermodel.models import churn
from tiermodel.models.learners.boosting import fit_boosted
from tiermodel.models.learners.linear import fit_logistic, fit_ridge
from tiermodel.models.learners.monotone import EXPECTED_SIGN, monotone_constraints
from tiermodel.training.train import train
from tiermodel.training.tune import Tuned, tune
from tiermodel.training.tune_search import Found, study_file
from worlds import ID_MARK, small_project, small_world

import mlflow  # isort: skip

# MLflow's own use of SQLAlchemy, and its test of column names under pandas 3, when a test calls MLflow itself.
pytestmark = [
    pytest.mark.usefixtures("quick"),
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),
    pytest.mark.filterwarnings("ignore:Operation with range is deprecated"),
]

PANEL = {"every_days": 30, "snapshots": 5}  # with one less no date is left to test on before the one that judges
AS_OF = "2023-09-03"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_world(tmp_path_factory.mktemp("tune") / "transactions.parquet", customers=120)


@pytest.fixture
def project(world: Path, empty_store: Path, tmp_path: Path) -> Project:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return small_project(world, panel=PANEL, tracking={"uri": f"sqlite:///{tmp_path}/mlflow.db"})


def errors(tuned: Tuned) -> list[list[float]]:
    return [[trial["error"] for trial in found.trials] for found in tuned.found]


# settings


def test_settings_reach_the_learners_and_the_defaults_change_nothing(project: Project) -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(400, 3))
    y = (x[:, 0] + rng.normal(size=400) > 0).astype(float)
    plain = fit_boosted(x, y, ["a", "b", "c"], 5, 7, objective="binary")
    written_out = {"learning_rate": 0.04, "num_leaves": 8, "min_data_in_leaf": 10}
    for trees in (project.models.churn.trees, Trees(**written_out, feature_fraction=0.4, lambda_l2=10.0)):
        assert fit_boosted(x, y, ["a", "b", "c"], 5, 7, trees, objective="binary") == plain
    for name, changed in {**dict.fromkeys(written_out, 3), "learning_rate": 0.1, "lambda_l2": 0.0}.items():
        assert fit_boosted(x, y, ["a", "b", "c"], 5, 7, Trees(**{name: changed}), objective="binary") != plain
    assert fit_logistic(x, y > 0, c=0.02) == fit_logistic(x, y > 0) != fit_logistic(x, y > 0, c=1.0)
    assert fit_ridge(x, y, alpha=300.0) == fit_ridge(x, y) != fit_ridge(x, y, alpha=1.0)
    other = project.model_copy(update={"models": Models.model_validate({"value": {"ridge_alpha": 100}})})
    assert project_digest(other) != project_digest(project)


@pytest.mark.parametrize("target", ["churn", "value"])
def test_the_trees_rise_and_fall_as_they_must(target: Any) -> None:
    rng = np.random.default_rng(2)
    names = ["days_since_last", "expected_spend", "other"]
    x = rng.uniform(0, 100, size=(2_000, 3))
    y = np.sin(x[:, 0] / 9) - np.sin(x[:, 1] / 9) + rng.normal(size=2_000)  # which goes up and down
    grid = np.repeat(x[:50], 101, axis=0)
    for column, name in enumerate(names[:2]):
        rows = grid.copy()
        rows[:, column] = np.tile(np.arange(101), 50)
        steps = {}
        for monotone in (False, True):
            trees = Trees(monotone=monotone)
            model = fit_boosted(
                x, y, names, 100, 7, trees, objective="regression", **monotone_constraints(trees, names, target)
            )
            steps[monotone] = np.diff(model.predict(rows).reshape(50, 101), axis=1)
        way = EXPECTED_SIGN[name] * (-1 if target == "churn" else 1)
        assert (steps[True] * way >= 0).all()
        assert (steps[True] * way > 0).any()
        assert (steps[False] * way < 0).any()


def test_training_takes_the_settings_of_each_target_and_the_bundle_keeps_them(project: Project, tmp_path: Path) -> None:
    section = {"churn": {"trees": {"num_leaves": 3}}, "value": {"trees": {"monotone": True}, "tweedie_power": 1.5}}
    other = project.model_copy(update={"models": Models.model_validate(section)})
    bundle = train(other, out=tmp_path / "bundle").bundle
    kept = load_bundle(tmp_path / "bundle").settings["models"]
    assert Models.model_validate(kept) == other.models
    assert kept["value"]["trees"]["monotone"] is True
    assert train(other).bundle.version == bundle.version
    risk, worth = bundle.churn.boosted.text, bundle.value.boosted.text
    assert "[num_leaves: 3]" in risk
    assert "[num_leaves: 8]" in worth
    signs = monotone_constraints(Trees(monotone=True), bundle.inputs.all_names, "value")["monotone_constraints"]
    assert signs.count(1) == 2
    assert signs.count(-1) == 3
    assert f"[monotone_constraints: {','.join(map(str, signs))}]" in worth
    assert "[monotone_constraints: ]" in risk
    assert "[tweedie_variance_power: 1.5]" in worth


# the command line


def test_tune_prints_a_verdict_and_a_section_that_the_project_takes(cli: Run, project: Project, tmp_path: Path) -> None:
    settings = project.model_dump(mode="json", exclude={"folder"}, exclude_none=True)
    (tmp_path / "shop.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    done = cli("tune", "shop.yaml", "--trials", 2, "--out", "best.yaml")
    assert done.code == 0, done.err
    text = (tmp_path / "best.yaml").read_text(encoding="utf-8")
    assert text.strip() in done.out
    assert "which no trial saw" in done.out
    assert done.out.count("# churn: ") == done.out.count("# value: ") == 1
    assert (tmp_path / "tune.db").is_file()
    (tmp_path / "shop.yaml").write_text(yaml.safe_dump({**settings, **yaml.safe_load(text)}), encoding="utf-8")
    load_project(tmp_path / "shop.yaml")

    client = mlflow.MlflowClient(tracking_uri=project.tracking.uri)
    (experiment,) = client.search_experiments(filter_string=f"name = '{project.name}'")
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert sorted(run.info.run_name for run in children) == [f"{t} {k}" for t in ("churn", "value") for k in range(3)]
    for run in children:
        assert {"target", "num_leaves", "learning_rate"} <= set(run.data.params)
        assert len(run.data.metrics) == 1
    assert {"churn/log_loss/difference", "value/cut_rmse/low"} <= set(parent.data.metrics)
    assert ID_MARK.encode() not in (tmp_path / "mlflow.db").read_bytes() + (tmp_path / "tune.db").read_bytes()


def test_without_optuna_the_line_that_installs_it_is_shown(
    cli: Run, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = project.model_dump(mode="json", exclude={"folder"}, exclude_none=True)
    (tmp_path / "shop.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    monkeypatch.setitem(sys.modules, "optuna", None)
    done = cli("tune", "shop.yaml")
    assert (done.code, done.out) == (2, "")
    assert "pip install 'tiermodel[tune]'" in done.err


@pytest.mark.parametrize(
    ("words", "refused", "home"),
    [
        (("tune", "shop.yaml"), 2, "training.tune"),
        (("train", "shop.yaml", "--as-of", "1999-01-01"), 3, "training.train"),
    ],
)
def test_who_is_refused_does_not_wait_for_mlflow(
    project: Project, tmp_path: Path, words: tuple[str, ...], refused: int, home: str
) -> None:
    settings = project.model_dump(mode="json", exclude={"folder"}, exclude_none=True)
    (tmp_path / "shop.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    code = (
        "import sys; from tiermodel.cli.main import main; sys.modules['optuna'] = None\n"
        f"try: main()\nfinally: print('mlflow' in sys.modules, 'tiermodel.{home}' in sys.modules)"
    )
    command = [sys.executable, "-c", code, *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)  # noqa: S603
    assert (done.returncode, done.stdout) == (refused, "False True\n"), done.stderr


def test_trials_are_kept_beside_a_sqlite_store_or_in_the_current_folder(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for uri, folder in (
        ("sqlite:///mlflow.db", tmp_path),
        ("sqlite:///runs/mlflow.db", tmp_path / "runs"),
        ("sqlite:////srv/mlflow.db", Path("/srv")),
        ("http://localhost:5000", tmp_path),
    ):
        tracked = project.model_copy(update={"tracking": project.tracking.model_copy(update={"uri": uri})})
        assert study_file(tracked, None) == folder / "tune.db"
        assert study_file(tracked, "my.db") == tmp_path / "my.db"


# trials


def test_a_stopped_run_goes_on_as_if_it_had_not_been_stopped(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tune(project, AS_OF, trials=2, study=tmp_path / "whole.db")
    calls, fit = [], churn.fit_churn

    def killed(*given: Any) -> Any:
        calls.append(given)
        if len(calls) == 3:  # in the middle of the second trial
            raise KeyboardInterrupt
        return fit(*given)

    with monkeypatch.context() as patched:
        patched.setattr("tiermodel.training.tune_search.fit_churn", killed)
        with pytest.raises(KeyboardInterrupt):
            tune(project, AS_OF, trials=2, study=tmp_path / "parts.db")
        before = len(calls)
        patched.setattr("tiermodel.training.tune_search.fit_churn", fit)
        resumed = tune(project, AS_OF, trials=2, study=tmp_path / "parts.db")
    assert before == 3
    assert resumed == whole
    assert len({tuple(trial["settings"].values()) for trial in whole.found[0].trials}) == 3
    fewer = tune(project, AS_OF, trials=1, study=tmp_path / "parts.db", minutes=1e-9)
    assert errors(fewer) == [found[:2] for found in errors(whole)]


def test_two_runs_on_one_file_at_once_the_second_is_told_to_wait(cli: Run, project: Project, tmp_path: Path) -> None:
    settings = project.model_dump(mode="json", exclude={"folder"}, exclude_none=True)
    (tmp_path / "shop.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    seconds = []

    def meanwhile(words: str) -> None:
        if words == "reading transactions" or words.startswith("value 0/1"):
            seconds.append(cli("tune", "shop.yaml", "--trials", 1, "--study", "one.db"))

    first = tune(project, AS_OF, trials=1, study=tmp_path / "one.db", progress=meanwhile)
    for second in seconds:  # before the first trial and among the trials
        assert (second.code, second.out) == (6, "")
        assert "one.db is being written by another run: wait, or give another name" in second.err
    assert len(seconds) == 2
    assert [len(found) for found in errors(first)] == [2, 2]
    assert errors(tune(project, AS_OF, trials=1, study=tmp_path / "one.db")) == errors(first)  # free again
    assert {path.name for path in tmp_path.iterdir()} - {"mlflow.db"} == {"one.db", "shop.yaml"}  # no lock is left


def test_a_second_process_is_told_to_wait_and_what_a_killed_one_tried_is_kept(
    empty_store: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "shop"
    rows, uri = small_world(folder / "transactions.parquet", customers=100), f"sqlite:///{folder}/mlflow.db"
    shutil.copy(empty_store, folder / "mlflow.db")
    settings = small_project(rows, panel=PANEL, tracking={"uri": uri}).model_dump(mode="json", exclude={"folder"})
    (folder / "shop.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    words = ("tune", "shop.yaml", "--as-of", AS_OF, "--study", "one.db", "--json", "--trials")
    lock = folder / ".one.db.lock"

    first = Started(folder, *words, 500)
    try:
        while "value 1/500" not in first.said:
            assert first.process.is_alive(), first.said
            time.sleep(0.02)
        os.kill(first.process.pid or 0, signal.SIGSTOP)  # it stands still, lock in hand: no trials of many seconds
        second = Started(folder, *words, 1).wait()
        said = f"tiermodel: {folder}/one.db is being written by another run: wait, or give another name\n"
        assert second == (6, "", said)
        assert first.process.is_alive()
    finally:
        first.process.kill()
        first.process.join()
    assert lock.exists()  # it had no time to clear up

    kept = finished(folder / "one.db")
    most = max(Counter(target for target, *_ in kept).values())
    third = Started(folder, *words, most).wait()  # one more for the target that is ahead
    assert third.code == 0, third.err
    assert not lock.exists()
    now = finished(folder / "one.db")
    assert len(kept) >= 4
    assert kept < now  # as they were, not tried again
    for target, found in json.loads(third.out)["targets"].items():
        tried = sorted((trial, error) for name, trial, error, _ in now if name == target)
        assert [trial["error"] for trial in found["trials"]] == [error for _, error in tried]
        assert len(tried) == most + 1


def finished(study: Path) -> set[tuple[str, int, float, str]]:
    """List the finished trials in a file of studies: target, number, error, and when it ended."""
    query = """
        SELECT study_name, trial_id, value, datetime_complete
        FROM trials JOIN studies USING (study_id) JOIN trial_values USING (trial_id) WHERE state = 'COMPLETE'
    """
    with closing(sqlite3.connect(study)) as file:
        return {(name.split("/")[1], *rest) for name, *rest in file.execute(query)}


def test_trials_see_nothing_of_the_date_that_judges(project: Project, world: Path, tmp_path: Path) -> None:
    before = tune(project, AS_OF, trials=1, study=tmp_path / "before.db")
    rows = pd.read_parquet(world)
    later = rows["day"] >= pd.Timestamp(before.judged_on)
    assert later.any()
    rows.loc[later, "amount"] *= 7
    rows[~later | (rows["customer"].str[-1] > "4")].to_parquet(tmp_path / "changed.parquet")  # some leave that day
    columns = project.data.transactions.model_copy(update={"path": str(tmp_path / "changed.parquet")})
    changed = project.model_copy(update={"data": project.data.model_copy(update={"transactions": columns})})
    after = tune(changed, AS_OF, trials=1, study=tmp_path / "after.db")
    assert after.judged_on == before.judged_on
    assert errors(after) == errors(before)
    for one, other in zip(before.found, after.found, strict=True):
        assert one.verdict[0]["defaults"] != other.verdict[0]["defaults"]


def test_by_default_everything_is_over_before_the_first_test_date(project: Project, tmp_path: Path) -> None:
    dates = {"dates": ["2023-09-03", "2023-10-03"]}
    tested = Project.model_validate({**project.model_dump(), "backtest": dates})
    tuned = tune(tested, trials=1, minutes=1e-9, study=tmp_path / "tune.db")
    assert str(tuned.as_of) == "2023-09-03"
    assert [len(found) for found in errors(tuned)] == [1, 1]  # no time: the project's own settings only
    assert (tuned.as_of - tuned.judged_on).days >= project.outcome.horizon_days


def test_too_short_a_history_and_a_file_that_is_no_study_are_refused(project: Project, tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("these are words\n" * 100, encoding="utf-8")
    with pytest.raises(OutputError, match="choose another file with --study"):
        tune(project, AS_OF, trials=1, study=tmp_path / "text.db")
    short = project.model_copy(update={"panel": project.panel.model_copy(update={"snapshots": 3})})
    with pytest.raises(DataError, match="tuning needs a date to test on before"):
        tune(short, AS_OF, trials=1, study=tmp_path / "tune.db")


# words


def found(low: float, high: float, settings: dict[str, float]) -> Found:
    row = {"target": "churn", "metric": "log_loss", "defaults": 0.3, "found": 0.29, "difference": (low + high) / 2}
    return Found("churn", "log_loss", [], settings, [{**row, "low": low, "high": high}])


def test_the_section_holds_what_is_better_and_keeps_the_rest_in_comments(project: Project) -> None:
    settings = {"num_leaves": 5, "logistic_c": 0.1}
    assert found(-0.02, -0.01, settings).better
    assert "better beyond chance" in found(-0.02, -0.01, settings).words()
    for low, high, words in ((-0.01, 0.01, "defaults are as good"), (0.01, 0.02, "defaults are better")):
        unproven = found(low, high, settings)
        assert not unproven.better
        assert words in unproven.words()
        day = pd.Timestamp(AS_OF).date()
        text = Tuned(day, day, (unproven,), project.models, {}).to_yaml()
        assert yaml.safe_load(text) == {"models": {}}
        rest = "\n".join(line.removeprefix("#  ") for line in text.splitlines() if line.startswith("#  "))
        assert yaml.safe_load(rest) == {"churn": {"trees": {"num_leaves": 5}, "logistic_c": 0.1}}
    assert "no trial did better" in found(0.0, 0.0, {}).words()
