"""The tier ledger 等级台账: the effective-dated tiers of customers, with reasons, model version and manual overrides.

A ledger is a folder of Parquet files, one for each scoring date and one for each override, written whole and never
changed. A row records what changed for a customer on a day; the last row up to a day is in force on that day. While an
override is in force, the scheme and its stability rule go on grading, and their tier takes over when it expires.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tiermodel.arrays import Flags, Ints
from tiermodel.errors import DataError, ProjectError
from tiermodel.output import write_table
from tiermodel.tiers.stability.grading import Grading
from tiermodel.tiers.stability.rule import NOBODY, Position, StabilityState

__all__ = ["EVENTS", "SCHEMA", "Before", "Ledger", "from_batch", "graded_rows", "position_in", "with_ledger_columns"]


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
_LATER = {"priority", "cut"}  # columns that older files do not have
EVENTS = ("down", "stay", "up", "enter", "override")
_BEFORE = "valid_from < $day or (valid_from = $day and sequence > 0)"
_SEEN = ("tier_code", "stable_code", "asked", "operator")


class Ledger:
    """The tier ledger in a folder; a folder that is not there yet is an empty ledger.

    Raises `ProjectError` for a path that is a file, or a folder with Parquet files that are not part of a ledger.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if self.folder.exists() and not self.folder.is_dir():
            raise ProjectError(f"{self.folder} is a file; a ledger is a folder")
        self.files = sorted(self.folder.glob("*.parquet"))
        for file in self.files:
            if not set(SCHEMA.names) - _LATER <= set(pq.read_schema(file).names):
                raise ProjectError(f"{file} is no part of a tier ledger; give the ledger a folder of its own")

    def must_exist(self) -> Ledger:
        """Return the ledger itself; `ProjectError` where it has no grading yet."""
        if not self.files:
            raise ProjectError(f"{self.folder} is no ledger yet; `tiermodel score … --ledger {self.folder}` begins one")
        return self

    @property
    def graded(self) -> list[date]:
        """The scoring dates, oldest first."""
        days = [file.stem for file in self.files if len(file.stem) == len("2017-11-30")]
        return [date.fromisoformat(day) for day in sorted(days)]

    @property
    def last_graded(self) -> date | None:
        """The last scoring date; None where there is none."""
        return self.graded[-1] if self.graded else None

    @property
    def levels(self) -> dict[str, int]:
        """The level of every tier code as last graded, lowest first."""
        seen = self._query(
            "select tier_code, max_by(tier, valid_from)::integer as tier from rows "
            "where event not in ('override', 'exit') group by tier_code order by tier, tier_code"
        )
        return dict(zip(seen["tier_code"], seen["tier"], strict=True))

    @property
    def codes(self) -> list[str]:
        """The codes of all tiers, lowest first."""
        return list(self.levels)

    def as_of(self, day: date) -> pd.DataFrame:
        """Return every customer's row in force on a day: start, tier, reasons, and end where it is known.

        An expired override gives way to the tier of the stability rule, from its end on, as event `expired`.
        """
        rows = self._query(_last("valid_from <= $day"), day=day)
        expired = rows["expires"].notna() & (pd.to_datetime(rows["expires"]) <= pd.Timestamp(day))
        rows.loc[expired, "valid_from"] = rows.loc[expired, "expires"]
        rows.loc[expired, "tier_code"] = rows.loc[expired, "stable_code"]
        if expired.any():
            levels = rows.loc[expired, "tier_code"].map(self.levels)
            rows.loc[expired, "tier"] = levels.astype(rows["tier"].dtype)
        rows.loc[expired, ["operator", "expires"]] = None
        rows.loc[expired, "event"] = "expired"
        return rows[rows["tier_code"].notna()].reset_index(drop=True)

    def history(self, customer: str | None = None) -> pd.DataFrame:
        """Return assignments with `valid_from` and `valid_to` (missing: in force), of one customer or of all."""
        rows = self._query(
            "select * from rows where $customer is null or customer_id = $customer "
            "order by customer_id, valid_from, sequence",
            customer=customer,
        )
        changed = (
            (rows["customer_id"] != rows["customer_id"].shift())
            | (rows["tier_code"].fillna("") != rows["tier_code"].shift().fillna(""))
            | (rows["operator"].fillna("") != rows["operator"].shift().fillna(""))
        )
        rows = rows[changed]
        after = rows["valid_from"].shift(-1).where(rows["customer_id"] == rows["customer_id"].shift(-1))
        end = pd.concat([pd.to_datetime(after), pd.to_datetime(rows["expires"])], axis=1).min(axis=1)
        rows = rows.assign(valid_to=end.dt.date)
        return rows[rows["tier_code"].notna()].reset_index(drop=True)

    def before(self, day: date) -> Before:
        """Return what a grading on a day starts from: rows of earlier days, and overrides that begin on that day.

        Raises `ProjectError` for a day before the last grading: a ledger goes forward only.
        """
        last = self.last_graded
        if last is not None and day < last:
            words = f"{self.folder} is graded up to {last}"
            raise ProjectError(f"{words}: a ledger goes forward only, so {day} is too early")
        return Before(self._arrow(_last(_BEFORE), day=day).combine_chunks(), day)

    def append(self, day: date, rows: pa.Table) -> int:
        """Add the rows of one day's grading for customers who changed or left; return how many rows were added.

        The same grading again changes nothing. Raises `ProjectError` for a day before the last grading, and for a day
        that was graded with another result.
        """
        self.before(day)
        differs = " or ".join(f"now.{name} is distinct from before.{name}" for name in _SEEN)
        table = self._arrow(
            f"with before as ({_last(_BEFORE)}) "
            "select now.* replace ($day::date as valid_from, 0 as sequence) from graded now left join before "
            f"using (customer_id) where before.customer_id is null or {differs} union all by name "
            "select customer_id, $day::date as valid_from, 0 as sequence, 'exit' as event, tier_code as previous_code "
            "from before anti join graded using (customer_id) where tier_code is not null order by customer_id",
            graded=rows,
            day=day,
        )
        path = self.folder / f"{day}.parquet"
        if path.exists():
            if not pq.read_table(path, schema=SCHEMA, page_checksum_verification=True).equals(table):
                raise ProjectError(
                    f"{path} holds another grading of {day}; a ledger is never rewritten: grade a later day, or give "
                    "another folder"
                )
        else:
            write_table(table, path)
            self.files = sorted([*self.files, path])
        return table.num_rows

    def override(
        self, customer: str, code: str | None, start: date, *, until: date | None, operator: str, reason: str
    ) -> None:
        """Set one customer's tier by hand from `start` to `until` (None: for good); `code` None withdraws an override.

        Raises `ProjectError` for a day that is graded already, an end that is not after the start, an empty operator or
        reason, or a tier that the ledger has never seen; `DataError` for a customer whom the ledger does not know.
        """
        self._refuse_dates(start, until)
        if not operator.strip() or not reason.strip():
            raise ProjectError("an override needs an operator and a reason")
        levels = self.levels
        if code is not None and code not in levels:
            raise ProjectError(f"no customer was ever in tier {code!r}; there are {', '.join(sorted(levels))}")
        row = self._row_on(customer, start)
        tier, of_override = code or row["stable_code"], {"operator": operator, "expires": until}
        row |= {
            "valid_from": start, "sequence": 1 + sum(file.stem.startswith(f"{start}.") for file in self.files),
            "event": "override" if code else "withdrawn",
            "previous_code": row["tier_code"], "tier_code": tier, "tier": levels[tier],
            **(of_override if code else dict.fromkeys(of_override)), **dict.fromkeys(_LATER),
            "reason_1": reason, "reason_2": None, "reason_3": None,
        }  # fmt: skip
        path = self.folder / f"{start}.{row['sequence']:04d}.parquet"
        write_table(_table(pd.DataFrame([row])), path)
        self.files = sorted([*self.files, path])

    def _row_on(self, customer: str, day: date) -> dict[str, Any]:
        """Return the customer's row in force on a day; `DataError` for a customer whom the ledger does not know."""
        rows = self._query(_last("valid_from <= $day"), day=day)
        rows = rows[rows["customer_id"] == customer]
        if rows.empty or pd.isna(rows["stable_code"].iloc[0]):
            raise DataError(f"customer {customer!r} is not in {self.folder} on {day}")
        return dict(rows.iloc[0])

    def _refuse_dates(self, start: date, until: date | None) -> None:
        """Raise `ProjectError` for an override of days that are graded already, or of no day at all."""
        last = self.last_graded
        if last is None or start <= last:
            graded = last or "there is none yet"
            raise ProjectError(f"an override starts after the last grading ({graded}), not on {start}")
        if until is not None and until <= start:
            raise ProjectError(f"an override from {start} until {until} never holds; give a later end")

    def _query(self, sql: str, **values: Any) -> pd.DataFrame:
        return self._arrow(sql, **values).to_pandas()

    def _arrow(self, sql: str, *, graded: pa.Table | None = None, **values: Any) -> pa.Table:
        with duckdb.connect() as connection:
            connection.from_arrow(SCHEMA.empty_table()).create_view("no_rows")
            if self.files:
                connection.read_parquet([str(file) for file in self.files], union_by_name=True).create_view("files")
            files = "union all by name from files" if self.files else ""  # older files lack the later columns
            connection.execute(f"create view rows as from no_rows {files}")
            if graded is not None:
                connection.from_arrow(graded).create_view("graded")
            used = {name: value for name, value in values.items() if f"${name}" in sql}
            found: pa.Table = connection.sql(sql, params=used).to_arrow_table()
        return found.select(SCHEMA.names).cast(SCHEMA) if set(SCHEMA.names) <= set(found.column_names) else found


