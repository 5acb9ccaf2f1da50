"""The tier ledger 等级台账: who was in which tier from when to when, why, by which model, and who overrode it.

A folder of Parquet files, one for each scoring date and one for each override, written whole and never changed. A row
says what changed for a customer on a day; the last row up to a day is what held on it. Beneath an override the tier
that the scheme and its stability rule give goes on, and is in force again when the override expires.
"""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tiermodel.errors import DataError, ProjectError
from tiermodel.tables.output import write_table
from tiermodel.tiers.grading import Grading
from tiermodel.tiers.stability import NOBODY, Position, Standing, Whole

__all__ = ["SCHEMA", "Ledger", "from_batch", "graded_rows", "position_in", "with_ledger_columns"]

_PREFIX = "ledger_"

_EPOCH = date(1970, 1, 1)
SCHEMA = pa.schema([
    ("customer_id", pa.string()), ("valid_from", pa.date32()), ("sequence", pa.int32()),
    ("event", pa.string()), ("tier", pa.int16()), ("tier_code", pa.string()), ("previous_code", pa.string()),
    ("stable_code", pa.string()), ("model_code", pa.string()), ("stable_since", pa.date32()),
    ("asked", pa.int16()), ("asked_since", pa.date32()),
    ("reason_1", pa.string()), ("reason_2", pa.string()), ("reason_3", pa.string()),
    ("scheme_version", pa.string()), ("model_version", pa.string()),
    ("operator", pa.string()), ("expires", pa.date32()),
])  # fmt: skip
_EVENTS = np.array(["down", "stay", "up", "enter", "override"], dtype=object)
_SEEN = ("tier_code", "stable_code", "asked", "operator")


