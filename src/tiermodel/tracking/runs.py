"""The parameters, tags and metrics of a run in the tracking store, made without MLflow; the registry logs them.

None of them names a customer.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from tiermodel.bundle.bundle import Bundle
from tiermodel.config.project import Project, design_digest
from tiermodel.features.outcome import Labels
from tiermodel.monitoring.monitor import MonitorResult
from tiermodel.segments.fit import segment_count
from tiermodel.tables.table import TABLES
from tiermodel.tiers.schemes.load import load_scheme, scheme_data
from tiermodel.tracking.artifacts import LearnerMetrics
from tiermodel.tracking.descriptions import searchable
from tiermodel.training.tune_search import Found

__all__ = [
    "code_digest",
    "design_of",
    "finite",
    "measures_of",
    "monitored",
    "parameters_of",
    "step_of",
    "tags_of",
    "totals_of",
    "verdict_of",
]


_EPOCH = date(1970, 1, 1)
_BOUNDS = {"value": "", "low": "_low", "high": "_high"}
_JUDGED = ("defaults", "found", "difference", "low", "high")
# Filters and queries in SQL may name customers, folders may name people, a database's address may hold a password.
_UNLOGGED: Any = {"folder": True, "tracking": True, "data": {table: {"path", "query", "where"} for table in TABLES}}


def parameters_of(project: Project) -> dict[str, str]:
    """Return every setting by its path in the project file, except those that may name a customer or a person."""
    return _without_literals(_flat(project.model_dump(mode="json", exclude=_UNLOGGED)))


def _flat(settings: Mapping[str, Any], above: str = "") -> dict[str, str]:
    """Return nested settings by their dotted paths; lists become JSON."""
    flat: dict[str, str] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{above}{key}.")
        else:
            flat[f"{above}{key}"] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return flat


def _without_literals(settings: Mapping[str, str]) -> dict[str, str]:
    """Return the settings with the quoted texts in the SQL of mappings blanked, since they may name a customer."""
    return {k: re.sub(r"'[^']*'", "'…'", v) if k.startswith("data.") else v for k, v in settings.items()}


def tags_of(bundle: Bundle) -> dict[str, str]:
    """Return the version, origin and horizon of a bundle, and the code and package versions that made it."""
    noted = ("as_of", "customers", "panel_digest", "project_digest", "training_rows")
    tags = {"bundle": bundle.version, "scheme_version": bundle.scheme_version, **searchable(bundle)}
    tags |= {name: str(bundle.facts[name]) for name in noted} | {"code_digest": code_digest()}
    return tags | {f"version.{name}": str(version) for name, version in bundle.facts["versions"].items()}


def design_of(project: Project) -> dict[str, str]:
    """Return the digest of a project's design, and how many days pass until an outcome is known."""
    design = design_digest(project, scheme_data(load_scheme(project)))
    return {"design": design, "label_delay_days": str(Labels.of(project).delay_days)}


def code_digest() -> str:
    """Return the SHA-256 of this package's modules, by path and content."""
    home = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for module in sorted(home.rglob("*.py")):
        digest.update(module.relative_to(home).as_posix().encode() + b"\0" + module.read_bytes())
    return digest.hexdigest()


def measures_of(one: LearnerMetrics) -> dict[str, float]:
    """Return the metrics of one learner on one date, named `TARGET/METRIC`."""
    return finite({f"{one.target}/{name}": value for name, value in one.metrics.items()})


def step_of(one: LearnerMetrics) -> int:
    """Return the step of a learner's metrics: its snapshot date in days since 1970-01-01."""
    return (one.day - _EPOCH).days


def totals_of(bundle: Bundle) -> dict[str, float]:
    """Return the metrics over all later dates, named `TARGET/METRIC/all`, and the count and stability of segments."""
    out_of_fold = {
        f"{target}/{name}/all": x for target, found in bundle.facts["later"].items() for name, x in found.items()
    }
    segments = {"count": segment_count(bundle.segments), "stability": bundle.segments["stability"]}
    return finite(out_of_fold) | {f"segments/{name}": x for name, x in segments.items()}


def verdict_of(found: Found) -> dict[str, float]:
    """Return the figures of a tuning's verdict on one target, named `TARGET/METRIC/FIGURE`."""
    return finite({f"{found.target}/{row['metric']}/{which}": row[which] for row in found.verdict for which in _JUDGED})


def monitored(done: MonitorResult) -> dict[str, float]:
    """Return the figures of a run of `monitor` as metrics, `SECTION/FIGURE`: alarms, drift, estimates, last matured."""
    figures = done.figures
    found: dict[str, Any] = {"monitor/alarms": len(done.alarms), "monitor/model_age_days": figures["model"]["age_days"]}
    for one in figures["inputs"]["largest"]:
        found[f"drift/{_metric_name(one['name'])}"] = one["shift"]
    for one in figures["estimates"]:
        found |= {f"estimated/{one['name']}{end}": one[key] for key, end in _BOUNDS.items()}
    for last in figures["matured"][-1:]:
        found |= {f"matured/{name}": x for name, x in last.items() if isinstance(x, float)}
    for row in figures["freshness"]:
        found[f"silent_days/{row['table']}"] = row["silent_days"]
    return finite(found)


def _metric_name(name: str) -> str:
    """Return a name as MLflow allows it: letters, digits, and few signs."""
    return re.sub(r"[^\w.]+", ".", name)


def finite(values: Mapping[str, float]) -> dict[str, float]:
    """Return the finite values as floats, without the others."""
    return {name: float(value) for name, value in values.items() if np.isfinite(value)}
