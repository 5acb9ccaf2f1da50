"""Kept score tables whose outcome windows are over, against what came: which promises of the model were kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit

from tiermodel.arrays import Floats
from tiermodel.bundle.bundle import Bundle
from tiermodel.config.project import Project
from tiermodel.engines.duckdb import complete_until
from tiermodel.errors import DataError
from tiermodel.evaluation.metrics import auc, ece, ece_null_band, gini, log_loss, mae
from tiermodel.features.outcome import Labels
from tiermodel.features.panel import Snapshots, snapshot_batches
from tiermodel.models.calibration.logit import intercept_for_rate, log_odds
from tiermodel.monitoring.alarms import Alarm
from tiermodel.monitoring.drift import STEP_DAYS, YEAR_DAYS
from tiermodel.monitoring.statistics import wilson
from tiermodel.tables.history import History

__all__ = ["COVERAGE", "Kept", "Matured", "judged", "kept_tables", "level_spread", "matured_alarms"]

COVERAGE = 0.90
"""What intervals of values and sets of tiers promise to hold."""
_MOST_TABLES, _DRAWS = 6, 200
_LIMIT = 3.3  # standard deviations: one matured table in a thousand by chance
_SLACK = 0.02  # of a coverage and of the calibration error, which the model's promise does not reach beyond
_WORSE = 0.15  # of the Gini: what a ranking may lose before anyone would train again for it
_NEEDED = ["customer_id", "as_of", "churn_risk", "expected_value", "tier_code"]
_READ = [*_NEEDED, "expected_value_low", "expected_value_high", "expected_value_median", "tier_set", "model_version"]
_FEWEST, _A_YEAR = 50, YEAR_DAYS // STEP_DAYS


@dataclass(frozen=True)
class Kept:
    """A kept score table: its file, its date, and the version of the model that made it."""

    path: Path
    day: date
    model_version: str


@dataclass(frozen=True)
class Matured:
    """The figures of one matured score table: of all its customers, and by tier, the highest first."""

    day: date
    model_version: str
    figures: dict[str, float]
    tiers: tuple[dict[str, Any], ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain data."""
        return {"as_of": str(self.day), "model_version": self.model_version, **self.figures, "tiers": list(self.tiers)}


def kept_tables(folder: Path, as_of: date) -> list[Kept]:
    """Return the score tables of a folder that are dated before a day, by date; other files are left alone.

    Where two tables have the same date, the one whose name comes last counts. Raises `DataError` where the folder has
    no score table at all.
    """
    found: dict[date, Kept] = {}
    tables = 0
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in {".parquet", ".csv"}):
        head = _head(path)
        if head is None:
            continue
        tables += 1
        day, version = head
        if day < as_of:
            found[day] = Kept(path, day, version)
    if not tables:
        needed = ", ".join(_NEEDED)
        raise DataError(
            f"{folder} has no score table (.parquet or .csv with {needed}): give the folder that keeps the files of "
            "`tiermodel score --out`"
        )
    return [found[day] for day in sorted(found)]


def _head(path: Path) -> tuple[date, str] | None:
    """Return the date and the model of a score table; None for any other file."""
    try:
        if path.suffix.lower() == ".parquet":
            import pyarrow.parquet as pq  # noqa: PLC0415

            file = pq.ParquetFile(path)
            if not set(_NEEDED) <= set(file.schema_arrow.names) or not file.metadata.num_rows:
                return None
            first = file.read_row_group(0, columns=["as_of", *_version(file.schema_arrow.names)]).slice(0, 1)
            frame = first.to_pandas()
        else:
            frame = pd.read_csv(path, nrows=1)
            if not set(_NEEDED) <= set(frame.columns) or frame.empty:
                return None
    except (OSError, ValueError):
        return None
    return pd.Timestamp(frame["as_of"].iloc[0]).date(), str(frame.get("model_version", pd.Series([""])).iloc[0])


def _version(names: Sequence[str]) -> list[str]:
    return ["model_version"] if "model_version" in names else []


def _read(kept: Kept) -> pd.DataFrame:
    if kept.path.suffix.lower() == ".parquet":
        frame = pd.read_parquet(kept.path)
    else:
        frame = pd.read_csv(kept.path, dtype={"customer_id": str})
    frame = frame[[name for name in _READ if name in frame.columns]]
    return frame.assign(customer_id=frame["customer_id"].astype(str))


