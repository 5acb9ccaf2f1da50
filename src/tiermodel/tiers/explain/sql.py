"""A fitted scheme as one SQL statement over the feature table; its result equals `FittedScheme.assign`.

Thresholds are compared in double precision, as in Python. NaN becomes NULL first, since databases sort it above every
number. A comparison with NULL falls to ELSE, which is where the tree sends a missing value by default. MySQL and
MariaDB have no NaN, take numbers with a decimal point for exact decimals, and compare texts without case: there every
number is written as a double, and texts are compared byte by byte.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

from tiermodel.errors import ProjectError
from tiermodel.tables.source import literal
from tiermodel.tiers.fitted_scheme import FittedScheme
from tiermodel.tiers.kinds.sql_terms import SCORE, quoted
from tiermodel.tiers.kinds.thresholds import condition_sql
from tiermodel.tiers.schemes.protocol import SqlLevel

if TYPE_CHECKING:
    from sqlglot import exp

__all__ = ["DIALECTS", "Dialect", "scheme_sql"]


Dialect = Literal["duckdb", "postgres", "spark", "mysql"]
DIALECTS: tuple[str, ...] = get_args(Dialect)


def scheme_sql(fitted: FittedScheme, dialect: str = "duckdb", table: str = "features", language: str = "en") -> str:
    """Return a SELECT with `customer_id`, `as_of`, `tier` (0 lowest) and `tier_code` for every row of a feature table.

    The tier is the level before stability, overrides and capacity, which need the ledger. Where no rules can state the
    model, the statement is that of the tree that imitates it, and its first line says so in the `language`. Raises
    `ProjectError` for an unknown dialect.
    """
    import sqlglot  # noqa: PLC0415  # needed here alone

    if dialect not in DIALECTS:
        raise ProjectError(f"dialect {dialect!r}: rules are written for {', '.join(DIALECTS)}")
    note = f"-- {line}\n" if (line := fitted.surrogate_line(language)) else ""
    fitted = fitted.readable
    level, features, score = _level_by_stratum(fitted)
    texts = set(fitted.scheme.text_features)
    steps = list(fitted.fitted_features.sql()) if fitted.fitted_features is not None else []
    known = {"days_since_last", *features}.union(*(reads for _, _, reads in steps)) - {name for name, _, _ in steps}
    columns = ", ".join(_column(name, name in texts, dialect) for name in sorted(known))
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
    tree = sqlglot.parse_one(statement, read="duckdb")
    if dialect == "mysql":
        _as_mysql_means_it(tree)
    return note + tree.sql(dialect, pretty=True, identify=False)


def _as_mysql_means_it(tree: exp.Expr) -> None:
    """Rewrite terms that MySQL would take otherwise than DuckDB.

    A number with a decimal point is an exact decimal there, so it gets an exponent; LEAST and GREATEST are NULL where
    one of their terms is, so the other follows.
    """
    from sqlglot import exp  # noqa: PLC0415

    for cast in list(tree.find_all(exp.Cast)):
        if cast.is_type("varbinary"):  # so sqlglot reads BINARY, and MySQL casts to no VARBINARY
            cast.set("to", exp.DataType(this=exp.DataType.Type.BINARY))
    for number in list(tree.find_all(exp.Literal)):
        if not number.is_string and "." in number.name and "e" not in number.name.lower():
            number.replace(exp.Literal.number(f"{number.name}e0"))
    for node in reversed(list(tree.find_all(exp.Least, exp.Greatest))):  # the innermost first
        found, *others = node.this, *node.expressions
        for other in others:
            both = type(node)(this=found.copy(), expressions=[other.copy()])
            found = exp.Coalesce(this=both, expressions=[found.copy(), other.copy()])
        node.replace(found)


def _column(name: str, is_text: bool, dialect: str) -> str:
    """Return a column of the feature table as SQL, NULL where a number is NaN or a text is empty."""
    if dialect == "mysql":
        kept = f"NULLIF(CAST({quoted(name)} AS BINARY), '')" if is_text else f"CAST({quoted(name)} AS DOUBLE)"
        return f"{kept} AS {quoted(name)}"
    if is_text:
        return f"NULLIF(CAST({quoted(name)} AS VARCHAR), '') AS {quoted(name)}"
    number = f"CAST({quoted(name)} AS DOUBLE)"
    if dialect == "duckdb":
        # DuckDB 2.0 answers isnan and = 'NaN' by the bounds of a Parquet file's statistics, which leave NaN out
        text = f"CAST({number} AS VARCHAR)"
        return f"CASE WHEN {text} IN ('nan', '-nan') THEN NULL ELSE {number} END AS {quoted(name)}"
    return f"NULLIF({number}, CAST('NaN' AS DOUBLE)) AS {quoted(name)}"


def _level_by_stratum(fitted: FittedScheme) -> SqlLevel:
    """Return the level by the cut points of the customer's stratum, vetoes included."""
    common = _level(fitted.common)
    if fitted.scheme.strata is None:
        return common
    stratum, own = quoted(fitted.scheme.strata.feature), {v: _level(part) for v, part in fitted.strata.items()}

    def chosen(others: str, by_value: dict[str, str]) -> str:
        cases = [f"WHEN {stratum} = {literal(v)} THEN {term}" for v, term in by_value.items() if term != others]
        return f"CASE {' '.join(cases)} ELSE {others} END" if cases else others

    return SqlLevel(
        level=chosen(common.level, {value: part.level for value, part in own.items()}),
        features={*common.features, fitted.scheme.strata.feature},
        score=chosen(common.score, {value: part.score for value, part in own.items()}),
    )


def _level(fitted: FittedScheme) -> SqlLevel:
    """Return the level of a scheme without strata, vetoes included."""
    level, features, score = fitted.kind.sql(fitted.scheme, fitted.state)
    known = set(features)
    for veto, conditions in zip(fitted.scheme.veto, fitted.state.get("veto", []), strict=True):
        known |= {c["feature"] for c in conditions}
        met = " AND ".join(condition_sql(c) for c in conditions)
        highest = fitted.scheme.codes.index(veto.highest)
        level = f"CASE WHEN {met} THEN LEAST({level}, {highest}) ELSE {level} END"
    return SqlLevel(level, known, score)
