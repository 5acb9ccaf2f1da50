"""The Pareto/NBD model: customers buy at a rate of their own and may drop out at any moment.

While alive a customer buys at a Poisson rate λ ~ Gamma(r, α), and drops out at an exponential rate μ ~ Gamma(s, β)
(Schmittlein, Morrison and Colombo 1987), whereas in BG/NBD a customer drops out at a purchase only. The likelihood and
the forecasts are those of Fader and Hardie's "A Note on Deriving the Pareto/NBD Model and Related Expressions" (2005).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, reduce
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import digamma, gammaln

from tiermodel.arrays import Floats
from tiermodel.models.btyd.likelihood import LOG_BOUNDS, Cells, cells_of, check_horizon, checked_history, fit_parameters
from tiermodel.models.elementary import exp, expm1, log, log1p

__all__ = ["ParetoNBD"]

_BLOCK_ROWS = 4096
_DECAY_DIVISOR = 6.0
_MIN_DECAY = 1e-3
_NODES, _WEIGHTS = (column / 2 for column in np.polynomial.legendre.leggauss(20))
_NODES = _NODES + 0.5


@dataclass(frozen=True)
class ParetoNBD:
    """A Pareto/NBD model; `alpha` and `beta` are in the data's unit of time.

    >>> published = ParetoNBD(r=0.553, alpha=10.578, s=0.606, beta=11.669)  # CDNOW, weeks
    >>> published.expected_purchases(39, frequency=2, recency=30.43, age=38.86).round(3).tolist()
    [1.455]
    """

    r: float
    alpha: float
    s: float
    beta: float

    @classmethod
    def fit(cls, frequency: ArrayLike, recency: ArrayLike, age: ArrayLike) -> Self:
        """Return the maximum-likelihood model; `DataError` for rows that are no purchase history."""
        cells = cells_of(*checked_history(frequency, recency, age))
        loss = partial(_loss, cells=cells)
        r, alpha, s, beta = fit_parameters(loss, np.zeros(4), [LOG_BOUNDS] * 4, cells.customers)
        return cls(r, alpha * cells.unit, s, beta * cells.unit)

    def p_alive(self, frequency: ArrayLike, recency: ArrayLike, age: ArrayLike) -> Floats:
        """Return each customer's probability of being alive at the end of `age`."""
        silent = _silence(self, *checked_history(frequency, recency, age))
        return silent.alive / silent.total

    def p_zero(self, horizon: float, frequency: ArrayLike, recency: ArrayLike, age: ArrayLike) -> Floats:
        """Return each customer's probability of no purchase in the next `horizon`.

        Given alive at `age`, λ is Gamma(r + frequency, α + age) and μ is Gamma(s, β + age), so that P(no
        purchase) has the same form as since the last purchase.
        """
        check_horizon(horizon)
        x, _, old = checked_history(frequency, recency, age)
        silent = np.minimum(_silence(self, x, old, old + horizon).total, 1)  # rounding may put the sum above
        return 1 - self.p_alive(frequency, recency, age) * (1 - silent)

    def expected_purchases(self, horizon: float, frequency: ArrayLike, recency: ArrayLike, age: ArrayLike) -> Floats:
        """Return each customer's expected number of purchases in the next `horizon`.

        Given alive, E[λ] E[(1 - exp(-μ horizon)) / μ]; the second mean is
        (β + age) / (s - 1) (1 - ((β + age) / (β + age + horizon)) ** (s - 1)), a logarithm at s = 1.
        """
        check_horizon(horizon)
        x, _, old = checked_history(frequency, recency, age)
        log_growth = log1p(horizon / (self.beta + old))
        less = self.s - 1
        time_alive = (self.beta + old) * (log_growth if less == 0 else -expm1(-less * log_growth) / less)
        return self.p_alive(frequency, recency, age) * (self.r + x) / (self.alpha + old) * time_alive


class _Elementary(NamedTuple):
    exp: Callable[[Floats], Floats]
    expm1: Callable[[Floats], Floats]
    log: Callable[[Floats], Floats]
    log1p: Callable[[Floats], Floats]


_FAST = _Elementary(np.exp, np.expm1, np.log, np.log1p)  # for the hundreds of evaluations of a fit
_SAME_EVERYWHERE = _Elementary(exp, expm1, log, log1p)


class _Silence(NamedTuple):
    """P(no purchase and alive at the end), P(no purchase), and if wanted the latter's derivatives by r, α, s, β."""

    alive: Floats
    total: Floats
    gradient: Floats


