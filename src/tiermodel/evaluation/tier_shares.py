"""Shares of the tiers, and of the services that follow from them, in each group of an audited attribute."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from tiermodel.arrays import Ints
from tiermodel.evaluation.slices import FEWEST, groups
from tiermodel.features.catalogue import AUDITED

__all__ = ["shares_with_intervals", "tier_shares"]

_FEWEST_IN_CELL = 5  # customers of a group in a tier whose share is told, unless there are none


def tier_shares(
    buyers: pd.DataFrame, tier: Ints, codes: Sequence[str], services: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Yield a row for every group of 30 customers or more of every column `audited_…` of `buyers`.

    `tiers` has the share of each code of a tier, `services` that of the tiers (joined by +) with each service: a share
    (0–1) with the ends of its 95 % interval (Wilson), or None where that would tell of fewer than five customers. Where
    one share of a group is hidden, the next smallest is too, since the shares add up to one.
    """
    levels = [[code] for code in codes]
    by_service = [[c for c, s in zip(codes, services, strict=True) if s == one] for one in dict.fromkeys(services)]
    for name, group in groups(buyers, tier, codes).items():
        for label in group.cat.categories if name.startswith(f"{AUDITED}_") else ():
            here = (group == label).to_numpy()
            if (n := int(here.sum())) < FEWEST:
                continue
            counts = dict(zip(codes, np.bincount(tier[here], minlength=len(codes)).tolist(), strict=True))
            found = {
                key: shares_with_intervals({"+".join(part): sum(counts[c] for c in part) for part in parts}, n)
                for key, parts in (("tiers", levels), ("services", by_service))
            }
            yield {"attribute": name.removeprefix(f"{AUDITED}_"), "group": str(label), "customers": n, **found}


def shares_with_intervals(counts: dict[str, int], total: int) -> dict[str, list[float] | None]:
    """Return each count as a share of the total with its 95 % interval; None where it is hidden.

    >>> shares_with_intervals({"small": 90, "key": 7, "large": 3}, 100)
    {'small': [0.9, 0.8256, 0.9448], 'key': None, 'large': None}
    """
    hidden = {name for name, count in counts.items() if 0 < count < _FEWEST_IN_CELL}
    others = sorted((count, name) for name, count in counts.items() if name not in hidden and count)
    if len(hidden) == 1 and others:
        hidden.add(others[0][1])
    return {name: None if name in hidden else _share(count, total) for name, count in counts.items()}


def _share(count: int, total: int) -> list[float]:
    ends = binomtest(count, total).proportion_ci(method="wilson")
    return [round(float(x), 4) for x in (count / total, ends.low, ends.high)]
