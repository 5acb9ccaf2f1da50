"""SQL terms of which the kinds of scheme write their levels, in DuckDB's dialect."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["SCORE", "number", "quoted", "steps"]

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
