"""Effects of actions measured in a randomised trial, in place of the gains that a policy assumes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from tiermodel.errors import DataError
from tiermodel.policy.candidates import Candidates
from tiermodel.policy.scores import Scores, open_scores
from tiermodel.policy.service_policy import Policy
from tiermodel.tables.source import quoted

__all__ = ["Effect", "read_effects", "with_effects"]

_KEYS = ("customer_id", "action", "tier_code", "treated", "outcome")
_BEFORE = re.compile(r"pre_\w+")
_LEAST = 30  # customers in each group: with fewer the normal interval of a mean is not one
_IMBALANCE = 0.01  # the chance, over all columns and tiers of an action, to refuse groups that were drawn at random
_LEVEL = 0.95


@dataclass(frozen=True)
class Effect:
    """What an action brought on average: treated less control, with its 95 % interval, and the size of both groups."""

    gain: float
    low: float
    high: float
    treated: int
    control: int


def read_effects(path: Path, policy: Policy) -> dict[tuple[str, str], Effect]:
    """Return the effects by action and tier of a trial: a row a customer and action, whether treated, and the outcome.

    The table has `customer_id`, `action`, `tier_code` and columns `pre_…`, all as known before the trial, `treated`
    (drawn at random) and `outcome` (what the customer brought in the period after, before the cost of the action).
    There is no effect where a group has fewer than 30 customers. Raises `DataError` where treated customers differ from
    the others in a column of before by more than a random draw explains, or where there is no such column.
    """
    with open_scores(path, ["outcome"], keys=_KEYS, numbers=_BEFORE) as table:
        before = [name for name in table.columns if _BEFORE.fullmatch(name)]
        if not before:
            raise DataError(
                f"{path}: without a column of the time before, such as pre_amount, nobody can tell whether treated "
                "customers are comparable with the others; add one or more, named pre_…"
            )
        frame = _trial(table, before)
    for name, known in (("action", policy.actions), ("tier_code", policy.levels)):
        if unknown := sorted(set(frame[name]) - set(known)):
            raise DataError(
                f"{path}: {name} {unknown[0]!r} is not in policy {policy.name}, which has {', '.join(known)}"
            )
    for action, rows in frame.groupby("action", sort=True):
        _refuse_imbalance(path, str(action), rows, before)
    found = dict(_effects(frame))
    if not found:
        raise DataError(f"{path}: no action has {_LEAST} treated customers and {_LEAST} others of one tier")
    return found


def with_effects(found: Candidates, policy: Policy, effects: Mapping[tuple[str, str], Effect]) -> Candidates:
    """Return the candidates with measured gains, for the actions and tiers that were measured."""
    gain, levels = found.gain.copy(), list(policy.levels)
    for (action, tier), effect in effects.items():
        column = found.codes.index(action)
        here = found.allowed[:, column] & (found.tier == levels.index(tier))
        gain[here, column] = effect.gain
    return replace(found, gain=gain)


def _trial(table: Scores, before: list[str]) -> pd.DataFrame:
    numbers = [f"{table.number(f'{table.file}: {name}', name)} AS {quoted(name)}" for name in ("outcome", *before)]
    treated = f"{table.flag('treated')} AS treated"
    keys = ["customer_id", "action::VARCHAR AS action", "tier_code"]
    frame: pd.DataFrame = table.select([*keys, treated, *numbers]).to_pandas()
    for name in ("treated", "outcome", *before):
        if frame[name].isna().any():
            who = frame["customer_id"][frame[name].isna()].iloc[0]
            raise DataError(f"{table.file}: {name} is missing or unreadable, first for customer {who!r}; correct it")
    return frame.assign(treated=frame["treated"].astype(bool))


def _refuse_imbalance(path: Path, action: str, rows: pd.DataFrame, before: list[str]) -> None:
    cells = [(tier, cell) for tier, cell in rows.groupby("tier_code", sort=True) if _enough(cell)]
    allowed = _IMBALANCE / max(len(cells) * len(before), 1)
    for tier, cell in cells:
        for name in before:
            treated, control = (cell[name][cell["treated"] == side].to_numpy() for side in (True, False))
            spread = np.sqrt((treated.var(ddof=1) + control.var(ddof=1)) / 2)
            if spread == 0 and treated.mean() == control.mean():
                continue
            chance = stats.ttest_ind(treated, control, equal_var=False).pvalue if spread > 0 else 0.0
            if chance < allowed:
                means = (
                    f"{treated.mean():,.4g} on average for treated customers and {control.mean():,.4g} for the others"
                )
                raise DataError(
                    f"{path}: the groups of {action} in tier {tier} are not comparable: {name} was {means} "
                    f"(p = {chance:.1g}), so treatment was not random; leave the action out of the file: its gain is "
                    "then the one that the policy assumes"
                )


def _effects(frame: pd.DataFrame) -> Iterator[tuple[tuple[str, str], Effect]]:
    for (action, tier), cell in frame.groupby(["action", "tier_code"], sort=True):
        if not _enough(cell):
            continue
        treated, control = (cell["outcome"][cell["treated"] == side].to_numpy() for side in (True, False))
        interval = stats.ttest_ind(treated, control, equal_var=False).confidence_interval(_LEVEL)
        mean = float(treated.mean() - control.mean())
        low, high = (float(side) if np.isfinite(side) else mean for side in (interval.low, interval.high))
        yield (str(action), str(tier)), Effect(mean, low, high, len(treated), len(control))


def _enough(cell: pd.DataFrame) -> bool:
    treated = int(cell["treated"].sum())
    return treated >= _LEAST and len(cell) - treated >= _LEAST
