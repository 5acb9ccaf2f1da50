"""Weigh several dimensions into points from 0 to 100, in whole numbers until one last division: the same everywhere.

A dimension's points are its place among the customers at fit: the number of a hundred frozen cut points below the
value. Money in another currency gives the same points.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tiermodel.tiers.parts import Index
from tiermodel.tiers.weights import ahp_weights, critic_weights, entropy_weights, thousandths

__all__ = ["STEPS", "dimension_points", "fit_points", "points_of"]

Floats = NDArray[np.float64]
STEPS = 100
_TAIL = 0.005


def fit_points(index: Index, frame: pd.DataFrame) -> dict[str, Any]:
    """Freeze the cut points of every dimension on one snapshot of buyers, and the weights in thousandths."""
    columns = [frame[d.feature].to_numpy(dtype=np.float64) for d in index.dimensions]
    at = (np.arange(1, STEPS + 1) - 0.5) / STEPS
    cuts = [np.quantile(x[~np.isnan(x)], at, method="inverted_cdf").tolist() for x in columns]
    return {"cuts": cuts, "weights": thousandths(_weights(index, columns))}


def _weights(index: Index, columns: Sequence[Floats]) -> Floats:
    if index.weights == "declared":
        return np.array([d.weight for d in index.dimensions], dtype=np.float64)
    if index.weights == "ahp":
        return ahp_weights(index.comparisons or ())
    scaled = np.column_stack([_scaled(x, d.better) for x, d in zip(columns, index.dimensions, strict=True)])
    return entropy_weights(scaled) if index.weights == "entropy" else critic_weights(scaled)


def _scaled(x: Floats, better: str) -> Floats:
    """Scale from 0 to 1, tails clipped, nothing known in the middle; the better end is 1."""
    low, high = np.nanquantile(x, [_TAIL, 1 - _TAIL])
    scaled = np.clip((x - low) / (high - low), 0, 1) if high > low else np.zeros(len(x))
    scaled = np.where(np.isnan(x), np.nanmedian(scaled), scaled)
    return scaled if better == "higher" else 1 - scaled


def dimension_points(index: Index, state: dict[str, Any], frame: pd.DataFrame) -> NDArray[np.int64]:
    """Give each row's points in every dimension, shape (dimensions, rows); -1 where a missing value is left out."""
    instead = {"drop": -1, "worst": 0, "middle": STEPS // 2}[index.missing]
    points = np.empty((len(index.dimensions), len(frame)), dtype=np.int64)
    for k, (d, cuts) in enumerate(zip(index.dimensions, state["cuts"], strict=True)):
        x = frame[d.feature].to_numpy(dtype=np.float64)
        below = np.searchsorted(np.array(cuts), x, side="left" if d.better == "higher" else "right")
        points[k] = np.where(np.isnan(x), instead, below if d.better == "higher" else STEPS - below)
    return points


def points_of(index: Index, state: dict[str, Any], frame: pd.DataFrame) -> Floats:
    """Give each row's points from 0 to 100; NaN where no dimension is known."""
    points = dimension_points(index, state, frame)
    weights = np.array(state["weights"], dtype=np.int64)
    known = points >= 0
    total, weight = (weights[:, None] * points * known).sum(axis=0), (weights[:, None] * known).sum(axis=0)
    return np.divide(total, weight, out=np.full(len(frame), np.nan), where=weight > 0)
