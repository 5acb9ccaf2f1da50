"""A process that serves: the socket, the registry that is looked at now and then, and the end at SIGTERM."""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from tiermodel.bundle.bundle import load_bundle
from tiermodel.config.project import Project
from tiermodel.errors import OutputError, ProjectError, TierModelError
from tiermodel.serving.app import make_app
from tiermodel.serving.service import Service

__all__ = ["TOKEN", "serve"]

TOKEN = "TIERMODEL_TOKEN"  # noqa: S105  the name of a variable
"""The environment variable with the token that requests must bring."""
_SHORTEST_TOKEN = 16
_HEAD_SECONDS, _IDLE_SECONDS, _DRAIN_SECONDS = 5, 30, 30
_MOST_CONNECTIONS = 500
_POLL_SECONDS = 3

Newest = Callable[[], tuple[str, Callable[[], Path]]]
"""Returns which version the reference stands for now, and how to get the folder of its bundle."""


def serve(project: Project, folder: Path, reference: str, host: str, port: int, newest: Newest | None) -> None:
    """Serve a model until SIGTERM or SIGINT; then no connection is taken any more, and open requests are answered.

    `newest`, where the model is that of an alias, is asked every few seconds: another version takes over between two
    requests. One line on stderr says where the server listens. Port 0 is any free one.

    Raises `ModelError` for a model that cannot be read or does not fit the project, `ProjectError` for a host beyond
    this machine without a token, `OutputError` for an address that cannot be used.
    """
    token = _token(host)
    found = newest() if newest is not None else None
    service = Service(project, load_bundle(folder), reference)
    config = uvicorn.Config(
        make_app(service, token),
        http=_Protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_keep_alive=_IDLE_SECONDS,
        timeout_graceful_shutdown=_DRAIN_SECONDS,
    )
    listener, stopped = _listener(host, port), threading.Event()
    if newest is not None and found is not None:
        work = (service, newest, found[0], stopped)
        threading.Thread(target=_follow, args=work, name="registry", daemon=True).start()
    where = f"[{host}]" if ":" in host else host
    address = f"http://{where}:{listener.getsockname()[1]}"
    print(f"tiermodel: serving {service.version} on {address}", file=sys.stderr, flush=True)  # noqa: T201
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)  # the server takes them, and raises them once more when it has drained
    gc.collect()
    gc.freeze()  # what is loaded stays: no collection of what requests leave behind looks at it again
    try:
        uvicorn.Server(config).run([listener])
    finally:
        gc.unfreeze()
        stopped.set()


def _token(host: str) -> str | None:
    """Return the token; `ProjectError` where it is short, or missing on a server that other machines can reach."""
    token = os.environ.get(TOKEN, "").strip()
    if token and len(token) < _SHORTEST_TOKEN:
        raise ProjectError(
            f"{TOKEN} has {len(token)} characters; give at least {_SHORTEST_TOKEN} (made by: openssl rand -hex 32)"
        )
    if not token and not _is_loopback(host):
        raise ProjectError(
            f"--host {host}: other machines can reach it, and there is no token: export {TOKEN}=$(openssl rand -hex 32)"
        )
    return token or None


def _is_loopback(host: str) -> bool:
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def _listener(host: str, port: int) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family, backlog=_MOST_CONNECTIONS)
    except OSError as error:
        words = error.strerror or str(error)
        raise OutputError(f"--host {host} --port {port}: {words}; give another, --port 0 is any free one") from None


def _follow(service: Service, newest: Newest, version: str, stopped: threading.Event) -> None:
    """Take over each new version until the server stops; a fault leaves the model in use as it is."""
    while not stopped.wait(_POLL_SECONDS):
        try:
            now, folder = newest()
            if now != version:
                service.use(service.prepared(load_bundle(folder())))
                print(f"tiermodel: serving {service.version} from now on", file=sys.stderr, flush=True)  # noqa: T201
                version = now
        except Exception as error:  # noqa: BLE001  whatever a store does, the thread looks again
            service.metrics.failures.inc()
            why = error if isinstance(error, TierModelError) else type(error).__name__
            print(f"tiermodel: still serving {service.version}: {why}", file=sys.stderr, flush=True)  # noqa: T201


class _Protocol(H11Protocol):
    """HTTP/1.1 with a limit on the time that the head of a request takes."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        with suppress(OSError):  # asyncio leaves it off; head and body of an answer are two writes, 40 ms apart then
            transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()
        elif self._late is None:
            self._wait()

    def on_response_complete(self) -> None:
        self._stop_waiting()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._late = self.loop.call_later(_HEAD_SECONDS, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None
