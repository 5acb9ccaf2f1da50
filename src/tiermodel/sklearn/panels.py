"""What the estimators share: dated rows, with the forecasts of buy-till-you-die models beside the features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from tiermodel.arrays import Floats
from tiermodel.features.frame import KEYS, has_bought
from tiermodel.models.btyd.forecast import Horizons
from tiermodel.models.calibration.recent import ForecastContext
from tiermodel.models.design_matrix import DesignMatrix, design_matrix_of_panel, fit_design_matrix

__all__ = ["NEEDED", "DatedRows", "frame_of", "numbered", "with_names"]

NEEDED = (
    "days_since_last", "days_since_first", "purchase_days_total", "order_count_total", "net_amount_total",
    "order_amount_mean",
)  # fmt: skip
"""The features that the models of dated rows cannot do without, by their names in the catalogue."""


def numbered(width: int) -> list[str]:
    """Return names for the columns of a matrix: those of a user may have characters that LightGBM does not take."""
    return [f"x{j}" for j in range(width)]


def with_names(estimator: Any, width: int) -> list[str]:
    """Return the names of the features that an estimator was fitted with; numbered ones for an array."""
    return list(getattr(estimator, "feature_names_in_", numbered(width)))


def frame_of(x: Floats, names: Sequence[str]) -> pd.DataFrame:
    """Return a feature matrix as a frame."""
    return pd.DataFrame(x, columns=list(names))


@dataclass(frozen=True)
class DatedRows:
    """Rows of snapshots with their outcome, the design of the latest date, and the inputs of all dates."""

    panel: pd.DataFrame
    design: DesignMatrix
    inputs: Floats
    context: ForecastContext

    @classmethod
    def of(cls, x: Floats, names: list[str], dates: Any, horizon_days: int, **outcome: Floats) -> DatedRows:
        """Return the rows of a feature matrix, dated.

        Raises `ValueError` where there is no date for every row, or a feature is missing that the models need.
        """
        days = pd.to_datetime(pd.Series(dates)).to_numpy()
        if len(days) != len(x) or np.isnat(days).any():
            raise ValueError(f"expected a date for each of {len(x)} rows, got {np.count_nonzero(~np.isnat(days))}")
        if missing := [name for name in NEEDED if name not in names]:
            raise ValueError(
                f"dated rows need the features {', '.join(missing)}: pass the columns of `build_panel` as a DataFrame, "
                "or leave `dates` out"
            )
        frame = frame_of(x, names)
        panel = pd.concat([pd.DataFrame({KEYS[0]: np.arange(len(x)), KEYS[1]: days}), frame], axis=1)
        horizons = Horizons(horizon_days, horizon_days)
        latest = panel[panel["as_of"] == days.max()].reset_index(drop=True)
        design = fit_design_matrix(latest, tuple(names), horizons)
        inputs = design_matrix_of_panel(panel, tuple(names), horizons)
        coming = design.matrix(latest[has_bought(latest)])
        context = ForecastContext(pd.Timestamp(days.max()) + pd.Timedelta(days=horizon_days), coming)
        return cls(panel.assign(**outcome), design, inputs, context)
