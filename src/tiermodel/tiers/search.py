"""Find the stability rule for a movement budget: what it keeps of the order by later value, replayed on past dates."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata

from tiermodel.config_tiers import Downgrade, Stability, Upgrade
from tiermodel.errors import DataError, GateError
from tiermodel.tiers.assign import FittedScheme, fit_scheme
from tiermodel.tiers.scheme import Scheme
from tiermodel.tiers.stability import movement_shares, replay

__all__ = ["RULES", "Trial", "choose", "fitted_on_first", "frontier", "trial", "trials"]

_BANDS = (0.0, 0.02, 0.04, 0.06, 0.08, 0.10, 0.12, 0.15)


def _rules() -> Iterable[Stability]:
    for up, down, confirmed_up, confirmed_down in itertools.product(_BANDS, _BANDS, (1, 2), (1, 2, 3)):
        yield Stability(
            up=Upgrade(band=up, confirmations=confirmed_up), down=Downgrade(band=down, confirmations=confirmed_down)
        )


RULES: tuple[Stability, ...] = tuple(_rules())
"""The rules that a search tries."""


@dataclass(frozen=True)
class Trial:
    """Say how a rule did: shares moved and moved straight back, and the rank correlation of tier and later value."""

    rule: Stability | None
    moved_share: float
    reversed_share: float
    spearman: float


def fitted_on_first(scheme: Scheme, panel: pd.DataFrame, rule: Stability | None, seed: int = 7) -> FittedScheme:
    """Freeze a ranked scheme on the panel's first date, with a stability rule."""
    first = panel[panel["as_of"] == panel["as_of"].min()].reset_index(drop=True)
    return fit_scheme(scheme.model_copy(update={"stability": rule}), first, first.head(0), seed)


def trial(fitted: FittedScheme, panel: pd.DataFrame) -> Trial:
    """Replay a rule on a panel with observed outcomes."""
    tier, _ = replay(fitted, panel)
    day = panel["as_of"].to_numpy().astype("datetime64[D]").astype(np.int64)
    return _trial(fitted.scheme.stability, panel["customer_id"].to_numpy(), day, tier, _ranked(panel))


def _ranked(panel: pd.DataFrame) -> NDArray[np.float64]:
    """Rank the value that followed within each date."""
    return panel.groupby("as_of")["outcome_value"].rank().to_numpy()


def _trial(
    rule: Stability | None, who: NDArray[np.object_], day: NDArray[np.int64], tier: NDArray[np.int64],
    value_rank: NDArray[np.float64],
) -> Trial:  # fmt: skip
    moved, back = movement_shares(who, day, tier)
    each = [
        np.corrcoef(rankdata(tier[day == d]), value_rank[day == d])[0, 1]
        for d in np.unique(day)
        if np.ptp(tier[day == d]) and np.ptp(value_rank[day == d])
    ]
    return Trial(rule, moved, 0.0 if np.isnan(back) else back, float(np.mean(each)) if each else np.nan)


def trials(
    scheme: Scheme, panel: pd.DataFrame, rules: Sequence[Stability] = RULES, seed: int = 7
) -> list[Trial]:
    """Replay every rule on a panel of past dates whose outcome is observed, cut points frozen on its first date."""
    panel = panel[panel["days_since_last"].notna() & panel["outcome_value"].notna()].reset_index(drop=True)
    if panel["as_of"].nunique() < 3:
        raise DataError(
            f"a stability rule is chosen on three dates and more with their outcome, not {panel['as_of'].nunique()}: "
            "raise panel.snapshots, or give a longer history"
        )
    return [trial(fitted_on_first(scheme, panel, rule, seed), panel) for rule in rules]


def choose(found: Sequence[Trial], moved: float, reversed_: float = 1.0) -> Trial:
    """Choose, within a budget of customers moved a date and of moves reversed, the rule that keeps most of the order.

    Raises `GateError` where no rule keeps the budget.
    """
    within = [t for t in found if t.moved_share <= moved and t.reversed_share <= reversed_]
    if not within:
        least = min(found, key=lambda t: t.moved_share)
        raise GateError(
            f"no rule moves at most {moved:.1%} with at most {reversed_:.1%} reversed; the calmest moves "
            f"{least.moved_share:.1%}, of which {least.reversed_share:.1%} reversed"
        )
    return max(within, key=lambda t: (t.spearman, -t.moved_share))


def frontier(found: Sequence[Trial]) -> list[Trial]:
    """Keep the rules that no other rule beats on movement and order together, calmest first."""
    best: list[Trial] = []
    for t in sorted(found, key=lambda t: (t.moved_share, -t.spearman)):
        if not best or t.spearman > best[-1].spearman:
            best.append(t)
    return best
