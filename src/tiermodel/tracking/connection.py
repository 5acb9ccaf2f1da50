"""A connection to the MLflow store, and the files of its runs and models; MLflow is imported here first.

On SQLite one process works at a time, under a lock beside the database: MLflow creates tables without a lock, and the
last process to set an alias would win. `OutputBusyError` is raised where the lock does not become free.
"""

from __future__ import annotations

import atexit
import glob
import itertools
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from sqlalchemy.exc import SQLAlchemyError

from tiermodel import disk
from tiermodel.errors import TrackingError
from tiermodel.locks import SQLITE, database_lock, database_of, first_line
from tiermodel.tables.scratch import new_folder, remove_folder
from tiermodel.tracking.store import (
    ARTIFACTS,
    check_answer,
    environment,
    masked,
    no_database,
    set_environment,
    without_password,
)

__all__ = ["fetched", "opened_store", "put_text"]


set_environment()
with warnings.catch_warnings():
    # MLflow's own type hints trip its own check on import.
    warnings.filterwarnings("ignore", message=".*Any type hint is inferred as AnyType", category=UserWarning)
    import mlflow
    from mlflow.exceptions import MlflowException
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository


_MADE = itertools.count()


@contextmanager
def opened_store(uri: str, *, create: bool = False) -> Iterator[mlflow.MlflowClient]:
    """Connect to a store, on SQLite as the only process; every fault of the store becomes a `TrackingError`.

    Without `create` a missing SQLite file is a fault; with it a new store is made.
    """
    database = database_of(uri)
    if database is not None and not create and not database.is_file():
        raise TrackingError(no_database(uri))
    address, who = without_password(uri) if database is None else (f"{SQLITE}{database}", {})
    alone = nullcontext() if database is None else database_lock(database)
    with warnings.catch_warnings(), environment(who), alone:
        # MLflow's own use of SQLAlchemy, and its test of column names under pandas 3: nothing a user could change.
        warnings.filterwarnings("ignore", message=r"The ``noload`` loader strategy is deprecated")
        warnings.filterwarnings("ignore", message="Operation with range is deprecated")
        before = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None
        try:
            check_answer(uri)
            if database is not None and not database.is_file():
                _make_store(database)
            mlflow.set_tracking_uri(address)
            yield mlflow.MlflowClient(tracking_uri=address, registry_uri=address)
        except (MlflowException, SQLAlchemyError, OSError, ImportError) as error:
            words = f"{uri}: {first_line(error)}; check tracking.uri and that the store is up"
            raise TrackingError(masked(words)) from None
        finally:
            mlflow.set_tracking_uri(before)


def _make_store(database: Path) -> None:
    """Make a new SQLite store, whole or not at all: MLflow cannot open one whose making was killed half-way."""
    for left in database.parent.glob(f".{glob.escape(database.name)}.*.new"):
        disk.unlink(left)
    number = next(_MADE)  # MLflow makes tables once for a name
    new = database.with_name(f".{database.name}.{os.getpid()}-{number}.new")
    mlflow.MlflowClient(tracking_uri=f"{SQLITE}{new}", registry_uri=f"{SQLITE}{new}").search_experiments(max_results=1)
    disk.rename(new, database)


def _where_it_is(client: mlflow.MlflowClient, uri: str) -> str:
    """Return where an artifact is now; one of a SQLite store is found beside the database, if it moved with that.

    Raises `TrackingError` where it is in neither place.
    """
    database = database_of(client.tracking_uri)
    local = uri
    if uri.startswith("models:/"):
        local = str(client.get_logged_model(uri.removeprefix("models:/")).artifact_location)
    path = Path(url2pathname(urlsplit(local).path)) if local.startswith(("file:", "/")) else None
    if path is None or path.exists() or path.parent.exists():  # what is not in its folder was never logged
        return uri
    if database is None:
        raise TrackingError(
            f"{client.tracking_uri}: the store moved, or its files are on another machine: it says that they are in "
            f"{path}, and they are not there. Put them there, or start the server with --serve-artifacts and train "
            "again with --register"
        )
    _, found, below = path.as_posix().rpartition(f"/{ARTIFACTS}/")
    here = database.parent / ARTIFACTS / below
    if not found or not (here.exists() or here.parent.exists()):
        raise TrackingError(
            f"{SQLITE}{database}: the store moved: it says that a model's files are in {path}, and they are not there. "
            f"Copy the folder {ARTIFACTS} beside the database too, or train again with --register"
        )
    return here.as_uri()


def fetched(client: mlflow.MlflowClient, uri: str) -> Path:
    """Return a local copy of an artifact, in a temporary folder that is removed when the process ends."""
    folder = new_folder()
    atexit.register(remove_folder, folder)
    uri = _where_it_is(client, uri)
    return Path(mlflow.artifacts.download_artifacts(uri, tracking_uri=client.tracking_uri, dst_path=str(folder)))


def put_text(client: mlflow.MlflowClient, run_id: str, name: str, text: str) -> None:
    """Write a text to the artifacts of a run, where they are now: MLflow would write to where the store once was."""
    where = _where_it_is(client, str(client.get_run(run_id).info.artifact_uri))
    folder = new_folder()
    try:
        disk.write_bytes(folder / name, text.encode())
        get_artifact_repository(where, tracking_uri=client.tracking_uri).log_artifact(str(folder / name))
    finally:
        remove_folder(folder)
