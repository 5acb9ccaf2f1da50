"""What a process imports from which commands are forked: all of ours, and what takes seconds; it starts no thread."""

from __future__ import annotations

from importlib import import_module
from pkgutil import walk_packages

import tiermodel
from tiermodel.words import words

_OTHERS = ("optuna", "worlds", "failpoints", "altair", "matplotlib.pyplot", "xlsxwriter")
_LEFT_OUT = ("tiermodel.__main__", "tiermodel.serving", "tiermodel.engines.spark")

for module in walk_packages(tiermodel.__path__, "tiermodel."):
    if not module.name.startswith(_LEFT_OUT):
        import_module(module.name)
for other in _OTHERS:
    import_module(other)
words("en")
