"""The settings of a project's learners; `tiermodel tune` searches for better ones than the defaults."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tiermodel.config.data import Section

__all__ = ["ChurnLearners", "Models", "Trees", "ValueLearners"]

_Share = Annotated[float, Field(gt=0, le=1)]


class Trees(Section):
    """LightGBM's parameters, by its own names; those that are not set follow the number of training rows.

    `monotone` constrains the prediction to only rise (or only fall) with the few inputs whose sign is known.
    """

    learning_rate: _Share | None = None
    num_leaves: Annotated[int, Field(strict=True, ge=2, le=1024)] | None = None
    min_data_in_leaf: Annotated[int, Field(strict=True, ge=1, le=1_000_000)] | None = None
    feature_fraction: _Share = 0.4
    lambda_l2: Annotated[float, Field(ge=0, le=1e6)] = 10.0
    monotone: Annotated[bool, Field(strict=True)] = False


class ChurnLearners(Section):
    """The learners of churn risk; `logistic_c` is scikit-learn's C, the inverse of the penalty."""

    trees: Trees = Trees()
    logistic_c: Annotated[float, Field(gt=0, le=1e6)] = 0.02


class ValueLearners(Section):
    """The learners of value; `tweedie_power` is LightGBM's variance power, between Poisson (1) and gamma (2)."""

    trees: Trees = Trees()
    ridge_alpha: Annotated[float, Field(gt=0, le=1e9)] = 300.0
    tweedie_power: Annotated[float, Field(gt=1, lt=2)] = 1.2


class Models(Section):
    """The learners of each target."""

    churn: ChurnLearners = ChurnLearners()
    value: ValueLearners = ValueLearners()
