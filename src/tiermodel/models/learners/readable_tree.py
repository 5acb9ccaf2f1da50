"""Small decision trees as plain lists, with thresholds rounded to readable numbers.

A split may tell missing values from known ones, and nothing else. scikit-learn gives it an infinite threshold, with
the missing on the right; JSON has no infinity, so that its threshold is None here: every known value goes left.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import Any

import numba
import numpy as np
import pandas as pd

from tiermodel.arrays import Flags, Floats, Ints
from tiermodel.errors import DataError
from tiermodel.features.condition import Condition

__all__ = ["freeze", "leaf_of", "node_conditions", "round_readable", "roundest", "without_idle_splits"]


def freeze(tree: Any, names: list[str], frame: pd.DataFrame) -> tuple[dict[str, list[Any]], Ints]:
    """Return a fitted tree as plain lists, and each row's leaf.

    Thresholds have the fewest digits that leave no leaf empty; `DataError` where even full precision empties one.
    """
    for digits in range(3, 17):
        inner = tree.feature >= 0
        frozen = {
            "feature": [names[f] if f >= 0 else None for f in tree.feature],
            "threshold": [
                round_readable(float(t), digits) if i and np.isfinite(t) else None
                for t, i in zip(tree.threshold, inner, strict=True)
            ],
            "left": tree.children_left.tolist(),
            "right": tree.children_right.tolist(),
            "missing_left": [bool(m) for m in tree.missing_go_to_left],
        }
        leaf = leaf_of(frozen, frame)
        if len(np.unique(leaf)) == np.count_nonzero(~inner):
            return frozen, leaf
    raise DataError(
        f"the features {sorted(set(frozen['feature']) - {None})} hold numbers too close together to split on: "
        "give amounts in a larger unit"
    )


def leaf_of(tree: dict[str, list[Any]], frame: pd.DataFrame) -> Ints:
    """Return each row's leaf, numbered in the tree's order: left where x <= threshold, or NaN and `missing_left`.

    A split without a threshold has every known value on the left.
    """
    names = list(dict.fromkeys(name for name in tree["feature"] if name is not None))
    x = np.array([frame[name].to_numpy(dtype=np.float64) for name in names]).reshape(len(names), len(frame))
    inner = np.array([name is not None for name in tree["feature"]])
    return _walk(
        x,
        np.array([names.index(name) if name is not None else -1 for name in tree["feature"]]),
        np.array([np.inf if bound is None else bound for bound in tree["threshold"]]),
        np.column_stack([np.array(tree["left"]), np.array(tree["right"])]),
        np.array(tree["missing_left"]),
        np.cumsum(~inner) - 1,
    )


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _walk(x: Floats, feature: Ints, threshold: Floats, children: Ints, missing_left: Flags, leaf: Ints) -> Ints:
    """Return the leaf that each column of `x`, shape (features, rows), reaches; `feature` is -1 at a leaf."""
    reached = np.empty(x.shape[1], dtype=np.int64)
    for row in range(x.shape[1]):
        node = 0
        while feature[node] >= 0:
            value = x[feature[node], row]
            left = missing_left[node] if np.isnan(value) else value <= threshold[node]
            node = children[node, 0] if left else children[node, 1]
        reached[row] = leaf[node]
    return reached


def without_idle_splits(tree: dict[str, list[Any]], level: Ints) -> tuple[dict[str, list[Any]], Ints]:
    """Return the tree without splits below which all leaves have the same level, and the leaf that each leaf became.

    `level` has that of every leaf. No row changes its level; a rule is then no longer than it must be.

    >>> tree = {"feature": ["a", "b", None, None, None], "threshold": [1.0, 2.0, None, None, None]}
    >>> tree |= {"left": [1, 2, -1, -1, -1], "right": [4, 3, -1, -1, -1], "missing_left": [False] * 5}
    >>> short, became = without_idle_splits(tree, np.array([0, 0, 1]))
    >>> short["feature"], short["left"], short["right"], became.tolist()
    (['a', None, None], [1, -1, -1], [2, -1, -1], [0, 0, 1])
    """
    nodes, leaves = range(len(tree["feature"])), iter(level.tolist())
    of_node = [next(leaves) if tree["feature"][n] is None else None for n in nodes]
    for n in reversed(nodes):  # children come after their parent
        if tree["feature"][n] is not None and of_node[tree["left"][n]] == of_node[tree["right"][n]]:
            of_node[n] = of_node[tree["left"][n]]
    stands_for = list(nodes)  # a node within which nothing changes stands for all nodes below it
    for n in nodes:
        if tree["feature"][n] is not None:
            for child in (tree["left"][n], tree["right"][n]):
                stands_for[child] = child if of_node[n] is None else stands_for[n]
    kept = [n for n in nodes if stands_for[n] == n]
    place = {n: new for new, n in enumerate(kept)} | {-1: -1}
    at_leaf: dict[str, Any] = {"feature": None, "threshold": None, "left": -1, "right": -1, "missing_left": False}
    short: dict[str, list[Any]] = {}
    for key, none in at_leaf.items():
        short[key] = [tree[key][n] if of_node[n] is None else none for n in kept]
    for side in ("left", "right"):
        short[side] = [place[n] for n in short[side]]
    number = np.cumsum([name is None for name in short["feature"]]) - 1
    became = [number[place[stands_for[n]]] for n in nodes if tree["feature"][n] is None]
    return short, np.array(became, dtype=np.int64)


def node_conditions(tree: dict[str, list[Any]], may_miss: Collection[str]) -> list[list[Condition]]:
    """Return the path to each node of a tree, in the tree's order; bounds on the same feature are joined.

    `may_miss` are the features whose missing values a condition names.
    """
    found: list[dict[str, Condition]] = [{} for _ in tree["feature"]]
    for n, name in enumerate(tree["feature"]):  # children come after their parent
        if name is None:
            continue
        threshold = math.inf if tree["threshold"][n] is None else tree["threshold"][n]
        missing_left = tree["missing_left"][n]
        before = found[n].get(name, Condition(name, missing=name in may_miss))
        left = Condition(name, before.low, min(before.high, threshold), before.missing and missing_left)
        right = Condition(name, max(before.low, threshold), before.high, before.missing and not missing_left)
        others = {key: condition for key, condition in found[n].items() if key != name}  # the last split comes last
        found[tree["left"][n]], found[tree["right"][n]] = {**others, name: left}, {**others, name: right}
    return [list(path.values()) for path in found]


def round_readable(value: float, digits: int = 3) -> float:
    """Return a number rounded to `digits` significant digits: people read the same number that decides.

    >>> round_readable(1234.567), round_readable(0.012345)
    (1230.0, 0.0123)
    """
    if value == 0 or not math.isfinite(value):
        return value
    return round(value, digits - 1 - math.floor(math.log10(abs(value))))


def roundest(value: float, fits: Callable[[float], bool]) -> float:
    """Return a number rounded to the fewest significant digits that `fits`; the number itself where no rounding does.

    Where only the number itself fits, as a third that must not become less, the rounded numbers beside it are tried.

    >>> roundest(1234.123, lambda r: 1232 < r <= 1234.123), roundest(5.0, lambda r: r < 5)
    (1234.0, 5.0)
    >>> roundest(1 / 3, lambda r: 1 / 3 <= r < 0.35)
    0.34
    """
    nearest = next((r for digits in range(1, 16) if fits(r := round_readable(value, digits))), None)
    if nearest is not None:
        return nearest
    if value == 0 or not math.isfinite(value) or not fits(value):
        return value
    size = math.floor(math.log10(abs(value)))
    beside = (
        round_readable(round_readable(value, digits) + side * 10.0 ** (size + 1 - digits), digits)
        for digits in range(1, 15)
        for side in (1, -1)
    )
    return next((r for r in beside if fits(r)), value)
