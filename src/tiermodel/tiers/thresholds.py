"""A cascade of readable conditions: the first rule that holds decides; shares become numbers at fit."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tiermodel.features.condition import Condition
from tiermodel.tiers.cuts import band_edges, share_cuts
from tiermodel.tiers.kinds import ThresholdScheme
from tiermodel.tiers.parts import BaseScheme, When

__all__ = ["assign", "condition_of", "conditions", "fit", "fit_condition", "holds", "levels_of_rules", "span"]

Levels = NDArray[np.int64]
Flags = NDArray[np.bool_]


def fit(scheme: ThresholdScheme, frame: pd.DataFrame) -> dict[str, Any]:
    """Turn every condition into bounds on one snapshot of buyers."""
    return {"rules": [[fit_condition(scheme, when, frame) for when in rule.when] for rule in scheme.rules]}


def fit_condition(scheme: BaseScheme, when: When, frame: pd.DataFrame) -> dict[str, Any]:
    """Give a condition as plain data: the bound, which side it lies on, and the bounds that a band makes of it."""
    kind, number = when.bound
    values = frame[when.feature].to_numpy(dtype=np.float64)
    if kind in {"top", "bottom"}:
        sign = 1.0 if kind == "top" else -1.0
        known = sign * values[~np.isnan(values)]
        shares = {"out": 1 - number, "in": number}
        number = sign * (share_cuts(shares, known)[0] if known.size else math.inf)
    return {
        "feature": when.feature,
        "side": {"at_least": "at_least", "top": "at_least", "above": "above", "below": "below"}.get(kind, "at_most"),
        "bound": number,
        "missing": when.missing,
        **{side: pairs[0] for side, pairs in band_edges(scheme, [number], values).items()},
    }


def holds(condition: dict[str, Any], x: NDArray[np.float64], bound: float | None = None) -> Flags:
    """Tell where a condition holds, at its own bound or another."""
    bound = condition["bound"] if bound is None else bound
    compare = {"at_least": np.greater_equal, "above": np.greater, "below": np.less, "at_most": np.less_equal}
    return np.where(np.isnan(x), condition["missing"], compare[condition["side"]](x, bound))


def assign(_scheme: ThresholdScheme, state: dict[str, Any], frame: pd.DataFrame) -> tuple[Levels, Levels]:
    """Give every buyer's level among `bought_levels`, and the rule that decided: the first that holds."""
    rule = np.full(len(frame), len(state["rules"]) - 1)
    columns: dict[str, NDArray[np.float64]] = {}
    for n in reversed(range(len(state["rules"]))):
        met = np.ones(len(frame), dtype=np.bool_)
        for c in state["rules"][n]:
            x = columns.setdefault(c["feature"], frame[c["feature"]].to_numpy(dtype=np.float64))
            met &= holds(c, x)
        rule[met] = n
    return levels_of_rules(_scheme, state)[rule], rule


def span(scheme: ThresholdScheme, state: dict[str, Any], frame: pd.DataFrame) -> tuple[Levels, Levels]:
    """Give the lowest level within the band for moving up, and the highest within the band for moving down."""
    return _reach(scheme, state, frame, "up")[0], _reach(scheme, state, frame, "down")[1]


def _reach(scheme: ThresholdScheme, state: dict[str, Any], frame: pd.DataFrame, side: str) -> tuple[Levels, Levels]:
    """Give the lowest and highest level of the rules that may be the first to hold, were bounds within the band."""
    open_still = np.ones(len(frame), dtype=np.bool_)
    levels = levels_of_rules(scheme, state)
    lowest, highest = np.full(len(frame), levels.max()), np.zeros(len(frame), dtype=np.int64)
    for n, rule in enumerate(state["rules"]):
        surely, maybe = open_still.copy(), open_still.copy()
        for c in rule:
            x = frame[c["feature"]].to_numpy(dtype=np.float64)
            either = [holds(c, x, bound) for bound in c[side]]
            surely &= either[0] & either[1]
            maybe &= either[0] | either[1]
        lowest = np.where(maybe, np.minimum(lowest, levels[n]), lowest)
        highest = np.where(maybe, np.maximum(highest, levels[n]), highest)
        open_still &= ~surely
    return lowest, highest


def levels_of_rules(scheme: ThresholdScheme, _state: dict[str, Any]) -> Levels:
    """Give the level, among `bought_levels`, of every rule."""
    return np.array([scheme.bought_levels.index(rule.level) for rule in scheme.rules])


def conditions(_scheme: ThresholdScheme, state: dict[str, Any]) -> list[list[Condition]]:
    """List each rule's conditions; those of the rules before it must not all hold."""
    return [[condition_of(c) for c in rule] for rule in state["rules"]]


def condition_of(c: dict[str, Any]) -> Condition:
    """Give a fitted condition as bounds."""
    low = c["bound"] if c["side"] in {"at_least", "above"} else -math.inf
    high = c["bound"] if c["side"] in {"at_most", "below"} else math.inf
    return Condition(c["feature"], low, high, c["missing"], closed_low=c["side"] in {"at_least", "below"})
