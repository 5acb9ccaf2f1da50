"""The rows of a tier ledger: their columns, where customers stand before a grading, and the rows of a scored batch."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from tiermodel.arrays import Flags, Ints
from tiermodel.tiers.stability.grading import Grading
from tiermodel.tiers.stability.rule import NOBODY, Position, StabilityState

__all__ = [
    "EVENTS",
    "MOVES",
    "SCHEMA",
    "Added",
    "Before",
    "from_batch",
    "graded_rows",
    "moves_of",
    "position_in",
    "table_of",
    "with_ledger_columns",
]


_PREFIX = "ledger_"

SCHEMA = pa.schema([
    ("customer_id", pa.string()), ("valid_from", pa.date32()), ("sequence", pa.int32()),
    ("event", pa.string()), ("tier", pa.int16()), ("tier_code", pa.string()), ("previous_code", pa.string()),
    ("stable_code", pa.string()), ("model_code", pa.string()), ("stable_since", pa.date32()),
    ("asked", pa.int16()), ("asked_since", pa.date32()),
    ("reason_1", pa.string()), ("reason_2", pa.string()), ("reason_3", pa.string()),
    ("scheme_version", pa.string()), ("model_version", pa.string()),
    ("operator", pa.string()), ("expires", pa.date32()),
    ("priority", pa.float64()), ("cut", pa.float64()),
])  # fmt: skip
"""The columns of a ledger row. `tier` and `tier_code` are in force from `valid_from` on, `previous_code` was before;
`stable_code` is the tier of the stability rule, `model_code` the level by the rules of the scheme. `asked` and
`asked_since` are a pending move: `pending_moves` and `pending_since` of the stability state. `sequence` is 0 for a
grading and counts the overrides of a day from 1; `operator` and `expires` are those of an override. For customers
whose tier before capacity has one, `priority` ranked them that day and `cut` is the priority of the last one in."""
EVENTS = ("down", "stay", "up", "enter", "override")


class Before:
    """The latest ledger row of every customer before a scoring on `day`, and whether that scoring `grades`.

    The index is built once, so that the look-up of a batch takes time in proportion to the batch alone.
    """

    def __init__(self, rows: pa.Table, day: date, *, grades: bool = True) -> None:
        self.rows, self.day, self.grades = rows, day, grades

    def __getstate__(self) -> tuple[pa.Table, date, bool]:
        """Return what another process needs, which builds its own index."""
        return self.rows, self.day, self.grades

    def __setstate__(self, state: tuple[pa.Table, date, bool]) -> None:
        """Restore what another process had."""
        self.rows, self.day, self.grades = state

    @cached_property
    def _place(self) -> pd.Index[Any]:
        return pd.Index(self.rows["customer_id"].to_numpy(), dtype=object)

    def of(self, customers: pd.Series) -> pa.Table:
        """Return the customers' rows in their order; all columns are null for a customer not in the ledger."""
        place = self._place.get_indexer(pd.Index(customers.astype(str).to_numpy(dtype=object), dtype=object))
        return self.rows.take(pa.array(place, mask=place < 0)).cast(SCHEMA)

    def held(self, rows: pa.Table) -> Flags:
        """Return, for each row, whether an override is in force on the day of the grading."""
        over = pc.fill_null(pc.less_equal(rows["expires"], pa.scalar(self.day)), fill_value=False)
        return pc.and_not(pc.is_valid(rows["operator"]), over).to_numpy()


def position_in(before: Before, customers: pd.Series, codes: list[str]) -> Position:
    """Return where customers stand in the ledger; a code that the scheme no longer has is not graded (-1)."""
    rows, known = before.of(customers), pa.array(codes, pa.string())
    stable, tier = (
        pc.fill_null(pc.index_in(rows[name], value_set=known), NOBODY).to_numpy().astype(np.int64)
        for name in ("stable_code", "tier_code")
    )
    since, pending_moves, pending_since = (
        pc.fill_null(rows[name].cast(kind), 0).to_numpy().astype(np.int64)
        for name, kind in (("stable_since", pa.int32()), ("asked", pa.int16()), ("asked_since", pa.int32()))
    )
    state, held = StabilityState(stable, since, pending_moves, pending_since), before.held(rows)
    override = np.where(held, tier, NOBODY)
    if not before.grades:  # what is in force now, not what was at the last grading: an override may have expired
        tier = np.where(pc.is_valid(rows["operator"]).to_numpy() & ~held, stable, tier)
    return Position(state, tier, override, grades=before.grades)


