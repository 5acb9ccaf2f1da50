"""A tracking store as seen without MLflow: whether it answers, its database file, and a lock beside that file."""

from __future__ import annotations

import fcntl
import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tiermodel.errors import OutputBusyError

__all__ = ["SQLITE", "alone", "check_answer", "database_of", "first_line"]

SQLITE = "sqlite:///"
"""How the address of a SQLite store begins."""

_WAIT_SECONDS, _ANSWER_SECONDS = 120.0, 5.0


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or the name of its class where the message is empty."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


def database_of(uri: str) -> Path | None:
    """Return the database file of a SQLite store, relative to the current folder; None for any other store."""
    return Path(uri.removeprefix(SQLITE)).absolute() if uri.startswith(SQLITE) else None


def check_answer(uri: str) -> None:
    """Raise `OSError` where an HTTP store does not answer at all; MLflow itself would retry for minutes."""
    if not uri.startswith(("http://", "https://")):
        return
    try:
        urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=_ANSWER_SECONDS).close()  # noqa: S310 HTTP only
    except urllib.error.HTTPError as answer:
        answer.close()
    except (ValueError, http.client.HTTPException) as error:  # not an address, or not HTTP
        raise OSError(f"{type(error).__name__}: {error}") from None


@contextmanager
def alone(database: Path) -> Iterator[None]:
    """Lock a database for this run; `OutputBusyError` where another run keeps the lock for two minutes."""
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
