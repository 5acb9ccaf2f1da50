"""Seeded customer histories with everything that goes wrong in shops, and how to hand them to the pass as batches."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterable, Sequence
from datetime import date, timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from tiermodel.config import Project
from tiermodel.features.measures import UNKNOWN
from tiermodel.features.panel import EPOCH, Snapshots

Row = dict[str, Any]
FIRST_DAY, LAST_DAY = 17_000, 17_800
COLUMNS = frozenset({"customer_id", "time", "amount", "order_id", "product_id", "category", "cost", "discount"})
WINDOWS = (10, 30, 90, 365)


def customer_id(number: int) -> str:
    return f"客户{number:05d}"


def make_row(
    customer: object, day: int, amount: int, order: int, product: int | None = None, category: int | None = None
) -> Row:
    """Make one row; `row_key` stands for the hash of the whole row, so equal rows have equal keys."""
    row = {"customer_id": customer, "day": day, "amount": amount, "order_key": order}
    row |= {"product_key": product, "category_key": category, "cost": amount * 7 // 10, "discount": max(amount, 0) // 9}
    return row | {"row_key": zlib.crc32(repr(row).encode())}


def _days(draw: random.Random, count: int) -> list[int]:
    return sorted(draw.randint(FIRST_DAY, LAST_DAY) for _ in range(count))


def _lines(draw: random.Random, customer: str, day: int, order: int, sign: int = 1) -> list[Row]:
    lines = []
    for _ in range(draw.randint(1, 4)):
        product = draw.choice([None, *range(1, 15)])
        amount = sign * draw.choice([0, 1, 99_900, draw.randint(1, 5_000_000)])
        lines.append(make_row(customer, day, amount, order, product, None if product is None else product % 4))
    return lines


def _regular(draw: random.Random, customer: str) -> list[Row]:
    start = draw.randint(FIRST_DAY, FIRST_DAY + 200)
    return [row for n, day in enumerate(range(start, LAST_DAY, 14)) for row in _lines(draw, customer, day, n)]


def _with_returns(draw: random.Random, customer: str) -> list[Row]:
    rows = [row for n, day in enumerate(_days(draw, 12)) for row in _lines(draw, customer, day, n)]
    returned = draw.sample(rows, len(rows) // 2)
    return rows + [make_row(customer, r["day"] + draw.randint(0, 20), -r["amount"], r["order_key"]) for r in returned]


def _only_returns(draw: random.Random, customer: str) -> list[Row]:
    return [make_row(customer, day, -draw.randint(1, 900_000), day) for day in _days(draw, 3)]


def _return_first(draw: random.Random, customer: str) -> list[Row]:
    return [make_row(customer, FIRST_DAY + 5, -50_000, 1), *_lines(draw, customer, FIRST_DAY + 90, 2)]


def _one_row(draw: random.Random, customer: str) -> list[Row]:
    return [make_row(customer, draw.randint(FIRST_DAY, LAST_DAY), draw.choice([0, 12_300]), 1, 3, 3)]


def _busy_days(draw: random.Random, customer: str) -> list[Row]:
    days = _days(draw, 4)
    return [row for n in range(20) for row in _lines(draw, customer, days[n % 4], n)]


def _long_orders(draw: random.Random, customer: str) -> list[Row]:
    """Make orders whose lines lie on several days, a subscription among them."""
    rows = [make_row(customer, FIRST_DAY + 30 * n, 99_000, 1, 1, 1) for n in range(20)]
    return rows + [row for n, day in enumerate(_days(draw, 16)) for row in _lines(draw, customer, day, 2 + n // 3)]


def _repeated_rows(draw: random.Random, customer: str) -> list[Row]:
    rows = _busy_days(draw, customer)
    return rows + draw.choices(rows, k=10)


KINDS: tuple[Callable[[random.Random, str], list[Row]], ...] = (
    _regular,
    _with_returns,
    _only_returns,
    _return_first,
    _one_row,
    _busy_days,
    _long_orders,
    _repeated_rows,
)


def random_histories(seed: int, customers: int = 64) -> dict[str, list[Row]]:
    """Make the rows of customers of every kind, keyed by customer, in the order of the keys."""
    draw = random.Random(seed)  # noqa: S311 test data
    return {customer_id(n): KINDS[n % len(KINDS)](draw, customer_id(n)) for n in range(customers)}


def small_histories(largest: int = 20_000_000) -> st.SearchStrategy[dict[str, list[Row]]]:
    """Draw a few customers with a few rows each, close together, so that ties and edges of windows are frequent."""
    key = st.one_of(st.none(), st.integers(1, 3))
    line = st.tuples(st.integers(0, 70), st.tuples(st.integers(-largest, largest), st.integers(0, 4), key, key))
    return st.lists(st.lists(line, min_size=1, max_size=12), min_size=1, max_size=4).map(
        lambda drawn: {
            customer_id(n): [make_row(customer_id(n), FIRST_DAY + day, *rest) for day, rest in lines]
            for n, lines in enumerate(drawn)
        }
    )


def sorted_table(rows: Iterable[Row]) -> pa.Table:
    """Sort rows as an engine does and lay them out as the columns it streams."""
    ordered = sorted(rows, key=lambda r: (r["customer_id"], r["day"], r["row_key"]))
    types = {"customer_id": pa.string() if not ordered or isinstance(ordered[0]["customer_id"], str) else pa.int64()}
    types |= {"day": pa.int32()}
    names = ("customer_id", "day", "amount", "order_key", "product_key", "category_key", "cost", "discount", "row_key")
    columns = {name: [UNKNOWN if row[name] is None else row[name] for row in ordered] for name in names}
    return pa.table({name: pa.array(values, types.get(name, pa.int64())) for name, values in columns.items()})


def as_batches(rows: Iterable[Row], sizes: Sequence[int] = (97,)) -> list[pa.RecordBatch]:
    """Cut the sorted rows into batches of the given sizes, over and over."""
    table, cuts = sorted_table(rows), [0]
    while cuts[-1] < table.num_rows:
        cuts.append(cuts[-1] + sizes[(len(cuts) - 1) % len(sizes)])
    return [table.slice(a, b - a).combine_chunks().to_batches()[0] for a, b in pairwise(cuts)]


def all_rows(histories: dict[str, list[Row]]) -> list[Row]:
    return [row for rows in histories.values() for row in rows]


def make_project(**sections: Any) -> Project:
    """Make a project of our own columns with `WINDOWS`; sections are as in the project file."""
    columns = {name: name for name in COLUMNS}
    data = {"transactions": {"path": "unused.parquet", "columns": columns}}
    base = {"version": 1, "name": "test", "data": data, "features": {"windows_days": WINDOWS}}
    return Project.model_validate({**base, **sections})


def as_dates(days: Iterable[int]) -> tuple[date, ...]:
    return tuple(EPOCH + timedelta(day) for day in days)


def snapshot(batches: Iterable[pa.RecordBatch], days: Iterable[int], project: Project | None = None) -> pa.Table:
    """Make the snapshots of batches at some days, with every feature and without outcome."""
    snapshots = Snapshots(project or make_project(), COLUMNS, as_dates(days))
    return pa.Table.from_batches(snapshots(batches), schema=snapshots.schema)


def same_bits(one: pa.Table, other: pa.Table) -> bool:
    """Compare two tables bit by bit: equal values are not enough, and NaN equals NaN."""
    if one.schema != other.schema or one.num_rows != other.num_rows:
        return False
    columns = zip(one.columns, other.columns, strict=True)
    return all(
        np.array_equal(a.to_numpy().view(np.int64), b.to_numpy().view(np.int64))
        if pa.types.is_float64(a.type)
        else a == b
        for a, b in columns
    )
