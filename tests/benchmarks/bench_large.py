"""Print what scoring a large log costs, without and with a ledger: seconds, CPU seconds and peak memory.

    python tests/benchmarks/bench_large.py [--orders 100_000_000] [--customers 5_000_000]

The log is that of `bench_features.py`, orders alone; the model is trained on one customer in 500, by default settings.
Each run is a process of its own. The second grading is a month after the first, and reads the ledger of the first.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import duckdb
from bench_features import make_data
from bench_models import table

PROJECT = """\
version: 1
name: large
data:
  transactions:
    path: {path}
    columns:
      customer_id: customer_id
      order_id: order_id
      time: time
      amount: amount
      product_id: product_id
      channel: channel
      quantity: quantity
"""
TRAINED, FIRST, SECOND = "2023-09-01", "2023-11-01", "2023-12-01"


def run(folder: Path, *words: str) -> dict[str, str]:
    """Run a command in the folder, and tell what it took."""
    began = time.perf_counter()
    process = subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "tiermodel", *words], cwd=folder, stdout=subprocess.DEVNULL
    )
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(words)}: exit {os.waitstatus_to_exitcode(status)}")
    return {
        "seconds": f"{time.perf_counter() - began:.0f}",
        "CPU seconds": f"{used.ru_utime + used.ru_stime:.0f}",
        "peak GB": f"{used.ru_maxrss * 1024 / 1e9:.2f}",
    }


def main() -> None:
    """Make the log, train on a part of it, and score it three times."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--orders", type=int, default=100_000_000)
    arguments.add_argument("--customers", type=int, default=5_000_000)
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_data(folder, given.orders, given.customers, only=("transactions",))
        part = f"SELECT * FROM '{folder}/transactions.parquet' WHERE customer_id % 500 = 0"
        duckdb.execute(f"COPY ({part}) TO '{folder}/part.parquet' (FORMAT parquet)")
        for which in ("transactions", "part"):
            (folder / f"{which}.yaml").write_text(PROJECT.format(path=f"{which}.parquet"), encoding="utf-8")
        run(folder, "train", "part.yaml", "--as-of", TRAINED, "--out", "model")
        score = ("score", "transactions.yaml", "--model", "model", "--out", "scores.parquet", "--as-of")
        table([
            {"run": "without a ledger", **run(folder, *score, FIRST)},
            {"run": "first grading of a ledger", **run(folder, *score, FIRST, "--ledger", "ledger")},
            {"run": "second grading", **run(folder, *score, SECOND, "--ledger", "ledger")},
        ])  # fmt: skip


if __name__ == "__main__":
    main()
