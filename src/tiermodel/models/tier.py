"""The tier a customer will be in one outcome window from now: ordinal LightGBM, with contiguous conformal sets.

A cumulative-link ensemble (Frank and Hall 2001): one model per threshold for P(tier above k), made monotone afterwards.
Sets are the smallest runs of neighbouring tiers around the likeliest that held the true tier of 90 % of later
customers, of each likeliest tier by itself (Mondrian conformal prediction, Vovk et al. 2003): few are in the top tiers,
and a promise kept for all customers together could be broken for them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tiermodel.config.project import Project
from tiermodel.features.frame import KEYS
from tiermodel.features.outcome import outcome_span
from tiermodel.models.boosted import Boosted, fit_boosted, side_by_side
from tiermodel.models.folds import rolling_folds

__all__ = ["TierModel", "fit_ordinal", "fit_tier", "future_levels", "p_above"]

Floats = NDArray[np.float64]
ROUNDS = 200
COVERAGE = 0.90
_FOLDS = 2
_FEWEST_ROWS = 50
_UNKNOWN_MASS = 1.0  # where no later date could tell, a set holds every tier that is thought possible


@dataclass(frozen=True)
class TierModel:
    """Hold a model per threshold (None, with the share above, where one side was never seen).

    `mass` is that of a 90 % set by the likeliest tier.
    """

    names: tuple[str, ...]
    boosted: tuple[Boosted | None, ...]
    share_above: tuple[float, ...]
    mass: tuple[float, ...]

    def predict(self, x: Floats) -> Floats:
        """Give P(tier one outcome window later) for every row and level, shape (rows, levels); rows sum to one."""
        above = np.column_stack([
            np.full(len(x), share) if model is None else model.predict(x)
            for model, share in zip(self.boosted, self.share_above, strict=True)
        ])  # fmt: skip
        return _probabilities(above)

    def sets(self, probabilities: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Give the lowest and highest level of each row's contiguous 90 % set."""
        low = high = probabilities.argmax(axis=1)
        rows = np.arange(len(probabilities))
        mass, enough = probabilities[rows, low], np.array(self.mass)[low]
        for _ in range(probabilities.shape[1] - 1):
            low, high, mass = _grow(probabilities, low, high, mass, mass < enough)
        return low, high


def _probabilities(above: Floats) -> Floats:
    """Turn P(above k), made falling in k, into one probability per level."""
    falling = np.minimum.accumulate(np.clip(above, 0.0, 1.0), axis=1)
    edges = np.hstack([np.ones((len(above), 1)), falling, np.zeros((len(above), 1))])
    return edges[:, :-1] - edges[:, 1:]


def _grow(p: Floats, low: NDArray[np.int64], high: NDArray[np.int64], mass: Floats, wanted: NDArray[np.bool_]):  # type: ignore[no-untyped-def]  # noqa: ANN202
    """Widen the wanted runs by the likelier neighbour."""
    rows, last = np.arange(len(p)), p.shape[1] - 1
    below = np.where(low > 0, p[rows, np.maximum(low - 1, 0)], -1.0)
    above = np.where(high < last, p[rows, np.minimum(high + 1, last)], -1.0)
    up = wanted & (above >= below) & (high < last)
    down = wanted & ~up & (low > 0)
    return low - down, high + up, mass + np.where(up, above, 0.0) + np.where(down, below, 0.0)


def _mass_needed(p: Floats, level: NDArray[np.int64]) -> Floats:
    """Give the mass of each row's run just before it takes in the true level: a set of more mass holds it."""
    low = high = p.argmax(axis=1)
    mass = p[np.arange(len(p)), low]
    needed = np.zeros(len(p))
    for _ in range(p.shape[1] - 1):
        outside = (level < low) | (level > high)
        needed = np.where(outside, mass, needed)
        low, high, mass = _grow(p, low, high, mass, outside)
    return needed


def p_above(probabilities: Floats, tier: NDArray[np.int64]) -> Floats:
    """Give P(a higher tier one outcome window later than the one given)."""
    return np.asarray((probabilities * (np.arange(probabilities.shape[1]) > tier[:, None])).sum(axis=1))


def future_levels(frame: pd.DataFrame, level: NDArray[np.int64], span_days: int) -> Floats:
    """Look up every row's level `span_days` later in the same frame; NaN where that snapshot is not there."""
    keyed = pd.DataFrame({"customer_id": frame["customer_id"], "as_of": frame["as_of"], "level": level.astype(float)})
    later = keyed.assign(as_of=keyed["as_of"] - pd.Timedelta(days=span_days))
    merged = keyed[["customer_id", "as_of"]].merge(later, on=["customer_id", "as_of"], how="left")
    return merged["level"].to_numpy(dtype=np.float64)


def fit_tier(
    project: Project, panel: pd.DataFrame, inputs: Floats, names: list[str], future: Floats, levels: int
) -> tuple[TierModel, pd.DataFrame]:
    """Fit on a panel sorted by key, its inputs and each row's level one outcome window later (NaN: unknown).

    Also give out-of-time forecasts: the keys, `actual` and `predicted` (the expected level, rounded).
    """
    known = ~np.isnan(future)
    rows, x = panel[known].reset_index(drop=True), inputs[known]
    level = future[known].astype(np.int64)
    later, needed, likeliest = [], [], []
    for train, test in rolling_folds(rows["as_of"], outcome_span(project), most=_FOLDS):
        p = fit_ordinal(x[train], level[train], names, levels, project.seed).predict(x[test])
        needed.append(_mass_needed(p, level[test]))
        likeliest.append(p.argmax(axis=1))
        best = np.rint(p @ np.arange(levels))
        later.append(rows[list(KEYS)].iloc[test].assign(actual=level[test], predicted=best))
    model = fit_ordinal(x, level, names, levels, project.seed)
    mass = _masses(np.concatenate(needed), np.concatenate(likeliest), levels) if needed else (_UNKNOWN_MASS,) * levels
    empty = pd.DataFrame({"customer_id": [], "as_of": [], "actual": [], "predicted": []})
    told = pd.concat(later, ignore_index=True) if later else empty
    return TierModel(model.names, model.boosted, model.share_above, mass), told


def _masses(needed: Floats, likeliest: NDArray[np.int64], levels: int) -> tuple[float, ...]:
    """Take the mass that 90 % of later rows needed, by likeliest tier; of all rows where a tier has few."""

    def enough(of: Floats) -> float:
        reach = min(1.0, COVERAGE * (1 + 1 / len(of)))
        return float(np.nextafter(np.quantile(of, reach, method="inverted_cdf"), 2.0))

    by_tier = [needed[likeliest == k] for k in range(levels)]
    return tuple(enough(of if len(of) >= _FEWEST_ROWS else needed) for of in by_tier)


def fit_ordinal(x: Floats, level: NDArray[np.int64], names: list[str], levels: int, seed: int) -> TierModel:
    """Fit a model per threshold on inputs and levels; `mass` is left at 1, so that a set holds every level."""
    shares = tuple(float(np.mean(level > k)) for k in range(levels - 1))

    def above(k: int) -> Boosted | None:
        if not 0 < shares[k] < 1:
            return None
        return fit_boosted(x, (level > k).astype(float), names, ROUNDS, seed, objective="binary", learning_rate=0.05)

    return TierModel(tuple(names), tuple(side_by_side(above, range(levels - 1))), shares, (1.0,) * levels)
