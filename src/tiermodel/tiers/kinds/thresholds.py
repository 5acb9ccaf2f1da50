"""The kind `thresholds`: a cascade of readable conditions, the first rule that holds decides; shares become numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Self

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from tiermodel.arrays import Flags, Floats, Ints
from tiermodel.features.condition import Condition
from tiermodel.features.frame import texts_of
from tiermodel.tables.source import literal
from tiermodel.tiers.kinds.cut_points import band_edges, share_cuts
from tiermodel.tiers.kinds.sql_terms import number, quoted
from tiermodel.tiers.schemes.conditions import Data, When
from tiermodel.tiers.schemes.protocol import FitContext, SqlLevel, Thresholds
from tiermodel.tiers.schemes.schema import BaseScheme

__all__ = [
    "Rule",
    "ThresholdScheme",
    "all_hold",
    "assign",
    "bounds_of",
    "condition_of",
    "condition_sql",
    "conditions",
    "fit",
    "fit_condition",
    "holds",
    "levels_of_rules",
    "sql",
    "sure_levels",
    "thresholds",
]


_SIGNS = {"at_least": ">=", "above": ">", "below": "<", "at_most": "<="}


class Rule(Data):
    """A rule that gives customers who meet every condition a level; without conditions, all other customers."""

    level: str
    when: tuple[When, ...] = ()
    optional: bool = False

    def takes_all_of(self, later: Rule) -> bool:
        """Return whether customers who meet a later rule meet this one, even without its optional conditions."""
        return not any(w.optional for w in self.when) and all(
            any(theirs.implies(mine) for theirs in later.when) for mine in self.when
        )


class ThresholdScheme(BaseScheme):
    """A cascade of readable conditions, highest level first; the first rule that holds decides."""

    kind: Literal["thresholds"]
    rules: Annotated[tuple[Rule, ...], Field(min_length=2, max_length=1000)]

    @model_validator(mode="after")
    def _rules_are_ordered_exclusive_complete(self) -> Self:
        for n, rule in enumerate(self.rules, 1):
            self._check_order(n, rule)
            self._check_met(n, rule)
        if self.rules[-1].when:
            raise ValueError("rules: the last rule has conditions; whoever meets none needs one without")
        unreachable = [code for code in self.bought_levels if code not in {rule.level for rule in self.rules}]
        if unreachable:
            raise ValueError(f"rules: no rule goes to {unreachable[0]!r}")
        return self

    def _check_order(self, n: int, rule: Rule) -> None:
        if rule.level not in self.bought_levels:
            raise ValueError(f"rules: rule {n} goes to {rule.level!r}, which is not a level of customers who bought")
        if not rule.when and n < len(self.rules):
            raise ValueError(f"rules: rule {n} ({rule.level}) takes everybody, so the rules after it are never met")
        if n > 1 and self.codes.index(rule.level) > self.codes.index(self.rules[n - 2].level):
            above = self.rules[n - 2].level
            raise ValueError(f"rules: rule {n} ({rule.level}) stands below {above}; write the highest level first")

    def _check_met(self, n: int, rule: Rule) -> None:
        for m, earlier in enumerate(self.rules[: n - 1], 1):
            if earlier.takes_all_of(rule):
                raise ValueError(f"rules: rule {n} ({rule.level}) is never met: rule {m} ({earlier.level}) takes all")

    def ranked(self) -> Iterable[str]:
        """List the features that the scheme cannot do without."""
        return dict.fromkeys(w.feature for rule in self.rules for w in rule.when)

    def given_conditions(self) -> Iterable[When]:
        """Return every condition of the scheme."""
        yield from (when for rule in self.rules for when in rule.when)
        yield from super().given_conditions()


def fit(scheme: ThresholdScheme, frame: pd.DataFrame, _context: FitContext) -> dict[str, Any]:
    """Return every rule's conditions with bounds fitted on one snapshot of buyers."""
    return {"rules": [[fit_condition(scheme, when, frame) for when in rule.when] for rule in scheme.rules]}


def fit_condition(scheme: BaseScheme, when: When, frame: pd.DataFrame) -> dict[str, Any]:
    """Return a condition as plain data: the bound, its side, and the band around it under a stability rule.

    Values of a text attribute have no band.
    """
    if when.text is not None:
        texts = {"side": when.text.side, "values": list(when.text.listed)}
        return {"feature": when.feature, "missing": when.missing, **texts}
    kind, number = when.bound
    values = frame[when.feature].to_numpy(dtype=np.float64)
    if kind in {"top", "bottom"}:
        sign = 1.0 if kind == "top" else -1.0
        known = sign * values[~np.isnan(values)]
        shares = {"out": 1 - number, "in": number}
        number = sign * (share_cuts(shares, known)[0] if known.size else math.inf)
    side = {"at_least": "at_least", "top": "at_least", "above": "above", "below": "below"}.get(kind, "at_most")
    bands = band_edges(scheme, [number], values, "left" if side in {"at_least", "below"} else "right")
    return {
        "feature": when.feature,
        "side": side,
        "bound": number,
        "missing": when.missing,
        **{name: [number, number] if when.sharp else pairs[0] for name, pairs in bands.items()},
    }


def holds(condition: Mapping[str, Any], x: Floats, bound: float | None = None) -> Flags:
    """Return where a condition holds, at its own bound or at another."""
    bound = condition["bound"] if bound is None else bound
    compare = {"at_least": np.greater_equal, "above": np.greater, "below": np.less, "at_most": np.less_equal}
    return np.where(np.isnan(x), condition["missing"], compare[condition["side"]](x, bound))


