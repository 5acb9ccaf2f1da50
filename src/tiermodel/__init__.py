"""From a transaction log to customer tiers that are learned, readable, validated out of time and kept current.

The verbs of the command line as functions. Importing this package does nothing; a name is loaded when it is first used.

>>> import tiermodel
>>> tiermodel.load_project.__module__
'tiermodel.config'
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tiermodel.backtest import backtest
    from tiermodel.bundle import load_bundle, save_bundle
    from tiermodel.check import check
    from tiermodel.config import Project, load_project
    from tiermodel.engines.chosen import open_history
    from tiermodel.errors import TierModelError
    from tiermodel.features.panel import build_panel
    from tiermodel.predict import score, upgrades
    from tiermodel.registry import promote
    from tiermodel.report import report
    from tiermodel.training.train import train
    from tiermodel.tune import tune
    from tiermodel.world import World, make_world

_HOMES = {
    "Project": "config",
    "TierModelError": "errors",
    "World": "world",
    "backtest": "backtest",
    "build_panel": "features.panel",
    "check": "check",
    "load_bundle": "bundle",
    "load_project": "config",
    "make_world": "world",
    "open_history": "engines.chosen",
    "promote": "registry",
    "report": "report",
    "save_bundle": "bundle",
    "score": "predict",
    "train": "training.train",
    "tune": "tune",
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


class _Front(ModuleType):
    """Keep a verb where a module of its name is imported: `tiermodel.train` is always the function."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Front
