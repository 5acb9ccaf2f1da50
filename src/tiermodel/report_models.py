"""Prepare what the report says about models: the rules, whether the risk can be trusted, baselines, schemes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from tiermodel import figures_model
from tiermodel.baselines import OURS
from tiermodel.bundle import Bundle
from tiermodel.figures import Pen, svg
from tiermodel.figures_model import LOWER_IS_BETTER, found_at, input_names, model_name
from tiermodel.report_sources import Given
from tiermodel.tiers.profiles import segment_lines
from tiermodel.tiers.schemes.load import load_preset, preset_names

__all__ = ["model_sections"]

_METRICS = {
    "churn": ("auc", "average_precision", "log_loss", "brier", "ece"),
    "value": ("gini", "spearman", "mae", "rmse", "bias", "decile_mape"),
}
_DATES_DRAWN = 3


def model_sections(given: Given, pen: Pen) -> dict[str, Any]:
    """Give the sections that the bundle, the backtest and its predictions allow, by name."""
    sections: dict[str, Any] = {}
    if given.bundle is not None:
        sections["rules"] = _rules(given.bundle, pen)
        sections |= _importance(given.bundle, pen)
        if lines := segment_lines(given.bundle.segments, given.bundle.features, pen.language):
            sections["segments"] = lines
    if given.backtest is not None:
        sections |= {"backtest": _backtest(given.backtest, pen), "schemes": _schemes(given.backtest["tiers"], pen)}
        if rows := given.backtest.get("slices"):
            sections["slices"] = _slices(rows, pen)
    if given.backtest is not None or given.predictions is not None:
        sections["churn"] = _churn(given.backtest, given.predictions, pen)
    if given.predictions is not None:
        sections |= _residuals(given, given.predictions, pen)
    return sections


def _rules(bundle: Bundle, pen: Pen) -> dict[str, Any]:
    """Tell a learned scheme as a table and a tree; any other as the lines of `FittedScheme.rules`."""
    fitted, language = bundle.scheme.readable, pen.language
    if "tree" not in fitted.state:
        return {"lines": fitted.rules(bundle.features, language)}
    state = fitted.state
    names = dict(zip(fitted.scheme.codes, fitted.scheme.names(language), strict=True))
    levels = [names[code] for code in fitted.scheme.bought_levels]
    rows = [
        {
            "level": level,
            "name": levels[level],
            "depth": round(0.12 + 0.5 * level / max(len(levels) - 1, 1), 3),
            "conditions": [c.text(bundle.features, language) for c in path],
            **fact,
        }
        for path, level, fact in zip(
            fitted.kind.conditions(fitted.scheme, state), state["level"], state["leaves"], strict=True
        )
    ]
    rows.sort(key=lambda row: (-row["level"], -row["value_mean"]))
    drawn = figures_model.tree(pen, state, levels, input_names(pen, bundle.features))
    return {"rows": rows, "figure": svg(drawn, "tree", pen.words["rules"]), "snapshots": bundle.facts["snapshots"]}


def _importance(bundle: Bundle, pen: Pen) -> dict[str, Any]:
    """Draw which inputs move the predictions; bundles of older versions do not know."""
    targets = bundle.facts.get("importance") or {}
    if not any(targets.values()):
        return {}
    currency = str(bundle.settings.get("currency") or "")
    drawn = figures_model.importance(pen, targets, input_names(pen, bundle.features), currency)
    return {"importance": svg(drawn, "importance", pen.words["importance"])}


def _residuals(given: Given, predictions: pd.DataFrame, pen: Pen) -> dict[str, Any]:
    """Draw by how much the value that followed differs from what was predicted, on the last test dates."""
    if "value_tiermodel" not in predictions:
        return {}
    known = predictions[predictions["value_tiermodel"].notna() & predictions["value"].notna()]
    panels = {
        str(day): (rows["value"].to_numpy(), rows["value_tiermodel"].to_numpy())
        for day, rows in list(known.groupby("as_of"))[-_DATES_DRAWN:]
    }
    if not panels:
        return {}
    currency = str(given.bundle.settings.get("currency") or "") if given.bundle else ""
    return {"residuals": svg(figures_model.residuals(pen, panels, currency), "residuals", pen.words["residuals"])}


def _churn(backtest: Mapping[str, Any] | None, predictions: pd.DataFrame | None, pen: Pen) -> dict[str, Any]:
    """Judge calibration from the backtest's figures, and draw it and the gains where predictions are given."""
    section: dict[str, Any] = {"rows": [], "figure": None}
    by_chance: dict[str, float | None] = {}
    for row in backtest["churn"] if backtest else []:
        if row["model"] == OURS:
            by_chance[row["as_of"]] = row.get("ece_by_chance")
            within = None if None in (row.get("ece_by_chance"), row["ece"]) else row["ece"] <= row["ece_by_chance"]
            section["rows"].append({**row, "within": within})
    if predictions is None:
        return section
    known = predictions[predictions["churn_tiermodel"].notna() & predictions["churned"].notna()]
    panels = {
        str(day): (rows["churned"].to_numpy(), rows["churn_tiermodel"].to_numpy(), by_chance.get(str(day)))
        for day, rows in list(known.groupby("as_of"))[-_DATES_DRAWN:]
    }
    if panels:
        section["figure"] = svg(figures_model.reliability(pen, panels), "reliability", pen.words["churn"])
    last = known[known["as_of"] == known["as_of"].max()]
    if last["churned"].any():
        section |= _gains(last, pen)
    return section


