"""Tracked runs and registered models in MLflow, which no other module imports.

The import takes seconds, so this module is imported only where a run is tracked or a model is looked up. On SQLite one
process works at a time, under a lock beside the database: MLflow creates tables without a lock, and the last process to
set an alias would win. `OutputBusyError` is raised where the lock does not become free. No logged value names a
customer.
"""

from __future__ import annotations

import atexit
import re
import sqlite3
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pandas as pd
import pyarrow as pa
from sqlalchemy.exc import SQLAlchemyError

from tiermodel.bundle.bundle import Bundle, load_bundle
from tiermodel.config.project import Project
from tiermodel.errors import GateError, ModelError, TrackingError
from tiermodel.evaluation.baselines import OURS
from tiermodel.locks import SQLITE, database_lock, database_of, first_line
from tiermodel.mlflow_flavor import FLAVOR, trusted_bundle
from tiermodel.monitoring.monitor import MonitorResult
from tiermodel.output import write_table
from tiermodel.predict import score_schema
from tiermodel.tables.scratch import new_folder, remove_folder
from tiermodel.tables.table import EPOCH
from tiermodel.tracking import runs
from tiermodel.tracking.artifacts import EVALUATION, LearnerMetrics, draw_evaluation, evaluation_table, learner_metrics
from tiermodel.tracking.gate import PREVIOUS, Promotion, findings, judge, judge_segments
from tiermodel.tracking.store import check_answer, set_environment
from tiermodel.training.train import Trained
from tiermodel.training.tune import Tuned

__all__ = ["champion_of", "log_monitoring", "log_training", "log_tuning", "promote", "resolve_model"]


set_environment()
with warnings.catch_warnings():
    # MLflow's own type hints trip its own check on import.
    warnings.filterwarnings("ignore", message=".*Any type hint is inferred as AnyType", category=UserWarning)
    import mlflow
    import mlflow.pyfunc
    from mlflow.data.code_dataset_source import CodeDatasetSource
    from mlflow.data.meta_dataset import MetaDataset
    from mlflow.entities import Metric, Param
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.exceptions import MlflowException
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema
    from mlflow.types.schema import AnyType
    from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

_ARTIFACTS = "mlartifacts"
_CHALLENGER, _CHAMPION, _EVALUATION_FILE = "challenger", "champion", "evaluation.parquet"
MODEL_REQUIREMENTS = ("tiermodel", "lightgbm", "mlflow", "numba", "numpy", "pandas", "pyarrow", "scikit-learn", "scipy")
_REFERENCE = re.compile(r"(?:models:/)?(?P<name>[A-Za-z0-9][\w.-]{0,99})(?:@(?P<alias>[\w-]+)|/(?P<version>\d+))")
_TYPES = {pa.int64(): "long", pa.float64(): "double", pa.date32(): "datetime", pa.string(): "string"}


def log_training(project: Project, trained: Trained, bundle_folder: str | Path, *, register: bool) -> str | None:
    """Log a training run with its model; with `register` set the alias `challenger` and return `NAME/VERSION`.

    Every learner and later date gets a child run, `TARGET · LEARNER · DATE`, with the same names of metrics. The tag
    `kind` is `training` or `learner`, and `mlflow.parentRunId` links the two. The store is `project.tracking.uri`: a
    relative `sqlite:///` path starts at the current directory, and artifacts go to `mlartifacts/` beside the database.
    Raises `TrackingError` where the store does not answer, `ModelError` where the folder holds another bundle.
    """
    bundle = load_bundle(bundle_folder)
    if bundle.version != trained.bundle.version:
        wanted = trained.bundle.version
        raise ModelError(f"{bundle_folder} holds {bundle.version}, but {wanted} was trained: save that one there")
    with _store(project.tracking.uri, create=True) as client:
        experiment = _experiment(client, project)
        name = f"{project.name} · {bundle.facts['as_of']} · {bundle.version.rpartition('-')[2]}"
        with mlflow.start_run(experiment_id=experiment, run_name=name) as run:
            mlflow.set_tags(runs.tags_of(bundle) | {"kind": "training"})
            mlflow.log_params(runs.parameters_of(project))
            found = list(learner_metrics(trained.out_of_fold))
            _log_results(project, trained, found)
            _log_learners(client, run, bundle, found)
            logged = _log_model(bundle, Path(bundle_folder).resolve())
        if not register:
            return None
        if not client.search_registered_models(f"name = '{project.name}'"):
            client.create_registered_model(project.name)
        made = client.create_model_version(project.name, logged.model_uri, run.info.run_id, model_id=logged.model_id)
        client.set_registered_model_alias(project.name, _CHALLENGER, str(made.version))
        return f"{project.name}/{made.version}"


