"""What customers looked like at many dates: the distribution of every feature and score, from one walk over the log.

A snapshot of a date never changes by later rows, so the distributions of past dates need not be kept anywhere: they are
made again from the log, for a sample of the customers that is large enough for any drift that matters.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit, ndtri

from tiermodel.arrays import Flags, Floats
from tiermodel.bundle.bundle import Bundle
from tiermodel.config.project import Features, Project
from tiermodel.engines.duckdb import complete_until
from tiermodel.features.panel import Snapshots, snapshot_batches
from tiermodel.models.calibration.logit import log_odds
from tiermodel.tables.history import History

__all__ = [
    "ACTIVE",
    "MISSING",
    "OUTCOMES",
    "RETURNING",
    "SCORES",
    "SHIFTS",
    "TIER",
    "Profiles",
    "Scale",
    "profiles",
    "sampled",
    "windows_of",
]

SAMPLE = 6_000
"""How many customers are looked at, where a log has more: a shift of 0.3 standard deviations is then 16 times what
chance does."""
MISSING, TIER, RETURNING, ACTIVE = "missing:", "tier:", "returning", "active_share"
"""The names of series that are no feature: the share of missing values of a feature (prefix), the share of a tier
(prefix), of earlier buyers who bought in the last 28 days, and of customers who bought within the longest window."""
_RISK, _VALUE = SCORES = ("churn_risk", "expected_value")
SHIFTS = np.linspace(-2.0, 2.0, 17)
"""Differences in log-odds at which the expected log loss is noted."""
OUTCOMES = ("at_risk_known", "churned", "risk_known", "variance_known", "loss", "expected_known", "actual", "error_bin")
_BINS, _FOUR_WEEKS = 20, 28
_SUMMED = ("at_risk", "risk", "variance", "expected")
_ROWS = 50_000
_SCALED = np.arange(1, _BINS) / _BINS


@dataclass(frozen=True)
class Scale:
    """The bins of every feature and score, frozen at one date: `edges` between them, and a normal score for each bin.

    The normal score of a bin is the mean quantile of its ranks (van der Waerden), in standard deviations of that date.
    """

    edges: dict[str, Floats]
    scores: dict[str, Floats]

    @classmethod
    def of(cls, columns: dict[str, Floats]) -> Scale:
        """Return the scale on which each column of one date has mean 0 and standard deviation 1."""
        edges, scores = {}, {}
        for name, column in columns.items():
            known = column[~np.isnan(column)]
            cuts = np.unique(np.quantile(known, _SCALED, method="inverted_cdf")) if len(known) else np.empty(0)
            counts = np.bincount(np.searchsorted(cuts, known), minlength=len(cuts) + 1)
            edges[name], scores[name] = cuts, _normal_scores(counts)
        return cls(edges, scores)


def _normal_scores(counts: NDArray[Any]) -> Floats:
    """Return the normal score of each bin, with mean 0 and standard deviation 1 over the customers counted."""
    total = max(int(counts.sum()), 1)
    middle = (np.cumsum(counts) - counts / 2) / total
    raw = ndtri(np.clip(middle, 0.5 / total, 1 - 0.5 / total))
    weights = counts / total
    centred = raw - weights @ raw
    sd = float(np.sqrt(weights @ centred**2))
    return np.asarray(centred / sd if sd > 0 else np.zeros(len(raw)), dtype=np.float64)


@dataclass(frozen=True)
class Profiles:
    """Series by name, one number for each date (NaN: nobody to look at), and the number of customers of each date.

    A feature or score is its mean on the frozen scale, in standard deviations of the date of the scale. Shares are
    `2 * arcsin(sqrt(share))`, whose sampling variance is 1 / n whatever the share.

    `sums` are of the model's scores and what came of them, by date: over the rows at risk (`at_risk`) `risk`, its
    variance p (1 - p), and `loss_at`, the log loss expected where the true log-odds differ by each of `SHIFTS`; over
    all the `expected` value, and by bin of it (`expected_bin`, `rows_bin`). Those in `OUTCOMES` are NaN until the
    outcome window is over: `churned`, `loss`, and of the `actual` value also the absolute error by bin.
    """

    dates: tuple[date, ...]
    customers: NDArray[Any]
    series: dict[str, Floats]
    sums: dict[str, Floats]

    def at(self, days: Sequence[date], known_until: date, delay_days: int) -> Profiles:
        """Return the profiles of some of the dates, in the order given, with the outcomes over by a day."""
        place = {day: n for n, day in enumerate(self.dates)}
        rows = [place[day] for day in days]
        sums = {name: found[rows] for name, found in self.sums.items()}
        over = np.array([(known_until - day).days >= delay_days for day in days])
        for name in OUTCOMES:
            sums[name][~over] = np.nan
        return Profiles(tuple(days), self.customers[rows], {name: s[rows] for name, s in self.series.items()}, sums)


def windows_of(bundle: Bundle) -> tuple[int, ...]:
    """Return the windows that a model's features look back, in days."""
    return Features.model_validate(bundle.settings["features"]).windows_days


