"""Time scoring a million feature rows against LightGBM's own predict on the same trees.

    python tests/benchmarks/bench_scoring.py [--rows 1_000_000] [--bundle models/complete-journey]

Both sides see the same rows in the same order, in turn, three times; the table shows medians. LightGBM is given its
matrix ready made; our side starts from a data frame of features and ends with the score table.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from tiermodel.bundle.bundle import Bundle, load_bundle
from tiermodel.models.learners.boosting import Boosted
from tiermodel.predict import predict

BATCH = 65_536


def main() -> None:
    """Print a Markdown table."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rows", type=int, default=1_000_000)
    arguments.add_argument("--bundle", type=Path, default=Path("models/complete-journey"))
    given = arguments.parse_args()
    bundle = load_bundle(given.bundle)
    frame = rows_like(bundle, given.rows)
    batches = [frame.iloc[i : i + BATCH] for i in range(0, len(frame), BATCH)]
    matrices = [bundle.inputs.matrix(batch) for batch in batches]
    models = [m for m in (bundle.churn.boosted, bundle.value.boosted, *bundle.tier.boosted) if m is not None]
    trees = sum(m.booster.num_trees() for m in models)

    def lightgbm_only() -> None:
        for x in matrices:
            for model in models:
                model.predict(x)

    def ours() -> None:
        for batch in batches:
            predict(bundle, batch)

    theirs, mine = in_turn(lightgbm_only, ours)
    print(f"| {given.rows:,} rows, {trees} trees in {len(models)} models | seconds | rows a second |")
    print("|---|---|---|")
    print(f"| LightGBM's predict alone | {theirs:.1f} | {given.rows / theirs:,.0f} |")
    print(f"| the whole score table | {mine:.1f} | {given.rows / mine:,.0f} |")
    print(f"| share of LightGBM's rate (bar: ≥ 60 %) | | {theirs / mine:.0%} |")


def rows_like(bundle: Bundle, rows: int) -> pd.DataFrame:
    """Draw feature rows that reach many leaves: each feature around the split points of the trees."""
    rng = np.random.default_rng(7)
    splits = split_points(bundle.churn.boosted)
    columns = {
        name: rng.choice(splits.get(name, np.array([0.0, 1.0])), rows) + rng.normal(0, 0.01, rows)
        for name in bundle.inputs.names
    }
    # a history that could be: purchase days are whole, the last purchase is not before the first
    columns["purchase_days_total"] = np.maximum(1.0, np.rint(columns["purchase_days_total"]))
    columns["days_since_last"] = np.maximum(1.0, np.rint(columns["days_since_last"]))
    first = columns["days_since_last"] + np.rint(np.abs(columns["days_since_first"]))
    columns["days_since_first"] = np.where(columns["purchase_days_total"] > 1, first, columns["days_since_last"])
    return pd.DataFrame(columns)


def split_points(model: Boosted) -> dict[str, np.ndarray]:
    """List the thresholds of each feature."""
    table = model.booster.trees_to_dataframe()
    inner = table[table["split_feature"].notna()]
    return {str(name): np.asarray(group["threshold"], dtype=float) for name, group in inner.groupby("split_feature")}


def in_turn(first: Callable[[], None], second: Callable[[], None], times: int = 3) -> tuple[float, float]:
    """Time both in turn and give the medians."""
    taken: tuple[list[float], list[float]] = ([], [])
    for _ in range(times):
        for function, seconds in zip((first, second), taken, strict=True):
            started = time.perf_counter()
            function()
            seconds.append(time.perf_counter() - started)
    return statistics.median(taken[0]), statistics.median(taken[1])


if __name__ == "__main__":
    main()
