"""Open a project's tables, and run a function over its sorted rows, on the engine that the project chose."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import pyarrow as pa

from tiermodel.config.project import Project
from tiermodel.engines.duckdb import sorted_rows
from tiermodel.tables.history import History, read_history
from tiermodel.tables.row_kinds import RowCounts

__all__ = ["Work", "open_history", "stream"]

Work: TypeAlias = Callable[[Iterator[pa.RecordBatch], RowCounts], Iterator[pa.RecordBatch]]
"""Turn customer-sorted rows into results, customers in order, and count the rows. An engine may run it on ranges of
customers, in other processes."""


def open_history(project: Project, **frames: Any) -> History:
    """Read every table of the project once, as `tables.history.read_history` says, in Spark's tasks if it chose Spark.

    A table can be handed over by its name, as a DataFrame or Arrow table: `open_history(project, transactions=frame)`.
    """
    if project.data.engine == "spark":
        from tiermodel.engines.spark import reader  # noqa: PLC0415  # an extra

        return read_history(project, run=reader(project), **frames)
    return read_history(project, **frames)


def stream(
    project: Project, history: History, before_day: int, work: Work, counts: RowCounts
) -> Iterator[pa.RecordBatch]:
    """Sort the good rows before a day by customer and day, and run `work` on them; results come in that order."""
    if project.data.engine == "spark":
        from tiermodel.engines import spark  # noqa: PLC0415

        return spark.stream(project, history, before_day, work, counts)
    return work(sorted_rows(history, before_day), counts)
