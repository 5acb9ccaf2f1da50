"""Sample the customers to learn from: as many as models need, however many a company has.

Those with the lowest hashes of their ids are taken, the same whatever rows are added and in whatever order they come.
What models gain by more customers gets smaller, while memory and time grow with every one
(`tests/benchmarks/bench_size.py`).
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
from tiermodel.features.frame import has_bought

__all__ = ["id_hashes", "sample_batches", "sample_rows"]

Hashes = NDArray[np.uint64]
_ALL = np.uint64(np.iinfo(np.uint64).max)
_PER_BUYER = 4  # where most have never bought, so many customers in all for every buyer that may be drawn


def sample_rows(panel: pd.DataFrame, now: pd.Timestamp, most: int, seed: int) -> pd.DataFrame:
    """Return a panel without the rows before a day of the customers who are not sampled.

    Sampled are `most` of the buyers at that day, and the other customers at the same rate: `4 * most` customers in all
    at most.
    """
    there = panel[panel["as_of"] == now]
    hashes = id_hashes(there["customer_id"].to_numpy(dtype=object), seed)
    limit = _limit(hashes, has_bought(there), most)
    if limit == _ALL:
        return panel
    return panel[(panel["as_of"] >= now) | panel["customer_id"].isin(there.loc[hashes <= limit, "customer_id"])]


def sample_batches(batches: Iterable[pa.RecordBatch], now: date, most: int, seed: int) -> list[pa.RecordBatch]:
    """Keep, of snapshot batches that stream by, what `sample_rows` keeps for that day or any later one."""
    limit, room = _ALL, 2 * most
    hashes, bought = np.empty(0, np.uint64), np.empty(0, np.bool_)
    kept: list[pa.RecordBatch] = []
    for batch in batches:
        part, hashed = _below(batch, now, limit, seed)
        kept.append(part)
        there = _is(pc.equal(part["as_of"], now)) & (hashed <= limit)
        hashes = np.append(hashes, hashed[there])
        bought = np.append(bought, _is(pc.is_valid(part["days_since_last"]))[there])
        if len(hashes) > room:  # rare, since hashes do not depend on the order of ids
            limit = min(limit, _limit(hashes, bought, most))
            kept = [_below(one, now, limit, seed)[0] for one in kept]
            hashes, bought = hashes[hashes <= limit], bought[hashes <= limit]
            room = 2 * len(hashes)
    limit = min(limit, _limit(hashes, bought, most))
    return [_below(one, now, limit, seed)[0] for one in kept]


def _below(batch: pa.RecordBatch, now: date, limit: np.uint64, seed: int) -> tuple[pa.RecordBatch, Hashes]:
    """Return the rows from a day on, the earlier ones of hashes up to a limit, and the hash of each row returned."""
    ids = batch["customer_id"].dictionary_encode()
    hashes = id_hashes(ids.dictionary.to_numpy(zero_copy_only=False), seed)[ids.indices.to_numpy()]
    stays = _is(pc.greater_equal(batch["as_of"], now)) | (hashes <= limit)
    return batch.filter(pa.array(stays)), hashes[stays]


def _is(flags: pa.Array) -> Flags:
    return flags.to_numpy(zero_copy_only=False)


def id_hashes(customers: NDArray[np.object_], seed: int) -> Hashes:
    """Return the SipHash of every customer's id under the seed."""
    return pd.util.hash_array(customers, hash_key=f"{seed:016d}", categorize=False)


def _limit(hashes: Hashes, bought: Flags, most: int) -> np.uint64:
    """Return the highest hash that is in the sample."""
    return min(_lowest(hashes[bought], most), _lowest(hashes, _PER_BUYER * most))


def _lowest(hashes: Hashes, most: int) -> np.uint64:
    """Return the highest of the `most` lowest hashes, or the highest possible hash where there are fewer."""
    return _ALL if len(hashes) < most else np.partition(hashes, most - 1)[most - 1]