def log_tuning(project: Project, tuned: Tuned) -> None:
    """Log a tuning: one run with the verdicts and the best `models` section, and a child run for each trial.

    Raises `TrackingError` where the store does not answer.
    """
    with _store(project.tracking.uri, create=True) as client:
        experiment = _experiment(client, project)
        with mlflow.start_run(experiment_id=experiment, run_name=f"tune {tuned.as_of}"):
            dates = {"as_of": str(tuned.as_of), "judged_on": str(tuned.judged_on)}
            mlflow.set_tags({**dates, "code_digest": runs.code_digest(), "kind": "tuning"})
            mlflow.log_text(tuned.to_yaml(), "models.yaml")
            for found in tuned.found:
                mlflow.log_metrics(runs.verdict_of(found))
                for trial in found.trials:
                    name = f"{found.target} {trial['number']}"
                    with mlflow.start_run(experiment_id=experiment, run_name=name, nested=True, tags={"kind": "trial"}):
                        mlflow.log_params({"target": found.target, **trial["settings"]})
                        mlflow.log_metrics(runs.finite({f"{found.target}/{found.metric}": trial["error"]}))


def log_monitoring(project: Project, done: MonitorResult) -> None:
    """Log a run of `monitor`: one run for each model, whose metrics have a step for each date and draw its history.

    The step is the date in days since 1970-01-01. Raises `TrackingError` where there is no store, or it does not
    answer.
    """
    with _store(project.tracking.uri) as client:
        experiment, step = _experiment(client, project), (done.as_of - EPOCH).days
        tags = {"kind": "monitor", "bundle": done.model_version}
        wanted = " and ".join(f"tags.{name} = '{value}'" for name, value in tags.items())
        earlier = client.search_runs([experiment], wanted, max_results=1)
        name = f"monitor {done.model_version}"
        run = earlier[0] if earlier else client.create_run(experiment, tags=tags, run_name=name)
        metrics = [Metric(key, x, run.info.start_time, step) for key, x in runs.monitored(done).items()]
        client.log_batch(run.info.run_id, metrics)
        client.set_tag(run.info.run_id, "verdict", done.verdict)
        client.set_tag(run.info.run_id, "as_of", str(done.as_of))
        client.set_terminated(run.info.run_id)


def champion_of(project: Project) -> Bundle | None:
    """Return the project's champion; None where there is none, or where this version cannot read it."""
    with _store(project.tracking.uri, create=True) as client:
        if not client.search_registered_models(f"name = '{project.name}'"):
            return None
        found = _champion(client, project.name)
        try:
            return None if found is None else _bundle(client, found)
        except ModelError:
            return None


