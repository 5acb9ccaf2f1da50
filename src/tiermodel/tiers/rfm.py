"""The RFM quantification model: scores at frozen cut points, every combination of scores in one named cell."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tiermodel.features.tree import roundest
from tiermodel.tiers.conditions import Condition
from tiermodel.tiers.scheme import RfmScheme, Score

__all__ = ["assign", "conditions", "fit", "levels_of_rules"]

AXES = ("r", "f", "m")
_JENKS_SAMPLE = 2_000


def fit(scheme: RfmScheme, frame: pd.DataFrame) -> dict[str, Any]:
    """Freeze the cut points of the three scores on one snapshot of buyers."""
    return {
        "cuts": {axis: _cuts(getattr(scheme, axis), frame) for axis in AXES},
        "may_miss": [axis for axis in AXES if frame[getattr(scheme, axis).feature].isna().any()],
    }


def _cuts(score: Score, frame: pd.DataFrame) -> list[float]:
    if not isinstance(score.cuts, str):
        return list(score.cuts)
    values = frame[score.feature].to_numpy(dtype=np.float64)
    values = np.sort(values[~np.isnan(values)])
    if score.cuts == "jenks":
        found = _jenks(values, score.bins)
    else:
        found = np.quantile(values, np.arange(1, score.bins) / score.bins, method="inverted_cdf")
    # equal cut points stay: with many ties below, the scores between stay empty and the best is still the best
    return [_cut_after(float(cut), values) for cut in found]


def _cut_after(value: float, values: NDArray[np.float64]) -> float:
    """Put the cut at a readable number from the value on, before the next greater one."""
    greater = values[values > value]
    return value if greater.size == 0 else roundest(value, lambda cut: value <= cut < greater[0])


def _jenks(values: NDArray[np.float64], bins: int) -> list[float]:
    """Minimise the squared deviation within classes (Jenks 1967, Fisher 1958) on at most 2,000 quantiles.

    Gives each class's greatest value but the last's; the first is repeated where there are fewer values than classes.
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


def _scores(score: Score, cuts: list[float], values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Score from 1, as without a value; one on a cut point belongs to the lower side, so equal values share a score."""
    rank = np.searchsorted(np.array(cuts), values, side="left")
    return np.where(np.isnan(values), 1, 1 + rank if score.better == "higher" else score.bins - rank)


def assign(
    scheme: RfmScheme, state: dict[str, Any], frame: pd.DataFrame
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Give every buyer's level among `bought_levels`, and the rule that decided: the combination of scores."""
    spans = [getattr(scheme, axis).bins for axis in AXES]
    scores = [
        _scores(getattr(scheme, a), state["cuts"][a], frame[getattr(scheme, a).feature].to_numpy(dtype=np.float64))
        for a in AXES
    ]
    rule = np.ravel_multi_index([s - 1 for s in scores], spans)
    return levels_of_rules(scheme)[rule], rule


def levels_of_rules(scheme: RfmScheme) -> NDArray[np.int64]:
    """Give the level, among `bought_levels`, of every combination of scores."""
    spans = [range(1, getattr(scheme, axis).bins + 1) for axis in AXES]
    return np.array(
        [scheme.bought_levels.index(cell.level) for c in itertools.product(*spans) for cell in _cells(scheme, c)]
    )


def _cells(scheme: RfmScheme, scores: tuple[int, ...]) -> list[Any]:
    return [cell for cell in scheme.cells if all(s in c for s, c in zip(scores, (cell.r, cell.f, cell.m), strict=True))]


def conditions(scheme: RfmScheme, state: dict[str, Any]) -> list[list[Condition]]:
    """List each rule's conditions: one for each score."""
    return [
        [_bounds(getattr(scheme, a), state["cuts"][a], s, a in state["may_miss"]) for a, s in zip(AXES, c, strict=True)]
        for c in itertools.product(*(range(1, getattr(scheme, axis).bins + 1) for axis in AXES))
    ]


def _bounds(score: Score, cuts: list[float], s: int, may_miss: bool) -> Condition:
    edges = [-np.inf, *cuts, np.inf]
    rank = s - 1 if score.better == "higher" else score.bins - s
    return Condition(score.feature, edges[rank], edges[rank + 1], missing=may_miss and s == 1)
