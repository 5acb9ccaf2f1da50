"""The project's tiers, which scheme and what keeps customers in theirs, and the segments beside them."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from tiermodel.config.data import Section
from tiermodel.config.yaml_reader import shown

__all__ = ["Downgrade", "Segments", "Stability", "Tiers", "Upgrade"]

_Days = Annotated[int, Field(strict=True, ge=0, le=3660)]


class Upgrade(Section):
    """Say when a customer moves up: past every cut point by a `band`, asked for often enough, after a stay.

    `band` is a share of the customers: the cut point is moved past that many of them, but never past more than half of
    those beyond it. `confirmations` counts gradings in a row that ask for the move, this one included.
    """

    band: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    confirmations: Annotated[int, Field(strict=True, ge=1, le=24)] = 1
    min_stay_days: _Days = 0


class Downgrade(Upgrade):
    """Say when a customer moves down; `grace_days` must also have passed since the move was first asked for."""

    grace_days: _Days = 0


class Stability(Section):
    """Keep customers from flapping between tiers: a rule for moving up and one for moving down.

    A budget stands for them: `moved_share` is the share of customers who may move from one snapshot to the next,
    `reversed_share` the share of the moves that may be straight back; training picks the rule that keeps most of the
    order by later value.
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


class Tiers(Section):
    """Name the scheme: a preset, a path to a scheme file, or the scheme itself; `stability` replaces the scheme's."""

    scheme: str | dict[str, Any] = "pyramid"
    stability: Stability | None = None

    @field_validator("scheme", mode="before")
    @classmethod
    def _name_or_mapping(cls, value: object) -> object:
        if not isinstance(value, str | dict) or not value:
            raise ValueError(f"expected a preset's name, a path or a mapping, got {shown(value)}")
        return value


class Segments(Section):
    """Choose how groups of behaviour are found, and how many: a number, or `auto`, by the criteria.

    HDBSCAN finds itself how many there are.
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
