"""An ordinal learner: one boosted model for each cut, P(level above k), and the level that they expect as the score.

Frank and Hall (2001); probabilities are made falling in k, so that a higher cut is never likelier than a lower one.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiermodel.models.boosted import Boosted, fit_boosted, side_by_side

__all__ = ["fit", "pulls", "score"]

Floats = NDArray[np.float64]
ROUNDS = 150
_PACE = 0.05


def fit(x: Floats, wanted: NDArray[np.int64], levels: int, names: list[str], seed: int) -> dict[str, Any]:
    """Fit a model for each cut, as text; None where one side was never seen, with the share above in its place."""
    above = [float(np.mean(wanted > k)) for k in range(levels - 1)]

    def cut(k: int) -> str | None:
        if not 0 < above[k] < 1:
            return None
        y = (wanted > k).astype(np.float64)
        return fit_boosted(x, y, names, ROUNDS, seed, objective="binary", learning_rate=_PACE).text

    return {"trees": side_by_side(cut, range(levels - 1)), "above": above}


def score(model: dict[str, Any], names: list[str], x: Floats) -> Floats:
    """Give the expected level of each row."""
    lowest, total = np.ones(len(x)), np.zeros(len(x))
    for text, share in zip(model["trees"], model["above"], strict=True):
        p = np.full(len(x), share) if text is None else _parsed(tuple(names), text).predict(x)
        lowest = np.minimum(lowest, p)
        total += lowest
    return total


def pulls(model: dict[str, Any], names: list[str], x: Floats) -> Floats:
    """Give what each feature adds to the log-odds of all cuts together, shape (rows, features): exact tree SHAP.

    Lundberg et al. (2020), as LightGBM computes it.
    """
    total = np.zeros(x.shape)
    for text in model["trees"]:
        if text is not None:
            booster = _parsed(tuple(names), text).booster
            total += np.asarray(booster.predict(x, pred_contrib=True, num_threads=1))[:, :-1]
    return total


@lru_cache(maxsize=24)
def _parsed(names: tuple[str, ...], text: str) -> Boosted:
    """Parse once: a batch of one customer would spend its time on it."""
    return Boosted(names, text)
