"""Draw the customers to learn from by lot: as many as models need, however many a company has.

A lot is a hash of the customer's id, the same whatever rows are added and in whatever order they come. What models gain
by more customers gets smaller, while memory and time grow with every one (`tests/benchmarks/bench_size.py`).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tiermodel.arrays import Flags

__all__ = ["draw_batches", "draw_rows"]

Lots = NDArray[np.uint64]
_ALL = np.uint64(np.iinfo(np.uint64).max)
_PER_BUYER = 4  # where most have never bought, so many customers in all for every buyer that may be drawn


def draw_rows(panel: pd.DataFrame, now: pd.Timestamp, most: int, seed: int) -> pd.DataFrame:
    """Leave out what a panel tells, before a day, of all customers but those drawn.

    Drawn are `most` of the buyers at that day, the others at the same rate: `4 * most` customers in all at most.
    """
    there = panel[panel["as_of"] == now]
    lots = _lots(there["customer_id"].to_numpy(dtype=object), seed)
    limit = _limit(lots, there["days_since_last"].notna().to_numpy(), most)
    if limit == _ALL:
        return panel
    return panel[(panel["as_of"] >= now) | panel["customer_id"].isin(there.loc[lots <= limit, "customer_id"])]


def draw_batches(batches: Iterable[pa.RecordBatch], now: date, most: int, seed: int) -> list[pa.RecordBatch]:
    """Keep, of snapshot batches that stream by, what `draw_rows` keeps for that day or any later one."""
    limit, room = _ALL, 2 * most
    lots, bought = np.empty(0, np.uint64), np.empty(0, np.bool_)
    kept: list[pa.RecordBatch] = []
    for batch in batches:
        part, lot = _below(batch, now, limit, seed)
        kept.append(part)
        there = _is(pc.equal(part["as_of"], now)) & (lot <= limit)
        lots = np.append(lots, lot[there])
        bought = np.append(bought, _is(pc.is_valid(part["days_since_last"]))[there])
        if len(lots) > room:  # ids say nothing of lots, so that this happens a few times only
            limit = min(limit, _limit(lots, bought, most))
            kept = [_below(one, now, limit, seed)[0] for one in kept]
            lots, bought = lots[lots <= limit], bought[lots <= limit]
            room = 2 * len(lots)
    limit = min(limit, _limit(lots, bought, most))
    return [_below(one, now, limit, seed)[0] for one in kept]


def _below(batch: pa.RecordBatch, now: date, limit: np.uint64, seed: int) -> tuple[pa.RecordBatch, Lots]:
    """Keep the rows from a day on, and the earlier ones of lots up to a limit; give the lot of each row."""
    ids = batch["customer_id"].dictionary_encode()
    lots = _lots(ids.dictionary.to_numpy(zero_copy_only=False), seed)[ids.indices.to_numpy()]
    stays = _is(pc.greater_equal(batch["as_of"], now)) | (lots <= limit)
    return batch.filter(pa.array(stays)), lots[stays]


def _is(flags: pa.Array) -> Flags:
    return flags.to_numpy(zero_copy_only=False)


def _lots(customers: NDArray[np.object_], seed: int) -> Lots:
    """Give every customer a number by SipHash under the seed."""
    return pd.util.hash_array(customers, hash_key=f"{seed:016d}", categorize=False)


def _limit(lots: Lots, bought: Flags, most: int) -> np.uint64:
    """Give the highest lot that is drawn."""
    return min(_lowest(lots[bought], most), _lowest(lots, _PER_BUYER * most))


def _lowest(lots: Lots, most: int) -> np.uint64:
    """Give the highest of the `most` lowest lots, or of all there may be where there are fewer."""
    return _ALL if len(lots) < most else np.partition(lots, most - 1)[most - 1]
