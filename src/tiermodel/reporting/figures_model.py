"""Figures on models: tree of rules, calibration, gains, residuals, importance, baselines, comparison of schemes."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, SymmetricalLogLocator

from tiermodel.arrays import Floats
from tiermodel.backtesting.verdict import model_name
from tiermodel.evaluation.metrics import LOWER_IS_BETTER, ece, quantile_groups, reliability_table
from tiermodel.features.formula import Feature
from tiermodel.models.btyd.forecast import BTYD_INPUTS
from tiermodel.reporting.figures import COLOURS, LINES, FigureStyle, percent_axes, short
from tiermodel.words import in_language

__all__ = [
    "differences",
    "found_at",
    "gains",
    "importance",
    "input_names",
    "reliability",
    "residuals",
    "sides",
    "tree",
]


_TENTHS, _ONE_WAY = 10, 0.5


def tree(style: FigureStyle, state: Mapping[str, Any], levels: Sequence[str], features: Mapping[str, str]) -> Figure:
    """Draw a learned scheme's tree from left to right, higher values up; leaves show level, support and mean value.

    `state` is that of the fitted scheme, `levels` has the names of the levels of buyers, `features` those of features.
    """
    nodes = state["tree"]
    place: dict[int, tuple[float, float]] = {}
    leaves: list[int] = []

    def settle(node: int, depth: int) -> float:
        if nodes["feature"][node] is None:
            y = float(len(leaves))
            leaves.append(node)
        else:
            y = (settle(nodes["left"][node], depth + 1) + settle(nodes["right"][node], depth + 1)) / 2
        place[node] = (float(depth), y)
        return y

    settle(0, 0)
    deepest = max(x for x, _ in place.values())
    rank = {node: k for k, node in enumerate(sorted(leaves))}
    with style.draw(3.0 + 2.05 * deepest, 0.6 + 0.5 * len(leaves)) as (figure, (axes,)):
        for node, (x, y) in place.items():
            name = nodes["feature"][node]
            if name is None:
                k = rank[node]
                fact, level = state["leaves"][k], state["level"][k]
                text = f"{short(levels[level])} · {fact['support']:.1%} · {fact['value_mean']:,.0f}"
                depth = 0.12 + 0.5 * level / max(len(levels) - 1, 1)
                axes.text(x + 0.04, y, text, va="center", bbox=_box("accent", depth))
                continue
            text = "\n".join(textwrap.wrap(features.get(name, name), in_language(style.language, zh=9, en=17)))
            axes.text(x, y, text, ha="center", va="center", fontsize=8, bbox=_box("paper", 1.0))
            for side, text in sides(nodes["threshold"][node], style.words):
                _branch(axes, (x, y), place[nodes[side][node]], text)
        axes.set(xlim=(-0.45, deepest + 1.3), ylim=(-0.7, len(leaves) - 0.3))
        axes.set_axis_off()
    return figure


def sides(threshold: float | None, wording: Mapping[str, Any]) -> tuple[tuple[str, str], tuple[str, str]]:
    """Return what leads to the left and to the right of a split; without a threshold, missing values go right."""
    if threshold is None:
        return ("left", wording["value_known"]), ("right", wording["value_missing"])
    return ("left", f"≤ {threshold:,g}"), ("right", f"> {threshold:,g}")


def _box(colour: str, depth: float) -> dict[str, Any]:
    return {"boxstyle": "round,pad=0.35", "facecolor": (COLOURS[colour], depth), "edgecolor": COLOURS["grid"]}


def _branch(axes: Axes, start: tuple[float, float], end: tuple[float, float], text: str) -> None:
    (x, y), (x2, y2) = start, end
    bend = x + 0.37
    axes.plot([x, bend, bend, x2], [y, y, y2, y2], color=COLOURS["muted"], linewidth=0.9, zorder=0)
    axes.text(bend + 0.03, y2 + 0.06, text, ha="left", va="bottom", fontsize=8, color=COLOURS["muted"])


def reliability(style: FigureStyle, panels: Mapping[str, tuple[Floats, Floats, float | None]]) -> Figure:
    """Draw the predicted risk against the observed rate with Wilson intervals, one panel for each test date.

    `panels` maps a date to (actual, predicted, calibration error that chance alone explains; None if not known).
    """
    with style.draw(3.7 * max(len(panels), 1.5), 3.7, columns=len(panels)) as (figure, axes):
        for panel, (day, (actual, predicted, by_chance)) in zip(axes, panels.items(), strict=True):
            rows = reliability_table(actual, predicted)
            x, y, low, high = (np.array([row[k] for row in rows]) for k in ("predicted", "rate", "low", "high"))
            panel.plot([0, 1], [0, 1], color=COLOURS["muted"], linewidth=0.8)
            bars = np.maximum([y - low, high - y], 0.0)  # a rate of exactly 0 or 1 is its own bound, up to rounding
            panel.errorbar(x, y, bars, fmt="o", color=COLOURS["accent"], markersize=4, elinewidth=1.2)
            chance = "–" if by_chance is None else f"{by_chance:.3f}"
            title = style.words["ece_line"].format(ece=f"{ece(actual, predicted):.3f}", chance=chance)
            panel.set_title(f"{day}\n{title}", fontsize=8.5)
            percent_axes(panel, style.words["predicted_risk"], style.words["actual_rate"])
            panel.set(ylim=(0, 1))
    return figure


def gains(style: FigureStyle, churned: Floats, predicted: Mapping[str, Floats]) -> Figure:
    """Draw, for each model, the share of churners found by contacting the riskiest first; one at least must churn."""
    grid = np.linspace(0, 1, 101)
    with style.draw(5.4, 3.9) as (figure, (axes,)):
        best = np.minimum(grid / churned.mean(), 1)
        axes.plot(grid, best, color=COLOURS["muted"], linewidth=0.9, linestyle=":", label=style.words["perfect"])
        for (name, p), (colour, dash) in zip(predicted.items(), LINES, strict=False):
            axes.plot(grid, found_at(churned, p, grid), dash, color=COLOURS[colour], linewidth=1.6, label=name)
        axes.plot([0, 1], [0, 1], color=COLOURS["muted"], linewidth=0.8, label=style.words["random"])
        percent_axes(axes, style.words["contacted"], style.words["found"])
        axes.legend(loc="lower right")
    return figure


def found_at(churned: Floats, predicted: Floats, shares: Floats) -> Floats:
    """Return the share of churners found by each share of customers contacted; among equal risks it grows evenly.

    >>> found_at(np.array([1.0, 0.0, 1.0, 0.0]), np.array([0.9, 0.1, 0.2, 0.2]), np.array([0.25, 0.5])).tolist()
    [0.5, 0.75]
    """
    risks, group = np.unique(-predicted, return_inverse=True)
    heads, leavers = np.bincount(group, minlength=len(risks)), np.bincount(group, weights=churned)
    reached = np.concatenate([[0], np.cumsum(heads)]) / len(predicted)
    found = np.concatenate([[0], np.cumsum(leavers)]) / leavers.sum()
    return np.interp(shares, reached, found)


def residuals(style: FigureStyle, panels: Mapping[str, tuple[Floats, Floats]], currency: str = "") -> Figure:
    """Draw actual minus predicted value by tenths of the prediction; `panels` maps a date to (actual, predicted).

    Thin lines cover nine tenths of the customers, thick lines half of them; a tick is the median, a dot the mean with
    its 95 % interval. The scale is linear near zero and logarithmic beyond, because a few residuals are a hundred times
    as large as most.
    """
    unit = f" ({currency})" if currency else ""
    every = np.concatenate([actual - predicted for actual, predicted in panels.values()])
    missed = np.abs(every[every != 0])
    straight = 10.0 ** np.floor(np.log10(np.median(missed))) if len(missed) else 1.0
    with style.draw(3.7 * max(len(panels), 1.5), 4.3, columns=len(panels)) as (figure, axes):
        ends: list[float] = []
        for panel, (day, (actual, predicted)) in zip(axes, panels.items(), strict=True):
            panel.set_yscale("symlog", linthresh=straight)
            keys, reached = _residual_boxes(style, panel, actual, predicted)
            panel.set(title=day, xlabel=style.words["expected_by_tenth"] + unit)
            ends += reached
        for panel in axes:
            panel.set_ylim(min(ends) * 1.3 - straight, max(ends) * 1.3 + straight)
            panel.yaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=straight, subs=(1, 3)))
            panel.yaxis.set_major_formatter("{x:,g}")
        axes[0].set_ylabel(style.words["actual_less_predicted"] + unit)
        figure.legend(handles=keys, loc="outside lower center", ncols=4)
    return figure


def _residual_boxes(
    style: FigureStyle, panel: Axes, actual: Floats, predicted: Floats
) -> tuple[list[Any], list[float]]:
    """Draw one date's residuals by tenths of the prediction; return the legend's handles and the ends of all bars."""
    group = quantile_groups(predicted, _TENTHS)
    each = [(actual - predicted)[group == k] for k in np.unique(group)]
    low, first, middle, third, high = np.array([np.quantile(r, (0.05, 0.25, 0.5, 0.75, 0.95)) for r in each]).T
    mean = np.array([r.mean() for r in each])
    half = np.array([1.96 * r.std() / np.sqrt(len(r)) for r in each])
    x = np.arange(len(each))
    panel.axhline(0, color=COLOURS["ink"], linewidth=0.9)
    keys = [
        panel.vlines(x, low, high, color=COLOURS["muted"], linewidth=1.0, label=style.words["nine_tenths"]),
        panel.vlines(x, first, third, color=COLOURS["sand"], linewidth=5.0, label=style.words["half_of_them"]),
        *panel.plot(x, middle, "_", color=COLOURS["ink"], markersize=8, label=style.words["median"]),
        panel.errorbar(
            x + 0.28, mean, half, fmt="o", color=COLOURS["accent"], markersize=4, label=style.words["mean_95"]
        ),
    ]
    promised = [predicted[group == k].mean() for k in np.unique(group)]
    panel.set_xticks(x, [f"{p:,.0f}" if abs(p) >= 9.5 else f"{p:.1f}" for p in promised], rotation=45)
    panel.grid(axis="x", visible=False)
    return keys, [*low, *high, *(mean - half), *(mean + half)]


def input_names(style: FigureStyle, features: Mapping[str, Feature]) -> dict[str, str]:
    """Return the name in words of every input of the models."""
    labels = {name: in_language(style.language, f.zh, f.en) for name, f in features.items()}
    return labels | {name: style.words[f"input_{name}"] for name in BTYD_INPUTS}


def importance(
    style: FigureStyle, targets: Mapping[str, Sequence[Mapping[str, Any]]], names: Mapping[str, str], currency: str = ""
) -> Figure:
    """Draw the size and direction of each input's effect on churn risk and value: one panel a target, largest on top.

    `targets` is the `importance` of a bundle's facts; at least one target has rows.
    """
    shown = {target: rows for target, rows in targets.items() if rows}
    colours = {"raises": "warm", "lowers": "accent", "varies": "muted"}
    wide = in_language(style.language, zh=20, en=36)
    with style.draw(5.3 * len(shown), 1.2 + 0.36 * max(map(len, shown.values())), columns=len(shown)) as (figure, axes):
        for panel, (target, rows) in zip(axes, shown.items(), strict=True):
            for y, row in enumerate(rows[::-1]):
                panel.barh(y, row["size"], height=0.62, color=COLOURS[colours[_way(row["direction"])]])
            labels = [names.get(row["feature"], row["feature"]) for row in rows[::-1]]
            wrap = textwrap.TextWrapper(wide, break_on_hyphens=False, max_lines=2, placeholder="…")
            lines = [wrap.fill(text) for text in labels]
            panel.set_yticks(range(len(rows)), lines, fontsize=7.5)
            unit = currency if target == "value" else style.words["log_odds"]
            panel.set_title(style.words[f"moves_{target}"])
            panel.set(xlabel=style.words["mean_shift"] + (f" ({unit})" if unit else ""), ylim=(-0.6, len(rows) - 0.4))
            panel.grid(axis="y", visible=False)
        keys = [Patch(color=COLOURS[colour], label=style.words[f"more_{way}"]) for way, colour in colours.items()]
        figure.legend(handles=keys, loc="outside lower center", ncols=3)
    return figure


def _way(direction: float | None) -> str:
    if direction is None or abs(direction) < _ONE_WAY:
        return "varies"
    return "raises" if direction > 0 else "lowers"


def differences(style: FigureStyle, comparisons: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw the difference to each baseline, right of zero where the model is better; one panel for each metric."""
    panels: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in comparisons:
        panels.setdefault((row["target"], row["metric"]), []).append(row)
    days = sorted({row["as_of"] for row in comparisons})
    with style.draw(8.8, 2.55 * -(-len(panels) // 2), 2, -(-len(panels) // 2)) as (figure, axes):
        for panel in axes[len(panels) :]:
            panel.set_axis_off()
        for panel, ((target, metric), rows) in zip(axes, panels.items(), strict=False):
            _difference_bars(style, panel, rows, days)
            panel.set_title(f"{style.words[f'target_{target}']} · {style.words.get(f'metric_{metric}', metric)}")
            panel.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10], min_n_ticks=3))
            panel.set(xlabel=style.words["better_arrow"])
    return figure


def _difference_bars(style: FigureStyle, panel: Axes, rows: Sequence[Mapping[str, Any]], days: Sequence[str]) -> None:
    """Draw the differences of one metric with their intervals: one line for each baseline, side by side by date."""
    models = list(dict.fromkeys(row["against"] for row in rows))[::-1]
    panel.axvline(0, color=COLOURS["ink"], linewidth=0.9)
    for row in rows:
        sign = -1 if row["metric"] in LOWER_IS_BETTER else 1
        middle, ends = sign * row["difference"], sorted((sign * row["low"], sign * row["high"]))
        y = models.index(row["against"]) + 0.22 * ((len(days) - 1) / 2 - days.index(row["as_of"]))
        colour = COLOURS["good" if ends[0] > 0 else "warm" if ends[1] < 0 else "muted"]
        panel.plot(ends, [y, y], color=colour, linewidth=1.4)
        panel.plot(middle, y, "o", color=colour, markersize=4)
    panel.set_yticks(range(len(models)), [model_name(m, style.words) for m in models])
    panel.set(ylim=(-0.6, len(models) - 0.4))
