"""The tier of a customer one outcome window later: ordinal LightGBM, with contiguous conformal prediction sets.

One model per threshold predicts P(tier above k), made monotone afterwards (Frank and Hall 2001). A prediction set is
the smallest run of neighbouring tiers around the likeliest that covers 90 % in out-of-fold predictions, separately for
each likeliest tier (Mondrian conformal prediction, Vovk et al. 2003): the top tiers have few customers, and coverage
over all customers could hide that theirs is low.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from tiermodel.arrays import Flags, Floats, Ints
from tiermodel.features.frame import KEYS
from tiermodel.models.learners.boosting import Boosted, map_threads
from tiermodel.models.learners.ordinal import Ordinal, fit_ordinal, level_probabilities
from tiermodel.models.learners.time_split import Fold, out_of_fold, split_by_date, stack_folds

__all__ = ["TierModel", "fit_levels", "fit_tier", "future_levels", "p_above"]


ROUNDS = 200
COVERAGE = 0.90
_FOLDS = 2
_FEWEST_ROWS = 50
_UNKNOWN_MASS = 1.0  # without folds a set has every tier of positive probability


@dataclass(frozen=True)
class TierModel:
    """An ordinal model: a boosted model per threshold, None where training rows lie on one side of it only.

    `share_above` are the shares of training rows above the thresholds, `mass` the probability that a 90 % set needs, by
    likeliest tier.
    """

    names: tuple[str, ...]
    boosted: tuple[Boosted | None, ...]
    share_above: tuple[float, ...]
    mass: tuple[float, ...]

    def predict(self, x: Floats) -> Floats:
        """Return P(level one outcome window later), shape (rows, levels); rows sum to one."""
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
    """Return low, high and mass of the runs, those `wanted` wider by their likelier neighbour."""
    rows, last = np.arange(len(p)), p.shape[1] - 1
    below = np.where(low > 0, p[rows, np.maximum(low - 1, 0)], -1.0)
    above = np.where(high < last, p[rows, np.minimum(high + 1, last)], -1.0)
    up = wanted & (above >= below) & (high < last)
    down = wanted & ~up & (low > 0)
    return low - down, high + up, mass + np.where(up, above, 0.0) + np.where(down, below, 0.0)


def _mass_needed(p: Floats, level: Ints) -> Floats:
    """Return the mass of each row's run just before the true level enters it: a set of more mass holds that level."""
    low = high = p.argmax(axis=1)
    mass = p[np.arange(len(p)), low]
    needed = np.zeros(len(p))
    for _ in range(p.shape[1] - 1):
        outside = (level < low) | (level > high)
        needed = np.where(outside, mass, needed)
        low, high, mass = _grow(p, low, high, mass, outside)
    return needed


def p_above(probabilities: Floats, tier: Ints) -> Floats:
    """Return P(level above `tier` one outcome window later), from P(level) of shape (rows, levels)."""
    return np.asarray((probabilities * (np.arange(probabilities.shape[1]) > tier[:, None])).sum(axis=1))


def future_levels(frame: pd.DataFrame, level: Ints, days: int) -> Floats:
    """Return every row's level `days` later in the same frame; NaN where the frame has no such row."""
    keyed = pd.DataFrame({"customer_id": frame["customer_id"], "as_of": frame["as_of"], "level": level.astype(float)})
    later = keyed.assign(as_of=keyed["as_of"] - pd.Timedelta(days=days))
    merged = keyed[["customer_id", "as_of"]].merge(later, on=["customer_id", "as_of"], how="left")
    return merged["level"].to_numpy(dtype=np.float64)


def fit_tier(
    panel: pd.DataFrame, inputs: Floats, names: list[str], future: Floats, levels: int, delay_days: int, seed: int
) -> tuple[TierModel, pd.DataFrame, Floats]:
    """Return the model of a panel sorted by key, its inputs, and each row's level `delay_days` later (NaN: unknown).

    Also return out-of-fold predictions: the keys, `actual` and `predicted` (the expected level, rounded), and P(level)
    of every row of the panel, shape (rows, levels), NaN where a row is in no fold.
    """
    known = ~np.isnan(future)
    rows, at_row = panel.loc[known, list(KEYS)].reset_index(drop=True), np.flatnonzero(known)
    level = future[known].astype(np.int64)
    splits = split_by_date(rows["as_of"], delay_days, _FOLDS)
    *earlier, model = map_threads(
        lambda train: fit_levels(inputs[at_row[train]], level[train], names, levels, seed),
        [*(split.train for split in splits), np.arange(len(rows))],
    )
    folds = list(out_of_fold(splits, earlier, level.astype(float), lambda model, at: model.predict(inputs[at_row[at]])))

    def expected(fold: Fold[Floats], _: Sequence[Fold[Floats]]) -> dict[str, Floats]:
        return {"predicted": np.rint(fold.prediction @ np.arange(levels))}

    p = np.full((len(panel), levels), np.nan)
    for fold in folds:
        p[at_row[fold.rows]] = fold.prediction
    predictions = stack_folds(rows, folds, expected)
    return (replace(model, mass=_masses(folds, level, levels)) if folds else model), predictions, p


def _masses(folds: Sequence[Fold[Floats]], level: Ints, levels: int) -> tuple[float, ...]:
    """Return the mass that 90 % of out-of-fold rows need, by likeliest tier; of all rows where a tier has few."""
    needed = np.concatenate([_mass_needed(fold.prediction, level[fold.rows]) for fold in folds])
    likeliest = np.concatenate([fold.prediction.argmax(axis=1) for fold in folds])

    def enough(of: Floats) -> float:
        reach = min(1.0, COVERAGE * (1 + 1 / len(of)))
        return float(np.nextafter(np.quantile(of, reach, method="inverted_cdf"), 2.0))

    by_tier = [needed[likeliest == k] for k in range(levels)]
    return tuple(enough(of if len(of) >= _FEWEST_ROWS else needed) for of in by_tier)


def fit_levels(x: Floats, level: Ints, names: list[str], levels: int, seed: int) -> TierModel:
    """Return the model of inputs and levels; `mass` is 1, so that a set has every level of positive probability."""
    model = fit_ordinal(x, level, names, levels, ROUNDS, seed)
    return TierModel(tuple(names), model.boosted, model.share_above, (_UNKNOWN_MASS,) * levels)
