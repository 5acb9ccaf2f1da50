"""Score customers with a bundle: snapshots in, score table out, batch by batch, from the bundle's folder alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from tiermodel.bundle.bundle import Bundle, load_bundle
from tiermodel.config import Project
from tiermodel.engines.chosen import open_history
from tiermodel.errors import DataError, EmptyInputError, ModelError
from tiermodel.features.panel import (
    Snapshots,
    Tally,
    build_panel,
    one_date,
    snapshot_batches,
    stale_words,
    write_nothing,
    write_quarantine,
)
from tiermodel.ledger.ledger import (
    Before,
    Ledger,
    from_batch,
    graded_rows,
    position_in,
    with_ledger_columns,
)
from tiermodel.predict.table import _checked, predict, score_schema
from tiermodel.tables.contract import Accounting
from tiermodel.tables.history import History, project_key
from tiermodel.tables.output import write_table
from tiermodel.tiers.explain.next_tier import next_tier_actions
from tiermodel.tiers.stability.grading import grade

__all__ = ["Scored", "score", "upgrades"]


@dataclass(frozen=True)
class Scored:
    """Say how a scoring run went: the accounts of the tables read, customers by tier code, rows added to the ledger."""

    accounts: dict[str, Accounting]
    customers: int
    tiers: dict[str, int]
    ledger_rows: int | None = None


def score(
    project: Project,
    model: Bundle | str | Path,
    as_of: date | str,
    out: str | Path,
    *,
    history: History | None = None,
    allow_empty: bool = False,
    ledger: str | Path | None = None,
) -> Scored:
    """Write one row for every customer known at `as_of` (a date, or `latest`), old and new, as `score_schema` says.

    `out` ends in .parquet or .csv. The features are the bundle's, whatever the project file says now. `history` stands
    in for the project's files. With `allow_empty`, transactions without a row give a table without a row. Where the
    scheme has a stability rule, it starts from where `ledger`, a folder, says that a customer stands, else from the
    snapshots before; the grading is added to the ledger when the scores are written. Raises `ModelError` where the
    project does not map a column that the bundle was trained with, `DataError` where no customer is known at `as_of`.
    """
    bundle = model if isinstance(model, Bundle) else load_bundle(model)
    try:
        history = open_history(project) if history is None else history
    except EmptyInputError:
        if not allow_empty:
            raise
        nobody = write_nothing(score_schema(bundle), Path(out))
        return Scored(nobody.accounts, 0, dict.fromkeys(bundle.scheme.scheme.codes, 0))
    told = _told(project, bundle, history)
    day = one_date(as_of, history)
    every = timedelta(bundle.settings["panel"]["every_days"])
    earlier = tuple(day - every * k for k in reversed(range(1, bundle.scheme.memory(every.days) + 1)))
    snapshots = Snapshots(told, frozenset(bundle.columns), (*earlier, day))
    book = None if ledger is None else Ledger(ledger)
    before = None if book is None else book.before(day)
    graded: list[pa.RecordBatch] = []
    tally, counts = Tally(), dict.fromkeys(bundle.scheme.scheme.codes, 0)
    schema = score_schema(bundle)

    def scored() -> Iterator[pa.RecordBatch]:
        for batch in snapshot_batches(history, snapshots, tally, _Scoring(bundle, day, before)):
            for found in pc.value_counts(batch.column("tier_code")).to_pylist():
                counts[found["values"]] += found["counts"]
            if before is not None:
                graded.append(from_batch(batch))
            yield batch.select(schema.names)
        if not sum(counts.values()):
            raise DataError(
                f"TM2071 no customer has a row before {day}: the data starts on {history.first_day}; "
                "choose a later date"
            )

    stale = stale_words(project, history, day, every.days)
    write_table(scored(), Path(out), schema)
    write_quarantine(history, Path(out))
    added = None if book is None else book.append(day, pa.Table.from_batches(graded))
    tally.warn(stale)
    return Scored(tally.accounts, sum(counts.values()), counts, added)


def _told(project: Project, bundle: Bundle, history: History) -> Project:
    """Give the project with the bundle's features; `ModelError` where it maps too little, or means something else."""
    missing = sorted(set(bundle.columns) - history.columns)
    if missing:
        raise ModelError(
            f"the bundle {bundle.version} needs {', '.join(map(project_key, missing))}, which the project does not map"
        )
    _refuse_other_meaning(project, bundle)
    return Project.model_validate({**project.model_dump(exclude_none=True), "features": bundle.settings["features"]})


def upgrades(
    project: Project, model: Bundle | str | Path, as_of: date | str, out: str | Path, *, language: str | None = None
) -> tuple[int, int]:
    """Write what would move each customer up at a date, as `tiers.explain.next_tier` finds it; give rows and customers.

    Raises what `score` raises, and `ProjectError` for a scheme without rules.
    """
    bundle = model if isinstance(model, Bundle) else load_bundle(model)
    history = open_history(project)
    told = _told(project, bundle, history)
    snapshot = build_panel(told, [one_date(as_of, history)], history=history)
    found = next_tier_actions(bundle.scheme, _checked(bundle, snapshot), bundle.features, language or bundle.language)
    dates = pa.field("as_of", pa.date32())
    texts = {"customer_id", "tier_code", "reached_code", "feature", "words"}
    schema = pa.schema([
        dates if name == "as_of" else pa.field(name, pa.string() if name in texts else pa.float64()) for name in found
    ])  # fmt: skip
    write_table(pa.Table.from_pandas(found, schema=schema, preserve_index=False), Path(out))
    return len(found), int(found["customer_id"].nunique())


@dataclass(frozen=True)
class _Scoring:
    """Score a batch of snapshots of whole customers, at a day and before it, from where a ledger says they stand.

    With a ledger, the columns of its rows come after those of the scores.
    """

    bundle: Bundle
    day: date
    before: Before | None

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        frame = batch.to_pandas(date_as_object=False)
        now = frame["as_of"] == pd.Timestamp(self.day)
        today, past = frame[now].reset_index(drop=True), frame[~now].reset_index(drop=True)
        codes, position = self.bundle.scheme.scheme.codes, None
        if self.before is not None:
            position = position_in(self.before, today["customer_id"], codes)
        grading = grade(self.bundle.scheme, _checked(self.bundle, today), past, position)
        table = predict(self.bundle, today, grading=grading)
        scored = pa.RecordBatch.from_pandas(table, schema=score_schema(self.bundle), preserve_index=False)
        if self.before is None:
            return scored
        return with_ledger_columns(scored, graded_rows(table, grading, codes, self.before))


def _refuse_other_meaning(project: Project, bundle: Bundle) -> None:
    now = project.model_dump(mode="json")
    then = {**bundle.settings, "value": bundle.value_settings.model_dump(mode="json")}
    for key in ("timezone", "currency", "value"):
        if now[key] != then[key]:
            raise ModelError(
                f"the bundle {bundle.version} was trained with {key}: {then[key]}, "
                f"the project says {now[key]}; train again, or correct the project"
            )
