"""Upgrade potential: the probability that a customer is in a higher tier at the end of the window, and stays above.

To rise and fall back is no upgrade, so the label needs two later snapshots above the present tier: one at the end of
the window, and one `upgrade.stay_days` after it. The future-tier model ranks customers well but ignores the stay, so
its probability of a higher tier is multiplied by the share of those who rose before who stayed. That one number is
better calibrated than an intercept and slope fitted to past dates: these differ more from date to date than customers
differ in whether they stay.
"""

from __future__ import annotations

from typing import NamedTuple, Self

import numpy as np
import pandas as pd

from tiermodel.arrays import Flags, Floats, Ints
from tiermodel.features.frame import KEYS, has_bought
from tiermodel.features.outcome import Labels
from tiermodel.models.future_tier import future_levels, p_above

__all__ = ["TierLabels", "can_rise", "fit_upgrade", "p_upgrade", "stayed_above"]


_PRIOR_STAYS, _PRIOR_ROWS = 0.9, 20.0


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


def p_upgrade(forecast: Floats, tier: Ints, stays: float) -> Floats:
    """Return P(rises above `tier` and stays) from P(future level), shape (rows, levels); 0 in the highest tier.

    `stays` is the share of those who rise who stay.
    """
    return np.where(tier == forecast.shape[1] - 1, 0.0, np.clip(p_above(forecast, tier) * stays, 0.0, 1.0))


def fit_upgrade(panel: pd.DataFrame, tiers: TierLabels, forecast: Floats, labels: Labels) -> tuple[float, pd.DataFrame]:
    """Return the share of those who rose who stayed, of a panel sorted by key; near the prior where few rose.

    `forecast` is the out-of-fold P(future level) of each row, NaN where there is none. Also return out-of-fold
    predictions: the keys, `actual`, and `predicted` with the share known at their date.
    """
    usable = ~np.isnan(tiers.rose) & can_rise(panel, tiers.now, forecast.shape[1])
    judged = usable & ~np.isnan(forecast).any(axis=1)
    frame = panel.loc[judged, list(KEYS)].reset_index(drop=True).assign(actual=tiers.rose[judged])
    known = panel["as_of"] + pd.Timedelta(days=labels.upgrade_delay_days)
    share = {day: _stays(tiers.at(usable & (known <= day).to_numpy())) for day in frame["as_of"].unique()}
    chance = p_above(forecast[judged], tiers.now[judged]) * frame["as_of"].map(share).to_numpy(dtype=np.float64)
    return _stays(tiers.at(usable)), frame.assign(predicted=chance)


def _stays(tiers: TierLabels) -> float:
    """Return the share of those who rose who stayed, drawn to the prior as if twenty customers had shown that."""
    rose = tiers.future > tiers.now
    return float((tiers.rose[rose].sum() + _PRIOR_ROWS * _PRIOR_STAYS) / (np.count_nonzero(rose) + _PRIOR_ROWS))
