"""Seeded customer histories with everything that goes wrong in shops, and how to hand them to the pass as batches."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterable, Sequence
from datetime import date, timedelta
from itertools import pairwise
from typing import Any, get_args

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from tiermodel.config.project import FeatureGroup, Project
from tiermodel.features.measures import UNKNOWN, every_need
from tiermodel.features.panel import Snapshots
from tiermodel.tables.row_kinds import EVENTS
from tiermodel.tables.row_kinds import KINDS as CODES
from tiermodel.tables.table import EPOCH

Row = dict[str, Any]
FIRST_DAY, LAST_DAY = 17_000, 17_800
MAPPED = (
    "customer_id",
    "time",
    "amount",
    "order_id",
    "product_id",
    "category",
    "channel",
    "quantity",
    "cost",
    "discount",
)
COLUMNS = every_need() | {"attribute_size"}
GROUPS: tuple[FeatureGroup, ...] = get_args(FeatureGroup)
WINDOWS = (10, 30, 90, 365)
UNKNOWN_DAY = np.iinfo(np.int32).min


def customer_id(number: int) -> str:
    return f"客户{number:05d}"


def make_row(
    customer: object, day: int, amount: int, order: int, product: int | None = None, category: int | None = None
) -> Row:
    """Make one transaction; `row_key` stands for the hash of the whole row, so equal rows have equal keys."""
    row = {"table": "transactions", "customer_id": customer, "day": day, "amount": amount, "order_key": order}
    row |= {"product_key": product, "category_key": category, "cost": amount * 7 // 10, "discount": max(amount, 0) // 9}
    row |= {"channel_key": None if product is None else (order + product) % 3, "quantity": 10_000 * (1 + amount % 4)}
    return row | {"row_key": zlib.crc32(repr(row).encode())}


def make_event(customer: object, kind: str, day: int, value: int | None = None) -> Row:
    """Make one event; its value in 1/10,000."""
    return {"table": "events", "customer_id": customer, "kind": kind, "day": day, "value": value}


def make_invoice(
    customer: object, amount: int, issued: int, due: int, paid: int | None, disputed: int | None = None
) -> Row:
    """Make one invoice; days as numbers, None for not yet. Some payments are of a part, none at all, or too much."""
    days = {"issued": issued, "due": due, "paid": paid, "disputed": disputed}
    part = None if paid is None else {0: amount // 3, 1: 0, 2: amount + 1}.get(amount % 7)
    return {"table": "invoices", "customer_id": customer, "amount": amount, "paid_amount": part, **days}


def make_profile(
    customer: object,
    valid_from: int | None,
    signup: int | None = None,
    acquisition_cost: int | None = None,
    contract_end: int | None = None,
    size: int | None = None,
) -> Row:
    """Make one row of the customers' table; amounts in 1/10,000, `valid_from` None for always."""
    row = {"table": "customers", "customer_id": customer, "valid_from": valid_from, "signup": signup}
    return row | {"acquisition_cost": acquisition_cost, "contract_end": contract_end, "attribute_size": size}


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


def _contacts(draw: random.Random, customer: str, first: int = FIRST_DAY) -> list[Row]:
    """Make events of every kind, costs, invoices paid early, in time, late and never, and a changing profile."""

    def some(most: int) -> list[int]:
        return sorted(draw.sample(range(first, LAST_DAY), draw.randint(0, most)))

    rows = [make_event(customer, kind, day) for kind in EVENTS if kind != "survey" for day in some(60)]
    rows += [make_event(customer, "survey", day, draw.choice([None, 0, 30_000, 100_000])) for day in some(40)]
    rows += [
        {"table": "costs", "customer_id": customer, "day": d, "amount": draw.randint(-5, 90_000)} for d in some(20)
    ]
    for issued in some(40):
        due = issued + draw.choice([0, 14, 30])
        paid = draw.choice([None, issued, due - 1, due, due + 1, due + draw.randint(2, 60)])
        disputed = draw.choice([None, None, issued + 3])
        rows.append(make_invoice(customer, draw.randint(1, 900_000), issued, due, paid, disputed))
    since = [None, *some(3)] if draw.random() < 0.5 else some(3)
    signup = draw.randint(first, first + 60)
    for valid_from in since:
        cost, end = (
            draw.choice([None, 0, 450_000, draw.randint(1, 900_000)]),
            draw.choice([None, LAST_DAY, first + 300]),
        )
        rows.append(make_profile(customer, valid_from, signup, cost, end, draw.choice([None, 10_000, 20_000, 30_000])))
    return rows


