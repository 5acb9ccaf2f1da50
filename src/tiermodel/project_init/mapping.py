"""The transactions of a project file, from the roles of columns: SQL of columns, filters, and a query if needed."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from tiermodel.project_init.evidence import Column, days_sql
from tiermodel.project_init.headers import directory, words_in
from tiermodel.project_init.notes import Note
from tiermodel.project_init.roles import Roles
from tiermodel.tables.source import literal, quoted

__all__ = ["LINES", "Mapping", "mapped", "split_query", "zone_of"]

LINES = "order_lines"
_SAME = 0.95
_SHOWN = 8  # statuses that count, the most frequent first
_FEWEST_ORDERS = 10
_UTC = re.compile(r"\butc\b", re.IGNORECASE)
_GUEST = 0.02  # of the rows, from which on an id such as 0 is taken for nobody's


@dataclass
class Mapping:
    """The columns of the transactions as in a project file, the rows kept, and whether orders repeat their totals."""

    columns: dict[str, str] = field(default_factory=dict)
    where: list[str] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    other: dict[str, list[str]] = field(default_factory=dict)
    split: bool = False
    counted: tuple[bool, ...] = ()  # of each row of the sample, whether it has the order's total


def mapped(roles: Roles, rows: int) -> Mapping:
    """Return the mapping of a table whose rows have a customer, a day and an amount, or a quantity and a price."""
    made = Mapping(other=dict(roles.others), counted=(True,) * rows)
    customer, time = roles.columns["customer_id"], roles.columns["time"]
    made.columns["customer_id"] = customer.name
    made.columns["time"] = days_sql(time)
    if time.time is not None and time.time.other:
        made.other.setdefault("time", []).append(time.time.other)
        made.notes.append(Note("day_first", {"column": time.name, "example": time.values[0]}))
    _orders(roles, made)
    made.columns["amount"] = _amount(roles, made)
    for role in ("product_id", "category", "quantity", "cost", "discount", "channel"):
        if (column := roles.get(role)) is not None and column.filled > 0:
            number = (
                role in {"quantity", "cost", "discount"} and column.number is not None and not column.number.is_plain
            )
            made.columns[role] = column.number.sql(column.sql) if number and column.number else column.name
            if role == "discount" and made.split and _repeats(roles.columns["order_id"], column) == "repeated":
                made.columns[role] = f"{column.in_arithmetic} / {LINES}"
    made.where += _kept(roles, made)
    return made


def _orders(roles: Roles, made: Mapping) -> None:
    """Map the order, and find whether its rows repeat its total or leave it out."""
    order, amount = roles.get("order_id"), roles.get("amount")
    if order is None:
        made.notes.append(Note("no_order"))
        return
    made.columns["order_id"] = order.name
    if amount is None or order.distinct == len(order.values):
        return
    kind = _repeats(order, amount)
    if kind == "first":
        made.where.append(_has_value(amount))
        made.counted = tuple(cell is not None for cell in amount.cells)
        made.notes.append(Note("first_rows", {"order": order.name, "amount": amount.name}))
        for role in ("product_id", "category", "quantity", "price", "cost"):
            roles.columns.pop(role, None)
    elif kind == "repeated":
        made.split = True
        made.notes.append(Note("split", {"order": order.name, "amount": amount.name}))


def _repeats(order: Column, amount: Column) -> str:
    """Return how the total stands in orders of several rows: `first`, on the first only; `repeated`; else empty."""
    amounts: dict[str, list[str | None]] = defaultdict(list)
    for key, value in zip(order.cells, amount.cells, strict=True):
        if key is not None:
            amounts[key].append(value)
    several = [values for values in amounts.values() if len(values) > 1]
    if len(several) < _FEWEST_ORDERS:
        return ""
    first = sum(sum(value is not None for value in values) == 1 for values in several)
    same = sum(None not in values and len(set(values)) == 1 for values in several)
    return "first" if first >= _SAME * len(several) else "repeated" if same >= _SAME * len(several) else ""


def _amount(roles: Roles, made: Mapping) -> str:
    """Return the mapping of the amount: one column, or what is left of it after refunds, and below zero for returns."""
    amount = roles.get("amount")
    if amount is None:
        quantity, price = roles.columns["quantity"], roles.columns["price"]
        made.notes.append(Note("product", {"quantity": quantity.name, "price": price.name}))
        return f"{quantity.in_arithmetic} * {price.in_arithmetic}"
    if roles.carried and not words_in("parts_of_totals", "without", amount.name):
        made.notes.append(Note("carried", {"column": amount.name, "others": ", ".join(roles.carried)}))
    refund, direction = roles.get("refund"), roles.get("direction")
    back = _signs(direction, amount)
    if amount.number is not None and not amount.number.is_plain:
        made.notes.append(Note("marks", {"column": amount.name, "example": _odd(amount)}))
    if direction is not None and (negative := _returns(direction, back)):
        made.notes.append(Note("returns_below", {"column": direction.name, "values": ", ".join(negative)}))
    if refund is None and not back and not made.split:
        is_plain = amount.number is None or amount.number.is_plain
        return amount.name if is_plain or amount.number is None else amount.number.sql(amount.sql)
    sql = amount.in_arithmetic
    if refund is not None:
        below = refund.number is not None and min(refund.number.values, default=0) < 0
        taken = f"abs({refund.as_number})" if below else refund.as_number
        sql = f"{sql} - {_or_nothing(refund, taken)}"
        if back or made.split:
            sql = f"({sql})"
        made.notes.append(Note("refund", {"amount": amount.name, "refund": refund.name}))
    if back and direction is not None:
        sign = f"CASE WHEN trim({direction.as_text}) IN ({', '.join(map(literal, back))}) THEN -1 ELSE 1 END"
        sql = f"{sql} * {sign}"
        made.notes.append(Note("returns", {"column": direction.name, "values": ", ".join(back)}))
    return f"{sql} / {LINES}" if made.split else sql


def _or_nothing(refund: Column, taken: str) -> str:
    """Return the SQL of a refund, 0 where there is none; NULL where digits cannot be read, so that the row is told."""
    if refund.type != "VARCHAR":
        return f"coalesce({taken}, 0)"
    return f"CASE WHEN regexp_matches({refund.sql}::VARCHAR, '[0-9０-９]') THEN {taken} ELSE 0 END"


def _odd(column: Column) -> str:
    """Return the first value that is not a plain number."""
    return next((value for value in column.values if not re.fullmatch(r"[+-]?\d+(\.\d+)?", value)), column.values[0])


def _signs(direction: Column | None, amount: Column) -> list[str]:
    """Return the values of a kind of row that takes back, where their amounts are above zero as those of sales are."""
    if direction is None or amount.number is None:
        return []
    found: dict[str, list[bool]] = defaultdict(list)
    for kind, value in zip(direction.cells, amount.cells, strict=True):
        if kind is not None and value is not None and words_in("directions", "returns", kind):
            found[kind].append(value.strip("¥￥$€£ ").startswith(("-", "(")))
    return sorted(kind for kind, below in found.items() if sum(below) * 2 < len(below))


def _returns(direction: Column, signed: list[str]) -> list[str]:
    """Return the values of a kind of row that takes back, whose amounts are below zero: all but the `signed` ones."""
    found = set(direction.values) - set(signed)
    return sorted(kind for kind in found if words_in("directions", "returns", kind))


def _kept(roles: Roles, made: Mapping) -> Iterator[str]:
    """Yield the conditions of the rows that count: with a customer, and of orders that were made and paid."""
    customer, rows = roles.columns["customer_id"], max(sum(made.counted), 1)
    for key, column in (("no_customer", customer), ("no_time", roles.columns["time"])):
        without = sum(cell is None and counts for cell, counts in zip(column.cells, made.counted, strict=True))
        if without:
            yield _has_value(column)
            made.notes.append(Note(key, {"column": column.name, "share": without / rows}))
    zeros = customer.shares.get("0", 0)
    if zeros > _GUEST * rows and zeros > 2 * _usual(customer):
        yield f"trim({customer.sql}::VARCHAR) <> '0'" if customer.type == "VARCHAR" else f"{customer.sql} <> 0"
        made.notes.append(Note("guests", {"column": customer.name, "share": zeros / rows}))
    status = roles.get("status")
    if status is not None and (out := _left_out(status, roles)):
        yield f"coalesce(trim({status.sql}::VARCHAR), '') NOT IN ({', '.join(map(literal, out))})"
        share = sum(status.shares[value] for value in out) / rows
        kept = [value for value, _ in status.shares.most_common() if value not in out]
        values = {"column": status.name, "values": ", ".join(out), "kept": ", ".join(kept[:_SHOWN]), "share": share}
        made.notes.append(Note("statuses", values))


def _usual(column: Column) -> float:
    """Return how many rows the customer with the second most rows has."""
    return ([count for _, count in column.shares.most_common(2)] + [0, 0])[1]


def _has_value(column: Column) -> str:
    """Return the condition that there is a value: text in a file may be numbers in a DataFrame of its rows."""
    if column.type == "VARCHAR":
        return f"coalesce(trim({column.sql}::VARCHAR), '') <> ''"
    return f"{column.sql} IS NOT NULL"


def _left_out(status: Column, roles: Roles) -> list[str]:
    """Return the values of a status that mean no sale; refunds count where their amount is known or below zero."""
    known = roles.get("refund") is not None
    amount = roles.get("amount")
    found = []
    for value in status.shares:
        if words_in("statuses", "kept", value):
            continue
        if words_in("statuses", "left_out", value) or (
            words_in("statuses", "refunded", value) and not known and not _below_zero(status, value, amount)
        ):
            found.append(value)
    return sorted(found)


def _below_zero(status: Column, value: str, amount: Column | None) -> bool:
    if amount is None:
        return False
    cells = [a for s, a in zip(status.cells, amount.cells, strict=True) if s == value and a is not None]
    return bool(cells) and sum("-" in cell or "(" in cell for cell in cells) * 2 > len(cells)


def split_query(source: str, order: str, *, at_database: bool = False) -> str:
    """Return the query that adds the number of rows of each order.

    Rows that are equal throughout count as one, for all but the first are left out as duplicates: an order that stands
    in two exports keeps its whole total. A database has no such rows, and not every one can count distinct rows so.

    >>> split_query("orders", "order no")
    'SELECT *, count(DISTINCT hash(orders)) OVER (PARTITION BY "order no") AS order_lines FROM orders'
    """
    rows = "*" if at_database else "DISTINCT hash(orders)"
    return f"SELECT *, count({rows}) OVER (PARTITION BY {quoted(order)}) AS {LINES} FROM {source}"


def zone_of(time: Column, *, chinese: bool) -> str:
    """Return the time zone of a column of days: that of its offsets, else that of the language."""
    offsets = set(time.time.offsets) if time.time is not None else set()
    if not offsets - {"+0000"} and (offsets or _UTC.search(time.name)):
        return "UTC"
    for known, zone in directory()["zones"].items():
        if offsets and offsets <= set(known.split()):
            return str(zone)
    return "Asia/Shanghai" if chinese else "UTC"
