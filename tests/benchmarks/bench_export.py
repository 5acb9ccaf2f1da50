"""Time the export of a large base: all customers, then what changed of them; and the peak of memory.

    python tests/benchmarks/bench_export.py [--customers 500_000]

Each run is a process of its own. The bar is 60 s for 500,000 customers; memory is flat where the peak of a base four
times as large is nearly the same.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from tiermodel.config.packaged import packaged

TARGETS = {"zoho": "zoho_accounts", "fxiaoke": "fxiaoke_customers", "csv": "csv_service"}
RUN = """
import json, sys, time
from pathlib import Path
from tiermodel import export
scores, mapping, out, since = sys.argv[1:]
wall, cpu = time.perf_counter(), time.process_time()
done = export(scores, mapping, out, since=since or None)
status = Path("/proc/self/status").read_text()  # ru_maxrss would count the process that started this one
peak = int(status.split("VmHWM:")[1].split()[0]) / 1024
print(json.dumps([time.perf_counter() - wall, time.process_time() - cpu, peak, done.written, len(done.files)]))
"""


def main() -> None:
    """Print what was found."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--customers", type=int, default=500_000)
    customers = arguments.parse_args().customers
    print("customers  target   run      wall s   CPU s   peak MB    written  files")
    for n in (customers // 4, customers):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_scores(folder, n)
            for target, mapping in TARGETS.items():
                first, second = folder / f"{target}1", folder / f"{target}2"
                timed(n, target, "all", folder / "first.parquet", mapping, first, "")
                timed(n, target, "changed", folder / "second.parquet", mapping, second, str(first))


def write_scores(folder: Path, customers: int) -> None:
    """Write scores of two dates: at the second, a tenth of the customers has another risk, and a hundredth is gone."""
    draw = np.random.default_rng(7)
    frame = pd.DataFrame(
        {
            "customer_id": [f"C{number:09}" for number in range(customers)],
            "as_of": pd.Timestamp("2024-01-01"),
            "tier_code": draw.choice(["small", "regular", "secondary", "major"], customers, p=[0.5, 0.3, 0.15, 0.05]),
            "churn_risk": draw.random(customers).round(6),
            "expected_value": draw.lognormal(4, 1, customers).round(4),
            "reason_1": draw.choice(["近 365 天净消费额高", "net amount, last 365 days"], customers),
            "policy": draw.choice(["客户经理、定期回访", "self-service"], customers),
        }
    )
    frame.to_parquet(folder / "first.parquet", index=False)
    frame["as_of"] = pd.Timestamp("2024-04-01")
    frame.loc[frame.index % 10 == 1, "churn_risk"] = 0.5
    frame[frame.index % 100 != 0].to_parquet(folder / "second.parquet", index=False)


def timed(customers: int, target: str, run: str, scores: Path, mapping: str, out: Path, since: str) -> None:
    """Print one row."""
    words = [sys.executable, "-c", RUN, str(scores), str(packaged("mappings") / f"{mapping}.yaml"), str(out), since]
    done = subprocess.run(words, check=True, capture_output=True, text=True)  # noqa: S603
    wall, cpu, peak, written, files = json.loads(done.stdout)
    print(f"{customers:9,}  {target:8} {run:8} {wall:6.1f}  {cpu:6.1f}  {peak:8.0f}  {written:9,}  {files:5}")


if __name__ == "__main__":
    main()
