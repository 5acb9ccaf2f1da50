"""Choose how many segments there are by stated criteria: stable under resampling first, then silhouette or BIC."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score, silhouette_score

from tiermodel.config_tiers import Segments
from tiermodel.tiers.profiles import profiles_of
from tiermodel.tiers.segments import FITS, assign_segments, in_order_of_spend, nearest, scale_of, standardised

__all__ = ["FLOOR", "choose_segments"]

Floats = NDArray[np.float64]
FLOOR = 0.6
"""The least mean adjusted Rand index under resampling of segments that may go into service."""
COUNTS, _SHARES = range(3, 9), (0.01, 0.02, 0.05)
_FITTED, _JUDGED, _PAIRED = 100_000, 5_000, 2_000
DRAWS, STARTS, _RESTARTS = 10, 10, 3


def choose_segments(rule: Segments, frame: pd.DataFrame, seed: int) -> dict[str, Any]:
    """Fit segments on buyers, sorted by key, with the number of groups that the criteria choose, and profile them.

    Candidates are 3 to 8 groups (HDBSCAN: groups of 1, 2 or 5 % of the customers at least), or the number given. Each
    is judged on 5,000 customers at most: the mean adjusted Rand index (Hubert and Arabie 1985) between its groups and
    those of a refit on each of ten bootstrap samples, a customer counting once; and the silhouette (Rousseeuw 1987),
    zero for who is in no group, or for a mixture the BIC. Of the candidates that reach `FLOOR`, or the most stable one
    where none does, the best silhouette or BIC wins. `criteria` in the state tells all figures. The chosen one is
    fitted on 100,000 customers at most (HDBSCAN: on those judged).
    """
    scale, fit = scale_of(frame), FITS[rule.method]
    judged = standardised(scale, _spread(frame, _JUDGED))
    candidates = [rule.groups] if rule.groups != "auto" else _SHARES if rule.method == "hdbscan" else COUNTS
    found = [_judge(rule.method, judged, float(c), seed) for c in candidates]
    stable = [c for c in found if c["stability"] >= FLOOR] or [max(found, key=lambda c: c["stability"])]
    best = min(stable, key=lambda c: c["bic"]) if "bic" in found[0] else max(stable, key=lambda c: c["silhouette"])
    z = judged if rule.method == "hdbscan" else standardised(scale, _spread(frame, _FITTED))
    state = in_order_of_spend(scale | fit(z, best["candidate"], seed, STARTS), frame)
    state |= {"criteria": found, "stability": best["stability"]}
    return state | {"profiles": profiles_of(state, frame, assign_segments(state, frame))}


def _spread(frame: pd.DataFrame, most: int) -> pd.DataFrame:
    """Take so many rows at most, evenly spread."""
    if len(frame) <= most:
        return frame
    return frame.iloc[np.linspace(0, len(frame) - 1, most).astype(np.int64)]


def _judge(method: str, z: Floats, candidate: float, seed: int) -> dict[str, Any]:
    state = FITS[method](z, candidate, seed, STARTS)
    labels = nearest(state, z)
    rng = np.random.default_rng(seed)
    agreements = []
    for _ in range(DRAWS):
        drawn = np.unique(rng.integers(0, z.shape[1], z.shape[1]))
        again = FITS[method](z[:, drawn], candidate, seed, _RESTARTS)
        agreements.append(adjusted_rand_score(labels, nearest(again, z)))
    figures = {"bic": state["bic"]} if "bic" in state else {}
    return {
        "candidate": candidate,
        "groups": len(np.unique(labels[labels < _groups(state)])),
        "stability": float(np.mean(agreements)),
        "silhouette": _silhouette(z, labels, _groups(state), seed),
        **figures,
    }


def _groups(state: Mapping[str, Any]) -> int:
    return max(state["segment"]) + 1 if "segment" in state else len(state["centres"])


def _silhouette(z: Floats, labels: NDArray[np.int64], groups: int, seed: int) -> float:
    """Average over 2,000 customers at most; who is in no group counts zero, and so does a single group."""
    rows = np.random.default_rng(seed).permutation(len(labels))[:_PAIRED]
    inside = rows[labels[rows] < groups]
    if not 1 < len(np.unique(labels[inside])) < len(inside):
        return 0.0
    return float(silhouette_score(z.T[inside], labels[inside])) * len(inside) / len(rows)
