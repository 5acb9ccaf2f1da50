"""Judge schemes on later data: the value that their top levels captured, its order, and how much they move."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tiermodel.bundle import Bundle
from tiermodel.config import Project
from tiermodel.errors import TierModelError
from tiermodel.features.outcome import outcome_span
from tiermodel.models.metrics import gini, quadratic_weighted_kappa
from tiermodel.tiers.assign import FittedScheme, fit_scheme
from tiermodel.tiers.scheme import load_preset, preset_names
from tiermodel.tiers.stability import replay

__all__ = ["tier_results"]

_DRAWS = 200


def tier_results(
    project: Project, panel: pd.DataFrame, day: date, bundle: Bundle, notes: list[str]
) -> Iterator[dict[str, Any]]:
    """Give figures for the project's scheme and every other preset, all fitted on what was known at the date."""
    now, span = pd.Timestamp(day), pd.Timedelta(days=outcome_span(project))
    known = panel[panel["as_of"] <= now]
    snapshot = known[known["as_of"] == now]
    history = known[known["as_of"] + span <= now]
    yield _figures(project, panel, day, bundle.scheme) | {"ours": True} | _forecast(project, panel, day, bundle)
    for name in preset_names():
        scheme = load_preset(name, project.features.windows_days)
        if scheme.code == bundle.scheme.scheme.code:
            continue
        try:
            fitted = fit_scheme(scheme, snapshot, history, project.seed)
        except TierModelError as error:  # not the project's scheme: leave it out, and say so
            notes.append(f"{day}: {error}")
        else:
            yield _figures(project, panel, day, fitted) | {"ours": False}


def _figures(project: Project, panel: pd.DataFrame, day: date, fitted: FittedScheme) -> dict[str, Any]:
    now, every = pd.Timestamp(day), timedelta(project.panel.every_days)
    graded = _graded(panel, fitted, [now - every * 2, now - every, now])
    snapshot = panel[panel["as_of"] == now].reset_index(drop=True)
    customers = snapshot["customer_id"]
    two_before, before, level = (graded[day].reindex(customers).to_numpy() for day in graded)
    value = snapshot["outcome_value"].to_numpy(dtype=np.float64)
    key = np.isin(level, [i for i, lv in enumerate(fitted.scheme.levels) if lv.key])
    means = [value[level == k].mean() for k in range(len(fitted.scheme.levels)) if np.any(level == k)]
    both = ~np.isnan(before)
    moved = level != before
    back = ~np.isnan(two_before) & both & moved & (level == two_before)
    moved_before = ~np.isnan(two_before) & (before != two_before)
    later = _levels_at(panel, fitted, now + timedelta(outcome_span(project)), customers)
    low, high = _capture_interval(key, value, project.seed)
    return {
        "scheme": fitted.scheme.code,
        "as_of": str(day),
        "n": len(level),
        "rules": fitted.rule_count,
        "key_customers_share": float(key.mean()),
        "value_capture_top": float(value[key].sum() / value.sum()) if value.sum() > 0 else None,
        "value_capture_low": low,
        "value_capture_high": high,
        "gini": gini(value, level),
        "monotone": bool(np.all(np.diff(means) >= 0)),
        "levels": {code: int(np.count_nonzero(level == i)) for i, code in enumerate(fitted.scheme.codes)},
        "qwk": _kappa(level.astype(np.int64), later, len(fitted.scheme.levels)),
        "moved_share": float(moved[both].mean()) if both.any() else None,
        "reversed_share": float(back[moved_before].mean()) if moved_before.any() else None,
    }


def _graded(panel: pd.DataFrame, fitted: FittedScheme, dates: list[pd.Timestamp]) -> dict[pd.Timestamp, pd.Series]:
    """Give every customer's tier at some dates in a row, the stability rule of the scheme applied from the first on."""
    rows = panel[panel["as_of"].isin(dates)]
    tier = pd.Series(replay(fitted, rows)[0].astype(float), index=rows["customer_id"])
    return {day: tier[(rows["as_of"] == day).to_numpy()] for day in dates}


def _capture_interval(
    key: NDArray[np.bool_], value: NDArray[np.float64], seed: int
) -> tuple[float | None, float | None]:
    """Give a 95 % interval, over customers drawn again, for the share of the value that key customers brought."""
    drawn = np.random.default_rng(seed).integers(0, len(value), (_DRAWS, len(value)))
    total = value[drawn].sum(axis=1)
    if (total <= 0).any():
        return None, None
    low, high = np.quantile((value * key)[drawn].sum(axis=1) / total, [0.025, 0.975])
    return float(low), float(high)


def _forecast(project: Project, panel: pd.DataFrame, day: date, bundle: Bundle) -> dict[str, Any]:
    """Judge the model of the future tier against "same tier as now"."""
    now = pd.Timestamp(day)
    snapshot = panel[panel["as_of"] == now].reset_index(drop=True)
    p = bundle.tier.predict(bundle.inputs.matrix(snapshot))
    later = _levels_at(panel, bundle.scheme, now + timedelta(outcome_span(project)), snapshot["customer_id"])
    low, high = bundle.tier.sets(p)
    known = ~np.isnan(later)
    forecast = np.rint(p @ np.arange(p.shape[1])).astype(np.int64)
    return {
        "qwk_forecast": _kappa(forecast, later, p.shape[1]),
        "set_coverage": float(np.mean((low <= later) & (later <= high) & known) / max(known.mean(), 1e-9)),
    }


def _levels_at(
    panel: pd.DataFrame, fitted: FittedScheme, when: pd.Timestamp, customers: pd.Series
) -> NDArray[np.float64]:
    """Give the customers' levels at another date; NaN where they, or the date, are not in the panel."""
    frame = panel[panel["as_of"] == when]
    if frame.empty:
        return np.full(len(customers), np.nan)
    return pd.Series(fitted.assign(frame)[0].astype(float), index=frame["customer_id"]).reindex(customers).to_numpy()


def _kappa(forecast: NDArray[np.int64], later: NDArray[np.float64], levels: int) -> float | None:
    known = ~np.isnan(later)
    return quadratic_weighted_kappa(later[known].astype(np.int64), forecast[known], levels) if known.any() else None
