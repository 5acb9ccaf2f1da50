"""Declare what is measured on a row. The compiled pass sums every measure over every window that a feature asks for.

To add one: append a `Measure` to `MEASURES`. Its expression sees whole columns of one chunk of rows (NumPy arrays) and
gives whole numbers: counts as they are, amounts in 1/10,000 of a currency unit, so that sums are exact in any order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["MEASURES", "MONEY", "UNKNOWN", "Measure", "Rows"]

MONEY = 10_000
"""Amounts are held as whole numbers of 1/10,000 of a currency unit."""

UNKNOWN = np.iinfo(np.int64).min
"""The key of a product or category that the row does not name."""

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Rows:
    """Hold one chunk of transaction rows, whole customers only, sorted by customer and day.

    `day` counts local calendar days since 1970-01-01. A row with a negative amount is a return, any other a purchase.
    The `first_*` flags mark the first row that shows a customer's order, purchase day, product or category.
    """

    day: NDArray[np.int32]
    amount: Ints
    purchase: Flags
    first_order: Flags
    first_return: Flags
    first_day: Flags
    first_product: Flags
    first_category: Flags
    known_product: Flags
    quantity: Ints
    cost: Ints
    discount: Ints

    @property
    def weekend(self) -> Flags:
        """Tell which rows fall on a Saturday or Sunday (day 0, 1970-01-01, was a Thursday)."""
        return (self.day + 3) % 7 >= 5


@dataclass(frozen=True, slots=True)
class Measure:
    """Declare one number per row: its unit, its expression, and the optional column without which it does not exist."""

    name: str
    unit: Literal["count", "amount"]
    expression: Callable[[Rows], NDArray[np.int64] | Flags]
    needs: str | None = None


MEASURES: dict[str, Measure] = {
    measure.name: measure
    for measure in (
        Measure("order_count", "count", lambda r: r.first_order),
        Measure("purchase_days", "count", lambda r: r.first_day),
        Measure("line_count", "count", lambda r: r.purchase),
        Measure("weekend_order_count", "count", lambda r: r.first_order & r.weekend),
        Measure("return_count", "count", lambda r: r.first_return),
        Measure("net_amount", "amount", lambda r: r.amount),
        Measure("purchase_amount", "amount", lambda r: np.where(r.purchase, r.amount, 0)),
        Measure("margin", "amount", lambda r: r.amount - r.cost, needs="cost"),
        Measure("discount_amount", "amount", lambda r: r.discount, needs="discount"),
        Measure("new_product_count", "count", lambda r: r.first_product, needs="product_id"),
        Measure("product_line_count", "count", lambda r: r.purchase & r.known_product, needs="product_id"),
        Measure("new_category_count", "count", lambda r: r.first_category, needs="category"),
    )
}
