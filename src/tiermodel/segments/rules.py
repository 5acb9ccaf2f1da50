"""A short rule for every segment: one or two paths of a shallow decision tree, with its precision and recall."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.tree import DecisionTreeClassifier

from tiermodel.arrays import Flags, Ints
from tiermodel.errors import DataError
from tiermodel.features.condition import Condition, Named
from tiermodel.models.learners.readable_tree import freeze, leaf_of, node_conditions
from tiermodel.words import words

__all__ = ["rule_text", "segment_rule"]


_CONDITIONS, _PATHS = 3, 2
_LEAF_SHARE = 0.01
_BETTER = 0.02  # a second path must raise the F1 score by this much,
_LENGTH = 0.005  # and every condition by this much
_GROWN = 20_000


def segment_rule(frame: pd.DataFrame, names: Sequence[str], inside: Flags, smallest: int) -> dict[str, Any] | None:
    """Return a rule that tells the customers of a segment from the others, as plain data; None where there is none.

    The tree has three levels of splits on the features `names`, and no leaf of fewer than `smallest` customers. The
    path to one of its nodes, or to two, makes the rule: the one with the best F1 score for its length. `paths` has the
    conditions. `precision` is the share in the segment of those who meet the rule, `recall` the share of the segment
    that meets it.
    """
    step = max(1, len(frame) // _GROWN)
    sample, wanted = frame.iloc[::step], inside[::step]
    leaf_size = max(smallest, int(_LEAF_SHARE * min(wanted.sum(), (~wanted).sum())))
    grown = DecisionTreeClassifier(
        max_depth=_CONDITIONS, min_samples_leaf=leaf_size, class_weight="balanced", random_state=0
    ).fit(sample[list(names)].to_numpy(dtype=np.float64), wanted)
    try:
        tree, _ = freeze(grown.tree_, list(names), sample)
    except DataError:  # numbers too close together to split on: no rule to tell
        return None
    leaf, leaves = leaf_of(tree, frame), _leaves_below(tree)
    count = np.bincount(leaf, minlength=int(max(leaves[0])) + 1)
    hits = np.bincount(leaf[inside], minlength=len(count))
    paths = node_conditions(tree, [name for name in names if frame[name].isna().any()])
    best = _best(leaves, paths, hits, count)
    if not best:  # the tree has no split
        return None
    met = sorted(set().union(*(leaves[n] for n in best)))
    return {
        "paths": [[_as_data(condition) for condition in path] for path in _joined([paths[n] for n in best])],
        "precision": float(hits[met].sum() / count[met].sum()),
        "recall": float(hits[met].sum() / hits.sum()),
    }


def _leaves_below(tree: Mapping[str, Sequence[Any]]) -> list[set[int]]:
    """Return the leaves below each node of a tree, numbered as by `leaf_of`; of a leaf, itself."""
    numbers = itertools.count()
    found = [set[int]() if name is not None else {next(numbers)} for name in tree["feature"]]
    for n in reversed(range(len(found))):
        if tree["feature"][n] is not None:
            found[n] = found[tree["left"][n]] | found[tree["right"][n]]
    return found


def _best(leaves: Sequence[set[int]], paths: Sequence[Sequence[Condition]], hits: Ints, count: Ints) -> tuple[int, ...]:
    """Return the node, or the two nodes where they are clearly better, with the best F1 score for their length."""

    def score(nodes: tuple[int, ...]) -> float:
        met = sorted(set().union(*(leaves[n] for n in nodes)))
        f1 = 2 * hits[met].sum() / (count[met].sum() + hits.sum())
        return float(f1) - _LENGTH * sum(len(paths[n]) for n in nodes)

    nodes = range(1, len(leaves))
    one: tuple[int, ...] = max(((n,) for n in nodes), key=score, default=())
    apart = (pair for pair in itertools.combinations(nodes, _PATHS) if not leaves[pair[0]] & leaves[pair[1]])
    two: tuple[int, ...] = max(apart, key=score, default=())
    return two if two and score(two) >= score(one) + _BETTER else one


def _joined(paths: list[list[Condition]]) -> list[list[Condition]]:
    """Return two paths as one where they differ in one feature only, in ranges side by side."""
    if len(paths) < _PATHS:
        return paths
    first, second = ({c.feature: c for c in path} for path in paths)
    differ = [name for name in first if first[name] != second.get(name)]
    if len(differ) != 1 or first.keys() != second.keys():
        return paths
    a, b = sorted((first[differ[0]], second[differ[0]]), key=lambda c: c.low)
    if a.high != b.low:
        return paths
    both = Condition(a.feature, a.low, b.high, a.missing or b.missing)
    return [[both if c.feature == a.feature else c for c in paths[0]]]


def _as_data(condition: Condition) -> dict[str, Any]:
    ends = {"low": condition.low, "high": condition.high}
    known = {name: bound if math.isfinite(bound) else None for name, bound in ends.items()}
    return {"feature": condition.feature, **known, "missing": condition.missing}


def rule_text(rule: Mapping[str, Any], features: Mapping[str, Named], language: str) -> str:
    """Return a rule as text, with its precision and recall."""
    wording = words(language)
    paths = [wording["and"].join(_condition(one).text(features, language) for one in path) for path in rule["paths"]]
    figures = {name: rule[name] for name in ("precision", "recall")}
    return wording["segment_rule"].format(rule=wording["semicolon_or"].join(paths), **figures)


def _condition(data: Mapping[str, Any]) -> Condition:
    low = -math.inf if data["low"] is None else data["low"]
    high = math.inf if data["high"] is None else data["high"]
    return Condition(data["feature"], low, high, data["missing"])
