"""An ordinal learner: one boosted model of P(level above k) for each threshold k (Frank and Hall 2001).

Probabilities are made non-increasing in k.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from tiermodel.arrays import Floats, Ints
from tiermodel.models.learners.boosting import Boosted, fit_binary

__all__ = ["Ordinal", "attributions", "fit", "fit_ordinal", "level_probabilities", "score"]

ROUNDS = 150
_LEARNING_RATE = 0.05


class Ordinal(NamedTuple):
    """A model per threshold, None where training rows lie on one side of it only, and the share of rows above it."""

    boosted: tuple[Boosted | None, ...]
    share_above: tuple[float, ...]


def fit_ordinal(x: Floats, level: Ints, names: list[str], levels: int, rounds: int, seed: int) -> Ordinal:
    """Return a model per threshold, fitted on inputs and levels 0 to `levels` - 1, shape (rows,)."""
    above = [level > k for k in range(levels - 1)]
    shares = tuple(float(np.mean(rows)) for rows in above)
    uncertain = [k for k, share in enumerate(shares) if 0 < share < 1]
    grown = fit_binary(x, (above[k] for k in uncertain), names, rounds, seed, _LEARNING_RATE)
    models = dict(zip(uncertain, grown, strict=True))
    return Ordinal(tuple(models.get(k) for k in range(levels - 1)), shares)


def level_probabilities(model: Ordinal, x: Floats) -> Floats:
    """Return P(level), shape (rows, levels); rows sum to one."""
    above = np.column_stack([
        np.full(len(x), share) if boosted is None else boosted.predict(x)
        for boosted, share in zip(model.boosted, model.share_above, strict=True)
    ])  # fmt: skip
    falling = np.minimum.accumulate(np.clip(above, 0.0, 1.0), axis=1)
    edges = np.hstack([np.ones((len(above), 1)), falling, np.zeros((len(above), 1))])
    return edges[:, :-1] - edges[:, 1:]


def fit(x: Floats, level: Ints, levels: int, names: list[str], seed: int) -> dict[str, Any]:
    """Return the model as plain data: the trees of each threshold as text or None, and the shares above."""
    model = fit_ordinal(x, level, names, levels, ROUNDS, seed)
    return {
        "trees": [None if boosted is None else boosted.text for boosted in model.boosted],
        "above": list(model.share_above),
    }


def score(model: dict[str, Any], names: list[str], x: Floats) -> Floats:
    """Return the expected level of each row."""
    lowest, total = np.ones(len(x)), np.zeros(len(x))
    for text, share in zip(model["trees"], model["above"], strict=True):
        p = np.full(len(x), share) if text is None else _parsed(tuple(names), text).predict(x)
        lowest = np.minimum(lowest, p)
        total += lowest
    return total


def attributions(model: dict[str, Any], names: list[str], x: Floats) -> Floats:
    """Return TreeSHAP values summed over thresholds, in log-odds, shape (rows, features) (Lundberg et al. 2020)."""
    total = np.zeros(x.shape)
    for text in model["trees"]:
        if text is not None:
            total += _parsed(tuple(names), text).contributions(x)[1]
    return total


@lru_cache(maxsize=24)
def _parsed(names: tuple[str, ...], text: str) -> Boosted:
    """Return the model of a text, cached: parsing takes longer than scoring one customer."""
    return Boosted(names, text)
