"""The step that turns snapshots into scores, where the walk over the rows runs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import pandas as pd
import pyarrow as pa

from tiermodel.bundle.bundle import Bundle
from tiermodel.ledger.rows import Before, graded_rows, position_in, with_ledger_columns
from tiermodel.predict.capacity import has_capacity, with_claims
from tiermodel.predict.table import checked, scored_batch
from tiermodel.tiers.stability.grading import grade

__all__ = ["Scoring"]


@dataclass(frozen=True)
class Scoring:
    """Scoring of a snapshot batch as a callable that an engine can send to another process.

    Rows at `day` are scored; rows at earlier dates are replayed through the stability rule. `before` has the latest
    ledger row of each customer (None: no ledger); with it, the columns of the new ledger rows follow those of the
    scores where it is `recorded`.
    """

    bundle: Bundle
    day: date
    before: Before | None
    recorded: bool = True

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return the scores of the customers of a batch at the date."""
        frame = batch.to_pandas(date_as_object=False)
        now = frame["as_of"] == pd.Timestamp(self.day)
        today, past = frame[now].reset_index(drop=True), frame[~now].reset_index(drop=True)
        codes, position = self.bundle.scheme.scheme.codes, None
        if self.before is not None:
            position = position_in(self.before, today["customer_id"], codes)
        features = checked(self.bundle, today)
        grading = grade(self.bundle.scheme, features, past, position)
        scored = scored_batch(self.bundle, features, grading)
        if has_capacity(self.bundle):
            scored = with_claims(scored, self.bundle, features, grading)
        if self.before is None or not self.recorded:
            return scored
        return with_ledger_columns(scored, graded_rows(scored, grading, codes, self.before))
