"""Backtest of lifetime value, at a date of its own: one lifetime-value horizon before the end of the log."""

from __future__ import annotations

from datetime import date, timedelta
from itertools import pairwise

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from tiermodel.arrays import Floats
from tiermodel.config.project import Features, Project
from tiermodel.engines.duckdb import complete_until
from tiermodel.errors import DataError
from tiermodel.evaluation.baselines import CLV_BASELINES, OURS, BaselineTask
from tiermodel.features.frame import KEYS, has_bought, rows_at
from tiermodel.features.outcome import Labels
from tiermodel.features.panel import build_panel
from tiermodel.models.btyd.clv import discount
from tiermodel.tables.history import History
from tiermodel.training.dates import panel_dates, training_dates
from tiermodel.training.train import Progress, fit_bundle
from tiermodel.words import words

__all__ = ["clv_predictions", "discounted_outcome"]


_SLICE_DAYS = 30


def clv_predictions(project: Project, history: History, progress: Progress) -> tuple[date, pd.DataFrame]:
    """Return the last date with a fully observed horizon, and its buyers: keys, `actual`, `tiermodel`, baselines.

    Values are discounted, in currency units. All models are fitted on what was known at that date. Raises `DataError`
    where the log is too short.
    """
    day = history.last_day + timedelta(1 - project.value.clv.horizon_days)
    try:
        trained_on = training_dates(project, complete_until(history, day), history.first_day)
    except DataError:
        raise DataError(
            f"lifetime value over {project.value.clv.horizon_days} days is not compared with what came: that needs a "
            f"date as long before {history.last_day} with training before it, and the data starts on "
            f"{history.first_day}: shorten value.clv.horizon_days to see it"
        ) from None
    progress(words(project.language)["step_lifetime"].format(day=day))
    dates = sorted(panel_dates(project, day, trained_on))
    panel = build_panel(project, dates, with_outcome=True, known_until=day, drawn_before=day, history=history)
    with threadpool_limits(limits=1):  # as in training: sums split over threads differ in their last bits
        bundle, _ = fit_bundle(project, panel, day, trained_on, history.columns)
        bought = has_bought(panel)
        buyers = panel[bought & (panel["as_of"] == pd.Timestamp(day))].reset_index(drop=True)
        past = rows_at(panel[bought], trained_on)
        frame = buyers[list(KEYS)].assign(actual=discounted_outcome(project, history, day, buyers["customer_id"]))
        frame[OURS] = bundle.lifetime_value(buyers, bundle.value.predict(bundle.inputs.matrix(buyers)))
        windows, clv = project.features.windows_days, project.value.clv
        names = bundle.inputs.names
        task = BaselineTask(Labels.of(project), past, buyers, lambda f: bundle.scheme.assign(f)[0], names, windows, clv)
        return day, frame.assign(**{name: baseline(task) for name, baseline in CLV_BASELINES.items()})


def discounted_outcome(project: Project, history: History, day: date, customers: pd.Series) -> Floats:
    """Return each customer's value from `day` to the horizon, every 30 days of it discounted from their middle."""
    clv = project.value.clv
    steps = [*range(0, clv.horizon_days, _SLICE_DAYS), clv.horizon_days]
    plain = project.model_copy(update={"features": Features(groups=("rfm", "value"), windows_days=(30,))})
    later = build_panel(plain, [day + timedelta(step) for step in steps], history=history.whenever_arrived)
    name = "margin_total" if project.value.measure == "margin" else "net_amount_total"
    totals = later.pivot_table(name, "customer_id", "as_of").reindex(customers).to_numpy(dtype=np.float64)
    factors = [discount((start + end) / 2, clv.annual_rate) for start, end in pairwise(steps)]
    return np.asarray(np.diff(totals, axis=1) @ np.array(factors))
