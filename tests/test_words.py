"""Texts in both languages: every one stands in words.yaml, is complete, and is used."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from string import Formatter

import pytest
import yaml

import tiermodel
from tiermodel.words import words

PACKAGE = Path(tiermodel.__file__).parent
PAIRS: dict[str, list[str]] = yaml.safe_load((PACKAGE / "templates" / "words.yaml").read_text(encoding="utf-8"))
TREES = {f.relative_to(PACKAGE).as_posix(): ast.parse(f.read_text(encoding="utf-8")) for f in PACKAGE.rglob("*.py")}
PAGES = sorted((PACKAGE / "templates").rglob("*.html.j2"))
TEMPLATE = "".join(page.read_text(encoding="utf-8") for page in PAGES)
CHINESE = re.compile(r"[\u3001-\u303f\u4e00-\u9fff]|[，；：（）？！]")
NOT_WORDS = {
    "cli/init.py": "marks of punctuation at which no line is parted",
    "features/catalogue.py": "a feature declares its two names beside its formula",
    "features/contacts.py": "the same",
    "features/custom.py": "how the names of a project's own features are put together",
    "tiers/customer_scores.py": "a score declares its two names beside its parts",
    "features/purchases.py": "the same",
    "tables/personal_data.py": "what columns with personal data are called",
    "tables/ids.py": "what totals are called in tables",
    "tables/remedies.py": "signs of currencies, digits and dates of full width",
    "tables/rules.py": "what yes and no are called in tables",
    "datasets/synthetic.py": "made-up ids and categories",
    "datasets/_draws.py": "made-up names of people",
    "project_init/forms.py": "digits of full width",
    "project_init/headers.py": "brackets of full width",
    "cli/show.py": "column heads of a table in both languages",
    "config/project.py": "names of presets that were mended",
    "quality/check.py": "brackets around the name of a rule",
    "tracking/checks.py": "brackets around the name of a check",
    "cli/printing.py": "brackets around the code of a rule",
}


def blanks(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}


def docstrings(tree: ast.Module) -> set[ast.expr]:
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}


def texts_of(tree: ast.Module) -> Iterator[str]:
    """Yield every text that is no docstring."""
    skip = docstrings(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in skip:
            yield node.value


def beginnings(tree: ast.Module) -> Iterator[str]:
    """Yield what f-strings and sums of texts that may be keys begin with, as `metric_` of f"metric_{name}"."""
    for node in ast.walk(tree):
        first = node.values[0] if isinstance(node, ast.JoinedStr) and node.values else None
        first = node.left if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add) else first
        if isinstance(first, ast.Constant) and isinstance(first.value, str) and re.fullmatch(r"\w+_", first.value):
            yield first.value


def is_words(node: ast.expr) -> bool:
    """Tell the mapping by what it is called: `words(language)`, `pen.words`, `say`, or `zh` and `en` side by side."""
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id == "words"
    name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
    return name in {"words", "say", "zh", "en"}


def keys_asked() -> Iterator[tuple[str, str]]:
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Subscript) and is_words(node.value):
                chosen = node.slice
                either = [chosen.body, chosen.orelse] if isinstance(chosen, ast.IfExp) else [chosen]
                yield from ((name, k.value) for k in either if isinstance(k, ast.Constant) and isinstance(k.value, str))
    for key in re.findall(r"\bt\.(\w+)|\bt\['(\w+)'\]", TEMPLATE):
        yield "pages", "".join(key)


def test_every_key_stands_once() -> None:
    text = (PACKAGE / "templates" / "words.yaml").read_text(encoding="utf-8")
    assert len(re.findall(r"^\w+:", text, flags=re.MULTILINE)) == len(PAIRS)


def test_both_languages_have_every_text_with_the_same_blanks() -> None:
    assert words("zh").keys() == words("en").keys() == PAIRS.keys()
    for key, pair in PAIRS.items():
        assert len(pair) == 2, key
        assert all(isinstance(text, str) and text.strip() for text in pair), key
        assert blanks(pair[0]) == blanks(pair[1]), key


def test_every_text_is_used() -> None:
    named = {text for tree in TREES.values() for text in texts_of(tree)} | {key for _, key in keys_asked()}
    families = {b for tree in TREES.values() for b in beginnings(tree)} | set(re.findall(r"\bt\['(\w+_)' ~", TEMPLATE))
    assert not [key for key in PAIRS if key not in named and not any(key.startswith(family) for family in families)]


def test_every_text_asked_for_exists() -> None:
    pending_moves = set(keys_asked())
    assert len(pending_moves) > 150
    assert {(place, key) for place, key in pending_moves if key not in PAIRS} == set()


@pytest.mark.parametrize("module", sorted(TREES))
def test_chinese_stands_in_the_words_file(module: str) -> None:
    found = [text for text in texts_of(TREES[module]) if CHINESE.search(text)]
    assert bool(found) == (module in NOT_WORDS), found
