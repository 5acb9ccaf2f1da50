"""Start a real PostgreSQL server for the tests: on loopback, on a free port, in a folder that goes when they end."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PASSWORD = "Geheim-8713"  # noqa: S105  of a server that lives for the tests only


@contextmanager
def postgresql() -> Iterator[str]:
    """Yield the URL of a fresh, empty database; skip where there is no server and none can be installed."""
    programs = _programs() or _installed()
    if programs is None:
        pytest.skip("there is no PostgreSQL server here, and it cannot be installed (not root, or no apt package)")
    folder = Path(tempfile.mkdtemp(prefix="tiermodel-postgresql-"))
    as_user = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []  # initdb refuses to run as root
    try:
        (folder / "password").write_text(PASSWORD)
        if as_user:
            shutil.chown(folder, "postgres", "postgres")
            shutil.chown(folder / "password", "postgres", "postgres")
        data, port = str(folder / "data"), _free_port()
        init = ["-D", data, "-U", "shop", "--pwfile", str(folder / "password"), "-A", "scram-sha-256", "-E", "UTF8"]
        _run([*as_user, str(programs / "initdb"), *init, "--no-sync", "--no-locale"])
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
        control = [*as_user, str(programs / "pg_ctl"), "-D", data, "-w", "-t", "60"]
        _run([*control, "-l", str(folder / "log"), "-o", options, "start"])
        try:
            yield f"postgresql://shop:{PASSWORD}@127.0.0.1:{port}/postgres"
        finally:
            _run([*control, "-m", "immediate", "stop"])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _programs() -> Path | None:
    """Return the folder of the newest server's programs; Debian keeps them off the path."""
    found = [str(path) for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    found += [where] if (where := shutil.which("initdb")) else []
    return Path(max(found, key=lambda path: (len(path), path))).parent if found else None


def _installed() -> Path | None:
    if os.getuid() != 0 or shutil.which("apt-get") is None:
        return None
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    keep = Path("/etc/postgresql-common/createcluster.conf")
    if not keep.exists():  # the tests make their own server; the package is not to start one
        keep.parent.mkdir(parents=True, exist_ok=True)
        keep.write_text("create_main_cluster = false\n")
    apt = ["apt-get", "-qq", "-o", "Dpkg::Options::=--force-confold"]
    for words in (["update"], ["install", "-y", "--no-install-recommends", "postgresql"]):
        done = subprocess.run([*apt, *words], env=quiet, capture_output=True, check=False, timeout=300)  # noqa: S603
        if done.returncode:
            return None
    return _programs()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _run(words: list[str]) -> None:
    # a server that is started keeps a pipe open, so there is none
    nowhere = subprocess.DEVNULL
    done = subprocess.run(words, check=False, cwd="/", stdout=nowhere, stderr=nowhere, timeout=120)  # noqa: S603
    assert done.returncode == 0, f"{words} failed with {done.returncode}"
