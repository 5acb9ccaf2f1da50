"""The report's sections on models: rules, importance, calibration, baselines, groups of customers, schemes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from tiermodel.backtesting.proposals import clearly_better
from tiermodel.backtesting.verdict import model_name
from tiermodel.bundle.bundle import Bundle
from tiermodel.bundle.model_card import level_lines, share_rows
from tiermodel.evaluation.baselines import OURS
from tiermodel.evaluation.metrics import LOWER_IS_BETTER
from tiermodel.reporting import charts_model, figures_model
from tiermodel.reporting.charts import Chart
from tiermodel.reporting.figures import FigureStyle
from tiermodel.reporting.figures_model import found_at
from tiermodel.reporting.inputs import ReportInputs
from tiermodel.segments.profiles import segment_lines
from tiermodel.tiers.schemes.load import load_preset, preset_names
from tiermodel.words import in_language, words

__all__ = ["model_sections", "scheme_name", "verdict_on"]


_METRICS = {
    "churn": ("auc", "average_precision", "log_loss", "brier", "ece"),
    "value": ("gini", "spearman", "mae", "rmse", "bias", "decile_mape"),
}
_VERDICTS = ("better", "unclear", "worse", "not_measured")
_SCHEME_FIGURES = ("key_customers_share", "value_capture_top", "gini", "qwk", "moved_share", "reversed_share")
_DATES_DRAWN = 3
_DRAWN = ("churn_logistic_rfm", "churn_mbg_nbd")


def model_sections(inputs: ReportInputs, language: str) -> dict[str, Any]:
    """Return the sections that the bundle, the backtest and its predictions allow, by name."""
    wording = words(language)
    sections: dict[str, Any] = {}
    if inputs.bundle is not None:
        sections["rules"] = _rules(inputs.bundle, language)
        if found := _importance(inputs.bundle, inputs.currency, language):
            sections["importance"] = found
        if lines := segment_lines(inputs.bundle.segments, inputs.bundle.features, language):
            sections["segments"] = lines
        if rows := share_rows(inputs.bundle.facts, inputs.bundle.scheme.scheme, language):
            sections["shares"] = rows
    if inputs.backtest is not None:
        sections["backtest"] = _backtest(inputs.backtest, language)
        sections["schemes"] = _schemes(inputs.backtest["tiers"], language)
        if slices := inputs.backtest.get("slices"):
            sections["slices"] = _slices(slices, wording)
    if inputs.backtest is not None or inputs.predictions is not None:
        sections["churn"] = _churn(inputs.backtest, inputs.predictions, wording)
    if inputs.predictions is not None and (found := _residuals(inputs.predictions, inputs.currency, wording)):
        sections["residuals"] = found
    return sections


def _rules(bundle: Bundle, language: str) -> dict[str, Any]:
    """Return a learned scheme as a table and a tree; any other as the lines of its rules."""
    fitted = bundle.scheme.readable
    if "tree" not in fitted.state:
        return {"imitated": "", "lines": fitted.rules(bundle.features, language)}
    state, codes = fitted.state, fitted.scheme.codes
    levels = [codes.index(code) for code in fitted.scheme.bought_levels]
    names = fitted.scheme.names(language)
    rows = [
        {
            "tier": levels[level],
            "name": names[levels[level]],
            "conditions": [c.text(bundle.features, language) for c in path],
            **fact,
        }
        for path, level, fact in zip(
            fitted.kind.conditions(fitted.scheme, state), state["level"], state["leaves"], strict=True
        )
    ]
    told = {name: in_language(language, f.zh, f.en) for name, f in bundle.features.items()}
    ends = [node for node, name in enumerate(state["tree"]["feature"]) if name is None]  # rows have them in this order
    tree = _branch(state["tree"], 0, "", dict(zip(ends, rows, strict=True)), told, words(language))
    rows.sort(key=lambda row: (-row["tier"], -row["value_mean"]))
    imitated = bundle.scheme.surrogate_line(language)
    return {"imitated": imitated, "rows": rows, "tree": tree, "snapshots": bundle.facts["snapshots"]}


def _branch(
    nodes: Mapping[str, Any],
    node: int,
    condition: str,
    leaves: Mapping[int, Mapping[str, Any]],
    told: Mapping[str, str],
    wording: Mapping[str, Any],
) -> dict[str, Any]:
    """Return a node of the tree with the condition that leads to it: two branches, or the leaf's tier and facts."""
    name = nodes["feature"][node]
    if name is None:
        return {"condition": condition, "leaf": leaves[node]}
    label, sides = told.get(name, name), figures_model.sides(nodes["threshold"][node], wording)
    parts = [_branch(nodes, nodes[side][node], f"{label} {text}", leaves, told, wording) for side, text in sides]
    return {"condition": condition, "parts": parts}


