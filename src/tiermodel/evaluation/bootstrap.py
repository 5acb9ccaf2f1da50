"""Bootstrap percentile intervals over customers (Efron and Tibshirani 1993).

A customer with several rows is drawn with all of them (cluster bootstrap), so that intervals are as wide as the number
of customers demands. Draws with an undefined metric (NaN) are left out; without any other an interval is NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tiermodel.arrays import Column, Floats, Ints
from tiermodel.evaluation.metrics import pair

__all__ = [
    "bootstrap_values", "cluster_draws", "cluster_interval", "draw_count", "interval", "paired_bootstrap",
    "paired_interval",
]  # fmt: skip


def draw_count(rows: int, budget: int, least: int, most: int) -> int:
    """Return the number of resamples, from `least` to `most`, with which about `budget` rows are drawn in all.

    >>> [draw_count(rows, 1_000_000, 50, 400) for rows in (100, 10_000, 1_000_000)]
    [400, 100, 50]
    """
    return int(np.clip(budget / max(rows, 1), least, most))


def interval(values: Sequence[float] | Floats, low: float = 0.025, high: float = 0.975) -> tuple[float, float]:
    """Return two quantiles of the finite values, NaN where none is finite.

    >>> interval([1.0, float("nan"), 1.0])
    (1.0, 1.0)
    """
    found = np.asarray(values)
    defined = found[np.isfinite(found)]
    bounds = np.quantile(defined, [low, high]) if len(defined) else (np.nan, np.nan)
    return float(bounds[0]), float(bounds[1])


def cluster_draws(customer: Ints) -> Callable[[np.random.Generator], Ints]:
    """Return a function that draws customers with replacement and returns the numbers of all their rows.

    `customer` has each row's customer as a number.
    """
    order = np.argsort(customer, kind="stable")
    _, first, count = np.unique(customer[order], return_index=True, return_counts=True)

    def draw(rng: np.random.Generator) -> Ints:
        chosen = rng.integers(0, len(first), len(first))
        lengths = count[chosen]
        skipped = np.cumsum(lengths) - lengths
        rows: Ints = order[np.repeat(first[chosen] - skipped, lengths) + np.arange(lengths.sum())]
        return rows

    return draw


def cluster_interval(
    metric: Callable[..., float], columns: Sequence[Floats], customer: Ints, *, draws: int, seed: int
) -> tuple[float, float]:
    """Return the 95 % cluster bootstrap interval of a metric of columns; `customer` numbers each row's customer.

    >>> same = np.zeros(40)
    >>> cluster_interval(lambda y: float(y.mean()), [same], np.arange(40), draws=10, seed=0)
    (0.0, 0.0)
    """
    rng, draw = np.random.default_rng(seed), cluster_draws(customer)
    resamples = (draw(rng) for _ in range(draws))
    return interval([metric(*(column[rows] for column in columns)) for rows in resamples])


def bootstrap_values(
    metric: Callable[[Floats, Floats], float], actual: Column, predicted: Column, *, draws: int, seed: int
) -> Floats:
    """Return the metric of all rows, then of each of `draws` resamples, shape (1 + draws,).

    The resamples are the same for the same seed and number of rows.
    """
    y, p = pair(actual, predicted)
    rng = np.random.default_rng(seed)
    resamples = (rng.integers(0, len(y), len(y)) for _ in range(draws))
    return np.array([metric(y, p), *(metric(y[rows], p[rows]) for rows in resamples)])


def paired_interval(ours: Floats, theirs: Floats, level: float = 0.95) -> tuple[float, float, float]:
    """Return (difference, low, high) of `ours - theirs`, values of `bootstrap_values` on the same resamples."""
    differences, tail = ours - theirs, (1 - level) / 2
    return float(differences[0]), *interval(differences[1:], tail, 1 - tail)


def paired_bootstrap(
    metric: Callable[[Floats, Floats], float],
    actual: Column,
    model: Column,
    baseline: Column,
    *,
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float, float]:
    """Return (difference, low, high) of `metric(actual, model) - metric(actual, baseline)`, by paired bootstrap.

    >>> from tiermodel.evaluation.metrics import log_loss
    >>> y = np.array([0, 0, 1, 1] * 25)
    >>> paired_bootstrap(log_loss, y, 0.2 + 0.6 * y, np.full(100, 0.5))[2] < 0
    True
    """
    ours, theirs = (bootstrap_values(metric, actual, p, draws=draws, seed=seed) for p in (model, baseline))
    return paired_interval(ours, theirs, level)
