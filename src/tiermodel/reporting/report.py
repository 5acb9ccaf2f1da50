"""The HTML report: one page on scores, a backtest and a model, without a request, in Chinese or English."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tiermodel import disk
from tiermodel.bundle.bundle import load_bundle
from tiermodel.config.project import Project
from tiermodel.errors import ProjectError
from tiermodel.output import atomic_file
from tiermodel.policy.service_policy import Policy, load_policy
from tiermodel.reporting.charts import require_library
from tiermodel.reporting.customer import customer_page, read_features, resolve_customer
from tiermodel.reporting.figures import COLOURS
from tiermodel.reporting.inputs import read_sources
from tiermodel.reporting.page import environment, render
from tiermodel.words import words

__all__ = ["customer_report", "report"]


def report(
    sources: Sequence[str | Path],
    out: str | Path,
    language: str | None = None,
    *,
    ids: bool = True,
    policy: Policy | None = None,
) -> Path:
    """Write one self-contained HTML page with the sections that the sources allow, and a line for each missing one.

    Parameters
    ----------
    sources : sequence of str or Path
        At most one of each: a score table, a feature table, a backtest's predictions, outcomes (.parquet or .csv,
        recognised by their columns; what was written beside outcomes is read too), a backtest, a data check, the
        result of a monitor, the verdict of the gate (what `promote --json` printed; .json), a service policy (.yaml),
        a bundle folder, the folder of a tier ledger.
    out : str or Path
        The page, an .html file.
    language : {"zh", "en"}, optional
        By default the bundle's, or English without a bundle.
    ids : bool
        Whether customers are named by their ids; without, by their rank.
    policy : Policy, optional
        The service policy, where it is not among the sources.

    Returns
    -------
    Path
        The page; equal sources give equal bytes.

    Raises
    ------
    ProjectError
        For an unknown source, two sources of one kind, another language or another ending of `out`, or without the
        charting library (`pip install 'tiermodel[report]'`).
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
    require_library()
    inputs = read_sources(sources)
    if policy is not None:
        inputs = replace(inputs, policy=policy)
    spoken = language or (inputs.bundle.language if inputs.bundle else "en")
    return _written(render(inputs, spoken, ids=ids), target)


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
    text = environment().get_template("customer.html.j2").render(
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
