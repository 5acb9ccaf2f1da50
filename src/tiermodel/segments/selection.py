"""Selection of the number of segments: stability under resampling first, then the silhouette or BIC."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import adjusted_rand_score, silhouette_score

from tiermodel.arrays import Floats, Ints
from tiermodel.config.tiers import Segments
from tiermodel.segments.fit import (
    FITS,
    assign_segments,
    in_order_of_spend,
    nearest,
    scale_of,
    segment_count,
    standardised,
)
from tiermodel.segments.profiles import described

__all__ = ["FLOOR", "choose_segments"]


FLOOR = 0.6
"""The least stability (mean adjusted Rand index under resampling) of segments that may go into service."""
COUNTS, _SHARES = range(3, 9), (0.01, 0.02, 0.05)
_FITTED, _COMPARED, _PAIRED = 100_000, 5_000, 2_000
DRAWS, STARTS, _RESTARTS = 10, 10, 3


def choose_segments(rule: Segments, frame: pd.DataFrame, seed: int) -> dict[str, Any]:
    """Return segments of buyers with profiles, names and rules, their number chosen by stability and silhouette or BIC.

    Candidates are 3 to 8 segments (HDBSCAN: segments of 1, 2 or 5 % of the customers at least), or the number in
    `rule`. Each is evaluated on at most 5,000 customers. Its stability is the mean adjusted Rand index (Hubert and
    Arabie 1985) between its segments and those of refits on ten bootstrap samples, in which a customer counts once.
    Beside it stands the silhouette (Rousseeuw 1987), zero for customers in no segment, or the BIC of a mixture. Of the
    candidates with a stability of `FLOOR` or more, or else the most stable one, the best silhouette or BIC wins. The
    winner is fitted on at most 100,000 customers (HDBSCAN: on those of the evaluation). `criteria` in the state has all
    figures. The rows of `frame` are sorted by key.
    """
    scale, fit = scale_of(frame), FITS[rule.method]
    compared = standardised(scale, _spread(frame, _COMPARED))
    candidates = [rule.groups] if rule.groups != "auto" else _SHARES if rule.method == "hdbscan" else COUNTS
    found = [_judge(rule.method, compared, float(c), seed) for c in candidates]
    stable = [c for c in found if c["stability"] >= FLOOR] or [max(found, key=lambda c: c["stability"])]
    best = min(stable, key=lambda c: c["bic"]) if "bic" in found[0] else max(stable, key=lambda c: c["silhouette"])
    z = compared if rule.method == "hdbscan" else standardised(scale, _spread(frame, _FITTED))
    state = in_order_of_spend(scale | fit(z, best["candidate"], seed, STARTS), frame)
    state |= {"criteria": found, "stability": best["stability"]}
    return state | described(state, frame, assign_segments(state, frame))


def _spread(frame: pd.DataFrame, most: int) -> pd.DataFrame:
    """Return at most `most` rows, evenly spread."""
    if len(frame) <= most:
        return frame
    return frame.iloc[np.linspace(0, len(frame) - 1, most).astype(np.int64)]


def _judge(method: str, z: Floats, candidate: float, seed: int) -> dict[str, Any]:
    """Return the criteria of a candidate: number of segments, stability, silhouette, and BIC of a mixture."""
    state = FITS[method](z, candidate, seed, STARTS)
    labels, count = nearest(state, z), segment_count(state)
    rng = np.random.default_rng(seed)
    agreements = []
    for _ in range(DRAWS):
        columns = np.unique(rng.integers(0, z.shape[1], z.shape[1]))
        again = FITS[method](z[:, columns], candidate, seed, _RESTARTS)
        agreements.append(adjusted_rand_score(labels, nearest(again, z)))
    figures = {"bic": state["bic"]} if "bic" in state else {}
    return {
        "candidate": candidate,
        "groups": len(np.unique(labels[labels < count])),
        "stability": float(np.mean(agreements)),
        "silhouette": _silhouette(z, labels, count, seed),
        **figures,
    }


def _silhouette(z: Floats, labels: Ints, groups: int, seed: int) -> float:
    """Return the mean silhouette of at most 2,000 customers; zero without a segment or with a single one."""
    rows = np.random.default_rng(seed).permutation(len(labels))[:_PAIRED]
    inside = rows[labels[rows] < groups]
    if not 1 < len(np.unique(labels[inside])) < len(inside):
        return 0.0
    return float(silhouette_score(z.T[inside], labels[inside])) * len(inside) / len(rows)
