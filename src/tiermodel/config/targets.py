"""The sections of a project that say what its models answer: outcome, churn, value, upgrade."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from tiermodel.config.data import Section
from tiermodel.config.yaml_reader import shown

__all__ = ["NO_DAYS", "Calendar", "Campaign", "Churn", "Date", "Days", "LifetimeValue", "Outcome", "Upgrade", "Value"]

Days = Annotated[int, Field(strict=True, ge=1, le=3660)]


Calendar = Mapping[str, tuple[tuple[date, date], ...]]
"""Known days by kind: the first and the last day of each period."""

NO_DAYS: Calendar = {}


def _plain_date(value: object) -> date:
    try:
        day = date.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        day = None
    if not isinstance(day, date) or isinstance(day, datetime):
        raise ValueError(f"expected a date such as 2017-10-01, got {shown(value)}")  # noqa: TRY004 pydantic asks for it
    return day


Date = Annotated[date, BeforeValidator(_plain_date)]


def _period(value: object) -> object:
    """Return one day as a period of one day, so that a project file may list both."""
    if isinstance(value, list | tuple) and len(value) != 2:
        raise ValueError(f"expected a date, or a period as [first day, last day], got {shown(value)}")
    if isinstance(value, list | tuple):
        return value
    day = _plain_date(value)
    return [day, day]


def _in_order(value: tuple[date, date]) -> tuple[date, date]:
    if value[0] > value[1]:
        raise ValueError(f"a period ends before it begins: write [{value[1]}, {value[0]}]")
    return value


_Periods = tuple[Annotated[tuple[Date, Date], BeforeValidator(_period), AfterValidator(_in_order)], ...]


class Outcome(Section):
    """The outcome window: [as_of + gap, as_of + gap + horizon), in days.

    `calendar` are days known beforehand on which customers buy more or less than usual, by kind (a campaign, a holiday,
    a closure): dates, or periods as [first day, last day], of the past and to come. The level of the coming window is
    forecast from what the same kind did before; a kind without past days changes nothing.
    """

    horizon_days: Days = 90
    gap_days: Annotated[int, Field(strict=True, ge=0, le=3660)] = 0
    calendar: dict[str, _Periods] = Field(default_factory=dict)


class Campaign(Section):
    """The costs of keeping a customer, in currency units: `contact` for each customer contacted, `incentive` if taken.

    `accepted_share` is the share of contacted churners who accept and stay.
    """

    contact: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    incentive: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    accepted_share: Annotated[float, Field(gt=0, lt=1)] = 0.3


class Churn(Section):
    """The definition of churn: which customers are at risk, the outcome window, and which of them churned.

    At risk are buyers; with `active_days`, buyers with a purchase within that many days before the date. Churned are
    customers at risk without a purchase in the window, which is that of `outcome` unless `horizon_days` or `gap_days`
    is set here.

    With `contract_renewal_days`, at risk are only buyers whose contract ends in the window, as known at the date;
    churned are those without a purchase and without a later end of contract within that many days from the end on.

    With `campaign`, the score table has the churn risk from which a contact with each customer pays.
    """

    active_days: Days | None = None
    horizon_days: Days | None = None
    gap_days: Annotated[int, Field(strict=True, ge=0, le=3660)] | None = None
    contract_renewal_days: Days | None = None
    campaign: Campaign | None = None


class LifetimeValue(Section):
    """The horizon of lifetime value, in days, and its annual discount rate (0.1 = 10 %)."""

    horizon_days: Days
    annual_rate: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)]


class Value(Section):
    """The measure of value (the amount, or the margin where `cost` is mapped), and lifetime value."""

    measure: Literal["amount", "margin"] = "amount"
    clv: LifetimeValue = LifetimeValue(horizon_days=365, annual_rate=0.1)


class Upgrade(Section):
    """An upgrade counts if, `stay_days` after the outcome window, the customer is still in a higher tier."""

    stay_days: Days = 30
