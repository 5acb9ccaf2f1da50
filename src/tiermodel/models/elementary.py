"""Exponential and logarithm as the C library computes them: the same bits whatever instructions the processor has.

NumPy's own are vectorised in a way for each kind of processor, which differ in the last bit. What scores of a given
bundle are computed from uses these instead; sums, products and square roots are exact to the bit everywhere. Another C
library may round the last bit in another way.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numpy.typing import ArrayLike

from tiermodel.arrays import Floats

__all__ = ["exp", "expm1", "log", "log1p"]

# compiled at the first call, not at import, which would cost every verb half a second
_compiled = numba.njit(nogil=True, cache=True)


@_compiled  # type: ignore[untyped-decorator]
def _exp(x: Any, found: Any) -> None:
    for i in range(x.size):
        found[i] = math.exp(x[i])


@_compiled  # type: ignore[untyped-decorator]
def _expm1(x: Any, found: Any) -> None:
    for i in range(x.size):
        found[i] = math.expm1(x[i])


@_compiled  # type: ignore[untyped-decorator]
def _log(x: Any, found: Any) -> None:
    for i in range(x.size):
        found[i] = math.log(x[i])


@_compiled  # type: ignore[untyped-decorator]
def _log1p(x: Any, found: Any) -> None:
    for i in range(x.size):
        found[i] = math.log1p(x[i])


def _each(function: Callable[[Floats, Floats], None], x: ArrayLike) -> Floats:
    array = np.asarray(x, dtype=np.float64, order="C")
    found = np.empty_like(array)
    function(array.reshape(-1), found.reshape(-1))
    return found


def exp(x: ArrayLike) -> Floats:
    """Return e to the power of every number of an array.

    >>> exp([0.0, -1e9]).tolist()
    [1.0, 0.0]
    """
    return _each(_exp, x)


def expm1(x: ArrayLike) -> Floats:
    """Return e to the power of every number, minus 1, exact near 0 too."""
    return _each(_expm1, x)


def log(x: ArrayLike) -> Floats:
    """Return the natural logarithm of every number of an array; -inf at 0.

    >>> log([1.0, 0.0]).tolist()
    [0.0, -inf]
    """
    return _each(_log, x)


def log1p(x: ArrayLike) -> Floats:
    """Return the natural logarithm of 1 plus every number, exact near 0 too."""
    return _each(_log1p, x)
