"""Look at what happened between snapshots: windows shorter than the outcome's, and so over sooner."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from tiermodel.config import Project
from tiermodel.features.outcome import churn_window
from tiermodel.models.churn import at_risk
from tiermodel.models.inputs import Horizons, fit_inputs
from tiermodel.models.level import Window, log_odds

__all__ = ["missed_between"]

_TOTALS = ["purchase_days_total", "net_amount_total"]


def missed_between(project: Project, panel: pd.DataFrame, now: pd.Timestamp) -> tuple[list[Window], list[Window]]:
    """Measure what MBG/NBD with Gamma-Gamma missed between snapshots `every_days` apart, counted back from `now`.

    Give those of churn risk and of the total amount; none where the outcome itself is over as soon. Nothing but the
    snapshots is read, so that no window can reach beyond `now`.
    """
    churn, outcome, every = project.churn, project.outcome, project.panel.every_days
    of_churn = churn.contract_renewal_days is None and every < churn_window(churn, outcome)[1]
    of_value = every < outcome.gap_days + outcome.horizon_days
    risk, total = [], []
    span = (0, every, every)
    for day, here, came in _steps(panel, now, every) if of_churn or of_value else ():
        since = here["days_since_first"].to_numpy(dtype=np.float64)
        expected = fit_inputs(here, (), Horizons(every, every)).matrix(here)
        p_zero, _, spend = expected.T  # in the order of `EXPECTED`
        exposed = at_risk(churn, outcome, here)
        if of_churn and exposed.any():
            silent = (came["purchase_days_total"] == 0).to_numpy()
            risk.append(Window.of_chance(span, day, since[exposed], log_odds(p_zero[exposed]), silent[exposed]))
        if of_value:
            amount = came["net_amount_total"].to_numpy(dtype=np.float64)
            total.append(Window.of_total(span, day, since, np.maximum(spend, 0.0), amount))
    return risk, total


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
        later = then.set_index("customer_id").loc[buyers["customer_id"], _TOTALS].reset_index(drop=True)
        yield now, buyers, later - buyers[_TOTALS].reset_index(drop=True)
        then = here
