"""What came of each tier, grading by grading: who stayed, what they brought, cost and said, and how they moved."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any, overload

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tiermodel import disk
from tiermodel.config.project import Project, require_project
from tiermodel.engines.dispatch import Rows, history_of
from tiermodel.errors import DataError, ProjectError
from tiermodel.features.followed import CHANNEL, Followed, followed_batches
from tiermodel.features.outcome import Labels
from tiermodel.features.panel import Tally
from tiermodel.ledger.files import Levels
from tiermodel.ledger.ledger import Ledger
from tiermodel.monitoring.measures import MOVES, base_row, channel_rows, curve_rows, tier_rows
from tiermodel.monitoring.surveys import ANSWERS, answers, scales, sorted_out
from tiermodel.output import beside, staged, to_jsonable, write_table
from tiermodel.tables.frames import in_memory
from tiermodel.tables.history import History, connect
from tiermodel.tables.privacy import hash_key
from tiermodel.tables.source import literal, refuse_outputs, scratch_folder
from tiermodel.tables.table import EPOCH
from tiermodel.words import notebook_table, words

__all__ = ["Outcomes", "outcomes", "outcomes_beside"]


@dataclass(frozen=True)
class Outcomes:
    """What was written: rows by tier, by channel and of the whole base, and the gradings whose window is not over.

    `curve` has the points of the whale curve. `unknown` counts customers in the ledger of whom the tables have no row,
    `not_counted` the answers to each survey that are off its scale or no number. `lacking` names what is not told since
    the project maps no data of it: `margin`, `cost_to_serve`, `complaints`, `surveys`, `acquisition_cost`, `channel`.
    """

    tiers: tuple[dict[str, Any], ...]
    channels: tuple[dict[str, Any], ...]
    base: tuple[dict[str, Any], ...]
    gradings: tuple[date, ...]
    not_over: tuple[date, ...]
    unknown: int
    curve: tuple[dict[str, Any], ...] = ()
    not_counted: tuple[dict[str, Any], ...] = ()
    lacking: tuple[str, ...] = ()
    language: str = "en"

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the rows by grading and tier."""
        heads = tuple(dict.fromkeys(name for row in self.tiers for name in row))
        title = words(self.language)["shown_outcomes"]
        return notebook_table(self.language, title, [[row.get(name) for name in heads] for row in self.tiers], heads)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain data, for JSON."""
        days = {name: [str(day) for day in getattr(self, name)] for name in ("gradings", "not_over")}
        rows = {
            name: [to_jsonable({**row, "graded": str(row["graded"])}) for row in getattr(self, name)]
            for name in ("tiers", "channels", "base")
        }
        counted = {"unknown": self.unknown, "surveys_not_counted": list(self.not_counted)}
        return {**rows, **days, **counted, "lacking": list(self.lacking)}


def outcomes_beside(out: Path) -> tuple[Path, Path, Path]:
    """Return the files beside an output: by channel, of the whole base, and its whale curve."""
    return beside(out, "channels"), beside(out, "base"), beside(out, "curve")


@overload
def outcomes(
    project: Project, ledger: str | Path, out: None = None, *, smallest: int = 5, history: Rows = None
) -> pd.DataFrame: ...


@overload
def outcomes(
    project: Project, ledger: str | Path, out: str | Path, *, smallest: int = 5, history: Rows = None
) -> Outcomes: ...


def outcomes(
    project: Project, ledger: str | Path, out: str | Path | None = None, *, smallest: int = 5, history: Rows = None
) -> Outcomes | pd.DataFrame:
    """Return what came of each tier of a ledger, one row for each grading and tier, or write it to a file.

    A customer counts in the tier in force on the day of the grading. Sums are of the outcome window of that day; only
    gradings whose windows are over are judged, and answers to surveys after the window never count.

    Parameters
    ----------
    project
        The project whose tables say what followed, and whose sections `outcome`, `churn` and `value` define it.
    ledger
        The folder of the ledger.
    out
        The file to write, .parquet or .csv; beside it, `NAME.channels` has acquisition costs by channel, `NAME.base`
        how concentrated what all customers brought is, and `NAME.curve` its cumulated share, best customers first.
        Without it the rows of the tiers are returned.
    smallest
        The fewest customers, or answers, of which anything is told.
    history
        The project's tables, opened before, or a DataFrame of transactions, or DataFrames by the name of the table;
        without it the project's files are read.

    Returns
    -------
    Outcomes or pandas.DataFrame
        The rows written; without `out`, those of the tiers.

    Raises
    ------
    ProjectError
        If there is no ledger, or no window of a grading is over.
    DataError
        If the tables have a row of no customer of the ledger.

    Examples
    --------
    >>> from tiermodel import Project
    >>> columns = {"customer_id": "id", "time": "day", "amount": "amount"}
    >>> data = {"transactions": {"path": "sales.csv", "columns": columns}}
    >>> project = Project.model_validate({"version": 1, "name": "shop", "data": data})
    >>> outcomes(project, "no-ledger", "outcomes.csv")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    tiermodel.errors.ProjectError: no-ledger is no ledger yet; ...

    """
    require_project(project)
    if out is None:
        return in_memory(lambda path: outcomes(project, ledger, path, smallest=smallest, history=history))
    if smallest < 1:
        raise ProjectError(f"--smallest: expected 1 customer or more, got {smallest}")
    book, out = Ledger(ledger).must_exist(), Path(out)
    history = history_of(project, history)
    refuse_outputs((table.source for table in history.tables.values()), out, *outcomes_beside(out))
    delay = timedelta(Labels.of(project).delay_days)
    over = [day for day in book.graded if day + delay <= history.last_day + timedelta(1)]
    not_over = tuple(day for day in book.graded if day not in over)
    if not over:
        ready = book.graded[0] + delay
        raise ProjectError(
            f"{book.folder}: no outcome window is over: that of {book.graded[0]} ends on {ready}, and the data end on "
            f"{history.last_day}; bring rows up to that day"
        )
    with connect(project) as connection:
        follow, not_counted = _stored(connection, project, history, tuple(over))
        found = [_judged(connection, follow, book, day, scales(project), smallest) for day in over]
    done = Outcomes(
        tuple(row for judged in found for row in judged.tiers),
        tuple(row for judged in found for row in judged.channels),
        tuple(judged.base for judged in found),
        tuple(over),
        not_over,
        sum(judged.unknown for judged in found),
        tuple(point for judged in found for point in judged.curve),
        tuple(not_counted),
        _lacking(follow, scales(project)),
        project.language,
    )
    _write(done, out)
    return done


def _stored(
    connection: duckdb.DuckDBPyConnection, project: Project, history: History, dates: tuple[date, ...]
) -> tuple[Followed, list[dict[str, Any]]]:
    """Make `followed`, a view of a file on the disk, and the table `answers`; return the walk behind the first.

    Also returned are the answers that do not count.
    """
    followed, tally = Followed(project, history.columns, dates, hash_key(project)), Tally()
    folder = scratch_folder(connection)
    disk.make_folder(folder)
    streams: dict[str, tuple[pa.Schema, Iterable[pa.RecordBatch]]] = {
        "followed": (followed.schema, followed_batches(history, followed, tally)),
        "answers": (ANSWERS, answers(project, history)),
    }
    for name, (schema, batches) in streams.items():
        with pq.ParquetWriter(folder / f"{name}.parquet", schema) as writer:
            for batch in batches:
                writer.write_batch(batch)
    reads = {name: f"SELECT * FROM {literal(str(folder / name) + '.parquet')}" for name in streams}
    connection.execute(f"CREATE VIEW followed AS {reads['followed']}")
    window = followed.labels.value.window
    windows = [((day - EPOCH).days + window.first, (day - EPOCH).days + window.last) for day in dates]
    return followed, sorted_out(connection, reads["answers"], project, windows)


def _lacking(followed: Followed, asked: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what the project maps no data of."""
    names, columns = followed.schema.names, followed.columns
    lacks = [name for name in ("margin", "cost_to_serve", "complaints") if name not in names]
    lacks += [] if asked else ["surveys"]
    if "acquisition_cost" not in columns:
        return (*lacks, "acquisition_cost")
    return tuple(lacks if CHANNEL in names else [*lacks, "channel"])


