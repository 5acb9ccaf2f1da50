"""Backtest of upgrade potential and of prospects' conversion, beside the base rates that they have to beat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pandas as pd

from tiermodel.arrays import Floats
from tiermodel.bundle.bundle import Bundle
from tiermodel.config.project import Project
from tiermodel.evaluation.baselines import OURS
from tiermodel.features.frame import KEYS
from tiermodel.features.outcome import Labels
from tiermodel.models.calibrated_ensemble import group_rates
from tiermodel.models.conversion import is_prospect
from tiermodel.models.future_tier import p_above
from tiermodel.models.upgrade import can_rise, stayed_above
from tiermodel.words import words

__all__ = ["Compared", "judge_prospects", "judge_upgrade"]


@dataclass(frozen=True)
class Compared:
    """The keys of customers, their labels (0, 1), and the probabilities that every model predicted."""

    keys: pd.DataFrame
    actual: Floats
    predicted: Mapping[str, Floats]


def judge_upgrade(project: Project, panel: pd.DataFrame, day: date, bundle: Bundle, p: Floats) -> Compared | str:
    """Return labels and predictions of upgrade: the model, the rate of each tier, the uncalibrated tier forecast.

    `p` is the tier forecast of all customers at the date, shape (customers, levels), in the order of the panel. Where
    the label is not observed yet, or was not by the date for anybody, the result is a note that says so.
    """
    now, levels = pd.Timestamp(day), len(bundle.scheme.scheme.levels)
    level = bundle.scheme.assign(panel)[0]
    labels = Labels.of(project)
    rose = stayed_above(panel, level, labels)
    rising = can_rise(panel, level, levels) & ~np.isnan(rose)
    today = (panel["as_of"] == now).to_numpy()
    here = rising & today
    if not here.any():
        text = words(project.language)["note_backtest_upgrade_later"]
        return text.format(day=day, days=labels.upgrade_delay_days)
    known = rising & (panel["as_of"] + timedelta(labels.upgrade_delay_days) <= now).to_numpy()
    if not known.any():
        return words(project.language)["note_backtest_upgrade_unknown"].format(day=day)
    frame, tier = panel[here].reset_index(drop=True), level[here]
    forecast = p[rising[today]]
    predicted = {
        OURS: bundle.p_upgrade(forecast, tier),
        "rate_per_tier": group_rates(level[known], rose[known] == 1, tier),
        "tier_forecast": p_above(forecast, tier),
    }
    return Compared(frame[list(KEYS)], rose[here].astype(np.float64), predicted)


def judge_prospects(panel: pd.DataFrame, past: pd.DataFrame, day: date, bundle: Bundle) -> Compared | str:
    """Return labels and predictions of conversion: the model and the past rate; a note where there is no model."""
    here = is_prospect(panel) & (panel["as_of"] == pd.Timestamp(day)).to_numpy()
    if bundle.prospects is None or not here.any():
        return words(bundle.language)["note_backtest_prospects"].format(day=day) if here.any() else ""
    frame = panel[here].reset_index(drop=True)
    before = past[is_prospect(past)]
    bought, one = (before["outcome_purchase_days"] > 0).to_numpy(), np.zeros(len(before), dtype=np.int64)
    predicted = {
        OURS: bundle.p_conversion(frame),
        "rate": group_rates(one, bought, np.zeros(len(frame), dtype=np.int64)),
    }
    converted = np.where(frame["outcome_purchase_days"] > 0, 1.0, 0.0)
    return Compared(frame[list(KEYS)], converted, predicted)
