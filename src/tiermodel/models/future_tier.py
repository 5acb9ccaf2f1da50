"""The tier a customer will be in one outcome window from now: ordinal LightGBM, with contiguous conformal sets.

A cumulative-link ensemble (Frank and Hall 2001): one model per threshold for P(tier above k), made monotone afterwards.
Sets are the smallest runs of neighbouring tiers around the likeliest that held the true tier of 90 % of later
customers, of each likeliest tier by itself (Mondrian conformal prediction, Vovk et al. 2003): few are in the top tiers,
and a promise kept for all customers together could be broken for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from tiermodel.arrays import Flags, Floats, Ints
from tiermodel.models.learners.boosting import Boosted
from tiermodel.models.learners.ordinal import Ordinal, fit_ordinal, level_probabilities
from tiermodel.models.learners.time_split import Fold, out_of_fold, split_by_date, stack_folds

__all__ = ["TierModel", "fit_levels", "fit_tier", "future_levels", "p_above"]


ROUNDS = 200
COVERAGE = 0.90
_FOLDS = 2
_FEWEST_ROWS = 50
_UNKNOWN_MASS = 1.0  # where no later date could tell, a set holds every tier that is thought possible


@dataclass(frozen=True)
class TierModel:
    """A model per threshold (None, with the share above, where one side was never seen).

    `mass` is that of a 90 % set by the likeliest tier.
    """

    names: tuple[str, ...]
    boosted: tuple[Boosted | None, ...]
    share_above: tuple[float, ...]
    mass: tuple[float, ...]

    def predict(self, x: Floats) -> Floats:
        """Return P(tier one outcome window later) of each row, shape (rows, levels); rows sum to one."""
        return level_probabilities(Ordinal(self.boosted, self.share_above), x)

    def sets(self, probabilities: Floats) -> tuple[Ints, Ints]:
        """Return the lowest and highest level of each row's contiguous 90 % set."""
        low = high = probabilities.argmax(axis=1)
        rows = np.arange(len(probabilities))
        mass, enough = probabilities[rows, low], np.array(self.mass)[low]
        for _ in range(probabilities.shape[1] - 1):
            low, high, mass = _grow(probabilities, low, high, mass, mass < enough)
        return low, high


def _grow(p: Floats, low: Ints, high: Ints, mass: Floats, wanted: Flags):  # type: ignore[no-untyped-def]  # noqa: ANN202
    """Widen the wanted runs by the likelier neighbour."""
    rows, last = np.arange(len(p)), p.shape[1] - 1
    below = np.where(low > 0, p[rows, np.maximum(low - 1, 0)], -1.0)
    above = np.where(high < last, p[rows, np.minimum(high + 1, last)], -1.0)
    up = wanted & (above >= below) & (high < last)
    down = wanted & ~up & (low > 0)
    return low - down, high + up, mass + np.where(up, above, 0.0) + np.where(down, below, 0.0)


def _mass_needed(p: Floats, level: Ints) -> Floats:
    """Return the mass of each row's run just before it takes in the true level: a set of more mass holds it."""
    low = high = p.argmax(axis=1)
    mass = p[np.arange(len(p)), low]
    needed = np.zeros(len(p))
    for _ in range(p.shape[1] - 1):
        outside = (level < low) | (level > high)
        needed = np.where(outside, mass, needed)
        low, high, mass = _grow(p, low, high, mass, outside)
    return needed


def p_above(probabilities: Floats, tier: Ints) -> Floats:
    """Return P(a higher tier one outcome window later than the one given)."""
    return np.asarray((probabilities * (np.arange(probabilities.shape[1]) > tier[:, None])).sum(axis=1))


def future_levels(frame: pd.DataFrame, level: Ints, days: int) -> Floats:
    """Look up every row's level `days` later in the same frame; NaN where that snapshot is not there."""
    keyed = pd.DataFrame({"customer_id": frame["customer_id"], "as_of": frame["as_of"], "level": level.astype(float)})
    later = keyed.assign(as_of=keyed["as_of"] - pd.Timedelta(days=days))
    merged = keyed[["customer_id", "as_of"]].merge(later, on=["customer_id", "as_of"], how="left")
    return merged["level"].to_numpy(dtype=np.float64)


def fit_tier(
    panel: pd.DataFrame, inputs: Floats, names: list[str], future: Floats, levels: int, delay_days: int, seed: int
) -> tuple[TierModel, pd.DataFrame]:
    """Fit on a panel sorted by key, its inputs and each row's level `delay_days` later (NaN: unknown).

    Also return out-of-fold forecasts: the keys, `actual` and `predicted` (the expected level, rounded).
    """
    known = ~np.isnan(future)
    rows, x = panel[known].reset_index(drop=True), inputs[known]
    level = future[known].astype(np.int64)
    splits = split_by_date(rows["as_of"], delay_days, _FOLDS)
    models = (fit_levels(x[split.train], level[split.train], names, levels, seed) for split in splits)
    folds = list(out_of_fold(splits, models, level.astype(float), lambda model, at: model.predict(x[at])))
    model = fit_levels(x, level, names, levels, seed)

    def expected(fold: Fold[Floats], _: Sequence[Fold[Floats]]) -> dict[str, Floats]:
        return {"predicted": np.rint(fold.prediction @ np.arange(levels))}

    later = stack_folds(rows, folds, expected)
    return (replace(model, mass=_masses(folds, level, levels)) if folds else model), later


def _masses(folds: Sequence[Fold[Floats]], level: Ints, levels: int) -> tuple[float, ...]:
    """Return the mass that 90 % of later rows needed, by likeliest tier; of all rows where a tier has few."""
    needed = np.concatenate([_mass_needed(fold.prediction, level[fold.rows]) for fold in folds])
    likeliest = np.concatenate([fold.prediction.argmax(axis=1) for fold in folds])

    def enough(of: Floats) -> float:
        reach = min(1.0, COVERAGE * (1 + 1 / len(of)))
        return float(np.nextafter(np.quantile(of, reach, method="inverted_cdf"), 2.0))

    by_tier = [needed[likeliest == k] for k in range(levels)]
    return tuple(enough(of if len(of) >= _FEWEST_ROWS else needed) for of in by_tier)


def fit_levels(x: Floats, level: Ints, names: list[str], levels: int, seed: int) -> TierModel:
    """Fit on inputs and levels; `mass` is left at 1, so that a set holds every level."""
    model = fit_ordinal(x, level, names, levels, ROUNDS, seed)
    return TierModel(tuple(names), model.boosted, model.share_above, (_UNKNOWN_MASS,) * levels)
