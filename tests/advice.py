"""Take out of a message what it tells to write into the project file."""

from __future__ import annotations

import re

__all__ = ["expressions_by_unit", "mapped_as"]

_AFTER = (
    r", (?:an instant since 1970 in UTC|days of julianday\(\) in UTC|days of a spreadsheet, no epoch"
    r"|of (?:Buddhist|Minguo) years)$"
)
_EITHER = r"(.*) if (?:the day comes first|the comma parts thousands), to (.*) if (?:the month does|it is the .*)"


def mapped_as(said: str) -> list[str]:
    """Return the expressions that the remedy for a value tells to map: one, or two where the value leaves a doubt."""
    told = re.search(r"map \w+ to (.*)", said)
    assert told, said
    words = re.sub(_AFTER, "", told[1])
    one = re.match(_EITHER, words)
    return [one[1], one[2]] if one else [words]


def expressions_by_unit(said: str) -> dict[str, str]:
    """Return the expressions that the refusal of a column of numbers offers, by the unit that each is for."""
    told = said.partition("Map an expression: ")[2].rstrip(".")
    parts = re.split(r", (?=to_timestamp|epoch_ms|DATE|strptime)", told)
    return {unit: expression for expression, _, unit in (part.rpartition(" for ") for part in parts)}
