"""Name what the rows of a customer's history can be, each with the code that the stream carries."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import get_args

import numpy as np

from tiermodel.arrays import Ints
from tiermodel.config.data import EventKind

__all__ = ["EVENTS", "KINDS", "MAIN_KINDS", "RowCounts"]

EVENTS: tuple[str, ...] = get_args(EventKind)
_NAMES = ("transaction", *EVENTS, "invoice", "overdue", "paid", "dispute", "service_cost", "profile", "signup")
KINDS: dict[str, int] = {name: code for code, name in enumerate(_NAMES)}
"""An invoice is up to four rows: issued, fallen due unpaid, paid, disputed; a customer's attributes are a profile."""

MAIN_KINDS: dict[str, tuple[str, ...]] = {
    "transactions": ("transaction",),
    "events": EVENTS,
    "invoices": ("invoice",),
    "costs": ("service_cost",),
    "customers": ("profile",),
}
"""The kinds of which every good row of a table gives exactly one."""


def _none() -> Ints:
    return np.zeros(len(KINDS), dtype=np.int64)


@dataclass
class RowCounts:
    """Count the rows of a stream that were used, and those dropped because they repeat another, by code of kind."""

    used: Ints = field(default_factory=_none)
    duplicates: Ints = field(default_factory=_none)
