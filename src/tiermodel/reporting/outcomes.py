"""The report's section on outcomes: what came of the tiers, grading by grading."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from tiermodel.reporting import charts_model
from tiermodel.reporting.charts import Chart, lines
from tiermodel.reporting.figures import COLOURS, FigureStyle, percent_axes
from tiermodel.reporting.inputs import OutcomesRead, ReportInputs
from tiermodel.words import words

__all__ = ["outcomes_section", "whale_figure"]

_SURVEYS = ("csat", "nps", "quality", "attitude", "response_time")
_LACKS = ("margin", "cost_to_serve", "complaints", "acquisition_cost")
_PAST = ("retained_share", "contribution")


def outcomes_section(inputs: ReportInputs, language: str) -> dict[str, Any] | None:
    """Return the section on the last grading whose window is over; None without outcomes."""
    read = inputs.outcomes
    if read is None:
        return None
    days = sorted(read.tiers["graded"].unique())
    tiers, base, curve, channels = (_of_day(frame, days[-1]) for frame in (read.tiers, read.base, read.curve,
                                                                            read.channels))  # fmt: skip
    name, wording = _names(inputs, language), words(language)
    found: list[Any] = tiers.sort_values("tier", ascending=False).to_dict("records")
    rows = [{**row, "name": name(row)} for row in found]
    surveys = [survey for survey in _SURVEYS if f"{survey}_n" in tiers]
    section: dict[str, Any] = {
        "day": days[-1],
        "rows": rows,
        "has": set(tiers.columns),
        "surveys": surveys,
        "lacks": [column for column in _LACKS if column not in tiers] + ([] if surveys else ["surveys"]),
        "base": base.to_dict("records")[0] if len(base) else None,
        "channels": channels.to_dict("records"),
        "past": _past(read, days, name) if len(days) > 1 else None,
        "whale": _whale(curve, wording) if len(curve) else None,
        "retention": charts_model.retention(rows, [row["name"] for row in rows[::-1]], wording),
    }
    return section


def _whale(curve: pd.DataFrame, wording: Mapping[str, str]) -> Chart:
    """Return the cumulated share of contribution, best customers first."""
    points = curve["customers_share"].to_numpy(), curve["contribution_share"].to_numpy()
    titles = wording["cum_customers"], wording["cum_contribution"]
    return lines("whale", wording["outcomes_curve"], {wording["cum_contribution"]: points}, *titles)


def _of_day(frame: pd.DataFrame, day: str) -> pd.DataFrame:
    return frame[frame["graded"] == day] if len(frame) else frame


def _names(inputs: ReportInputs, language: str) -> Any:
    """Return a function that names the tier of a row: as the bundle does where it has the code, else as the ledger."""
    scheme = inputs.bundle.scheme.scheme if inputs.bundle else None
    known = dict(zip(scheme.codes, scheme.names(language), strict=True)) if scheme else {}

    def name(row: Mapping[str, Any]) -> str:
        return str(known.get(row["tier_code"]) or row.get(f"name_{language}") or row["tier_code"])

    return name


def _past(read: OutcomesRead, days: list[str], name: Any) -> dict[str, Any]:
    """Return retention and contribution a customer by tier and grading."""
    frame = read.tiers.assign(contribution=read.tiers["contribution"] / read.tiers["customers"])
    cells = frame.set_index(["tier_code", "graded"])
    tiers = frame.sort_values("tier", ascending=False).drop_duplicates("tier_code").to_dict("records")
    rows = [
        {"name": name(row), **{key: [cells[key].get((row["tier_code"], day)) for day in days] for key in _PAST}}
        for row in tiers
    ]
    return {"days": days, "rows": rows}


def whale_figure(style: FigureStyle, curve: pd.DataFrame, base: Mapping[str, Any] | None) -> Figure:
    """Draw the cumulated share of contribution, best customers first, and its peak."""
    x, y = (curve[name].to_numpy() for name in ("customers_share", "contribution_share"))
    with style.draw(5.4, 4.0) as (figure, (axes,)):
        axes.plot([0, 1], [0, 1], color=COLOURS["muted"], linewidth=0.8)
        axes.axhline(1.0, color=COLOURS["muted"], linewidth=0.8, linestyle=":")
        axes.plot(x, y, color=COLOURS["accent"], linewidth=1.8)
        if base is not None and base["whale_peak"] == base["whale_peak"]:  # NaN
            peak = base["whale_peak_customers"], base["whale_peak"]
            axes.plot(*peak, "o", color=COLOURS["warm"], markersize=5)
            axes.annotate(
                style.words["outcomes_peak"].format(share=f"{peak[1]:.0%}", customers=f"{peak[0]:.0%}"), peak,
                textcoords="offset points", xytext=(0, 8), ha="right" if peak[0] > 0.5 else "left",
            )  # fmt: skip
        percent_axes(axes, style.words["cum_customers"], style.words["cum_contribution"])
        axes.set_ylim(min(0.0, float(y.min())), max(1.0, float(y.max())) * 1.12)
    return figure
