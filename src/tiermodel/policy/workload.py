"""The load of a service policy: the places that customers take in each team, and what would make them fit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiermodel.errors import DataError
from tiermodel.policy.scores import open_scores
from tiermodel.policy.service_policy import Policy

__all__ = ["Move", "TeamLoad", "count_tiers", "workload"]


@dataclass(frozen=True)
class Move:
    """So many customers of a level who would have to be served as another, lower level is."""

    customers: int
    level: str
    to: str


@dataclass(frozen=True)
class TeamLoad:
    """The places that a team has, those that its customers take (customers times effort), and what would make them fit.

    `more_managers` and `move` are two ways, either is enough; there is no `move` where no lower level has room.
    """

    team: str
    levels: tuple[str, ...]
    managers: int
    customers_per_manager: int
    places: int
    taken: float
    more_managers: int = 0
    move: Move | None = None

    @property
    def fits(self) -> bool:
        """Whether there are places enough."""
        return self.taken <= self.places + 1e-9


def count_tiers(scores: Path, policy: Policy) -> dict[str, int]:
    """Return the customers of each level in a score table; `DataError` for a tier that the policy does not have."""
    with open_scores(scores) as table:
        query = f"SELECT tier_code, count(*) FROM {table.source.view} GROUP BY ALL ORDER BY ALL"
        found = dict(table.connection.execute(query).fetchall())
    if unknown := [code for code in found if code not in policy.levels]:
        raise DataError(
            f"{scores}: tier_code {', '.join(unknown[:5])} is no level of policy {policy.name}, which has "
            f"{', '.join(policy.levels)}; give scores of the policy's scheme"
        )
    return {code: found.get(code, 0) for code in policy.levels}


def workload(policy: Policy, codes: Sequence[str], customers: Mapping[str, int]) -> list[TeamLoad]:
    """Return the load of each team; `codes` are the levels, the lowest first."""
    loads = {}
    for name, team in policy.teams.items():
        levels = tuple(code for code in codes if policy.team_of(code) == name)
        taken = sum(customers[code] * policy.levels[code].effort for code in levels)
        loads[name] = TeamLoad(name, levels, team.managers, team.customers_per_manager, team.places, taken)
    return [load if load.fits else _mended(policy, codes, customers, load, loads) for load in loads.values()]


def _mended(
    policy: Policy,
    codes: Sequence[str],
    customers: Mapping[str, int],
    load: TeamLoad,
    loads: Mapping[str, TeamLoad],
) -> TeamLoad:
    """Return the load with what would make it fit: more managers, or customers of its lowest level served below."""
    over = load.taken - load.places - 1e-9
    more = math.ceil(over / load.customers_per_manager)
    known: dict[str, Any] = {**vars(load), "more_managers": more}
    for level in load.levels:
        for below in reversed(codes[: codes.index(level)]):
            effort, team = policy.levels[below].effort, policy.team_of(below)
            freed = policy.levels[level].effort - (effort if team == load.team else 0.0)
            moved = math.ceil(over / freed) if freed > 0 else customers[level] + 1
            room = team is None or team == load.team or loads[team].places - loads[team].taken >= moved * effort
            if moved <= customers[level] and room:
                return TeamLoad(**{**known, "move": Move(moved, level, below)})
    return TeamLoad(**known)
