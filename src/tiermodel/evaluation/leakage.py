"""Target leakage: an input that by itself predicts churn or value nearly without error is refused.

A column that was filled in after the date, or that is the outcome under another name, exceeds the limits. Features of
the days and amounts of purchases are not tested: they read earlier rows only, and where customers pay a fee every month
they tell the next one nearly without error (elsewhere the days since the last purchase have an AUC of 0.75 to 0.95).
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from tiermodel.arrays import Floats
from tiermodel.errors import DataError
from tiermodel.evaluation.metrics import auc, spearman

__all__ = ["OF_PURCHASES", "refuse_leaks"]

_AUC, _RANK = 0.995, 0.99
_FEWEST, _MOST_ROWS = 50, 100_000
OF_PURCHASES = (
    "days_since_last", "days_since_first", "order_count_", "purchase_days_", "gap_", "overdue_", "active_",
    "orders_decayed_", "order_change_", "recent_rate_", "net_amount_", "order_amount_mean", "last_day_amount",
    "amount_decayed_", "amount_change_", "amount_year_change_", "amount_share_", "amount_per_30d", "peak_",
    "days_until_due", "silence_score", "btyd_", "expected_", "pareto_",
)  # fmt: skip
"""How the names of features begin that are made of the days and amounts of earlier purchases alone."""


def refuse_leaks(rows: pd.DataFrame, inputs: Floats, names: list[str]) -> None:
    """Raise `DataError` naming inputs, but for `OF_PURCHASES`, that predict these rows' outcome nearly without error.

    A column that is missing for one class and present for the other leaks as well. Rows without an outcome are left
    out, and so are columns with fewer than 50 rows of a class. At most 100,000 rows are tested, evenly spaced.
    """
    known = np.flatnonzero(rows["outcome_churned"].notna())
    known = known[:: -(-len(known) // _MOST_ROWS) or 1]
    churned = rows["outcome_churned"].to_numpy(dtype=np.float64)[known]
    value = rows["outcome_value"].to_numpy(dtype=np.float64)[known]
    found = [
        f"{name} ({why})"
        for name, x in zip(names, inputs[known].T, strict=True)
        if not name.startswith(OF_PURCHASES) and (why := _leak(x, churned, value))
    ]
    if found:
        raise DataError(
            f"{', '.join(found[:5])}: such a column knows the outcome; leave it out, or map the date from which each "
            "value was known"
        )


def _leak(x: Floats, churned: Floats, value: Floats) -> str | None:
    there = ~np.isnan(x)
    for what, column, rows in (("being known", there.astype(float), np.ones(len(x), dtype=bool)), ("values", x, there)):
        y = churned[rows]
        if min(y.sum(), (1 - y).sum()) < _FEWEST:
            continue
        strength = auc(y, column[rows])
        if max(strength, 1 - strength) > _AUC:
            return f"{what} tell churn with an AUC of {max(strength, 1 - strength):.3f}"
        if abs(rank := spearman(value[rows], column[rows])) > _RANK:
            return f"{what} follow the value to come with a rank correlation of {rank:.3f}"
    return None