def judged(project: Project, bundle: Bundle, history: History, kept: Iterable[Kept], as_of: date) -> list[Matured]:
    """Return the figures of the last score tables whose windows are over at `as_of`, from rows known by then.

    The project has the features of the bundle (`with_bundle_features`).
    """
    labels = Labels.of(project)
    end = complete_until(history, as_of)
    delay = timedelta(labels.delay_days)
    over = [one for one in kept if one.day + delay <= end][-_MOST_TABLES:]
    if not over:
        return []
    days = {one.day for one in over} | {one.day + delay for one in over}
    walk = Snapshots(project, frozenset(bundle.columns), tuple(days), True, end, as_of)
    rows = []
    for batch in snapshot_batches(history, walk):
        frame = batch.to_pandas(date_as_object=False)
        level, _ = bundle.scheme.assign(frame)
        kept_columns = ["customer_id", "as_of", "outcome_churned", "outcome_value"]
        rows.append(frame[kept_columns].assign(level=level))
    came = pd.concat(rows, ignore_index=True)
    return [_judged(bundle, one, came, delay) for one in over]


def _judged(bundle: Bundle, kept: Kept, came: pd.DataFrame, delay: timedelta) -> Matured:
    table = _read(kept)
    now = came[came["as_of"] == pd.Timestamp(kept.day)].drop(columns=["as_of", "level"])
    later = came[came["as_of"] == pd.Timestamp(kept.day + delay)][["customer_id", "level"]]
    rows = table.merge(now, on="customer_id").merge(later, on="customer_id", how="left")
    codes = bundle.scheme.scheme.codes
    figures = {"customers": float(len(rows)), **_churn(rows), **_value(rows), **_sets(rows, codes)}
    tiers = tuple(
        {"tier_code": code, "customers": len(part), **_of_tier(part, codes)}
        for code in reversed(codes)
        if len(part := rows[rows["tier_code"] == code]) >= _FEWEST
    )
    return Matured(kept.day, kept.model_version, {k: round(v, 6) for k, v in figures.items()}, tiers)


def _churn(rows: pd.DataFrame) -> dict[str, float]:
    """Return what came of the churn risks, beside the log loss that they themselves foretold."""
    rows = rows[rows["churn_risk"].notna() & rows["outcome_churned"].notna()]
    if len(rows) < _FEWEST:
        return {"at_risk": float(len(rows))}
    p, y = (rows[name].to_numpy(dtype=np.float64) for name in ("churn_risk", "outcome_churned"))
    p = np.clip(p, 1e-6, 1 - 1e-6)
    variance = float(np.sum(p * (1 - p)))
    entropy = -(p * np.log(p) + (1 - p) * np.log(1 - p))
    return {
        "at_risk": float(len(rows)), "rate": float(y.mean()), "risk": float(p.mean()),
        "level_error": intercept_for_rate(log_odds(p), float(np.clip(y.mean(), 1e-4, 1 - 1e-4))),
        "level_sd": 1 / np.sqrt(max(variance, 1e-9)),
        "log_loss": log_loss(y, p), "log_loss_foretold": float(entropy.mean()), "auc": auc(y, p),
        "ece": ece(y, p), "ece_by_chance": ece_null_band(p, draws=_DRAWS),
    }  # fmt: skip


def _value(rows: pd.DataFrame) -> dict[str, float]:
    rows = rows[rows["expected_value"].notna() & rows["outcome_value"].notna()]
    if len(rows) < _FEWEST:
        return {"buyers": float(len(rows))}
    y, expected = (rows[name].to_numpy(dtype=np.float64) for name in ("outcome_value", "expected_value"))
    found = {
        "buyers": float(len(rows)), "value": float(y.sum()), "value_expected": float(expected.sum()),
        "gini": gini(y, expected), "mae": mae(y, expected),
    }  # fmt: skip
    if "expected_value_low" in rows:
        held = (rows["expected_value_low"].to_numpy() - 1e-4 <= y) & (
            y <= rows["expected_value_high"].to_numpy() + 1e-4
        )
        found["interval_coverage"] = float(held.mean())
    return found


def _sets(rows: pd.DataFrame, codes: Sequence[str]) -> dict[str, float]:
    """Return the share of customers whose tier after the horizon, by the rules, was in the set foretold."""
    if "tier_set" not in rows:
        return {}
    rows = rows[rows["level"].notna() & rows["tier_set"].notna()]
    if len(rows) < _FEWEST:
        return {}
    place = {code: n for n, code in enumerate(codes)}
    ends = rows["tier_set"].astype(str).str.split("..", regex=False)
    low, high = (np.array([place.get(end[k], -1) for end in ends]) for k in (0, -1))
    level = rows["level"].to_numpy(dtype=np.float64)
    if (low < 0).all():
        return {}  # tiers of another scheme
    return {"set_coverage": float(((low <= level) & (level <= high)).mean()), "set_customers": float(len(rows))}


