"""The page's sections on time: tiers over all gradings of a ledger, and who moved since the grading before."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

import numpy as np

from tiermodel.ledger.ledger import Ledger
from tiermodel.ledger.movement import Movement
from tiermodel.reporting.charts import Chart, trend
from tiermodel.reporting.inputs import ReportInputs

__all__ = ["history_sections", "previous_grading"]

_MOST_DAYS, _DEPTHS = 24, 8


def history_sections(inputs: ReportInputs, names: list[str], wording: Mapping[str, str]) -> dict[str, Any]:
    """Return the movement since the grading before, and with a ledger of two or more gradings the trend."""
    sections: dict[str, Any] = {"movement": _movement(inputs, names)}
    if (chart := _trend(inputs, names, wording)) is not None:
        sections["trend"] = chart
    return sections


def previous_grading(inputs: ReportInputs) -> str | None:
    """Return the day of the last grading before the scores' date; None without a ledger that has one."""
    if inputs.ledger is None or inputs.scores is None:
        return None
    day = str(inputs.scores["as_of"].iloc[0])
    return max((str(graded) for graded in inputs.ledger.graded if str(graded) < day), default=None)


def _trend(inputs: ReportInputs, names: list[str], wording: Mapping[str, str]) -> Chart | None:
    assert inputs.scores is not None  # noqa: S101  # only a page with scores has names
    if inputs.ledger is None:
        return None
    last = date.fromisoformat(str(inputs.scores["as_of"].iloc[0]))
    days = [day for day in inputs.ledger.graded if day <= last][-_MOST_DAYS:]
    if len(days) < 2:
        return None
    counts = np.array([_sizes(inputs.ledger, day, inputs.codes) for day in days])
    return trend(names, list(map(str, days)), counts, wording)


def _sizes(ledger: Ledger, day: date, codes: list[str]) -> list[int]:
    tiers = ledger.tiers_on(day)["tier_code"].to_pandas().astype(str).value_counts()
    return [int(tiers.get(code, 0)) for code in codes]


def _movement(inputs: ReportInputs, names: list[str]) -> dict[str, Any] | None:
    """Return the counts of customers by previous and present tier, highest first; None without a previous tier."""
    scores = inputs.scores
    assert scores is not None  # noqa: S101
    before, now = scores["previous_tier"].to_numpy(), scores["tier"].to_numpy()
    known = np.isin(before, np.arange(len(names)))
    if not known.any():
        return None
    n = len(names)
    counts = np.zeros((n + 1, n + 1), dtype=np.int64)
    np.add.at(counts, (np.where(known, np.nan_to_num(before), n).astype(np.int64), now), 1)
    moved = Movement(inputs.codes, counts)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    order, hidden = range(n - 1, -1, -1), moved.hidden
    rows = [
        (names[i], [_cell(int(counts[i, j]), float(shares[i, j]), j - i, hidden=hidden[i, j]) for j in order])
        for i in order
    ]  # fmt: skip
    found = moved.summary()
    return {
        "names": names[::-1], "rows": rows, "from": previous_grading(inputs), "to": str(scores["as_of"].iloc[0]),
        **{key: found[key] for key in ("up", "down", "same", "new")}, "moved": found["up"] + found["down"],
    }  # fmt: skip


def _cell(count: int, share: float, direction: int, *, hidden: bool) -> dict[str, Any]:
    """Return the text of a cell and its look; what would tell of fewer than five customers is hidden."""
    if hidden:
        return {"text": "< 5" if count < 5 else "…", "depth": 0, "kind": "small"}
    kind = "none" if not count else "same" if not direction else "up" if direction > 0 else "down"
    return {"text": f"{count:,}", "depth": min(int(share * _DEPTHS * 1.4) + (count > 0), _DEPTHS - 1), "kind": kind}
