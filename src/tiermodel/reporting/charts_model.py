"""The page's charts on models: calibration, gains, value error, inputs, baselines, schemes, outcomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tiermodel.arrays import Floats
from tiermodel.backtesting.verdict import model_name
from tiermodel.evaluation.metrics import LOWER_IS_BETTER, ece, quantile_groups, reliability_table
from tiermodel.reporting.charts import Chart, data, drawn, lines, tier_scale
from tiermodel.reporting.figures_model import found_at

__all__ = ["differences", "gains", "importance", "reliability", "residuals", "retention", "schemes"]

_TENTHS, _ONE_WAY = 10, 0.5
_OF_RESIDUALS = {"mean": "mean_error", "median": "median", "low": "interval_low", "high": "interval_high"}
_WAYS = {"raises": "↑", "lowers": "↓", "varies": "↕"}
_STATUS = {"better": "var(--good)", "unclear": "var(--muted)", "worse": "var(--bad)"}


def reliability(
    day: str, actual: Floats, predicted: Floats, by_chance: float | None, wording: Mapping[str, str]
) -> Chart:
    """Return the predicted risk against the observed rate of one test date, with Wilson intervals."""
    import altair as alt  # noqa: PLC0415

    rows = [
        {key: float(row[key]) for key in ("predicted", "rate", "low", "high")}
        for row in reliability_table(actual, predicted)
    ]
    percent, whole = alt.Axis(format=".0%"), alt.Scale(domain=[0, 1])
    base = data(rows).encode(
        x=alt.X("predicted:Q", title=wording["predicted_risk"], axis=percent, scale=whole),
        tooltip=[
            alt.Tooltip("predicted:Q", title=wording["predicted_risk"], format=".1%"),
            alt.Tooltip("rate:Q", title=wording["actual_rate"], format=".1%"),
            alt.Tooltip("low:Q", title=wording["interval_low"], format=".1%"),
            alt.Tooltip("high:Q", title=wording["interval_high"], format=".1%"),
        ],
    )
    y = alt.Y("rate:Q", title=wording["actual_rate"], axis=percent, scale=whole)
    diagonal = data([{"x": 0.0, "y": 0.0}, {"x": 1.0, "y": 1.0}]).mark_line(color="var(--muted)", strokeWidth=1)
    chart = alt.layer(
        diagonal.encode(x="x:Q", y="y:Q"),
        base.mark_rule(color="var(--series)", strokeWidth=2).encode(y="low:Q", y2="high:Q"),
        base.mark_point().encode(y=y),
    )
    chance = "–" if by_chance is None else f"{by_chance:.3f}"
    title = f"{day} · {wording['ece_line'].format(ece=f'{ece(actual, predicted):.3f}', chance=chance)}"
    table = [(f"{r['predicted']:.1%}", f"{r['rate']:.1%}", f"[{r['low']:.1%}, {r['high']:.1%}]") for r in rows]
    heads = (wording["predicted_risk"], wording["actual_rate"], wording["interval_95"])
    return Chart(f"reliability-{day}", title, drawn(chart, 230), heads, table)


def gains(day: str, churned: Floats, predicted: Mapping[str, Floats], wording: Mapping[str, str]) -> Chart:
    """Return, for each model, the share of churners found by contacting the riskiest first; one at least must churn."""
    grid = np.linspace(0, 1, 101)
    curves = {name: (grid, found_at(churned, p, grid)) for name, p in predicted.items()}
    curves |= {wording["perfect"]: (grid, np.minimum(grid / churned.mean(), 1))}
    return lines("gains", f"{wording['found']} · {day}", curves, wording["contacted"], wording["found"],
                 steps=(0.05, 0.1, 0.2, 0.3, 0.5, 0.8))  # fmt: skip


def residuals(day: str, actual: Floats, predicted: Floats, wording: Mapping[str, str], unit: str) -> Chart:
    """Return actual minus predicted value of one test date by tenths of the prediction.

    A thin line covers nine tenths of the customers, a thick one half of them, a dot is the mean. The scale is linear
    near zero and logarithmic beyond, because a few residuals are a hundred times as large as most.
    """
    import altair as alt  # noqa: PLC0415

    group = quantile_groups(predicted, _TENTHS)
    missed = np.abs((actual - predicted)[actual != predicted])
    straight = float(10.0 ** np.floor(np.log10(np.median(missed)))) if len(missed) else 1.0
    rows = []
    for place, k in enumerate(np.unique(group), 1):
        of_group = (actual - predicted)[group == k]
        low, first, middle, third, high = (float(q) for q in np.quantile(of_group, (0.05, 0.25, 0.5, 0.75, 0.95)))
        expected = float(predicted[group == k].mean())
        rows.append({"tenth": place, "expected": expected, "low": low, "first": first, "median": middle,
                     "third": third, "high": high, "mean": float(of_group.mean()), "n": len(of_group)})  # fmt: skip
    scale = alt.Scale(type="symlog", constant=straight)
    amount = ",.0f" if straight >= 1 else ",.2f"
    tips = [
        alt.Tooltip("expected:Q", title=wording["expected_by_tenth"], format=amount),
        *(alt.Tooltip(f"{key}:Q", title=wording[title], format=amount)
          for key, title in _OF_RESIDUALS.items()),
    ]  # fmt: skip
    base = data(rows).encode(x=alt.X("tenth:O", title=wording["tenth"], axis=alt.Axis(labelAngle=0)), tooltip=tips)
    title = f"{wording['actual_less_predicted']}{f' ({unit})' if unit else ''}"
    ends = alt.Y("low:Q", title=title, scale=scale, axis=alt.Axis(format=amount, tickCount=7))
    chart = alt.layer(
        data([{"y": 0.0}]).mark_rule(color="var(--ink)").encode(y=alt.Y("y:Q", scale=scale)),
        base.mark_rule(color="var(--muted)").encode(y=ends, y2="high:Q"),
        base.mark_rule(color="var(--second)", strokeWidth=7, opacity=0.45).encode(
            y=alt.Y("first:Q", scale=scale), y2="third:Q"
        ),
        base.mark_point().encode(y=alt.Y("mean:Q", scale=scale)),
    )
    keys = ("expected", "mean", "median", "low", "high")
    table = [
        (str(r["tenth"]), *(f"{r[key]:,.0f}" if straight >= 1 else f"{r[key]:,.2f}" for key in keys)) for r in rows
    ]
    heads = (wording["tenth"], wording["expected_by_tenth"], wording["mean_error"], wording["median"],
             wording["interval_low"], wording["interval_high"])  # fmt: skip
    return Chart(f"residuals-{day}", day, drawn(chart, 250), heads, table)


def importance(
    target: str, rows: Sequence[Mapping[str, Any]], names: Mapping[str, str], wording: Mapping[str, str], unit: str
) -> Chart:
    """Return the size and direction of each input's effect on one target, largest on top."""
    import altair as alt  # noqa: PLC0415

    found = []
    for place, row in enumerate(rows):
        way = _way(row["direction"])
        found.append({"input": names.get(row["feature"], row["feature"]), "size": float(row["size"]), "place": place,
                      "way": f"{_WAYS[way]} {wording[f'more_{way}']}", "sign": _WAYS[way]})  # fmt: skip
    title = wording["mean_shift"] + (f" ({unit})" if unit else "")
    base = data(found).encode(
        y=alt.Y("input:N", sort=[r["input"] for r in found], title=None, axis=alt.Axis(labelLimit=230)),
        x=alt.X("size:Q", title=title, axis=alt.Axis(tickCount=5)),
        tooltip=[alt.Tooltip("input:N", title=wording["input"]), alt.Tooltip("size:Q", title=title, format=".3~f"),
                 alt.Tooltip("way:N", title=wording["direction"])],
    )  # fmt: skip
    chart = alt.layer(base.mark_bar(height={"band": 0.7}), base.mark_text(align="left", dx=4).encode(text="sign:N"))
    table = [(r["input"], f"{r['size']:,.3g}", r["way"]) for r in found]
    heads = (wording["input"], title, wording["direction"])
    return Chart(f"importance-{target}", wording[f"moves_{target}"], drawn(chart, 50 + 24 * len(found)), heads, table)


