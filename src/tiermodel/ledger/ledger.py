"""The tier ledger 等级台账: the effective-dated tiers of customers, with reasons, model version and manual overrides.

A ledger is a folder of Parquet files, one for each grading and one for each override, written whole and never changed.
A row records what changed for a customer on a day; the last row up to a day is in force on that day. While an override
is in force, the scheme and its stability rule go on grading, and their tier takes over when it expires. A correction of
a graded day is a new file that names the gradings whose place it takes; these stay, and show what was believed before.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tiermodel.errors import DataError, OutputError, ProjectError
from tiermodel.ledger.files import REPEATED, Levels, in_force, ledger_lock, list_files, noted, read_rows
from tiermodel.ledger.rows import SCHEMA, Added, Before, moves_of, table_of
from tiermodel.ledger.views import EXPIRED, STATE_BENEATH, last_rows
from tiermodel.locks import first_line
from tiermodel.output import Staged, staged, write_table
from tiermodel.tables.scratch import new_folder, remove_folder
from tiermodel.tables.source import exactly, literal

__all__ = ["Ledger", "writing"]


_BEFORE = "valid_from < $day or (valid_from = $day and sequence > 0)"
_BATCH = 122_880
_MEMORY = "1GB"
"""What DuckDB takes to find what was before a grading, and what differs; beyond it spills to disk."""
_SEEN = ("tier_code", "stable_code", "asked", "operator")


class Ledger:
    """The tier ledger in a folder; a folder that is not there yet is an empty ledger.

    With `known_on` it is what was known on that day: without what was graded, corrected or set by hand later. Raises
    `ProjectError` for a path that is a file, or a folder with Parquet files that are not part of a ledger, and
    `LedgerError` for a damaged file.
    """

    def __init__(self, folder: str | Path, known_on: date | None = None) -> None:
        self.folder = Path(folder)
        if self.folder.exists() and not self.folder.is_dir():
            raise ProjectError(f"{self.folder} is a file; a ledger is a folder")
        self.all_files = list_files(self.folder)
        self.known_files = [file for file in self.all_files if known_on is None or file.known_on <= known_on]
        self.files = in_force(self.known_files)

    def must_exist(self) -> Ledger:
        """Return the ledger itself; `ProjectError` where it has no grading yet."""
        if not self.files and self.all_files:
            first = min(file.day for file in self.all_files)
            raise ProjectError(f"nothing was known in {self.folder} before {first}; give a later --known-on")
        if not self.files:
            raise ProjectError(f"{self.folder} is no ledger yet; `tiermodel score … --ledger {self.folder}` begins one")
        return self

    @property
    def graded(self) -> list[date]:
        """The days graded, oldest first, without those that a correction took away."""
        return sorted(file.day for file in self.files if not file.sequence)

    @property
    def last_graded(self) -> date | None:
        """The last day graded; None in an empty ledger."""
        return max(self.graded, default=None)

    @property
    def again(self) -> list[date]:
        """The days that a correction took away, and that are still to be graded again, in order."""
        last = self.last_graded or date.min
        return sorted({file.day for file in self.all_files if not file.sequence and file.day > last})

    @property
    def level_names(self) -> Levels | None:
        """The names of the levels as the last file has them that has any; None in a ledger of version 0.1.0."""
        return next((file.levels for file in reversed(self.files) if file.levels is not None), None)

    @cached_property
    def levels(self) -> dict[str, int]:
        """The level of every tier code as last graded, lowest first."""
        seen = self.query(
            "select tier_code, max_by(tier, valid_from)::integer as tier from rows "
            "where event not in ('override', 'exit') group by tier_code order by tier, tier_code"
        )
        return dict(zip(seen["tier_code"], seen["tier"], strict=True))

    @property
    def known_levels(self) -> dict[str, int]:
        """The level of every tier code, those in which nobody was yet included where the ledger names its levels."""
        names = self.level_names
        return self.levels | ({} if names is None else {code: n for n, (code, *_) in enumerate(names.names)})

    @property
    def codes(self) -> list[str]:
        """The codes of all tiers, lowest first."""
        return list(self.levels)

    def as_of(self, day: date) -> pd.DataFrame:
        """Return every customer's row in force on a day: start, tier, reasons, and end where it is known.

        An expired override gives way to the tier of the stability rule, from its end on, as event `expired`.
        """
        rows = self.query(last_rows("valid_from <= $day"), day=day)
        expired = rows["expires"].notna() & (pd.to_datetime(rows["expires"]) <= pd.Timestamp(day))
        rows.loc[expired, "valid_from"] = rows.loc[expired, "expires"]
        rows.loc[expired, "tier_code"] = rows.loc[expired, "stable_code"]
        back = expired | (rows["event"] == "withdrawn")
        if back.any():
            levels = rows.loc[back, "tier_code"].map(self.levels)
            rows.loc[back, "tier"] = levels.astype(rows["tier"].dtype)
        rows.loc[expired, ["operator", "expires"]] = None
        rows.loc[expired, "event"] = "expired"
        return rows[rows["tier_code"].notna()].reset_index(drop=True)

    def tiers_on(self, day: date) -> pa.Table:
        """Return `customer_id` and `tier_code` in force on a day, as `as_of` does, in a fraction of its memory."""
        now = "case when expires <= $day then stable_code else tier_code end"
        return self._arrow(
            f"with last as ({last_rows('valid_from <= $day')}) select customer_id, {now} as tier_code from last "
            f"where {now} is not null order by customer_id",
            day=day,
        )

    def history(self, customer: str | None = None) -> pd.DataFrame:
        """Return assignments with `valid_from` and `valid_to` (missing: in force), of one customer or of all.

        The tier that takes over when an override expires is an assignment too, of the event `expired`.
        """
        rows = self.query(
            f"with mine as (select * from rows where $customer is null or customer_id = $customer), {EXPIRED} "
            "select * from mine union all by name select * from expired order by customer_id, valid_from, sequence",
            customer=customer,
        )
        back = rows["event"].isin(["expired", "withdrawn"]) & rows["tier_code"].notna()
        rows.loc[back, "tier"] = rows.loc[back, "tier_code"].map(self.levels).astype(rows["tier"].dtype)
        expires = pd.to_datetime(rows["expires"])
        changed = (
            (rows["customer_id"] != rows["customer_id"].shift())
            | (rows["tier_code"].fillna("") != rows["tier_code"].shift().fillna(""))
            | (rows["operator"].fillna("") != rows["operator"].shift().fillna(""))
            | ((expires != expires.shift()) & (expires.notna() | expires.shift().notna()))
        )
        rows = rows[changed]
        after = rows["valid_from"].shift(-1).where(rows["customer_id"] == rows["customer_id"].shift(-1))
        end = pd.concat([pd.to_datetime(after), pd.to_datetime(rows["expires"])], axis=1).min(axis=1)
        rows = rows.assign(valid_to=end.dt.date)
        return rows[rows["tier_code"].notna()].reset_index(drop=True)

    def written(self) -> pd.DataFrame:
        """Return every row as it was written, those that a correction took the place of included.

        `file` names the file of a row, `superseded_by` the correction (missing: the row counts).
        """
        by = {name: file.name for file in self.known_files for name in file.supersedes}
        tables = [
            read_rows([file]).cast(SCHEMA).to_pandas().assign(file=file.name, superseded_by=by.get(file.name))
            for file in self.known_files
        ]
        return pd.concat(tables).sort_values(["customer_id", "valid_from", "sequence", "file"], ignore_index=True)

    def before(self, day: date, *, regrade: bool = False, grades: bool = True) -> Before:
        """Return what a grading on a day starts from: rows of earlier days, and overrides that begin on that day.

        Raises `ProjectError` for a day before the last grading, or after one that is to be graded again: a ledger goes
        forward only, unless a day is graded again on purpose. `grades` tells a scoring that is no grading.
        """
        if not regrade:
            self._refuse_day(day)
        return Before(self._spilling(last_rows(_BEFORE), day).combine_chunks(), day, grades=grades)

    def append(
        self,
        day: date,
        rows: pa.Table | Path,
        *,
        regrade_reason: str | None = None,
        levels: Levels | None = None,
        into: Staged | None = None,
    ) -> Added:
        """Add the rows of one day's grading for customers who changed or left, and return what was added.

        The same grading again changes nothing. With a `regrade_reason` the day may be graded already: the new grading
        takes the place of the old one, and of all later ones. The file is put in place with the others of `into`, while
        the caller is `writing`. Raises `ProjectError` for a day before the last grading, and for a day that was graded
        with another result. `rows` are a table with the columns of `SCHEMA`, or a Parquet file of them.
        """
        if into is None:
            with writing(self.folder) as book, staged() as files:
                added = book.append(day, rows, regrade_reason=regrade_reason, levels=levels, into=files)
            self._read_again()
            return added
        if regrade_reason is None:
            self._refuse_day(day)
        table = self._changes(day, rows)
        old = next((file for file in self.files if file.day == day and not file.sequence), None)
        same = old is not None and regrade_reason in {None, old.notes.get("reason")}
        if old is not None and same and read_rows([old]).cast(SCHEMA).equals(table.cast(SCHEMA)):
            return Added(len(table), moves_of(table))
        if old is not None and regrade_reason is None:
            words = f"{old.path} holds another grading of {day}; a ledger is never rewritten"
            raise ProjectError(
                f"{words}: grade a later day, or give another folder, or correct it with {self._remedy(day)}"
            )
        gone = [file for file in self.files if not file.sequence and file.day >= day and regrade_reason is not None]
        earlier = [file for file in self.files if not file.sequence and file.day < day]
        known = max([day, *(file.day for file in self.all_files if not file.sequence)])
        schema = noted(
            levels or self.level_names,
            reason=regrade_reason,
            follows=[file.name for file in earlier[-1:]],
            supersedes=[file.name for file in gone],
            known_on=str(known) if known > day or gone else None,
        )
        batches = (batch.cast(schema) for batch in table.to_batches(_BATCH))
        write_table(batches, self.folder / f"{self._name_of(day)}.parquet", schema, into=into)
        again = {file.day for file in gone} | set(self.again)
        return Added(
            len(table), moves_of(table), tuple(file.day for file in gone), tuple(sorted(d for d in again if d > day))
        )

    def _changes(self, day: date, rows: pa.Table | Path) -> pa.Table:
        """Return the rows of a grading that differ from what was before, and those of customers who left."""
        differs = " or ".join(f"now.{name} is distinct from before.{name}" for name in _SEEN)
        return self._spilling(
            f"with before as ({last_rows(_BEFORE)}) "
            "select now.* replace ($day as valid_from, 0 as sequence) from graded now left join before "
            f"using (customer_id) where before.customer_id is null or {differs} union all by name "
            "select customer_id, $day as valid_from, 0 as sequence, 'exit' as event, tier_code as previous_code "
            "from before anti join graded using (customer_id) where tier_code is not null",
            day,
            rows,
        )

    def _spilling(self, sql: str, day: date, graded: pa.Table | Path | None = None) -> pa.Table:
        """Return the answer to a query of `rows` and of what is graded, by customer, in little memory.

        What does not fit waits on disk, and texts that repeat are dictionaries: there may be a row for every customer.
        """
        columns = ", ".join(SCHEMA.names)
        query = f"select {columns} from ({sql}) order by customer_id".replace("$day", f"date '{day}'")
        folder = new_folder()
        try:
            with self._connected(memory_limit=_MEMORY, temp_directory=str(folder)) as connection:
                if isinstance(graded, pa.Table):
                    connection.from_arrow(graded).create_view("graded")
                elif graded is not None:
                    connection.execute(f"create view graded as from read_parquet({exactly(str(graded))})")
                connection.execute(f"copy ({query}) to {literal(str(folder / 'rows.parquet'))} (format parquet)")
            return pq.read_table(folder / "rows.parquet", read_dictionary=REPEATED)
        except (duckdb.IOException, duckdb.OutOfMemoryException) as error:
            raise OutputError(
                f"the grading of {day} cannot be compared with {self.folder}: {first_line(error)}. Set TMPDIR to a "
                "folder with more free space"
            ) from error
        finally:
            remove_folder(folder)

    def _name_of(self, day: date) -> str:
        """Return the name of the next grading of a day."""
        taken = sum(file.day == day and not file.sequence for file in self.all_files)
        return f"{day}.r{taken}" if taken else str(day)

    def _remedy(self, day: date) -> str:
        return f"`tiermodel score … --as-of {day} --ledger {self.folder} --regrade --reason TEXT`"

    def override(
        self, customer: str, code: str | None, start: date, *, until: date | None, operator: str, reason: str
    ) -> None:
        """Set one customer's tier by hand from `start` to `until` (None: for good); `code` None withdraws an override.

        Raises `ProjectError` for a day that is graded already, an end that is not after the start, an empty operator or
        reason, or a tier that the ledger has never seen; `DataError` for a customer whom the ledger does not know;
        `OutputBusyError` while another run writes to the ledger.
        """
        with ledger_lock(self.folder):
            self._read_again()
            self._refuse_dates(start, until)
            if not operator.strip() or not reason.strip():
                raise ProjectError("an override needs an operator and a reason")
            levels = self.known_levels
            if code is not None and code not in levels:
                raise ProjectError(f"no customer was ever in tier {code!r}; there are {', '.join(sorted(levels))}")
            row = self._row_on(customer, start)
            tier, of_override = code or row["stable_code"], {"operator": operator, "expires": until}
            row |= {
                "valid_from": start,
                "sequence": 1 + max((file.sequence for file in self.files if file.day == start), default=0),
                "event": "override" if code else "withdrawn",
                "previous_code": row["tier_code"], "tier_code": tier, "tier": levels[tier],
                **(of_override if code else dict.fromkeys(of_override)), "priority": None, "cut": None,
                "reason_1": reason, "reason_2": None, "reason_3": None,
            }  # fmt: skip
            table = table_of(pd.DataFrame([row])).cast(noted(self.level_names))
            write_table(table, self.folder / f"{start}.{row['sequence']:04d}.parquet")
            self._read_again()

    def _read_again(self) -> None:
        """Read which files there are now."""
        self.all_files = self.known_files = list_files(self.folder)
        self.files = in_force(self.known_files)
        for name in ("levels", "_rows"):
            self.__dict__.pop(name, None)

    def _row_on(self, customer: str, day: date) -> dict[str, Any]:
        """Return the customer's row in force on a day; `DataError` for a customer whom the ledger does not know."""
        rows = self.query(last_rows("valid_from <= $day"), day=day)
        rows = rows[rows["customer_id"] == customer]
        if rows.empty or pd.isna(rows["stable_code"].iloc[0]):
            raise DataError(f"customer {customer!r} is not in {self.folder} on {day}")
        return dict(rows.iloc[0])

    def _refuse_day(self, day: date) -> None:
        """Raise `ProjectError` for a day that is no next grading."""
        last, again = self.last_graded, self.again
        if last is not None and day < last:
            words = f"{self.folder} is graded up to {last}"
            raise ProjectError(
                f"{words}: a ledger goes forward only, so {day} is too early; correct it with {self._remedy(day)}"
            )
        if again and day > again[0]:
            words = f"{self.folder}: {', '.join(map(str, again))} must be graded again first, in order, after the "
            raise ProjectError(f"{words}correction of {last}; or leave them out with {self._remedy(day)}")

    def _refuse_dates(self, start: date, until: date | None) -> None:
        """Raise `ProjectError` for an override of days that are graded already, or of no day at all."""
        last = self.last_graded
        if last is None or start <= last:
            graded = last or "there is none yet"
            raise ProjectError(f"an override starts after the last grading ({graded}), not on {start}")
        if until is not None and until <= start:
            raise ProjectError(f"an override from {start} until {until} never holds; give a later end")

    @cached_property
    def _rows(self) -> pa.Table:
        return read_rows(self.files)

    @property
    def rows(self) -> int:
        """The number of rows, without those that a correction took the place of."""
        return len(self._rows)

    def query(self, sql: str, **values: Any) -> pd.DataFrame:
        """Return the answer to a query of `rows`, those in force of all files, with values for its `$names`."""
        return self._arrow(sql, **values).to_pandas()

    def _arrow(self, sql: str, **values: Any) -> pa.Table:
        used = {name: value for name, value in values.items() if f"${name}" in sql}
        with self._connected() as connection:
            found: pa.Table = connection.sql(sql, params=used).to_arrow_table()
        return found.select(SCHEMA.names).cast(SCHEMA) if set(SCHEMA.names) <= set(found.column_names) else found

    @contextmanager
    def _connected(self, **config: Any) -> Iterator[duckdb.DuckDBPyConnection]:
        """Yield a connection with the view `rows`."""
        with duckdb.connect(config=config) as connection:
            connection.from_arrow(self._rows).create_view("written")
            overrides = any(file.sequence for file in self.files)
            connection.execute(f"create view rows as {STATE_BENEATH if overrides else 'select * from written'}")
            yield connection


@contextmanager
def writing(folder: str | Path) -> Iterator[Ledger]:
    """Yield a ledger as it is once it is locked for writing; raises `OutputBusyError` while another run writes to it.

    Files for it are `staged` with the journal of the folder, `journal_of`.
    """
    if Path(folder).is_file():
        Ledger(folder)  # says so
    with ledger_lock(Path(folder)):
        yield Ledger(folder)
