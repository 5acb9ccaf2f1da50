"""The HTML report: one page on scores, a backtest and a model, without scripts and requests, in Chinese or English."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from tiermodel import disk
from tiermodel.errors import ProjectError
from tiermodel.output import atomic_file
from tiermodel.reporting.customers import customer_sections
from tiermodel.reporting.figures import COLOURS, FigureStyle
from tiermodel.reporting.inputs import ReportInputs, read_sources
from tiermodel.reporting.models import model_sections

__all__ = ["report"]


def report(sources: Sequence[str | Path], out: str | Path, language: str | None = None) -> Path:
    """Write one self-contained HTML page with the sections that the sources allow, and a line for each missing one.

    Parameters
    ----------
    sources : sequence of str or Path
        At most one of each: a score table, a feature table, a backtest's predictions (.parquet or .csv, recognised by
        their columns), a backtest (.json), a bundle folder.
    out : str or Path
        The page, an .html file.
    language : {"zh", "en"}, optional
        By default the bundle's, or English without a bundle.

    Returns
    -------
    Path
        The page; equal sources give equal bytes.

    Raises
    ------
    ProjectError
        For an unknown source, two sources of one kind, another language or another ending of `out`.
    DataError, ModelError
        For a source that cannot be read.

    Examples
    --------
    >>> import json
    >>> from tempfile import TemporaryDirectory
    >>> backtest = {"dates": [], "horizon_days": 90, "churn": [], "value": [], "tiers": [], "comparisons": []}
    >>> with TemporaryDirectory() as folder:
    ...     source = Path(folder, "backtest.json")
    ...     _ = source.write_text(json.dumps(backtest))
    ...     page = report([source], Path(folder, "report.html")).read_text(encoding="utf-8")
    >>> page.splitlines()[:2]
    ['<!DOCTYPE html>', '<html lang="en">']

    """
    target = Path(out)
    if target.suffix.lower() not in {".html", ".htm"}:
        raise ProjectError(f"{target}: a report is written as .html; give that ending")
    if language not in {None, "zh", "en"}:
        raise ProjectError(f"language {language!r}: a report is written in zh or en")
    inputs = read_sources(sources)
    style = FigureStyle(language or (inputs.bundle.language if inputs.bundle else "en"), browser=True)
    page = _page(inputs, style)
    with atomic_file(target) as temporary:
        disk.write_bytes(temporary, page.encode())
    return target


def _page(inputs: ReportInputs, style: FigureStyle) -> str:
    environment = Environment(
        loader=PackageLoader("tiermodel"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"count": _count, "percent": _percent, "figure": _figure}
    return environment.get_template("report.html.j2").render(
        t=style.words,
        language=style.language,
        colours=COLOURS,
        inputs=inputs,
        currency=inputs.currency,
        facts=_facts(inputs),
        sections=customer_sections(inputs, style) | model_sections(inputs, style),
    )


def _facts(inputs: ReportInputs) -> dict[str, Any]:
    """Return the facts that head and close the page: project, date, horizon, measure, versions; None if not known."""
    bundle, backtest = inputs.bundle, inputs.backtest or {}
    facts: dict[str, Any] = {
        **dict.fromkeys(("as_of", "model_version", "scheme_version", "other_version", "training")),
        "project": backtest.get("project"),
        "horizon": backtest.get("horizon_days"),
        "measure": backtest.get("value_measure"),
    }
    if bundle is not None:
        facts |= {
            "project": bundle.name,
            "as_of": bundle.facts["as_of"],
            "horizon": bundle.settings["outcome"]["horizon_days"],
            "measure": bundle.settings["value"]["measure"],
            "model_version": bundle.version,
            "scheme_version": bundle.scheme_version,
            "training": bundle.facts,
        }
    if inputs.scores is not None:  # the score table says by itself what made it
        row = inputs.scores.iloc[0]
        facts |= {key: row[key] for key in ("as_of", "model_version", "scheme_version") if row.get(key)}
        if bundle is not None and bundle.version != facts["model_version"]:
            facts["other_version"] = bundle.version
    return facts


def _count(value: float | None, decimals: int = 0) -> str:
    """Return a number with thousands separators as text; a dash for None and NaN."""
    return "–" if value is None or value != value else f"{value:,.{decimals}f}"  # noqa: PLR0124  # NaN


def _percent(value: float | None, decimals: int = 1) -> str:
    return "–" if value is None or value != value else f"{value:.{decimals}%}"  # noqa: PLR0124  # NaN


def _figure(value: float | None) -> str:
    """Return a metric as text with three or four digits (0.0213, 66.2, 1,204); a dash for None."""
    if value is None:
        return "–"
    return f"{value:.4f}" if abs(value) < 10 else f"{value:,.1f}" if abs(value) < 1000 else f"{value:,.0f}"