def _with_contacts(draw: random.Random, customer: str) -> list[Row]:
    return _with_returns(draw, customer) + _contacts(draw, customer)


def _regular_with_contacts(draw: random.Random, customer: str) -> list[Row]:
    return _regular(draw, customer) + _contacts(draw, customer)


def _prospect(draw: random.Random, customer: str) -> list[Row]:
    """Make a customer who never buys."""
    return _contacts(draw, customer, FIRST_DAY + 50)


def _listed_only(draw: random.Random, customer: str) -> list[Row]:
    """Make a customer of whom only a profile without a date is there: never known, whatever the date."""
    return [make_profile(customer, None, None, draw.randint(1, 9), None, 20_000)]


KINDS: tuple[Callable[[random.Random, str], list[Row]], ...] = (
    _regular,
    _with_returns,
    _only_returns,
    _return_first,
    _one_row,
    _busy_days,
    _long_orders,
    _repeated_rows,
    _with_contacts,
    _regular_with_contacts,
    _prospect,
    _listed_only,
)


def random_histories(seed: int, customers: int = 64) -> dict[str, list[Row]]:
    """Make the rows of customers of every kind, keyed by customer, in the order of the keys."""
    draw = random.Random(seed)  # noqa: S311 test data
    return {customer_id(n): KINDS[n % len(KINDS)](draw, customer_id(n)) for n in range(customers)}


_DAYS = ("day", "issued", "due", "paid", "disputed", "valid_from", "signup", "contract_end")


def later(row: Row, days: int) -> Row:
    """Move all days of a row."""
    return row | {name: row[name] + days for name in _DAYS if row.get(name) is not None}


def small_histories(largest: int = 20_000_000) -> st.SearchStrategy[dict[str, list[Row]]]:
    """Draw a few customers with a few rows each, close together, so that ties and edges of windows are frequent."""
    key = st.one_of(st.none(), st.integers(1, 3))
    day = st.integers(FIRST_DAY, FIRST_DAY + 70)
    maybe = st.one_of(st.none(), day)
    line = st.tuples(st.just("row"), st.tuples(day, st.integers(-largest, largest), st.integers(0, 4), key, key))
    event = st.tuples(st.just("event"), st.tuples(st.sampled_from(EVENTS), day, st.sampled_from([None, 70_000])))
    bill = st.tuples(st.just("bill"), st.tuples(st.integers(1, 500_000), day, st.integers(0, 9), maybe, maybe))
    profile = st.tuples(st.just("profile"), st.tuples(maybe, maybe, key, maybe, key))
    drawn = st.lists(
        st.lists(st.one_of(line, line, event, bill, profile), min_size=1, max_size=12), min_size=1, max_size=4
    )
    return drawn.map(lambda all_of: {customer_id(n): _small(customer_id(n), of) for n, of in enumerate(all_of)})


def _small(customer: str, drawn: list[tuple[str, tuple[Any, ...]]]) -> list[Row]:
    rows: list[Row] = []
    profiles = set()
    for table, values in drawn:
        if table == "row":
            rows.append(make_row(customer, *values))
        elif table == "event":
            rows.append(make_event(customer, values[0], values[1], values[2] if values[0] == "survey" else None))
        elif table == "bill":
            amount, issued, term, paid, disputed = values
            late = disputed if disputed is None else max(disputed, issued)
            rows.append(make_invoice(customer, amount, issued, issued + term, paid, late))
        elif values[0] not in profiles:  # of two profiles of one day either may hold
            profiles.add(values[0])
            rows.append(make_profile(customer, *values))
    return _without_ties(rows)


def _without_ties(rows: list[Row]) -> list[Row]:
    """Keep one survey a day: of several, which is the latest is left to the hash."""
    first_of_day = {row["day"]: row for row in reversed(rows) if row.get("kind") == "survey"}
    return [row for row in rows if row.get("kind") != "survey" or row is first_of_day[row["day"]]]


_STREAM = {
    "product_key": UNKNOWN, "category_key": UNKNOWN, "channel_key": UNKNOWN, "quantity": 0, "cost": 0, "discount": 0,
    "kind": 0, "due_day": UNKNOWN_DAY, "issued_day": UNKNOWN_DAY, "acquisition_cost": UNKNOWN,
    "contract_end": UNKNOWN_DAY, "attribute_size": UNKNOWN, "order_key": UNKNOWN, "amount": UNKNOWN,
}  # fmt: skip


