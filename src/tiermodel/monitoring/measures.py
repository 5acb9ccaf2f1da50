"""The measures of one grading: by tier, by channel, and of the whole base. Groups that are too small are hidden."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from tiermodel.arrays import Floats
from tiermodel.evaluation.metrics import gini_coefficient, herfindahl, pareto_share, whale_curve
from tiermodel.evaluation.profit import decile_ratio
from tiermodel.monitoring.statistics import survey_score, wilson

__all__ = ["MOVES", "base_row", "channel_rows", "curve_rows", "tier_rows"]

MOVES = ("moved_up", "moved_down", "left")
"""Customers of a tier who are in a higher one, in a lower one, or in none, after the next grading."""

_TOP = 10
_POINTS = 100  # the most of a whale curve
_SUMS = ("revenue", "margin", "cost_to_serve")
_PAYBACK = (
    *("customers_with_cac", "acquisition_cost", "value_to_date", "value_to_cac", "paid_back_share", "payback_days"),
)
_CONCENTRATION = (
    *("whale_peak", "whale_peak_customers", "whale_loss", "decile_ratio", "herfindahl", "top_fifth_share", "gini"),
)
_NAN = float("nan")


def tier_rows(
    rows: pd.DataFrame,
    told: Sequence[tuple[int, str, float, int]],
    names: Mapping[int, str],
    asked: Mapping[str, tuple[float, float]],
    smallest: int,
) -> list[dict[str, Any]]:
    """Return a row for each tier, the highest first; a hidden one has its name only.

    `rows` has one row for each customer: `tier`, `after` (the tier of the next grading; NaN: left) and what came
    of the customer. `told` are numbers of answers by tier, question and score. Where one tier alone is smaller than
    `smallest`, the smallest of the others is hidden too: the base less the others would show it.
    """
    contribution = _contribution(rows)
    totals = {"value": float(rows["value"].sum()), "contribution": float(contribution.sum())}
    sizes = {tier: int((rows["tier"] == tier).sum()) for tier in sorted(names, reverse=True)}
    hidden = [tier for tier, size in sizes.items() if 0 < size < smallest]
    others = [tier for tier, size in sizes.items() if size >= smallest]
    if len(hidden) == 1 and others:
        hidden.append(min(others, key=lambda tier: (sizes[tier], tier)))
    found = []
    for tier in sizes:
        mine = (rows["tier"] == tier).to_numpy()
        of_tier = {name: _answers(told, tier, name) for name in asked}
        row = {
            "tier": tier, "tier_code": names[tier], "hidden": tier in hidden, "customers": float(mine.sum()),
            **_kept(rows[mine]), **_brought(rows[mine], contribution[mine], totals), **_moves(rows[mine]),
            **_costs(rows[mine], smallest),
        }  # fmt: skip
        for name, scale in asked.items():
            score = survey_score(name, of_tier[name], scale)
            shown = score if score.n >= smallest else (0.0 if score.n == 0 else _NAN, _NAN, _NAN, _NAN)
            row |= dict(zip((f"{name}_{part}" for part in ("n", "score", "low", "high")), shown, strict=True))
        kept = ("tier", "tier_code", "hidden")
        found.append({k: v if k in kept or tier not in hidden else _NAN for k, v in row.items()})
    return found


def _answers(told: Sequence[tuple[int, str, float, int]], tier: int, name: str) -> dict[float, int]:
    return {score: count for level, survey, score, count in told if level == tier and survey == name}


def _kept(rows: pd.DataFrame) -> dict[str, float]:
    """Return who was at risk of churn by the project's definition, and who of them stayed, with Wilson's interval."""
    exposed = rows[(rows["at_risk"] > 0) & rows["churned"].notna()]
    kept = float((exposed["churned"] == 0).sum())
    low, high = wilson(kept, len(exposed))
    share = kept / len(exposed) if len(exposed) else _NAN
    return {"at_risk": float(len(exposed)), "retained": kept, "retained_share": share, "retained_low": low,
            "retained_high": high}  # fmt: skip


def _contribution(rows: pd.DataFrame) -> Floats:
    """Return what each customer brought after the cost of service: margin, or revenue where no cost is mapped."""
    brought, cost = rows.get("margin", rows["revenue"]), rows.get("cost_to_serve", 0.0)
    return np.asarray(brought - cost, dtype=np.float64)


def _brought(rows: pd.DataFrame, contribution: Floats, totals: Mapping[str, float]) -> dict[str, float]:
    sums = {name: float(rows[name].sum()) for name in _SUMS if name in rows}
    whole = float(contribution.sum())
    best = float(np.sort(contribution)[::-1][:_TOP].sum())
    found = {
        **sums, "contribution": whole, "value_share": _ratio(float(rows["value"].sum()), totals["value"]),
        "contribution_share": _ratio(whole, totals["contribution"]),
        "herfindahl": herfindahl(contribution) if whole > 0 else _NAN,
        "top_10_share": best / whole if whole > 0 else _NAN,
    }  # fmt: skip
    if "complaints" in rows:
        number = float(rows["complaints"].sum())
        found |= {"complaints": number, "complaints_per_100": _ratio(100 * number, len(rows))}
    return found


def _moves(rows: pd.DataFrame) -> dict[str, float]:
    """Return who was in a higher tier, in a lower one, or in none, after the next grading."""
    moved = rows["after"] > rows["tier"], rows["after"] < rows["tier"], rows["after"].isna()
    return {name: float(found.sum()) for name, found in zip(MOVES, moved, strict=True)}


def _costs(rows: pd.DataFrame, smallest: int) -> dict[str, float]:
    """Return the acquisition cost of those of whom it is known, and what they brought until the end of the window.

    `payback_days` is the mean cost over the mean value a day since the first purchase.
    """
    if "acquisition_cost" not in rows:
        return {}
    known = rows[rows["acquisition_cost"].notna()]
    if 0 < len(known) < smallest:
        return dict.fromkeys(_PAYBACK, _NAN)
    cost, value = float(known["acquisition_cost"].sum()), float(known["value_to_date"].sum())
    days = float(known["days"].fillna(0.0).sum())
    paid = float((known["value_to_date"] >= known["acquisition_cost"]).sum())
    payback = cost * days / value / len(known) if value > 0 else _NAN
    shown = (float(len(known)), cost, value, _ratio(value, cost), _ratio(paid, len(known)), payback)
    return dict(zip(_PAYBACK, shown, strict=True))


def channel_rows(rows: pd.DataFrame, smallest: int) -> list[dict[str, Any]]:
    """Return acquisition costs by the channel through which customers came (missing: not known), sorted by its name.

    Without a channel all customers are one row; without acquisition costs there is none. Channels with fewer than
    `smallest` customers of known cost have no figures.
    """
    if "acquisition_cost" not in rows:
        return []
    if "channel" not in rows:
        return [{"channel": None, **_costs(rows, smallest)}]
    channel = rows["channel"].astype(object).where(rows["channel"].notna(), "")
    groups = sorted(channel.unique())
    return [{"channel": name or None, **_costs(rows[(channel == name).to_numpy()], smallest)} for name in groups]


def base_row(rows: pd.DataFrame, smallest: int = 1) -> dict[str, float]:
    """Return how concentrated the contribution of all customers is.

    The whale curve cumulates it from the most valuable customer down: `whale_peak` is its maximum, as a share of the
    total, reached after `whale_peak_customers` (a share); what all after them cost is `whale_loss`, again of the total.
    Of fewer than `smallest` customers nothing is told.

    >>> base = pd.DataFrame({"revenue": [120.0, 30.0, 0.0, -50.0]})
    >>> found = base_row(base)
    >>> found["whale_peak"], found["whale_peak_customers"], found["whale_loss"]
    (1.5, 0.5, 0.5)
    """
    contribution = _contribution(rows)
    found = {"customers": float(len(rows)), **{n: float(rows[n].sum()) for n in _SUMS if n in rows}}
    found["contribution"] = float(contribution.sum())
    if len(rows) < smallest:
        return dict.fromkeys((*found, *_CONCENTRATION), _NAN)
    if found["contribution"] <= 0:
        return found | dict.fromkeys(_CONCENTRATION, _NAN)
    shares, curve = whale_curve(contribution)
    peak = int(np.argmax(curve))
    measures = (
        float(curve[peak]), float(shares[peak]), float(curve[peak]) - 1.0, decile_ratio(contribution),
        herfindahl(contribution), pareto_share(contribution), gini_coefficient(contribution),
    )  # fmt: skip
    return found | dict(zip(_CONCENTRATION, measures, strict=True))


def curve_rows(rows: pd.DataFrame, smallest: int) -> list[dict[str, float]]:
    """Return the whale curve of `base_row` at up to 100 steps, none of them of fewer than `smallest` customers.

    >>> base = pd.DataFrame({"revenue": [120.0, 30.0, 0.0, -50.0]})
    >>> [point["contribution_share"] for point in curve_rows(base, 2)]
    [0.0, 1.5, 1.0]
    """
    contribution, points = _contribution(rows), min(_POINTS, len(rows) // smallest)
    if contribution.sum() <= 0 or points < 1:
        return []
    grid = np.linspace(0, 1, points + 1)
    reached = np.interp(grid, *whale_curve(contribution))
    return [{"customers_share": float(x), "contribution_share": float(y)} for x, y in zip(grid, reached, strict=True)]


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else _NAN
