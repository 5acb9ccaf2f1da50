"""Forecasts of buy-till-you-die models for the buyers of a snapshot, over the horizons of a project."""

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
from tiermodel.models.concentration import outweighing

__all__ = ["BTYD_INPUTS", "BtydForecaster", "Horizons", "frequency_recency_age", "mean_purchase_amount"]

BTYD_INPUTS = ("expected_p_zero", "expected_purchases", "expected_spend", "pareto_p_zero")
"""The inputs that are forecasts: P(no purchase), purchase days and spend by MBG/NBD with Gamma-Gamma, P(no purchase) by
Pareto/NBD, in which customers drop out at any moment and not only at a purchase."""


def frequency_recency_age(frame: pd.DataFrame) -> tuple[Floats, Floats, Floats]:
    """Return buyers' repeat purchase days, and the days from the first purchase to the last one and to the date."""
    age = frame["days_since_first"].to_numpy(dtype=np.float64)
    recency = age - frame["days_since_last"].to_numpy(dtype=np.float64)
    return frame["purchase_days_total"].to_numpy(dtype=np.float64) - 1, recency, age


def mean_purchase_amount(frame: pd.DataFrame) -> Floats:
    """Return each buyer's net amount per purchase day, in currency units."""
    return (frame["net_amount_total"] / frame["purchase_days_total"]).to_numpy(dtype=np.float64)


class Horizons(NamedTuple):
    """The days ahead of the forecasts of purchases and spend (`value`) and of P(no purchase) (`churn`)."""

    value: int
    churn: int

    @classmethod
    def of(cls, labels: Labels) -> Self:
        """Return the lengths of the outcome windows of value and of churn."""
        return cls(labels.value.window.days, labels.churn.window.days)


@dataclass(frozen=True)
class BtydForecaster:
    """MBG/NBD, and Gamma-Gamma unless nobody bought twice, fitted on one snapshot without its outcome."""

    purchases: MBGNBD
    spend: GammaGamma | None

    @classmethod
    def fit(cls, buyers: pd.DataFrame) -> Self:
        """Return both models fitted on the buyers of one snapshot."""
        past = frequency_recency_age(buyers)
        usual = ~outweighing(buyers["net_amount_total"].to_numpy(dtype=np.float64))
        try:
            spend = GammaGamma.fit(past[0][usual], mean_purchase_amount(buyers)[usual])
        except DataError:
            spend = None
        return cls(MBGNBD.fit(*past), spend)

    def predict(self, buyers: pd.DataFrame, horizons: Horizons) -> Floats:
        """Return P(no purchase), purchase days and spend, shape (buyers, 3): the first three of `BTYD_INPUTS`."""
        past, mean = frequency_recency_age(buyers), mean_purchase_amount(buyers)
        purchases = self.purchases.expected_purchases(horizons.value, *past)
        each = mean if self.spend is None else self.spend.expected_value(past[0], mean)
        return np.column_stack([self.purchases.p_zero(horizons.churn, *past), purchases, purchases * each])
