"""The page's charts: Vega-Lite specifications made with Altair, each with its numbers as a table.

Colours are the page's CSS variables, so that a chart follows the reader's light or dark scheme and print without being
drawn again. Altair and vl-convert come with `pip install 'tiermodel[report]'`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from itertools import pairwise
from typing import Any

import numpy as np

from tiermodel.arrays import Floats, Ints
from tiermodel.errors import ProjectError
from tiermodel.evaluation.metrics import pareto_share, whale_curve
from tiermodel.reporting.figures import RISK_MAP_EDGES, SMALL

__all__ = [
    "Chart",
    "concentration",
    "drawn",
    "heat",
    "library",
    "lines",
    "pyramid",
    "require_library",
    "risk_cells",
    "stages",
    "theme",
    "trend",
]

FONT = (
    'system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "PingFang SC", "Hiragino Sans GB", '
    '"Microsoft YaHei", "Noto Sans CJK SC", "Source Han Sans SC", "WenQuanYi Micro Hei", sans-serif'
)
INSTALL = "the report's charts need Altair and vl-convert: pip install 'tiermodel[report]'"
DASHES = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3])
SERIES = ("var(--series)", "var(--ink)", "var(--second)", "var(--muted)")
_STEPS = 41
_STAGES = (1.0, 0.68, 0.42, 0.2)


@dataclass(frozen=True)
class Chart:
    """A chart of the page: its id and title, a Vega-Lite specification, and its numbers as heads and rows of text."""

    id: str
    title: str
    spec: dict[str, Any]
    heads: tuple[str, ...]
    rows: Sequence[Sequence[str]]


def require_library() -> None:
    """Raise `ProjectError` with the line that installs the charting library where it is not there."""
    try:
        import altair as alt  # noqa: F401, PLC0415
        import vl_convert  # noqa: F401, PLC0415
    except ImportError as missing:
        raise ProjectError(f"{INSTALL} ({missing})") from None


@cache
def library() -> str:
    """Return the script of Vega, Vega-Lite and vega-embed, which draws the charts without a request."""
    require_library()
    bundle = import_module("vl_convert").javascript_bundle  # its types ask for an argument that is optional
    return str(bundle())


def theme() -> dict[str, Any]:
    """Return the Vega configuration of every chart: the reader's fonts and the page's colours."""
    quiet = {"labelColor": "var(--muted)", "titleColor": "var(--muted)", "titleFontWeight": "normal"}
    sizes = {"labelFontSize": 12, "titleFontSize": 12}
    lines_of = dict.fromkeys(("gridColor", "domainColor", "tickColor"), "var(--grid)")
    return {
        "font": FONT,
        "background": "transparent",
        "view": {"stroke": None},
        "axis": {**quiet, **sizes, **lines_of, "labelLimit": 170},
        "legend": {**quiet, **sizes, "orient": "top", "title": None, "labelLimit": 300, "columns": 1},
        "text": {"color": "var(--ink)", "fontSize": 12},
        "line": {"color": "var(--series)"},
        "bar": {"color": "var(--series)"},
        "point": {"color": "var(--series)", "filled": True, "size": 50},
        "rule": {"color": "var(--muted)"},
    }


def drawn(chart: Any, height: int) -> dict[str, Any]:
    """Return an Altair chart as a specification as wide as its place on the page, without an address."""
    spec: dict[str, Any] = chart.properties(width="container", height=height).to_dict()
    spec.pop("$schema", None)
    spec.pop("config", None)
    return spec | {"autosize": {"type": "fit", "contains": "padding"}}


def data(rows: Iterable[Mapping[str, Any]]) -> Any:
    """Return an Altair chart over rows; a number that is not finite is left out of its row."""
    import altair as alt  # noqa: PLC0415

    kept = [
        {k: v for k, v in row.items() if not isinstance(v, float) or np.isfinite(v)} for row in rows
    ]  # NaN is no JSON
    return alt.Chart(alt.Data(values=kept))


def tier_scale(names: Sequence[str]) -> Any:
    """Return the scale that gives each tier its colour; `names` start at the lowest."""
    import altair as alt  # noqa: PLC0415

    return alt.Scale(domain=list(names), range=[f"var(--tier-{k})" for k in range(len(names))])


def pyramid(
    names: Sequence[str], customers: Sequence[int], values: Sequence[float], wording: Mapping[str, str], currency: str
) -> Chart:
    """Return each level's share of customers (left) and of expected value (right); sequences start at the lowest."""
    import altair as alt  # noqa: PLC0415

    heads, money = np.array(customers, dtype=np.float64), np.array(values, dtype=np.float64)
    shares = heads / max(heads.sum(), 1), money / (money.sum() or 1)
    unit = f" {currency}" if currency else ""
    rows = []
    for k, name in enumerate(names):
        for side, kind, amount in (
            (0, "customers_share", f"{customers[k]:,}"),
            (1, "value_share", f"{values[k]:,.0f}"),
        ):
            share = float(shares[side][k])
            rows.append({
                "tier": name, "kind": wording[kind], "x": share if side else -share, "text": f"{share:.1%}",
                "told": f"{amount}{unit if side else ''} · {share:.1%}",
                "far": max(share, 0.0) if side else -share,
            })  # fmt: skip
    reach = 1.75 * max(float(np.abs(np.concatenate(shares)).max()), 0.1)
    tips = [
        alt.Tooltip("tier:N", title=wording["tier"]),
        alt.Tooltip("kind:N", title=wording["share"]),
        alt.Tooltip("told:N", title=wording["customers"]),
    ]
    base = data(rows).encode(
        y=alt.Y("tier:N", sort=list(names)[::-1], title=None),
        x=alt.X("x:Q", title=f"← {wording['customers']} · {wording['expected_value']} →",
                scale=alt.Scale(domain=[-reach, reach], nice=False),
                axis=alt.Axis(labelExpr="format(abs(datum.value), '.0%')", grid=False, tickCount=5)),
        tooltip=tips,
    )  # fmt: skip
    bars = base.mark_bar(height={"band": 0.7}).encode(
        color=alt.Color("tier:N", scale=tier_scale(names), legend=None),
        opacity=alt.Opacity("kind:O", scale=alt.Scale(
            domain=[wording["customers_share"], wording["value_share"]], range=[0.6, 1]), legend=None),
    )  # fmt: skip
    sides = (("datum.x < 0", "right", -5), ("datum.x >= 0", "left", 5))
    texts = [
        base.transform_filter(test).mark_text(align=align, dx=dx).encode(text="text:N", x="far:Q")
        for test, align, dx in sides
    ]
    table = [
        (name, f"{customers[k]:,}", f"{shares[0][k]:.1%}", f"{values[k]:,.0f}", f"{shares[1][k]:.1%}")
        for k, name in enumerate(names)
    ][::-1]
    columns = (wording["tier"], wording["customers"], wording["customers_share"], wording["expected_value"] + unit,
               wording["value_share"])  # fmt: skip
    spec = drawn(alt.layer(bars, *texts), 40 + 38 * len(names))
    return Chart("pyramid", wording["head_pyramid"], spec, columns, table)


