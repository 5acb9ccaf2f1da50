"""Churn risk as a classifier: the members and the blend of `tiermodel.models.churn` under scikit-learn's contract."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from tiermodel.arrays import Flags, Floats
from tiermodel.config.learners import ChurnLearners
from tiermodel.config.targets import Churn, Outcome
from tiermodel.errors import DataError
from tiermodel.features.outcome import ChurnLabel
from tiermodel.models.calibration.logit import intercept_for_rate, log_odds
from tiermodel.models.churn import ChurnModel, fit_churn
from tiermodel.models.design_matrix import DesignMatrix
from tiermodel.models.learners.boosting import ROUNDS, fit_boosted
from tiermodel.models.learners.linear import fit_logistic
from tiermodel.sklearn.panels import DatedRows, frame_of, numbered, with_names

__all__ = ["ChurnClassifier"]

_WEIGHTS = np.array([0.4, 0.6])  # of the logistic regression and the trees, where no later date tells better ones
_MIDDLE = ROUNDS[2]


class ChurnClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """The calibrated probability that a customer leaves, from the features of snapshots; two classes.

    With the date of each row the whole model of `tiermodel train` is fitted: five members, blended on later dates, at
    a base rate that is forecast for the date when the last outcome window is over. Without dates it is its logistic
    regression and its trees, blended on the log-odds scale. Missing features may be NaN.

    Parameters
    ----------
    horizon_days
        The length of the outcome window in days; read with dates only.
    random_state
        The seed of the trees.

    Attributes
    ----------
    classes_
        The two labels; the second is that of churn.

    Examples
    --------
    >>> x = np.random.default_rng(0).gamma(2.0, size=(200, 3))
    >>> model = ChurnClassifier().fit(x, x[:, 0] > 2)
    >>> model.predict_proba(x[:2]).shape, float(model.score(x, x[:, 0] > 2)) > 0.9
    ((2, 2), True)

    """

    def __init__(self, horizon_days: int = 90, random_state: int = 7) -> None:
        self.horizon_days = horizon_days
        self.random_state = random_state

    def fit(self, X: Any, y: Any, dates: Any = None) -> Self:  # noqa: N803
        """Fit on features and labels, and the date of each row where they are known.

        Raises `ValueError` unless there are two classes; with dates also with fewer than 20 rows of either.
        """
        x, y = validate_data(self, X, y, ensure_all_finite="allow-nan", dtype=np.float64)
        check_classification_targets(y)
        self.classes_, label = np.unique(y, return_inverse=True)
        if len(self.classes_) != 2:
            found = len(self.classes_)
            raise ValueError(
                f"Only binary classification is supported. y has {found} class" + ("es" if found != 1 else "")
            )
        churned = label == 1
        self.dated_ = None if dates is None else self._fit_dated(x, churned, dates)
        if dates is None:
            self._fit_members(x, churned)
        return self

    def _fit_members(self, x: Floats, churned: Flags) -> None:
        names = numbered(x.shape[1])
        self.linear_ = fit_logistic(x, churned)
        self.trees_ = fit_boosted(x, churned.astype(np.float64), names, _MIDDLE, self.random_state, objective="binary")
        self.intercept_ = 0.0
        self.intercept_ = intercept_for_rate(self._odds(x), float(churned.mean()))

    def _fit_dated(self, x: Floats, churned: Flags, dates: Any) -> tuple[DesignMatrix, ChurnModel]:
        rows = DatedRows.of(
            x, with_names(self, x.shape[1]), dates, self.horizon_days, outcome_churned=churned.astype(np.float64)
        )
        label = ChurnLabel.of(Churn(), Outcome(horizon_days=self.horizon_days))
        names = rows.design.all_names
        try:
            model, _ = fit_churn(
                rows.panel, rows.inputs, names, label, ChurnLearners(), rows.context, self.random_state
            )
        except DataError as error:
            raise ValueError(str(error)) from error
        return rows.design, model

    def _odds(self, x: Floats) -> Floats:
        return _WEIGHTS[0] * self.linear_.decision(x) + _WEIGHTS[1] * log_odds(self.trees_.predict(x)) + self.intercept_

    def predict_proba(self, X: Any) -> Floats:  # noqa: N803
        """Return the probability of each class, shape (rows, 2), in the order of `classes_`."""
        check_is_fitted(self)
        x = validate_data(self, X, reset=False, ensure_all_finite="allow-nan", dtype=np.float64)
        if self.dated_ is None:
            risk = expit(self._odds(x))
        else:
            design, model = self.dated_
            risk = model.predict(design.matrix(frame_of(x, design.names)))
        return np.column_stack([1 - risk, risk])

    def predict(self, X: Any) -> Any:  # noqa: N803
        """Return the likelier class of each row."""
        likelier = (self.predict_proba(X)[:, 1] > 0.5).astype(np.int64)
        return self.classes_[likelier]

    def __sklearn_tags__(self) -> Any:
        """Return the tags: two classes, and NaN for what is missing."""
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        tags.input_tags.allow_nan = True
        return tags
