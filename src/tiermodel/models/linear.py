"""Linear models on transformed features, kept as plain numbers: the readable half of every blend."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression, Ridge

__all__ = ["Linear", "fit_logistic", "fit_ridge"]

Floats = NDArray[np.float64]
_SHAPES: Mapping[str, Callable[[Floats], Floats]] = {
    "log": lambda x: np.sign(x) * np.log1p(np.abs(x)),
    "root": lambda x: np.sign(x) * np.sqrt(np.abs(x)),
}
_RARE = 0.005
_LOGISTIC_C = 0.02
_RIDGE_ALPHA = 300.0


@dataclass(frozen=True)
class Linear:
    """Hold a linear model: per feature a shape, a fill-in for missing values, its standardisation and coefficients.

    `coefficient` has one entry per feature and one more per feature in `flagged`, whose being missing counts by itself.
    """

    shape: Literal["log", "root"]
    middle: list[float]
    flagged: list[int]
    mean: list[float]
    scale: list[float]
    coefficient: list[float]
    intercept: float

    def decision(self, x: Floats) -> Floats:
        """Give the linear score of each row; added up feature by feature, so that no batch size changes a bit."""
        total = np.full(len(x), self.intercept)
        width = x.shape[1]
        for j in range(width):
            missing = np.isnan(x[:, j])
            z = _SHAPES[self.shape](np.where(missing, 0.0, x[:, j]))
            z[missing] = self.middle[j]
            total += (z - self.mean[j]) * (self.coefficient[j] / self.scale[j])
            if j in self.flagged:
                k = width + self.flagged.index(j)
                total += (missing - self.mean[k]) * (self.coefficient[k] / self.scale[k])
        return total

    def to_dict(self) -> dict[str, Any]:
        """Give the model as plain data; `Linear(**data)` reads it."""
        return asdict(self)


def _prepare(x: Floats, shape: Literal["log", "root"]) -> tuple[Floats, list[float], list[int], Floats, Floats]:
    z = _SHAPES[shape](x)
    missing = np.isnan(z)
    middle = np.array([np.median(c[~m]) if not m.all() else 0.0 for c, m in zip(z.T, missing.T, strict=True)])
    flagged = [j for j, share in enumerate(missing.mean(axis=0)) if share > _RARE]
    z = np.hstack([np.where(missing, middle, z), missing[:, flagged]])
    mean, scale = z.mean(axis=0), z.std(axis=0)
    scale[scale < 1e-12] = 1.0
    return (z - mean) / scale, middle.tolist(), flagged, mean, scale


def fit_logistic(x: Floats, y: NDArray[np.bool_]) -> Linear:
    """Fit a logistic regression with L2 on standardised signed logarithms of x, shape (customers, features)."""
    z, middle, flagged, mean, scale = _prepare(x, "log")
    fitted = LogisticRegression(C=_LOGISTIC_C, max_iter=5_000).fit(z, y)
    return Linear(
        "log", middle, flagged, mean.tolist(), scale.tolist(), fitted.coef_[0].tolist(), float(fitted.intercept_[0])
    )


def fit_ridge(x: Floats, y: Floats) -> Linear:
    """Fit a ridge regression of y on signed square roots of the features; L2 on standardised inputs."""
    z, middle, flagged, mean, scale = _prepare(x, "root")
    fitted = Ridge(alpha=_RIDGE_ALPHA).fit(z, y)
    return Linear(
        "root", middle, flagged, mean.tolist(), scale.tolist(), fitted.coef_.tolist(), float(fitted.intercept_)
    )
