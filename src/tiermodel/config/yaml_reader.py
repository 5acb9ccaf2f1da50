"""Read YAML files: plain values only, the line of every key remembered, all problems reported together."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from tiermodel.errors import ProjectError

__all__ = ["Loc", "YamlSource", "shown"]

_MAX_BYTES = 256 * 1024
_MAX_NODES = 10_000
_MAX_DEPTH = 20
_MAX_NUMBER = 100  # characters
_MAX_PROBLEMS = 20
_OTHER_BASE = re.compile(r"[+-]?(0[0-9_]+|[0-9_]+(:[0-9_.]+)+)")  # 017 and 1:30, which YAML 1.1 reads as 15 and 90
_TEXT = "tag:yaml.org,2002:str"

Loc = tuple[int | str, ...]
_Place = tuple[int, int]  # line and column, from 1


def shown(value: object) -> str:
    """Return a value as text for a message: short, and without a password."""
    text = "nothing" if value is None else str(value) if isinstance(value, date) else repr(value)
    text = re.sub(r"://[^\s@]*@", "://…@", text)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _named(key: str) -> str:
    return key if re.fullmatch(r"[\w -]{1,80}", key) else shown(key)


class _Composer(yaml.SafeLoader):
    """A composer of plain values only: no alias, no tag, bounded in number and depth."""

    count = depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        self.count += 1
        self.depth += 1
        problem = None
        if isinstance(event, yaml.AliasEvent) or getattr(event, "tag", None):
            problem = "aliases (*name) and tags (!name) are refused; write the value out"
        elif self.count > _MAX_NODES or self.depth > _MAX_DEPTH:
            problem = f"more than {_MAX_NODES} values, or nested more than {_MAX_DEPTH} deep; shorten the file"
        elif isinstance(event, yaml.ScalarEvent) and re.search(r"[\0\ud800-\udfff]", event.value):
            problem = f"{shown(event.value)} holds NUL or half a character; remove it"
        if problem:
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)  # type: ignore[arg-type]
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class YamlSource:
    """A YAML file, the places of its keys and values, and the problems found in it; `what` it is, for messages."""

    def __init__(self, path: Path, what: str = "project file") -> None:
        self.path = path
        self.what = what
        self.keys: dict[Loc, _Place] = {}
        self.values: dict[Loc, _Place] = {}
        self.problems: list[tuple[_Place, str]] = []

    def read(self) -> dict[str, Any]:
        """Return the file's mapping as plain values; repeated keys and keys that are not text become problems."""
        text = self._text()
        try:
            composer = _Composer(text)
            node = composer.get_single_node()
        except yaml.reader.ReaderError as error:
            start = text.rfind("\n", 0, error.position)
            place = text.count("\n", 0, error.position) + 1, error.position - start
            raise self._unreadable(place, f"control character {error.character:#04x}; remove it") from None
        except yaml.MarkedYAMLError as error:
            tab = "found character '\\t'" in str(error.problem)
            problem = "TAB used as indentation; indent with spaces" if tab else f"cannot be read: {error.problem}"
            raise self._unreadable(_place(error.problem_mark), problem) from None
        if not isinstance(node, yaml.MappingNode):
            what = "the file is empty" if node is None else "the file does not hold a mapping (key: value)"
            raise self._unreadable((1, 1), f"{what}; start from one of the shipped {self.what}s")
        return self._mapping(composer, node, ())

    def _unreadable(self, place: _Place, problem: str) -> ProjectError:
        return ProjectError(f"{self.path}:{place[0]}:{place[1]}: {problem}")

    def _text(self) -> str:
        try:
            if not self.path.is_file():
                raise ProjectError(f"{self.path}: no such file; give the path of a {self.what} (YAML)")
            with self.path.open("rb") as file:
                raw = file.read(_MAX_BYTES + 1)
        except OSError as error:
            raise ProjectError(f"{self.path}: cannot be read: {error.strerror}") from None
        if len(raw) > _MAX_BYTES:
            raise ProjectError(f"{self.path}: larger than {_MAX_BYTES // 1024} KiB, which no {self.what} is")
        try:
            return raw.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            before = raw[: error.start]
            place = before.count(b"\n") + 1, error.start - before.rfind(b"\n")
            problem = f"byte {raw[error.start]:#04x} is not UTF-8; save the file as UTF-8"
            raise self._unreadable(place, problem) from None

    def _plain(self, composer: _Composer, node: yaml.Node, loc: Loc) -> object:
        self.values[loc] = _place(node.start_mark)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(composer, node, loc)
        if isinstance(node, yaml.SequenceNode):
            return [self._plain(composer, item, (*loc, index)) for index, item in enumerate(node.value)]
        if node.tag == _TEXT or len(node.value) > _MAX_NUMBER or _OTHER_BASE.fullmatch(node.value):
            return node.value
        try:
            return composer.construct_object(node)
        except (ValueError, yaml.YAMLError):
            # A date such as 2017-02-30 stays text: the section's own check says what it expects.
            return node.value

    def _mapping(self, composer: _Composer, node: yaml.MappingNode, loc: Loc) -> dict[str, Any]:
        plain: dict[str, Any] = {}
        for key_node, value_node in node.value:
            place, key = _place(key_node.start_mark), key_node.value
            if key_node.tag != _TEXT:
                got = shown(key) if isinstance(key_node, yaml.ScalarNode) else "a list or a mapping"
                self.note(place, loc, f"expected a key that is text, got {got}; put it in quotes")
            elif (first := self.keys.setdefault((*loc, key), place)) != place:
                again = f"key {shown(key)} stands on line {first[0]} and again on line {place[0]}; keep one"
                self.note(place, (*loc, key), again)
            else:
                plain[key] = self._plain(composer, value_node, (*loc, key))
        return plain

    def note(self, place: _Place, loc: Loc, problem: str) -> None:
        """Add a problem of the key at `loc`, standing at `place`."""
        key = "".join(f"[{part}]" if isinstance(part, int) else f".{_named(part)}" for part in loc).removeprefix(".")
        self.problems.append((place, f"{key}: {problem}" if key else problem))

    def place(self, loc: Loc, *, of_key: bool) -> _Place:
        """Return the place of the key or value at `loc`, or of the nearest mapping around it that the file has."""
        places = self.keys if of_key else self.values
        return next((places[loc[:end]] for end in range(len(loc), 0, -1) if loc[:end] in places), (1, 1))

    def refuse_problems(self) -> None:
        """Raise one ProjectError with all problems, in the order of the file, if there are any."""
        lines = [f"{self.path}:{line}:{column}: {problem}" for (line, column), problem in sorted(self.problems)]
        if len(lines) > _MAX_PROBLEMS:
            lines[_MAX_PROBLEMS:] = [f"{self.path}: and {len(lines) - _MAX_PROBLEMS} problems more"]
        if lines:
            raise ProjectError("\n".join(lines))


def _place(mark: yaml.Mark | None) -> _Place:
    return (mark.line + 1, mark.column + 1) if mark else (1, 1)
