"""Shared by the fits of buy-till-you-die models: customers counted by history, and the minimiser of their loss.

A customer is `frequency` (purchase days after the first), `recency` (last minus first purchase) and `age` (`as_of`
minus first purchase), the last two in one unit of time. Fits run over distinct (frequency, recency, age) cells, in
log-parameters, time and amount in units of their mean. Two devices keep a fit finite where the data do not identify a
parameter (only one-order customers, identical amounts): log-parameters stay within ±9, and have a normal prior of
standard deviation 100, too weak to matter where the data do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits

from tiermodel.arrays import Floats
from tiermodel.errors import DataError

__all__ = ["LOG_BOUNDS", "Cells", "cells_of", "check_horizon", "checked_history", "finite_columns", "fit_parameters"]

Loss = Callable[[Floats], tuple[float, Floats]]

LOG_BOUNDS = (-9.0, 9.0)
"""The bounds of the logarithm of a parameter."""

PRIOR_SD = 100.0


class Cells(NamedTuple):
    """Distinct histories and their shares of customers; times are in `unit`, `level` are positions in `frequency`."""

    frequency: Floats
    level: NDArray[np.intp]
    recency: Floats
    age: Floats
    share: Floats
    unit: float
    customers: int


def finite_columns(**columns: ArrayLike) -> tuple[Floats, ...]:
    """Return columns broadcast to one length; `DataError` names the first value that is not finite."""
    arrays = np.broadcast_arrays(*(np.atleast_1d(np.asarray(values, dtype=np.float64)) for values in columns.values()))
    for name, values in zip(columns, arrays, strict=True):
        if not np.isfinite(values).all():
            at = int(np.flatnonzero(~np.isfinite(values))[0])
            raise DataError(f"{name}: row {at} is {values[at]}; drop or fill such rows first")
    return tuple(arrays)


def checked_history(frequency: ArrayLike, recency: ArrayLike, age: ArrayLike) -> tuple[Floats, Floats, Floats]:
    """Return three columns of one length; `DataError` names the first row that is no history."""
    x, recent, old = finite_columns(frequency=frequency, recency=recency, age=age)
    wrong = (x < 0) | (recent < 0) | (recent > old) | ((x == 0) & (recent > 0))
    if wrong.any():
        at = int(np.flatnonzero(wrong)[0])
        raise DataError(
            f"row {at}: frequency {x[at]:g}, recency {recent[at]:g}, age {old[at]:g} is no history; "
            "0 <= recency <= age must hold, and recency is 0 without a repeat purchase"
        )
    return x, recent, old


def cells_of(frequency: Floats, recency: Floats, age: Floats) -> Cells:
    """Return the distinct histories, sorted: the order of rows changes nothing. `DataError` where there are none."""
    if not len(frequency):
        raise DataError("no customers; a purchase model needs at least one")
    order = np.lexsort((age, recency, frequency))
    rows = np.column_stack([frequency, recency, age])[order]
    first = np.flatnonzero(np.r_[True, (rows[1:] != rows[:-1]).any(axis=1)])
    levels, level = np.unique(rows[first, 0], return_inverse=True)
    unit = float(rows[:, 2].mean()) or 1.0
    share = np.diff(np.r_[first, len(rows)]) / len(rows)
    return Cells(levels, level, rows[first, 1] / unit, rows[first, 2] / unit, share, unit, len(rows))


def fit_parameters(loss: Loss, start: Floats, bounds: list[tuple[float, float]], customers: int) -> list[float]:
    """Return the parameters of the least loss; `loss` takes their logarithms and returns its value and gradient."""
    precision = 1 / (PRIOR_SD**2 * customers)

    def with_prior(theta: Floats) -> tuple[float, Floats]:
        value, gradient = loss(theta)
        return value + precision * float(np.sum(theta**2)) / 2, gradient + precision * theta

    options = {"ftol": 1e-13, "gtol": 1e-7, "maxiter": 500}
    with threadpool_limits(limits=1):  # the arrays are small: threads would only wait for each other
        result = minimize(with_prior, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    return [float(value) for value in np.exp(result.x)]


def check_horizon(horizon: float) -> None:
    """Raise `DataError` where a horizon is negative or not finite."""
    if not 0 <= horizon < np.inf:
        raise DataError(f"horizon: {horizon} is not a length of time; give a number from 0 up, in the unit of age")