def lines(
    name: str,
    title: str,
    curves: Mapping[str, tuple[Floats, Floats]],
    x_title: str,
    y_title: str,
    *,
    diagonal: bool = True,
    steps: Sequence[float] = tuple(np.linspace(0, 1, 11)),
) -> Chart:
    """Return curves of shares over shares, told apart by dash and colour; `steps` are those that the table shows."""
    import altair as alt  # noqa: PLC0415

    grid = np.linspace(0, 1, _STEPS)
    rows = [
        {"x": float(x), "y": float(y), "curve": label}
        for label, (xs, ys) in curves.items()
        for x, y in zip(grid, np.interp(grid, xs, ys), strict=True)
    ]
    names = list(curves)
    colours, dashes = ([look[k % len(look)] for k in range(len(names))] for look in (SERIES, DASHES))
    percent = alt.Axis(format=".0%")
    base = data(rows).encode(
        x=alt.X("x:Q", title=x_title, axis=percent, scale=alt.Scale(domain=[0, 1])),
        y=alt.Y("y:Q", title=y_title, axis=percent),
    )
    apart = base.mark_line(strokeWidth=2).encode(
        color=alt.Color("curve:N", scale=alt.Scale(domain=names, range=colours)),
        strokeDash=alt.StrokeDash("curve:N", scale=alt.Scale(domain=names, range=dashes)),
    )  # fmt: skip
    tips = [alt.Tooltip("curve:N", title=title), alt.Tooltip("x:Q", title=x_title, format=".1%"),
            alt.Tooltip("y:Q", title=y_title, format=".1%")]  # fmt: skip
    parts = [apart, base.mark_point(opacity=0, size=160).encode(tooltip=tips)]
    if diagonal:
        ends = [{"x": 0.0, "y": 0.0}, {"x": 1.0, "y": 1.0}]
        parts.insert(0, data(ends).mark_line(color="var(--muted)", strokeWidth=1).encode(x="x:Q", y="y:Q"))
    found = [(f"{x:.0%}", *(f"{np.interp(x, *curve):.1%}" for curve in curves.values())) for x in steps]
    return Chart(name, title, drawn(alt.layer(*parts), 280), (x_title, *names), found)


