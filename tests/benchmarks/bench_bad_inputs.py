"""Bad inputs that are too large for the suite: what is refused or quarantined, in which time and memory.

python tests/benchmarks/bench_bad_inputs.py [NAME…]
"""

from __future__ import annotations

import csv
import gzip
import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

PROJECT = """version: 1
name: shop
data:
  transactions: {path: PATH, columns: {customer_id: id, time: when, amount: amount}}
"""
HEADER = b"id,when,amount,note\n"


def beyond_four_gigabytes(folder: Path) -> None:
    """Quarantine a bad row behind byte 2^32 of a file, with its line (B026)."""
    rows = b"".join(b"K%04d,2024-01-%02d,%d.5,%s\n" % (n, n % 28 + 1, n, b"x" * 500) for n in range(8_000))
    count = (1 << 32) // len(rows) + 1
    with (folder / "a.csv").open("wb") as file:
        file.write(HEADER)
        for _ in range(count):
            file.write(rows)
        file.write(b"Z,2024-01-01,abc,x\n")
    done = run(folder, "a.csv")
    assert done.returncode == 0, done.stderr
    with (folder / "out.quarantine.csv").open(newline="", encoding="utf-8") as file:
        (bad,) = csv.DictReader(file)
    assert int(bad["row"]) == count * 8_000 + 2


def endless_line(folder: Path) -> None:
    """Refuse two gigabytes without a line break at 16 MB (B025)."""
    with (folder / "a.csv").open("wb") as file:
        for _ in range(2048):
            file.write(b"x" * (1 << 20))
    assert "TM1013" in run(folder, "a.csv").stderr


def bomb(folder: Path) -> None:
    """Refuse a gzip file of 50 GB of zeros before it is unpacked (B020)."""
    block = gzip.compress(bytes(1 << 30), 9)
    with (folder / "a.csv.gz").open("wb") as file:
        for _ in range(50):
            file.write(block)
    assert re.search("TM1008|TM1013", run(folder, "a.csv.gz").stderr)  # zeros are one line, too


def customers_of_one_row(folder: Path) -> None:
    """Count ten million customers of one row each (B152)."""
    with (folder / "a.csv").open("wb") as file:
        file.write(HEADER)
        for start in range(0, 10_000_000, 100_000):
            file.write(b"".join(b"K%d,2024-01-%02d,5,x\n" % (n, n % 28 + 1) for n in range(start, start + 100_000)))
    done = run(folder, "a.csv")
    assert "10,000,000" in done.stdout or "10000000" in done.stdout, done


def run(folder: Path, path: str) -> subprocess.CompletedProcess[str]:
    """Build the features of a file in a process of its own, and print what it took."""
    (folder / "shop.yaml").write_text(PROJECT.replace("PATH", path), encoding="utf-8")
    words = [sys.executable, "-m", "tiermodel", "features", "shop.yaml", "--as-of", "latest", "--out", "out.parquet"]
    started, before = time.monotonic(), os.times()
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603
    seconds = os.times().children_user + os.times().children_system - before.children_user - before.children_system
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    print(f"  exit {done.returncode}, {time.monotonic() - started:.0f} s, {seconds:.0f} CPU-s, {peak:.2f} GB")
    return done


TRIALS: tuple[Callable[[Path], None], ...] = (endless_line, bomb, customers_of_one_row, beyond_four_gigabytes)

if __name__ == "__main__":
    for trial in TRIALS:
        if not sys.argv[1:] or trial.__name__ in sys.argv[1:]:
            print(trial.__name__)
            with TemporaryDirectory() as made:
                trial(Path(made))
