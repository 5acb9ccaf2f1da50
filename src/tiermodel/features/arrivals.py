"""Rows that arrive late: a walk at each date over the rows that were in the house by then."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tiermodel.arrays import Ints
from tiermodel.features.large_customer import LargeCustomer
from tiermodel.features.stream import Chunk, Plan, walk

__all__ = ["walk_as_known"]

KNOWN = "known_day"


def walk_as_known(table: pa.Table | LargeCustomer, plan: Plan, named: Callable[[pa.Array], pa.Array]) -> Chunk:
    """Return the walk of a table of whole customers in which a row that arrived late is unknown until it arrived.

    The column `known_day`, where the stream has it, is the day on which a row arrived; at a date the rows of earlier
    days count that arrived on earlier days. A date is walked again only for customers who have a row of before it that
    arrived on it or later.
    """
    if KNOWN not in table.column_names:
        return walk(table, plan, named)
    table = table.to_table() if isinstance(table, LargeCustomer) else table.combine_chunks()
    day = table.column("day").to_numpy()
    known = np.maximum(day, table.column(KNOWN).to_numpy())
    table = table.drop_columns([KNOWN])
    chunk = walk(table, plan, named)
    customer = pc.index_in(table.column("customer_id"), chunk.customers).to_numpy()
    parts, replaced = [chunk], np.zeros(len(chunk.customer), dtype=np.bool_)
    for date in plan.as_of:
        to_come = (day < date) & (known >= date)
        if not to_come.any():
            continue
        affected = np.zeros(len(chunk.customers), dtype=np.bool_)
        affected[customer[to_come]] = True
        replaced |= affected[chunk.customer] & (chunk.as_of == date)
        # rows of the date itself and later stay: the outcome is made of them
        rows = table.filter(pa.array(affected[customer] & ~to_come))
        if rows.num_rows:
            found = walk(rows, replace(plan, as_of=(date,)), named)
            place = pc.index_in(found.customers, chunk.customers).to_numpy()
            parts.append(replace(found, customer=place[found.customer]))
    if not replaced.any():
        return chunk
    parts[0] = _rows_of(chunk, np.flatnonzero(~replaced))
    return _joined(parts)


def _rows_of(chunk: Chunk, places: Ints) -> Chunk:
    """Return a chunk with some of its rows."""
    latest = [each.take(pa.array(places)) if isinstance(each, pa.Array) else each[places] for each in chunk.latest]
    customer, as_of = chunk.customer[places], chunk.as_of[places]
    sums, rhythm = chunk.sums[:, places], chunk.rhythm[:, places]
    return replace(chunk, customer=customer, as_of=as_of, sums=sums, rhythm=rhythm, latest=latest)


def _joined(parts: list[Chunk]) -> Chunk:
    """Return the rows of several walks, sorted by customer and date; all else is that of the first."""
    joined = replace(
        parts[0],
        customer=np.concatenate([part.customer for part in parts]),
        as_of=np.concatenate([part.as_of for part in parts]),
        sums=np.concatenate([part.sums for part in parts], axis=1),
        rhythm=np.concatenate([part.rhythm for part in parts], axis=1),
        latest=[_concatenated(arrays) for arrays in zip(*(part.latest for part in parts), strict=True)],
    )
    return _rows_of(joined, np.lexsort((joined.as_of, joined.customer)))


def _concatenated(arrays: Sequence[Any]) -> Any:
    return pa.concat_arrays(arrays) if isinstance(arrays[0], pa.Array) else np.concatenate(arrays)
