"""Differences between two models on their out-of-time predictions, with bootstrap draws over customers.

Snapshots of one customer are not independent, so a draw takes customers with all their snapshots.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from tiermodel.arrays import Floats
from tiermodel.backtesting.tier_value import METRICS, Graded, resampled_metrics
from tiermodel.evaluation.bootstrap import cluster_draws, draw_count, interval
from tiermodel.evaluation.metrics import gini, log_loss

__all__ = [
    "MARGIN", "Difference", "Matched", "changed_tiers", "compared", "has_tiers", "matched", "measure", "resampled",
    "tier_differences", "with_rate",
]  # fmt: skip


Metric = Callable[..., float]
_SEED = 0
_SIDES = ("actual", "predicted")
DRAWS_AT_MOST, _DRAWS_AT_LEAST, DRAWN_ROWS = 1_000, 400, 5_000_000
MARGIN = 0.03
"""The share of the champion's lead over knowing nothing that a refresh may lose (log loss of churn, Gini of value)."""
_METRICS: Mapping[str, Metric] = {"churn": log_loss, "value": gini}
_TIERS = {"value_captured": METRICS.index("value_capture_of_best"), "kappa": METRICS.index("qwk_value")}


@dataclass(frozen=True)
class Difference:
    """A metric of two models, and their difference with its draws; positive `gain` is in favour of the first.

    `sign` is -1 where less is better. `margin` is the loss that a refresh may show, NaN where none is defined.
    """

    name: str
    ours: float
    theirs: float
    draws: Floats
    sign: int = 1
    margin: float = np.nan

    def gain(self, tail: float = 0.025) -> tuple[float, float]:
        """Return the interval of the gain, with so much probability beyond either end."""
        return interval(self.sign * self.draws, tail, 1 - tail)

    @property
    def better(self) -> bool:
        """Whether the gain is above zero beyond chance (95 %)."""
        return self.gain()[0] > 0

    @property
    def worse(self) -> bool:
        """Whether the gain is below zero beyond chance (95 %)."""
        return self.gain()[1] < 0

    @property
    def within_margin(self) -> bool:
        """Whether the loss is smaller than the margin beyond chance (95 %): the test of non-inferiority."""
        return self.gain()[0] > -self.margin

    @property
    def beyond_margin(self) -> bool:
        """Whether the loss is larger than the margin beyond chance (95 %)."""
        return self.gain()[1] < -self.margin

    def to_text(self, tail: float = 0.025) -> str:
        """Return the difference, first minus second, with its interval."""
        low, high = interval(self.draws, tail, 1 - tail)
        return f"{self.ours - self.theirs:+.4f} [{low:+.4f}, {high:+.4f}]"


class Matched(NamedTuple):
    """Two tables of one target, on the rows that both have; not `paired` where they share none, then all rows."""

    ours: pd.DataFrame
    theirs: pd.DataFrame
    paired: bool


def with_rate(churn: pd.DataFrame) -> pd.DataFrame:
    """Return the predictions with the churn rate of their date beside them."""
    return churn.assign(rate=churn.groupby("as_of")["actual"].transform("mean"))


def measure(metric: Metric, frame: pd.DataFrame, columns: Sequence[str] = _SIDES) -> float:
    """Return a metric of columns of a table."""
    return metric(*(frame[column].to_numpy() for column in columns))


def matched(ours: pd.DataFrame, theirs: pd.DataFrame) -> Matched:
    """Return both tables on the dates on which both predicted the same customers, else as they are."""
    place = ["as_of", "customers", "place"]
    ranked = [frame.assign(place=frame.groupby("as_of").cumcount()) for frame in (ours, theirs)]
    both = ranked[0].merge(ranked[1], on=place, suffixes=("", "_before"))
    if both.empty:
        return Matched(ours, theirs, paired=False)
    renamed = {f"{name}_before": name for name in theirs if f"{name}_before" in both}
    before = both[[*place, *renamed]].rename(columns=renamed)
    return Matched(both, before, paired=True)


def compared(target: str, both: Matched) -> Difference:
    """Return the difference of two models on one target: log loss of churn, Gini of value.

    Churn predictions of other dates or customers are compared by what they gain in log loss over predicting the churn
    rate of the date, because log loss itself varies with the season. The margin is a share of the second model's lead
    over knowing nothing.
    """
    if target == "churn" and not both.paired:
        one, other, columns = with_rate(both.ours), with_rate(both.theirs), (*_SIDES, "rate")
        draws = resampled(_lead, one, other, columns, paired=False)
        ours, theirs = measure(_lead, one, columns), measure(_lead, other, columns)
        return Difference("churn_gain", ours, theirs, draws, 1, MARGIN * max(theirs, 0.0))
    metric = _METRICS[target]
    draws = resampled(metric, both.ours, both.theirs, paired=both.paired)
    ours, theirs = measure(metric, both.ours), measure(metric, both.theirs)
    known = measure(_lead, with_rate(both.theirs), (*_SIDES, "rate")) if target == "churn" else theirs
    return Difference(target, ours, theirs, draws, -1 if target == "churn" else 1, MARGIN * max(known, 0.0))


