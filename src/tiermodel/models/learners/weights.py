"""Sample weights and offsets of training rows."""

from __future__ import annotations

from typing import NamedTuple

from tiermodel.arrays import Floats

__all__ = ["FitWeights"]


class FitWeights(NamedTuple):
    """The weight of each training row, and the offset added to its score before the link function; shapes (rows,)."""

    sample_weight: Floats
    offset: Floats
