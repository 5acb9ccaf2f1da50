"""The dates of a project: dates given as text, and those of training snapshots, of fitting and of backtests."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime, time, timedelta

from tiermodel.config.project import Project
from tiermodel.errors import DataError, ProjectError
from tiermodel.features.outcome import label_delay_days, upgrade_delay_days
from tiermodel.tables.history import History

__all__ = [
    "backtest_dates", "one_date", "panel_dates", "parse_dates", "snapshot_dates", "stale_words", "training_dates",
]  # fmt: skip

_SNAPSHOTS, _MOST_SNAPSHOTS, _LATER = 12, 24, 6  # where `panel.snapshots` is not set; each one costs rows to learn from


def parse_dates(text: str, history: History) -> tuple[date, ...]:
    """Return dates from a text that separates them by commas; `latest` is the day after the last row, never today."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    try:
        found = {history.last_day + timedelta(1) if p == "latest" else date.fromisoformat(p) for p in parts}
    except ValueError as error:
        raise ProjectError(
            f"--as-of {text!r}: {error}; write dates as 2017-11-30, separated by commas, or `latest`"
        ) from None
    if not found:
        raise ProjectError("--as-of is empty; write a date such as 2017-11-30, or `latest`")
    return tuple(sorted(found))


def one_date(as_of: date | str, history: History) -> date:
    """Return a date given as such, as text, or as `latest`."""
    if isinstance(as_of, datetime):
        if as_of.time() != time():
            raise ProjectError(f"as_of {as_of} is not the start of a day; give a date")
        return as_of.date()
    if isinstance(as_of, date):
        return as_of
    dates = parse_dates(as_of, history)
    if len(dates) != 1:
        raise ProjectError(f"--as-of {as_of!r}: one date is needed here, not {len(dates)}")
    return dates[0]


def stale_words(project: Project, history: History, day: date, every_days: int) -> str:
    """Return a warning if the last row is over `every_days` before the date; DataError beyond `data.max_stale_days`."""
    silence = (day - history.last_day).days - 1
    limit = project.data.max_stale_days
    words = f"TM2070 the last row is {silence} days older than {day}"
    if limit is not None and silence > limit:
        raise DataError(f"{words}, and data.max_stale_days is {limit}: bring the data up to date, or choose a date")
    return f"{words}: features call silent who may only be missing" if silence > every_days else ""


def snapshot_dates(project: Project, last: date, first_row: date) -> tuple[date, ...]:
    """Return up to `panel.snapshots` dates, `panel.every_days` apart, up to `last`, each with some history before it.

    Where their number is not set they are twelve, or more, twenty-four at most, so that the outcome of the earliest is
    over before the last six, which models that learned from the first can then predict.
    """
    every = timedelta(project.panel.every_days)
    overlapping = -(-label_delay_days(project) // project.panel.every_days)
    count = project.panel.snapshots or min(max(_SNAPSHOTS, overlapping + _LATER), _MOST_SNAPSHOTS)
    dates = [last - every * step for step in range(count)]
    return tuple(sorted(d for d in dates if d - first_row >= min(every, timedelta(project.outcome.horizon_days))))


def training_dates(project: Project, as_of: date, first_day: date) -> tuple[date, ...]:
    """Return the snapshot dates whose outcome is fully observed before `as_of`; `DataError` where there is none."""
    delay = timedelta(label_delay_days(project))
    dates = snapshot_dates(project, as_of - delay, first_day)
    if not dates:
        raise DataError(
            f"training as of {as_of} needs a snapshot at least {delay.days} days earlier with some history before it, "
            f"but the data starts on {first_day}: choose a later date, or a shorter outcome.horizon_days"
        )
    return dates


def panel_dates(project: Project, as_of: date, trained_on: Iterable[date]) -> set[date]:
    """Return every date that fitting needs: training dates, those of their future tiers and upgrades, and `as_of`."""
    steps = timedelta(0), timedelta(label_delay_days(project)), timedelta(upgrade_delay_days(project))
    return {as_of, *(later for day in trained_on for step in steps if (later := day + step) <= as_of)}


def backtest_dates(project: Project, history: History) -> tuple[date, ...]:
    """Return the project's test dates, or the last ones whose outcome is fully observed, `panel.every_days` apart.

    Raises `DataError` where a date's outcome window ends after the data.
    """
    last = history.last_day + timedelta(1 - label_delay_days(project))
    if project.backtest.dates is None:
        every = timedelta(project.panel.every_days)
        earliest = history.first_day + timedelta(
            label_delay_days(project) + min(project.panel.every_days, project.outcome.horizon_days)
        )
        dates = tuple(d for k in reversed(range(project.backtest.folds)) if (d := last - every * k) >= earliest)
        if not dates:
            raise DataError(
                f"a backtest needs {2 * label_delay_days(project)} days and more of history; the data runs from "
                f"{history.first_day} to {history.last_day}: shorten outcome.horizon_days"
            )
        return dates
    late = [str(d) for d in project.backtest.dates if d > last]
    if late:
        raise DataError(
            f"backtest.dates: the outcome after {', '.join(late)} is not fully observed; the last date is {last}"
        )
    return project.backtest.dates
