"""The inputs of the models: the features, and the forecasts of buy-till-you-die models.

MBG/NBD, Pareto/NBD and Gamma-Gamma read only each customer's history before the date, so they need no outcome. In
training the parameters are fitted on each snapshot; in scoring they are those of the latest training snapshot, frozen,
so that one record scores as the batch does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from tiermodel.arrays import Floats
from tiermodel.features.frame import has_bought
from tiermodel.models.btyd.bg_nbd import MBGNBD
from tiermodel.models.btyd.forecast import BTYD_INPUTS, BtydForecaster, Horizons, frequency_recency_age
from tiermodel.models.btyd.gamma_gamma import GammaGamma
from tiermodel.models.btyd.pareto_nbd import ParetoNBD

__all__ = ["COMPACT", "DesignMatrix", "design_matrix_of_panel", "fit_design_matrix"]

COMPACT = (
    "days_since_last", "days_since_first", "order_count_total", "purchase_days_total", "net_amount_total",
    "active_share", "gap_variation", "overdue_ratio", "orders_decayed_30d", "orders_decayed_90d",
    "expected_p_zero", "expected_purchases",
)  # fmt: skip
"""The inputs of compact models: the few that always matter, as far as a project has them."""


@dataclass(frozen=True)
class DesignMatrix:
    """The recipe of the inputs: feature names, forecast horizons, and fitted buy-till-you-die models."""

    names: tuple[str, ...]
    horizons: Horizons
    forecaster: BtydForecaster
    pareto: ParetoNBD

    @property
    def all_names(self) -> list[str]:
        """The names of the columns of `matrix`."""
        return [*self.names, *BTYD_INPUTS]

    def matrix(self, frame: pd.DataFrame) -> Floats:
        """Return one row per customer: the features in order, then `BTYD_INPUTS`, NaN for those without a purchase."""
        x = np.full((len(frame), len(self.names) + len(BTYD_INPUTS)), np.nan, order="F")
        for j, name in enumerate(self.names):
            x[:, j] = frame[name].to_numpy(dtype=np.float64)
        bought = has_bought(frame)
        if bought.any():
            buyers = frame[bought]
            x[bought, len(self.names) : -1] = self.forecaster.predict(buyers, self.horizons)
            x[bought, -1] = self.pareto.p_zero(self.horizons.churn, *frequency_recency_age(buyers))
        return x

    def to_dict(self) -> dict[str, Any]:
        """Return the parameters as plain data, under the names of the bundle format."""
        spend = self.forecaster.spend
        return {
            "horizon": self.horizons.value,
            "silence": self.horizons.churn,
            "purchases": asdict(self.forecaster.purchases),
            "spend": None if spend is None else asdict(spend),
            "leaving": asdict(self.pareto),
        }

    @classmethod
    def from_dict(cls, names: tuple[str, ...], data: Mapping[str, Any]) -> DesignMatrix:
        """Return the design matrix that `to_dict` wrote."""
        spend = None if data["spend"] is None else GammaGamma(**data["spend"])
        forecaster, pareto = BtydForecaster(MBGNBD(**data["purchases"]), spend), ParetoNBD(**data["leaving"])
        return cls(names, Horizons(data["horizon"], data["silence"]), forecaster, pareto)


def fit_design_matrix(snapshot: pd.DataFrame, names: tuple[str, ...], horizons: Horizons) -> DesignMatrix:
    """Return the design matrix whose parameters are fitted on one snapshot."""
    buyers = snapshot[has_bought(snapshot)]
    return DesignMatrix(names, horizons, BtydForecaster.fit(buyers), ParetoNBD.fit(*frequency_recency_age(buyers)))


def design_matrix_of_panel(panel: pd.DataFrame, names: tuple[str, ...], horizons: Horizons) -> Floats:
    """Return the inputs of stacked snapshots, with parameters fitted on each by itself; rows keep their order."""
    x = np.full((len(panel), len(names) + len(BTYD_INPUTS)), np.nan, order="F")
    dates = panel["as_of"].to_numpy()
    for day in np.unique(dates):
        rows = np.flatnonzero(dates == day)
        snapshot = panel.iloc[rows]
        if has_bought(snapshot).any():
            x[rows] = fit_design_matrix(snapshot, names, horizons).matrix(snapshot)
    return x
