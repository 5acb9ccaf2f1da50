"""Files of every kind that tiermodel writes, without one person."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree import ElementTree as ET

from tiermodel import disk
from tiermodel.erasure.person import Person
from tiermodel.erasure.tables import erase_csv, erase_parquet, lines_without
from tiermodel.errors import DataError
from tiermodel.locks import disk_faults
from tiermodel.output import Staged

__all__ = ["KINDS", "digest_of", "erase_json", "files_below", "may_name"]

_BLOCK = 1 << 20
_SHEET = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"


def may_name(path: Path, person: Person) -> bool:
    """Return whether a file may name the person; Parquet, workbooks and archives are packed, so they may."""
    if path.suffix.lower() in {".parquet", ".xlsx", ".zip"}:
        return True
    tail = b""
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            if person.may_be_in(tail + block):
                return True
            tail = block[-person.longest :]
    return False


def erase_page(path: Path, person: Person, into: Staged) -> int:
    """Remove a page that names the person: it can be made again from the scores."""
    if not person.in_page.search(path.read_text(encoding="utf-8", errors="replace")):
        return 0
    into.remove(path)
    return 1


def erase_archive(path: Path, person: Person, into: Staged) -> int:
    """Stage a workbook or an archive of CSV files without the person, and return how many rows it loses."""
    content = path.read_bytes()
    try:
        lost, changed = _members_without(content, person)
    except (zipfile.BadZipFile, ET.ParseError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}; remove it, or leave its folder out") from None
    if changed != content:
        temporary = into.add(path)
        with disk_faults(path):
            disk.write_bytes(temporary, changed)
    return lost


def _members_without(content: bytes, person: Person) -> tuple[int, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as source:
        members = {info.filename: source.read(info) for info in source.infolist()}
        book = "xl/workbook.xml" in members
        lost, erased = _book_without(members, person) if book else _tables_without(members, person)
        if erased == members:
            return lost, content
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as target:
            for info in source.infolist():
                target.writestr(info, erased[info.filename])
    return lost, packed.getvalue()


def _tables_without(members: dict[str, bytes], person: Person) -> tuple[int, dict[str, bytes]]:
    erased, lost = dict(members), list[int]()
    for name, content in members.items():
        if PurePosixPath(name).suffix.lower() == ".csv" and person.may_be_in(content):
            lines = lines_without(io.StringIO(content.decode(), newline=""), person, ",", lost)
            erased[name] = "".join(lines).encode()
    return len(lost), erased


def _book_without(members: dict[str, bytes], person: Person) -> tuple[int, dict[str, bytes]]:
    """Return a workbook's members without the rows of the person; the rows below move up."""
    ET.register_namespace("", _SHEET[1:-1])
    erased, shared, lost = dict(members), "xl/sharedStrings.xml", 0
    texts: list[str] = []
    if shared in members:
        root = ET.fromstring(members[shared])  # noqa: S314
        texts = ["".join(part.text or "" for part in item.iter(f"{_SHEET}t")) for item in root]
    gone: set[str] = set()
    for name, content in members.items():
        if name.startswith("xl/worksheets/sheet"):
            sheet = ET.fromstring(content)  # noqa: S314
            if (rows := _sheet_without(sheet, texts, person, gone)) > 0:
                erased[name], lost = ET.tostring(sheet, "UTF-8", xml_declaration=True), lost + rows
    marked = [person.mark if text in gone else person.without(text) for text in texts]
    if marked != texts:
        for item, text, now in zip(root, texts, marked, strict=True):
            if now != text:
                item[:] = [ET.Element(f"{_SHEET}t")]
                item[0].text = now
        erased[shared] = ET.tostring(root, "UTF-8", xml_declaration=True)
    return lost, erased