def _met(condition: Mapping[str, Any], frame: pd.DataFrame, bound: float | None = None) -> Flags:
    """Return the rows that meet a condition, at its own bound or at another; values of text have no bound."""
    name = condition["feature"]
    if "values" not in condition:
        return holds(condition, frame[name].to_numpy(dtype=np.float64), bound)
    texts = texts_of(frame, name)
    within = texts.isin(condition["values"]).to_numpy() == (condition["side"] == "is")
    return np.where(texts.isna().to_numpy(), condition["missing"], within)


def all_hold(conditions: Iterable[dict[str, Any]], frame: pd.DataFrame) -> Flags:
    """Return the rows that meet every condition; all rows without conditions."""
    met = np.ones(len(frame), dtype=np.bool_)
    for c in conditions:
        met &= _met(c, frame)
    return met


def assign(_scheme: ThresholdScheme, state: dict[str, Any], frame: pd.DataFrame) -> tuple[Ints, Ints]:
    """Return every buyer's level among `bought_levels`, and the rule that decided: the first that holds."""
    rule = np.full(len(frame), len(state["rules"]) - 1)
    for n in reversed(range(len(state["rules"]))):
        rule[all_hold(state["rules"][n], frame)] = n
    return levels_of_rules(_scheme, state)[rule], rule


def sure_levels(scheme: ThresholdScheme, state: dict[str, Any], frame: pd.DataFrame) -> tuple[Ints, Ints]:
    """Return the lowest level within the band for moving up, and the highest within the band for moving down."""
    return _reach(scheme, state, frame, "up")[0], _reach(scheme, state, frame, "down")[1]


def _reach(scheme: ThresholdScheme, state: dict[str, Any], frame: pd.DataFrame, side: str) -> tuple[Ints, Ints]:
    """Return the lowest and highest level of the rules that can be the first to hold, for bounds within the band."""
    open_still = np.ones(len(frame), dtype=np.bool_)
    levels = levels_of_rules(scheme, state)
    lowest, highest = np.full(len(frame), levels.max()), np.zeros(len(frame), dtype=np.int64)
    for n, rule in enumerate(state["rules"]):
        surely, maybe = open_still.copy(), open_still.copy()
        for c in rule:
            either = [_met(c, frame, bound) for bound in c.get(side, (None, None))]
            surely &= either[0] & either[1]
            maybe &= either[0] | either[1]
        lowest = np.where(maybe, np.minimum(lowest, levels[n]), lowest)
        highest = np.where(maybe, np.maximum(highest, levels[n]), highest)
        open_still &= ~surely
    return lowest, highest


def levels_of_rules(scheme: ThresholdScheme, _state: dict[str, Any]) -> Ints:
    """Return the level, among `bought_levels`, of every rule."""
    return np.array([scheme.bought_levels.index(rule.level) for rule in scheme.rules])


def conditions(_scheme: ThresholdScheme, state: dict[str, Any]) -> list[list[Condition]]:
    """Return every rule's conditions; its customers do not meet all conditions of any earlier rule."""
    return [[condition_of(c) for c in rule] for rule in state["rules"]]


def condition_of(c: dict[str, Any]) -> Condition:
    """Return a fitted condition as two bounds, or as values of text."""
    if "values" in c:
        return Condition(c["feature"], missing=c["missing"], values=tuple(c["values"]), excluded=c["side"] == "is_not")
    low = c["bound"] if c["side"] in {"at_least", "above"} else -math.inf
    high = c["bound"] if c["side"] in {"at_most", "below"} else math.inf
    return Condition(c["feature"], low, high, c["missing"], closed_low=c["side"] in {"at_least", "below"})


def bounds_of(conditions: Iterable[Mapping[str, Any]]) -> Thresholds:
    """Return the features of fitted conditions with their bounds; text attributes have none."""
    return [(c["feature"], [c["bound"]]) for c in conditions if "values" not in c]


def thresholds(_scheme: ThresholdScheme, state: dict[str, Any]) -> Thresholds:
    """Return the bounds of all rules."""
    return bounds_of(c for rule in state["rules"] for c in rule)


def sql(scheme: ThresholdScheme, state: dict[str, Any]) -> SqlLevel:
    """Return the level as SQL: one case for each rule."""
    numbers, levels = scheme.bought_numbers, levels_of_rules(scheme, state)
    first = state["rules"][:-1]
    cases = [
        f"WHEN {' AND '.join(condition_sql(c) for c in rule)} THEN {numbers[levels[n]]}" for n, rule in enumerate(first)
    ]
    known = {c["feature"] for rule in first for c in rule}
    return SqlLevel(f"CASE {' '.join(cases)} ELSE {numbers[levels[-1]]} END", known)


def condition_sql(c: Mapping[str, Any]) -> str:
    """Return a fitted condition as SQL."""
    x = quoted(c["feature"])
    if "values" in c:
        listed = ", ".join(map(literal, c["values"]))
        met = f"{x} {'IN' if c['side'] == 'is' else 'NOT IN'} ({listed})"
        return f"({met} OR {x} IS NULL)" if c["missing"] else f"({x} IS NOT NULL AND {met})"
    met = f"{x} {_SIGNS[c['side']]} {number(c['bound'])}"
    return f"({met} OR {x} IS NULL)" if c["missing"] else f"({x} IS NOT NULL AND {met})"
