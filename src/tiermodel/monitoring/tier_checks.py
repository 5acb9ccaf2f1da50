"""The tiers of a ledger against what it led one to expect: the mix that it forecast, who moved, and who moved back."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tiermodel.arrays import Floats
from tiermodel.ledger.ledger import Ledger
from tiermodel.ledger.movement import forecast_sizes, movement
from tiermodel.monitoring.alarms import Alarm

__all__ = ["tier_checks"]

_GRADINGS = 14  # the last of them: each one is compared with the one before
_FEWEST_BEFORE = 3
_TIMES, _SLACK = 1.5, 0.02  # of the largest before, and a share that nobody would act on


def tier_checks(folder: Path, as_of: date) -> tuple[dict[str, Any], list[Alarm]]:
    """Return the figures of the last grading up to a day beside those of the gradings before, and the alarms.

    `mix_error` is how far the sizes of tiers were from the forecast made at the grading before, `moved` the share of
    customers in another tier, `reversed` that of customers who moved against their move of the grading before. Fewer
    than three gradings to compare with raise no alarm.
    """
    Ledger(folder).must_exist()
    book = Ledger(folder, known_on=as_of)  # which may have nothing by then
    days = [day for day in book.graded if day <= as_of][-_GRADINGS:]
    codes = list(book.known_levels)
    if len(days) < 2:
        return {"gradings": [str(day) for day in days]}, []
    tiers = [book.tiers_on(day).to_pandas() for day in days]
    steps = [movement(before, after, codes) for before, after in pairwise(tiers)]
    moved = [_moved(step.summary()) for step in steps]
    series = {
        "mix_error": [row["error"] for row in forecast_sizes(days, steps).backtest],
        "moved": moved,
        "reversed": _reversed(tiers, {code: n for n, code in enumerate(codes)}),
    }
    figures: dict[str, Any] = {"gradings": [str(day) for day in days], "customers": len(tiers[-1])}
    alarms = []
    for name, kind in (("mix_error", "mix"), ("moved", "movement"), ("reversed", "reversals")):
        found = series[name]
        figures[name] = {"last": round(found[-1], 4) if found else None, "before": [round(x, 4) for x in found[:-1]]}
        before = found[:-1]
        if len(before) >= _FEWEST_BEFORE and found[-1] > _TIMES * max(before) + _chance(found[-1], len(tiers[-1])):
            shown = {"found": round(found[-1], 4), "largest": round(max(before), 4), "day": str(days[-1])}
            alarms.append(Alarm(kind, kind, days[-1], shown))
    return figures, alarms


def _chance(share: float, customers: int) -> float:
    return _SLACK + 3 * float(np.sqrt(share * max(1 - share, 0.0) / max(customers, 1)))


def _moved(summary: dict[str, int]) -> float:
    stayed = summary["same"] + summary["up"] + summary["down"]
    return (summary["up"] + summary["down"]) / stayed if stayed else 0.0


def _reversed(tiers: Sequence[pd.DataFrame], level: dict[str, int]) -> list[float]:
    """Return, for each three gradings in a row, the share of customers who moved one way and then the other."""
    levels: list[pd.Series[float]] = [
        pd.Series(one["tier_code"].map(level).to_numpy(dtype=np.float64), index=one["customer_id"]) for one in tiers
    ]
    found = []
    for first, second, third in zip(levels, levels[1:], levels[2:], strict=False):
        rows = pd.concat([first, second, third], axis=1, join="inner").to_numpy(dtype=np.float64)
        turns: Floats = np.sign(rows[:, 1] - rows[:, 0]) * np.sign(rows[:, 2] - rows[:, 1])
        found.append(float((turns < 0).mean()) if len(rows) else 0.0)
    return found
