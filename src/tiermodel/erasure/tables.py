"""Parquet and CSV files without the rows of one person; every other row stays as it is."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tiermodel import disk
from tiermodel.erasure.person import Person
from tiermodel.locks import disk_faults
from tiermodel.output import Staged, write_table

__all__ = ["erase_csv", "erase_parquet", "lines_without", "rows_without"]

_BLOCK = 1 << 16


def erase_parquet(path: Path, person: Person, into: Staged) -> int:
    """Stage a Parquet file without the person, and return how many rows it loses; 0 and nothing staged without any."""
    with pq.ParquetFile(path, page_checksum_verification=True) as source:
        schema, lost, changed = source.schema_arrow, 0, False
        for batch in source.iter_batches(_BLOCK):
            kept = rows_without(batch, person)
            lost += batch.num_rows - kept.num_rows
            changed = changed or kept is not batch
    if changed or _noted(schema, person):
        with pq.ParquetFile(path) as source:
            write_table(_batches(source, person), path, _without_notes(schema, person), into=into)
    return lost


def _batches(source: pq.ParquetFile, person: Person) -> Iterator[pa.RecordBatch]:
    """Yield the batches of a file without the person."""
    schema = _without_notes(source.schema_arrow, person)
    for batch in source.iter_batches(_BLOCK):
        yield pa.RecordBatch.from_arrays(rows_without(batch, person).columns, schema=schema)


def _noted(schema: pa.Schema, person: Person) -> bool:
    return (schema.metadata or {}) != (_without_notes(schema, person).metadata or {})


def _without_notes(schema: pa.Schema, person: Person) -> pa.Schema:
    """Return the schema with notes that do not name the person."""
    notes = schema.metadata or {}
    texts = {key: person.without(note.decode()).encode() for key, note in notes.items() if key != b"ARROW:schema"}
    return schema.with_metadata({**notes, **texts} or None)


def rows_without(batch: pa.RecordBatch, person: Person) -> pa.RecordBatch:
    """Return the rows of which no cell is the person's id; within other texts a mark takes the place of the id."""
    kept, names = [True] * batch.num_rows, person.deciding(batch.schema.names)
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if name not in names or not _may_hold(column.type, name, person):
            continue
        for place in _suspects(column, person):
            kept[place] = kept[place] and not person.is_id(str(column[place].as_py()), name)
    batch = batch if all(kept) else batch.filter(pa.array(kept, pa.bool_()))
    return _marked(batch, person)


def _may_hold(kind: pa.DataType, name: str, person: Person) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return text or (pa.types.is_integer(kind) and person.holds_ids(name))


def _suspects(column: pa.Array, person: Person) -> list[int]:
    """Return the places of cells that have the id somewhere."""
    column = column.cast(pa.string())
    found = pa.array([False] * len(column), pa.bool_())
    for form in person.forms:
        hit = pc.match_substring(column, form, ignore_case=person.fold)
        found = pc.or_(found, pc.fill_null(hit, fill_value=False))
    return [int(place) for place in pc.indices_nonzero(found).to_pylist()]


def _marked(batch: pa.RecordBatch, person: Person) -> pa.RecordBatch:
    """Return the rows with the mark where a text names the person."""
    columns, changed = [], False
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        texts = not pa.types.is_integer(column.type) and _may_hold(column.type, name, person)
        for place in _suspects(column, person) if texts else []:
            text = column[place].as_py()
            if (marked := person.without(text)) != text:
                cells = column.cast(pa.string()).to_pylist()
                cells[place] = marked
                column, changed = pa.array(cells, pa.string()).cast(column.type), True  # noqa: PLW2901
        columns.append(column)
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema) if changed else batch


def erase_csv(path: Path, person: Person, into: Staged) -> int:
    """Stage a CSV file without the person, and return how many rows it loses; the bytes of other rows stay."""
    lost: list[int] = []
    encoding, separator = _encoding(path), "\t" if path.suffix.lower() == ".tsv" else ","
    temporary = into.add(path)
    with disk_faults(path), path.open(encoding=encoding, newline="") as source, disk.create(temporary) as file:
        for record in lines_without(source, person, separator, lost):
            file.write(record.encode(encoding))
    return len(lost)


def _encoding(path: Path) -> str:
    """Return the encoding of a text file: UTF-8, GB 18030, or one that keeps any bytes."""
    for name in ("utf-8", "gb18030"):
        try:
            with path.open(encoding=name, newline="") as file:
                while file.read(_BLOCK):
                    pass
        except UnicodeDecodeError:
            continue
        return name
    return "latin-1"


def lines_without(source: Iterator[str], person: Person, separator: str, lost: list[int]) -> Iterator[str]:
    """Yield the records of a CSV text as they stand, but those of the person, whose numbers are added to `lost`."""
    heads: list[str] = []
    deciding: Sequence[str] = ()
    for number, record in enumerate(_records(source)):
        cells = next(csv.reader(io.StringIO(record, newline=""), delimiter=separator), [])
        if not heads:
            heads = [cell.removeprefix("\ufeff") for cell in cells]
            deciding = person.deciding(heads)
            yield record
        elif any(person.is_id(cell, head) for cell, head in zip(cells, heads, strict=False) if head in deciding):
            lost.append(number)
        else:
            yield person.without(record)


def _records(source: Iterator[str]) -> Iterator[str]:
    """Yield records with their line ends: a quoted cell may hold line ends of its own."""
    record = ""
    for line in source:
        record += line
        if record.count('"') % 2 == 0:
            yield record
            record = ""
    if record:
        yield record
