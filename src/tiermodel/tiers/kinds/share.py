"""The kind `share`: levels hold shares of customers or of cumulated value, as in the pyramid, ABC and 80/20."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Literal, Self

import numpy as np
import pandas as pd
from pydantic import model_validator

from tiermodel.arrays import Floats, Ints
from tiermodel.features.condition import Condition
from tiermodel.tiers.kinds.cut_points import band_edges, level_conditions, level_of, share_cuts, sure_levels_of
from tiermodel.tiers.kinds.sql_terms import quoted, steps
from tiermodel.tiers.schemes.conditions import Share
from tiermodel.tiers.schemes.protocol import FitContext, SqlLevel, Thresholds
from tiermodel.tiers.schemes.schema import BaseScheme, check_shares

__all__ = [
    "ShareScheme",
    "assign",
    "conditions",
    "fit",
    "levels_of_rules",
    "ranking",
    "sql",
    "sure_levels",
    "thresholds",
]


class ShareScheme(BaseScheme):
    """Levels that each hold a share of the customers, or of the cumulated value, ranked by one feature."""

    monotone: ClassVar[bool] = True
    kind: Literal["share"]
    feature: str
    of: Literal["customers", "value"] = "customers"
    shares: dict[str, Share]

    @model_validator(mode="after")
    def _shares_add_up(self) -> Self:
        check_shares(self.shares, self)
        return self

    @property
    def ranks_customers(self) -> bool:
        """Whether the kind ranks customers by a number of its own: by the feature."""
        return True

    def ranked(self) -> Iterable[str]:
        """Return the features without which the scheme cannot be fitted."""
        return [self.feature]


def fit(scheme: ShareScheme, frame: pd.DataFrame, _context: FitContext) -> dict[str, Any]:
    """Return the value at which each level starts, fitted on one snapshot of buyers."""
    values = frame[scheme.feature].to_numpy(dtype=np.float64)
    cuts = share_cuts(scheme.ordered(scheme.shares), values, of_value=scheme.of == "value", capacity=scheme.capacities)
    return {"cuts": cuts, "may_miss": bool(np.isnan(values).any()), **band_edges(scheme, cuts, values)}


def assign(scheme: ShareScheme, state: dict[str, Any], frame: pd.DataFrame) -> tuple[Ints, Ints]:
    """Return every buyer's level among `bought_levels`, the lowest without a value, and the rule: the level itself."""
    level = level_of(state["cuts"], frame[scheme.feature].to_numpy(dtype=np.float64))
    return level, level


def sure_levels(scheme: ShareScheme, state: dict[str, Any], frame: pd.DataFrame) -> tuple[Ints, Ints]:
    """Return the lowest level within the band for moving up, and the highest within the band for moving down."""
    return sure_levels_of(state, frame[scheme.feature].to_numpy(dtype=np.float64))


def ranking(scheme: ShareScheme, _state: dict[str, Any], frame: pd.DataFrame) -> Floats:
    """Return the feature."""
    return frame[scheme.feature].to_numpy(dtype=np.float64)


def levels_of_rules(scheme: ShareScheme, _state: dict[str, Any]) -> Ints:
    """Return the level of every rule: its own number."""
    return np.arange(len(scheme.bought_levels))


def conditions(scheme: ShareScheme, state: dict[str, Any]) -> list[list[Condition]]:
    """Return every rule's condition: bounds on the feature."""
    return level_conditions(scheme.feature, state["cuts"], may_miss=state["may_miss"])


def thresholds(scheme: ShareScheme, state: dict[str, Any]) -> Thresholds:
    """Return the cut points of the feature."""
    return [(scheme.feature, state["cuts"])]


def sql(scheme: ShareScheme, state: dict[str, Any]) -> SqlLevel:
    """Return the level as SQL."""
    return SqlLevel(steps(quoted(scheme.feature), ">=", state["cuts"], scheme.bought_numbers), {scheme.feature})
