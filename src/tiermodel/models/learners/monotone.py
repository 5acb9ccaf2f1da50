"""Monotone constraints: inputs in which, all else equal, predictions may only rise, or only fall."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from tiermodel.config.learners import Trees

__all__ = ["EXPECTED_SIGN", "monotone_constraints"]


EXPECTED_SIGN: Mapping[str, int] = {
    "days_since_last": -1,
    "expected_p_zero": -1,
    "expected_purchases": 1,
    "expected_spend": 1,
    "pareto_p_zero": -1,
}
"""1 where a larger input means more purchases, -1 where it means fewer; amounts of one window are too noisy."""


def monotone_constraints(trees: Trees, names: Sequence[str], target: Literal["churn", "value"]) -> dict[str, Any]:
    """Return LightGBM's monotone constraints on inputs of these names, {} where the project does not want them.

    >>> monotone_constraints(Trees(monotone=True), ["days_since_last", "discount_share"], "churn")
    {'monotone_constraints': [1, 0]}
    """
    if not trees.monotone:
        return {}
    way = -1 if target == "churn" else 1
    return {"monotone_constraints": [way * EXPECTED_SIGN.get(name, 0) for name in names]}
