"""The table of every rule that the input can break: its code, where, what is wrong, what happens, what to do."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources

import yaml

from tiermodel.tables.row_kinds import EVENTS
from tiermodel.words import in_language, words

__all__ = ["BrokenRule", "rule_table", "to_markdown"]


@dataclass(frozen=True)
class BrokenRule:
    """A rule that the input can break; texts are Chinese and English, in this order.

    `then` is `quarantined` (the row is kept apart), `warning`, or `exit N` (the run is refused with this exit code).
    """

    name: str
    code: str
    then: str
    place: tuple[str, str]
    wrong: tuple[str, str]
    remedy: tuple[str, str]


@cache
def rule_table() -> dict[str, BrokenRule]:
    """Return every rule by its name.

    >>> rule_table()["field_extra"].code, rule_table()["field_extra"].then
    ('TM1304', 'quarantined')
    """
    text = (resources.files("tiermodel") / "templates" / "rules.yaml").read_text(encoding="utf-8")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in C it takes a tenth of the time
    rules = yaml.load(text.replace("{events}", ", ".join(EVENTS)), loader)  # noqa: S506
    pairs = ("place", "wrong", "remedy")
    return {
        name: BrokenRule(name, rule["code"], rule["then"], *(tuple(rule[key]) for key in pairs))
        for name, rule in rules.items()
    }


def to_markdown() -> str:
    """Return the table as Markdown, in English, then in Chinese."""
    return "\n".join(line for language in ("en", "zh") for line in _section(language)).rstrip()


def _section(language: str) -> list[str]:
    def of(pair: tuple[str, str]) -> str:
        return in_language(language, *pair).replace("|", "\\|").replace("<", "&lt;")

    wording = words(language)
    columns = wording["rules_head"].count("|") + 1
    lines = [f"# {wording['rules_title']}", "", f"| {wording['rules_head']} |", "|---" * columns + "|"]
    for rule in rule_table().values():
        kind, _, number = rule.then.partition(" ")
        then = wording[f"rules_{kind}"].format(number)
        cells = (rule.code, f"`{rule.name}`", of(rule.place), of(rule.wrong), then, of(rule.remedy))
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]
