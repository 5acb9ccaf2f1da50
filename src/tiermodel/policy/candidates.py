"""Who may get which action, and what it would bring: the rows of SCORES seen through the policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tiermodel.arrays import Flags, Floats, Ints
from tiermodel.errors import DataError, ProjectError
from tiermodel.policy.scores import Scores
from tiermodel.policy.service_policy import Action, Policy

__all__ = ["VALUE", "Candidates", "candidates_of", "expressions_of", "floor_of"]

VALUE = "expected_value"
"""The column of SCORES with what a customer is expected to bring, for the comparison with the cost of the service."""


@dataclass(frozen=True)
class Candidates:
    """Customers, ordered by id, and what each action, of shape (customers, actions), would bring them.

    `codes` are the actions, those of one group side by side; a group begins at each of `starts` but the last. `tier`
    numbers the levels in the order of the policy. `refused` are those who opted out or did not consent, who are allowed
    nothing; the gain of what is not allowed is 0. `value` is NaN where SCORES do not know it; None without the column.
    """

    ids: pa.Array
    tier: Ints
    codes: tuple[str, ...]
    starts: Ints
    gain: Floats
    allowed: Flags
    refused: Flags
    value: Floats | None


def expressions_of(policy: Policy) -> list[str]:
    """Return every expression of a policy."""
    given = [(action.gain, action.where, action.exclude) for action in policy.actions.values()]
    return [text for texts in given for text in texts if text is not None]


def candidates_of(scores: Scores, policy: Policy) -> Candidates:
    """Return the customers of SCORES, with what each action would bring them.

    Raises `ProjectError` for an expression that cannot be read, or names a column that is not there, `DataError` for a
    tier that the policy does not have, and for a gain that is missing or infinite where the customer may get it.
    """
    codes, starts = _grouped(policy)
    table = scores.select([*_columns(scores, policy, codes)])
    tier = _tiers(scores, policy, table)
    shape = (len(tier), len(codes))
    gain, allowed = np.zeros(shape), np.zeros(shape, dtype=np.bool_)
    refused, manual = _flags(table["refused"]), _flags(table["manual"])
    floor = None if policy.floor is None else policy.floor.action
    for column, code in enumerate(codes):
        action = policy.actions[code]
        may = _flags(table[f"may_{column}"]) & ~refused
        may &= ~manual | (code == floor)  # the minimum service is everyone's; beyond it a person decides
        if action.tiers is not None:
            may &= np.isin(tier, [list(policy.levels).index(name) for name in action.tiers])
        gain[:, column] = pc.fill_null(table[f"gain_{column}"], np.nan).to_numpy()
        _check_gain(policy, code, gain[:, column], may, table)
        allowed[:, column] = may
    value = pc.fill_null(table["value"], np.nan).to_numpy() if "value" in table.column_names else None
    ids = table["customer_id"].combine_chunks()
    return Candidates(ids, tier, codes, starts, np.where(allowed, gain, 0.0), allowed, refused, value)


def _grouped(policy: Policy) -> tuple[tuple[str, ...], Ints]:
    """Return the actions group by group, and where each group begins; an action without a group is one by itself."""
    groups: dict[tuple[str, str], list[str]] = {}
    for code, action in policy.actions.items():
        groups.setdefault(("group", action.group) if action.group else ("alone", code), []).append(code)
    starts = np.cumsum([0, *map(len, groups.values())], dtype=np.int64)
    return tuple(code for codes in groups.values() for code in codes), starts


def _columns(scores: Scores, policy: Policy, codes: tuple[str, ...]) -> list[str]:
    columns = ["customer_id", "tier_code", f"({scores.refused()}) AS refused", f"({scores.by_a_person()}) AS manual"]
    for number, code in enumerate(codes):
        action, key = policy.actions[code], f"policy {policy.name}: actions.{code}"
        columns.append(f"{scores.number(f'{key}.gain', action.gain)} AS gain_{number}")
        columns.append(f"({_may(scores, key, action)}) AS may_{number}")
    if scores.columns.get(VALUE) == "DOUBLE":
        columns.append(f"{VALUE} AS value")
    return columns


def _may(scores: Scores, key: str, action: Action) -> str:
    parts = []
    if action.where is not None:
        parts.append(scores.condition(f"{key}.where", action.where))
    if action.exclude is not None:
        parts.append(f"NOT {scores.condition(f'{key}.exclude', action.exclude)}")
    return " AND ".join(parts) or "true"


def _flags(column: Any) -> Flags:
    flags: Flags = column.combine_chunks().to_numpy(zero_copy_only=False).astype(np.bool_)
    return flags


def _tiers(scores: Scores, policy: Policy, table: pa.Table) -> Ints:
    found = pc.index_in(table["tier_code"], pa.array(list(policy.levels), pa.string()))
    unknown = pc.filter(table["tier_code"], pc.is_null(found))
    if len(unknown):
        names = sorted(set(unknown.to_pylist()))
        raise DataError(
            f"{scores.file}: tier_code {', '.join(names[:5])}{', …' if len(names) > 5 else ''} of {len(unknown):,} "
            f"customers is no level of policy {policy.name}, which has {', '.join(policy.levels)}; add it below levels"
        )
    tier: Ints = found.combine_chunks().to_numpy().astype(np.int64)
    return tier


def _check_gain(policy: Policy, code: str, gain: Floats, may: Flags, table: pa.Table) -> None:
    text, key = policy.actions[code].gain, f"policy {policy.name}: actions.{code}"
    bad = np.flatnonzero(may & ~np.isfinite(gain))
    if not len(bad):
        return
    who, what = table["customer_id"][int(bad[0])].as_py(), "missing" if np.isnan(gain[bad[0]]) else "infinite"
    remedy = "coalesce(…, 0) around columns that may be empty" if what == "missing" else "nullif(…, 0) below a division"
    raise DataError(
        f"{key}.gain: {text!r} is {what} for {len(bad):,} of {may.sum():,} customers who may get {code}, first for "
        f"customer {who!r}; write {remedy}, or leave such customers out by actions.{code}.where"
    )


def floor_of(policy: Policy, found: Candidates) -> tuple[int | None, Flags]:
    """Return the action of the minimum service, and who gets it: all of its tiers but those who refused.

    Raises `ProjectError` where the action's own conditions keep it from a customer.
    """
    nobody = np.zeros(len(found.tier), dtype=np.bool_)
    if policy.floor is None:
        return None, nobody
    column = found.codes.index(policy.floor.action)
    wanted = np.isin(found.tier, [list(policy.levels).index(name) for name in policy.floor.tiers]) & ~found.refused
    kept = np.flatnonzero(wanted & ~found.allowed[:, column])
    if len(kept):
        raise ProjectError(
            f"policy {policy.name}: floor asks for {policy.floor.action} for every customer of "
            f"{', '.join(policy.floor.tiers)}, but actions.{policy.floor.action}.where or exclude keeps it from "
            f"{len(kept):,} of them, first customer {found.ids[int(kept[0])].as_py()!r}; remove one of the two"
        )
    return column, wanted
