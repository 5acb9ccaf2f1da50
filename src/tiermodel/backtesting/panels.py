"""The snapshots of a backtest: which dates they need, and what was known of their outcomes at a test date."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta

import pandas as pd

from tiermodel.config.project import Project
from tiermodel.features.frame import KEYS
from tiermodel.features.outcome import OUTCOME_COLUMNS, Labels
from tiermodel.features.panel import build_panel
from tiermodel.tables.history import History
from tiermodel.training.dates import panel_dates

__all__ = ["as_known_at", "needed_dates"]


def as_known_at(
    project: Project, history: History, panel: pd.DataFrame, day: date, trained_on: Sequence[date], drawn_before: date
) -> pd.DataFrame:
    """Return a panel with the outcomes of training dates as they were known at a date, where rows arrive late."""
    if not history.arrivals:
        return panel
    outcomes, dates = list(OUTCOME_COLUMNS), {*trained_on, drawn_before}
    then = build_panel(project, dates, with_outcome=True, known_until=day, drawn_before=drawn_before, history=history)
    before = panel["as_of"] < pd.Timestamp(day)
    past = panel.loc[before, list(KEYS)].merge(then[[*KEYS, *outcomes]], on=list(KEYS), how="left")
    panel = panel.copy()
    panel.loc[before, outcomes] = past[outcomes].to_numpy()
    return panel


def needed_dates(project: Project, history: History, trained_on: Mapping[date, Sequence[date]]) -> set[date]:
    """Return the dates of the panel: training dates, ends of outcome windows, two dates before for the movement."""
    end, every = history.last_day + timedelta(1), timedelta(project.panel.every_days)
    labels = Labels.of(project)
    delay, stayed = timedelta(labels.delay_days), timedelta(labels.upgrade_delay_days)
    needed = set[date]()
    for day, learned in trained_on.items():
        needed |= panel_dates(project, day, learned) | {day + delay, day - every, day - 2 * every}
        needed |= {day + stayed} if day + stayed <= end else set()
    return needed