def concentration(curves: Mapping[str, Floats], wording: Mapping[str, str]) -> Chart:
    """Return the cumulative share of value, most valuable customers first; each curve needs a total above zero."""
    labelled = {
        wording["top_share"].format(label=label, share=f"{pareto_share(values):.0%}"): whale_curve(values)
        for label, values in curves.items()
    }
    return lines(
        "concentration", wording["head_concentration"], labelled, wording["cum_customers"], wording["cum_value"],
        steps=(0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8),
    )  # fmt: skip


def heat(
    name: str, title: str, cells: Sequence[Mapping[str, Any]], axes: tuple[str, Sequence[str], str, Sequence[str]]
) -> Chart:
    """Return a grid of cells: `x`, `y`, `text`, and `shade` from 0 to 1; `axes` are titles and labels of x and of y.

    A cell may have a second line of text, `more`.
    """
    import altair as alt  # noqa: PLC0415

    x_title, columns, y_title, lines_of = axes
    bare: dict[str, Any] = dict.fromkeys(("grid", "domain", "ticks"), False)
    base = data(cells).encode(
        x=alt.X("x:N", sort=list(columns), title=x_title, axis=alt.Axis(labelAngle=0, labelFontSize=11, **bare)),
        y=alt.Y("y:N", sort=list(lines_of), title=y_title, axis=alt.Axis(**bare)),
        tooltip=[alt.Tooltip("y:N", title=y_title or title), alt.Tooltip("x:N", title=x_title),
                 alt.Tooltip("told:N", title=title)],
    )  # fmt: skip
    boxes = base.mark_rect(color="var(--series)").encode(
        opacity=alt.Opacity("shade:Q", scale=alt.Scale(domain=[0, 1], range=[0.05, 0.5]), legend=None)
    )
    texts = [base.mark_text(dy=-7 if any("more" in c for c in cells) else 0).encode(text="text:N")]
    if any("more" in cell for cell in cells):
        texts.append(base.mark_text(dy=8, color="var(--muted)").encode(text="more:N"))
    at = {(cell["y"], cell["x"]): str(cell["told"]) for cell in cells}
    rows = [(line, *(at.get((line, column), "–") for column in columns)) for line in lines_of]
    spec = drawn(alt.layer(boxes, *texts), 40 + 42 * len(lines_of))
    return Chart(name, title, spec, (y_title or title, *columns), rows)


