"""What a fit is told of the time between the last outcome that is over and the date it forecasts for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tiermodel.models.level import Window

__all__ = ["Ahead", "Counted", "CutWindow", "Learned"]

Floats = NDArray[np.float64]
Target = TypeVar("Target", np.float64, np.bool_)


class CutWindow(NamedTuple):
    """Hold what came in the windows of one snapshot as far as they are over, `share` of them.

    `x` are the inputs of its rows, as for the whole window, `came` is what has happened so far, and `link` what MBG/NBD
    expects of the part beyond what it expects of the whole: a difference of log-odds, or of logarithms.
    """

    x: Floats
    came: Floats
    link: Floats
    share: float


class Ahead(NamedTuple):
    """Hold the date to forecast for, its rows' inputs, and what was missed in the short windows before it.

    `cut` gives the windows that were not over by a day, as they were then.
    """

    day: pd.Timestamp
    x: Floats
    missed: Sequence[Window] = ()
    cut: Callable[[pd.Timestamp], Sequence[CutWindow]] = lambda _: ()


class Counted(NamedTuple):
    """Hold how much each row counts, and what to add to its score before the link function, in training only."""

    weight: Floats
    link: Floats


class Learned(NamedTuple):
    """Hold rows to learn from: whole windows, and below them cut ones, which count as much as was seen of them."""

    x: Floats
    y: Floats
    counted: Counted

    @classmethod
    def of(cls, x: Floats, y: NDArray[Target], cut: Sequence[CutWindow]) -> Learned:
        """Put cut windows below whole ones."""
        weight = np.concatenate([np.ones(len(y)), *(np.full(len(w.came), w.share) for w in cut)])
        link = np.concatenate([np.zeros(len(y)), *(window.link for window in cut)])
        came = np.concatenate([y.astype(np.float64), *(window.came for window in cut)])
        return cls(np.vstack([x, *(window.x for window in cut)]) if cut else x, came, Counted(weight, link))
