"""Segments 客群: unordered clusters of customers with similar behaviour, found beside the tiers.

Three methods share one space, standardised signed logarithms of recency, tenure, frequency, spend, order size and
rhythm: k-means, a Gaussian mixture, and HDBSCAN (Campello, Moulavi and Sander 2013). A segment of HDBSCAN is kept as
spheres, each a centre with a reach; a customer outside every sphere is in no segment, `segment_0`. The state is plain
numbers and lists, and one customer alone gets the same segment as in a batch.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import HDBSCAN, KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture

from tiermodel.arrays import Floats, Ints
from tiermodel.models.learners.preprocessing import bounds, medians, signed_log
from tiermodel.segments.naming import name_segments

__all__ = [
    "FITS",
    "align_segments",
    "assign_segments",
    "fit_segments",
    "in_order_of_spend",
    "nearest",
    "scale_of",
    "segment_count",
    "segment_names",
    "standardised",
]


_AXES = (
    "days_since_last",
    "days_since_first",
    "purchase_days_total",
    "net_amount_total",
    "order_amount_mean",
    "gap_days_mean",
)
_SPOTS, _LEAST_DENSE, _NEIGHBOURS = 12, 20, 5
_EVERYWHERE = float(np.finfo(np.float64).max)
_SAME = 0.25


def fit_segments(frame: pd.DataFrame, k: int, seed: int) -> dict[str, Any]:
    """Return k segments by k-means, in order of mean net amount; fewer where fewer than k customers differ.

    The fit depends on the order of the rows: sort them by key.
    """
    state = scale_of(frame)
    return in_order_of_spend(state | FITS["kmeans"](standardised(state, frame), k, seed, 10), frame)


def scale_of(frame: pd.DataFrame) -> dict[str, Any]:
    """Return each axis's fill for missing values, clipping quantiles, mean and standard deviation."""
    names = [name for name in _AXES if name in frame.columns]
    z = np.column_stack([signed_log(frame[name].to_numpy(dtype=np.float64)) for name in names])
    middle = medians(z)
    z = np.where(np.isnan(z), middle, z)
    low, high = bounds(z)
    z = np.clip(z, low, high)
    mean, scale = z.mean(axis=0), z.std(axis=0)
    scale[scale == 0] = 1.0
    numbers = {"middle": middle, "low": low, "high": high, "mean": mean, "scale": scale}
    return {"features": names, **{name: values.tolist() for name, values in numbers.items()}}


def standardised(state: Mapping[str, Any], frame: pd.DataFrame) -> Floats:
    """Return the standardised axes of every customer, shape (axes, customers)."""
    z = np.empty((len(state["features"]), len(frame)))
    for j, name in enumerate(state["features"]):
        x = signed_log(frame[name].to_numpy(dtype=np.float64))
        x = np.clip(np.where(np.isnan(x), state["middle"][j], x), state["low"][j], state["high"][j])
        z[j] = (x - state["mean"][j]) / state["scale"][j]
    return z


def _fit_means(z: Floats, k: float, seed: int, tries: int) -> dict[str, Any]:
    k = min(int(k), len(np.unique(z, axis=1).T))
    return {"centres": KMeans(n_clusters=k, n_init=tries, random_state=seed).fit(z.T).cluster_centers_.tolist()}


def _fit_mixture(z: Floats, k: float, seed: int, tries: int) -> dict[str, Any]:
    """Return k Gaussians with full covariances, regularised so that identical customers do not make a spike."""
    k = min(int(k), len(np.unique(z, axis=1).T))
    with warnings.catch_warnings():  # a fit that has not converged after 300 rounds is a candidate all the same
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = GaussianMixture(
            k, reg_covar=1e-2, max_iter=300, n_init=min(tries, 3), random_state=seed, init_params="k-means++"
        ).fit(z.T)
    return {
        "method": "gaussian_mixture",
        "centres": fitted.means_.tolist(),
        "log_weight": np.log(fitted.weights_).tolist(),
        "precision": fitted.precisions_cholesky_.tolist(),
        "bic": float(fitted.bic(z.T)),
    }


def _fit_density(z: Floats, share: float, seed: int, _tries: int) -> dict[str, Any]:
    """Return HDBSCAN segments of at least a share of the customers each, covered by spheres around their members.

    Where HDBSCAN finds none, all customers are in one segment.
    """
    n = z.shape[1]
    labels = np.full(n, -1)
    if n >= _LEAST_DENSE:
        size = max(_NEIGHBOURS, round(share * n))
        labels = HDBSCAN(min_cluster_size=size, min_samples=_NEIGHBOURS, copy=True).fit_predict(z.T)
    state: dict[str, Any] = {"method": "hdbscan", "centres": [], "segment": [], "reach": []}
    for group in range(labels.max() + 1):
        members = z.T[labels == group]
        spots = KMeans(min(_SPOTS, len(np.unique(members, axis=0))), n_init=1, random_state=seed).fit(members)
        apart = ((members - spots.cluster_centers_[spots.labels_]) ** 2).sum(axis=1)
        for spot, centre in enumerate(spots.cluster_centers_):
            state["centres"].append(centre.tolist())
            state["segment"].append(group)
            state["reach"].append(float(apart[spots.labels_ == spot].max()) + 1e-9)
    if not state["centres"]:
        state |= {"centres": [z.mean(axis=1).tolist()], "segment": [0], "reach": [_EVERYWHERE]}
    return state


FITS: Mapping[str, Callable[[Floats, float, int, int], dict[str, Any]]] = {
    "kmeans": _fit_means,
    "gaussian_mixture": _fit_mixture,
    "hdbscan": _fit_density,
}
"""Fits on standardised axes by method; arguments are the axes, the number of segments (HDBSCAN: the least share of
customers), the seed and the number of starts."""


