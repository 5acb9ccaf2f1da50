"""Read, sort and stream rows with Spark: DuckDB and the compiled pass run in its tasks, Spark moves the rows.

Spark itself computes nothing. A task reads its share of the files with the SQL that a single machine runs; Spark brings
each customer's rows together, in order; a task then runs the same compiled pass. How the work is divided therefore
cannot change a bit of the result. Files must have the same path on every machine.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tiermodel import errors
from tiermodel.config.project import Project
from tiermodel.engines.duckdb import BATCH_ROWS, query_faults, sort_keys
from tiermodel.errors import DataError, ProjectError, TierModelError
from tiermodel.tables.history import History, connect
from tiermodel.tables.row_kinds import RowCounts
from tiermodel.tables.source import Part, Run, Source

__all__ = ["reader", "session", "stream"]


SPLIT_ROWS = 1_000_000
PARTITION_ROWS = 100_000
PACK_BYTES = 8 << 20
_RESULT_ROWS = 65_536
_PACKED = "batch binary, counts binary"
_TYPES = {"BIGINT": "bigint", "INTEGER": "int", "TINYINT": "tinyint", "VARCHAR": "string"}
_SAME = ("tiermodel", "duckdb")  # DuckDB's hash differs between versions
# where one of these is set, the user has chosen a Spark
_SPARK_IS_CHOSEN = ("MASTER", "PYSPARK_SUBMIT_ARGS", "PYSPARK_GATEWAY_PORT", "SPARK_CONF_DIR", "SPARK_HOME")


def session() -> Any:
    """Return the active Spark session, or a new one: on this machine's cores unless Spark's own settings say otherwise.

    Raises `ProjectError` where pyspark or Java is missing.
    """
    try:
        with _no_word_of_pandas():
            from pyspark.errors import PySparkRuntimeError  # noqa: PLC0415
            from pyspark.sql import SparkSession  # noqa: PLC0415
    except ImportError:
        raise ProjectError("data.engine: spark needs: pip install 'tiermodel[spark]'") from None
    if active := SparkSession.getActiveSession():
        return active
    home = os.environ.get("JAVA_HOME")
    if not shutil.which("java", path=f"{home}/bin" if home else None):
        raise ProjectError(
            "data.engine: spark needs Java 17 or later, which is not there: install it (on Debian: apt-get install "
            "openjdk-17-jre-headless), or set JAVA_HOME"
        )
    builder = SparkSession.builder.appName("tiermodel").config("spark.log.level", "ERROR")
    builder = builder.config("spark.ui.showConsoleProgress", "false")
    if not any(name in os.environ for name in _SPARK_IS_CHOSEN):
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        builder = builder.config("spark.ui.enabled", "false")
    try:
        return builder.getOrCreate()
    except PySparkRuntimeError as error:
        raise ProjectError(f"data.engine: spark: no session could be started: {error}") from error


class _Split(NamedTuple):
    """Consecutive rows of a file, from `first` to `last` inclusive."""

    view: str
    part: Part
    first: int
    last: int


def _splits(source: Source) -> Iterator[_Split]:
    """Yield the splits of a source in order: whole row groups of about `_SPLIT_ROWS` rows."""
    for part in source.parts:
        metadata = pq.read_metadata(part.path)
        first = after = 0
        for group in range(metadata.num_row_groups):
            after += metadata.row_group(group).num_rows
            if after - first >= SPLIT_ROWS or after == metadata.num_rows > first:
                yield _Split(source.view, part, first, after - 1)
                first = after


@dataclass(frozen=True)
class _Reading:
    """A query over splits of tables, one after the other, on one thread of the task's own DuckDB."""

    project: Project
    splits: tuple[_Split, ...]
    queries: dict[str, str]
    beside: dict[str, Part]
    versions: dict[str, str]

    def __call__(self, numbers: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield the rows that the query of their view selects from the splits with these numbers."""
        _refuse_other_versions(self.versions)
        connection = connect(self.project)
        connection.execute("SET threads = 1")
        connection.execute("SET preserve_insertion_order = true")
        for name, part in self.beside.items():
            _refuse_unseen(part)
            connection.execute(f"CREATE VIEW {name} AS {part.rows()}")
        for number in (number for batch in numbers for number in batch.column(0).to_pylist()):
            view, part, first, last = self.splits[number]
            _refuse_unseen(part)
            with query_faults():
                connection.execute(f"CREATE OR REPLACE VIEW {view} AS {part.rows(first, last)}")
                yield from connection.sql(self.queries[view]).to_arrow_reader(BATCH_ROWS)


def _refuse_other_versions(here: dict[str, str]) -> None:
    for name, wanted in here.items():
        if (found := version(name)) != wanted:
            raise ProjectError(
                f"a Spark executor has {name} {found}, the driver {wanted}: install the same version on every machine"
            )


def _refuse_unseen(part: Part) -> None:
    if not Path(part.path).is_file():
        raise DataError(
            f"TM1004 a Spark executor does not see {part.path}: keep the tables on storage that every machine has "
            "under the same path. Tables that are not Parquet are copied to TMPDIR first: set that to a folder there"
        )


@dataclass(frozen=True)
class _Working:
    """The work on the sorted rows of a partition, as a callable that Spark sends to a task."""

    work: Any

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield the packed results, and last a row with the counts."""
        counts = RowCounts()
        yield from _packed(self.work(_regrouped(batches, BATCH_ROWS), counts))
        yield _row(None, json.dumps([counts.used.tolist(), counts.duplicates.tolist()]).encode())


@dataclass(frozen=True)
class _Packing:
    """A reading with packed rows, as a callable that Spark sends to a task."""

    reading: _Reading

    def __call__(self, numbers: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield the packed rows of the splits."""
        yield from _packed(self.reading(numbers))


def _row(batch: bytes | None, counts: bytes | None) -> pa.RecordBatch:
    return pa.record_batch({"batch": pa.array([batch], pa.binary()), "counts": pa.array([counts], pa.binary())})


def _packed(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield batches packed as rows of bytes, which Spark carries unchanged whatever their types."""
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    for batch in batches:
        rows = max(1, PACK_BYTES * batch.num_rows // max(batch.nbytes, 1))
        for start in range(0, batch.num_rows, rows):
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, batch.schema, options=options) as writer:
                writer.write_batch(batch.slice(start, rows))
            yield _row(sink.getvalue().to_pybytes(), None)


def _unpacked(packed: bytes) -> Iterator[pa.RecordBatch]:
    with pa.ipc.open_stream(packed) as stream:
        yield from stream


def _regrouped(batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    """Yield the same rows in batches of at least `rows` rows; the last batch may have fewer."""
    held: list[pa.RecordBatch] = []
    for batch in batches:
        held.append(batch)
        if sum(part.num_rows for part in held) >= rows:
            yield _together(held)
            held = []
    if sum(part.num_rows for part in held):
        yield _together(held)


def _together(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    return batches[0] if len(batches) == 1 else pa.concat_batches(batches)


def reader(project: Project) -> Run:
    """Return a function that runs a query over a source in Spark's tasks, split by split."""

    def run(source: Source, sql: str) -> Iterator[pa.RecordBatch]:
        splits = tuple(_splits(source))
        reading = _Reading(project, splits, {source.view: sql}, source.beside, _versions())
        for packed, _ in _fetched(_over(splits, _Packing(reading), _PACKED), len(splits)):
            yield from _unpacked(packed)

    return run


def stream(project: Project, history: History, before: str, work: Any, counts: RowCounts) -> Iterator[pa.RecordBatch]:
    """Yield the results of `work` on the good rows that fulfil `History.before`, by customer, one range per task.

    The number of ranges is that of `spark.sql.shuffle.partitions`, or lower so that a range has some hundred thousand
    rows; the rows of a customer stay together.
    """
    sources = [history.tables[name].source for name in history.selects]
    selects = {
        source.view: f"SELECT * FROM ({rows}) WHERE {before}"
        for source, rows in zip(sources, history.selects.values(), strict=True)
    }
    splits = tuple(split for source in sources for split in _splits(source))
    types = history.connection.cursor().sql(history.rows_sql)
    schema = ", ".join(f"{name} {_TYPES[str(kind)]}" for name, kind in zip(types.columns, types.types, strict=True))
    rows = _over(splits, _Reading(project, splits, selects, sources[0].beside, _versions()), schema)
    partitions = _partitions(history)
    moved = rows.repartitionByRange(partitions, "customer_id")
    results = _mapped(moved.sortWithinPartitions(*sort_keys(types.columns)), _Working(work), _PACKED)

    def batches() -> Iterator[pa.RecordBatch]:
        for packed, packed_counts in _fetched(results, partitions):
            if packed_counts is None:
                yield from _unpacked(packed)
            else:
                used, duplicates = json.loads(packed_counts)
                counts.used += np.array(used)
                counts.duplicates += np.array(duplicates)

    yield from _regrouped(batches(), _RESULT_ROWS)


def _partitions(history: History) -> int:
    most = int(session().conf.get("spark.sql.shuffle.partitions"))
    good = sum(t.account.read - t.account.filtered - t.account.quarantined for t in history.tables.values())
    return max(1, min(most, math.ceil(good / PARTITION_ROWS)))


def _versions() -> dict[str, str]:
    return {name: version(name) for name in _SAME}


def _over(splits: tuple[_Split, ...], function: Any, schema: str) -> Any:
    """Return the lazy result of a function over the numbers of the splits, one task for each."""
    return _mapped(session().range(0, len(splits), 1, max(1, len(splits))), function, schema)


def _mapped(rows: Any, function: Any, schema: str) -> Any:
    with _no_word_of_pandas():
        return rows.mapInArrow(function, schema)


def _fetched(results: Any, partitions: int) -> Iterator[Any]:
    """Yield the rows of all partitions in order; they are computed at once and wait on the executors' disks."""
    from pyspark import StorageLevel  # noqa: PLC0415

    with _faults():
        if partitions > 1:
            results.persist(StorageLevel.DISK_ONLY).count()
        try:
            yield from results.toLocalIterator(prefetchPartitions=True)
        finally:
            results.unpersist()


@contextmanager
def _no_word_of_pandas() -> Iterator[None]:
    """Suppress the warning that pyspark 4.3 does not fully support pandas 3: no rows go through pandas here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "PySpark does not yet fully support pandas", FutureWarning)
        yield


@contextmanager
def _faults() -> Iterator[None]:
    """Raise an error of ours from a task as such, and a `ProjectError` where an executor lacks a package."""
    from py4j.protocol import Py4JJavaError  # noqa: PLC0415
    from pyspark.errors import PySparkException  # noqa: PLC0415

    try:
        yield
    except (PySparkException, Py4JJavaError) as error:
        text = str(error)
        if found := re.search(r"^tiermodel\.errors\.(\w+): (.*?)\s*(?:^\tat |^$|\Z)", text, re.MULTILINE | re.DOTALL):
            kind: type[TierModelError] = getattr(errors, found[1])
            raise kind(found[2]) from error
        if missing := re.search(r"ModuleNotFoundError: No module named '(\w+)'", text):
            raise ProjectError(
                f"the Python of the Spark executors has no {missing[1]}: install tiermodel[spark] there, in the same "
                "version, and set PYSPARK_PYTHON to that Python"
            ) from error
        raise
