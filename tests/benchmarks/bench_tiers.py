"""Customers graded a second from a feature table in memory, by every preset that needs no learning.

Run: python tests/benchmarks/bench_tiers.py [ROWS]
"""

from __future__ import annotations

import sys
import time

import numpy as np
import pandas as pd

from tiermodel.tiers.fitted_scheme import fit_scheme
from tiermodel.tiers.schemes.load import load_preset, preset_names

WINDOWS = (30, 90, 365)
BEST_OF = 3


def customers(rows: int) -> pd.DataFrame:
    """Draw a feature table."""
    draw = np.random.default_rng(1)
    days = draw.integers(1, 60, rows).astype(float)
    spend = np.round(draw.lognormal(4, 1.2, rows), 2)
    names = {
        "days_since_last": draw.integers(1, 300, rows).astype(float),
        "days_since_first": draw.integers(1, 900, rows).astype(float),
        "purchase_days_total": days, "order_count_total": days,
        "purchase_days_365d": days, "purchase_days_90d": days // 3,
        "net_amount_total": spend, "net_amount_365d": spend, "net_amount_90d": np.round(spend * draw.random(rows), 2),
        "order_amount_mean": spend / days, "active_share": draw.random(rows),
        "recent_rate_90d": draw.gamma(2, 0.5, rows),
        "amount_change_90d": draw.uniform(-1, 1, rows), "overdue_max_ratio": draw.gamma(1, 1, rows),
        "peak_month_amount": spend * draw.random(rows), "product_count": draw.integers(1, 90, rows).astype(float),
        "gap_days_mean": draw.gamma(3, 10, rows), "gap_days_max": draw.integers(20, 200, rows).astype(float),
        "gap_variation": draw.gamma(2, 0.5, rows), "product_repeat_share": draw.random(rows),
        "lines_per_order": draw.gamma(4, 1, rows), "return_count_total": draw.integers(0, 3, rows).astype(float),
    }  # fmt: skip
    keys = {"customer_id": np.arange(rows), "as_of": np.full(rows, np.datetime64("2025-01-01", "s"))}
    return pd.DataFrame({**keys, **names})


def main() -> None:
    """Time `assign` for each preset, best of a few runs."""
    frame = customers(int(sys.argv[1]) if len(sys.argv) > 1 else 2_000_000)
    sample = frame.head(50_000)
    for name in preset_names():
        scheme = load_preset(name, WINDOWS)
        if scheme.kind == "learned":
            continue
        fitted = fit_scheme(scheme, sample, sample, 7)
        times = []
        for _ in range(BEST_OF):
            started = time.perf_counter()
            fitted.assign(frame)
            times.append(time.perf_counter() - started)
        print(f"{name:26} {scheme.kind:11} {len(frame) / min(times) / 1e6:6.1f} M customers/s")


if __name__ == "__main__":
    main()
