"""Two ladders beside the tier, life cycle and loyalty: rules on the customer's own rhythm."""

from __future__ import annotations

import numpy as np
import pandas as pd

from tiermodel.arrays import Ints

__all__ = ["LIFECYCLE", "LOYALTY", "ladder_stages", "typical_rhythm"]

LIFECYCLE = {
    "prospect": "潜在客户",
    "first": "初次购买",
    "repeat": "重复购买",
    "loyal": "忠诚客户",
    "silent": "沉默客户",
    "churned": "流失客户",
}
LOYALTY = {"lost": "流失的客户", "wavering": "观望者", "attached": "惯常购买者", "loyal": "忠诚者"}

_SILENT, _CHURNED = 1.0, 2.0  # how many times the longest usual gap may pass
_LOYAL_DAYS, _LOYAL_SHARE = 6, 0.5


def typical_rhythm(snapshot: pd.DataFrame) -> float:
    """Give the gap, in days, that nine of ten repeat customers stay within: the yardstick for those who bought once."""
    longest = snapshot["gap_days_max"].to_numpy(dtype=np.float64)
    longest = longest[~np.isnan(longest)]
    return float(np.quantile(longest, 0.9)) if longest.size else 90.0


def ladder_stages(frame: pd.DataFrame, typical: float) -> tuple[Ints, Ints]:
    """Give each row's place in `LIFECYCLE` and in `LOYALTY`.

    A customer is silent when overdue beyond the longest gap ever kept (at least twice the usual gap, and with fewer
    than three purchase days at least the typical gap), churned beyond twice that. Loyal: six purchase days or more, in
    half of the 30-day blocks.
    """
    since = frame["days_since_last"].to_numpy(dtype=np.float64)
    days = frame["purchase_days_total"].to_numpy(dtype=np.float64)
    own = np.fmax(
        frame["gap_days_max"].to_numpy(dtype=np.float64), 2 * frame["gap_days_mean"].to_numpy(dtype=np.float64)
    )
    rhythm = np.where(days >= 3, own, np.fmax(typical, np.nan_to_num(own)))
    loyal = (days >= _LOYAL_DAYS) & (frame["active_share"].to_numpy(dtype=np.float64) >= _LOYAL_SHARE)
    stages = list(LIFECYCLE)
    lifecycle = np.select(
        [np.isnan(since), since > _CHURNED * rhythm, since > _SILENT * rhythm, loyal, days >= 2],
        [stages.index(s) for s in ("prospect", "churned", "silent", "loyal", "repeat")],
        default=stages.index("first"),
    )
    rungs = list(LOYALTY)
    of_stage = {"churned": "lost", "repeat": "attached", "loyal": "loyal"}
    rung = np.array([rungs.index(of_stage.get(stage, "wavering")) for stage in stages])
    return lifecycle, rung[lifecycle]
