"""Start a MariaDB server of one's own on a socket in a temporary folder, for as long as a block runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["Mariadb", "installed", "mariadb"]

_TOOLS = ("mariadbd", "mariadb-install-db", "mariadb")


def installed() -> bool:
    """Tell whether the server and its tools are there."""
    return all(map(_tool, _TOOLS))


def _tool(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/bin")


class Mariadb:
    """A server behind a socket, with one database in which texts are UTF-8."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    def run(self, sql: str) -> list[list[str]]:
        """Run statements and return the rows, each cell as the client writes it."""
        words = [str(_tool("mariadb")), "--no-defaults", f"--socket={self._socket}", "--user=tester", "--batch"]
        words += ["--skip-column-names", "--local-infile=1", "--default-character-set=utf8mb4", "tester"]
        done = subprocess.run(words, input=sql.encode(), capture_output=True, timeout=120, check=False)  # noqa: S603
        assert not done.returncode, done.stderr.decode()
        return [line.split("\t") for line in done.stdout.decode().splitlines()]


@contextmanager
def mariadb() -> Iterator[Mariadb]:
    """Run a server and yield it; it hears on no port, and stops with the block."""
    user = "mysql" if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="tm-db-", ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        home.chmod(0o755)
        if user is not None:
            shutil.chown(home, user)
        data, socket = home / "data", home / "s"
        as_user = [] if user is None else [f"--user={user}"]
        make = [str(_tool("mariadb-install-db")), "--no-defaults", f"--datadir={data}", *as_user]
        make += ["--auth-root-authentication-method=normal", "--skip-test-db"]
        subprocess.run(make, check=True, capture_output=True, timeout=120)  # noqa: S603
        start = [str(_tool("mariadbd")), "--no-defaults", f"--datadir={data}", f"--socket={socket}", *as_user]
        start += ["--skip-networking", "--skip-grant-tables", "--local-infile=1", "--character-set-server=utf8mb4"]
        start += [f"--pid-file={home / 'pid'}", "--innodb-flush-log-at-trx-commit=0", "--skip-log-bin"]
        with (home / "log").open("wb") as log:
            process = subprocess.Popen(start, stdout=log, stderr=log)  # noqa: S603
        try:
            _wait(process, socket, home / "log")
            subprocess.run(  # noqa: S603
                [str(_tool("mariadb")), "--no-defaults", f"--socket={socket}", "-e", "CREATE DATABASE tester"],
                check=True, capture_output=True, timeout=60,
            )  # fmt: skip
            yield Mariadb(socket)
        finally:
            process.terminate()
            process.wait(timeout=60)


def _wait(process: subprocess.Popen[bytes], socket: Path, log: Path) -> None:
    for _ in range(300):
        assert process.poll() is None, log.read_text(encoding="utf-8", errors="replace")
        if socket.exists():
            return
        time.sleep(0.1)
    raise AssertionError(log.read_text(encoding="utf-8", errors="replace"))
