"""Metrics of predictions, and of the concentration of value.

Arrays have one element per customer. A metric that is not defined (the AUC of one class, shares of zero) is NaN.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm
from sklearn.metrics import average_precision_score

from tiermodel.arrays import Column, Floats
from tiermodel.errors import DataError

__all__ = [
    "LOWER_IS_BETTER", "auc", "check_probabilities", "churn_metrics", "decile_mape", "ece", "ece_null_band", "gini",
    "gini_coefficient", "herfindahl", "log_loss", "lorenz_curve", "mae", "mean_ranks", "pair", "pareto_share",
    "quadratic_weighted_kappa", "quantile_groups", "reliability_table", "spearman", "value_metrics", "whale_curve",
]  # fmt: skip

LOWER_IS_BETTER = frozenset({"log_loss", "brier", "ece", "mae", "rmse", "decile_mape"})
"""The metrics of which less is better; of all others more is."""


ECE_BINS = 15
LOG_LOSS_CLIP = 1e-15


def churn_metrics(actual: Column, predicted: Column) -> dict[str, float]:
    """Return the metrics of churn probabilities.

    `actual` is 0 or 1, `predicted` lies in 0–1. The keys are those of the backtest file; `auc` is NaN unless both
    classes occur, `average_precision` is NaN without a churner.

    >>> churn_metrics(np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8]))["auc"]
    0.75
    """
    y, p = pair(actual, predicted)
    check_probabilities(y, p)
    return {
        "n": len(y),
        "rate": float(y.mean()),
        "auc": auc(y, p),
        "average_precision": float(average_precision_score(y, p)) if y.any() else float("nan"),
        "log_loss": log_loss(y, p),
        "brier": float(np.mean((p - y) ** 2)),
        "ece": ece(y, p),
    }


def value_metrics(actual: Column, predicted: Column, median: Column | None = None) -> dict[str, float]:
    """Return the metrics of predicted amounts; actual amounts may be zero or negative.

    Absolute error is that of the `median`, which makes it least, where a model gives one beside the mean.

    `mae` and `rmse` are in the currency; `bias` is the mean error as a share of the mean actual amount, above zero for
    predictions that are too high.

    >>> value_metrics(np.array([0.0, 10.0, 20.0]), np.array([1.0, 12.0, 23.0]))["bias"]
    0.2
    """
    y, p = pair(actual, predicted)
    return {
        "gini": gini(y, p),
        "spearman": spearman(y, p),
        "mae": mae(y, p if median is None else median),
        "rmse": float(np.sqrt(np.mean((p - y) ** 2))),
        "bias": _ratio(float(np.mean(p - y)), float(np.mean(y))),
        "decile_mape": decile_mape(y, p),
    }


def auc(actual: Column, predicted: Column) -> float:
    """Return the area under the ROC curve: P(a positive ranks above a negative), ties counting one half (Mann–Whitney).

    >>> auc(np.array([0, 1, 1]), np.array([0.5, 0.5, 0.9]))
    0.75
    """
    positive = np.asarray(actual) == 1
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    ranks = mean_ranks(predicted)
    above = float(ranks[positive].sum()) - n_positive * (n_positive + 1) / 2
    return _ratio(above, n_positive * n_negative)


def log_loss(actual: Column, predicted: Column) -> float:
    """Return the mean negative log-likelihood, with probabilities clipped at 1e-15 from 0 and 1.

    >>> round(log_loss(np.array([1, 0]), np.array([0.5, 0.5])), 4)
    0.6931
    """
    p = np.clip(np.asarray(predicted, dtype=np.float64), LOG_LOSS_CLIP, 1 - LOG_LOSS_CLIP)
    return float(-np.mean(np.log(np.where(np.asarray(actual) == 1, p, 1 - p))))


def ece(actual: Column, predicted: Column) -> float:
    """Return the expected calibration error: the mean distance of rate and prediction over 15 bins of equal width.

    >>> ece(np.array([0, 1, 1, 1]), np.array([0.5, 0.5, 0.5, 0.5]))
    0.25
    """
    y, p = pair(actual, predicted)
    return float(np.abs(np.bincount(_ece_bins(p), weights=p - y)).sum() / len(y))


def ece_null_band(predicted: Column, quantile: float = 0.95, draws: int = 500, seed: int = 0) -> float:
    """Return the quantile of the calibration error of a perfectly calibrated model with these predictions.

    ECE is above zero by chance, more so with fewer customers, so a fixed limit would reject good models; here outcomes
    are drawn from the predictions themselves `draws` times.

    >>> few, many = np.full(100, 0.3), np.full(10_000, 0.3)
    >>> ece_null_band(few) > 5 * ece_null_band(many)
    True
    """
    p = np.asarray(predicted, dtype=np.float64)
    bins = _ece_bins(p)
    rng = np.random.default_rng(seed)
    drawn = [np.abs(np.bincount(bins, weights=p - (rng.random(len(p)) < p))).sum() / len(p) for _ in range(draws)]
    return float(np.quantile(drawn, quantile))


def reliability_table(actual: Column, predicted: Column, bins: int = 10) -> list[dict[str, float]]:
    """Return one row per quantile bin of the prediction, lowest first: mean prediction, observed rate, count, interval.

    Equal predictions share a bin, so there may be fewer rows than `bins`. `low` and `high` are Wilson's
    (1927) 95 % interval of the rate.

    >>> reliability_table(np.array([0, 1]), np.array([0.2, 0.8]), bins=2)[0]["rate"]
    0.0
    """
    y, p = pair(actual, predicted)
    index = quantile_groups(p, bins)
    z2 = float(norm.ppf(0.975)) ** 2
    rows = []
    for bin_number in np.unique(index):
        inside = index == bin_number
        count, rate = int(inside.sum()), float(y[inside].mean())
        centre = (rate + z2 / (2 * count)) / (1 + z2 / count)
        half = np.sqrt(z2 * rate * (1 - rate) / count + (z2 / (2 * count)) ** 2) / (1 + z2 / count)
        low, high = max(0.0, float(centre - half)), min(1.0, float(centre + half))
        rows.append({"predicted": float(p[inside].mean()), "rate": rate, "count": count, "low": low, "high": high})
    return rows


def mae(actual: Column, predicted: Column) -> float:
    """Return the mean absolute error, in the currency.

    >>> mae(np.array([1.0, 4.0]), np.array([2.0, 2.0]))
    1.5
    """
    return float(np.mean(np.abs(np.asarray(predicted) - np.asarray(actual))))


def gini(actual: Column, predicted: Column) -> float:
    """Return the normalised Gini of the order by prediction: 1 for the best possible order, 0 for a constant.

    It is the area between the cumulated actual value and the diagonal, customers sorted by prediction, over the same
    area with customers sorted by the actual value. Ties get their mean rank, so the order of rows changes nothing. The
    totals cancel, so values may be negative; NaN if all actual values are equal.

    >>> gini(np.array([0.0, 1.0, 5.0]), np.array([3.0, 10.0, 40.0]))
    1.0
    """
    y = np.asarray(actual, dtype=np.float64)
    middle = (len(y) + 1) / 2
    # summing cumulated values is the same as weighting each value by its rank, and ranks handle ties exactly
    ordered = float(np.sum((y - y.mean()) * (mean_ranks(predicted) - middle)))
    best = float(np.sum((y - y.mean()) * (mean_ranks(y) - middle)))
    return _ratio(ordered, best)


def spearman(actual: Column, predicted: Column) -> float:
    """Return the rank correlation, ties at their mean rank; NaN if either side is constant.

    >>> round(spearman(np.array([1, 2, 3]), np.array([1, 3, 2])), 6)
    0.5
    """
    x, y = mean_ranks(actual), mean_ranks(predicted)
    x, y = x - x.mean(), y - y.mean()
    return _ratio(float(np.sum(x * y)), float(np.sqrt(np.sum(x * x) * np.sum(y * y))))


def decile_mape(actual: Column, predicted: Column) -> float:
    """Return the mean absolute percentage error of the ten totals by decile of the prediction.

    Equal predictions share a decile; empty deciles do not count. A decile whose actual total is zero or negative is
    measured against the larger of its two totals in size, so it counts 0 when both are zero, 1 when only the actual
    total is zero, and never more than 2.

    >>> decile_mape(np.array([10.0, 20.0]), np.array([11.0, 30.0]))
    0.3
    """
    y, p = pair(actual, predicted)
    decile = quantile_groups(p, 10)
    occupied = np.unique(decile)
    actual_total = np.bincount(decile, weights=y)[occupied]
    predicted_total = np.bincount(decile, weights=p)[occupied]
    larger = np.maximum(np.abs(actual_total), np.abs(predicted_total))
    base = np.where(actual_total > 0, actual_total, np.where(larger > 0, larger, 1.0))
    return float(np.mean(np.abs(predicted_total - actual_total) / base))


def lorenz_curve(values: Column) -> tuple[Floats, Floats]:
    """Return (share of customers, share of the total value), least valuable first, both from 0 to 1.

    >>> lorenz_curve(np.array([3.0, 1.0]))[1].tolist()
    [0.0, 0.25, 1.0]
    """
    return _cumulated_shares(np.sort(np.asarray(values, dtype=np.float64)))


def whale_curve(values: Column) -> tuple[Floats, Floats]:
    """Return (share of customers, share of the total value), most valuable first; above 1 with negative values.

    >>> whale_curve(np.array([-1.0, 3.0]))[1].tolist()
    [0.0, 1.5, 1.0]
    """
    return _cumulated_shares(np.sort(np.asarray(values, dtype=np.float64))[::-1])


def gini_coefficient(values: Column) -> float:
    """Return the Gini coefficient of values: 0 if all are equal, near 1 if one has all, above 1 with negative values.

    >>> gini_coefficient(np.array([0.0, 0.0, 0.0, 8.0]))
    0.75
    """
    shares, cumulated = lorenz_curve(values)
    return float(1 - 2 * np.trapezoid(cumulated, shares))


def pareto_share(values: Column, top: float = 0.2) -> float:
    """Return the share of the total value that the `top` share of customers has; negative values count.

    Where `top` falls inside a customer, that customer counts in part.

    >>> pareto_share(np.array([80.0, 5.0, 5.0, 5.0, 5.0]))
    0.8
    """
    return float(np.interp(top, *whale_curve(values)))


def herfindahl(values: Column) -> float:
    """Return the sum of squared shares of the total: 1/n if all customers are equal, 1 if one has all.

    >>> herfindahl(np.array([1.0, 1.0, 1.0, 1.0]))
    0.25
    """
    x = np.asarray(values, dtype=np.float64)
    return _ratio(float(np.sum(x * x)), float(np.sum(x)) ** 2)


def quadratic_weighted_kappa(actual: Column, predicted: Column, levels: int) -> float:
    """Return the quadratic weighted kappa (Cohen 1968): the agreement of two ordinal ratings beyond chance.

    Ratings run from 0 to `levels` - 1. NaN if both ratings are the same constant; `DataError` for other ratings.

    >>> quadratic_weighted_kappa(np.array([0, 1, 2]), np.array([0, 1, 2]), levels=3)
    1.0
    """
    x, y = pair(actual, predicted)
    for name, rating in (("actual", x), ("predicted", y)):
        outside = rating[(rating < 0) | (rating >= levels)]
        if len(outside):
            raise DataError(f"{name}: tier {outside[0]:g} is not among 0 to {levels - 1}; encode tiers with one scheme")
    # the usual weight matrix, summed out: chance disagreement is the mean squared distance of independent pairs
    by_chance = float(x.var() + y.var() + (x.mean() - y.mean()) ** 2)
    return 1 - _ratio(float(np.mean((x - y) ** 2)), by_chance)


def mean_ranks(values: Column) -> Floats:
    """Return ranks from 1, ties at their mean rank; all are NaN where any value is.

    Equal to `scipy.stats.rankdata`, but ten times as fast: the bootstrap ranks thousands of times.

    >>> mean_ranks(np.array([3, 1, 3])).tolist()
    [2.5, 1.0, 2.5]
    """
    x = np.asarray(values)
    order = np.argsort(x)
    ordered = x[order]
    first = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))  # NaN comes last, each by itself
    after = np.append(first[1:], len(x))
    ranks = np.full(len(x), np.nan)
    if len(x) and not np.isnan(ordered[-1]):
        ranks[order] = np.repeat((first + 1 + after) / 2, after - first)
    return ranks


def pair(actual: Column, predicted: Column) -> tuple[Floats, Floats]:
    """Return two equally long columns as float64; `DataError` names the first value that is not finite."""
    y, p = np.asarray(actual, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    if y.shape != p.shape or y.ndim != 1 or len(y) == 0:
        raise DataError(f"metrics need two equally long, filled columns; got shapes {y.shape} and {p.shape}")
    for name, values in (("actual", y), ("predicted", p)):
        if not np.isfinite(values).all():
            at = int(np.flatnonzero(~np.isfinite(values))[0])
            raise DataError(f"{name}: row {at} is {values[at]}; drop or fill such rows before measuring")
    return y, p


def check_probabilities(actual: Floats, predicted: Floats) -> None:
    """Raise `DataError` for labels other than 0 and 1, and for predictions outside 0 to 1."""
    if not np.isin(actual, (0.0, 1.0)).all():
        raise DataError(f"actual: {actual[~np.isin(actual, (0.0, 1.0))][0]:g} is not 0 or 1")
    outside = predicted[(predicted < 0) | (predicted > 1)]
    if len(outside):
        raise DataError(f"predicted: {outside[0]:g} is not a probability; give calibrated probabilities, not scores")


def _ece_bins(predicted: Floats) -> NDArray[np.intp]:
    return np.minimum((predicted * ECE_BINS).astype(np.intp), ECE_BINS - 1)


def quantile_groups(predicted: Floats, groups: int) -> NDArray[np.intp]:
    """Return each prediction's quantile group, 0 lowest; groups have about equal size, ties share one."""
    ranks: Floats = mean_ranks(predicted)  # the mean rank of ties keeps them in one group
    return ((ranks - 0.5) * groups / len(predicted)).astype(np.intp)


def _cumulated_shares(ordered: Floats) -> tuple[Floats, Floats]:
    cumulated = np.concatenate([[0.0], np.cumsum(ordered)])
    total = cumulated[-1]
    share = cumulated / total if total != 0 else np.full(len(cumulated), np.nan)
    return np.linspace(0, 1, len(cumulated)), share


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else float("nan")
