"""Measure the feature stream against the floor, pandas and DuckDB SQL, every group and table; print Markdown tables.

    python tests/benchmarks/bench_features.py [--orders 10_000_000] [--customers 500_000] [--large]

The floor is to sort and stream the rows with DuckDB and to write an equally large table with pyarrow. Every task runs
in its own process, so that CPU time and peak memory are its own; imports are not timed. The better of two runs counts.
`--large` adds one snapshot of ten times the orders and customers.
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
from collections.abc import Callable, Collection, Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any, get_args

import duckdb
import pandas as pd
import pyarrow.parquet as pq

from tiermodel.config.data import Data
from tiermodel.config.project import FeatureGroup, Project
from tiermodel.engines.duckdb import BATCH_ROWS
from tiermodel.features.panel import Snapshots, snapshot_batches
from tiermodel.output import write_table
from tiermodel.tables.history import History, read_history

MEMORY = Data.model_fields["memory"].default  # what users get who set nothing
WINDOWS = (30, 90, 180, 365)
LAST = date(2023, 12, 1)
DATES = tuple(LAST - timedelta(30 * n) for n in reversed(range(12)))
SALES = (
    "customer_id",
    "order_id",
    "time",
    "amount",
    "product_id",
    "category",
    "channel",
    "quantity",
    "cost",
    "discount",
)
TABLES = {
    "transactions": SALES,
    "events": ("customer_id", "time", "kind", "value"),
    "invoices": ("customer_id", "amount", "issued", "due", "paid", "disputed"),
    "costs": ("customer_id", "time", "amount"),
    "customers": ("customer_id", "signup", "acquisition_cost", "contract_end"),
}
KINDS = ("visit", "click", "campaign", "response", "meeting", "complaint", "ticket", "referral", "survey")
Result = dict[str, float]


def make_data(folder: Path, orders: int, customers: int, only: Collection[str] = tuple(TABLES)) -> None:
    """Write three years of orders: a few customers buy often, most seldom; 3 % are returns."""
    connection = duckdb.connect()
    connection.execute("SET enable_progress_bar = false")
    connection.execute("SET threads = 1")  # random() is the same again on one thread only
    connection.execute("SELECT setseed(0.5)")
    who = f"floor(pow(random(), 2) * {customers})::BIGINT AS customer_id"
    when = "TIMESTAMP '2021-01-01' + to_seconds(floor(random() * 94608000)::BIGINT)"
    sale = (
        f"SELECT {who}, i AS order_id, {when} AS time, "
        "round(exp(random() * 5) + 0.01, 2) * (CASE WHEN random() < 0.03 THEN -1 ELSE 1 END) AS amount, "
        "floor(pow(random(), 3) * 5000)::BIGINT AS product_id, floor(random() * 3)::BIGINT AS channel, "
        f"1 + floor(random() * 4)::BIGINT AS quantity FROM range({orders}) t(i)"
    )
    sales = "*, product_id // 100 AS category, round(amount * 0.7, 2) AS cost"
    sales += ", round(greatest(amount, 0) * 0.1, 2) AS discount"
    issued = f"SELECT {who}, {when} AS issued, round(exp(random() * 5), 2) AS amount, random() AS r"
    issued += f" FROM range({orders // 10})"
    queries = {
        "transactions": f"SELECT {sales} FROM ({sale})",
        "events": f"SELECT {who}, {when} AS time, {list(KINDS)}[1 + floor(random() * 9)::INTEGER] AS kind, "
        f"floor(random() * 11)::BIGINT AS value FROM range({orders // 5})",
        "invoices": "SELECT customer_id, amount, issued, issued + INTERVAL 30 DAY AS due, "
        "CASE WHEN r < 0.95 THEN issued + to_days(floor(r * 60)::INTEGER) END AS paid, "
        f"CASE WHEN r < 0.05 THEN issued + INTERVAL 7 DAY END AS disputed FROM ({issued})",
        "costs": f"SELECT {who}, {when} AS time, round(exp(random() * 3), 2) AS amount FROM range({orders // 20})",
        "customers": "SELECT i AS customer_id, DATE '2021-01-01' + (random() * 600)::INTEGER AS signup, "
        f"20 + random() * 80 AS acquisition_cost, DATE '2024-06-30' AS contract_end FROM range({customers}) t(i)",
    }
    for name in only:
        query = queries[name]
        connection.execute(f"COPY ({query}) TO '{folder}/{name}.parquet' (FORMAT parquet)")


def _opened(folder: Path, dates: tuple[date, ...]) -> tuple[History, Snapshots]:
    data = {
        name: {"path": str(folder / f"{name}.parquet"), "columns": {column: column for column in columns}}
        for name, columns in TABLES.items()
    }
    features = {"windows_days": WINDOWS, "groups": get_args(FeatureGroup)}
    project = Project.model_validate(
        {"version": 1, "name": "bench", "data": {**data, "memory": MEMORY}, "features": features}
    )
    history = read_history(project)
    return history, Snapshots(project, history.columns, dates)


def run_stream(folder: Path, dates: tuple[date, ...]) -> Result:
    """Make the snapshots and drop them."""
    history, snapshots = _opened(folder, dates)
    made = sum(batch.num_rows for batch in snapshot_batches(history, snapshots))
    return {"rows": made, "columns": len(snapshots.features)}


def run_features(folder: Path, dates: tuple[date, ...]) -> Result:
    """Make the snapshots and write them."""
    history, snapshots = _opened(folder, dates)
    path = folder / f"features{len(dates)}.parquet"
    write_table(snapshot_batches(history, snapshots), path, snapshots.schema)
    return {"columns": len(snapshots.features), "megabytes": path.stat().st_size / 1e6}


def run_sort(folder: Path, dates: tuple[date, ...]) -> Result:
    """Sort and stream the rows of every table by customer and day with DuckDB, and do nothing with them."""
    connection = duckdb.connect()
    connection.execute(f"SET memory_limit = '{MEMORY}'")
    connection.execute(f"SET temp_directory = '{folder}/spill'")
    when = {"invoices": "issued", "customers": "signup"}
    parts = (
        f"SELECT *, {when.get(name, 'time')}::DATE AS day FROM '{folder}/{name}.parquet' WHERE day < DATE '{dates[-1]}'"
        for name in TABLES
    )
    query = f"SELECT * FROM ({' UNION ALL BY NAME '.join(parts)}) ORDER BY customer_id, day, order_id"
    return {"rows": sum(batch.num_rows for batch in connection.sql(query).to_arrow_reader(BATCH_ROWS))}


def run_write(folder: Path, dates: tuple[date, ...]) -> Result:
    """Write as many rows and columns as the features have, from memory, with pyarrow's default settings.

    The values are the features themselves (their first batches over and over): random ones would be slower to write.
    """
    source = pq.ParquetFile(folder / f"features{len(dates)}.parquet")
    batches = [source.read_row_group(n).combine_chunks().to_batches()[0] for n in range(min(4, source.num_row_groups))]
    left, path = source.metadata.num_rows, folder / "floor.parquet"
    before = _used()
    with pq.ParquetWriter(path, batches[0].schema) as writer:
        for batch in itertools.cycle(batches):
            writer.write_batch(batch.slice(0, left))
            left -= batch.num_rows
            if left <= 0:
                break
    return {**_used(before), "megabytes": path.stat().st_size / 1e6}


def run_duckdb(folder: Path, dates: tuple[date, ...]) -> Result:
    """Compute most of the features for one date as one does in SQL: sums by window, lags for the gaps."""
    connection = duckdb.connect()
    connection.execute("SET memory_limit = '12GB'")
    connection.execute(f"SET temp_directory = '{folder}/spill'")
    as_of = f"DATE '{dates[-1]}'"
    for name in TABLES:
        connection.execute(f"CREATE VIEW {name} AS FROM '{folder}/{name}.parquet'")
    columns = 0
    for query in _sql_queries(as_of):
        reader = connection.sql(query).to_arrow_reader(BATCH_ROWS)
        columns += len(reader.schema) - 1
        rows = sum(batch.num_rows for batch in reader)
    return {"rows": rows, "columns": columns}


def _sql_queries(as_of: str) -> Iterator[str]:
    def within(days: int, ago: int = 0) -> str:
        return f"FILTER (day >= {as_of} - {days + ago} AND day < {as_of} - {ago})"

    spans = [("total", "FILTER (true)"), *((str(w), within(w)) for w in WINDOWS)]
    spans += [(f"before{w}", within(w, w)) for w in WINDOWS] + [(f"year_ago{w}", within(w, 365 - w)) for w in WINDOWS]
    measures = {
        "net": "sum(amount)",
        "margin": "sum(amount - cost)",
        "quantity": "sum(quantity)",
        "discount": "sum(discount)",
        "lines": "count(*)",
        "orders": "count(DISTINCT order_id)",
        "days": "count(DISTINCT day)",
    }
    sums = ", ".join(f"{sql} {span} AS {name}_{words}" for name, sql in measures.items() for words, span in spans)
    products = "count(DISTINCT product_id), count(DISTINCT category), count(DISTINCT channel)"
    sales = f"SELECT *, time::DATE AS day FROM transactions WHERE time < {as_of}"
    yield f"SELECT customer_id, {sums}, {products} FROM ({sales}) GROUP BY customer_id"
    yield (
        "SELECT customer_id, min(day), max(day), avg(gap), stddev_pop(gap), max(gap), last(gap ORDER BY day) FROM "
        "(SELECT customer_id, day, day - lag(day) OVER (PARTITION BY customer_id ORDER BY day) AS gap FROM "
        f"(SELECT DISTINCT customer_id, day FROM ({sales}) WHERE amount >= 0)) GROUP BY customer_id"
    )
    spans = spans[: 1 + len(WINDOWS)]
    of_kind = ", ".join(f"count_if(kind = '{kind}') {span} AS {kind}_{w}" for kind in KINDS for w, span in spans)
    lasts = ", ".join(f"max(day) FILTER (kind = '{kind}') AS {kind}_last" for kind in KINDS)
    yield (
        f"SELECT customer_id, {of_kind}, {lasts} FROM (SELECT *, time::DATE AS day FROM events WHERE time < {as_of}) "
        "GROUP BY customer_id"
    )
    bills = ", ".join(f"count(*) {span} AS bills_{w}, sum(amount) {span} AS billed_{w}" for w, span in spans)
    yield f"SELECT customer_id, {bills} FROM (SELECT *, issued::DATE AS day FROM invoices) GROUP BY customer_id"
    late = "avg(greatest(paid::DATE - due::DATE, 0))"
    paid = ", ".join(
        f"{late} {span} AS late_{w}, avg(paid::DATE - issued::DATE) {span} AS dso_{w}" for w, span in spans
    )
    yield (
        f"SELECT customer_id, {paid} FROM (SELECT *, paid::DATE AS day FROM invoices WHERE paid < {as_of}) "
        "GROUP BY customer_id"
    )
    costs = ", ".join(f"sum(amount) {span} AS cost_{w}" for w, span in spans)
    yield f"SELECT customer_id, {costs} FROM (SELECT *, time::DATE AS day FROM costs) GROUP BY customer_id"


def run_pandas(folder: Path, dates: tuple[date, ...]) -> Result:
    """Compute most of the features for one date as one does in pandas: one groupby per question."""
    as_of = pd.Timestamp(dates[-1])
    found: dict[str, Any] = dict(_pandas_sales(folder, as_of))
    events = _read(folder, "events", "time", as_of)
    for days in (1 << 14, *WINDOWS):
        recent = events[events["day"] >= as_of - pd.Timedelta(days=days)]
        counts = recent.groupby(["customer_id", "kind"]).size().unstack()  # noqa: PD010 what it replaces is slower
        found |= {f"{kind}_{days}": counts[kind] for kind in KINDS}
    found |= {
        f"{kind}_last": day
        for kind, day in events.groupby(["customer_id", "kind"])["day"].max().unstack().items()  # noqa: PD010
    }
    bills, costs = _read(folder, "invoices", "issued", as_of), _read(folder, "costs", "time", as_of)
    paid = bills[bills["paid"] < as_of].assign(day=lambda rows: rows["paid"].dt.floor("D"))
    paid["late"] = (paid["day"] - paid["due"].dt.floor("D")).dt.days.clip(lower=0)
    paid["to_pay"] = (paid["day"] - paid["issued"].dt.floor("D")).dt.days
    for days in (1 << 14, *WINDOWS):
        start = as_of - pd.Timedelta(days=days)
        by = bills[bills["day"] >= start].groupby("customer_id")["amount"]
        found |= {f"bills_{days}": by.size(), f"billed_{days}": by.sum()}
        by_paid = paid[paid["day"] >= start].groupby("customer_id")
        found |= {f"late_{days}": by_paid["late"].mean(), f"dso_{days}": by_paid["to_pay"].mean()}
        found[f"cost_{days}"] = costs[costs["day"] >= start].groupby("customer_id")["amount"].sum()
    table = pd.DataFrame(found)
    return {"rows": len(table), "columns": table.shape[1]}


def _read(folder: Path, name: str, when: str, as_of: pd.Timestamp) -> pd.DataFrame:
    rows = pd.read_parquet(folder / f"{name}.parquet")
    rows = rows[rows[when] < as_of]
    return rows.assign(day=rows[when].dt.floor("D"))


def _pandas_sales(folder: Path, as_of: pd.Timestamp) -> Iterator[tuple[str, Any]]:
    rows = _read(folder, "transactions", "time", as_of)
    rows["margin"] = rows["amount"] - rows["cost"]
    bought = rows[rows["amount"] >= 0]
    orders = bought.drop_duplicates(["customer_id", "order_id"])
    days = bought.drop_duplicates(["customer_id", "day"]).sort_values(["customer_id", "day"])
    products = bought.sort_values("time").drop_duplicates(["customer_id", "product_id"])
    by_day = days.groupby("customer_id")["day"]
    gaps = by_day.diff().dt.days.groupby(days["customer_id"])
    yield from {
        "first": by_day.min(),
        "last": by_day.max(),
        "gap_mean": gaps.mean(),
        "gap_std": gaps.std(ddof=0),
    }.items()
    weekend = orders["day"].dt.dayofweek.ge(5).groupby(orders["customer_id"]).mean()
    yield from {"gap_max": gaps.max(), "gap_last": gaps.last(), "weekend": weekend}.items()
    distinct = bought.groupby("customer_id")[["product_id", "category", "channel"]].nunique()
    yield from ((str(name), counts) for name, counts in distinct.items())
    yield "peak_day", rows.groupby(["customer_id", "day"])["amount"].sum().groupby("customer_id").max()
    spans = [("total", 1 << 14, 0), *((str(w), w, 0) for w in WINDOWS), *((f"before{w}", w, w) for w in WINDOWS)]
    spans += [(f"year_ago{w}", w, 365 - w) for w in WINDOWS]
    for words, length, ago in spans:
        start, end = as_of - pd.Timedelta(days=length + ago), as_of - pd.Timedelta(days=ago)

        def of(table: pd.DataFrame, start: Any = start, end: Any = end) -> Any:
            return table[table["day"].between(start, end, inclusive="left")].groupby("customer_id")

        for name, sums in of(rows)[["amount", "margin", "discount"]].sum().items():
            yield f"{name}_{words}", sums
        yield f"quantity_{words}", of(bought)["quantity"].sum()
        yield f"lines_{words}", of(bought).size()
        yield f"orders_{words}", of(orders).size()
        yield f"days_{words}", of(days).size()
        yield f"new_products_{words}", of(products).size()


TASKS: dict[str, Callable[[Path, tuple[date, ...]], Result]] = {
    "stream": run_stream,
    "features": run_features,
    "sort": run_sort,
    "write": run_write,
    "pandas": run_pandas,
    "duckdb": run_duckdb,
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


def report(folder: Path, orders: int, customers: int) -> tuple[str, Result]:
    """Measure everything and lay it out against the bars; give the run of one date too."""
    make_data(folder, orders, customers)
    got = {(task, n): measure(task, folder, n) for task in ("features", "stream", "sort", "write") for n in (12, 1)}
    got |= {(task, 1): measure(task, folder, 1, times=1) for task in ("pandas", "duckdb")}
    columns = int(got["features", 1]["columns"])
    names = {
        "sort": "floor: DuckDB sorts and streams the rows",
        "write": "floor: pyarrow writes an equally large table",
        "stream": f"{columns} features, not written",
        "features": f"{columns} features, parquet to parquet",
        "pandas": f"pandas, {int(got['pandas', 1]['columns'])} of these features, not written",
        "duckdb": f"DuckDB SQL, {int(got['duckdb', 1]['columns'])} of these features, not written",
    }
    lines = [f"{orders:,} orders of {customers:,} customers and as many rows again / 3 of other tables", ""]
    lines += ["| what | dates | wall s | CPU s | peak GB |", "|---|---|---|---|---|"]
    lines += [
        f"| {names[task]} | {n} | {run['wall']:.1f} | {run['cpu']:.1f} | {run['memory']:.2f} |"
        for (task, n), run in sorted(got.items(), key=lambda item: (list(names).index(item[0][0]), item[0][1]))
    ]
    return "\n".join([*lines, "", *_against_bars(got)]), got["features", 1]


def _against_bars(got: dict[tuple[str, int], Result]) -> list[str]:
    def quotient(kind: str) -> list[float]:
        floor = got["sort", 12][kind] + got["write", 12][kind]
        ours = got["stream", 12][kind]
        return [
            got["features", 12][kind] / floor,
            12 * got["pandas", 1][kind] / ours,
            12 * got["duckdb", 1][kind] / ours,
            got["features", 12][kind] / got["features", 1][kind],
            ours / got["stream", 1][kind],
        ]

    words = ["12 dates, against the floor", "pandas (12 × one date) against 12 dates, not written"]
    words += ["DuckDB SQL (12 × one date) against 12 dates, not written"]
    words += ["12 dates against 1, in all", "12 dates against 1, before writing"]
    bars = ["≤ 2.5", "≥ 25", "≥ 15", "", ""]
    lines = ["| ratio | by wall | by CPU | bar |", "|---|---|---|---|"]
    rows = zip(words, quotient("wall"), quotient("cpu"), bars, strict=True)
    lines += [f"| {word} | {wall:.2f} | {cpu:.2f} | {bar} |" for word, wall, cpu, bar in rows]
    return [*lines, f"| peak memory, GB | {got['features', 12]['memory']:.2f} | | |"]


def large(folder: Path, orders: int, customers: int, small: Result) -> str:
    """Measure one snapshot of many more rows."""
    make_data(folder, orders, customers)
    run = measure("features", folder, 1, times=1)
    return (
        f"{orders:,} orders of {customers:,} customers, one snapshot: {run['wall']:.0f} s wall, "
        f"{run['cpu']:.0f} s CPU, {run['memory']:.2f} GB (bar ≤ 4), "
        f"{run['wall'] / small['wall']:.1f} × the smaller run (bar ≤ 12)"
    )


def main() -> None:
    """Read the command line; with `--task`, be the process that is measured."""
    parser = argparse.ArgumentParser(description="Benchmark the feature stream.")
    parser.add_argument("--orders", type=int, default=10_000_000)
    parser.add_argument("--customers", type=int, default=500_000)
    parser.add_argument("--large", action="store_true")
    for hidden in ("--task", "--folder"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    parser.add_argument("--dates", type=int, default=12, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.task:
        _child(given.task, Path(given.folder), given.dates)
        return
    with tempfile.TemporaryDirectory() as folder:
        text, small = report(Path(folder), given.orders, given.customers)
        sys.stdout.write(text + "\n")
    if given.large:
        with tempfile.TemporaryDirectory() as folder:
            sys.stdout.write(large(Path(folder), 10 * given.orders, 10 * given.customers, small) + "\n")


if __name__ == "__main__":
    main()
