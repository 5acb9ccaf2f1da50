"""Judge schemes on later data: the value that their top levels captured, its order, and how much they move.

Every scheme is judged on the same customers, and so are the baselines; differences come with paired bootstrap intervals
over customers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tiermodel.bundle import Bundle
from tiermodel.config import Project
from tiermodel.errors import TierModelError
from tiermodel.features.outcome import outcome_span
from tiermodel.models.metrics import gini, mean_ranks, quadratic_weighted_kappa
from tiermodel.tiers.assign import FittedScheme, fit_scheme
from tiermodel.tiers.lessons import rank_filled
from tiermodel.tiers.points import fit_points, points_of
from tiermodel.tiers.scheme import load_preset, preset_names
from tiermodel.tiers.stability import replay

__all__ = ["TiersAhead", "draws_for", "scheme_summary", "tier_results", "tier_verdict", "with_all_dates"]

Floats = NDArray[np.float64]
DRAWS_AT_MOST, _DRAWS_AT_LEAST, _DRAWN_ROWS = 1_000, 200, 10_000_000
_CELLS = 4_000_000  # of counts drawn at a time
_COMPOSITE = "rfm_score"
_METRICS = ("value_capture_top", "qwk_value", "value_capture_of_best")
_COMPARED = _METRICS[:2]  # the third is for schemes whose key levels are not equally large
_SUMMARY = ("key_customers_share", "value_capture_top", "gini", "qwk_value", "moved_share", "reversed_share")
_ALL = "all dates"


@dataclass(frozen=True)
class _Graded:
    """Hold each customer's level, whether it is a key level, and the level that the value which followed would give.

    The second has levels as large as the first.
    """

    level: NDArray[np.int64]
    key: NDArray[np.bool_]
    deserved: NDArray[np.int64]

    @classmethod
    def of(cls, level: NDArray[np.int64], keys: Sequence[int], value: Floats, levels: int) -> _Graded:
        return cls(level, np.isin(level, keys), _filled(value, np.bincount(level, minlength=levels)))

    def columns(self, value: Floats) -> Floats:
        """Give what both figures are made of, so that a weighted sum over customers is all that a draw needs."""
        x, y = self.level.astype(np.float64), self.deserved.astype(np.float64)
        best = np.isin(self.deserved, np.unique(self.level[self.key])) * value
        return np.column_stack([self.key * value, best, (x - y) ** 2, x * x + y * y, x, y])


@dataclass(frozen=True)
class TiersAhead:
    """Hold, of the customers at a date, the chances of the tiers to come, and the tier that came: NaN if not known."""

    p: Floats
    came: Floats
    held: Floats
    """Whether the set of tiers holds the one that came (1, 0); NaN if not known."""

    @classmethod
    def of(cls, project: Project, panel: pd.DataFrame, snapshot: pd.DataFrame, x: Floats, bundle: Bundle) -> TiersAhead:
        """Forecast the tiers of a snapshot, whose inputs are `x`, and look in the panel for what they came to be."""
        p = bundle.tier.predict(x)
        low, high = bundle.tier.sets(p)
        end = snapshot["as_of"].iloc[0] + timedelta(outcome_span(project))
        came = _levels_at(panel, bundle.scheme, end, snapshot["customer_id"])
        return cls(p, came, np.where(np.isnan(came), np.nan, (low <= came) & (came <= high)))

    def figures(self) -> dict[str, float | None]:
        """Give the agreement of the likely tier with the one that came, and the share of sets that held it."""
        forecast = np.rint(self.p @ np.arange(self.p.shape[1])).astype(np.int64)
        known = ~np.isnan(self.came)
        return {
            "qwk_forecast": _kappa(forecast, self.came, self.p.shape[1]),
            "set_coverage": float(self.held[known].mean()) if known.any() else None,
        }


def draws_for(customers: int) -> int:
    """Say how many draws an interval is made of: fewer, the more customers there are."""
    return int(np.clip(_DRAWN_ROWS / max(customers, 1), _DRAWS_AT_LEAST, DRAWS_AT_MOST))


def tier_results(
    project: Project, panel: pd.DataFrame, day: date, bundle: Bundle, notes: list[str]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Give figures for the project's scheme and every other preset, all fitted on what was known at the date.

    The second list compares the project's scheme with "same tier as now" and with the composite 0.2 R + 0.3 F + 0.5 M,
    whose levels are made as large as its own; `drawn` in it is for `with_all_dates`.
    """
    now = pd.Timestamp(day)
    snapshot = panel[panel["as_of"] == now].reset_index(drop=True)
    value = snapshot["outcome_value"].to_numpy(dtype=np.float64)
    rows, judged = [], []
    for fitted in [bundle.scheme, *_others(project, panel, day, bundle, notes)]:
        row, figures = _figures(project, panel, day, fitted)
        rows.append(row | {"ours": fitted is bundle.scheme})
        judged.append(figures)
    rivals = _rivals(project, snapshot, judged[0], bundle, value)
    everyone = pd.Index(panel["customer_id"].unique())
    who = everyone.get_indexer(pd.Index(snapshot["customer_id"]))
    drawn = _drawn([*judged, *rivals.values()], value, (who, len(everyone)), project.seed)
    ours = drawn[0]
    for n, row in enumerate(rows):
        _, row["value_capture_low"], row["value_capture_high"] = _interval(drawn[n][0])
        row |= {metric: _interval(drawn[n][k])[0] for k, metric in enumerate(_METRICS)}
        if n:
            row["minus_ours"] = {
                metric: dict(zip(("difference", "low", "high"), _interval(drawn[n][k] - ours[k]), strict=True))
                for k, metric in enumerate(_METRICS)
            }
    comparisons = []
    for n, against in enumerate(rivals, start=len(rows)):
        for k, metric in enumerate(_COMPARED):
            comparisons.append(_compared(metric, against, str(day), ours[k] - drawn[n][k]))
    return rows, comparisons


