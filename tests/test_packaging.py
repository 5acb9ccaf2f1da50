"""What is installed, and what is not: a plain install has no Jupyter, extras have what needs it, metadata are true."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NOTEBOOKS = {"IPython", "ipykernel", "ipywidgets", "jupyter", "jupyter_client", "jupyter_core", "jupyterlab",
             "nbclient", "nbconvert", "nbformat", "notebook"}  # fmt: skip


def modules() -> list[Path]:
    return sorted((ROOT / "src").rglob("*.py"))


@pytest.mark.parametrize("path", modules(), ids=lambda path: path.relative_to(ROOT / "src").as_posix())
def test_no_module_imports_jupyter(path: Path) -> None:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(str(node.module).split(".")[0])
    assert not found & NOTEBOOKS


WITHOUT = f"""
import sys
class Nowhere:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {NOTEBOOKS!r}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Nowhere())
import pkgutil, importlib, tiermodel, warnings
warnings.simplefilter("ignore")
for module in pkgutil.walk_packages(tiermodel.__path__, "tiermodel."):
    if module.name != "tiermodel.__main__":
        importlib.import_module(module.name)
print("all imported")
"""


def test_every_module_is_imported_where_jupyter_is_not_installed() -> None:
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=False, timeout=300, cwd=ROOT
    )
    assert done.stdout == "all imported\n", done.stderr


def names(requirements: list[str]) -> set[str]:
    return {line.split(">")[0].split("=")[0].split("<")[0] for line in requirements}


def extras_in(requirements: list[str]) -> set[str]:
    """Give the extras of ours that an extra brings along."""
    (ours,) = [line for line in requirements if line.startswith("tiermodel[")]
    return set(ours.removeprefix("tiermodel[").removesuffix("]").split(","))


def test_jupyter_is_an_extra_of_its_own_and_part_of_demo_and_dev() -> None:
    extras = PROJECT["optional-dependencies"]
    assert "jupyter" not in names(PROJECT["dependencies"])
    assert names(extras["notebooks"]) == {"jupyter"}
    assert "notebooks" in extras_in(extras["demo"])
    assert extras_in(extras["dev"]) == set(extras) - {"dev"}


def test_the_metadata_tell_licence_system_python_and_topic() -> None:
    told = PROJECT["classifiers"]
    assert PROJECT["license"] == {"text": "Apache-2.0"}
    assert "License :: OSI Approved :: Apache Software License" in told
    assert "Operating System :: POSIX :: Linux" in told
    assert [line for line in told if line.startswith("Topic ::")]
    assert f"Programming Language :: Python :: {PROJECT['requires-python'].removeprefix('>=')}" in told
    assert (ROOT / "LICENSE").read_text(encoding="utf-8").lstrip().startswith("Apache License")


def test_pins_are_exact_hold_every_dependency_and_no_address() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {line.split("==")[0] for line in lines}
    assert all("==" in line for line in lines)
    assert not [line for line in lines if "://" in line or line.startswith("-")]
    wanted = {*PROJECT["dependencies"], *(one for extra in PROJECT["optional-dependencies"].values() for one in extra)}
    assert names([one for one in wanted if not one.startswith("tiermodel[")]) <= pinned
