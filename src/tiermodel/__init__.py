"""From a transaction log to customer tiers that are learned, readable, validated out of time and kept current.

The functions bear the names of the command line's verbs. Importing the package loads no module of it: each name is
loaded when it is first used.

>>> import tiermodel
>>> tiermodel.load_project.__module__
'tiermodel.config.project'
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__all__ = [
    "Project",
    "TierModelError",
    "World",
    "allocate",
    "backtest",
    "build_panel",
    "check",
    "export",
    "forget",
    "init",
    "lists",
    "load_bundle",
    "load_project",
    "make_world",
    "monitor",
    "open_history",
    "outcomes",
    "promote",
    "refresh",
    "report",
    "rollback",
    "save_bundle",
    "score",
    "train",
    "tune",
    "upgrades",
]


if TYPE_CHECKING:
    from tiermodel.backtesting.backtest import backtest
    from tiermodel.bundle.bundle import load_bundle, save_bundle
    from tiermodel.config.project import Project, load_project
    from tiermodel.crm.export import export
    from tiermodel.datasets.synthetic import World, make_world
    from tiermodel.engines.dispatch import open_history
    from tiermodel.erasure.forget import forget
    from tiermodel.errors import TierModelError
    from tiermodel.features.panel import build_panel
    from tiermodel.jobs.refresh import refresh
    from tiermodel.monitoring.monitor import monitor
    from tiermodel.monitoring.outcomes import outcomes
    from tiermodel.policy.allocate import allocate
    from tiermodel.predict import score, upgrades
    from tiermodel.project_init.init import init
    from tiermodel.quality.check import check
    from tiermodel.reporting.report import report
    from tiermodel.tracking.promotion import promote, rollback
    from tiermodel.training.train import train
    from tiermodel.training.tune import tune
    from tiermodel.worklists.lists import lists

_HOMES = {
    "Project": "config.project",
    "TierModelError": "errors",
    "World": "datasets.synthetic",
    "allocate": "policy.allocate",
    "backtest": "backtesting.backtest",
    "build_panel": "features.panel",
    "check": "quality.check",
    "export": "crm.export",
    "forget": "erasure.forget",
    "init": "project_init.init",
    "lists": "worklists.lists",
    "load_bundle": "bundle.bundle",
    "load_project": "config.project",
    "make_world": "datasets.synthetic",
    "open_history": "engines.dispatch",
    "monitor": "monitoring.monitor",
    "outcomes": "monitoring.outcomes",
    "promote": "tracking.promotion",
    "refresh": "jobs.refresh",
    "report": "reporting.report",
    "rollback": "tracking.promotion",
    "save_bundle": "bundle.bundle",
    "score": "predict",
    "train": "training.train",
    "tune": "training.tune",
    "upgrades": "predict",
}


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})  # so that Python and notebooks complete names not loaded yet


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tiermodel' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(f"tiermodel.{_HOMES[name]}"), name)
