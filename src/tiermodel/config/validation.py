"""Typed checks of what a YAML file holds: every problem in words, with its key, its line and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from tiermodel.config.yaml_reader import Loc, YamlSource, shown

__all__ = ["checked", "nearest"]


_Section = TypeVar("_Section", bound=BaseModel)
_ANY = "*"  # stands for the key of a mapping whose keys the user chooses
_MAPPING = "expected a mapping (key: value), got {value}; write one, or remove the key to keep the defaults"
_PLAIN = {
    "bool_type": "expected true or false, got {value}",
    "dict_type": _MAPPING,
    "extra_forbidden": "unknown key; {hint}",
    "finite_number": "expected a finite number, got {value}",
    "float_parsing": "expected a number, got {value}",
    "float_type": "expected a number, got {value}",
    "greater_than": "must be above {gt}, got {value}",
    "greater_than_equal": "must be at least {ge}, got {value}",
    "int_type": "expected a whole number (int), got {value}",
    "less_than": "must be below {lt}, got {value}",
    "less_than_equal": "must be at most {le}, got {value}",
    "literal_error": "allowed values: {expected}; got {value}",
    "missing": "this key is required; add it",
    "model_type": _MAPPING,
    "string_type": "expected text, got {value}; put text that looks like a number, a date or yes/no in quotes",
    "tuple_type": "expected a list such as [first, second], got {value}",
    "value_error": "{error}",
}


def checked(kind: type[_Section], document: Mapping[str, Any], source: YamlSource, **given: Any) -> _Section:
    """Return what a file's mapping says, as the model `kind`; `given` are fields that are no keys of the file.

    Raises ProjectError with one line for each problem, those that `source` has noted before included.
    """
    found = None
    try:
        found = kind.model_validate({**document, **given})
    except ValidationError as error:
        for item in error.errors(include_url=False):
            of_key = item["type"] in {"extra_forbidden", "missing"}
            words = _in_words(item, [known for known in _keys(kind) if known[0] not in given])
            source.note(source.place(item["loc"], of_key=of_key), item["loc"], words)
    source.refuse_problems()
    assert found is not None  # noqa: S101  each error of validation has been noted, and refused
    return found


def _in_words(item: ErrorDetails, known: list[tuple[str, ...]]) -> str:
    words = {**item.get("ctx", {}), "msg": item["msg"], "value": shown(item["input"])}
    return _PLAIN.get(item["type"], "{msg}, got {value}").format(**words, hint=_known_instead(item["loc"], known))


def _known_instead(loc: Loc, everywhere: list[tuple[str, ...]]) -> str:
    """Return a hint for an unknown key: the nearest key of its section, else of another section, else all keys."""
    section, key = loc[:-1], str(loc[-1])
    beside = [known[-1] for known in everywhere if _is_of(known[:-1], section)]
    if near := nearest(key, beside):
        return f"did you mean {near}?"
    if near := nearest(key, [known[-1] for known in everywhere]):
        return f"did you mean {' or '.join('.'.join(known) for known in everywhere if known[-1] == near)}?"
    return f"known here: {', '.join(beside)}"


def _is_of(section: tuple[str, ...], loc: Loc) -> bool:
    return len(section) == len(loc) and all(part in {_ANY, here} for part, here in zip(section, loc, strict=True))


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that a word is most like, whatever the case; None where none is alike.

    >>> nearest("Budgt", ["budget", "floor"])
    'budget'
    """
    folded = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), folded, n=1)
    return folded[near[0]] if near else None


def _keys(section: type[BaseModel], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, field in section.model_fields.items():
        yield (*above, name)
        kind: Any = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _keys(kind, (*above, name))
        for part in get_args(kind):
            if isinstance(part, type) and issubclass(part, BaseModel) and getattr(kind, "__origin__", None) is dict:
                yield from _keys(part, (*above, name, _ANY))
