"""The features that a project adds: a measure of one row, summed over windows, or a formula over features."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterator
from keyword import iskeyword
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, field_validator, model_validator

from tiermodel.config.data import Section, Text
from tiermodel.config.targets import Days
from tiermodel.config.yaml_reader import shown

__all__ = ["FUNCTIONS", "WINDOW", "CustomFeature", "custom_column", "increasing", "is_custom", "names_in", "parsed"]


FUNCTIONS: dict[str, int] = {"abs": 1, "sqrt": 1, "min": 2, "max": 2, "coalesce": 2}
"""The functions of formulas, with the number of their arguments: those whose results are the same bits everywhere."""

WINDOW = "{w}"
"""What stands for the length of a window, in days, in a formula."""
_PREFIX, _LONGEST = "custom_", 500
_OPERATIONS = (ast.Add, ast.Sub, ast.Mult, ast.Div)


def custom_column(name: str) -> str:
    """Return the column of the stream, and the measure, that holds the measure of a custom feature."""
    return f"{_PREFIX}{name}"


def is_custom(column: str) -> bool:
    """Return whether a column of the stream is the measure of a custom feature."""
    return column.startswith(_PREFIX)


def parsed(formula: str) -> ast.expr:
    """Return the tree of a formula; `ValueError`, with the remedy, for anything but arithmetic over names and numbers.

    >>> sorted(names_in(parsed("coalesce(gifts_30d, 0) / order_count_30d")))
    ['gifts_30d', 'order_count_30d']
    """
    if len(formula) > _LONGEST:
        raise ValueError(f"is longer than {_LONGEST} characters: name a part of it as a custom feature of its own")
    try:
        tree = ast.parse(formula.strip().replace(WINDOW, "1"), mode="eval").body
    except (SyntaxError, RecursionError, MemoryError) as error:
        words = error.msg if isinstance(error, SyntaxError) else "it is nested too deeply"
        raise ValueError(f"{shown(formula)} is not a formula: {words}; write such as a / b") from None
    for node in _operands(tree):
        if (fault := _fault(node)) is not None:
            raise ValueError(f"{shown(formula)}: {fault}")
    if not list(names_in(tree)):
        raise ValueError(f"{shown(formula)} names no feature; `tiermodel show features` prints their names")
    return tree


def _operands(tree: ast.expr) -> Iterator[ast.expr]:
    """Yield every part of a formula, but for the names of functions."""
    yield tree
    parts = tree.args if isinstance(tree, ast.Call) else ast.iter_child_nodes(tree)
    for part in parts:
        if isinstance(part, ast.expr):
            yield from _operands(part)


def _fault(node: ast.expr) -> str | None:
    match node:
        case ast.Name() | ast.UnaryOp(op=ast.USub() | ast.UAdd()):
            return None
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return None if _is_finite(value) else f"{value:.3g} is not a finite number"
        case ast.BinOp(op=operation):
            return None if isinstance(operation, _OPERATIONS) else "use + - * / only; a square is a * a"
        case ast.Call(func=ast.Name(id=name), args=given, keywords=[]) if name in FUNCTIONS:
            wanted = FUNCTIONS[name]
            return None if len(given) == wanted else f"{name} takes {wanted} arguments, got {len(given)}"
        case _:
            return f"{ast.unparse(node)[:40]!r} is not allowed: use names, numbers, + - * / and {', '.join(FUNCTIONS)}"


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False


def names_in(tree: ast.expr) -> Iterator[str]:
    """Yield the names of features in a formula."""
    return (node.id for node in _operands(tree) if isinstance(node, ast.Name))


def increasing(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the values as they are; `ValueError` unless there is one or more, increasing, each once."""
    wanted = tuple(sorted(set(values)))
    if not values or values != wanted:
        instead = f"; write [{', '.join(map(str, wanted))}]" if values else ""
        raise ValueError(f"expected one value or more, increasing, each once{instead}")
    return values


class CustomFeature(Section):
    """A feature of the project's own: its names (one language is enough), unit, and a `measure` or a `formula`.

    A `measure` is a column of a `table`, or an SQL expression over the columns of one row of it. Its sums are the
    features `NAME_30d` … for `windows_days` (by default those of `features`) and `NAME_total`. It is rounded to
    1/10,000. A row where it is NULL counts as zero; one where it is text or not finite is quarantined.

    A `formula` computes the feature NAME from other features, also custom ones above it: + - * /, abs, sqrt, min, max,
    and coalesce(x, y), which is y where x is missing. With `{w}` in it there is a feature `NAME_30d` … for every
    window. It is missing where a part is missing, on division by zero, and where the result is not finite.

    Invoices are no `table`: a payment is written into the row of the invoice later, so its row knows the future.
    """

    name: str
    name_zh: Text
    name_en: Text
    unit: Literal["count", "amount", "days", "share", "ratio", "number"] = "number"
    measure: Text | None = None
    table: Literal["transactions", "events", "costs"] = "transactions"
    formula: Text | None = None
    windows_days: Annotated[tuple[Days, ...], AfterValidator(increasing)] | None = None

    @field_validator("name")
    @classmethod
    def _identifier(cls, value: str) -> str:
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,49}", value) or iskeyword(value) or value in FUNCTIONS:
            raise ValueError(
                f"use lower-case letters, digits and '_', beginning with a letter, 50 at most and no word of formulas, "
                f"such as gift_lines; got {shown(value)}"
            )
        return value

    @model_validator(mode="before")
    @classmethod
    def _one_name_for_both(cls, given: Any) -> Any:
        if isinstance(given, dict) and ("name_zh" in given) != ("name_en" in given):
            name = given.get("name_zh", given.get("name_en"))
            return {**given, "name_zh": name, "name_en": name}
        return given

    @field_validator("formula")
    @classmethod
    def _arithmetic(cls, value: str | None) -> str | None:
        if value is not None:
            parsed(value)
        return value

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.measure is None) == (self.formula is None):
            raise ValueError("expected either `measure` (an expression over one row) or `formula` (over features)")
        if self.formula is not None and self.table != "transactions":
            raise ValueError("`table` belongs to a measure; a formula reads features: remove `table`")
        if self.formula is not None and self.windows_days is not None and WINDOW not in self.formula:
            raise ValueError("windows_days needs `{w}` in the formula, such as gifts_{w}d / order_count_{w}d")
        return self

    @property
    def windowed(self) -> bool:
        """Whether there is a feature for every window."""
        return self.formula is None or WINDOW in self.formula
