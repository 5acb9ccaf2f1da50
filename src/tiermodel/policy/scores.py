"""Read a table of scores: any Parquet or CSV file with customer_id, tier_code, and what expressions name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from tiermodel.config.project import Project
from tiermodel.errors import DataError, ProjectError
from tiermodel.output import FORMULA
from tiermodel.tables.expressions import bind
from tiermodel.tables.history import connect
from tiermodel.tables.privacy import masked
from tiermodel.tables.readers.files import open_files
from tiermodel.tables.rules import family, flag
from tiermodel.tables.source import Source, literal, quoted, refuse_outputs

__all__ = ["HORIZON_NOTE", "LANGUAGE_NOTE", "Scores", "open_scores", "reading_project"]

HORIZON_NOTE, LANGUAGE_NOTE = "tiermodel.horizon_days", "tiermodel.language"
"""Notes in the schema of scores, kept by Parquet: the days that values are for, and the language of texts."""

_VIEW, _READ = "scores", "scores_read"
_CSV = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".txt", ".txt.gz")
_KEYS = ("customer_id", "tier_code")


@dataclass(frozen=True)
class Scores:
    """An open table: a typed view of its rows, in which NaN and empty cells are NULL."""

    connection: duckdb.DuckDBPyConnection
    source: Source
    file: str
    horizon_days: int | None = None
    """The days that values are for, where the file says so."""
    language: str | None = None
    """The language of their texts, where the file says so."""

    @property
    def columns(self) -> dict[str, str]:
        """The columns with their types in SQL."""
        return self.source.columns

    def number(self, key: str, text: str) -> str:
        """Return an expression as SQL that gives a DOUBLE; `ProjectError` where it is no number, or names no column."""
        bound = bind(self.connection, self.source, key, text)
        if family(bound.type) not in {"float", "integer", "big", "decimal"}:
            raise ProjectError(f"{key}: {text!r} is {bound.type}, not a number; write an expression that is one")
        return f"TRY_CAST({bound.sql} AS DOUBLE)"

    def condition(self, key: str, text: str) -> str:
        """Return an expression as SQL that is true or not, never NULL; raises as `number` does."""
        bound = bind(self.connection, self.source, key, text)
        if bound.type != "BOOLEAN":
            raise ProjectError(f"{key}: {text!r} is {bound.type}, not a condition; compare it, as in {text} > 0")
        return f"coalesce({bound.sql}, false)"

    def flag(self, name: str) -> str:
        """Return a column of yes and no as SQL that is true, false, or NULL where it is empty or cannot be read."""
        return self._flag(name)[0]

    def refused(self) -> str:
        """Return SQL that is true for who opted out or did not consent; in doubt, as where a flag cannot be read."""
        parts = []
        if "opt_out" in self.columns:
            parts.append("coalesce({}, {} IS NOT NULL)".format(*self._flag("opt_out")))
        if "consent" in self.columns:
            parts.append(f"NOT coalesce({self.flag('consent')}, false)")
        return " OR ".join(parts) or "false"

    def by_a_person(self) -> str:
        """Return SQL that is true for whom a person decides (`manual_decision`); in doubt, as where it is not read."""
        if "manual_decision" not in self.columns:
            return "false"
        return "coalesce({}, {} IS NOT NULL)".format(*self._flag("manual_decision"))

    def _flag(self, name: str) -> tuple[str, str]:
        """Return the SQL of a flag and of its text, as the project's tables read them; 1.0 and 0.0 are whole here."""
        parsed, column = flag(name), quoted(name)
        whole = f"CASE WHEN {column} IN (0, 1) THEN {column}::BIGINT::VARCHAR ELSE {column}::VARCHAR END"
        raw = whole if family(self.columns[name]) == "float" else f"{column}::VARCHAR"
        text = f"({parsed.text.replace(f'_tm_{name}', f'({raw})')})"
        return f"({parsed.clean.replace(f'_tm_{name}_text', text)})", text

    def tier_names(self) -> dict[str, str]:
        """Return the name of each tier by its code; none without a column `tier_name`, or with several of a code."""
        if self.columns.get("tier_name") != "VARCHAR":
            return {}
        query = f"SELECT DISTINCT tier_code, tier_name FROM {_VIEW} WHERE tier_name <> '' ORDER BY ALL"
        pairs = self.connection.execute(query).fetchall()
        return dict(pairs) if len({code for code, _ in pairs}) == len(pairs) else {}

    def select(self, columns: Sequence[str]) -> pa.Table:
        """Return SQL columns of every row, ordered by customer, so that the order of the file does not matter."""
        self.connection.execute("SET preserve_insertion_order = true")
        query = f"SELECT {', '.join(columns)} FROM {self.source.view} ORDER BY customer_id"
        return self.connection.sql(query).to_arrow_table()


