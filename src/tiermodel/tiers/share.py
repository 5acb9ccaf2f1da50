"""Levels by a share of customers, or of the cumulated value: the pyramid, ABC, 80/20. Cut points are frozen at fit."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tiermodel.features.tree import round_readable
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
        last_in = min(int(np.searchsorted(reached, share - 1e-12)), len(values) - 1)
        cuts.append(_between(values, last_in))
    return {"cuts": cuts[::-1]}


def _between(values: NDArray[np.float64], last_in: int) -> float:
    """Put the cut at a readable number between the last customer inside and the first outside, where there is one."""
    inside = values[last_in]
    outside = values[values < inside]
    if outside.size == 0:
        return float(inside)
    readable = next((r for d in range(1, 16) if outside[0] < (r := round_readable(float(inside), d)) <= inside), inside)
    return float(readable)


def assign(
    scheme: ShareScheme, state: dict[str, Any], frame: pd.DataFrame
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Give every buyer's level among `bought_levels`, and the rule that decided: here the level itself."""
    level = np.searchsorted(np.array(state["cuts"]), frame[scheme.feature].to_numpy(dtype=np.float64), side="right")
    return level, level


def conditions(scheme: ShareScheme, state: dict[str, Any]) -> list[list[Condition]]:
    """List each rule's conditions."""
    edges = [-np.inf, *state["cuts"], np.inf]
    return [[Condition(scheme.feature, low, high, closed_low=True)] for low, high in pairwise(edges)]
