"""Ask how well the inputs tell an attribute that they leave out: what no model reads may come back through others.

For every attribute to audit by, boosted trees learn it from the inputs of some customers and tell it of others. That is
reported, and nothing is reweighted: how the groups fare is for the figures by group to say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from tiermodel.arrays import Flags, Floats, Ints
from tiermodel.config.learners import Trees
from tiermodel.evaluation.bootstrap import cluster_interval
from tiermodel.evaluation.metrics import auc, spearman
from tiermodel.evaluation.slices import FEWEST, MOST_VALUES
from tiermodel.features.catalogue import AUDITED
from tiermodel.models.calibrated_ensemble import group_rates
from tiermodel.models.learners.boosting import fit_boosted, map_threads

__all__ = ["proxy_scan"]


_MOST_CUSTOMERS = 10_000
_ROUNDS, _TREES = 60, Trees(learning_rate=0.1)
_BINS, _NAMED, _DRAWS = 10, 3, 200


def proxy_scan(buyers: pd.DataFrame, x: Floats, names: list[str], seed: int) -> Iterator[dict[str, Any]]:
    """Give, for every column `audited_…` of `buyers`, how well the inputs `x` (customers, names) tell it.

    The column of the attribute itself, where it is an input, is left out. An attribute of up to eight values is told by
    group, as the mean area under the curve of each group against the rest (`auc`, 0.5 by chance); one of more values by
    its rank (`rank_correlation`, 0 by chance). All is judged on a third of the customers, drawn again for the 95 %
    interval; trees learn from the other two thirds. The three inputs that tell it best alone, by the means of their
    tenths, are chosen within these two thirds and judged on the same third. None is named (`inputs` is empty) where all
    of them together tell it no better than chance, which is where the interval does not begin above chance.

    Groups of fewer than 30 customers are left aside, and so is an attribute of which too little remains; of many
    customers, 10,000 are drawn.
    """
    for column in (name for name in buyers.columns if name.startswith(f"{AUDITED}_")):
        attribute, values = column.removeprefix(f"{AUDITED}_"), buyers[column].to_numpy(dtype=np.float64)
        rows, groups = _shown(values, np.random.default_rng(seed))
        if len(rows):
            others = np.flatnonzero([name != f"attribute_{attribute}" for name in names])
            called = [names[j] for j in others]
            yield {"attribute": attribute, **_told(values[rows], groups, x[np.ix_(rows, others)], called, seed)}


def _told(values: Floats, groups: Floats, x: Floats, names: list[str], seed: int) -> dict[str, Any]:
    measure, wanted = (_mean_auc, _members(values, groups)) if len(groups) else (_rank_correlation, _ranks(values))
    chance = 0.5 if len(groups) else 0.0
    part = _dealt(values, 3, np.random.default_rng(seed))
    judge = part == 0
    actual, guess = wanted[judge], _by_all(x, wanted, names, judge, seed)
    low, high = cluster_interval(measure, [actual, guess], np.arange(len(actual)), draws=_DRAWS, seed=seed)
    best = _by_each(x, wanted, part, measure) if low > chance else []
    return {
        "customers": len(values), "groups": len(groups) or None,
        "metric": "auc" if len(groups) else "rank_correlation", "chance": chance,
        "told": measure(actual, guess), "low": low, "high": high,
        "inputs": [{"feature": names[j], "told": strength} for j, strength in best],
    }  # fmt: skip


def _shown(values: Floats, rng: np.random.Generator) -> tuple[Ints, Floats]:
    """Give the rows that may be shown, in order, and the groups they are of: no groups where there are many values."""
    rows = np.flatnonzero(np.isfinite(values))
    if len(rows) > _MOST_CUSTOMERS:
        rows = np.sort(rng.choice(rows, _MOST_CUSTOMERS, replace=False))
    known, count = np.unique(values[rows], return_counts=True)
    if len(known) > MOST_VALUES:
        return rows if len(rows) >= FEWEST else rows[:0], known[:0]
    groups = known[count >= FEWEST]
    return rows[np.isin(values[rows], groups if len(groups) > 1 else [])], groups


def _dealt(values: Floats, parts: int, rng: np.random.Generator) -> Ints:
    """Deal the customers out in the order of their values, so that all parts have them alike."""
    part = np.empty(len(values), dtype=np.int64)
    part[np.lexsort((rng.random(len(values)), values))] = np.arange(len(values)) % parts
    return part


def _members(values: Floats, groups: Floats) -> Floats:
    """Give a column of 0 and 1 for every group; one is enough for two, since the rest of one is the other."""
    shown = groups[1:] if len(groups) == 2 else groups
    return (values[:, None] == shown).astype(np.float64)


def _ranks(values: Floats) -> Floats:
    return np.asarray(rankdata(values)[:, None] / len(values), dtype=np.float64)


def _mean_auc(wanted: Floats, guess: Floats) -> float:
    return float(np.mean([auc(y, p) for y, p in zip(wanted.T, guess.T, strict=True)]))


def _rank_correlation(wanted: Floats, guess: Floats) -> float:
    return float(np.nan_to_num(spearman(wanted[:, 0], guess[:, 0])))  # a guess that never varies tells nothing


def _by_all(x: Floats, wanted: Floats, names: list[str], judge: Flags, seed: int) -> Floats:
    """Guess what is wanted of the judged customers with every input, by trees that learned from the others."""
    learn = ~judge

    def guess(y: Floats) -> Floats:
        objective = "binary" if np.isin(y, (0, 1)).all() else "regression"
        return fit_boosted(x[learn], y[learn], names, _ROUNDS, seed, _TREES, objective=objective).predict(x[judge])

    return np.column_stack(map_threads(guess, list(wanted.T)))


def _by_each(
    x: Floats, wanted: Floats, part: Ints, measure: Callable[[Floats, Floats], float]
) -> list[tuple[int, float]]:
    """Give the three inputs whose tenths tell best what is wanted: their numbers, and how well each tells it.

    To choose them, one part learns and another shows how well they tell it; then both learn, and the first part judges.
    """
    judge, choose, learn = (part == k for k in range(3))
    tenths = [_tenth(column) for column in x.T]

    def strength(tenth: Ints, known: Flags, asked: Flags) -> float:
        means = [group_rates(tenth[known], y[known], tenth[asked]) for y in wanted.T]
        return measure(wanted[asked], np.column_stack(means))

    best = np.argsort([-strength(tenth, learn, choose) for tenth in tenths], kind="stable")[:_NAMED]
    return [(int(j), strength(tenths[j], ~judge, judge)) for j in best]


def _tenth(column: Floats) -> Ints:
    """Give each row the number of its tenth of the column, from below; rows without a value come last."""
    known = column[~np.isnan(column)]
    edges = np.unique(np.quantile(known, np.linspace(0, 1, _BINS + 1)[1:-1])) if len(known) else known
    return np.where(np.isnan(column), len(edges) + 1, np.searchsorted(edges, column, side="right"))
