"""The mappings of a project as SQL: a column, or one checked scalar expression over the columns."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import duckdb

from tiermodel.errors import ProjectError
from tiermodel.tables.comparisons import Comparisons
from tiermodel.tables.source import Source, quoted

__all__ = ["Expression", "bind", "nodes", "refuse_unrepeatable"]

_RESERVED = {"asc", "desc", "end", "from", "group", "order", "select", "table", "to", "user", "when", "where"}
_BEFORE = "SELECT ("
_SHOWN = 100  # columns in a message
# What an expression may be made of: each gives one value for a row, from that row alone.
_OF_A_ROW = {
    "BETWEEN", "CASE", "CAST", "COLLATE", "COLUMN_REF", "COMPARISON", "CONJUNCTION", "CONSTANT", "FUNCTION", "LAMBDA",
    "LAMBDA_REF", "OPERATOR", "TYPE",
}  # fmt: skip
# Functions whose result is an instant: their numbers count from 1970-01-01 in UTC, whatever the project's zone.
_INSTANTS = {"epoch_ms", "make_timestamp", "make_timestamp_ms", "make_timestamp_ns"}


@dataclass(frozen=True)
class Expression:
    """A mapped value: its SQL over the source view, its DuckDB type, and its text in the project file."""

    sql: str
    type: str
    text: str

    @property
    def inside(self) -> str:
        """The text as it can stand inside other SQL of the project file: a name as it is where it needs no quotes."""
        if self.sql != quoted(self.text):
            return f"({self.text})"
        plain = re.fullmatch(r"[A-Za-z_]\w*", self.text) and self.text.lower() not in _RESERVED
        return self.text if plain else self.sql


def bind(connection: duckdb.DuckDBPyConnection, source: Source, key: str, text: str) -> Expression:
    """Return a mapping as SQL; raise ProjectError where it is not one scalar over the source's columns.

    Text (in a CSV all columns are) in arithmetic, or compared with a number, is read as a number. A row on which an
    expression fails yields NULL. The time of an epoch number, as by `epoch_ms`, is an instant, not a local time.
    """
    if text in source.columns:
        return Expression(quoted(text), source.columns[text], text)
    tree = _parsed(connection, source, key, text)
    found = list(nodes(tree))
    _refuse_unknown(source, key, text, found)
    refuse_unrepeatable(connection, key, text, found)
    sql = Comparisons(connection, source, key, text).with_numbers(tree)
    # Aggregates, windows and unnest do not bind inside WHERE, so only a scalar passes.
    try:
        connection.execute(f"EXPLAIN SELECT 1 FROM {source.view} WHERE (TRY({sql}\n)) IS NULL")
        rows = connection.execute(f"DESCRIBE SELECT TRY({sql}\n) FROM {source.view}").fetchall()
    except duckdb.Error as error:
        raise _problem(key, text, str(error).split("\n", 1)[0]) from error
    root = tree["statements"][0]["node"]["select_list"][0]
    if root.get("function_name") in _INSTANTS and len(root["arguments"]) == 1 and rows[0][1].startswith("TIMESTAMP"):
        return Expression(f"(TRY({sql}\n)::TIMESTAMP AT TIME ZONE 'UTC')", "TIMESTAMP WITH TIME ZONE", text)
    return Expression(f"TRY({sql}\n)", rows[0][1], text)


def _problem(key: str, text: str, what: str) -> ProjectError:
    return ProjectError(f"{key}: {text!r} is neither a column nor an SQL expression over the columns: {what}")


def _parsed(connection: duckdb.DuckDBPyConnection, source: Source, key: str, text: str) -> Any:
    rows = connection.execute("SELECT json_serialize_sql(?)", [f"{_BEFORE}{text}\n) FROM {source.view}"]).fetchall()
    parsed = json.loads(rows[0][0])
    if parsed["error"]:
        looks_like_name = re.fullmatch(r"[\w\s.-]+", text)
        raise (looks_like_name and _nearest(source, key, text, text)) or _problem(key, text, parsed["error_message"])
    node = parsed["statements"][0]["node"]
    extra = ("modifiers", "where_clause", "group_expressions", "having", "sample", "qualify")
    if (
        len(parsed["statements"]) != 1
        or node["type"] != "SELECT_NODE"
        or len(node["select_list"]) != 1
        or node["from_table"].get("table_name") != source.view
        or any(node[part] for part in extra)
    ):
        raise _problem(key, text, "give one expression only")
    return parsed


def nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Yield every node of a parsed statement."""
    if isinstance(tree, dict):
        yield tree
    for child in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        yield from nodes(child)


def _refuse_unknown(source: Source, key: str, text: str, nodes: list[dict[str, Any]]) -> None:
    known = {name.casefold() for name in source.columns}
    for node in nodes:
        if node.get("class", "CONSTANT") not in _OF_A_ROW:
            raise _problem(key, text, f"a {node['class'].lower()} is not allowed; give one value per row")
        if node.get("class") == "COLUMN_REF" and len(node["column_names"]) == 1:
            name = node["column_names"][0]
            if name.casefold() not in known and not _is_keyword(name):
                raise _nearest(source, key, text, name) or ProjectError(
                    f"TM1307 {key}: {text!r}: there is no column {name!r}. {_there_are(source)}"
                )


def _is_keyword(name: str) -> bool:
    return name.casefold() in {"current_date", "current_time", "current_timestamp", "localtime", "localtimestamp"}


def _nearest(source: Source, key: str, text: str, name: str) -> ProjectError | None:
    folded = {column.casefold(): column for column in source.columns}
    near = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.5)
    if not near:
        return None
    return ProjectError(
        f"TM1307 {key}: {text!r}: there is no column {name!r}; did you mean {folded[near[0]]!r}? {_there_are(source)}"
    )


def _there_are(source: Source) -> str:
    """Return the columns in words; of a single one, that the file may part its columns by another mark."""
    told = f"Columns: {', '.join(list(source.columns)[:_SHOWN])}"
    if len(source.columns) > _SHOWN:
        told += f" and {len(source.columns) - _SHOWN:,} more"
    if len(source.columns) == 1:
        told += " (one only: the first line must name all columns, parted by commas, semicolons, tabs or |)"
    return told


def refuse_unrepeatable(
    connection: duckdb.DuckDBPyConnection, key: str, text: str, nodes: list[dict[str, Any]]
) -> None:
    """Raise ProjectError for the clock, random numbers and settings: equal rows must give equal values on every run."""
    names = [str(node["function_name"]).casefold() for node in nodes if node.get("class") == "FUNCTION"]
    unstable = {
        name
        for (name,) in connection.execute(
            "SELECT DISTINCT function_name FROM duckdb_functions() "
            "WHERE stability <> 'CONSISTENT' AND list_contains(?, function_name)",
            [names],
        ).fetchall()
    }
    unstable |= {
        node["column_names"][0]
        for node in nodes
        if node.get("class") == "COLUMN_REF" and _is_keyword(node["column_names"][0])
    }
    if unstable:
        raise _problem(key, text, f"{min(unstable)} does not give the same value on every run")
