"""The nightly job: check, monitor, train where due, gate, promote, score, lists, exports, report; one folder a date."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from tiermodel import disk
from tiermodel.config.project import Project, require_project
from tiermodel.errors import ProjectError, TierModelError
from tiermodel.jobs.manifest import Manifest, read_manifest
from tiermodel.jobs.run import CURRENT, FEATURES, Run, folder_of_runs, open_run
from tiermodel.jobs.stages import STAGES, why_train
from tiermodel.locks import disk_faults, folder_lock
from tiermodel.output import check_writable
from tiermodel.tracking.store import check_store

__all__ = ["Plan", "Refreshed", "plan", "refresh"]

_CUSTOMER_BYTES = 1_500  # of a score and a feature row in Parquet, with room for lists and page


@dataclass(frozen=True)
class Refreshed:
    """The result of a refresh: the folder of the run, its manifest, and the stages that ran now, in their order."""

    folder: Path
    manifest: Manifest
    ran: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """0, or 9 where monitoring or the gate said no; everything is written all the same."""
        return self.manifest.exit_code


@dataclass(frozen=True)
class Plan:
    """What a refresh would do: `stages` by name, each with whether it would run, why not, and the seconds expected.

    `bytes` is the disk space that it would take, `free` what there is. Seconds are None where no earlier run tells.
    """

    folder: Path
    stages: tuple[dict[str, Any], ...]
    seconds: float | None
    bytes: int
    free: int

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain data, for JSON."""
        return {**vars(self), "folder": str(self.folder), "stages": list(self.stages)}


def refresh(
    project: Project, as_of: date | str = "latest", *, progress: Callable[[str], None] = lambda _: None
) -> Refreshed:
    """Bring everything up to a date: one folder with scores, lists, exports, report and a manifest.

    The folder is `refresh.folder`/DATE. A run that was killed or stopped goes on after its last whole stage; a run of a
    date that is complete does nothing. When all is done, `CURRENT` is swapped to the new folder at once, and the
    feature tables of older runs are removed; their scores are kept, to be judged once their outcome is known.

    Parameters
    ----------
    project
        The project; its section `refresh` says where to write, when to train, and which lists and exports to make.
    as_of
        The first day that is not known: a date, an ISO date as text, or `latest`, the day after the last row.
    progress
        Is called with the name of each stage before it.

    Raises
    ------
    DataError
        If the data check refuses the data.
    GateError
        If the gate refuses the first model, so that nothing can score.
    ProjectError
        If the date was refreshed before, from other inputs or settings.
    OutputBusyError
        If another refresh of the project is at work.
    OutputError, TrackingError
        If the folder of runs or the tracking store cannot be written, or does not answer; before any row is read.
    TierModelError
        What the verb of a stage raises; the manifest keeps it, and the next run goes on with that stage.

    Examples
    --------
    >>> from tiermodel import Project
    >>> from tiermodel.jobs.refresh import refresh
    >>> columns = {"customer_id": "id", "time": "day", "amount": "amount"}
    >>> data = {"transactions": {"path": "missing.csv", "columns": columns}}
    >>> project = Project.model_validate({"version": 1, "name": "shop", "data": data})
    >>> refresh(project)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    tiermodel.errors.DataError: ...

    """
    require_project(project)
    check_writable(folder_of_runs(project) / CURRENT)  # before hours of work, as is the store
    root = folder_of_runs(project)
    with folder_lock(root):
        check_store(project.tracking.uri)
        run = open_run(project, as_of)
        ran = _go_on(run, progress)
    return Refreshed(run.folder, run.manifest, tuple(ran))


def _go_on(run: Run, progress: Callable[[str], None]) -> list[str]:
    """Do every stage that is not done, publish the run, and return the names of the stages done now."""
    ran = []
    with disk_faults(run.root):
        _resume(run)
        for name in STAGES:
            if run.manifest.record(name) is None:
                progress(name)
                _do(run, name)
                ran.append(name)
        if not run.manifest.complete:
            run.update(complete=True)
        _publish(run)
    return ran


