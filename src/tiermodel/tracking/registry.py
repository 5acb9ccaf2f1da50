"""Tracked runs and registered models in MLflow.

The import takes seconds, so this module is imported only where a run is tracked or a model is looked up. No logged
value names a customer.
"""

from __future__ import annotations

import json
import re
import tempfile
import warnings
from collections.abc import Iterable, Sequence
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from tiermodel import disk
from tiermodel.bundle.bundle import Bundle, load_bundle
from tiermodel.bundle.files import CARD
from tiermodel.config.project import Project
from tiermodel.errors import GateError, ModelError, ProjectError, TrackingError
from tiermodel.evaluation.baselines import OURS
from tiermodel.locks import first_line
from tiermodel.mlflow_flavor import FLAVOR, trusted_bundle
from tiermodel.monitoring.monitor import MonitorResult
from tiermodel.output import write_table
from tiermodel.predict import score_schema
from tiermodel.reporting.report import report
from tiermodel.tables.table import EPOCH
from tiermodel.tracking import runs
from tiermodel.tracking.artifacts import EVALUATION, LearnerMetrics, draw_evaluation, evaluation_table, learner_metrics
from tiermodel.tracking.connection import fetched, opened_store, put_text
from tiermodel.tracking.descriptions import GATE, NOT_JUDGED, SEARCHABLE, described, out_of_time
from tiermodel.tracking.experiment import experiment_of, started
from tiermodel.training.train import Trained
from tiermodel.training.tune import Tuned

__all__ = [
    "CHALLENGER", "CHAMPION", "aliases_of", "bundle_of", "champion_of", "champion_version", "changes_of",
    "evaluation_of", "find_version", "log_monitoring", "log_training", "log_tuning", "log_verdict", "origin_of",
    "reference_parts", "resolve_model", "version_of",
]  # fmt: skip


with warnings.catch_warnings():
    # MLflow's own type hints trip its own check on import.
    warnings.filterwarnings("ignore", message=".*Any type hint is inferred as AnyType", category=UserWarning)
    import mlflow
    from mlflow.data.code_dataset_source import CodeDatasetSource
    from mlflow.data.meta_dataset import MetaDataset
    from mlflow.entities import Metric, Param
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.exceptions import MlflowException
    from mlflow.models import ModelSignature
    from mlflow.pyfunc import log_model
    from mlflow.types import ColSpec, Schema
    from mlflow.types.schema import AnyType
    from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NOTE

CHALLENGER, CHAMPION = "challenger", "champion"
_EVALUATION_FILE, _CHANGES_FILE, _FIGURES = "evaluation.parquet", "changes.json", "figures"
MODEL_REQUIREMENTS = ("tiermodel", "lightgbm", "mlflow", "numba", "numpy", "pandas", "pyarrow", "scikit-learn", "scipy")
_REFERENCE = re.compile(r"(?:models:/)?(?P<name>[A-Za-z0-9][\w.-]{0,99})(?:@(?P<alias>[\w-]+)|/(?P<version>\d+))")
_WHO: dict[str, Any] = {"customer_id": "C-1", "as_of": pd.Timestamp("2025-07-31")}  # in the input example
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
    with opened_store(project.tracking.uri, create=True) as client:
        name = f"{project.name} · {bundle.facts['as_of']} · {bundle.version.rpartition('-')[2]}"
        found = list(learner_metrics(trained.out_of_fold))
        told = described(bundle, project.name, out_of_time(bundle, project.name, found))
        tags = runs.tags_of(bundle) | runs.design_of(project) | {GATE: NOT_JUDGED, MLFLOW_RUN_NOTE: told}
        with started(client, project, "training", name, tags) as run:
            mlflow.log_params(runs.parameters_of(project))
            _log_results(project, trained, found)
            mlflow.log_artifact(str(Path(bundle_folder, CARD)))
            _log_page(bundle, Path(bundle_folder))
            _log_learners(client, run, bundle, found)
            logged = _log_model(bundle, Path(bundle_folder).resolve())
        return _registered(client, project.name, logged, run, told) if register else None


