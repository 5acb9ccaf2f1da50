"""Figures on customers: matplotlib `Figure` objects made without global state; equal data give equal bytes."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.ticker import PercentFormatter

from tiermodel import disk
from tiermodel.arrays import Floats, Ints
from tiermodel.evaluation.metrics import pareto_share, whale_curve
from tiermodel.output import atomic_file
from tiermodel.words import words

__all__ = [
    "COLOURS",
    "LINES",
    "SMALL",
    "FigureStyle",
    "concentration",
    "percent_axes",
    "pyramid",
    "rfm_map",
    "save_png",
    "short",
    "svg",
]


SMALL = 5
"""Cells with fewer customers are not shown."""

COLOURS = {
    "paper": "#fefefe",
    "ink": "#1f2a37",
    "muted": "#66717f",
    "grid": "#d8dee6",
    "accent": "#2a6f97",
    "warm": "#c1553b",
    "sand": "#c9952f",
    "good": "#3b7d5e",
}
CJK = (
    *("Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "Source Han Sans CN", "PingFang SC"),
    *("Microsoft YaHei", "Hiragino Sans GB", "SimHei", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Arial Unicode MS"),
)
RISK_MAP_EDGES = (0.05, 0.1, 0.2, 0.35, 0.5, 0.75)
LINES = (("accent", "-"), ("sand", "--"), ("warm", "-."), ("good", ":"))
"""Colour and dash of the first, second, … line, distinct in black and white too."""


@dataclass(frozen=True)
class FigureStyle:
    """The style of figures: the language of labels, and whether a browser draws the text, or matplotlib (PNG).

    A browser has Chinese fonts. Where matplotlib has none, labels are English and a note in the figure says so. Callers
    pass the names of levels and features in the language `language`.
    """

    wanted: str = "en"
    browser: bool = False

    @property
    def language(self) -> str:
        """The language that is drawn, `zh` or `en`."""
        return "zh" if self.wanted == "zh" and (self.browser or _cjk_fonts()) else "en"

    @property
    def words(self) -> Mapping[str, str]:
        """The texts in the language that is drawn."""
        return words(self.language)

    @contextmanager
    def draw(self, width: float, height: float, columns: int = 1, rows: int = 1) -> Iterator[tuple[Figure, list[Axes]]]:
        """Yield a figure of this size, in inches, and its panels row by row."""
        with mpl.rc_context(_style()):
            figure = Figure(figsize=(width, height), layout="constrained")
            panels = figure.subplots(rows, columns, squeeze=False)
            yield figure, list(panels.ravel())
            if self.language != self.wanted:
                figure.supxlabel(self.words["cjk_note"], fontsize=7, color=COLOURS["warm"], x=0.99, ha="right")


def _cjk_fonts() -> list[str]:
    installed = {font.name for font in fontManager.ttflist}
    return [name for name in CJK if name in installed]


def _style() -> Any:
    quiet = {f"axes.spines.{side}": False for side in ("top", "right", "left")}
    return quiet | {
        "axes.edgecolor": COLOURS["grid"],
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.labelcolor": COLOURS["muted"],
        "axes.titlesize": 10,
        "axes.titlelocation": "left",
        "axes.titlecolor": COLOURS["ink"],
        "axes.unicode_minus": False,
        "font.family": ["DejaVu Sans", *_cjk_fonts()],
        "font.size": 9,
        "grid.color": COLOURS["grid"],
        "grid.linewidth": 0.6,
        "legend.edgecolor": "none",
        "legend.facecolor": COLOURS["paper"],
        "legend.fontsize": 8.5,
        "legend.labelcolor": COLOURS["ink"],
        "savefig.dpi": 150,
        "svg.fonttype": "none",
        "text.color": COLOURS["ink"],
        "text.parse_math": False,  # a level may be called $$
        "xtick.color": COLOURS["muted"],
        "ytick.color": COLOURS["muted"],
        "xtick.major.size": 0,
        "ytick.major.size": 0,
    }


def svg(figure: Figure, name: str, label: str) -> Markup:
    """Return a figure as SVG for an HTML page, with the page's colours and fonts and with ids unique to `name`."""
    buffer = io.StringIO()
    with mpl.rc_context(_style() | {"svg.hashsalt": name}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph", category=UserWarning)  # the browser has the font
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r"<style[^>]*>.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r' id="[\w.]+_\d+"| transform="rotate\(-0 [^"]*"|font-family: [^;"]*; ', "", text)
    viewbox = re.search(r'viewBox="[^"]*"', text)
    assert viewbox is not None  # noqa: S101  # matplotlib always writes one
    text = text[text.index(">") + 1 :]
    for colour, code in COLOURS.items():
        text = text.replace(code, f"var(--{colour})")
    text = "\n".join(line.rstrip() for line in text.splitlines() if line.strip())
    return Markup('<svg {} role="img" aria-label="{}">{}').format(Markup(viewbox[0]), label, Markup(text))  # noqa: S704


def save_png(figure: Figure, path: str | Path) -> Path:
    """Write a figure as PNG, whole or not at all; equal figures give equal bytes."""
    with atomic_file(Path(path)) as temporary, disk.create(temporary) as file, mpl.rc_context(_style()):
        figure.savefig(file, format="png", facecolor="white", metadata={"Software": None})
    return Path(path)


def short(text: str, most: int = 26) -> str:
    """Return a name, cut to `most` characters so that it fits into a figure.

    >>> short("a very long name indeed", 10)
    'a very lo…'
    """
    return text if len(text) <= most else text[: most - 1] + "…"


def pyramid(
    style: FigureStyle, names: Sequence[str], customers: Sequence[int], values: Sequence[float], currency: str
) -> Figure:
    """Draw each level's share of customers (left) and of expected value (right); sequences start at the lowest."""
    heads, money = np.array(customers, dtype=np.float64), np.array(values, dtype=np.float64)
    left, right = heads / max(heads.sum(), 1), money / (money.sum() or 1)
    y, gap = np.arange(len(names)), 0.17
    widest = max(left.max(), np.abs(right).max(), 0.1)
    with style.draw(8.6, 0.9 + 0.52 * len(names)) as (figure, (axes,)):
        axes.barh(y, -left, left=-gap, height=0.66, color=COLOURS["accent"])
        axes.barh(y, right, left=gap, height=0.66, color=COLOURS["sand"])
        for k, name in enumerate(names):
            axes.text(0, k, short(name), ha="center", va="center", fontweight="bold")
            axes.text(-gap - left[k] - 0.015, k, f"{customers[k]:,} · {left[k]:.1%}", ha="right", va="center")
            label = f"{values[k]:,.0f} {currency}".rstrip() + f" · {right[k]:.1%}"
            axes.text(gap + max(right[k], 0) + 0.015, k, label, ha="left", va="center")
        reach = gap + widest + 0.32
        axes.set(xlim=(-reach, reach), ylim=(-0.6, len(names) + 0.1), xticks=[], yticks=[])
        for x, key, side in ((-gap, "customers_share", "right"), (gap, "value_share", "left")):
            axes.text(x, len(names) - 0.35, style.words[key], ha=side, va="center", color=COLOURS["muted"])
        axes.grid(visible=False)
        axes.spines["bottom"].set_visible(False)
    return figure


def concentration(style: FigureStyle, curves: Mapping[str, Floats]) -> Figure:
    """Draw the cumulative share of value, most valuable customers first; each curve needs a total above zero."""
    grid = np.linspace(0, 1, 201)
    with style.draw(5.4, 4.2) as (figure, (axes,)):
        axes.plot([0, 1], [0, 1], color=COLOURS["muted"], linewidth=0.8)
        axes.axvline(0.2, color=COLOURS["muted"], linewidth=0.8, linestyle=":")
        for (label, values), (colour, dash) in zip(curves.items(), LINES, strict=False):
            top = pareto_share(values)
            text = style.words["top_share"].format(label=label, share=f"{top:.0%}")
            reached = np.interp(grid, *whale_curve(values))
            axes.plot(grid, reached, dash, color=COLOURS[colour], linewidth=1.8, label=text)
            axes.plot(0.2, top, "o", color=COLOURS[colour], markersize=5)
        percent_axes(axes, style.words["cum_customers"], style.words["cum_value"])
        axes.legend(loc="lower right")
    return figure


def percent_axes(axes: Axes, x: str, y: str) -> None:
    """Scale both axes in percent, the horizontal one from 0 to 100."""
    axes.set(xlabel=x, ylabel=y, xlim=(0, 1))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0))


def _cells(axes: Axes, counts: Floats, shade: Floats, texts: Sequence[Sequence[str]]) -> None:
    """Fill a grid of cells, darker where `shade` is higher; cells of fewer than `SMALL` customers show no figure."""
    shown = np.where(counts >= SMALL, np.nan_to_num(shade), np.nan)
    darkest = float(np.nan_to_num(shown).max())
    rows, columns = counts.shape
    for i, j in np.ndindex(rows, columns):
        small = 0 < counts[i, j] < SMALL
        depth = 0.06 + 0.54 * max(float(shown[i, j]), 0.0) / darkest if counts[i, j] >= SMALL and darkest > 0 else 0.0
        axes.bar(j, 0.94, width=0.94, bottom=i - 0.47, color=COLOURS["accent"], alpha=depth)
        text = f"< {SMALL}" if small else texts[i][j] if counts[i, j] else ""
        axes.text(j, i, text, ha="center", va="center", color=COLOURS["muted" if small else "ink"], fontsize=8.5)
    axes.set(xlim=(-0.5, columns - 0.5), ylim=(-0.5, rows - 0.5))
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)


def rfm_map(
    style: FigureStyle, recency: Floats, frequency: Floats, panels: Mapping[str, tuple[Floats, str]], axis_label: str
) -> Figure:
    """Draw recency × frequency in up to five groups each, one panel for each measure, shaded by its mean.

    `recency` is in days. `panels` maps a title to the values, one for each customer, and the format of their mean;
    `axis_label` names the frequency.
    """
    (r, r_names), (f, f_names) = _groups(recency), _groups(frequency)
    shape = (len(f_names), len(r_names))
    counts = np.zeros(shape)
    np.add.at(counts, (f, r), 1)
    with style.draw(5.4 * len(panels), 4.3, columns=len(panels)) as (figure, axes):
        for panel, (title, (values, form)) in zip(axes, panels.items(), strict=True):
            known = np.isfinite(values)
            total, n = np.zeros(shape), np.zeros(shape)
            np.add.at(total, (f[known], r[known]), values[known])
            np.add.at(n, (f[known], r[known]), 1)
            mean = total / np.maximum(n, 1)
            texts = [[f"{int(counts[i, j]):,}\n{mean[i, j]:{form}}" for j in range(shape[1])] for i in range(shape[0])]
            _cells(panel, np.where(n >= SMALL, counts, np.minimum(counts, n)), mean, texts)
            panel.set_xticks(range(shape[1]), r_names, fontsize=8)
            panel.set_yticks(range(shape[0]), f_names, fontsize=8)
            panel.set(xlabel=style.words["recency"], ylabel=axis_label, title=title)
    return figure


def _groups(values: Floats) -> tuple[Ints, list[str]]:
    """Return each value's group, up to five split at the quintiles, equal values together, and the groups' ranges."""
    cuts = np.unique(np.quantile(values, [0.2, 0.4, 0.6, 0.8]))
    _, group = np.unique(np.searchsorted(cuts, values, side="left"), return_inverse=True)
    spans = [(values[group == g].min(), values[group == g].max()) for g in range(group.max() + 1)]
    return group, [f"{low:,.0f}" if low == high else f"{low:,.0f}–{high:,.0f}" for low, high in spans]
