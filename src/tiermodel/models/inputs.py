"""What the models are fed: the features, and what a buy-till-you-die model expects of the same history.

MBG/NBD, Pareto/NBD and Gamma-Gamma see only what each customer did before the date, so they need no outcome. In
training each snapshot gets the parameters of its own date; scoring uses those of the latest one, frozen, so that one
record scores as the batch does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tiermodel.config.project import Project
from tiermodel.errors import DataError
from tiermodel.features.outcome import churn_window
from tiermodel.models.btyd import MBGNBD, GammaGamma
from tiermodel.models.pareto_nbd import ParetoNBD

__all__ = [
    "COMPACT",
    "EXPECTED",
    "Habits",
    "Horizons",
    "Inputs",
    "fit_inputs",
    "history",
    "mean_purchase",
    "panel_matrix",
]

Floats = NDArray[np.float64]
EXPECTED = ("expected_p_zero", "expected_purchases", "expected_spend", "pareto_p_zero")
"""P(no purchase), purchase days and spend that MBG/NBD and Gamma-Gamma expect over their horizons, and P(no purchase)
of Pareto/NBD, by which customers leave at any moment and not only at a purchase."""

COMPACT = (
    "days_since_last", "days_since_first", "order_count_total", "purchase_days_total", "net_amount_total",
    "active_share", "gap_variation", "overdue_ratio", "orders_decayed_30d", "orders_decayed_90d",
    "expected_p_zero", "expected_purchases",
)  # fmt: skip
"""The few inputs that always matter, as far as a project has them: those of compact models."""


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
class Habits:
    """Hold how customers buy: MBG/NBD, and Gamma-Gamma unless nobody bought twice."""

    purchases: MBGNBD
    spend: GammaGamma | None

    @classmethod
    def fit(cls, buyers: pd.DataFrame) -> Self:
        """Fit both on the buyers of one snapshot."""
        past = history(buyers)
        try:
            spend = GammaGamma.fit(past[0], mean_purchase(buyers))
        except DataError:
            spend = None
        return cls(MBGNBD.fit(*past), spend)

    def expect(self, buyers: pd.DataFrame, horizons: Horizons) -> Floats:
        """Give P(no purchase), purchase days and spend of each: the first three of `EXPECTED`."""
        past, mean = history(buyers), mean_purchase(buyers)
        purchases = self.purchases.expected_purchases(horizons.purchases, *past)
        each = mean if self.spend is None else self.spend.expected_value(past[0], mean)
        return np.column_stack([self.purchases.p_zero(horizons.silence, *past), purchases, purchases * each])


@dataclass(frozen=True)
class Inputs:
    """Hold the features' names, the horizons, and frozen parameters."""

    names: tuple[str, ...]
    horizons: Horizons
    habits: Habits
    leaving: ParetoNBD

    @property
    def all_names(self) -> list[str]:
        """List the columns of `matrix`."""
        return [*self.names, *EXPECTED]

    def matrix(self, frame: pd.DataFrame) -> Floats:
        """Give one row per customer: the features in order, then `EXPECTED`."""
        x = np.full((len(frame), len(self.names) + len(EXPECTED)), np.nan, order="F")
        for j, name in enumerate(self.names):
            x[:, j] = frame[name].to_numpy(dtype=np.float64)
        bought = frame["days_since_last"].notna().to_numpy()
        if bought.any():
            buyers = frame[bought]
            x[bought, len(self.names) : -1] = self.habits.expect(buyers, self.horizons)
            x[bought, -1] = self.leaving.p_zero(self.horizons.silence, *history(buyers))
        return x

    def to_dict(self) -> dict[str, Any]:
        """Give the parameters as plain data."""
        spend = self.habits.spend
        return {
            "horizon": self.horizons.purchases,
            "silence": self.horizons.silence,
            "purchases": asdict(self.habits.purchases),
            "spend": None if spend is None else asdict(spend),
            "leaving": asdict(self.leaving),
        }

    @classmethod
    def from_dict(cls, names: tuple[str, ...], data: Mapping[str, Any]) -> Inputs:
        """Read what `to_dict` gave."""
        spend = None if data["spend"] is None else GammaGamma(**data["spend"])
        habits, leaving = Habits(MBGNBD(**data["purchases"]), spend), ParetoNBD(**data["leaving"])
        return cls(names, Horizons(data["horizon"], data["silence"]), habits, leaving)


def fit_inputs(snapshot: pd.DataFrame, names: tuple[str, ...], horizons: Horizons) -> Inputs:
    """Fit the parameters on one snapshot."""
    buyers = snapshot[snapshot["days_since_last"].notna()]
    return Inputs(names, horizons, Habits.fit(buyers), ParetoNBD.fit(*history(buyers)))


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
