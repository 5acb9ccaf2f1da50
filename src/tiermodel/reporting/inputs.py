"""The inputs of a report, known by content: tables, outcomes, a backtest, a bundle, a ledger, a policy, a gate."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from tiermodel.bundle.bundle import Bundle, load_bundle
from tiermodel.errors import DataError, ProjectError
from tiermodel.ledger.ledger import Ledger
from tiermodel.output import beside
from tiermodel.policy.service_policy import Policy, load_policy

__all__ = ["OutcomesRead", "ReportInputs", "read_source", "read_sources"]


@dataclass(frozen=True)
class _Kind:
    """A kind of table: the columns that mark it, those that a report reads, and a pattern of more numeric ones.

    `optional` are texts that tables of older versions or other projects lack.
    """

    marks: frozenset[str]
    texts: tuple[str, ...]
    numbers: tuple[str, ...]
    more: str
    optional: tuple[str, ...] = ()


_KINDS = {
    "scores": _Kind(
        frozenset({"tier_code", "churn_risk"}),
        (
            *("customer_id", "as_of", "tier_code", "tier_name", "lifecycle_stage", "loyalty_stage"),
            *("reason_1", "reason_2", "reason_3", "policy", "scheme_version", "model_version"),
        ),
        ("tier", "previous_tier", "churn_risk", "expected_value", "expected_value_low", "expected_value_high"),
        r"p_.+",
        ("segment", "policy_name"),
    ),
    "predictions": _Kind(
        frozenset({"churned", "churn_tiermodel"}), ("customer_id", "as_of"), ("churned", "value"), r"(churn|value)_.+"
    ),
    "features": _Kind(
        frozenset({"days_since_last", "order_count_total"}),
        ("customer_id", "as_of"),
        ("days_since_last", "order_count_total", "net_amount_total"),
        r"(order_count|net_amount)_\d+d",
    ),
}
_GATE = ("name", "version", "champion", "promoted", "checks")
_CHECK = ("refused", "accounting", "findings")
_MONITOR = ("model_version", "as_of", "alarms", "advice", "matured", "estimates")
_OUTCOMES = frozenset({"graded", "tier_code", "hidden", "retained_share"})
_OUTCOMES_TEXTS = ("graded", "tier_code", "name_zh", "name_en", "channel")
_BESIDE = {"base": "whale_peak", "curve": "contribution_share", "channels": "value_to_cac"}
_BACKTEST = ("horizon_days", "dates", "churn", "value", "tiers", "comparisons")


@dataclass(frozen=True)
class OutcomesRead:
    """What `tiermodel outcomes` wrote: rows by tier, of the whole base, its whale curve, and by channel."""

    tiers: pd.DataFrame
    base: pd.DataFrame
    curve: pd.DataFrame
    channels: pd.DataFrame


@dataclass(frozen=True)
class ReportInputs:
    """The inputs of one report; None for an input that was not given. `places` has the path of each by its kind."""

    places: Mapping[str, Path]
    scores: pd.DataFrame | None = None
    predictions: pd.DataFrame | None = None
    features: pd.DataFrame | None = None
    outcomes: OutcomesRead | None = None
    backtest: dict[str, Any] | None = None
    bundle: Bundle | None = None
    gate: dict[str, Any] | None = None
    monitor: dict[str, Any] | None = None
    check: dict[str, Any] | None = None
    ledger: Ledger | None = None
    policy: Policy | None = None

    @property
    def files(self) -> list[str]:
        """The names of the files and folders, in the order given."""
        return [path.name for path in self.places.values()]

    @property
    def codes(self) -> list[str]:
        """The codes of the levels of the score table, lowest first."""
        assert self.scores is not None  # noqa: S101  # only sections on scores ask for it
        return [c.removeprefix("p_") for c in self.scores.columns if c.startswith("p_")]

    @property
    def fits(self) -> bool:
        """Whether the bundle has the levels of the score table, so that its names and key levels apply to the table."""
        return self.bundle is not None and self.bundle.scheme.scheme.codes == self.codes

    @property
    def currency(self) -> str:
        """The currency of the bundle's project; empty if not known."""
        return str(self.bundle.settings.get("currency") or "") if self.bundle else ""

    def names(self, language: str) -> list[str]:
        """Return the names of the score table's levels, lowest first: the bundle's where it fits, else the table's."""
        if self.bundle is not None and self.fits:
            return self.bundle.scheme.scheme.names(language)
        assert self.scores is not None  # noqa: S101
        names = self.scores.drop_duplicates("tier_code").set_index("tier_code")["tier_name"].to_dict()
        return [str(names.get(code) or code) for code in self.codes]

    @property
    def keys(self) -> list[int]:
        """The key levels: those that the bundle marks where it fits, else the highest level."""
        levels = self.bundle.scheme.scheme.levels if self.bundle is not None and self.fits else ()
        return [k for k, level in enumerate(levels) if level.key] or [len(self.codes) - 1]