def _sheet_without(sheet: ET.Element, texts: list[str], person: Person, gone: set[str]) -> int:
    """Remove the person's rows of a sheet, and return how many; the texts that were ids are added to `gone`."""
    data = sheet.find(f"{_SHEET}sheetData")
    if data is None:
        return 0
    heads: dict[str, str] = {}
    lost = 0
    for row in list(data):
        cells = {(cell.get("r") or "").rstrip("0123456789"): _text(cell, texts) for cell in row}
        ids = {text for place, text in cells.items() if heads and person.is_id(text, heads.get(place, ""))}
        heads = heads or cells
        if ids:
            gone |= ids
            data.remove(row)
            lost += 1
        elif lost:
            number = int(row.get("r") or 0) - lost
            row.set("r", str(number))
            for cell in row:
                cell.set("r", f"{(cell.get('r') or '').rstrip('0123456789')}{number}")
    return lost


def _text(cell: ET.Element, texts: list[str]) -> str:
    if cell.get("t") == "inlineStr":
        return "".join(part.text or "" for part in cell.iter(f"{_SHEET}t"))
    value = cell.findtext(f"{_SHEET}v") or ""
    return texts[int(value)] if cell.get("t") == "s" else value


def erase_json(path: Path, person: Person, into: Staged, digests: dict[str, str]) -> int:
    """Stage a JSON or JSON Lines file without the person, and with the new digests of files that changed."""
    text = path.read_text(encoding="utf-8")
    lines = path.suffix.lower() == ".jsonl"
    try:
        parts = [json.loads(line) for line in text.splitlines() if line.strip()] if lines else json.loads(text)
    except ValueError as error:
        if person.may_be_in(text.encode()):
            raise DataError(f"{path} is no JSON: {error}; remove it, or leave its folder out") from None
        return 0
    lost: list[str] = []
    kept = _digests_in(_value_without(parts, "", person, lost), digests)
    if kept != parts:
        dumps = json.dumps
        new = "".join(f"{dumps(part, ensure_ascii=False)}\n" for part in kept) if lines else _indented(kept)
        temporary = into.add(path)
        with disk_faults(path):
            disk.write_bytes(temporary, new.encode())
    return len(lost)


def _indented(value: Any) -> str:
    return f"{json.dumps(value, ensure_ascii=False, indent=2)}\n"


def _value_without(value: Any, key: str, person: Person, lost: list[str]) -> Any:
    """Return a value of JSON without the person: entries of a list and keys go, an id elsewhere is null."""
    if isinstance(value, dict):
        names = [name for name in value if person.is_id(name, "customer_id")]
        lost += names
        return {
            person.without(name): _value_without(part, name, person, lost)
            for name, part in value.items()
            if name not in names
        }
    if isinstance(value, list):
        kept = [part for part in value if not _is_of(part, key, person)]
        lost += [key] * (len(value) - len(kept))
        return [_value_without(part, key, person, lost) for part in kept]
    if _is_cell(value) and person.is_id(str(value), key):
        lost.append(key)
        return None
    return person.without(value) if isinstance(value, str) else value


def _is_of(part: Any, key: str, person: Person) -> bool:
    """Return whether an entry of a list is the person's: the id itself, or a mapping with the id as a value."""
    cells = part.items() if isinstance(part, dict) else [(key, part)]
    return any(_is_cell(cell) and person.is_id(str(cell), name) for name, cell in cells)


def _is_cell(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)


def _digests_in(value: Any, digests: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {name: _digests_in(part, digests) for name, part in value.items()}
    if isinstance(value, list):
        return [_digests_in(part, digests) for part in value]
    return digests.get(value, value) if isinstance(value, str) else value


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


KINDS: dict[str, Callable[[Path, Person, Staged], int]] = {
    ".parquet": erase_parquet,
    **dict.fromkeys((".csv", ".tsv"), erase_csv),
    **dict.fromkeys((".xlsx", ".zip"), erase_archive),
    **dict.fromkeys((".html", ".htm", ".svg"), erase_page),
}
"""How a file is erased, by its ending; `.json` and `.jsonl` come last, by `erase_json`."""


def files_below(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder, sorted; links are not followed."""
    for path in sorted(folder.iterdir()):
        if path.is_symlink():
            continue
        if path.is_dir():
            yield from files_below(path)
        elif path.is_file():
            yield path
