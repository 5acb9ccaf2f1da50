"""Allocation as a mixed-integer programme, solved by HiGHS: exact for few customers, or few kinds of them."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, OptimizeResult, milp
from scipy.sparse import coo_array, vstack

from tiermodel.arrays import Flags, Floats, Ints
from tiermodel.policy.problem import Problem

__all__ = ["best_allocation", "best_counts", "best_of_kinds"]

_LARGEST = 1e4  # gains are scaled to it: HiGHS stops within 1e-6 of the best
_CLOSE = 1e-7  # how close counts of kinds come to the best: they are a part of an allocation whose gap is measured


def best_allocation(problem: Problem, nodes: int, close: float = 0.0) -> tuple[Flags, float] | None:
    """Return the best allocation and a bound on every one; None where HiGHS found none in so many nodes of its search.

    Within `close` of the best, as a share of it, is near enough. Time is no limit, as results would depend on it.
    """
    rows, actions = np.nonzero(np.isfinite(problem.net))
    chosen = np.zeros(problem.net.shape, dtype=np.bool_)
    if not len(rows):
        return chosen, 0.0
    groups = np.searchsorted(problem.starts, actions, side="right") - 1
    place = np.unique(rows * len(problem.starts) + groups, return_inverse=True)[1]
    net, once = problem.net[rows, actions], np.ones(place.max() + 1)
    found, scale = _solved(net, problem.use[:, actions], problem.room, (place, once), (close, nodes))
    if found.x is None:
        return None
    taken = found.x > 0.5
    chosen[rows[taken], actions[taken]] = True
    if (problem.left(chosen.sum(axis=0)) < 0).any():  # beyond a limit by less than HiGHS tells apart
        return None
    return chosen, -float(found.mip_dual_bound) / scale


def best_of_kinds(problem: Problem, nodes: int, most: int) -> tuple[Flags, float] | None:
    """Return what `best_allocation` does, where customers are of few kinds: who gains the same is of one.

    A variable is the number of customers of a kind who get an action. None for more than `most` kinds.
    """
    starts, chosen = problem.starts, np.zeros(problem.net.shape, dtype=np.bool_)
    parts, before = [], 0
    for first, end in itertools.pairwise(starts.tolist()):
        rows, of_row, size = np.unique(problem.net[:, first:end], axis=0, return_inverse=True, return_counts=True)
        kinds, actions = np.nonzero(np.isfinite(rows))
        parts.append((rows[kinds, actions], kinds + before, actions + first, size, of_row.ravel() + before))
        before += len(rows)
        if before > most:
            return None
    net, kind, action = (np.concatenate([part[n] for part in parts]) for n in range(3))
    if not len(net):
        return chosen, 0.0
    customers = np.concatenate([part[3] for part in parts]).astype(np.float64)
    found, scale = _solved(net, problem.use[:, action], problem.room, (kind, customers), (0.0, nodes))
    if found.x is None:
        return None
    counts = np.rint(found.x).astype(np.int64)
    for *_, of_row in parts:
        for number in np.unique(of_row):
            mine, given = np.flatnonzero(of_row == number), np.repeat(action[kind == number], counts[kind == number])
            chosen[mine[: len(given)], given[: len(mine)]] = True
    if (problem.left(chosen.sum(axis=0)) < 0).any():  # beyond a limit by less than HiGHS tells apart
        return None
    return chosen, -float(found.mip_dual_bound) / scale


def best_counts(value: Floats, use: Ints, room: Ints, kind: Ints, customers: Ints, nodes: int) -> Ints:
    """Return how many customers of a kind get an action; an option is an action for a kind of customers.

    `value` and `use` (resources, options) are of one customer with the option, `kind` is that of the option,
    `customers` how many there are of each kind. Zeros where HiGHS finds nothing that fits in so many nodes.
    """
    found, _ = _solved(value, use, room, (kind, customers.astype(np.float64)), (_CLOSE, nodes))
    counts = np.zeros(len(value), dtype=np.int64) if found.x is None else np.rint(found.x).astype(np.int64)
    return counts if (use @ counts <= room).all() else np.zeros_like(counts)


def _solved(
    value: Floats, use: Ints, room: Ints, kinds: tuple[Ints, Floats], stop: tuple[float, int]
) -> tuple[OptimizeResult, float]:
    """Return what HiGHS found, and by what the values were multiplied; `stop` is the gap and the nodes."""
    (kind, customers), scale = kinds, _LARGEST / value.max()
    # a resource of which there is enough for all is no constraint, and one row less to round
    tight = np.flatnonzero(use @ customers[kind] > room)
    most = np.maximum(use[tight].max(axis=1, initial=1), 1)
    shape = len(customers), len(value)  # said, since the last kind may have no option
    of_kind = coo_array((np.ones(len(value)), (kind, np.arange(len(value)))), shape)
    sides = vstack([of_kind, coo_array(use[tight] / most[:, None])]) if len(tight) else of_kind
    upper = np.r_[customers, room[tight] / most]
    with _quiet():
        found = milp(
            -value * scale,
            integrality=np.ones(len(value)),
            bounds=Bounds(0, customers[kind]),
            constraints=LinearConstraint(sides.tocsr(), -np.inf, upper),
            options={"mip_rel_gap": stop[0], "node_limit": stop[1]},
        )
    return found, scale


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep off standard output what HiGHS prints there whatever its options say: a machine may read our JSON."""
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        with open(os.devnull, "wb") as nothing:  # noqa: PTH123  a device
            os.dup2(nothing.fileno(), 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
