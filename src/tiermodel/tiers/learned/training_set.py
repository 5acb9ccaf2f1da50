"""The training set of a learned scheme: customers at past dates, and the level that each turned out to belong to."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from tiermodel.arrays import Column, Floats, Ints
from tiermodel.errors import DataError
from tiermodel.evaluation.metrics import mean_ranks
from tiermodel.features.frame import has_bought
from tiermodel.segments.fit import assign_segments, fit_segments
from tiermodel.tiers.learned.scheme import LearnedScheme
from tiermodel.tiers.schemes.schema import input_names

__all__ = ["TrainingSet", "matrix", "rank_filled", "training_set_of"]


@dataclass(frozen=True)
class TrainingSet:
    """Rows of buyers, the features to learn from, and each row's target level among `bought_levels`.

    `rank` (0 to 1) is given where levels are shares of an order, else None. `shares` are the sizes of the levels,
    lowest first.
    """

    frame: pd.DataFrame
    names: list[str]
    target_level: Ints
    rank: Floats | None
    shares: list[float]

    @property
    def x(self) -> Floats:
        """The features, shape (rows, features)."""
        return matrix(self.frame, self.names)

    @property
    def value(self) -> Floats:
        """The value in the outcome window, in currency units; NaN where it is not known yet."""
        return self.frame["outcome_value"].to_numpy(dtype=np.float64)

    def take(self, rows: Ints) -> TrainingSet:
        """Return the rows at some positions."""
        rank = None if self.rank is None else self.rank[rows]
        return replace(
            self, frame=self.frame.iloc[rows].reset_index(drop=True), target_level=self.target_level[rows], rank=rank
        )


def matrix(frame: pd.DataFrame, names: list[str]) -> Floats:
    """Return the named columns as float64, shape (rows, columns)."""
    x = np.empty((len(frame), len(names)), order="F")
    for j, name in enumerate(names):
        x[:, j] = frame[name].to_numpy(dtype=np.float64)
    return x


def training_set_of(scheme: LearnedScheme, snapshot: pd.DataFrame, history: pd.DataFrame, seed: int) -> TrainingSet:
    """Return the training set: buyers at past dates with a known outcome; labels of the latest snapshot too."""
    names = list(input_names(scheme, history))
    followed = history[has_bought(history) & history["outcome_value"].notna()].reset_index(drop=True)
    if scheme.label_feature is not None:
        return _from_labels(scheme, scheme.label_feature, snapshot, followed, names)
    if scheme.target == "clusters":
        segments = fit_segments(followed, len(scheme.bought_levels), seed)
        level = assign_segments(segments, followed)
        return TrainingSet(followed, names, level, None, _sizes(level, len(scheme.bought_levels)))
    shares = list(scheme.ordered(scheme.shares or {}).values())
    rank = _rank_within_date(followed["as_of"].to_numpy(), followed["outcome_value"].to_numpy(dtype=np.float64))
    return TrainingSet(followed, names, rank_filled(rank, shares), rank, shares)


def _from_labels(
    scheme: LearnedScheme, label: str, snapshot: pd.DataFrame, followed: pd.DataFrame, names: list[str]
) -> TrainingSet:
    """Return the customers who had a label at the date, from past snapshots and the latest one."""
    today = snapshot.assign(outcome_value=np.nan)
    new = today[today["as_of"] > followed["as_of"].max()] if len(followed) else today
    frame = pd.concat([followed, new], ignore_index=True).reindex(columns=followed.columns)
    frame = frame[frame[label].notna()].reset_index(drop=True)
    level = _level_of_labels(scheme, label, frame[label].to_numpy(dtype=np.float64))
    own = None if scheme.shares is None else list(scheme.ordered(scheme.shares).values())
    return TrainingSet(frame, names, level, None, own or _sizes(level, len(scheme.bought_levels)))


def _level_of_labels(scheme: LearnedScheme, label: str, given: Floats) -> Ints:
    """Return the position of each label in `bought_levels`; `DataError` for a label that is none of them."""
    numbers = {scheme.codes.index(code): n for n, code in enumerate(scheme.bought_levels)}
    unknown = ~np.isin(given, list(numbers))
    if unknown.any():
        known = ", ".join(f"{number} ({scheme.codes[number]})" for number in numbers)
        first = ", ".join(f"{value:g}" for value in np.unique(given[unknown])[:3])
        raise DataError(
            f"scheme {scheme.code}: {label.removeprefix('attribute_')!r} gives {np.count_nonzero(unknown):,} of "
            f"{len(given):,} buyers a tier that is none: {first}; tiers are {known}: map the labels to these numbers"
        )
    level = np.array([numbers[int(value)] for value in given], dtype=np.int64)
    if lacking := [code for n, code in enumerate(scheme.bought_levels) if n not in level]:
        raise DataError(f"scheme {scheme.code}: no labelled customer is {lacking[0]!r}; every level needs examples")
    return level


def _sizes(level: Ints, levels: int) -> list[float]:
    return [float(share) for share in np.bincount(level, minlength=levels) / len(level)]


def rank_filled(rank: Floats, shares: list[float]) -> Ints:
    """Return the level in whose share each rank (0 to 1) falls; equal ranks share a level."""
    return np.minimum(np.searchsorted(np.cumsum(shares), rank - 1e-12), len(shares) - 1)


def _rank_within_date(dates: Column, value: Floats) -> Floats:
    """Return ranks from 0 to 1 within each date, so that a season of high sales raises no customer's rank."""
    rank = np.empty(len(value))
    for day in np.unique(dates):
        here = dates == day
        rank[here] = mean_ranks(value[here]) / np.count_nonzero(here)
    return rank
