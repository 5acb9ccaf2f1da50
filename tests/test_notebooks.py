"""The stored notebooks are whole: run from top to bottom, quiet, small, and without a trace of where they ran.

Those that are for one's own data run on a small shop too, with the one line changed; editions have the same code.
"""

from __future__ import annotations

import os
import re
import runpy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
import pytest
import yaml
from nbclient import NotebookClient

from tiermodel.datasets.synthetic import make_world

if TYPE_CHECKING:
    from conftest import Once

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
EDITIONS = runpy.run_path(str(FOLDER / "editions.py"))
PATHS = sorted(FOLDER.glob("*.ipynb"))
LARGEST, LONGEST_CELL = 600_000, 25  # bytes, lines
HOST = re.compile(
    r"/(?:root|home|tmp|work|usr|Users|mnt|var)/|site-packages|[A-Z]:\\|0x[0-9a-f]{8}|https?://(?!github)"
)
OWN = ("01", "02", "03", "04", "05", "07")  # of which the first cell names the project
RECORD = "execute again with --ExecutePreprocessor.record_timing=False"


def _read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def _code(path: Path) -> list[Any]:
    return [cell for cell in _read(path).cells if cell.cell_type == "code"]


def _first_code(notebook: Any) -> Any:
    return next(cell for cell in notebook.cells if cell.cell_type == "code")


def _texts(output: Any) -> list[str]:
    """Give what an output shows as text; pictures are left out."""
    shown = [output.get("text", ""), *(v for k, v in output.get("data", {}).items() if k.startswith("text/"))]
    return ["".join(text) for text in shown]


def test_every_notebook_is_there() -> None:
    assert [path.stem for path in PATHS] == [
        "01_data_and_features",
        "02_tiers_and_churn",
        "02_tiers_and_churn.zh",
        "03_designing_a_scheme",
        "04_review_a_run",
        "05_churn_and_value",
        "06_bank_case",
        "07_retail_case",
        "07_retail_case.zh",
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
def test_every_notebook_opens_with_five_lines_in_chinese(path: Path) -> None:
    first = _read(path).cells[0].source
    assert "**中文摘要**" in first or "**摘要**" in first
    lines = [line[:2] for line in first.splitlines() if re.match(r"\d\. .*[一-鿿]", line)]
    assert lines == ["1.", "2.", "3.", "4.", "5."]


@pytest.mark.parametrize("path", [p for p in PATHS if p.stem[:2] in OWN], ids=lambda path: path.stem)
def test_the_first_cell_holds_the_one_line_to_change(path: Path) -> None:
    first, *others = [cell.source for cell in _code(path)]
    assert first.startswith('PROJECT = "')
    assert len(first.splitlines()) == (2 if path.stem.startswith("03") else 1)  # 03 compares two shops
    for source in others:
        assert not re.search(r"20\d\d-\d\d|date\(20|household|sales_value|demo_project", source), source


@pytest.mark.parametrize("source", EDITIONS["SOURCES"], ids=lambda path: path.stem)
def test_editions_come_from_one_source_and_have_the_same_code(source: Path) -> None:
    code = {}
    for language in ("en", "zh"):
        stored = _read(EDITIONS["edition_path"](source, language))
        built = EDITIONS["edition"](source.read_text(encoding="utf-8"), language)
        assert [(c.cell_type, c.source) for c in stored.cells] == [(c.cell_type, c.source) for c in built.cells]
        code[language] = "\n".join(cell.source for cell in stored.cells if cell.cell_type == "code")
        prose = "".join(cell.source for cell in stored.cells if cell.cell_type == "markdown")
        assert (len(re.findall("[一-鿿]", prose)) > len(re.findall("[A-Za-z]+", prose))) == (language == "zh")
    assert code["zh"] == code["en"].replace('LANGUAGE = "en"', 'LANGUAGE = "zh"') != code["en"]


@pytest.fixture(scope="module")
def own_shop(once: Once, compiled: None) -> Path:  # noqa: ARG001  compiled before the kernels need it
    """Write a small Chinese shop with tables of every kind, and return its project file."""
    return once("notebook_shop", _own_shop)


def _own_shop(folder: Path) -> Path:
    path = make_world(seed=11, customers=240, days=500, future_days=1, mark="店").write(folder)
    project = yaml.safe_load(path.read_text(encoding="utf-8"))
    project |= {"language": "zh", "timezone": "Asia/Shanghai", "features": {"windows_days": [30, 90, 365]}}
    project |= {"panel": {"snapshots": 3}, "backtest": {"folds": 2}, "tiers": {"scheme": "pyramid"}}
    path.write_text(yaml.safe_dump(project, allow_unicode=True), encoding="utf-8")
    return path


QUICK = """import sys
sys.path.insert(0, {tests!r})
from worlds import quick_fits
quick = quick_fits()
quick.__enter__()"""


@pytest.mark.parametrize("path", [p for p in PATHS if p.stem[:2] in OWN], ids=lambda path: path.stem)
def test_it_runs_on_a_shop_of_ones_own_with_that_line_changed(path: Path, own_shop: Path) -> None:
    if path.with_suffix(".zh.ipynb").exists():
        pytest.skip("the Chinese edition runs the same code")
    notebook = _read(path)
    first = _first_code(notebook)
    first.source = re.sub(r'PROJECT = ".*?"', f'PROJECT = "{own_shop}"', first.source)
    first.source = re.sub(r'ANOTHER = ".*?"', 'ANOTHER = ""', first.source)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(QUICK.format(tests=os.fspath(Path(__file__).parent))))
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(FOLDER)}}).execute()
    for cell in (cell for cell in notebook.cells if cell.cell_type == "code"):
        assert not [output.text for output in cell.outputs if output.get("name") == "stderr"], cell.source


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_chinese_is_in_text_and_tables_and_there_are_figures(path: Path) -> None:
    if path.with_suffix(".zh.ipynb").exists():
        pytest.skip("the Chinese edition has them")
    outputs = [output for cell in _code(path) for output in cell.outputs]
    tables = [text for output in outputs for text in _texts(output) if text.startswith("<div>")]
    assert any(re.search(r"<th>[一-鿿]", table) for table in tables)
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 3
