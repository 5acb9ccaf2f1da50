"""Customer lifetime value: expected value over a horizon in days, discounted at an annual rate.

A buy-till-you-die model expects purchases; one that is `t` days ahead counts (1 + annual rate) ** (-t / 365).
The worth of a purchase comes from the value model's forecast of the outcome window, which knows more of a customer than
purchases and deducts returns, or cost.
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from tiermodel.arrays import Floats
from tiermodel.features.outcome import LabelWindow
from tiermodel.models.btyd.forecast import frequency_recency_age
from tiermodel.models.btyd.likelihood import check_horizon
from tiermodel.models.elementary import log1p

__all__ = ["DAYS_PER_YEAR", "PurchaseModel", "convert_rate", "discount", "discounted_purchases", "lifetime_value"]


DAYS_PER_YEAR = 365.0
_NODES, _WEIGHTS = (column / 2 for column in np.polynomial.legendre.leggauss(6))
_NODES = _NODES + 0.5


class PurchaseModel(Protocol):
    """A buy-till-you-die model with times in days."""

    def expected_purchases(self, horizon: float, frequency: ArrayLike, recency: ArrayLike, age: ArrayLike) -> Floats:
        """Return each customer's expected number of purchases in the next `horizon`."""


def convert_rate(rate: float, days: float, to_days: float) -> float:
    """Return the compound rate of interest over `to_days` that equals a rate over `days`.

    >>> round(convert_rate(0.10, DAYS_PER_YEAR, 7), 6), round(convert_rate(0.01, 30, DAYS_PER_YEAR), 6)
    (0.00183, 0.128695)
    """
    return math.expm1(math.log1p(rate) * to_days / days)


def discount(days: float, annual_rate: float) -> float:
    """Return the present value of one unit of money due in `days`.

    >>> round(discount(730, 0.10), 6)
    0.826446
    """
    return 1 / (1 + convert_rate(annual_rate, DAYS_PER_YEAR, days))


def discounted_purchases(
    model: PurchaseModel, horizon: float, annual_rate: float, frequency: ArrayLike, recency: ArrayLike, age: ArrayLike
) -> Floats:
    """Return each customer's expected purchases of the next `horizon` days, each discounted to today.

    By parts, ∫ d(t) dE(t) = d(horizon) E(horizon) + ∫ E(t) (-d'(t)) dt, where d discounts and E(t) are the purchases
    expected until t; the last integral, over d, is a Gauss-Legendre sum, good to 5 digits up to three years, 4 to ten.
    """
    check_horizon(horizon)
    lost = 1 - discount(horizon, annual_rate)
    total = (1 - lost) * model.expected_purchases(horizon, frequency, recency, age)
    if lost == 0:
        return total
    daily = math.log1p(convert_rate(annual_rate, DAYS_PER_YEAR, 1))
    for at, weight in zip(-log1p(-lost * _NODES) / daily, _WEIGHTS, strict=True):
        total = total + lost * weight * model.expected_purchases(float(at), frequency, recency, age)
    return total


def lifetime_value(
    model: PurchaseModel, horizon: float, annual_rate: float, window: LabelWindow, buyers: pd.DataFrame, value: Floats
) -> Floats:
    """Return buyers' lifetime value over the next `horizon` days: their expected value in the outcome window, scaled.

    The factor is discounted purchases until the horizon over purchases in the window. P(alive) stands in both and
    cancels, so the factor depends on frequency and age alone, and is computed once for each pair.
    """
    frequency, _, age = frequency_recency_age(buyers)
    _, first, place = np.unique(frequency + 1j * age, return_index=True, return_inverse=True)
    past = frequency[first], np.where(frequency[first] > 0, age[first], 0.0), age[first]
    purchases = model.expected_purchases(window.last, *past)
    if window.first:
        purchases = purchases - model.expected_purchases(window.first, *past)
    factor = discounted_purchases(model, horizon, annual_rate, *past) / purchases
    return np.asarray(value * factor[place])
