"""The files of a bundle: read from one folder, whatever takes its place meanwhile, and compared with their hashes."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from pathlib import Path

from tiermodel.errors import ModelError
from tiermodel.output import set_aside

__all__ = ["CARD", "FORMAT", "GOLDEN", "JSON", "MANIFEST", "digest", "read_files"]


FORMAT = 5
JSON, GOLDEN, MANIFEST, CARD = "bundle.json", "golden.json", "manifest.json", "card.md"
_LARGEST = 64 * 2**20
_SWAPS = 100  # how often a folder may be replaced while it is read


def read_files(folder: Path) -> dict[str, bytes]:
    """Return the content of the files of a bundle, by name; `ModelError` where one is missing, extra or changed.

    A folder that is replaced meanwhile is read again: what is returned was in one folder.
    """
    for _ in range(_SWAPS):
        handle = _opened(folder)
        try:
            return _read(folder, handle)
        except (ModelError, FileNotFoundError) as error:
            if _is_still(folder, handle):
                if isinstance(error, ModelError):
                    raise
                raise ModelError(f"{folder}: {error.filename} vanished; copy the bundle again") from None
        finally:
            os.close(handle)
    raise ModelError(f"{folder}: it is replaced all the time; load it once that is over")


def _opened(folder: Path) -> int:
    """Return an open folder: that of the name, or the one `set_aside` while another takes its place."""
    for path in (folder, set_aside(folder), folder) if folder.name else (folder,):
        try:
            return os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except (FileNotFoundError, NotADirectoryError):
            continue
    raise _no_bundle(folder)


def digest(content: bytes) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def _no_bundle(folder: Path) -> ModelError:
    return ModelError(
        f"{folder}: there is no {MANIFEST}, so this is no bundle; give a folder that `tiermodel train --out` wrote"
    )


def _is_still(folder: Path, handle: int) -> bool:
    """Return whether an open folder is the one of that name."""
    try:
        return os.path.samestat(folder.stat(), os.fstat(handle))
    except OSError:
        return False


def _read(folder: Path, handle: int) -> dict[str, bytes]:
    present = set(os.listdir(handle))
    if MANIFEST not in present:
        raise _no_bundle(folder)
    manifest_bytes = _bytes(folder, handle, MANIFEST)
    try:
        manifest = json.loads(manifest_bytes)
        wanted = {str(name): str(hashed) for name, hashed in dict(manifest["files"]).items()}
        found_format = manifest["format"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelError(f"{folder / MANIFEST}: not a manifest ({error!r}); copy the bundle again") from None
    if found_format != FORMAT:
        raise ModelError(
            f"{folder}: bundle format {repr(found_format)[:40]}, this version reads {FORMAT}; "
            "run `tiermodel train` again"
        )
    present -= {MANIFEST}
    if present != set(wanted):
        missing, extra = sorted(set(wanted) - present), sorted(present - set(wanted))
        raise ModelError(f"{folder}: files missing {missing}, files not in the manifest {extra}; copy the bundle again")
    files = {name: _bytes(folder, handle, name) for name in sorted(wanted)}
    changed = [name for name, content in files.items() if digest(content) != wanted[name]]
    if changed:
        raise ModelError(
            f"{folder}: {', '.join(changed)} changed since training (SHA-256 differs); copy the bundle again"
        )
    return {**files, MANIFEST: manifest_bytes}


def _bytes(folder: Path, handle: int, name: str) -> bytes:
    """Return the content of a plain file of an open folder: no link, no device, none that is huge."""
    refused = ModelError(f"{folder / name}: not a plain file of at most {_LARGEST >> 20} MB; copy the bundle again")
    try:
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=handle)
    except FileNotFoundError:
        raise
    except PermissionError as error:
        error.filename = str(folder / name)
        raise
    except OSError as error:  # a link, or a device
        raise refused from error
    with os.fdopen(file, "rb") as opened:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode) or found.st_size > _LARGEST:
            raise refused
        return opened.read()
