"""Potential 提升空间: how far a customer's spend lies below the upper quartile of similar customers.

Similar customers share a leaf of a small regression tree on rhythm, tenure and breadth of purchases, never on amounts.
The tree and the quartile of each leaf are frozen at training, so one record scores as the batch does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.tree import DecisionTreeRegressor

from tiermodel.arrays import Floats
from tiermodel.models.learners.preprocessing import signed_root
from tiermodel.models.learners.readable_tree import freeze, leaf_of

__all__ = ["PeerGroups", "fit_peer_groups"]


UPPER = 0.75
_LEAVES = 40
_FEWEST = 25
_HABITS = (
    "days_since_last", "days_since_first", "order_count_total", "purchase_days_total", "gap_days_mean", "gap_variation",
    "active_share", "weekend_share", "lines_per_order", "product_count", "product_repeat_share", "category_count",
)  # fmt: skip


@dataclass(frozen=True)
class PeerGroups:
    """Groups of similar customers (leaves of `tree`), and the upper quartile of `spend` in each, in currency units."""

    spend: str
    tree: dict[str, list[Any]]
    reference: list[float]

    def potential(self, frame: pd.DataFrame) -> Floats:
        """Return how far each customer lies below the group's upper quartile, in currency units; zero at or above."""
        reference = np.array(self.reference)[leaf_of(self.tree, frame)]
        return np.maximum(reference - frame[self.spend].to_numpy(dtype=np.float64), 0.0)


def fit_peer_groups(snapshot: pd.DataFrame, spend: str, seed: int) -> PeerGroups:
    """Return the groups of buyers with similar habits, fitted on one snapshot with rows sorted by key."""
    names = [name for name in _HABITS if name in snapshot.columns]
    x, y = snapshot[names].to_numpy(dtype=np.float64), snapshot[spend].to_numpy(dtype=np.float64)
    grown = DecisionTreeRegressor(
        max_leaf_nodes=_LEAVES, min_samples_leaf=min(_FEWEST, max(1, len(x) // 2)), random_state=seed
    )
    grown.fit(x, signed_root(y))
    tree, leaf = freeze(grown.tree_, names, snapshot)
    return PeerGroups(spend, tree, [float(np.quantile(y[leaf == n], UPPER)) for n in range(leaf.max() + 1)])