def _registered(client: mlflow.MlflowClient, name: str, logged: Any, run: mlflow.ActiveRun, told: str) -> str:
    """Register a logged model as the challenger, and return `NAME/VERSION`.

    The registered model is described by its champion, by the latest version until there is one.
    """
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    tags = {key: run.data.tags[key] for key in (*SEARCHABLE, GATE)}
    source, model = logged.model_uri, logged.model_id
    made = client.create_model_version(name, source, run.info.run_id, tags, model_id=model, description=told)
    client.set_registered_model_alias(name, CHALLENGER, str(made.version))
    if champion_version(client, name) is None:
        client.update_registered_model(name, told)
    return f"{name}/{made.version}"


def log_tuning(project: Project, tuned: Tuned) -> None:
    """Log a tuning: one run with the verdicts and the best `models` section, and a child run for each trial.

    Raises `TrackingError` where the store does not answer.
    """
    with opened_store(project.tracking.uri, create=True) as client:
        dates = {"as_of": str(tuned.as_of), "judged_on": str(tuned.judged_on), "code_digest": runs.code_digest()}
        with started(client, project, "tuning", f"tune {tuned.as_of}", dates) as run:
            mlflow.log_text(tuned.to_yaml(), "models.yaml")
            for found in tuned.found:
                mlflow.log_metrics(runs.verdict_of(found))
                for trial in found.trials:
                    name = f"{found.target} {trial['number']}"
                    tags = {"kind": "trial", "project": project.name}
                    here = run.info.experiment_id
                    with mlflow.start_run(experiment_id=here, run_name=name, nested=True, tags=tags):
                        mlflow.log_params({"target": found.target, **trial["settings"]})
                        mlflow.log_metrics(runs.finite({f"{found.target}/{found.metric}": trial["error"]}))


def log_monitoring(project: Project, done: MonitorResult) -> None:
    """Log a run of `monitor`: one run for each model, whose metrics have a step for each date and draw its history.

    The step is the date in days since 1970-01-01. Raises `TrackingError` where there is no store, or it does not
    answer.
    """
    with opened_store(project.tracking.uri) as client:
        experiment, step = experiment_of(client, project), (done.as_of - EPOCH).days
        known = {"kind": "monitor", "bundle": done.model_version}
        tags = {**known, "project": project.name}
        wanted = " and ".join(f"tags.{name} = '{value}'" for name, value in known.items())
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
    with opened_store(project.tracking.uri, create=True) as client:
        if not client.search_registered_models(f"name = '{project.name}'"):
            return None
        found = champion_version(client, project.name)
        try:
            return None if found is None else bundle_of(client, found)
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
    if trained.changes is not None:
        mlflow.log_dict(trained.changes, _CHANGES_FILE)
    for name in ("slices", "proxies"):
        if rows := trained.bundle.facts.get(name):
            # Cells are objects, since MLflow asks pandas for them in a way that warns where columns are text.
            mlflow.log_table(pd.DataFrame(rows, dtype=object), f"{name}.json")
    with tempfile.TemporaryDirectory() as folder:
        table = pa.Table.from_pandas(evaluation_table(project, trained.out_of_fold), preserve_index=False)
        write_table(table, Path(folder, _EVALUATION_FILE))
        disk.make_folder(Path(folder, _FIGURES))
        draw_evaluation(project, trained.bundle, trained.out_of_fold, Path(folder, _FIGURES))
        mlflow.log_artifacts(folder)


def _log_page(bundle: Bundle, folder: Path) -> None:
    """Log the page of a bundle beside its card; without the charting library, a tag with the line that installs it."""
    with tempfile.TemporaryDirectory() as temporary:
        try:
            page = report([folder], Path(temporary, "report.html"), bundle.language)
        except ProjectError as missing:
            mlflow.set_tag("report", str(missing))
        else:
            mlflow.log_artifact(str(page))


