"""Allocation: which customer gets which action, within a budget, capacities and teams, the minimum service first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, overload

import numpy as np
import pandas as pd
import pyarrow as pa

from tiermodel.arrays import Floats, Ints
from tiermodel.config.project import Project
from tiermodel.config.targets import Outcome
from tiermodel.errors import ProjectError
from tiermodel.output import staged, write_table
from tiermodel.policy.advisory import advisory_path, unprofitable, write_advisory
from tiermodel.policy.candidates import VALUE, Candidates, candidates_of, expressions_of
from tiermodel.policy.curve import gain_curve
from tiermodel.policy.measured import Effect, read_effects, with_effects
from tiermodel.policy.problem import Problem
from tiermodel.policy.scores import open_scores
from tiermodel.policy.service_policy import Policy, load_policy
from tiermodel.policy.solve import Solved, solve
from tiermodel.tables.frames import as_file, in_memory
from tiermodel.words import notebook_table, words

__all__ = ["Allocation", "allocate"]

_SCHEMA = pa.schema([
    ("customer_id", pa.string()), ("tier_code", pa.string()), ("action", pa.string()), ("cost", pa.float64()),
    ("gain", pa.float64()), ("why", pa.string()),
])  # fmt: skip


@dataclass(frozen=True)
class Allocation:
    """What an allocation came to; amounts are in currency units and per period.

    `objective` is the sum of gain less cost, `bound` what no allocation can exceed, `exact` whether they were shown to
    be equal by trying all. `customers` get an action, of `customers_read`; `refused` opted out or did not consent.
    `by_action`, `by_tier` and `by_tier_action` have customers, cost, gain, net and return (gain per unit of cost); a
    tier also has its `actions`, as a customer may get several.
    `shadow_prices` tell what one more unit would bring at the margin: of `budget`, of each action's `capacity`, of a
    place in a `team`, and, at most, of a `manager` with all the places that one has. `curve` has what budgets between
    nothing and all that pays would bring. `advisory` counts customers whose service costs more than they bring.
    `period_assumed` is true where neither policy, project nor scores tell the days of a period; `tier_names` has names
    by code where the scores have them.
    `effects` says where gains come from: `assumed` by the policy, or `measured`, with intervals.
    """

    objective: float
    bound: float
    exact: bool
    budget: float
    cost: float
    gain: float
    customers: int
    customers_read: int
    refused: int
    period_days: int
    period_assumed: bool
    tier_names: dict[str, str]
    by_action: tuple[dict[str, Any], ...]
    by_tier: tuple[dict[str, Any], ...]
    by_tier_action: tuple[dict[str, Any], ...]
    shadow_prices: dict[str, Any]
    curve: tuple[dict[str, Any], ...]
    advisory: dict[str, Any] | None
    effects: dict[str, Any]
    language: str = "en"

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the sums, and the customers, cost and gain of every action."""
        say = words(self.language)
        sums = [("shown_objective", self.objective), ("shown_bound", self.bound), ("shown_cost", self.cost)]
        rows: list[tuple[object, ...]] = [(say[key], value) for key, value in sums]
        rows.append((say["customers"], self.customers))
        rows += [(row["action"], row["customers"], row["cost"], row["gain"]) for row in self.by_action]
        return notebook_table(self.language, say["shown_allocation"], rows)

    @property
    def gap(self) -> float:
        """How far the objective may be below the best one, as a share of the bound."""
        return max(self.bound - self.objective, 0.0) / abs(self.bound) if self.bound else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain data, for JSON."""
        plain = {name: value for name, value in vars(self).items() if name != "language"}
        return {**plain, "gap": self.gap}


@overload
def allocate(
    scores: pd.DataFrame | str | Path, policy: Policy | str | Path, budget: float | str, out: None = None, *,
    project: Project | None = None, measured: pd.DataFrame | str | Path | None = None, language: str | None = None,
) -> pd.DataFrame: ...  # fmt: skip


@overload
def allocate(
    scores: pd.DataFrame | str | Path, policy: Policy | str | Path, budget: float | str, out: str | Path, *,
    project: Project | None = None, measured: pd.DataFrame | str | Path | None = None, language: str | None = None,
) -> Allocation: ...  # fmt: skip


def allocate(
    scores: pd.DataFrame | str | Path,
    policy: Policy | str | Path,
    budget: float | str,
    out: str | Path | None = None,
    *,
    project: Project | None = None,
    measured: pd.DataFrame | str | Path | None = None,
    language: str | None = None,
) -> Allocation | pd.DataFrame:
    """Choose actions for customers so that the sum of gain less cost is largest: return the choices, or write them.

    The minimum service (`floor`) comes before anything else. Beyond it nobody gets an action that does not bring more
    than it costs. Who opted out or did not consent, by the columns `opt_out` and `consent` of the scores, gets nothing;
    who asked that no machine decides (`manual_decision`) gets the minimum service only: a person may decide on more.

    Parameters
    ----------
    scores
        A table, .parquet or .csv, or a DataFrame, with `customer_id`, `tier_code` and the columns that the policy's
        expressions name.
    policy
        A policy, its file, or the name of one that ships.
    budget
        The most that all actions may cost together in one period, in currency units.
    out
        The file to write, .parquet or .csv: `customer_id, tier_code, action, cost, gain, why`. Beside it,
        `NAME.advisory.csv` lists customers whose service costs more than they bring, each to be approved by a person.
        Without it the rows are returned.
    project
        The project whose horizon is the period where the policy has none, and whose language texts are in. Without
        it the period is the horizon that the file of scores names, else 90 days are assumed.
    measured
        A table of a randomised trial, whose effects take the place of assumed gains: `read_effects` has its columns.
    language
        `zh` or `en`; by default that of the policy, else of the project, else of the scores, else English.

    Returns
    -------
    Allocation or pandas.DataFrame
        The sums, bounds, prices and tables of the allocation; without `out`, the rows.

    Raises
    ------
    ProjectError
        If the policy or the budget is wrong, or the minimum service does not fit into budget, capacity and team.
    DataError
        If the scores lack a column, a tier or a gain, or the groups of a trial cannot be compared.

    Examples
    --------
    >>> allocate("scores.parquet", "retail", -1, "actions.parquet")
    Traceback (most recent call last):
        ...
    tiermodel.errors.ProjectError: --budget: expected an amount from 0 on, got -1; give one such as --budget 10000

    """
    amount = _amount(budget)
    policy = policy if isinstance(policy, Policy) else load_policy(policy)
    if not policy.actions:
        raise ProjectError(f"policy {policy.name}: there are no actions to choose from; add some below actions")
    if out is None:
        given = {"project": project, "measured": measured, "language": language}
        return in_memory(lambda path: allocate(scores, policy, budget, path, **given))  # type: ignore[arg-type]
    out, named = Path(out), [*expressions_of(policy), VALUE]
    with as_file(scores, "scores") as path, open_scores(path, named, (out, advisory_path(out))) as table:
        found, horizon, spoken = candidates_of(table, policy), table.horizon_days, table.language
        names = table.tier_names()
    language = language or policy.language or (project.language if project else spoken) or "en"
    with as_file("" if measured is None else measured, "measured") as path:
        effects = None if measured is None else read_effects(path, policy)
    found = found if effects is None else with_effects(found, policy, effects)
    solved = solve(policy, found, amount)
    known = policy.period_days or (project.outcome.horizon_days if project else horizon)
    period = known or Outcome().horizon_days
    listed = unprofitable(policy, found, period)
    with staged() as files:
        write_table(_rows(policy, found, solved, language), out, into=files)
        write_advisory(listed, policy, found, out, files)
    sums = None if listed is None else listed.sums(out)
    rest: dict[str, Any] = {"period_days": period, "period_assumed": known is None, "tier_names": names}
    return _told(policy, found, solved, amount, effects, {**rest, "advisory": sums, "language": language})


def _amount(budget: float | str) -> Decimal:
    try:
        amount = Decimal(str(budget))
    except InvalidOperation:
        amount = Decimal(-1)
    if not amount.is_finite() or amount < 0:
        raise ProjectError(f"--budget: expected an amount from 0 on, got {budget}; give one such as --budget 10000")
    return amount


def _rows(policy: Policy, found: Candidates, solved: Solved, language: str) -> pa.Table:
    """Return one row for each choice, by customer."""
    rows, actions = np.nonzero(solved.chosen)
    costs = np.array([policy.actions[code].cost for code in found.codes])
    columns = [
        found.ids.take(pa.array(rows)),
        pa.array(list(policy.levels), pa.string()).take(pa.array(found.tier[rows])),
        pa.array(found.codes, pa.string()).take(pa.array(actions)),
        pa.array(costs[actions]),
        pa.array(found.gain[rows, actions]),
        _reasons(policy, found, solved, (rows, actions), language),
    ]
    return pa.table([column.cast(field.type) for column, field in zip(columns, _SCHEMA, strict=True)], schema=_SCHEMA)


def _reasons(policy: Policy, found: Candidates, solved: Solved, at: tuple[Ints, Ints], language: str) -> pa.Array:
    """Return why each choice was made: the minimum service, the best for the customer, or the best with the room."""
    rows, actions = at
    say, width = words(language), len(found.codes)
    names = [policy.actions[code].name(language, code) for code in found.codes]
    best = np.empty(len(rows), dtype=np.int64)
    groups = np.searchsorted(found.starts, actions, side="right") - 1
    for group in range(len(found.starts) - 1):
        here, first = groups == group, found.starts[group]
        best[here] = first + np.argmax(solved.problem.net[rows[here], first : found.starts[group + 1]], axis=1)
    fixed = solved.fixed[rows, actions]
    kind = np.where(fixed, width, np.where(best == actions, width + 1, best))
    texts = [say["allocate_why_instead"].format(action=name) for name in names]
    texts += [say["allocate_why_floor"], say["allocate_why_best"]]
    return pa.array(texts, pa.string()).take(pa.array(kind))


def _told(
    policy: Policy,
    found: Candidates,
    solved: Solved,
    amount: Decimal,
    effects: Mapping[tuple[str, str], Effect] | None,
    more: dict[str, Any],
) -> Allocation:
    counts = solved.counts
    cost = float(Decimal(int(solved.problem.cost @ counts)) / solved.unit)
    gains = np.where(solved.chosen, found.gain, 0.0)
    tiers = _sums(policy, found, solved, gains)
    fixed = float(found.gain[solved.fixed].sum()) - float(
        Decimal(int(solved.problem.cost @ solved.fixed.sum(axis=0))) / solved.unit
    )
    rest = solved.problem
    value = rest.value(solved.chosen & ~solved.fixed)
    levels, served = list(policy.levels), solved.chosen.any(axis=1)
    reached = np.bincount(found.tier[served], minlength=len(levels))
    return Allocation(
        objective=fixed + value,
        bound=fixed + solved.prices.bound,
        exact=solved.exact,
        budget=float(amount),
        cost=cost,
        gain=float(gains.sum()),
        customers=int(served.sum()),
        customers_read=len(found.tier),
        refused=int(found.refused.sum()),
        by_action=tuple(_by_action(policy, found, tiers)),
        by_tier=tuple(
            {"tier_code": code, "customers": int(reached[level]), **_total(tiers, tier=level)}
            for level, code in enumerate(levels)
        ),
        by_tier_action=tuple(
            {"tier_code": levels[tier], "action": found.codes[action], **_total(tiers, tier=tier, action=action)}
            for tier, action in np.argwhere(tiers[0] > 0)
        ),
        shadow_prices=_shadow_prices(policy, rest, solved),
        curve=tuple(gain_curve(rest, solved.prices, fixed, solved.unit, int(rest.cost @ solved.fixed.sum(axis=0)))),
        effects=_effects(effects),
        **more,
    )


def _sums(policy: Policy, found: Candidates, solved: Solved, gains: Floats) -> Floats:
    """Return customers, cost and gain, of shape (3, levels, actions)."""
    levels = len(policy.levels)
    shape = (levels, len(found.codes))
    customers, gain = np.zeros(shape), np.zeros(shape)
    for level in range(levels):
        here = found.tier == level
        customers[level], gain[level] = solved.chosen[here].sum(axis=0), gains[here].sum(axis=0)
    cost = np.array([policy.actions[code].cost for code in found.codes])
    return np.stack([customers, customers * cost, gain])


def _total(sums: Floats, tier: int | slice = slice(None), action: int | slice = slice(None)) -> dict[str, Any]:
    """Return the sums of some tiers and actions; `customers` where one action has each of them once at most."""
    chosen, cost, gain = (float(np.sum(part[tier, action])) for part in sums)
    counted = "actions" if isinstance(action, slice) else "customers"
    return {
        counted: int(chosen),
        "cost": cost,
        "gain": gain,
        "net": gain - cost,
        "return": gain / cost if cost else None,
    }


def _by_action(policy: Policy, found: Candidates, sums: Floats) -> list[dict[str, Any]]:
    rows = []
    for code, action in policy.actions.items():
        rows.append({"action": code, **_total(sums, action=found.codes.index(code)), "capacity": action.capacity})
    return rows


def _shadow_prices(policy: Policy, rest: Problem, solved: Solved) -> dict[str, Any]:
    prices = solved.prices.resources
    found: dict[str, Any] = {"budget": float(prices[0]) * solved.unit, "capacity": {}, "team": {}, "manager": {}}
    for limit, price in zip(rest.limits, prices[1:], strict=True):
        found[limit.kind][limit.name] = float(price)
        if limit.kind == "team":
            found["manager"][limit.name] = float(price) * policy.teams[limit.name].customers_per_manager
    return found


def _effects(effects: Mapping[tuple[str, str], Effect] | None) -> dict[str, Any]:
    if effects is None:
        return {"kind": "assumed"}
    rows = [{"action": action, "tier_code": tier, **vars(effect)} for (action, tier), effect in effects.items()]
    return {"kind": "measured", "measured": rows}
