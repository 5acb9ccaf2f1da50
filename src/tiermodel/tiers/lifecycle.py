"""Lifecycle stage 生命周期阶段 and loyalty stage 忠诚度阶梯, by rules on the customer's own purchase rhythm."""

from __future__ import annotations

import numpy as np
import pandas as pd

from tiermodel.arrays import Ints

__all__ = ["LIFECYCLE", "LOYALTY", "lifecycle_and_loyalty", "typical_rhythm"]


LIFECYCLE = ("prospect", "first", "repeat", "loyal", "silent", "churned")
LOYALTY = ("lost", "wavering", "attached", "loyal")

_SILENT, _CHURNED = 1.0, 2.0  # multiples of the customer's rhythm, the longest usual gap
_LOYAL_DAYS, _LOYAL_SHARE = 6, 0.5


def typical_rhythm(snapshot: pd.DataFrame) -> float:
    """Return the 90 % quantile of the longest gaps of repeat customers, in days; 90 days where there are none.

    Customers with few purchases have no rhythm of their own and get this one.
    """
    longest = snapshot["gap_days_max"].to_numpy(dtype=np.float64)
    longest = longest[~np.isnan(longest)]
    return float(np.quantile(longest, 0.9)) if longest.size else 90.0


def lifecycle_and_loyalty(frame: pd.DataFrame, typical: float) -> tuple[Ints, Ints]:
    """Return each row's position in `LIFECYCLE` and in `LOYALTY`; `typical` is a gap in days.

    A customer is silent when the days since the last purchase exceed the customer's rhythm: the longest gap so far, at
    least twice the mean gap, and with fewer than three purchase days at least `typical`. Beyond twice the rhythm the
    customer is churned. Loyal customers have six purchase days or more, in half of the 30-day blocks since the first
    purchase.
    """
    since = frame["days_since_last"].to_numpy(dtype=np.float64)
    days = frame["purchase_days_total"].to_numpy(dtype=np.float64)
    own = np.fmax(
        frame["gap_days_max"].to_numpy(dtype=np.float64), 2 * frame["gap_days_mean"].to_numpy(dtype=np.float64)
    )
    rhythm = np.where(days >= 3, own, np.fmax(typical, np.nan_to_num(own)))
    loyal = (days >= _LOYAL_DAYS) & (frame["active_share"].to_numpy(dtype=np.float64) >= _LOYAL_SHARE)
    lifecycle = np.select(
        [np.isnan(since), since > _CHURNED * rhythm, since > _SILENT * rhythm, loyal, days >= 2],
        [LIFECYCLE.index(s) for s in ("prospect", "churned", "silent", "loyal", "repeat")],
        default=LIFECYCLE.index("first"),
    )
    of_stage = {"churned": "lost", "repeat": "attached", "loyal": "loyal"}
    rung = np.array([LOYALTY.index(of_stage.get(stage, "wavering")) for stage in LIFECYCLE])
    return lifecycle, rung[lifecycle]
