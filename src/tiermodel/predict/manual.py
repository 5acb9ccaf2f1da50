"""Customers who asked for no automated decision: in the scores, with the lowest service until a person decides."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from tiermodel.bundle.bundle import Bundle
from tiermodel.config.project import Project
from tiermodel.ledger.rows import Before
from tiermodel.policy.service_columns import ServiceColumns
from tiermodel.tables.consent import objectors
from tiermodel.tables.history import History
from tiermodel.tables.privacy import hash_key, public_ids
from tiermodel.words import words

__all__ = ["ManualDecisions", "floor_of", "has_manual", "manual_decisions", "with_manual"]

_COLUMN = "manual_decision"


@dataclass
class ManualDecisions:
    """Who asked for no automated decision (`customers`, as in scores), and what they get until a person decides.

    `floor` has the service of the lowest level by column. `waiting` counts those for whom nobody has decided yet.
    """

    customers: pa.Array
    floor: Mapping[str, str]
    language: str
    before: Before | None
    waiting: int = field(default=0, init=False)

    def added(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield batches of scores with `manual_decision`: waiting for a person, or made by one; empty for all others.

        Who waits has the service of the lowest level. A tier set by hand, while it is in force, is a person's decision.
        """
        texts = [words(self.language)[f"manual_{name}"] for name in ("waiting", "made")]
        for batch in batches:
            asked, held = pc.is_in(batch["customer_id"], self.customers), pa.scalar(value=False)
            if self.before is not None:
                held = pa.array(self.before.held(self.before.of(batch["customer_id"].to_pandas())))
            waiting = pc.and_not(asked, held)
            self.waiting += pc.sum(waiting).as_py() or 0
            known = batch
            for name, text in self.floor.items():
                place = batch.schema.get_field_index(name)
                known = known.set_column(place, name, pc.if_else(waiting, text, batch[name]))
            told = pc.if_else(waiting, texts[0], pc.if_else(asked, texts[1], pa.scalar(None, pa.string())))
            yield known.append_column(_COLUMN, told)

    def account(self, language: str) -> str:
        """Return a text on them for the account of the run."""
        counts = {"n": len(self.customers), "waiting": self.waiting, "column": _COLUMN}
        return words(language)["note_manual"].format(**counts)


def with_manual(project: Project, scores: pa.Schema) -> pa.Schema:
    """Return the columns of a score table with `manual_decision`, which comes last, where the project maps it."""
    return scores.append(pa.field(_COLUMN, pa.string())) if has_manual(project) else scores


def has_manual(project: Project) -> bool:
    """Return whether the project maps who asked for no automated decision."""
    customers = project.data.customers
    return customers is not None and customers.columns.no_automated_decision is not None


def manual_decisions(
    project: Project, history: History, floor: Mapping[str, str], language: str, before: Before | None
) -> ManualDecisions | None:
    """Return who asked for no automated decision; None where the project maps no such column."""
    if not has_manual(project):
        return None
    customers = public_ids(objectors(history.connection, history.tables), hash_key(project))
    return ManualDecisions(customers, floor, language, before)


def floor_of(bundle: Bundle, service: ServiceColumns | None) -> dict[str, str]:
    """Return the service of the lowest level by column."""
    levels = bundle.scheme.scheme
    return {"policy": levels.policies(bundle.language)[0]} if service is None else service.of_level(levels.codes[0])
