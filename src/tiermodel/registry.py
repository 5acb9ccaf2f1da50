"""Track runs and register models in MLflow: this module alone imports it, late, because that takes seconds.

On SQLite one process at a time is at work, under a lock beside the database: MLflow creates the tables without one, and
its aliases go to whoever writes last. Nothing that is logged names a customer.
"""

from __future__ import annotations

import atexit
import fcntl
import hashlib
import http.client
import json
import os
import re
import shutil
import tempfile
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from sqlalchemy.exc import SQLAlchemyError

from tiermodel.bundle import Bundle, load_bundle
from tiermodel.config import Project
from tiermodel.errors import GateError, ModelError, OutputBusyError, TrackingError
from tiermodel.evaluation import EVALUATION, draw_evaluation, evaluation_table, metrics_by_date
from tiermodel.gate import judge, judge_segments
from tiermodel.mlflow_flavor import FLAVOR, trusted_bundle
from tiermodel.predict import score_schema
from tiermodel.tables.history import TABLES
from tiermodel.tables.output import write_table
from tiermodel.tiers.segments import segment_names
from tiermodel.train import Trained

# MLflow reads these when it is imported; what a user has set is kept.
for _name, _value in {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}.items():
    os.environ.setdefault(_name, _value)

with warnings.catch_warnings():
    # MLflow's own type hints trip its own check on import.
    warnings.filterwarnings("ignore", message=".*Any type hint is inferred as AnyType", category=UserWarning)
    import mlflow
    import mlflow.pyfunc
    from mlflow.data.code_dataset_source import CodeDatasetSource
    from mlflow.data.meta_dataset import MetaDataset
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.exceptions import MlflowException
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

__all__ = ["Promotion", "champion_of", "log_training", "promote", "resolve_model"]

_CHALLENGER, _CHAMPION, _PREVIOUS = "challenger", "champion", "previous"
_EVALUATION_FILE = "evaluation.parquet"
_PACKAGES = ("tiermodel", "lightgbm", "mlflow", "numba", "numpy", "pandas", "pyarrow", "scikit-learn", "scipy")
_REFERENCE = re.compile(r"(?:models:/)?(?P<name>[A-Za-z0-9][\w.-]{0,99})(?:@(?P<alias>[\w-]+)|/(?P<version>\d+))")
_SQLITE = "sqlite:///"
_WAIT_SECONDS, _ANSWER_SECONDS = 120.0, 5.0
_TYPES = {pa.int64(): "long", pa.float64(): "double", pa.date32(): "datetime", pa.string(): "string"}
_EPOCH = date(1970, 1, 1)
# Filters and queries in SQL may name customers, folders may name people, a database's address may hold a password.
_UNLOGGED: Any = {
    "folder": True,
    "tracking": True,
    "data": {table: {"path", "query", "where"} for table in TABLES},
}


@dataclass(frozen=True)
class Promotion:
    """Say which version became champion, which one it followed, and what the gate found, in words and figures."""

    name: str
    version: str
    previous: str | None
    reasons: tuple[str, ...]

    def to_text(self) -> str:
        """Put it in lines that a person reads."""
        before = f"after version {self.previous}, kept as {self.name}@{_PREVIOUS}" if self.previous else "the first one"
        lines = [f"{self.name}: version {self.version} is the champion, {before}", *(f"- {r}" for r in self.reasons)]
        return "\n".join(lines)


