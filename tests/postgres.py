"""Start a PostgreSQL server of one's own on loopback, in a temporary folder, for as long as a block runs."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["binaries", "postgres"]


def binaries() -> Path | None:
    """Find the folder of initdb and pg_ctl, on the path or where distributions keep them."""
    found = shutil.which("initdb")
    if found:
        return Path(found).parent
    kept = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return kept[-1].parent if kept else None


@contextmanager
def postgres() -> Iterator[str]:
    """Run a server and yield its address; PostgreSQL refuses to run as root, so root hands it to `nobody`."""
    tools = binaries()
    if tools is None:
        raise FileNotFoundError("initdb is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="tiermodel-pg-", ignore_cleanup_errors=True) as folder:
        as_user: dict[str, object] = {}
        if os.geteuid() == 0:
            shutil.chown(folder, "nobody")
            as_user = {"user": "nobody", "cwd": folder}
        data = Path(folder) / "data"

        def run(*words: object) -> None:
            subprocess.run(list(map(str, words)), check=True, capture_output=True, timeout=60, **as_user)  # type: ignore[call-overload]  # noqa: S603

        run(tools / "initdb", "-D", data, "-U", "tester", "-A", "trust", "-E", "UTF8", "--no-sync")
        options = f"-p {port} -h 127.0.0.1 -c fsync=off -c unix_socket_directories={folder}"
        run(tools / "pg_ctl", "-D", data, "-w", "-l", Path(folder) / "log", "-o", options, "start")
        try:
            yield f"postgresql://tester@127.0.0.1:{port}/postgres"
        finally:
            run(tools / "pg_ctl", "-D", data, "-m", "immediate", "stop")
