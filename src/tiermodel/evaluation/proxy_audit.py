"""Proxy audit: how well the inputs predict an attribute that no model reads, such as age or gender.

For every attribute to audit by, boosted trees learn it from the inputs of some customers and predict it for others. The
result is reported; nothing is reweighted. Metrics by group are in `slices`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype
from scipy.stats import rankdata

from tiermodel.arrays import Flags, Floats, Ints
from tiermodel.config.learners import Trees
from tiermodel.evaluation.bootstrap import cluster_interval
from tiermodel.evaluation.metrics import auc, spearman
from tiermodel.evaluation.slices import FEWEST, MOST_VALUES
from tiermodel.features.catalogue import AUDITED
from tiermodel.features.frame import texts_of
from tiermodel.models.calibrated_ensemble import group_rates
from tiermodel.models.learners.boosting import fit_boosted, map_threads

__all__ = ["proxy_scan"]


_MOST_CUSTOMERS = 10_000
_ROUNDS, _TREES = 60, Trees(learning_rate=0.1)
_BINS, _NAMED, _DRAWS = 10, 3, 200


def proxy_scan(buyers: pd.DataFrame, x: Floats, names: list[str], seed: int) -> Iterator[dict[str, Any]]:
    """Yield, for every column `audited_…` of `buyers`, how well the inputs `x`, shape (customers, names), predict it.

    An input that is the attribute itself is left out. The metric of an attribute of up to eight values is the mean AUC
    of each group against the rest (`auc`, 0.5 by chance), of one with more values the rank correlation
    (`rank_correlation`, 0 by chance). Trees learn from two thirds of the customers; the metric and its 95 % bootstrap
    interval are of the other third. `inputs` has the three best single inputs, as predictors by the means of their
    tenths, chosen within the two thirds; it is empty where the interval of all inputs does not begin above chance.

    Groups of fewer than 30 customers are left out, and attributes without two groups left; more than 10,000 customers
    are sampled.
    """
    for column in (name for name in buyers.columns if name.startswith(f"{AUDITED}_")):
        attribute, values = column.removeprefix(f"{AUDITED}_"), _values_of(buyers, column)
        rows, groups = _rows_and_groups(values, np.random.default_rng(seed))
        if len(rows):
            others = np.flatnonzero([name != f"attribute_{attribute}" for name in names])
            other_names = [names[j] for j in others]
            yield {
                "attribute": attribute,
                **_audit_of(values[rows], groups, x[np.ix_(rows, others)], other_names, seed),
            }


def _values_of(buyers: pd.DataFrame, column: str) -> Floats:
    """Return an attribute as numbers, NaN where missing; text by its place in the alphabet of its most frequent values.

    Other texts are missing too: more values than `MOST_VALUES` would be taken for quantities.
    """
    if is_numeric_dtype(buyers[column]):
        return buyers[column].to_numpy(dtype=np.float64)
    texts = texts_of(buyers, column)
    counts = texts.value_counts()
    frequent = sorted(sorted(counts.index, key=lambda text: (-counts[text], text))[:MOST_VALUES])
    place = pd.Index(frequent, dtype=object).get_indexer(pd.Index(texts, dtype=object))
    return np.where(place < 0, np.nan, place.astype(np.float64))


def _audit_of(values: Floats, groups: Floats, x: Floats, names: list[str], seed: int) -> dict[str, Any]:
    measure, target = (_mean_auc, _indicators(values, groups)) if len(groups) else (_rank_correlation, _ranks(values))
    chance = 0.5 if len(groups) else 0.0
    part = _parts(values, 3, np.random.default_rng(seed))
    judge = part == 0
    actual, predicted = target[judge], _predict_with_all(x, target, names, judge, seed)
    low, high = cluster_interval(measure, [actual, predicted], np.arange(len(actual)), draws=_DRAWS, seed=seed)
    best = _best_single_inputs(x, target, part, measure) if low > chance else []
    return {
        "customers": len(values), "groups": len(groups) or None,
        "metric": "auc" if len(groups) else "rank_correlation", "chance": chance,
        "told": measure(actual, predicted), "low": low, "high": high,
        "inputs": [{"feature": names[j], "told": strength} for j, strength in best],
    }  # fmt: skip


def _rows_and_groups(values: Floats, rng: np.random.Generator) -> tuple[Ints, Floats]:
    """Return the rows of groups large enough, in order, and the groups; no groups where there are many values."""
    rows = np.flatnonzero(np.isfinite(values))
    if len(rows) > _MOST_CUSTOMERS:
        rows = np.sort(rng.choice(rows, _MOST_CUSTOMERS, replace=False))
    known, count = np.unique(values[rows], return_counts=True)
    if len(known) > MOST_VALUES:
        return rows if len(rows) >= FEWEST else rows[:0], known[:0]
    groups = known[count >= FEWEST]
    return rows[np.isin(values[rows], groups if len(groups) > 1 else [])], groups


def _parts(values: Floats, parts: int, rng: np.random.Generator) -> Ints:
    """Return each customer's part, dealt in the order of values, so that all parts have the same distribution."""
    part = np.empty(len(values), dtype=np.int64)
    part[np.lexsort((rng.random(len(values)), values))] = np.arange(len(values)) % parts
    return part


