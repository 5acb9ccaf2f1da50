"""Orders and their lines in two tables, of a database or of files: joined by the order, with the money of the lines."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tiermodel import load_project
from tiermodel.errors import ProjectError
from tiermodel.project_init.init import init
from tiermodel.tables.history import read_history


def wholesaler() -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Return companies, invoices and invoice lines; the lines of credit notes are negative."""
    random = np.random.default_rng(5)
    companies = pd.DataFrame({"company_id": [f"C{n:03d}" for n in range(120)], "industry": "tools"})
    n = 1_500
    invoices = pd.DataFrame({"invoice_id": np.arange(n) + 7_000, "company_id": random.choice(companies.company_id, n)})
    days = pd.Timestamp("2023-01-01") + pd.to_timedelta(random.integers(0, 700, n), "D")
    invoices["invoice_date"], invoices["due_date"] = (
        days.strftime("%Y-%m-%d"),
        (days + pd.Timedelta("30D")).strftime("%Y-%m-%d"),
    )
    lines = pd.DataFrame({"line_no": np.arange(3 * n), "invoice_id": random.choice(invoices.invoice_id, 3 * n)})
    lines["product_id"] = [f"P{p}" for p in random.integers(0, 40, 3 * n)]
    lines["quantity"] = np.where(random.random(3 * n) < 0.04, -1, random.integers(1, 9, 3 * n))
    lines["unit_price"] = random.lognormal(3, 0.5, 3 * n).round(2)
    return companies, invoices, lines


def net(project: Path) -> tuple[int, float]:
    history = read_history(load_project(project))
    assert history.account.quarantined == 0
    sql = f"SELECT count(*), sum(amount) / 10000.0 FROM ({history.transactions_sql})"
    rows, amount = history.connection.execute(sql).fetchall()[0]
    return int(rows), float(amount)


def put(path: str, **tables: pd.DataFrame) -> None:
    with closing(sqlite3.connect(path)) as database:
        for name, table in tables.items():
            table.to_sql(name, database, index=False)


@pytest.mark.parametrize("key", ["invoice_id", "id"])
@pytest.mark.parametrize("store", ["database", "files"])
def test_invoices_and_their_lines_are_joined_by_the_invoice(
    store: str, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    companies, invoices, lines = wholesaler()
    tables = {"companies": companies, "invoices": invoices.rename(columns={"invoice_id": key}), "invoice_lines": lines}
    if store == "database":
        put("wholesale.db", **tables)
    else:
        for name, table in tables.items():
            table.to_csv(f"{name}.csv", index=False)
    made = init(["wholesale.db"] if store == "database" else [f"{name}.csv" for name in tables], "shop.yaml")

    assert made.fault is None
    assert "joined" in {note.key for note in made.notes}
    columns = made.project.data.transactions.columns
    assert (columns.customer_id, columns.time, columns.order_id) == ("company_id", "invoice_date", "invoice_id")
    assert made.project.data.customers is not None
    money = (lines["quantity"] * lines["unit_price"]).round(4).sum()
    rows, amount = net(Path("shop.yaml"))
    assert rows == len(lines)
    assert amount == pytest.approx(float(money), abs=0.01)


def test_lines_of_orders_that_are_not_there_are_quarantined_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    companies, invoices, lines = wholesaler()
    put("wholesale.db", companies=companies, invoices=invoices.iloc[20:], invoice_lines=lines)
    made = init(["wholesale.db"], "shop.yaml")
    orphans = int(lines["invoice_id"].isin(invoices["invoice_id"].iloc[:20]).sum())
    assert made.fault is None
    assert read_history(load_project("shop.yaml")).account.quarantined == orphans > 0


def test_tables_that_share_no_order_are_not_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _, invoices, lines = wholesaler()
    put("wholesale.db", invoices=invoices, invoice_lines=lines.assign(invoice_id=lines["invoice_id"] + 50_000))
    with pytest.raises(ProjectError, match="no column is plainly"):
        init(["wholesale.db"], "shop.yaml")
    assert not Path("shop.yaml").exists()
