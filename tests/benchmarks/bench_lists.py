"""Time work lists and outcomes for a large base, and print the peak of memory.

    python tests/benchmarks/bench_lists.py [--customers 125_000 500_000] [--world FOLDER]

A seeded shop of 2,000 customers is trained on and scored once; its customers, with everything that is known of them,
are then repeated under other ids. `lists` with 10 customers a list is the work beside the reasons, with 10,000 it is
the default. `outcomes` judges two gradings from the tables. Each verb runs in a process of its own (bar: 60 s each for
500,000 customers, lists without the reasons; memory that hardly grows with the customers). The sort of `outcomes` may
use up to `data.memory` (1500MB by default) before it goes to disk; `--memory 500MB` shows it with less.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from datetime import timedelta
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow as pa
import yaml
from bench_models import table

from tiermodel import make_world, score, train
from tiermodel.config.project import load_project
from tiermodel.features.export import write_features
from tiermodel.ledger.ledger import Ledger
from tiermodel.ledger.rows import table_of

CUSTOMERS, DAYS = 2_000, 720
RUN = """
import atexit, json, os, sys, time
from pathlib import Path
began = time.perf_counter()
def tell():
    used, status = os.times(), Path("/proc/self/status").read_text()  # ru_maxrss would count who started this process
    peak = int(status.split("VmHWM:")[1].split()[0]) / 2**20
    print("", json.dumps([used.user + used.system, time.perf_counter() - began, peak]), sep="\\n", file=sys.stderr)
atexit.register(tell)
from tiermodel.cli.main import main
main()
"""
TABLES = ("transactions", "customers", "events", "invoices", "costs")


def main() -> None:
    """Print a row for each verb and number of customers."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--customers", type=int, nargs="+", default=[125_000, 500_000])
    arguments.add_argument("--world", type=Path, help="a folder to keep the small shop in")
    arguments.add_argument("--memory", default="1500MB", help="data.memory of the large shop")
    arguments.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.make is not None:
        make(given.world, given.make, given.customers[0], given.memory)
        return
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        small = given.world or Path(scratch) / "small"
        for customers in given.customers:
            large = Path(scratch) / str(customers)
            # in a process of its own: a process inherits the peak of memory of the one that starts it
            ours = [sys.executable, __file__, "--world", str(small), "--make", str(large), "--memory", given.memory]
            ours.append("--customers")
            subprocess.run([*ours, str(customers)], check=True)  # noqa: S603
            common = ["--model", str(small / "model"), "--features", str(large / "features.parquet")]
            verbs = {
                "lists, 10 a list": ["lists", str(large / "scores.parquet"), *common, "--limit", "10"],
                "lists, 10,000 a list": ["lists", str(large / "scores.parquet"), *common],
                "outcomes": ["outcomes", str(large / "project.yaml"), "--ledger", str(large / "ledger")],
            }
            for name, words in verbs.items():
                rows.append({"customers": f"{customers:,}", "verb": name, **timed(words, large / "out.parquet")})
    table(rows)


def make(small: Path, large: Path, customers: int, memory: str) -> None:
    """Make the small shop where it is not there yet, and the large one."""
    if not (small / "model").exists():
        make_small(small)
    repeat(small, large, -(-customers // CUSTOMERS), memory)


def make_small(folder: Path) -> None:
    """Make the shop, a model of it, its scores and features at the end, and two gradings whose windows are over."""
    project = load_project(make_world(9, CUSTOMERS, days=DAYS).write(folder))
    train(project, out=folder / "model")
    score(project, folder / "model", "latest", folder / "scores.parquet")
    day = pd.read_parquet(folder / "scores.parquet", columns=["as_of"])["as_of"].iloc[0]
    write_features(project, str(day), folder / "features.parquet")
    for back in (180, 120):
        graded = day - timedelta(back)
        score(project, folder / "model", graded, folder / "old.parquet", ledger=folder / "ledger")


def repeat(small: Path, large: Path, times: int, memory: str) -> None:
    """Write the shop's customers so many times, each under an id of its own."""
    large.mkdir()
    connection = duckdb.connect(config={"memory_limit": "1GB"})
    again = f"(SELECT range AS copy FROM range({times}))"
    for name in (*TABLES, "scores", "features"):
        renamed = "customer_id || '-' || copy AS customer_id"
        more = ", order_id * 1000 + copy AS order_id" if name == "transactions" else ""
        connection.execute(
            f"COPY (SELECT * EXCLUDE (copy) REPLACE ({renamed}{more}) FROM '{small / name}.parquet', {again}) "
            f"TO '{large / name}.parquet'"
        )
    content = yaml.safe_load((small / "project.yaml").read_text(encoding="utf-8"))
    content["data"]["memory"] = memory
    (large / "project.yaml").write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    book = Ledger(small / "ledger")
    for day in book.graded:
        rows = book.as_of(day)
        parts = [table_of(rows.assign(customer_id=rows["customer_id"] + f"-{copy}")) for copy in range(times)]
        Ledger(large / "ledger").append(day, pa.concat_tables(parts))


def timed(words: list[str], out: Path) -> dict[str, str]:
    """Run a verb in a process, and return its CPU seconds, seconds and peak of memory."""
    target = out.with_suffix("") if words[0] == "lists" else out
    program = [sys.executable, "-c", RUN, *words, "--out", str(target)]
    done = subprocess.run(program, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)  # noqa: S603
    cpu, seconds, peak = json.loads(done.stderr.splitlines()[-1])
    return {"CPU seconds": f"{cpu:.0f}", "seconds": f"{seconds:.0f}", "peak GB": f"{peak:.2f}"}


if __name__ == "__main__":
    main()
