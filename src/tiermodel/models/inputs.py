"""What the models are fed: the features, and what a buy-till-you-die model expects of the same history.

MBG/NBD and Gamma-Gamma see only what each customer did before the date, so they need no outcome. In training each
snapshot gets the parameters of its own date; scoring uses those of the latest one, frozen, so that one record scores as
the batch does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tiermodel.config import Project
from tiermodel.errors import DataError
from tiermodel.features.outcome import churn_window
from tiermodel.models.btyd import MBGNBD, GammaGamma

__all__ = ["EXPECTED", "Horizons", "Inputs", "fit_inputs", "history", "mean_purchase", "panel_matrix"]

Floats = NDArray[np.float64]
EXPECTED = ("expected_p_zero", "expected_purchases", "expected_spend")
"""P(no purchase), purchase days and spend that MBG/NBD and Gamma-Gamma expect over their horizons."""


def history(frame: pd.DataFrame) -> tuple[Floats, Floats, Floats]:
    """Give buyers' repeat purchase days, days from first to last purchase, and from first purchase to the date."""
    age = frame["days_since_first"].to_numpy(dtype=np.float64)
    recency = age - frame["days_since_last"].to_numpy(dtype=np.float64)
    return frame["purchase_days_total"].to_numpy(dtype=np.float64) - 1, recency, age


def mean_purchase(frame: pd.DataFrame) -> Floats:
    """Give the net amount per purchase day."""
    return (frame["net_amount_total"] / frame["purchase_days_total"]).to_numpy(dtype=np.float64)


class Horizons(NamedTuple):
    """Hold how many days ahead purchases and spend are expected, and silence."""

    purchases: int
    silence: int

    @classmethod
    def of(cls, project: Project) -> Self:
        """Take the horizon of the outcome for the first, that of churn for the second."""
        first, last = churn_window(project.churn, project.outcome)
        return cls(project.outcome.horizon_days, last - first)


@dataclass(frozen=True)
class Inputs:
    """Hold the features' names, the horizons, and frozen parameters (no Gamma-Gamma if nobody bought twice)."""

    names: tuple[str, ...]
    horizons: Horizons
    purchases: MBGNBD
    spend: GammaGamma | None

    @property
    def all_names(self) -> list[str]:
        """List the columns of `matrix`."""
        return [*self.names, *EXPECTED]

    def matrix(self, frame: pd.DataFrame) -> Floats:
        """Give one row per customer: the features in order, then `EXPECTED`."""
        x = np.full((len(frame), len(self.names) + len(EXPECTED)), np.nan, order="F")
        for j, name in enumerate(self.names):
            x[:, j] = frame[name].to_numpy(dtype=np.float64)
        buyers = frame["days_since_last"].notna().to_numpy()
        if buyers.any():
            x[buyers, len(self.names) :] = self._expected(frame[buyers])
        return x

    def _expected(self, buyers: pd.DataFrame) -> Floats:
        past, mean = history(buyers), mean_purchase(buyers)
        purchases = self.purchases.expected_purchases(self.horizons.purchases, *past)
        each = mean if self.spend is None else self.spend.expected_value(past[0], mean)
        return np.column_stack([self.purchases.p_zero(self.horizons.silence, *past), purchases, purchases * each])

    def to_dict(self) -> dict[str, Any]:
        """Give the parameters as plain data."""
        return {
            "horizon": self.horizons.purchases,
            "silence": self.horizons.silence,
            "purchases": asdict(self.purchases),
            "spend": None if self.spend is None else asdict(self.spend),
        }

    @classmethod
    def from_dict(cls, names: tuple[str, ...], data: Mapping[str, Any]) -> Inputs:
        """Read what `to_dict` gave."""
        spend = data["spend"]
        horizons = Horizons(data["horizon"], data.get("silence", data["horizon"]))  # older ones had one for both
        return cls(names, horizons, MBGNBD(**data["purchases"]), None if spend is None else GammaGamma(**spend))


def fit_inputs(snapshot: pd.DataFrame, names: tuple[str, ...], horizons: Horizons) -> Inputs:
    """Fit the parameters on one snapshot."""
    buyers = snapshot[snapshot["days_since_last"].notna()]
    past = history(buyers)
    try:
        spend = GammaGamma.fit(past[0], mean_purchase(buyers))
    except DataError:
        spend = None
    return Inputs(names, horizons, MBGNBD.fit(*past), spend)


def panel_matrix(panel: pd.DataFrame, names: tuple[str, ...], horizons: Horizons) -> Floats:
    """Give the inputs of stacked snapshots, each with the parameters of its own date; rows in the order given."""
    x = np.full((len(panel), len(names) + len(EXPECTED)), np.nan, order="F")
    dates = panel["as_of"].to_numpy()
    for day in np.unique(dates):
        rows = np.flatnonzero(dates == day)
        snapshot = panel.iloc[rows]
        if snapshot["days_since_last"].notna().any():
            x[rows] = fit_inputs(snapshot, names, horizons).matrix(snapshot)
    return x
