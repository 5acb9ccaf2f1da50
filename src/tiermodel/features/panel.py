"""Build snapshots and panels: every customer as known at one or several dates, and what followed if asked."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import date, datetime, time, timedelta
from functools import partial
from typing import TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from tiermodel.config.project import Project
from tiermodel.engines.dispatch import open_history, stream
from tiermodel.engines.duckdb import rows_from, sorted_again
from tiermodel.errors import DataError, ProjectError
from tiermodel.features.catalogue import expand
from tiermodel.features.formula import Feature, context_from, needs_of
from tiermodel.features.frame import KEYS
from tiermodel.features.outcome import OUTCOME_COLUMNS, outcome_columns, outcome_requests, outcome_span
from tiermodel.features.sampling import sample_batches
from tiermodel.features.stream import UNSORTED, Chunk, Latest, Plan, walk, whole_customers
from tiermodel.tables.contract import Accounting
from tiermodel.tables.history import History
from tiermodel.tables.privacy import hash_key, public_ids
from tiermodel.tables.row_kinds import KINDS, MAIN_KINDS, RowCounts
from tiermodel.tables.table import EPOCH

__all__ = [
    "Snapshots",
    "Tally",
    "build_panel",
    "one_date",
    "parse_dates",
    "snapshot_batches",
    "snapshot_dates",
    "stale_words",
]

WORKERS = 2
_SNAPSHOTS, _MOST_SNAPSHOTS, _LATER = 12, 24, 6  # where `panel.snapshots` is not set; each one costs rows to learn from
T = TypeVar("T")
R = TypeVar("R")


def parse_dates(text: str, history: History) -> tuple[date, ...]:
    """Read dates separated by commas; `latest` is the day after the last row, never today."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    try:
        found = {history.last_day + timedelta(1) if p == "latest" else date.fromisoformat(p) for p in parts}
    except ValueError as error:
        raise ProjectError(
            f"--as-of {text!r}: {error}; write dates as 2017-11-30, separated by commas, or `latest`"
        ) from None
    if not found:
        raise ProjectError("--as-of is empty; write a date such as 2017-11-30, or `latest`")
    return tuple(sorted(found))


def one_date(as_of: date | str, history: History) -> date:
    """Give a date given as such, as text, or as `latest`."""
    if isinstance(as_of, datetime):
        if as_of.time() != time():
            raise ProjectError(f"as_of {as_of} is not the start of a day; give a date")
        return as_of.date()
    if isinstance(as_of, date):
        return as_of
    dates = parse_dates(as_of, history)
    if len(dates) != 1:
        raise ProjectError(f"--as-of {as_of!r}: one date is needed here, not {len(dates)}")
    return dates[0]


def stale_words(project: Project, history: History, day: date, every_days: int) -> str:
    """Warn where the transactions end long before the date; DataError beyond `data.max_stale_days`."""
    silence = (day - history.last_day).days - 1
    limit = project.data.max_stale_days
    words = f"TM2070 the last row is {silence} days older than {day}"
    if limit is not None and silence > limit:
        raise DataError(f"{words}, and data.max_stale_days is {limit}: bring the data up to date, or choose a date")
    return f"{words}: features call silent who may only be missing" if silence > every_days else ""


