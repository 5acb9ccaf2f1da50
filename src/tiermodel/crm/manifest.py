"""The manifest of an export, and the folder of the export before, which says what the CRM has already."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from tiermodel.crm.mapping import Mapping, Target
from tiermodel.errors import DataError, ProjectError
from tiermodel.locks import disk_faults, output_lock
from tiermodel.output import file_sha256, settle

__all__ = [
    "GONE",
    "JOURNAL",
    "MANIFEST",
    "STATE",
    "ExportFile",
    "Manifest",
    "Previous",
    "finish_erasure",
    "read_manifest",
    "read_previous",
    "refuse_other_folder",
]

MANIFEST, STATE, GONE = "manifest.json", "customers.parquet", "gone.csv"
"""What describes the export; the digest of each customer's row, which the next export reads; and who is gone."""

JOURNAL = ".forget.journal"
"""What a killed erasure of a person has still to put in place."""

_LEFT = re.compile(r"\..*\.(tmp|lock)")  # beside a file that a killed erasure was writing


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ExportFile(_Part):
    """A file of an export: its name, rows without the header, bytes and digest."""

    name: str
    rows: int
    bytes: int
    sha256: str


class Manifest(_Part):
    """What an export holds: from what, for whom, how many customers, and the digest of each file.

    `written` counts the rows of `files`: customers who are `new`, or `changed`; with `everything` all of them. `gone`
    customers were in the export before, and are in the scores no more. `since` is the digest of that export's manifest.
    """

    format: Literal[1]
    project: str | None
    mapping: str
    mapping_sha256: str
    audience: str
    to: Target
    module: str
    key: str
    fields: list[str]
    as_of: str | None
    scores_sha256: str
    everything: bool
    since: str | None
    customers: int
    new: int
    changed: int
    unchanged: int
    gone: int
    written: int
    files: list[ExportFile]
    gone_file: ExportFile | None
    state_sha256: str

    @property
    def names(self) -> set[str]:
        """The files of the folder, the manifest too."""
        gone = [] if self.gone_file is None else [self.gone_file]
        return {MANIFEST, STATE, *(file.name for file in [*self.files, *gone])}

    def text(self) -> str:
        """Return the manifest as JSON."""
        return json.dumps(self.model_dump(mode="json"), ensure_ascii=False, indent=2) + "\n"


@dataclass(frozen=True)
class Previous:
    """The export before: its folder, its manifest and the digest of that."""

    folder: Path
    manifest: Manifest
    digest: str

    @property
    def state(self) -> Path:
        """The file with the digest of each customer's row."""
        return self.folder / STATE


def read_previous(folder: Path, mapping: Mapping, project: str | None, as_of: str | None) -> Previous:
    """Return the export before, checked.

    Raises `ProjectError` for a folder that is no export, or one of another project or mapping; `DataError` for a state
    that was changed, and for an export of a later date.
    """
    finish_erasure(folder)
    path, manifest = folder / MANIFEST, read_manifest(folder)
    if manifest is None:
        raise ProjectError(f"--since: {folder} is no export: no {MANIFEST} there tells of one; leave --since out")
    for what, theirs, ours in (
        ("project", manifest.project, project),
        ("mapping", manifest.mapping, mapping.name),
        ("target", manifest.to, mapping.to),
        ("module", manifest.module, mapping.module),
    ):
        if theirs != ours:
            raise ProjectError(
                f"--since: {folder} is an export of the {what} {theirs}, and this one is of {ours}; give the folder of "
                "an export of the same, or leave --since out to write every customer"
            )
    if manifest.as_of is not None and as_of is not None and manifest.as_of > as_of:
        raise DataError(
            f"--since: {folder} has scores as of {manifest.as_of}, later than those given ({as_of}); give later "
            "scores, or leave --since out to write every customer"
        )
    state = folder / STATE
    if not state.is_file() or file_sha256(state) != manifest.state_sha256:
        raise DataError(
            f"--since: {state} is missing, or not what {MANIFEST} says; leave --since out to write every customer"
        )
    return Previous(folder, manifest, file_sha256(path))


def refuse_other_folder(out: Path, project: str | None, mapping: str, inputs: dict[str, Path]) -> None:
    """Raise ProjectError where an output folder would replace an input, or anything but an export of the same."""
    for what, path in inputs.items():
        if path.resolve() == out.resolve() or out.resolve() in path.resolve().parents:
            raise ProjectError(f"--out: {out} is or holds {what}, and would be replaced; give another folder")
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    finish_erasure(out)
    manifest = read_manifest(out)
    if manifest is None or {path.name for path in out.iterdir() if not _LEFT.fullmatch(path.name)} != manifest.names:
        raise ProjectError(f"--out: {out} holds what is no export, and would be replaced; give another folder")
    if (manifest.project, manifest.mapping) != (project, mapping):
        raise ProjectError(
            f"--out: {out} is an export of the project {manifest.project} with the mapping {manifest.mapping}, not of "
            f"{project} with {mapping}; give another folder"
        )


def finish_erasure(folder: Path) -> None:
    """Finish, or undo, what a killed erasure of a person left in an export; nothing where none did.

    Raises `OutputBusyError` while another run writes the export.
    """
    if (folder / JOURNAL).exists():
        with output_lock(folder), disk_faults(folder):
            settle(folder / JOURNAL)


def read_manifest(folder: Path) -> Manifest | None:
    """Return the manifest of an export; None for a folder that is none."""
    try:
        return Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except (OSError, ValidationError):
        return None
