"""Rows that a query joins from named files; the query reads these files and nothing else, and not forever."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from threading import Timer

import duckdb

from tiermodel.config.data import Rows
from tiermodel.config.project import Project
from tiermodel.errors import ProjectError
from tiermodel.tables.expressions import nodes, refuse_unrepeatable
from tiermodel.tables.readers.files import open_files
from tiermodel.tables.source import (
    FILE,
    NO_EXTENSIONS,
    ROW,
    Source,
    check_names,
    from_copy,
    literal,
    quoted,
    refuse_changed,
    scratch_folder,
)

__all__ = ["MOST_SECONDS", "open_joined"]

MOST_SECONDS = 3_600
"""How long a query may take."""


def open_joined(
    connection: duckdb.DuckDBPyConnection, project: Project, name: str, paths: Mapping[str, str], rows: Rows
) -> Source:
    """Return the rows that the query of a table selects from the named files, in a fixed order.

    Raises ProjectError for a query that is not one SELECT, that reads anything but the files, or that takes too long.
    """
    query, key = rows.query or "", f"data.{name}"
    _refuse_unlike_select(connection, f"{key}.query", query)
    folder = scratch_folder(connection)
    parts, copies = [], dict[str, Path]()
    for number, (given, path) in enumerate(paths.items()):
        view = f"{name}_file_{number}"
        part = open_files(connection, project, view, f"{key}.path.{given}", path, rows.encoding)
        parts.append(part)
        copies[given] = folder / f"{view}.parquet"
        cursor = connection.cursor()
        cursor.execute("SET preserve_insertion_order = true")
        cursor.execute(
            f"COPY (SELECT * EXCLUDE ({FILE}, {ROW}) FROM {part.view}) TO '{copies[given]}' (FORMAT parquet)"
        )
        cursor.execute("SET preserve_insertion_order = false")
    copy = folder / "rows.parquet"
    _select(project, f"{key}.query", query, copies, copy)
    for file in copies.values():
        file.unlink()
    source = from_copy(connection, f"{name}_source", f"{key}.query", copy)
    rejected = tuple(record for part in parts for record in part.rejected)
    warnings = tuple(warning for part in parts for warning in part.warnings)
    origins = tuple(file for part in parts for file in part.origins)
    for part in parts:
        refuse_changed(part.seen)
    return replace(source, rejected=rejected, warnings=warnings, origins=origins)


def _select(project: Project, key: str, query: str, files: Mapping[str, Path], out: Path) -> None:
    """Write the rows of a query, in a DuckDB of its own that can open its files and no other, and change no setting."""
    allowed = ", ".join(literal(str(path)) for path in (*files.values(), out))
    with duckdb.connect(config={**NO_EXTENSIONS, "python_enable_replacements": "false"}) as own:
        own.execute(f"SET temp_directory = {literal(str(out.with_suffix('.spill')))}")
        own.execute(f"SET memory_limit = {literal(project.data.memory)}")
        own.execute(f"SET GLOBAL TimeZone = {literal(project.timezone)}")
        own.execute(f"SET allowed_paths = [{allowed}]")
        own.execute("SET enable_external_access = false")
        for name, path in files.items():
            own.execute(f"CREATE VIEW {quoted(name)} AS FROM read_parquet({literal(str(path))})")
        own.execute("SET lock_configuration = true")
        late = Timer(MOST_SECONDS, own.interrupt)
        late.start()
        try:
            check_names(key, (column[0] for column in own.execute(f"DESCRIBE {query}\n").fetchall()))
            own.execute(f"COPY (SELECT * FROM ({query}\n) ORDER BY ALL) TO {literal(str(out))} (FORMAT parquet)")
        except duckdb.PermissionException:
            known = ", ".join(files)
            raise ProjectError(
                f"{key}: it may read the named files only ({known}), and no other file, address or extension: name "
                "what it needs under `path`"
            ) from None
        except duckdb.InterruptException:
            words = f"it takes more than {MOST_SECONDS:,} seconds and was stopped; write its rows to a file beforehand"
            raise ProjectError(f"{key}: {words}") from None
        except duckdb.Error as error:
            words = str(error).split("\n", 1)[0]
            raise ProjectError(f"{key}: {words}. It may use: {', '.join(files)}") from error
        finally:
            late.cancel()


def _refuse_unlike_select(connection: duckdb.DuckDBPyConnection, key: str, query: str) -> None:
    """Raise ProjectError unless the query is one SELECT that returns the same rows on every run."""
    parsed = json.loads(connection.execute("SELECT json_serialize_sql(?)", [query]).fetchall()[0][0])
    if parsed["error"] or len(parsed["statements"]) != 1:
        raise ProjectError(f"{key}: give one SELECT: {parsed.get('error_message', 'there are several statements')}")
    refuse_unrepeatable(connection, key, query, list(nodes(parsed)))