def snapshot_dates(project: Project, last: date, first_row: date) -> tuple[date, ...]:
    """List up to `panel.snapshots` dates, `panel.every_days` apart, up to `last`, each with some history before it.

    Where their number is not set they are twelve, or more, twenty-four at most, so that the outcome of the earliest is
    over before the last six: those can be predicted by models that learned from the first.
    """
    every = timedelta(project.panel.every_days)
    overlapping = -(-outcome_span(project) // project.panel.every_days)
    count = project.panel.snapshots or min(max(_SNAPSHOTS, overlapping + _LATER), _MOST_SNAPSHOTS)
    dates = [last - every * step for step in range(count)]
    return tuple(sorted(d for d in dates if d - first_row >= min(every, timedelta(project.outcome.horizon_days))))


@dataclass
class Tally(RowCounts):
    """Count what the walk did with its rows, and account for every table at the end."""

    snapshots: int = 0
    accounts: dict[str, Accounting] = field(default_factory=dict)

    @property
    def account(self) -> Accounting:
        """Give the account of the transactions."""
        return self.accounts["transactions"]

    def warn(self, words: str) -> None:
        """Add a warning, unless it is empty, to the account of the transactions."""
        if words:
            account = self.account
            self.accounts["transactions"] = replace(account, warnings=(*account.warnings, words))

    def close(self, history: History, out_of_window: Mapping[int, int]) -> None:
        """Complete the accounts with what became of the good rows; every row read must be accounted for."""
        for name, table in history.tables.items():
            codes = [KINDS[kind] for kind in MAIN_KINDS[name]]
            account = table.account.with_stream(
                deduplicated=int(self.duplicates[codes].sum()),
                out_of_window=sum(out_of_window.get(code, 0) for code in codes),
                used=int(self.used[codes].sum()),
            )
            account.check()
            self.accounts[name] = account


@dataclass(frozen=True)
class Snapshots:
    """Turn customer-sorted row batches into snapshot batches: one row per customer and date, sorted by both.

    `with_outcome` adds what followed, for dates whose outcome window lies fully before `data_end`.
    """

    project: Project
    columns: frozenset[str]
    dates: tuple[date, ...]
    with_outcome: bool = False
    data_end: date = date.min
    key: bytes | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Read the key of `data.hash_ids` here, once: where an engine sends the pass, the variable need not be set."""
        object.__setattr__(self, "key", hash_key(self.project))

    @property
    def features(self) -> tuple[Feature, ...]:
        """List the features of the project that its columns allow."""
        return expand(self.project.features, self.columns)

    @property
    def plan(self) -> Plan:
        """Fix dates and sums; a feature that asks for a day at or after its date fails here."""
        asked, latest = needs_of(self.features)
        future = [r for r in asked if r.end > 0]
        if future:
            raise ValueError(f"features may not look past their date: {future[:3]}")
        if self.with_outcome:
            asked = tuple(dict.fromkeys((*asked, *outcome_requests(self.project))))
        if not self.dates:
            raise ProjectError("there is no date to build a snapshot for; give one or more, such as 2017-11-30")
        return Plan(tuple((d - EPOCH).days for d in sorted(set(self.dates))), asked, latest)

    @property
    def schema(self) -> pa.Schema:
        """Give the columns: the key, every feature, and the outcome if asked, all float64 but the key."""
        numbers = [*(f.name for f in self.features), *(OUTCOME_COLUMNS if self.with_outcome else ())]
        return pa.schema([("customer_id", pa.string()), ("as_of", pa.date32()), *((n, pa.float64()) for n in numbers)])

    def __call__(self, batches: Iterable[pa.RecordBatch], counts: RowCounts | None = None) -> Iterator[pa.RecordBatch]:
        """Walk the stream, a table of whole customers on each of two threads at a time, results in order."""
        plan, features, schema = self.plan, self.features, self.schema
        data_end = (self.data_end - EPOCH).days
        named = partial(public_ids, key=self.key)
        contracts = Latest("profile", "contract_end") in plan.latest

        def one(table: pa.Table) -> tuple[Chunk, pa.RecordBatch]:
            chunk = walk(table, plan, named)
            known = context_from(chunk, plan)
            numbers = [f.compute(known) for f in features]
            if self.with_outcome:
                sums = dict(zip(plan.requests, chunk.sums, strict=True))
                ends = known.latest("profile", "contract_end") if contracts else None
                observed = chunk.as_of + outcome_span(self.project) <= data_end
                followed = outcome_columns(self.project, chunk, sums, table, ends)
                numbers += [np.where(observed, column, np.nan) for column in followed]
            ids = named(chunk.customers).take(pa.array(chunk.customer))
            arrays = [ids, pa.array(chunk.as_of).cast(pa.date32()), *(pa.array(n) for n in numbers)]
            return chunk, pa.RecordBatch.from_arrays(arrays, schema=schema)

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


def _in_order(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Map on threads (the walk and NumPy let go of the interpreter lock), a few items ahead, results in order."""
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
    """Walk the stream, and turn each batch of snapshots into another."""

    snapshots: Snapshots
    then: Callable[[pa.RecordBatch], pa.RecordBatch]

    def __call__(self, batches: Iterator[pa.RecordBatch], counts: RowCounts) -> Iterator[pa.RecordBatch]:
        return map(self.then, self.snapshots(batches, counts))


def snapshot_batches(
    history: History,
    snapshots: Snapshots,
    tally: Tally | None = None,
    then: Callable[[pa.RecordBatch], pa.RecordBatch] | None = None,
) -> Iterator[pa.RecordBatch]:
    """Sort, stream and walk the history, on the project's engine; at the end every row read must be accounted for.

    `then` turns each batch into another, where the walk is: a function that can be sent to another process. Rows come
    sorted by customer and date. Hashed ids are sorted again: in the order of the ids themselves, whoever has a list of
    the customers could tell who is who.
    """
    tally = Tally() if tally is None else tally
    before = snapshots.plan.end
    work = snapshots if then is None else _Then(snapshots, then)
    batches = stream(snapshots.project, history, before, work, tally)
    if snapshots.key is not None:
        batches = sorted_again(snapshots.project, batches, ", ".join(KEYS))
    yield from batches
    tally.close(history, rows_from(history, before))


def build_panel(
    project: Project,
    dates: Sequence[date],
    *,
    with_outcome: bool = False,
    known_until: date | None = None,
    drawn_before: date | None = None,
    history: History | None = None,
    tally: Tally | None = None,
) -> pd.DataFrame:
    """Give one row per customer and date, sorted by both: the keys, every feature, and the outcome if asked.

    A customer is in a snapshot from the first row before the date on; before `drawn_before`, one of the dates, only
    those are that are drawn to be learned from (`panel.customers`). `as_of` is a datetime, all else float64. Outcomes
    not fully observed by the end of the data, or by `known_until`, are NaN. Raises `DataError` where no customer has a
    row before any date.
    """
    rows = open_history(project) if history is None else history
    data_end = min(rows.last_day + timedelta(1), known_until or date.max)
    snapshots = Snapshots(project, rows.columns, tuple(dates), with_outcome, data_end)
    batches: Iterable[pa.RecordBatch] = snapshot_batches(rows, snapshots, tally)
    if drawn_before is not None:
        batches = sample_batches(batches, drawn_before, project.panel.customers, project.seed)
    table = pa.Table.from_batches(batches, schema=snapshots.schema)
    if table.num_rows == 0:
        raise DataError(
            f"TM2071 no customer has a row before {max(dates)}: the data runs from {rows.first_day} to "
            f"{rows.last_day}; choose a later date"
        )
    panel: pd.DataFrame = table.to_pandas(date_as_object=False, split_blocks=True, self_destruct=True)
    return panel