def _log_learners(
    client: mlflow.MlflowClient, parent: mlflow.ActiveRun, bundle: Bundle, found: Iterable[LearnerMetrics]
) -> None:
    """Log each learner's metrics on each date as a child run, in three calls each because a store on disk is slow."""
    origin = {name: str(bundle.facts[name]) for name in ("as_of", "panel_digest", "project_digest")}
    origin["project"] = parent.data.tags["project"]
    for one in found:
        learner = {"target": one.target, "learner": one.learner, "date": str(one.day)}
        tags = origin | learner | {MLFLOW_PARENT_RUN_ID: parent.info.run_id, "kind": "learner", "role": one.role}
        child = client.create_run(parent.info.experiment_id, tags=tags, run_name=" · ".join(learner.values())).info
        metrics = [Metric(key, x, child.start_time, runs.step_of(one)) for key, x in runs.measures_of(one).items()]
        client.log_batch(child.run_id, metrics, [Param(key, x) for key, x in learner.items()])
        client.set_terminated(child.run_id)


def _log_model(bundle: Bundle, folder: Path) -> Any:
    """Log the folder as a model without code and return it; the input example is a made-up row, never a customer."""
    names, texts = bundle.inputs.names, bundle.scheme.scheme.text_features
    keys = [ColSpec("string", "customer_id", required=False), ColSpec("datetime", "as_of", required=False)]
    # AnyType, since MLflow refuses whole numbers where doubles are asked for; the model checks and converts them itself
    strings = (ColSpec("string", name) for name in texts)
    inputs = Schema([*(ColSpec(AnyType(), name) for name in names), *strings, *keys])
    outputs = Schema([ColSpec(_TYPES[column.type], column.name) for column in score_schema(bundle)])
    return log_model(
        name="model",
        loader_module=FLAVOR,
        data_path=str(folder),
        signature=ModelSignature(inputs, outputs),
        input_example=pd.DataFrame(1.0, index=[0], columns=list(names)).assign(**dict.fromkeys(texts, "text"), **_WHO),
        pip_requirements=[f"{name}=={installed(name)}" for name in MODEL_REQUIREMENTS],
    )


def champion_version(client: mlflow.MlflowClient, name: str) -> ModelVersion | None:
    """Return the version with the alias `champion`; None where there is none or it was deleted in MLflow."""
    version = aliases_of(client, name).get(CHAMPION)
    if version is None:
        return None
    try:
        return client.get_model_version(name, str(version))
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def origin_of(client: mlflow.MlflowClient, found: ModelVersion) -> dict[str, str]:
    """Return the tags of the run that made a version; {} where it has no run, or that was deleted."""
    try:
        return dict(client.get_run(str(found.run_id)).data.tags)
    except MlflowException:
        return {}


def changes_of(client: mlflow.MlflowClient, found: ModelVersion) -> dict[str, Any] | None:
    """Return who would change tier, as the run of a version logged it; None where it did not."""
    try:
        return dict(json.loads(fetched(client, f"{_artifacts_of(client, found)}/{_CHANGES_FILE}").read_bytes()))
    except (MlflowException, TrackingError, OSError, ValueError):  # no such file in any of the stores
        return None


def evaluation_of(client: mlflow.MlflowClient, found: ModelVersion) -> pd.DataFrame:
    """Return the out-of-time predictions that the run of a version logged; `GateError` where there are none to read."""
    where = f"{found.name}/{found.version}"
    try:
        table = pd.read_parquet(fetched(client, f"{_artifacts_of(client, found)}/{_EVALUATION_FILE}"))
    except (MlflowException, OSError, pa.ArrowInvalid) as error:
        words = f"its run has no readable {_EVALUATION_FILE} ({first_line(error)})"
        raise GateError(f"{where}: {words}; train it again with --register") from error
    if tuple(table.columns)[: len(EVALUATION)] != EVALUATION:  # more may be missing: older champions stay comparable
        words = f"{_EVALUATION_FILE} has the columns {list(table.columns)[:8]}"
        raise GateError(f"{where}: {words}; train it again with --register")
    return table


def log_verdict(client: mlflow.MlflowClient, found: ModelVersion, description: str, more: str) -> None:
    """Describe the run of a version anew, and add a section to its model card; the bundle stays as it is."""
    client.set_tag(str(found.run_id), MLFLOW_RUN_NOTE, description)
    card = trusted_bundle(_download(client, found), f"{found.name}/{found.version}") / CARD
    put_text(client, str(found.run_id), CARD, f"{card.read_text(encoding='utf-8')}\n---\n\n{more}")


