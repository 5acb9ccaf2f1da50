"""What the values of each column tell: how many there are, whether they are numbers or days, and how they repeat."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from tiermodel.project_init.forms import NumberForm, TimeForm, number_form, time_form
from tiermodel.project_init.sample import Sample
from tiermodel.tables.source import quoted

__all__ = ["Column", "columns_of", "days_sql", "epoch_call", "inside"]

_NOTHING = {"", "null", "none", "nan", "n/a", "-", "--", "\\n", "(null)", "#n/a"}
_NUMBERS = re.compile(r"U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?|FLOAT|DOUBLE|DECIMAL.*")
_EPOCHS = {10: "to_timestamp({})", 13: "epoch_ms({})"}
_SAME = 0.95  # of the values, which are written alike
_DAYS = re.compile(r"DATE|TIMESTAMP.*")
_RESERVED = {"asc", "desc", "end", "from", "group", "order", "select", "table", "to", "user", "when", "where", "date"}


@dataclass(frozen=True)
class Column:
    """A column of a sample: its values as text (None: no value), and what they look like.

    `filled` is the share of rows with a value (0–1), `personal` the kind of personal data, else empty.
    """

    name: str
    type: str
    cells: tuple[str | None, ...]
    filled: float
    distinct: int
    number: NumberForm | None
    time: TimeForm | None
    personal: str

    @property
    def values(self) -> list[str]:
        """The values that there are."""
        return [cell for cell in self.cells if cell is not None]

    @property
    def has_decimals(self) -> bool:
        """Whether some values are numbers, not all of them whole."""
        return self.number is not None and any(not value.is_integer() for value in self.number.values)

    @property
    def shares(self) -> Counter[str]:
        """How often each value stands."""
        return Counter(self.values)

    @property
    def sql(self) -> str:
        """The SQL of the column inside an expression of the project file."""
        return inside(self.name)

    @property
    def as_text(self) -> str:
        """The SQL of the column as text."""
        return self.sql if self.type == "VARCHAR" else f"{self.sql}::VARCHAR"

    @property
    def in_arithmetic(self) -> str:
        """The SQL of the column as an operand: plain numbers need no cast there, text or not."""
        return self.sql if self.number is None or self.number.is_plain else self.number.sql(self.sql)

    @property
    def as_number(self) -> str:
        """The SQL of the column as a number."""
        if self.type != "VARCHAR" or self.number is None:
            return self.sql
        return f"TRY_CAST({self.number.sql(self.sql)} AS DOUBLE)"


def inside(name: str) -> str:
    """Return a column's name as it stands inside an expression: quoted, unless it is a plain word.

    >>> inside("order_no"), inside("Customer ID")
    ('order_no', '"Customer ID"')
    """
    plain = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) and name.lower() not in _RESERVED
    return name if plain else quoted(name)


def epoch_call(column: Column) -> str | None:
    """Return the SQL of days that are written as whole numbers; None for other numbers, and for text that is read."""
    if column.number is None or column.has_decimals or not column.values:
        return None
    lengths = Counter(len(value) for value in column.values)
    length, count = lengths.most_common(1)[0]
    if count < _SAME * len(column.values):
        return None
    number = column.sql if column.type != "VARCHAR" else f"TRY_CAST({column.sql} AS BIGINT)"
    if length in _EPOCHS and all(value[0] == "1" for value in column.values[:50]):
        return _EPOCHS[length].format(number)
    if length == 8 and column.type != "VARCHAR" and all(re.match(r"(19|20)\d\d[01]", v) for v in column.values[:50]):
        return f"strptime({column.sql}::BIGINT::VARCHAR, '%Y%m%d')"
    return None


def days_sql(column: Column) -> str:
    """Return the mapping of a column of days: its name, or the SQL that reads how they are written."""
    if column.time is not None:
        return column.time.sql or column.name
    return epoch_call(column) or column.name


def columns_of(sample: Sample) -> dict[str, Column]:
    """Return what is known of every column of a sample, by its name."""
    personal = {found.column: found.kind for found in sample.personal}
    return {
        name: _column(name, kind, sample.rows.column(name), personal.get(name, ""))
        for name, kind in sample.columns.items()
    }


def _column(name: str, kind: str, array: pa.ChunkedArray, personal: str) -> Column:
    cells = tuple(_cell(value) for value in _texts(array))
    values = [cell for cell in cells if cell is not None]
    number, time = None, None
    if _NUMBERS.fullmatch(kind):
        numbers = tuple(float(value) for value in values)
        number = NumberForm("", ".", wide=False, minus=False, brackets=False, share=1.0, values=numbers)
    elif kind == "VARCHAR":
        time = time_form(values, inside(name))
        number = number_form(values) if time is None or re.fullmatch(r"\d{8}", values[0]) else None
    elif _DAYS.fullmatch(kind):
        time = TimeForm("", "", 1.0, ())
    filled = len(values) / len(cells) if cells else 0.0
    return Column(name, kind, cells, filled, len(set(values)), number, time, personal)


def _texts(array: pa.ChunkedArray) -> Sequence[str | None]:
    kind = array.type
    if pa.types.is_floating(kind):
        return [_whole(value) for value in array.to_pylist()]
    try:
        return list(pc.cast(array, pa.string()).to_pylist())
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        return [None if value is None else str(value) for value in array.to_pylist()]


def _whole(value: float | None) -> str | None:
    if value is None or value != value:  # noqa: PLR0124 not a number
        return None
    return str(int(value)) if value.is_integer() else repr(value)


def _cell(value: str | None) -> str | None:
    """Return a cell without white space around it and without what spreadsheets put around ids; None for nothing."""
    if value is None:
        return None
    bare = value.strip()
    return None if bare.lower() in _NOTHING else bare
