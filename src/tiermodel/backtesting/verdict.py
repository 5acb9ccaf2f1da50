"""What a backtest says in ten lines: are risk, value and tiers better than simple baselines, and what to change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

from tiermodel.backtesting.proposals import proposed_scheme, scheme_faults
from tiermodel.evaluation.metrics import LOWER_IS_BETTER
from tiermodel.words import words

__all__ = ["comparison_words", "losing", "model_name", "named_comparison", "tier_lines", "verdict_lines"]

OURS, ALL = "tiermodel", "all dates"
_SHARES = ("key_customers_share", "value_capture_top", "moved_share", "reversed_share")
_FORECASTS = {"churn": "log_loss", "value": "gini"}


def losing(comparison: Mapping[str, Any]) -> bool:
    """Return whether a baseline is better than the model beyond chance."""
    return _sure(comparison, -1)


def _sure(comparison: Mapping[str, Any], sign: int) -> bool:
    """Return whether the model is better (1) or worse (-1) beyond chance."""
    if comparison["low"] is None:
        return False
    low, high = sorted((_gain(comparison, comparison["low"]), _gain(comparison, comparison["high"])))
    return low > 0 if sign > 0 else high < 0


def _gain(comparison: Mapping[str, Any], value: float) -> float:
    """Return a difference as it is meant: above zero is better."""
    return -value if comparison["metric"] in LOWER_IS_BETTER else value


def comparison_words(comparison: Mapping[str, Any], language: str) -> str:
    """Return who is better than whom, by how much, with the interval of that; signs and words agree.

    >>> loss = {"metric": "log_loss", "against": "logistic_all", "difference": 0.036, "low": 0.010, "high": 0.065}
    >>> comparison_words(loss, "en")
    'logistic on all features is better by 0.0360 [0.0100, 0.0650]'
    """
    say = words(language)
    against = model_name(comparison["against"], say)
    ends = [_gain(comparison, comparison[name]) for name in ("difference", "low", "high")]
    better = ends[0] >= 0
    by, low, high = (value if better else -value for value in ends)
    said = say["verdict_ours_better" if better else "verdict_theirs_better"]
    return said.format(against=against, by=by, low=min(low, high), high=max(low, high))


def named_comparison(comparison: Mapping[str, Any], language: str) -> dict[str, str]:
    """Return what is compared where: target, metric and date; in English by the names that the results file has."""
    say, target, metric, day = words(language), *(str(comparison[key]) for key in ("target", "metric", "as_of"))
    if language != "zh":
        return {"target": target, "metric": metric, "day": day}
    day = say["all_dates"] if day == ALL else day
    return {"target": say[f"target_{target}"], "metric": say.get(f"metric_{metric}", metric), "day": day}


def model_name(name: str, say: Mapping[str, str]) -> str:
    """Return the name of a model or baseline in words, given the texts of a language.

    >>> model_name("composite_365d", words("en"))
    'RFM composite (365 d)'
    """
    base, _, days = name.rpartition("_")
    if days.endswith("d") and days[:-1].isdigit() and f"model_{base}" in say:
        return say["verdict_days"].format(say[f"model_{base}"], days[:-1])
    return say.get(f"model_{name}", name)


def verdict_lines(results: Mapping[str, Any], language: str) -> list[str]:
    """Return the verdict of a backtest, ten lines or about: `results` is what `backtest` returns and writes."""
    say = words(language)
    dates, ours = results["dates"], [row for row in results["tiers"] if row["ours"]]
    head = {"project": results["project"], "n": len(dates), "first": dates[0], "last": dates[-1]}
    lines = [say["verdict_head"].format(**head, customers=max(row["n"] for row in ours), days=results["horizon_days"])]
    lines += [_forecast(results, target, language) for target in _FORECASTS if results[target]]
    rows = [row for row in results["churn"] if row["model"] == OURS]
    held = sum(row["ece"] <= row["ece_by_chance"] for row in rows)
    lines += [say["verdict_calibration"].format(held=held, n=len(rows))] if rows else []
    lines += tier_lines(results, language)
    faults = scheme_faults(results["tiers"], language)
    lines += [say["verdict_faults"].format(n=len(faults), first=faults[0])] if faults else []
    lines.append(proposed_scheme(results["tiers"], language))
    unseen = [row for row in results["level"] if not row["year_seen"]]
    if unseen:
        lines.append(say["verdict_season"].format(n=len(unseen), **unseen[-1]))
    return lines


def _forecast(results: Mapping[str, Any], target: str, language: str) -> str:
    """Return how the forecasts of a target did beside the baseline that was best on average."""
    say, metric = words(language), _FORECASTS[target]
    means = _means(results[target], metric)
    ours = means.pop(OURS)
    pick = min if metric in LOWER_IS_BETTER else max
    best = pick(means, key=lambda name: means[name])
    each = [c for c in results["comparisons"] if c["target"] == target and c["metric"] == metric]
    days = dict.fromkeys(c["as_of"] for c in each if c["as_of"] != ALL)
    won = sum(all(_sure(c, 1) for c in each if c["as_of"] == day) for day in days)
    lost = sum(any(losing(c) for c in each if c["as_of"] == day) for day in days)
    figures = {"ours": ours, "best": model_name(best, say), "theirs": means[best]}
    return say[f"verdict_{target}"].format(**figures, won=won, lost=lost, n=len(days))


def _means(rows: Sequence[Mapping[str, Any]], metric: str) -> dict[str, float]:
    """Return the mean of a metric over the dates, by model, of those that have it at every date."""
    values = dict[str, list[float]]()
    for row in rows:
        if row[metric] is not None:
            values.setdefault(row["model"], []).append(row[metric])
    return {name: sum(found) / len(found) for name, found in values.items() if len(found) == len(values[OURS])}


def tier_lines(results: Mapping[str, Any], language: str) -> Iterator[str]:
    """Yield what the tiers brought, beside grading by what was just spent and by the RFM composite; how they moved."""
    say, ours = words(language), [row for row in results["tiers"] if row.get("ours")]
    mean = {key: _mean(ours, key) for key in _SHARES}
    if mean["value_capture_top"] is not None:
        yield say["verdict_tiers"].format(**mean)
    rows = [c for c in results.get("comparisons", []) if c["target"] == "tiers" and c["metric"] == "value_capture_top"]
    pooled = [c for c in rows if c["as_of"] == ALL] or rows
    for against in ("same_tier_as_now", "composite"):
        for c in (c for c in pooled if c["against"] == against and c["low"] is not None):
            sure = say["verdict_better" if _sure(c, 1) else "verdict_worse" if losing(c) else "verdict_chance"]
            points = {name: 100 * c[name] for name in ("difference", "low", "high")}
            yield say[f"verdict_against_{against}"].format(**points, sure=sure)
    if mean["moved_share"] is not None:
        yield say["verdict_moved"].format(moved=mean["moved_share"], back=mean["reversed_share"] or 0.0)


def _mean(rows: Sequence[Mapping[str, Any]], key: str) -> float | None:
    """Return the mean of a figure over the dates at which it is known; None where it is at none."""
    known = [row[key] for row in rows if row.get(key) is not None]
    return fmean(known) if known else None
