"""Cut points by shares, quantiles or natural breaks, found once, at numbers as round as the data allow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from tiermodel.arrays import Floats, Ints
from tiermodel.errors import ProjectError
from tiermodel.features.condition import Condition
from tiermodel.models.learners.readable_tree import roundest
from tiermodel.tiers.schemes.schema import BaseScheme, Score

__all__ = [
    "band_edges",
    "level_conditions",
    "level_of",
    "range_of",
    "ranges",
    "score_cuts",
    "scores_of",
    "share_cuts",
    "sure_levels_of",
    "within_reach",
]


_JENKS_SAMPLE = 2_000


def share_cuts(
    shares: Mapping[str, float],
    values: Floats,
    *,
    of_value: bool = False,
    capacity: Mapping[str, int | None] | None = None,
) -> list[float]:
    """Return the value at which each level starts, the lowest left out, so that levels hold their share and capacity.

    `shares` go from the lowest level to the highest; with `of_value` they are shares of the cumulated value, else of
    the customers. Raises `ProjectError` where so many customers tie that a capacity cannot be kept.
    """
    values = np.sort(values[~np.isnan(values)])[::-1]
    if of_value:
        positive = np.maximum(values, 0.0)
        reached = np.cumsum(positive) / max(positive.sum(), np.finfo(float).tiny)
    else:
        reached = np.arange(1, len(values) + 1) / len(values)
    cuts: list[float] = []
    share, above = 0.0, 0
    for code in reversed(list(shares)[1:]):
        share += shares[code]
        cut = _cut(values, reached, share)
        most = (capacity or {}).get(code)
        if most is not None and np.count_nonzero(values >= cut) - above > most:
            cut = _cut_for(values, above, most, code)  # the other customers go to the level below
        above = int(np.count_nonzero(values >= cut))
        cuts.append(cut)
    return cuts[::-1]


def _cut(values: Floats, reached: Floats, share: float) -> float:
    """Return a readable number between the last customer above the cut and the first below it, where there is one.

    Customers with equal values stay together, on the side that comes nearer to the share, unless nobody would be left
    above the cut.
    """
    inside = values[min(int(np.searchsorted(reached, share - 1e-12)), len(values) - 1)]
    first, last = np.flatnonzero(values == inside)[[0, -1]]
    if 0 < first < last and share - reached[first - 1] < reached[last] - share - 1e-12:
        inside = values[first - 1]
    outside = values[values < inside]
    if outside.size == 0:
        return float(inside)
    return roundest(float(inside), lambda cut: outside[0] < cut <= inside)


def _cut_for(values: Floats, above: int, most: int, code: str) -> float:
    """Return the cut with at most `most` customers above it, besides the `above` customers of higher levels."""
    first_out = values[above + most]
    inside = values[values > first_out]
    if len(inside) <= above:
        ties = np.count_nonzero(values == first_out)
        raise ProjectError(
            f"levels: capacity {most} of {code!r} cannot be kept: {ties} customers tie at {first_out:g}; "
            "rank by a finer feature, or raise it"
        )
    return roundest(float(inside[-1]), lambda cut: first_out < cut <= inside[-1])


def score_cuts(score: Score, values: Floats) -> list[float]:
    """Return the cut points of a score, fitted on the values of one snapshot of buyers."""
    if not isinstance(score.cuts, str):
        return list(score.cuts)
    values = np.sort(values[~np.isnan(values)])
    if score.cuts == "jenks":
        found = _jenks(values, score.bins)
    else:
        at = np.arange(1, score.bins) / score.bins if score.quantiles is None else np.array(score.quantiles)
        found = np.quantile(values, at, method="inverted_cdf").tolist()
    # equal cut points stay: with many ties, scores in between are empty and the highest score stays the highest
    return [_cut_after(float(cut), values) for cut in found]


def _cut_after(value: float, values: Floats) -> float:
    """Return a readable cut at the value or beyond it, below the next greater value."""
    greater = values[values > value]
    return value if greater.size == 0 else roundest(value, lambda cut: value <= cut < greater[0])


def _jenks(values: Floats, bins: int) -> list[float]:
    """Return the natural breaks, which minimise the squared deviation within classes (Jenks 1967, Fisher 1958).

    A break is the greatest value of its class; the last class has none. They are computed on at most 2,000 quantiles.
    The first break is repeated where there are fewer distinct values than classes.
    """
    n = min(len(values), _JENKS_SAMPLE)
    x = values[np.rint(np.linspace(0, len(values) - 1, n)).astype(np.int64)]
    classes = min(bins, len(np.unique(x)))
    total, square = np.append(0, np.cumsum(x)), np.append(0, np.cumsum(x * x))
    start = np.arange(n)
    cost = np.array([square[j] - total[j] ** 2 / max(j, 1) for j in range(n + 1)])
    back = np.zeros((classes, n + 1), dtype=np.int64)
    for k in range(1, classes):
        nxt = np.full(n + 1, np.inf)
        for j in range(k + 1, n + 1):
            i = start[k:j]
            within = square[j] - square[i] - (total[j] - total[i]) ** 2 / (j - i)
            best = int(np.argmin(cost[i] + within))
            nxt[j], back[k, j] = cost[i[best]] + within[best], i[best]
        cost = nxt
    ends, j = [], n
    for k in range(classes - 1, 0, -1):
        j = int(back[k, j])
        ends.append(float(x[j - 1]))
    return [min(ends, default=float(x[0]))] * (bins - classes) + ends[::-1]


def scores_of(score: Score, cuts: Sequence[float], values: Floats) -> Ints:
    """Return each value's score from 1 (1 for NaN); a value on a cut point belongs to the lower side."""
    rank = np.searchsorted(np.array(cuts), values, side="left")
    return np.where(np.isnan(values), 1, 1 + rank if score.better == "higher" else score.bins - rank)