def segment_count(state: Mapping[str, Any]) -> int:
    """Return the number of segments, without `segment_0`."""
    return max(state["segment"]) + 1 if "segment" in state else len(state["centres"])


def assign_segments(state: Mapping[str, Any], frame: pd.DataFrame) -> Ints:
    """Return every customer's segment as a position in `segment_names`, as `nearest` does."""
    return nearest(state, standardised(state, frame))


def nearest(state: Mapping[str, Any], z: Floats) -> Ints:
    """Return each column's segment by nearest centre or likeliest Gaussian; the last position is no segment.

    Squares are summed axis by axis, one centre after the other, so that the batch size cannot change a bit.
    """
    best, at = np.full(z.shape[1], np.inf), np.zeros(z.shape[1], dtype=np.int64)
    for n, centre in enumerate(state["centres"]):
        apart = _unlikeliness(state, n, z) if "precision" in state else _distance(z, centre)
        nearer = apart < best
        best, at = np.where(nearer, apart, best), np.where(nearer, n, at)
    if "segment" not in state:
        return at
    return np.where(best > np.array(state["reach"])[at], segment_count(state), np.array(state["segment"])[at])


def _distance(z: Floats, centre: list[float]) -> Floats:
    squares = np.zeros(z.shape[1])
    for x, c in zip(z, centre, strict=True):
        squares += (x - c) ** 2
    return squares


def _unlikeliness(state: Mapping[str, Any], n: int, z: Floats) -> Floats:
    """Return minus twice the logarithm of weight times density of Gaussian `n`, constants left out."""
    centre, factor = state["centres"][n], state["precision"][n]
    total = np.full(z.shape[1], -2 * (state["log_weight"][n] + sum(math.log(factor[j][j]) for j in range(len(centre)))))
    for i in range(len(centre)):
        turned = np.zeros(z.shape[1])
        for j in range(i + 1):  # the Cholesky factor is upper triangular
            turned += (z[j] - centre[j]) * factor[j][i]
        total += turned**2
    return total


def in_order_of_spend(state: dict[str, Any], frame: pd.DataFrame) -> dict[str, Any]:
    """Return the state with its segments in order of mean net amount so far, lowest first."""
    labels, spend = assign_segments(state, frame), frame["net_amount_total"].to_numpy()
    means = [spend[labels == n].mean() if (labels == n).any() else np.inf for n in range(segment_count(state))]
    order = np.argsort(means, kind="stable")
    if "segment" in state:
        place = np.argsort(order, kind="stable")
        return state | {"segment": [int(place[n]) for n in state["segment"]]}
    listed = [name for name in ("centres", "log_weight", "precision") if name in state]
    return state | {name: [state[name][n] for n in order] for name in listed}


def _codes(state: Mapping[str, Any]) -> list[int]:
    return list(state.get("codes", range(1, segment_count(state) + 1)))


def segment_names(state: Mapping[str, Any]) -> list[str]:
    """Return the name of every position of `assign_segments`; the last, `segment_0`, is no segment."""
    return [f"segment_{code}" for code in (*_codes(state), 0)]


def align_segments(state: dict[str, Any], champion: Mapping[str, Any], frame: pd.DataFrame) -> dict[str, Any]:
    """Return the state with the champion's names for segments of the same customers, whatever the order of either fit.

    Segments are paired so that the Jaccard indices (shared customers over the union) have the largest sum, by the
    Hungarian method (Kuhn 1955). A pair with an index below a quarter is not the same segment, and ours gets a number
    that no champion has used. Names in words follow the numbers; a new segment gets one that no other has. `champion`
    in the state has the adjusted Rand index between both, and the numbers that were kept, are new and are gone; it is
    left out where a refit finds the champion's very segments, so that data that have not changed do not change it.
    """
    ours, theirs, before = assign_segments(state, frame), assign_segments(champion, frame), _codes(champion)
    counts = np.zeros((segment_count(state) + 1, len(before) + 1))
    np.add.at(counts, (ours, theirs), 1)
    union = counts.sum(axis=1, keepdims=True) + counts.sum(axis=0) - counts
    shared = np.divide(counts, union, out=np.zeros_like(counts), where=union > 0)[:-1, :-1]
    pairs = zip(*linear_sum_assignment(shared, maximize=True), strict=True)
    kept = {int(i): before[j] for i, j in pairs if shared[i, j] >= _SAME}
    last, codes = int(champion.get("last_code", max(before))), []
    for n in range(segment_count(state)):
        last += n not in kept
        codes.append(kept.get(n, last))
    if "names" in state:
        state = state | {"names": name_segments(state["profiles"][: segment_count(state)], _names_of(champion, kept))}
    changes: dict[str, Any] = {
        "agreement": float(adjusted_rand_score(theirs, ours)),
        "kept": sorted(kept.values()),
        "new": sorted(set(codes) - set(before)),
        "gone": sorted(set(before) - set(codes)),
    }
    numbered = {} if codes == _codes(state) and last == len(codes) else {"codes": codes, "last_code": last}
    changed = changes["agreement"] < 1 or changes["new"] or changes["gone"]
    return state | numbered | ({"champion": changes} if changed else {})


def _names_of(champion: Mapping[str, Any], kept: Mapping[int, int]) -> dict[int, Mapping[str, str]]:
    """Return the champion's names in words, by the position of our segment; nothing where it has none."""
    by_code = dict(zip(_codes(champion), champion.get("names", []), strict=False))
    return {position: name for position, code in kept.items() if (name := by_code.get(code)) is not None}
