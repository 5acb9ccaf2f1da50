"""A check of the gate: its name, whether a person may accept that it failed, its finding, and what to do about it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tiermodel.words import words

__all__ = ["ADVISORY", "BLOCKING", "Check", "Situation"]


BLOCKING = ("signal", "churn", "value")
"""The checks that nobody can overrule: something to learn from, and not clearly worse than the champion."""
ADVISORY = (
    "evaluation", "baselines", "calibration", "segments", "improvement", "margin", "value_captured", "kappa",
    "movement", "rolled_back",
)  # fmt: skip
"""The checks that a person may accept as failed, with a reason."""


@dataclass(frozen=True)
class Situation:
    """Who is compared, for the texts of the checks.

    `champion` is the version in place (None: none). A `refresh` has the champion's design and data that are not older.
    `aligned` is a date as of which a training would share dates with the champion, `waits` the day up to which the log
    must reach for out-of-time predictions; None where there is none. `store` is the tracking store, where it is not the
    default.
    """

    name: str = "NAME"
    challenger: str = "VERSION"
    champion: str | None = None
    refresh: bool = False
    rolled_back: bool = False
    aligned: str | None = None
    waits: str | None = None
    store: str | None = None
    language: str = "en"

    @property
    def words(self) -> Mapping[str, str]:
        """The texts in the language of the project."""
        return words(self.language)

    def text(self, key: str, **blanks: Any) -> str:
        """Return a text with its blanks filled, those of the situation among them."""
        known = {"name": self.name, "version": self.challenger, "champion": self.champion, "waits": self.waits}
        return self.words[f"gate_{key}"].format(**{**known, "aligned": self.aligned, **blanks})

    def accept(self, *checks: str) -> str:
        """Return the command that accepts failed checks."""
        store = "" if self.store is None else f" --tracking-uri {shlex.quote(self.store)}"
        return (
            f"tiermodel promote {self.name} --challenger {self.challenger}{store} "
            f'{" ".join(f"--accept {check}" for check in checks)} --operator "WHO" --reason "WHY"'
        )


@dataclass(frozen=True)
class Check:
    """Result of one check of the gate: its finding in words and figures, and what to do now where it failed."""

    name: str
    passed: bool
    words: str
    remedy: str = ""

    @property
    def blocking(self) -> bool:
        """Whether nobody can overrule it."""
        return self.name in BLOCKING

    @classmethod
    def of(cls, situation: Situation, name: str, found: str, *, passed: bool, remedy: str) -> Check:
        """Return a check; one that failed says what to do now, and an advisory one how to accept it."""
        if passed:
            return cls(name, passed, found)
        accept = situation.text("do_accept", command=situation.accept(name))
        ways = [remedy, *([] if name in BLOCKING else [accept])]
        return cls(name, passed, found, situation.text("do", remedy=situation.words["semicolon"].join(ways)))

    def line(self, situation: Situation, *, accepted: bool = False) -> str:
        """Return the finding as one line: passed, failed or accepted, and of which kind."""
        state = "passed" if self.passed else "accepted" if accepted else "failed"
        kind = "" if self.passed or accepted else situation.text("blocking" if self.blocking else "advisory")
        told = self._told(situation)
        return situation.text("line", state=situation.text(state), check=told, kind=kind, words=self.words)

    def _told(self, situation: Situation) -> str:
        """Return the name of the check, in Chinese with the name that `--accept` takes."""
        named = situation.text(f"name_{self.name}")
        return named if named == self.name else f"{named}（{self.name}）"

    def to_dict(self) -> dict[str, Any]:
        """Return the check as JSON holds it."""
        kind = "blocking" if self.blocking else "advisory"
        return {"name": self.name, "kind": kind, "passed": self.passed, "words": self.words, "remedy": self.remedy}
