"""What a backtest says of the project's scheme: its faults by date, and the better scheme for the project file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tiermodel.backtesting.tiers import scheme_summary
from tiermodel.words import words

__all__ = ["MEASURES", "clearly_better", "differences_to_ours", "proposed_scheme", "scheme_faults"]

MEASURES = ("value_capture_of_best", "qwk_value")
"""What a page compares schemes by: value of key customers over that of equally many best, and weighted kappa."""


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


def proposed_scheme(rows: Sequence[Mapping[str, Any]], language: str = "en") -> str:
    """Return a line for the project file with a scheme that is `clearly_better` than the project's own.

    Where there is none, and the project's scheme leaves a level empty or its value does not rise with the level, one
    that does neither at any date, and is worse beyond chance at none, is proposed: of several the one with the highest
    Gini. Where there is none, the line says so. `rows` are the figures of all schemes by date.
    """
    say = words(language)
    if better := clearly_better(rows):
        return say["proposal_better"].format(line=_line(better[0]))
    dates, (own, *others) = len({row["as_of"] for row in rows}), scheme_summary(rows)
    if _sound(own, dates):
        return say["proposal_keep"]
    best = next((row["scheme"] for row in others if _sound(row, dates) and row["worse"] == 0), None)
    if best is None:
        return say["proposal_keep"] + say["proposal_none_sound"]
    return say["proposal_sound"].format(line=_line(best))


def _sound(row: Mapping[str, Any], dates: int) -> bool:
    return row["empty"] == 0 and row["monotone"] == dates


def _line(scheme: str) -> str:
    return f"tiers: {{scheme: {scheme}}}"


def differences_to_ours(rows: Sequence[Mapping[str, Any]], scheme: str) -> dict[str, list[dict[str, Any]]]:
    """Return, for each of `MEASURES`, a scheme's difference to the project's by date: as_of, difference, low, high.

    `rows` are the figures of all schemes by date; a date at which a difference is not known is left out.
    """
    mine = [row for row in rows if row["scheme"] == scheme and not row.get("ours")]
    found: dict[str, list[dict[str, Any]]] = {}
    for measure in MEASURES:
        each = [(row["as_of"], row.get("minus_ours", {}).get(measure)) for row in mine]
        known = [{"as_of": day, **ends} for day, ends in each if ends and None not in (ends["low"], ends["high"])]
        found[measure] = [{key: row[key] for key in ("as_of", "difference", "low", "high")} for row in known]
    return found


def clearly_better(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the schemes that are better than the project's at every date by one measure and worse at none by any.

    Better and worse are beyond chance. Both `MEASURES` must be known at every date: a scheme that calls almost everyone
    a key customer captures nearly all the value, and its kappa says so. The highest mean Gini comes first.

    >>> ends = {"difference": 0.05, "low": 0.01, "high": 0.09}
    >>> other = {"scheme": "rfm", "ours": False, "as_of": "2024-03-01", "gini": 0.7}
    >>> ours = {"scheme": "pyramid", "ours": True, "as_of": "2024-03-01", "gini": 0.6}
    >>> clearly_better([ours, {**other, "minus_ours": {"value_capture_of_best": ends, "qwk_value": ends}}])
    ['rfm']
    >>> worse = {"difference": -0.2, "low": -0.25, "high": -0.15}
    >>> clearly_better([ours, {**other, "minus_ours": {"value_capture_of_best": ends, "qwk_value": worse}}])
    []
    """
    dates = {row["as_of"] for row in rows}
    better = {}
    for scheme in dict.fromkeys(row["scheme"] for row in rows if not row.get("ours")):
        found = differences_to_ours(rows, scheme)
        if any({row["as_of"] for row in each} != dates for each in found.values()):
            continue
        never_worse = all(row["high"] >= 0 for each in found.values() for row in each)
        if never_worse and any(all(row["low"] > 0 for row in each) for each in found.values()):
            ginis = [row["gini"] or 0.0 for row in rows if row["scheme"] == scheme]
            better[scheme] = sum(ginis) / len(ginis)
    return sorted(better, key=lambda scheme: -better[scheme])
