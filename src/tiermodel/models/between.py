"""Look at what happened between snapshots: windows shorter than the outcome's, and so over sooner."""

from __future__ import annotations

import numpy as np
import pandas as pd

from tiermodel.config import Project
from tiermodel.features.outcome import churn_window
from tiermodel.models.churn import at_risk
from tiermodel.models.inputs import EXPECTED, Horizons, fit_inputs
from tiermodel.models.level import Window, log_odds

__all__ = ["missed_between"]


def missed_between(project: Project, panel: pd.DataFrame, now: pd.Timestamp) -> tuple[list[Window], list[Window]]:
    """Measure what MBG/NBD with Gamma-Gamma missed between snapshots `every_days` apart, counted back from `now`.

    Give those of churn risk and of the total amount; none where the outcome itself is over as soon. Nothing but the
    snapshots is read, so that no window can reach beyond `now`.
    """
    every, outcome = project.panel.every_days, project.outcome
    span, step = (0, every, every), pd.Timedelta(days=every)
    of_churn = project.churn.contract_renewal_days is None and every < churn_window(project.churn, outcome)[1]
    of_value = every < outcome.gap_days + outcome.horizon_days
    risk, total = [], []
    snapshots = {day: panel[panel["as_of"] == day] for day in panel["as_of"].unique() if day <= now}
    day = now - step
    while (of_churn or of_value) and day in snapshots:
        then = snapshots[day + step].set_index("customer_id")[["purchase_days_total", "net_amount_total"]]
        here = snapshots[day]
        here = here[here["days_since_last"].notna() & here["customer_id"].isin(then.index)]
        later, since = then.loc[here["customer_id"]], here["days_since_first"].to_numpy(dtype=np.float64)
        if here.empty:
            break
        expected = fit_inputs(here, (), Horizons(every, every)).matrix(here)
        silent = later["purchase_days_total"].to_numpy() == here["purchase_days_total"].to_numpy()
        if of_churn and (exposed := at_risk(project.churn, outcome, here)).any():
            odds = log_odds(expected[exposed, EXPECTED.index("expected_p_zero")])
            risk.append(Window.of_chance(span, day, since[exposed], odds, silent[exposed]))
        if of_value:
            came = later["net_amount_total"].to_numpy() - here["net_amount_total"].to_numpy()
            spend = np.maximum(expected[:, EXPECTED.index("expected_spend")], 0.0)
            total.append(Window.of_total(span, day, since, spend, came))
        day -= step
    return risk, total
