"""Weights of dimensions: entropy, CRITIC and the analytic hierarchy process, in thousandths that add up to 1,000."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from tiermodel.arrays import Floats

__all__ = ["ahp_weights", "consistency_ratio", "critic_weights", "entropy_weights", "thousandths"]

_RANDOM_INDEX = (0.0, 0.0, 0.58, 0.90, 1.12, 1.24, 1.32, 1.41, 1.45, 1.49, 1.51, 1.48)
"""Mean inconsistency of random comparisons of 1 to 12 items (Saaty 1980)."""


def entropy_weights(x: Floats) -> Floats:
    """Return weights of columns scaled from 0 to 1, by how unevenly each is spread over the rows (Shannon entropy)."""
    share = x / np.maximum(x.sum(axis=0), np.finfo(float).tiny)
    logs = np.log(share, out=np.zeros_like(share), where=share > 0)
    spread = 1 + (share * logs).sum(axis=0) / np.log(max(len(x), 2))
    return _normal(np.where(x.std(axis=0) > 0, spread, 0.0))


def critic_weights(x: Floats) -> Floats:
    """Return weights of columns from 0 to 1: deviation times lack of correlation (CRITIC, Diakoulaki et al. 1995)."""
    deviation = x.std(axis=0)
    varies = deviation > 0
    correlation = np.eye(x.shape[1])
    if np.count_nonzero(varies) > 1:
        correlation[np.ix_(varies, varies)] = np.corrcoef(x[:, varies], rowvar=False)
    conflict = (1 - correlation[:, varies]).sum(axis=1)
    return _normal(deviation * (conflict if np.count_nonzero(varies) > 1 else 1.0))


def ahp_weights(comparisons: ArrayLike) -> Floats:
    """Return the principal eigenvector of a matrix of pairwise comparisons (Saaty 1980), with sum 1."""
    return _principal(comparisons)[1]


def consistency_ratio(comparisons: Sequence[Sequence[float]]) -> float:
    """Return a matrix's inconsistency over that of random comparisons; up to 0.10 is usual (Saaty 1980)."""
    n = len(comparisons)
    if n < 3:
        return 0.0
    largest, _ = _principal(comparisons)
    return max(0.0, (largest - n) / (n - 1) / _RANDOM_INDEX[n - 1])


def _principal(comparisons: ArrayLike) -> tuple[float, Floats]:
    values, vectors = np.linalg.eig(np.asarray(comparisons, dtype=np.float64))
    at = int(np.argmax(values.real))
    return float(values[at].real), _normal(np.abs(vectors[:, at].real))


def _normal(weights: Floats) -> Floats:
    total = weights.sum()
    return weights / total if total > 0 else np.full(len(weights), 1 / len(weights))


def thousandths(weights: Sequence[float] | Floats) -> list[int]:
    """Return weights as whole thousandths that add up to 1,000 (largest remainders), at least one each.

    >>> thousandths([1 / 3, 1 / 3, 1 / 3])
    [334, 333, 333]
    """
    exact = _normal(np.asarray(weights, dtype=np.float64)) * 1000
    whole = np.maximum(np.floor(exact + 1e-9).astype(np.int64), 1)
    rest = 1000 - int(whole.sum())
    order = np.argsort(-(exact - whole), kind="stable") if rest >= 0 else np.argsort(-whole, kind="stable")
    for k in range(abs(rest)):
        whole[order[k % len(whole)]] += 1 if rest > 0 else -1
    return [int(w) for w in whole]
