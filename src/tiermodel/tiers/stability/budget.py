"""Choice of a stability rule for a movement budget, by replay of candidate rules on past dates, before capacity."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tiermodel.arrays import Floats, Ints
from tiermodel.config.tiers import Downgrade, Stability, Upgrade
from tiermodel.errors import DataError, ProjectError
from tiermodel.evaluation.metrics import mean_ranks
from tiermodel.features.frame import has_bought
from tiermodel.tiers.fitted_scheme import FittedScheme, fit_scheme
from tiermodel.tiers.schemes.load import Scheme
from tiermodel.tiers.stability.rule import movement_shares, replay_levels, who_and_when

__all__ = ["RULES", "Trial", "choose", "frontier", "keep_budget", "trials"]


_BANDS = (0.0, 0.02, 0.04, 0.06, 0.08, 0.10, 0.12, 0.15)


def _rules() -> Iterable[Stability]:
    for up, down, confirmed_up, confirmed_down in itertools.product(_BANDS, _BANDS, (1, 2), (1, 2, 3)):
        yield Stability(
            up=Upgrade(band=up, confirmations=confirmed_up), down=Downgrade(band=down, confirmations=confirmed_down)
        )


RULES: tuple[Stability, ...] = tuple(_rules())
"""The candidate rules of a search."""


@dataclass(frozen=True)
class Trial:
    """Result of one rule on past dates (`rule` None: without a stability rule).

    `moved_share` of the customers move per date, `reversed_share` of these moves are reversed at the next. `spearman`
    is the mean over dates of the rank correlation between tier and later value, NaN where either never varies.
    """

    rule: Stability | None
    moved_share: float
    reversed_share: float
    spearman: float


def trials(
    scheme: Scheme,
    panel: pd.DataFrame,
    rules: Sequence[Stability] = RULES,
    seed: int = 7,
    label_delay_days: int | None = None,
) -> list[Trial]:
    """Return the result of every rule on a panel of past dates with observed outcomes; the first is without a rule.

    Cut points are fitted on the first date and frozen; a learned scheme is fitted on the whole panel. Raises
    `DataError` for fewer than three dates.
    """
    panel = panel[has_bought(panel) & panel["outcome_value"].notna()].reset_index(drop=True)
    if panel["as_of"].nunique() < 3:
        raise DataError(
            f"a stability rule is chosen on three dates and more with their outcome, not {panel['as_of'].nunique()}: "
            "raise panel.snapshots, or give a longer history"
        )
    first = panel[panel["as_of"] == panel["as_of"].min()].reset_index(drop=True)
    who, day = who_and_when(panel)
    value = panel.groupby("as_of")["outcome_value"].rank().to_numpy()

    def fitted(band: float) -> FittedScheme:
        both = Stability(up=Upgrade(band=band), down=Downgrade(band=band))
        return fit_scheme(scheme.model_copy(update={"stability": both}), first, panel, seed, label_delay_days)

    level, _ = fitted(0.0).assign(panel)
    # the lowest sure level depends on the band for moving up only, the highest on the band for moving down
    sure_levels_by_band = {
        band: fitted(band).sure_levels(panel) for band in {b for r in rules for b in (r.up.band, r.down.band)}
    }
    found = [_trial(None, who, day, level, value)]
    for rule in rules:
        sure_levels = sure_levels_by_band[rule.up.band][0], sure_levels_by_band[rule.down.band][1]
        found.append(_trial(rule, who, day, replay_levels(rule, who, day, level, sure_levels), value))
    return found


def _trial(rule: Stability | None, who: Ints, day: Ints, tier: Ints, value_rank: Floats) -> Trial:
    moved, back = movement_shares(who, day, tier)
    each = [
        np.corrcoef(mean_ranks(tier[day == d]), value_rank[day == d])[0, 1]
        for d in np.unique(day)
        if np.ptp(tier[day == d]) and np.ptp(value_rank[day == d])
    ]
    return Trial(rule, moved, 0.0 if np.isnan(back) else back, float(np.mean(each)) if each else np.nan)


def keep_budget(scheme: Scheme, history: pd.DataFrame, seed: int = 7, label_delay_days: int | None = None) -> Scheme:
    """Return the scheme with the rule that keeps its movement budget on past dates; unchanged without a budget."""
    budget = scheme.stability
    if budget is None or budget.moved_share is None:
        return scheme
    best = choose(trials(scheme, history, RULES, seed, label_delay_days), budget.moved_share, budget.reversed_share)
    return scheme.model_copy(update={"stability": best.rule})


def choose(found: Sequence[Trial], moved: float, reversed_: float = 1.0) -> Trial:
    """Return the trial with the highest rank correlation among those within a budget of moves and of reversed moves.

    Raises `ProjectError` where no rule keeps the budget.
    """
    within = [t for t in found if t.moved_share <= moved and t.reversed_share <= reversed_]
    if not within:
        least = min(found, key=lambda t: t.moved_share)
        raise ProjectError(
            f"tiers.stability: no rule moves at most {moved:.1%} with at most {reversed_:.1%} reversed; "
            f"the calmest moves {least.moved_share:.1%}, of which {least.reversed_share:.1%} reversed"
        )
    return max(within, key=lambda t: (t.spearman, -t.moved_share))


def frontier(found: Sequence[Trial]) -> list[Trial]:
    """Return the Pareto front of few moves and high rank correlation, the rule with fewest moves first."""
    best: list[Trial] = []
    for t in sorted(found, key=lambda t: (t.moved_share, -t.spearman)):
        if not best or t.spearman > best[-1].spearman:
            best.append(t)
    return best
