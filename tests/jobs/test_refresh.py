"""The nightly job on a small world: whole runs, runs that go on, runs that do nothing, and when a model is trained."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from failpoints import failing
from run_folders import files_of
from tiermodel.config.project import Project, load_project
from tiermodel.errors import OutputBusyError, OutputError, ProjectError
from tiermodel.jobs.manifest import Manifest, StageRecord, read_manifest
from tiermodel.jobs.refresh import plan, refresh
from tiermodel.jobs.run import CURRENT, FEATURES, SCORES, Run
from tiermodel.jobs.stages import STAGES, training_day, why_train
from tiermodel.locks import folder_lock
from tiermodel.tables.history import read_history
from tiermodel.tracking.connection import opened_store
from tiermodel.tracking.registry import log_training
from worlds import TrainedWorld, bare_runs

pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),
    pytest.mark.filterwarnings("ignore:Operation with range is deprecated"),
]

MAPPING = """
version: 1
name: desk
to: csv
audience: service desk
key: customer
fields:
  customer: {type: text, column: customer_id}
  tier: {type: picklist, column: tier_code, options: [major, secondary, regular, small]}
  graded_on: {type: date, column: as_of, compare: false}
"""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, trained: TrainedWorld, empty_store: Path) -> Path:
    """Make a folder with a project file, a mapping, and a store in which the small world's model is the champion."""
    folder = tmp_path_factory.mktemp("jobs") / "shop"
    folder.mkdir()
    shutil.copy(empty_store, folder / "mlflow.db")
    shutil.copy(trained.project.resolve(str(trained.project.data.transactions.path)), folder / "t.parquet")
    settings = trained.project.model_dump(mode="json", exclude_unset=True)
    settings["data"]["transactions"]["path"] = "t.parquet"
    settings |= {"refresh": {"exports": ["desk.yaml"]}}
    settings.pop("folder", None)
    (folder / "project.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    (folder / "desk.yaml").write_text(MAPPING, encoding="utf-8")
    store = {"tracking": trained.project.tracking.model_copy(update={"uri": f"sqlite:///{folder}/mlflow.db"})}
    with bare_runs():
        found = log_training(trained.project.model_copy(update=store), trained.trained, trained.bundle, register=True)
    with opened_store(store["tracking"].uri) as client:
        client.set_registered_model_alias(trained.project.name, "champion", str(found).rpartition("/")[2])
    return folder


@pytest.fixture
def shop(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a copy of the folder, as the current one."""
    shutil.copytree(template, tmp_path / "shop")
    monkeypatch.chdir(tmp_path / "shop")
    return tmp_path / "shop"


def project_of(shop: Path) -> Project:
    return load_project(shop / "project.yaml")


def test_two_dates_leave_counts_that_add_up_and_the_last_one_current(shop: Path, trained: TrainedWorld) -> None:
    project, last = project_of(shop), date.fromisoformat(str(trained.trained.bundle.facts["as_of"]))
    first = refresh(project, last - timedelta(70))
    assert (shop / "runs" / CURRENT).readlink() == Path(str(last - timedelta(70)))
    done = refresh(project, "latest")
    assert first.ran == done.ran == tuple(STAGES)
    assert done.manifest.as_of == last
    counts = {stage.stage: stage.counts for stage in done.manifest.stages}
    parts = ("filtered", "quarantined", "deduplicated", "out_of_window", "used")
    assert counts["check"]["read"] == sum(counts["check"][name] for name in parts)
    customers = counts["score"]["customers"]
    assert customers == sum(counts["score"]["tiers"].values()) == counts["features"]["customers"]
    assert customers == sum(n for name, n in counts["lists"].items() if name != "customers")
    export = counts["exports"]["desk"]
    assert customers == export["new"] + export["changed"] + export["unchanged"]
    assert 0 < export["unchanged"] < customers, "the export before was not taken into account"
    assert (shop / "runs" / CURRENT / SCORES).is_file()
    assert [path.parent.name for path in (shop / "runs").glob(f"????-??-??/{FEATURES}")] == [str(last)]
    watched = json.loads((done.folder / "monitor.json").read_text(encoding="utf-8"))
    assert [row["as_of"] for row in watched["matured"]] == [str(first.manifest.as_of)]
    assert done.manifest.model == trained.trained.bundle.version
    before = files_of(shop / "runs")
    again = refresh(project, "latest")
    assert again.ran == ()
    assert files_of(shop / "runs") == before


def test_an_earlier_date_does_not_become_current(shop: Path) -> None:
    (shop / "runs").mkdir()
    (shop / "runs" / CURRENT).symlink_to("9999-12-31")
    assert refresh(project_of(shop)).manifest.complete
    assert (shop / "runs" / CURRENT).readlink() == Path("9999-12-31")


def test_a_full_disk_at_any_step_leaves_a_run_that_goes_on(shop: Path) -> None:
    project = project_of(shop)
    with failing(1_000_000, errno.ENOSPC) as taken:
        refresh(project)
    wanted, current = files_of(shop / "runs"), (shop / "runs" / CURRENT).readlink()
    for step in (len(taken) // 2, len(taken) - 1):
        shutil.rmtree(shop / "runs")
        with failing(step, errno.ENOSPC), pytest.raises(OutputError):
            refresh(project)
        refresh(project)
        assert files_of(shop / "runs") == wanted, step
        assert (shop / "runs" / CURRENT).readlink() == current


def test_a_killed_run_goes_on_after_its_last_whole_stage(shop: Path) -> None:
    words = [sys.executable, "-m", "tiermodel", "refresh", "project.yaml"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as running:  # noqa: S603
        assert running.stderr is not None
        for line in running.stderr:
            if "work lists" in line:
                running.kill()
    (folder,) = (shop / "runs").glob("????-??-??")
    killed = read_manifest(folder)
    assert killed is not None
    assert not killed.complete
    assert not (shop / "runs" / CURRENT).exists()
    done = refresh(project_of(shop))
    assert set(done.ran) == set(STAGES) - {stage.stage for stage in killed.stages}
    assert {"check", "score"}.isdisjoint(done.ran)
    after = files_of(shop / "runs")
    shutil.rmtree(shop / "runs")
    refresh(project_of(shop))
    assert files_of(shop / "runs") == after


def test_a_stage_that_fails_is_noted_and_done_first_the_next_time(shop: Path) -> None:
    lacking = MAPPING.replace("regular, ", "")
    (shop / "desk.yaml").write_text(lacking, encoding="utf-8")
    with pytest.raises(ProjectError, match="regular"):
        refresh(project_of(shop))
    (folder,) = (shop / "runs").glob("????-??-??")
    stopped = read_manifest(folder)
    assert stopped is not None
    assert (stopped.stopped or {})["stage"] == "exports"
    assert stopped.exit_code == ProjectError.exit_code
    assert not (shop / "runs" / CURRENT).exists()
    (shop / "desk.yaml").write_text(MAPPING, encoding="utf-8")
    done = refresh(project_of(shop))
    assert done.ran == ("exports", "report")
    assert done.manifest.stopped is None


def test_other_rows_for_a_complete_date_are_refused_by_name(shop: Path) -> None:
    import pandas as pd  # noqa: PLC0415

    refresh(project_of(shop))
    rows = pd.read_parquet(shop / "t.parquet")
    rows.iloc[:-1].to_parquet(shop / "t.parquet", index=False)
    before = files_of(shop / "runs")
    with pytest.raises(ProjectError, match=r"t\.parquet changed since.*--regrade --reason"):
        refresh(project_of(shop))
    assert files_of(shop / "runs") == before


def test_a_second_run_is_refused_while_one_is_at_work(shop: Path) -> None:
    with folder_lock(shop / "runs"), pytest.raises(OutputBusyError, match="another run"):
        refresh(project_of(shop))


@pytest.mark.parametrize("change", [{"exports": ["nothing.yaml"]}, {"folder": "runs", "policy": "nothing"}])
def test_what_a_late_stage_needs_is_refused_before_the_first(shop: Path, change: dict[str, Any]) -> None:
    settings = yaml.safe_load((shop / "project.yaml").read_text(encoding="utf-8"))
    policy = change.pop("policy", None)
    settings |= {"refresh": change} | ({"policy": policy} if policy else {})
    (shop / "project.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    with pytest.raises(ProjectError, match="nothing"):
        refresh(project_of(shop))
    assert not (shop / "runs").exists()


def test_a_plan_writes_nothing_and_knows_time_and_disk_from_the_run_before(shop: Path) -> None:
    before = files_of(shop)
    unknown = plan(project_of(shop))
    assert files_of(shop) == before
    assert unknown.seconds is None
    assert 0 < unknown.bytes < unknown.free
    first = refresh(project_of(shop), unknown.folder.name)
    later = plan(project_of(shop), first.manifest.as_of + timedelta(1))
    spent = [stage.seconds for stage in first.manifest.stages if stage.skipped is None]
    assert later.seconds == pytest.approx(sum(spent), rel=0.2, abs=0.5)
    assert later.bytes == sum(path.stat().st_size for path in first.folder.rglob("*") if path.is_file())
    assert [stage["stage"] for stage in plan(project_of(shop), first.manifest.as_of).stages if stage["runs"]] == []


def test_the_first_run_trains_and_promotes(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in shop.glob("mlflow.db*"):
        path.unlink()
    shutil.rmtree(shop / "mlartifacts", ignore_errors=True)
    monkeypatch.setattr("tiermodel.tracking.comparison.DRAWS_AT_MOST", 400)
    with bare_runs():
        done = refresh(project_of(shop))
    made, promoted = done.manifest.record("train"), done.manifest.record("promote")
    assert made is not None
    assert promoted is not None
    assert made.counts["registered"] == "small-world/1"
    assert promoted.exit == 0
    assert done.manifest.model == made.counts["bundle"]
    assert done.manifest.trained
    verdict = (done.folder / "promote.json").read_bytes()
    assert (json.loads(verdict)["version"], json.loads(verdict)["promoted"]) == ("1", True)
    assert "Did the model pass the gate?" in (done.folder / "report.html").read_text(encoding="utf-8")
    (done.folder / "promote.json").unlink()  # as a kill after the promotion, before the verdict was written, leaves it
    project = project_of(shop)
    STAGES["promote"](Run(project, read_history(project), done.folder.parent, done.manifest, []))
    assert (done.folder / "promote.json").read_bytes() == verdict


Days = Callable[[int], date]


@pytest.mark.parametrize(
    ("settings", "age", "tried", "advice", "due"),
    [
        ({}, 400, None, "nothing", False),
        ({"schedule": {"every_days": 70}}, 69, None, "nothing", False),
        ({"schedule": {"every_days": 70}}, 70, None, "nothing", True),
        ({"schedule": {"every_days": 30}}, 59, None, "nothing", False),  # due, but panel.every_days is 60
        ({"schedule": {"every_days": 30}}, 60, 10, "nothing", False),  # the gate refused it ten days ago
        ({"max_age_days": 90}, 89, None, "nothing", False),
        ({"max_age_days": 90}, 90, None, "nothing", True),
        ({"max_age_days": 90}, 120, 5, "nothing", False),
        ({}, 80, None, "retrain", True),
        ({}, 59, None, "retrain", False),
        ({}, 400, 20, "retrain", False),
        ({}, 400, None, "column", False),
        ({"on_alarm": False}, 400, None, "retrain", False),
    ],
)
def test_when_a_challenger_is_trained(
    trained: TrainedWorld, settings: dict[str, Any], age: int, tried: int | None, advice: str, due: bool
) -> None:
    learned = date.fromisoformat(str(trained.trained.bundle.facts["as_of"]))
    content = trained.project.model_dump(mode="json", exclude_unset=True) | {"refresh": {"train": settings}}
    project = Project.model_validate(content)
    day = learned + timedelta(age)
    of = partial(Manifest, project=project.name, tiermodel="0", settings="", inputs={}, bytes_read=1)
    watched = StageRecord(stage="monitor", counts={"advice": advice})
    earlier = [] if tried is None else [of(as_of=day - timedelta(tried), trained=True, complete=True)]
    run = Run(project, None, Path(os.devnull), of(as_of=day, stages=(watched,)), earlier)  # type: ignore[arg-type]
    run.champion = trained.trained.bundle
    assert why_train(run)[0] is due
    assert training_day(run) == learned + timedelta(age // 60 * 60)
