"""Text attributes of customers in the stream of rows, and the limit on their distinct values."""

from __future__ import annotations

from collections.abc import Mapping

from tiermodel.errors import DataError
from tiermodel.tables.privacy import masked
from tiermodel.tables.source import Run, Source

__all__ = ["MOST_VALUES", "is_text", "refuse_many_values", "text_column"]

MOST_VALUES = 1_000
"""The most distinct values of a text attribute: with more, it is a name or an address, which makes no groups."""
_PREFIX, _SHOWN = "text_", 5


def text_column(name: str) -> str:
    """Return the column of the stream that holds the text attribute `name`."""
    return f"{_PREFIX}{name}"


def is_text(column: str) -> bool:
    """Return whether a column of the stream holds a text attribute.

    >>> is_text(text_column("industry")), is_text("attribute_size")
    (True, False)
    """
    return column.startswith(_PREFIX)


def refuse_many_values(run: Run, source: Source, good_rows: str, mapped: Mapping[str, str], *, hide: bool) -> None:
    """Raise `DataError` where a text attribute has more than `MOST_VALUES` distinct values.

    `good_rows` is SQL over the view of the source that has the values as `_tm_<column>_value`; `mapped` has the column
    or expression of each canonical column. The examples are masked if `hide`.
    """
    for column in filter(is_text, mapped):
        value = f"_tm_{column}_value"
        distinct = (
            f"SELECT DISTINCT {value} AS value FROM ({good_rows}) WHERE {value} IS NOT NULL LIMIT {MOST_VALUES + 1}"
        )
        found = {text for batch in run(source, distinct) for text in batch.column(0).to_pylist()}
        if len(found) > MOST_VALUES:
            examples = ", ".join(repr(masked(text) if hide else text) for text in sorted(found)[:_SHOWN])
            raise DataError(
                f"TM2057 data.customers.categories.{column.removeprefix(_PREFIX)} ({mapped[column]}) has more than "
                f"{MOST_VALUES:,} distinct values, such as {examples}: map a coarser expression, such as a CASE, or "
                "remove it"
            )