def log_training(project: Project, trained: Trained, bundle_folder: str | Path, *, register: bool) -> str | None:
    """Log a training run with its model; with `register` give it the alias `challenger` and return `NAME/VERSION`.

    The store is `project.tracking.uri`; a relative `sqlite:///` path starts at the current directory, and its artifacts
    go to `mlartifacts/` beside the database. Raises `TrackingError` where the store does not answer, `ModelError` where
    the folder does not hold the trained bundle.
    """
    bundle = load_bundle(bundle_folder)
    if bundle.version != trained.bundle.version:
        wanted = trained.bundle.version
        raise ModelError(f"{bundle_folder} holds {bundle.version}, but {wanted} was trained: save that one there")
    with _store(project.tracking.uri, create=True) as client:
        experiment = _experiment(client, project.tracking.uri, project.tracking.experiment or project.name)
        with mlflow.start_run(experiment_id=experiment, run_name=bundle.version) as run:
            mlflow.set_tags(_tags(bundle))
            mlflow.log_params(_without_literals(_flat(project.model_dump(mode="json", exclude=_UNLOGGED))))
            _log_results(project, trained)
            logged = _log_model(bundle, Path(bundle_folder).resolve())
        if not register:
            return None
        if not client.search_registered_models(f"name = '{project.name}'"):
            client.create_registered_model(project.name)
        made = client.create_model_version(project.name, logged.model_uri, run.info.run_id, model_id=logged.model_id)
        client.set_registered_model_alias(project.name, _CHALLENGER, str(made.version))
        return f"{project.name}/{made.version}"


def champion_of(project: Project) -> Bundle | None:
    """Load the project's champion; None where there is none yet, or only one of a format that is no longer read."""
    with _store(project.tracking.uri, create=True) as client:
        if not client.search_registered_models(f"name = '{project.name}'"):
            return None
        found = _champion(client, project.name)
        if found is None:
            return None
        try:
            return load_bundle(trusted_bundle(_download(client, found), f"{found.name}/{found.version}"))
        except ModelError:
            return None


def _code_digest() -> str:
    """Give the SHA-256 of this package's modules, by name and content."""
    home = Path(__file__).parent
    digest = hashlib.sha256()
    for module in sorted(home.rglob("*.py")):
        digest.update(module.relative_to(home).as_posix().encode() + b"\0" + module.read_bytes())
    return digest.hexdigest()


def _tags(bundle: Bundle) -> dict[str, str]:
    noted = ("as_of", "customers", "panel_digest", "project_digest", "training_rows")
    tags = {"bundle": bundle.version, "scheme_version": bundle.scheme_version}
    tags |= {name: str(bundle.facts[name]) for name in noted} | {"code_digest": _code_digest()}
    return tags | {f"version.{name}": str(version) for name, version in bundle.facts["versions"].items()}


def _flat(settings: Mapping[str, Any], above: str = "") -> dict[str, str]:
    """Name every setting by its path; lists become JSON."""
    flat: dict[str, str] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{above}{key}.")
        else:
            flat[f"{above}{key}"] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return flat


def _without_literals(settings: Mapping[str, str]) -> dict[str, str]:
    """Empty the quoted texts of the mappings' SQL, which may name a customer."""
    return {k: re.sub(r"'[^']*'", "'…'", v) if k.startswith("data.") else v for k, v in settings.items()}


def _log_results(project: Project, trained: Trained) -> None:
    """Log what the model was trained on and how it did out of time, by date (steps are days since 1970) and in all."""
    digest = trained.bundle.facts["panel_digest"]
    source = CodeDatasetSource(tags={"panel_digest": digest})
    mlflow.log_input(MetaDataset(source, name=project.name, digest=digest[:36]), context="training")
    for day, metrics in metrics_by_date(trained.later):
        mlflow.log_metrics(_finite(metrics), step=(day - _EPOCH).days)
    for target, metrics in trained.bundle.facts["later"].items():
        mlflow.log_metrics(_finite({f"{target}/{name}/all": value for name, value in metrics.items()}))
    segments = trained.bundle.segments
    mlflow.log_metrics(
        {"segments/count": len(segment_names(segments)) - 1, "segments/stability": segments["stability"]}
    )
    with tempfile.TemporaryDirectory() as folder:
        table = pa.Table.from_pandas(evaluation_table(project, trained.later), preserve_index=False)
        write_table(table, Path(folder, _EVALUATION_FILE))
        draw_evaluation(project, trained.later["churn"], Path(folder))
        mlflow.log_artifacts(folder)