def _last(condition: str) -> str:
    """Return the SQL of each customer's last row among the rows that meet a condition."""
    return (
        f"select * from rows where {condition} "
        "qualify row_number() over (partition by customer_id order by valid_from desc, sequence desc) = 1 "
        "order by customer_id"
    )


class Before:
    """The latest ledger row of every customer before a grading on `day`.

    The index is built once, so that the look-up of a batch takes time in proportion to the batch alone.
    """

    def __init__(self, rows: pa.Table, day: date) -> None:
        self.rows, self.day = rows, day

    def __getstate__(self) -> tuple[pa.Table, date]:
        """Return the rows and the day for another process, which builds its own index."""
        return self.rows, self.day

    def __setstate__(self, state: tuple[pa.Table, date]) -> None:
        """Restore the rows and the day."""
        self.rows, self.day = state

    @cached_property
    def _place(self) -> pd.Index[Any]:
        return pd.Index(self.rows["customer_id"].to_numpy(), dtype=object)

    def of(self, customers: pd.Series) -> pa.Table:
        """Return the customers' rows in their order; all columns are null for a customer not in the ledger."""
        place = self._place.get_indexer(pd.Index(customers.astype(str).to_numpy(dtype=object), dtype=object))
        return self.rows.take(pa.array(place, mask=place < 0))

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
    return Position(
        StabilityState(stable, since, pending_moves, pending_since), tier, np.where(before.held(rows), tier, NOBODY)
    )


