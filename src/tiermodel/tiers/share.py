"""Levels by a share of customers, or of the cumulated value: the pyramid, ABC, 80/20. Cut points are frozen at fit."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tiermodel.features.tree import roundest
from tiermodel.tiers.conditions import Condition
from tiermodel.tiers.scheme import ShareScheme

__all__ = ["assign", "conditions", "fit"]


def fit(scheme: ShareScheme, frame: pd.DataFrame) -> dict[str, Any]:
    """Find, on one snapshot of buyers, the value from which on each level starts."""
    values = np.sort(frame[scheme.feature].to_numpy(dtype=np.float64))[::-1]
    values = values[~np.isnan(values)]
    if scheme.of == "customers":
        reached = np.arange(1, len(values) + 1) / len(values)
    else:
        positive = np.maximum(values, 0.0)
        reached = np.cumsum(positive) / max(positive.sum(), np.finfo(float).tiny)
    cuts: list[float] = []
    share = 0.0
    for code in reversed(scheme.bought_levels[1:]):
        share += scheme.shares[code]
        cuts.append(_cut(values, reached, share))
    return {"cuts": cuts[::-1], "may_miss": bool(frame[scheme.feature].isna().any())}


def _cut(values: NDArray[np.float64], reached: NDArray[np.float64], share: float) -> float:
    """Put the cut at a readable number between the last customer inside and the first outside, where there is one.

    Equal values that straddle the share are inside or outside together, whichever comes nearer to it, unless nobody
    would be left inside.
    """
    inside = values[min(int(np.searchsorted(reached, share - 1e-12)), len(values) - 1)]
    first, last = np.flatnonzero(values == inside)[[0, -1]]
    if 0 < first < last and share - reached[first - 1] < reached[last] - share - 1e-12:
        inside = values[first - 1]
    outside = values[values < inside]
    if outside.size == 0:
        return float(inside)
    return roundest(float(inside), lambda cut: outside[0] < cut <= inside)


def assign(
    scheme: ShareScheme, state: dict[str, Any], frame: pd.DataFrame
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Give every buyer's level among `bought_levels`, the lowest without a value, and the rule: the level itself."""
    values = frame[scheme.feature].to_numpy(dtype=np.float64)
    level = np.searchsorted(np.array(state["cuts"]), np.where(np.isnan(values), -np.inf, values), side="right")
    return level, level


def conditions(scheme: ShareScheme, state: dict[str, Any]) -> list[list[Condition]]:
    """List each rule's conditions."""
    edges = [-np.inf, *state["cuts"], np.inf]
    return [
        [Condition(scheme.feature, low, high, missing=state["may_miss"] and low == -np.inf, closed_low=True)]
        for low, high in pairwise(edges)
    ]
