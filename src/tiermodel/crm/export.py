"""Write scores as files for the import of a CRM: mapped columns only, and only customers who changed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from tiermodel import disk
from tiermodel.crm.files import PartWriter, write_one
from tiermodel.crm.manifest import GONE, MANIFEST, STATE, Manifest, Previous, read_previous, refuse_other_folder
from tiermodel.crm.mapping import ID, Mapping, load_mapping
from tiermodel.crm.rows import ROWS, header, key_cell, key_header, make_rows, number_columns
from tiermodel.errors import DataError, ProjectError
from tiermodel.output import atomic_folder, file_sha256, write_table
from tiermodel.policy.scores import Scores, open_scores
from tiermodel.tables.source import literal

__all__ = ["export"]

_BEFORE = "export_before"
_BATCH = 20_000  # rows
_VERSION = re.compile(r"(.+)-[0-9a-f]{12}")  # of a bundle: the project's name and a digest
_STATE = pa.schema([(ID, pa.string()), ("digest", pa.binary())])
_NEW = "b.customer_id IS NULL"
_CHANGED = "b.digest <> r.digest"


def export(
    scores: str | Path, mapping: str | Path, out: str | Path, *, to: str | None = None, since: str | Path | None = None
) -> Manifest:
    """Write the customers that are new or changed since the export before, as files that the import of a CRM takes.

    Parameters
    ----------
    scores
        What `tiermodel score` wrote, or any table with `customer_id` and `tier_code`.
    mapping
        The mapping file, or the name of one that ships: which column goes to which field, for one audience. Nothing
        else leaves.
    out
        The folder to write: the files, `gone.csv` with the keys of customers who are in the scores no more, the
        manifest, and the digest of each customer's row for the next export. It is replaced as a whole, or not at all.
    to
        The target the mapping must be for: `zoho`, `fxiaoke` or `csv`.
    since
        The folder of the export before. Without it, and where the mapping has changed since, every customer is written.

    Returns
    -------
    Manifest
        What was written. The same input gives the same bytes.

    Raises
    ------
    ProjectError
        Where the mapping is wrong, does not fit the scores or lacks a level, or a folder is of another project.
    DataError
        Where scores cannot be read, or hold what the CRM cannot take.

    """
    scores, out, where = Path(scores), Path(out), str(mapping)
    read = load_mapping(mapping)
    if to is not None and to != read.to:
        raise ProjectError(f"{where}: to: the mapping is for {read.to}, and --to says {to}; give --to {read.to}")
    inputs = {"the scores": scores, "the mapping": Path(mapping)}
    before = {} if since is None else {"the export that --since names": Path(since)}
    with open_scores(scores, number_columns(read), [out]) as table:
        if not scores.is_file():
            raise ProjectError(f"{scores}: scores are exported from one file; give its path")
        project, as_of = _project(table, read, where), _as_of(table)
        refuse_other_folder(out, project, read.name, inputs | before)
        previous = None if since is None else read_previous(Path(since), read, project, as_of)
        make_rows(table, read, where)
        _read_state(table, previous)
        with atomic_folder(out) as folder:
            manifest = _written(table, read, folder, previous, {"project": project, "as_of": as_of})
            disk.write_bytes(folder / MANIFEST, manifest.text().encode())
    return manifest


def _project(table: Scores, mapping: Mapping, where: str) -> str | None:
    """Return the project of the scores, by their model's version, else the mapping's.

    Raises `ProjectError` where they differ, `DataError` for scores of several projects.
    """
    versions = []
    if "model_version" in table.columns:
        query = f"SELECT DISTINCT model_version::VARCHAR FROM {table.source.view} WHERE model_version IS NOT NULL"
        versions = [str(row[0]) for row in table.connection.execute(query).fetchall()]
    names = sorted({found[1] for version in versions if (found := _VERSION.fullmatch(version))})
    if len(names) > 1:
        raise DataError(f"{table.file}: the scores are of several projects: {', '.join(names)}; give those of one")
    if names and mapping.project not in {None, names[0]}:
        raise ProjectError(
            f"{where}: project: the mapping is for {mapping.project}, and {table.file} has scores of {names[0]}; "
            "give the scores of that project, or a mapping of this one"
        )
    return names[0] if names else mapping.project


def _as_of(table: Scores) -> str | None:
    """Return the latest date of the scores; None where they have none."""
    if "as_of" not in table.columns:
        return None
    rows = table.connection.execute(f"SELECT max(TRY_CAST(as_of AS DATE)) FROM {table.source.view}").fetchall()
    return None if rows[0][0] is None else str(rows[0][0])


def _read_state(table: Scores, previous: Previous | None) -> None:
    """Make the table of the customers that the export before knew; an empty one where there was none."""
    of = "" if previous is None else f" AS SELECT {ID}, digest FROM read_parquet({literal(str(previous.state))})"
    table.connection.execute(f"CREATE TEMP TABLE {_BEFORE}{of or f' ({ID} VARCHAR, digest BLOB)'}")


def _written(
    table: Scores, mapping: Mapping, folder: Path, previous: Previous | None, facts: dict[str, str | None]
) -> Manifest:
    """Write all files but the manifest into a folder, and return the manifest."""
    head, joined = header(mapping), f"{ROWS} r LEFT JOIN {_BEFORE} b USING ({ID})"
    everything = previous is None or previous.manifest.mapping_sha256 != mapping.digest
    counted = f"SELECT count(*), count(*) FILTER ({_NEW}), count(*) FILTER ({_CHANGED}) FROM {joined}"
    customers, new, changed = table.connection.execute(counted).fetchall()[0]
    some = "" if everything else f"WHERE {_NEW} OR {_CHANGED}"
    writer = PartWriter(folder, mapping.module.lower(), head, mapping.to, mapping.limits)
    files = writer.write(_lines(table, f"SELECT r.line FROM {joined} {some} ORDER BY {ID}"))
    lost = f"FROM {_BEFORE} ANTI JOIN {ROWS} USING ({ID})"
    gone = int(table.connection.execute(f"SELECT count(*) {lost}").fetchall()[0][0])
    keys = _lines(table, f"SELECT {key_cell()} AS line {lost} ORDER BY {ID}")
    gone_file = write_one(folder / GONE, key_header(mapping), keys, mapping.to) if gone else None
    state = _batches(table, f"SELECT {ID}, digest FROM {ROWS} ORDER BY {ID}")
    write_table((batch.cast(_STATE) for batch in state), folder / STATE, _STATE)
    return Manifest(
        format=1,
        **facts,
        mapping=mapping.name,
        mapping_sha256=mapping.digest,
        audience=mapping.audience,
        to=mapping.to,
        module=mapping.module,
        key=mapping.key,
        fields=list(mapping.fields),
        scores_sha256=file_sha256(Path(table.file)),
        everything=everything,
        since=None if previous is None else previous.digest,
        customers=customers,
        new=new,
        changed=changed,
        unchanged=customers - new - changed,
        gone=gone,
        written=sum(file.rows for file in files),
        files=files,
        gone_file=gone_file,
        state_sha256=file_sha256(folder / STATE),
    )


def _lines(table: Scores, query: str) -> Iterator[str]:
    for batch in _batches(table, query):
        yield from batch.column("line").to_pylist()


def _batches(table: Scores, query: str) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a query in its order, a batch at a time."""
    table.connection.execute("SET preserve_insertion_order = true")  # else batches of a sorted result come in any order
    yield from table.connection.sql(query).to_arrow_reader(_BATCH)
