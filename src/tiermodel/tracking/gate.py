"""The gate between challenger and champion: checks on their out-of-time predictions, which carry no customer ids.

Out-of-time predictions are of later snapshots than the members of a model were trained on. Intervals come from a
cluster bootstrap that resamples customers with all their snapshots, since snapshots of one customer are not
independent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from tiermodel.arrays import Floats
from tiermodel.errors import GateError
from tiermodel.evaluation.baselines import BASELINES
from tiermodel.evaluation.bootstrap import cluster_draws, draw_count, interval
from tiermodel.evaluation.metrics import ece, ece_null_band, gini, log_loss
from tiermodel.segments.fit import segment_count
from tiermodel.segments.selection import FLOOR

__all__ = ["PREVIOUS", "Check", "Promotion", "findings", "judge", "judge_segments"]


PREVIOUS = "previous"
"""The alias of the champion before the present one."""
Metric = Callable[..., float]
_ECE_SLACK = 0.01
_SEED = 0
_COMPARED: Mapping[str, tuple[str, Metric]] = {"churn": ("log loss", log_loss), "value": ("Gini", gini)}
_SIDES = ("actual", "predicted")
DRAWS_AT_MOST, _DRAWS_AT_LEAST, DRAWN_ROWS = 1_000, 400, 5_000_000


@dataclass(frozen=True)
class Check:
    """Result of one check of the gate: whether it passed, and its finding in words and figures."""

    passed: bool
    words: str


@dataclass(frozen=True)
class Promotion:
    """Result of a promotion: the new champion, the version before it (None: there was none), the gate's findings."""

    name: str
    version: str
    previous: str | None
    reasons: tuple[str, ...]

    def to_text(self) -> str:
        """Return the result as text, one line for each finding."""
        before = f"after version {self.previous}, kept as {self.name}@{PREVIOUS}" if self.previous else "the first one"
        lines = [f"{self.name}: version {self.version} is the champion, {before}", *(f"- {r}" for r in self.reasons)]
        return "\n".join(lines)


def findings(challenger: str, checks: Sequence[Check], champion: str | None) -> tuple[str, ...]:
    """Return the findings of all checks as text; `GateError` with all of them where one has failed.

    `challenger` and `champion` are what the error calls the versions.
    """
    found = tuple(f"{'passed' if check.passed else 'FAILED'}: {check.words}" for check in checks)
    if all(check.passed for check in checks):
        return found
    kept = "there is no champion still" if champion is None else f"version {champion} stays champion"
    raise GateError("\n".join([f"{challenger} is not promoted, {kept}", *(f"- {finding}" for finding in found)]))


def judge(challenger: pd.DataFrame, champion: pd.DataFrame | None) -> list[Check]:
    """Return the checks of a challenger's evaluation, by itself and against the champion's where there is one.

    A difference is beyond chance where its 95 % interval does not contain zero. By itself: churn log loss is better
    beyond chance than that of predicting each date's own churn rate, and not worse beyond chance than that of the best
    of this rate and `BASELINES`; the calibration error is at most what chance alone explains, plus 0.01. Against a
    champion: churn log loss is better beyond chance, value Gini not worse beyond chance, on the customers and dates
    that both models predicted. Where there are none, each model is measured on its own dates, and churn by its gain in
    log loss over the churn rate of the date, because log loss itself varies with the season.

    Raises `GateError` where the challenger has no out-of-time predictions or lacks those of the baselines, or where the
    two models define the label differently.
    """
    churn = challenger[challenger["target"] == "churn"]
    if churn.empty:
        raise GateError(
            "the challenger has no out-of-time predictions: no snapshot lies a whole outcome window after the first; "
            "train on a longer history or with more panel.snapshots"
        )
    churn = _with_rate(churn)
    checks = [_beats_rate(churn), _holds_against_baselines(churn), _calibrated(churn)]
    if champion is not None:
        checks += [_against(challenger, champion, target) for target in _COMPARED]
    return checks


def judge_segments(state: Mapping[str, Any]) -> Check:
    """Return the check that a refit on resampled customers finds the same segments: only stable ones deserve names."""
    if "stability" not in state:
        return Check(passed=False, words="segments: the bundle does not say how stable they are; train it again")
    found, groups = float(state["stability"]), segment_count(state)
    stable = found >= FLOOR
    words = f"{groups} segments: adjusted Rand index under resampling {found:.2f}, {FLOOR} at least"
    return Check(stable, words if stable else f"{words}; set segments.groups or another segments.method")


def _with_rate(churn: pd.DataFrame) -> pd.DataFrame:
    return churn.assign(rate=churn.groupby("as_of")["actual"].transform("mean"))


def _beats_rate(churn: pd.DataFrame) -> Check:
    constant = churn.assign(predicted=churn["rate"])
    difference, low, high = _difference(log_loss, churn, constant, paired=True)
    figures = (
        f"churn log loss {_measure(log_loss, churn):.4f}, predicting the churn rate {_measure(log_loss, constant):.4f}"
    )
    verdict = "better beyond chance" if high < 0 else "not better beyond chance"
    return Check(high < 0, f"{figures}: difference {_shown(difference, low, high)}, {verdict}")


