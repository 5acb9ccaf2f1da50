"""Splits by time and out-of-fold predictions: train on labels known at a test date, predict that date's rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import pandas as pd

from tiermodel.arrays import Flags, Floats, Ints
from tiermodel.features.frame import KEYS

__all__ = [
    "FEWEST_PER_CLASS", "FEWEST_POSITIVE", "Fold", "Split", "both_classes", "no_predictions", "out_of_fold",
    "rolling_folds", "split_by_date", "stack_folds",
]  # fmt: skip

Model = TypeVar("Model")
Prediction = TypeVar("Prediction")
MOST_FOLDS = 3
FEWEST_PER_CLASS = 20
FEWEST_POSITIVE = 50


class Split(NamedTuple):
    """A test date, and the numbers of its training and test rows."""

    day: pd.Timestamp
    train: Ints
    test: Ints

    @classmethod
    def of_all(cls, day: pd.Timestamp, rows: int) -> Split:
        """Return the split that trains on all rows, for a forecast at `day`."""
        return cls(day, np.arange(rows), np.arange(0))


@dataclass(frozen=True)
class Fold(Generic[Prediction]):
    """A test date, the numbers of its rows, their labels, and the prediction by a model of labels known at the date."""

    day: pd.Timestamp
    rows: Ints
    observed: Floats
    prediction: Prediction


def rolling_folds(as_of: pd.Series, delay_days: int, most: int = MOST_FOLDS) -> Iterator[tuple[Ints, Ints]]:
    """Yield train and test row numbers for up to `most` of the latest dates; labels are known after `delay_days`.

    The outcome windows of training rows end at or before the test date, so they do not overlap those of test rows.

    >>> dates = pd.Series(pd.to_datetime(["2020-01-01", "2020-01-31", "2020-03-01"]))
    >>> [(train.tolist(), test.tolist()) for train, test in rolling_folds(dates, 30, most=2)]
    [([0], [1]), ([0, 1], [2])]
    """
    dates = as_of.to_numpy().astype("datetime64[D]")
    distinct = np.unique(dates)
    testable = [d for d in distinct if distinct[0] + delay_days <= d]
    for day in testable[-most:]:
        yield np.flatnonzero(dates + delay_days <= day), np.flatnonzero(dates == day)


def split_by_date(
    as_of: pd.Series, delay_days: int, most: int = MOST_FOLDS, enough: Callable[[Ints], bool] = lambda _: True
) -> list[Split]:
    """Return the `rolling_folds` whose training rows, given by number, are `enough`, each with its date."""
    folds = rolling_folds(as_of, delay_days, most)
    return [Split(as_of.iloc[test[0]], train, test) for train, test in folds if enough(train)]


def both_classes(labels: Flags) -> bool:
    """Return whether there are at least `FEWEST_PER_CLASS` rows of either class."""
    return bool(min(labels.sum(), (~labels).sum()) >= FEWEST_PER_CLASS)


def out_of_fold(
    splits: Sequence[Split], models: Iterable[Model], observed: Floats, predict: Callable[[Model, Ints], Prediction]
) -> Iterator[Fold[Prediction]]:
    """Yield each split's test rows with their predictions by the model of its training rows.

    `observed` are the labels of all rows. `models` may be a generator, so that one fitted model is kept at a time.
    """
    for split, model in zip(splits, models, strict=True):
        yield Fold(split.day, split.test, observed[split.test], predict(model, split.test))


def stack_folds(
    rows: pd.DataFrame,
    folds: Sequence[Fold[Prediction]],
    predict: Callable[[Fold[Prediction], list[Fold[Prediction]]], Mapping[str, Floats]],
    members: Sequence[str] = (),
) -> pd.DataFrame:
    """Return out-of-fold predictions: keys, `actual`, and the columns that `predict` makes of a fold and the others."""
    frames = [
        rows[list(KEYS)]
        .iloc[fold.rows]
        .assign(actual=fold.observed, **predict(fold, [other for other in folds if other is not fold]))
        for fold in folds
    ]
    return pd.concat(frames, ignore_index=True) if frames else no_predictions(rows, members)


def no_predictions(rows: pd.DataFrame, members: Sequence[str] = ()) -> pd.DataFrame:
    """Return the frame of `stack_folds` without rows; its predictions are `predicted` and `members`."""
    return rows[list(KEYS)].iloc[:0].assign(**{name: np.empty(0) for name in ("actual", "predicted", *members)})
