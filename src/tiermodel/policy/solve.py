"""Set up and solve an allocation: the minimum service first, then the best use of what is left."""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal

import numpy as np

from tiermodel.arrays import Flags, Ints
from tiermodel.errors import ProjectError
from tiermodel.policy.candidates import Candidates, floor_of
from tiermodel.policy.exact import best_allocation, best_of_kinds
from tiermodel.policy.lagrangian import Prices, allocated, find_prices, polished
from tiermodel.policy.problem import Limit, Problem
from tiermodel.policy.service_policy import Policy

__all__ = ["Solved", "solve"]

_EXACT_CUSTOMERS, _EXACT_NODES, _CORE_NODES = 1_000, 2_000, 200
_KINDS, _GAP = 500, 1e-4  # customers who gain the same are one kind; tried where prices leave a larger gap


@dataclass(frozen=True)
class Solved:
    """An allocation: `chosen` and `fixed` (by the minimum service) are of shape (customers, actions)."""

    chosen: Flags
    fixed: Flags
    exact: bool
    prices: Prices
    problem: Problem
    unit: int

    @property
    def counts(self) -> Ints:
        """The customers of each action."""
        return self.chosen.sum(axis=0)


def solve(policy: Policy, found: Candidates, amount: Decimal) -> Solved:
    """Return the best allocation that is found: exact for few customers or few kinds, by prices for many."""
    problem, unit = _problem(policy, found, amount)
    column, wanted = floor_of(policy, found)
    fixed = np.zeros_like(found.allowed)
    if column is not None:
        fixed[wanted, column] = True
        _refuse_clashes(policy, problem, fixed.sum(axis=0), amount, unit)
        group = int(np.searchsorted(found.starts, column, side="right")) - 1
        problem.net[wanted, found.starts[group] : found.starts[group + 1]] = -np.inf
    rest = problem.without_room(fixed.sum(axis=0)).reachable()
    prices = find_prices(rest)
    best, chosen = None, allocated(rest, prices)
    if len(found.tier) <= _EXACT_CUSTOMERS:
        best = best_allocation(rest, _EXACT_NODES)
    else:
        chosen = polished(rest, prices, chosen, _CORE_NODES)
        if prices.bound - rest.value(chosen) > _GAP * abs(prices.bound):
            best = best_of_kinds(rest, _EXACT_NODES, _KINDS)
    if best is not None and rest.value(best[0]) >= rest.value(chosen):
        chosen, prices = best[0], replace(prices, bound=min(prices.bound, best[1]))
    value = rest.value(chosen)
    closed = best is not None and prices.bound <= value + 1e-9 * max(abs(value), 1.0)
    prices = replace(prices, bound=max(prices.bound, value))
    return Solved(chosen | fixed, fixed, closed, prices, rest, unit)


def _problem(policy: Policy, found: Candidates, amount: Decimal) -> tuple[Problem, int]:
    """Return the problem before the minimum service, and how many units of cost make one unit of the currency."""
    costs = [Decimal(repr(policy.actions[code].cost)) for code in found.codes]
    unit = 10 ** max(0, *(-int(cost.normalize().as_tuple().exponent) for cost in costs))
    whole = [int(cost * unit) for cost in costs]
    most = len(found.tier) * sum(whole)
    if most > 1 << 62:
        raise ProjectError(f"policy {policy.name}: costs of {max(costs)} with so many decimals cannot be added exactly")
    cost = np.array([float(c) for c in costs])
    net = np.where(found.allowed & (found.gain > cost), found.gain - cost, -np.inf)
    limits = [
        Limit("capacity", code, action.capacity, (found.codes.index(code),))
        for code, action in policy.actions.items()
        if action.capacity is not None
    ]
    for name, team in policy.teams.items():
        members = tuple(n for n, code in enumerate(found.codes) if policy.actions[code].team == name)
        if members:
            limits.append(Limit("team", name, team.places, members))
    budget = min(int(amount * unit), most)
    return Problem(net, np.array(whole, dtype=np.int64), budget, found.starts, tuple(limits)), unit


def _refuse_clashes(policy: Policy, problem: Problem, given: Ints, amount: Decimal, unit: int) -> None:
    """Raise `ProjectError` that names each constraint with which the minimum service clashes."""
    assert policy.floor is not None  # noqa: S101  the caller has one
    action, customers = policy.floor.action, int(given.sum())
    clashes = []
    if (total := int(problem.cost @ given)) > problem.budget:
        needed = Decimal(total) / unit
        clashes.append(f"it costs {needed:f}, above --budget {amount:f}: raise the budget to {needed:f}")
    for limit, left in zip(problem.limits, problem.left(given)[1:], strict=True):
        if left < 0 and limit.kind == "capacity":
            words = f"actions.{action}.capacity is {limit.places:,}: raise it to {customers:,}"
            clashes.append(words)
        elif left < 0:
            words = f"teams.{limit.name} has {limit.places:,} places: give it more managers, or another team"
            clashes.append(words)
    if clashes:
        raise ProjectError(
            f"policy {policy.name}: floor asks for {action} for {customers:,} customers of "
            f"{', '.join(policy.floor.tiers)}, but {'; '.join(clashes)}; or take tiers out of floor.tiers"
        )
