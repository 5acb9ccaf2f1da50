"""The buy-till-you-die models BG/NBD and MBG/NBD: how often a customer buys, and whether the customer is still alive.

A customer is `frequency` (purchase days after the first), `recency` (last minus first purchase) and `age` (`as_of`
minus first purchase), the last two in one unit of time: days in this project. While alive a customer buys at a Poisson
rate λ ~ Gamma(r, α) and after a purchase drops out for ever with probability p ~ Beta(a, b). In BG/NBD (Fader, Hardie
and Lee 2005) a customer may drop out after repeat purchases only, so a customer of one purchase is alive with
certainty; in MBG/NBD (Batislam, Denizel and Filiztekin 2007) also after the first. They differ in nothing else.

Fits are maximum likelihood with analytic gradients over the cells of `likelihood`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial
from typing import ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import digamma, expit, gammaln

from tiermodel.arrays import Floats
from tiermodel.models.btyd.likelihood import LOG_BOUNDS, Cells, cells_of, check_horizon, checked_history, fit_parameters
from tiermodel.models.elementary import expm1, log, log1p

__all__ = ["BGNBD", "MBGNBD"]

QUADRATURE_NODES = 24  # of the mean over p


@dataclass(frozen=True)
class BGNBD:
    """A BG/NBD model: customers drop out after repeat purchases only; `alpha` is in the data's unit of time.

    >>> published = BGNBD(r=0.243, alpha=4.414, a=0.793, b=2.426)  # CDNOW, weeks
    >>> published.expected_purchases(39, frequency=2, recency=30.43, age=38.86).round(3).tolist()
    [1.226]
    """

    r: float
    alpha: float
    a: float
    b: float
    dropout_after_first: ClassVar[bool] = False

    @classmethod
    def fit(cls, frequency: ArrayLike, recency: ArrayLike, age: ArrayLike) -> Self:
        """Return the maximum-likelihood model; `DataError` for rows that are no purchase history."""
        cells = cells_of(*checked_history(frequency, recency, age))
        chances = cells.frequency + cls.dropout_after_first
        loss = partial(_purchase_loss, cells=cells, chances=chances)
        r, alpha, a, b = fit_parameters(loss, np.zeros(4), [LOG_BOUNDS] * 4, cells.customers)
        return cls(r, alpha * cells.unit, a, b)

    def p_alive(self, frequency: ArrayLike, recency: ArrayLike, age: ArrayLike) -> Floats:
        """Return each customer's probability of being alive at the end of `age`."""
        x, recent, old = checked_history(frequency, recency, age)
        elapsed = log(self.alpha + old) - log(self.alpha + recent)
        hazard = _log_hazard(self.a, self.b, x + self.dropout_after_first)
        return np.asarray(expit(-hazard - (self.r + x) * elapsed))

    def p_zero(self, horizon: float, frequency: ArrayLike, recency: ArrayLike, age: ArrayLike) -> Floats:
        """Return each customer's probability of no purchase in the next `horizon`.

        Exact: customers drop out only at a purchase, so a customer who is alive stays so until the next one, and p
        plays no part. Given alive, λ is Gamma(r + frequency, α + age), so P(none | alive) = E[exp(-λ horizon)]
        = ((α + age) / (α + age + horizon)) ** (r + frequency), and P(none) = 1 - p_alive (1 - P(none | alive)).
        """
        x, recent, old = checked_history(frequency, recency, age)
        check_horizon(horizon)
        buys = -expm1(-(self.r + x) * log1p(horizon / (self.alpha + old)))
        return 1 - self.p_alive(x, recent, old) * buys

    def expected_purchases(self, horizon: float, frequency: ArrayLike, recency: ArrayLike, age: ArrayLike) -> Floats:
        """Return each customer's expected number of purchases in the next `horizon`.

        Given alive, λ and p, it is (1 - exp(-λ p horizon)) / p. The mean over λ is closed; that over the posterior
        p ~ Beta(a, b + chances to drop out) is a Gauss-Jacobi sum, which unlike the published 2F1 form neither
        overflows nor breaks down at a = 1. Both agree to six digits for horizons up to ten times α + age.
        """
        x, recent, old = checked_history(frequency, recency, age)
        check_horizon(horizon)
        chances, level = np.unique(x + self.dropout_after_first, return_inverse=True)
        rate, ahead = self.r + x, horizon / (self.alpha + old)
        if_alive = np.zeros(len(x))
        for nodes, weights in zip(*_beta_quadrature(self.a, (self.b + chances).tobytes()), strict=True):
            p = nodes[level]
            if_alive += weights[level] * -expm1(-rate * log1p(p * ahead)) / p
        return self.p_alive(x, recent, old) * if_alive


