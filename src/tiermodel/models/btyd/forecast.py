"""What buy-till-you-die models expect of the buyers of a snapshot over the horizons of a project."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import pandas as pd

from tiermodel.arrays import Floats
from tiermodel.errors import DataError
from tiermodel.features.outcome import Labels
from tiermodel.models.btyd.bg_nbd import MBGNBD
from tiermodel.models.btyd.gamma_gamma import GammaGamma

__all__ = ["EXPECTED", "BtydForecaster", "Horizons", "frequency_recency_age", "mean_purchase"]

EXPECTED = ("expected_p_zero", "expected_purchases", "expected_spend", "pareto_p_zero")
"""P(no purchase), purchase days and spend that MBG/NBD and Gamma-Gamma expect over their horizons, and P(no purchase)
of Pareto/NBD, by which customers leave at any moment and not only at a purchase."""


def frequency_recency_age(frame: pd.DataFrame) -> tuple[Floats, Floats, Floats]:
    """Return buyers' repeat purchase days, days from first to last purchase, and from first purchase to the date."""
    age = frame["days_since_first"].to_numpy(dtype=np.float64)
    recency = age - frame["days_since_last"].to_numpy(dtype=np.float64)
    return frame["purchase_days_total"].to_numpy(dtype=np.float64) - 1, recency, age


def mean_purchase(frame: pd.DataFrame) -> Floats:
    """Return the net amount per purchase day."""
    return (frame["net_amount_total"] / frame["purchase_days_total"]).to_numpy(dtype=np.float64)


class Horizons(NamedTuple):
    """The days ahead for which purchases and spend are expected, and for which silence is."""

    purchases: int
    silence: int

    @classmethod
    def of(cls, labels: Labels) -> Self:
        """Return the lengths of the windows of value and of churn."""
        return cls(labels.value.window.days, labels.churn.window.days)


@dataclass(frozen=True)
class BtydForecaster:
    """MBG/NBD, and Gamma-Gamma unless nobody bought twice, fitted on one snapshot."""

    purchases: MBGNBD
    spend: GammaGamma | None

    @classmethod
    def fit(cls, buyers: pd.DataFrame) -> Self:
        """Fit both on the buyers of one snapshot."""
        past = frequency_recency_age(buyers)
        try:
            spend = GammaGamma.fit(past[0], mean_purchase(buyers))
        except DataError:
            spend = None
        return cls(MBGNBD.fit(*past), spend)

    def predict(self, buyers: pd.DataFrame, horizons: Horizons) -> Floats:
        """Return P(no purchase), purchase days and spend, shape (buyers, 3): the first three of `EXPECTED`."""
        past, mean = frequency_recency_age(buyers), mean_purchase(buyers)
        purchases = self.purchases.expected_purchases(horizons.purchases, *past)
        each = mean if self.spend is None else self.spend.expected_value(past[0], mean)
        return np.column_stack([self.purchases.p_zero(horizons.silence, *past), purchases, purchases * each])
