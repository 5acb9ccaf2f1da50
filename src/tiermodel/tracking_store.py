"""Reach a tracking store: whether it answers, where its database lies, and a lock beside it; MLflow is not needed."""

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

WAIT_SECONDS, ANSWER_SECONDS = 120.0, 5.0


def first_line(error: Exception) -> str:
    """Give the first line of what an error says, or its kind where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


def database_of(uri: str) -> Path | None:
    """Give the file of a SQLite store, from the current directory where it is relative."""
    return Path(uri.removeprefix(SQLITE)).absolute() if uri.startswith(SQLITE) else None


def check_answer(uri: str) -> None:
    """Ask an HTTP store for its health: MLflow itself would try for minutes. Any answer will do."""
    if not uri.startswith(("http://", "https://")):
        return
    try:
        urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=ANSWER_SECONDS).close()  # noqa: S310 HTTP only
    except urllib.error.HTTPError as answer:
        answer.close()
    except (ValueError, http.client.HTTPException) as error:  # not an address, or not HTTP
        raise OSError(f"{type(error).__name__}: {error}") from None


@contextmanager
def alone(database: Path) -> Iterator[None]:
    """Hold the lock beside a database; `OutputBusyError` where another run holds it for two minutes."""
    database.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + WAIT_SECONDS
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