def _way(direction: float | None) -> str:
    if direction is None or abs(direction) < _ONE_WAY:
        return "varies"
    return "raises" if direction > 0 else "lowers"


def differences(
    target: str, metric: str, comparisons: Sequence[Mapping[str, Any]], wording: Mapping[str, str]
) -> Chart:
    """Return the differences of one metric to each baseline by date, right of zero where the model is better."""
    import altair as alt  # noqa: PLC0415

    sign = -1 if metric in LOWER_IS_BETTER else 1
    rows = []
    for c in comparisons:
        low, high = sorted((sign * c["low"], sign * c["high"]))
        rows.append({"model": model_name(c["against"], wording), "day": c["as_of"], "verdict": wording[c["verdict"]],
                     "middle": sign * c["difference"], "low": low, "high": high})  # fmt: skip
    models = list(dict.fromkeys(row["model"] for row in rows))
    status = alt.Color("verdict:N", legend=None,
                       scale=alt.Scale(domain=[wording[k] for k in _STATUS], range=list(_STATUS.values())))  # fmt: skip
    base = data(rows).encode(
        y=alt.Y("model:N", sort=models, title=None), yOffset=alt.YOffset("day:N"), color=status,
        tooltip=[alt.Tooltip("model:N", title=wording["baseline"]), alt.Tooltip("day:N", title=wording["date"]),
                 alt.Tooltip("middle:Q", title=wording["difference"], format="+.4f"),
                 alt.Tooltip("low:Q", title=wording["interval_low"], format="+.4f"),
                 alt.Tooltip("high:Q", title=wording["interval_high"], format="+.4f"),
                 alt.Tooltip("verdict:N", title=wording["verdict"])],
    )  # fmt: skip
    x = alt.X("low:Q", title=wording["better_arrow"], axis=alt.Axis(tickCount=4))
    chart = alt.layer(
        data([{"x": 0.0}]).mark_rule(color="var(--ink)").encode(x="x:Q"),
        base.mark_rule(strokeWidth=2).encode(x=x, x2="high:Q"),
        base.mark_point().encode(x="middle:Q"),
    )
    title = f"{wording[f'target_{target}']} · {wording.get(f'metric_{metric}', metric)}"
    table = [
        (r["model"], r["day"], r["verdict"], f"{r['middle']:+.4f} [{r['low']:+.4f}, {r['high']:+.4f}]") for r in rows
    ]
    heads = (wording["baseline"], wording["date"], wording["verdict"], wording["difference"])
    days = len({row["day"] for row in rows})
    height = 50 + max(26, 11 * days + 6) * len(models)
    return Chart(f"difference-{target}-{metric}", title, drawn(chart, height), heads, table)