def _gains(last: pd.DataFrame, pen: Pen) -> dict[str, Any]:
    """Draw gains on one test date for the model and the baselines that rank customers at all."""
    names = [
        c for c in last.columns if c.startswith("churn_") and last[c].notna().all() and last[c].max() > last[c].min()
    ]
    names.sort(key=lambda c: c != f"churn_{OURS}")
    churned = last["churned"].to_numpy()
    models = {model_name(c.removeprefix("churn_"), pen.words): last[c].to_numpy() for c in names}
    return {
        "gains": svg(figures_model.gains(pen, churned, models), "gains", pen.words["found"]),
        "gains_date": last["as_of"].iloc[0],
        "found": float(found_at(churned, last["churn_tiermodel"].to_numpy(), np.array([0.2]))[0]),
    }


def _backtest(backtest: Mapping[str, Any], pen: Pen) -> dict[str, Any]:
    comparisons = [{**row, "verdict": _verdict(row)} for row in backtest["comparisons"] if row["target"] in _METRICS]
    verdicts = {
        target: {v: sum(c["verdict"] == v and c["target"] == target for c in comparisons) for v in _VERDICTS}
        for target in _METRICS
    }
    drawable = [c for c in comparisons if c["verdict"] != "not_measured" and c["against"] != "rate"]
    return {
        "dates": backtest["dates"],
        "verdicts": {target: counts for target, counts in verdicts.items() if sum(counts.values())},
        "tables": [_means(target, backtest[target], pen.words) for target in _METRICS if backtest[target]],
        "details": _details(comparisons, pen.words),
        "figure": svg(figures_model.differences(pen, drawable), "differences", pen.words["backtest"])
        if drawable
        else None,
    }


_VERDICTS = ("better", "unclear", "worse", "not_measured")


def _verdict(row: Mapping[str, Any]) -> str:
    """Say whether the interval of the difference lies wholly on one side of zero."""
    if any(row[k] is None for k in ("difference", "low", "high")):
        return "not_measured"
    low, high = (-row["high"], -row["low"]) if row["metric"] in LOWER_IS_BETTER else (row["low"], row["high"])
    return "better" if low > 0 else "worse" if high < 0 else "unclear"