def _resume(run: Run) -> None:
    """Go on from the manifest of an earlier run of the date, if it started from the same; else begin anew."""
    found = read_manifest(run.folder) if run.folder.is_dir() else None
    if found is not None and found.same_start(run.manifest):
        run.manifest = found
        return
    if found is not None and found.complete:
        raise ProjectError(
            f"{run.folder} is complete, and was made from others: {', '.join(_changed(found, run.manifest))} changed "
            f"since. A date is refreshed once. To correct it, remove that folder, and grade the date again: tiermodel "
            f"score PROJECT --model {run.project.name}@champion --as-of {run.day} --out FILE --ledger {run.ledger} "
            "--regrade --reason TEXT"
        )
    disk.make_folder(run.folder)
    run.manifest.write(run.folder)


def _changed(before: Manifest, now: Manifest) -> list[str]:
    files = sorted(file for file in {*before.inputs, *now.inputs} if before.inputs.get(file) != now.inputs.get(file))
    return [*files, *(key for key in ("settings", "tiermodel") if getattr(before, key) != getattr(now, key))]


def _do(run: Run, name: str) -> None:
    """Run a stage and note it; an error is noted too, and raised."""
    began = time.perf_counter()
    try:
        record = STAGES[name](run)
    except TierModelError as error:
        run.update(stopped={"stage": name, "exit": error.exit_code, "said": str(error)})
        raise
    run.add(record.model_copy(update={"seconds": round(time.perf_counter() - began, 2)}))


def _publish(run: Run) -> None:
    """Swap `CURRENT` to the run, unless it is of a later date, and remove the feature tables of other runs."""
    link = run.root / CURRENT
    if link.is_symlink() and link.readlink().name >= run.folder.name:
        return
    temporary = run.root / f".{CURRENT}.tmp"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(run.folder.name, target_is_directory=True)
    disk.rename(temporary, link)
    disk.fsync(run.root)
    for other in run.earlier:
        disk.unlink(run.root / str(other.as_of) / FEATURES)


def plan(project: Project, as_of: date | str = "latest") -> Plan:
    """Return what `refresh` would do now, with the time and disk space that it would take; nothing is written.

    Both are those of the last complete run before, in proportion to the bytes read. Raises as `refresh` does.
    """
    run = open_run(project, as_of)
    found = read_manifest(run.folder) if run.folder.is_dir() else None
    if found is not None and found.same_start(run.manifest):
        run.manifest = found
    growth = 1.0 if run.before is None else run.manifest.bytes_read / max(run.before.bytes_read, 1)
    stages = tuple(_planned(run, name, growth) for name in STAGES)
    known = [stage["seconds"] for stage in stages if stage["runs"]]
    seconds = None if None in known else float(sum(known))
    return Plan(run.folder, stages, seconds, _bytes(run, growth), shutil.disk_usage(_existing(run.root)).free)


def _planned(run: Run, name: str, growth: float) -> dict[str, Any]:
    done = run.manifest.record(name) is not None
    due, why = why_train(run) if name in {"train", "promote"} and not done else (not done, None)
    settings = run.project.refresh
    if (name == "lists" and not settings.lists) or (name == "exports" and not settings.exports):
        due = False
    before = None if run.before is None else run.before.record(name)
    seconds = None if before is None or before.skipped is not None else round(before.seconds * growth, 1)
    return {"stage": name, "done": done, "runs": due, "why": why, "seconds": seconds if due else 0.0}


def _bytes(run: Run, growth: float) -> int:
    if run.manifest.complete:
        return 0
    if run.before is not None:
        folder = run.root / str(run.before.as_of)
        return int(growth * sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()))
    sql = f"SELECT count(DISTINCT customer_id) FROM ({run.history.rows_sql})"
    (customers,) = run.history.connection.execute(sql).fetchall()[0]
    return int(customers) * _CUSTOMER_BYTES


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)
