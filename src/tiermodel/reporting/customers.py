"""The page's sections on customers: figures, tiers, value, risk, stages, segments, services."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from tiermodel.arrays import Flags, Floats
from tiermodel.evaluation.metrics import pareto_share
from tiermodel.features.frame import has_bought
from tiermodel.policy.service_policy import Policy
from tiermodel.reporting import charts
from tiermodel.reporting.charts import Chart
from tiermodel.reporting.figures import SMALL
from tiermodel.reporting.inputs import ReportInputs
from tiermodel.segments.profiles import sorted_profiles
from tiermodel.words import words

__all__ = ["customer_sections", "policies", "rfm_charts", "segment_names", "stage_codes"]

_LADDERS = {
    "lifecycle_stage": ("loyal", "repeat", "first", "prospect", "silent", "churned"),
    "loyalty_stage": ("loyal", "attached", "wavering", "lost"),
}


def customer_sections(inputs: ReportInputs, names: list[str], language: str) -> dict[str, Any]:
    """Return the sections that the score table allows, by name; `names` are the levels, lowest first."""
    assert inputs.scores is not None  # noqa: S101  # the page asks only with scores
    scores, wording = inputs.scores, words(language)
    risk, value = (scores[c].to_numpy(dtype=np.float64) for c in ("churn_risk", "expected_value"))
    levels = _levels(inputs, names, language)
    sizes, worth = ([level[key] for level in levels] for key in ("customers", "value"))
    cells, bands = charts.risk_cells(names, scores["tier"].to_numpy(), risk, value)
    axes = (f"{wording['churn_risk']} (%)", bands, wording["tier"], names[::-1])
    sections: dict[str, Any] = {
        "figures": _figures(inputs, names),
        "pyramid": {
            "rows": levels[::-1], "chart": charts.pyramid(names, sizes, worth, wording, inputs.currency),
        },
        "risk_map": charts.heat("risk", wording["head_risk_map"], cells, axes),
        "ladders": [c for column in _LADDERS if (c := _ladder(scores, names, column, wording)) is not None],
    }  # fmt: skip
    if curves := _curves(inputs, value, wording):
        sections["concentration"] = charts.concentration(curves, wording)
    if segments := _segments(inputs, names, language):
        sections["segment_sizes"] = segments
    if inputs.policy is not None:
        sections["services"] = _services(inputs, inputs.policy, names, language)
    return sections


def rfm_charts(inputs: ReportInputs, language: str) -> dict[str, Any] | None:
    """Return the maps of recency and frequency, one of money and with scores one of risk; None without buyers."""
    if inputs.features is None:
        return None
    wording = words(language)
    days, orders, money = _widest(inputs.features)
    frame = _latest(inputs.features)
    frame = frame[has_bought(frame) & frame[orders].notna()]
    if frame.empty:
        return None
    title = wording["money" if days else "money_total"].format(days=days)
    panels = {title: (frame[money].to_numpy(), ",.0f")}
    if inputs.scores is not None:
        risk = inputs.scores.set_index("customer_id")["churn_risk"].reindex(frame["customer_id"]).to_numpy()
        panels[wording["mean_churn"]] = (risk, ".0%")
    label = wording["frequency" if days else "frequency_total"].format(days=days)
    recency, frequency = frame["days_since_last"].to_numpy(), frame[orders].to_numpy()
    found = [
        _rfm(f"rfm-{k}", title, (recency, frequency), of_panel, (wording["recency"], label))
        for k, (title, of_panel) in enumerate(panels.items())
    ]
    return {"charts": found, "as_of": frame["as_of"].iloc[0]}


def _rfm(
    name: str, title: str, places: tuple[Floats, Floats], panel: tuple[Floats, str], titles: tuple[str, str]
) -> Chart:
    (r, r_names), (f, f_names) = (_groups(values) for values in places)
    values, form = panel
    cells: list[dict[str, Any]] = []
    for i, j in np.ndindex(len(f_names), len(r_names)):
        here = (f == i) & (r == j)
        known = here & np.isfinite(values)
        if not here.any():
            continue
        cell: dict[str, Any] = {"x": r_names[j], "y": f_names[i], "text": f"< {SMALL}", "more": "", "shade": 0.0}
        if known.sum() >= SMALL:
            mean = float(values[known].mean())
            cell |= {"text": f"{int(here.sum()):,}", "more": f"{mean:{form}}", "shade": max(mean, 0.0)}
        cells.append(cell | {"told": " · ".join(filter(None, (cell["text"], cell["more"])))})
    most = max((cell["shade"] for cell in cells), default=0.0) or 1.0
    shaded = [{**cell, "shade": cell["shade"] / most} for cell in cells]
    return charts.heat(name, title, shaded, (titles[0], r_names, titles[1], f_names[::-1]))


def _groups(values: Floats) -> tuple[Any, list[str]]:
    """Return each value's group, up to five split at the quintiles, equal values together, and the groups' ranges."""
    cuts = np.unique(np.quantile(values, [0.2, 0.4, 0.6, 0.8]))
    _, group = np.unique(np.searchsorted(cuts, values, side="left"), return_inverse=True)
    spans = [(values[group == g].min(), values[group == g].max()) for g in range(group.max() + 1)]
    return group, [f"{low:,.0f}" if low == high else f"{low:,.0f}–{high:,.0f}" for low, high in spans]


def stage_codes(column: pd.Series) -> pd.Series:
    """Return life-cycle stages as codes, whatever language the table names them in; empty where there is none."""
    told = {
        words(language)[f"lifecycle_{code}"]: code for language in ("zh", "en") for code in _LADDERS["lifecycle_stage"]
    }
    return column.map(lambda stage: told.get(stage, ""))


def _gone(scores: pd.DataFrame) -> Flags:
    """Return who has left already: silent for more than twice the own rhythm, which nobody expects any more."""
    found: Flags = (stage_codes(scores["lifecycle_stage"]) == "churned").to_numpy()
    return found


def _figures(inputs: ReportInputs, names: list[str]) -> dict[str, Any]:
    """Return the figures that head the page, each of a group of customers that its name says."""
    scores = inputs.scores
    assert scores is not None  # noqa: S101
    value, risk = (np.nan_to_num(scores[c].to_numpy()) for c in ("expected_value", "churn_risk"))
    key, bought, gone = np.isin(scores["tier"], inputs.keys), scores["churn_risk"].notna().to_numpy(), _gone(scores)
    active, total = bought & ~gone, float(value.sum())
    leaving, lost = float(risk[active].sum()), float((risk * value)[active].sum())
    return {
        "customers": len(scores), "tiers": len(names), "key_names": [names[k] for k in reversed(inputs.keys)],
        "key_customers": int(key.sum()), "key_share": float(key.mean()), "key_value": float(value[key].sum()),
        "key_value_share": float(value[key].sum()) / total if total > 0 else None, "total": total,
        "top_share": pareto_share(value) if total > 0 else None,
        "active": int(active.sum()), "gone": int((gone & bought).sum()), "never": int((~bought).sum()),
        "leaving": leaving, "leaving_share": leaving / active.sum() if active.any() else None,
        "key_leaving": float(risk[active & key].sum()), "key_active": int((active & key).sum()),
        "at_risk": lost, "stages_known": bool((scores["lifecycle_stage"] != "").any()),
    }  # fmt: skip


def _levels(inputs: ReportInputs, names: list[str], language: str) -> list[dict[str, Any]]:
    """Return one row of figures for each level, lowest first."""
    scores = inputs.scores
    assert scores is not None  # noqa: S101
    total = max(float(np.nansum(scores["expected_value"])), np.finfo(float).tiny)
    services, rows = policies(inputs, language), []
    for k, name in enumerate(names):
        here = scores[scores["tier"] == k]
        value, known = float(np.nansum(here["expected_value"])), here["churn_risk"].dropna()
        rows.append({
            "tier": k, "name": name, "key": k in inputs.keys, "customers": len(here), "share": len(here) / len(scores),
            "value": value, "value_share": value / total, "mean": value / len(here) if len(here) else None,
            "risk": float(known.mean()) if len(known) else None, "policy": services[k],
        })  # fmt: skip
    return rows


def policies(inputs: ReportInputs, language: str) -> list[str]:
    """Return the service of each level, lowest first: of the policy file, else of the bundle, else of the scores."""
    scores, codes = inputs.scores, inputs.codes
    assert scores is not None  # noqa: S101
    if inputs.policy is not None:
        return [inputs.policy.levels[c].name(language, c) if c in inputs.policy.levels else "" for c in codes]
    column = "policy_name" if "policy_name" in scores else "policy"
    if column == "policy" and inputs.bundle is not None and inputs.fits:
        return inputs.bundle.scheme.scheme.policies(language)
    told = scores.drop_duplicates("tier_code").set_index("tier_code")[column].to_dict()
    return [str(told.get(code, "")) for code in codes]


def _services(inputs: ReportInputs, policy: Policy, names: list[str], language: str) -> list[dict[str, Any]]:
    """Return what the policy file has for each level, highest first: who, how fast, how often, what, at what cost."""
    wording, rows = words(language), []
    for k, code in reversed(list(enumerate(inputs.codes))):
        level = policy.levels.get(code)
        if level is None:
            continue
        actions = [a.name(language, key) for key, a in policy.actions.items() if a.tiers is None or code in a.tiers]
        rows.append({
            "tier": k, "name": names[k], "service": level.name(language, code),
            "manager": wording[f"policy_manager_{level.manager}"],
            "hours": level.answer_hours, "visits": level.visits_per_year, "benefits": level.text(language, code),
            "actions": wording["comma"].join(actions), "cost": level.cost_per_year,
        })  # fmt: skip
    return rows


def segment_names(inputs: ReportInputs, language: str) -> dict[str, str]:
    """Return the names of the bundle's segments by code; the code where one has no name."""
    if inputs.bundle is None:
        return {}
    profiles = sorted_profiles(inputs.bundle.segments)
    return {code: profile["name"][language] if profile["name"] else code for code, profile in profiles}


