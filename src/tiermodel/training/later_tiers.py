"""Tiers for the gate: those of later snapshots by a scheme that was fitted before them, and who would change tier."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from tiermodel.bundle.bundle import Bundle
from tiermodel.errors import TierModelError
from tiermodel.features.frame import KEYS, has_bought
from tiermodel.tiers.fitted_scheme import FittedScheme, fit_scheme

__all__ = ["LEVELS", "tier_changes", "with_tiers"]


LEVELS = ("level", "tier_code", "key_level")
"""The columns of tiers beside out-of-time predictions: the level, its code, and whether it is a key level (1, 0)."""


def with_tiers(
    predictions: pd.DataFrame, rows: pd.DataFrame, scheme: FittedScheme, delay_days: int, seed: int
) -> pd.DataFrame:
    """Return out-of-time predictions of value with `LEVELS`, missing where there is nothing to fit the scheme on.

    `rows` are the training rows. The scheme is fitted on what was known at the first date of the predictions, so that
    a learned one has not seen what follows. No stability rule and no capacity is applied.
    """
    first = predictions["as_of"].min()
    snapshot, past = rows[rows["as_of"] == first], rows[rows["as_of"] + pd.Timedelta(days=delay_days) <= first]
    try:
        fitted = fit_scheme(scheme.scheme, snapshot, past, seed, delay_days)
    except TierModelError:  # too little was known by then: the gate says that tiers are not measured
        return predictions.assign(level=np.nan, tier_code=None, key_level=np.nan)
    later = rows[rows["as_of"] >= first]
    level, levels = fitted.assign(later)[0], fitted.scheme.levels
    found = later[list(KEYS)].assign(
        as_of=later["as_of"].astype(predictions["as_of"].dtype),
        level=level.astype(np.float64),
        tier_code=np.array(fitted.scheme.codes, dtype=object)[level],
        key_level=np.array([float(one.key) for one in levels])[level],
    )
    return predictions.merge(found, on=list(KEYS), how="left", validate="one_to_one")


def tier_changes(champion: Bundle, challenger: Bundle, snapshot: pd.DataFrame) -> dict[str, Any] | None:
    """Return how many customers of a snapshot the challenger grades otherwise than the champion, with their value.

    Tiers are those of the rules: the stability rule lets fewer move. `value` is the challenger's expected value, in
    currency units. None where the schemes have other levels, or the snapshot lacks a feature that the champion reads.
    """
    mine, theirs = challenger.scheme, champion.scheme
    if mine.scheme.codes != theirs.scheme.codes:
        return None
    if not {*champion.inputs.names, *theirs.scheme.text_features} <= set(snapshot):
        return None
    before, after = theirs.assign(snapshot)[0], mine.assign(snapshot)[0]
    bought = has_bought(snapshot)
    value = np.zeros(len(snapshot))
    value[bought] = challenger.value.predict(challenger.inputs.matrix(snapshot[bought]))
    moved = before != after
    return {
        "champion": champion.version,
        "customers": len(snapshot),
        "up": int(np.count_nonzero(after > before)),
        "down": int(np.count_nonzero(after < before)),
        "value": float(value.sum()),
        "moved_value": float(value[moved].sum()),
    }
