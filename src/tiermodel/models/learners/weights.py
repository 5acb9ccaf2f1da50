"""How much each training row counts, and what is added to its score in training only."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["FitWeights"]

Floats = NDArray[np.float64]


class FitWeights(NamedTuple):
    """The weight of each row, and the offset of its score before the link function; both of shape (rows,)."""

    sample_weight: Floats
    offset: Floats
