"""What a refresh leaves, for comparison: every file, and of manifests what does not differ from run to run."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

__all__ = ["files_of"]


def files_of(folder: Path, changing: Collection[str] = ("seconds",)) -> dict[str, bytes]:
    """Give every file below a folder; of manifests without the keys that change from run to run."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            if path.name == "manifest.json" and b'"stages"' in content:
                content = json.dumps(_without(json.loads(content), changing)).encode()
            found[str(path.relative_to(folder))] = content
    return found


def _without(value: Any, changing: Collection[str]) -> Any:
    if isinstance(value, dict):
        return {key: _without(one, changing) for key, one in value.items() if key not in changing}
    return [_without(one, changing) for one in value] if isinstance(value, list) else value
