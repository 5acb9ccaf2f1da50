"""Score customers with a bundle: snapshots in, score table out, batch by batch, from the bundle's folder alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tiermodel.bundle import Bundle, load_bundle
from tiermodel.config import Project
from tiermodel.engines.chosen import open_history
from tiermodel.errors import DataError, EmptyInputError, ModelError
from tiermodel.features.dates import one_date, stale_words
from tiermodel.features.panel import (
    KEYS,
    Snapshots,
    Tally,
    build_panel,
    snapshot_batches,
    write_nothing,
    write_quarantine,
)
from tiermodel.ledger import Before, Ledger, from_batch, graded_rows, position_in, with_ledger_columns
from tiermodel.tables.contract import Accounting
from tiermodel.tables.history import History, project_key
from tiermodel.tables.output import write_table
from tiermodel.tiers.grading import Grading, grade
from tiermodel.tiers.ladders import LIFECYCLE, LOYALTY, ladder_stages
from tiermodel.tiers.segments import assign_segments, segment_names
from tiermodel.tiers.upgrades import ways_up

__all__ = ["Scored", "predict", "score", "score_schema", "upgrades"]

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Columns = dict[str, Any]
RISK_BANDS = {"low": "低", "medium": "中", "high": "高"}
_RISK_EDGES = (0.2, 0.5)
_MOVEMENTS = {"down": "降级", "same": "不变", "up": "升级", "new": "新客户"}
_DECIMALS = 6
_NUMERIC = {"floating", "integer", "mixed-integer-float", "boolean", "decimal", "empty"}


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
    """Write what would move each customer up at a date, as `tiers.upgrades` finds it; give rows and customers.

    Raises what `score` raises, and `ProjectError` for a scheme without rules.
    """
    bundle = model if isinstance(model, Bundle) else load_bundle(model)
    history = open_history(project)
    told = _told(project, bundle, history)
    snapshot = build_panel(told, [one_date(as_of, history)], history=history)
    found = ways_up(bundle.scheme, _checked(bundle, snapshot), bundle.features, language or bundle.language)
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


def score_schema(bundle: Bundle) -> pa.Schema:
    """Give the columns of the score table, DESIGN 8.3, with one probability for every level of the bundle's scheme."""
    words = pa.string()
    return pa.schema([
        ("customer_id", pa.string()), ("as_of", pa.date32()),
        ("tier", pa.int64()), ("tier_code", words), ("tier_name", words),
        *((f"p_{code}", pa.float64()) for code in bundle.scheme.scheme.codes),
        ("tier_set", words), ("model_tier", pa.int64()), ("previous_tier", pa.float64()), ("movement", words),
        ("segment", words), ("lifecycle_stage", words), ("loyalty_stage", words),
        ("churn_risk", pa.float64()), ("risk_band", words),
        ("expected_value", pa.float64()), ("expected_value_low", pa.float64()), ("expected_value_high", pa.float64()),
        ("clv", pa.float64()),
        ("potential", pa.float64()), ("upgrade_potential", pa.float64()), ("conversion_chance", pa.float64()),
        ("reason_1", words), ("reason_2", words), ("reason_3", words),
        ("policy", words), ("scheme_version", words), ("model_version", words),
    ])  # fmt: skip


def predict(
    bundle: Bundle, frame: pd.DataFrame, previous: pd.DataFrame | None = None, grading: Grading | None = None
) -> pd.DataFrame:
    """Score snapshot rows: the columns of `score_schema`, one row for each row given, in the same order.

    `frame` has the bundle's features by name, in any order; extra columns are ignored, and without `customer_id` and
    `as_of` the index stands for the customer. `previous` holds the same customers' earlier snapshots, from which the
    previous tier is told and the stability rule replayed; `grading` is given where that is done already. Raises
    `ModelError` where a feature is missing, `DataError` where one is not a number or infinite.
    """
    frame = _checked(bundle, frame)
    x = bundle.inputs.matrix(frame)
    grading = grading or grade(bundle.scheme, frame, previous)
    probabilities = bundle.tier.predict(x)
    bought = frame["days_since_last"].notna().to_numpy()
    return pd.DataFrame(
        {
            "customer_id": frame["customer_id"],
            "as_of": frame["as_of"],
            **_tiers(bundle, grading, probabilities),
            **_stages(bundle, frame, bought),
            **_risk(bundle, frame, x),
            **_worth(bundle, frame, x, bought),
            **_chances(bundle, frame, probabilities, grading.tier, bought),
            **_why(bundle, frame, grading),
        }
    )


def _tiers(bundle: Bundle, grading: Grading, probabilities: Floats) -> Columns:
    """Give the tier, the chances of each tier later, and where the customer came from."""
    levels, tier, before = bundle.scheme.scheme, grading.tier, grading.before
    codes, width = levels.codes, len(levels.codes)
    low, high = bundle.tier.sets(probabilities)
    sets = [codes[i] if i == j else f"{codes[i]}..{codes[j]}" for i in range(width) for j in range(width)]
    moved = np.where(np.isnan(before), 3, np.sign(tier - np.nan_to_num(before)) + 1).astype(np.int64)
    return {
        "tier": tier,
        "tier_code": _words(tier, codes),
        "tier_name": _words(tier, levels.names(bundle.language)),
        **{f"p_{code}": np.round(probabilities[:, k], _DECIMALS) for k, code in enumerate(codes)},
        "tier_set": _words(low * width + high, sets),
        "model_tier": grading.level,
        "previous_tier": before,
        "movement": _words(moved, _names(_MOVEMENTS, bundle)),
    }


