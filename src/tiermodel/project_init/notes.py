"""What `init` assumed, one plain line each, in both languages."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tiermodel.words import words

__all__ = ["Note"]


@dataclass(frozen=True)
class Note:
    """One assumption: its text in `words.yaml` without `init_`, and what fills it."""

    key: str
    values: dict[str, Any] = field(default_factory=dict)

    def text(self, language: str) -> str:
        """Return the note as a text.

        >>> Note("encoding", {"encoding": "gb18030"}).text("en")
        'encoding gb18030'
        """
        wording = words(language)
        values = {name: wording[value[1:]] if _is_word(value) else value for name, value in self.values.items()}
        return wording[f"init_{self.key}"].format(**values)


def _is_word(value: object) -> bool:
    """Return whether a value is itself a text of `words.yaml`, written `@init_…`."""
    return isinstance(value, str) and value.startswith("@init_")
