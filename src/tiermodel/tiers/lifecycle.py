"""Lifecycle stage 生命周期阶段 and loyalty stage 忠诚度阶梯, by rules on the customer's own purchase rhythm."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from tiermodel.arrays import Flags, Floats, Ints

__all__ = [
    "LIFECYCLE",
    "LOST",
    "LOYALTY",
    "MOST_DAYS",
    "RHYTHM_DAYS",
    "lifecycle_and_loyalty",
    "silence_ratio",
    "typical_rhythm",
]


LIFECYCLE = ("prospect", "first", "repeat", "loyal", "silent", "churned")
LOYALTY = ("lost", "wavering", "attached", "loyal")

RHYTHM_DAYS = ("purchase_days_total", "gap_days_max", "gap_days_mean")
"""The features that a customer's own rhythm is made of."""
MOST_DAYS = 1e9
SILENT, LOST = 1.0, 2.0
"""The silence ratios above which a customer is silent, and lost."""
_LOYAL_DAYS, _LOYAL_SHARE = 6, 0.5
_RUNGS = {
    "prospect": -1, "churned": LOYALTY.index("lost"), "repeat": LOYALTY.index("attached"),
    "loyal": LOYALTY.index("loyal"),
}  # fmt: skip


def typical_rhythm(snapshot: pd.DataFrame) -> float:
    """Return the 90 % quantile of the longest gaps of repeat customers, in days; 90 days where there are none.

    Customers with few purchases have no rhythm of their own and get this one.
    """
    longest = snapshot["gap_days_max"].to_numpy(dtype=np.float64)
    longest = longest[~np.isnan(longest)]
    return float(np.quantile(longest, 0.9)) if longest.size else 90.0


def silence_ratio(frame: pd.DataFrame, typical: float) -> Floats:
    """Return each row's days since the last purchase over the customer's rhythm; NaN before the first purchase.

    The rhythm is the longest gap so far, at least twice the mean gap, and with fewer than three purchase days at least
    `typical`, in days.
    """
    days, longest, mean = (np.fmin(np.nan_to_num(frame[name], nan=1.0), MOST_DAYS) for name in RHYTHM_DAYS)
    own = np.maximum(longest, 2 * np.maximum(mean, 0.0)).clip(1.0, MOST_DAYS)  # purchase days lie a day apart
    rhythm = np.where(days >= 3, own, np.maximum(typical, own))
    since = frame["days_since_last"].to_numpy(dtype=np.float64).clip(min=0.0)
    since[since < 1 / MOST_DAYS] = 0.0  # less than a day is none, and databases refuse what a division makes too small
    return np.divide(since, rhythm, out=np.full(len(frame), np.nan), where=~np.isnan(since))


def lifecycle_and_loyalty(frame: pd.DataFrame, typical: float) -> tuple[Ints, Ints]:
    """Return each row's position in `LIFECYCLE` and in `LOYALTY` (-1: no purchase yet); `typical` is a gap in days.

    A customer is silent when the silence ratio is above 1, and churned above 2. Loyal customers have six purchase days
    or more, in half of the 30-day blocks since the first purchase. On the loyalty ladder, a complaint within the
    longest window takes a customer down one rung, down to the wavering; a referral without one takes an attached
    customer up.
    """
    silence = silence_ratio(frame, typical)
    days = frame["purchase_days_total"].to_numpy(dtype=np.float64)
    loyal = (days >= _LOYAL_DAYS) & (frame["active_share"].to_numpy(dtype=np.float64) >= _LOYAL_SHARE)
    lifecycle = np.select(
        [np.isnan(silence), silence > LOST, silence > SILENT, loyal, days >= 2],
        [LIFECYCLE.index(s) for s in ("prospect", "churned", "silent", "loyal", "repeat")],
        default=LIFECYCLE.index("first"),
    )
    rung = np.array([_RUNGS.get(stage, LOYALTY.index("wavering")) for stage in LIFECYCLE])[lifecycle]
    wavering, attached = LOYALTY.index("wavering"), LOYALTY.index("attached")
    referred, complained = _within_longest_window(frame, "referral"), _within_longest_window(frame, "complaint")
    rung = rung + (referred & ~complained & (rung == attached))
    return lifecycle, rung - (complained & (rung > wavering))


def _within_longest_window(frame: pd.DataFrame, kind: str) -> Flags:
    """Return which customers have an event of a kind within the longest window that is built; none without events."""
    pattern = re.compile(rf"{kind}_count_(\d+)d")
    windows = [int(found[1]) for name in frame.columns if (found := pattern.fullmatch(name))]
    if not windows:
        return np.zeros(len(frame), dtype=np.bool_)
    return frame[f"{kind}_count_{max(windows)}d"].to_numpy(dtype=np.float64) > 0
