"""Write a fitted scheme as one SQL statement over the feature table; executed, it equals `FittedScheme.assign`.

Traps this avoids: a threshold is compared in double precision, as here; NaN becomes NULL first, since databases sort it
above every number; a comparison with NULL falls to ELSE, which is where the tree sends it unless it says otherwise.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np

from tiermodel.errors import ProjectError
from tiermodel.tiers.fitted_scheme import FittedScheme
from tiermodel.tiers.kinds.index_points import STEPS
from tiermodel.tiers.kinds.rfm_matrix import index_of
from tiermodel.tiers.rule_text import surrogate_line
from tiermodel.tiers.schemes.schema import Index, Score
from tiermodel.tiers.schemes.scheme_kinds import (
    CompositeScheme,
    LearnedScheme,
    MatrixScheme,
    RfmScheme,
    ShareScheme,
    ThresholdScheme,
)

__all__ = ["DIALECTS", "Dialect", "scheme_sql"]

Dialect = Literal["duckdb", "postgres", "spark"]
DIALECTS: tuple[str, ...] = get_args(Dialect)
_MADE = "score_of_the_scheme"  # the points of a composite, or the number of a cell
_SIGNS = {"at_least": ">=", "above": ">", "below": "<", "at_most": "<="}


def scheme_sql(fitted: FittedScheme, dialect: str = "duckdb", table: str = "features") -> str:
    """Give one SELECT with `customer_id`, `as_of`, `tier` (0 lowest) and `tier_code` for every row of a feature table.

    Before stability and overrides, which need the ledger. Where no rule can say what a scheme does, the statement is
    that of the tree which imitates it, and its first line says so. Raises `ProjectError` for an unknown dialect.
    """
    import sqlglot  # noqa: PLC0415  # needed here alone

    if dialect not in DIALECTS:
        raise ProjectError(f"dialect {dialect!r}: rules are written for {', '.join(DIALECTS)}")
    note = f"-- {surrogate_line(fitted.state, 'en')}\n" if "surrogate" in fitted.state else ""
    fitted = fitted.readable
    known: set[str] = set()
    level, made = _level(fitted, known)
    known |= {"days_since_last"}
    for veto, conditions in zip(fitted.scheme.veto, fitted.state.get("veto", []), strict=True):
        met = " AND ".join(_condition(c, known) for c in conditions)
        highest = fitted.scheme.codes.index(veto.highest)
        level = f"CASE WHEN {met} THEN LEAST({level}, {highest}) ELSE {level} END"
    columns = ", ".join(
        f"NULLIF(CAST({_name(n)} AS DOUBLE), CAST('NaN' AS DOUBLE)) AS {_name(n)}" for n in sorted(known)
    )
    source = ".".join(map(_name, table.split(".")))
    scored = f", scored AS (SELECT *, {made} AS {_MADE} FROM known)" if made else ""
    nothing = f"WHEN days_since_last IS NULL THEN {fitted.scheme.no_purchase_level}"
    codes = " ".join(f"WHEN {n} THEN '{code}'" for n, code in enumerate(fitted.scheme.codes))
    statement = (
        f"WITH known AS (SELECT customer_id, as_of, {columns} FROM {source}){scored}, "
        f"graded AS (SELECT customer_id, as_of, CASE {nothing} ELSE {level} END AS tier "
        f"FROM {'scored' if made else 'known'}) "
        f"SELECT customer_id, as_of, tier, CASE tier {codes} END AS tier_code FROM graded"
    )
    return note + str(sqlglot.transpile(statement, read="duckdb", write=dialect, pretty=True, identify=False)[0])


def _level(fitted: FittedScheme, known: set[str]) -> tuple[str, str]:
    """Write the level, as a number among all levels, of a customer who bought, and what it is read from, if made."""
    scheme, state = fitted.scheme, fitted.state
    numbers = [scheme.codes.index(code) for code in scheme.bought_levels]
    if isinstance(scheme, ShareScheme):
        known.add(scheme.feature)
        return _steps(_name(scheme.feature), ">=", state["cuts"], numbers), ""
    if isinstance(scheme, CompositeScheme):
        return _steps(_MADE, ">=", state["level_cuts"], numbers), _points(scheme, state, known)
    levels = fitted.kind.levels_of_rules(scheme, state)
    if isinstance(scheme, ThresholdScheme):
        cases = [
            f"WHEN {' AND '.join(_condition(c, known) for c in rule)} THEN {numbers[levels[n]]}"
            for n, rule in enumerate(state["rules"][:-1])
        ]
        return f"CASE {' '.join(cases)} ELSE {numbers[levels[-1]]} END", ""
    if isinstance(scheme, LearnedScheme):
        known |= {name for name in state["tree"]["feature"] if name is not None}
        return _tree(state["tree"], [numbers[k] for k in levels]), ""
    return _grid(scheme, state, [numbers[k] for k in levels], known)


def _grid(
    scheme: RfmScheme | MatrixScheme, state: dict[str, Any], levels: Sequence[int], known: set[str]
) -> tuple[str, str]:
    """Write the level of a combination of scores: the scores as one number, looked up."""
    axes = scheme.grid
    number = "0"
    for name, axis in axes.items():
        index = index_of(axis)
        if index is None:
            known.add(axis.feature)
            x = _name(axis.feature)
        else:
            x = _points(index, state["points"][name], known)
        number = f"({number}) * {axis.bins} + {_score(axis, state['cuts'][name], x)}"
    cases = []
    for level in sorted(set(levels))[:-1]:
        listed = ", ".join(str(n) for n, other in enumerate(levels) if other == level)
        cases.append(f"WHEN {_MADE} IN ({listed}) THEN {level}")
    return (f"CASE {' '.join(cases)} ELSE {max(levels)} END" if cases else str(max(levels))), number


def _score(axis: Score, cuts: Sequence[float], x: str) -> str:
    """Write a score less one; the lowest without a value."""
    ranks = list(range(axis.bins)) if axis.better == "higher" else list(reversed(range(axis.bins)))
    return f"CASE WHEN {x} IS NULL THEN 0 ELSE {_steps(x, '>', cuts, ranks)} END"


def _points(index: Index, state: dict[str, Any], known: set[str]) -> str:
    """Write the points of an index: whole numbers until the last division."""
    instead = {"drop": "NULL", "worst": "0", "middle": str(STEPS // 2)}[index.missing]
    total, weight = [], []
    for d, cuts, w in zip(index.dimensions, state["cuts"], state["weights"], strict=True):
        known.add(d.feature)
        x = _name(d.feature)
        up = d.better == "higher"
        points = list(range(STEPS + 1)) if up else list(reversed(range(STEPS + 1)))
        scored = f"CASE WHEN {x} IS NULL THEN {instead} ELSE {_steps(x, '>' if up else '>=', cuts, points)} END"
        total.append(f"COALESCE({w} * {scored}, 0)")
        weight.append(f"CASE WHEN {x} IS NULL THEN 0 ELSE {w} END" if index.missing == "drop" else str(w))
    return f"(CAST({' + '.join(total)} AS DOUBLE) / NULLIF(CAST({' + '.join(weight)} AS DOUBLE), CAST(0 AS DOUBLE)))"


def _steps(x: str, sign: str, cuts: Sequence[float], results: Sequence[int]) -> str:
    """Write a staircase from the top: the last result beyond the last cut point, the first where no cut is passed."""
    cases = []
    for n in reversed(range(len(cuts))):
        if n + 1 < len(cuts) and cuts[n] == cuts[n + 1]:
            continue  # beyond an equal cut point is beyond both
        cases.append(f"WHEN {x} {sign} {_number(cuts[n])} THEN {results[n + 1]}")
    return f"CASE {' '.join(cases)} ELSE {results[0]} END"


def _tree(tree: dict[str, list[Any]], levels: Sequence[int]) -> str:
    leaves = itertools.count()
    leaf = {n: next(leaves) for n, name in enumerate(tree["feature"]) if name is None}

    def branch(n: int) -> str:
        name = tree["feature"][n]
        if name is None:
            return str(levels[leaf[n]])
        x = _name(name)
        left = f"{x} <= {_number(tree['threshold'][n])}"
        if tree["missing_left"][n]:
            left = f"({left} OR {x} IS NULL)"
        return f"CASE WHEN {left} THEN {branch(tree['left'][n])} ELSE {branch(tree['right'][n])} END"

    return branch(0)


def _condition(c: dict[str, Any], known: set[str]) -> str:
    known.add(c["feature"])
    x = _name(c["feature"])
    met = f"{x} {_SIGNS[c['side']]} {_number(c['bound'])}"
    return f"({met} OR {x} IS NULL)" if c["missing"] else f"({x} IS NOT NULL AND {met})"


def _number(value: float) -> str:
    """Write a double that every dialect reads as that double: with an exponent it is no DECIMAL."""
    if not np.isfinite(value):
        return f"CAST('{'-' if value < 0 else ''}Infinity' AS DOUBLE)"
    text = repr(float(value))
    return text if "e" in text else f"{text}e0"


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
