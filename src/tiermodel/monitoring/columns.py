"""The columns of the tables, day by day: how many rows came, how many lack a value or break the contract, what varies.

A feature that drifted says little to the person who has to mend something; the column that broke, and since when, does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

import numpy as np
import pandas as pd

from tiermodel.arrays import Floats
from tiermodel.tables.categories import is_text
from tiermodel.tables.contract import FILTERED, GOOD
from tiermodel.tables.history import History
from tiermodel.tables.privacy import masked
from tiermodel.tables.rules import NEVER, UNKNOWN
from tiermodel.tables.table import EPOCH, Table

__all__ = ["TableDays", "freshness", "row_series", "table_days"]

WINDOW_DAYS = 28
_DATES = ("time", "issued", "due", "valid_from")
_NUMBERS = ("amount", "quantity", "cost", "discount", "value")
_TEXTS = ("category", "channel", "kind", "subject")
_MOST_VALUES = 300
_YEARS_DAYS = 3 * 364 + WINDOW_DAYS


@dataclass(frozen=True)
class TableDays:
    """A table day by day, before one date: `days` by ordinal, with the rows, bad rows and the range of each column.

    `columns` has for each column its known rows, least and largest value (a text column: as text) by day. `counted` has
    for each column of few texts the rows by value (index: ordinal of the day).
    """

    table: str
    days: pd.DataFrame
    columns: dict[str, pd.DataFrame]
    counted: dict[str, pd.DataFrame] = field(default_factory=dict)
    hidden: bool = False

    def shown(self, value: Any) -> str:
        """Return a value as it may be shown."""
        return masked(str(value)) if self.hidden else str(value)


def table_days(history: History, as_of: date) -> dict[str, TableDays]:
    """Return the dated tables of a history day by day, from the rows of three years before a date."""
    end = (as_of - EPOCH).days
    found = {}
    for name, table in history.tables.items():
        dated = next((column for column in _DATES if column in table.contract.mapped), None)
        if dated is not None:
            found[name] = _table_days(history, name, table, dated, end)
    return found


def _table_days(history: History, name: str, table: Table, dated: str, end: int) -> TableDays:
    contract = table.contract
    day = f"_tm_{dated}_value"
    late = end if "ingested_at" not in contract.mapped else None
    known = "" if late is not None else f" AND (_tm_ingested_at_value < {end} OR _tm_ingested_at_value = {NEVER})"
    recent = f"{day} > {end - _YEARS_DAYS} AND {day} < {end}{known}"
    numbers = [column for column in _NUMBERS if column in contract.mapped]
    numbers += [column for column in contract.mapped if column.startswith("attribute_")]
    texts = [column for column in contract.mapped if column in _TEXTS or is_text(column)]
    parts = [f"{day} AS day", f"count(*) FILTER (_tm_rule = {GOOD}) AS n"]
    parts += [f"count(*) FILTER (_tm_rule NOT IN ({GOOD}, {FILTERED})) AS bad"]
    for k, column in enumerate((*numbers, *texts)):
        value = _value(column, numbers)
        good = f"FILTER (_tm_rule = {GOOD})"
        parts += [f"count({value}) {good} AS n{k}", f"min({value}) {good} AS low{k}", f"max({value}) {good} AS high{k}"]
        parts += [f"sum(CASE WHEN _tm_rule = {GOOD} THEN {value}::DOUBLE END) AS sum{k}"] if column in numbers else []
    frame = _run(history, table, f"SELECT {', '.join(parts)} FROM ({contract.checked}) WHERE {recent} GROUP BY 1")
    frame = _merged(frame)
    columns = {}
    for k, column in enumerate((*numbers, *texts)):
        own = [f"n{k}", f"low{k}", f"high{k}", *([f"sum{k}"] if column in numbers else [])]
        columns[column] = frame[own].set_axis([part.rstrip("0123456789") for part in own], axis=1)
    values = {}
    for column in texts:
        value = _value(column, numbers)
        rows = (
            f"SELECT {day} AS day, {value} AS value, count(*) AS n FROM ({contract.checked}) "
            f"WHERE {recent} AND _tm_rule = {GOOD} AND {value} IS NOT NULL GROUP BY 1, 2"
        )
        counted = _run(history, table, rows)
        if 0 < counted["value"].nunique() <= _MOST_VALUES:
            wide = counted.pivot_table(index="day", columns="value", values="n", aggfunc="sum", fill_value=0)
            values[column] = wide.reindex(frame.index, fill_value=0)
    return TableDays(name, frame[["n", "bad"]], columns, values, contract.hide_values)


def _value(column: str, numbers: list[str]) -> str:
    if column in numbers:
        return f"nullif(_tm_{column}_value, {UNKNOWN})"
    return f"nullif(trim(_tm_{column}::VARCHAR), '')"


def _run(history: History, table: Table, sql: str) -> pd.DataFrame:
    batches = [batch.to_pandas() for batch in history.run(table.source, sql)]
    return pd.concat(batches, ignore_index=True) if batches else pd.DataFrame()


def _merged(frame: pd.DataFrame) -> pd.DataFrame:
    """Return one row a day, ascending, where an engine gives a row for each part of the source."""
    how: Any = {
        name: "min" if name.startswith("low") else "max" if name.startswith("high") else "sum"
        for name in frame.columns
        if name != "day"
    }
    return frame.groupby("day").agg(how).sort_index()


def row_series(tables: dict[str, TableDays], dates: tuple[date, ...]) -> dict[str, Floats]:
    """Return series of the 28 days before each date, by name, as `drift` reads them.

    `rows:TABLE` is the logarithm of the number of rows, `bad:TABLE` the share that break the contract;
    `mean:TABLE.COLUMN` is the mean of a number over its own mean of all days, and `unknown:TABLE.COLUMN` the share of
    rows without a value. Shares are `2 arcsin sqrt share`.
    """
    ends = np.array([(day - EPOCH).days for day in dates])
    found: dict[str, Floats] = {}
    for name, table in tables.items():
        ordinal = table.days.index.to_numpy()

        def window(column: pd.Series, ordinal: Any = ordinal) -> Floats:
            total = np.concatenate([[0.0], np.cumsum(column.to_numpy(dtype=np.float64, na_value=0.0))])
            first, last = (np.searchsorted(ordinal, ends - back) for back in (WINDOW_DAYS, 0))
            return np.asarray(total[last] - total[first])

        n, bad = window(table.days["n"]), window(table.days["bad"])
        whole = len(ordinal) > 0
        n = np.where(ends - WINDOW_DAYS >= (ordinal[0] if whole else 0), n, np.nan)
        with np.errstate(invalid="ignore", divide="ignore"):
            found[f"rows:{name}"] = np.where(n > 0, np.log(n), np.nan)
            found[f"bad:{name}"] = 2 * np.arcsin(np.sqrt(bad / (n + bad)))
            for column, days in table.columns.items():
                known = window(days["n"])
                found[f"unknown:{name}.{column}"] = 2 * np.arcsin(np.sqrt(np.clip(1 - known / n, 0, 1)))
                if "sum" in days and days["n"].sum() and (usual := abs(days["sum"].sum() / days["n"].sum())) > 0:
                    found[f"mean:{name}.{column}"] = np.where(n > 0, window(days["sum"]) / known / usual, np.nan)
    return found


def freshness(tables: dict[str, TableDays], as_of: date) -> list[dict[str, Any]]:
    """Return, for each table, the days without a row before a date, beside the longest such time of the year before.

    `late` says that the silence is longer than twice the longest before, and than three days.
    """
    found = []
    for name, table in tables.items():
        ordinal = table.days.index[table.days["n"] > 0].to_numpy()
        if not len(ordinal):
            continue
        silence = (as_of - EPOCH).days - 1 - int(ordinal[-1])
        lately = ordinal[ordinal >= ordinal[-1] - 364]
        usual = int(np.diff(lately).max() - 1) if len(lately) > 1 else 0
        last = EPOCH + timedelta(int(ordinal[-1]))
        late = len(lately) > 1 and silence > max(2 * usual, 3)
        found.append({"table": name, "last_row": last, "silent_days": silence, "longest_before": usual, "late": late})
    return found
