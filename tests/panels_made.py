"""Histories as files and projects that read them, and outcomes held against the oracle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from histories import (
    COLUMNS,
    FIRST_DAY,
    GROUPS,
    MAPPED,
    WINDOWS,
    Row,
    all_rows,
    as_batches,
    as_dates,
    make_project,
    of_table,
    random_histories,
)
from oracle import churned_of, outcome_of
from tiermodel.config.project import Project
from tiermodel.features.outcome import OUTCOME_COLUMNS, Labels
from tiermodel.features.panel import Snapshots
from tiermodel.tables.table import EPOCH

HISTORIES = random_histories(seed=23, customers=40)

SALES = of_table(HISTORIES, "transactions")

END = max(row["day"] for row in SALES) + 1

DAYS = (FIRST_DAY + 60, FIRST_DAY + 300, END - 90, END - 89, END)


def with_outcome(histories: dict[str, list[Row]], days: tuple[int, ...], project: Project, end: int) -> pd.DataFrame:
    snapshots = Snapshots(project, COLUMNS, as_dates(days), with_outcome=True, data_end=as_dates([end])[0])
    table = pa.Table.from_batches(snapshots(as_batches(all_rows(histories))), schema=snapshots.schema)
    panel: pd.DataFrame = table.to_pandas(date_as_object=True)
    return panel


def check_outcome(histories: dict[str, list[Row]], days: tuple[int, ...], project: Project, end: int) -> pd.DataFrame:
    panel = with_outcome(histories, days, project, end)
    span, measure = project.outcome, project.value.measure
    for row in panel.to_dict("records"):
        day = (row["as_of"] - EPOCH).days
        wanted = outcome_of(histories[row["customer_id"]], day, span.gap_days, span.horizon_days, end, measure)
        churned = churned_of(histories[row["customer_id"]], day, project, end)
        observed = day + Labels.of(project).delay_days <= end  # all of it, or nothing
        found = [row[name] for name in OUTCOME_COLUMNS]
        np.testing.assert_array_equal(found, [*wanted, churned] if observed else [np.nan] * 3)
    return panel


OTHERS = {
    "events": ("customer_id", "time", "kind", "value"),
    "invoices": ("customer_id", "amount", "issued", "due", "paid", "disputed", "paid_amount"),
    "costs": ("customer_id", "time", "amount"),
    "customers": ("customer_id", "valid_from", "signup", "contract_end", "acquisition_cost"),
}

DAY_COLUMNS = ("day", "issued", "due", "paid", "disputed", "valid_from", "signup", "contract_end")
NUMBERS = ("amount", "value", "acquisition_cost", "attribute_size", "paid_amount")


def as_file_rows(histories: dict[str, list[Row]]) -> pd.DataFrame:
    """Write transactions as a shop would: decimal amounts, timestamps within the day, rows in no order."""
    rows = pd.DataFrame(of_table(histories, "transactions"))
    seconds = rows["row_key"] % 86_400
    names = {"order_key": "order_id", "product_key": "product_id", "category_key": "category", "channel_key": "channel"}
    rows = rows.rename(columns=names).assign(
        time=pd.to_datetime(rows["day"] * 86_400 + seconds, unit="s"),
        **{name: rows[name] / 10_000 for name in ("amount", "cost", "discount", "quantity")},
        product_id=rows["product_key"].map(lambda key: None if pd.isna(key) else f"商品{key:.0f}"),
        category=rows["category_key"].astype("Int64"),
    )
    return rows.drop(columns=["day", "row_key", "table"]).sample(frac=1, random_state=4)


def as_other_tables(histories: dict[str, list[Row]]) -> dict[str, pd.DataFrame]:
    """Write the other tables as files hold them: dates, decimals, rows in no order."""
    tables = {}
    for name in ("events", "invoices", "costs", "customers"):
        rows = pd.DataFrame(of_table(histories, name)).drop(columns="table")
        for column in set(rows.columns) & {*DAY_COLUMNS, *NUMBERS}:
            numbers = rows[column].astype("Float64")
            rows[column] = pd.to_datetime(numbers, unit="D") if column in DAY_COLUMNS else numbers / 10_000
        tables[name] = rows.rename(columns={"day": "time"}).sample(frac=1, random_state=4)
    return tables


def write_other_tables(folder: Path, customer: Callable[[str], object] = str) -> None:
    for name, rows in as_other_tables(HISTORIES).items():
        rows.assign(customer_id=rows["customer_id"].map(customer)).to_csv(folder / f"{name}.csv", index=False)


def file_project(path: Path, **sections: object) -> Project:
    """Make a project of the transactions in a file, and of the other tables that lie beside it."""
    data: dict[str, Any] = {"transactions": {"path": str(path), "columns": {name: name for name in MAPPED}}}
    for name, columns in OTHERS.items():
        if (other := path.with_name(f"{name}.csv")).exists():
            data[name] = {"path": str(other), "columns": {column: column for column in columns}}
    if "customers" in data:
        data["customers"]["attributes"] = {"size": "attribute_size::DOUBLE"}
        return make_project(data=data, **sections)
    return make_project(data=data, features={"windows_days": WINDOWS, "groups": GROUPS}, **sections)