def _log_results(project: Project, trained: Trained, found: Sequence[LearnerMetrics]) -> None:
    """Log the digest of the training data, and the out-of-time metrics by date and over all dates.

    The step of a metric is its date in days since 1970-01-01. Metrics by group of customers go to `slices.json`, the
    proxy audit to `proxies.json`; a table without rows is left out.
    """
    digest = trained.bundle.facts["panel_digest"]
    source = CodeDatasetSource(tags={"panel_digest": digest})
    mlflow.log_input(MetaDataset(source, name=project.name, digest=digest[:36]), context="training")
    for one in found:
        if one.learner == OURS:
            mlflow.log_metrics(runs.measures_of(one), step=runs.step_of(one))
    mlflow.log_metrics(runs.totals_of(trained.bundle))
    for name in ("slices", "proxies"):
        if rows := trained.bundle.facts.get(name):
            # Cells are objects, since MLflow asks pandas for them in a way that warns where columns are text.
            mlflow.log_table(pd.DataFrame(rows, dtype=object), f"{name}.json")
    with tempfile.TemporaryDirectory() as folder:
        table = pa.Table.from_pandas(evaluation_table(project, trained.out_of_fold), preserve_index=False)
        write_table(table, Path(folder, _EVALUATION_FILE))
        draw_evaluation(project, trained.bundle, trained.out_of_fold, Path(folder))
        mlflow.log_artifacts(folder)


def _log_learners(
    client: mlflow.MlflowClient, parent: mlflow.ActiveRun, bundle: Bundle, found: Iterable[LearnerMetrics]
) -> None:
    """Log each learner's metrics on each date as a child run, in three calls each because a store on disk is slow."""
    origin = {name: str(bundle.facts[name]) for name in ("as_of", "panel_digest", "project_digest")}
    for one in found:
        learner = {"target": one.target, "learner": one.learner, "date": str(one.day)}
        tags = origin | learner | {MLFLOW_PARENT_RUN_ID: parent.info.run_id, "kind": "learner", "role": one.role}
        child = client.create_run(parent.info.experiment_id, tags=tags, run_name=" · ".join(learner.values())).info
        metrics = [Metric(key, x, child.start_time, runs.step_of(one)) for key, x in runs.measures_of(one).items()]
        client.log_batch(child.run_id, metrics, [Param(key, x) for key, x in learner.items()])
        client.set_terminated(child.run_id)


def _log_model(bundle: Bundle, folder: Path) -> Any:
    """Log the folder as a model without code and return it; the input example is a row of ones, never a customer."""
    names, texts = bundle.inputs.names, bundle.scheme.scheme.text_features
    keys = [ColSpec("string", "customer_id", required=False), ColSpec("datetime", "as_of", required=False)]
    # AnyType, since MLflow refuses whole numbers where doubles are asked for; the model checks and converts them itself
    strings = (ColSpec("string", name) for name in texts)
    inputs = Schema([*(ColSpec(AnyType(), name) for name in names), *strings, *keys])
    outputs = Schema([ColSpec(_TYPES[column.type], column.name) for column in score_schema(bundle)])
    return mlflow.pyfunc.log_model(
        name="model",
        loader_module=FLAVOR,
        data_path=str(folder),
        signature=ModelSignature(inputs, outputs),
        input_example=pd.DataFrame(1.0, index=[0], columns=list(names)).assign(**dict.fromkeys(texts, "text")),
        pip_requirements=[f"{name}=={installed(name)}" for name in MODEL_REQUIREMENTS],
    )


def promote(name: str, challenger: str | None = None, *, tracking_uri: str) -> Promotion:
    """Make a registered version the champion if it passes the gate; the champion before it becomes `previous`.

    Parameters
    ----------
    name : str
        The registered model, which has the name of its project.
    challenger : str, optional
        The number of the version; by default the one with the alias `challenger`.
    tracking_uri : str
        The MLflow store, such as `sqlite:///mlflow.db`.

    Returns
    -------
    Promotion
        The new champion, the version before it, and the findings of the gate.

    Raises
    ------
    GateError
        Where a check fails (the message lists every check), the models cannot be compared, the version is the champion
        already, or the champion changed meanwhile.
    ModelError
        Where there is no such version.
    TrackingError
        Where the store does not answer.

    Examples
    --------
    >>> promote("shop", tracking_uri="sqlite:///no/mlflow.db")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    tiermodel.errors.TrackingError: sqlite:///no/mlflow.db: there is no such database; train with --register first, ...

    """
    with _store(tracking_uri) as client:
        found = _find(client, name, alias=None if challenger else _CHALLENGER, version=challenger)
        bundle = _bundle(client, found)
        champion = _champion(client, name)
        if champion is not None and champion.version == found.version:
            raise GateError(f"{name}: version {found.version} is the champion already")
        checks = judge(_evaluation(client, found), None if champion is None else _evaluation(client, champion))
        checks.append(judge_segments(bundle.segments))
        before = _version(champion)
        reasons = findings(f"{name}: version {found.version}", checks, before)
        if _version(_champion(client, name)) != before:
            raise GateError(f"{name}: the champion changed while the gate was at work; run it again")
        if before is not None:
            client.set_registered_model_alias(name, PREVIOUS, before)
        client.set_registered_model_alias(name, _CHAMPION, str(found.version))
        return Promotion(name, str(found.version), before, reasons)


