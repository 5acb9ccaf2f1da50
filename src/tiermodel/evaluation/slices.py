"""Metrics by group of customers: by number of purchases, tenure, tier and audited attribute.

A model can be right on average and wrong for new customers, so the metrics of all customers are kept for groups, too.
Small groups are left out: their metrics are noise, and could identify people.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from tiermodel.arrays import Ints
from tiermodel.evaluation.bootstrap import draw_count
from tiermodel.evaluation.metrics import auc, ece, ece_null_band, log_loss
from tiermodel.features.catalogue import AUDITED
from tiermodel.features.frame import texts_of

__all__ = ["FEWEST", "MOST_TEXTS", "MOST_VALUES", "groups", "slice_figures"]


FEWEST = 30
"""The fewest customers of a group that is shown."""

_EDGES: Mapping[str, tuple[str, tuple[float, ...], tuple[str, ...]]] = {
    "purchase_days": ("purchase_days_total", (1.5, 3.5, 9.5), ("1", "2-3", "4-9", "10+")),
    "tenure_days": ("days_since_first", (90.0, 365.0), ("<90", "90-364", "365+")),
}
MOST_VALUES = 8
"""The most values of an attribute that is shown by value, not by quarters."""

MOST_TEXTS = 20
"""The most values of a text attribute that are shown, the most frequent ones; the others are one group."""
_OTHER, _MISSING = "…", "?"

_BAND_ROWS, _FEWEST_DRAWS, MOST_DRAWS = 2_000_000, 50, 300


def groups(frame: pd.DataFrame, tier: Ints, codes: Sequence[str]) -> dict[str, pd.Series[str]]:
    """Return every buyer's group by purchase days, by days since the first purchase, by tier and by `audited_…`.

    >>> frame = pd.DataFrame({"purchase_days_total": [1.0, 12.0], "days_since_first": [400.0, 90.0]})
    >>> {by: list(group) for by, group in groups(frame, np.array([0, 1]), ["small", "key"]).items()}
    {'purchase_days': ['1', '10+'], 'tenure_days': ['365+', '90-364'], 'tier': ['small', 'key']}
    """
    found = {
        by: _named(np.searchsorted(edges, frame[column].to_numpy(dtype=np.float64), side="right"), names)
        for by, (column, edges, names) in _EDGES.items()
    }
    names = [name for name in frame.columns if name.startswith(f"{AUDITED}_")]
    audited = {
        name: _by_value(frame[name]) if is_numeric_dtype(frame[name]) else _by_text(frame, name) for name in names
    }
    return found | {"tier": _named(tier, codes)} | audited


def _by_value(column: pd.Series) -> pd.Series[str]:
    """Return groups by value, or by quarters where there are many values; missing values are the group `?`."""
    values = column.to_numpy(dtype=np.float64)
    known = np.unique(values[~np.isnan(values)])
    if len(known) > MOST_VALUES:
        edges = np.unique(np.quantile(values[~np.isnan(values)], [0.25, 0.5, 0.75]))
        names = [f"<{edges[0]:g}", *(f"{a:g}-<{b:g}" for a, b in pairwise(edges)), f"{edges[-1]:g}+"]
        position = np.searchsorted(edges, values, side="right")
    else:
        names, position = [f"{x:g}" for x in known], np.searchsorted(known, values)
    return _named(np.where(np.isnan(values), len(names), position), [*names, _MISSING])


def _by_text(frame: pd.DataFrame, name: str) -> pd.Series[str]:
    """Return groups by text, `…` for values beyond the most frequent; missing values are the group `?`."""
    values = texts_of(frame, name)
    counts = values.value_counts()
    frequent = sorted(counts.index, key=lambda value: (-counts[value], value))[:MOST_TEXTS]
    names = [*sorted(set(frequent) - {_OTHER, _MISSING}), _OTHER, _MISSING]
    groups = values.where(values.isin(frequent), _OTHER).mask(values.isna(), _MISSING)
    return _named(pd.Index(names).get_indexer(pd.Index(groups)), names)


def _named(position: Ints, names: Sequence[str]) -> pd.Series[str]:
    return pd.Series(pd.Categorical.from_codes(position, categories=pd.Index(names), ordered=True))


def slice_figures(by: Mapping[str, pd.Series[str]], predictions: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield a row of metrics for every group of 30 customers or more; None where too few predictions are known.

    `predictions` has the columns `churned` and `risk` (NaN for customers not at risk), `value` and `expected`, and, if
    known, the `median` of the value (absolute error is that of the median), its bounds
    `low` and `high`, and `held`: whether the prediction set has the true tier.
    """
    for name, group in by.items():
        for label in group.cat.categories:
            rows = predictions[(group == label).to_numpy()]
            if len(rows) >= FEWEST:
                yield {"by": name, "group": label, "n": len(rows), **_risk(rows), **_value(rows)}


def _risk(rows: pd.DataFrame) -> dict[str, float | None]:
    known = rows[rows["risk"].notna() & rows["churned"].notna()]
    names = ("rate", "mean_risk", "log_loss", "auc", "ece", "ece_by_chance")
    if len(known) < FEWEST:
        return dict.fromkeys(names)
    y, p = known["churned"].to_numpy(dtype=np.float64), known["risk"].to_numpy(dtype=np.float64)
    draws = draw_count(len(y), _BAND_ROWS, _FEWEST_DRAWS, MOST_DRAWS)
    figures = (y.mean(), p.mean(), log_loss(y, p), auc(y, p), ece(y, p), ece_null_band(p, draws=draws))
    return {name: float(x) if np.isfinite(x) else None for name, x in zip(names, figures, strict=True)}


def _value(rows: pd.DataFrame) -> dict[str, float | None]:
    known = rows[rows["expected"].notna() & rows["value"].notna()]
    y, p = known["value"], known["expected"]
    middle = known.get("median", p)
    names = ("value_mean", "expected_mean", "value_mae")
    figures: dict[str, float | None] = dict.fromkeys(names)
    if len(known) >= FEWEST:
        figures |= zip(names, map(float, (y.mean(), p.mean(), (middle - y).abs().mean())), strict=True)
        if "low" in known:
            figures["value_coverage"] = float(y.between(known["low"], known["high"]).mean())
    if "held" in rows and rows["held"].notna().any():
        figures["tier_coverage"] = float(rows["held"].mean())
    return figures