def stream_rows(row: Row) -> list[Row]:
    """Lay out one row of a table as the rows of the stream: an invoice is up to four, a profile up to two."""
    days: list[tuple[str, int | None]]
    columns: Row = {}
    amounts: dict[str, int] = {}
    if row["table"] == "transactions":
        return [{"kind": 0, **row}]
    if row["table"] == "events":
        days, columns = [(row["kind"], row["day"])], {"amount": row["value"]}
    elif row["table"] == "costs":
        days, columns = [("service_cost", row["day"])], {"amount": row["amount"]}
    elif row["table"] == "invoices":
        part = row["amount"] if row["paid_amount"] is None else min(row["paid_amount"], row["amount"])
        in_time, rest = row["paid"] is not None and row["paid"] <= row["due"], row["amount"] - part
        days = [("invoice", row["issued"]), ("part_paid" if rest > 0 else "paid", row["paid"])]
        days += [("dispute", row["disputed"]), ("overdue", None if in_time and rest <= 0 else row["due"])]
        columns = {"amount": row["amount"], "due_day": row["due"], "issued_day": row["issued"]}
        amounts = {"paid": part, "part_paid": part, "overdue": rest if in_time else row["amount"]}
    else:
        days = [("profile", UNKNOWN_DAY if row["valid_from"] is None else row["valid_from"]), ("signup", row["signup"])]
        columns = {name: row[name] for name in ("acquisition_cost", "contract_end", "attribute_size")}
    made = [
        {"customer_id": row["customer_id"], "kind": CODES[kind], "day": day, **columns}
        | ({"amount": amounts[kind]} if kind in amounts else {})
        for kind, day in days
        if day is not None
    ]
    return [{**one, "row_key": zlib.crc32(repr(row).encode()) * 32 + one["kind"]} for one in made]


def sorted_table(rows: Iterable[Row]) -> pa.Table:
    """Sort rows as an engine does and lay them out as the columns it streams."""
    laid_out = [{"row_key": 0, **made} for row in rows for made in stream_rows(row)]
    ordered = sorted(laid_out, key=lambda r: (r["customer_id"], r["day"], r["row_key"]))
    types = {"customer_id": pa.string() if not ordered or isinstance(ordered[0]["customer_id"], str) else pa.int64()}
    types |= {"kind": pa.int8(), **dict.fromkeys(("day", "due_day", "issued_day", "contract_end"), pa.int32())}

    def column(name: str) -> list[Any]:
        default = _STREAM.get(name)
        return [default if row.get(name) is None else row[name] for row in ordered]

    names = ("customer_id", "day", *_STREAM, "row_key")
    return pa.table({name: pa.array(column(name), types.get(name, pa.int64())) for name in names})


def as_batches(rows: Iterable[Row], sizes: Sequence[int] = (97,)) -> list[pa.RecordBatch]:
    """Cut the sorted rows into batches of the given sizes, over and over."""
    table, cuts = sorted_table(rows), [0]
    while cuts[-1] < table.num_rows:
        cuts.append(cuts[-1] + sizes[(len(cuts) - 1) % len(sizes)])
    return [table.slice(a, b - a).combine_chunks().to_batches()[0] for a, b in pairwise(cuts)]


def of_table(histories: dict[str, list[Row]], table: str) -> list[Row]:
    return [row for row in all_rows(histories) if row["table"] == table]


def all_rows(histories: dict[str, list[Row]]) -> list[Row]:
    return [row for rows in histories.values() for row in rows]


PROFILE = {name: name for name in ("customer_id", "valid_from", "contract_end")}


def make_project(**sections: Any) -> Project:
    """Make a project of our own columns with `WINDOWS`; sections are as in the project file."""
    data: dict[str, Any] = {"transactions": {"path": "unused.parquet", "columns": {name: name for name in MAPPED}}}
    data["customers"] = {"path": "unused.csv", "columns": PROFILE, "attributes": {"size": "size"}}
    features = {"windows_days": WINDOWS, "groups": GROUPS, "attributes": ["size"]}
    tiers = {"scheme": "pyramid"}
    base = {"version": 1, "name": "test", "data": data, "features": features, "tiers": tiers}
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
