"""Print what training costs on a large log, and how good it is, by the number of customers it learns from.

    python tests/benchmarks/bench_size.py [--customers 100000] [--learn-from 10000 25000]

A seeded world with every kind of column; churn and value of the last 60 days are predicted for everybody, out of time.
Each number is run in a process of its own, whose peak memory is that of reading, training and predicting.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path

from bench_models import changed, table

from tiermodel import train
from tiermodel.config.project import load_project
from tiermodel.datasets.synthetic import make_world
from tiermodel.engines.dispatch import open_history
from tiermodel.evaluation.metrics import auc, gini, log_loss
from tiermodel.features.panel import build_panel

HORIZON = 60
HEAD = ("learned from", "customers", "log loss", "AUC", "value Gini", "CPU seconds", "seconds", "peak GB")


def one(file: Path, learn_from: int) -> list[str]:
    """Train as of 60 days before the end of the log, and judge on all of its customers."""
    project = changed(load_project(file), panel={"customers": learn_from})
    history = open_history(project)
    day = history.last_day - timedelta(HORIZON - 1)
    began, cpu = time.perf_counter(), time.process_time()
    bundle = train(project, day, history=history).bundle
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    buyers = build_panel(project, [day], with_outcome=True, history=history).dropna(subset=["days_since_last"])
    x, churned = bundle.inputs.matrix(buyers), buyers["outcome_churned"].to_numpy()
    risk, value = bundle.churn.predict(x), bundle.value.predict(x)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return [
        f"{bundle.facts['training_customers']:,}", f"{bundle.facts['customers']:,}",
        f"{log_loss(churned, risk):.4f}", f"{auc(churned, risk):.4f}",
        f"{gini(buyers['outcome_value'].to_numpy(), value):.4f}", f"{cpu:.0f}", f"{seconds:.0f}", f"{peak:.1f}",
    ]  # fmt: skip


def main() -> None:
    """Make the world, and train on it once for each number."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--customers", type=int, default=100_000)
    arguments.add_argument("--learn-from", type=int, nargs="+", default=[10_000, 25_000])
    arguments.add_argument("--world", type=Path, help="the project file of a world made before")
    given = arguments.parse_args()
    if given.world is not None:
        print(*one(given.world, *given.learn_from), sep="\t")
        return
    with tempfile.TemporaryDirectory() as folder:
        world = make_world(11, given.customers, days=900, future_days=HORIZON).write(folder)
        rows = []
        for number in given.learn_from:
            command = [sys.executable, __file__, "--world", str(world), "--learn-from", str(number)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603
            rows.append(dict(zip(HEAD, done.stdout.strip().split("\t"), strict=True)))
        table(rows)


if __name__ == "__main__":
    main()
