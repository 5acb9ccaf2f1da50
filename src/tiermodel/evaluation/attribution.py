"""Exact attributions: each input's contribution to a prediction; with the baseline they add up to the prediction.

The churn blend is a sum on the log-odds scale, so the terms of its members add up: TreeSHAP of the trees, coefficient
times standardised input of the logistic regressions, and MBG/NBD and Pareto/NBD as inputs of their own. The value blend
is a sum of functions of such sums: a square, an exponential and a straight line. The rise of each function from its
baseline is divided in proportion to the terms of its sum, which are the integrated gradients (Sundararajan, Taly and
Yan 2017) along the straight path from the baseline.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tiermodel.arrays import Floats
from tiermodel.evaluation.metrics import spearman
from tiermodel.models.btyd.forecast import BTYD_INPUTS
from tiermodel.models.calibration.logit import log_odds
from tiermodel.models.churn import P_ZERO_INPUTS, ChurnModel
from tiermodel.models.value import AMOUNT, ValueModel

__all__ = ["churn_contributions", "importance", "value_contributions"]


_TOP, _MOST_ROWS = 12, 1_000
_FLAT = 1e-9


def churn_contributions(model: ChurnModel, x: Floats) -> tuple[float, Floats]:
    """Return the baseline and each input's contribution, the shape of `x`, in log-odds of churning.

    They add up to the log-odds of `model.predict`, except where it is clipped a millionth away from 0 or 1.
    """
    intercept, logistic, compact, trees, *structural = model.blend
    start, grown = model.boosted.contributions(x)
    each = logistic * model.linear.contributions(x) + compact * model.compact.contributions(x) + trees * grown
    for name, weight in zip(P_ZERO_INPUTS, structural, strict=True):
        own = model.names.index(name)
        each[:, own] += weight * log_odds(x[:, own])
    return intercept + logistic * model.linear.intercept + compact * model.compact.intercept + trees * start, each


def value_contributions(model: ValueModel, x: Floats) -> tuple[float, Floats]:
    """Return the baseline and each input's contribution, the shape of `x`, in currency units of expected value."""
    ridge, trees, btyd = model.factors
    squares_start, squares = _along_curve(np.square, model.linear.intercept, model.linear.contributions(x), floor=0.0)
    start, terms = model.boosted.contributions(x)
    if model.least_amount:  # the trees predict multiples of the amount per purchase
        start += float(np.log(model.least_amount))
        terms[:, model.names.index(AMOUNT[0])] += np.log(model.scale(x) / model.least_amount)
    trees_start, exponentials = _along_curve(np.exp, start, terms)
    each = ridge * squares + trees * exponentials
    own = model.names.index(BTYD_INPUTS[2])
    structural, baseline = np.maximum(x[:, own], 0.0), ridge * squares_start + trees * trees_start
    each[:, own] += btyd * structural
    beyond = structural > model.largest  # the one member that forecasts these rows reads the one input
    each[beyond] = 0.0
    each[beyond, own] = model.alone * structural[beyond] - baseline
    return baseline, each


def _along_curve(
    curve: Callable[[Any], Any], start: float, terms: Floats, floor: float = -np.inf
) -> tuple[float, Floats]:
    """Return curve(start), and curve(start + sum of terms) - curve(start) divided in proportion to the terms.

    The curve is flat below `floor`. Where the terms cancel, they are multiplied by the curve's slope at the start.
    """
    low, total = max(start, floor), terms.sum(axis=1)
    flat = np.abs(total) < _FLAT
    step = np.where(flat, _FLAT, total)
    rise = (curve(np.maximum(start + step, floor)) - curve(low)) / step
    return float(curve(low)), terms * rise[:, None]


def importance(
    churn: ChurnModel, value: ValueModel, exposed: Floats, buyers: Floats
) -> dict[str, list[dict[str, Any]]]:
    """Return the twelve most important inputs of each target, given the design matrices of those at risk and of buyers.

    `size` is the mean absolute deviation of an input's contribution over at most 1,000 customers, evenly spaced;
    `direction` is the rank correlation of the input with its contribution, near 1 where a larger input raises the
    prediction, near -1 where it lowers it, None where the input does not vary.
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
    least = _FLAT * float(np.abs(each).max())  # smaller sizes are rounding errors
    order = [int(j) for j in np.argsort(-size, kind="stable")[:_TOP] if size[j] > least]
    return [_entry(names[j], float(size[j]), sample[:, j], each[:, j]) for j in order]


def _entry(name: str, size: float, values: Floats, contributed: Floats) -> dict[str, Any]:
    known = ~np.isnan(values)
    direction = spearman(values[known], contributed[known]) if known.any() else np.nan
    sign = None if np.isnan(direction) else round(direction, 3)
    return {"feature": name, "size": float(f"{size:.6g}"), "direction": sign}
