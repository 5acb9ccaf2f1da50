"""The report's sections on customers: headline, tiers, value, risk, movement, stages, and whom to call."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from tiermodel.arrays import Floats
from tiermodel.evaluation.metrics import pareto_share
from tiermodel.features.frame import has_bought
from tiermodel.reporting import figures
from tiermodel.reporting.figures import SMALL, FigureStyle, svg
from tiermodel.reporting.inputs import ReportInputs
from tiermodel.words import words

__all__ = ["customer_sections"]


CALLS = 20
_LADDERS = {
    "lifecycle_stage": ("loyal", "repeat", "first", "prospect", "silent", "churned"),
    "loyalty_stage": ("loyal", "attached", "wavering", "lost"),
}


def customer_sections(inputs: ReportInputs, style: FigureStyle) -> dict[str, Any]:
    """Return the sections that the score table and the feature table allow, by name; other sections are missing."""
    sections: dict[str, Any] = {}
    if inputs.features is not None:
        sections["rfm"] = _rfm(inputs.features, inputs.scores, style)
    if inputs.scores is None:
        return sections
    scores, names = inputs.scores, inputs.names(style.language)
    risk, value = (scores[c].to_numpy(dtype=np.float64) for c in ("churn_risk", "expected_value"))
    at_risk = risk * value
    levels = _levels(scores, names)
    sizes, worth = ([level[key] for level in levels] for key in ("customers", "value"))
    pyramid = figures.pyramid(style, names, sizes, worth, inputs.currency)
    risk_map = figures.risk_map(style, names, scores["tier"].to_numpy(), risk, value)
    sections |= {
        "headline": _headline(inputs, scores, at_risk, names),
        "pyramid": {"rows": levels[::-1], "figure": svg(pyramid, "pyramid", style.words["pyramid"])},
        "risk_map": svg(risk_map, "risk", style.words["risk_map"]),
        "movement": _movement(scores, names),
        "ladders": [
            svg(figure, column, style.words[column.removesuffix("_stage")])
            for column in _LADDERS
            if (figure := _ladder(scores, names, column, style)) is not None
        ],
        "calls": _calls(scores, at_risk, names, style.words["semicolon"]),
    }
    if curves := _curves(inputs, value, style.words):
        sections["concentration"] = svg(figures.concentration(style, curves), "whale", style.words["concentration"])
    return sections


def _headline(inputs: ReportInputs, scores: pd.DataFrame, at_risk: Floats, names: list[str]) -> dict[str, Any]:
    value = np.nan_to_num(scores["expected_value"].to_numpy())
    key, risk = np.isin(scores["tier"], inputs.keys), scores["churn_risk"].to_numpy()
    total, leaving, lost = float(value.sum()), float(np.nansum(risk)), float(np.nansum(at_risk))
    bought = int(np.isfinite(risk).sum())
    return {
        "customers": len(scores),
        "tiers": len(names),
        "key_names": [names[k] for k in reversed(inputs.keys)],
        "key_customers": int(key.sum()),
        "key_value_share": float(value[key].sum()) / total if total > 0 else None,
        "top_share": pareto_share(value) if total > 0 else None,
        "total": total,
        "bought": bought,
        "leaving": leaving,
        "leaving_share": leaving / bought if bought else None,
        "at_risk": lost,
        "at_risk_share": lost / total if total > 0 else None,
    }


def _levels(scores: pd.DataFrame, names: list[str]) -> list[dict[str, Any]]:
    """Return one row of figures for each level, lowest first."""
    total = max(float(np.nansum(scores["expected_value"])), np.finfo(float).tiny)
    rows = []
    for k, name in enumerate(names):
        here = scores[scores["tier"] == k]
        value, known = float(np.nansum(here["expected_value"])), here["churn_risk"].dropna()
        rows.append({
            "name": name,
            "customers": len(here),
            "share": len(here) / len(scores),
            "value": value,
            "value_share": value / total,
            "mean": value / len(here) if len(here) else None,
            "risk": float(known.mean()) if len(known) else None,
            "policy": here["policy"].iloc[0] if len(here) else "",
        })  # fmt: skip
    return rows


def _curves(inputs: ReportInputs, expected: Floats, words: Mapping[str, str]) -> dict[str, Floats]:
    """Return the values whose concentration is drawn, by label: expected, spent, and observed after a test date."""
    curves = {words["curve_expected"]: expected}
    if inputs.features is not None:
        days, _, money = _widest(inputs.features)
        label = words["curve_spent" if days else "curve_spent_total"].format(days=days)
        curves[label] = _latest(inputs.features)[money].to_numpy()
    if inputs.predictions is not None:
        past = _latest(inputs.predictions)
        curves[words["curve_followed"].format(date=past["as_of"].iloc[0])] = past["value"].to_numpy()
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


def _rfm(features: pd.DataFrame, scores: pd.DataFrame | None, style: FigureStyle) -> dict[str, Any]:
    days, orders, money = _widest(features)
    frame = _latest(features)
    frame = frame[has_bought(frame) & frame[orders].notna()]
    if frame.empty:
        return {"figure": None, "as_of": ""}
    panels = {style.words["money" if days else "money_total"].format(days=days): (frame[money].to_numpy(), ",.0f")}
    if scores is not None:
        risk = scores.set_index("customer_id")["churn_risk"].reindex(frame["customer_id"]).to_numpy()
        panels[style.words["mean_churn"]] = (risk, ".0%")
    label = style.words["frequency" if days else "frequency_total"].format(days=days)
    figure = figures.rfm_map(style, frame["days_since_last"].to_numpy(), frame[orders].to_numpy(), panels, label)
    return {"figure": svg(figure, "rfm", style.words["rfm"]), "as_of": frame["as_of"].iloc[0]}


def _movement(scores: pd.DataFrame, names: list[str]) -> dict[str, Any] | None:
    """Return the counts of customers by previous and present tier, highest first; None without a previous tier."""
    before, now = scores["previous_tier"].to_numpy(), scores["tier"].to_numpy()
    known = np.isin(before, np.arange(len(names)))
    if not known.any():
        return None
    counts = np.zeros((len(names), len(names)), dtype=np.int64)
    np.add.at(counts, (before[known].astype(np.int64), now[known]), 1)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    order = range(len(names) - 1, -1, -1)
    cells = [[_cell(int(counts[i, j]), float(shares[i, j]), int(np.sign(j - i))) for j in order] for i in order]
    return {
        "names": names[::-1],
        "rows": list(zip(names[::-1], cells, strict=True)),
        "up": int((now > before)[known].sum()),
        "down": int((now < before)[known].sum()),
        "same": int((now == before)[known].sum()),
        "new": int((~known).sum()),
    }


def _cell(count: int, share: float, direction: int) -> dict[str, Any]:
    if 0 < count < SMALL:
        return {"text": f"< {SMALL}", "depth": 0.0, "kind": "small"}
    kind = ("down", "same", "up")[direction + 1]
    return {"text": f"{count:,}", "depth": round(0.75 * share, 3), "kind": kind}


def _ladder(scores: pd.DataFrame, names: list[str], column: str, style: FigureStyle) -> Any:
    """Draw the stages in a column, named in either language, by tier; None where the table has no stage."""
    ladder, order = column.removesuffix("_stage"), _LADDERS[column]
    labels = {language: [words(language)[f"{ladder}_{code}"] for code in order] for language in ("zh", "en")}
    place = {label: k for listed in labels.values() for k, label in enumerate(listed)}
    stage = scores[column].map(place)
    known = stage.notna().to_numpy()
    if not known.any():
        return None
    counts = np.zeros((len(names), len(order)), dtype=np.int64)
    np.add.at(counts, (scores["tier"].to_numpy()[known], stage[known].to_numpy(dtype=np.int64)), 1)
    return figures.ladder(style, names, labels[style.language], counts, style.words[ladder])


def _calls(scores: pd.DataFrame, at_risk: Floats, names: list[str], separator: str) -> list[dict[str, Any]]:
    """Return the customers with the highest value at risk; equal ones in the order of the table."""
    order = np.argsort(-np.where(np.isfinite(at_risk), at_risk, -np.inf), kind="stable")[:CALLS]
    return [
        {
            "customer": row["customer_id"],
            "tier": names[row["tier"]],
            "risk": row["churn_risk"],
            "value": row["expected_value"],
            "low": row["expected_value_low"],
            "high": row["expected_value_high"],
            "at_risk": float(at_risk[k]),
            "reasons": separator.join(r for n in (1, 2, 3) if (r := row[f"reason_{n}"])),
            "policy": row["policy"],
        }
        for k in order
        if at_risk[k] > 0
        for row in [scores.iloc[k]]
    ]
