"""What needs no MLflow, whose import takes seconds: its environment, passwords of addresses, whether a store works."""

from __future__ import annotations

import base64
import http.client
import os
import re
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from tiermodel.errors import OutputError, TrackingError
from tiermodel.locks import database_of
from tiermodel.output import check_writable

__all__ = [
    "ARTIFACTS", "HURRY", "check_answer", "check_store", "environment", "masked", "no_database", "set_environment",
    "without_password",
]  # fmt: skip

ARTIFACTS = "mlartifacts"
"""The folder of artifacts beside a SQLite store."""

ANSWER_SECONDS = 5.0
HURRY = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "1", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
"""How long a server is waited for that has just left a request without an answer."""

_FIRST_REQUEST = "/api/2.0/mlflow/experiments/search?max_results=1"  # /health says nothing of the database behind it
_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # A server that falls silent is waited for twice: 12 s, where MLflow's own settings take six minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "6",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


def set_environment() -> None:
    """Set the variables that MLflow reads when it is imported; the user's own settings are kept."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables while the block runs."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def without_password(uri: str) -> tuple[str, dict[str, str]]:
    """Return the address of a server without user and password, and the variables from which MLflow reads these.

    MLflow would put the password of an address into its messages. Other stores are returned as they are.

    >>> without_password("https://ada:p%40ss@mlflow.example:5000/base")[0]
    'https://mlflow.example:5000/base'
    >>> without_password("sqlite:///mlflow.db")
    ('sqlite:///mlflow.db', {})
    """
    if not uri.startswith(("http://", "https://")) or "@" not in uri:
        return uri, {}
    try:
        parts = urlsplit(uri)
    except ValueError:  # no address: whoever connects to it says so
        return uri, {}
    user, _, place = parts.netloc.rpartition("@")
    name, _, password = user.partition(":")
    variables = {"MLFLOW_TRACKING_USERNAME": unquote(name), "MLFLOW_TRACKING_PASSWORD": unquote(password)}
    return urlunsplit(parts._replace(netloc=place)), variables if user else {}


def masked(text: str) -> str:
    """Return a text with what stands before the @ of an address blanked: no message shows a password.

    >>> masked("postgresql://ada:secret@db/mlflow: no answer")
    'postgresql://…@db/mlflow: no answer'
    """
    return re.sub(r"://\S*@", "://…@", text)


def check_answer(uri: str) -> None:
    """Raise `OSError` where an HTTP store leaves a question to its database unanswered; MLflow would wait minutes."""
    if not uri.startswith(("http://", "https://")):
        return
    address, who = without_password(uri)
    try:
        request = urllib.request.Request(f"{address.rstrip('/')}{_FIRST_REQUEST}")  # noqa: S310 HTTP only
        if who:
            pair = f"{who['MLFLOW_TRACKING_USERNAME']}:{who['MLFLOW_TRACKING_PASSWORD']}"
            request.add_header("Authorization", f"Basic {base64.b64encode(pair.encode()).decode()}")
        urllib.request.urlopen(request, timeout=ANSWER_SECONDS).close()  # noqa: S310 HTTP only
    except urllib.error.HTTPError as answer:
        answer.close()
        if who and answer.code in {401, 403}:
            raise OSError(f"the server refuses this user and password ({answer.code})") from None
    except TimeoutError:
        raise OSError(f"timed out: no answer within {ANSWER_SECONDS:g} s") from None
    except (ValueError, http.client.HTTPException) as error:  # not an address, or not HTTP
        raise OSError(f"{type(error).__name__}: {error}") from None


def check_store(uri: str, *, create: bool = True) -> None:
    """Raise `TrackingError` where a store could not be written, within seconds and before any work.

    That is a server without an answer, a SQLite database that is read-only, damaged, or missing in a folder that cannot
    be written, or artifacts beside it that cannot be. Without `create` a missing database is a fault in any folder.
    Nothing is left behind.
    """
    database = database_of(uri)
    if database is not None and not create and not database.is_file():
        raise TrackingError(no_database(uri))
    try:
        check_answer(uri)
        if database is None:
            return
        if database.is_file():
            _check_database(database)
        check_writable(database)
        check_writable(database.parent / ARTIFACTS / "run")
    except (OSError, OutputError, sqlite3.Error) as error:
        raise TrackingError(masked(f"{uri}: {error}; check tracking.uri and that the store is up")) from None


def no_database(uri: str) -> str:
    """Return what is wrong with the address of a SQLite database that is not there, and what to do."""
    return (
        f"{uri}: there is no such database; train with --register first, or correct the path: where the store moved, "
        f"name its new place in tracking.uri or --tracking-uri, and keep the folder {ARTIFACTS} beside it"
    )


def _check_database(database: Path) -> None:
    """Write as a run will, and take it back; a writer at work is no fault: who comes after it waits."""
    with closing(sqlite3.connect(database, timeout=0, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("CREATE TABLE tiermodel_check (x)")
            connection.execute("ROLLBACK")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise
