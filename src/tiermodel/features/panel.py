"""Snapshots and panels: every customer as known at one or several dates, with the outcome where asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from functools import partial
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from tiermodel.config.project import Project
from tiermodel.engines.dispatch import Rows, history_of, stream
from tiermodel.engines.duckdb import complete_until, rows_from, sorted_again
from tiermodel.errors import DataError, ProjectError
from tiermodel.features.arrivals import walk_as_known
from tiermodel.features.catalogue import expand
from tiermodel.features.dates import one_date, parse_dates
from tiermodel.features.formula import Feature, context_from, needs_of
from tiermodel.features.frame import KEYS
from tiermodel.features.large_customer import LargeCustomer
from tiermodel.features.outcome import OUTCOME_COLUMNS, Labels, outcome_columns, outcome_requests
from tiermodel.features.row_columns import UNSORTED
from tiermodel.features.sampling import sample_batches
from tiermodel.features.stream import Chunk, Latest, Plan, whole_customers
from tiermodel.tables.contract import Accounting
from tiermodel.tables.history import History
from tiermodel.tables.privacy import hash_key, public_ids
from tiermodel.tables.row_kinds import KINDS, MAIN_KINDS, RowCounts
from tiermodel.tables.table import EPOCH
from tiermodel.words import words

__all__ = ["Snapshots", "Tally", "build_panel", "snapshot_batches"]


WORKERS = 2
T = TypeVar("T")
R = TypeVar("R")


@dataclass
class Tally(RowCounts):
    """The counts of a walk (`snapshots`: rows made), and at its end the account of every table."""

    snapshots: int = 0
    accounts: dict[str, Accounting] = field(default_factory=dict)

    @property
    def account(self) -> Accounting:
        """The account of the transactions."""
        return self.accounts["transactions"]

    def warn(self, told: str) -> None:
        """Add a warning, unless it is empty, to the account of the transactions."""
        if told:
            account = self.account
            self.accounts["transactions"] = replace(account, warnings=(*account.warnings, told))

    def close(self, history: History, out_of_window: Mapping[int, int]) -> None:
        """Complete the accounts with the fate of the good rows; `TierModelError` where one is not accounted for."""
        for name, table in history.tables.items():
            codes = [KINDS[kind] for kind in MAIN_KINDS[name]]
            account = table.account.with_stream(
                deduplicated=int(self.duplicates[codes].sum()),
                out_of_window=sum(out_of_window.get(code, 0) for code in codes),
                used=int(self.used[codes].sum()),
            )
            account.check()
            if account.deduplicated:
                told = words(table.contract.language)["note_duplicates"].format(n=account.deduplicated, table=name)
                account = replace(account, warnings=(told, *account.warnings))
            self.accounts[name] = account


@dataclass(frozen=True)
class Snapshots:
    """The walk from customer-sorted batches to snapshot batches: one row for each customer and date, sorted by both.

    `with_outcome` adds the outcome, NaN unless its window lies fully before `data_end`; rows that arrived on
    `known_until` or later are left out (all are known if it is None). An instance is a callable that an engine can send
    to another process.
    """

    project: Project
    columns: frozenset[str]
    dates: tuple[date, ...]
    with_outcome: bool = False
    data_end: date = date.min
    known_until: date | None = None
    key: bytes | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Read the key of `data.hash_ids` here: where an engine sends the walk, the variable need not be set."""
        object.__setattr__(self, "key", hash_key(self.project))

    @property
    def features(self) -> tuple[Feature, ...]:
        """The features of the project that its columns allow."""
        return expand(self.project.features, self.columns)

    @property
    def labels(self) -> Labels:
        """The labels that the project asks for."""
        return Labels.of(self.project)

    @property
    def plan(self) -> Plan:
        """The dates, sums and latest rows of the walk; `ValueError` for a feature that looks at its date or later."""
        asked, latest = needs_of(self.features)
        future = [r for r in asked if r.end > 0]
        if future:
            raise ValueError(f"features may not look past their date: {future[:3]}")
        if self.with_outcome:
            asked = tuple(dict.fromkeys((*asked, *outcome_requests(self.labels))))
        if not self.dates:
            raise ProjectError("there is no date to build a snapshot for; give one or more, such as 2017-11-30")
        return Plan(tuple((d - EPOCH).days for d in sorted(set(self.dates))), asked, latest)

    @property
    def end(self) -> int:
        """The first day (counted from 1970-01-01) whose rows are not read: what is not known yet counts for nothing."""
        last = self.plan.end
        return last if self.known_until is None else min(last, (self.known_until - EPOCH).days)

    @property
    def arrived(self) -> int | None:
        """The first day (counted from 1970-01-01) of which arriving rows are left out; None if no row is."""
        if self.with_outcome:
            return None if self.known_until is None else (self.known_until - EPOCH).days
        return max(self.plan.as_of)

    @property
    def schema(self) -> pa.Schema:
        """The columns: the keys, every feature, and the outcome where asked for; float64 but for keys and text."""
        features = ((f.name, pa.string() if f.unit == "text" else pa.float64()) for f in self.features)
        outcome = ((name, pa.float64()) for name in (OUTCOME_COLUMNS if self.with_outcome else ()))
        return pa.schema([("customer_id", pa.string()), ("as_of", pa.date32()), *features, *outcome])

    def walker(
        self, named: Callable[[pa.Array], pa.Array]
    ) -> Callable[[pa.Table | LargeCustomer], tuple[Chunk, pa.RecordBatch]]:
        """Return the function that walks a table of whole customers; `named` turns their ids into those of the rows."""
        plan, features, schema = self.plan, self.features, self.schema
        data_end = (self.data_end - EPOCH).days
        contracts = Latest("profile", "contract_end") in plan.latest

        def one(table: pa.Table | LargeCustomer) -> tuple[Chunk, pa.RecordBatch]:
            chunk = walk_as_known(table, plan, named)
            known = context_from(chunk, plan)
            columns = [f.compute(known) for f in features]
            if self.with_outcome:
                sums = dict(zip(plan.requests, chunk.sums, strict=True))
                ends = known.latest("profile", "contract_end") if contracts else None
                observed = chunk.as_of + self.labels.delay_days <= data_end
                followed = outcome_columns(self.labels, chunk, sums, table, ends)
                columns += [np.where(observed, column, np.nan) for column in followed]
            ids = named(chunk.customers).take(pa.array(chunk.customer))
            arrays = [ids, pa.array(chunk.as_of).cast(pa.date32()), *map(_arrow, columns)]
            return chunk, pa.RecordBatch.from_arrays(arrays, schema=schema)

        return one

    def __call__(self, batches: Iterable[pa.RecordBatch], counts: RowCounts | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the snapshot batches of a stream, in order; tables of whole customers are walked on two threads.

        Raises `DataError` where the stream is not sorted.
        """
        one = self.walker(partial(public_ids, key=self.key))
        last = None
        for chunk, batch in _in_order(one, whole_customers(batches)):
            ids = chunk.customers
            if last is not None and not pc.less(last, ids[0]).as_py():
                raise DataError(UNSORTED)
            last = ids[-1]
            if counts is not None:
                counts.used += chunk.rows_used
                counts.duplicates += chunk.rows_duplicate
            yield batch


def _arrow(column: Any) -> pa.Array:
    return column if isinstance(column, pa.Array) else pa.array(column)


def _in_order(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Yield results in the order of the items, computed a few ahead on threads (the walk releases the lock)."""
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(WORKERS) as pool:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > WORKERS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


@dataclass(frozen=True)
class _Then:
    """The walk, with each batch of snapshots turned into another; one of customers not known yet is left out."""

    snapshots: Snapshots
    then: Callable[[pa.RecordBatch], pa.RecordBatch]

    def __call__(self, batches: Iterator[pa.RecordBatch], counts: RowCounts) -> Iterator[pa.RecordBatch]:
        return (self.then(batch) for batch in self.snapshots(batches, counts) if batch.num_rows)


def snapshot_batches(
    history: History,
    snapshots: Snapshots,
    tally: Tally | None = None,
    then: Callable[[pa.RecordBatch], pa.RecordBatch] | None = None,
) -> Iterator[pa.RecordBatch]:
    """Yield the snapshot batches of a history on the project's engine; at the end every row must be accounted for.

    `then` turns each batch into another where the walk runs, so it must be fit to be sent to another process. Rows are
    sorted by customer and date. Hashed ids are sorted again: the order of the ids themselves would show the holder of a
    customer list which hash belongs to which customer.
    """
    tally = Tally() if tally is None else tally
    end, arrived = snapshots.end, snapshots.arrived
    work = snapshots if then is None else _Then(snapshots, then)
    batches = stream(snapshots.project, history, history.before(end, arrived), work, tally)
    if snapshots.key is not None:
        batches = sorted_again(snapshots.project, batches, ", ".join(KEYS))
    yield from batches
    if not history.is_sample:
        tally.close(history, rows_from(history, end, arrived))


def build_panel(
    project: Project,
    dates: Collection[date | str] | date | str,
    *,
    with_outcome: bool = False,
    known_until: date | str | None = None,
    drawn_before: date | str | None = None,
    history: Rows = None,
    tally: Tally | None = None,
) -> pd.DataFrame:
    """Build the panel of a project: one row for each customer and date, sorted by both, with every feature.

    A customer is in a snapshot from the first row before its date on, whether that row is a purchase or not.

    Parameters
    ----------
    project
        The project whose tables are read and whose features are built.
    dates
        The dates of the snapshots, or one of them; a snapshot has rows of earlier days only. A date is a date, an ISO
        date as text, or `latest`, the day after the last row.
    with_outcome
        Whether `OUTCOME_COLUMNS` are added, NaN where the outcome is not fully observed.
    known_until
        The first day whose rows, and rows that arrived then, do not count as observed for outcomes; by default all do.
    drawn_before
        One of the dates: before it, only customers sampled for learning (`panel.customers`) are in the snapshots.
    history
        The project's tables, opened before, or a DataFrame of transactions, or DataFrames by the name of the table;
        without it the project's files are read.
    tally
        The counts to add to; at the end it has the account of every table.

    Returns
    -------
    pandas.DataFrame
        `customer_id` (text), `as_of` (datetime), then features and outcomes, all float64; amounts in currency units.
        Text attributes are text.

    Raises
    ------
    DataError
        If no customer has a row before any of the dates.
    ProjectError
        If there is no date.

    Examples
    --------
    >>> from datetime import date
    >>> import pandas as pd
    >>> from tiermodel import Project, TierModelError, build_panel
    >>> columns = {"customer_id": "id", "time": "day", "amount": "amount"}
    >>> data = {"transactions": {"path": "sales.csv", "columns": columns}}
    >>> project = Project.model_validate({"version": 1, "name": "shop", "data": data})
    >>> sales = pd.DataFrame({"id": ["a", "b"], "day": ["2024-01-01", "2024-03-01"], "amount": [5, 7]})
    >>> build_panel(project, "2024-02-01", history=sales)["net_amount_total"].tolist()
    [5.0]
    >>> try:  # on the first day no earlier row is known
    ...     build_panel(project, [date(2024, 1, 1)], history=sales)
    ... except TierModelError as error:
    ...     print(str(error).split(":")[0])
    TM2071 no customer has a row before 2024-01-01

    """
    rows = history_of(project, history)
    days = parse_dates(dates, rows)
    known_until, drawn_before = (None if day is None else one_date(day, rows) for day in (known_until, drawn_before))
    data_end = complete_until(rows, known_until) if known_until else rows.last_day + timedelta(1)
    snapshots = Snapshots(project, rows.columns, days, with_outcome, data_end, known_until)
    batches: Iterable[pa.RecordBatch] = snapshot_batches(rows, snapshots, tally)
    if drawn_before is not None:
        batches = sample_batches(batches, drawn_before, project.panel.customers, project.seed)
    table = pa.Table.from_batches(batches, schema=snapshots.schema)
    if table.num_rows == 0:
        raise DataError(
            f"TM2071 no customer has a row before {max(days)}: the data runs from {rows.first_day} to "
            f"{rows.last_day}; choose a later date"
        )
    panel: pd.DataFrame = table.to_pandas(date_as_object=False, split_blocks=True, self_destruct=True)
    return panel