def graded_rows(table: pd.DataFrame, grading: Grading, codes: list[str], before: Before) -> pa.RecordBatch:
    """Return the ledger rows of a scored batch; an override keeps its operator, reason and end."""
    after, held, kept = grading.state, pa.array(grading.overridden), before.of(table["customer_id"])
    earlier = np.where(np.isnan(grading.before), NOBODY, grading.before).astype(np.int64)
    moved = np.where(earlier == NOBODY, 3, np.sign(grading.tier - earlier) + 1)
    nothing = pa.scalar(None)
    columns = {
        "customer_id": pa.array(table["customer_id"].astype(str), pa.string()),
        "event": _chosen(np.where(grading.overridden, 4, moved), EVENTS),
        "tier": pa.array(grading.tier),
        "tier_code": _chosen(grading.tier, codes),
        "previous_code": _chosen(earlier, codes),
        "stable_code": _chosen(after.tier, codes),
        "model_code": _chosen(grading.level, codes),
        "stable_since": _as_dates(after.since),
        "asked": pa.array(after.pending_moves),
        "asked_since": _as_dates(after.pending_since),
        "reason_1": pc.if_else(held, kept["reason_1"], _texts(table["reason_1"])),
        **{name: _texts(table[name]) for name in ("reason_2", "reason_3", "scheme_version", "model_version")},
        "operator": pc.if_else(held, kept["operator"], nothing.cast(pa.string())),
        "expires": pc.if_else(held, kept["expires"], nothing.cast(pa.date32())),
    }
    empty = pa.nulls(len(table))
    arrays = [_whole(columns.get(field.name, empty)).cast(field.type) for field in SCHEMA]
    return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)


def _chosen(place: Ints, words: Sequence[str]) -> pa.Array:
    """Return each row's word by position; null for a negative position."""
    return pa.array(words, pa.string()).take(pa.array(place, mask=place < 0))


def _texts(column: pd.Series) -> pa.Array:
    return _whole(pa.array(column)).cast(pa.string())


def _whole(array: pa.Array | pa.ChunkedArray) -> pa.Array:
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def _as_dates(days: Ints) -> pa.Array:
    """Return days counted from 1970-01-01 as dates; null for day 0."""
    return pa.array(days.astype(np.int32), mask=days == 0).cast(pa.date32())


def _table(rows: pd.DataFrame) -> pa.Table:
    rows = rows.reindex(columns=SCHEMA.names)
    columns = [
        pa.array(rows[f.name].astype(object).where(rows[f.name].notna(), None).tolist(), type=f.type) for f in SCHEMA
    ]
    return pa.table(columns, schema=SCHEMA)


def with_ledger_columns(batch: pa.RecordBatch, rows: pa.RecordBatch) -> pa.RecordBatch:
    """Return a batch of scores with its ledger rows as further columns: one batch to send between processes."""
    for column in rows.columns:
        batch = batch.append_column(f"{_PREFIX}{len(batch.schema)}", column)
    return batch


def from_batch(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return the ledger rows that `with_ledger_columns` put beside the scores."""
    return pa.RecordBatch.from_arrays(batch.columns[-len(SCHEMA) :], schema=SCHEMA)
