"""Judge a challenger: out-of-time predictions kept without customer ids, and the checks that a champion has to pass.

Both models are judged on predictions for later snapshots than their members were trained on. A customer of several
snapshots is resampled as one, so that intervals are not narrower than the number of customers allows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tiermodel.errors import GateError
from tiermodel.models.metrics import ece, ece_null_band, gini, log_loss

__all__ = ["Check", "judge"]

Floats = NDArray[np.float64]
Metric = Callable[[Floats, Floats], float]
_ECE_SLACK = 0.01
_SEED = 0
_COMPARED: Mapping[str, tuple[str, Metric]] = {"churn": ("log loss", log_loss), "value": ("Gini", gini)}
_DRAWS_AT_MOST, _DRAWS_AT_LEAST, _DRAWN_ROWS = 1_000, 100, 5_000_000


@dataclass(frozen=True)
class Check:
    """Hold one check of the gate, in words and figures."""

    passed: bool
    words: str


def judge(challenger: pd.DataFrame, champion: pd.DataFrame | None) -> list[Check]:
    """Check a challenger's evaluation by itself, and against the champion's where there is one.

    By itself: churn log loss better beyond chance than each date's own churn rate, calibration error within chance plus
    0.01. Against a champion: churn log loss better beyond chance, value Gini not worse beyond chance; on the same
    customers and dates where there are such, else on each model's own. Intervals are 95 %. Raises `GateError` where
    there is nothing to judge, or where the two models answer different questions.
    """
    churn = challenger[challenger["target"] == "churn"]
    if churn.empty:
        raise GateError(
            "the challenger has no out-of-time predictions: no snapshot lies a whole outcome window after the first; "
            "train on a longer history or with more panel.snapshots"
        )
    checks = [_beats_rate(churn), _calibrated(churn)]
    if champion is not None:
        checks += [_against(challenger, champion, target) for target in _COMPARED]
    return checks


def _beats_rate(churn: pd.DataFrame) -> Check:
    constant = churn.assign(predicted=churn.groupby("as_of")["actual"].transform("mean"))
    difference, low, high = _difference(log_loss, churn, constant, paired=True)
    figures = (
        f"churn log loss {_measure(log_loss, churn):.4f}, predicting the churn rate {_measure(log_loss, constant):.4f}"
    )
    verdict = "better beyond chance" if high < 0 else "not better beyond chance"
    return Check(high < 0, f"{figures}: difference {_shown(difference, low, high)}, {verdict}")


def _calibrated(churn: pd.DataFrame) -> Check:
    found, limit = _measure(ece, churn), ece_null_band(churn["predicted"].to_numpy()) + _ECE_SLACK
    words = f"churn calibration error {found:.4f}, allowed {limit:.4f} (chance alone, plus {_ECE_SLACK})"
    return Check(found <= limit, words)


def _against(challenger: pd.DataFrame, champion: pd.DataFrame, target: str) -> Check:
    """Compare on one target: log loss must fall beyond chance, Gini must not fall beyond chance."""
    name, metric = _COMPARED[target]
    ours, theirs = (frame[frame["target"] == target] for frame in (challenger, champion))
    if ours.empty or theirs.empty:
        whose = "the challenger" if ours.empty else "the champion"
        return Check(passed=False, words=f"{target} {name}: {whose} has no out-of-time predictions")
    asked, before = ours["question"].iloc[0], theirs["question"].iloc[0]
    if asked != before:
        raise GateError(
            f"the challenger answers {asked!r}, the champion {before!r}: they cannot be compared; "
            "give the project another name, so that the new question gets its own champion"
        )
    one, other, where = _matched(ours, theirs)
    difference, low, high = _difference(metric, one, other, paired=one is not ours)
    if target == "churn":
        passed, verdict = high < 0, "better beyond chance" if high < 0 else "not better beyond chance"
    else:
        passed, verdict = not high < 0, "worse beyond chance" if high < 0 else "not worse beyond chance"
    figures = f"{target} {name} {_measure(metric, one):.4f}, champion {_measure(metric, other):.4f}, {where}"
    return Check(passed, f"{figures}: difference {_shown(difference, low, high)}, {verdict}")


def _matched(ours: pd.DataFrame, theirs: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, str]:
    """Give both sides where the same customers were judged on a date; the challenger's outcomes stand for both."""
    place = ["as_of", "customers", "place"]
    ranked = [frame.assign(place=frame.groupby("as_of").cumcount()) for frame in (ours, theirs)]
    both = ranked[0].merge(ranked[1][[*place, "predicted"]], on=place, suffixes=("", "_before"))
    if both.empty:
        spans = [f"{frame['as_of'].min()} to {frame['as_of'].max()}" for frame in (ours, theirs)]
        words = f"unpaired because no date has the same customers (challenger {spans[0]}, champion {spans[1]})"
        return ours, theirs, words
    dates = sorted(both["as_of"].unique())
    words = f"paired on {len(both)} predictions for {both['key'].nunique()} customers at {', '.join(dates)}"
    return both, both.assign(predicted=both["predicted_before"]), words


def _measure(metric: Metric, frame: pd.DataFrame) -> float:
    return metric(frame["actual"].to_numpy(), frame["predicted"].to_numpy())


def _difference(metric: Metric, one: pd.DataFrame, other: pd.DataFrame, *, paired: bool) -> tuple[float, float, float]:
    """Give metric(one) - metric(other), low, high (95 %), resampling customers; paired frames share their rows."""
    rng = np.random.default_rng(_SEED)
    draws = int(np.clip(_DRAWN_ROWS / len(one), _DRAWS_AT_LEAST, _DRAWS_AT_MOST))
    y, p, z, q = (frame[c].to_numpy() for frame in (one, other) for c in ("actual", "predicted"))
    ours, theirs = _customers(one["key"].to_numpy()), _customers(other["key"].to_numpy())
    differences = []
    for _ in range(draws):
        rows = ours(rng)
        rows_before = rows if paired else theirs(rng)
        differences.append(metric(y[rows], p[rows]) - metric(z[rows_before], q[rows_before]))
    defined = [d for d in differences if np.isfinite(d)]
    low, high = np.quantile(defined, [0.025, 0.975]) if defined else (np.nan, np.nan)
    return metric(y, p) - metric(z, q), float(low), float(high)


def _customers(key: NDArray[np.int64]) -> Callable[[np.random.Generator], NDArray[np.int64]]:
    """Make a function that draws as many customers as there are, with replacement, and gives all rows of each."""
    order = np.argsort(key, kind="stable")
    _, first, count = np.unique(key[order], return_index=True, return_counts=True)

    def draw(rng: np.random.Generator) -> NDArray[np.int64]:
        chosen = rng.integers(0, len(first), len(first))
        lengths = count[chosen]
        skipped = np.cumsum(lengths) - lengths
        rows: NDArray[np.int64] = order[np.repeat(first[chosen] - skipped, lengths) + np.arange(lengths.sum())]
        return rows

    return draw


def _shown(difference: float, low: float, high: float) -> str:
    return f"{difference:+.4f} [{low:+.4f}, {high:+.4f}]"
