"""Linear models on transformed features, kept as plain numbers: the readable members of the blends."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from threading import Lock
from typing import Any, Literal

import numpy as np
from sklearn.linear_model import LogisticRegression, Ridge

from tiermodel.arrays import Flags, Floats
from tiermodel.config.learners import ChurnLearners, ValueLearners
from tiermodel.models.learners.preprocessing import bounds, mean_and_scale, medians, signed_log, signed_root
from tiermodel.models.learners.weights import FitWeights

__all__ = ["Linear", "averaged", "fit_logistic", "fit_ridge"]


_SHAPES: Mapping[str, Callable[[Floats], Floats]] = {"log": signed_log, "root": signed_root}
_RARE = 0.005
_ONE_AT_A_TIME = Lock()  # folds are fitted side by side, and each fit holds its inputs twice
_LOGISTIC_C = ChurnLearners().logistic_c
_RIDGE_ALPHA = ValueLearners().ridge_alpha


@dataclass(frozen=True)
class Linear:
    """A linear model on transformed inputs: clip to `low` and `high`, `shape`, fill in `middle`, standardise.

    `columns` are the positions of the inputs read. `coefficient`, `mean` and `scale` have one entry per input, then one
    per input in `flagged`, which also has an indicator of being missing. 99 % of the training rows lie within `low` and
    `high`; clipping keeps the model from extrapolating.
    """

    shape: Literal["log", "root"]
    columns: list[int]
    low: list[float]
    high: list[float]
    middle: list[float]
    flagged: list[int]
    mean: list[float]
    scale: list[float]
    coefficient: list[float]
    intercept: float

    def decision(self, x: Floats) -> Floats:
        """Return the linear score of each row, summed feature by feature: no batch size changes a bit."""
        total = np.full(len(x), self.intercept)
        for _, term in self._terms(x):
            total += term
        return total

    def contributions(self, x: Floats) -> Floats:
        """Return each input's contribution to the score, the shape of `x`: zero at the training mean."""
        each = np.zeros(x.shape)
        for column, term in self._terms(x):
            each[:, column] += term
        return each

    def _terms(self, x: Floats) -> Iterator[tuple[int, Floats]]:
        width = len(self.columns)
        for j, column in enumerate(self.columns):
            missing = np.isnan(x[:, column])
            z = _SHAPES[self.shape](np.clip(np.where(missing, 0.0, x[:, column]), self.low[j], self.high[j]))
            z[missing] = self.middle[j]
            yield column, (z - self.mean[j]) * (self.coefficient[j] / self.scale[j])
            if j in self.flagged:
                k = width + self.flagged.index(j)
                yield column, (missing - self.mean[k]) * (self.coefficient[k] / self.scale[k])

    def to_dict(self) -> dict[str, Any]:
        """Return the model as plain data; `Linear(**data)` reads it."""
        return asdict(self)


def _fit(
    x: Floats,
    y: Floats | Flags,
    shape: Literal["log", "root"],
    columns: list[int] | None,
    model: Any,
    weights: FitWeights | None,
) -> Linear:
    chosen = list(range(x.shape[1])) if columns is None else columns
    weight, offset = (None, np.zeros(1)) if weights is None else weights
    offset_column = [offset] if offset.any() else []
    flagged = [j for j, column in enumerate(chosen) if np.isnan(x[:, column]).mean() > _RARE]
    # one matrix of the size of the inputs, filled column by column and changed in place: panels are large
    z = np.empty((len(x), len(chosen) + len(flagged) + len(offset_column)), order="F")
    low, high, middle = (np.empty(len(chosen)) for _ in range(3))
    for j, column in enumerate(chosen):
        values = x[:, column]
        (low[j],), (high[j],) = bounds(values[:, None])
        values = _SHAPES[shape](np.clip(values, low[j], high[j]))
        (middle[j],) = medians(values[:, None])
        missing = np.isnan(values)
        z[:, j] = np.where(missing, middle[j], values)
        if j in flagged:
            z[:, len(chosen) + flagged.index(j)] = missing
    for of_offset in offset_column:
        z[:, -1] = of_offset
    mean, scale = mean_and_scale(z)
    z -= mean
    z /= scale
    fitted = model.fit(z, y, sample_weight=weight)
    coefficient, intercept = np.ravel(fitted.coef_), float(np.ravel(fitted.intercept_)[0])
    known = z.shape[1] - len(offset_column)
    intercept -= float((mean / scale * coefficient)[known:].sum())  # in scoring the offset is zero
    return Linear(
        shape, chosen, low.tolist(), high.tolist(), middle.tolist(), flagged, mean[:known].tolist(),
        scale[:known].tolist(), coefficient[:known].tolist(), intercept,
    )  # fmt: skip


def fit_logistic(
    x: Floats, y: Flags, columns: list[int] | None = None, c: float = _LOGISTIC_C, weights: FitWeights | None = None
) -> Linear:
    """Return an L2 logistic regression on standardised signed logarithms of `x`, or of some `columns` of it.

    The offset of `weights` is an input with a coefficient in training, and zero in scoring.
    """
    with _ONE_AT_A_TIME:
        return _fit(x, y, "log", columns, LogisticRegression(C=c, max_iter=5_000), weights)


def fit_ridge(
    x: Floats,
    y: Floats,
    columns: list[int] | None = None,
    alpha: float = _RIDGE_ALPHA,
    weights: FitWeights | None = None,
) -> Linear:
    """Return a ridge regression of `y` on standardised signed square roots of `x`, or of some `columns` of it."""
    with _ONE_AT_A_TIME:
        return _fit(x, y, "root", columns, Ridge(alpha=alpha, copy_X=False), weights)


def averaged(whole: Linear, part: Linear) -> Linear:
    """Return the model with the mean score of two that were fitted on the same rows; `whole` reads all inputs.

    >>> x = np.random.default_rng(0).gamma(2.0, size=(100, 3))
    >>> whole, part = fit_ridge(x, x[:, 0]), fit_ridge(x, x[:, 0], [0, 2])
    >>> both = averaged(whole, part).decision(x)
    >>> np.allclose(both, (whole.decision(x) + part.decision(x)) / 2)
    True
    """
    width, few = len(whole.columns), part.columns
    flags = [width + whole.flagged.index(few[j]) for j in part.flagged]
    total = np.array(whole.coefficient)
    total[[*few, *flags]] += part.coefficient
    return replace(whole, coefficient=(total / 2).tolist(), intercept=(whole.intercept + part.intercept) / 2)
