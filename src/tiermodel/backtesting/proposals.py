"""What a backtest says of the project's scheme: its faults by date, and the better scheme for the project file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tiermodel.words import words

__all__ = ["proposed_scheme", "scheme_faults"]


def scheme_faults(rows: Sequence[Mapping[str, Any]], language: str = "en") -> list[str]:
    """Return, as text, on which dates a level of the project's scheme was empty, or a higher level brought less.

    `rows` are the figures of all schemes by date.

    >>> rows = [{"ours": True, "as_of": "2024-03-01", "empty": ["key"], "monotone": False}]
    >>> for line in scheme_faults(rows):
    ...     print(line)
    2024-03-01: nobody reaches the level key
    2024-03-01: the value that followed does not rise with the level
    """
    say, lines = words(language), list[str]()
    for row in rows:
        if row["ours"] and row["empty"]:
            levels = say["comma"].join(row["empty"])
            lines.append(say["proposal_empty"].format(day=row["as_of"], levels=levels))
        if row["ours"] and not row["monotone"]:
            lines.append(say["proposal_not_rising"].format(day=row["as_of"]))
    return lines


def proposed_scheme(summary: Sequence[Mapping[str, Any]], dates: int, language: str = "en") -> str:
    """Return a line for the project file with the scheme that is better than the project's own at every date.

    Better means: its key customers capture more of the value than as many of the project's best, beyond chance. Where
    the project's scheme leaves a level empty or its value does not rise with the level, one that does neither at any
    date, and is worse beyond chance at none, is better too. Of several the one with the highest Gini is proposed; where
    there is none, the line says so.
    """
    say = words(language)
    best = next((row for row in summary if row["better"] == dates), None)
    if best is not None:
        return say["proposal_better"].format(line=_line(best))
    own, *others = summary
    if _sound(own, dates):
        return say["proposal_keep"]
    best = next((row for row in others if _sound(row, dates) and row["worse"] == 0), None)
    if best is None:
        return say["proposal_keep"] + say["proposal_none_sound"]
    return say["proposal_sound"].format(line=_line(best))


def _sound(row: Mapping[str, Any], dates: int) -> bool:
    return row["empty"] == 0 and row["monotone"] == dates


def _line(row: Mapping[str, Any]) -> str:
    return f"tiers: {{scheme: {row['scheme']}}}"
