"""The verdict of the gate on a version, what a person accepted, and the result of a promotion or a rollback."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tiermodel.errors import ProjectError
from tiermodel.tracking.checks import ADVISORY, BLOCKING, Check, Situation
from tiermodel.words import words

__all__ = ["Acceptance", "Promotion", "Verdict"]


@dataclass(frozen=True)
class Acceptance:
    """A person's decision to promote although advisory checks failed: which, who decided, and why."""

    checks: tuple[str, ...]
    operator: str
    reason: str

    def __post_init__(self) -> None:
        """Raise `ProjectError` for a check that does not exist or cannot be accepted, and for an empty text."""
        for name in self.checks:
            if name in BLOCKING:
                raise ProjectError(
                    f"--accept {name}: this check is blocking, nobody can overrule it; those that a person may accept "
                    f"are {', '.join(ADVISORY)}"
                )
            if name not in ADVISORY:
                raise ProjectError(f"--accept {name}: there is no such check; give one of {', '.join(ADVISORY)}")
        for what in ("operator", "reason"):
            if not getattr(self, what).strip():
                raise ProjectError(f"--{what} is empty; a check is accepted by somebody, and for a reason")


@dataclass(frozen=True)
class Verdict:
    """The gate's verdict on a version: every check, against `champion` (None: there is none), and who accepted what."""

    situation: Situation
    checks: tuple[Check, ...]
    acceptance: Acceptance | None = None

    @property
    def accepted(self) -> tuple[str, ...]:
        """The checks that failed and were accepted."""
        allowed = self.acceptance.checks if self.acceptance else ()
        return tuple(check.name for check in self.checks if not check.passed and check.name in allowed)

    @property
    def refused(self) -> tuple[str, ...]:
        """The checks that failed and were not accepted."""
        return tuple(check.name for check in self.checks if not check.passed and check.name not in self.accepted)

    @property
    def passed(self) -> bool:
        """Whether the version may become champion."""
        return not self.refused

    @property
    def reasons(self) -> tuple[str, ...]:
        """The finding of every check, one line each."""
        return tuple(check.line(self.situation, accepted=check.name in self.accepted) for check in self.checks)

    def lines(self) -> list[str]:
        """Return the findings as text, each failed one with what to do, and who accepted what."""
        found = []
        for check, reason in zip(self.checks, self.reasons, strict=True):
            found.append(f"- {reason}")
            if check.name in self.refused:
                found.append(f"  {check.remedy}")
        if len(self.refused) > 1 and not set(self.refused) & set(BLOCKING):
            found.append(self.situation.text("accept_all", command=self.situation.accept(*self.refused)))
        if self.situation.champion is not None:
            found.append(self.situation.text("is_refresh" if self.situation.refresh else "is_new"))
        if self.acceptance and self.accepted:
            told = {"operator": self.acceptance.operator, "reason": self.acceptance.reason}
            found.append(self.situation.text("by", **told))
        return found

    def to_text(self) -> str:
        """Return the verdict as text: whether the version may become champion, and every finding."""
        now = self.situation
        kept = now.text("none_yet" if now.champion is None else "stays")
        head = [now.text("would" if self.passed else "refused", kept=kept)]
        if not self.passed and now.champion is None:
            head.append(now.text("meanwhile"))
        return "\n".join([*head, *self.lines()])

    def to_dict(self) -> dict[str, Any]:
        """Return the verdict as JSON holds it."""
        now, who = self.situation, self.acceptance if self.accepted else None
        return {
            "name": now.name,
            "version": now.challenger,
            "champion": now.champion,
            "refresh": now.refresh,
            "passed": self.passed,
            "checks": [{**check.to_dict(), "accepted": check.name in self.accepted} for check in self.checks],
            "accepted": None if who is None else {"operator": who.operator, "reason": who.reason},
            "language": now.language,
        }


@dataclass(frozen=True)
class Promotion:
    """Result of a promotion or a rollback: the champion now, and the version before it (None: there was none).

    Texts are in the `language` of the model.
    """

    name: str
    version: str
    previous: str | None
    verdict: Verdict | None = None
    language: str = "en"

    @property
    def reasons(self) -> tuple[str, ...]:
        """The finding of every check of the gate."""
        return () if self.verdict is None else self.verdict.reasons

    def to_text(self) -> str:
        """Return the result as text, one line for each finding."""
        if self.verdict is None:
            told = {"name": self.name, "version": self.version, "previous": self.previous}
            return words(self.language)["gate_rolled_back_to"].format(**told)
        now = self.verdict.situation
        before = now.text("before", previous=self.previous) if self.previous else now.text("first")
        return "\n".join([now.text("promoted", before=before), *self.verdict.lines()])

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON holds it."""
        verdict = {} if self.verdict is None else self.verdict.to_dict()
        moved = {"name": self.name, "version": self.version, "previous": self.previous, "promoted": True}
        return {**verdict, **moved}
