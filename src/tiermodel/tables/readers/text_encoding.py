"""Convert a text file, packed or not, in any encoding, to UTF-8 with plain newlines, in constant memory."""

from __future__ import annotations

import codecs
import gzip
import math
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from tiermodel.errors import DataError, OutputError, ProjectError

__all__ = ["CHUNK", "PlainText", "not_utf8", "plain_text"]

CHUNK = 4 << 20
_LONGEST = 4 * CHUNK
_BOMB_RATIO, _BOMB_BYTES = 200, 256 << 20


@dataclass(frozen=True)
class PlainText:
    """A text file with plain newlines, in UTF-8 unless its bytes were not: its lines, and the numbers of blank ones."""

    path: Path
    lines: int
    blank: tuple[int, ...]
    ends_with_newline: bool
    has_quotes: bool
    has_nul: bool


@dataclass
class _Lines:
    """Facts about the lines of a text, collected chunk by chunk."""

    count: int = 0
    blank: list[int] = field(default_factory=list)
    has_quotes: bool = False
    has_nul: bool = False
    _last: bytes = b"\n"
    _length: int = 0  # of the last, unfinished line

    @property
    def complete(self) -> bool:
        """Whether the last line ends in a newline."""
        return self._last == b"\n"

    def add(self, chunk: bytes, file: str) -> None:
        """Add the next chunk; DataError for a line longer than 16 MB."""
        first = chunk.find(b"\n")
        if self._length + (first if first >= 0 else len(chunk)) > _LONGEST:
            raise DataError(
                f"TM1013 {file}, line {self.count + 1}: longer than {_LONGEST >> 20} MB: is it a text with line breaks?"
            )
        self._length = self._length + len(chunk) if first < 0 else len(chunk) - chunk.rfind(b"\n") - 1
        if b"\n\n" in chunk or (self.complete and first == 0):
            starts = (self._last + chunk).split(b"\n")[1:-1]
            self.blank += [self.count + number for number, text in enumerate(starts, 1) if not text]
        self.has_quotes |= b'"' in chunk
        self.has_nul |= b"\0" in chunk
        self.count += chunk.count(b"\n")
        self._last = chunk[-1:]


def plain_text(file: str, scratch: Path, encoding: str, key: str) -> PlainText:
    """Return the file itself where it is plain UTF-8 already, else a copy in the scratch folder.

    Raises DataError for a file that is cut short, expands beyond reason, has a line longer than 16 MB, or is not text
    in `encoding`, which `key` of the project file sets.
    """
    utf8 = _is_utf8(encoding, key)
    rewrite = file.endswith(".gz") or not utf8 or _needs_cleaning(file)
    path, seen = scratch / "plain.csv" if rewrite else Path(file), _Lines()
    with (path if rewrite else Path(os.devnull)).open("wb") as out:
        for chunk in _chunks(file, None if utf8 else encoding, key):
            seen.add(chunk, file)
            out.write(chunk)
    lines = seen.count + (not seen.complete)
    return PlainText(path, lines, tuple(seen.blank), seen.complete, seen.has_quotes, seen.has_nul)


def not_utf8(file: str, line: int, offset: int, raw: bytes, key: str) -> DataError:
    """Return the error for a file that is not in UTF-8."""
    wide = raw[:1] in {b"\xff", b"\xfe", b"\0"}
    instead = "utf-16" if wide else "for Chinese text often gb18030, else latin-1 or cp1252"
    return DataError(
        f"TM1201 {file} is not UTF-8: line {line}, byte offset {offset}, {raw.hex()}. Set {key}: {instead}."
    )


def _is_utf8(encoding: str, key: str) -> bool:
    try:
        return codecs.lookup(encoding).name in {"utf-8", "utf-8-sig", "ascii"}
    except LookupError:
        raise ProjectError(f"{key}: {encoding!r} is unknown; use e.g. utf-8, gb18030, latin-1, utf-16") from None


def _opened(file: str) -> BinaryIO:
    return gzip.open(file) if file.endswith(".gz") else Path(file).open("rb")  # type: ignore[return-value]


def _needs_cleaning(file: str) -> bool:
    with _opened(file) as stream:
        return stream.read(3) == codecs.BOM_UTF8 or any(
            b"\r" in chunk for chunk in iter(lambda: stream.read(CHUNK), b"")
        )


def _chunks(file: str, encoding: str | None, key: str) -> Iterator[bytes]:
    """Yield the file's text as UTF-8 bytes with plain newlines; without `encoding`, it is UTF-8 already."""
    first, held = True, b""
    for part in _decoded(file, encoding, key) if encoding else _unpacked(file):
        text = held + part
        while first and text.startswith(codecs.BOM_UTF8):
            text = text.removeprefix(codecs.BOM_UTF8)
        first = False
        held = text[-1:] if text.endswith(b"\r") else b""
        whole = text[: len(text) - len(held)]
        if whole:
            yield whole.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in whole else whole
    if held:
        yield b"\n"


def _decoded(file: str, encoding: str, key: str) -> Iterator[bytes]:
    """Yield the file's text as UTF-8."""
    decoder = codecs.getincrementaldecoder(encoding)()
    offset = lines = pending = 0
    try:
        for raw in _unpacked(file):
            pending = len(decoder.getstate()[0])
            text = decoder.decode(raw).encode()
            offset += len(raw)
            lines += text.count(b"\n")
            yield text
        pending = len(decoder.getstate()[0])
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        line = lines + error.object[: error.start].count(b"\n") + 1
        raise DataError(
            f"TM1201 {file} is not {encoding}: line {line}, byte offset {offset - pending + error.start}, "
            f"{error.object[error.start : error.end].hex()}. Correct {key}, or the file."
        ) from error


def _unpacked(file: str) -> Iterator[bytes]:
    """Yield the bytes of the file, unpacked; DataError for a damaged or exploding archive."""
    limit = max(_BOMB_BYTES, _BOMB_RATIO * Path(file).stat().st_size) if file.endswith(".gz") else math.inf
    size = 0
    try:
        with _opened(file) as stream:
            while raw := stream.read(CHUNK):
                size += len(raw)
                if size > limit:
                    raise DataError(f"TM1008 {file} expands to more than {_BOMB_RATIO} times its size: not read")
                yield raw
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"TM1007 {file} is a damaged or truncated gzip file: {error}. Copy it again.") from error
    except OSError as error:
        raise OutputError(f"TM1005 {file} cannot be read: {error.strerror}") from error
