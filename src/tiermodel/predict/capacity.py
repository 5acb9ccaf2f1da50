"""Capacity at scoring: scored batches wait in a scratch file until every customer of the date is graded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from tiermodel.arrays import Flags, Ints
from tiermodel.bundle.bundle import Bundle
from tiermodel.ledger.after_capacity import after_capacity
from tiermodel.ledger.rows import from_batch, with_ledger_columns
from tiermodel.predict.table import as_array, columns_of_tier, score_schema, upgrade_column
from tiermodel.tiers.capacity import Claims, LevelPlaces, fill_scheme, lots_of
from tiermodel.tiers.schemes.protocol import REASONS
from tiermodel.tiers.stability.grading import Grading
from tiermodel.words import words

__all__ = ["has_capacity", "keep_capacity", "with_claims"]


_CLAIMS = ("capacity_priority", "capacity_fixed")
_REASONS = tuple(f"reason_{k + 1}" for k in range(REASONS))


def has_capacity(bundle: Bundle) -> bool:
    """Return whether any level of the bundle's scheme has a capacity."""
    return any(places is not None for places in bundle.scheme.scheme.capacities.values())


def with_claims(scored: pa.RecordBatch, bundle: Bundle, frame: pd.DataFrame, grading: Grading) -> pa.RecordBatch:
    """Return scores with what `keep_capacity` needs beside them: the priority, and who is not to be moved.

    These are the customers with an override, and between two gradings those who keep their tier.
    """
    priority = pa.array(bundle.scheme.priority(frame), from_pandas=True)
    for name, column in zip(_CLAIMS, (priority, pa.array(grading.overridden | grading.kept)), strict=True):
        scored = scored.append_column(name, column)
    return scored


def keep_capacity(
    bundle: Bundle, batches: Iterable[pa.RecordBatch], folder: Path, found: list[LevelPlaces], *, ledger: bool
) -> Iterator[pa.RecordBatch]:
    """Yield the batches of `with_claims` again, once all of them are known, with the tiers that capacity leaves.

    Of each customer a few numbers stay in memory; the batches themselves wait in a file in `folder`, which is removed.
    Whoever found no place gets the columns of the tier below, and the level that was full as the first reason. How the
    levels filled is added to `found`. With `ledger` the last columns are those of `with_ledger_columns`, which get the
    tier, the priority and the cut too.
    """
    file, parts = folder / "scored.arrows", list[Claims]()
    try:
        _keep(batches, file, parts)
        if not parts:
            return
        claims = Claims(*(np.concatenate([getattr(part, name) for part in parts]) for name in Claims.__annotations__))
        parts.clear()
        tier, levels = fill_scheme(bundle.scheme.scheme, claims)
        found += levels
        start = 0
        with pa.OSFile(str(file)) as source, pa.ipc.open_stream(source) as stream:
            for batch in stream:
                stop = start + batch.num_rows
                yield _given(bundle, levels, batch, tier[start:stop], ledger=ledger)
                start = stop
    finally:
        file.unlink(missing_ok=True)


def _keep(batches: Iterable[pa.RecordBatch], file: Path, parts: list[Claims]) -> None:
    """Write batches to a file, and add what their customers come with to `parts`."""
    writer, options = None, pa.ipc.IpcWriteOptions(compression="lz4")
    with pa.OSFile(str(file), "wb") as sink:
        for batch in batches:
            writer = writer or pa.ipc.new_stream(sink, batch.schema, options=options)
            writer.write_batch(batch)
            parts.append(_claims(batch))
        if writer is not None:
            writer.close()


def _claims(batch: pa.RecordBatch) -> Claims:
    return Claims(
        batch["tier"].to_numpy().astype(np.int8),
        _held(batch).astype(np.int8),
        pc.fill_null(batch[_CLAIMS[0]], np.nan).to_numpy(),
        lots_of(batch["customer_id"].to_pylist()),
        batch[_CLAIMS[1]].to_numpy(zero_copy_only=False),
    )


def _held(batch: pa.RecordBatch) -> Ints:
    """Return the tier in force before; -1 where there was none."""
    before = pc.fill_null(batch["previous_tier"], -1.0).to_numpy()
    return np.where(np.isnan(before), -1, before).astype(np.int64)


def _given(
    bundle: Bundle, levels: Sequence[LevelPlaces], batch: pa.RecordBatch, tier: Ints, *, ledger: bool
) -> pa.RecordBatch:
    """Return a batch with the tiers that capacity leaves, and its ledger rows with priority and cut."""
    schema, asked = score_schema(bundle), batch["tier"].to_numpy()
    moved, scored = tier != asked, batch.select(schema.names)
    if moved.any():
        changed = _changed(bundle, scored, tier, moved, pa.array(_texts(bundle, levels), pa.string()).take(asked))
        arrays = [
            changed.get(field.name, old).cast(field.type) for field, old in zip(schema, scored.columns, strict=True)
        ]
        scored = pa.RecordBatch.from_arrays(arrays, schema=scored.schema)
    if not ledger:
        return scored
    capped = pc.is_in(batch["tier"], pa.array([level.tier for level in levels], pa.int64()))
    by_tier = {level.tier: level.cut for level in levels}
    cuts = pa.array([by_tier.get(n) for n in range(len(bundle.scheme.scheme.codes))], pa.float64())
    priority = pc.if_else(capped, batch[_CLAIMS[0]], pa.scalar(None, pa.float64()))
    return with_ledger_columns(scored, after_capacity(from_batch(batch), scored, moved, priority, cuts.take(asked)))


def _changed(bundle: Bundle, scored: pa.RecordBatch, tier: Ints, moved: Flags, texts: pa.Array) -> dict[str, pa.Array]:
    """Return the columns that a lower tier changes; `texts` has the first reason of those who found no place."""
    chance = scored["upgrade_potential"].to_numpy(zero_copy_only=False)
    forecast = np.column_stack([scored[f"p_{code}"].to_numpy() for code in bundle.scheme.scheme.codes])
    lower = upgrade_column(bundle, forecast, tier, ~np.isnan(chance))
    columns = columns_of_tier(bundle, tier, scored["previous_tier"].to_numpy(zero_copy_only=False))
    columns["upgrade_potential"] = np.where(moved, lower, chance)
    here, before = pa.array(moved), texts
    arrays = {name: as_array(column, scored.schema.field(name).type) for name, column in columns.items()}
    for name in _REASONS:
        arrays[name], before = pc.if_else(here, before, scored[name]), scored[name]
    return arrays


def _texts(bundle: Bundle, levels: Sequence[LevelPlaces]) -> list[str]:
    """Return, for every tier, the reason of those who found no place there; of no meaning without a capacity."""
    scheme, places = bundle.scheme.scheme, {level.tier: level.places for level in levels}
    text = words(bundle.language)["no_place"]
    return [text.format(name=name, n=places.get(n, 0)) for n, name in enumerate(scheme.names(bundle.language))]