def _segments(inputs: ReportInputs, names: list[str], language: str) -> list[dict[str, Any]]:
    """Return the number of customers of each named segment by level, highest level first; few are hidden."""
    scores = inputs.scores
    assert scores is not None  # noqa: S101
    if "segment" not in scores or not (scores["segment"] != "").any():
        return []
    told = segment_names(inputs, language)
    rows = []
    for code, here in scores[scores["segment"] != ""].groupby("segment"):
        sizes = here["tier"].value_counts()
        cells = [int(sizes.get(k, 0)) for k in range(len(names) - 1, -1, -1)]
        rows.append({
            "name": told.get(str(code), str(code)), "customers": len(here),
            "cells": [f"< {SMALL}" if 0 < n < SMALL else f"{n:,}" for n in cells],
            "value": float(np.nansum(here["expected_value"])) / len(here), "risk": float(here["churn_risk"].mean()),
        })  # fmt: skip
    return sorted(rows, key=lambda row: -row["value"])


def _curves(inputs: ReportInputs, expected: Floats, wording: Mapping[str, str]) -> dict[str, Floats]:
    """Return the values whose concentration is drawn, by label: expected, spent, and observed after a test date."""
    curves = {wording["curve_expected"]: expected}
    if inputs.features is not None:
        days, _, money = _widest(inputs.features)
        label = wording["curve_spent" if days else "curve_spent_total"].format(days=days)
        curves[label] = _latest(inputs.features)[money].to_numpy()
    if inputs.predictions is not None:
        past = _latest(inputs.predictions)
        curves[wording["curve_followed"].format(date=past["as_of"].iloc[0])] = past["value"].to_numpy()
    known = {label: values[np.isfinite(values)] for label, values in curves.items()}
    return {label: values for label, values in known.items() if values.sum() > 0}


