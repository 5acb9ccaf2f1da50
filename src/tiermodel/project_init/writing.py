"""The text of a project file, commented in its language."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from tiermodel.config.project import Project
from tiermodel.project_init.notes import Note
from tiermodel.project_init.tables import Plan
from tiermodel.words import words

__all__ = ["project_text", "scalar"]

_WIDTH = 34  # columns of a key and its value, before a comment


def project_text(plan: Plan, project: Project, why: Mapping[str, Note], files: str) -> str:
    """Return the project file; `why` has the reasons of `horizon` and `scheme`, which stand as comments above them."""
    say, language = words(project.language), project.language
    lines = [f"# {say['init_file_head'].format(files=files)}", f"# {say['init_file_keys']}", "", "version: 1"]
    lines.append(_line(0, "name", project.name, say["init_file_name"]))
    lines.append(_line(0, "language", language, say["init_file_language"]))
    lines.append(_line(0, "timezone", project.timezone, say["init_file_timezone"]))
    if plan.currency:
        lines.append(_line(0, "currency", plan.currency, say["init_file_currency"]))
    lines += ["", "data:"]
    for table, rows in plan.data.items():
        if table == "ids":
            lines.append(f"  ids: {{case: fold, invisible: strip}}  # {say['init_file_ids']}")
        else:
            lines += _table(table, rows, plan, say)
    windows = ", ".join(map(str, project.features.windows_days))
    lines += ["", "features:", f"  windows_days: [{windows}]  # {say['init_file_windows']}", ""]
    lines += [f"# {why['horizon'].text(language)}"] if "horizon" in why else []
    lines += ["outcome:", _line(2, "horizon_days", project.outcome.horizon_days, say["init_file_horizon"])]
    lines += ["", "panel:", _line(2, "every_days", project.panel.every_days, say["init_file_panel"]), ""]
    lines += [f"# {why['scheme'].text(language)}"] if "scheme" in why else []
    lines += ["tiers:", _line(2, "scheme", str(project.tiers.scheme), say["init_file_scheme"])]
    return "\n".join([*lines, ""])


def _table(name: str, rows: Mapping[str, Any], plan: Plan, say: Mapping[str, str]) -> Iterator[str]:
    yield f"  {name}:  # {say[f'init_use_{name}']}"
    for key in ("path", "query", "encoding", "where"):
        if key in rows:
            absolute = key == "path" and isinstance(rows[key], str) and rows[key].startswith("/")
            yield from _entry(key, rows[key], "" if absolute else say.get(f"init_file_{key}", ""))
    yield f"    columns:  # {say['init_file_columns']}"
    for role, theirs in rows["columns"].items():
        yield _line(6, role, theirs, say.get(f"init_role_{role}", ""))
        for other in plan.other.get(role, []) if name == "transactions" else []:
            yield f"      # {role}: {scalar(other)}  # {say['init_file_other']}"
    if "kinds" in rows:
        yield f"    kinds:  # {say['init_file_kinds']}"
        for kind, values in rows["kinds"].items():
            yield f"      {kind}: [{', '.join(scalar(value, flow=True) for value in values)}]"


def _entry(key: str, value: Any, comment: str) -> Iterator[str]:
    if isinstance(value, Mapping):
        yield f"    {key}:"
        yield from (_line(6, name, path, "") for name, path in value.items())
    elif isinstance(value, list):
        yield f"    {key}:"
        yield from (f"      - {scalar(one)}" for one in value)
    else:
        yield from (f"    # {comment}",) if comment and key in {"query", "where"} else ()
        yield _line(4, key, value, "" if key in {"query", "where"} else comment)


def _line(indent: int, key: str, value: object, comment: str) -> str:
    if isinstance(value, str) and "'" in value and scalar(value).startswith("'"):  # SQL, without doubled quotes
        return f"{' ' * indent}{key}: >-{'  # ' * bool(comment)}{comment}\n{' ' * indent}  {value}"
    text = f"{' ' * indent}{key}: {scalar(value)}"
    return f"{text:<{_WIDTH}}  # {comment}" if comment else text


def scalar(value: object, *, flow: bool = False) -> str:
    """Return a value as YAML that means it: plain where that is read back as it is, else in quotes.

    >>> scalar("Customer ID"), scalar("1.5"), scalar("a: b"), scalar("it's #1")
    ('Customer ID', "'1.5'", "'a: b'", "'it''s #1'")
    """
    text = str(value)
    if not isinstance(value, str):
        return text
    if re.search(r"[\x00-\x1f\x7f\x85\u2028\u2029\ufeff]", text):
        return str(yaml.safe_dump(text, default_style='"', allow_unicode=False, width=10_000)).strip()
    plain = re.fullmatch(r"[^\s#'\"&*!|>%@`{}\[\],?:-][^#{}\[\],]*", text) and text == text.strip()
    if plain and not re.search(r":(\s|$)", text) and _read_back(text) and not (flow and ":" in text):
        return text
    return "'" + text.replace("'", "''") + "'"


def _read_back(text: str) -> bool:
    try:
        return bool(yaml.safe_load(text) == text)
    except yaml.YAMLError:
        return False
