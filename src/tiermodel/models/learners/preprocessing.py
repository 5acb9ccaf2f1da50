"""Steps of preprocessing that the linear and the neural learner apply, each in its own order."""

from __future__ import annotations

from typing import Final

import numpy as np

from tiermodel.arrays import Floats
from tiermodel.models.elementary import log1p

__all__ = ["bounds", "mean_and_scale", "medians", "signed_log", "signed_root"]

_BOUNDS: Final = (0.005, 0.995)


def signed_log(x: Floats) -> Floats:
    """Return sign(x) log(1 + |x|), which keeps zero and the sign; NaN stays NaN."""
    return np.sign(x) * log1p(np.abs(x))


def signed_root(x: Floats) -> Floats:
    """Return sign(x) sqrt(|x|); NaN stays NaN."""
    return np.sign(x) * np.sqrt(np.abs(x))


def medians(x: Floats) -> Floats:
    """Return the median of each column's known values, 0 where none is known, to impute missing values with."""
    return np.array([np.median(known) if len(known) else 0.0 for known in _known(x)])


def bounds(x: Floats) -> tuple[Floats, Floats]:
    """Return the bounds that hold 99 % of each column's known values; 0 where none is known."""
    edges = np.array([np.quantile(known, _BOUNDS) if len(known) else np.zeros(2) for known in _known(x)])
    return edges[:, 0], edges[:, 1]


def mean_and_scale(x: Floats) -> tuple[Floats, Floats]:
    """Return each column's mean and standard deviation, the latter 1 where the column does not vary."""
    mean, scale = (np.array([of(column) for column in x.T]) for of in (np.mean, np.std))
    scale[scale < 1e-12] = 1.0
    return mean, scale


def _known(x: Floats) -> list[Floats]:
    return [column[~np.isnan(column)] for column in x.T]
