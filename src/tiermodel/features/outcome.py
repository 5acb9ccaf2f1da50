"""Outcomes: what customers did after a date. The only module that may look past `as_of`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from tiermodel.arrays import Flags, Floats, Ints
from tiermodel.config.project import Project
from tiermodel.config.targets import Calendar, Churn, Outcome, Value
from tiermodel.features.large_customer import LargeCustomer
from tiermodel.features.stream import Chunk, Request
from tiermodel.tables.row_kinds import KINDS
from tiermodel.words import words

__all__ = [
    "OUTCOME_COLUMNS",
    "ChurnLabel",
    "LabelWindow",
    "Labels",
    "ValueLabel",
    "at_risk",
    "churn_question",
    "churn_window",
    "followed_requests",
    "outcome_columns",
    "outcome_requests",
]


OUTCOME_COLUMNS = ("outcome_purchase_days", "outcome_value", "outcome_churned")
"""Days with a purchase, and the amount or margin in currency units, in the outcome window; whether the customer
churned (0, 1) by the definition of `churn`, NaN where no contract ends in the churn window. All are NaN where the
window is not fully observed."""


def churn_window(churn: Churn, outcome: Outcome) -> tuple[int, int]:
    """Return the first day of the churn window and the day after its last, counted from the date.

    >>> churn_window(Churn(horizon_days=30), Outcome(horizon_days=90, gap_days=7))
    (7, 37)
    """
    gap = outcome.gap_days if churn.gap_days is None else churn.gap_days
    return gap, gap + (churn.horizon_days or outcome.horizon_days)


def churn_question(churn: Churn, outcome: Outcome, language: str = "en") -> str:
    """Return a text with the project's definition of churn and the customers it applies to."""
    wording = words(language)
    first, last = churn_window(churn, outcome)
    window = wording["churn_window_gap" if first else "churn_window"].format(gap=first, days=last - first)
    asked = wording["churn_purchase"].format(window=window)
    if churn.contract_renewal_days is not None:
        asked = wording["churn_contract"].format(window=window, days=churn.contract_renewal_days)
    return asked + ("" if churn.active_days is None else wording["churn_active"].format(days=churn.active_days))


def _delay_days(churn: Churn, outcome: Outcome) -> int:
    """Return the days from a date until every window of its outcome is over.

    >>> _delay_days(Churn(), Outcome(horizon_days=90, gap_days=7))
    97
    """
    judged = churn_window(churn, outcome)[1] + (churn.contract_renewal_days or 0)
    return max(outcome.gap_days + outcome.horizon_days, judged)


@dataclass(frozen=True)
class LabelWindow:
    """The days after a date on which a window opens (`first`), is over (`last`), and its label is known."""

    first: int
    last: int
    known_after: int

    @property
    def days(self) -> int:
        """The length of the window."""
        return self.last - self.first


@dataclass(frozen=True)
class ChurnLabel:
    """The churn window, and the two numbers of days of the section `churn` that limit the customers at risk."""

    window: LabelWindow
    active_days: int | None = None
    contract_renewal_days: int | None = None

    @classmethod
    def of(cls, churn: Churn, outcome: Outcome) -> Self:
        """Return the label of a project with these sections."""
        window = LabelWindow(*churn_window(churn, outcome), _delay_days(churn, outcome))
        return cls(window, churn.active_days, churn.contract_renewal_days)


@dataclass(frozen=True)
class ValueLabel:
    """The window of value, and whether value is margin rather than amount."""

    window: LabelWindow
    is_margin: bool

    @classmethod
    def of(cls, value: Value, churn: Churn, outcome: Outcome) -> Self:
        """Return the label of a project with these sections; it is known when that of churn is."""
        first = outcome.gap_days
        window = LabelWindow(first, first + outcome.horizon_days, _delay_days(churn, outcome))
        return cls(window, value.measure == "margin")


@dataclass(frozen=True)
class Labels:
    """The labels of a project, made once for all models.

    `delay_days` is the number of days from a date until every window of its outcome is over, `upgrade_delay_days` until
    it is known, too, who rose to a higher tier and stayed there. `calendar` are the known days that the level of a
    window depends on.
    """

    churn: ChurnLabel
    value: ValueLabel
    delay_days: int
    upgrade_delay_days: int
    calendar: Calendar = field(default_factory=dict)

    @classmethod
    def of(cls, project: Project) -> Self:
        """Return the labels of a project."""
        churn, outcome = project.churn, project.outcome
        value, delay = ValueLabel.of(project.value, churn, outcome), _delay_days(churn, outcome)
        later = delay + project.upgrade.stay_days
        return cls(ChurnLabel.of(churn, outcome), value, delay, later, outcome.calendar)


