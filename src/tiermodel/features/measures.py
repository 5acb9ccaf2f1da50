"""Measures: one whole number for each row. The compiled pass sums them over every window that a feature asks for.

To add one, append a `Measure` to `MEASURES`. Its expression takes whole columns of one chunk of rows (NumPy arrays) and
returns whole numbers: counts as they are, amounts in 1/10,000 of a currency unit, so that sums are exact in any order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tiermodel.arrays import Flags, Ints
from tiermodel.config.custom import is_custom
from tiermodel.tables.row_kinds import EVENTS, KINDS

__all__ = ["MEASURES", "MONEY", "UNKNOWN", "Measure", "Rows", "every_need", "measure_of"]


MONEY = 10_000
"""Amounts are held as whole numbers of 1/10,000 of a currency unit."""

UNKNOWN = np.iinfo(np.int64).min
"""The key of a product, category or channel that the row does not name, and an amount that is not known."""

Counts = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Rows:
    """A chunk of the history: all rows of some customers, sorted by customer and day; arrays of shape (rows,).

    `day` counts local calendar days since 1970-01-01. `amount` is that of a transaction, zero for other rows; a
    transaction with a negative amount is a return, any other a purchase. `value` is the amount of a row of any kind.
    The `nth_*` columns count, from 0, the customer's earlier purchase lines of the same order, day, product, category
    or channel; -1 for other rows. `columns` has the columns that only some tables have, `texts` (Arrow arrays) those of
    text, null where it is not known.
    """

    day: NDArray[np.int32]
    amount: Ints
    value: Ints
    purchase: Flags
    first_return: Flags
    nth_of_order: Counts
    nth_of_day: Counts
    nth_of_product: Counts
    nth_of_category: Counts
    nth_of_channel: Counts
    kind: NDArray[np.int8]
    columns: Mapping[str, NDArray[Any]]
    texts: Mapping[str, Any]

    @property
    def first_order(self) -> Flags:
        """The rows that are the first purchase line of their order."""
        return self.nth_of_order == 0

    @property
    def weekend(self) -> Flags:
        """The rows on a Saturday or Sunday (day 0, 1970-01-01, was a Thursday)."""
        return (self.day + 3) % 7 >= 5

    def of_kind(self, name: str) -> Flags:
        """Return which rows are of a kind."""
        return self.kind == KINDS[name]

    def payment(self) -> Flags:
        """Return which rows are payments, of all of an invoice or of a part."""
        return self.of_kind("paid") | self.of_kind("part_paid")

    def late_payment(self) -> Flags:
        """Return which rows are payments after the due day."""
        return self.payment() & (self.day > self.columns["due_day"])


@dataclass(frozen=True, slots=True)
class Measure:
    """One number for each row: its unit, its expression, and the optional columns that the expression needs."""

    name: str
    unit: Literal["count", "amount", "days"]
    expression: Callable[[Rows], Ints | Counts | Flags]
    needs: tuple[str, ...] = ()


def _quarter(number: int) -> Callable[[Rows], Flags]:
    def orders(r: Rows) -> Flags:
        months = r.day.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)
        return r.first_order & (months // 3 % 4 == number)

    return orders


def _lines_squared(nth: Callable[[Rows], Counts]) -> Callable[[Rows], Counts]:
    """Return an expression for the sum of squared line counts by key: a line after n others adds (n + 1)² - n²."""
    return lambda r: np.where(nth(r) >= 0, 2 * nth(r) + 1, 0)


def _open(r: Rows, each: Ints | NDArray[np.int32] | int) -> Ints:
    """Return `each` where an unpaid invoice falls due, less `each` where it is paid late: summed, what is overdue."""
    return np.where(r.of_kind("overdue"), each, 0) - np.where(r.late_payment() & r.of_kind("paid"), each, 0)


def _events(kind: str) -> Callable[[Rows], Flags]:
    return lambda r: r.of_kind(kind)


def _money_of(r: Rows, kind: str) -> Ints:
    return np.where(r.of_kind(kind), r.value, 0)


def _scored(r: Rows) -> Flags:
    return r.of_kind("survey") & (r.value != UNKNOWN)


MEASURES: dict[str, Measure] = {
    measure.name: measure
    for measure in (
        Measure("order_count", "count", lambda r: r.first_order),
        Measure("purchase_days", "count", lambda r: r.nth_of_day == 0),
        Measure("line_count", "count", lambda r: r.purchase),
        Measure("weekend_order_count", "count", lambda r: r.first_order & r.weekend),
        Measure("return_count", "count", lambda r: r.first_return),
        Measure("net_amount", "amount", lambda r: r.amount),
        Measure("purchase_amount", "amount", lambda r: np.where(r.purchase, r.amount, 0)),
        *(Measure(f"quarter_{n}_order_count", "count", _quarter(n - 1)) for n in (1, 2, 3, 4)),
        Measure("margin", "amount", lambda r: r.amount - r.columns["cost"], ("cost",)),
        Measure("quantity", "amount", lambda r: np.where(r.purchase, r.columns["quantity"], 0), ("quantity",)),
        Measure("discount_amount", "amount", lambda r: r.columns["discount"], ("discount",)),
        Measure("discount_line_count", "count", lambda r: r.purchase & (r.columns["discount"] > 0), ("discount",)),
        Measure("new_product_count", "count", lambda r: r.nth_of_product == 0, ("product_id",)),
        Measure("product_line_count", "count", lambda r: r.nth_of_product >= 0, ("product_id",)),
        Measure("product_lines_squared", "count", _lines_squared(lambda r: r.nth_of_product), ("product_id",)),
        Measure("new_category_count", "count", lambda r: r.nth_of_category == 0, ("category",)),
        Measure("category_line_count", "count", lambda r: r.nth_of_category >= 0, ("category",)),
        Measure("category_lines_squared", "count", _lines_squared(lambda r: r.nth_of_category), ("category",)),
        Measure("new_channel_count", "count", lambda r: r.nth_of_channel == 0, ("channel",)),
        Measure("channel_line_count", "count", lambda r: r.nth_of_channel >= 0, ("channel",)),
        Measure("channel_lines_squared", "count", _lines_squared(lambda r: r.nth_of_channel), ("channel",)),
        Measure("service_cost", "amount", lambda r: _money_of(r, "service_cost"), ("costs",)),
        Measure("profit", "amount", lambda r: r.amount - r.columns["cost"] - _money_of(r, "service_cost"),
                ("cost", "costs")),
        *(Measure(f"{kind}_count", "count", _events(kind), (kind,)) for kind in EVENTS),
        Measure("survey_score_count", "count", _scored, ("survey", "value")),
        Measure("survey_score", "amount", lambda r: np.where(_scored(r), r.value, 0), ("survey", "value")),
        Measure("invoice_count", "count", lambda r: r.of_kind("invoice"), ("invoices",)),
        Measure("invoice_amount", "amount", lambda r: _money_of(r, "invoice"), ("invoices",)),
        Measure("paid_count", "count", lambda r: r.payment(), ("invoices",)),
        Measure("open_amount", "amount", lambda r: _money_of(r, "invoice") - np.where(r.payment(), r.value, 0),
                ("invoices",)),
        Measure("paid_late_count", "count", lambda r: r.late_payment(), ("invoices",)),
        Measure("days_late", "days", lambda r: np.where(r.late_payment(), r.day - r.columns["due_day"], 0),
                ("invoices",)),
        Measure("days_to_pay", "days", lambda r: np.where(r.payment(), r.day - r.columns["issued_day"], 0),
                ("invoices", "issued")),
        Measure("overdue_count", "count", lambda r: _open(r, 1), ("invoices",)),
        Measure("overdue_amount", "amount",
                lambda r: _money_of(r, "overdue") - np.where(r.late_payment(), r.value, 0), ("invoices",)),
        Measure("overdue_due_days", "days", lambda r: _open(r, r.columns["due_day"]), ("invoices",)),
        Measure("dispute_count", "count", lambda r: r.of_kind("dispute"), ("invoices", "disputed")),
    )
}  # fmt: skip


def measure_of(name: str) -> Measure:
    """Return a measure by name: one of `MEASURES`, or that of a custom feature, which counts as zero where unknown."""
    return MEASURES[name] if not is_custom(name) else Measure(name, "amount", lambda r: _or_zero(r, name), (name,))


def _or_zero(r: Rows, column: str) -> Ints:
    values: Ints = r.columns[column]
    return np.where(values == UNKNOWN, 0, values)


def every_need() -> frozenset[str]:
    """Return every optional column, kind of event and table that a feature may need."""
    latest = {"signup", "acquisition_cost", "contract_end"}
    return frozenset(latest | {need for measure in MEASURES.values() for need in measure.needs})
