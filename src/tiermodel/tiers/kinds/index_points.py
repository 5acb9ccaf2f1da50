"""Points from 0 to 100 of a weighted index of dimensions, in integers up to one last division: equal on every machine.

The points of a dimension are the rank of a customer among the customers at fit: how many of a hundred frozen cut points
are below the value. Another currency gives the same points.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numba
import numpy as np
import pandas as pd

from tiermodel.arrays import Floats, Ints
from tiermodel.tiers.kinds.sql_terms import quoted, steps
from tiermodel.tiers.schemes.protocol import Thresholds
from tiermodel.tiers.schemes.schema import Index
from tiermodel.tiers.schemes.weights import ahp_weights, critic_weights, entropy_weights, thousandths

__all__ = ["STEPS", "dimension_points", "fit_points", "points_of", "points_sql", "thresholds_of"]

STEPS = 100
_HIGHER, _LOWER, _LOWER_BEST_TIES = 1, -1, 0
_PADDED = 127  # cut points that a binary search of seven steps covers
_TAIL = 0.005


def fit_points(index: Index, frame: pd.DataFrame, common: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the cut points of every dimension on one snapshot of buyers, and the weights in thousandths.

    Where `common` is given, they are those of that state.
    """
    if common is not None:
        return {name: common[name] for name in ("cuts", "weights")}
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
    """Return values from 0 to 1 (1 is the better end) with clipped tails; a missing value gets the median."""
    low, high = np.nanquantile(x, [_TAIL, 1 - _TAIL])
    scaled = np.clip((x - low) / (high - low), 0, 1) if high > low else np.zeros(len(x))
    scaled = np.where(np.isnan(x), np.nanmedian(scaled), scaled)
    return scaled if better == "higher" else 1 - scaled


def dimension_points(index: Index, state: dict[str, Any], frame: pd.DataFrame) -> Ints:
    """Return each row's points in every dimension, shape (dimensions, rows); -1 where a missing value is left out."""
    points = np.zeros((len(index.dimensions), len(frame)), dtype=np.int64)
    known = np.zeros_like(points)
    for k in range(len(points)):
        _add_dimension(index, state, frame, k, 1, points[k], known[k])
    return np.where(known > 0, points, -1)


def points_of(index: Index, state: dict[str, Any], frame: pd.DataFrame) -> Floats:
    """Return each row's points from 0 to 100; NaN where no dimension is known."""
    total, weight = np.zeros(len(frame), dtype=np.int64), np.zeros(len(frame), dtype=np.int64)
    for k, of_one in enumerate(state["weights"]):
        _add_dimension(index, state, frame, k, of_one, total, weight)
    return np.divide(total, weight, out=np.full(len(frame), np.nan), where=weight > 0)


def _add_dimension(
    index: Index, state: dict[str, Any], frame: pd.DataFrame, k: int, weight: int, total: Ints, weights: Ints
) -> None:
    """Add a dimension's weighted points to `total`, and its weight where it is known to `weights`, in place."""
    d = index.dimensions[k]
    instead = {"drop": -1, "worst": 0, "middle": STEPS // 2}[index.missing]
    x, cuts = frame[d.feature].to_numpy(dtype=np.float64), np.array(state["cuts"][k], dtype=np.float64)
    mode = _HIGHER if d.better == "higher" else _LOWER_BEST_TIES if index.best_ties else _LOWER
    if mode == _LOWER:  # cut points above a value are the negated cut points below the negated value
        cuts = -cuts[::-1]
    _add_points(x, np.append(cuts, np.full(_PADDED - len(cuts), np.inf)), mode, instead, weight, total, weights)


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _add_points(x: Floats, cuts: Floats, mode: int, instead: int, weight: int, total: Ints, weights: Ints) -> None:
    """Add the cut points below each value, counted by binary search without branches that a processor mispredicts."""
    for i in range(len(x)):
        value = -x[i] if mode == _LOWER else x[i]
        below = 64 * (cuts[63] < value)
        below += 32 * (cuts[below + 31] < value)
        below += 16 * (cuts[below + 15] < value)
        below += 8 * (cuts[below + 7] < value)
        below += 4 * (cuts[below + 3] < value)
        below += 2 * (cuts[below + 1] < value)
        below += 1 * (cuts[below] < value)
        found = STEPS - below if mode == _LOWER_BEST_TIES else below
        points = instead if np.isnan(value) else found
        known = points >= 0
        total[i] += weight * points * known
        weights[i] += weight * known


def thresholds_of(index: Index, state: Mapping[str, Any]) -> Thresholds:
    """Return the cut points of every dimension."""
    return [(d.feature, cuts) for d, cuts in zip(index.dimensions, state["cuts"], strict=True)]


def points_sql(index: Index, state: Mapping[str, Any]) -> str:
    """Return the points of an index as SQL: integers up to the last division."""
    instead = {"drop": "NULL", "worst": "0", "middle": str(STEPS // 2)}[index.missing]
    total, weight = [], []
    for d, cuts, w in zip(index.dimensions, state["cuts"], state["weights"], strict=True):
        x = quoted(d.feature)
        up = d.better == "higher"
        points = list(range(STEPS + 1)) if up else list(reversed(range(STEPS + 1)))
        passed = ">" if up or index.best_ties else ">="
        scored = f"CASE WHEN {x} IS NULL THEN {instead} ELSE {steps(x, passed, cuts, points)} END"
        total.append(f"COALESCE({w} * {scored}, 0)")
        weight.append(f"CASE WHEN {x} IS NULL THEN 0 ELSE {w} END" if index.missing == "drop" else str(w))
    return f"(CAST({' + '.join(total)} AS DOUBLE) / NULLIF(CAST({' + '.join(weight)} AS DOUBLE), CAST(0 AS DOUBLE)))"
