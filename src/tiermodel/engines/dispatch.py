"""The engine that the project chose: it opens the tables, and runs a function over the rows sorted by customer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import pandas as pd
import pyarrow as pa

from tiermodel.config.project import Project, require_project
from tiermodel.engines.duckdb import sorted_rows
from tiermodel.tables.history import History, read_history
from tiermodel.tables.row_kinds import RowCounts
from tiermodel.tables.source import refuse_changed

__all__ = ["Rows", "Work", "history_of", "open_history", "stream"]


Work: TypeAlias = Callable[[Iterator[pa.RecordBatch], RowCounts], Iterator[pa.RecordBatch]]
"""A function of customer-sorted batches and row counts, which yields results in the order of customers and adds to the
counts. An engine may run it on ranges of customers, in other processes."""


Rows: TypeAlias = History | pd.DataFrame | Mapping[str, Any] | None
"""Where a verb has its rows from: a history opened before, a DataFrame of transactions, DataFrames or Arrow tables by
the name of the table, or (None) the project's files."""


def history_of(project: Project, rows: Rows = None) -> History:
    """Return the history of a project; `TypeError`, with what to write instead, for objects that have none.

    >>> history_of("shop.yaml")
    Traceback (most recent call last):
        ...
    TypeError: expected a Project, got str 'shop.yaml'; load it: load_project('shop.yaml')
    """
    require_project(project)
    if isinstance(rows, History):
        return rows
    if isinstance(rows, pd.DataFrame):
        return open_history(project, transactions=rows)
    if isinstance(rows, Mapping):
        return open_history(project, **rows)
    if rows is not None:
        raise TypeError(
            f"history: expected what open_history returns, a DataFrame of transactions or DataFrames by the name of "
            f"the table, got {type(rows).__name__}; pass history={{'transactions': pd.DataFrame(rows)}}"
        )
    return open_history(project)


def open_history(project: Project, **frames: Any) -> History:
    """Read every table of the project once: each row is good, filtered or quarantined, and counted.

    Parameters
    ----------
    project
        The project whose tables are read, in Spark's tasks where `data.engine` is `spark`.
    **frames
        Tables to use in place of files, by the name of the table: DataFrames or Arrow tables.

    Returns
    -------
    History
        The good rows of all tables, and the account of each table.

    Raises
    ------
    DataError
        If a table has no good row.
    TooManyBadRowsError
        If more than `data.max_bad_share` of the rows break the contract.
    ProjectError
        If a mapping does not fit the columns, or a name in `frames` is not a table that the project maps.

    Examples
    --------
    >>> import pandas as pd
    >>> from tiermodel import Project, open_history
    >>> columns = {"customer_id": "id", "time": "day", "amount": "amount"}
    >>> data = {"transactions": {"path": "sales.csv", "columns": columns}}
    >>> project = Project.model_validate({"version": 1, "name": "shop", "data": data})
    >>> sales = pd.DataFrame({"id": ["a", "b"], "day": ["2024-01-01", "2024-03-01"], "amount": [5, 7]})
    >>> history = open_history(project, transactions=sales)
    >>> str(history.first_day), str(history.last_day), history.account.read
    ('2024-01-01', '2024-03-01', 2)

    """
    require_project(project)
    if project.data.engine == "spark":
        from tiermodel.engines.spark import reader  # noqa: PLC0415  # an extra

        return read_history(project, run=reader(project), **frames)
    return read_history(project, **frames)


def stream(project: Project, history: History, before: str, work: Work, counts: RowCounts) -> Iterator[pa.RecordBatch]:
    """Yield the results of `work` on the good rows that fulfil `History.before`, sorted by customer and day.

    Raises DataError where a file changed since it was first read.
    """
    if project.data.engine == "spark":
        from tiermodel.engines import spark  # noqa: PLC0415

        yield from spark.stream(project, history, before, work, counts)
    else:
        yield from work(sorted_rows(history, before), counts)
    for table in history.tables.values():
        refuse_changed(table.source.seen)