def read_sources(sources: Sequence[str | Path]) -> ReportInputs:
    """Read tables (.parquet, .csv), a backtest, a gate (.json), a policy (.yaml), and folders: a bundle, a ledger.

    Raises `ProjectError` for a source that is not there, is none of these or is the second of its kind,
    `DataError` and `ModelError` for one that cannot be read.
    """
    if isinstance(sources, str | Path) or not isinstance(sources, Sequence):
        raise TypeError(f"sources: expected a list of paths, such as ['scores.parquet'], got {type(sources).__name__}")
    if not sources:
        raise ProjectError("a report needs a source: a score table, outcomes, a backtest or a bundle folder")
    found: dict[str, Any] = {}
    places: dict[str, Path] = {}
    for path in map(Path, sources):
        kind, content = read_source(path)
        if kind in found:
            raise ProjectError(f"{path}: a report takes one {kind}, and {places[kind]} is one already; leave one out")
        found[kind], places[kind] = content, path
    return ReportInputs(places=places, **found)


def read_source(path: Path) -> tuple[str, Any]:
    """Return the kind of a source, as `ReportInputs` names it, and what it holds; errors as `read_sources` has them."""
    if path.is_dir():
        if not (path / "bundle.json").is_file() and any(path.glob("*.parquet")):
            return "ledger", Ledger(path).must_exist()
        return "bundle", load_bundle(path)
    if not path.is_file():
        raise ProjectError(
            f"{path}: there is no such file or folder; give a score table, a backtest or a bundle folder"
        )
    ending = path.suffix.lower()
    if ending == ".json":
        return _read_json(path)
    if ending in {".yaml", ".yml"}:
        return "policy", load_policy(path)
    if ending not in {".parquet", ".csv"}:
        raise ProjectError(f"{path}: a report reads .parquet and .csv tables, a backtest .json and bundle folders")
    table = _read_table(path)
    if set(table.column_names) >= _OUTCOMES:
        return "outcomes", _read_outcomes(path, table)
    for kind, columns in _KINDS.items():
        if columns.marks <= set(table.column_names):
            return kind, _checked(path, kind, table)
    known = {kind: columns.marks for kind, columns in _KINDS.items()} | {"outcomes": _OUTCOMES}
    marks = "; ".join(f"{kind}: {', '.join(sorted(columns))}" for kind, columns in known.items())
    raise ProjectError(f"{path}: columns {table.column_names[:6]}… are of no table that a report knows ({marks})")


