"""Expected value as a regressor: members and blend of `tiermodel.models.value` under scikit-learn's contract."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from tiermodel.arrays import Floats
from tiermodel.config.learners import ValueLearners
from tiermodel.config.targets import Churn, Outcome, Value
from tiermodel.errors import DataError
from tiermodel.features.outcome import ValueLabel
from tiermodel.models.design_matrix import DesignMatrix
from tiermodel.models.learners.boosting import ROUNDS, fit_boosted
from tiermodel.models.learners.linear import fit_ridge
from tiermodel.models.value import ValueModel, fit_value
from tiermodel.sklearn.panels import DatedRows, frame_of, numbered, with_names

__all__ = ["ValueRegressor"]

_WEIGHTS = np.array([0.47, 0.53])  # of the ridge and the trees, where no later date tells better ones
_MIDDLE = ROUNDS[2]


class ValueRegressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """The mean amount that a customer will bring, from the features of snapshots; never below zero.

    Amounts have many zeros and a heavy tail: a ridge on square roots and Tweedie trees are blended, scaled so that
    the predictions add up to the total of the training rows. Values below zero count in that total only. With the date
    of each row the whole model of `tiermodel train` is fitted, with buy-till-you-die members, weights chosen on later
    dates and a forecast level. Missing features may be NaN.

    Parameters
    ----------
    horizon_days
        The length of the outcome window in days; read with dates only.
    random_state
        The seed of the trees.

    Examples
    --------
    >>> x = np.random.default_rng(0).gamma(2.0, size=(300, 2))
    >>> model = ValueRegressor().fit(x, 10 * x[:, 0])
    >>> float(model.score(x, 10 * x[:, 0])) > 0.9
    True

    """

    def __init__(self, horizon_days: int = 90, random_state: int = 7) -> None:
        self.horizon_days = horizon_days
        self.random_state = random_state

    def fit(self, X: Any, y: Any, dates: Any = None) -> Self:  # noqa: N803
        """Fit on features and amounts, and the date of each row where they are known.

        With dates raises `ValueError` where fewer than 50 rows have an amount above zero.
        """
        x, y = validate_data(
            self, X, y, ensure_all_finite="allow-nan", dtype=np.float64, y_numeric=True, ensure_min_samples=2
        )
        self.dated_ = None if dates is None else self._fit_dated(x, y.astype(np.float64), dates)
        if dates is None:
            self._fit_members(x, y.astype(np.float64))
        return self

    def _fit_members(self, x: Floats, y: Floats) -> None:
        positive, names = np.maximum(y, 0.0), numbered(x.shape[1])
        self.linear_ = fit_ridge(x, np.sqrt(positive))
        power: dict[str, Any] = {"objective": "tweedie", "tweedie_variance_power": ValueLearners().tweedie_power}
        any_value = bool(positive.sum() > 0)  # Tweedie cannot learn from zeros alone
        self.trees_ = fit_boosted(x, positive, names, _MIDDLE, self.random_state, **power) if any_value else None
        members = self._members(x)
        sums, total = members.sum(axis=1), max(float(y.sum()), 0.0)
        usable = np.where(sums > 0, _WEIGHTS, 0.0)
        self.factors_ = total * usable / max(float(usable.sum()), 1e-9) / np.where(sums > 0, sums, 1.0)

    def _members(self, x: Floats) -> Floats:
        trees = np.zeros(len(x)) if self.trees_ is None else self.trees_.predict(x)
        return np.stack([np.maximum(self.linear_.decision(x), 0.0) ** 2, trees])

    def _fit_dated(self, x: Floats, y: Floats, dates: Any) -> tuple[DesignMatrix, ValueModel]:
        rows = DatedRows.of(x, with_names(self, x.shape[1]), dates, self.horizon_days, outcome_value=y)
        label = ValueLabel.of(Value(), Churn(), Outcome(horizon_days=self.horizon_days))
        names = rows.design.all_names
        try:
            model, _ = fit_value(
                rows.panel, rows.inputs, names, label, ValueLearners(), rows.context, self.random_state
            )
        except DataError as error:
            raise ValueError(str(error)) from error
        return rows.design, model

    def predict(self, X: Any) -> Floats:  # noqa: N803
        """Return the expected amount of each row."""
        check_is_fitted(self)
        x = validate_data(self, X, reset=False, ensure_all_finite="allow-nan", dtype=np.float64)
        if self.dated_ is None:
            ridge, trees = self._members(x)
            found: Floats = self.factors_[0] * ridge + self.factors_[1] * trees
            return found
        design, model = self.dated_
        return model.predict(design.matrix(frame_of(x, design.names)))

    def __sklearn_tags__(self) -> Any:
        """Return the tags: NaN for what is missing, and no good fit to targets below zero."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.regressor_tags.poor_score = True
        return tags