def _artifacts_of(client: mlflow.MlflowClient, found: ModelVersion) -> str:
    return str(client.get_run(str(found.run_id)).info.artifact_uri)


def resolve_model(reference: str, tracking_uri: str) -> Path:
    """Return the bundle folder of `DIR`, `NAME@alias` or `NAME/version`; a model is read as data, no code of it runs.

    Raises `ModelError` for a model that is missing, names another loader or brings code; `TrackingError` for the store.
    """
    if Path(reference).is_dir():
        return Path(reference)
    parts = reference_parts(reference)
    with opened_store(tracking_uri) as client:
        return trusted_bundle(_download(client, find_version(client, **parts)), reference)


def version_of(reference: str, tracking_uri: str) -> str:
    """Return `NAME/version` for `NAME@alias` as it is now; raises as `resolve_model` does."""
    with opened_store(tracking_uri) as client:
        found = find_version(client, **reference_parts(reference))
        return f"{found.name}/{found.version}"


def reference_parts(reference: str) -> dict[str, Any]:
    """Return `name`, `alias` and `version` of a reference, one of the last two None; `ModelError` for any other text.

    >>> reference_parts("shop@champion")
    {'name': 'shop', 'alias': 'champion', 'version': None}
    """
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise ModelError(f"{reference}: there is no such folder; give a bundle's folder, NAME@alias or NAME/version")
    return match.groupdict()


def find_version(client: mlflow.MlflowClient, name: str, *, alias: str | None, version: str | None) -> ModelVersion:
    """Return a version by alias or number; `ModelError` where it does not exist or its upload did not finish."""
    aliases = aliases_of(client, name)
    if alias is not None and alias not in aliases:
        raise ModelError(_no_alias(client, name, alias, aliases))
    try:
        found = client.get_model_version(name, version if alias is None else str(aliases[alias]))
    except MlflowException as error:
        if error.error_code not in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
            raise
        known = ", ".join(_versions(client, name))
        raise ModelError(f"{name}/{version} is not registered; the latest versions are {known}") from None
    if found.status != "READY":
        what = f"{name}/{found.version} is {found.status}, its upload did not finish"
        raise ModelError(f"{what}; train it again with --register")
    return found


def _no_alias(client: mlflow.MlflowClient, name: str, alias: str, aliases: Iterable[str]) -> str:
    """Return what to do where an alias is missing; without a champion, how to score meanwhile."""
    known = ", ".join(f"{name}@{a}" for a in sorted(aliases)) or "none"
    told = f"{name}@{alias} is not registered (there are: {known})"
    if alias != CHAMPION:
        return f"{told}; train with --register, and promote"
    latest = next(iter(_versions(client, name)), f"{name}/1")
    return (
        f"{told}. No version has passed the gate yet: run `tiermodel promote {name}`, which says what is missing. "
        f"Until then give a version, --model {latest}, or the folder of a bundle: neither needs a champion"
    )


def _versions(client: mlflow.MlflowClient, name: str) -> list[str]:
    """Return the latest five versions of a registered model as references, the latest first."""
    found = sorted((int(one.version) for one in client.search_model_versions(f"name = '{name}'")), reverse=True)
    return [f"{name}/{number}" for number in found[:5]]


def aliases_of(client: mlflow.MlflowClient, name: str) -> dict[str, Any]:
    """Return the version of every alias of a registered model; `ModelError` where there is no such model."""
    registered = client.search_registered_models(f"name = '{name}'") if _REFERENCE.fullmatch(f"{name}@x") else []
    if not registered:
        raise ModelError(
            f"{name}: no model of that name is registered; register one with `tiermodel train PROJECT --register`, "
            "or give the folder of a bundle, such as models/NAME"
        )
    return dict(registered[0].aliases)


def bundle_of(client: mlflow.MlflowClient, found: ModelVersion) -> Bundle:
    """Return the bundle of a version, its hashes checked; `ModelError` where it cannot be read."""
    return load_bundle(trusted_bundle(_download(client, found), f"{found.name}/{found.version}"))


def _download(client: mlflow.MlflowClient, found: ModelVersion) -> Path:
    return fetched(client, client.get_model_version_download_uri(found.name, str(found.version)))
