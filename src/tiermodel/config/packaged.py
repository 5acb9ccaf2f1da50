"""The files of `configs` that ship with the package."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

__all__ = ["packaged"]


def packaged(name: str) -> Path:
    """Return the path of a file or folder that ships with the package; in a checkout it is in `configs`."""
    package = Path(str(resources.files("tiermodel")))
    shipped = package / "_data" / name
    return shipped if shipped.exists() else package.parents[1] / "configs" / name
