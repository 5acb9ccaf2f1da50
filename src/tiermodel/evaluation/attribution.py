"""Say what each input adds to a prediction, exactly: contributions and a baseline add up to what the model predicts.

The churn blend is a sum on the log-odds scale, so the terms of its members add up: TreeSHAP of the trees, coefficient
times standardised input of the logistic regressions, and what MBG/NBD and Pareto/NBD say under the names of their own
inputs. The value blend is a sum of curves: a square, an exponential and a straight line. Each curve's rise from its
baseline is shared out in proportion to the terms below it, which is what integrated gradients (Sundararajan, Taly and
Yan 2017) give along the straight path from the baseline; that too adds up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tiermodel.arrays import Floats
from tiermodel.evaluation.metrics import spearman
from tiermodel.models.btyd.forecast import EXPECTED
from tiermodel.models.calibration.logit import log_odds
from tiermodel.models.churn import SILENT, ChurnModel
from tiermodel.models.value import ValueModel

__all__ = ["churn_contributions", "importance", "value_contributions"]


_TOP, _MOST_ROWS = 12, 1_000
_FLAT = 1e-9


def churn_contributions(model: ChurnModel, x: Floats) -> tuple[float, Floats]:
    """Give the baseline and what each input adds to it, the shape of `x`, in log-odds of churning.

    They add up to the log-odds of `model.predict`, wherever that is not held a millionth away from 0 or 1.
    """
    intercept, logistic, compact, trees, *structural = model.blend
    start, grown = model.boosted.contributions(x)
    each = logistic * model.linear.contributions(x) + compact * model.compact.contributions(x) + trees * grown
    for name, weight in zip(SILENT, structural, strict=True):
        own = model.names.index(name)
        each[:, own] += weight * log_odds(x[:, own])
    return intercept + logistic * model.linear.intercept + compact * model.compact.intercept + trees * start, each


def value_contributions(model: ValueModel, x: Floats) -> tuple[float, Floats]:
    """Give the baseline and what each input adds to it, the shape of `x`, in currency units of expected value."""
    ridge, trees, btyd = model.factors
    lines = _bent(np.square, model.linear.intercept, model.linear.contributions(x), floor=0.0)
    start, grown = model.boosted.contributions(x)
    curves = _bent(np.exp, start, grown)
    each = ridge * lines[1] + trees * curves[1]
    own = model.names.index(EXPECTED[2])
    each[:, own] += btyd * np.maximum(x[:, own], 0.0)
    return ridge * lines[0] + trees * curves[0], each


def _bent(curve: Callable[[Any], Any], start: float, terms: Floats, floor: float = -np.inf) -> tuple[float, Floats]:
    """Give curve(start) and share curve(start + sum of terms) - curve(start) out in proportion to the terms.

    The curve is flat below `floor`. Where the terms cancel, the curve's slope at the start stands for the proportion.
    """
    low, total = max(start, floor), terms.sum(axis=1)
    flat = np.abs(total) < _FLAT
    step = np.where(flat, _FLAT, total)
    rise = (curve(np.maximum(start + step, floor)) - curve(low)) / step
    return float(curve(low)), terms * rise[:, None]


def importance(
    churn: ChurnModel, value: ValueModel, exposed: Floats, buyers: Floats
) -> dict[str, list[dict[str, Any]]]:
    """List the twelve inputs that move each target most, given the inputs of those at risk and of all buyers.

    `size` is the mean distance of an input's contribution from its mean over the customers, at most 1,000 of them,
    evenly spaced; `direction` is the rank correlation of the input with its contribution: near 1 more of it raises the
    prediction, near -1 lowers it; null where the input does not differ.
    """
    return {
        "churn": _largest(churn.names, exposed, lambda x: churn_contributions(churn, x)[1]),
        "value": _largest(value.names, buyers, lambda x: value_contributions(value, x)[1]),
    }


def _largest(names: Sequence[str], x: Floats, contributions: Callable[[Floats], Floats]) -> list[dict[str, Any]]:
    if not len(x):
        return []
    sample = np.ascontiguousarray(x[:: -(-len(x) // _MOST_ROWS)])
    each = contributions(sample)
    size = np.abs(each - each.mean(axis=0)).mean(axis=0)
    least = _FLAT * float(np.abs(each).max())  # below it is rounding
    order = [int(j) for j in np.argsort(-size, kind="stable")[:_TOP] if size[j] > least]
    return [_entry(names[j], float(size[j]), sample[:, j], each[:, j]) for j in order]


def _entry(name: str, size: float, values: Floats, contributed: Floats) -> dict[str, Any]:
    known = ~np.isnan(values)
    direction = spearman(values[known], contributed[known]) if known.any() else np.nan
    sign = None if np.isnan(direction) else round(direction, 3)
    return {"feature": name, "size": float(f"{size:.6g}"), "direction": sign}
