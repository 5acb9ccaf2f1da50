"""Drift: which features and scores differ from what the log led one to expect, beyond what it does by itself.

Every series is forecast 56 days ahead in four ways: it stays, it goes on as it went, it changes as it did
a year before, or half as much. The way that was best on past dates of the same log counts, and its errors there are the
null distribution: customers who come back, weekdays, seasons and growth are in it, which no resampling of one date
shows. A reference that is two gradings old holds nothing of a fault that began after it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
from scipy.stats import t as student

from tiermodel.arrays import Flags, Floats, Ints

__all__ = ["CALENDAR", "LAG_DAYS", "YEAR_DAYS", "Drift", "DriftTest", "drift", "grid", "lately_days"]

STEP_DAYS, LAG_DAYS, YEAR_DAYS = 14, 56, 364
"""Days between dates that are looked at, to the reference, and to the same weekday of the year before."""
_YEAR, _MOST_YEARS, _FIRST_YEARLY = YEAR_DAYS // STEP_DAYS, 3, 2
_FIRST_DAYS = 28
CALENDAR = {"days_since_first", "days_known", "days_since_signup", "btyd_age_days", "same_quarter_share"}
"""Features that change with the calendar, whatever customers do: nothing can be learned from their drift."""
# A series' errors are taken together with the typical ones of all series, which count as eight errors; errors of
# neighbouring dates share most of their 56 days, and those of a year ago count half. A series with fewer errors of its
# own is not judged.
_LEAST_SD, _USUAL_ERRORS, _FEWEST = 0.02, 8.0, 6
_LEAST = 0.18  # a smaller shift is of no use to anyone, however certain
# One run in fifty over all series: neighbouring nights see the same customers, so a year of nights is some ten runs.
# Features come in groups of about four that move together.
_FALSE_ALARMS, _ALIKE = 0.02, 4
_CONFIRMED = 0.7  # of the limit, a fortnight before


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


def lately_days(windows_days: Sequence[int], age_days: int) -> int:
    """Return within how many days a customer must have bought to be looked at: the longest window that a log allows.

    While a log is younger than a window, more and more of its customers are none of those of the window. A window is
    allowed once a series that is known after its length can be judged. Of a young log it is the shortest window.

    >>> [lately_days((30, 90, 365), age) for age in (100, 300, 600)]
    [30, 90, 365]
    """
    whole = [days for days in windows_days if age_days >= days + 2 * LAG_DAYS + _FEWEST * STEP_DAYS]
    return max(whole, default=min(windows_days))


def drift(
    series: Mapping[str, Floats],
    dates: tuple[date, ...],
    customers: Floats,
    first_day: date,
    spans: Mapping[str, int],
    steps: int = LAG_DAYS // STEP_DAYS,
) -> DriftTest:
    """Return how far every series is, at the last date of a `grid`, from its forecast.

    `spans` has the days that a log must have for a feature to mean what it does later: before, it changes only because
    the log gets longer. A series is judged once there are errors of enough dates after that.
    """
    names = [name for name in series if name.rpartition(":")[2] not in CALENDAR]
    values = np.array([series[name] for name in names]).reshape(len(names), len(dates))
    age = np.array([(day - first_day).days for day in dates])
    need = np.array([spans.get(name.rpartition(":")[2], 0) for name in names])
    values = np.where(age >= need[:, None], values, np.nan)
    errors = _errors(values, steps)
    nulls = _nulls(errors, customers, steps)
    way, sd = nulls.way[-1], nulls.sd[-1]
    chosen = errors[way, np.arange(len(names))]
    limit = np.maximum(_times(errors, nulls, steps) * sd, _LEAST)
    beyond = _confirmed(chosen / limit[:, None]) >= 1
    past = errors[..., :-steps]
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
        for j in np.flatnonzero(~np.isnan(chosen[:, -1] + limit))
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


@dataclass(frozen=True)
class _Nulls:
    """For each date and series: the best way, the standard deviation of its errors, degrees of freedom.

    All are told from the errors of the dates up to 56 days before, shape (dates, series). `yearly` says whether there
    were enough errors of the ways that look a year back; the standard deviation is NaN where there were of none.
    """

    way: Ints
    sd: Floats
    dof: Floats
    yearly: Flags


def _nulls(errors: Floats, customers: Floats, steps: int) -> _Nulls:
    ways, names, days = errors.shape
    count, total, squares = (np.zeros((ways, names)) for _ in range(3))
    found = _Nulls(
        np.zeros((days, names), np.int64),
        np.zeros((days, names)),
        np.zeros((days, names)),
        np.zeros((days, names), np.bool_),
    )
    for at in range(days):
        if at >= steps:
            one = errors[..., at - steps]
            known, fade = ~np.isnan(one), 0.5 ** (1 / _YEAR)
            count += known
            total, squares = total * fade + known, squares * fade + np.nan_to_num(one) ** 2
        mean = np.where(count >= _FEWEST, squares / np.maximum(total, 1e-9), np.inf)
        way = mean.argmin(axis=0)
        best = way, np.arange(names)
        judged = np.isfinite(mean[best])
        own, seen = np.where(judged, mean[best], np.nan), total[best] / steps
        typical = max(float(np.median(own[judged])), _LEAST_SD**2) if judged.any() else np.nan
        variance = (_USUAL_ERRORS * typical + own * seen) / (_USUAL_ERRORS + seen)
        found.way[at], found.dof[at] = way, _USUAL_ERRORS + seen
        found.sd[at] = np.sqrt(np.maximum(variance, 1 / max(float(customers[at]), 1.0)))
        found.yearly[at] = count[_FIRST_YEARLY] >= _FEWEST
    return found


def _times(errors: Floats, nulls: _Nulls, steps: int) -> Floats:
    """Return how many standard deviations of each series no run should see by chance, by theory and by past runs.

    Every past date is judged as it would have been then, and its largest confirmed error noted; largest values follow a
    Gumbel distribution, whose parameters are told by their mean and standard deviation. Series whose year before is
    known are taken together, and so are all others; once it was known for a whole year, with every season in it, the
    dates before are left out: who has seen no season yet is surprised by every one.
    """
    names = errors.shape[1]
    alone = min(_FALSE_ALARMS * _ALIKE / max(names, 1), _FALSE_ALARMS) / 2
    z = np.take_along_axis(errors, nulls.way.T[None], axis=0)[0] / nulls.sd.T
    past, known = _confirmed(z)[:, :-steps], ~np.isnan(z[:, :-steps])
    found = np.full(names, np.inf)
    for yearly in (False, True):
        group = nulls.yearly[-1] == yearly
        if not group.any():
            continue
        theory = float(student.isf(alone, np.median(nulls.dof[-1, group])))
        alike = known[group] & (yearly == nulls.yearly[:-steps, group].T)
        judged = alike if alike.any(axis=0).sum() >= _YEAR else known[group]
        largest = np.where(judged, past[group], 0.0)[:, judged.any(axis=0)].max(axis=0, initial=0.0)
        found[group] = max(theory, _largest_expected(largest)) if len(largest) >= 2 * steps else theory
    return found


def _largest_expected(largest: Floats) -> float:
    """Return the value that one run in so many exceeds, from the largest values of past runs (Gumbel, by moments)."""
    spread = float(largest.std(ddof=1)) * np.sqrt(6) / np.pi
    middle = float(largest.mean()) - np.euler_gamma * spread
    return float(middle - spread * np.log(-np.log1p(-_FALSE_ALARMS)))


def _confirmed(share: Floats) -> Floats:
    """Return how far series are beyond a limit at each date, if they were near it on the same side 14 days before, too.

    What a company does on some days, such as a campaign, is in one window of 30 days and not in the next.
    """
    before = _back(share, 1)
    both = np.minimum(np.abs(share), np.abs(before) / _CONFIRMED)
    return np.nan_to_num(np.where(np.sign(before) == np.sign(share), both, 0.0))


def _since(beyond: Flags, dates: tuple[date, ...]) -> date | None:
    """Return the first date of the run of dates beyond the limit that ends at the last date."""
    if not beyond[-1]:
        return None
    within = np.flatnonzero(~beyond)
    return dates[int(within[-1]) + 1 if len(within) else 0]
