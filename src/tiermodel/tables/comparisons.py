"""Numbers compare as numbers: text in arithmetic, or beside a number, is cast, and what is in doubt is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import duckdb

from tiermodel.errors import ProjectError
from tiermodel.tables.source import Source

__all__ = ["Comparisons"]

_ARITHMETIC = {"+", "-", "*", "/", "//", "%"}
_ALIKE = {"nullif", "greatest", "least"}
_ORDERED = {"greatest", "least", "COMPARE_LESSTHAN", "COMPARE_GREATERTHAN", "COMPARE_LESSTHANOREQUALTO",
            "COMPARE_GREATERTHANOREQUALTO", "COMPARE_BETWEEN"}  # fmt: skip
_NUMBERS = re.compile(r"U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?|FLOAT|DOUBLE|DECIMAL.*")
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*")

_Kind = Literal["number", "text", "text constant", "number in quotes", "nothing", "other"]


@dataclass(frozen=True)
class _Operand:
    """An operand of a node: where it stands in the tree, and what it is."""

    home: Any
    place: str | int
    kind: _Kind

    @property
    def node(self) -> dict[str, Any]:
        return self.home[self.place]

    def cast(self, *, strictly: bool) -> None:
        """Put `TRY_CAST(… AS DOUBLE)` around the operand, or, where NULL would not fail, `CAST(… AS DOUBLE)`."""
        kind = {"class": "TYPE", "type": "TYPE", "alias": "", "query_location": 0, "query_location_length": 0,
                "catalog": "", "schema": "", "type_name": "DOUBLE", "children": [],
                "qualified_name": {"path": ["DOUBLE"]}}  # fmt: skip
        self.home[self.place] = {
            "class": "CAST", "type": "OPERATOR_CAST", "alias": "", "query_location": 0, "query_location_length": 0,
            "child": self.node, "try_cast": not strictly, "type_expr": kind,
        }  # fmt: skip


@dataclass(frozen=True)
class Comparisons:
    """The comparisons and the arithmetic in an expression over a source, given at a key of the project file."""

    connection: duckdb.DuckDBPyConnection
    source: Source
    key: str
    text: str

    def with_numbers(self, tree: Any) -> str:
        """Return the SQL of the expression with casts where text is used as a number; the text itself without any.

        Raises ProjectError where two columns of text are compared that both hold numbers.
        """
        if self._changed(tree["statements"][0]["node"]["select_list"], tree):
            return self._sql(tree)
        return self.text

    def _sql(self, tree: Any) -> str:
        found = self.connection.execute("SELECT json_deserialize_sql(?)", [json.dumps(tree)]).fetchall()[0][0]
        return str(found).removeprefix("SELECT ")[: -len("SELECT ")].rpartition(" FROM ")[0] or str(found)

    def _changed(self, part: Any, tree: Any) -> bool:
        """Cast what must be cast in a part of the tree, innermost first, and return whether there was anything."""
        inner = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
        changed = sum(self._changed(child, tree) for child in list(inner)) > 0  # every one of them
        if not isinstance(part, dict) or not (places := list(_places(part))):
            return changed
        operands = [_Operand(home, place, self._kind(home[place], tree)) for home, place in places]
        numeric = self._to_cast(part, operands, tree)
        for operand in numeric:
            operand.cast(strictly=part.get("function_name") in {"greatest", "least"})
        return changed or bool(numeric)

    def _to_cast(self, node: dict[str, Any], operands: list[_Operand], tree: Any) -> list[_Operand]:
        kinds = {operand.kind for operand in operands}
        texts = [operand for operand in operands if operand.kind == "text"]
        if not texts or "other" in kinds:
            return []
        if "number" in kinds or _is_arithmetic(node):
            return texts
        ordered = {node["type"], node.get("function_name")} & _ORDERED
        if ordered and "number in quotes" in kinds:
            return [operand for operand in operands if operand.kind != "nothing"]
        unsaid = [operand.node for operand in texts if operand.node["class"] != "CAST"]
        if len(unsaid) > 1:
            self._refuse_numbers([self._of(one, tree) for one in unsaid[:2]])
        return []

    def _kind(self, node: dict[str, Any], tree: Any) -> _Kind:
        if node["class"] == "CONSTANT":
            literal = node.get("literal") or {}
            if literal.get("kind") in {"INTEGER", "NUMERIC"}:
                return "number"
            if literal.get("kind") != "STRING":
                return "nothing" if literal.get("kind") == "NULL" else "other"
            return "number in quotes" if _NUMBER.fullmatch(str(literal.get("text", ""))) else "text constant"
        try:
            found = self.connection.execute(
                f"DESCRIBE SELECT {self._of(node, tree)} FROM {self.source.view}"
            ).fetchall()
        except duckdb.Error:
            return "other"
        return "text" if found[0][1] == "VARCHAR" else "number" if _NUMBERS.fullmatch(found[0][1]) else "other"

    def _of(self, node: dict[str, Any], tree: Any) -> str:
        """Return the SQL of a node."""
        statement = tree["statements"][0]
        alone = {**statement, "node": {**statement["node"], "select_list": [node]}}
        return self._sql({**tree, "statements": [alone]})

    def _refuse_numbers(self, sql: list[str]) -> None:
        hold = " AND ".join(f"count(TRY_CAST({one} AS DOUBLE)) > 0" for one in sql)
        if not self.connection.execute(f"SELECT {hold} FROM {self.source.view}").fetchall()[0][0]:
            return
        numbers, texts = (
            " and ".join(form.format(one) for one in sql) for form in ("TRY_CAST({} AS DOUBLE)", "{}::VARCHAR")
        )
        raise ProjectError(
            f"{self.key}: {self.text!r} compares {' with '.join(sql)} as text, in which 900 is more than 1000, and "
            f"both hold numbers: write {numbers}, or {texts} where text is meant"
        )


def _places(node: dict[str, Any]) -> Iterator[tuple[Any, str | int]]:
    """Yield where the operands of arithmetic, a comparison or a function that compares stand; none of other nodes."""
    named = {"COMPARISON": ("left", "right"), "BETWEEN": ("input", "lower", "upper")}
    yield from ((node, name) for name in named.get(node.get("class", ""), ()))
    if node.get("class") == "OPERATOR" and node["type"] in {"COMPARE_IN", "COMPARE_NOT_IN"}:
        yield from ((node["children"], place) for place in range(len(node["children"])))
    if _is_arithmetic(node) or (node.get("class") == "FUNCTION" and node["function_name"] in _ALIKE):
        yield from ((argument, "expression") for argument in node["arguments"])


def _is_arithmetic(node: dict[str, Any]) -> bool:
    return node.get("class") == "FUNCTION" and node["function_name"] in _ARITHMETIC
