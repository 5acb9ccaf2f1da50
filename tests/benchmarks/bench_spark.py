"""Measure the feature stream on Spark against features written in Spark SQL; print a Markdown table.

    python tests/benchmarks/bench_spark.py [--orders 10_000_000] [--customers 500_000]

Both run on local[2], each in a process and session of its own; starting the session and a first small job are not
timed. Our path makes every feature of the transactions at 12 dates, brings each row to the driver and takes a checksum
of all of its bits there, which must be those of DuckDB. The SQL makes a part of these features, at one date and at 12,
and drops its rows where they are.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any, get_args

from bench_features import DATES, SALES, WINDOWS, make_data

from tiermodel.config.project import FeatureGroup, Project
from tiermodel.engines.dispatch import open_history
from tiermodel.features.panel import Snapshots, snapshot_batches

SUBMIT = "--master local[2] --driver-memory 4g --conf spark.log.level=ERROR --conf spark.ui.enabled=false pyspark-shell"
Result = dict[str, Any]


def run_stream(folder: Path, dates: tuple[date, ...], engine: str) -> Result:
    """Make the snapshots, and take a checksum of every column as its values come."""
    data = {
        "engine": engine,
        "memory": "4GB",
        "transactions": {"path": str(folder / "transactions.parquet"), "columns": {name: name for name in SALES}},
    }
    features = {"windows_days": WINDOWS, "groups": get_args(FeatureGroup)}
    project = Project.model_validate({"version": 1, "name": "bench", "data": data, "features": features})
    history = open_history(project)
    snapshots = Snapshots(project, history.columns, dates)
    rows, sums = 0, [0] * len(snapshots.schema)
    for batch in snapshot_batches(history, snapshots):
        rows += batch.num_rows
        for place, column in enumerate(batch.columns[1:], 1):
            values = column.to_numpy(zero_copy_only=False).view("int64")
            sums[place] = zlib.crc32(values.tobytes() if place == 1 else values, sums[place])
        sums[0] = zlib.crc32("\n".join(batch.column(0).to_pylist()).encode() + b"\n", sums[0])
    return {"rows": rows, "columns": len(snapshots.features), "bits": zlib.crc32(repr(sums).encode())}


def run_sql(folder: Path, dates: tuple[date, ...]) -> Result:
    """Make sums in windows, rhythm and novelty of products as one does in Spark SQL, date by date."""
    spark = _session()
    spark.read.parquet(str(folder / "transactions.parquet")).createOrReplaceTempView("sales")
    for day in dates:
        made = spark.sql(_query(str(day)))
        made.write.format("noop").mode("overwrite").save()
    return {"columns": len(made.columns) - 1}


def _query(day: str) -> str:
    """Sum by customer and day first, so that the windows look at as few rows as can be."""

    def span(length: int, ago: int = 0) -> str:
        return f"FILTER (WHERE day >= DATE '{day}' - {length + ago} AND day < DATE '{day}' - {ago})"

    spans = [("total", ""), *((str(w), span(w)) for w in WINDOWS), *((f"before{w}", span(w, w)) for w in WINDOWS)]
    spans += [(f"year_ago{w}", span(w, 365 - w)) for w in WINDOWS]
    sums = [f"sum({m}) {s} AS {m}_{w}" for m in ("net", "margin", "quantity", "discount") for w, s in spans]
    sums += [f"sum({m}) {s} AS {m}_{w}" for m in ("lines", "orders") for w, s in spans]
    sums += [f"count(*) {s} AS days_{w}" for w, s in spans]
    rhythm = "min(day) first_day, max(day) last_day, max(gap) gap_max, avg(gap) gap_mean, stddev_pop(gap) gap_std, "
    rhythm += "max_by(gap, day) gap_last, max(net) best_day, avg(CAST(weekday(day) >= 5 AS DOUBLE)) weekend_share"
    new = ", ".join(f"count(*) {s} AS new_products_{w}" for w, s in spans)
    return f"""
        WITH rows AS (SELECT *, CAST(time AS DATE) AS day FROM sales WHERE time < DATE '{day}'),
        days AS (
            SELECT customer_id, day, sum(amount) AS net, sum(amount - cost) AS margin, sum(quantity) AS quantity,
                sum(discount) AS discount, count(*) AS lines, count(DISTINCT order_id) AS orders
            FROM rows GROUP BY customer_id, day),
        gaps AS (
            SELECT *, datediff(day, lag(day) OVER (PARTITION BY customer_id ORDER BY day)) AS gap FROM days),
        firsts AS (SELECT customer_id, product_id, min(day) AS day FROM rows GROUP BY customer_id, product_id),
        products AS (SELECT customer_id, {new} FROM firsts GROUP BY customer_id)
        SELECT * FROM (SELECT customer_id, {", ".join(sums)}, {rhythm} FROM gaps GROUP BY customer_id)
        JOIN products USING (customer_id)
    """


def _session() -> Any:
    from tiermodel.engines.spark import session  # noqa: PLC0415  # DuckDB's process does without

    spark = session()
    spark.range(1000).count()
    return spark


TASKS: dict[str, Callable[[Path, tuple[date, ...]], Result]] = {
    "ours on Spark": lambda folder, dates: run_stream(folder, dates, "spark"),
    "ours on DuckDB": lambda folder, dates: run_stream(folder, dates, "duckdb"),
    "Spark SQL": run_sql,
}


def child(task: str, folder: Path, dates: int) -> None:
    """Be the process that is measured."""
    if task != "ours on DuckDB":
        _session()
    start = time.perf_counter()
    found = TASKS[task](folder, DATES[-dates:])
    wall, memory = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    sys.stdout.write(json.dumps({"wall": wall, "driver": memory, **found}) + "\n")


def measure(task: str, folder: Path, dates: int) -> Result:
    """Run a task in its own process."""
    command = [sys.executable, __file__, "--task", task, "--folder", str(folder), "--dates", str(dates)]
    settings = {"PYSPARK_SUBMIT_ARGS": SUBMIT, "SPARK_LOCAL_IP": "127.0.0.1", "PYSPARK_PYTHON": sys.executable}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, **settings})  # noqa: S603 this very file
    result: Result = json.loads(done.stdout.splitlines()[-1])
    return result


def report(folder: Path, orders: int, customers: int, sql_dates: list[int]) -> str:
    """Measure everything and lay it out."""
    make_data(folder, orders, customers)
    plan = [("ours on Spark", 12), ("ours on DuckDB", 12), *(("Spark SQL", n) for n in sql_dates)]
    got = {(task, n): measure(task, folder, n) for task, n in plan}
    ours, duckdb = got["ours on Spark", 12], got["ours on DuckDB", 12]
    if ours["bits"] != duckdb["bits"]:
        raise SystemExit(f"Spark and DuckDB differ: {ours} {duckdb}")
    lines = [f"{orders:,} orders of {customers:,} customers, local[2]", ""]
    lines += ["| what | features | dates | wall s | times ours |", "|---|---|---|---|---|"]
    lines += [
        f"| {task} | {run['columns']} | {n} | {run['wall']:.1f} | {run['wall'] / ours['wall']:.2f} |"
        for (task, n), run in got.items()
    ]
    return "\n".join([*lines, "", f"{ours['rows']:,} rows, the same bits on Spark and DuckDB"])


def main() -> None:
    """Read the command line; with `--task`, be the process that is measured."""
    parser = argparse.ArgumentParser(description="Benchmark the feature stream on Spark.")
    parser.add_argument("--orders", type=int, default=10_000_000)
    parser.add_argument("--customers", type=int, default=500_000)
    parser.add_argument("--sql-dates", type=int, nargs="+", default=[1, 12], help="Numbers of dates for the SQL.")
    for hidden in ("--task", "--folder"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    parser.add_argument("--dates", type=int, default=12, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.task:
        child(given.task, Path(given.folder), given.dates)
        return
    with tempfile.TemporaryDirectory() as folder:
        sys.stdout.write(report(Path(folder), given.orders, given.customers, given.sql_dates) + "\n")


if __name__ == "__main__":
    main()
