"""From raw exports to a project file: sample, guess, write, check."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from tiermodel import disk
from tiermodel.config.project import Project
from tiermodel.config.tiers import Tiers
from tiermodel.errors import ProjectError, TierModelError
from tiermodel.output import atomic_file
from tiermodel.project_init.heads import with_heads
from tiermodel.project_init.notes import Note
from tiermodel.project_init.sample import Given, Sample, given_tables, sample_of
from tiermodel.project_init.settings import scheme_for, settings_for
from tiermodel.project_init.tables import Plan, plan_of
from tiermodel.project_init.writing import project_text
from tiermodel.quality.check import CheckReport, check
from tiermodel.tables.history import connect, read_history
from tiermodel.words import words

__all__ = ["Initialised", "init"]

_FIRST_SIGHT: dict[str, Any] = {
    "version": 1, "name": "init",
    "data": {"transactions": {"columns": {"customer_id": "x", "time": "x", "amount": "x"}}},
}  # fmt: skip


@dataclass(frozen=True)
class Initialised:
    """What `init` made: the file, its project, what was assumed, and the check; or the fault that ended the check."""

    path: Path
    project: Project
    notes: tuple[Note, ...]
    report: CheckReport | None
    fault: TierModelError | None = None


def init(
    files: Sequence[str],
    out: str | Path,
    *,
    language: str | None = None,
    columns: Mapping[str, str] | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Initialised:
    """Write a commented project file for raw exports, and check it.

    What columns mean is guessed from samples; the horizon and the scheme come from all rows, which the check reads.

    Parameters
    ----------
    files
        Files, globs, folders or database URLs. One holds the transactions; others may hold the same in further files,
        order lines, customers, events or invoices.
    out
        The project file; it must not be there.
    language
        `zh` or `en`; by default the language of the headers.
    columns
        Columns, or SQL over them, that decide what is `customer_id`, `time` or `amount`.
    progress
        Gets each step, as text.

    Returns
    -------
    Initialised
        The file's path, its project, the assumptions, and the report of the check. Where the rows break the contract,
        the file is written all the same, to be corrected, and `fault` has the error.

    Raises
    ------
    ProjectError
        If the file exists, or no column is plainly the customer, the time or the amount.
    DataError
        If a file cannot be read.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from tiermodel import init, make_world
    >>> with TemporaryDirectory() as folder:
    ...     _ = make_world(seed=1, customers=200, days=500).write(folder)
    ...     made = init([f"{folder}/transactions.parquet"], f"{folder}/shop.yaml")
    >>> made.project.data.transactions.columns.amount, made.report.refused
    ('amount', False)

    """
    out = Path(out)
    if out.exists():
        raise ProjectError(f"{out} exists, and init never overwrites: give another name with --out, or move it away")
    if not files:
        raise ProjectError("no file: tiermodel init FILE…")
    progress(words(language or "en")["init_step_look"])
    samples = _samples(files, language or "en")
    tables, joined = with_heads(samples, columns or {})
    plan = plan_of(tables, dict(columns or {}), out.absolute().parent)
    if language is None and plan.chinese and any(sample.notes for sample in samples):
        samples = _samples(files, "zh")
    language = language or ("zh" if plan.chinese else "en")
    shown = ", ".join(dict.fromkeys(Path(file).name for file in files))
    project = _project(plan, out, language)
    notes = [*_read(samples), *joined, *plan.notes]
    why: dict[str, Note] = {}
    report, fault = None, None
    try:
        progress(words(language)["init_step_read"])
        project, report, why = _settled(project)
    except TierModelError as error:
        if columns and isinstance(error, ProjectError):  # a name that was given is no column: nothing to keep
            raise
        fault = error
    _write(out, project_text(plan, project, why, shown), project)
    notes += why.values()
    return Initialised(out, project, tuple(notes), report, fault)


def _samples(files: Sequence[str], language: str) -> list[Sample]:
    """Return a sample of every table of the files, its notes in a language; files of the same columns are one table."""
    connection = connect(Project.model_validate(_FIRST_SIGHT))
    found: list[Sample] = []
    for path in dict.fromkeys(files):
        for given in given_tables(connection, path):
            sample = sample_of(connection, given, language)
            like = next((n for n, known in enumerate(found) if _same_layout(known, sample)), None)
            if like is None:
                found.append(sample)
            else:
                found[like] = _together(found[like], sample)
    return found


def _same_layout(one: Sample, other: Sample) -> bool:
    ending = [Path(sample.given.paths[0]).suffix.lower() for sample in (one, other)]
    alike = set(one.columns) == set(other.columns) and one.encoding == other.encoding and ending[0] == ending[1]
    return alike and not (one.given.query or other.given.query or ending[0] == ".xlsx")


def _together(one: Sample, other: Sample) -> Sample:
    rows = pa.concat_tables([one.rows, other.rows.select(one.rows.column_names)], promote_options="permissive")
    given = Given((*one.given.paths, *other.given.paths), name=one.given.name)
    return replace(one, given=given, rows=rows, whole=one.whole and other.whole)


def _read(samples: Sequence[Sample]) -> list[Note]:
    notes = []
    for sample in samples:
        key = "read_places" if sample.places else "read_all" if sample.whole else "read_some"
        values = {"name": sample.given.name, "rows": sample.rows.num_rows, "columns": len(sample.columns)}
        notes.append(Note(key, values))
        notes += [Note("note", {"note": note}) for note in sample.notes]
    return notes


def _project(plan: Plan, out: Path, language: str) -> Project:
    """Return the project that the plan means, with the default horizon."""
    stem = out.name.removesuffix(".yaml").removesuffix(".yml")
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-._")[:100] if stem.isascii() else "shop"
    settings: dict[str, Any] = {"version": 1, "name": name or "shop", "language": language, "data": plan.data}
    settings |= {"timezone": plan.timezone} | ({"currency": plan.currency} if plan.currency else {})
    settings["tiers"] = {"scheme": "long_tail"}
    return Project.model_validate({**settings, "folder": out.absolute().parent})


def _settled(project: Project) -> tuple[Project, CheckReport, dict[str, Note]]:
    """Return the project with the horizon and the scheme for all its rows, its check, and the reasons."""
    history = read_history(project)
    counted = history.connection.execute(f"SELECT count(DISTINCT customer_id) FROM ({history.transactions_sql})")
    settings = settings_for(project, history, int(counted.fetchall()[0][0]))
    report = check(settings.project, history=history)
    scheme, reason = scheme_for(report.facts, settings.lacking)
    chosen = settings.project.model_copy(update={"tiers": Tiers(scheme=scheme)})
    return chosen, report, {"horizon": settings.notes[0], "scheme": reason}


def _write(out: Path, text: str, project: Project) -> None:
    """Write the file, if it means the project; a difference is a fault of ours, and nothing is written."""
    read = Project.model_validate({**yaml.safe_load(text), "folder": project.folder})
    if read != project:
        raise AssertionError(f"the project file does not mean what was checked: {text}")
    with atomic_file(out) as temporary:
        disk.write_bytes(temporary, text.encode())