def sampled(history: History, customers: int, most: int = SAMPLE) -> History:
    """Return the history of about `most` of so many customers, or all of it where there are not many more."""
    number = customers // most
    return history.one_in(number) if number > 1 else history


def profiles(
    project: Project,
    bundle: Bundle,
    history: History,
    dates: Iterable[date],
    scale_day: date,
    as_of: date,
    lately_days: int,
) -> Profiles:
    """Return the profiles of a history at some dates, on the scale of one date, with the outcomes known at `as_of`.

    The project has the features of the bundle (`with_bundle_features`).
    The series are of buyers who bought in the last `lately_days` before a date: those who left years ago would hide
    what the others do. The sums are of all who bought within the longest window. Text attributes are compared
    elsewhere, by their values.
    """
    data_end = complete_until(history, as_of)
    counted = _Counted(bundle, _scale(project, bundle, history, scale_day), tuple(sorted(set(dates))), lately_days)
    walk = Snapshots(project, frozenset(bundle.columns), counted.dates, True, data_end, as_of)
    for batch in snapshot_batches(history, walk):
        for start in range(0, batch.num_rows, _ROWS):
            counted.add(batch.slice(start, _ROWS).to_pandas(date_as_object=False))
    return counted.profiles()


def _scale(project: Project, bundle: Bundle, history: History, day: date) -> Scale:
    batches = snapshot_batches(history, Snapshots(project, frozenset(bundle.columns), (day,)))
    frames = [_active(bundle, batch.to_pandas(date_as_object=False)) for batch in batches]
    frame = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=[*bundle.inputs.names])
    return Scale.of(_columns(bundle, frame)[0])


def _active(bundle: Bundle, frame: pd.DataFrame) -> pd.DataFrame:
    return frame[_is_active(bundle, frame)].reset_index(drop=True)


def _is_active(bundle: Bundle, frame: pd.DataFrame) -> Flags:
    flags: Flags = (frame["days_since_last"] <= max(windows_of(bundle))).to_numpy()
    return flags


def _columns(bundle: Bundle, frame: pd.DataFrame) -> tuple[dict[str, Floats], NDArray[Any]]:
    """Return the features and scores of active buyers, and the tier by the rules of the scheme."""
    found = {name: frame[name].to_numpy(dtype=np.float64) for name in bundle.inputs.names}
    if frame.empty:
        return {**found, **dict.fromkeys(SCORES, np.empty(0))}, np.empty(0, np.int64)
    x = bundle.inputs.matrix(frame)
    risk = np.where(bundle.at_risk(frame), bundle.churn.predict(x), np.nan)
    level, _ = bundle.scheme.assign(frame)
    return {**found, _RISK: risk, _VALUE: bundle.value.predict(x)}, level


