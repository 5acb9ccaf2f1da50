"""Read the rows of a database query, streamed and read-only: SQLite by the standard library, PostgreSQL by ADBC."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit, urlunsplit

import duckdb
import pyarrow as pa

from tiermodel.config.project import Project
from tiermodel.errors import DataError, OutputError, ProjectError
from tiermodel.tables.source import Source, check_names, from_batches, quoted

__all__ = ["open_query"]

_BATCH = 100_000
_CONNECT_SECONDS = 10


def open_query(
    connection: duckdb.DuckDBPyConnection, project: Project, view: str, key: str, url: str, query: str
) -> Source:
    """Return a source with a copy of the rows that `query` selects from the database at `url`.

    Raises ProjectError for a query that the database refuses, DataError for a database that is not there, OutputError
    where it does not answer. No message has a user's name or password.
    """
    if url.startswith("sqlite"):
        return _sqlite(connection, project.resolve(urlsplit(url).path.removeprefix("/")), view, key, query)
    return _postgresql(connection, url, view, key, query)


def _sqlite(connection: duckdb.DuckDBPyConnection, path: str, view: str, key: str, query: str) -> Source:
    if not Path(path).is_file():
        raise DataError(f"TM1004 {key}.path: {path} does not exist")
    try:
        with closing(sqlite3.connect(f"{Path(path).as_uri()}?mode=ro", uri=True)) as database:
            database.execute("BEGIN")  # what types the cells have, and the cells, are of one moment
            schema = _sqlite_schema(database, query)
            columns = ", ".join(_as_is(field) for field in schema)
            cursor = database.execute(f"SELECT {columns} FROM ({query}\n)")

            def batches() -> Iterator[pa.RecordBatch]:
                while rows := cursor.fetchmany(_BATCH):
                    values = zip(*rows, strict=True)
                    arrays = [pa.array(column, field.type) for column, field in zip(values, schema, strict=True)]
                    yield pa.record_batch(arrays, schema=schema)

            source = from_batches(connection, view, f"sqlite:{Path(path).name}", schema, batches())
            return replace(source, origins=(path,))
    except sqlite3.DatabaseError as error:
        if "not a database" in str(error):
            raise DataError(f"TM1006 {path} is not an SQLite database, or it is encrypted or damaged") from error
        raise ProjectError(f"{key}.query: SQLite refuses it: {error}") from error


def _sqlite_schema(database: sqlite3.Connection, query: str) -> pa.Schema:
    """Return one type for each column: integer or float where all its cells fit, else text (SQLite types cells)."""
    names = [column[0] for column in database.execute(f"SELECT * FROM ({query}\n) LIMIT 0").description]
    checks = ", ".join(
        f"max(typeof({quoted(n)}) IN ('text', 'blob')), max(typeof({quoted(n)}) = 'real'), "
        f"max(typeof({quoted(n)}) = 'integer'), max(abs({quoted(n)} * 1.0) >= 9007199254740992)"
        for n in names
    )
    found = database.execute(f"SELECT {checks} FROM ({query}\n)").fetchone()
    return pa.schema([(name, _type_of(*found[4 * place : 4 * place + 4])) for place, name in enumerate(names)])


def _type_of(text: int | None, real: int | None, whole: int | None, large: int | None) -> pa.DataType:
    """Return the type of a column that has some text, real, whole or large cells; a double holds no large whole one."""
    if text or not (real or whole) or (real and whole and large):
        return pa.string()
    return pa.float64() if real else pa.int64()


def _as_is(field: pa.Field) -> str:
    return f"CAST({quoted(field.name)} AS TEXT)" if field.type == pa.string() else quoted(field.name)


def _postgresql(connection: duckdb.DuckDBPyConnection, url: str, view: str, key: str, query: str) -> Source:
    try:
        from adbc_driver_postgresql import dbapi  # noqa: PLC0415
    except ImportError:
        raise ProjectError(f"{key}.path: reading PostgreSQL needs: pip install 'tiermodel[database]'") from None
    try:
        parts = urlsplit(url)
        secrets = (parts.username, parts.password, *dict(parse_qsl(parts.query)).values())
        what = f"postgresql://{parts.hostname or ''}{parts.path}"
    except ValueError as error:
        raise ProjectError(f"{key}.path: not a URL such as postgresql://user@host/database: {error}") from None
    options = f"{parts.query}&" if parts.query else ""
    target = urlunsplit(parts._replace(query=f"{options}connect_timeout={_CONNECT_SECONDS}"))
    try:
        database = dbapi.connect(target)
    except dbapi.Error as error:
        raise OutputError(
            f"{key}.path: {what} does not let us in: {_plain(error, *secrets)}. "
            "Is the server up, and the user right? A password can be set as PGPASSWORD."
        ) from error
    with closing(database), closing(database.cursor()) as cursor:
        try:
            cursor.execute("SET TRANSACTION READ ONLY")
            cursor.execute(_with_plain_types(cursor.adbc_execute_schema(f"{query}\n"), query, what))
            reader = cursor.fetch_record_batch()
            return from_batches(connection, view, what, reader.schema, reader)
        except (dbapi.Error, OSError) as error:
            words = _plain(error, *secrets)
            raise ProjectError(f"{key}.query: {what} refuses it: {words}") from error


def _with_plain_types(schema: pa.Schema, query: str, what: str) -> str:
    """Return a query whose columns the driver hands over as they are; the others as numbers, dates or text."""
    if not schema.names:  # no query of rows: let the server say so
        return query
    check_names(what, schema.names)
    columns = [(field.name, _cast(field)) for field in schema]
    lines = f"{query}\n"  # brackets are put around it, and its last line may be a comment
    if all(sql == quoted(name) for name, sql in columns):
        return lines
    return f"SELECT {', '.join(f'{sql} AS {quoted(name)}' for name, sql in columns)} FROM ({lines}) AS given"


def _cast(field: pa.Field) -> str:
    """Return the SQL of a column of PostgreSQL without what the driver changes or leaves in the server's own bytes.

    It reads money as cents (or the like), days after 9999, of infinity too, as days long past, and large oids as
    negative; arrays, records, intervals, addresses and the like are text here, as the server writes it.
    """
    kind, name = (field.metadata or {}).get(b"POSTGRESQL:type", b"").decode(), quoted(field.name)
    if kind in {"date", "timestamp", "timestamptz"}:
        return f"CASE WHEN {name} > '9999-12-31' THEN '9999-12-31' ELSE {name} END"
    if numeric := {"money": "numeric", "oid": "bigint"}.get(kind):
        return f"{name}::{numeric}"
    opaque = isinstance(field.type, pa.OpaqueType) and kind != "numeric"
    odd = pa.types.is_nested(field.type) or pa.types.is_interval(field.type) or opaque
    return f"{name}::text" if odd else name


def _plain(error: Exception, *secret: str | None) -> str:
    """Return the line of an error that has the reason, without the secrets."""
    lines = [line for line in str(error).splitlines() if line.strip()] or ["no reason given"]
    words = next((line for line in lines if re.search(r"(ERROR|FATAL):", line)), lines[0])
    for word in filter(None, secret):
        words = words.replace(word, "…")
    return re.sub(r"^.*?(ERROR|FATAL):\s*", "", words)
