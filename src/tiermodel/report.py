"""Make one HTML page of scores, a backtest and a model: no script, no request, readable on paper, in zh or en."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from tiermodel.errors import ProjectError
from tiermodel.figures import COLOURS, Pen
from tiermodel.output import atomic_file
from tiermodel.report_customers import customer_sections
from tiermodel.report_models import model_sections
from tiermodel.report_sources import Given, read_sources

__all__ = ["report"]


def report(sources: Sequence[str | Path], out: str | Path, language: str | None = None) -> Path:
    """Write one self-contained HTML page with the sections that the sources allow, and a line for each they do not.

    Sources: a score table, a feature table, a backtest's predictions (.parquet or .csv, told by their columns), a
    backtest (.json), a bundle folder; one of each at most. `language` is zh or en; else the bundle's, else en. The same
    sources give the same bytes. Raises `ProjectError` for an unknown source, language or ending of `out`.
    """
    target = Path(out)
    if target.suffix.lower() not in {".html", ".htm"}:
        raise ProjectError(f"{target}: a report is written as .html; give that ending")
    if language not in {None, "zh", "en"}:
        raise ProjectError(f"language {language!r}: a report is written in zh or en")
    given = read_sources(sources)
    pen = Pen(language or (given.bundle.language if given.bundle else "en"), browser=True)
    page = _page(given, pen)
    with atomic_file(target) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return target


def _page(given: Given, pen: Pen) -> str:
    environment = Environment(
        loader=PackageLoader("tiermodel"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"count": _count, "percent": _percent, "figure": _figure}
    settings = given.bundle.settings if given.bundle else {}
    currency = str(settings.get("currency") or "")
    return environment.get_template("report.html.j2").render(
        t=pen.words,
        language=pen.language,
        colours=COLOURS,
        given=given,
        currency=currency,
        facts=_facts(given, settings),
        sections=customer_sections(given, pen, currency) | model_sections(given, pen),
    )


def _facts(given: Given, settings: dict[str, Any]) -> dict[str, Any]:
    """Collect what heads and closes the page: project, date, horizon, measure, versions. None is not known."""
    bundle, backtest, scores = given.bundle, given.backtest or {}, given.scores
    row: Any = scores.iloc[0] if scores is not None else {}
    version = row.get("model_version") or (bundle.version if bundle else None)
    return {
        "project": bundle.name if bundle else backtest.get("project"),
        "as_of": row.get("as_of") or (bundle.facts["as_of"] if bundle else None),
        "horizon": settings["outcome"]["horizon_days"] if bundle else backtest.get("horizon_days"),
        "measure": settings["value"]["measure"] if bundle else backtest.get("value_measure"),
        "model_version": version,
        "scheme_version": row.get("scheme_version") or (bundle.scheme_version if bundle else None),
        "other_version": bundle.version if bundle and scores is not None and bundle.version != version else None,
        "training": bundle.facts if bundle else None,
    }


def _count(value: float | None, decimals: int = 0) -> str:
    """Write a number with thousands separators; a dash for what is not known."""
    return "–" if value is None or value != value else f"{value:,.{decimals}f}"  # noqa: PLR0124  # NaN


def _percent(value: float | None, decimals: int = 1) -> str:
    return "–" if value is None or value != value else f"{value:.{decimals}%}"  # noqa: PLR0124  # NaN


def _figure(value: float | None) -> str:
    """Write a measure with about four digits: 0.0213, 66.2, 1,204."""
    if value is None:
        return "–"
    return f"{value:.4f}" if abs(value) < 10 else f"{value:,.1f}" if abs(value) < 1000 else f"{value:,.0f}"
