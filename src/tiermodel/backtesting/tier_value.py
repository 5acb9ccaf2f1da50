"""The value that key tiers capture, and their weighted kappa with the tiers that this value would give, resampled.

Differences between gradings of the same customers share the draws, so that common variation cancels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tiermodel.arrays import Flags, Floats, Ints
from tiermodel.evaluation.bootstrap import draw_count, interval
from tiermodel.evaluation.metrics import mean_ranks
from tiermodel.tiers.learned.training_set import rank_filled

__all__ = ["METRICS", "Graded", "draws_for", "filled", "metric_interval", "resampled_metrics"]


DRAWS_AT_MOST, _DRAWS_AT_LEAST, _DRAWN_ROWS = 1_000, 200, 10_000_000
_CELLS = 4_000_000  # counts drawn at a time, which bounds the memory
METRICS = ("value_capture_top", "qwk_value", "value_capture_of_best")


@dataclass(frozen=True)
class Graded:
    """Each customer's level under a scheme, whether it is a key level, and the ideal level.

    Ideal levels rank customers by observed value and have the sizes of the scheme's levels.
    """

    level: Ints
    key: Flags
    deserved: Ints

    @classmethod
    def of(cls, level: Ints, keys: Sequence[int], value: Floats, levels: int) -> Graded:
        """Return the grading of customers of one date, given their levels, the key levels and what they brought."""
        return cls(level, np.isin(level, keys), filled(value, np.bincount(level, minlength=levels)))

    def columns(self, value: Floats) -> Floats:
        """Return columns whose sums over customers give the metrics, so that a draw needs weighted sums only."""
        x, y = self.level.astype(np.float64), self.deserved.astype(np.float64)
        best = np.isin(self.deserved, np.unique(self.level[self.key])) * value
        return np.column_stack([self.key * value, best, (x - y) ** 2, x * x + y * y, x, y])


def draws_for(customers: int) -> int:
    """Return the number of bootstrap draws of an interval: fewer, the more customers there are."""
    return draw_count(customers, _DRAWN_ROWS, _DRAWS_AT_LEAST, DRAWS_AT_MOST)


def filled(score: Floats, sizes: Ints) -> Ints:
    """Return levels of the given sizes, filled from the lowest up by score; equal scores share a level."""
    shares = [float(size) / len(score) for size in sizes]
    return rank_filled(mean_ranks(score) / len(score), shares)


def resampled_metrics(graded: Sequence[Graded], value: Floats, who: tuple[Ints, int], seed: int) -> list[Floats]:
    """Return `METRICS` of each scheme, for all customers and then for each draw, shape (metrics, 1 + draws).

    Schemes share the draws, so that common variation cancels in a difference. `who` has the number of each row's
    customer and the count of customers: dates share the draws too. NaN where a metric is not defined.
    """
    place, n = who
    rng = np.random.default_rng(seed)
    columns = [np.column_stack([value, np.ones(len(value)), j.columns(value)]) for j in graded]
    left = draws_for(n)
    found = [[_metrics(np.ones((1, len(value))), of_one)] for of_one in columns]
    while left:
        size = min(max(1, _CELLS // n), left)
        times = np.stack([np.bincount(rng.integers(0, n, n), minlength=n)[place].astype(float) for _ in range(size)])
        for parts, of_one in zip(found, columns, strict=True):
            parts.append(_metrics(times, of_one))
        left -= size
    return [np.hstack(parts) for parts in found]


def _metrics(times: Floats, columns: Floats) -> Floats:
    """Return `METRICS`, shape (metrics, draws), given each customer's count in each draw."""
    total, n, captured, best, missed, squares, x, y = (times @ columns).T
    chance = squares - 2 * x * y / n
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.array([
            np.where(total > 0, captured / total, np.nan),
            np.where(chance > 0, 1 - missed / chance, np.nan),
            np.where(best > 0, captured / best, np.nan),
        ])  # fmt: skip


def metric_interval(resampled: Floats) -> tuple[float | None, float | None, float | None]:
    """Return the metric and the ends of its 95 % interval; None where a draw does not define it."""
    if np.isnan(resampled).any():
        return (None if np.isnan(resampled[0]) else float(resampled[0])), None, None
    return float(resampled[0]), *interval(resampled[1:])
