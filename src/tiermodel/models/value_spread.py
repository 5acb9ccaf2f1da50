"""How far values lie around their forecast: the median of each customer, and an interval that holds nine of ten values.

Most values of many logs are zero, so a value has two parts: the chance of nothing, and how much it is otherwise. Given
both parts, quantiles are read from past forecasts: those of value over forecast, by size of the forecast. An interval
is then made wider or narrower until it held 90 % of past values, by group of size and chance of nothing (split and
Mondrian conformal prediction, Vovk et al. 2003; on quantiles, Chernozhukov et al. 2021).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from tiermodel.arrays import Flags, Floats, Ints
from tiermodel.models.calibration.logit import Calibration, calibrated, fit_calibration

__all__ = ["CHANCE_GROUPS", "QUANTILES", "Outlook", "PastForecasts", "Spread", "fit_spread"]

COVERAGE = 0.90
_TAUS = np.array([0.0, 0.01, 0.025, *np.arange(1, 20) / 20, 0.975, 0.99, 0.995, 1.0])
QUANTILES = len(_TAUS)
"""The number of quantiles in a row of `Spread.above` and `Spread.below`."""
_BANDS, _BAND_ROWS = 10, 150
_REACHES = np.r_[np.linspace(0.6, 0.98, 39), 0.985, 0.99, 0.995, 1.0]
_SIZES = (0.25, 0.5, 0.75, 0.9, 0.97)
_CHANCES = (0.1, 0.3, 0.6, 0.85)
CHANCE_GROUPS = len(_CHANCES) + 1
"""The number of groups of chances of nothing: the columns of `Spread.reach`."""
_GROUP_ROWS, _MOST_ROWS = 100, 30_000
_LARGEST = 0.9
_TARGETS = (0.88, 0.885, 0.89, 0.895, 0.90)  # what a group holds at least: the least with which all rows hold 90 %
_MOST_CHANCE = 0.999
_FAR = 20.0  # in logarithms
_NORMAL = 1.645  # standard deviations on either side that hold 90 % of a normal distribution


class Outlook(NamedTuple):
    """The mean and the median of each customer's value, and the bounds of a 90 % interval, in currency units."""

    mean: Floats
    median: Floats
    low: Floats
    high: Floats


class PastForecasts(NamedTuple):
    """Forecasts made before their outcome: the mean, log-odds of nothing (no value above zero), actual values."""

    mean: Floats
    nothing: Floats
    actual: Floats

    def at(self, rows: Flags | Ints) -> PastForecasts:
        """Return some of the rows."""
        return PastForecasts(*(column[rows] for column in self))