def _latest(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.loc[frame["as_of"] == frame["as_of"].max()]


def _widest(features: pd.DataFrame) -> tuple[int, str, str]:
    """Return (days, order count column, amount column) of the longest window; 0 days stand for all time."""
    windows = [int(m[1]) for name in features.columns if (m := re.fullmatch(r"net_amount_(\d+)d", name))]
    days = max((w for w in windows if f"order_count_{w}d" in features.columns), default=0)
    window = f"{days}d" if days else "total"
    return days, f"order_count_{window}", f"net_amount_{window}"


def _ladder(scores: pd.DataFrame, names: list[str], column: str, wording: Mapping[str, str]) -> Chart | None:
    """Return the stages in a column, named in either language, by tier; None where the table has no stage."""
    ladder, order = column.removesuffix("_stage"), _LADDERS[column]
    place = {words(language)[f"{ladder}_{code}"]: k for language in ("zh", "en") for k, code in enumerate(order)}
    stage = scores[column].map(place)
    known = stage.notna().to_numpy()
    if not known.any():
        return None
    counts = np.zeros((len(names), len(order)), dtype=np.int64)
    np.add.at(counts, (scores["tier"].to_numpy()[known], stage[known].to_numpy(dtype=np.int64)), 1)
    labels = [wording[f"{ladder}_{code}"] for code in order]
    return charts.stages(column, wording[ladder], names, labels, counts, wording)
