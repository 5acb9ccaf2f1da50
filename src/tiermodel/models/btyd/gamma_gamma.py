"""The Gamma-Gamma model of the amount of a purchase, taken as independent of how often a customer buys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import digamma, gammaln

from tiermodel.arrays import Floats
from tiermodel.errors import DataError
from tiermodel.models.btyd.likelihood import LOG_BOUNDS, finite_columns, fit_parameters

__all__ = ["GammaGamma"]

MIN_Q = 1.1


@dataclass(frozen=True)
class GammaGamma:
    """A Gamma-Gamma model: a customer's mean amount, shrunk towards the mean of all (Fader and Hardie 2013).

    Amounts are Gamma(p, ν) with ν ~ Gamma(q, v) among customers, independent of how often they buy; `v` is in the
    currency. `fit` keeps q at 1.1 or above, since the mean of all customers, p v / (q - 1), needs q > 1.

    >>> published = GammaGamma(p=6.25, q=3.74, v=15.44)  # CDNOW, dollars
    >>> published.expected_value(frequency=[0, 1], mean_value=[0, 50]).round(1).tolist()
    [35.2, 45.5]
    """

    p: float
    q: float
    v: float

    @classmethod
    def fit(cls, frequency: ArrayLike, mean_value: ArrayLike) -> Self:
        """Return the model fitted on customers with frequency and mean value above zero; `DataError` if none is."""
        x, m = finite_columns(frequency=frequency, mean_value=mean_value)
        used = (x > 0) & (m > 0)
        if not used.any():
            raise DataError(
                f"none of {len(x)} customers has a repeat purchase of positive value; Gamma-Gamma needs one"
            )
        order = np.lexsort((m[used], x[used]))  # one order of summation, whatever the order of rows
        x, m = x[used][order], m[used][order]
        unit = float(m.mean())
        bounds = [LOG_BOUNDS, (np.log(MIN_Q), LOG_BOUNDS[1]), LOG_BOUNDS]
        p, q, v = fit_parameters(
            lambda theta: _amount_loss(theta, x, x * m / unit), np.log([2.0, 3.0, 1.0]), bounds, len(x)
        )
        return cls(p, q, v * unit)

    def expected_value(self, frequency: ArrayLike, mean_value: ArrayLike) -> Floats:
        """Return each customer's expected mean amount; at frequency 0 it is that of all, whatever `mean_value` is."""
        x, m = np.broadcast_arrays(np.atleast_1d(np.asarray(frequency, dtype=np.float64)), mean_value)
        spent = x * np.where(x > 0, m, 0.0)
        return np.asarray(self.p * (self.v + spent) / (self.p * x + self.q - 1))


def _amount_loss(theta: Floats, frequency: Floats, spent: Floats) -> tuple[float, Floats]:
    """Return the mean negative log-likelihood but for a constant, and its gradient by log(p, q, v)."""
    p, q, v = np.exp(theta)
    shape = p * frequency
    log_spent, log_sum = np.log(spent), np.log(spent + v)
    by_customer = gammaln(shape + q) - gammaln(shape) + shape * log_spent - (shape + q) * log_sum
    mean = np.mean(by_customer) - gammaln(q) + q * theta[2]
    both = digamma(shape + q)
    gradient = np.array([
        np.mean(frequency * (both - digamma(shape) + log_spent - log_sum)),
        np.mean(both - log_sum) - digamma(q) + theta[2],
        q / v - np.mean((shape + q) / (spent + v)),
    ])  # fmt: skip
    return -float(mean), -gradient * np.exp(theta)
