"""Make the editions of a notebook in English and Chinese from one source: the same code, the prose of one language.

A source is a Markdown file in `editions/`. Prose stands under `<!-- en -->` or `<!-- zh -->`, code between ```python
and ```; the Chinese edition sets `LANGUAGE = "zh"`. `python notebooks/editions.py` writes the notebooks, not executed.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

__all__ = ["FOLDER", "SOURCES", "edition", "edition_path"]


FOLDER = Path(__file__).parent
SOURCES = tuple(sorted((FOLDER / "editions").glob("*.md")))
_PROSE, _CODE = r"^<!-- (en|zh) -->\n(.*?)(?=^<!-- |^```python\n|\Z)", r"^```python\n(.*?)^```\n"
_CELL = re.compile(f"{_PROSE}|{_CODE}", re.MULTILINE | re.DOTALL)
_KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def edition(text: str, language: str) -> Any:
    r"""Return the notebook of a source in a language, not executed.

    >>> source = '<!-- en -->\nA shop.\n\n<!-- zh -->\n一家店。\n\n```python\nLANGUAGE = "en"\n```\n'
    >>> [cell.source for cell in edition(source, "zh").cells]
    ['一家店。', 'LANGUAGE = "zh"']
    """
    cells = []
    for spoken, prose, code in _CELL.findall(text):
        if not spoken:
            cells.append(new_code_cell(code.strip().replace('LANGUAGE = "en"', f'LANGUAGE = "{language}"')))
        elif spoken == language:
            cells.append(new_markdown_cell(prose.strip()))
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"
    return new_notebook(cells=cells, metadata={"kernelspec": _KERNEL})


def edition_path(source: Path, language: str) -> Path:
    """Return the path of an edition: `NAME.ipynb` in English, `NAME.zh.ipynb` in Chinese."""
    return FOLDER / f"{source.stem}{'.zh' if language == 'zh' else ''}.ipynb"


def main() -> None:
    """Write both editions of every source."""
    for source in SOURCES:
        for language in ("en", "zh"):
            nbformat.write(edition(source.read_text(encoding="utf-8"), language), edition_path(source, language))


if __name__ == "__main__":
    main()
