"""Drift: which features and scores differ from what the log led one to expect, beyond what it does by itself.

Every series is forecast 56 days ahead in four ways: it stays, it goes on as it went, it changes as it did
a year before, or half as much. The way that was best on past dates of the same log counts, and its errors there are the
null distribution: customers who come back, weekdays, seasons and growth are in it, which no resampling of one date
shows. A reference that is two gradings old holds nothing of a fault that began after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
from scipy.stats import t as student

from tiermodel.arrays import Flags, Floats, Ints

__all__ = ["AGES", "LAG_DAYS", "YEAR_DAYS", "Drift", "DriftTest", "drift", "grid"]

STEP_DAYS, LAG_DAYS, YEAR_DAYS = 14, 56, 364
"""Days between dates that are looked at, to the reference, and to the same weekday of the year before."""
_YEAR, _MOST_YEARS, _FIRST_YEARLY = YEAR_DAYS // STEP_DAYS, 3, 2
_FIRST_DAYS = 28
AGES = {"days_since_first", "days_known", "days_since_signup", "btyd_age_days"}
"""Features that grow by a day every day, whatever customers do: nothing can be learned from their drift."""
# A series' errors are taken together with the typical ones of all series, which count as eight errors; errors of
# neighbouring dates share most of their 56 days, and those of a year ago count half. The first standard deviation is
# for logs that are too short to tell.
_USUAL_SD, _LEAST_SD, _USUAL_ERRORS, _FEWEST = 0.1, 0.02, 8.0, 6
_CHOSEN = 1.4  # the best of four ways looks better on past dates than it is
_LEAST = 0.18  # a smaller shift is of no use to anyone, however certain
# One run in fifty over all series, by theory; features come in groups of about four that move together. Runs of
# neighbouring nights see the same customers: this is less than one false alarm a year.
_FALSE_ALARMS, _ALIKE = 0.02, 4
_CONFIRMED = 0.7  # of the limit, a fortnight before
_OF_LARGEST, _YOUNG_DAYS = 1.5, 240


@dataclass(frozen=True)
class Drift:
    """How far a series is from its forecast, the `limit` of that, and since when it is beyond it (None: it is not).

    Shifts are in standard deviations (shares: of `2 arcsin sqrt share`). `season` says whether the year before counts;
    `sd` is the standard deviation of the forecast.
    """

    name: str
    value: float
    expected: float
    limit: float
    season: bool
    since: date | None
    sd: float = float("inf")

    @property
    def shift(self) -> float:
        """The value less its forecast."""
        return self.value - self.expected

    @property
    def strength(self) -> float:
        """The shift as a multiple of its limit."""
        return abs(self.shift) / self.limit


@dataclass(frozen=True)
class DriftTest:
    """The drift of every series that can be judged, and how many dates of the log the limits come from."""

    found: tuple[Drift, ...]
    past_dates: int

    @property
    def alarms(self) -> tuple[Drift, ...]:
        """The series beyond their limit, the strongest first."""
        return tuple(sorted((d for d in self.found if d.since is not None), key=lambda d: -d.strength))


def grid(as_of: date, first_day: date) -> tuple[date, ...]:
    """Return the dates to look at, ascending: every 14 days back from a date, three years at most.

    >>> len(grid(date(2024, 1, 1), date(2023, 9, 1)))
    7
    """
    most = min((as_of - first_day).days - _FIRST_DAYS, _MOST_YEARS * YEAR_DAYS)
    return tuple(as_of - timedelta(STEP_DAYS * k) for k in reversed(range(max(most // STEP_DAYS, 0) + 1)))


def drift(
    series: Mapping[str, Floats],
    dates: tuple[date, ...],
    customers: Floats,
    first_day: date,
    spans: Mapping[str, int],
    steps: int = LAG_DAYS // STEP_DAYS,
) -> DriftTest:
    """Return how far every series is, at the last date of a `grid`, from its forecast.

    `spans` has the days that a feature looks back: before a log is as long as that, the feature changes only because
    the log gets longer, and is not judged.
    """
    names = [name for name in series if name.rpartition(":")[2] not in AGES]
    values = np.array([series[name] for name in names]).reshape(len(names), len(dates))
    age = np.array([(day - first_day).days for day in dates])
    need = np.array([spans.get(name.rpartition(":")[2], 0) for name in names])
    values = np.where(age >= need[:, None], values, np.nan)
    errors = _errors(values, steps)
    past = errors[..., :-steps]
    way, sd, dof = _null(past, customers, steps)
    chosen = errors[way, np.arange(len(names))]
    limit = _limit(chosen[:, :-steps], sd, dof, old=age[:-steps] >= _YOUNG_DAYS)
    beyond = _confirmed(chosen, limit)
    found = tuple(
        Drift(
            names[j],
            float(values[j, -1]),
            float(values[j, -1] - chosen[j, -1]),
            float(limit[j]),
            bool(way[j] >= _FIRST_YEARLY),
            _since(beyond[j], dates),
            float(sd[j]),
        )
        for j in np.flatnonzero(~np.isnan(chosen[:, -1]))
    )
    return DriftTest(found, int((~np.isnan(past[0])).any(axis=0).sum()) if past.size else 0)


def _errors(values: Floats, steps: int) -> Floats:
    """Return the errors of the four forecasts, shape (ways, series, dates); NaN where a date before is not known."""
    before, twice = _back(values, steps), _back(values, 2 * steps)
    year = _back(values, _YEAR) - _back(values, _YEAR + steps)
    ways = (before, 2 * before - twice, before + year, before + year / 2)
    return values - np.stack(ways)


def _back(values: Floats, steps: int) -> Floats:
    """Return each series as it was some dates before."""
    found = np.full(values.shape, np.nan)
    if steps < values.shape[1]:
        found[:, steps:] = values[:, :-steps]
    return found


def _null(past: Floats, customers: Floats, steps: int) -> tuple[Ints, Floats, Floats]:
    """Return each series' best way, the standard deviation of its errors on past dates, and degrees of freedom.

    Too few errors of a way leave it out, and of all ways leave the first, with what is usual in logs.
    """
    count = (~np.isnan(past)).sum(axis=2)
    weight = np.where(np.isnan(past), 0.0, 0.5 ** (np.arange(past.shape[2])[::-1] / _YEAR))
    total = weight.sum(axis=2)
    squares = (weight * np.nan_to_num(past) ** 2).sum(axis=2)
    mean = np.where(count >= _FEWEST, squares / np.maximum(total, 1e-9), np.inf)
    way = mean.argmin(axis=0)
    at = way, np.arange(len(way))
    judged = np.isfinite(mean[at])
    typical = np.median(mean[at][judged]) if judged.any() else _USUAL_SD**2
    seen = np.where(judged, total[at] / steps, 0.0)
    weighted = np.where(judged, mean[at], 0.0) * seen
    variance = (_USUAL_ERRORS * max(typical, _LEAST_SD**2) + weighted) / (_USUAL_ERRORS + seen)
    floor = 1 / max(float(customers[-1]), 1.0)
    return way, _CHOSEN * np.sqrt(np.maximum(variance, floor)), _USUAL_ERRORS + seen


def _limit(past: Floats, sd: Floats, dof: Floats, *, old: Flags) -> Floats:
    """Return the shift of each series that no run should see by chance: by theory, and by what the series did before.

    Errors of a young log are left out, where there are `old` ones.
    """
    alone = min(_FALSE_ALARMS * _ALIKE / max(len(past), 1), _FALSE_ALARMS) / 2
    own = np.nan_to_num(np.abs(past[:, old] if old.any() else past)).max(axis=1, initial=0.0)
    return np.maximum(np.maximum(student.isf(alone, dof) * sd, _OF_LARGEST * own), _LEAST)


def _confirmed(errors: Floats, limit: Floats) -> Flags:
    """Return at which dates a series is beyond its limit, and near or beyond it on the same side 14 days before, too.

    What a company does on some days, such as a campaign, is in one window of 30 days and not in the next.
    """
    share = errors / limit[:, None]
    side = np.sign(errors)
    before = _back(share, 1)
    return np.asarray((np.abs(share) >= 1) & (np.abs(before) >= _CONFIRMED) & (np.sign(before) == side))


def _since(beyond: Flags, dates: tuple[date, ...]) -> date | None:
    """Return the first date of the run of dates beyond the limit that ends at the last date."""
    if not beyond[-1]:
        return None
    within = np.flatnonzero(~beyond)
    return dates[int(within[-1]) + 1 if len(within) else 0]