def _importance(bundle: Bundle, currency: str, language: str) -> list[Chart]:
    """Return the inputs that move each target's predictions most; nothing for a bundle whose facts lack them."""
    wording, style = words(language), FigureStyle(language, browser=True)
    names = figures_model.input_names(style, bundle.features)
    return [
        charts_model.importance(target, rows, names, wording, currency if target == "value" else wording["log_odds"])
        for target, rows in (bundle.facts.get("importance") or {}).items()
        if rows
    ]


def _last_dates(predictions: pd.DataFrame, label: str, predicted: str) -> dict[str, pd.DataFrame]:
    """Return the rows with label and prediction by date, for the last test dates, earliest first."""
    known = predictions[predictions[predicted].notna() & predictions[label].notna()]
    return {str(day): rows for day, rows in list(known.groupby("as_of"))[-_DATES_DRAWN:]}


def _residuals(predictions: pd.DataFrame, currency: str, wording: Mapping[str, str]) -> list[Chart]:
    """Return observed minus predicted value on the last test dates."""
    if "value_tiermodel" not in predictions:
        return []
    dates = _last_dates(predictions, "value", "value_tiermodel")
    return [
        charts_model.residuals(day, rows["value"].to_numpy(), rows["value_tiermodel"].to_numpy(), wording, currency)
        for day, rows in dates.items()
    ]


def _churn(
    backtest: Mapping[str, Any] | None, predictions: pd.DataFrame | None, wording: Mapping[str, str]
) -> dict[str, Any]:
    """Return the calibration of churn risk by test date, with charts of it and of the gains from the predictions."""
    section: dict[str, Any] = {"rows": [], "charts": []}
    by_chance: dict[str, float | None] = {}
    for row in backtest["churn"] if backtest else []:
        if row["model"] == OURS:
            by_chance[row["as_of"]] = row.get("ece_by_chance")
            within = None if None in (row.get("ece_by_chance"), row["ece"]) else row["ece"] <= row["ece_by_chance"]
            section["rows"].append({**row, "within": within})
    if predictions is None:
        return section
    dates = _last_dates(predictions, "churned", "churn_tiermodel")
    section["charts"] = [
        charts_model.reliability(
            day, rows["churned"].to_numpy(), rows["churn_tiermodel"].to_numpy(), by_chance.get(day), wording
        )
        for day, rows in dates.items()
    ]
    if dates:
        last = list(dates.values())[-1]
        section |= _gains(last, wording) if last["churned"].any() else {}
    return section


def _gains(last: pd.DataFrame, wording: Mapping[str, str]) -> dict[str, Any]:
    """Return the gains on one test date of the model and of the first baselines that tell customers apart."""
    names = [
        c for c in last.columns if c.startswith("churn_") and last[c].notna().all() and last[c].max() > last[c].min()
    ]
    names.sort(key=lambda c: (c != f"churn_{OURS}", c not in _DRAWN))
    churned, day = last["churned"].to_numpy(), str(last["as_of"].iloc[0])
    models = {model_name(c.removeprefix("churn_"), wording): last[c].to_numpy() for c in names[:3]}
    return {
        "gains": charts_model.gains(day, churned, models, wording),
        "gains_date": day,
        "found": float(found_at(churned, last["churn_tiermodel"].to_numpy(), np.array([0.2]))[0]),
    }


def _backtest(backtest: Mapping[str, Any], language: str) -> dict[str, Any]:
    """Return the means over the test dates, and the verdicts on every comparison with a baseline."""
    wording = words(language)
    comparisons = [{**row, "verdict": verdict_on(row)} for row in backtest["comparisons"] if row["target"] in _METRICS]
    return {
        "dates": backtest["dates"],
        "levels": [
            f"{row['as_of']}: {line}"
            for row in backtest.get("level", [])  # a file of an earlier version has none
            for line in level_lines(row, language)
        ],
        "verdicts": _verdicts(comparisons),
        "tables": [_means(target, backtest[target], wording) for target in _METRICS if backtest[target]],
        "details": _details(comparisons, wording),
        "charts": _differences(comparisons, wording),
    }


