"""Evidence since the last complete label: windows between snapshots, and partial outcome windows.

Windows between snapshots are shorter than the outcome window and show its level since. The outcome windows of the
latest snapshots are partly over and enter training as partial observations: two months without a purchase say something
of a window of three. Only snapshots are read, so no window reaches beyond the date of the forecast.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tiermodel.arrays import Floats
from tiermodel.config.targets import NO_DAYS, Calendar
from tiermodel.features.frame import has_bought
from tiermodel.features.outcome import Labels, LabelWindow, at_risk
from tiermodel.models.btyd.forecast import BtydForecaster, Horizons
from tiermodel.models.calibration.level import ObservedWindow
from tiermodel.models.calibration.logit import log_odds
from tiermodel.models.concentration import outweighing
from tiermodel.models.design_matrix import fit_design_matrix
from tiermodel.models.learners.weights import FitWeights

__all__ = [
    "ForecastContext", "PartialWindow", "TrainingRows", "forecast_context", "partial_churn_windows",
    "partial_value_windows", "recent_residuals",
]  # fmt: skip

Target = TypeVar("Target", np.float64, np.bool_)
_TOTALS = ["purchase_days_total", "net_amount_total"]
_LEAST_SHARE = 0.5  # of a window that must be over: a shorter part says too little of the whole


class PartialWindow(NamedTuple):
    """The outcome windows of one snapshot, of which `share` is over.

    `x` is the design matrix of its rows for the whole window, `observed` the label so far. `offset` is MBG/NBD's
    forecast for the part that is over minus that for the whole, in log-odds for churn, in logarithms for value.
    """

    x: Floats
    observed: Floats
    offset: Floats
    share: float


class ForecastContext(NamedTuple):
    """The date of the forecast, the design matrix of its rows, and residuals in the windows between snapshots before.

    `partial_windows` returns the outcome windows that were partly over at a day, as known at that day. `calendar` are
    the known days.
    """

    day: pd.Timestamp
    x: Floats
    residuals: Sequence[ObservedWindow] = ()
    partial_windows: Callable[[pd.Timestamp], Sequence[PartialWindow]] = lambda _: ()
    calendar: Calendar = NO_DAYS


class TrainingRows(NamedTuple):
    """Rows to learn from: whole outcome windows, then partial ones, weighted by the share that is over."""

    x: Floats
    y: Floats
    weights: FitWeights

    @classmethod
    def with_partial(cls, x: Floats, y: NDArray[Target], windows: Sequence[PartialWindow]) -> TrainingRows:
        """Return the rows of whole windows with partial ones below."""
        weight = np.concatenate([np.ones(len(y)), *(np.full(len(w.observed), w.share) for w in windows)])
        offset = np.concatenate([np.zeros(len(y)), *(window.offset for window in windows)])
        observed = np.concatenate([y.astype(np.float64), *(window.observed for window in windows)])
        stacked = np.vstack([x, *(window.x for window in windows)]) if windows else x
        return cls(stacked, observed, FitWeights(weight, offset))


def forecast_context(
    labels: Labels, every_days: int, panel: pd.DataFrame, names: tuple[str, ...], now: pd.Timestamp,
    exposed: Floats, buyers: Floats,
) -> tuple[ForecastContext, ForecastContext]:  # fmt: skip
    """Return the contexts of the churn and the value forecast at `now`, from a panel up to it.

    Snapshots are `every_days` apart. `exposed` and `buyers` are the design matrices of the rows to forecast, those at
    risk of churn and all buyers.
    """
    churn, value = recent_residuals(labels, every_days, panel, now)
    return (
        ForecastContext(now, exposed, churn, partial(partial_churn_windows, labels, panel, names), labels.calendar),
        ForecastContext(now, buyers, value, partial(partial_value_windows, labels, panel, names), labels.calendar),
    )


def recent_residuals(
    labels: Labels, every_days: int, panel: pd.DataFrame, now: pd.Timestamp
) -> tuple[list[ObservedWindow], list[ObservedWindow]]:
    """Return the residuals of MBG/NBD with Gamma-Gamma between snapshots `every_days` apart, counted back from `now`.

    The first list is of churn risk, the second of the total amount; none where the outcome window is as short.
    """
    churn = labels.churn
    of_churn = churn.contract_renewal_days is None and every_days < churn.window.last
    of_value = every_days < labels.value.window.last
    risk, total = [], []
    window, horizons = LabelWindow(0, every_days, every_days), Horizons(every_days, every_days)
    for day, here, growth in _back_from(panel, now, every_days) if of_churn or of_value else ():
        since = here["days_since_first"].to_numpy(dtype=np.float64)
        p_zero, _, spend = BtydForecaster.fit(here).predict(here, horizons).T
        exposed = at_risk(churn, here)
        if of_churn and exposed.any():
            silent = (growth["purchase_days_total"] == 0).to_numpy()
            risk.append(ObservedWindow.of_rate(window, day, since[exposed], log_odds(p_zero[exposed]), silent[exposed]))
        if of_value:
            amount = growth["net_amount_total"].to_numpy(dtype=np.float64)
            usual = ~outweighing(here["net_amount_total"].to_numpy(dtype=np.float64)) & ~outweighing(amount)
            spent = np.maximum(spend, 0.0)[usual]
            total.append(ObservedWindow.of_total(window, day, since[usual], spent, amount[usual]))
    return risk, total


def partial_churn_windows(
    labels: Labels, panel: pd.DataFrame, names: tuple[str, ...], now: pd.Timestamp
) -> list[PartialWindow]:
    """Return the churn windows at least half over at `now`; none where there is a gap or churn is about contracts."""
    churn = labels.churn
    if churn.window.first or churn.contract_renewal_days is not None:
        return []
    windows = []
    for share, here, growth, x, part in _partly_over(panel, names, now, Horizons.of(labels), churn.window.last):
        exposed = at_risk(churn, here)
        silent = (growth["purchase_days_total"] == 0).to_numpy().astype(np.float64)
        offset = log_odds(part[:, 0]) - log_odds(x[:, len(names)])
        windows.append(PartialWindow(x[exposed], silent[exposed], offset[exposed], share))
    return windows


def partial_value_windows(
    labels: Labels, panel: pd.DataFrame, names: tuple[str, ...], now: pd.Timestamp
) -> list[PartialWindow]:
    """Return the value windows at least half over at `now`; none where there is a gap or value is margin."""
    if labels.value.window.first or labels.value.is_margin:
        return []
    windows = []
    horizons = Horizons.of(labels)
    for share, here, growth, matrix, forecast in _partly_over(panel, names, now, horizons, horizons.value):
        spent = np.maximum(growth["net_amount_total"].to_numpy(dtype=np.float64), 0.0)
        usual = ~outweighing(here["net_amount_total"].to_numpy(dtype=np.float64)) & ~outweighing(spent)
        x, part, spent = matrix[usual], forecast[usual], spent[usual]
        whole = x[:, len(names) + 1]  # purchase days
        ratio = np.divide(part[:, 1], whole, out=np.full(len(x), share), where=whole > 0)
        windows.append(PartialWindow(x, spent, np.log(np.clip(ratio, share, 1.0)), share))
    return windows


def _partly_over(
    panel: pd.DataFrame, names: tuple[str, ...], now: pd.Timestamp, horizons: Horizons, whole: int
) -> Iterator[tuple[float, pd.DataFrame, pd.DataFrame, Floats, Floats]]:
    """Yield the snapshots whose window of `whole` days is at least half over at `now`, but not wholly.

    Of each: the share that is over, the buyers, the growth of their totals, their design matrix, and MBG/NBD's forecast
    for the part that is over.
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
            yield days / whole, here, _growth(here, then), design.matrix(here), part


def _growth(here: pd.DataFrame, then: pd.DataFrame) -> pd.DataFrame:
    """Return the growth of customers' totals until a later snapshot, rows in the order of `here`."""
    later = then.set_index("customer_id").loc[here["customer_id"], _TOTALS].reset_index(drop=True)
    return later - here[_TOTALS].reset_index(drop=True)


def _back_from(
    panel: pd.DataFrame, now: pd.Timestamp, every: int
) -> Iterator[tuple[pd.Timestamp, pd.DataFrame, pd.DataFrame]]:
    """Yield, latest first, each snapshot's day, its buyers, and the growth of their totals until the next snapshot."""
    step = pd.Timedelta(days=every)
    days = set(panel["as_of"].unique())
    then = panel[panel["as_of"] == now]
    while (now := now - step) in days:
        here = panel[panel["as_of"] == now]
        buyers = here[has_bought(here) & here["customer_id"].isin(then["customer_id"])]
        if buyers.empty:
            return
        yield now, buyers, _growth(buyers, then)
        then = here
