"""Ordered tiers as a classifier: the ordinal trees of `tiermodel.models.future_tier` under scikit-learn's contract."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from tiermodel.arrays import Floats
from tiermodel.models.future_tier import fit_levels
from tiermodel.sklearn.panels import numbered

__all__ = ["TierClassifier"]


class TierClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """The tier of a customer, from the features of snapshots: one boosted model of P(tier above k) for each k.

    Labels are ordered as they sort: the first is the lowest tier. Missing features may be NaN.

    Parameters
    ----------
    random_state
        The seed of the trees.

    Attributes
    ----------
    classes_
        The labels, the lowest tier first.

    Examples
    --------
    >>> x = np.random.default_rng(0).gamma(2.0, size=(300, 2))
    >>> model = TierClassifier().fit(x, np.digitize(x[:, 0], [1.5, 3.0]))
    >>> model.classes_.tolist(), model.predict([[0.2, 1.0], [9.0, 1.0]]).tolist()
    ([0, 1, 2], [0, 2])

    """

    def __init__(self, random_state: int = 7) -> None:
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> Self:  # noqa: N803
        """Fit on features and tiers; `ValueError` where there is one tier only."""
        x, y = validate_data(self, X, y, ensure_all_finite="allow-nan", dtype=np.float64)
        check_classification_targets(y)
        self.classes_, level = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"tiers need two classes or more to learn from, y has one class: {self.classes_[0]!r}")
        names = numbered(x.shape[1])
        self.model_ = fit_levels(x, level.astype(np.int64), names, len(self.classes_), self.random_state)
        return self

    def predict_proba(self, X: Any) -> Floats:  # noqa: N803
        """Return P(tier), shape (rows, tiers), in the order of `classes_`; rows sum to one."""
        check_is_fitted(self)
        x = validate_data(self, X, reset=False, ensure_all_finite="allow-nan", dtype=np.float64)
        return self.model_.predict(x)

    def predict(self, X: Any) -> Any:  # noqa: N803
        """Return the likeliest tier of each row."""
        likeliest = self.predict_proba(X).argmax(axis=1)
        return self.classes_[likeliest]

    def __sklearn_tags__(self) -> Any:
        """Return the tags: NaN for what is missing."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags
