"""Time the sufficient statistics of buy-till-you-die models against lifetimes, and compare every value.

    python tests/benchmarks/bench_summary.py [--orders 1_000_000] [--customers 50_000]

Both sides start from the same data frame and end with one row a customer: repeat purchase days, days from the first to
the last purchase, days from the first purchase to the date, mean spend of repeat days. In turn, three times; medians.
lifetimes is archived and no dependency of this project: pip install lifetimes 'setuptools<81'.
"""

from __future__ import annotations

import argparse
import warnings
from datetime import date

import numpy as np
import pandas as pd
from bench_scoring import in_turn

from tiermodel.config.project import Project
from tiermodel.features.panel import build_panel
from tiermodel.tables.history import read_history

AS_OF = date(2024, 1, 1)
COLUMNS = {
    "btyd_frequency": "frequency",
    "btyd_recency_days": "recency",
    "btyd_age_days": "T",
    "btyd_spend_mean": "monetary_value",
}


def make_orders(orders: int, customers: int) -> pd.DataFrame:
    """Draw three years of orders, of which a few customers place many."""
    rng = np.random.default_rng(7)
    return pd.DataFrame(
        {
            "customer": np.floor(rng.random(orders) ** 2 * customers).astype(np.int64),
            "time": pd.Timestamp("2021-01-01") + pd.to_timedelta(rng.integers(0, 1095 * 86_400, orders), unit="s"),
            "amount": np.round(np.exp(rng.normal(3, 1, orders)) + 0.01, 2),
        }
    )


def main() -> None:
    """Print a Markdown table."""
    # both warn about the pandas of today
    warnings.simplefilter("ignore")
    from lifetimes.utils import summary_data_from_transaction_data  # noqa: PLC0415

    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--orders", type=int, default=1_000_000)
    arguments.add_argument("--customers", type=int, default=50_000)
    given = arguments.parse_args()
    frame = make_orders(given.orders, given.customers)
    project = Project.model_validate(
        {
            "version": 1,
            "name": "bench",
            "data": {"transactions": {"columns": {"customer_id": "customer", "time": "time", "amount": "amount"}}},
            "features": {"groups": ["btyd"], "windows_days": [90]},
        }
    )
    found: dict[str, pd.DataFrame] = {}

    def lifetimes() -> None:
        found["theirs"] = summary_data_from_transaction_data(
            frame, "customer", "time", "amount", observation_period_end=AS_OF
        )

    def ours() -> None:
        found["ours"] = build_panel(project, [AS_OF], history=read_history(project, transactions=frame))

    ours()  # compiles the pass, once in the life of an installation
    theirs, mine = in_turn(lifetimes, ours)
    panel = found["ours"].set_index(found["ours"]["customer_id"].astype(np.int64)).sort_index()
    expected = found["theirs"].sort_index()
    assert panel.index.equals(expected.index)
    # a customer with one purchase day has no mean of repeat days: 0 there, missing here
    worst = max(
        float(np.abs(panel[name].fillna(0).to_numpy() - expected[their].to_numpy()).max())
        for name, their in COLUMNS.items()
    )
    print(f"| {given.orders:,} orders of {len(expected):,} customers | seconds |")
    print("|---|---|")
    print(f"| lifetimes, summary_data_from_transaction_data | {theirs:.2f} |")
    print(f"| tiermodel, the same columns and {len(panel.columns) - 6} more | {mine:.2f} |")
    print(f"| ratio (bar: ≥ 10) | {theirs / mine:.1f} |")
    print(f"| largest difference of any value | {worst:.1g} |")


if __name__ == "__main__":
    main()