def _finite(values: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items() if np.isfinite(value)}


def _log_model(bundle: Bundle, folder: Path) -> Any:
    """Log the folder as a model without code; the example is a made-up row of ones, never a customer."""
    names = bundle.inputs.names
    keys = [ColSpec("string", "customer_id", required=False), ColSpec("datetime", "as_of", required=False)]
    inputs = Schema([*(ColSpec("double", name) for name in names), *keys])
    outputs = Schema([ColSpec(_TYPES[column.type], column.name) for column in score_schema(bundle)])
    return mlflow.pyfunc.log_model(
        name="model",
        loader_module=FLAVOR,
        data_path=str(folder),
        signature=ModelSignature(inputs, outputs),
        input_example=pd.DataFrame(1.0, index=[0], columns=list(names)),
        pip_requirements=[f"{name}=={installed(name)}" for name in _PACKAGES],
    )


def promote(name: str, challenger: str | None = None, *, tracking_uri: str) -> Promotion:
    """Make a version, by default the one with the alias `challenger`, the champion if it passes `tiermodel.gate`.

    The champion before it gets the alias `previous`. Raises `GateError` with every check, in words and figures, where
    the gate says no or somebody else changed the champion meanwhile, `ModelError` where there is no such version.
    """
    with _store(tracking_uri) as client:
        found = _find(client, name, alias=None if challenger else _CHALLENGER, version=challenger)
        bundle = load_bundle(trusted_bundle(_download(client, found), f"{name}/{found.version}"))
        champion = _champion(client, name)
        if champion is not None and champion.version == found.version:
            raise GateError(f"{name}: version {found.version} is the champion already")
        checks = judge(_evaluation(client, found), None if champion is None else _evaluation(client, champion))
        checks.append(judge_segments(bundle.segments))
        before = None if champion is None else str(champion.version)
        reasons = tuple(f"{'passed' if check.passed else 'FAILED'}: {check.words}" for check in checks)
        if not all(check.passed for check in checks):
            kept = "there is no champion still" if before is None else f"version {before} stays champion"
            lines = [f"{name}: version {found.version} is not promoted, {kept}", *(f"- {reason}" for reason in reasons)]
            raise GateError("\n".join(lines))
        now = _champion(client, name)
        if (None if now is None else str(now.version)) != before:
            raise GateError(f"{name}: the champion changed while the gate was at work; run it again")
        if before is not None:
            client.set_registered_model_alias(name, _PREVIOUS, before)
        client.set_registered_model_alias(name, _CHAMPION, str(found.version))
        return Promotion(name, str(found.version), before, reasons)


def _champion(client: mlflow.MlflowClient, name: str) -> ModelVersion | None:
    version = client.get_registered_model(name).aliases.get(_CHAMPION)
    return None if version is None else client.get_model_version(name, version)


def _evaluation(client: mlflow.MlflowClient, found: ModelVersion) -> pd.DataFrame:
    """Read the out-of-time predictions that a version's run logged."""
    where = f"{found.name}/{found.version}"
    try:
        artifacts = client.get_run(str(found.run_id)).info.artifact_uri
        table = pd.read_parquet(_fetch(client, f"{artifacts}/{_EVALUATION_FILE}"))
    except (MlflowException, OSError, pa.ArrowInvalid) as error:
        words = f"its run has no readable {_EVALUATION_FILE} ({_first_line(error)})"
        raise GateError(f"{where}: {words}; train it again with --register") from error
    if tuple(table.columns)[: len(EVALUATION)] != EVALUATION:  # an older champion still has to be comparable
        words = f"{_EVALUATION_FILE} has the columns {list(table.columns)[:8]}"
        raise GateError(f"{where}: {words}; train it again with --register")
    return table


