"""Folders of exports without one person: files, state and manifest together, so that the next goes on from there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from graphlib import TopologicalSorter
from pathlib import Path

import pyarrow.parquet as pq

from tiermodel import disk
from tiermodel.crm.manifest import JOURNAL, MANIFEST, STATE, ExportFile, Manifest, read_manifest
from tiermodel.erasure.files import KINDS, may_name
from tiermodel.erasure.person import Person
from tiermodel.locks import disk_faults, output_lock
from tiermodel.output import Staged, file_sha256, staged

__all__ = ["erase_exports", "exports_of"]


def exports_of(files: Iterable[Path]) -> dict[Path, Manifest]:
    """Return the folders of exports among the files, each after the one it was made since."""
    found: dict[Path, tuple[str, Manifest]] = {}
    for folder in sorted({path.parent for path in files if path.name == MANIFEST}):
        if (manifest := read_manifest(folder)) is not None:
            found[folder] = file_sha256(folder / MANIFEST), manifest
    by_digest = {digest: folder for folder, (digest, _) in found.items()}
    before = {
        folder: {by_digest[manifest.since]} if manifest.since in by_digest else set()
        for folder, (_, manifest) in found.items()
    }
    return {folder: found[folder][1] for folder in TopologicalSorter(before).static_order()}


def erase_exports(exports: dict[Path, Manifest], person: Person, digests: dict[str, str]) -> dict[str, int]:
    """Erase the person from exports, each whole or not at all, and return the rows by file.

    `digests` has the new digest of each file that changed, by its digest before; those of the exports are added.
    """
    rows: dict[str, int] = {}
    sent: dict[str, bytes | None] = {}  # the digest of the person's row, by the digest of the manifest
    for folder, manifest in exports.items():
        own = _row_digest(folder, person)
        sent[file_sha256(folder / MANIFEST)] = own
        kind = _kind(manifest, own, sent)
        with output_lock(folder), staged(folder / JOURNAL) as into:
            rows |= _from_export(folder, manifest, person, kind, digests, into)
    return rows


def _row_digest(folder: Path, person: Person) -> bytes | None:
    """Return the digest of the person's row; None where the export has none."""
    if not (folder / STATE).is_file():
        return None
    rows = pq.read_table(folder / STATE, filters=[("customer_id", "=", person.public)])["digest"].to_pylist()
    return rows[0] if rows else None


def _kind(manifest: Manifest, own: bytes | None, sent: dict[str, bytes | None]) -> str:
    """Return how the export counts the person: new, changed or unchanged; a guess where the one before is not there."""
    if manifest.since is None:
        return "new"
    if manifest.since not in sent:
        return "changed"
    before = sent[manifest.since]
    return "new" if before is None else "unchanged" if before == own else "changed"


def _from_export(
    folder: Path, manifest: Manifest, person: Person, kind: str, digests: dict[str, str], into: Staged
) -> dict[str, int]:
    """Stage an export without the person, its manifest too, and return the rows by file."""
    whose, lost = replace(person, only=manifest.key), dict[str, int]()
    new: dict[str, str] = {}

    def erased(name: str) -> str:
        """Stage a file, and return its new digest."""
        path = folder / name
        before = file_sha256(path)
        lost[name] = KINDS[path.suffix](path, whose, into) if may_name(path, whose) else 0
        new[before] = file_sha256(into.content(path))
        return new[before]

    def described(file: ExportFile) -> ExportFile:
        digest, path = erased(file.name), into.content(folder / file.name)
        rows, size = file.rows - lost[file.name], path.stat().st_size
        return ExportFile(name=file.name, rows=rows, bytes=size, sha256=digest)

    files = [described(file) for file in manifest.files if (folder / file.name).is_file()]
    gone = manifest.gone_file and described(manifest.gone_file)
    state = erased(STATE) if (folder / STATE).is_file() else manifest.state_sha256
    written = sum(lost[file.name] for file in files)
    changes = {
        "scores_sha256": digests.get(manifest.scores_sha256, manifest.scores_sha256),
        "since": manifest.since and digests.get(manifest.since, manifest.since),
        "state_sha256": state,
        "files": files,
        "gone_file": gone,
        "gone": manifest.gone - (0 if gone is None else lost[gone.name]),
        "written": manifest.written - written,
    }
    if lost.get(STATE):
        kinds = (kind, "changed", "new", "unchanged") if written else (kind, "unchanged", "changed", "new")
        counted = next(name for name in kinds if getattr(manifest, name))
        changes |= {name: getattr(manifest, name) - 1 for name in ("customers", counted)}
    _stage_manifest(folder, manifest.model_copy(update=changes), new, into)
    digests |= {before: after for before, after in new.items() if before != after}
    return {str(folder / name): n for name, n in lost.items() if n}


def _stage_manifest(folder: Path, manifest: Manifest, new: dict[str, str], into: Staged) -> None:
    path, content = folder / MANIFEST, manifest.text().encode()
    if content != path.read_bytes():
        before, temporary = file_sha256(path), into.add(path)
        with disk_faults(path):
            disk.write_bytes(temporary, content)
        new[before] = file_sha256(temporary)
