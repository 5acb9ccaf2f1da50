"""Upgrade potential: the probability that a customer is in a higher tier at the end of the window, and stays above.

To rise and fall back is no upgrade, so the label needs two later snapshots above the present tier: one at the end of
the window, and one `upgrade.stay_days` after it. The future-tier model ranks customers well but ignores the stay, so
its probability of a higher tier is calibrated, out of fold, to that label. On synthetic data of known truth this did
better than a model of its own, which has fewer upgrades to learn from.
"""

from __future__ import annotations

from typing import NamedTuple, Self

import numpy as np
import pandas as pd

from tiermodel.arrays import Flags, Floats, Ints
from tiermodel.features.frame import has_bought
from tiermodel.features.outcome import Labels
from tiermodel.models.calibration.logit import Calibration, calibrate_folds, calibrated, log_odds
from tiermodel.models.future_tier import fit_levels, future_levels, p_above
from tiermodel.models.learners.boosting import map_threads
from tiermodel.models.learners.time_split import out_of_fold, split_by_date

__all__ = ["TierLabels", "can_rise", "fit_upgrade", "p_upgrade", "stayed_above"]


_FOLDS = 2


class TierLabels(NamedTuple):
    """Each row's level, its level one outcome window later, and whether it rose and stayed (1, 0); NaN: unknown."""

    now: Ints
    future: Floats
    rose: Floats

    @classmethod
    def of(cls, panel: pd.DataFrame, level: Ints, labels: Labels) -> Self:
        """Return the labels of a panel's rows, looked up in its later snapshots."""
        future = future_levels(panel, level, labels.delay_days)
        return cls(level, future, stayed_above(panel, level, labels))

    def at(self, rows: Flags) -> Self:
        """Return the labels of some rows."""
        return type(self)(self.now[rows], self.future[rows], self.rose[rows])


def stayed_above(panel: pd.DataFrame, level: Ints, labels: Labels) -> Floats:
    """Return whether each row of a panel rose and stayed (1, 0); NaN where the panel lacks either later row."""
    at_end = future_levels(panel, level, labels.delay_days)
    after = future_levels(panel, level, labels.upgrade_delay_days)
    rose = (np.minimum(at_end, after) > level).astype(np.float64)
    return np.where(np.isnan(at_end) | np.isnan(after), np.nan, rose)


def can_rise(frame: pd.DataFrame, level: Ints, levels: int) -> Flags:
    """Return whether each row can rise: it is of a buyer below the highest tier."""
    return has_bought(frame) & (level < levels - 1)


def p_upgrade(forecast: Floats, tier: Ints, calibration: Calibration) -> Floats:
    """Return P(rises above `tier` and stays) from P(future level), shape (rows, levels); 0 in the highest tier."""
    chance = calibrated(log_odds(p_above(forecast, tier)), calibration)
    return np.where(tier == forecast.shape[1] - 1, 0.0, chance)


def fit_upgrade(
    panel: pd.DataFrame, inputs: Floats, names: list[str], tiers: TierLabels, delay_days: int, seed: int
) -> tuple[Calibration, pd.DataFrame]:
    """Return the calibration fitted on a panel sorted by key; its future tiers are known after `delay_days`.

    Rows without a known label are left out. Without folds the calibration changes nothing. Also return out-of-fold
    predictions: the keys, `actual`, and `predicted` as calibrated on the other folds.
    """
    used = ~np.isnan(tiers.rose) & ~np.isnan(tiers.future)
    rows, x, now = panel[used].reset_index(drop=True), inputs[used], tiers.now[used]
    then, rose = tiers.future[used].astype(np.int64), tiers.rose[used]
    levels = int(max(then.max(initial=0), now.max(initial=0))) + 1
    rises = can_rise(rows, now, levels)
    dated = split_by_date(rows["as_of"], delay_days, _FOLDS)
    splits = [split._replace(test=judged) for split in dated if len(judged := split.test[rises[split.test]])]
    models = map_threads(lambda split: fit_levels(x[split.train], then[split.train], names, levels, seed), splits)
    folds = list(out_of_fold(splits, models, rose, lambda model, at: log_odds(p_above(model.predict(x[at]), now[at]))))
    return calibrate_folds(rows, folds)
