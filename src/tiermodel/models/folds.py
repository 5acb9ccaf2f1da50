"""Split a panel by time: train on outcomes fully observed before the test date, test on that date's customers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = ["MOST_FOLDS", "level_trust", "rolling_folds"]

MOST_FOLDS = 3


def level_trust(as_of: pd.Series, span_days: int) -> float:
    """Say how much of the level error seen at these dates to expect at a new one, from 0 to 1.

    A season moves all customers of a date together, so dates count, not customers, and dates whose outcome windows of
    `span_days` overlap count in part. With a date-to-date variance four times that of a lasting error, the posterior
    mean after n dates is n / (n + 4) of the error seen.

    >>> dates = pd.Series(pd.to_datetime(["2020-01-01", "2020-01-01", "2020-01-31"]))
    >>> level_trust(dates[:2], 30), round(level_trust(dates, 30), 3), round(level_trust(dates, 60), 3)
    (0.2, 0.333, 0.273)
    """
    dates = min(as_of.nunique(), 1 + (as_of.max() - as_of.min()).days / span_days)
    return float(dates / (dates + 4))


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
