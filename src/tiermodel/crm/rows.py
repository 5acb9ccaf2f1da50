"""The rows of an export in a table of DuckDB: a line of CSV for each customer, checked against the mapping."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tiermodel.config.packaged import packaged
from tiermodel.config.validation import nearest
from tiermodel.crm.mapping import ID, WEIGHT, CrmField, Mapping, mapping_names
from tiermodel.errors import DataError, ProjectError
from tiermodel.output import FORMULA
from tiermodel.policy.scores import Scores
from tiermodel.tables.source import literal, quoted

__all__ = ["ROWS", "header", "key_cell", "key_header", "make_rows", "number_columns"]

ROWS = "export_rows"
"""The table: customer_id, line (CSV, without the end of the line) and digest (SHA-256 of the fields to compare)."""

_CONTROLS = r"[\x00-\x1F\x7F\x{85}\x{2028}\x{2029}]+"
_MEMORY = "256MB"  # beyond which rows are sorted on the disk, so that the memory does not grow with the customers
_MOST_VALUES = 10_000  # of a picklist's column
_CHANCE = "p_"  # columns of the score table with the probability of each level


def number_columns(mapping: Mapping) -> list[str]:
    """Return the SQL texts that name columns to be read as numbers, which in a CSV are text."""
    factor = mapping.priority and mapping.priority.factor
    return [field.column for field in mapping.fields.values() if field.type == "number"] + ([factor] if factor else [])


def header(mapping: Mapping) -> str:
    """Return the first line: the names of the fields, as the CRM has them."""
    return ",".join(map(_name_in_quotes, mapping.fields))


def key_header(mapping: Mapping) -> str:
    """Return the first line of a file with keys only."""
    return _name_in_quotes(mapping.key)


def key_cell() -> str:
    """Return the SQL of the key's cell, from the column customer_id."""
    return _in_quotes(_text(quoted(ID), None))


def make_rows(scores: Scores, mapping: Mapping, where: str) -> None:
    """Make the table `ROWS`. `where` is the mapping file, for messages.

    Raises `ProjectError` for a column that is not there or has another type, a value or a level that a picklist or the
    priority lacks; `DataError` for a key that is empty, too long or there twice, a date that is none, a weight that is
    missing or negative.
    """
    scores.connection.execute(f"SET memory_limit = '{_MEMORY}'")
    problems = [f"{where}: {problem}" for problem in _problems(scores, mapping)]
    if problems and where in mapping_names():
        example = packaged("mappings") / f"{where}.yaml"
        told = f"{where} is an example that ships: cp {example} . and fit the copy; then --mapping {where}.yaml"
        problems.append(told)
    if problems:
        raise ProjectError("\n".join(problems))
    weight = _weight(scores, mapping)
    cells = [_cell(scores, name, field, weight) for name, field in mapping.fields.items()]
    named = ", ".join(f"{cell} AS cell_{n}" for n, cell in enumerate(cells))
    line = _line(range(len(cells)))
    compared = _line(n for n, field in enumerate(mapping.fields.values()) if field.compare)
    scores.connection.execute(
        f"CREATE TEMP TABLE {ROWS} AS SELECT {ID}, {line} AS line, unhex(sha256({compared})) AS digest "
        f"FROM (SELECT {ID}, {named} FROM {scores.source.view})"
    )
    _refuse_keys(scores, mapping)


def _line(cells: Iterable[int]) -> str:
    return " || ',' || ".join(_in_quotes(f"cell_{n}") for n in cells)


def _problems(scores: Scores, mapping: Mapping) -> Iterator[str]:
    """Yield what the scores and the mapping do not agree on."""
    levels = _levels(scores)
    if mapping.priority is not None:
        if WEIGHT in scores.columns:
            yield f"priority: {scores.file} has a column {WEIGHT} of its own; remove priority to export that one"
        if missing := [code for code in levels if code not in mapping.priority.levels]:
            yield f"priority.levels lacks {', '.join(missing)}; add {missing[0]}: WEIGHT"
    for name, field in mapping.fields.items():
        key = f"fields.{name}"
        if field.column == WEIGHT and mapping.priority is not None:
            continue
        if field.column not in scores.columns:
            near = nearest(field.column, scores.columns)
            hint = f"did you mean {near}?" if near else f"columns: {', '.join(scores.columns)}"
            hint = "add priority: {levels: …}, which computes it" if field.column == WEIGHT else hint
            yield f"{key}.column: {scores.file} has no column {field.column!r}; {hint}"
        elif field.type == "picklist":
            yield from _picklist_problems(scores, key, field, levels if field.column == "tier_code" else [])


def _levels(scores: Scores) -> list[str]:
    """Return the codes of the scheme's levels: those that customers have, and those that have a probability."""
    rows = scores.connection.execute(f"SELECT DISTINCT tier_code FROM {scores.source.view} ORDER BY 1").fetchall()
    present = [str(row[0]) for row in rows]
    chances = [name.removeprefix(_CHANCE) for name in scores.columns if name.startswith(_CHANCE)]
    return chances if set(present) <= set(chances) else present


