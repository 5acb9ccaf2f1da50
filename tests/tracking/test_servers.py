"""A tracking server that asks for a password, falls silent, or keeps runs that a kill left open."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from urllib.parse import quote

import pytest

from tiermodel.config.project import Project
from tiermodel.errors import TierModelError, TrackingError
from tiermodel.tracking import store as store_module
from tiermodel.tracking.connection import opened_store
from tiermodel.tracking.experiment import experiment_of
from tiermodel.tracking.promotion import promote
from tiermodel.tracking.registry import log_training, resolve_model
from tiermodel.tracking.store import check_store
from tracking_server import PASSWORD, USER, Door, tracking_server
from worlds import TrainedWorld, bare_runs

pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),
    pytest.mark.filterwarnings("ignore:Operation with range is deprecated"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[tuple[str, Door]]:
    with tracking_server(tmp_path_factory.mktemp("server"), empty_store) as (place, door):
        yield f"http://{USER}:{quote(PASSWORD, safe='')}@{place}", door


def tracked(world: TrainedWorld, uri: str, name: str) -> Project:
    tracking = world.project.tracking.model_copy(update={"uri": uri, "experiment": None})
    return world.project.model_copy(update={"name": name, "tracking": tracking})


def log(world: TrainedWorld, project: Project) -> str | None:
    with bare_runs():
        return log_training(project, world.trained, world.bundle, register=True)


def test_a_password_in_the_address_works_and_is_nowhere_told(
    served: tuple[str, Door], trained: TrainedWorld, tmp_path: Path, caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    uri, door = served
    door.refused.clear()
    caplog.set_level(logging.DEBUG)
    check_store(uri)
    assert log(trained, tracked(trained, uri, "behind")) == "behind/1"
    assert (resolve_model("behind@challenger", uri) / "bundle.json").is_file()
    assert door.refused == []
    wrong = uri.replace(quote(PASSWORD, safe=""), "Falsch-8713")
    said = []
    for bad in (wrong, uri.replace(f"{USER}:", "eve:")):
        for act in (check_store, partial(resolve_model, "behind@challenger")):
            with pytest.raises(TrackingError) as refusal:
                act(bad)
            said.append(str(refusal.value))
    assert {"refuses this user and password (401)" in words for words in said} == {True}
    said += [caplog.text, *capfd.readouterr()]
    kept = b"".join(path.read_bytes() for path in tmp_path.parent.rglob("server.db"))
    for secret in (PASSWORD, quote(PASSWORD, safe=""), "Falsch-8713"):
        assert not any(secret in words for words in said)
        assert secret.encode() not in kept


def seconds(act: Callable[[], object]) -> float:
    began = time.monotonic()
    with pytest.raises(TierModelError) as refusal:
        act()
    assert isinstance(refusal.value, TrackingError), refusal.value
    assert PASSWORD not in str(refusal.value)
    assert quote(PASSWORD, safe="") not in str(refusal.value)
    assert "tracking.uri" in str(refusal.value)
    return time.monotonic() - began


@pytest.mark.parametrize("requests", [0, 9])
def test_a_server_that_answers_health_and_falls_silent_costs_at_most_fifteen_seconds(
    served: tuple[str, Door], trained: TrainedWorld, monkeypatch: pytest.MonkeyPatch, requests: int
) -> None:
    uri, door = served
    # the time that is waited is what the settings say, at half of them the test takes half as long
    monkeypatch.setattr(store_module, "ANSWER_SECONDS", store_module.ANSWER_SECONDS / 2)
    kept = store_module._SETTINGS
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", str(int(kept["MLFLOW_HTTP_REQUEST_TIMEOUT"]) // 2))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", kept["MLFLOW_HTTP_REQUEST_MAX_RETRIES"])
    door.silent_after = requests
    try:
        assert seconds(lambda: log(trained, tracked(trained, uri, f"silent-{requests}"))) < 9
        door.silent_after = requests // 3
        assert seconds(lambda: promote("behind", tracking_uri=uri)) < 9
    finally:
        door.silent_after = None


def test_runs_that_a_kill_left_open_are_closed_by_the_next_run_of_the_project(
    served: tuple[str, Door], trained: TrainedWorld, tmp_path: Path, empty_store: Path
) -> None:
    (tmp_path / "mlflow.db").write_bytes(empty_store.read_bytes())
    hour = 3_600_000
    for uri, alone in ((f"sqlite:///{tmp_path}/mlflow.db", True), (served[0], False)):
        project = tracked(trained, uri, "killed")
        with opened_store(uri) as client:
            experiment = experiment_of(client, project)
            now = client.create_run(experiment).info.start_time
            made = {
                name: client.create_run(experiment, start_time=now - age, tags=tags).info.run_id
                for name, age, tags in (
                    ("long ago", 2 * hour, {"kind": "training", "project": "killed"}),
                    ("child", 2 * hour, {"kind": "learner", "project": "killed"}),
                    ("older version", 2 * hour, {"kind": "training"}),
                    ("just now", hour // 2, {"kind": "training", "project": "killed"}),
                    ("other project", 2 * hour, {"kind": "training", "project": "other"}),
                    ("a notebook", 2 * hour, {}),
                )
            }
        log(trained, project)
        with opened_store(uri) as client:
            status = {name: client.get_run(run).info.status for name, run in made.items()}
        closed = dict.fromkeys(("long ago", "child", "older version"), "KILLED")
        open_still = dict.fromkeys(("other project", "a notebook"), "RUNNING")
        assert status == {**closed, **open_still, "just now": "KILLED" if alone else "RUNNING"}


def test_a_deleted_experiment_is_restored_and_a_missing_one_made_before_the_work(
    served: tuple[str, Door], trained: TrainedWorld
) -> None:
    project = tracked(trained, served[0], "deleted")
    with opened_store(served[0]) as client:
        first = experiment_of(client, project)
        client.delete_experiment(first)
        assert experiment_of(client, project) == first
        found = client.get_experiment(first)
    assert found.lifecycle_stage == "active"
    assert found.tags["mlflow.experimentKind"] == "custom_model_development"