def _compared(metric: str, against: str, day: str, drawn: Floats) -> dict[str, Any]:
    difference, low, high = _interval(drawn)
    return {
        "target": "tiers", "metric": metric, "against": against, "as_of": day,
        "difference": difference, "low": low, "high": high, "draws": len(drawn) - 1, "drawn": drawn,
    }  # fmt: skip


def with_all_dates(comparisons: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Add, to the comparisons of tiers, the mean difference over the dates; customers were drawn alike on each."""
    found: dict[tuple[str, str], list[Floats]] = {}
    for c in comparisons:
        if "drawn" in c:
            found.setdefault((c["metric"], c["against"]), []).append(c["drawn"])
    means = [_compared(*key, _ALL, np.mean(drawn, axis=0)) for key, drawn in found.items() if len(drawn) > 1]
    return [{k: v for k, v in c.items() if k != "drawn"} for c in (*comparisons, *means)]


def _others(
    project: Project, panel: pd.DataFrame, day: date, bundle: Bundle, notes: list[str]
) -> Iterator[FittedScheme]:
    """Fit every other preset on the snapshot, and learned ones on past dates whose outcome was known.

    None is told what the project's scheme learns from.
    """
    now, span, label = pd.Timestamp(day), outcome_span(project), bundle.scheme.scheme.kept_out
    known = panel[panel["as_of"] <= now].drop(columns=[] if label is None else [label])
    snapshot, history = known[known["as_of"] == now], known[known["as_of"] + pd.Timedelta(days=span) <= now]
    for name in preset_names():
        scheme = load_preset(name, project.features.windows_days)
        if scheme.code == bundle.scheme.scheme.code:
            continue
        try:
            yield fit_scheme(scheme, snapshot, history, project.seed, span)
        except TierModelError as error:  # not the project's scheme: leave it out, and say so
            notes.append(f"{day}: {error}")


def _rivals(
    project: Project, snapshot: pd.DataFrame, ours: _Graded, bundle: Bundle, value: Floats
) -> dict[str, _Graded]:
    """Grade by rules that need no learning, into levels as large as ours: the value of the last such span, composites.

    The composite reads the middle window, as its preset does, and the longest.
    """
    windows = sorted(project.features.windows_days)
    nearest = min(windows, key=lambda days: (abs(days - project.outcome.horizon_days), days))
    scores = {"same_tier_as_now": snapshot[f"net_amount_{nearest}d"].to_numpy(dtype=np.float64)}
    bought = snapshot[snapshot["days_since_last"].notna()]
    middle = windows[(len(windows) - 1) // 2]
    for name, days in (("composite", middle), (f"composite_{windows[-1]}d", windows[-1])):
        index = load_preset(_COMPOSITE, [days])
        scores[name] = points_of(index, fit_points(index, bought), snapshot)  # type: ignore[arg-type]
    fitted = bundle.scheme.scheme
    keys, levels = _keys(bundle.scheme), len(fitted.levels)
    sizes = np.bincount(ours.level, minlength=levels)
    return {
        name: _Graded.of(_filled(np.nan_to_num(score, nan=-np.inf), sizes), keys, value, levels)
        for name, score in scores.items()
    }


def _filled(score: Floats, sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Fill levels of these sizes from the bottom by a score; equal scores share a level."""
    shares = [float(size) / len(score) for size in sizes]
    return rank_filled(mean_ranks(score) / len(score), shares)


def _keys(fitted: FittedScheme) -> list[int]:
    return [n for n, level in enumerate(fitted.scheme.levels) if level.key]


def _figures(project: Project, panel: pd.DataFrame, day: date, fitted: FittedScheme) -> tuple[dict[str, Any], _Graded]:
    now, every = pd.Timestamp(day), timedelta(project.panel.every_days)
    graded = _graded(panel, fitted, [now - every * 2, now - every, now])
    snapshot = panel[panel["as_of"] == now].reset_index(drop=True)
    customers = snapshot["customer_id"]
    two_before, before, level = (graded[day].reindex(customers).to_numpy() for day in graded)
    value = snapshot["outcome_value"].to_numpy(dtype=np.float64)
    judged = _Graded.of(level.astype(np.int64), _keys(fitted), value, len(fitted.scheme.levels))
    means = [value[level == k].mean() for k in range(len(fitted.scheme.levels)) if np.any(level == k)]
    both = ~np.isnan(before)
    moved = level != before
    back = ~np.isnan(two_before) & both & moved & (level == two_before)
    moved_before = ~np.isnan(two_before) & (before != two_before)
    later = _levels_at(panel, fitted, now + timedelta(outcome_span(project)), customers)
    row = {
        "scheme": fitted.scheme.code,
        "as_of": str(day),
        "n": len(level),
        "rules": fitted.rule_count if fitted.readable is fitted else None,
        "key_customers_share": float(judged.key.mean()),
        "gini": gini(value, level),
        "monotone": bool(np.all(np.diff(means) >= 0)),
        "levels": {code: int(np.count_nonzero(level == i)) for i, code in enumerate(fitted.scheme.codes)},
        "qwk": _kappa(judged.level, later, len(fitted.scheme.levels)),
        "moved_share": float(moved[both].mean()) if both.any() else None,
        "reversed_share": float(back[moved_before].mean()) if moved_before.any() else None,
    }
    if "learner" in fitted.state or "trials" in fitted.state:
        row["learner"] = fitted.state.get("learner", "tree")
    return row, judged


def _graded(panel: pd.DataFrame, fitted: FittedScheme, dates: list[pd.Timestamp]) -> dict[pd.Timestamp, pd.Series]:
    """Give every customer's tier at some dates in a row, the stability rule of the scheme applied from the first on."""
    rows = panel[panel["as_of"].isin(dates)]
    tier = pd.Series(replay(fitted, rows)[0].astype(float), index=rows["customer_id"])
    return {day: tier[(rows["as_of"] == day).to_numpy()] for day in dates}


def _drawn(judged: Sequence[_Graded], value: Floats, who: tuple[NDArray[np.int64], int], seed: int) -> list[Floats]:
    """Give `_METRICS` of each for all customers, then for customers drawn again, shape (metrics, 1 + draws).

    All are measured on the same draws, so that what they share cancels in a difference. `who` numbers the rows'
    customers among so many: the same customers are drawn at other dates. NaN where not defined.
    """
    place, n = who
    rng = np.random.default_rng(seed)
    columns = [np.column_stack([value, np.ones(len(value)), j.columns(value)]) for j in judged]
    left = draws_for(n)
    found = [[_metrics(np.ones((1, len(value))), of_one)] for of_one in columns]
    while left:
        size = min(max(1, _CELLS // n), left)
        times = np.stack([np.bincount(rng.integers(0, n, n), minlength=n)[place].astype(float) for _ in range(size)])
        for parts, of_one in zip(found, columns, strict=True):
            parts.append(_metrics(times, of_one))
        left -= size
    return [np.hstack(parts) for parts in found]


def _metrics(times: Floats, columns: Floats) -> Floats:
    """Give `_METRICS`, shape (metrics, draws), where each customer counts so many times."""
    total, n, captured, best, missed, squares, x, y = (times @ columns).T
    chance = squares - 2 * x * y / n
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.array([
            np.where(total > 0, captured / total, np.nan),
            np.where(chance > 0, 1 - missed / chance, np.nan),
            np.where(best > 0, captured / best, np.nan),
        ])  # fmt: skip


def _interval(drawn: Floats) -> tuple[float | None, float | None, float | None]:
    """Give the figure itself and its 95 % interval; None where a draw does not define it."""
    if np.isnan(drawn).any():
        return (None if np.isnan(drawn[0]) else float(drawn[0])), None, None
    low, high = np.quantile(drawn[1:], [0.025, 0.975])
    return float(drawn[0]), float(low), float(high)


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


def scheme_summary(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Average each scheme's figures over the dates: the project's scheme first, then by the order of value (Gini).

    `of_best` is the value captured over that of as many best customers; `better` and `worse` count the dates on which
    it is above, or below, the project's beyond chance.
    """
    found = []
    for code in dict.fromkeys(row["scheme"] for row in rows):
        mine = [row for row in rows if row["scheme"] == code]
        ends = [row["minus_ours"]["value_capture_of_best"] for row in mine if "minus_ours" in row]
        mean = {
            key: None if any(row[key] is None for row in mine) else float(np.mean([row[key] for row in mine]))
            for key in _SUMMARY
        }
        found.append({
            "scheme": f"{code} (ours)" if mine[0]["ours"] else code,
            **mean,
            "better": sum(e["low"] is not None and e["low"] > 0 for e in ends),
            "worse": sum(e["high"] is not None and e["high"] < 0 for e in ends),
            "monotone": sum(row["monotone"] for row in mine),
            "rules": mine[-1]["rules"],
        })  # fmt: skip
    return sorted(found, key=lambda row: (not row["scheme"].endswith(" (ours)"), -(row["gini"] or 0.0)))


def tier_verdict(comparisons: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say whether the project's tiers are above every baseline beyond chance, over all dates together."""
    rows = [c for c in comparisons if c["target"] == "tiers"]
    if any(c["as_of"] == _ALL for c in rows):
        rows = [c for c in rows if c["as_of"] == _ALL]
    verdict = "yes" if rows and all(c["low"] is not None and c["low"] > 0 for c in rows) else "no"
    return [
        f"Tiers above every baseline beyond chance, in captured value and kappa: {verdict}",
        *(f"  {c['metric']} minus {c['against']}: {_ends(c)}" for c in rows),
    ]


def _ends(c: Mapping[str, Any]) -> str:
    if None in (c["difference"], c["low"], c["high"]):
        return "not measured"
    return f"{c['difference']:+.4f} [{c['low']:+.4f}, {c['high']:+.4f}] ({c['as_of']})"
