"""The allocation as a problem: what each action would bring each customer, and what limits the sum of all."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np

from tiermodel.arrays import Flags, Floats, Ints

__all__ = ["Limit", "Problem"]


@dataclass(frozen=True)
class Limit:
    """The most customers that `actions`, numbered as in the problem, may have together."""

    kind: Literal["capacity", "team"]
    name: str
    places: int
    actions: tuple[int, ...]


@dataclass(frozen=True)
class Problem:
    """A multiple-choice knapsack: at most one action of a group for each customer, within a budget and limits.

    `net` (customers, actions) is gain less cost; -inf where the customer may not get the action, or where it would not
    bring more than it costs. Actions of a group stand side by side, and a group begins at each of `starts` but the
    last, which is the number of actions. `cost`, of one customer, and `budget` are whole units, so that sums are exact.
    """

    net: Floats
    cost: Ints
    budget: int
    starts: Ints
    limits: tuple[Limit, ...]

    @cached_property
    def use(self) -> Ints:
        """What one customer with an action takes of each resource, of shape (resources, actions): the budget first."""
        rows = np.zeros((1 + len(self.limits), len(self.cost)), dtype=np.int64)
        rows[0] = self.cost
        for row, limit in enumerate(self.limits, 1):
            rows[row, list(limit.actions)] = 1
        return rows

    @cached_property
    def room(self) -> Ints:
        """What there is of each resource."""
        return np.array([self.budget, *(limit.places for limit in self.limits)], dtype=np.int64)

    def left(self, counts: Ints) -> Ints:
        """Return what is left of each resource where each action has so many customers."""
        return self.room - self.use @ counts

    def value(self, chosen: Flags) -> float:
        """Return the sum of net over the chosen actions, of shape (customers, actions)."""
        return float(self.net[chosen].sum())

    def without_room(self, given: Ints) -> Problem:
        """Return what is left of the problem where actions have `given` customers, whose choices are no part of it."""
        left = self.left(given)
        limits = tuple(replace(limit, places=int(n)) for limit, n in zip(self.limits, left[1:], strict=True))
        return replace(self, budget=int(left[0]), limits=limits)

    def reachable(self) -> Problem:
        """Return the problem without actions for which there is not room for one customer: bounds are tighter."""
        beyond = (self.use > self.room[:, None]).any(axis=0)
        return replace(self, net=np.where(beyond, -np.inf, self.net)) if beyond.any() else self

    def sample(self, customers: int) -> Problem:
        """Return the problem of a seeded sample of the customers, with its share of the room."""
        rows = np.sort(np.random.default_rng(0).choice(len(self.net), customers, replace=False))
        share = customers / len(self.net)
        limits = tuple(replace(limit, places=round(limit.places * share)) for limit in self.limits)
        return replace(self, net=self.net[rows], budget=round(self.budget * share), limits=limits)
