"""Levels by a share of customers, or of the cumulated value: the pyramid, ABC, 80/20. Cut points are frozen at fit."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tiermodel.features.condition import Condition
from tiermodel.tiers.cuts import band_edges, level_of, share_cuts
from tiermodel.tiers.kinds import ShareScheme

__all__ = ["assign", "conditions", "fit", "levels_of_rules", "span"]

Levels = NDArray[np.int64]


def fit(scheme: ShareScheme, frame: pd.DataFrame) -> dict[str, Any]:
    """Find, on one snapshot of buyers, the value from which on each level starts."""
    values = frame[scheme.feature].to_numpy(dtype=np.float64)
    cuts = share_cuts(scheme.ordered(scheme.shares), values, of_value=scheme.of == "value", capacity=scheme.capacities)
    return {"cuts": cuts, "may_miss": bool(np.isnan(values).any()), **band_edges(scheme, cuts, values)}


def assign(scheme: ShareScheme, state: dict[str, Any], frame: pd.DataFrame) -> tuple[Levels, Levels]:
    """Give every buyer's level among `bought_levels`, the lowest without a value, and the rule: the level itself."""
    level = level_of(state["cuts"], frame[scheme.feature].to_numpy(dtype=np.float64))
    return level, level


def span(scheme: ShareScheme, state: dict[str, Any], frame: pd.DataFrame) -> tuple[Levels, Levels]:
    """Give the lowest level within the band for moving up, and the highest within the band for moving down."""
    values = frame[scheme.feature].to_numpy(dtype=np.float64)
    return level_of([high for _, high in state["up"]], values), level_of([low for low, _ in state["down"]], values)


def levels_of_rules(scheme: ShareScheme, _state: dict[str, Any]) -> Levels:
    """Give the level of every rule: its own number."""
    return np.arange(len(scheme.bought_levels))


def conditions(scheme: ShareScheme, state: dict[str, Any]) -> list[list[Condition]]:
    """List each rule's conditions."""
    edges = [-np.inf, *state["cuts"], np.inf]
    return [
        [Condition(scheme.feature, low, high, missing=state["may_miss"] and low == -np.inf, closed_low=True)]
        for low, high in pairwise(edges)
    ]
