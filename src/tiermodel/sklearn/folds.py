"""Folds by time as a cross-validation splitter."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from tiermodel.arrays import Ints
from tiermodel.models.learners.time_split import rolling_folds

__all__ = ["TimeFolds"]


class TimeFolds:
    """Folds that train on snapshots whose outcome was known at a later date, and test on the rows of that date.

    Parameters
    ----------
    delay_days
        The days after which an outcome is known: gap and horizon of the outcome window.
    n_splits
        The most test dates, the latest ones.

    Examples
    --------
    >>> import numpy as np
    >>> dates = pd.to_datetime(["2020-01-01", "2020-01-31", "2020-03-01"])
    >>> [(train.tolist(), test.tolist()) for train, test in TimeFolds(30).split(np.zeros((3, 1)), groups=dates)]
    [([0], [1]), ([0, 1], [2])]

    """

    def __init__(self, delay_days: int = 90, n_splits: int = 3) -> None:
        self.delay_days = delay_days
        self.n_splits = n_splits

    def split(self, X: Any, y: Any = None, groups: Any = None) -> Iterator[tuple[Ints, Ints]]:  # noqa: ARG002, N803
        """Yield the positions of training and test rows; `groups` are the dates of the rows."""
        yield from self._folds(groups)

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:  # noqa: ARG002, N803
        """Return the number of folds that the dates allow."""
        return len(self._folds(groups))

    def _folds(self, groups: Any) -> list[tuple[Ints, Ints]]:
        if groups is None:
            raise ValueError("folds by time need the date of each row: pass groups=panel['as_of']")
        dates = pd.Series(pd.to_datetime(pd.Series(groups)).to_numpy())
        found = list(rolling_folds(dates, self.delay_days, self.n_splits))
        if not found:
            raise ValueError(
                f"no date is {self.delay_days} days (delay_days) after the first, {dates.min():%Y-%m-%d}: the last is "
                f"{dates.max():%Y-%m-%d}; bring earlier snapshots"
            )
        return found
