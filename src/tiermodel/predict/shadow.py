"""A shadow: a second bundle that scores the same customers, with who would move, by how much value, and worst cases.

Where the shadow reads no more than the first bundle, one walk over the rows serves both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from tiermodel.bundle.bundle import Bundle, bundle_of
from tiermodel.config.project import Project
from tiermodel.errors import ModelError
from tiermodel.features.panel import Snapshots, Tally, snapshot_batches
from tiermodel.ledger.rows import Before
from tiermodel.ledger.tombstones import Tombstones
from tiermodel.output import Staged, beside, to_jsonable, write_json, write_table
from tiermodel.policy.service_columns import service_columns
from tiermodel.predict.capacity import has_capacity, keep_capacity
from tiermodel.predict.fitting_project import with_bundle_features
from tiermodel.predict.manual import floor_of, manual_decisions, with_manual
from tiermodel.predict.scoring import Scoring
from tiermodel.predict.table import score_schema
from tiermodel.tables.history import History
from tiermodel.tables.source import refuse_outputs, scratch_folder
from tiermodel.words import words

__all__ = ["Shadow", "shadow_paths"]


_PREFIX = "shadow_"
_NOTED = (
    "customer_id", "as_of", "tier", "tier_code", "tier_name", "model_tier", "churn_risk", "expected_value", "reason_1",
)  # fmt: skip
_NUMBERS = ("risk", "value", "difference")  # what the names of columns of numbers end in
_WORST = 20
_QUANTILES = (0.01, 0.05, 0.5, 0.95, 0.99)


def shadow_paths(out: Path) -> tuple[Path, Path, Path]:
    """Return where a shadow's scores, the customers who change, and the summary go.

    >>> [path.name for path in shadow_paths(Path("scores.parquet"))]
    ['scores.shadow.parquet', 'scores.shadow_changes.parquet', 'scores.shadow.json']
    """
    return beside(out, "shadow"), beside(out, "shadow_changes"), out.with_name(f"{out.stem}.shadow.json")


@dataclass
class Shadow:
    """A bundle that scores beside another (`first`); `own` is the project with the features that it reads."""

    project: Project
    first: Bundle
    bundle: Bundle
    own: Project
    before: Before | None = None
    day: date = date.min
    snapshots: Snapshots | None = None
    _file: Path | None = field(default=None, init=False)
    _first: list[pa.RecordBatch] = field(default_factory=list, init=False)

    @classmethod
    def of(cls, project: Project, first: Bundle, model: Bundle | str | Path, history: History) -> Shadow:
        """Return the shadow of a bundle; `ModelError` where the two answer different questions."""
        bundle = bundle_of(model)
        if bundle.name != first.name:
            raise ModelError(
                f"the shadow {bundle.version} is of the project {bundle.name}, the model {first.version} of "
                f"{first.name}: give a model of {first.name}, such as {first.name}@challenger or models/{first.name}"
            )
        asked, answered = _question(first), _question(bundle)
        if asked != answered:
            keys = [key for key in asked if asked[key] != answered[key]]
            told = "; ".join(f"{key}: {answered[key]}, not {asked[key]}" for key in keys)
            raise ModelError(
                f"the shadow {bundle.version} answers another question than {first.version} ({told}): their figures "
                "cannot be compared; train it with the same outcome, churn and value"
            )
        return cls(project, first, bundle, with_bundle_features(project, bundle, history))

    def joins(
        self, work: Scoring, snapshots: Snapshots, before: Before | None
    ) -> Callable[[pa.RecordBatch], pa.RecordBatch]:
        """Return the step that scores with both bundles, where one walk serves both, else `work` alone.

        The tiers of the ledger are where the shadow starts from too, if it has the same levels.
        """
        same_levels = self.bundle.scheme.scheme.codes == self.first.scheme.scheme.codes
        day = work.day
        self.day, self.before = day, before if same_levels else None
        every = self.bundle.settings["panel"]["every_days"]
        steps = reversed(range(1, self.bundle.scheme.memory(every) + 1))
        dates = (*(day - timedelta(every * k) for k in steps), day)
        mine = Snapshots(self.own, frozenset(self.bundle.columns), dates)
        alike = mine.dates == snapshots.dates and self.own.features == snapshots.project.features
        scoring = Scoring(self.bundle, day, self.before, recorded=False)
        if alike and mine.columns <= snapshots.columns:
            return _Both(work, scoring)
        self.snapshots = mine
        return work

    def set_aside(self, batches: Iterable[pa.RecordBatch], folder: Path) -> Iterator[pa.RecordBatch]:
        """Yield the batches of the first bundle; those of the shadow, if it came along, wait in a file in `folder`."""
        if self.snapshots is not None:
            yield from batches
            return
        self._file = folder / "shadow.arrows"
        writer, options = None, pa.ipc.IpcWriteOptions(compression="lz4")
        with pa.OSFile(str(self._file), "wb") as sink:
            for batch in batches:
                names = [name for name in batch.schema.names if name.startswith(_PREFIX)]
                part = batch.select(names).rename_columns([name.removeprefix(_PREFIX) for name in names])
                writer = writer or pa.ipc.new_stream(sink, part.schema, options=options)
                writer.write_batch(part)
                yield batch.drop_columns(names)
            if writer is not None:
                writer.close()

    def noting(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield the first bundle's scores as they are written, and keep what the comparison reads."""
        for batch in batches:
            self._first.append(batch.select(list(_NOTED)))
            yield batch

    def write(self, out: Path, history: History, erased: Tombstones | None, into: Staged) -> dict[str, Any]:
        """Write the shadow's scores, the customers who change and the summary beside `out`; return the summary."""
        scores, changed, summary = shadow_paths(out)
        refuse_outputs((table.source for table in history.tables.values()), scores, changed, summary)
        folder = scratch_folder(history.connection)
        try:
            batches = self._again(history, erased) if self._file is None else _read(self._file)
            if has_capacity(self.bundle):
                batches = keep_capacity(self.bundle, batches, folder, [], ledger=False)
            ours = self._written(batches, scores, history, into)
        finally:
            if self._file is not None:
                self._file.unlink(missing_ok=True)
        both = _beside(pa.Table.from_batches(self._first).to_pandas(), ours)
        found = self._summary(both)
        write_table(_changes(both, moves=found["same_levels"], language=self.first.language), changed, into=into)
        write_json(to_jsonable(found), summary, into=into)
        return found

    def _again(self, history: History, erased: Tombstones | None) -> Iterator[pa.RecordBatch]:
        """Yield the shadow's scores by a walk of its own."""
        assert self.snapshots is not None  # noqa: S101  set by `joins`
        work = Scoring(self.bundle, self.day, self.before, recorded=False)
        batches = snapshot_batches(history, self.snapshots, Tally(), work)
        return batches if erased is None else erased.left_out(batches)

    def _written(self, batches: Iterable[pa.RecordBatch], path: Path, history: History, into: Staged) -> pd.DataFrame:
        """Write the shadow's score table, as `score` would, and return what the comparison reads."""
        bundle, kept = self.bundle, list[pa.RecordBatch]()
        schema, names = score_schema(bundle), score_schema(bundle).names
        scored: Iterable[pa.RecordBatch] = (batch.select(names) for batch in batches)
        service = service_columns(self.project, bundle.scheme.scheme.codes)
        if service is not None:
            scored, schema = service.added(scored), service.schema(schema)
        floor = floor_of(bundle, service)
        manual = manual_decisions(self.project, history, floor, bundle.language, self.before)
        scored = scored if manual is None else manual.added(scored)

        def noting() -> Iterator[pa.RecordBatch]:
            for batch in scored:
                kept.append(batch.select(list(_NOTED)))
                yield batch

        write_table(noting(), path, with_manual(self.project, schema), into=into)
        return pa.Table.from_batches(kept).to_pandas()

    def _summary(self, both: pd.DataFrame) -> dict[str, Any]:
        """Return the matrix of tiers, who would move with how much value, and how risks and values differ."""
        codes, others = self.first.scheme.scheme.codes, self.bundle.scheme.scheme.codes
        grades = self.before is None or self.before.grades
        column = "tier" if grades else "model_tier"  # on a day between two gradings nobody moves
        value = both["expected_value"].fillna(0.0)
        now, then = both[column].to_numpy(), both[f"{_PREFIX}{column}"].to_numpy()
        both["change"] = np.sign(then - now) if codes == others else 0
        moved = both["change"] != 0
        cells = value.groupby([now, then]).agg(["size", "sum"])
        matrix = [
            {"from": codes[int(one)], "to": others[int(other)], "customers": int(n), "value": round(float(total), 2)}
            for (one, other), n, total in cells.itertuples()
        ]
        return {
            "as_of": str(self.day),
            "model_version": self.first.version,
            "shadow_version": self.bundle.version,
            "one_walk": self.snapshots is None,
            "same_levels": codes == others,
            "compared": column,
            "customers": len(both),
            "up": int((both["change"] > 0).sum()) if codes == others else None,
            "down": int((both["change"] < 0).sum()) if codes == others else None,
            "value": round(float(value.sum()), 2),
            "moved_value": round(float(value[moved].sum()), 2) if codes == others else None,
            "matrix": matrix[::-1],
            "churn_risk": _spread(both["risk_difference"]),
            "expected_value": _spread(both["value_difference"]),
        }