def at_risk(label: ChurnLabel, frame: pd.DataFrame) -> Flags:
    """Return which rows are at risk of churn: buyers, as far as recent purchases or an ending contract are required."""
    since = frame["days_since_last"]
    exposed = since.notna() if label.active_days is None else since <= label.active_days
    if label.contract_renewal_days is not None:
        exposed &= frame["contract_days_left"].between(label.window.first, label.window.last, inclusive="left")
    return exposed.to_numpy()


def outcome_requests(labels: Labels) -> tuple[Request, Request, Request]:
    """Return the sums that labels need: purchase days and value of the outcome, purchase days for churn."""
    churn, value = labels.churn, labels.value
    measure = "margin" if value.is_margin else "net_amount"
    start, end = value.window.first, value.window.last
    judged = churn.window.last + (churn.contract_renewal_days or 0)
    return (
        Request("purchase_days", start, end),
        Request(measure, start, end),
        Request("purchase_days", churn.window.first, judged),
    )


def followed_requests(labels: Labels, columns: frozenset[str]) -> dict[str, Request]:
    """Return the sums that tell what came of customers, by name, as far as the mapped columns allow.

    Most are of the outcome window; `value_to_date` counts from the first row to the end of that window.
    """
    window = labels.value.window
    measures = {"revenue": "net_amount"} | ({"margin": "margin"} if "cost" in columns else {})
    measures |= {"cost_to_serve": "service_cost"} if "costs" in columns else {}
    measures |= {"complaints": "complaint_count"} if "complaint" in columns else {}
    found = {name: Request(measure, window.first, window.last) for name, measure in measures.items()}
    value = "margin" if labels.value.is_margin else "net_amount"
    return found | {"value_to_date": Request(value, None, window.last)}


def outcome_columns(
    labels: Labels,
    chunk: Chunk,
    sums: Mapping[Request, Floats],
    table: pa.Table | LargeCustomer,
    contract_end: Floats | None,
) -> tuple[Floats, ...]:
    """Return `OUTCOME_COLUMNS` of a chunk of `table`, whether the outcome is fully observed or not.

    `sums` are those of the chunk; `contract_end` is the day (counted from 1970-01-01) on which the contract ends, as
    known at each date.
    """
    days, value, kept = (sums[request] for request in outcome_requests(labels))
    if labels.churn.contract_renewal_days is None or contract_end is None:
        return days, value, (kept == 0).astype(np.float64)
    return days, value, _not_renewed(labels.churn, chunk, table, contract_end)


def _not_renewed(label: ChurnLabel, chunk: Chunk, table: pa.Table | LargeCustomer, contract_end: Floats) -> Floats:
    """Return 1 where a contract ended in the churn window and was not renewed, 0 where it was, NaN where none ended.

    Renewal is a purchase within `contract_renewal_days` from the end on, or a later end that is known by then.
    """
    left = contract_end - chunk.as_of
    ends = (left >= label.window.first) & (left < label.window.last)
    churned = np.full(len(left), np.nan)
    customer, end = chunk.customer[ends], contract_end[ends].astype(np.int64)
    judged = end + int(label.contract_renewal_days or 0)
    table = table.to_table() if isinstance(table, LargeCustomer) else table
    key = np.asarray(pc.fill_null(table.column("customer_id").combine_chunks().dictionary_encode().indices, 0))
    day, kind = (table.column(name).to_numpy() for name in ("day", "kind"))
    place = _place(key, day)  # rows come sorted by customer and day
    bought = place[(kind == KINDS["transaction"]) & (table.column("amount").to_numpy() >= 0)]
    profile = np.flatnonzero(kind == KINDS["profile"])
    renewed = np.searchsorted(bought, _place(customer, judged)) > np.searchsorted(bought, _place(customer, end))
    latest = np.searchsorted(place[profile], _place(customer, judged)) - 1  # at or after the row with that end
    renewed |= table.column("contract_end").to_numpy()[profile[latest]] > end
    churned[ends] = ~renewed
    return churned


def _place(customer: Ints, day: Ints) -> Ints:
    """Return a number for each customer and day that sorts by customer, then day (a day fits 32 bits)."""
    return customer.astype(np.int64) * 2**33 + day
