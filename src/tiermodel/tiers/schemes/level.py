"""One level of a scheme, and how many customers it takes."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from tiermodel.tiers.schemes.conditions import Data

__all__ = ["Level"]

_Count = Annotated[int, Field(ge=1)]


class Level(Data):
    """One level. `key` marks key accounts, `policy` and `policy_zh` name the service that its customers get.

    `capacity` is the most customers it takes. A team states it as `managers` times `customers_per_manager`, the span of
    control.
    """

    code: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,30}$")]
    name_zh: str
    name_en: str
    policy: str = ""
    policy_zh: str = ""
    key: bool = False
    capacity: _Count | None = None
    managers: _Count | None = None
    customers_per_manager: _Count | None = None

    @model_validator(mode="after")
    def _one_capacity(self) -> Self:
        if (self.managers is None) != (self.customers_per_manager is None):
            there, lacking = "managers", "customers_per_manager"
            if self.managers is None:
                there, lacking = lacking, there
            raise ValueError(f"levels: {self.code!r} has {there}, but not {lacking}: give both, such as {lacking}: 30")
        if self.capacity is not None and self.managers is not None:
            raise ValueError(
                f"levels: {self.code!r} has a capacity, and managers with customers_per_manager: give one of them"
            )
        return self

    @property
    def places(self) -> int | None:
        """The most customers that the level takes: its capacity, or what its managers can look after; None: any."""
        if self.managers is None or self.customers_per_manager is None:
            return self.capacity
        return self.managers * self.customers_per_manager