def _holds_against_baselines(churn: pd.DataFrame) -> Check:
    """Return the check against the churn rate or the baseline, whichever has the least log loss on the same rows."""
    if missing := [name for name in BASELINES if name not in churn or churn[name].isna().any()]:
        raise GateError(
            f"the challenger's out-of-time predictions lack the baselines {', '.join(missing)}: "
            "an older version kept them; train it again with --register"
        )
    losses = {name: _measure(log_loss, churn, ("actual", name)) for name in ("rate", *BASELINES)}
    strongest = min(losses, key=losses.__getitem__)
    baseline = churn.assign(predicted=churn[strongest])
    difference, low, high = _difference(log_loss, churn, baseline, paired=True)
    others = ", ".join(f"{name} {loss:.4f}" for name, loss in losses.items() if name != strongest)
    figures = f"strongest baseline {strongest} {losses[strongest]:.4f} ({others})"
    verdict = "not worse beyond chance" if low <= 0 else "worse beyond chance"
    words = f"churn log loss {_measure(log_loss, churn):.4f}, {figures}"
    return Check(low <= 0, f"{words}: difference {_shown(difference, low, high)}, {verdict}")


def _calibrated(churn: pd.DataFrame) -> Check:
    found, limit = _measure(ece, churn), ece_null_band(churn["predicted"].to_numpy()) + _ECE_SLACK
    words = f"churn calibration error {found:.4f}, allowed {limit:.4f} (chance alone, plus {_ECE_SLACK})"
    return Check(found <= limit, words)


def _against(challenger: pd.DataFrame, champion: pd.DataFrame, target: str) -> Check:
    """Return the check against the champion on one target: churn must be better, value not worse, beyond chance."""
    name, metric = _COMPARED[target]
    ours, theirs = (frame[frame["target"] == target] for frame in (challenger, champion))
    if ours.empty or theirs.empty:
        whose = "the challenger" if ours.empty else "the champion"
        return Check(passed=False, words=f"{target} {name}: {whose} has no out-of-time predictions")
    _refuse_another_label(ours, theirs)
    one, other, where = _matched(ours, theirs)
    paired = one is not ours
    if target == "churn" and not paired:
        return _gains_more(ours, theirs, where)
    difference, low, high = _difference(metric, one, other, paired=paired)
    passed, adverb = (high < 0, "better") if target == "churn" else (not high < 0, "worse")
    verdict = f"{adverb} beyond chance" if high < 0 else f"not {adverb} beyond chance"
    figures = f"{target} {name} {_measure(metric, one):.4f}, champion {_measure(metric, other):.4f}, {where}"
    return Check(passed, f"{figures}: difference {_shown(difference, low, high)}, {verdict}")


def _refuse_another_label(ours: pd.DataFrame, theirs: pd.DataFrame) -> None:
    """Raise `GateError` where the two models define the label differently."""
    question, before = ours["question"].iloc[0], theirs["question"].iloc[0]
    if question != before:
        raise GateError(
            f"the challenger answers {question!r}, the champion {before!r}: they cannot be compared; "
            "give the project another name, so that the new question gets its own champion"
        )


def _gains_more(ours: pd.DataFrame, theirs: pd.DataFrame, where: str) -> Check:
    """Return the check of unpaired churn predictions, by their gain in log loss over the churn rates of their dates."""
    one, other, columns = _with_rate(ours), _with_rate(theirs), (*_SIDES, "rate")
    difference, low, high = _difference(_gain, one, other, columns, paired=False)
    figures = f"{_measure(_gain, one, columns):.4f}, champion {_measure(_gain, other, columns):.4f}, {where}"
    verdict = "better beyond chance" if low > 0 else "not better beyond chance"
    words = f"churn log loss gained over predicting the churn rate of its own dates {figures}"
    return Check(low > 0, f"{words}: difference {_shown(difference, low, high)}, {verdict}")


def _gain(actual: Floats, predicted: Floats, rate: Floats) -> float:
    return log_loss(actual, rate) - log_loss(actual, predicted)


def _matched(ours: pd.DataFrame, theirs: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, str]:
    """Return both frames, limited to the dates on which both predicted the same customers, and a text about the match.

    The matched frames share the labels of the challenger. Without such a date both frames are returned as they are.
    """
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


def _measure(metric: Metric, frame: pd.DataFrame, columns: Sequence[str] = _SIDES) -> float:
    return metric(*(frame[column].to_numpy() for column in columns))


def _difference(
    metric: Metric, one: pd.DataFrame, other: pd.DataFrame, columns: Sequence[str] = _SIDES, *, paired: bool
) -> tuple[float, float, float]:
    """Return (metric(one) - metric(other), low, high), a 95 % cluster bootstrap; paired frames have the same rows."""
    rng = np.random.default_rng(_SEED)
    draws = draw_count(len(one), DRAWN_ROWS, _DRAWS_AT_LEAST, DRAWS_AT_MOST)
    first, second = ([frame[column].to_numpy() for column in columns] for frame in (one, other))
    ours, theirs = cluster_draws(one["key"].to_numpy()), cluster_draws(other["key"].to_numpy())
    differences = []
    for _ in range(draws):
        rows = ours(rng)
        rows_before = rows if paired else theirs(rng)
        differences.append(metric(*(a[rows] for a in first)) - metric(*(a[rows_before] for a in second)))
    return metric(*first) - metric(*second), *interval(differences)


def _shown(difference: float, low: float, high: float) -> str:
    return f"{difference:+.4f} [{low:+.4f}, {high:+.4f}]"
