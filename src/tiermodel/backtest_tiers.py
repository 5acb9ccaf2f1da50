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

__all__ = ["tier_results"]


def tier_results(
    project: Project, panel: pd.DataFrame, day: date, bundle: Bundle, notes: list[str]
) -> Iterator[dict[str, Any]]:
    """Give figures for the project's scheme and every other preset, all fitted on what was known at the date."""
    now, span = pd.Timestamp(day), pd.Timedelta(days=outcome_span(project.outcome))
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
    snapshot = panel[panel["as_of"] == now].reset_index(drop=True)
    level, _ = fitted.assign(snapshot)
    value = snapshot["outcome_value"].to_numpy(dtype=np.float64)
    key = np.isin(level, [i for i, lv in enumerate(fitted.scheme.levels) if lv.key])
    means = [value[level == k].mean() for k in range(len(fitted.scheme.levels)) if np.any(level == k)]
    before = [_levels_at(panel, fitted, now - every * k, snapshot["customer_id"]) for k in (1, 2)]
    both = ~np.isnan(before[0])
    moved = level != before[0]
    back = ~np.isnan(before[1]) & both & moved & (level == before[1])
    moved_before = ~np.isnan(before[1]) & (before[0] != before[1])
    later = _levels_at(panel, fitted, now + timedelta(outcome_span(project.outcome)), snapshot["customer_id"])
    return {
        "scheme": fitted.scheme.code,
        "as_of": str(day),
        "n": len(level),
        "key_customers_share": float(key.mean()),
        "value_capture_top": float(value[key].sum() / value.sum()) if value.sum() > 0 else None,
        "gini": gini(value, level.astype(float)),
        "monotone": bool(np.all(np.diff(means) >= 0)),
        "levels": {code: int(np.count_nonzero(level == i)) for i, code in enumerate(fitted.scheme.codes)},
        "qwk": _kappa(level, later, len(fitted.scheme.levels)),
        "moved_share": float(moved[both].mean()) if both.any() else None,
        "reversed_share": float(back[moved_before].mean()) if moved_before.any() else None,
    }


def _forecast(project: Project, panel: pd.DataFrame, day: date, bundle: Bundle) -> dict[str, Any]:
    """Judge the model of the future tier against "same tier as now"."""
    now = pd.Timestamp(day)
    snapshot = panel[panel["as_of"] == now].reset_index(drop=True)
    p = bundle.tier.predict(bundle.inputs.matrix(snapshot))
    later = _levels_at(panel, bundle.scheme, now + timedelta(outcome_span(project.outcome)), snapshot["customer_id"])
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
