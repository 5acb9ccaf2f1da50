"""SQL terms of which the kinds of scheme write their levels, in DuckDB's dialect."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["SCORE", "number", "quoted", "steps", "tree_sql"]

SCORE = "score_of_the_scheme"  # the points of a composite, or the number of a cell


def steps(x: str, sign: str, cuts: Sequence[float], results: Sequence[int]) -> str:
    """Return a CASE with the last result beyond the last cut point, and the first where no cut point is passed."""
    cases = []
    for n in reversed(range(len(cuts))):
        if n + 1 < len(cuts) and cuts[n] == cuts[n + 1]:
            continue  # of equal cut points, the last decides
        cases.append(f"WHEN {x} {sign} {number(cuts[n])} THEN {results[n + 1]}")
    return f"CASE {' '.join(cases)} ELSE {results[0]} END"


def number(value: float) -> str:
    """Return a double as a literal that every dialect reads as that double: an exponent makes it no DECIMAL."""
    if not np.isfinite(value):
        return f"CAST('{'-' if value < 0 else ''}Infinity' AS DOUBLE)"
    text = repr(float(value))
    return text if "e" in text else f"{text}e0"


def quoted(name: str) -> str:
    """Return a name as a quoted identifier."""
    return '"' + name.replace('"', '""') + '"'


def tree_sql(tree: Mapping[str, Sequence[Any]], leaves: Sequence[str]) -> str:
    """Return a tree as nested CASEs: the term of the leaf that a row reaches, in the order of `leaf_of`."""
    numbers = itertools.count()
    leaf = {n: next(numbers) for n, name in enumerate(tree["feature"]) if name is None}

    def branch(n: int) -> str:
        name = tree["feature"][n]
        if name is None:
            return leaves[leaf[n]]
        x = quoted(name)
        threshold = tree["threshold"][n]
        left = f"{x} IS NOT NULL" if threshold is None else f"{x} <= {number(threshold)}"
        if tree["missing_left"][n]:
            left = f"({left} OR {x} IS NULL)"
        return f"CASE WHEN {left} THEN {branch(tree['left'][n])} ELSE {branch(tree['right'][n])} END"

    return branch(0)
