"""A transformer from a frame of transactions to the features of its customers as of a date."""

from __future__ import annotations

from datetime import date
from typing import Any, Self

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from tiermodel.config.project import Project
from tiermodel.engines.dispatch import open_history
from tiermodel.features.dates import one_date
from tiermodel.features.frame import feature_names
from tiermodel.features.panel import build_panel

__all__ = ["SnapshotTransformer"]


class SnapshotTransformer(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Features of each customer as of a date, from a frame of transactions: one row for each customer known then.

    Rows of the date and later are not read, so nothing leaks. The values are those that `tiermodel features` writes.
    Many rows become one, so labels are joined to the result by its index, the customer.

    Parameters
    ----------
    project
        The project that maps the frame's columns and chooses the features.
    as_of
        The first day that is not known: a date, an ISO date as text, or `latest`, the day after the last row that
        `fit` saw.

    Attributes
    ----------
    as_of_
        The date.
    feature_names_out_
        The names of the features.

    Examples
    --------
    >>> columns = {"customer_id": "id", "time": "day", "amount": "amount"}
    >>> project = Project.model_validate({"version": 1, "name": "shop", "data": {"transactions": {"columns": columns}}})
    >>> days = ["2024-01-01", "2024-03-01", "2024-03-05"]
    >>> sales = pd.DataFrame({"id": ["a", "a", "b"], "day": days, "amount": [5, 7, 2]})
    >>> found = SnapshotTransformer(project, "2024-03-02").fit_transform(sales)
    >>> found["net_amount_total"].to_dict()
    {'a': 12.0}

    """

    def __init__(self, project: Project | None = None, as_of: date | str = "latest") -> None:
        self.project = project
        self.as_of = as_of

    def fit(self, X: pd.DataFrame, y: Any = None) -> Self:  # noqa: ARG002, N803
        """Read the rows once, so that `latest` and the features are fixed."""
        history = open_history(self._checked(X), transactions=X)
        self.as_of_ = one_date(self.as_of, history)
        panel = build_panel(self._checked(X), [self.as_of_], history=history)
        self.feature_names_out_ = np.array(feature_names(panel), dtype=object)
        self.n_features_in_ = X.shape[1]
        return self

    def transform(self, X: pd.DataFrame) -> pd.DataFrame:  # noqa: N803
        """Return the features as float64, one row for each customer with a row before the date, sorted by customer."""
        check_is_fitted(self)
        project = self._checked(X)
        panel = build_panel(project, [self.as_of_], history=open_history(project, transactions=X))
        return panel.set_index("customer_id")[list(self.feature_names_out_)]

    def get_feature_names_out(self, input_features: Any = None) -> Any:  # noqa: ARG002
        """Return the names of the features."""
        check_is_fitted(self)
        return self.feature_names_out_

    def _checked(self, x: Any) -> Project:
        if not isinstance(self.project, Project):
            raise TypeError(
                f"expected a Project, got {type(self.project).__name__}; load it: load_project('shop.yaml')"
            )
        if not isinstance(x, pd.DataFrame):
            raise TypeError(f"expected a DataFrame of transactions, got {type(x).__name__}; pass pd.DataFrame(rows)")
        return self.project

    def __sklearn_tags__(self) -> Any:
        """Return the tags: the input is a frame of texts, dates and numbers, and its rows are no samples."""
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.no_validation = True
        return tags