@dataclass(frozen=True)
class MBGNBD(BGNBD):
    """An MBG/NBD model: customers may drop out after any purchase, the first included; otherwise as `BGNBD`.

    >>> model = MBGNBD(r=0.525, alpha=6.183, a=0.891, b=1.614)  # CDNOW, weeks
    >>> bool(model.p_alive(frequency=0, recency=0, age=38)[0] < 0.5)
    True
    """

    dropout_after_first: ClassVar[bool] = True


def _purchase_loss(theta: Floats, cells: Cells, chances: Floats) -> tuple[float, Floats]:
    """Return the mean negative log-likelihood and its gradient by log(r, α, a, b).

    L = B(a, b + n) / B(a, b) Γ(r + x) / Γ(r) α^r (α + age)^-(r + x) (1 + odds), where n counts the chances to
    drop out and odds = a / (b + n - 1) ((α + age) / (α + recency))^(r + x), 0 if n = 0, are those of having done so.
    """
    r, alpha, a, b = np.exp(theta)
    x, level, recency, age, share = cells[:5]
    n = chances
    log_age, log_recency = np.log(alpha + age), np.log(alpha + recency)
    elapsed = log_age - log_recency
    rate = (r + x)[level]
    log_odds = _log_hazard(a, b, n)[level] + rate * elapsed
    small = np.exp(-np.abs(log_odds))
    left = np.where(log_odds > 0, 1.0, small) / (1 + small)
    level_share = np.bincount(level, weights=share)
    left_share = np.bincount(level, weights=share * left)
    by_level = gammaln(r + x) + gammaln(b + n) - gammaln(a + b + n)
    shared = r * theta[1] + gammaln(a + b) - gammaln(r) - gammaln(b)
    by_cell = np.maximum(log_odds, 0) + np.log1p(small) - rate * log_age
    mean = shared + np.sum(level_share * by_level) + np.sum(share * by_cell)

    total = digamma(a + b) - digamma(a + b + n)
    gradient = np.array([
        np.sum(level_share * digamma(r + x)) - digamma(r) + theta[1] + np.sum(share * (left * elapsed - log_age)),
        r / alpha - np.sum(share * rate * ((1 - left) / (alpha + age) + left / (alpha + recency))),
        np.sum(level_share * total) + np.sum(left_share) / a,
        np.sum(level_share * (total + digamma(b + n) - digamma(b)) - left_share / np.where(n > 0, b + n - 1, 1.0)),
    ])  # fmt: skip
    return -float(mean), -gradient * np.exp(theta)


def _log_hazard(a: float, b: float, chances: Floats) -> Floats:
    """Return log(a / (b + n - 1)), and -inf where there was no chance to drop out."""
    return np.where(chances > 0, log(a) - log(np.where(chances > 0, b + chances - 1, 1.0)), -np.inf)


@lru_cache(maxsize=256)
def _beta_quadrature(a: float, each_b: bytes) -> tuple[Floats, Floats]:
    """Return nodes and weights, shape (nodes, values of b), of the mean over Beta(a, b) (Golub and Welsch 1969).

    They are kept, since a lifetime value asks for them at nine horizons; `each_b` are the bytes of an array.
    """
    b = np.frombuffer(each_b)
    k = np.arange(1, QUADRATURE_NODES)[:, None]
    s = a + b - 2
    matrix = np.zeros((len(b), QUADRATURE_NODES, QUADRATURE_NODES))
    on, below = np.arange(QUADRATURE_NODES), np.arange(1, QUADRATURE_NODES)
    matrix[:, 0, 0] = a / (a + b)
    matrix[:, on[1:], on[1:]] = ((1 + (a - b) * s / ((2 * k + s) * (2 * k + s + 2))) / 2).T
    tail = k[1:]
    square = tail * (tail + b - 1) * (tail + a - 1) * (tail + s)
    square /= (2 * tail + s) ** 2 * (2 * tail + s + 1) * (2 * tail + s - 1)
    matrix[:, 1, 0] = np.sqrt(a * b / (a + b + 1)) / (a + b)
    matrix[:, below[1:], below[:-1]] = np.sqrt(square).T
    nodes, vectors = np.linalg.eigh(matrix)
    found = np.clip(nodes, 1e-100, 1).T, (vectors[:, 0, :] ** 2).T
    for array in found:
        array.setflags(write=False)
    return found