def _champion(client: mlflow.MlflowClient, name: str) -> ModelVersion | None:
    version = client.get_registered_model(name).aliases.get(_CHAMPION)
    return None if version is None else client.get_model_version(name, version)


def _version(found: ModelVersion | None) -> str | None:
    return None if found is None else str(found.version)


def _evaluation(client: mlflow.MlflowClient, found: ModelVersion) -> pd.DataFrame:
    """Return the out-of-time predictions that the run of a version logged."""
    where = f"{found.name}/{found.version}"
    try:
        artifacts = client.get_run(str(found.run_id)).info.artifact_uri
        table = pd.read_parquet(_fetch(client, f"{artifacts}/{_EVALUATION_FILE}"))
    except (MlflowException, OSError, pa.ArrowInvalid) as error:
        words = f"its run has no readable {_EVALUATION_FILE} ({first_line(error)})"
        raise GateError(f"{where}: {words}; train it again with --register") from error
    if tuple(table.columns)[: len(EVALUATION)] != EVALUATION:  # more may be missing: older champions stay comparable
        words = f"{_EVALUATION_FILE} has the columns {list(table.columns)[:8]}"
        raise GateError(f"{where}: {words}; train it again with --register")
    return table


def resolve_model(reference: str, tracking_uri: str) -> Path:
    """Return the bundle folder of `DIR`, `NAME@alias` or `NAME/version`; a model is read as data, no code of it runs.

    Raises `ModelError` for a model that is missing, names another loader or brings code; `TrackingError` for the store.
    """
    if Path(reference).is_dir():
        return Path(reference)
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise ModelError(f"{reference}: there is no such folder; give a bundle's folder, NAME@alias or NAME/version")
    with _store(tracking_uri) as client:
        found = _find(client, match["name"], alias=match["alias"], version=match["version"])
        return trusted_bundle(_download(client, found), reference)


def _find(client: mlflow.MlflowClient, name: str, *, alias: str | None, version: str | None) -> ModelVersion:
    """Return a version by alias or number; `ModelError` where it does not exist or its upload did not finish."""
    aliases = _aliases(client, name)
    if alias is not None and alias not in aliases:
        known = ", ".join(f"{name}@{a}" for a in sorted(aliases)) or "none"
        raise ModelError(f"{name}@{alias} is not registered (there are: {known}); train with --register, and promote")
    try:
        found = client.get_model_version(name, version if alias is None else str(aliases[alias]))
    except MlflowException as error:
        if error.error_code not in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
            raise
        raise ModelError(f"{name}/{version} is not registered; its versions are listed in MLflow") from None
    if found.status != "READY":
        what = f"{name}/{found.version} is {found.status}, its upload did not finish"
        raise ModelError(f"{what}; train it again with --register")
    return found


def _aliases(client: mlflow.MlflowClient, name: str) -> dict[str, Any]:
    """Return the version of every alias of a registered model; `ModelError` where there is no such model."""
    registered = client.search_registered_models(f"name = '{name}'") if _REFERENCE.fullmatch(f"{name}@x") else []
    if not registered:
        raise ModelError(f"{name}: no model of that name is registered; register one with `tiermodel train --register`")
    return dict(registered[0].aliases)


