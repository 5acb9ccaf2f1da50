"""Measure the feature stream against the floor (sorting and writing alone) and against pandas; print a Markdown table.

    python tests/benchmarks/bench_features.py [--orders 10_000_000] [--customers 500_000]

Every task runs in its own process, so that CPU time and peak memory are its own; imports are not timed. The better of
two runs counts.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow.parquet as pq

from tiermodel.config import Project
from tiermodel.features.panel import Snapshots, snapshot_batches
from tiermodel.tables.history import History, open_history
from tiermodel.tables.output import write_table

MEMORY = "1500MB"
WINDOWS = (30, 90, 180, 365)
LAST = date(2023, 12, 1)
DATES = tuple(LAST - timedelta(30 * n) for n in reversed(range(12)))
COLUMNS = ("customer_id", "order_id", "time", "amount", "product_id")
BATCH_ROWS = 122_880
Result = dict[str, float]


def make_data(path: Path, orders: int, customers: int) -> None:
    """Write three years of orders: a few customers buy often, most seldom; 3 % are returns."""
    connection = duckdb.connect()
    connection.execute("SET threads = 1")  # random() is the same again on one thread only
    connection.execute("SELECT setseed(0.5)")
    connection.execute(
        f"COPY (SELECT floor(pow(random(), 2) * {customers})::BIGINT AS customer_id, i AS order_id, "
        "TIMESTAMP '2021-01-01' + to_seconds(floor(random() * 94608000)::BIGINT) AS time, "
        "round(exp(random() * 5) + 0.01, 2) * (CASE WHEN random() < 0.03 THEN -1 ELSE 1 END) AS amount, "
        f"floor(pow(random(), 3) * 5000)::BIGINT AS product_id FROM range({orders}) t(i)) TO '{path}' (FORMAT parquet)"
    )


def _opened(folder: Path, dates: tuple[date, ...]) -> tuple[History, Snapshots]:
    transactions = {"path": str(folder / "orders.parquet"), "columns": {name: name for name in COLUMNS}}
    project = Project.model_validate(
        {
            "version": 1,
            "name": "bench",
            "data": {"transactions": transactions, "memory": MEMORY},
            "features": {"windows_days": WINDOWS},
        }
    )
    rows = open_history(project)
    return rows, Snapshots(project, rows.columns, dates)


def run_stream(folder: Path, dates: tuple[date, ...]) -> Result:
    """Make the snapshots and drop them."""
    rows, snapshots = _opened(folder, dates)
    made = sum(batch.num_rows for batch in snapshot_batches(rows, snapshots))
    return {"rows": made, "columns": len(snapshots.features)}


def run_features(folder: Path, dates: tuple[date, ...]) -> Result:
    """Make the snapshots and write them."""
    rows, snapshots = _opened(folder, dates)
    path = folder / f"features{len(dates)}.parquet"
    write_table(snapshot_batches(rows, snapshots), path, snapshots.schema)
    return {"columns": len(snapshots.features), "megabytes": path.stat().st_size / 1e6}


def run_sort(folder: Path, dates: tuple[date, ...]) -> Result:
    """Sort and stream the rows by customer, day and order with DuckDB, and do nothing with them."""
    connection = duckdb.connect()
    connection.execute(f"SET memory_limit = '{MEMORY}'")
    connection.execute(f"SET temp_directory = '{folder}/spill'")
    query = (
        f"SELECT {', '.join(COLUMNS)} FROM '{folder}/orders.parquet' WHERE time < DATE '{dates[-1]}' "
        "ORDER BY customer_id, time::DATE, order_id"
    )
    return {"rows": sum(batch.num_rows for batch in connection.sql(query).to_arrow_reader(BATCH_ROWS))}


def run_write(folder: Path, dates: tuple[date, ...]) -> Result:
    """Write as many rows and columns as the features have, from memory, with pyarrow's default settings.

    The values are the features themselves (their first batches over and over): random ones would be slower to write.
    """
    source = pq.ParquetFile(folder / f"features{len(dates)}.parquet")
    batches = [source.read_row_group(n).combine_chunks().to_batches()[0] for n in range(min(8, source.num_row_groups))]
    left, path = source.metadata.num_rows, folder / "floor.parquet"
    before = _used()
    with pq.ParquetWriter(path, batches[0].schema) as writer:
        for batch in itertools.cycle(batches):
            writer.write_batch(batch.slice(0, left))
            left -= batch.num_rows
            if left <= 0:
                break
    return {**_used(before), "megabytes": path.stat().st_size / 1e6}


def run_pandas(folder: Path, dates: tuple[date, ...]) -> Result:
    """Compute most of the features for one date as one does in pandas: one groupby per question."""
    as_of = pd.Timestamp(dates[-1])
    rows = pd.read_parquet(folder / "orders.parquet")
    rows = rows[rows["time"] < as_of]
    rows["day"] = rows["time"].dt.floor("D")
    bought = rows[rows["amount"] >= 0]
    orders = bought.drop_duplicates(["customer_id", "order_id"])
    days = bought.drop_duplicates(["customer_id", "day"]).sort_values(["customer_id", "day"])
    products = bought.sort_values("time").drop_duplicates(["customer_id", "product_id"])
    found = dict(_pandas_totals(rows, bought, orders, days, products, as_of))
    for window in WINDOWS:
        found |= _pandas_window(rows, orders, days, products, as_of, window)
    table = pd.DataFrame(found)
    return {"rows": len(table), "columns": table.shape[1]}


def _pandas_totals(
    rows: pd.DataFrame,
    bought: pd.DataFrame,
    orders: pd.DataFrame,
    days: pd.DataFrame,
    products: pd.DataFrame,
    as_of: pd.Timestamp,
) -> Iterator[tuple[str, pd.Series[Any]]]:
    spent = rows.groupby("customer_id")["amount"].sum()
    gross = bought.groupby("customer_id")["amount"].sum()
    count = orders.groupby("customer_id").size()
    by_day = days.groupby("customer_id")["day"]
    last = (as_of - by_day.max()).dt.days
    yield "order_count_total", count
    yield "net_amount_total", spent
    yield "order_amount_mean", spent / count
    yield "lines_per_order", bought.groupby("customer_id").size() / count
    yield "return_amount_ratio", (gross - spent) / gross
    yield "purchase_days_total", by_day.size()
    yield "days_since_first", (as_of - by_day.min()).dt.days
    yield "days_since_last", last
    yield "weekend_share", (orders["day"].dt.dayofweek >= 5).groupby(orders["customer_id"]).mean()
    yield "product_count", products.groupby("customer_id").size()
    gaps = by_day.diff().dt.days.groupby(days["customer_id"])
    yield "gap_days_mean", gaps.mean()
    yield "gap_days_std", gaps.std(ddof=0)
    yield "gap_days_max", gaps.max()
    yield "gap_days_last", gaps.last()
    yield "overdue_ratio", last / gaps.mean()
    yield "peak_day_amount", rows.groupby(["customer_id", "day"])["amount"].sum().groupby("customer_id").max()


def _pandas_window(
    rows: pd.DataFrame,
    orders: pd.DataFrame,
    days: pd.DataFrame,
    products: pd.DataFrame,
    as_of: pd.Timestamp,
    window: int,
) -> dict[str, pd.Series[Any]]:
    span = pd.Timedelta(days=window)

    def recent(table: pd.DataFrame, ago: int = 0) -> Any:
        within = table["day"].between(as_of - (ago + 1) * span, as_of - ago * span, inclusive="left")
        return table[within].groupby("customer_id")

    everyone = rows["customer_id"].unique()
    spent, spent_before = (recent(rows, n)["amount"].sum().reindex(everyone, fill_value=0) for n in (0, 1))
    count, count_before = (recent(orders, n).size().reindex(everyone, fill_value=0) for n in (0, 1))
    return {
        f"net_amount_{window}d": spent,
        f"order_count_{window}d": count,
        f"purchase_days_{window}d": recent(days).size(),
        f"new_product_count_{window}d": recent(products).size(),
        f"amount_change_{window}d": (spent - spent_before) / (spent.abs() + spent_before.abs()),
        f"order_change_{window}d": (count - count_before) / (count + count_before),
    }


TASKS: dict[str, Callable[[Path, tuple[date, ...]], Result]] = {
    "stream": run_stream,
    "features": run_features,
    "sort": run_sort,
    "write": run_write,
    "pandas": run_pandas,
}


def _used(before: Result | None = None) -> Result:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    now = {"wall": time.perf_counter(), "cpu": usage.ru_utime + usage.ru_stime}
    since = {name: value - before[name] for name, value in now.items()} if before else now
    return {**since, "memory": usage.ru_maxrss / 1e6}


def _child(task: str, folder: Path, dates: int) -> None:
    before = _used()
    found = TASKS[task](folder, DATES[-dates:])
    sys.stdout.write(json.dumps({**_used(before), **found}) + "\n")


def measure(task: str, folder: Path, dates: int, times: int = 2) -> Result:
    """Run a task in its own process; keep the run that took the least time."""
    runs = []
    for _ in range(times):
        command = [sys.executable, __file__, "--task", task, "--folder", str(folder), "--dates", str(dates)]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603 this very file
        runs.append(json.loads(text.splitlines()[-1]))
    return min(runs, key=lambda run: run["wall"])


def report(folder: Path, orders: int, customers: int) -> str:
    """Measure everything and lay it out against the bars."""
    make_data(folder / "orders.parquet", orders, customers)
    got = {(task, n): measure(task, folder, n) for task in ("features", "stream", "sort", "write") for n in (12, 1)}
    got["pandas", 1] = measure("pandas", folder, 1, times=1)
    columns, covered = int(got["features", 1]["columns"]), int(got["pandas", 1]["columns"])
    names = {
        "sort": "floor: DuckDB sorts and streams the rows",
        "write": "floor: pyarrow writes an equally large table",
        "stream": f"{columns} features, not written",
        "features": f"{columns} features, parquet to parquet",
        "pandas": f"pandas, {covered} of these features, not written",
    }
    lines = [f"{orders:,} orders of {customers:,} customers, {MEMORY} for DuckDB", ""]
    lines += ["| what | dates | wall s | CPU s | peak GB |", "|---|---|---|---|---|"]
    lines += [
        f"| {names[task]} | {n} | {run['wall']:.1f} | {run['cpu']:.1f} | {run['memory']:.2f} |"
        for (task, n), run in sorted(got.items(), key=lambda item: (list(names).index(item[0][0]), item[0][1]))
    ]
    return "\n".join([*lines, "", *_against_bars(got)])


def _against_bars(got: dict[tuple[str, int], Result]) -> list[str]:
    def quotient(kind: str) -> list[float]:
        floor = got["sort", 12][kind] + got["write", 12][kind]
        return [
            got["features", 12][kind] / floor,
            12 * got["pandas", 1][kind] / got["stream", 12][kind],
            12 * got["pandas", 1][kind] / got["features", 12][kind],
            got["features", 12][kind] / got["features", 1][kind],
            got["stream", 12][kind] / got["stream", 1][kind],
        ]

    words = ["12 dates, against the floor", "pandas (12 × one date) against 12 dates, not written"]
    words += ["the same, written", "12 dates against 1, in all", "12 dates against 1, before writing"]
    bars = ["≤ 2", "≥ 20", "≥ 20", "≤ 3", "≤ 1.6"]
    lines = ["| ratio | by wall | by CPU | bar |", "|---|---|---|---|"]
    rows = zip(words, quotient("wall"), quotient("cpu"), bars, strict=True)
    lines += [f"| {word} | {wall:.2f} | {cpu:.2f} | {bar} |" for word, wall, cpu, bar in rows]
    return [*lines, f"| peak memory, GB | {got['features', 12]['memory']:.2f} | | ≤ 3 |"]


def main() -> None:
    """Read the command line; with `--task`, be the process that is measured."""
    parser = argparse.ArgumentParser(description="Benchmark the feature stream.")
    parser.add_argument("--orders", type=int, default=10_000_000)
    parser.add_argument("--customers", type=int, default=500_000)
    for hidden in ("--task", "--folder"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    parser.add_argument("--dates", type=int, default=12, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.task:
        _child(given.task, Path(given.folder), given.dates)
        return
    with tempfile.TemporaryDirectory() as folder:
        sys.stdout.write(report(Path(folder), given.orders, given.customers) + "\n")


if __name__ == "__main__":
    main()
