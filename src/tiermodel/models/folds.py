"""Split a panel by time: train on outcomes fully observed before the test date, test on that date's customers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = ["MOST_FOLDS", "rolling_folds"]

MOST_FOLDS = 3


def rolling_folds(
    as_of: pd.Series, span_days: int, most: int = MOST_FOLDS
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Give train and test row numbers for up to `most` of the latest dates; `span_days` is gap plus horizon.

    The outcome windows of the training rows end at or before the test date, so nothing learned overlaps what is tested.

    >>> dates = pd.Series(pd.to_datetime(["2020-01-01", "2020-01-31", "2020-03-01"]))
    >>> [(train.tolist(), test.tolist()) for train, test in rolling_folds(dates, 30, most=2)]
    [([0], [1]), ([0, 1], [2])]
    """
    dates = as_of.to_numpy().astype("datetime64[D]")
    distinct = np.unique(dates)
    testable = [d for d in distinct if distinct[0] + span_days <= d]
    for day in testable[-most:]:
        yield np.flatnonzero(dates + span_days <= day), np.flatnonzero(dates == day)
