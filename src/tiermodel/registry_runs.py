"""Say what a run in the tracking store tells: parameters, tags, measures; the registry logs them.

Nothing of it names a customer, and MLflow is not needed for it.
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

from tiermodel.bundle import Bundle
from tiermodel.config.project import Project
from tiermodel.tables.table import TABLES
from tiermodel.tiers.segments import segment_names
from tiermodel.tracking.artifacts import Judged
from tiermodel.tune_study import Found

__all__ = ["code_digest", "finite", "measures_of", "parameters_of", "step_of", "tags_of", "totals_of", "verdict_of"]

_EPOCH = date(1970, 1, 1)
_JUDGED = ("defaults", "found", "difference", "low", "high")
# Filters and queries in SQL may name customers, folders may name people, a database's address may hold a password.
_UNLOGGED: Any = {
    "folder": True,
    "tracking": True,
    "data": {table: {"path", "query", "where"} for table in TABLES},
}


def parameters_of(project: Project) -> dict[str, str]:
    """Name every setting by its path in the project file; what may name a customer or a person is left out."""
    return _without_literals(_flat(project.model_dump(mode="json", exclude=_UNLOGGED)))


def _flat(settings: Mapping[str, Any], above: str = "") -> dict[str, str]:
    """Name every setting by its path; lists become JSON."""
    flat: dict[str, str] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{above}{key}.")
        else:
            flat[f"{above}{key}"] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return flat


def _without_literals(settings: Mapping[str, str]) -> dict[str, str]:
    """Empty the quoted texts of the mappings' SQL, which may name a customer."""
    return {k: re.sub(r"'[^']*'", "'…'", v) if k.startswith("data.") else v for k, v in settings.items()}


def tags_of(bundle: Bundle) -> dict[str, str]:
    """Say what a bundle is, what it was made from, and by which code and versions."""
    noted = ("as_of", "customers", "panel_digest", "project_digest", "training_rows")
    tags = {"bundle": bundle.version, "scheme_version": bundle.scheme_version}
    tags |= {name: str(bundle.facts[name]) for name in noted} | {"code_digest": code_digest()}
    return tags | {f"version.{name}": str(version) for name, version in bundle.facts["versions"].items()}


def code_digest() -> str:
    """Give the SHA-256 of this package's modules, by name and content."""
    home = Path(__file__).parent
    digest = hashlib.sha256()
    for module in sorted(home.rglob("*.py")):
        digest.update(module.relative_to(home).as_posix().encode() + b"\0" + module.read_bytes())
    return digest.hexdigest()


def measures_of(one: Judged) -> dict[str, float]:
    """Name the figures of one learner on one date by its target."""
    return finite({f"{one.target}/{name}": value for name, value in one.metrics.items()})


def step_of(one: Judged) -> int:
    """Give the date that a learner was judged on, in days since 1970."""
    return (one.day - _EPOCH).days


def totals_of(bundle: Bundle) -> dict[str, float]:
    """Name the figures of all later dates together, and how many segments there are and how stable they are."""
    later = {f"{target}/{name}/all": x for target, found in bundle.facts["later"].items() for name, x in found.items()}
    count = len(segment_names(bundle.segments)) - 1
    return finite(later) | {"segments/count": count, "segments/stability": bundle.segments["stability"]}


def verdict_of(found: Found) -> dict[str, float]:
    """Name the figures of a tuning's verdict on one target by metric."""
    return finite({f"{found.target}/{row['metric']}/{which}": row[which] for row in found.verdict for which in _JUDGED})


def finite(values: Mapping[str, float]) -> dict[str, float]:
    """Keep the figures that are finite."""
    return {name: float(value) for name, value in values.items() if np.isfinite(value)}
