"""Time and attack `tiermodel serve` over a real socket: one client, eight clients, many rows a body, hostile requests.

    python tests/benchmarks/bench_serve.py [--seconds 20]

Trains a small world (400 customers, 63 features of one table) and serves it on loopback. Prints a Markdown table; CPU
seconds are those of the server's process, beside which other work does not count.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from served import Server, as_json, serving, written
from tiermodel.features.export import write_features
from tiermodel.training.train import train
from worlds import quick_fits, small_project, small_world

AS_OF = "2023-12-01"
CANARY = "KANARIENVOGEL"
ROWS = 60


def main() -> None:
    """Print a Markdown table."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--seconds", type=float, default=20)
    seconds = arguments.parse_args().seconds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        project = small_project(small_world(folder / "t.parquet"))
        train(project, out=folder / "bundle")
        write_features(project, AS_OF, folder / "features.parquet")
        rows, features = pd.read_parquet(folder / "t.parquet"), pd.read_parquet(folder / "features.parquet")
        with serving(folder, written(project, folder), "--model", folder / "bundle") as server:
            print("| what | figure |\n|---|---|")
            raw = [_raw(rows, n) for n in range(8)]
            timed(server, "one client, one customer of 60 raw rows", [raw[:1]], seconds)
            timed(server, "eight clients, one customer of 60 raw rows each", [[body] for body in raw], seconds)
            many = json.dumps({"as_of": AS_OF, "rows": (as_json(features.astype({"as_of": str})) * 3)[:1000]}).encode()
            timed(server, "one client, 1,000 feature rows", [[many]], seconds, rows=1000)
            attacked(server, raw[0])


def _raw(rows: pd.DataFrame, number: int) -> bytes:
    """Give the body of one customer with 60 rows."""
    counts = rows["customer"].value_counts()
    name = counts[counts >= ROWS].index[number % 4]
    return json.dumps({"as_of": AS_OF, "transactions": as_json(rows[rows["customer"] == name].head(ROWS))}).encode()