def _stages(bundle: Bundle, frame: pd.DataFrame, bought: Flags) -> Columns:
    segment = np.where(bought, assign_segments(bundle.segments, frame), -1)
    lifecycle, loyalty = ladder_stages(frame, bundle.typical_rhythm)
    return {
        "segment": _words(segment, segment_names(bundle.segments)),
        "lifecycle_stage": _words(lifecycle, _names(LIFECYCLE, bundle)),
        "loyalty_stage": _words(loyalty, _names(LOYALTY, bundle)),
    }


def _risk(bundle: Bundle, frame: pd.DataFrame, x: Floats) -> Columns:
    churn = np.where(bundle.at_risk(frame), bundle.churn.predict(x), np.nan)  # who never bought cannot churn
    band = np.where(np.isnan(churn), -1, np.searchsorted(_RISK_EDGES, churn, side="right"))
    return {"churn_risk": np.round(churn, _DECIMALS), "risk_band": _words(band, _names(RISK_BANDS, bundle))}


def _worth(bundle: Bundle, frame: pd.DataFrame, x: Floats, bought: Flags) -> Columns:
    """Give amounts of those who bought; others have not shown what a purchase is worth."""
    value = np.where(bought, bundle.value.predict(x), np.nan)
    low, high = bundle.value.interval(value)
    clv = np.full(len(frame), np.nan)
    if bought.any():
        clv[bought] = bundle.lifetime_value(frame[bought], value[bought])
    amounts = {
        "expected_value": value,
        "expected_value_low": low,
        "expected_value_high": high,
        "clv": clv,
        "potential": np.where(bought, bundle.peers.potential(frame), np.nan),
    }
    return {name: np.round(amount, 4) for name, amount in amounts.items()}


def _chances(
    bundle: Bundle, frame: pd.DataFrame, probabilities: Floats, tier: NDArray[np.int64], bought: Flags
) -> Columns:
    """Give buyers the chance of an upgrade that stays, and those who have not bought yet that of a purchase."""
    upgrade = np.where(bought, bundle.p_upgrade(probabilities, tier), np.nan)
    conversion = np.where(bought, np.nan, bundle.p_conversion(frame))
    return {
        "upgrade_potential": np.round(upgrade, _DECIMALS),
        "conversion_chance": np.round(conversion, _DECIMALS),
    }


def _why(bundle: Bundle, frame: pd.DataFrame, grading: Grading) -> Columns:
    """Give the reasons of the tier, what it entitles to, and what decided."""
    reasons, words = grading.reasons(bundle.scheme, frame, bundle.features, bundle.language)
    same = np.zeros(len(frame), dtype=np.int64)
    return {
        **{f"reason_{k + 1}": _words(reasons[:, k], words) for k in range(reasons.shape[1])},
        "policy": _words(grading.tier, [level.policy for level in bundle.scheme.scheme.levels]),
        "scheme_version": _words(same, [bundle.scheme_version]),
        "model_version": _words(same, [bundle.version]),
    }


def _checked(bundle: Bundle, frame: pd.DataFrame) -> pd.DataFrame:
    names = bundle.inputs.names
    missing = [name for name in names if name not in frame.columns]
    if missing:
        raise ModelError(
            f"{len(missing)} of {len(names)} features of {bundle.version} are missing: {missing[:5]}; "
            "build them with `tiermodel features`, in a project with the same windows and columns"
        )
    twice = sorted(set(frame.columns[frame.columns.duplicated()]) & {*KEYS, *names})
    if twice:
        raise ModelError(f"columns {twice[:5]} are there more than once; keep one of each")
    if "customer_id" not in frame.columns:
        frame = frame.assign(customer_id=frame.index.map(str))
    if "as_of" not in frame.columns:
        frame = frame.assign(as_of=np.datetime64("NaT", "s"))
    frame = frame[[*KEYS, *names]].reset_index(drop=True)
    numbers = {name: _numbers(name, frame[name]) for name in names}
    return pd.DataFrame({**{key: frame[key] for key in KEYS}, **numbers})


def _numbers(name: str, column: pd.Series) -> NDArray[np.float64]:
    if pd.api.types.infer_dtype(column, skipna=True) not in _NUMERIC:
        # values are not repeated: a server would send them on, and text may name a customer
        is_number = [isinstance(value, int | float) or pd.isna(value) for value in column]
        place = is_number.index(False) if False in is_number else 0
        kind = type(column.iloc[place]).__name__
        raise DataError(f"feature {name!r} is not a number in every row: at position {place} it is {kind}")
    values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    bad = np.flatnonzero(np.isinf(values))
    if bad.size:
        raise DataError(f"feature {name!r} is infinite in {bad.size} rows, first at position {bad[0]}: build it again")
    return values


def _names(words: Mapping[str, str], bundle: Bundle) -> list[str]:
    return list(words.values() if bundle.language == "zh" else words)


def _words(index: NDArray[np.int64], words: Iterable[str]) -> pd.Series[str]:
    """Give each row its word without building a string per row; -1 is missing. Equal words become one category."""
    listed = list(words)
    distinct = list(dict.fromkeys(listed))
    place = {word: n for n, word in enumerate(distinct)}
    position = np.array([place[word] for word in listed], dtype=np.int64)
    codes = np.where(index < 0, -1, position[index])
    return pd.Series(pd.Categorical.from_codes(codes, categories=pd.Index(distinct)))