def risk_cells(
    names: Sequence[str], tier: Ints, churn_risk: Floats, expected_value: Floats
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the cells of customers by level and band of risk, shaded by churn risk × expected value, and the bands."""
    known = np.isfinite(churn_risk)
    band = np.searchsorted(RISK_MAP_EDGES, churn_risk[known], side="right")
    bands = [f"{100 * low:.0f}–{100 * high:.0f}" for low, high in pairwise((0.0, *RISK_MAP_EDGES, 1.0))]
    shape = (len(names), len(bands))
    counts, at_risk = np.zeros(shape), np.zeros(shape)
    np.add.at(counts, (tier[known], band), 1)
    np.add.at(at_risk, (tier[known], band), (churn_risk * np.nan_to_num(expected_value))[known])
    most = max(float(at_risk[counts >= SMALL].max(initial=0.0)), 1e-9)
    cells = []
    for i, j in np.argwhere(counts > 0):
        small = counts[i, j] < SMALL
        text = f"< {SMALL}" if small else f"{int(counts[i, j]):,}"
        told = text if small else f"{text} · {at_risk[i, j]:,.0f}"
        shade = 0.0 if small else max(float(at_risk[i, j]) / most, 0.0)
        cells.append({"x": bands[j], "y": names[i], "text": text, "told": told, "shade": shade})
    return cells, bands


def stages(
    name: str, title: str, names: Sequence[str], labels: Sequence[str], counts: Ints, wording: Mapping[str, str]
) -> Chart:
    """Return the share of each level's customers at each stage, best stage first; `counts` is (levels, stages).

    Stages of customers who still buy are shades of one colour; the last two, silent and gone, are greys.
    """
    import altair as alt  # noqa: PLC0415

    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    rows = [
        {"tier": names[i], "stage": labels[k], "share": float(shares[i, k]), "order": k,
         "told": _told(counts[i, k], shares[i, k])}
        for i in range(len(names)) for k in range(len(labels))
    ]  # fmt: skip
    kept = len(labels) - 2
    shades = [("series", share) for share in _STAGES[:kept]] + [("ink", 0.35), ("ink", 0.75)]
    colours = [f"color-mix(in srgb, var(--{name}) {share:.0%}, var(--paper))" for name, share in shades]
    chart = data(rows).mark_bar(height={"band": 0.7}).encode(
        y=alt.Y("tier:N", sort=list(names)[::-1], title=None),
        x=alt.X("share:Q", title=wording["share_of_tier"], axis=alt.Axis(format=".0%"), scale=alt.Scale(domain=[0, 1])),
        color=alt.Color("stage:N", scale=alt.Scale(domain=list(labels), range=colours),
                        legend=alt.Legend(columns=3, symbolType="square")),
        order=alt.Order("order:Q"),
        tooltip=[alt.Tooltip("tier:N", title=wording["tier"]), alt.Tooltip("stage:N", title=title),
                 alt.Tooltip("told:N", title=wording["customers"])],
    )  # fmt: skip
    table = [
        (names[i], *(_told(counts[i, k], shares[i, k]) for k in range(len(labels))))
        for i in range(len(names) - 1, -1, -1)
    ]  # fmt: skip
    return Chart(name, title, drawn(chart, 70 + 30 * len(names)), (wording["tier"], *labels), table)


def trend(names: Sequence[str], days: Sequence[str], counts: Ints, wording: Mapping[str, str]) -> Chart:
    """Return the share of customers by tier at each grading; `counts` is (days, levels), lowest level first."""
    import altair as alt  # noqa: PLC0415

    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    rows = [
        {"day": day, "tier": name, "share": float(shares[i, k]), "order": k, "told": _told(counts[i, k], shares[i, k])}
        for i, day in enumerate(days) for k, name in enumerate(names)
    ]  # fmt: skip
    chart = data(rows).mark_bar(width={"band": 0.75}).encode(
        x=alt.X("day:N", title=wording["trend_day"], axis=alt.Axis(labelAngle=0 if len(days) < 7 else -60)),
        y=alt.Y("share:Q", title=wording["customers_share"], axis=alt.Axis(format=".0%"),
                scale=alt.Scale(domain=[0, 1])),
        color=alt.Color("tier:N", scale=tier_scale(names), legend=alt.Legend(columns=4, symbolType="square")),
        order=alt.Order("order:Q"),
        tooltip=[alt.Tooltip("day:N", title=wording["trend_day"]), alt.Tooltip("tier:N", title=wording["tier"]),
                 alt.Tooltip("told:N", title=wording["customers"])],
    )  # fmt: skip
    table = [(day, *(_told(counts[i, k], shares[i, k]) for k in range(len(names)))) for i, day in enumerate(days)]
    return Chart("trend", wording["head_trend"], drawn(chart, 280), (wording["trend_day"], *names), table)


def _told(count: int, share: float) -> str:
    return f"< {SMALL}" if 0 < count < SMALL else f"{count:,} · {share:.1%}"