def cpu(server: Server) -> float:
    """Give the CPU seconds of the server so far."""
    words = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def timed(server: Server, what: str, clients: list[list[bytes]], seconds: float, rows: int = 1) -> None:
    """Let each client ask again and again, and print how long answers take."""
    taken: list[float] = []
    until = time.perf_counter() + seconds

    def ask(bodies: list[bytes]) -> None:
        connection = server.connect()
        while time.perf_counter() < until:
            for body in bodies:
                started = time.perf_counter()
                connection.request("POST", "/score", body, {"Content-Type": "application/json"})
                reply = connection.getresponse()
                told = reply.read()
                taken.append(time.perf_counter() - started)
                assert reply.status == 200, told[:300]

    ask_once = clients[0][0]
    server.ask("POST", "/score", ask_once)
    began, used = time.perf_counter(), cpu(server)
    threads = [threading.Thread(target=ask, args=(bodies,)) for bodies in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    whole, used = time.perf_counter() - began, cpu(server) - used
    cuts = statistics.quantiles(taken, n=100)
    each = 1000 * used / len(taken)
    rate = f"{len(taken) * rows / whole:,.0f} {'rows' if rows > 1 else 'requests'} a second"
    print(f"| {what}: p50, p99 | {1000 * cuts[49]:.1f} ms, {1000 * cuts[98]:.1f} ms |")
    print(f"| the same: rate, CPU of the server a request | {rate}, {each:.1f} ms |", flush=True)


# hostile requests


def attacked(server: Server, good: bytes) -> None:
    """Send 500 hostile requests, and print what came of them."""
    draw = random.Random(7)  # noqa: S311  no secret
    before, statuses, echoes = server.memory(), list[int](), 0
    for number in range(500):
        status, told = _ATTACKS[number % len(_ATTACKS)](server, good, draw)
        statuses.append(status)
        echoes += status != 200 and CANARY.encode() in told  # an answer names its customers
    codes = ", ".join(f"{statuses.count(code)} × {code or 'closed'}" for code in sorted(set(statuses)))
    print(f"| 500 hostile requests: answers | {codes} |")
    print(
        f"| the same: with a value of the request, in answers and on stderr | {echoes}, {server.said.count(CANARY)} |"
    )
    print(f"| the same: memory before and after | {before:.0f} MB, {server.memory():.0f} MB |")
    print(f"| the same: still serving | {server.ask('POST', '/score', good).status} |")
    assert not [code for code in statuses if code >= 500 and code != 503]
    assert not echoes


def _ask(server: Server, body: bytes, **headers: str) -> tuple[int, bytes]:
    try:
        reply = server.ask("POST", "/score", body, **headers)
    except (OSError, http.client.HTTPException):
        return 0, b""
    return reply.status, reply.body


def _fuzzed(server: Server, good: bytes, draw: random.Random) -> tuple[int, bytes]:
    """Send the good body with one value, key or row made something else."""
    body: Any = json.loads(good)
    rows = body["transactions"]
    odd = draw.choice(
        [CANARY, None, True, -1, 10**400, 1e308, [], {}, [[CANARY]], {CANARY: CANARY}, "", "2023-99-99", 0]
    )
    place = draw.randrange(5)
    if place == 0:
        body[draw.choice(["as_of", "transactions", "rows", CANARY])] = odd
    elif place == 1:
        rows[draw.randrange(len(rows))] = odd
    elif place == 2:
        rows[0][draw.choice([*rows[0], CANARY])] = odd
    elif place == 3:
        for row in rows:
            row[draw.choice([*row])] = odd
    else:
        del rows[draw.randrange(len(rows))][draw.choice([*rows[0]])]
    return _ask(server, json.dumps(body).encode())


def _torn(server: Server, good: bytes, draw: random.Random) -> tuple[int, bytes]:
    """Send the good body with some bytes made others, or cut off."""
    body = bytearray(good[: draw.randrange(1, len(good))] if draw.random() < 0.3 else good)
    for _ in range(draw.randrange(1, 20)):
        body[draw.randrange(len(body))] = draw.randrange(256)
    return _ask(server, bytes(body))


def _deep(server: Server, good: bytes, draw: random.Random) -> tuple[int, bytes]:
    opening = draw.choice([b"[", b'{"a":', b'{"as_of":"2023-12-01","transactions":' + b"["])
    return _ask(server, opening * (1_000_000 // len(opening)) + good[:50])


def _numbers(server: Server, good: bytes, draw: random.Random) -> tuple[int, bytes]:
    odd = draw.choice([b"NaN", b"-Infinity", b"1e999", b"9" * 4000, b"9" * 9000, b"-0", b"1e-999", b"0x1", b"1_0"])
    body = json.loads(good)
    body["transactions"][0]["amount"] = 0.123456789
    return _ask(server, json.dumps(body).encode().replace(b"0.123456789", odd))


def _texts(server: Server, good: bytes, draw: random.Random) -> tuple[int, bytes]:
    odd = draw.choice(
        [b"\xff\xfe", b"\\ud800", b"\\u0000", b"\xc0\xaf", b"\xed\xa0\x80", b"'; DROP TABLE x; --", b"\\"]
    )
    return _ask(server, good.replace(b"ID-ZQX", CANARY.encode() + odd, draw.choice([1, -1])))


def _huge(server: Server, _: bytes, draw: random.Random) -> tuple[int, bytes]:
    """Send 200 MB, with the length told before or in chunks."""
    chunked = draw.random() < 0.5
    head = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {200 << 20}"
    part = b"100000\r\n" + b" " * 0x100000 + b"\r\n" if chunked else b" " * 0x100000
    return _plug(server, f"Content-Type: application/json\r\n{head}\r\n\r\n".encode(), [part] * 200)


def _slow(server: Server, _: bytes, draw: random.Random) -> tuple[int, bytes]:
    """Leave a connection half-way, and let the server close it later, while others are served."""
    plug = socket.create_connection(("127.0.0.1", server.port), timeout=30)
    plug.sendall(b"POST /score HTTP/1.1\r\nHost: x\r\n" + draw.choice([b"Content-", b"Content-Length: 50\r\n\r\n{"]))
    _PLUGS.append(plug)
    return 0, b""


def _protocol(server: Server, _: bytes, draw: random.Random) -> tuple[int, bytes]:
    odd = [
        b"\x16\x03\x01\x02\x00",
        b"GET\r\n\r\n",
        b"POST /score HTTP/9.9\r\n\r\n",
        CANARY.encode() * 9000,
        b"\r\n" * 9000,
    ]
    odd += [
        b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"GET /%ff%00 HTTP/1.1\r\nHost: x\r\n\r\n",
    ]
    odd += [b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"]
    return _plug(server, b"", [draw.choice(odd)], head=b"")


_HEAD = b"POST /score HTTP/1.1\r\nHost: x\r\n"
_PLUGS: list[socket.socket] = []
_ATTACKS: list[Callable[[Server, bytes, random.Random], tuple[int, bytes]]] = [
    _fuzzed, _torn, _fuzzed, _numbers, _texts, _fuzzed, _torn, _slow, _protocol, _fuzzed, _deep, _fuzzed, _huge,
]  # fmt: skip


def _plug(server: Server, start: bytes, parts: list[bytes], head: bytes = _HEAD) -> tuple[int, bytes]:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as plug:
        try:
            plug.sendall(head + start)
            for part in parts:
                plug.sendall(part)
        except OSError:
            pass  # closed before all was sent
        try:
            told = plug.recv(65536)
        except OSError:
            return 0, b""
    words = told.split(b" ", 2)
    return int(words[1]) if told.startswith(b"HTTP/1.1 ") else 0, told


if __name__ == "__main__":
    with quick_fits():
        main()