def _read_table(path: Path) -> pa.Table:
    ending = path.suffix.lower()
    try:
        return pq.read_table(path) if ending == ".parquet" else _read_csv(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: this is not a {ending} file that can be read: {error}") from None


def _read_outcomes(path: Path, table: pa.Table) -> OutcomesRead:
    """Return the outcomes of a file, and of those that were written beside it, as far as they are there."""
    if not table.num_rows:
        raise DataError(f"{path}: the outcomes have no row")
    parts = {}
    for name, mark in _BESIDE.items():
        other = beside(path, name)
        read = _read_table(other) if other.is_file() else None
        parts[name] = pd.DataFrame() if read is None or mark not in read.column_names else _plain(other, read)
    return OutcomesRead(_plain(path, table), **parts)


def _plain(path: Path, table: pa.Table) -> pd.DataFrame:
    """Return a table of outcomes: texts as they are, `hidden` true or false, and everything else a number."""
    columns: dict[str, Any] = {}
    for name in table.column_names:
        kind = pa.string() if name in _OUTCOMES_TEXTS else pa.bool_() if name == "hidden" else pa.float64()
        try:
            columns[name] = table[name].cast(kind).to_pandas()
        except pa.ArrowInvalid as error:
            raise DataError(f"{path}: column {name!r} of the outcomes is not what it should be: {error}") from None
    return pd.DataFrame(columns)


def _read_csv(path: Path) -> pa.Table:
    named = {name for kind in _KINDS.values() for name in (*kind.texts, *kind.optional)}
    texts = dict.fromkeys(named | {*_OUTCOMES_TEXTS}, pa.string())
    options = pa.csv.ConvertOptions(column_types=texts)
    return pa.csv.read_csv(path, convert_options=options, parse_options=pa.csv.ParseOptions(newlines_in_values=True))


def _read_json(path: Path) -> tuple[str, dict[str, Any]]:
    """Return a backtest, the result of `monitor`, which says what it is, or what `tiermodel promote --json` printed."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path}: this is not JSON: {error}") from None
    if isinstance(content, dict) and content.get("kind") == "monitor":
        if lacking := [key for key in _MONITOR if key not in content]:
            raise DataError(f"{path}: a result of monitor has {lacking}; write it again with `tiermodel monitor --out`")
        return "monitor", content
    if isinstance(content, dict) and set(_CHECK) <= set(content):
        return "check", content
    if isinstance(content, dict) and set(_GATE) <= set(content):
        return "gate", content
    missing = [key for key in _BACKTEST if not isinstance(content, dict) or key not in content]
    if missing:
        raise DataError(
            f"{path}: a backtest has {missing}; give the file that `tiermodel backtest --out` wrote, or what "
            "`tiermodel promote --json` printed"
        )
    return "backtest", dict(content)


def _checked(path: Path, kind: str, table: pa.Table) -> pd.DataFrame:
    wanted = _KINDS[kind]
    missing = [name for name in (*wanted.texts, *wanted.numbers) if name not in table.column_names]
    more = [name for name in table.column_names if re.fullmatch(wanted.more, name)]
    if missing:
        raise DataError(f"{path}: the {kind} lack the columns {missing}; write them again with this version")
    if not table.num_rows:
        raise DataError(f"{path}: the {kind} have no row")
    texts = [*wanted.texts, *(name for name in wanted.optional if name in table.column_names)]
    frame: pd.DataFrame = table.select(texts).to_pandas().astype(object)
    frame = frame.where(frame.notna(), "").astype(str)
    frame["as_of"] = frame["as_of"].str[:10]
    for name in (*wanted.numbers, *more):
        try:
            frame[name] = table[name].cast(pa.float64()).to_numpy()
        except pa.ArrowInvalid as error:
            raise DataError(f"{path}: column {name!r} of the {kind} is not a number in every row: {error}") from None
    if kind == "scores":
        _check_scores(path, frame)
    return frame


def _check_scores(path: Path, frame: pd.DataFrame) -> None:
    codes = [c.removeprefix("p_") for c in frame.columns if c.startswith("p_")]
    tier = frame["tier"].to_numpy()
    known = np.isin(tier, np.arange(len(codes)))
    if not known.all():
        raise DataError(
            f"{path}: tier {tier[~known][0]} is not among the levels 0 to {len(codes) - 1} ({', '.join(codes)})"
        )
    twice = frame["customer_id"][frame["customer_id"].duplicated()]
    if len(twice):
        raise DataError(f"{path}: customer {twice.iloc[0]!r} has more than one row; scores hold one row a customer")
    risk = frame["churn_risk"].to_numpy()
    wrong = (risk < 0) | (risk > 1)
    if wrong.any():
        raise DataError(f"{path}: churn_risk {risk[wrong][0]} is not a probability")
    frame["tier"] = tier.astype(np.int64)
