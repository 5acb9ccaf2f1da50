"""Discover groups of behaviour with k-means, ordered by value; one customer scores as the batch to the bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.cluster import KMeans

__all__ = ["assign_segments", "fit_segments"]

_AXES = (
    "days_since_last",
    "days_since_first",
    "purchase_days_total",
    "net_amount_total",
    "order_amount_mean",
    "gap_days_mean",
)


def fit_segments(frame: pd.DataFrame, k: int, seed: int) -> dict[str, Any]:
    """Fit k groups on standardised logarithms of recency, tenure, frequency, spend, order size and rhythm.

    Groups are numbered by mean spend so far, lowest first; there are fewer than k where fewer customers differ. Rows
    are taken in the order given: sort them by key.
    """
    names = [name for name in _AXES if name in frame.columns]
    z = np.column_stack([_signed_log(frame[name].to_numpy(dtype=np.float64)) for name in names])
    missing = np.isnan(z)
    middle = np.array([np.median(c[~m]) if not m.all() else 0.0 for c, m in zip(z.T, missing.T, strict=True)])
    z = np.where(missing, middle, z)
    low, high = np.quantile(z, [0.005, 0.995], axis=0)
    z = np.clip(z, low, high)
    mean, scale = z.mean(axis=0), z.std(axis=0)
    scale[scale == 0] = 1.0
    z = (z - mean) / scale
    k = min(k, len(np.unique(z, axis=0)))
    means = KMeans(n_clusters=k, n_init=10, random_state=seed).fit(z)
    spend = [frame["net_amount_total"].to_numpy()[means.labels_ == c].mean() for c in range(k)]
    order = np.argsort(spend, kind="stable")
    return {
        "features": names,
        "middle": middle.tolist(),
        "low": low.tolist(),
        "high": high.tolist(),
        "mean": mean.tolist(),
        "scale": scale.tolist(),
        "centres": means.cluster_centers_[order].tolist(),
    }


def assign_segments(state: dict[str, Any], frame: pd.DataFrame) -> NDArray[np.int64]:
    """Give every customer the nearest centre; summed feature by feature, so that no batch size changes a bit."""
    centres = np.array(state["centres"])
    distance = np.zeros((len(centres), len(frame)))
    for j, name in enumerate(state["features"]):
        z = _signed_log(frame[name].to_numpy(dtype=np.float64))
        z = np.clip(np.where(np.isnan(z), state["middle"][j], z), state["low"][j], state["high"][j])
        distance += ((z - state["mean"][j]) / state["scale"][j] - centres[:, j, None]) ** 2
    return distance.argmin(axis=0)


def _signed_log(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.sign(x) * np.log1p(np.abs(x))
