"""The manifest of a run: what it was made from, which stages are done, what each said, counted and took."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from tiermodel.errors import OutputError
from tiermodel.output import write_json

__all__ = ["MANIFEST", "Manifest", "StageRecord", "read_manifest", "runs_of"]

MANIFEST = "manifest.json"


class StageRecord(BaseModel):
    """A stage that has ended: its exit code, what it said, its counts, and the seconds it took.

    Exit codes are those of the command line: 0, or 9 where monitoring or the gate said no and the run went on. A stage
    that had nothing to do says why in `skipped`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    stage: str
    exit: int = 0
    said: tuple[str, ...] = ()
    skipped: str | None = None
    counts: dict[str, Any] = {}
    seconds: float = 0.0


class Manifest(BaseModel):
    """A run of one date.

    `inputs` has the SHA-256 of every file of data and policy, and `settings` that of the project without `refresh`.
    `model` is the version of the bundle that scores, `trained` whether this run trained one. `stopped` is the message
    and exit code that ended a run before its end; the next run goes on from there.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    project: str
    as_of: date
    tiermodel: str
    settings: str
    inputs: dict[str, str]
    bytes_read: int
    model: str | None = None
    trained: bool = False
    stages: tuple[StageRecord, ...] = ()
    stopped: dict[str, Any] | None = None
    complete: bool = False

    @property
    def exit_code(self) -> int:
        """The exit code of the run: that of what stopped it, else the highest of its stages."""
        if self.stopped is not None:
            return int(self.stopped["exit"])
        return max((stage.exit for stage in self.stages), default=0)

    def record(self, stage: str) -> StageRecord | None:
        """Return the record of a stage; None where it has not ended."""
        return next((found for found in self.stages if found.stage == stage), None)

    def same_start(self, other: Self) -> bool:
        """Return whether another run of the date was started from the same files, settings and release."""
        keys = ("project", "as_of", "tiermodel", "settings", "inputs")
        return all(getattr(self, key) == getattr(other, key) for key in keys)

    def write(self, folder: Path) -> None:
        """Write the manifest into the folder of the run, whole or not at all."""
        write_json(self.model_dump(mode="json"), folder / MANIFEST)


def read_manifest(folder: Path) -> Manifest | None:
    """Return the manifest of a run's folder; None where there is none.

    Raises `OutputError` for one that is damaged.
    """
    path = folder / MANIFEST
    try:
        return Manifest.model_validate(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except (ValueError, ValidationError) as error:
        first = str(error).splitlines()[0]
        raise OutputError(f"{path} is damaged ({first}); remove it, and the run starts anew") from None


def runs_of(root: Path) -> list[Manifest]:
    """Return the manifests in a folder of runs, by date."""
    found = (read_manifest(path.parent) for path in sorted(root.glob(f"????-??-??/{MANIFEST}")))
    return [manifest for manifest in found if manifest is not None]