@dataclass(frozen=True)
class _Both:
    """Scoring of a snapshot batch with two bundles: the columns of the second follow, with a prefix."""

    first: Scoring
    second: Scoring

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        one, other = self.first(batch), self.second(batch)
        for name in other.schema.names:
            one = one.append_column(f"{_PREFIX}{name}", other[name])
        return one


def _question(bundle: Bundle) -> Mapping[str, Any]:
    """Return what the figures of a bundle mean: its windows and labels."""
    settings = bundle.settings
    return {
        "outcome": {key: settings["outcome"][key] for key in ("horizon_days", "gap_days")},
        "churn": {key: value for key, value in settings["churn"].items() if key != "campaign"},
        "value": settings["value"],
    }


def _read(file: Path) -> Iterator[pa.RecordBatch]:
    with pa.OSFile(str(file)) as source, pa.ipc.open_stream(source) as stream:
        yield from stream


def _beside(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Return the scores of both bundles by customer, and the shadow's minus the first's."""
    both = first.merge(second.drop(columns="as_of").add_prefix(_PREFIX), left_on="customer_id",
                       right_on=f"{_PREFIX}customer_id", validate="one_to_one")  # fmt: skip
    risk = both[f"{_PREFIX}churn_risk"] - both["churn_risk"]
    return both.assign(
        risk_difference=risk.round(6),
        value_difference=(both[f"{_PREFIX}expected_value"] - both["expected_value"]).round(4),
    )


def _spread(difference: pd.Series) -> dict[str, Any]:
    """Return the mean, some quantiles and the largest of the differences that are known."""
    known = difference.dropna()
    if known.empty:
        return {"customers": 0}
    quantiles = {f"q{int(100 * q):02d}": float(known.quantile(q)) for q in _QUANTILES}
    return {"customers": len(known), "mean": float(known.mean()), **quantiles, "largest": float(known.abs().max())}


def _changes(both: pd.DataFrame, *, moves: bool, language: str) -> pa.Table:
    """Return who would move, those of most value first, and the customers whose risk or value differs most."""
    worst = {
        name: both.index.isin(both[f"{name}_difference"].abs().nlargest(_WORST).index)
        & (both[f"{name}_difference"] != 0)
        for name in ("risk", "value")
    }
    why = {"tier": (both["change"] != 0).to_numpy() & moves, **worst}
    because = [
        "+".join(name for name, there in zip(why, row, strict=True) if there) for row in zip(*why.values(), strict=True)
    ]
    wording = words(language)
    names = np.array([wording["movement_down"], "", wording["movement_up"]], dtype=object)
    columns = [name for name in _NOTED if name not in {"customer_id", "as_of", "tier", "model_tier"}]
    kept = both.assign(because=because, movement=names[both["change"].to_numpy(dtype=np.int64) + 1])
    kept = kept[kept["because"] != ""]
    kept = kept.assign(stake=-kept["expected_value"].abs().fillna(0.0)).sort_values(["stake", "customer_id"])
    ordered = ["customer_id", "as_of", "because", "movement"]
    ordered += [name for pair in columns for name in (pair, f"{_PREFIX}{pair}")] + [
        "risk_difference",
        "value_difference",
    ]
    kinds = {"as_of": pa.date32()} | {name: pa.float64() for name in ordered if name.endswith(_NUMBERS)}
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in ordered])
    return pa.Table.from_pandas(kept[ordered], schema=schema, preserve_index=False)
