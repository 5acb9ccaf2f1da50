"""The table of rules: it has every code that the package can print, and nothing else, and configs/rules.md shows it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from commands import Run
from tiermodel.tables.row_kinds import EVENTS
from tiermodel.tables.rule_table import rule_table
from tiermodel.tables.rules import RULES

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "tiermodel"


def texts_of(file: Path) -> Iterator[str]:
    """List the texts of a module, but docstrings, or of a YAML of words."""
    if file.suffix == ".yaml":
        yield file.read_text(encoding="utf-8")
        return
    tree = ast.parse(file.read_text(encoding="utf-8"))
    nodes = list(ast.walk(tree))
    docs = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    yield from (
        node.value
        for node in nodes
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs
    )


def test_the_table_has_every_code_of_the_package_and_no_other() -> None:
    files = [*SOURCE.rglob("*.py"), SOURCE / "templates" / "words.yaml"]
    printed = {code for file in files for text in texts_of(file) for code in re.findall(r"TM\d{4}", text)}
    of_rows = {rule.code for rule in RULES.values()}
    assert printed | of_rows == {rule.code for rule in rule_table().values()}


def test_every_entry_is_whole_and_in_two_languages() -> None:
    for rule in rule_table().values():
        assert re.fullmatch(r"TM\d{4}", rule.code)
        assert re.fullmatch(r"quarantined|warning|exit [2-7]", rule.then)
        for zh, en in (rule.wrong, rule.remedy):
            assert re.search(r"[\u4e00-\u9fff]", zh)
            assert en.isascii() or "…" in en
    assert all(kind in rule_table()["kind_unknown"].remedy[1] for kind in EVENTS)


def test_row_rules_are_those_that_quarantine() -> None:
    """What a row rule prints stands in the table, under its own name or that of its kind of column."""
    quarantining = {(rule.code, rule.remedy[1]) for rule in rule_table().values() if rule.then == "quarantined"}
    damaged = rule_table()["customer_id_damaged"]  # one such row refuses the run
    told = {(rule.code, rule.remedy) for rule in RULES.values()}
    assert told == quarantining | {(damaged.code, damaged.remedy[1])}
    for rule in RULES.values():
        places = [
            row.place[1] for row in rule_table().values() if (row.code, row.remedy[1]) == (rule.code, rule.remedy)
        ]
        assert any(rule.column in place for place in places)


def test_the_reference_is_what_the_command_prints(cli: Run) -> None:
    assert cli("show", "codes").out == (ROOT / "configs" / "rules.md").read_text(encoding="utf-8")
