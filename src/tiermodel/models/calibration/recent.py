"""What the snapshots tell of the time since the last complete label: windows shorter than the outcome's, over sooner.

Short ones tell the level. Those of the latest snapshots, whose outcome is not over yet, are learned from as far as they
have come: a customer's silence of two months counts for what it says of three. Nothing but the snapshots is read, so
that no window can reach beyond the date that is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tiermodel.arrays import Floats
from tiermodel.features.frame import has_bought
from tiermodel.features.outcome import Labels, LabelWindow, at_risk
from tiermodel.models.btyd.forecast import BtydForecaster, Horizons
from tiermodel.models.calibration.level import ObservedWindow
from tiermodel.models.calibration.logit import log_odds
from tiermodel.models.design_matrix import fit_design_matrix
from tiermodel.models.learners.weights import FitWeights

__all__ = [
    "ForecastContext",
    "PartialWindow",
    "TrainingRows",
    "forecast_context",
    "partial_churn_windows",
    "partial_value_windows",
    "recent_residuals",
]

Target = TypeVar("Target", np.float64, np.bool_)
_TOTALS = ["purchase_days_total", "net_amount_total"]
_LEAST_SHARE = 0.5  # of a window; what is shorter says too little of the whole


class PartialWindow(NamedTuple):
    """The windows of one snapshot as far as they are over, `share` of them.

    `x` are the inputs of its rows, as for the whole window, `observed` is the label so far, and `offset` what MBG/NBD
    expects of the part beyond what it expects of the whole: a difference of log-odds, or of logarithms.
    """

    x: Floats
    observed: Floats
    offset: Floats
    share: float


class ForecastContext(NamedTuple):
    """The date to forecast for, its rows' inputs, and the residuals in the short windows before it.

    `partial_windows` returns the windows that were not over by a day, as they were then.
    """

    day: pd.Timestamp
    x: Floats
    residuals: Sequence[ObservedWindow] = ()
    partial_windows: Callable[[pd.Timestamp], Sequence[PartialWindow]] = lambda _: ()


class TrainingRows(NamedTuple):
    """Rows to learn from: whole windows, and below them partial ones, which count as much as is over of them."""

    x: Floats
    y: Floats
    weights: FitWeights

    @classmethod
    def with_partial(cls, x: Floats, y: NDArray[Target], windows: Sequence[PartialWindow]) -> TrainingRows:
        """Put partial windows below whole ones."""
        weight = np.concatenate([np.ones(len(y)), *(np.full(len(w.observed), w.share) for w in windows)])
        offset = np.concatenate([np.zeros(len(y)), *(window.offset for window in windows)])
        observed = np.concatenate([y.astype(np.float64), *(window.observed for window in windows)])
        stacked = np.vstack([x, *(window.x for window in windows)]) if windows else x
        return cls(stacked, observed, FitWeights(weight, offset))


def forecast_context(
    labels: Labels, every_days: int, panel: pd.DataFrame, names: tuple[str, ...], now: pd.Timestamp,
    exposed: Floats, buyers: Floats,
) -> tuple[ForecastContext, ForecastContext]:  # fmt: skip
    """Return what the fits of churn risk and of value may know of the time before `now`, from a panel up to it.

    Snapshots are `every_days` apart. `exposed` and `buyers` are the inputs, features by name first, of the rows that
    each forecasts at `now`.
    """
    churn, value = recent_residuals(labels, every_days, panel, now)
    return (
        ForecastContext(now, exposed, churn, partial(partial_churn_windows, labels, panel, names)),
        ForecastContext(now, buyers, value, partial(partial_value_windows, labels, panel, names)),
    )


def recent_residuals(
    labels: Labels, every_days: int, panel: pd.DataFrame, now: pd.Timestamp
) -> tuple[list[ObservedWindow], list[ObservedWindow]]:
    """Measure the residuals of MBG/NBD with Gamma-Gamma between snapshots `every_days` apart, counted back from `now`.

    Return those of churn risk and of the total amount; none where the outcome itself is over as soon.
    """
    churn = labels.churn
    of_churn = churn.contract_renewal_days is None and every_days < churn.window.last
    of_value = every_days < labels.value.window.last
    risk, total = [], []
    window, horizons = LabelWindow(0, every_days, every_days), Horizons(every_days, every_days)
    for day, here, grown in _steps(panel, now, every_days) if of_churn or of_value else ():
        since = here["days_since_first"].to_numpy(dtype=np.float64)
        p_zero, _, spend = BtydForecaster.fit(here).predict(here, horizons).T
        exposed = at_risk(churn, here)
        if of_churn and exposed.any():
            silent = (grown["purchase_days_total"] == 0).to_numpy()
            risk.append(ObservedWindow.of_rate(window, day, since[exposed], log_odds(p_zero[exposed]), silent[exposed]))
        if of_value:
            amount = grown["net_amount_total"].to_numpy(dtype=np.float64)
            total.append(ObservedWindow.of_total(window, day, since, np.maximum(spend, 0.0), amount))
    return risk, total


def partial_churn_windows(
    labels: Labels, panel: pd.DataFrame, names: tuple[str, ...], now: pd.Timestamp
) -> list[PartialWindow]:
    """Return the churn windows under way at `now`, half of them over at least; none after a gap or of contracts."""
    churn = labels.churn
    if churn.window.first or churn.contract_renewal_days is not None:
        return []
    windows = []
    for share, here, grown, x, part in _under_way(panel, names, now, Horizons.of(labels), churn.window.last):
        exposed = at_risk(churn, here)
        silent = (grown["purchase_days_total"] == 0).to_numpy().astype(np.float64)
        offset = log_odds(part[:, 0]) - log_odds(x[:, len(names)])
        windows.append(PartialWindow(x[exposed], silent[exposed], offset[exposed], share))
    return windows


def partial_value_windows(
    labels: Labels, panel: pd.DataFrame, names: tuple[str, ...], now: pd.Timestamp
) -> list[PartialWindow]:
    """Return the spend windows under way at `now`, half of them over at least; none after a gap or of margins."""
    if labels.value.window.first or labels.value.is_margin:
        return []
    windows = []
    horizons = Horizons.of(labels)
    for share, _, grown, x, part in _under_way(panel, names, now, horizons, horizons.purchases):
        spent = np.maximum(grown["net_amount_total"].to_numpy(dtype=np.float64), 0.0)
        whole = x[:, len(names) + 1]  # purchase days
        ratio = np.divide(part[:, 1], whole, out=np.full(len(x), share), where=whole > 0)
        windows.append(PartialWindow(x, spent, np.log(np.clip(ratio, share, 1.0)), share))
    return windows


def _under_way(
    panel: pd.DataFrame, names: tuple[str, ...], now: pd.Timestamp, horizons: Horizons, whole: int
) -> Iterator[tuple[float, pd.DataFrame, pd.DataFrame, Floats, Floats]]:
    """Go through the snapshots whose window of `whole` days is not over but half of it is.

    Yield the share that is over, the buyers, what their totals grew by, their inputs, and what MBG/NBD expects of the
    part that is over.
    """
    then = panel[panel["as_of"] == now]
    for day in sorted(panel["as_of"].unique()):
        days = (now - day).days
        if not _LEAST_SHARE * whole <= days < whole:
            continue
        here = panel[(panel["as_of"] == day) & has_bought(panel)]
        here = here[here["customer_id"].isin(then["customer_id"])].reset_index(drop=True)
        if len(here):
            design = fit_design_matrix(here, names, horizons)
            part = design.forecaster.predict(here, Horizons(days, days))
            yield days / whole, here, _grown(here, then), design.matrix(here), part


def _grown(here: pd.DataFrame, then: pd.DataFrame) -> pd.DataFrame:
    """Return what the totals of customers grew by until a later snapshot, rows in their order."""
    later = then.set_index("customer_id").loc[here["customer_id"], _TOTALS].reset_index(drop=True)
    return later - here[_TOTALS].reset_index(drop=True)


def _steps(
    panel: pd.DataFrame, now: pd.Timestamp, every: int
) -> Iterator[tuple[pd.Timestamp, pd.DataFrame, pd.DataFrame]]:
    """Go back from snapshot to snapshot: yield the day, its buyers, and what their totals grew by until the next."""
    step = pd.Timedelta(days=every)
    days = set(panel["as_of"].unique())
    then = panel[panel["as_of"] == now]
    while (now := now - step) in days:
        here = panel[panel["as_of"] == now]
        buyers = here[has_bought(here) & here["customer_id"].isin(then["customer_id"])]
        if buyers.empty:
            return
        yield now, buyers, _grown(buyers, then)
        then = here
