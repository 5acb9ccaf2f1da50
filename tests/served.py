"""Start `tiermodel serve` as a user does, in a process of its own, and talk to it over its socket."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import yaml

from tiermodel.config.project import Project

__all__ = ["TOKEN", "Reply", "Server", "as_json", "serving", "written"]

TOKEN = "Geheim-8713-Geheim-8713"  # noqa: S105  of a server that lives for the tests only
_JSON = {"Content-Type": "application/json"}


class Reply(NamedTuple):
    """An answer: its status, its headers and its body."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """Give the body as JSON."""
        return json.loads(self.body)


class Server:
    """A server at work, whose stderr goes to a file."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, token: str | None) -> None:
        self.process, self.log, self.token = process, log, token
        self.port = 0

    @property
    def said(self) -> str:
        """What the server wrote to stderr so far."""
        return self.log.read_text(encoding="utf-8")

    def wait_until_it_serves(self) -> None:
        """Wait for the line with the address; fail after a minute, or when the process ends."""
        self.wait_for("on http://127.0.0.1:")
        self.port = int(self.said.split("on http://127.0.0.1:", 1)[1].splitlines()[0])

    def wait_for(self, words: str) -> None:
        """Wait until the server wrote some words to stderr."""
        until = time.monotonic() + 60
        while words not in self.said:
            assert self.process.poll() is None, self.said
            assert time.monotonic() < until, self.said
            time.sleep(0.05)

    def connect(self, timeout: float = 60) -> http.client.HTTPConnection:
        """Open a connection."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Reply:
        """Send one request on a connection of its own."""
        connection = self.connect()
        given = dict(_JSON) if body is not None else {}
        given |= {"Authorization": f"Bearer {self.token}"} if self.token else {}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            with suppress(BrokenPipeError, ConnectionResetError):  # an answer that came before the body was sent
                connection.request(method, path, body, {name: value for name, value in given.items() if value})
            found = connection.getresponse()
            return Reply(found.status, dict(found.headers), found.read())
        finally:
            connection.close()

    def score(self, asked: Any) -> Reply:
        """Send rows to /score."""
        return self.ask("POST", "/score", json.dumps(asked, ensure_ascii=False).encode())

    def memory(self) -> float:
        """Give the resident memory of the process, in MB."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def stop(self) -> int:
        """Send SIGTERM and give the exit code."""
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)


@contextmanager
def serving(folder: Path, *words: object, token: str | None = None) -> Iterator[Server]:
    """Run `tiermodel serve` with these words in a folder, on a free port, until the block ends."""
    log = folder / f"serve-{len(list(folder.glob('serve-*.log')))}.log"
    environment = {name: value for name, value in os.environ.items() if name != "TIERMODEL_TOKEN"}
    environment |= {"TIERMODEL_TOKEN": token} if token else {}
    command = [sys.executable, "-m", "tiermodel", "serve", *map(str, words), "--port", "0"]
    with log.open("wb") as err:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=err)  # noqa: S603
    server = Server(process, log, token)
    try:
        server.wait_until_it_serves()
        yield server
    finally:
        if process.poll() is None:
            server.stop()


def written(project: Project, folder: Path) -> Path:
    """Write a project file."""
    settings = project.model_dump(mode="json", exclude={"folder"}, exclude_none=True)
    path = folder / "shop.yaml"
    path.write_text(yaml.safe_dump(settings, allow_unicode=True), encoding="utf-8")
    return path


def as_json(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Give rows as JSON has them: days as text, null for what is missing."""
    columns = {}
    for name, column in rows.items():
        plain = column.dt.strftime("%Y-%m-%dT%H:%M:%S") if pd.api.types.is_datetime64_any_dtype(column) else column
        found = (None if pd.isna(value) else value for value in plain.astype(object))
        columns[str(name)] = [str(value) if isinstance(value, date) else value for value in found]
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
