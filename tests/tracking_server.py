"""A real MLflow server on loopback, in a thread, behind a door that asks for a password and can fall silent."""

from __future__ import annotations

import base64
import os
import socketserver
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch as patched
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import pytest

USER, PASSWORD = "ada", "Geheim/8713@x"


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Door:
    """What stands before the server: `silent_after` so many further requests none is answered, but for /health."""

    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        self.app = app
        self.silent_after: int | None = None
        self.asked: list[str] = []
        self.refused: list[str] = []
        self.over = threading.Event()

    def __call__(self, environ: dict[str, Any], answer: Callable[..., Any]) -> Iterable[bytes]:
        """Answer a request, or let it wait."""
        path = str(environ["PATH_INFO"])
        if path != "/health":
            self.asked.append(path)
            if self.silent_after is not None:
                self.silent_after -= 1
                if self.silent_after < 0:
                    self.over.wait()
                    return []
        wanted = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if environ.get("HTTP_AUTHORIZATION") != wanted:
            self.refused.append(path)
            answer("401 Unauthorized", [("Content-Type", "text/plain")])
            return [b"who are you"]
        return self.app(environ, answer)


@contextmanager
def tracking_server(folder: Path, empty_store: Path) -> Iterator[tuple[str, Door]]:
    """Yield the address of a server on an empty store, without user and password, and its door."""
    database = folder / "server.db"
    database.write_bytes(empty_store.read_bytes())
    with pytest.MonkeyPatch.context() as patch, patched.dict(os.environ):  # the server leaves its store in there
        patch.setenv("_MLFLOW_SERVER_FILE_STORE", f"sqlite:///{database}")
        patch.setenv("_MLFLOW_SERVER_SERVE_ARTIFACTS", "true")
        patch.setenv("_MLFLOW_SERVER_ARTIFACT_ROOT", "mlflow-artifacts:/")
        patch.setenv("_MLFLOW_SERVER_ARTIFACT_DESTINATION", str(folder / "artifacts"))
        patch.setenv("MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE", "true")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of MLflow's own imports, some of which come with the first request
            import mlflow  # noqa: PLC0415  after our own settings
            from mlflow.server import app, handlers  # noqa: PLC0415  reads the environment

            with suppress(ImportError):  # it needs a package that we do not
                import_module("mlflow.server.auth")

        for name in ("_tracking_store", "_model_registry_store", "_artifact_repo"):
            if hasattr(handlers, name):
                patch.setattr(handlers, name, None)
        door = Door(app)
        with make_server("127.0.0.1", 0, door, _Server, _Quiet) as server:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
            thread.start()
            try:
                yield f"127.0.0.1:{server.server_port}", door
            finally:
                door.over.set()
                server.shutdown()
                thread.join()
                mlflow.set_tracking_uri(None)  # the server's requests set it for the whole process