def _silence(model: ParetoNBD, x: Floats, start: Floats, end: Floats, *, with_gradient: bool = False) -> _Silence:
    """Return P(no purchase from `start` to `end`) of customers with `x` purchases, alive at `start`.

    With S(y) = ((α + start) / (α + y))^(r + x) ((β + start) / (β + y))^s, P(alive and no purchase until y), it is
    S(end) + s ∫ S(y) / (β + y) dy: the published difference of two 2F1 functions, whose integral form has no
    cancellation, and one form for α above and below β.
    """
    parts = [
        _silence_block(
            model, x[i : i + _BLOCK_ROWS], start[i : i + _BLOCK_ROWS], end[i : i + _BLOCK_ROWS], with_gradient
        )
        for i in range(0, len(x), _BLOCK_ROWS)
    ]
    return _Silence(*(np.concatenate(column, axis=-1) for column in zip(*parts, strict=True)))


def _silence_block(model: ParetoNBD, x: Floats, start: Floats, end: Floats, with_gradient: bool) -> _Silence:
    """Integrate by Gauss-Legendre in q = ((m + start) / (m + y))^κ, m = min(α, β).

    κ is a sixth of the integrand's first rate of decay in log(m + y), so that in q the integrand is nearly a power: 20
    nodes reach 12 digits for usual parameters, 7 at their bounds. Derivatives are integrals on the same nodes.
    """
    f = _FAST if with_gradient else _SAME_EVERYWHERE
    r, alpha, s, beta = model.r, model.alpha, model.s, model.beta
    least = min(alpha, beta)
    buys, from_alpha, from_beta = r + x, alpha + start, beta + start
    decay = (least + start) * (buys / from_alpha + (s + 1) / from_beta) - 1
    kappa = np.maximum(decay, _MIN_DECAY) / _DECAY_DIVISOR
    width = -f.expm1(-kappa * f.log1p((end - start) / (least + start)))
    q = 1 - _NODES[:, None] * width  # shape (nodes, customers), as all that follows
    waited = (least + start) * f.expm1(-f.log(q) / kappa)
    log_alpha, log_beta = f.log1p(waited / from_alpha), f.log1p(waited / from_beta)
    to_beta = 1 / (from_beta + waited)
    leaves = f.exp(-buys * log_alpha - s * log_beta) * to_beta * (least + start + waited) / q
    leaves *= _WEIGHTS[:, None] * (s * width / kappa)

    whole = end - start
    alive = f.exp(-buys * f.log1p(whole / from_alpha) - s * f.log1p(whole / from_beta))
    left = reduce(np.add, leaves)  # node by node, so that no batch size changes a bit
    if not with_gradient:
        return _Silence(alive, alive + left, np.empty((0, len(x))))
    by_alpha = (leaves * (1 / from_alpha - 1 / (from_alpha + waited))).sum(axis=0) + alive * (
        1 / from_alpha - 1 / (alpha + end)
    )
    by_beta = (leaves * (1 / from_beta - to_beta)).sum(axis=0) + alive * (1 / from_beta - 1 / (beta + end))
    gradient = np.stack([
        -(leaves * log_alpha).sum(axis=0) - alive * np.log1p(whole / from_alpha),
        buys * by_alpha,
        left / s - (leaves * log_beta).sum(axis=0) - alive * np.log1p(whole / from_beta),
        s * by_beta - (leaves * to_beta).sum(axis=0),
    ])  # fmt: skip
    return _Silence(alive, alive + left, gradient)


def _loss(theta: Floats, cells: Cells) -> tuple[float, Floats]:
    """Return the mean negative log-likelihood and its gradient by log(r, α, s, β).

    L = Γ(r + x) / Γ(r) α^r β^s (α + recency)^-(r + x) (β + recency)^-s P(no purchase from recency to age).
    """
    r, alpha, s, beta = (float(value) for value in np.exp(theta))
    levels, level, recency, age, share = cells[:5]
    x = levels[level]
    silent = _silence(ParetoNBD(r, alpha, s, beta), x, recency, age, with_gradient=True)
    log_alpha, log_beta = np.log(alpha + recency), np.log(beta + recency)
    level_share = np.bincount(level, weights=share)
    by_cell = np.log(silent.total) - (r + x) * log_alpha - s * log_beta
    mean = r * theta[1] + s * theta[3] - gammaln(r) + level_share @ gammaln(r + levels) + share @ by_cell
    gradient = np.array([
        level_share @ digamma(r + levels) - digamma(r) + theta[1] - share @ log_alpha,
        r / alpha - share @ ((r + x) / (alpha + recency)),
        theta[3] - share @ log_beta,
        s / beta - share @ (s / (beta + recency)),
    ])  # fmt: skip
    gradient += (silent.gradient / silent.total) @ share
    return -float(mean), -gradient * np.exp(theta)
