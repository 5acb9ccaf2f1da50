"""What each customer did in the outcome window of past dates, as sums: for judging dates, never for models.

Only what these sums read is sorted and walked: a few columns, and rows of the kinds that are summed. Of all other rows
of a customer the walk needs the first day alone, since it says from when on the customer was known.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import date
from functools import partial

import numpy as np
import pandas as pd
import pyarrow as pa

from tiermodel.config.project import Project
from tiermodel.engines.dispatch import stream
from tiermodel.features.arrivals import walk_as_known
from tiermodel.features.measures import MEASURES
from tiermodel.features.outcome import Labels, at_risk, followed_requests, outcome_columns, outcome_requests
from tiermodel.features.panel import Tally
from tiermodel.features.stream import RHYTHM, Latest, Plan, whole_customers
from tiermodel.tables.categories import text_column
from tiermodel.tables.history import History
from tiermodel.tables.privacy import public_ids
from tiermodel.tables.row_kinds import KINDS, RowCounts
from tiermodel.tables.table import EPOCH

__all__ = ["CHANNEL", "Followed", "followed_batches"]

CHANNEL = "channel"
"""The category of `data.customers` that says through which channel a customer was acquired."""


@dataclass(frozen=True)
class Followed:
    """The walk from customer-sorted batches to one row for each customer and date, with sums of the outcome window.

    Columns: `customer_id`, `as_of`, `at_risk` and `churned` (0, 1), `value`, those of `followed_requests`, `days` from
    the first purchase to the end of the window, and where mapped `acquisition_cost` and `channel`. An instance is a
    callable that an engine can send to another process.
    """

    project: Project
    columns: frozenset[str]
    dates: tuple[date, ...]
    key: bytes | None = None

    @property
    def labels(self) -> Labels:
        """The labels of the project."""
        return Labels.of(self.project)

    @property
    def plan(self) -> Plan:
        """The dates, sums and latest rows of the walk."""
        sums = (*outcome_requests(self.labels), *followed_requests(self.labels, self.columns).values())
        latest = [Latest("profile", name) for name in ("contract_end", "acquisition_cost") if name in self.columns]
        if text_column(CHANNEL) in self.columns:
            latest.append(Latest("profile", text_column(CHANNEL)))
        days = tuple((day - EPOCH).days for day in sorted(set(self.dates)))
        return Plan(days, tuple(dict.fromkeys(sums)), tuple(latest))

    @property
    def schema(self) -> pa.Schema:
        """The columns of a batch."""
        numbers = ["at_risk", "churned", "value", *followed_requests(self.labels, self.columns), "days"]
        numbers += ["acquisition_cost"] if "acquisition_cost" in self.columns else []
        texts = [(CHANNEL, pa.string())] if text_column(CHANNEL) in self.columns else []
        keys = [("customer_id", pa.string()), ("as_of", pa.date32())]
        return pa.schema([*keys, *((name, pa.float64()) for name in numbers), *texts])

    def __call__(self, batches: Iterable[pa.RecordBatch], counts: RowCounts) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a stream, in order."""
        plan, named = self.plan, partial(public_ids, key=self.key)
        for table in whole_customers(batches):
            chunk = walk_as_known(table, plan, named)
            counts.used += chunk.rows_used
            counts.duplicates += chunk.rows_duplicate
            sums = dict(zip(plan.requests, chunk.sums, strict=True))
            latest = {asked.column: column for asked, column in zip(plan.latest, chunk.latest, strict=True)}
            rhythm = dict(zip(RHYTHM, chunk.rhythm, strict=True))
            ends = latest.get("contract_end")
            _, value, churned = outcome_columns(self.labels, chunk, sums, table, ends)
            frame = pd.DataFrame({"days_since_last": chunk.as_of - rhythm["last_day"]})
            if ends is not None:
                frame["contract_days_left"] = ends - chunk.as_of
            found = {
                "at_risk": at_risk(self.labels.churn, frame).astype(np.float64), "churned": churned, "value": value,
                **{name: sums[asked] for name, asked in followed_requests(self.labels, self.columns).items()},
                "days": chunk.as_of + self.labels.value.window.last - rhythm["first_day"],
                "acquisition_cost": latest.get("acquisition_cost"), CHANNEL: latest.get(text_column(CHANNEL)),
            }  # fmt: skip
            ids = named(chunk.customers).take(pa.array(chunk.customer))
            rows = [ids, pa.array(chunk.as_of).cast(pa.date32())]
            rows += [found[name] if name == CHANNEL else pa.array(found[name]) for name in self.schema.names[2:]]
            yield pa.RecordBatch.from_arrays(rows, schema=self.schema)


def followed_batches(history: History, followed: Followed, tally: Tally) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a history on the project's engine; what arrived late counts from its own day on."""
    whole = _as_read(history.whenever_arrived, followed)
    yield from stream(followed.project, whole, whole.before(followed.plan.end), followed, tally)


_SUMMED = ("transactions", "costs")
"""The tables of which every row is summed."""


def _as_read(history: History, followed: Followed) -> History:
    """Return a history with the columns that the walk reads; rows that are summed nowhere are one row a customer."""
    needs = {need for name in followed.plan.measures for need in MEASURES[name].needs}
    wanted = {"customer_id", "day", "amount", "order_key", "kind", "row_key", "known_day", *needs}
    wanted |= {asked.column for asked in followed.plan.latest}
    given = history.connection.cursor().sql(history.rows_sql).columns
    columns = [name for name in given if name in wanted]
    summed = needs & set(KINDS) | {asked.kind for asked in followed.plan.latest}
    selects = {
        name: f"SELECT {', '.join(columns)} FROM ({rows})" if name in _SUMMED else _first_days(rows, columns, summed)
        for name, rows in history.selects.items()
    }
    return replace(history, selects=selects, grouped=frozenset(selects).difference(_SUMMED))


def _first_days(rows: str, columns: list[str], kept: set[str]) -> str:
    """Return the SQL of rows, each once, of the kinds that are kept, and of the first of all others of a customer."""
    codes = ", ".join(str(KINDS[name]) for name in sorted(kept)) or "-1"
    mine = f"kind IN ({codes})"
    sql = {"customer_id": "customer_id", "day": "min(day)", "kind": "min(kind)"}
    values = ", ".join(f"{sql.get(name, f'any_value({name})')} AS {name}" for name in columns)
    same = f"CASE WHEN {mine} THEN row_key END, CASE WHEN {mine} THEN kind END"
    return f"SELECT {values} FROM ({rows}) GROUP BY customer_id, {same}"
