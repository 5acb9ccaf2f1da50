"""Customers who outweigh all others: what is learned for the others must not hang on them."""

from __future__ import annotations

import numpy as np

from tiermodel.arrays import Flags, Floats

__all__ = ["outweighing"]

_FEWEST, _SHARE, _TIMES, _MOST = 50, 0.1, 20.0, 5


def outweighing(amounts: Floats) -> Flags:
    """Return which customers hold more than a tenth of the positive amounts, and twenty times the middle one.

    They are five at most, found one after the other, so that the largest does not hide the next; none among fewer than
    fifty customers.

    >>> shop = np.full(100, 10.0)
    >>> shop[:2] = 1e7, 1e4
    >>> np.flatnonzero(outweighing(shop)).tolist(), int(outweighing(shop[2:]).sum())
    ([0, 1], 0)
    """
    found = np.zeros(len(amounts), dtype=np.bool_)
    left = np.where(amounts > 0, amounts, 0.0)
    if len(amounts) < _FEWEST:
        return found
    middle = float(np.median(left[left > 0])) if left.any() else 0.0
    for _ in range(_MOST):
        heavy = (left > _SHARE * left.sum()) & (left > _TIMES * middle)
        if not heavy.any():
            break
        found |= heavy
        left = np.where(heavy, 0.0, left)
    return found
