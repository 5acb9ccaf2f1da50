"""How much each training row counts, and what is added to its score in training only."""

from __future__ import annotations

from typing import NamedTuple

from tiermodel.arrays import Floats

__all__ = ["FitWeights"]


class FitWeights(NamedTuple):
    """The weight of each row, and the offset of its score before the link function; both of shape (rows,)."""

    sample_weight: Floats
    offset: Floats
