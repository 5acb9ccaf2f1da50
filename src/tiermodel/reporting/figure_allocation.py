"""The figure of an allocation: what budgets between nothing and all that pays would bring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from tiermodel.reporting.figures import COLOURS, FigureStyle

__all__ = ["allocation_curve"]


def allocation_curve(
    style: FigureStyle, curve: Sequence[Mapping[str, Any]], budget: float, objective: float, currency: str = ""
) -> Figure:
    """Draw gain less cost by budget, with the bound on it, and where the allocation made stands."""
    say = style.words
    budgets = [point["budget"] for point in curve]
    unit = f" ({currency})" if currency else ""
    with style.draw(7.2, 4.0) as (figure, (axes,)):
        bounds = [point["bound"] for point in curve]
        axes.plot(budgets, bounds, color=COLOURS["sand"], linestyle="--", label=say["allocate_curve_bound"])
        brought = [point["objective"] for point in curve]
        axes.plot(budgets, brought, color=COLOURS["accent"], marker="o", markersize=3, label=say["allocate_net"])
        axes.plot(
            [min(budget, max(budgets))], [objective], color=COLOURS["warm"], marker="D", linestyle="none",
            label=say["allocate_curve_here"],
        )  # fmt: skip
        axes.set_xlabel(say["allocate_curve_budget"] + unit)
        axes.set_ylabel(say["allocate_net"] + unit)
        axes.set_title(say["allocate_curve"], loc="left")
        axes.legend(frameon=False, loc="lower right")
        axes.ticklabel_format(style="plain", useOffset=False)
    return figure
