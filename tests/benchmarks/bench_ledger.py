"""Time grading into a ledger, month after month, against the same scores without one.

    python tests/benchmarks/bench_ledger.py [--customers 2_000_000] [--months 3] [--bundle models/complete-journey]
    python tests/benchmarks/bench_ledger.py --world FOLDER [--customers 500_000] [--months 3]

The first form turns the same feature batches into score batches, month by month, in turn. With a ledger, the look-up of
where customers stand, the comparison and the writing are added; the table shows what that costs.

The second runs the whole of `score`, from the tables to the files, on a seeded world that is made and trained on in
FOLDER where it is not there yet: with a ledger (bar: at most 1.2 times as long) and without, in turn.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from bench_scoring import BATCH, rows_like

from tiermodel import make_world, score, train
from tiermodel.bundle.bundle import Bundle, load_bundle
from tiermodel.config.project import load_project
from tiermodel.engines.dispatch import open_history
from tiermodel.ledger.ledger import Ledger
from tiermodel.ledger.rows import Before, from_batch
from tiermodel.predict.scoring import Scoring

FIRST, MOVED = date(2025, 1, 1), 0.2


def main() -> None:
    """Print a Markdown table, a row a month."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--customers", type=int, default=2_000_000)
    arguments.add_argument("--months", type=int, default=3)
    arguments.add_argument("--bundle", type=Path, default=Path("models/complete-journey"))
    arguments.add_argument("--world", type=Path, help="time the whole of score, on the world in this folder")
    given = arguments.parse_args()
    if given.world is not None:
        whole(given.world, given.customers, given.months)
        return
    bundle = load_bundle(given.bundle)
    print(
        f"| {given.customers:,} customers | scores alone, s | look-up and scores, s | comparing and writing, s | rows |"
    )
    print("|---|---|---|---|---|")
    alone_all = with_all = 0.0
    with tempfile.TemporaryDirectory() as folder:
        book, people = Ledger(Path(folder) / "book"), rows_like(bundle, given.customers)
        for month in range(given.months):
            day = FIRST + timedelta(30 * month)
            people = moved_on(people, month)
            alone, _ = scored(bundle, day, people, None)
            started = time.perf_counter()
            before = book.before(day)
            looked = time.perf_counter() - started
            taken, graded = scored(bundle, day, people, before)
            started = time.perf_counter()
            rows = book.append(day, pa.Table.from_batches(graded))
            written = time.perf_counter() - started
            alone_all, with_all = alone_all + alone, with_all + looked + taken + written
            print(
                f"| month {month + 1} | {alone:.1f} | {looked + taken:.1f} | {written:.1f} | {rows.rows:,} |",
                flush=True,
            )
    print(f"| with a ledger over scores alone | | {with_all / alone_all:.2f} | | |")


def whole(folder: Path, customers: int, months: int) -> None:
    """Score a world with a ledger and without, month by month; print a Markdown table, a row a month."""
    if not (folder / "bundle").exists():
        train(
            load_project(make_world(customers=customers, days=420, future_days=1).write(folder)), out=folder / "bundle"
        )
    project, bundle = load_project(folder / "project.yaml"), load_bundle(folder / "bundle")
    last = open_history(project).last_day
    days = [last - timedelta(30 * n) for n in reversed(range(months))]
    total = np.zeros((2, 2))
    print("| month | customers | rows | without: s, CPU s | with a ledger: s, CPU s | ratio: s, CPU s |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(dir=folder) as there:
        # everybody enters, and what is compiled or cached is warm
        score(project, bundle, days[0] - timedelta(30), Path(there) / "0.parquet", ledger=Path(there) / "book")
        for day in days:
            taken, added = np.zeros((2, 2)), 0
            for k, ledger in enumerate((None, Path(there) / "book")):
                began, cpu = time.perf_counter(), time.process_time()
                done = score(project, bundle, day, Path(there) / f"{k}.parquet", ledger=ledger)
                taken[k] = time.perf_counter() - began, time.process_time() - cpu
                added = done.added.rows if done.added is not None else 0
            total += taken
            print(f"| {day} | {done.customers:,} | {added:,} |", figures(taken), flush=True)
    print("| all | | |", figures(total), "(bar: ≤ 1.2)")


def figures(taken: np.ndarray) -> str:
    """Give the cells of a row: seconds and CPU seconds without and with a ledger, and their ratios."""
    ratio = taken[1] / taken[0]
    return " | ".join(f"{a:.2f}, {b:.2f}" for a, b in (*taken, ratio)) + " |"


def moved_on(people: pd.DataFrame, month: int) -> pd.DataFrame:
    """Let a fifth of the customers trade places, so that tiers move as they do."""
    rng = np.random.default_rng(month)
    order = np.arange(len(people))
    some = rng.choice(len(people), int(MOVED * len(people)), replace=False)
    order[some] = rng.permutation(some)
    return people.iloc[order].reset_index(drop=True)


def batches(people: pd.DataFrame, day: date) -> Iterator[pa.RecordBatch]:
    """Give snapshot batches, customers in order."""
    for start in range(0, len(people), BATCH):
        part = people.iloc[start : start + BATCH]
        keys = pd.DataFrame({"customer_id": [f"customer-{n:09d}" for n in part.index], "as_of": pd.Timestamp(day)})
        yield pa.RecordBatch.from_pandas(pd.concat([keys, part.reset_index(drop=True)], axis=1), preserve_index=False)


def scored(
    bundle: Bundle, day: date, people: pd.DataFrame, before: Before | None
) -> tuple[float, list[pa.RecordBatch]]:
    """Score all batches; give the seconds, and the ledger's rows where there is one."""
    scoring, seconds, graded = Scoring(bundle, day, before), 0.0, []
    for batch in batches(people, day):
        started = time.perf_counter()
        done = scoring(batch)
        if before is not None:
            graded.append(from_batch(done))
        seconds += time.perf_counter() - started
    return seconds, graded


if __name__ == "__main__":
    main()
