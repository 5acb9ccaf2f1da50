"""Backtest of schemes: the value that key levels capture, the order of levels by value, and the movement.

All schemes and baselines grade the same customers; differences have paired bootstrap intervals over customers. Tiers
are those before capacity.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
import pandas as pd

from tiermodel.arrays import Floats, Ints
from tiermodel.backtesting.tier_value import METRICS, Graded, filled, metric_interval, resampled_metrics
from tiermodel.bundle.bundle import Bundle
from tiermodel.config.project import Project
from tiermodel.errors import TierModelError
from tiermodel.evaluation.metrics import gini, quadratic_weighted_kappa
from tiermodel.features.frame import has_bought
from tiermodel.features.outcome import Labels
from tiermodel.tiers.fitted_scheme import FittedScheme, fit_scheme
from tiermodel.tiers.kinds.index_points import fit_points, points_of
from tiermodel.tiers.schemes.load import load_preset, preset_names
from tiermodel.tiers.stability.rule import replay
from tiermodel.words import words

__all__ = [
    "TierForecasts",
    "scheme_summary",
    "tier_results",
    "tier_verdict",
    "with_all_dates",
]


_COMPOSITE = "rfm_score"
_COMPARED = METRICS[:2]  # the third compares schemes whose key levels differ in size
_SUMMARY = ("key_customers_share", "value_capture_top", "gini", "qwk_value", "moved_share", "reversed_share")
_ALL = "all dates"


@dataclass(frozen=True)
class TierForecasts:
    """The tier forecast of the customers at a date, and the tier observed one outcome window later."""

    p: Floats
    """P(tier), shape (customers, levels)."""
    observed: Floats
    """The observed level; NaN if not known."""
    held: Floats
    """Whether the 90 % set of tiers covers the observed one (1, 0); NaN if not known."""

    @classmethod
    def of(
        cls, project: Project, panel: pd.DataFrame, snapshot: pd.DataFrame, x: Floats, bundle: Bundle
    ) -> TierForecasts:
        """Forecast the tiers of a snapshot with the inputs `x`, and look up the observed tiers in the panel."""
        p = bundle.tier.predict(x)
        low, high = bundle.tier.sets(p)
        end = snapshot["as_of"].iloc[0] + timedelta(Labels.of(project).delay_days)
        observed = _levels_at(panel, bundle.scheme, end, snapshot["customer_id"])
        return cls(p, observed, np.where(np.isnan(observed), np.nan, (low <= observed) & (observed <= high)))

    def figures(self) -> dict[str, float | None]:
        """Return the weighted kappa of the expected tier with the observed tier, and the coverage of the sets."""
        forecast = np.rint(self.p @ np.arange(self.p.shape[1])).astype(np.int64)
        known = ~np.isnan(self.observed)
        return {
            "qwk_forecast": _kappa(forecast, self.observed, self.p.shape[1]),
            "set_coverage": float(self.held[known].mean()) if known.any() else None,
        }


def tier_results(
    project: Project, panel: pd.DataFrame, day: date, bundle: Bundle, notes: list[str]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the metrics of the project's scheme and of every other preset, all fitted on what was known at the date.

    The second list compares the project's scheme with the baselines "same tier as now" and composite 0.2 R + 0.3 F +
    0.5 M, whose levels get the sizes of the scheme's levels; its key `resampled` is for `with_all_dates`.
    """
    now = pd.Timestamp(day)
    snapshot = panel[panel["as_of"] == now].reset_index(drop=True)
    value = snapshot["outcome_value"].to_numpy(dtype=np.float64)
    rows, graded = [], []
    for fitted in [bundle.scheme, *_others(project, panel, day, bundle, notes)]:
        row, figures = _figures(project, panel, day, fitted)
        rows.append(row | {"ours": fitted is bundle.scheme})
        graded.append(figures)
    rivals = _rivals(project, snapshot, graded[0], bundle, value)
    everyone = pd.Index(panel["customer_id"].unique())
    who = everyone.get_indexer(pd.Index(snapshot["customer_id"]))
    resampled = resampled_metrics([*graded, *rivals.values()], value, (who, len(everyone)), project.seed)
    ours = resampled[0]
    for n, row in enumerate(rows):
        _, row["value_capture_low"], row["value_capture_high"] = metric_interval(resampled[n][0])
        row |= {metric: metric_interval(resampled[n][k])[0] for k, metric in enumerate(METRICS)}
        if n:
            row["minus_ours"] = {
                metric: dict(
                    zip(("difference", "low", "high"), metric_interval(resampled[n][k] - ours[k]), strict=True)
                )
                for k, metric in enumerate(METRICS)
            }
    comparisons = [
        _compared(metric, against, str(day), ours[k] - resampled[n][k])
        for n, against in enumerate(rivals, start=len(rows))
        for k, metric in enumerate(_COMPARED)
    ]
    return rows, comparisons


