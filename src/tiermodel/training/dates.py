"""The dates of training and of backtests, from a project and its history."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, timedelta

from tiermodel.config.project import Project
from tiermodel.errors import DataError
from tiermodel.features.dates import snapshot_dates
from tiermodel.features.outcome import Labels
from tiermodel.tables.history import History

__all__ = ["backtest_dates", "panel_dates", "training_dates"]


def training_dates(project: Project, as_of: date, first_day: date) -> tuple[date, ...]:
    """Return the snapshot dates whose outcome is fully observed before `as_of`; `DataError` where there is none."""
    labels = Labels.of(project)
    delay = timedelta(labels.delay_days)
    dates = snapshot_dates(project.panel, labels, as_of - delay, first_day)
    if not dates:
        raise DataError(
            f"training as of {as_of} needs a snapshot at least {delay.days} days earlier with some history before it, "
            f"but the data starts on {first_day}: choose a later date, or a shorter outcome.horizon_days"
        )
    return dates


def panel_dates(project: Project, as_of: date, trained_on: Iterable[date]) -> set[date]:
    """Return all snapshot dates that fitting needs: training dates, the dates of their tier labels, and `as_of`."""
    labels = Labels.of(project)
    steps = timedelta(0), timedelta(labels.delay_days), timedelta(labels.upgrade_delay_days)
    return {as_of, *(later for day in trained_on for step in steps if (later := day + step) <= as_of)}


def backtest_dates(project: Project, history: History) -> tuple[date, ...]:
    """Return the project's test dates, or the last ones whose outcome is fully observed, `panel.every_days` apart.

    Raises `DataError` where a date's outcome window ends after the data.
    """
    delay = Labels.of(project).delay_days
    last = history.last_day + timedelta(1 - delay)
    if project.backtest.dates is None:
        every, seen = timedelta(project.panel.every_days), min(project.panel.every_days, project.outcome.horizon_days)
        earliest = history.first_day + timedelta(delay + seen)
        dates = tuple(d for k in reversed(range(project.backtest.folds)) if (d := last - every * k) >= earliest)
        if not dates:
            raise DataError(
                f"a backtest needs {2 * delay + seen} days and more of history; the data runs from "
                f"{history.first_day} to {history.last_day}: shorten outcome.horizon_days"
            )
        return dates
    late = [str(d) for d in project.backtest.dates if d > last]
    if late:
        raise DataError(
            f"backtest.dates: the outcome after {', '.join(late)} is not fully observed; the last date is {last}"
        )
    return project.backtest.dates
