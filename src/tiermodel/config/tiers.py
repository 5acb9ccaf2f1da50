"""The project's tiers (their scheme and stability rule) and its segments."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from tiermodel.config.data import Section
from tiermodel.config.yaml_reader import shown

__all__ = [
    "Downgrade", "EveryDays", "GradingDates", "Segments", "Stability", "Strata", "Tiers", "Upgrade",
    "refuse_other_dates",
]  # fmt: skip


_Days = Annotated[int, Field(strict=True, ge=0, le=3660)]


class Upgrade(Section):
    """The rule for moving up: past every cut point by a `band`, in enough gradings in a row, after a stay.

    `band` is a share of the customers: the cut point is moved past that many of them, but never past more than half of
    the customers beyond it. `confirmations` is the number of consecutive gradings that must ask for the move, the
    present one included; `min_stay_days` is the stay in the present tier.
    """

    band: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    confirmations: Annotated[int, Field(strict=True, ge=1, le=24)] = 1
    min_stay_days: _Days = 0


class Downgrade(Upgrade):
    """The rule for moving down; `grace_days` must also have passed since a grading first asked for the move."""

    grace_days: _Days = 0


class Stability(Section):
    """The stability rule, which keeps customers from flapping between tiers: `up`, `down`, or a budget for both.

    The budget: `moved_share` is the share of customers who may move from one snapshot to the next, `reversed_share`
    the share of the moves that may go straight back. Training then picks the rule under which tiers rank customers
    best by later value.
    """

    up: Upgrade = Upgrade()
    down: Downgrade = Downgrade()
    moved_share: Annotated[float, Field(gt=0, le=1)] | None = None
    reversed_share: Annotated[float, Field(gt=0, le=1)] = 1.0

    @model_validator(mode="after")
    def _rules_or_budget(self) -> Self:
        if self.moved_share is not None and (self.up != Upgrade() or self.down != Downgrade()):
            raise ValueError("moved_share picks the rules: leave up and down out")
        return self


class EveryDays(Section):
    """Grading dates so many days apart, counted from the last grading."""

    every_days: Annotated[int, Field(strict=True, ge=1, le=366)]


GradingDates = Literal["weekly", "monthly", "quarterly"] | EveryDays | None
"""When a scoring with a ledger grades: the first one of a week (Monday), month or quarter, or after so many days."""


def refuse_other_dates(value: object) -> object:
    """Return what may stand for grading dates; `ValueError` for anything else."""
    named = isinstance(value, str) and value in {"weekly", "monthly", "quarterly"}
    days = value.get("every_days") if isinstance(value, dict) and set(value) == {"every_days"} else None
    counted = type(days) is int and 1 <= days <= 366
    if not (value is None or named or counted or isinstance(value, EveryDays)):
        told = "expected weekly, monthly, quarterly or {every_days: N} with N from 1 to 366"
        raise ValueError(f"{told}, got {shown(value)}")
    return value


class Strata(Section):
    """Cut points found apart for the customers of each value of a text attribute, such as an industry.

    `by` names one of `data.customers.categories`. A value that fewer than `at_least` buyers have at fit, a value that
    is new later, and a missing value get the cut points of all customers.
    """

    by: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
    at_least: Annotated[int, Field(strict=True, ge=10)] = 50

    @property
    def feature(self) -> str:
        """The name of the text attribute among the features."""
        return f"attribute_{self.by}"


class Tiers(Section):
    """The scheme: a preset's name, a path to a scheme file, or a mapping.

    `stability` and `strata` replace the scheme's own. `grade` says which scorings with a ledger are gradings: `weekly`,
    `monthly`, `quarterly` or `{every_days: N}`; without it all are. Between gradings risk and value are new, and tiers
    are those of the ledger. Models do not depend on it.
    """

    scheme: str | dict[str, Any] = "five_levels"
    stability: Stability | None = None
    strata: Strata | None = None
    grade: GradingDates = None

    @field_validator("grade", mode="before")
    @classmethod
    def _known_dates(cls, value: object) -> object:
        return refuse_other_dates(value)

    @field_validator("scheme", mode="before")
    @classmethod
    def _name_or_mapping(cls, value: object) -> object:
        if not isinstance(value, str | dict) or not value:
            raise ValueError(f"expected a preset's name, a path or a mapping, got {shown(value)}")
        return value


class Segments(Section):
    """The clustering of behaviour: its method and the number of groups; `auto` chooses the number by criteria.

    HDBSCAN finds the number itself.
    """

    method: Literal["kmeans", "gaussian_mixture", "hdbscan"] = "kmeans"
    groups: Annotated[int, Field(strict=True, ge=2, le=20)] | Literal["auto"] = "auto"

    @field_validator("groups", mode="before")
    @classmethod
    def _number_or_auto(cls, value: object) -> object:
        if value != "auto" and not (type(value) is int and 2 <= value <= 20):
            raise ValueError(f"expected auto or a whole number from 2 to 20, got {shown(value)}")
        return value

    @model_validator(mode="after")
    def _density_counts_itself(self) -> Self:
        if self.method == "hdbscan" and self.groups != "auto":
            raise ValueError(f"hdbscan finds how many groups there are: leave groups: {self.groups} out")
        return self
