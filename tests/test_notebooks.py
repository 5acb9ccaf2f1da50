"""The stored notebooks are whole: run from top to bottom, quiet, small, and without a trace of where they ran."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
PATHS = sorted(FOLDER.glob("*.ipynb"))
LARGEST, LONGEST_CELL = 400_000, 25  # bytes, lines
HOST = re.compile(
    r"/(?:root|home|tmp|work|usr|Users|mnt|var)/|site-packages|[A-Z]:\\|0x[0-9a-f]{8}|https?://(?!github)"
)
RECORD = "execute again with --ExecutePreprocessor.record_timing=False"


def _read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def _code(path: Path) -> list[Any]:
    return [cell for cell in _read(path).cells if cell.cell_type == "code"]


def _texts(output: Any) -> list[str]:
    """Give what an output shows as text; pictures are left out."""
    shown = [output.get("text", ""), *(v for k, v in output.get("data", {}).items() if k.startswith("text/"))]
    return ["".join(text) for text in shown]


def test_every_notebook_is_there() -> None:
    assert [path.stem for path in PATHS] == [
        "01_data_and_features",
        "02_tiers_and_churn",
        "03_designing_a_scheme",
        "04_review_a_run",
        "05_churn_and_value",
        "06_bank_case",
        "07_retail_case",
        "08_watching_a_model",
    ]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_format_is_valid_and_the_kernel_is_everybodys(path: Path) -> None:
    notebook = _read(path)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_cells_were_run_once_in_order(path: Path) -> None:
    counts = [cell.execution_count for cell in _code(path)]
    assert counts == list(range(1, len(counts) + 1))


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_no_error_or_warning_is_stored(path: Path) -> None:
    for cell in _code(path):
        for output in cell.outputs:
            assert output.output_type != "error", cell.source
            assert output.get("name") != "stderr", output.text
            assert not any("Warning" in text for text in _texts(output)), cell.source


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_nothing_tells_where_or_when_it_ran(path: Path) -> None:
    for cell in _read(path).cells:
        assert cell.metadata == {}, RECORD
        shown = [cell.source, *(text for output in cell.get("outputs", []) for text in _texts(output))]
        found = [match[0] for text in shown for match in HOST.finditer(text)]
        assert not found, f"{found} in or below: {cell.source[:200]}"


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_size_is_small(path: Path) -> None:
    assert path.stat().st_size < LARGEST
    longest = max(_code(path), key=lambda cell: cell.source.count("\n"))
    assert len(longest.source.splitlines()) <= LONGEST_CELL, longest.source


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_chinese_is_in_text_and_tables_and_there_are_figures(path: Path) -> None:
    outputs = [output for cell in _code(path) for output in cell.outputs]
    tables = [text for output in outputs for text in _texts(output) if text.startswith("<div>")]
    assert any(re.search(r"<th>[一-鿿]", table) for table in tables)
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 3
