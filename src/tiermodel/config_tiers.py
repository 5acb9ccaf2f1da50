"""The project's tiers: which scheme, and what keeps customers in their tier."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, field_validator

from tiermodel.config_data import Section
from tiermodel.yaml_source import shown

__all__ = ["Downgrade", "Stability", "Tiers", "Upgrade"]

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
    """Keep customers from flapping between tiers: a rule for moving up and one for moving down."""

    up: Upgrade = Upgrade()
    down: Downgrade = Downgrade()


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