def _means(target: str, rows: Sequence[Mapping[str, Any]], words: Mapping[str, str]) -> dict[str, Any]:
    """Average each model's figures over the test dates; a figure missing on a date is missing."""
    metrics = _METRICS[target]
    models = list(dict.fromkeys(row["model"] for row in rows))
    table = {m: [_mean([row.get(k) for row in rows if row["model"] == m]) for k in metrics] for m in models}
    best = [_best(metric, [table[m][i] for m in models]) for i, metric in enumerate(metrics)]
    return {
        "title": words[f"target_{target}"],
        "metrics": [(words[f"metric_{m}"], _direction(m, words)) for m in metrics],
        "rows": [
            (model_name(m, words), m == OURS, [(x, x is not None and x == best[i]) for i, x in enumerate(table[m])])
            for m in models
        ],
    }


def _direction(metric: str, words: Mapping[str, str]) -> str:
    return "" if metric == "bias" else words["lower" if metric in LOWER_IS_BETTER else "higher"]


def _mean(values: Sequence[float | None]) -> float | None:
    return None if None in values or not values else math.fsum(v for v in values if v is not None) / len(values)


def _best(metric: str, values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    if not known:
        return None
    if metric == "bias":
        return min(known, key=abs)
    return min(known) if metric in LOWER_IS_BETTER else max(known)


def _details(comparisons: Sequence[Mapping[str, Any]], words: Mapping[str, str]) -> list[dict[str, Any]]:
    """Give one row for each target, measure and baseline, with a cell for each date; above zero the model is better."""
    rows: dict[tuple[str, str, str], dict[str, Any]] = {}
    for c in comparisons:
        sign = -1 if c["metric"] in LOWER_IS_BETTER else 1
        row = rows.setdefault(
            (c["target"], c["metric"], c["against"]),
            {
                "what": f"{words['target_' + c['target']]} · {words.get('metric_' + c['metric'], c['metric'])}",
                "against": model_name(c["against"], words),
                "cells": {},
            },
        )
        low_high = sorted(sign * c[k] for k in ("low", "high")) if c["verdict"] != "not_measured" else None
        difference = None if c["difference"] is None else sign * c["difference"]
        row["cells"][c["as_of"]] = {"verdict": c["verdict"], "difference": difference, "ends": low_high}
    return list(rows.values())


def _scheme_name(code: str, language: str) -> str:
    """Give a preset's name; a scheme of the project's own is known by its code."""
    if code not in preset_names():
        return code
    scheme = load_preset(code, (30, 90, 365))  # the windows do not matter for the name
    return scheme.name_zh if language == "zh" else scheme.name_en


def _slices(rows: Sequence[Mapping[str, Any]], pen: Pen) -> dict[str, Any]:
    """Tell the figures by group of customers on the last test date."""
    last = max(row["as_of"] for row in rows)
    named = [{**row, "by": pen.words.get(f"by_{row['by']}", row["by"])} for row in rows if row["as_of"] == last]
    return {"as_of": last, "rows": named}


def _schemes(tiers: Sequence[Mapping[str, Any]], pen: Pen) -> dict[str, Any] | None:
    """Average each scheme's figures over the test dates, best order of value (Gini) first."""
    rows: list[dict[str, Any]] = []
    for code in dict.fromkeys(row["scheme"] for row in tiers):
        mine = [row for row in tiers if row["scheme"] == code]
        numbers = {
            key: _mean([row.get(key) for row in mine])
            for key in ("key_customers_share", "value_capture_top", "gini", "qwk", "moved_share", "reversed_share")
        }
        rows.append({
            "name": _scheme_name(code, pen.language),
            "ours": bool(mine[0].get("ours")),
            "monotone": sum(bool(row["monotone"]) for row in mine),
            "dates": len(mine),
            **numbers,
        })  # fmt: skip
    if not rows:
        return None
    rows.sort(key=lambda row: -(row["gini"] if row["gini"] is not None else -np.inf))
    points = {
        row["name"]: (row["key_customers_share"], row["value_capture_top"])
        for row in rows
        if None not in (row["key_customers_share"], row["value_capture_top"])
    }
    ours = next((row["name"] for row in rows if row["ours"]), "")
    figure = svg(figures_model.tournament(pen, points, ours), "schemes", pen.words["schemes"]) if points else None
    return {"rows": rows, "figure": figure}