def _bundle(client: mlflow.MlflowClient, found: ModelVersion) -> Bundle:
    return load_bundle(trusted_bundle(_download(client, found), f"{found.name}/{found.version}"))


def _download(client: mlflow.MlflowClient, found: ModelVersion) -> Path:
    return _fetch(client, client.get_model_version_download_uri(found.name, str(found.version)))


def _where_it_is(client: mlflow.MlflowClient, uri: str) -> str:
    """Return where an artifact is now; one of a SQLite store is found beside the database, if it moved with that.

    Raises `TrackingError` where it is in neither place.
    """
    database = database_of(client.tracking_uri)
    if database is None or not uri.startswith("models:/"):
        local = uri
    else:
        local = str(client.get_logged_model(uri.removeprefix("models:/")).artifact_location)
    path = Path(url2pathname(urlsplit(local).path)) if local.startswith(("file:", "/")) else None
    if database is None or path is None or path.exists():
        return uri
    _, found, below = path.as_posix().rpartition(f"/{_ARTIFACTS}/")
    here = database.parent / _ARTIFACTS / below
    if not found or not here.exists():
        raise TrackingError(
            f"{SQLITE}{database}: the store moved: it says that a model's files are in {path}, and they are not there. "
            f"Copy the folder {_ARTIFACTS} beside the database too, or train again with --register"
        )
    return here.as_uri()


def _fetch(client: mlflow.MlflowClient, uri: str) -> Path:
    """Return a local copy of an artifact, in a temporary folder that is removed when the process ends."""
    folder = new_folder()
    atexit.register(remove_folder, folder)
    uri = _where_it_is(client, uri)
    return Path(mlflow.artifacts.download_artifacts(uri, tracking_uri=client.tracking_uri, dst_path=str(folder)))


def _experiment(client: mlflow.MlflowClient, project: Project) -> str:
    """Return the id of the project's experiment, made if missing; on SQLite its artifacts go beside the database."""
    name = project.tracking.experiment or project.name
    found = client.get_experiment_by_name(name)
    database = database_of(project.tracking.uri)
    artifacts = None if database is None else (database.parent / _ARTIFACTS).as_uri()
    if found is None:
        return str(client.create_experiment(name, artifacts))
    if found.lifecycle_stage == "deleted":  # in MLflow; its name stays taken
        client.restore_experiment(found.experiment_id)
    if database is not None and found.artifact_location.endswith(f"/{_ARTIFACTS}"):
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
def _store(uri: str, *, create: bool = False) -> Iterator[mlflow.MlflowClient]:
    """Connect to a store, on SQLite as the only process; every fault of the store becomes a `TrackingError`.

    Without `create` a missing SQLite file is a fault; with it a new store is made.
    """
    database = database_of(uri)
    if database is not None and not create and not database.is_file():
        raise TrackingError(f"{uri}: there is no such database; train with --register first, or correct the path")
    address = uri if database is None else f"{SQLITE}{database}"
    with warnings.catch_warnings(), nullcontext() if database is None else database_lock(database):
        # MLflow's own use of SQLAlchemy, and its test of column names under pandas 3: nothing a user could change.
        warnings.filterwarnings("ignore", message=r"The ``noload`` loader strategy is deprecated")
        warnings.filterwarnings("ignore", message="Operation with range is deprecated")
        before = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None
        try:
            check_answer(uri)
            mlflow.set_tracking_uri(address)
            yield mlflow.MlflowClient(tracking_uri=address, registry_uri=address)
        except (MlflowException, SQLAlchemyError, OSError, ImportError) as error:
            words = f"{uri}: {first_line(error)}; check tracking.uri and that the store is up"
            raise TrackingError(re.sub(r"://[^\s@/]*@", "://…@", words)) from None  # no message shows a password
        finally:
            mlflow.set_tracking_uri(before)
