"""The HTML report: one page on scores, a backtest and a model, without scripts and requests, in Chinese or English."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from tiermodel import disk
from tiermodel.bundle.bundle import load_bundle
from tiermodel.config.project import Project
from tiermodel.errors import ProjectError
from tiermodel.output import atomic_file
from tiermodel.policy.service_policy import load_policy
from tiermodel.reporting.customer import customer_page, read_features, resolve_customer
from tiermodel.reporting.customers import customer_sections
from tiermodel.reporting.figures import COLOURS, FigureStyle
from tiermodel.reporting.inputs import ReportInputs, read_sources
from tiermodel.reporting.models import model_sections
from tiermodel.reporting.outcomes import outcomes_section
from tiermodel.words import words

__all__ = ["customer_report", "report"]


def report(sources: Sequence[str | Path], out: str | Path, language: str | None = None) -> Path:
    """Write one self-contained HTML page with the sections that the sources allow, and a line for each missing one.

    Parameters
    ----------
    sources : sequence of str or Path
        At most one of each: a score table, a feature table, a backtest's predictions, outcomes (.parquet or .csv,
        recognised by their columns; what was written beside outcomes is read too), a backtest (.json), the verdict of
        the gate (what `promote --json` printed), a bundle folder.
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
    target = _target(out, language)
    inputs = read_sources(sources)
    style = FigureStyle(language or (inputs.bundle.language if inputs.bundle else "en"), browser=True)
    page = _page(inputs, style)
    return _written(page, target)


def customer_report(  # noqa: PLR0913  the options of the verb
    scores: str | Path,
    customer: str,
    out: str | Path,
    *,
    project: Project | None = None,
    ledger: str | Path | None = None,
    model: str | Path | None = None,
    features: str | Path | None = None,
    language: str | None = None,
) -> Path:
    """Write one self-contained HTML page on one customer of a score table, with a letter that can be sent.

    Parameters
    ----------
    scores : str or Path
        The score table, .parquet or .csv.
    customer : str
        The id as the score table has it; with a `project` that hashes ids, the id of its tables is taken too.
    out : str or Path
        The page, an .html file.
    project : Project, optional
        The project: without `features`, the snapshot of the scores' date is built from its tables.
    ledger : str or Path, optional
        The folder of the tier ledger, for the tier history.
    model : str or Path, optional
        The bundle's folder, for reasons of risk and value, and ways up.
    features : str or Path, optional
        The feature table of the scores' date, .parquet or .csv.
    language : {"zh", "en"}, optional
        By default the bundle's, else the project's, else English. Reasons of the tier stay as they were written.

    Raises
    ------
    ProjectError
        For another language or another ending of `out`, or a file that is not there.
    DataError, ModelError, LedgerError
        If the customer is not in the scores or has no features; for a source that cannot be read.

    """
    target = _target(out, language)
    bundle = None if model is None else load_bundle(model)
    spoken = language or (bundle.language if bundle else project.language if project else "en")
    known, day = resolve_customer(Path(scores), customer, project)
    table = read_features(None if features is None else Path(features), project, bundle, day)
    policy = None if project is None or project.policy is None else load_policy(project.policy, project.folder)
    page = customer_page(Path(scores), known, spoken, bundle, table, None if ledger is None else Path(ledger), policy)
    text = _environment().get_template("customer.html.j2").render(
        t=words(spoken), language=spoken, colours=COLOURS, p=page
    )  # fmt: skip
    return _written(text, target)


def _target(out: str | Path, language: str | None) -> Path:
    """Return the path of a page; `ProjectError` for another ending or language."""
    target = Path(out)
    if target.suffix.lower() not in {".html", ".htm"}:
        raise ProjectError(f"{target}: a report is written as .html; give that ending")
    if language not in {None, "zh", "en"}:
        raise ProjectError(f"language {language!r}: a report is written in zh or en")
    return target


def _written(page: str, target: Path) -> Path:
    with atomic_file(target) as temporary:
        disk.write_bytes(temporary, page.encode())
    return target


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("tiermodel"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"count": _count, "percent": _percent, "figure": _figure}
    return environment


def _page(inputs: ReportInputs, style: FigureStyle) -> str:
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            t=style.words,
            language=style.language,
            colours=COLOURS,
            inputs=inputs,
            currency=inputs.currency,
            facts=_facts(inputs),
            sections=customer_sections(inputs, style) | _of_outcomes(inputs, style) | model_sections(inputs, style),
        )
    )


def _of_outcomes(inputs: ReportInputs, style: FigureStyle) -> dict[str, Any]:
    section = outcomes_section(inputs, style)
    return {} if section is None else {"outcomes": section}


def _facts(inputs: ReportInputs) -> dict[str, Any]:
    """Return the facts that head and close the page: project, date, horizon, measure, versions; None if not known."""
    bundle, backtest = inputs.bundle, inputs.backtest or {}
    facts: dict[str, Any] = {
        **dict.fromkeys(("as_of", "model_version", "scheme_version", "other_version", "training")),
        "project": backtest.get("project") or (inputs.gate or {}).get("name"),
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