class Ledger:
    """Read and append to the ledger in a folder; a folder that is not there yet is an empty ledger."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if self.folder.exists() and not self.folder.is_dir():
            raise ProjectError(f"{self.folder} is a file; a ledger is a folder")
        self.files = sorted(self.folder.glob("*.parquet"))
        for file in self.files:
            if not set(SCHEMA.names) <= set(pq.read_schema(file).names):
                raise ProjectError(f"{file} is no part of a tier ledger; give the ledger a folder of its own")

    def must_exist(self) -> Ledger:
        """Give the ledger itself; `ProjectError` where nothing was graded into it yet."""
        if not self.files:
            raise ProjectError(f"{self.folder} is no ledger yet; `tiermodel score … --ledger {self.folder}` begins one")
        return self

    @property
    def graded(self) -> list[date]:
        """List the scoring dates, oldest first."""
        days = [file.stem for file in self.files if len(file.stem) == len("2017-11-30")]
        return [date.fromisoformat(day) for day in sorted(days)]

    @property
    def last_graded(self) -> date | None:
        """Give the last scoring date."""
        return self.graded[-1] if self.graded else None

    @property
    def levels(self) -> dict[str, int]:
        """Give every tier's number, by code, lowest first, as it was last graded."""
        seen = self._query(
            "select tier_code, max_by(tier, valid_from)::integer as tier from rows "
            "where event not in ('override', 'exit') group by tier_code order by tier, tier_code"
        )
        return dict(zip(seen["tier_code"], seen["tier"], strict=True))

    @property
    def codes(self) -> list[str]:
        """List the codes of all tiers, lowest first."""
        return list(self.levels)

    def as_of(self, day: date) -> pd.DataFrame:
        """Give every customer's assignment in force on a day: since when, which tier, why, and until when if known."""
        rows = self._last("valid_from <= $day", day)
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
        """List assignments with `valid_from` and `valid_to` (none: still in force), of one customer or of all."""
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

    def before(self, day: date) -> pd.DataFrame:
        """Give what a grading on a day starts from: rows of earlier days, and overrides that begin on it.

        Raises `ProjectError` for a day before the last grading: a ledger goes forward only.
        """
        last = self.last_graded
        if last is not None and day < last:
            raise ProjectError(
                f"{self.folder} is graded up to {last}: a ledger goes forward only, so {day} is too early"
            )
        return self._last("valid_from < $day or (valid_from = $day and sequence > 0)", day)

    def append(self, day: date, rows: pd.DataFrame) -> int:
        """Add one day's grading: the rows of customers for whom anything changed; give how many there are.

        The same grading again changes nothing. Raises `ProjectError` where the day was graded differently before.
        """
        before = self.before(day).set_index("customer_id")
        rows = rows.set_index("customer_id")
        gone = before.index.difference(rows.index)
        gone = gone[before.loc[gone, "tier_code"].notna().to_numpy()]
        exits = pd.DataFrame({"event": "exit", "previous_code": before.loc[gone, "tier_code"]}, index=gone)
        known = before.reindex(rows.index)
        same = np.ones(len(rows), dtype=np.bool_)
        for name in _SEEN:
            mine, theirs = rows[name].astype(object), known[name].astype(object)
            same &= ((mine == theirs) | (mine.isna() & theirs.isna())).to_numpy(dtype=np.bool_)
        everything = pd.concat([rows[~same], exits]).rename_axis("customer_id").sort_index().reset_index()
        everything = everything.assign(valid_from=day, sequence=0)
        table = _table(everything)
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
        """Set one customer's tier by hand from a day until another; without a code, withdraw what was set.

        Raises `ProjectError` for a day that is graded already, an end that is not after the start, or a tier that the
        ledger has never seen; `DataError` for a customer whom the ledger does not know.
        """
        last = self.last_graded
        if last is None or start <= last:
            raise ProjectError(
                f"an override starts after the last grading ({last or 'there is none yet'}), not on {start}"
            )
        if until is not None and until <= start:
            raise ProjectError(f"an override from {start} until {until} never holds; give a later end")
        if not operator.strip() or not reason.strip():
            raise ProjectError("an override needs an operator and a reason")
        levels = self.levels
        if code is not None and code not in levels:
            raise ProjectError(f"no customer was ever in tier {code!r}; there are {', '.join(sorted(levels))}")
        now = self._last("valid_from <= $day", start)
        now = now[now["customer_id"] == customer]
        if now.empty or pd.isna(now["stable_code"].iloc[0]):
            raise DataError(f"customer {customer!r} is not in {self.folder} on {start}")
        row: dict[str, Any] = dict(now.iloc[0])
        row |= {
            "valid_from": start,
            "sequence": 1 + sum(file.stem.startswith(f"{start}.") for file in self.files),
            "event": "override" if code else "withdrawn",
            "previous_code": row["tier_code"],
            "tier_code": code or row["stable_code"],
            "tier": levels[code or row["stable_code"]],
            "operator": operator if code else None,
            "expires": until if code else None,
            "reason_1": reason, "reason_2": None, "reason_3": None,
        }  # fmt: skip
        path = self.folder / f"{start}.{row['sequence']:04d}.parquet"
        write_table(_table(pd.DataFrame([row])), path)
        self.files = sorted([*self.files, path])

    def _last(self, condition: str, day: date) -> pd.DataFrame:
        """Give each customer's last row among those that meet a condition."""
        return self._query(
            f"select * from rows where {condition} "
            "qualify row_number() over (partition by customer_id order by valid_from desc, sequence desc) = 1 "
            "order by customer_id",
            day=day,
        )

    def _query(self, sql: str, **values: Any) -> pd.DataFrame:
        with duckdb.connect() as connection:
            if self.files:
                connection.read_parquet([str(file) for file in self.files]).create_view("rows")
            else:
                connection.from_arrow(SCHEMA.empty_table()).create_view("rows")
            used = {name: value for name, value in values.items() if f"${name}" in sql}
            found: pa.Table = connection.sql(sql, params=used).to_arrow_table()
        return found.to_pandas()


