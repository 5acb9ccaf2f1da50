"""Write features, the quarantined rows beside them, and the account of the rows."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from pathlib import Path

import pyarrow as pa

from tiermodel import disk
from tiermodel.config.project import Project
from tiermodel.engines.dispatch import Rows, history_of
from tiermodel.errors import DataError, EmptyInputError
from tiermodel.features.catalogue import left_out
from tiermodel.features.dates import parse_dates, stale_words
from tiermodel.features.panel import Snapshots, Tally, snapshot_batches
from tiermodel.output import Staged, escape_formulas, staged, write_table
from tiermodel.tables.contract import Accounting
from tiermodel.tables.history import History, history_columns, project_key
from tiermodel.tables.source import refuse_outputs
from tiermodel.words import words

__all__ = ["left_out_words", "quarantine_beside", "write_features", "write_nothing", "write_quarantine", "write_rows"]


def left_out_words(project: Project, *, needs: bool) -> str:
    """Return a text on the chosen groups that cannot be built, with or without what they need; empty if none."""
    missing = left_out(project.features, history_columns(project))
    say = words(project.language)
    if missing and not needs:
        return say["left_out_briefly"].format(say["comma"].join(say[f"group_{group}"] for group in missing))
    told = (
        say["left_out_needs"].format(
            group=say[f"group_{group}"],
            needs=say["left_out_or"].join(say["left_out_and"].join(map(project_key, names)) for names in any_of),
        )
        for group, any_of in missing.items()
    )
    return say["left_out"].format(say["comma"].join(told)) if missing else ""


def write_features(
    project: Project,
    as_of: str | date | Sequence[date | str],
    out: str | Path,
    *,
    history: Rows = None,
    allow_empty: bool = False,
) -> Tally:
    """Write the snapshots at some dates to .parquet or .csv as a stream, and return the counts of customers and rows.

    `as_of` is a sequence of dates, or text such as `2017-10-31,2017-11-30` or `latest`. `history` stands in for the
    project's files. Bad rows go to a quarantine file beside the output. With `allow_empty`, transactions without a row
    give a table without a row. Raises `DataError` where no customer has a row before any date.
    """
    try:
        history = history_of(project, history)
    except EmptyInputError:
        if not allow_empty:
            raise
        return write_nothing(Snapshots(project, history_columns(project), ()).schema, Path(out), project.language)
    dates = parse_dates(as_of, history)
    snapshots, tally = Snapshots(project, history.columns, dates), Tally()
    stale = stale_words(history, max(dates), project.panel.every_days, project.data.max_stale_days, project.language)
    batches = snapshot_batches(history, snapshots, tally)
    with staged() as files:
        write_rows(batches, snapshots.schema, Path(out), history, tally, before=max(dates), into=files)
    tally.warn(stale)
    return tally


def write_rows(
    batches: Iterable[pa.RecordBatch],
    schema: pa.Schema,
    out: Path,
    history: History,
    tally: Tally,
    *,
    before: date,
    into: Staged,
) -> None:
    """Write batches of snapshots, streamed, and the bad rows beside them, and count them.

    The files are put in place with the others of `into`. Raises `DataError` where there is no row, so no customer known
    `before` the date.
    """
    refuse_outputs((table.source for table in history.tables.values()), out, quarantine_beside(out))

    def counted() -> Iterator[pa.RecordBatch]:
        for batch in batches:
            tally.snapshots += batch.num_rows
            yield batch
        if not tally.snapshots:
            raise DataError(
                f"TM2071 no customer has a row before {before}: the data starts on {history.first_day}; "
                "choose a later date"
            )

    write_table(counted(), out, schema, into=into)
    write_quarantine(history, out, into)


def write_nothing(schema: pa.Schema, out: Path, language: str) -> Tally:
    """Write a table without rows, and return the account of no row read."""
    with staged() as files:
        write_table([], out, schema, into=files)
        files.remove(quarantine_beside(out))
    warnings = (words(language)["note_empty"],)
    return Tally(accounts={"transactions": Accounting(0, 0, 0, warnings=warnings)})


def write_quarantine(history: History, beside: Path, into: Staged) -> None:
    """Write bad rows to `NAME.quarantine.csv` beside an output; where there are none, remove an old such file.

    A spreadsheet opens the file without running formulas. It is put in place with the others of `into`.
    """
    quarantine = quarantine_beside(beside)
    if not any(table.account.quarantined for table in history.tables.values()):
        into.remove(quarantine)
        return
    temporary = into.add(quarantine)
    with disk.create(temporary) as file, io.TextIOWrapper(file, encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("file", "row", "rule", "code", "column", "value", "remedy"))
        for row in history.bad_rows():
            writer.writerow(escape_formulas(cell) if isinstance(cell, str) else cell for cell in row)


def quarantine_beside(beside: Path) -> Path:
    """Return the file of the bad rows beside an output."""
    return beside.with_name(f"{beside.stem}.quarantine.csv")
