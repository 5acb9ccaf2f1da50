"""Censoring of a panel at a date: later rows are left out, and outcomes that end after it are set to NaN."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import NamedTuple, Self

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
    """A panel as known at the date `day`.

    `learned` is True for the training rows, shape (rows of `panel`,); `training_rows` are these rows, `snapshot` those
    of the date itself.
    """

    day: pd.Timestamp
    panel: pd.DataFrame
    learned: Flags
    training_rows: pd.DataFrame
    snapshot: pd.DataFrame


class CurrentBuyers(NamedTuple):
    """The buyers at the date, without outcomes and label, and the design matrices of buyers and of rows at risk."""

    buyers: pd.DataFrame
    design: DesignMatrix
    x_buyers: Floats
    x_exposed: Floats

    @classmethod
    def of(cls, known: CensoredPanel, scheme: FittedScheme, labels: Labels) -> Self:
        """Return the buyers of the snapshot, on which the design is fitted, with the features that `scheme` allows."""
        snapshot, label = known.snapshot, scheme.scheme.label_feature
        aside = [*OUTCOME_COLUMNS, *([] if label is None else [label])]
        buyers = snapshot[has_bought(snapshot)].drop(columns=aside)
        exposed = snapshot[at_risk(labels.churn, snapshot)]
        design = fit_design_matrix(snapshot, input_names(scheme.scheme, known.panel), Horizons.of(labels))
        return cls(buyers, design, design.matrix(buyers), design.matrix(exposed))


def censor(
    project: Project, labels: Labels, panel: pd.DataFrame, as_of: date, trained_on: Sequence[date]
) -> CensoredPanel:
    """Return a panel sorted by key as known at `as_of`.

    Models learn from the dates in `trained_on` whose labels are known, and from `panel.customers` buyers at most.
    """
    now = pd.Timestamp(as_of)
    drawn = sample_rows(panel, now, project.panel.customers, project.seed)
    panel, known = _censored_at(drawn, now, labels.delay_days)
    learned = known & panel["as_of"].isin([pd.Timestamp(day) for day in trained_on]).to_numpy()
    return CensoredPanel(now, panel, learned, panel[learned], panel[panel["as_of"] == now])


def _censored_at(panel: pd.DataFrame, now: pd.Timestamp, delay_days: int) -> tuple[pd.DataFrame, Flags]:
    """Return the rows up to a day, outcomes that end after it NaN, and whether the outcome of each row is known."""
    past = panel["as_of"] <= now
    panel = (panel if past.all() else panel[past]).reset_index(drop=True)
    unknown = (panel["as_of"] + pd.Timedelta(days=delay_days) > now) | panel["outcome_purchase_days"].isna()
    known = {name: panel[name].mask(unknown) for name in OUTCOME_COLUMNS}
    return panel.assign(**known), ~unknown.to_numpy()