def position_in(before: pd.DataFrame, customers: pd.Series, codes: list[str], day: date) -> Position:
    """Look customers up in what `before` gave; a level that the scheme no longer has counts as not graded."""
    rows = pd.Index(before["customer_id"]).get_indexer(pd.Index(customers.astype(str)))
    number = {code: n for n, code in enumerate(codes)}
    stable, tier = (
        np.array([number.get(code, NOBODY) for code in before[name]], dtype=np.int64)
        for name in ("stable_code", "tier_code")
    )
    held = before["operator"].notna() & ~(pd.to_datetime(before["expires"]) <= pd.Timestamp(day))
    standing = Standing(
        stable,
        _days(before["stable_since"]),
        np.asarray(before["asked"].fillna(0), dtype=np.int64),
        _days(before["asked_since"]),
    )
    found = np.append(tier, NOBODY)[rows]
    return Position(standing.take(rows), found, np.append(np.where(held, tier, NOBODY), NOBODY)[rows])


def graded_rows(table: pd.DataFrame, grading: Grading, codes: list[str], before: pd.DataFrame) -> pd.DataFrame:
    """Give the ledger's rows of a scored batch; an override keeps its operator, reason and end."""
    after, held = grading.standing, grading.overridden
    kept = before.set_index("customer_id")[["operator", "expires", "reason_1"]].reindex(table["customer_id"])
    kept = pd.DataFrame({name: _where(held, kept[name].to_numpy(dtype=object)) for name in kept}, dtype=object)
    earlier = np.where(np.isnan(grading.before), NOBODY, grading.before).astype(np.int64)
    moved = np.where(earlier == NOBODY, 3, np.sign(grading.tier - earlier) + 1)
    names = np.array([*codes, None], dtype=object)  # the last stands for none
    reasons = {f"reason_{k}": table[f"reason_{k}"].astype(object) for k in (1, 2, 3)}
    reasons["reason_1"] = reasons["reason_1"].where(~held, kept["reason_1"])
    return pd.DataFrame({
        "customer_id": table["customer_id"].astype(str),
        "event": _EVENTS[np.where(held, 4, moved)],
        "tier": grading.tier,
        "tier_code": names[grading.tier],
        "previous_code": names[earlier],
        "stable_code": names[after.tier],
        "model_code": names[grading.level],
        "stable_since": _as_dates(after.since),
        "asked": after.asked,
        "asked_since": _as_dates(after.asked_since),
        **reasons,
        "scheme_version": table["scheme_version"].astype(object),
        "model_version": table["model_version"].astype(object),
        "operator": kept["operator"],
        "expires": kept["expires"],
    })  # fmt: skip


def _where(held: NDArray[np.bool_], values: NDArray[np.object_]) -> NDArray[np.object_]:
    kept = np.full(len(values), None, dtype=object)
    kept[held] = values[held]
    return kept


def _days(dates: pd.Series) -> Whole:
    days = pd.to_datetime(dates).to_numpy().astype("datetime64[D]")
    return np.asarray(np.where(np.isnat(days), 0, days.astype(np.int64)), dtype=np.int64)


def _as_dates(days: Whole) -> NDArray[np.object_]:
    """Turn days counted from 1970 into dates; day 0 stands for none."""
    distinct, place = np.unique(days, return_inverse=True)
    made = np.array([_EPOCH + timedelta(int(d)) if d else None for d in distinct], dtype=object)
    return made[place]


def _table(rows: pd.DataFrame) -> pa.Table:
    rows = rows.reindex(columns=SCHEMA.names)
    columns = [
        pa.array(rows[f.name].astype(object).where(rows[f.name].notna(), None).tolist(), type=f.type) for f in SCHEMA
    ]
    return pa.table(columns, schema=SCHEMA)


def with_ledger_columns(batch: pa.RecordBatch, rows: pd.DataFrame) -> pa.RecordBatch:
    """Put the ledger's rows of a batch beside its scores, for the way back from another process."""
    for column in _table(rows).itercolumns():
        batch = batch.append_column(f"{_PREFIX}{len(batch.schema)}", column.combine_chunks())
    return batch


def from_batch(batch: pa.RecordBatch) -> pd.DataFrame:
    """Take the ledger's rows out of what `with_ledger_columns` made."""
    columns = batch.columns[-len(SCHEMA) :]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA).to_pandas()
