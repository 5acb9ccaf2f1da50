"""Dates: those that a user asks for, and those of snapshots."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import date, datetime, time, timedelta

import numpy as np

from tiermodel.config.project import Panel
from tiermodel.errors import DataError, ProjectError
from tiermodel.features.outcome import Labels
from tiermodel.tables.history import History
from tiermodel.words import words

__all__ = ["one_date", "parse_dates", "snapshot_dates", "stale_words"]


_SNAPSHOTS, _MOST_SNAPSHOTS, _LATER = 12, 24, 6  # where `panel.snapshots` is not set; each one costs rows to learn from


def parse_dates(given: Collection[date | str] | date | str, history: History) -> tuple[date, ...]:
    """Return dates given as such or as text, which separates several by commas, in order, each once.

    `latest` is `History.latest`, never today.
    """
    if isinstance(given, str):
        return _parsed(given, history)
    days = [given] if isinstance(given, date | np.datetime64) else given
    if not isinstance(days, Iterable):
        raise TypeError(f"expected a date, or several, got {type(given).__name__} {given!r}; write '2017-11-30'")
    return tuple(sorted({one_date(day, history) for day in days}))


def _parsed(text: str, history: History) -> tuple[date, ...]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    try:
        found = {history.latest if p == "latest" else date.fromisoformat(p) for p in parts}
    except ValueError as error:
        raise ProjectError(
            f"--as-of {text!r}: {error}; write dates as 2017-11-30, separated by commas, or `latest`"
        ) from None
    if not found:
        raise ProjectError("--as-of is empty; write a date such as 2017-11-30, or `latest`")
    return tuple(sorted(found))


def one_date(as_of: date | str, history: History) -> date:
    """Return a date given as such, as text, or as `latest`."""
    if isinstance(as_of, np.datetime64):
        as_of = as_of.astype("datetime64[us]").item()
    if isinstance(as_of, datetime):
        if as_of.time() != time():
            raise ProjectError(f"as_of {as_of} is not the start of a day; give a date")
        return as_of.date()
    if isinstance(as_of, date):
        return as_of
    if not isinstance(as_of, str):
        raise TypeError(f"as_of: expected a date, got {type(as_of).__name__} {as_of!r}; write '2017-11-30' or 'latest'")
    dates = _parsed(as_of, history)
    if len(dates) != 1:
        raise ProjectError(f"--as-of {as_of!r}: one date is needed here, not {len(dates)}")
    return dates[0]


def stale_words(history: History, day: date, every_days: int, max_stale_days: int | None, language: str) -> str:
    """Warn where the transactions end long before the date; DataError beyond `data.max_stale_days`."""
    silence = (day - history.last_day).days - 1
    say = words(language)
    told = say["note_stale"].format(days=silence, day=day)
    if max_stale_days is not None and silence > max_stale_days:
        raise DataError(told + say["note_stale_refused"].format(max_stale_days))
    return told + say["note_stale_warns"] if silence > every_days else ""


def snapshot_dates(panel: Panel, labels: Labels, last: date, first_row: date) -> tuple[date, ...]:
    """List up to `panel.snapshots` dates, `panel.every_days` apart, up to `last`, each with some history before it.

    Where their number is not set they are twelve, or more, twenty-four at most, so that the outcome of the earliest is
    over before the last six, which models that learned from the first can then predict.
    """
    every = timedelta(panel.every_days)
    overlapping = -(-labels.delay_days // panel.every_days)
    count = panel.snapshots or min(max(_SNAPSHOTS, overlapping + _LATER), _MOST_SNAPSHOTS)
    dates = [last - every * step for step in range(count)]
    return tuple(sorted(d for d in dates if d - first_row >= min(every, timedelta(labels.value.window.days))))