def _lead(actual: Floats, predicted: Floats, rate: Floats) -> float:
    """Return what predictions gain in log loss over predicting the rate."""
    return log_loss(actual, rate) - log_loss(actual, predicted)


def resampled(
    metric: Metric, one: pd.DataFrame, other: pd.DataFrame, columns: Sequence[str] = _SIDES, *, paired: bool
) -> Floats:
    """Return metric(one) - metric(other) in draws of customers; paired tables have the same rows."""
    rng = np.random.default_rng(_SEED)
    draws = draw_count(len(one), DRAWN_ROWS, _DRAWS_AT_LEAST, DRAWS_AT_MOST)
    first, second = ([frame[column].to_numpy() for column in columns] for frame in (one, other))
    ours, theirs = cluster_draws(one["key"].to_numpy()), cluster_draws(other["key"].to_numpy())
    differences = []
    for _ in range(draws):
        rows = ours(rng)
        rows_before = rows if paired else theirs(rng)
        differences.append(metric(*(a[rows] for a in first)) - metric(*(a[rows_before] for a in second)))
    return np.array(differences)


def has_tiers(value: pd.DataFrame) -> bool:
    """Return whether every row of the value predictions has the tier of its date; those of older versions have none."""
    return "level" in value and len(value) > 0 and bool(value["level"].notna().all())


def tier_differences(both: Matched) -> list[Difference]:
    """Return the differences of two models' tiers, in captured value and in kappa; without those not defined.

    `value_captured` is the value that key tiers brought, as a share of that of equally many best customers; `kappa` the
    weighted kappa with the tiers that this value would give.
    """
    tables = [frame.sort_values("as_of", kind="stable") for frame in both[:2]]
    if both.paired:
        drawn = _tier_draws(tables, _SEED)
    else:
        drawn = [_tier_draws([frame], _SEED + n)[0] for n, frame in enumerate(tables)]
        fewest = min(one.shape[1] for one in drawn)
        drawn = [one[:, :fewest] for one in drawn]
    found = [
        Difference(name, float(drawn[0][k, 0]), float(drawn[1][k, 0]), drawn[0][k, 1:] - drawn[1][k, 1:])
        for name, k in _TIERS.items()
    ]
    return [one for one in found if np.isfinite([one.ours, one.theirs]).all()]


def _tier_draws(tables: Sequence[pd.DataFrame], seed: int) -> list[Floats]:
    """Return the metrics of the tiers of tables of the same rows: of all rows, then of each draw."""
    who, place = np.unique(tables[0]["key"].to_numpy(), return_inverse=True)
    value = tables[0]["actual"].to_numpy(dtype=np.float64)
    return resampled_metrics([_graded(frame) for frame in tables], value, (place, len(who)), seed)


def _graded(frame: pd.DataFrame) -> Graded:
    """Return the tiers of a table sorted by date; the ideal levels are those of each date."""
    level, value = frame["level"].to_numpy(dtype=np.int64), frame["actual"].to_numpy(dtype=np.float64)
    keys = np.unique(level[frame["key_level"].to_numpy() == 1]).tolist()
    rows = frame.groupby("as_of", sort=True).indices.values()
    dates = [Graded.of(level[at], keys, value[at], int(level.max()) + 1) for at in rows]
    return Graded(*(np.concatenate([getattr(one, name) for one in dates]) for name in ("level", "key", "deserved")))


def changed_tiers(both: Matched) -> dict[str, Any] | None:
    """Return, as `tier_changes` does, whose tiers differ on the last date of a pair, by the value that followed.

    None where the tables are not paired, or the schemes have other levels.
    """
    if not both.paired:
        return None
    last = both.ours["as_of"] == both.ours["as_of"].max()
    one, other = both.ours[last], both.theirs[last]
    codes = [dict(zip(frame["tier_code"], frame["level"], strict=True)) for frame in (one, other)]
    if any(codes[1].get(code, level) != level for code, level in codes[0].items()):
        return None
    after, before, value = one["level"].to_numpy(), other["level"].to_numpy(), one["actual"].to_numpy()
    return {
        "customers": len(one),
        "up": int(np.count_nonzero(after > before)),
        "down": int(np.count_nonzero(after < before)),
        "value": float(value.sum()),
        "moved_value": float(value[after != before].sum()),
    }
