"""The curve of gain against budget: what less and more money would bring."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from tiermodel.arrays import Flags
from tiermodel.policy.exact import best_allocation
from tiermodel.policy.lagrangian import Prices, allocated, find_prices
from tiermodel.policy.problem import Problem

__all__ = ["gain_curve"]

_POINTS = 10
_CUSTOMERS = 100_000  # a curve needs no more: the rest is in proportion
_EXACT, _NODES, _NEAR = 1_000, 50, 1e-4
_CLOSE, _STEPS = 1e-5, 60
_APART = 0.01


def gain_curve(rest: Problem, prices: Prices, fixed: float, unit: int, spent: int) -> Iterator[dict[str, Any]]:
    """Yield, for budgets from that of the minimum service to that of all that pays, what they would bring.

    `fixed` is what the minimum service brings less its cost, `spent` its cost in units, of which `unit` make one of the
    currency. Each allocation has its bound; of more customers than 100,000 a sample is allocated,
    with its share of every room, and `sampled` is then its size.
    """
    problem = rest.sample(_CUSTOMERS) if len(rest.net) > _CUSTOMERS else rest
    share = len(problem.net) / max(len(rest.net), 1)
    enough = replace(problem, budget=int(problem.cost.sum()) * len(problem.net))
    free = find_prices(enough, close=_CLOSE, steps=_STEPS)
    most = int(problem.cost @ allocated(enough, free).sum(axis=0))
    start, best = prices.resources, 0.0
    for budget in sorted({most * point // _POINTS for point in range(_POINTS + 1)}):
        point = replace(problem, budget=budget).reachable()
        found, chosen = _allocated(point, find_prices(point, start, _CLOSE, _STEPS))
        if found.bound - point.value(chosen) > _APART * abs(found.bound):  # the prices before were too far off
            afresh = _allocated(point, find_prices(point, close=_CLOSE))
            found, chosen = max((found, chosen), afresh, key=lambda pair: point.value(pair[1]))
            found = replace(found, bound=min(found.bound, afresh[0].bound))
        value, start = point.value(chosen), found.resources
        best = max(best, value)  # what a smaller budget brings, a larger one brings too
        cost = int(problem.cost @ chosen.sum(axis=0))
        yield {
            "budget": (spent + budget / share) / unit,
            "cost": (spent + cost / share) / unit,
            "objective": fixed + best / share,
            "bound": fixed + max(found.bound, best) / share,
            "sampled": len(problem.net) if share < 1 else None,
        }


def _allocated(problem: Problem, prices: Prices) -> tuple[Prices, Flags]:
    """Return the prices, and the best allocation found near them, or by trying where customers are few."""
    exact = best_allocation(problem, _NODES, _NEAR) if len(problem.net) <= _EXACT else None
    return prices, max([allocated(problem, prices), *(exact or ())[:1]], key=problem.value)