def schemes(rows: Sequence[Mapping[str, Any]], wording: Mapping[str, str]) -> Chart | None:
    """Return each scheme's share of key customers against the share of the observed value that they brought."""
    import altair as alt  # noqa: PLC0415

    found = [
        {"scheme": r["name"], "x": r["key_customers_share"], "y": r["value_capture_top"], "ours": r["ours"],
         "label": r["name"] if r["ours"] or r["proposed"] else ""}
        for r in rows if None not in (r["key_customers_share"], r["value_capture_top"])
    ]  # fmt: skip
    if not found:
        return None
    percent, whole = alt.Axis(format=".0%"), alt.Scale(domain=[0, 1])
    base = data(found).encode(
        x=alt.X("x:Q", title=wording["key_share"], axis=percent, scale=whole),
        y=alt.Y("y:Q", title=wording["capture"], axis=percent, scale=whole),
        tooltip=[alt.Tooltip("scheme:N", title=wording["scheme"]),
                 alt.Tooltip("x:Q", title=wording["key_share"], format=".1%"),
                 alt.Tooltip("y:Q", title=wording["capture"], format=".1%")],
    )  # fmt: skip
    shape = alt.Shape("ours:N", scale=alt.Scale(domain=[False, True], range=["circle", "diamond"]), legend=None)
    size = alt.Size("ours:O", scale=alt.Scale(domain=[False, True], range=[60, 190]), legend=None)
    line = data([{"x": 0.0, "y": 0.0}, {"x": 1.0, "y": 1.0}]).mark_line(color="var(--muted)", strokeWidth=1)
    chart = alt.layer(
        line.encode(x="x:Q", y="y:Q"),
        base.mark_point(opacity=0.75).encode(shape=shape, size=size),
        base.mark_text(align="left", dx=9, dy=9, fontWeight="bold").encode(text="label:N"),
    )
    table = [(r["scheme"], f"{r['x']:.1%}", f"{r['y']:.1%}") for r in found]
    heads = (wording["scheme"], wording["key_share"], wording["capture"])
    return Chart("schemes-chart", wording["head_schemes"], drawn(chart, 320), heads, table)


def retention(rows: Sequence[Mapping[str, Any]], names: Sequence[str], wording: Mapping[str, str]) -> Chart | None:
    """Return the share of each tier's customers who stayed, with its interval; `names` are the tiers, lowest first."""
    import altair as alt  # noqa: PLC0415

    shown = [
        {"tier": row["name"], "share": float(row["retained_share"]), "low": float(row["retained_low"]),
         "high": float(row["retained_high"]), "n": int(row["customers"])}
        for row in rows if not row["hidden"] and np.isfinite(row["retained_share"])
    ]  # fmt: skip
    if not shown:
        return None
    base = data(shown).encode(
        y=alt.Y("tier:N", sort=[r["tier"] for r in shown], title=None),
        color=alt.Color("tier:N", scale=tier_scale(names), legend=None),
        tooltip=[alt.Tooltip("tier:N", title=wording["tier"]),
                 alt.Tooltip("n:Q", title=wording["customers"], format=","),
                 *(alt.Tooltip(f"{key}:Q", title=wording[title], format=".1%") for key, title in
                   (("share", "outcomes_retained_share"), ("low", "interval_low"), ("high", "interval_high")))],
    )  # fmt: skip
    x = alt.X("low:Q", title=wording["outcomes_retained_share"], axis=alt.Axis(format=".0%"),
              scale=alt.Scale(domain=[0, 1]))  # fmt: skip
    chart = alt.layer(base.mark_rule(strokeWidth=3).encode(x=x, x2="high:Q"),
                      base.mark_point(size=90).encode(x="share:Q"))  # fmt: skip
    table = [(r["tier"], f"{r['n']:,}", f"{r['share']:.1%}", f"[{r['low']:.1%}, {r['high']:.1%}]") for r in shown]
    heads = (wording["tier"], wording["customers"], wording["outcomes_retained_share"], wording["interval_95"])
    return Chart("retention", wording["outcomes_retained_share"], drawn(chart, 50 + 34 * len(shown)), heads, table)
