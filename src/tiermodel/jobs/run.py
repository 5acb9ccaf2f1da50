"""A run of the refresh: its date, folder, inputs and manifest, and what earlier runs left."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

from tiermodel.bundle.bundle import Bundle, load_bundle
from tiermodel.config.project import Project
from tiermodel.crm.mapping import load_mapping
from tiermodel.engines.dispatch import open_history
from tiermodel.features.dates import one_date
from tiermodel.jobs.manifest import Manifest, StageRecord, runs_of
from tiermodel.locks import database_of
from tiermodel.output import file_sha256
from tiermodel.policy.service_policy import load_policy
from tiermodel.tables.history import History
from tiermodel.tracking.registry import champion_of

__all__ = ["CURRENT", "FEATURES", "LEDGER", "MODEL", "SCORES", "Run", "folder_of_runs", "mapping_of", "open_run"]

CURRENT, LEDGER = "CURRENT", "ledger"
"""In the folder of runs: the link to the last complete run, and the tier ledger."""
MODEL, SCORES, FEATURES = "model", "scores.parquet", "features.parquet"
"""In the folder of a run: the bundle that scored, the score table, and the features, which only `CURRENT` keeps."""


@dataclass
class Run:
    """A run in progress: `manifest` is what has been done, `earlier` the manifests of all runs of other dates."""

    project: Project
    history: History
    root: Path
    manifest: Manifest
    earlier: list[Manifest]

    @property
    def day(self) -> date:
        """The date that is refreshed."""
        return self.manifest.as_of

    @property
    def folder(self) -> Path:
        """The folder of this run."""
        return self.root / str(self.day)

    @property
    def ledger(self) -> Path:
        """The folder of the tier ledger."""
        return self.root / LEDGER

    @property
    def scores(self) -> Path:
        """The score table of this run."""
        return self.folder / SCORES

    @property
    def features(self) -> Path:
        """The feature table of this run, with the features of its model."""
        return self.folder / FEATURES

    @property
    def before(self) -> Manifest | None:
        """The last complete run of a date before this one."""
        return max((m for m in self.earlier if m.complete and m.as_of < self.day), key=_day, default=None)

    @property
    def last_trained(self) -> date | None:
        """The last date before this one on which a run trained, promoted or not."""
        return max((m.as_of for m in self.earlier if m.trained and m.as_of < self.day), default=None)

    @cached_property
    def champion(self) -> Bundle | None:
        """The champion as the run started; a store that does not exist yet is not made to look into it."""
        database = database_of(self.project.tracking.uri)
        return None if database is not None and not database.is_file() else champion_of(self.project)

    @cached_property
    def model(self) -> Bundle:
        """The bundle that scores, once it has been put into the folder."""
        return load_bundle(self.folder / MODEL)

    def add(self, record: StageRecord) -> None:
        """Note a stage that has ended."""
        self.update(stages=(*self.manifest.stages, record), stopped=None)

    def update(self, **changes: object) -> None:
        """Change the manifest, and write it."""
        self.manifest = self.manifest.model_copy(update=changes)
        self.manifest.write(self.folder)


def mapping_of(project: Project, name: str) -> str:
    """Return the path of a mapping of `refresh.exports`, or the name of one that ships."""
    file = project.resolve(name)
    return file if Path(file).is_file() else name


def folder_of_runs(project: Project) -> Path:
    """Return the folder that holds the runs of a project."""
    return Path(project.resolve(project.refresh.folder))


def open_run(project: Project, as_of: date | str) -> Run:
    """Return the run of a date as it would start now, without a stage done; nothing is written.

    What a later stage would refuse in policy and mappings is refused here, before hours of work.
    """
    for name in project.refresh.exports:
        load_mapping(mapping_of(project, name))
    if project.policy is not None:
        load_policy(project.policy, project.folder)
    history = open_history(project)
    day = one_date(as_of, history)
    root = folder_of_runs(project)
    files = _inputs(project, history)
    manifest = Manifest(
        project=project.name,
        as_of=day,
        tiermodel=version("tiermodel"),
        settings=_settings(project),
        inputs={str(file): file_sha256(file) for file in files},
        bytes_read=sum(file.stat().st_size for file in files),
    )
    return Run(project, history, root, manifest, [found for found in runs_of(root) if found.as_of != day])


def _inputs(project: Project, history: History) -> list[Path]:
    """Return the files behind the tables and the policy; a database is none, and each export names its own mapping."""
    named = {file for table in history.tables.values() for file in table.source.origins}
    named |= {project.resolve(project.policy)} if project.policy is not None else set()
    return sorted(path for path in map(Path, named) if path.is_file())


def _settings(project: Project) -> str:
    """Return the SHA-256 of what scores may depend on: not the folder, since a project may move, nor `refresh`."""
    content = project.model_dump(mode="json", exclude={"folder", "refresh"})
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _day(manifest: Manifest) -> date:
    return manifest.as_of
