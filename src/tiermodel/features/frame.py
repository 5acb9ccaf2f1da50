"""The columns of a panel, and common selections of its rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date

import pandas as pd
from pandas.api.types import is_numeric_dtype

from tiermodel.arrays import Flags, Floats
from tiermodel.features.catalogue import ATTRIBUTE, AUDITED
from tiermodel.features.outcome import OUTCOME_COLUMNS

__all__ = ["KEYS", "category_names", "feature_names", "has_bought", "rows_at", "texts_of", "with_columns"]


KEYS = ("customer_id", "as_of")


def rows_at(panel: pd.DataFrame, dates: Iterable[date]) -> pd.DataFrame:
    """Return the rows of a panel at some dates, in its order and under its index."""
    wanted = panel["as_of"].isin([pd.Timestamp(day) for day in dates])
    return panel.copy(deep=False) if wanted.all() else panel[wanted]  # panels are large, and pandas copies on write


def has_bought(frame: pd.DataFrame) -> Flags:
    """Return whether each row's customer has purchased before the date of the row; the others are prospects.

    >>> has_bought(pd.DataFrame({"days_since_last": [3.0, float("nan")]})).tolist()
    [True, False]
    """
    return frame["days_since_last"].notna().to_numpy()


def with_columns(frame: pd.DataFrame, columns: Mapping[str, Floats]) -> pd.DataFrame:
    """Return the rows with further columns; a column that is there already gives way.

    Unlike `assign`, all columns are joined at once, also to a wide frame of many blocks.
    """
    gone = [name for name in columns if name in frame.columns]
    kept = frame.drop(columns=gone) if gone else frame
    return pd.concat([kept, pd.DataFrame(dict(columns), index=frame.index)], axis=1)


def feature_names(frame: pd.DataFrame) -> list[str]:
    """Return the names of the features of a panel, in its order: numbers only; attributes to audit by are none.

    >>> feature_names(pd.DataFrame({"days_since_last": [3.0], "attribute_region": ["south"], "audited_age": [30.0]}))
    ['days_since_last']
    """
    names = (name for name in frame.columns if name not in {*KEYS, *OUTCOME_COLUMNS})
    return [name for name in names if not name.startswith(f"{AUDITED}_") and is_numeric_dtype(frame[name])]


def texts_of(frame: pd.DataFrame, name: str) -> pd.Series:
    """Return a text attribute of a panel; an empty text is missing.

    >>> texts_of(pd.DataFrame({"attribute_region": ["south", ""]}), "attribute_region").isna().tolist()
    [False, True]
    """
    column: pd.Series = frame[name]
    return column.mask(column == "")


def category_names(frame: pd.DataFrame) -> list[str]:
    """Return the names of the text attributes of a panel, in its order; those to audit by are left out.

    >>> category_names(pd.DataFrame({"customer_id": ["a"], "attribute_size": [2.0], "attribute_region": ["south"]}))
    ['attribute_region']
    """
    names = (name for name in frame.columns if name.startswith(f"{ATTRIBUTE}_"))
    return [name for name in names if not is_numeric_dtype(frame[name])]
