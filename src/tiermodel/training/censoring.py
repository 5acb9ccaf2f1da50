"""What is known at a date: rows dated after it are left out, and so are outcomes that end after it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import NamedTuple, Self

import numpy as np
import pandas as pd

from tiermodel.arrays import Flags, Floats
from tiermodel.config.project import Project
from tiermodel.features.frame import has_bought
from tiermodel.features.outcome import OUTCOME_COLUMNS, Labels, at_risk
from tiermodel.features.sampling import sample_rows
from tiermodel.models.btyd.forecast import Horizons
from tiermodel.models.design_matrix import DesignMatrix, fit_design_matrix
from tiermodel.tiers.fitted_scheme import FittedScheme
from tiermodel.tiers.schemes.schema import input_names

__all__ = ["CensoredPanel", "CurrentBuyers", "censor"]


class CensoredPanel(NamedTuple):
    """The panel as known at a date, which of its rows are learned from, and the customers at the date.

    `learned` has shape (rows of the panel,); `training_rows` are these rows, `snapshot` those of the date.
    """

    day: pd.Timestamp
    panel: pd.DataFrame
    learned: Flags
    training_rows: pd.DataFrame
    snapshot: pd.DataFrame


class CurrentBuyers(NamedTuple):
    """The buyers at the date, without what no model may read, and their inputs; `x_exposed` of those at risk."""

    buyers: pd.DataFrame
    design: DesignMatrix
    x_buyers: Floats
    x_exposed: Floats

    @classmethod
    def of(cls, known: CensoredPanel, scheme: FittedScheme, labels: Labels) -> Self:
        """Fit the design matrix on the snapshot; `scheme` says which features models may read."""
        snapshot, label = known.snapshot, scheme.scheme.label_feature
        aside = [*OUTCOME_COLUMNS, *([] if label is None else [label])]
        buyers = snapshot[has_bought(snapshot)].drop(columns=aside)
        exposed = snapshot[at_risk(labels.churn, snapshot)]
        design = fit_design_matrix(snapshot, input_names(scheme.scheme, known.panel), Horizons.of(labels))
        return cls(buyers, design, design.matrix(buyers), design.matrix(exposed))


def censor(
    project: Project, labels: Labels, panel: pd.DataFrame, as_of: date, trained_on: Sequence[date]
) -> CensoredPanel:
    """Return what is known at `as_of` of a panel sorted by key.

    Models learn from the dates in `trained_on`, as far as labels are known, and from `panel.customers` buyers at most.
    """
    now = pd.Timestamp(as_of)
    drawn = sample_rows(panel, now, project.panel.customers, project.seed)
    panel, known = _censored_at(drawn, now, labels.delay_days)
    learned = known & panel["as_of"].isin([pd.Timestamp(day) for day in trained_on]).to_numpy()
    return CensoredPanel(now, panel, learned, panel[learned], panel[panel["as_of"] == now])


def _censored_at(panel: pd.DataFrame, now: pd.Timestamp, delay_days: int) -> tuple[pd.DataFrame, Flags]:
    """Leave out rows dated after a day and outcomes that end after it; also tell of which rows the outcome is known."""
    panel = panel[panel["as_of"] <= now].reset_index(drop=True)
    unknown = (panel["as_of"] + pd.Timedelta(days=delay_days) > now) | panel["outcome_purchase_days"].isna()
    panel.loc[unknown, list(OUTCOME_COLUMNS)] = np.nan
    return panel, ~unknown.to_numpy()
