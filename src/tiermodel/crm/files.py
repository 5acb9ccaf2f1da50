"""Write lines of CSV as the files that an import takes: plain or zipped, none above its limits."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from tiermodel import disk
from tiermodel.crm.manifest import ExportFile
from tiermodel.crm.mapping import Limits, Target
from tiermodel.errors import DataError
from tiermodel.output import file_sha256

__all__ = ["PartWriter", "write_one"]

_BOM = b"\xef\xbb\xbf"  # by which Excel, and imports that go by it, know UTF-8
_NEVER = (1980, 1, 1, 0, 0, 0)  # the earliest time that a ZIP can hold: the same rows give the same bytes


class PartWriter:
    """Writes lines to files `NAME_0001`, `NAME_0002` and so on, each with the header and within the limits."""

    def __init__(self, folder: Path, name: str, head: str, to: Target, limits: Limits) -> None:
        self._folder, self._name, self._to, self._limits = folder, name, to, limits
        self._head = (_BOM if to == "fxiaoke" else b"") + head.encode() + b"\n"

    def write(self, lines: Iterable[str]) -> list[ExportFile]:
        """Write all lines, and return the files; none where there is no line."""
        done: list[ExportFile] = []
        with ExitStack() as open_file:
            stream, rows, size = None, 0, 0
            for line in lines:
                content = line.encode() + b"\n"
                full = rows >= self._limits.rows or size + len(content) > self._limits.bytes
                if stream is None or full:
                    open_file.close()
                    if stream is not None:
                        done.append(self._described(len(done) + 1, rows))
                    stream = open_file.enter_context(self._opened(len(done) + 1))
                    stream.write(self._head)
                    rows, size = 0, len(self._head)
                    if size + len(content) > self._limits.bytes:
                        raise DataError(f"a row of {len(content)} bytes is more than a file may hold; map fewer fields")
                stream.write(content)
                rows, size = rows + 1, size + len(content)
        if stream is not None:
            done.append(self._described(len(done) + 1, rows))
        return done

    def _path(self, number: int) -> Path:
        return self._folder / f"{self._name}_{number:04}.{'zip' if self._to == 'zoho' else 'csv'}"

    @contextmanager
    def _opened(self, number: int) -> Iterator[IO[bytes]]:
        path = self._path(number)
        with disk.create(path) as file:
            if path.suffix == ".csv":
                yield file
                return
            entry = zipfile.ZipInfo(f"{path.stem}.csv", _NEVER)
            entry.compress_type, entry.create_system, entry.external_attr = zipfile.ZIP_DEFLATED, 3, 0o644 << 16
            with zipfile.ZipFile(file, "w") as archive, archive.open(entry, "w") as stream:
                yield stream

    def _described(self, number: int, rows: int) -> ExportFile:
        return _described(self._path(number), rows)


def write_one(path: Path, head: str, lines: Iterable[str], to: Target) -> ExportFile:
    """Write lines to one CSV file whatever their number, for people to read."""
    rows = 0
    with disk.create(path) as file:
        file.write((_BOM if to == "fxiaoke" else b"") + head.encode() + b"\n")
        for line in lines:
            file.write(line.encode() + b"\n")
            rows += 1
    return _described(path, rows)


def _described(path: Path, rows: int) -> ExportFile:
    return ExportFile(name=path.name, rows=rows, bytes=path.stat().st_size, sha256=file_sha256(path))
