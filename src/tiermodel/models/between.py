"""Look at what happened between snapshots: windows shorter than the outcome's, and so over sooner.

Short ones tell the level. Those of the latest snapshots, whose outcome is not over yet, are learned from as far as they
have come: a customer's silence of two months counts for what it says of three. Nothing but the snapshots is read, so
that no window can reach beyond the date that is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tiermodel.config.project import Project
from tiermodel.features.outcome import churn_window
from tiermodel.models.ahead import Ahead, CutWindow
from tiermodel.models.churn import at_risk
from tiermodel.models.inputs import Habits, Horizons, fit_inputs
from tiermodel.models.level import Window, log_odds

__all__ = ["cut_silence", "cut_spend", "missed_between", "told_ahead"]

Floats = NDArray[np.float64]
_TOTALS = ["purchase_days_total", "net_amount_total"]
_LEAST_SHARE = 0.5  # of a window; what is shorter says too little of the whole


def told_ahead(
    project: Project, panel: pd.DataFrame, names: tuple[str, ...], now: pd.Timestamp, exposed: Floats, buyers: Floats
) -> tuple[Ahead, Ahead]:
    """Tell the fits of churn risk and of value what the panel knows of the time before `now`.

    `exposed` and `buyers` are the inputs, features by name first, of the rows that each forecasts then.
    """
    missed_risk, missed_value = missed_between(project, panel, now)
    known = project, panel, names
    risk = Ahead(now, exposed, missed_risk, partial(cut_silence, *known))
    return risk, Ahead(now, buyers, missed_value, partial(cut_spend, *known))


def missed_between(project: Project, panel: pd.DataFrame, now: pd.Timestamp) -> tuple[list[Window], list[Window]]:
    """Measure what MBG/NBD with Gamma-Gamma missed between snapshots `every_days` apart, counted back from `now`.

    Give those of churn risk and of the total amount; none where the outcome itself is over as soon.
    """
    churn, outcome, every = project.churn, project.outcome, project.panel.every_days
    of_churn = churn.contract_renewal_days is None and every < churn_window(churn, outcome)[1]
    of_value = every < outcome.gap_days + outcome.horizon_days
    risk, total = [], []
    span = (0, every, every)
    for day, here, came in _steps(panel, now, every) if of_churn or of_value else ():
        since = here["days_since_first"].to_numpy(dtype=np.float64)
        p_zero, _, spend = Habits.fit(here).expect(here, Horizons(every, every)).T
        exposed = at_risk(churn, outcome, here)
        if of_churn and exposed.any():
            silent = (came["purchase_days_total"] == 0).to_numpy()
            risk.append(Window.of_chance(span, day, since[exposed], log_odds(p_zero[exposed]), silent[exposed]))
        if of_value:
            amount = came["net_amount_total"].to_numpy(dtype=np.float64)
            total.append(Window.of_total(span, day, since, np.maximum(spend, 0.0), amount))
    return risk, total


def cut_silence(project: Project, panel: pd.DataFrame, names: tuple[str, ...], now: pd.Timestamp) -> list[CutWindow]:
    """Give the churn windows that are under way at `now`, half of them at least; none after a gap or of contracts."""
    first, last = churn_window(project.churn, project.outcome)
    if first or project.churn.contract_renewal_days is not None:
        return []
    cut = []
    for share, here, came, x, part in _under_way(panel, names, now, Horizons.of(project), last):
        exposed = at_risk(project.churn, project.outcome, here)
        silent = (came["purchase_days_total"] == 0).to_numpy().astype(np.float64)
        link = log_odds(part[:, 0]) - log_odds(x[:, len(names)])
        cut.append(CutWindow(x[exposed], silent[exposed], link[exposed], share))
    return cut


def cut_spend(project: Project, panel: pd.DataFrame, names: tuple[str, ...], now: pd.Timestamp) -> list[CutWindow]:
    """Give the spend windows that are under way at `now`, half of them at least; none after a gap or of margins."""
    if project.outcome.gap_days or project.value.measure == "margin":
        return []
    cut = []
    horizons = Horizons.of(project)
    for share, _, came, x, part in _under_way(panel, names, now, horizons, horizons.purchases):
        spent = np.maximum(came["net_amount_total"].to_numpy(dtype=np.float64), 0.0)
        whole = x[:, len(names) + 1]  # purchase days
        ratio = np.divide(part[:, 1], whole, out=np.full(len(x), share), where=whole > 0)
        cut.append(CutWindow(x, spent, np.log(np.clip(ratio, share, 1.0)), share))
    return cut


def _under_way(
    panel: pd.DataFrame, names: tuple[str, ...], now: pd.Timestamp, horizons: Horizons, whole: int
) -> Iterator[tuple[float, pd.DataFrame, pd.DataFrame, Floats, Floats]]:
    """Go through the snapshots whose window of `whole` days is not over but half of it is.

    Give the share that is over, the buyers, what came, their inputs, and what is expected of the part that is over.
    """
    then = panel[panel["as_of"] == now]
    for day in sorted(panel["as_of"].unique()):
        days = (now - day).days
        if not _LEAST_SHARE * whole <= days < whole:
            continue
        here = panel[(panel["as_of"] == day) & panel["days_since_last"].notna()]
        here = here[here["customer_id"].isin(then["customer_id"])].reset_index(drop=True)
        if len(here):
            inputs = fit_inputs(here, names, horizons)
            part = inputs.habits.expect(here, Horizons(days, days))
            yield days / whole, here, _grown(here, then), inputs.matrix(here), part


def _grown(here: pd.DataFrame, then: pd.DataFrame) -> pd.DataFrame:
    """Give what the totals of customers grew by until a later snapshot, rows in their order."""
    later = then.set_index("customer_id").loc[here["customer_id"], _TOTALS].reset_index(drop=True)
    return later - here[_TOTALS].reset_index(drop=True)


def _steps(
    panel: pd.DataFrame, now: pd.Timestamp, every: int
) -> Iterator[tuple[pd.Timestamp, pd.DataFrame, pd.DataFrame]]:
    """Go back from snapshot to snapshot: give the day, its buyers, and what their totals grew by until the next one."""
    step = pd.Timedelta(days=every)
    days = set(panel["as_of"].unique())
    then = panel[panel["as_of"] == now]
    while (now := now - step) in days:
        here = panel[panel["as_of"] == now]
        buyers = here[here["days_since_last"].notna() & here["customer_id"].isin(then["customer_id"])]
        if buyers.empty:
            return
        yield now, buyers, _grown(buyers, then)
        then = here