@dataclass(frozen=True)
class Spread:
    """Quantiles of value over size by band of size, and the coverage to ask for by group.

    The size is the forecast given that there is a value, plus `floor`; `edges` separate its bands. `above` are the
    quantiles of values above zero, `below` those of the others, a row a band. `chance` calibrates the log-odds of
    nothing. `reach` is the coverage to ask of the quantiles so that intervals hold 90 %, a row for each group of
    forecasts (`sizes`), a column for each group of chances of nothing. `level_sd` is the standard deviation of the
    logarithm of the coming window's level, beyond what past forecasts were off: it widens intervals, on that scale.
    """

    floor: float
    edges: list[float]
    above: list[list[float]]
    below: list[list[float]]
    chance: Calibration
    sizes: list[float]
    reach: list[list[float]]
    level_sd: float = 0.0

    @classmethod
    def none(cls) -> Spread:
        """Return the spread of forecasts that are never wrong."""
        same = [[1.0] * len(_TAUS)]
        return cls(0.0, [], same, same, (0.0, 1.0), [], [[COVERAGE] * (len(_CHANCES) + 1)])

    def outlook(self, mean: Floats, nothing: Floats) -> Outlook:
        """Return median and interval of forecasts, given the log-odds of nothing.

        Where nothing is likelier than the lower tail, the lower bound is zero, or below where values were, and the
        upper one takes what is left of the coverage. An interval always holds the mean and the median.
        """
        parts = self.parts(mean, nothing)
        median = parts.quantile(np.full(len(mean), 0.5))
        low, high = parts.widened(*parts.interval(self._reach(mean, parts.chance)), self.level_sd)
        return Outlook(mean, median, np.fmin(low, np.fmin(mean, median)), np.fmax(high, np.fmax(mean, median)))

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as plain data; `Spread.from_dict` reads it."""
        return dict(vars(self))

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Spread:
        """Return the spread that `to_dict` wrote."""
        return cls(**{**data, "chance": tuple(data["chance"])})

    def parts(self, mean: Floats, nothing: Floats) -> _Parts:
        """Return the two parts of each forecast."""
        chance = np.minimum(calibrated(nothing, self.chance), _MOST_CHANCE)
        size = mean / (1 - chance) + self.floor
        band = np.searchsorted(np.array(self.edges), size, side="right")
        return _Parts(chance, size, np.array(self.above)[band], np.array(self.below)[band])

    def _reach(self, mean: Floats, chance: Floats) -> Floats:
        return np.array(self.reach)[_group(mean, self.sizes), np.searchsorted(_CHANCES, chance, side="right")]


class _Parts(NamedTuple):
    """The chance of nothing, the size, and both parts' quantiles over size, of every row."""

    chance: Floats
    size: Floats
    above: Floats
    below: Floats

    def quantile(self, tau: Floats) -> Floats:
        """Return the quantile `tau` of each row's value."""
        within = np.where(tau < self.chance, tau / self.chance, (tau - self.chance) / (1 - self.chance))
        return self.size * _interpolated(np.where((tau < self.chance)[:, None], self.below, self.above), within)

    def interval(self, reach: Floats) -> tuple[Floats, Floats]:
        """Return bounds between which the share `reach` of values lies; they widen with it."""
        tail = (1 - reach) / 2
        low = self.quantile(tail)
        likely = self.chance > (1 - COVERAGE) / 2
        negative = self.chance * (self.below < 0).mean(axis=1)
        low = np.where(likely, np.minimum(low, 0.0), low)
        most = np.where(likely, np.minimum(negative + reach, 1 - tail), 1 - tail)
        return low, self.quantile(most)

    def widened(self, low: Floats, high: Floats, level_sd: float) -> tuple[Floats, Floats]:
        """Return bounds wider by the error of the level, independent of the values' own: squares add, in logarithms.

        They widen from the middle of the values above zero; bounds on the other side of it stay, and very far ones.
        """
        if not level_sd:
            return low, high
        middle = self.size * _interpolated(self.above, np.full(len(low), 0.5))
        error, tiny = _NORMAL * level_sd, np.finfo(np.float64).tiny
        bottom, center, top = (np.log(np.fmax(one, tiny)) for one in (low, middle, high))
        up, down = top - center, center - bottom
        wider = middle * np.exp(np.hypot(np.clip(up, 0, _FAR), error))
        lower = middle * np.exp(-np.hypot(np.clip(down, 0, _FAR), error))
        return (
            np.where((low > 0) & (down > 0) & (down < _FAR), lower, low),
            np.where((up > 0) & (up < _FAR), wider, high),
        )


def _interpolated(quantiles: Floats, tau: Floats) -> Floats:
    """Return the quantile `tau` of each row of tables of quantiles at `_TAUS`."""
    rows = np.arange(len(tau))
    at = np.clip(np.searchsorted(_TAUS, tau, side="right"), 1, len(_TAUS) - 1)
    part = np.clip((tau - _TAUS[at - 1]) / (_TAUS[at] - _TAUS[at - 1]), 0.0, 1.0)
    return quantiles[rows, at - 1] * (1 - part) + quantiles[rows, at] * part


def _group(mean: Floats, sizes: list[float]) -> Ints:
    return np.searchsorted(np.array(sizes), mean, side="right")