@dataclass(frozen=True)
class _Judged:
    """The rows of one grading."""

    tiers: list[dict[str, Any]]
    channels: list[dict[str, Any]]
    base: dict[str, Any]
    unknown: int
    curve: list[dict[str, Any]]


def _judged(
    connection: duckdb.DuckDBPyConnection,
    followed: Followed,
    book: Ledger,
    day: date,
    asked: dict[str, tuple[float, float]],
    smallest: int,
) -> _Judged:
    """Return what came of the tiers in force on a day."""
    labels = followed.labels
    later = [graded for graded in book.graded if graded > day]
    codes = pa.table({"tier_code": list(book.known_levels), "tier": list(book.known_levels.values())})
    before = book.tiers_on(day)
    given = {"before": before, "after": book.tiers_on(later[0]) if later else before.slice(0, 0), "levels": codes}
    for name, table in given.items():
        connection.register(f"{name}_given", table)
    connection.execute(
        "CREATE OR REPLACE TABLE graded AS SELECT customer_id, l.tier, m.tier AS after FROM before_given b "
        "JOIN levels_given l USING (tier_code) LEFT JOIN after_given a USING (customer_id) "
        "LEFT JOIN levels_given m ON m.tier_code = a.tier_code"
    )
    for name in given:
        connection.unregister(f"{name}_given")
    # customers in order, so that sums do not depend on that of the file
    rows = connection.sql(
        "SELECT f.* EXCLUDE (customer_id, as_of), g.tier, g.after FROM graded g JOIN followed f USING (customer_id) "
        f"WHERE as_of = DATE '{day}' ORDER BY customer_id"
    ).df()
    if rows.empty:
        raise DataError(f"{book.folder}: the tables have no row of the customers graded on {day}; is it their ledger?")
    first, last = ((day - EPOCH).days + edge for edge in (labels.value.window.first, labels.value.window.last))
    told = connection.execute(
        "SELECT tier, survey, score, count(*) FROM answers JOIN graded USING (customer_id) "
        f"JOIN followed USING (customer_id) WHERE as_of = DATE '{day}' AND day >= {first} AND day < {last} "
        "GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    names = {level: code for code, level in book.known_levels.items()}
    tiers = [_named(row, book.level_names) for row in tier_rows(rows, told, names, asked, smallest)]
    if not later:
        tiers = [{**row, **dict.fromkeys(MOVES, float("nan"))} for row in tiers]
    channels = channel_rows(rows, smallest)
    whole = (tiers, channels, [base_row(rows, smallest)], curve_rows(rows, smallest))
    of_day = [[{"graded": day, **_rounded(row)} for row in part] for part in whole]
    return _Judged(of_day[0], of_day[1], of_day[2][0], len(before) - len(rows), of_day[3])


def _named(row: dict[str, Any], levels: Levels | None) -> dict[str, Any]:
    """Return a row with the names of its tier after the code; a ledger of version 0.1.0 has none."""
    code = row["tier_code"]
    names = {} if levels is None else {known: (zh, en) for known, zh, en in levels.names}
    zh, en = names.get(code, (code, code))
    return {"tier": row["tier"], "tier_code": code, "name_zh": zh or code, "name_en": en or code, **row}


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    return {name: round(value, 6) if isinstance(value, float) else value for name, value in row.items()}


def _write(done: Outcomes, out: Path) -> None:
    channels, base, curve = outcomes_beside(out)
    with staged() as files:
        write_table(_table(done.tiers), out, into=files)
        write_table(_table(done.base), base, into=files)
        for path, rows in ((channels, done.channels), (curve, done.curve)):
            if rows:
                write_table(_table(rows), path, into=files)
            else:
                files.remove(path)


_TEXTS, _COUNTS = {"tier_code", "name_zh", "name_en", CHANNEL}, {"tier"}


def _table(rows: Iterable[dict[str, Any]]) -> pa.Table:
    """Return rows with the same keys as a table; NaN is missing."""
    listed = [{name: None if _is_missing(value) else value for name, value in row.items()} for row in rows]
    schema = pa.schema([(name, _type_of(name)) for name in listed[0]])
    return pa.Table.from_pylist(listed, schema=schema)


def _is_missing(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _type_of(name: str) -> pa.DataType:
    if name == "graded":
        return pa.date32()
    if name in _TEXTS:
        return pa.string()
    return pa.bool_() if name == "hidden" else pa.int64() if name in _COUNTS else pa.float64()
