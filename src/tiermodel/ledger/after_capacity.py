"""The ledger rows of a grading after its levels were filled: the tier that capacity left, the priority and the cut."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tiermodel.arrays import Flags
from tiermodel.ledger.rows import EVENTS, SCHEMA

__all__ = ["after_capacity"]


_SAME = ("tier", "tier_code", "reason_1", "reason_2", "reason_3")


def after_capacity(
    rows: pa.RecordBatch, scored: pa.RecordBatch, moved: Flags, priority: pa.Array, cut: pa.Array
) -> pa.RecordBatch:
    """Return ledger rows with the tier and reasons of scores after capacity where `moved`, and with priority and cut.

    The tier of the stability rule and its state stay, as under an override. Nobody who was set by hand is moved.
    """
    before = scored["previous_tier"].to_numpy(zero_copy_only=False)
    step = np.sign(scored["tier"].to_numpy() - before)
    place = np.where(np.isnan(before), EVENTS.index("enter"), np.nan_to_num(step) + 1).astype(np.int64)
    event = pa.array(EVENTS, pa.string()).take(pa.array(place))
    here = pa.array(moved)
    columns = {
        name: pc.if_else(here, new.cast(SCHEMA.field(name).type), rows[name])
        for name, new in [("event", event), *((name, scored[name]) for name in _SAME)]
    }
    columns |= {"priority": priority, "cut": cut}
    arrays = [columns.get(name, old) for name, old in zip(SCHEMA.names, rows.columns, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)