def fit_spread(past: PastForecasts) -> Spread:
    """Return the spread of past forecasts; at least one of them has a value above zero."""
    if len(past.mean) > _MOST_ROWS:
        past = past.at(np.arange(len(past.mean))[:: -(-len(past.mean) // _MOST_ROWS)])
    nothing = past.actual <= 0
    calibration = fit_calibration([(past.nothing, nothing)])
    chance = np.minimum(calibrated(past.nothing, calibration), _MOST_CHANCE)
    given = past.mean / (1 - chance)
    floor = max(float(np.median(given)) / 10, 1e-6)
    size = given + floor
    bands = int(np.clip(np.count_nonzero(~nothing) // _BAND_ROWS, 1, _BANDS))
    edges = np.unique(np.quantile(size[~nothing], np.arange(1, bands) / bands)) if np.any(~nothing) else np.empty(0)
    band, times = np.searchsorted(edges, size, side="right"), past.actual / size
    above, below = (
        [_quantiles(times[part & (band == b)], times[part]) for b in range(len(edges) + 1)]
        for part in (~nothing, nothing)
    )
    sizes = np.unique(np.quantile(past.mean, _SIZES)).tolist()
    plain = [[COVERAGE] * (len(_CHANCES) + 1)] * (len(sizes) + 1)
    spread = Spread(floor, edges.tolist(), above, below, calibration, sizes, plain)
    return Spread(**{**vars(spread), "reach": _reaches(spread, past)})


def _quantiles(times: Floats, otherwise: Floats) -> list[float]:
    """Return the quantiles at `_TAUS` of a band's values over size, of all bands where it has none; zeros without."""
    found = times if len(times) else otherwise
    return np.quantile(found, _TAUS).tolist() if len(found) else [0.0] * len(_TAUS)


def _reaches(spread: Spread, past: PastForecasts) -> list[list[float]]:
    """Return the coverage to ask for in each group, so that the intervals held 90 % of all values, 88 % in each group.

    Where nothing is almost certain, the shortest interval that has the forecast in it holds more than 90 %.
    """
    parts = spread.parts(past.mean, past.nothing)
    needed = np.full(len(past.mean), len(_REACHES) - 1)
    for k in reversed(range(len(_REACHES))):
        low, high = parts.interval(np.full(len(past.mean), _REACHES[k]))
        held = (np.minimum(low, past.mean) <= past.actual) & (past.actual <= np.maximum(high, past.mean))
        needed[held] = k
    size, chance = _group(past.mean, spread.sizes), np.searchsorted(_CHANCES, parts.chance, side="right")
    for target in _TARGETS:
        found = _reaches_at(target, needed, size, chance, len(spread.sizes) + 1)
        if np.mean(needed <= found[size, chance]) >= COVERAGE:
            break
    return _REACHES[found].tolist()


def _reaches_at(target: float, needed: Ints, size: Ints, chance: Ints, sizes: int) -> Ints:
    """Return the place in `_REACHES` at which a share `target` of each group was held, shape (sizes, chances).

    `needed` is the place that each row needs. Groups of few rows have that of all rows of their size, or of all rows.
    Of the largest customers the whole `COVERAGE` was held: they are few, and each one matters.
    """
    largest = np.quantile(size, _LARGEST, method="inverted_cdf")

    def enough(rows: Flags, otherwise: int) -> int:
        n = int(rows.sum())
        least = COVERAGE if n and size[rows].min() >= largest else target
        share = min(1.0, least * (1 + 1 / max(n, 1)))
        return int(np.quantile(needed[rows], share, method="inverted_cdf")) if n >= _GROUP_ROWS else otherwise

    usual = int(np.argmin(np.abs(_REACHES - COVERAGE)))
    everyone = enough(np.ones(len(size), dtype=np.bool_), usual)
    of_size = [enough(size == g, everyone) for g in range(sizes)]
    return np.array([
        [enough((size == g) & (chance == c), of_size[g]) for c in range(len(_CHANCES) + 1)] for g in range(sizes)
    ])  # fmt: skip
