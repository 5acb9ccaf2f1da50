"""Build snapshots and panels: every customer as known at one or several dates, and what followed if asked."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from tiermodel.config import Project
from tiermodel.engines.chosen import open_history, stream
from tiermodel.engines.duckdb import rows_from, sorted_again
from tiermodel.errors import DataError, EmptyInputError, ProjectError
from tiermodel.features.catalogue import AUDITED, expand, left_out
from tiermodel.features.dates import parse_dates, stale_words
from tiermodel.features.drawn import draw_batches
from tiermodel.features.known import Feature, known_from, needs_of
from tiermodel.features.outcome import OUTCOME_COLUMNS, label_delay_days, outcome_columns, outcome_requests
from tiermodel.features.stream import UNSORTED, Chunk, Latest, Plan, walk, whole_customers
from tiermodel.tables.contract import Accounting
from tiermodel.tables.history import EPOCH, History, history_columns, project_key
from tiermodel.tables.kinds import KINDS, MAIN_KINDS, RowCounts
from tiermodel.tables.output import write_table
from tiermodel.tables.private import hash_key, public_ids

__all__ = [
    "KEYS",
    "Snapshots",
    "Tally",
    "build_panel",
    "feature_names",
    "left_out_words",
    "rows_at",
    "snapshot_batches",
    "write_features",
    "write_nothing",
    "write_quarantine",
]

KEYS = ("customer_id", "as_of")
WORKERS = 2
T = TypeVar("T")
R = TypeVar("R")


def rows_at(panel: pd.DataFrame, dates: Iterable[date]) -> pd.DataFrame:
    """Give the rows of a panel at some dates, in its order and under its index."""
    return panel[panel["as_of"].isin([pd.Timestamp(day) for day in dates])]


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
            known = known_from(chunk, plan)
            numbers = [f.compute(known) for f in features]
            if self.with_outcome:
                sums = dict(zip(plan.requests, chunk.sums, strict=True))
                ends = known.latest("profile", "contract_end") if contracts else None
                observed = chunk.as_of + label_delay_days(self.project) <= data_end
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
        batches = draw_batches(batches, drawn_before, project.panel.customers, project.seed)
    table = pa.Table.from_batches(batches, schema=snapshots.schema)
    if table.num_rows == 0:
        raise DataError(
            f"TM2071 no customer has a row before {max(dates)}: the data runs from {rows.first_day} to "
            f"{rows.last_day}; choose a later date"
        )
    panel: pd.DataFrame = table.to_pandas(date_as_object=False, split_blocks=True, self_destruct=True)
    return panel


def feature_names(frame: pd.DataFrame) -> list[str]:
    """List the features of a panel, in its order; attributes to audit by are none."""
    names = (name for name in frame.columns if name not in {*KEYS, *OUTCOME_COLUMNS})
    return [name for name in names if not name.startswith(f"{AUDITED}_")]


def left_out_words(project: Project) -> str:
    """Say which feature groups asked for cannot be built, and what they need; nothing where all can."""
    missing = left_out(project.features, history_columns(project))
    needs = (
        f"{group} (needs {' or '.join(' and '.join(map(project_key, names)) for names in any_of)})"
        for group, any_of in missing.items()
    )
    return f"feature groups left out: {', '.join(needs)}" if missing else ""


def write_features(
    project: Project,
    as_of: str | Sequence[date],
    out: str | Path,
    *,
    history: History | None = None,
    allow_empty: bool = False,
) -> Tally:
    """Write the snapshots at the dates to .parquet or .csv, streamed; bad rows go to a quarantine file beside it.

    `as_of` is a sequence of dates, or text such as `2017-10-31,2017-11-30` or `latest`. `history` stands in for the
    project's files. With `allow_empty`, transactions without a row give a table without a row. Returns the count of
    customers and rows.
    """
    try:
        history = open_history(project) if history is None else history
    except EmptyInputError:
        if not allow_empty:
            raise
        return write_nothing(Snapshots(project, history_columns(project), ()).schema, Path(out))
    dates = parse_dates(as_of, history) if isinstance(as_of, str) else tuple(as_of)
    snapshots, tally = Snapshots(project, history.columns, dates), Tally()

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in snapshot_batches(history, snapshots, tally):
            tally.snapshots += batch.num_rows
            yield batch
        if not tally.snapshots:
            raise DataError(
                f"TM2071 no customer has a row before {max(dates)}: the data starts on {history.first_day}; "
                "choose a later date"
            )

    stale = stale_words(project, history, max(dates), project.panel.every_days)
    write_table(batches(), Path(out), snapshots.schema)
    write_quarantine(history, Path(out))
    tally.warn(stale)
    return tally


def write_nothing(schema: pa.Schema, out: Path) -> Tally:
    """Write a table without rows, and account for none read."""
    write_table([], out, schema)
    out.with_name(f"{out.stem}.quarantine.csv").unlink(missing_ok=True)
    warnings = ("TM1002 there are 0 rows, as was allowed",)
    return Tally(accounts={"transactions": Accounting(0, 0, 0, warnings=warnings)})


def write_quarantine(history: History, beside: Path) -> None:
    """Write bad rows to `NAME.quarantine.csv` beside an output; where there are none, remove an old such file."""
    quarantine = beside.with_name(f"{beside.stem}.quarantine.csv")
    if history.account.quarantined:
        history.write_quarantine(quarantine)
    else:
        quarantine.unlink(missing_ok=True)
