"""The experiment of a project in MLflow, and the runs in it: started, ended whatever happens, closed after a kill."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tiermodel.config.project import Project
from tiermodel.locks import database_of
from tiermodel.tracking.connection import opened_store
from tiermodel.tracking.store import ARTIFACTS, HURRY, environment

import mlflow  # isort: skip  # after the connection, which settles its environment
from mlflow.exceptions import MlflowException  # isort: skip

if TYPE_CHECKING:
    from mlflow.entities import Run

__all__ = ["close_killed", "experiment_of", "prepare_experiment", "started"]

_KIND = {"mlflow.experimentKind": "custom_model_development"}
"""What makes MLflow's pages open an experiment as model training, not as the traces of an agent."""

_KINDS = ("training", "learner", "tuning", "trial", "monitor")
_LONGEST_MS = 3_600_000  # no run of ours is open for an hour: what is logged has been computed before


def prepare_experiment(project: Project) -> None:
    """Make the project's experiment, or restore it where it was deleted, before any work; `TrackingError` if neither.

    `check_store` comes first: it needs no MLflow.
    """
    with opened_store(project.tracking.uri, create=True) as client:
        experiment_of(client, project)


def experiment_of(client: mlflow.MlflowClient, project: Project) -> str:
    """Return the id of the project's experiment, made if missing; on SQLite its artifacts go beside the database."""
    name = project.tracking.experiment or project.name
    found = client.get_experiment_by_name(name)
    database = database_of(project.tracking.uri)
    artifacts = None if database is None else (database.parent / ARTIFACTS).as_uri()
    if found is None:
        return str(client.create_experiment(name, artifacts, tags=_KIND))
    if found.lifecycle_stage == "deleted":  # in MLflow; its name stays taken
        client.restore_experiment(found.experiment_id)
    for key, value in _KIND.items():
        if key not in found.tags:  # who chose another view keeps it
            client.set_experiment_tag(found.experiment_id, key, value)
    if database is not None and found.artifact_location.endswith(f"/{ARTIFACTS}"):
        _keep_beside(database, str(found.experiment_id), str(artifacts))
    return str(found.experiment_id)


def _keep_beside(database: Path, experiment: str, artifacts: str) -> None:
    """Let artifacts of later runs go beside a database that moved; no interface of MLflow changes the place."""
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(
            "UPDATE experiments SET artifact_location = ? WHERE experiment_id = ? AND artifact_location <> ?",
            (artifacts, int(experiment), artifacts),
        )


@contextmanager
def started(
    client: mlflow.MlflowClient, project: Project, kind: str, name: str, tags: Mapping[str, Any]
) -> Iterator[mlflow.ActiveRun]:
    """Start a run of a project's experiment, after closing what a killed run left open; it ends with the block.

    Where the block fails, the store is told so in a hurry: a server that fell silent is not waited for again.
    """
    experiment = experiment_of(client, project)
    known = {"kind": kind, "project": project.name}
    with mlflow.start_run(experiment_id=experiment, run_name=name, tags={**known, **tags}) as run:
        try:
            close_killed(client, project, run)
            yield run
        except BaseException:
            with environment(HURRY), suppress(MlflowException):  # what failed is what is told
                mlflow.end_run("FAILED")
            raise


def close_killed(client: mlflow.MlflowClient, project: Project, run: Run) -> None:
    """Close the runs of a project that say they are running though whoever started them was killed.

    On SQLite that is every run before this one, which has the database for itself; on a server, where another machine
    may be at work, those an hour older.
    """
    least = 0 if database_of(project.tracking.uri) is not None else _LONGEST_MS
    own_experiment = project.tracking.experiment in {None, project.name}
    open_runs = client.search_runs([run.info.experiment_id], "attributes.status = 'RUNNING'", max_results=1000)
    for other in open_runs:
        tags, age = other.data.tags, run.info.start_time - other.info.start_time
        untagged = project.name if own_experiment else None  # as runs of older versions are
        ours = tags.get("kind") in _KINDS and tags.get("project", untagged) == project.name
        if ours and other.info.run_id != run.info.run_id and age >= least:
            client.set_terminated(other.info.run_id, "KILLED")
