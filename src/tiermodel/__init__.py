"""From a transaction log to customer tiers that are learned, readable, validated out of time and kept current.

The functions bear the names of the command line's verbs. Importing the package loads no module of it: each name is
loaded when it is first used.

>>> import tiermodel
>>> tiermodel.load_project.__module__
'tiermodel.config'
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tiermodel.backtesting.backtest import backtest
    from tiermodel.bundle.bundle import load_bundle, save_bundle
    from tiermodel.check import check
    from tiermodel.config import Project, load_project
    from tiermodel.engines.chosen import open_history
    from tiermodel.errors import TierModelError
    from tiermodel.features.panel import build_panel
    from tiermodel.predict import score, upgrades
    from tiermodel.reporting.report import report
    from tiermodel.tracking.registry import promote
    from tiermodel.train import train
    from tiermodel.training.tune import tune
    from tiermodel.world import World, make_world

_HOMES = {
    "Project": "config",
    "TierModelError": "errors",
    "World": "world",
    "backtest": "backtesting.backtest",
    "build_panel": "features.panel",
    "check": "check",
    "load_bundle": "bundle.bundle",
    "load_project": "config",
    "make_world": "world",
    "open_history": "engines.chosen",
    "promote": "tracking.registry",
    "report": "reporting.report",
    "save_bundle": "bundle.bundle",
    "score": "predict",
    "train": "train",
    "tune": "training.tune",
    "upgrades": "predict",
}

__all__ = [
    "Project",
    "TierModelError",
    "World",
    "backtest",
    "build_panel",
    "check",
    "load_bundle",
    "load_project",
    "make_world",
    "open_history",
    "promote",
    "report",
    "save_bundle",
    "score",
    "train",
    "tune",
    "upgrades",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tiermodel' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(f"tiermodel.{_HOMES[name]}"), name)