def _verdicts(comparisons: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """Return the number of comparisons by target and verdict; targets without a comparison are left out."""
    counts = Counter((c["target"], c["verdict"]) for c in comparisons)
    verdicts = {target: {verdict: counts[target, verdict] for verdict in _VERDICTS} for target in _METRICS}
    return {target: by_verdict for target, by_verdict in verdicts.items() if any(by_verdict.values())}


def _differences(comparisons: Sequence[Mapping[str, Any]], wording: Mapping[str, str]) -> list[Chart]:
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for c in comparisons:
        if c["verdict"] != "not_measured" and c["against"] != "rate":
            groups.setdefault((c["target"], c["metric"]), []).append(c)
    return [charts_model.differences(*key, rows, wording) for key, rows in groups.items()]


def verdict_on(row: Mapping[str, Any]) -> str:
    """Return better or worse where the interval of the difference lies on one side of zero, else unclear."""
    if any(row[k] is None for k in ("difference", "low", "high")):
        return "not_measured"
    low, high = (-row["high"], -row["low"]) if row["metric"] in LOWER_IS_BETTER else (row["low"], row["high"])
    return "better" if low > 0 else "worse" if high < 0 else "unclear"


def _means(target: str, rows: Sequence[Mapping[str, Any]], words: Mapping[str, str]) -> dict[str, Any]:
    """Return each model's mean metrics over the test dates; None where a date lacks the metric."""
    metrics = _METRICS[target]
    models = list(dict.fromkeys(row["model"] for row in rows))
    table = {m: [_mean([row.get(k) for row in rows if row["model"] == m]) for k in metrics] for m in models}
    best = list(map(_best, metrics, zip(*table.values(), strict=True)))
    return {
        "title": words[f"target_{target}"],
        "metrics": [(words[f"metric_{m}"], _direction(m, words)) for m in metrics],
        "rows": [(model_name(m, words), m == OURS, _cells(values, best)) for m, values in table.items()],
    }


def _cells(values: Sequence[float | None], best: Sequence[float | None]) -> list[tuple[float | None, bool]]:
    """Return each value, and whether it is the best of its metric."""
    return [(x, x is not None and x == top) for x, top in zip(values, best, strict=True)]


def _direction(metric: str, words: Mapping[str, str]) -> str:
    return "" if metric == "bias" else words["lower" if metric in LOWER_IS_BETTER else "higher"]


def _mean(values: Sequence[float | None]) -> float | None:
    return None if None in values or not values else math.fsum(v for v in values if v is not None) / len(values)


def _best(metric: str, values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    if metric == "bias":
        return min(known, key=abs, default=None)
    return (min if metric in LOWER_IS_BETTER else max)(known, default=None)


def _details(comparisons: Sequence[Mapping[str, Any]], words: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return one row for each target, metric and baseline, one cell for each date; above zero the model is better."""
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


def scheme_name(code: str, language: str) -> str:
    """Return the name of a preset, or the code of a project's own scheme."""
    if code not in preset_names():
        return code
    scheme = load_preset(code, (30, 90, 365))  # the windows do not matter for the name
    return in_language(language, scheme.name_zh, scheme.name_en)


def _slices(rows: Sequence[Mapping[str, Any]], wording: Mapping[str, str]) -> dict[str, Any]:
    """Return the metrics by group of customers on the last test date."""
    last = max(row["as_of"] for row in rows)
    named = [{**row, "by": wording.get(f"by_{row['by']}", row["by"])} for row in rows if row["as_of"] == last]
    return {"as_of": last, "rows": named}


def _scheme_means(code: str, rows: Sequence[Mapping[str, Any]], language: str) -> dict[str, Any]:
    """Return the mean metrics of one scheme over its test dates."""
    return {
        "code": code,
        "name": scheme_name(code, language),
        "ours": bool(rows[0].get("ours")),
        "monotone": sum(bool(row["monotone"]) for row in rows),
        "dates": len(rows),
        **{key: _mean([row.get(key) for row in rows]) for key in _SCHEME_FIGURES},
    }


def _schemes(tiers: Sequence[Mapping[str, Any]], language: str) -> dict[str, Any] | None:
    """Return each scheme's mean metrics over the test dates, highest Gini first; None without schemes."""
    codes = dict.fromkeys(row["scheme"] for row in tiers)
    rows = [_scheme_means(code, [row for row in tiers if row["scheme"] == code], language) for code in codes]
    if not rows:
        return None
    better = clearly_better(tiers)
    rows.sort(key=lambda row: -(row["gini"] if row["gini"] is not None else -np.inf))
    rows = [{**row, "rank": k, "better": row["code"] in better, "proposed": row["code"] in better[:1]}
            for k, row in enumerate(rows, 1)]  # fmt: skip
    return {"rows": rows, "chart": charts_model.schemes(rows, words(language))}