def _picklist_problems(scores: Scores, key: str, field: CrmField, levels: list[str]) -> Iterator[str]:
    column = f"{quoted(field.column)}::VARCHAR"
    rows = scores.connection.execute(
        f"SELECT DISTINCT {column} FROM {scores.source.view} WHERE {column} <> '' ORDER BY 1 LIMIT {_MOST_VALUES}"
    ).fetchall()
    options = field.options or ()
    known = options if field.values is None else tuple(field.values)
    found = [*levels, *(str(row[0]) for row in rows if row[0] not in levels)]
    if missing := [value for value in found if value not in known]:
        told = ", ".join(missing[:10]) + (f" and {len(missing) - 10} more" if len(missing) > 10 else "")
        what = "levels" if missing[0] in levels else "values"
        yield (
            f"{key}.values lacks the {what} {told} of the column {field.column}; add {missing[0]}: OPTION, where "
            f"OPTION is one of {', '.join(options[:10])}"
        )


def _weight(scores: Scores, mapping: Mapping) -> str | None:
    """Return the priority weight as SQL; None without a priority. Raises as `make_rows` does."""
    if mapping.priority is None:
        return None
    whens = " ".join(f"WHEN {literal(code)} THEN {weight!r}" for code, weight in mapping.priority.levels.items())
    factor = "1" if mapping.priority.factor is None else scores.number("priority.factor", mapping.priority.factor)
    weight = f"(CASE tier_code {whens} END * {factor})::DOUBLE"
    bad = f"FROM {scores.source.view} WHERE coalesce(NOT ({weight} >= 0 AND isfinite({weight})), true)"
    row = scores.connection.execute(f"SELECT count(*), min({ID}) {bad}").fetchall()[0]
    if row[0]:
        raise DataError(
            f"{scores.file}: priority.factor {mapping.priority.factor!r} is missing, negative or infinite for "
            f"{row[0]:,} customers, such as {row[1]!r}; write it so that it is "
            f"not, as in coalesce({mapping.priority.factor}, 1)"
        )
    return weight


def _cell(scores: Scores, name: str, field: CrmField, weight: str | None) -> str:
    """Return the SQL of a field's text; an empty one where the value is missing."""
    column, key = quoted(field.column), f"fields.{name}.column"
    if field.type == "number":
        number = weight if field.column == WEIGHT and weight else scores.number(key, field.column)
        decimals = 2 if field.decimals is None else field.decimals
        return f"coalesce(TRY_CAST({number} AS DECIMAL(38, {decimals}))::VARCHAR, '')"
    if field.column == WEIGHT and weight:
        raise ProjectError(f"{key}: {WEIGHT} is a number; write type: number")
    if field.type == "date":
        return _date(scores, key, field.column)
    if field.type == "picklist" and field.values is not None:
        whens = " ".join(f"WHEN {literal(value)} THEN {literal(option)}" for value, option in field.values.items())
        return f"coalesce(CASE {column}::VARCHAR {whens} END, '')" if whens else "''"
    if field.type == "picklist":
        return f"coalesce({column}::VARCHAR, '')"
    return _text(column, field.length if field.column != ID else None)


def _date(scores: Scores, key: str, name: str) -> str:
    date = f"TRY_CAST({quoted(name)} AS DATE)"
    bad = f"FROM {scores.source.view} WHERE {date} IS NULL AND {quoted(name)}::VARCHAR <> ''"
    rows = scores.connection.execute(f"SELECT {ID}, {quoted(name)}::VARCHAR {bad} ORDER BY 1 LIMIT 1").fetchall()
    if rows:
        raise DataError(
            f"{scores.file}: {key}: {name} of customer {rows[0][0]!r} is no date: {rows[0][1]!r}; correct it"
        )
    return f"coalesce(strftime({date}, '%Y-%m-%d'), '')"


def _text(column: str, length: int | None) -> str:
    """Return the SQL of a text on one line that no spreadsheet takes for a formula, with so many characters at most."""
    plain = f"trim(regexp_replace({column}::VARCHAR, {literal(_CONTROLS)}, ' ', 'g'))"
    safe = f"CASE WHEN regexp_matches({plain}, {literal(FORMULA)}) THEN '''' || {plain} ELSE {plain} END"
    if length is not None:
        safe = f"CASE WHEN length({safe}) > {length} THEN left({safe}, {length - 1}) || '…' ELSE {safe} END"
    return f"coalesce({safe}, '')"


def _name_in_quotes(name: str) -> str:
    return '"' + name.replace('"', '""') + '"' if set(name) & {",", '"'} else name


def _in_quotes(cell: str) -> str:
    return f"""CASE WHEN contains({cell}, ',') OR contains({cell}, '"')
        THEN '"' || replace({cell}, '"', '""') || '"' ELSE {cell} END"""


def _refuse_keys(scores: Scores, mapping: Mapping) -> None:
    """Raise `DataError` for a key that is empty, too long, or the same for two customers, as it will be written."""
    cell, length = _text(quoted(ID), None), mapping.fields[mapping.key].length
    keys = f"(SELECT {ID}, {cell} AS cell FROM {ROWS})"
    key = f"{scores.file}: the key of fields.{mapping.key}"
    long = "false" if length is None else f"length(cell) > {length}"
    rows = scores.connection.execute(
        f"SELECT {ID}, cell FROM {keys} WHERE cell = '' OR {long} ORDER BY 1 LIMIT 1"
    ).fetchall()
    if rows:
        what = f"longer than {length} characters" if rows[0][1] else "empty"
        raise DataError(f"{key} is {what} for customer {rows[0][0]!r}; correct it, or leave the customer out")
    rows = scores.connection.execute(
        f"SELECT min({ID}), max({ID}) FROM {keys} GROUP BY cell HAVING count(*) > 1 ORDER BY 1 LIMIT 1"
    ).fetchall()
    if rows:
        raise DataError(f"{key} is the same for the customers {rows[0][0]!r} and {rows[0][1]!r}; correct one of them")
