"""Whether a tracking store answers, asked without MLflow."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request

__all__ = ["check_answer"]


ANSWER_SECONDS = 5.0


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
