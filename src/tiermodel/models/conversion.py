"""Conversion: the probability that a prospect, who has not bought yet, makes a first purchase in the outcome window.

Prospects have contacts, signups and attributes; features of purchases are the same for all of them and left out.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from tiermodel.arrays import Flags
from tiermodel.features.frame import has_bought
from tiermodel.models.calibrated_ensemble import CalibratedEnsemble, fit_calibrated_ensemble

__all__ = ["fit_prospects", "is_prospect"]


def is_prospect(frame: pd.DataFrame) -> Flags:
    """Return whether each row is of a prospect: a customer who has not bought before its date."""
    return ~has_bought(frame)


def fit_prospects(
    panel: pd.DataFrame, names: tuple[str, ...], delay_days: int, seed: int
) -> tuple[CalibratedEnsemble | None, pd.DataFrame]:
    """Return the conversion model of a panel sorted by key, on the features of `names` that vary among its prospects.

    The model is None where too few prospects bought, or no feature varies. Labels are known after `delay_days`. Also
    return out-of-fold predictions, as `fit_calibrated_ensemble` does.
    """
    rows = panel[is_prospect(panel) & panel["outcome_purchase_days"].notna()].reset_index(drop=True)
    x = rows[list(names)].to_numpy(dtype=np.float64)
    varying = [j for j, column in enumerate(x.T) if len(np.unique(column)) > 1]
    bought = (rows["outcome_purchase_days"] > 0).to_numpy() & bool(varying)
    varying_names = tuple(names[j] for j in varying)
    return fit_calibrated_ensemble(rows, x[:, varying], bought, varying_names, delay_days, seed)
