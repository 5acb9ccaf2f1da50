"""Every key of a project file: its type and default are those of the models that read it, its meaning a text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

import yaml

from tiermodel.config.data import Rows
from tiermodel.config.project import Project
from tiermodel.words import in_language, words

__all__ = ["Key", "every_key", "meanings", "to_markdown"]

_TABLE_KEYS = "|".join((*Rows.model_fields, "columns"))
_GENERAL = (
    (rf"^data\.\w+\.({_TABLE_KEYS})$", r"data.TABLE.\1"),
    (r"^models\.\w+(|\.trees.*)$", r"models.TARGET\1"),
    (r"^tiers\.stability\.(?:up|down)(?!\.grace)(.*)$", r"tiers.stability.MOVE\1"),
)
"""Keys that several sections share, told once under one name."""
_MANY = 4


class Key(NamedTuple):
    """A key of the project file: path, type in words, default as YAML has it (None: required), meaning."""

    path: str
    type: str
    default: str | None
    meaning: str


@cache
def meanings() -> Mapping[str, tuple[str, str]]:
    """Return what each key means, in Chinese and in English, by its path."""
    text = (resources.files("tiermodel") / "templates" / "keys.yaml").read_text(encoding="utf-8")
    return {path: (zh, en) for path, (zh, en) in yaml.safe_load(text).items()}


def every_key(language: str) -> list[Key]:
    """Return every key, in the order of the sections; those that several sections share, once.

    >>> {key.path: (key.type, key.default) for key in every_key("en")}["outcome.horizon_days"]
    ('whole number, 1 to 3,660', '90')
    """
    schema = Project.model_json_schema()
    found = dict[str, Key]()
    for path, field, default in _walk(schema, schema, "", {}):
        general = path
        for pattern, name in _GENERAL:
            general = re.sub(pattern, name, general)
        if general not in found and path != "folder":
            meaning = in_language(language, *meanings()[general])
            found[general] = Key(general, _type(schema, field, language), default, meaning)
    return list(found.values())


def _walk(
    schema: dict[str, Any], section: dict[str, Any], above: str, given: dict[str, Any]
) -> Iterator[tuple[str, dict[str, Any], str | None]]:
    """Yield the keys of a section and of those in it: path, JSON schema, default; `given` is the section's own."""
    for name, field in section["properties"].items():
        path, default = f"{above}{name}", given.get(name, field.get("default"))
        required = name in section.get("required", ()) and name not in given
        yield path, field, None if required else _as_yaml(default)
        if path in {"tiers.grade", "refresh.train.schedule"}:  # {every_days: N}, told with the names
            continue
        for inner in _sections(schema, field):
            yield from _walk(schema, inner, f"{path}.", default if isinstance(default, dict) else {})


def _sections(schema: dict[str, Any], field: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the sections that a field may hold."""
    if "$ref" in field:
        inner = schema["$defs"][field["$ref"].rpartition("/")[2]]
        yield from [inner] if "properties" in inner else []
    for part in (*field.get("anyOf", ()), field.get("additionalProperties"), field.get("items")):
        if isinstance(part, dict):
            yield from _sections(schema, part)


def _type(schema: dict[str, Any], field: dict[str, Any], language: str) -> str:
    """Return the type of a field in words."""
    say = words(language)
    if "anyOf" in field:
        parts = dict.fromkeys(_type(schema, part, language) for part in field["anyOf"] if part.get("type") != "null")
        return say["key_or"].join(part for part in parts if part != say["key_section"]) or say["key_section"]
    if "$ref" in field:
        inner = schema["$defs"][field["$ref"].rpartition("/")[2]]
        return say["key_section"] if "properties" in inner else _type(schema, inner, language)
    if values := field.get("enum", [field["const"]] if "const" in field else None):
        return (say["key_or"] if len(values) < _MANY else ", ").join(f"`{value}`" for value in values)
    kind = str(field.get("type"))
    if kind == "array":
        items = field.get("items") or field["prefixItems"][0]
        return say["key_list"].format(_type(schema, items, language))
    if kind == "object":
        return say["key_mapping"]
    return say[f"key_{field.get('format', kind)}"] + _limits(field, say)


def _limits(field: dict[str, Any], say: Mapping[str, str]) -> str:
    """Return the lowest and highest value of a number, as words to add to its type."""
    low, high = (field.get(name) for name in ("minimum", "maximum"))
    above, below = (field.get(name) for name in ("exclusiveMinimum", "exclusiveMaximum"))
    if low is not None and high is not None:
        return say["key_range"].format(f"{low:,.10g}", f"{high:,.10g}")
    told = (("key_from", low), ("key_above", above), ("key_to", high), ("key_below", below))
    return "".join(say[key].format(f"{limit:,.10g}") for key, limit in told if limit is not None)


def _as_yaml(default: Any) -> str:
    """Return a default as a project file would have it; nothing for what is not set, or is a section.

    >>> _as_yaml((30, 90)), _as_yaml(True), _as_yaml(None)
    ('[30, 90]', 'true', '')
    """
    if default is None or isinstance(default, dict):
        return ""
    text: str = yaml.safe_dump(default, default_flow_style=True, width=1_000, allow_unicode=True)
    return text.removesuffix("...\n").strip()


def to_markdown(language: str) -> str:
    """Return a table of the keys of each section as Markdown, under a heading each."""
    say, tables = words(language), dict[str, list[Key]]()
    for key in every_key(language):
        if key.type != say["key_section"] or key.path.endswith("columns"):
            tables.setdefault(_section_of(key.path), []).append(key)
    return "\n\n".join(_table(section, keys, language) for section, keys in tables.items())


def _section_of(path: str) -> str:
    """Return under which heading a key is told: its section at the top, and of data its table.

    >>> [_section_of(path) for path in ("seed", "churn.campaign.contact", "data.memory", "data.costs.columns.time")]
    ['', 'churn', 'data', 'data.costs']
    """
    parts = path.split(".")
    deep = parts[0] == "data" and len(parts) > 2 and parts[1] != "ids"
    return ".".join(parts[: 2 if deep else 1]) if len(parts) > 1 else ""


def _table(section: str, keys: list[Key], language: str) -> str:
    say = words(language)
    told = f": {in_language(language, *meanings()[section])}" if section in meanings() else ""
    lines = [f"### `{section}`{told}" if section else f"### {say['key_top']}", "", say["key_head"], "|---|---|---|---|"]
    for key in keys:
        default = say["key_required"] if key.default is None else key.default and f"`{key.default}`"
        name = key.path.removeprefix(f"{section}.")
        lines.append(f"| `{name}` | {key.type} | {default} | {key.meaning} |")
    return "\n".join(lines)