def level_of(cuts: Sequence[float], values: Floats) -> Ints:
    """Return the number of cut points at or below each value; 0 for NaN."""
    return np.searchsorted(np.array(cuts), np.where(np.isnan(values), -np.inf, values), side="right")


def level_conditions(feature: str, cuts: Sequence[float], *, may_miss: bool = False) -> list[list[Condition]]:
    """Return the condition of every level that `level_of` finds; with `may_miss` a missing value meets the lowest."""
    edges = [-np.inf, *cuts, np.inf]
    return [
        [Condition(feature, low, high, missing=may_miss and low == -np.inf, closed_low=True)]
        for low, high in pairwise(edges)
    ]


def ranges(feature: str, cuts: Sequence[float]) -> list[Condition]:
    """Return the conditions that `range_of` numbers: every range between cut points, then the missing value."""
    edges = [-np.inf, *cuts, np.inf]
    missing = Condition(feature, np.inf, -np.inf, missing=True)
    return [*(Condition(feature, low, high) for low, high in pairwise(edges)), missing]


def range_of(cuts: Sequence[float], values: Floats) -> Ints:
    """Return the position of each value in `ranges`; a value on a cut point belongs to the lower range."""
    return np.where(np.isnan(values), len(cuts) + 1, np.searchsorted(cuts, values, side="left"))


def sure_levels_of(state: Mapping[str, Any], values: Floats) -> tuple[Ints, Ints]:
    """Return the lowest sure level by the bands of `band_edges` for moving up, and the highest by those for down."""
    return level_of([high for _, high in state["up"]], values), level_of([low for low, _ in state["down"]], values)


def within_reach(level: Ints, lowest: Ints, highest: Ints, levels: int) -> tuple[Ints, Ints]:
    """Return sure levels within one level of the customer's own; the level itself where they span the whole ladder.

    Of several conditions or axes, each with a band, the ends can lie far apart. A ladder of two levels is spanned.
    """
    lowest, highest = np.maximum(lowest, level - 1), np.minimum(highest, level + 1)
    whole = (levels > 2) & (highest - lowest == levels - 1)
    return np.where(whole, level, lowest), np.where(whole, level, highest)


def band_edges(
    scheme: BaseScheme, cuts: Sequence[float], values: Floats, side: Literal["left", "right"] = "left"
) -> dict[str, Any]:
    """Return the band around every cut point: `up` and `down` have [lower, upper] of each; nothing without stability.

    A band reaches past a share of the customers on both sides, but at most past half of those beyond the cut point, so
    that the lowest and highest level stay within reach. Equal values stay together: where more customers share a value
    than the band may hold, it ends before them. Neither the many customers at zero nor the two answers to a yes/no
    question are therefore ever within a band. A value equal to a cut point lies above it (`left`), or below it
    (`right`).
    """
    stability = scheme.stability
    if stability is None:
        return {}
    values = np.sort(values[~np.isnan(values)])
    return {
        name: [[_moved(values, cut, -band, side), _moved(values, cut, band, side)] for cut in cuts]
        for name, band in (("up", stability.up.band), ("down", stability.down.band))
    }


def _moved(values: Floats, cut: float, by: float, side: Literal["left", "right"]) -> float:
    """Return the cut point moved past a share of the sorted values, up where `by` is positive, else down."""
    n = len(values)
    at = int(np.searchsorted(values, cut, side="left"))
    steps = min(round(abs(by) * n), (n - at) // 2 if by > 0 else at // 2)
    if steps == 0:
        return float(cut)
    moved = float(values[at + steps] if by > 0 else values[at - steps])
    nearer = np.unique(values[(values >= min(moved, cut)) & (values <= max(moved, cut))])
    crossed = np.abs(np.searchsorted(values, nearer, side=side) - np.searchsorted(values, cut, side=side))
    allowed = np.append(nearer[crossed <= steps], cut)
    return float(allowed.max() if by > 0 else allowed.min())
