"""Allocation by prices: each customer takes what is best at given prices, and prices make demand fit the room."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numba
import numpy as np
from scipy.optimize import linprog

from tiermodel.arrays import Flags, Floats, Ints
from tiermodel.policy.exact import best_allocation, best_counts
from tiermodel.policy.problem import Problem

__all__ = ["Prices", "allocated", "find_prices", "polished"]

_STEPS = 200
_ALIKE = 1e-6  # of the largest gain: surpluses that differ by less are as good as each other
_NODES = 1_000
_CLOSE = 1e-8  # the share of the bound by which it may still be above its least
_SAMPLED, _SAMPLE = 200_000, 50_000  # customers from which on a sample comes first, and its size
_NEAR = 0.1
_CORE = 500  # customers whose choices are tried exactly, of those with the least difference between two


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _demand(net: Any, price: Any, starts: Any, counts: Any) -> float:
    """Return the sum of what is best for everyone at these prices, and count who takes which action."""
    total = 0.0
    counts[:] = 0
    for customer in range(net.shape[0]):
        for group in range(len(starts) - 1):
            best, chosen = 0.0, -1
            for action in range(starts[group], starts[group + 1]):
                surplus = net[customer, action] - price[action]
                if surplus > best:
                    best, chosen = surplus, action
            if chosen >= 0:
                total += best
                counts[chosen] += 1
    return total


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _regrets(net: Any, price: Any, starts: Any, alike: float) -> Any:
    """Return, of each customer and group, the best surplus, what it is above the next best, and which are as good.

    Nothing has a surplus of 0. Those within `alike` of the best are bits: the first for nothing, then actions.
    """
    groups = len(starts) - 1
    best = np.zeros((net.shape[0], groups))
    ahead = np.zeros((net.shape[0], groups))
    ties = np.zeros((net.shape[0], groups), dtype=np.int64)
    for customer in range(net.shape[0]):
        for group in range(groups):
            first, second = -np.inf, 0.0
            for action in range(starts[group], starts[group + 1]):
                surplus = net[customer, action] - price[action]
                if surplus > first:
                    first, second = surplus, max(first, 0.0)
                elif surplus > second:
                    second = surplus
            best[customer, group] = first
            ahead[customer, group] = first - second
            if first >= -alike:
                bits = 1 if first <= alike else 0
                for action in range(starts[group], starts[group + 1]):
                    if net[customer, action] - price[action] >= first - alike:
                        bits |= 1 << (1 + action - starts[group])
                ties[customer, group] = bits
    return best, ahead, ties


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _fits(use: Any, left: Any, action: int) -> bool:
    for row in range(use.shape[0]):  # noqa: SIM110  Numba compiles loops
        if use[row, action] > left[row]:
            return False
    return True


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _take(order: Any, surpluses: Any, starts: Any, stock: Any, taken: Any, least: float) -> None:
    """Give each customer and group without an action, in order, the best that fits and is above `least`."""
    (net, price), (use, left), groups = surpluses, stock, len(starts) - 1
    for place in order:
        customer, group = place // groups, place % groups
        if taken[customer, group] >= 0:
            continue
        best, chosen = least, -1
        for action in range(starts[group], starts[group + 1]):
            surplus = net[customer, action] - price[action]
            if surplus > best and _fits(use, left, action):
                best, chosen = surplus, action
        if chosen >= 0:
            taken[customer, group] = chosen
            left -= use[:, chosen]


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _exchange(order: Any, net: Any, starts: Any, stock: Any, taken: Any) -> int:
    """Give customers, in order, the action of a group that brings most and fits; return how many that moved."""
    (use, left), groups, moved = stock, len(starts) - 1, 0
    for place in order:
        customer, group = place // groups, place % groups
        now = taken[customer, group]
        best, chosen = 0.0 if now < 0 else net[customer, now], -1
        if now >= 0:
            left += use[:, now]
        for action in range(starts[group], starts[group + 1]):
            if net[customer, action] > best and _fits(use, left, action):
                best, chosen = net[customer, action], action
        if chosen >= 0:
            taken[customer, group], now = chosen, chosen
            moved += 1
        if now >= 0:
            left -= use[:, now]
    return moved


@dataclass(frozen=True)
class Prices:
    """The price of one unit of each resource, the budget first, and the bound that they prove for every allocation."""

    resources: Floats
    bound: float

    def of_actions(self, problem: Problem) -> Floats:
        """Return the price of each action: of what it takes of all resources."""
        return self.resources @ problem.use


def find_prices(problem: Problem, start: Floats | None = None, close: float = _CLOSE, steps: int = _STEPS) -> Prices:
    """Return the prices of the least bound: by cutting planes, each tried half-way from the best point so far.

    For any prices, the best for everyone at these prices, plus the room at these prices, bounds what any allocation
    brings; it is convex in the prices, and where customers take most actions lies on a plane below it. Near `start`
    few steps are needed; without it, prices are first sought for a sample where there are many customers.
    """
    use, room = problem.use.astype(np.float64), problem.room.astype(np.float64)
    counts = np.zeros(len(problem.cost), np.int64)

    def bound_at(prices: Floats) -> tuple[float, Floats]:
        found = _demand(problem.net, prices @ use, problem.starts, counts)
        return found + float(prices @ room), room - use @ counts

    least, slope = bound_at(np.zeros(len(room)))
    if (slope >= 0).all():  # all that everyone wants fits
        return Prices(np.zeros(len(room)), least)
    highest, size = _highest(problem), max(abs(least), 1e-300)
    if start is None and len(problem.net) > _SAMPLED:
        start = find_prices(problem.sample(_SAMPLE), None, close, steps).resources
    best = np.zeros(len(room)) if start is None else np.minimum(start, highest)
    planes, heights = [slope * highest / size], [least / size]
    width = np.full(len(room), 1.0) if start is None else _around(best, highest)
    centre = best / np.where(highest > 0, highest, 1.0)
    if start is not None:
        least, slope = bound_at(best)
        planes.append(slope * highest / size)
        heights.append((least - float(slope @ best)) / size)
    for _ in range(steps):
        sides = np.maximum(centre - width, 0.0), np.minimum(centre + width, 1.0)
        lowest, at = _lowest(np.array(planes), np.array(heights), *sides)
        if least / size - lowest <= close * max(abs(lowest), 1e-12):
            stuck = ((at <= sides[0]) & (sides[0] > 0)) | ((at >= sides[1]) & (sides[1] < 1))
            if not stuck.any():
                break
            width = np.where(stuck, 4 * width, width)  # the least bound may lie farther from the start
            continue
        for point in ((best + at * highest) / 2, at * highest):
            bound, slope = bound_at(point)
            planes.append(slope * highest / size)
            heights.append((bound - float(slope @ point)) / size)
            if bound < least:
                best, least = point, bound
                break
    return Prices(best, least)


def _around(start: Floats, highest: Floats) -> Floats:
    """Return how far from the start prices are sought at first, as shares of the highest prices."""
    share = start / np.where(highest > 0, highest, 1.0)
    return _NEAR * (share + share.max(initial=0.0) / 10) + 1e-9


def _highest(problem: Problem) -> Floats:
    """Return the prices above which nobody takes anything of a resource."""
    most = np.where(np.isfinite(problem.net), problem.net, 0).max(axis=0, initial=0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        rates = np.where(problem.use > 0, most / problem.use, 0.0)
    return rates.max(axis=1)


def _lowest(planes: Floats, heights: Floats, low: Floats, high: Floats) -> tuple[float, Floats]:
    """Return the lowest point above all planes, over prices from `low` to `high`, and the prices there."""
    width = planes.shape[1]
    aim = np.r_[np.zeros(width), 1.0]
    sides = np.c_[planes, -np.ones(len(planes))]
    bounds = [*zip(low, high, strict=True), (None, None)]
    found = linprog(aim, A_ub=sides, b_ub=-heights, bounds=bounds, method="highs")
    return float(found.fun), np.clip(found.x[:width], low, high)


def allocated(problem: Problem, prices: Prices) -> Flags:
    """Return an allocation near the prices that keeps every limit.

    Who has a clear choice gets it first, the surest before the others; those for whom several are as good are counted
    by what these are, and fill the room; what fits afterwards goes to who gains most.
    """
    price, starts = prices.of_actions(problem), problem.starts
    most = float(np.where(np.isfinite(problem.net), problem.net, 0.0).max(initial=0.0))
    best, ahead, ties = _regrets(problem.net, price, starts, _ALIKE * most)
    taken = np.full(ahead.shape, -1, dtype=np.int64)
    surpluses, stock = (problem.net, price), (problem.use, problem.room.copy())
    tied = (ties & (ties - 1)) != 0
    sure = np.flatnonzero(((best >= 0) & ~tied).ravel())
    _take(sure[np.argsort(-ahead.ravel()[sure], kind="stable")], surpluses, starts, stock, taken, 0.0)
    _share_out(problem, price, np.where(tied, ties, 0), best, taken)
    stock[1][:] = problem.left(np.bincount(taken[taken >= 0], minlength=len(price)))
    able = np.flatnonzero(np.isfinite(best.ravel()))
    able = able[np.argsort(-best.ravel()[able], kind="stable")]
    _take(able, surpluses, starts, stock, taken, -np.inf)
    while _exchange(able, problem.net, starts, stock, taken):
        pass
    chosen = np.zeros(problem.net.shape, dtype=np.bool_)
    rows, groups = np.nonzero(taken >= 0)
    chosen[rows, taken[rows, groups]] = True
    return chosen


def _share_out(problem: Problem, price: Floats, ties: Ints, best: Floats, taken: Ints) -> None:
    """Give those for whom several actions are as good (bits of `ties`) what lets all of them gain most.

    Customers with the same bits are one kind, so that there are few kinds, however many customers there are.
    """
    places = np.flatnonzero(ties)
    if not len(places):
        return
    groups = ties.shape[1]
    kinds, of_place, customers = np.unique(
        ties.ravel()[places] * groups + places % groups, return_inverse=True, return_counts=True
    )
    surplus = np.bincount(of_place, weights=best.ravel()[places]) / customers
    options = [
        (kind, int(action))
        for kind, code in enumerate(kinds.tolist())
        for action in range(problem.starts[code % groups], problem.starts[code % groups + 1])
        if code // groups >> (1 + action - problem.starts[code % groups]) & 1
    ]
    kind, action = np.array(options, dtype=np.int64).T
    left = problem.left(np.bincount(taken[taken >= 0], minlength=len(price)))
    value = np.maximum(price[action] + surplus[kind], 0.0)
    counts = best_counts(value, problem.use[:, action], left, kind, customers, _NODES)
    order = np.argsort(of_place, kind="stable")
    ends = np.cumsum(customers)
    for number in range(len(kinds)):
        mine = places[order[ends[number] - customers[number] : ends[number]]]
        given = np.repeat(action[kind == number], counts[kind == number])
        taken.ravel()[mine[: len(given)]] = given


def polished(problem: Problem, prices: Prices, chosen: Flags, nodes: int) -> Flags:
    """Return an allocation at least as good: the choices of those who are the least sure are tried anew, exactly."""
    if prices.bound - problem.value(chosen) <= _CLOSE * abs(prices.bound):
        return chosen
    ahead = _regrets(problem.net, prices.of_actions(problem), problem.starts, 0.0)[1]
    doubt = np.where(np.isfinite(ahead), np.abs(ahead), np.inf).min(axis=1, initial=np.inf)
    rows = np.sort(np.argsort(doubt, kind="stable")[:_CORE])
    others = chosen.copy()
    others[rows] = False
    core = replace(problem, net=problem.net[rows]).without_room(others.sum(axis=0))
    found = best_allocation(core, nodes, _CLOSE)
    if found is not None and core.value(found[0]) > core.value(chosen[rows]):
        others[rows] = found[0]
        return others
    return chosen