@contextmanager
def open_scores(
    path: Path,
    named: Iterable[str] = (),
    outputs: Iterable[Path] = (),
    keys: Sequence[str] = _KEYS,
    numbers: re.Pattern[str] | None = None,
) -> Iterator[Scores]:
    """Open a table with one row a customer (and action, where that is a key).

    Columns of CSV that `named` (texts of SQL) name, or `numbers` matches, are numbers where all their values are.
    Raises `DataError` where a key is missing or empty, or a customer is there twice, and `ProjectError` for an output
    that would replace the table.
    """
    project = reading_project()
    with connect(project) as connection:
        source = open_files(connection, project, _READ, "SCORES", str(path), "utf-8")
        refuse_outputs([source], *outputs)
        if source.rejected:
            bad = source.rejected[0]
            raise DataError(
                f"{bad.file}:{bad.line}: {bad.rule}: {masked(bad.text)!r} is no row of the table; correct it"
            )
        if missing := [name for name in keys if name not in source.columns]:
            raise DataError(
                f"{path}: there is no column {', '.join(missing)}; give the file that `tiermodel score` wrote, or any "
                f"table with {', '.join(keys)}. Columns: {', '.join(source.columns)}"
            )
        told = " ".join(named).casefold()
        texts = {name for name in source.columns if name.casefold() in told or (numbers and numbers.fullmatch(name))}
        scores = Scores(connection, _typed(connection, source, texts), str(path), *_notes(source))
        _check_keys(scores, keys)
        yield scores


def _notes(source: Source) -> tuple[int | None, str | None]:
    """Return the horizon and the language that every file of scores names; None of CSV, and where they differ."""
    each = [pq.read_schema(f).metadata or {} if f.lower().endswith(".parquet") else {} for f in source.files]
    horizons, languages = ({notes.get(key.encode(), b"") for notes in each} for key in (HORIZON_NOTE, LANGUAGE_NOTE))
    horizon, language = (found.pop() if len(found) == 1 else b"" for found in (horizons, languages))
    days = int(horizon) if re.fullmatch(rb"[1-9]\d{0,3}", horizon) else None
    return days, language.decode() if language in {b"zh", b"en"} else None


def reading_project() -> Project:
    """Return a project that lends the readers of tables what they ask for: a folder and a memory limit."""
    columns = {name: name for name in ("customer_id", "time", "amount")}
    lent = {"version": 1, "name": "scores", "data": {"transactions": {"columns": columns}}}
    return Project.model_validate({**lent, "folder": Path.cwd()})


def as_written(column: str, source: Source) -> str:
    """Return the SQL of a text as it was before it was written: in a CSV file of ours formulas have a quote more."""
    if not source.files[0].lower().endswith(_CSV):
        return column
    formula = f"left({column}, 1) = '''' AND regexp_matches({column}, {literal(FORMULA)})"
    return f"CASE WHEN {formula} THEN substr({column}, 2) ELSE {column} END"


def _typed(connection: duckdb.DuckDBPyConnection, source: Source, named: set[str]) -> Source:
    """Return a view in which NaN is NULL, keys are text, and text columns that hold numbers only are numbers."""
    texts = [n for n, kind in source.columns.items() if kind == "VARCHAR" and n not in _KEYS and n in named]
    numeric = dict.fromkeys(texts, False)
    if texts:
        tests = [
            f"coalesce(bool_and(trim({quoted(n)}) = '' OR TRY_CAST({quoted(n)} AS DOUBLE) IS NOT NULL), true)"
            for n in texts
        ]
        row = connection.execute(f"SELECT {', '.join(tests)} FROM {source.view}").fetchall()[0]
        numeric = dict(zip(texts, map(bool, row), strict=True))
    selected, columns = [], {}
    for name, kind in source.columns.items():
        column, sql, columns[name] = quoted(name), quoted(name), kind
        if kind == "VARCHAR" and not numeric.get(name):
            sql = as_written(column, source)
        if name in _KEYS:
            sql, columns[name] = f"nullif({sql}::VARCHAR, '')", "VARCHAR"
        elif numeric.get(name) or kind in {"DOUBLE", "FLOAT"}:
            number = f"TRY_CAST({column} AS DOUBLE)"
            sql, columns[name] = f"CASE WHEN NOT isnan({number}) THEN {number} END", "DOUBLE"
        selected.append(f"{sql} AS {column}")
    connection.execute(f"CREATE OR REPLACE VIEW {_VIEW} AS SELECT {', '.join(selected)} FROM {source.view}")
    return Source(_VIEW, columns, source.files, origins=source.origins)


def _check_keys(scores: Scores, keys: Sequence[str]) -> None:
    """Raise `DataError` for a table without a row, an empty key, or a customer who is there twice."""
    empty = ", ".join(f"count(*) FILTER ({name} IS NULL)" for name in keys)
    counts = scores.connection.execute(f"SELECT count(*), {empty} FROM {_VIEW}").fetchall()[0]
    if not counts[0]:
        raise DataError(f"{scores.file}: the table has no row")
    for name, missing in zip(keys, counts[1:], strict=True):
        if missing:
            raise DataError(f"{scores.file}: {name} is empty in {missing:,} rows; fill it, or leave these rows out")
    once = [name for name in ("customer_id", "action") if name in keys]
    twice = scores.connection.execute(
        f"SELECT customer_id, count(*) FROM {_VIEW} GROUP BY {', '.join(once)} HAVING count(*) > 1 ORDER BY 1 LIMIT 1"
    ).fetchall()
    if twice:
        name, rows = twice[0]
        every = " and ".join(once)
        raise DataError(f"{scores.file}: customer {name!r} has {rows} rows; the table holds one for each {every}")