class _Counted:
    """The counts by date and bin of every column, added batch by batch."""

    def __init__(self, bundle: Bundle, scale: Scale, dates: tuple[date, ...], lately_days: int) -> None:
        self.bundle, self.scale, self.dates, self._lately = bundle, scale, dates, lately_days
        days, codes = len(dates), bundle.scheme.scheme.codes
        self._days = np.array([np.datetime64(day, "s") for day in dates])
        self._counts = {name: np.zeros((days, len(edges) + 2)) for name, edges in scale.edges.items()}
        self._tiers = np.zeros((days, len(codes)))
        self._known, self._returning = np.zeros(days), np.zeros((days, 2))
        self._sums = {name: np.zeros(days) for name in (*_SUMMED, *OUTCOMES[:-1])}
        width = len(scale.edges[_VALUE]) + 1
        self._sums |= {name: np.zeros((days, width)) for name in ("rows_bin", "expected_bin", "error_bin")}
        self._sums["loss_at"] = np.zeros((days, len(SHIFTS)))

    def add(self, frame: pd.DataFrame) -> None:
        """Add the rows of a batch of snapshots."""
        self._known += np.bincount(self._place(frame), minlength=len(self.dates))
        frame = _active(self.bundle, frame)
        columns, level = _columns(self.bundle, frame)
        self._add_outcomes(frame, self._place(frame), columns)
        lately = (frame["days_since_last"] <= self._lately).to_numpy()
        self._add_series(frame[lately], {name: column[lately] for name, column in columns.items()}, level[lately])

    def _add_series(self, frame: pd.DataFrame, columns: dict[str, Floats], level: NDArray[Any]) -> None:
        at, days = self._place(frame), len(self.dates)
        for name, column in columns.items():
            edges, width = self.scale.edges[name], len(self.scale.edges[name]) + 2
            bins = np.where(np.isnan(column), width - 1, np.searchsorted(edges, column))
            self._counts[name] += np.bincount(at * width + bins, minlength=days * width).reshape(days, width)
        levels = self._tiers.shape[1]
        self._tiers += np.bincount(at * levels + level, minlength=days * levels).reshape(days, levels)
        before = (frame["days_since_first"] > _FOUR_WEEKS).to_numpy()
        again = before & (frame["days_since_last"] <= _FOUR_WEEKS).to_numpy()
        for k, flags in enumerate((before, again)):
            self._returning[:, k] += np.bincount(at[flags], minlength=days)

    def _add_outcomes(self, frame: pd.DataFrame, at: NDArray[Any], columns: dict[str, Floats]) -> None:
        days, risk, expected = len(self.dates), columns[_RISK], columns[_VALUE]

        def add(name: str, values: Floats, rows: Flags) -> None:
            self._sums[name] += np.bincount(at[rows], values[rows], minlength=days)

        there, odds, one = ~np.isnan(risk), log_odds(risk), np.ones(len(risk))
        add("at_risk", one, there)
        add("risk", risk, there)
        add("variance", risk * (1 - risk), there)
        gain, base = np.log1p(-risk) - np.log(risk), -np.log1p(-risk)  # the loss is linear in the true probability
        for k, shift in enumerate(SHIFTS):
            loss = base + expit(odds + shift) * gain
            self._sums["loss_at"][:, k] += np.bincount(at[there], loss[there], minlength=days)
        add("expected", expected, np.ones(len(risk), np.bool_))
        edges = self.scale.edges[_VALUE]
        width = len(edges) + 1
        cell = at * width + np.searchsorted(edges, expected)
        churned, actual = (frame[name].to_numpy(dtype=np.float64) for name in ("outcome_churned", "outcome_value"))
        known = there & ~np.isnan(churned)
        add("at_risk_known", one, known)
        add("risk_known", risk, known)
        add("variance_known", risk * (1 - risk), known)
        add("churned", churned, known)
        add("loss", np.where(churned > 0, -np.log(risk), base), known)
        worth = ~np.isnan(actual)
        add("expected_known", expected, worth)
        add("actual", actual, worth)
        error = np.where(worth, np.abs(actual - expected), 0.0)
        for name, values in (("rows_bin", one), ("expected_bin", expected), ("error_bin", error)):
            self._sums[name] += np.bincount(cell, values, minlength=days * width).reshape(days, width)

    def _place(self, frame: pd.DataFrame) -> NDArray[Any]:
        return np.searchsorted(self._days, frame["as_of"].to_numpy().astype("datetime64[s]"))

    def profiles(self) -> Profiles:
        """Return the profiles of all that was added."""
        active = self._tiers.sum(axis=1)
        series: dict[str, Floats] = {}
        for name, counts in self._counts.items():
            known = counts[:, :-1].sum(axis=1)
            series[name] = _ratio(counts[:, :-1] @ self.scale.scores[name], known)
            series[MISSING + name] = _arcsine(counts[:, -1], active)
        for k, code in enumerate(self.bundle.scheme.scheme.codes):
            series[TIER + code] = _arcsine(self._tiers[:, k], active)
        series[RETURNING] = _arcsine(self._returning[:, 1], self._returning[:, 0])
        series[ACTIVE] = _arcsine(active, self._known)
        return Profiles(self.dates, active, series, self._sums)


def _ratio(part: Floats, whole: Floats) -> Floats:
    return np.asarray(np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0))


def _arcsine(part: Floats, whole: Floats) -> Floats:
    return np.asarray(2 * np.arcsin(np.sqrt(_ratio(part, whole))))
