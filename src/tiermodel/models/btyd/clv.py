"""Customer lifetime value over a stated horizon at a stated annual rate, in days, rates converted in one place.

Purchases to come are those that a buy-till-you-die model expects; each is worth less the later it comes: a purchase `t`
days ahead counts (1 + annual rate) ** (-t / 365). What a purchase is worth is what the value model says of the outcome
window: it knows more of a customer than purchases, and it deducts returns, or cost.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from tiermodel.arrays import Floats
from tiermodel.features.outcome import LabelWindow
from tiermodel.models.btyd.forecast import frequency_recency_age
from tiermodel.models.btyd.likelihood import check_horizon

__all__ = ["DAYS_A_YEAR", "Purchases", "convert_rate", "discount", "discounted_purchases", "lifetime_value"]


DAYS_A_YEAR = 365.0
_NODES, _WEIGHTS = (column / 2 for column in np.polynomial.legendre.leggauss(6))
_NODES = _NODES + 0.5


class Purchases(Protocol):
    """Any buy-till-you-die model, times in days."""

    def expected_purchases(self, horizon: float, frequency: ArrayLike, recency: ArrayLike, age: ArrayLike) -> Floats:
        """Return each customer's expected number of purchases in the next `horizon`."""


def convert_rate(rate: float, days: float, to_days: float) -> float:
    """Turn a rate of interest over `days` into the compound one over `to_days`: the only conversion of rates there is.

    >>> round(convert_rate(0.10, DAYS_A_YEAR, 7), 6), round(convert_rate(0.01, 30, DAYS_A_YEAR), 6)
    (0.00183, 0.128695)
    """
    return float(np.expm1(np.log1p(rate) * to_days / days))


def discount(days: float, annual_rate: float) -> float:
    """Return what one unit of money is worth today that comes `days` ahead.

    >>> round(discount(730, 0.10), 6)
    0.826446
    """
    return 1 / (1 + convert_rate(annual_rate, DAYS_A_YEAR, days))


def discounted_purchases(
    model: Purchases, horizon: float, annual_rate: float, frequency: ArrayLike, recency: ArrayLike, age: ArrayLike
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
    daily = np.log1p(convert_rate(annual_rate, DAYS_A_YEAR, 1))
    for at, weight in zip(-np.log1p(-lost * _NODES) / daily, _WEIGHTS, strict=True):
        total = total + lost * weight * model.expected_purchases(float(at), frequency, recency, age)
    return total


def lifetime_value(
    model: Purchases, horizon: float, annual_rate: float, window: LabelWindow, buyers: pd.DataFrame, value: Floats
) -> Floats:
    """Carry the value expected of buyers in its window on to the next `horizon` days, as their purchases will go on.

    The factor is discounted purchases until the horizon over purchases in the window. Whether a customer is still there
    stands in both and cancels, so the factor depends on frequency and age alone, and is computed once for each pair.
    """
    frequency, _, age = frequency_recency_age(buyers)
    _, first, place = np.unique(frequency + 1j * age, return_index=True, return_inverse=True)
    past = frequency[first], np.where(frequency[first] > 0, age[first], 0.0), age[first]
    purchases = model.expected_purchases(window.last, *past)
    if window.first:
        purchases = purchases - model.expected_purchases(window.first, *past)
    factor = discounted_purchases(model, horizon, annual_rate, *past) / purchases
    return np.asarray(value * factor[place])
