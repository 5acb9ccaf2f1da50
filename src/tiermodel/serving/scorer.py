"""Scores of requests with one bundle: the same walk and the same model as in the batch, so the same bits.

Raw rows are scored as by `tiermodel score` without a ledger: the stability rule is replayed on the snapshots before the
date. Capacities are not applied, since who finds a place depends on all others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from tiermodel.arrays import Ints
from tiermodel.bundle.bundle import Bundle
from tiermodel.config.project import Project
from tiermodel.errors import DataError
from tiermodel.features.panel import Snapshots
from tiermodel.features.row_columns import rows_by_kind
from tiermodel.features.stream import Chunk
from tiermodel.policy.service_columns import service_columns
from tiermodel.predict.batch import past_words
from tiermodel.predict.fitting_project import fitting
from tiermodel.predict.manual import ManualDecisions, floor_of, has_manual, with_manual
from tiermodel.predict.scoring import Scoring
from tiermodel.predict.table import checked, score_schema, scored_batch
from tiermodel.serving.faults import RequestError
from tiermodel.serving.raw_rows import Read
from tiermodel.tables.history import history_columns
from tiermodel.tables.privacy import hash_key, public_ids
from tiermodel.tables.row_kinds import KINDS, MAIN_KINDS

__all__ = ["Answer", "FeatureRows", "Scorer"]

_DATES = 32  # of which the walks are kept ready
Walk: TypeAlias = Callable[[pa.Table], tuple[Chunk, pa.RecordBatch]]


@dataclass(frozen=True)
class FeatureRows:
    """Feature rows of one date: the customers, and their features by name (NaN, or None for text: missing)."""

    customers: list[str]
    columns: dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """Scores as a table with the columns of `Scorer.schema`, and of raw rows the account and the bad ones."""

    scores: pa.Table
    rows: dict[str, dict[str, int]] = field(default_factory=dict)
    quarantined: list[dict[str, Any]] = field(default_factory=list)
    warnings: tuple[str, ...] = ()


class Scorer:
    """A bundle, ready to score the rows of a project's requests, several together; for one thread at a time.

    Raises `ModelError` where the bundle does not fit the project, `ProjectError` for a policy that lacks a level.
    """

    def __init__(self, project: Project, bundle: Bundle) -> None:
        """Check that the bundle fits the project, and make everything that requests have in common."""
        self.bundle = bundle
        self._project = fitting(project, bundle, history_columns(project))
        self._service = service_columns(project, bundle.scheme.scheme.codes)
        self._floor = floor_of(bundle, self._service) if has_manual(project) else None
        schema = score_schema(bundle)
        self.schema = with_manual(project, schema if self._service is None else self._service.schema(schema))
        self._key = hash_key(project)
        self._every = timedelta(bundle.settings["panel"]["every_days"])
        self._walk = lru_cache(maxsize=_DATES)(self._walker)

    @property
    def takes_features(self) -> bool:
        """Whether feature rows can be scored: not where customers may ask for no automated decision, in raw rows."""
        return self._floor is None

    def of_features(self, day: date, asked: Sequence[FeatureRows]) -> list[Answer]:
        """Return the scores of the feature rows of each request, in their order."""
        if not self.takes_features:
            words = "the project maps no_automated_decision, which feature rows do not tell: send raw rows"
            raise RequestError(422, words, "rows")
        customers = [customer for rows in asked for customer in rows.customers]
        columns = {name: np.concatenate([rows.columns[name] for rows in asked]) for name in asked[0].columns}
        keys = {"customer_id": customers, "as_of": np.full(len(customers), day, dtype="datetime64[s]")}
        batch = scored_batch(self.bundle, checked(self.bundle, pd.DataFrame({**keys, **columns})))
        scores = self._finished(batch, pa.array([], pa.string()))
        ends = np.cumsum([len(rows.customers) for rows in asked])
        sizes = (len(rows.customers) for rows in asked)
        warnings = self._warnings(day)
        return [Answer(scores.slice(end - n, n), warnings=warnings) for end, n in zip(ends, sizes, strict=True)]

    def of_raw_rows(self, day: date, asked: Sequence[Read]) -> list[Answer]:
        """Return the scores of the customers in the raw rows of each request who are known at a date, by id.

        Requests are scored together, as one record scores like the batch, and no customer of one is that of another.
        """
        streams, first = [], 0
        for read in asked:
            place = pc.add(pc.index_in(read.rows.column("customer_id"), read.customers).cast(pa.int64()), first)
            streams.append(self._known(day, read.rows.set_column(0, "customer_id", place)))
            first += len(read.customers)
        stream = pa.concat_tables(streams)
        scored, who = None, np.zeros(0, dtype=np.int64)
        if stream.num_rows:
            scored = Scoring(self.bundle, day, None)(self._snapshots(day, stream))
            scored = scored.select(score_schema(self.bundle).names)
            who = pc.cast(scored["customer_id"], pa.int64()).to_numpy()
        answers, first = [], 0
        for read, known in zip(asked, streams, strict=True):
            start, stop = np.searchsorted(who, [first, first + len(read.customers)])
            part = None if scored is None else scored.slice(start, stop - start)
            answers.append(self._answer(day, read, known, part, who[start:stop] - first))
            first += len(read.customers)
        return answers

    def _answer(self, day: date, read: Read, known: pa.Table, scored: pa.RecordBatch | None, who: Ints) -> Answer:
        scores = pa.Table.from_batches([], self.schema)
        if scored is not None and scored.num_rows:
            names = public_ids(read.customers, None).take(pa.array(who))
            scores = self._finished(scored.set_column(0, "customer_id", names), read.objectors)
            scores = scores.set_column(0, "customer_id", public_ids(names, self._key))
        used, duplicates = rows_by_kind(known)
        rows = {}
        for name, counts in read.counts.items():
            codes = [KINDS[kind] for kind in MAIN_KINDS[name]]
            here, twice = int(used[codes].sum()), int(duplicates[codes].sum())
            later = counts["read"] - counts["filtered"] - counts["quarantined"] - here - twice
            rows[name] = {**counts, "deduplicated": twice, "out_of_window": later, "used": here}
        return Answer(scores, rows, read.quarantined, self._warnings(day))

    def _known(self, day: date, stream: pa.Table) -> pa.Table:
        """Return the rows of a stream that are known at a date."""
        _, end, arrived = self._walk(day)
        known = pc.less(stream["day"], end)
        if "known_day" in stream.column_names:
            late = pc.max_element_wise(stream["day"], stream["known_day"])
            known = pc.and_(known, pc.less(late, arrived))
        return stream.filter(known).combine_chunks()

    def _snapshots(self, day: date, stream: pa.Table) -> pa.RecordBatch:
        walk, *_ = self._walk(day)
        try:
            return walk(stream)[1]
        except DataError:
            words = "TM2044 amounts of a customer add up to more than 64 bits hold"
            raise RequestError(422, words, "transactions") from None

    def _walker(self, day: date) -> tuple[Walk, int, int | None]:
        """Return the walk to a date, the first day that it does not look at, and that of which no arrival is known.

        It has the earlier dates too that the stability rule looks back to.
        """
        days = (day - self._every * k for k in reversed(range(1, self.bundle.scheme.memory(self._every.days) + 1)))
        snapshots = Snapshots(self._project, frozenset(self.bundle.columns), (*days, day))
        return snapshots.walker(lambda places: pc.cast(places, pa.string())), snapshots.plan.end, snapshots.arrived

    def _finished(self, batch: pa.RecordBatch, objectors: pa.Array) -> pa.Table:
        """Return scores with the service of the policy, and of those who asked for no automated decision."""
        batches = iter([batch])
        batches = batches if self._service is None else self._service.added(batches)
        if self._floor is not None:
            batches = ManualDecisions(objectors, self._floor, self.bundle.language, None).added(batches)
        return pa.Table.from_batches(batches, self.schema)

    def _warnings(self, day: date) -> tuple[str, ...]:
        return tuple(filter(None, [past_words(self.bundle, day, self.bundle.language)]))
