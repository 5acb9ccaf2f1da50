"""Upgrade potential: the probability that a customer is in a higher tier at the end of the window, and stays above.

To rise and fall back is no upgrade, so the label needs two later snapshots: one at the end of the window, and one
`upgrade.stay_days` after it, each above the present tier.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tiermodel.config import Project
from tiermodel.features.outcome import outcome_span
from tiermodel.models.chance import Chance, fit_chance
from tiermodel.models.tier import future_levels

__all__ = ["TIER_NOW", "can_rise", "fit_upgrade", "stayed_above", "upgrade_inputs", "upgrade_span"]

Floats = NDArray[np.float64]
TIER_NOW = "tier_now"
"""The last input of the model: the tier that is to be left behind."""


def upgrade_span(project: Project) -> int:
    """Count the days from a date until it is known who rose and stayed."""
    return outcome_span(project) + project.upgrade.stay_days


def stayed_above(project: Project, panel: pd.DataFrame, level: NDArray[np.int64]) -> Floats:
    """Tell of every row of a panel who rose and stayed (1, 0); NaN where either later snapshot is not there."""
    at_end = future_levels(panel, level, outcome_span(project))
    after = future_levels(panel, level, upgrade_span(project))
    rose = (np.minimum(at_end, after) > level).astype(np.float64)
    return np.where(np.isnan(at_end) | np.isnan(after), np.nan, rose)


def can_rise(frame: pd.DataFrame, level: NDArray[np.int64], levels: int) -> NDArray[np.bool_]:
    """Tell who can rise: buyers below the highest tier."""
    return frame["days_since_last"].notna().to_numpy() & (level < levels - 1)


def upgrade_inputs(x: Floats, level: NDArray[np.int64]) -> Floats:
    """Put the present tier beside the inputs."""
    return np.column_stack([x, level.astype(np.float64)])


def fit_upgrade(
    project: Project,
    panel: pd.DataFrame,
    inputs: Floats,
    names: list[str],
    level: NDArray[np.int64],
    rose: Floats,
    levels: int,
) -> tuple[Chance | None, pd.DataFrame]:
    """Fit on a panel sorted by key, its inputs, each row's tier and whether it rose and stayed (NaN: unknown, dropped).

    Also give out-of-time predictions, as `fit_chance` does.
    """
    used = can_rise(panel, level, levels) & ~np.isnan(rose)
    rows, x = panel[used].reset_index(drop=True), upgrade_inputs(inputs[used], level[used])
    return fit_chance(rows, x, rose[used] == 1, (*names, TIER_NOW), upgrade_span(project), project.seed)