def resolve_model(reference: str, tracking_uri: str) -> Path:
    """Find the bundle folder of `DIR`, `NAME@alias` or `NAME/version`; a model is read as data, none of it runs.

    Raises `ModelError` for a model that is not there, or that names any loader but ours or brings code, `TrackingError`
    where the store does not answer.
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
    """Look a version up by alias or number; `ModelError` where it is not there or its upload did not finish."""
    registered = client.search_registered_models(f"name = '{name}'") if _REFERENCE.fullmatch(f"{name}@x") else []
    if not registered:
        raise ModelError(f"{name}: no model of that name is registered; register one with `tiermodel train --register`")
    aliases: Mapping[str, Any] = registered[0].aliases
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
        words = f"{name}/{found.version} is {found.status}, its upload did not finish"
        raise ModelError(f"{words}; train it again with --register")
    return found


def _download(client: mlflow.MlflowClient, found: ModelVersion) -> Path:
    return _fetch(client, client.get_model_version_download_uri(found.name, str(found.version)))


def _fetch(client: mlflow.MlflowClient, uri: str) -> Path:
    """Copy an artifact into a temporary folder that lasts as long as this process."""
    folder = tempfile.mkdtemp(prefix="tiermodel-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(mlflow.artifacts.download_artifacts(uri, tracking_uri=client.tracking_uri, dst_path=folder))


def _experiment(client: mlflow.MlflowClient, uri: str, name: str) -> str:
    """Find or make the experiment; on SQLite its artifacts go beside the database, wherever the process was started."""
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    database = _database(uri)
    artifacts = None if database is None else (database.parent / "mlartifacts").as_uri()
    return str(client.create_experiment(name, artifacts))


@contextmanager
def _store(uri: str, *, create: bool = False) -> Iterator[mlflow.MlflowClient]:
    """Connect to a store that answers, alone on SQLite; every fault of the store is a `TrackingError`."""
    database = _database(uri)
    if database is not None and not create and not database.is_file():
        raise TrackingError(f"{uri}: there is no such database; train with --register first, or correct the path")
    address = uri if database is None else f"{_SQLITE}{database}"
    with warnings.catch_warnings(), nullcontext() if database is None else _alone(database):
        # MLflow's own use of SQLAlchemy, and its test of column names under pandas 3: nothing a user could change.
        warnings.filterwarnings("ignore", message=r"The ``noload`` loader strategy is deprecated")
        warnings.filterwarnings("ignore", message="Operation with range is deprecated")
        before = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None
        try:
            _check_answer(uri)
            mlflow.set_tracking_uri(address)
            yield mlflow.MlflowClient(tracking_uri=address, registry_uri=address)
        except (MlflowException, SQLAlchemyError, OSError, ImportError) as error:
            words = f"{uri}: {_first_line(error)}; check tracking.uri and that the store is up"
            raise TrackingError(re.sub(r"://[^\s@/]*@", "://…@", words)) from None  # a password goes into no message
        finally:
            mlflow.set_tracking_uri(before)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


def _database(uri: str) -> Path | None:
    """Give the file of a SQLite store, from the current directory where it is relative."""
    return Path(uri.removeprefix(_SQLITE)).absolute() if uri.startswith(_SQLITE) else None


def _check_answer(uri: str) -> None:
    """Ask an HTTP store for its health: MLflow itself would try for minutes. Any answer will do."""
    if not uri.startswith(("http://", "https://")):
        return
    try:
        urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=_ANSWER_SECONDS).close()  # noqa: S310 HTTP only
    except urllib.error.HTTPError as answer:
        answer.close()
    except (ValueError, http.client.HTTPException) as error:  # not an address, or not HTTP
        raise OSError(f"{type(error).__name__}: {error}") from None


@contextmanager
def _alone(database: Path) -> Iterator[None]:
    """Hold the lock beside a database; `OutputBusyError` where another run holds it for two minutes."""
    database.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + _WAIT_SECONDS
    with database.with_name(f".{database.name}.lock").open("w") as lock:
        while not _locked(lock.fileno()):
            if time.monotonic() > deadline:
                raise OutputBusyError(f"{database} is in use by another run for minutes: wait for it, or stop it")
            time.sleep(0.05)
        yield


def _locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
