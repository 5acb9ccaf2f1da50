"""The API pages build from the docstrings with one command, and a warning fails it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import tiermodel
import tiermodel.sklearn

ROOT = Path(__file__).parents[1]


def test_pages_build_without_a_warning_and_have_every_public_name(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / ".ci" / "pages"), str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    assert (ran.returncode, ran.stderr) == (0, "")
    page = (tmp_path / "tiermodel.html").read_text("utf-8")
    assert all(f'id="{name}"' in page for name in tiermodel.__all__)
    page = (tmp_path / "tiermodel" / "sklearn.html").read_text("utf-8")
    assert all(f'id="{name}"' in page for name in tiermodel.sklearn.__all__)