def graded_rows(scored: pa.RecordBatch, grading: Grading, codes: list[str], before: Before) -> pa.RecordBatch:
    """Return the ledger rows of a scored batch; an override keeps its operator, reason and end."""
    after, held, kept = grading.state, pa.array(grading.overridden), before.of(scored["customer_id"].to_pandas())
    earlier = np.where(np.isnan(grading.before), NOBODY, grading.before).astype(np.int64)
    moved = np.where(earlier == NOBODY, 3, np.sign(grading.tier - earlier) + 1)
    nothing = pa.scalar(None)
    columns = {
        "customer_id": scored["customer_id"],
        "event": _chosen(np.where(grading.overridden, 4, moved), EVENTS),
        "tier": pa.array(grading.tier),
        "tier_code": _chosen(grading.tier, codes),
        "previous_code": _chosen(earlier, codes),
        "stable_code": _chosen(after.tier, codes),
        "model_code": _chosen(grading.level, codes),
        "stable_since": _as_dates(after.since),
        "asked": pa.array(after.pending_moves),
        "asked_since": _as_dates(after.pending_since),
        "reason_1": pc.if_else(held, kept["reason_1"], scored["reason_1"]),
        **{name: scored[name] for name in ("reason_2", "reason_3", "scheme_version", "model_version")},
        "operator": pc.if_else(held, kept["operator"], nothing.cast(pa.string())),
        "expires": pc.if_else(held, kept["expires"], nothing.cast(pa.date32())),
    }
    empty = pa.nulls(scored.num_rows)
    arrays = [_whole(columns.get(field.name, empty)).cast(field.type) for field in SCHEMA]
    return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)


def _chosen(place: Ints, words: Sequence[str]) -> pa.Array:
    """Return each row's word by position; null for a negative position."""
    return pa.array(words, pa.string()).take(pa.array(place, mask=place < 0))


def _whole(array: pa.Array | pa.ChunkedArray) -> pa.Array:
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def _as_dates(days: Ints) -> pa.Array:
    """Return days counted from 1970-01-01 as dates; null for day 0."""
    return pa.array(days.astype(np.int32), mask=days == 0).cast(pa.date32())


def with_ledger_columns(batch: pa.RecordBatch, rows: pa.RecordBatch) -> pa.RecordBatch:
    """Return a batch of scores with its ledger rows as further columns: one batch to send between processes."""
    for column in rows.columns:
        batch = batch.append_column(f"{_PREFIX}{len(batch.schema)}", column)
    return batch


def from_batch(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return the ledger rows that `with_ledger_columns` put beside the scores."""
    return pa.RecordBatch.from_arrays(batch.columns[-len(SCHEMA) :], schema=SCHEMA)


def table_of(rows: pd.DataFrame) -> pa.Table:
    """Return a frame of ledger rows as a table of `SCHEMA`; columns that it does not have are missing."""
    rows = rows.reindex(columns=SCHEMA.names)
    columns = [
        pa.array(rows[f.name].astype(object).where(rows[f.name].notna(), None).tolist(), type=f.type) for f in SCHEMA
    ]
    return pa.table(columns, schema=SCHEMA)


MOVES = ("enter", "up", "down", "exit")
"""The events of a grading that change a customer's tier."""


class Added(NamedTuple):
    """What a grading added to a ledger: its rows, and those of them that change a tier, by event.

    `superseded` has the days whose gradings it took the place of; `again` those that are now to be graded again, in
    order. `next_grading` is the day from which on a scoring grades again, where this one was no grading (else None).
    """

    rows: int
    moves: dict[str, int]
    superseded: tuple[date, ...] = ()
    again: tuple[date, ...] = ()
    next_grading: date | None = None


def moves_of(rows: pa.Table) -> dict[str, int]:
    """Return how many rows of a grading change a tier, by event."""
    return {name: int(pc.sum(pc.equal(rows["event"], name)).as_py() or 0) for name in MOVES}
