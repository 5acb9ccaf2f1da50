"""The answers to surveys: customer, day, question and score, as the project maps them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from tiermodel.config.data import Survey
from tiermodel.config.project import Project
from tiermodel.features.measures import MONEY, UNKNOWN
from tiermodel.tables.contract import GOOD
from tiermodel.tables.history import History
from tiermodel.tables.privacy import hash_key, public_ids
from tiermodel.tables.row_kinds import KINDS
from tiermodel.tables.source import FILE, ROW, literal, quoted

__all__ = ["ANSWERS", "answers", "scales", "sorted_out"]

ANSWERS = pa.schema([
    ("customer_id", pa.string()), ("day", pa.int32()), ("survey", pa.string()), ("score", pa.float64()),
    ("row_key", pa.uint64()),
])  # fmt: skip
"""One row for each answer; `day` counts from 1970-01-01, a score that is not known is null, equal rows share a key."""

_SCALE = (1.0, 5.0)


def scales(project: Project) -> dict[str, tuple[float, float]]:
    """Return the scale of every question that the project's surveys ask, by its name."""
    surveys = (project.data.events.surveys if project.data.events else None) or {}
    usual = {"nps": (0.0, 10.0)}
    return {name: survey.scale or usual.get(name, _SCALE) for name, survey in surveys.items()}


def answers(project: Project, history: History) -> Iterator[pa.RecordBatch]:
    """Yield the answers to the project's questions, on their scales or not; none without surveys."""
    table = history.tables.get("events")
    if table is None or project.data.events is None or not project.data.events.surveys:
        return
    contract, key = table.contract, hash_key(project)
    whens = [
        f"WHEN {_means(name, survey, 'subject' in contract.mapped)} THEN {literal(name)}"
        for name, survey in project.data.events.surveys.items()
    ]
    row_key = f"hash({quoted(FILE)}, {quoted(ROW)})" if contract.keep_duplicates else contract.row_key
    query = (
        f"SELECT _tm_customer_id_value AS customer_id, {contract.value('time')}::INTEGER AS day, "
        f"CASE {' '.join(whens)} END AS survey, {contract.value('value')} AS score, {row_key} AS row_key "
        f"FROM ({contract.checked}) WHERE _tm_rule = {GOOD} AND {contract.value('kind')} = {KINDS['survey']}"
    )
    for batch in history.run(table.source, query):
        rows = batch.filter(pc.is_valid(batch["survey"]))
        given = pc.if_else(pc.not_equal(rows["score"], int(UNKNOWN)), rows["score"], None)
        score = pc.divide(pc.cast(given, pa.float64()), float(MONEY))
        columns = [public_ids(rows["customer_id"], key), rows["day"], rows["survey"], score, rows["row_key"]]
        yield pa.RecordBatch.from_arrays(columns, schema=ANSWERS)


def sorted_out(
    connection: duckdb.DuckDBPyConnection, read: str, project: Project, windows: Sequence[tuple[int, int]]
) -> list[dict[str, Any]]:
    """Make the table `answers` of what `read` selects: each answer once, on its scale. Return what does not count.

    That is, for each question, its scale and the numbers of answers off it, and without a number, among answers of the
    `windows`: their first days, and the days after their last.
    """
    asked, inside = scales(project), " OR ".join(f"day >= {first} AND day < {last}" for first, last in windows)
    low, high = (" ".join(f"WHEN {literal(name)} THEN {scale[end]}" for name, scale in asked.items()) for end in (0, 1))
    on_scale = f"score BETWEEN CASE survey {low} END AND CASE survey {high} END" if asked else "true"
    connection.execute(
        f"CREATE TABLE answers AS SELECT * EXCLUDE (row_key), coalesce({on_scale}, false) AS on_scale FROM ({read}) "
        "QUALIFY row_number() OVER (PARTITION BY row_key) = 1"
    )
    found = connection.execute(
        "SELECT survey, count(score), count(*) - count(score) FROM answers "
        f"WHERE NOT on_scale AND ({inside}) GROUP BY survey"
    ).fetchall()
    connection.execute("DELETE FROM answers WHERE NOT on_scale")
    counts = {name: (off, none) for name, off, none in found}
    return [
        {"survey": name, "scale": [float(low), float(high)],
         **dict(zip(("off_scale", "without_score"), counts.get(name, (0, 0)), strict=True))}
        for name, (low, high) in asked.items()
    ]  # fmt: skip


def _means(name: str, survey: Survey, told: bool) -> str:
    """Return the SQL of whether an answer is to a question."""
    if not told:
        return "true"
    subjects = survey.subject or name
    listed = [subjects] if isinstance(subjects, str) else subjects
    return f"trim(_tm_subject::VARCHAR) IN ({', '.join(map(literal, listed))})"