def _of_tier(rows: pd.DataFrame, codes: Sequence[str]) -> dict[str, Any]:
    churn, value, sets = _churn(rows), _value(rows), _sets(rows, codes)
    found: dict[str, Any] = {name: churn[name] for name in ("rate", "risk", "log_loss") if name in churn}
    if "rate" in churn:
        found["rate_low"], found["rate_high"] = wilson(round(churn["rate"] * churn["at_risk"]), churn["at_risk"])
    found |= {name: value[name] for name in ("value", "value_expected", "interval_coverage") if name in value}
    found |= {name: sets[name] for name in ("set_coverage",) if name in sets}
    return {name: round(x, 6) for name, x in found.items()}


def matured_alarms(
    found: Sequence[Matured], bundle: Bundle, delay_days: int, level_sd: float, value_sd: float
) -> list[Alarm]:
    """Return where the last matured table is off its promise beyond chance, and beyond the model's error of the level.

    `level_sd` and `value_sd` are the standard deviations of the level of a coming window: log-odds, logarithm. Tables
    whose windows were over when the model was trained say nothing of it, and are left out.
    """
    learned = date.fromisoformat(str(bundle.facts["as_of"]))
    news = [one for one in found if one.day + timedelta(delay_days) > learned]
    if not news:
        return []
    last, alarms = news[-1], []
    f = last.figures
    if "rate" in f:
        limit = _LIMIT * float(np.hypot(level_sd, f["level_sd"]))
        figures = {name: f[name] for name in ("rate", "risk")} | {"day": str(last.day)}
        if abs(f["level_error"]) > limit:
            alarms.append(Alarm("level_churn", "churn_risk", last.day, figures))
        elif f["ece"] > max(_ece_allowed(f, level_sd), f["ece_by_chance"]) + _SLACK:
            alarms.append(Alarm("calibration", "churn_risk", last.day, {**figures, "ece": f["ece"]}))
    if f.get("value", 0) > 0 and f["value_expected"] > 0:
        off = float(np.log(f["value"] / f["value_expected"]))
        if abs(off) > _LIMIT * float(np.hypot(value_sd, 1 / np.sqrt(f["buyers"]))):
            figures = {"change": round(float(np.expm1(off)), 4), "day": str(last.day)}
            alarms.append(Alarm("level_value", "expected_value", last.day, figures))
    return [*alarms, *_broken_promises(last, bundle)]


def _ece_allowed(f: dict[str, float], level_sd: float) -> float:
    """Return the calibration error that an error of the level within its limit brings by itself."""
    odds = float(np.log(f["risk"] / (1 - f["risk"])))
    return max(abs(float(expit(odds + sign * _LIMIT * level_sd)) - f["risk"]) for sign in (-1, 1))


def _broken_promises(last: Matured, bundle: Bundle) -> list[Alarm]:
    f, alarms, day = last.figures, [], last.day
    promised = bundle.facts["later"].get("value", {}).get("gini", np.nan)
    if f.get("gini", np.nan) < promised - _WORSE:
        alarms.append(Alarm("gini", "expected_value", day, {"found": f["gini"], "promised": promised, "day": str(day)}))
    for name, n, kind in (("interval_coverage", "buyers", "interval"), ("set_coverage", "set_customers", "tier_set")):
        if name in f:
            # customers of one window share its chance events: far more than customers alone would vary
            spread = _LIMIT * float(np.sqrt(COVERAGE * (1 - COVERAGE) / f[n] + _SLACK**2))
            if f[name] < COVERAGE - spread:
                alarms.append(Alarm(kind, name, day, {"found": f[name], "promised": COVERAGE, "day": str(day)}))
    return alarms


def level_spread(residuals: Floats, steps: int) -> float:
    """Return how far the level of a window is off, from residuals of past windows, as far as they are known.

    It is the root mean square of the change over the time that a label takes, which is how old a level is at best.
    """
    changes = residuals[steps:] - residuals[:-steps] if 0 < steps < len(residuals) else np.empty(0)
    changes = changes[~np.isnan(changes)][-_A_YEAR:]
    return float(np.sqrt(np.mean(changes**2))) if len(changes) else 0.0
