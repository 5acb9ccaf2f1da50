"""The answers to surveys: customer, day, question and score, as the project maps them."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from tiermodel.config.data import Survey
from tiermodel.config.project import Project
from tiermodel.features.measures import MONEY, UNKNOWN
from tiermodel.tables.contract import GOOD
from tiermodel.tables.history import History
from tiermodel.tables.privacy import hash_key, public_ids
from tiermodel.tables.row_kinds import KINDS
from tiermodel.tables.source import literal

__all__ = ["ANSWERS", "answers", "scales"]

ANSWERS = pa.schema([
    ("customer_id", pa.string()), ("day", pa.int32()), ("survey", pa.string()), ("score", pa.float64()),
])  # fmt: skip
"""One row for each answer; `day` counts from 1970-01-01."""

_SCALE = (1.0, 5.0)


def scales(project: Project) -> dict[str, tuple[float, float]]:
    """Return the scale of every question that the project's surveys ask, by its name."""
    surveys = (project.data.events.surveys if project.data.events else None) or {}
    usual = {"nps": (0.0, 10.0)}
    return {name: survey.scale or usual.get(name, _SCALE) for name, survey in surveys.items()}


def answers(project: Project, history: History) -> Iterator[pa.RecordBatch]:
    """Yield the answers on the scales of the project's questions, each row of the source once; none without surveys."""
    asked, table = scales(project), history.tables.get("events")
    if not asked or table is None or project.data.events is None:
        return
    contract, key = table.contract, hash_key(project)
    whens = [
        f"WHEN {_means(name, survey, 'subject' in contract.mapped)} THEN {literal(name)}"
        for name, survey in (project.data.events.surveys or {}).items()
    ]
    once = "" if contract.keep_duplicates else f"QUALIFY row_number() OVER (PARTITION BY {contract.row_key}) = 1"
    query = (
        f"SELECT _tm_customer_id_value AS customer_id, {contract.value('time')}::INTEGER AS day, "
        f"CASE {' '.join(whens)} END AS survey, {contract.value('value')} AS score FROM ({contract.checked}) "
        f"WHERE _tm_rule = {GOOD} AND {contract.value('kind')} = {KINDS['survey']} {once}"
    )
    for batch in history.run(table.source, query):
        known = pc.and_(pc.is_valid(batch["survey"]), pc.not_equal(batch["score"], int(UNKNOWN)))
        rows = batch.filter(known)
        score = pc.divide(pc.cast(rows["score"], pa.float64()), float(MONEY))
        pairs = zip(rows["survey"].to_pylist(), score.to_pylist(), strict=True)
        on_scale = pa.array([asked[name][0] <= value <= asked[name][1] for name, value in pairs], pa.bool_())
        ids = public_ids(rows["customer_id"], key)
        columns = [ids, rows["day"], rows["survey"], score]
        yield pa.RecordBatch.from_arrays(columns, schema=ANSWERS).filter(on_scale)


def _means(name: str, survey: Survey, told: bool) -> str:
    """Return the SQL of whether an answer is to a question."""
    if not told:
        return "true"
    subjects = survey.subject or name
    listed = [subjects] if isinstance(subjects, str) else subjects
    return f"trim(_tm_subject::VARCHAR) IN ({', '.join(map(literal, listed))})"
