"""Exponential and logarithm as the C library computes them: the same bits whatever instructions the processor has.

NumPy's own are vectorised in a way for each kind of processor, which differ in the last bit. What scores of a given
bundle are computed from uses these instead; sums, products and square roots are exact to the bit everywhere. Another C
library may round the last bit in another way.
"""

from __future__ import annotations

import math

import numba

__all__ = ["exp", "expm1", "log", "log1p"]

_compiled = numba.vectorize(["float64(float64)"], cache=True)


@_compiled  # type: ignore[untyped-decorator]
def exp(x: float) -> float:
    """Return e to the power of every number of an array.

    >>> exp([0.0, -1e9]).tolist()
    [1.0, 0.0]
    """
    return math.exp(x)


@_compiled  # type: ignore[untyped-decorator]
def expm1(x: float) -> float:
    """Return e to the power of every number, minus 1, exact near 0 too."""
    return math.expm1(x)


@_compiled  # type: ignore[untyped-decorator]
def log(x: float) -> float:
    """Return the natural logarithm of every number of an array; -inf at 0.

    >>> log([1.0, 0.0]).tolist()
    [0.0, -inf]
    """
    return math.log(x)


@_compiled  # type: ignore[untyped-decorator]
def log1p(x: float) -> float:
    """Return the natural logarithm of 1 plus every number, exact near 0 too."""
    return math.log1p(x)