def _indicators(values: Floats, groups: Floats) -> Floats:
    """Return an indicator column for every group; one column for two groups, as the other is its complement."""
    indicated = groups[1:] if len(groups) == 2 else groups
    return (values[:, None] == indicated).astype(np.float64)


def _ranks(values: Floats) -> Floats:
    return np.asarray(rankdata(values)[:, None] / len(values), dtype=np.float64)


def _mean_auc(target: Floats, predicted: Floats) -> float:
    return float(np.mean([auc(y, p) for y, p in zip(target.T, predicted.T, strict=True)]))


def _rank_correlation(target: Floats, predicted: Floats) -> float:
    return float(np.nan_to_num(spearman(target[:, 0], predicted[:, 0])))  # NaN: a constant prediction


def _predict_with_all(x: Floats, target: Floats, names: list[str], judge: Flags, seed: int) -> Floats:
    """Return predictions for the judged customers from all inputs, by trees that learned from the others."""
    learn = ~judge

    def predict(y: Floats) -> Floats:
        objective = "binary" if np.isin(y, (0, 1)).all() else "regression"
        return fit_boosted(x[learn], y[learn], names, _ROUNDS, seed, _TREES, objective=objective).predict(x[judge])

    return np.column_stack(map_threads(predict, list(target.T)))


def _best_single_inputs(
    x: Floats, target: Floats, part: Ints, measure: Callable[[Floats, Floats], float]
) -> list[tuple[int, float]]:
    """Return the numbers and metrics of the three best single inputs, as predictors by the means of their tenths.

    They are chosen by training on part 2 and testing on part 1, measured by training on both and testing on part 0.
    """
    judge, choose, learn = (part == k for k in range(3))
    tenths = [_tenth(column) for column in x.T]

    def strength(tenth: Ints, known: Flags, tested: Flags) -> float:
        means = [group_rates(tenth[known], y[known], tenth[tested]) for y in target.T]
        return measure(target[tested], np.column_stack(means))

    best = np.argsort([-strength(tenth, learn, choose) for tenth in tenths], kind="stable")[:_NAMED]
    return [(int(j), strength(tenths[j], ~judge, judge)) for j in best]


def _tenth(column: Floats) -> Ints:
    """Return each row's tenth of the column, 0 lowest; rows without a value are a group of their own, the last."""
    known = column[~np.isnan(column)]
    edges = np.unique(np.quantile(known, np.linspace(0, 1, _BINS + 1)[1:-1])) if len(known) else known
    return np.where(np.isnan(column), len(edges) + 1, np.searchsorted(edges, column, side="right"))
