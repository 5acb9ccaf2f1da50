"""A fitted scheme as one SQL statement over the feature table; its result equals `FittedScheme.assign`.

Thresholds are compared in double precision, as in Python. NaN becomes NULL first, since databases sort it above every
number. A comparison with NULL falls to ELSE, which is where the tree sends a missing value by default.
"""

from __future__ import annotations

from typing import Literal, get_args

from tiermodel.errors import ProjectError
from tiermodel.tiers.fitted_scheme import FittedScheme
from tiermodel.tiers.kinds.sql_terms import SCORE, quoted
from tiermodel.tiers.kinds.thresholds import condition_sql

__all__ = ["DIALECTS", "Dialect", "scheme_sql"]


Dialect = Literal["duckdb", "postgres", "spark"]
DIALECTS: tuple[str, ...] = get_args(Dialect)


def scheme_sql(fitted: FittedScheme, dialect: str = "duckdb", table: str = "features") -> str:
    """Return a SELECT with `customer_id`, `as_of`, `tier` (0 lowest) and `tier_code` for every row of a feature table.

    The tier is the level before stability, overrides and capacity, which need the ledger. Where no rules can state the
    model, the statement is that of the tree that imitates it, and its first line says so. Raises `ProjectError` for an
    unknown dialect.
    """
    import sqlglot  # noqa: PLC0415  # needed here alone

    if dialect not in DIALECTS:
        raise ProjectError(f"dialect {dialect!r}: rules are written for {', '.join(DIALECTS)}")
    note = f"-- {line}\n" if (line := fitted.surrogate_line("en")) else ""
    fitted = fitted.readable
    level, features, score = fitted.kind.sql(fitted.scheme, fitted.state)
    known = {"days_since_last", *features}
    for veto, conditions in zip(fitted.scheme.veto, fitted.state.get("veto", []), strict=True):
        known |= {c["feature"] for c in conditions}
        met = " AND ".join(condition_sql(c) for c in conditions)
        highest = fitted.scheme.codes.index(veto.highest)
        level = f"CASE WHEN {met} THEN LEAST({level}, {highest}) ELSE {level} END"
    steps = list(fitted.fitted_features.sql()) if fitted.fitted_features is not None else []
    known = known.union(*(reads for _, _, reads in steps)) - {name for name, _, _ in steps}
    columns = ", ".join(
        f"NULLIF(CAST({quoted(n)} AS DOUBLE), CAST('NaN' AS DOUBLE)) AS {quoted(n)}" for n in sorted(known)
    )
    source = ".".join(map(quoted, table.split(".")))
    steps += [(SCORE, score, set())] if score else []
    tables = ["known", *(f"with_{name}" for name, _, _ in steps)]
    # PostgreSQL would put a fitted feature's whole term wherever its name is read, a hundred times in a score
    kept = "MATERIALIZED " if dialect == "postgres" and fitted.fitted_features is not None else ""
    parts = zip(tables[1:], steps, tables[:-1], strict=True)
    added = "".join(f", {new} AS {kept}(SELECT *, {term} AS {name} FROM {old})" for new, (name, term, _), old in parts)
    nothing = f"WHEN days_since_last IS NULL THEN {fitted.scheme.no_purchase_level}"
    codes = " ".join(f"WHEN {n} THEN '{code}'" for n, code in enumerate(fitted.scheme.codes))
    statement = (
        f"WITH known AS (SELECT customer_id, as_of, {columns} FROM {source}){added}, "
        f"graded AS (SELECT customer_id, as_of, CASE {nothing} ELSE {level} END AS tier "
        f"FROM {tables[-1]}) "
        f"SELECT customer_id, as_of, tier, CASE tier {codes} END AS tier_code FROM graded"
    )
    return note + str(sqlglot.transpile(statement, read="duckdb", write=dialect, pretty=True, identify=False)[0])
