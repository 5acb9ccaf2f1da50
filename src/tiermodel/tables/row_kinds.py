"""The kinds of rows in a customer's history, each with its code in the stream."""

from dataclasses import dataclass, field
from typing import get_args

import numpy as np

from tiermodel.arrays import Ints
from tiermodel.config.data import EventKind

__all__ = ["EVENTS", "KINDS", "MAIN_KINDS", "RowCounts"]

EVENTS: tuple[str, ...] = get_args(EventKind)
_OF_INVOICES = ("invoice", "overdue", "paid", "part_paid", "dispute")
_NAMES = ("transaction", *EVENTS, *_OF_INVOICES, "service_cost", "profile", "signup")
KINDS: dict[str, int] = {name: code for code, name in enumerate(_NAMES)}
"""The code of each kind. An invoice becomes up to four rows: `invoice` (issued), `overdue` (due, but not all of it paid
by then), `paid` (or `part_paid`: a rest is left) and `dispute`; a row of the customers' table becomes a `profile` and,
where it has the day, a `signup`."""

MAIN_KINDS: dict[str, tuple[str, ...]] = {
    "transactions": ("transaction",),
    "events": EVENTS,
    "invoices": ("invoice",),
    "costs": ("service_cost",),
    "customers": ("profile",),
}
"""The kinds by table of which every good row of the table becomes exactly one row."""


def _none() -> Ints:
    return np.zeros(len(KINDS), dtype=np.int64)


@dataclass
class RowCounts:
    """The numbers of stream rows by code of kind: rows used, and rows dropped because they repeat another."""

    used: Ints = field(default_factory=_none)
    duplicates: Ints = field(default_factory=_none)
