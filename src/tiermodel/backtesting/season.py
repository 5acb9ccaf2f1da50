"""The same season a year before: what customers bought a year before the outcome windows of snapshots."""

from __future__ import annotations

from collections.abc import Collection
from datetime import date, timedelta

import pandas as pd

from tiermodel.arrays import Floats
from tiermodel.config.project import Features, Project
from tiermodel.evaluation.baselines import SEASON_AMOUNT, SEASON_ORDERS
from tiermodel.features.frame import KEYS
from tiermodel.features.outcome import Labels, LabelWindow
from tiermodel.features.panel import build_panel
from tiermodel.tables.history import History

__all__ = ["same_season", "with_season"]


_YEAR_DAYS = 365
_LONGEST = 364  # a window that ends later would reach the date itself


def same_season(project: Project, dates: Collection[date], history: History, drawn_before: date) -> pd.DataFrame:
    """Return the orders and the net amount of every customer in the outcome window's days of the year before a date.

    Orders are those of the churn window, amounts those of the value window, both 365 days earlier: rows of the date's
    own past only. Columns are the keys, `SEASON_ORDERS` and `SEASON_AMOUNT`. Dates without a whole year of data before
    are left out, and so are all where the windows reach beyond 364 days. `drawn_before` is as in `build_panel`.
    """
    labels = Labels.of(project)
    churn, value = labels.churn.window, labels.value.window
    a_year_in = [day for day in sorted(dates) if day - timedelta(_YEAR_DAYS) >= history.first_day]
    if not a_year_in or max(churn.last, value.last) > _LONGEST:
        kinds = dict(zip(KEYS, ("str", "datetime64[ms]"), strict=True))
        return pd.DataFrame(columns=[*KEYS, SEASON_ORDERS, SEASON_AMOUNT], dtype="float64").astype(kinds)
    ends = sorted({days for window in (churn, value) for days in (window.first, window.last) if days})
    plain = project.model_copy(update={"features": Features(groups=("season",), windows_days=tuple(ends))})
    until = sorted({*a_year_in, drawn_before})
    panel = build_panel(plain, until, drawn_before=drawn_before, history=history)
    panel = panel[panel["as_of"].isin([pd.Timestamp(day) for day in a_year_in])]
    orders, amount = _within(panel, "order_count", churn), _within(panel, "net_amount", value)
    return panel[list(KEYS)].assign(**{SEASON_ORDERS: orders, SEASON_AMOUNT: amount}).reset_index(drop=True)


def with_season(rows: pd.DataFrame, season: pd.DataFrame) -> pd.DataFrame:
    """Return snapshot rows with the columns of `same_season`, NaN at dates that it leaves out."""
    return rows.merge(season, on=list(KEYS), how="left")


def _within(panel: pd.DataFrame, measure: str, window: LabelWindow) -> Floats:
    """Return the sum of a measure in a window's days of the year before: until its end, less until its start."""
    whole = panel[f"{measure}_year_ago_{window.last}d"].to_numpy(dtype="float64")
    if not window.first:
        return whole
    return whole - panel[f"{measure}_year_ago_{window.first}d"].to_numpy(dtype="float64")
