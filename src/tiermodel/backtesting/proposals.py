"""What a backtest says of the project's scheme: its faults by date, and the better scheme for the project file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["proposed_scheme", "scheme_faults"]

_KEEP = "No scheme is better than the project's beyond chance at every date: keep it."


def scheme_faults(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return, as text, on which dates a level of the project's scheme was empty, or a higher level brought less.

    `rows` are the figures of all schemes by date.

    >>> rows = [{"ours": True, "as_of": "2024-03-01", "empty": ["key"], "monotone": False}]
    >>> for line in scheme_faults(rows):
    ...     print(line)
    2024-03-01: nobody reaches the level key
    2024-03-01: the value that followed does not rise with the level
    """
    lines = []
    for row in rows:
        if row["ours"] and row["empty"]:
            lines.append(f"{row['as_of']}: nobody reaches the level {', '.join(row['empty'])}")
        if row["ours"] and not row["monotone"]:
            lines.append(f"{row['as_of']}: the value that followed does not rise with the level")
    return lines


def proposed_scheme(summary: Sequence[Mapping[str, Any]], dates: int) -> str:
    """Return a line for the project file with the scheme that is better than the project's own at every date.

    Better means: its key customers capture more of the value than as many of the project's best, beyond chance. Where
    the project's scheme leaves a level empty or its value does not rise with the level, one that does neither at any
    date, and is worse beyond chance at none, is better too. Of several the one with the highest Gini is proposed; where
    there is none, the line says so.
    """
    best = next((row for row in summary if row["better"] == dates), None)
    if best is not None:
        return f"A scheme that is better beyond chance at every date, as a line for the project file: {_line(best)}"
    own, *others = summary
    if _sound(own, dates):
        return _KEEP
    best = next((row for row in others if _sound(row, dates) and row["worse"] == 0), None)
    if best is None:
        return f"{_KEEP} No other fills every level and rises in value with it, either."
    return (
        "A scheme that fills every level, whose value rises with the level at every date, and which is worse beyond "
        f"chance at none, as a line for the project file: {_line(best)}"
    )


def _sound(row: Mapping[str, Any], dates: int) -> bool:
    return row["empty"] == 0 and row["monotone"] == dates


def _line(row: Mapping[str, Any]) -> str:
    return f"tiers: {{scheme: {row['scheme']}}}"
