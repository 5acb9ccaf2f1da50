"""Say what customers did after a date. The only module that may look past `as_of`."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tiermodel.config import Outcome
from tiermodel.features.stream import Chunk, Request

__all__ = ["OUTCOME_COLUMNS", "outcome_columns", "outcome_requests", "outcome_span"]

OUTCOME_COLUMNS = ("outcome_purchase_days", "outcome_value")
"""Days with a purchase, and the amount or margin in currency units, in the window; NaN where not fully observed."""


def outcome_span(outcome: Outcome) -> int:
    """Count the days from a date to the end of its outcome window.

    >>> outcome_span(Outcome(horizon_days=90, gap_days=7))
    97
    """
    return outcome.gap_days + outcome.horizon_days


def outcome_requests(outcome: Outcome, measure: Literal["amount", "margin"]) -> tuple[Request, Request]:
    """Ask for days with a purchase, and value, in the window [as_of + gap, as_of + gap + horizon)."""
    value = "net_amount" if measure == "amount" else "margin"
    start, end = outcome.gap_days, outcome_span(outcome)
    return Request("purchase_days", start, end), Request(value, start, end)


def outcome_columns(chunk: Chunk, outcome: Outcome, data_end: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Read purchase days and value, the last two sums of the chunk; a window that ends after the data is no outcome."""
    observed = chunk.as_of + outcome_span(outcome) <= data_end
    days, value = np.where(observed, chunk.sums[-2:], np.nan)
    return days, value