def _compared(metric: str, against: str, day: str, resampled: Floats) -> dict[str, Any]:
    difference, low, high = metric_interval(resampled)
    return {
        "target": "tiers", "metric": metric, "against": against, "as_of": day,
        "difference": difference, "low": low, "high": high, "draws": len(resampled) - 1, "drawn": resampled,
    }  # fmt: skip


def with_all_dates(comparisons: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return all comparisons, with the mean over the dates for tiers: all dates have the same bootstrap draws."""
    found: dict[tuple[str, str], list[Floats]] = {}
    for c in comparisons:
        if "drawn" in c:
            found.setdefault((c["metric"], c["against"]), []).append(c["drawn"])
    means = [
        _compared(*key, _ALL, np.mean(resampled, axis=0)) for key, resampled in found.items() if len(resampled) > 1
    ]
    return [{k: v for k, v in c.items() if k != "drawn"} for c in (*comparisons, *means)]


def _others(
    project: Project, panel: pd.DataFrame, day: date, bundle: Bundle, notes: list[str]
) -> Iterator[FittedScheme]:
    """Yield every other preset, fitted on the snapshot; learned ones on past dates whose outcome was known.

    The attribute that the project's scheme learns as its label, if any, is hidden from them.
    """
    now, delay, label = pd.Timestamp(day), Labels.of(project).delay_days, bundle.scheme.scheme.label_feature
    known = panel[panel["as_of"] <= now].drop(columns=[] if label is None else [label])
    snapshot, history = known[known["as_of"] == now], known[known["as_of"] + pd.Timedelta(days=delay) <= now]
    for name in preset_names():
        scheme = load_preset(name, project.features.windows_days)
        if scheme.code == bundle.scheme.scheme.code:
            continue
        try:
            yield fit_scheme(scheme, snapshot, history, project.seed, delay)
        except TierModelError as error:  # a preset that cannot be fitted must not stop the backtest
            notes.append(f"{day}: {str(error).partition(';')[0]}")  # without the remedy: nobody asked for it


def _rivals(project: Project, snapshot: pd.DataFrame, ours: Graded, bundle: Bundle, value: Floats) -> dict[str, Graded]:
    """Return the baselines: levels as large as ours, by the amount of the window nearest the horizon, by composites.

    One composite reads the middle window, as its preset does, one the longest.
    """
    windows = sorted(project.features.windows_days)
    nearest = min(windows, key=lambda days: (abs(days - project.outcome.horizon_days), days))
    scores = {"same_tier_as_now": snapshot[f"net_amount_{nearest}d"].to_numpy(dtype=np.float64)}
    bought = snapshot[has_bought(snapshot)]
    middle = windows[(len(windows) - 1) // 2]
    for name, days in (("composite", middle), (f"composite_{windows[-1]}d", windows[-1])):
        index = load_preset(_COMPOSITE, [days])
        scores[name] = points_of(index, fit_points(index, bought), snapshot)  # type: ignore[arg-type]
    fitted = bundle.scheme.scheme
    keys, levels = _keys(bundle.scheme), len(fitted.levels)
    sizes = np.bincount(ours.level, minlength=levels)
    return {
        name: Graded.of(filled(np.nan_to_num(score, nan=-np.inf), sizes), keys, value, levels)
        for name, score in scores.items()
    }


def _keys(fitted: FittedScheme) -> list[int]:
    return [n for n, level in enumerate(fitted.scheme.levels) if level.key]


def _figures(project: Project, panel: pd.DataFrame, day: date, fitted: FittedScheme) -> tuple[dict[str, Any], Graded]:
    now, every = pd.Timestamp(day), timedelta(project.panel.every_days)
    levels = _levels_by_date(panel, fitted, [now - every * 2, now - every, now])
    snapshot = panel[panel["as_of"] == now].reset_index(drop=True)
    customers = snapshot["customer_id"]
    two_before, before, level = (levels[day].reindex(customers).to_numpy() for day in levels)
    value = snapshot["outcome_value"].to_numpy(dtype=np.float64)
    graded = Graded.of(level.astype(np.int64), _keys(fitted), value, len(fitted.scheme.levels))
    reached = {fitted.scheme.codes[k] for k in np.unique(graded.level)}
    means = [value[level == k].mean() for k in range(len(fitted.scheme.levels)) if np.any(level == k)]
    both = ~np.isnan(before)
    moved = level != before
    back = ~np.isnan(two_before) & both & moved & (level == two_before)
    moved_before = ~np.isnan(two_before) & (before != two_before)
    later = _levels_at(panel, fitted, now + timedelta(Labels.of(project).delay_days), customers)
    row = {
        "scheme": fitted.scheme.code,
        "as_of": str(day),
        "n": len(level),
        "rules": fitted.rule_count if fitted.readable is fitted else None,
        "key_customers_share": float(graded.key.mean()),
        "gini": gini(value, level),
        "monotone": bool(np.all(np.diff(means) >= 0)),
        "empty": [code for code in fitted.scheme.bought_levels if code not in reached],
        "levels": {code: int(np.count_nonzero(level == i)) for i, code in enumerate(fitted.scheme.codes)},
        "qwk": _kappa(graded.level, later, len(fitted.scheme.levels)),
        "moved_share": float(moved[both].mean()) if both.any() else None,
        "reversed_share": float(back[moved_before].mean()) if moved_before.any() else None,
    }
    if "learner" in fitted.state or "trials" in fitted.state:
        row["learner"] = fitted.state.get("learner", "tree")
    return row, graded


def _levels_by_date(
    panel: pd.DataFrame, fitted: FittedScheme, dates: list[pd.Timestamp]
) -> dict[pd.Timestamp, pd.Series]:
    """Return every customer's tier at consecutive dates, with the scheme's stability rule applied from the first."""
    rows = panel[panel["as_of"].isin(dates)]
    tier = pd.Series(replay(fitted, rows)[0].astype(float), index=rows["customer_id"])
    return {day: tier[(rows["as_of"] == day).to_numpy()] for day in dates}


def _levels_at(panel: pd.DataFrame, fitted: FittedScheme, when: pd.Timestamp, customers: pd.Series) -> Floats:
    """Return the customers' levels at another date; NaN where the panel lacks the customer or the date."""
    frame = panel[panel["as_of"] == when]
    if frame.empty:
        return np.full(len(customers), np.nan)
    return pd.Series(fitted.assign(frame)[0].astype(float), index=frame["customer_id"]).reindex(customers).to_numpy()


def _kappa(forecast: Ints, later: Floats, levels: int) -> float | None:
    known = ~np.isnan(later)
    return quadratic_weighted_kappa(later[known].astype(np.int64), forecast[known], levels) if known.any() else None


def scheme_summary(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return each scheme's mean metrics over the dates: the project's scheme first, then the highest Gini first.

    `better` and `worse` count the dates on which key levels capture more, or less, of the value of equally many best
    customers than those of the project's scheme, beyond chance; `monotone` and `empty` those on which value rises with
    the level, and on which nobody reaches some level.
    """
    codes = dict.fromkeys(row["scheme"] for row in rows)
    found = [_scheme_means(code, [row for row in rows if row["scheme"] == code]) for code in codes]
    return sorted(found, key=lambda row: (not row["scheme"].endswith(" (ours)"), -(row["gini"] or 0.0)))


def _scheme_means(code: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    ends = [row["minus_ours"]["value_capture_of_best"] for row in rows if "minus_ours" in row]
    return {
        "scheme": f"{code} (ours)" if rows[0]["ours"] else code,
        **{key: _mean([row[key] for row in rows]) for key in _SUMMARY},
        "better": sum(map(_above_zero, ends)),
        "worse": sum(e["high"] is not None and e["high"] < 0 for e in ends),
        "monotone": sum(row["monotone"] for row in rows),
        "empty": sum(bool(row["empty"]) for row in rows),
        "rules": rows[-1]["rules"],
    }


def _mean(values: Sequence[float | None]) -> float | None:
    return None if None in values else float(np.mean([value for value in values if value is not None]))


def _above_zero(interval: Mapping[str, Any]) -> bool:
    return interval["low"] is not None and interval["low"] > 0


def tier_verdict(comparisons: Sequence[Mapping[str, Any]], language: str = "en") -> list[str]:
    """Return, as text, whether the project's tiers beat every baseline beyond chance, over all dates together."""
    each = [c for c in comparisons if c["target"] == "tiers"]
    rows = [c for c in each if c["as_of"] == _ALL] or each
    say = words(language)
    verdict = say["policy_yes" if rows and all(map(_above_zero, rows)) else "policy_no"]
    return [say["details_tiers"].format(verdict), *(_against(c, language) for c in rows)]


def _against(c: Mapping[str, Any], language: str) -> str:
    say = words(language)
    metric, against = c["metric"], c["against"]
    if language == "zh":
        base, _, days = against.rpartition("_")
        if f"model_{base}" in say and days.endswith("d"):  # a composite over so many days
            against = say["verdict_days"].format(say[f"model_{base}"], days[:-1])
        metric, against = say[f"metric_{metric}"], say.get(f"model_{against}", against)
    told = say["details_minus"].format(metric=metric, against=against)
    if None in (c["difference"], c["low"], c["high"]):
        return told + say["not_measured"]
    day = say["all_dates"] if c["as_of"] == _ALL else c["as_of"]
    return f"{told}{c['difference']:+.4f} [{c['low']:+.4f}, {c['high']:+.4f}] ({day})"
