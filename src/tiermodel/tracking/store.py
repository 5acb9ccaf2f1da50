"""What comes before the import of MLflow: its environment, and whether a store answers."""

from __future__ import annotations

import http.client
import os
import urllib.error
import urllib.request

__all__ = ["check_answer", "set_environment"]


ANSWER_SECONDS = 5.0


def set_environment() -> None:
    """Set the variables that MLflow reads when it is imported; the user's own settings are kept."""
    for name, value in {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
        "MLFLOW_LOGGING_LEVEL": "ERROR",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    }.items():
        os.environ.setdefault(name, value)


def check_answer(uri: str) -> None:
    """Raise `OSError` where an HTTP store does not answer at all; MLflow itself would retry for minutes."""
    if not uri.startswith(("http://", "https://")):
        return
    try:
        urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=ANSWER_SECONDS).close()  # noqa: S310 HTTP only
    except urllib.error.HTTPError as answer:
        answer.close()
    except (ValueError, http.client.HTTPException) as error:  # not an address, or not HTTP
        raise OSError(f"{type(error).__name__}: {error}") from None
