"""Upgrade potential: the probability that a customer is in a higher tier at the end of the window, and stays above.

To rise and fall back is no upgrade, so the label needs two later snapshots: one at the end of the window, and one
`upgrade.stay_days` after it, each above the present tier. The model of the tier to come ranks customers well but knows
nothing of staying: its chance of a higher tier is calibrated, on later snapshots than it was trained on, to that label.
In a world of known truth this did better than a model of its own, which has fewer rises to learn from.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tiermodel.config.project import Project
from tiermodel.features.frame import KEYS
from tiermodel.features.outcome import outcome_span
from tiermodel.models.folds import rolling_folds
from tiermodel.models.level import Calibration, calibrated, fit_calibration, log_odds
from tiermodel.models.tier import fit_ordinal, future_levels, p_above

__all__ = ["can_rise", "fit_upgrade", "p_upgrade", "stayed_above", "upgrade_span"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_FOLDS = 2


def upgrade_span(project: Project) -> int:
    """Count the days from a date until it is known who rose and stayed."""
    return outcome_span(project) + project.upgrade.stay_days


def stayed_above(project: Project, panel: pd.DataFrame, level: Ints) -> Floats:
    """Tell of every row of a panel who rose and stayed (1, 0); NaN where either later snapshot is not there."""
    at_end = future_levels(panel, level, outcome_span(project))
    after = future_levels(panel, level, upgrade_span(project))
    rose = (np.minimum(at_end, after) > level).astype(np.float64)
    return np.where(np.isnan(at_end) | np.isnan(after), np.nan, rose)


def can_rise(frame: pd.DataFrame, level: Ints, levels: int) -> NDArray[np.bool_]:
    """Tell who can rise: buyers below the highest tier."""
    return frame["days_since_last"].notna().to_numpy() & (level < levels - 1)


def p_upgrade(forecast: Floats, tier: Ints, calibration: Calibration) -> Floats:
    """Give P(rises above the tier and stays) from P(tier to come), shape (rows, levels); 0 in the highest tier."""
    chance = calibrated(log_odds(p_above(forecast, tier)), calibration)
    return np.where(tier == forecast.shape[1] - 1, 0.0, chance)


def fit_upgrade(
    project: Project, panel: pd.DataFrame, inputs: Floats, names: list[str], level: Ints, future: Floats, rose: Floats
) -> tuple[Calibration, pd.DataFrame]:
    """Fit on a panel sorted by key, its inputs, each row's tier, tier to come, and whether it rose and stayed.

    Rows whose stay is not known (NaN) are left aside. Without a later date the forecast stands as it is. Also give
    out-of-time predictions: the keys, `actual`, and `predicted` as calibrated on the other later dates.
    """
    used = ~np.isnan(rose) & ~np.isnan(future)
    rows, x, now = panel[used].reset_index(drop=True), inputs[used], level[used]
    then, happened = future[used].astype(np.int64), rose[used] == 1
    levels = int(max(then.max(initial=0), now.max(initial=0))) + 1
    rises = can_rise(rows, now, levels)
    seen, kept = [], []
    for train, test in rolling_folds(rows["as_of"], outcome_span(project), _FOLDS):
        judged = test[rises[test]]
        if len(judged):
            forecast = fit_ordinal(x[train], then[train], names, levels, project.seed).predict(x[judged])
            seen.append((log_odds(p_above(forecast, now[judged])), happened[judged]))
            kept.append(rows[list(KEYS)].iloc[judged].assign(actual=happened[judged].astype(float)))
    others = [fit_calibration(seen[:k] + seen[k + 1 :]) for k in range(len(seen))]
    later = [
        frame.assign(predicted=calibrated(odds, calibration))
        for frame, (odds, _), calibration in zip(kept, seen, others, strict=True)
    ]
    empty = pd.DataFrame({**{key: rows[key].iloc[:0] for key in KEYS}, "actual": [], "predicted": []})
    return fit_calibration(seen), pd.concat(later or [empty], ignore_index=True)
