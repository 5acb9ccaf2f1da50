"""Raw rows of a request against the batch: every table, consent, decisions of persons, hashed ids, bad rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from served import as_json
from tiermodel.bundle.bundle import Bundle
from tiermodel.config.project import Project, load_project
from tiermodel.datasets.synthetic import make_world
from tiermodel.predict import score
from tiermodel.serving.faults import RequestError
from tiermodel.serving.service import Service
from tiermodel.training.train import train
from worlds import TrainedWorld, quick_fits

AS_OF, LATER = "2023-09-01", "2023-11-01"
Once = Callable[[str, Callable[[Path], Any]], Any]


@pytest.fixture(scope="module")
def company(once: Once, compiled: None) -> tuple[Project, Bundle, dict[str, pd.DataFrame]]:  # noqa: ARG001
    """Train on a company with five tables, of whose customers some opted out; give its rows."""
    return once("company", _company)


def _company(folder: Path) -> tuple[Project, Bundle, dict[str, pd.DataFrame]]:
    world = make_world(seed=3, customers=300, days=700, mark="ID-ZQX-")
    made = load_project(world.write(folder))
    assert made.data.customers is not None
    columns = made.data.customers.columns.model_copy(update={"no_automated_decision": "acquisition_cost > 40"})
    customers = made.data.customers.model_copy(update={"columns": columns, "attributes": {"cost": "acquisition_cost"}})
    data = made.data.model_copy(update={"customers": customers})
    stable = {"up": {"band": 0.1}, "down": {"band": 0.15, "confirmations": 2}}
    tiers = {"scheme": "pyramid", "stability": stable}
    panel = {"every_days": 60, "snapshots": 3}
    project = Project.model_validate(
        {
            **made.model_dump(exclude_none=True),
            "data": data.model_dump(exclude_none=True),
            "tiers": tiers,
            "panel": panel,
        }
    )
    with quick_fits():
        trained = train(project, AS_OF)
    return project, trained.bundle, {name: table.to_pandas() for name, table in world.tables.items()}


def rows_of(tables: dict[str, pd.DataFrame], customer: str | None = None) -> dict[str, Any]:
    """Give a company's rows as the body of a request; of one customer, where named."""
    own = {n: t if customer is None else t[t["customer_id"] == customer] for n, t in tables.items()}
    return {"as_of": LATER, **{name: as_json(table) for name, table in own.items()}}


def scored(project: Project, bundle: Bundle, folder: Path, day: str = LATER) -> list[dict[str, Any]]:
    """Give the score table of the batch as JSON has it."""
    score(project, bundle, day, folder / "scores.parquet")
    table = pq.read_table(folder / "scores.parquet").to_pylist()
    plain = [{k: v if not isinstance(v, float) or np.isfinite(v) else None for k, v in row.items()} for row in table]
    return [{**row, "as_of": str(row["as_of"])} for row in plain]


def answer(service: Service, body: dict[str, Any]) -> dict[str, Any]:
    return dict(json.loads(service.answer(json.dumps(body, ensure_ascii=False).encode())))


def test_five_tables_give_the_bits_of_the_batch(
    company: tuple[Project, Bundle, dict[str, pd.DataFrame]], tmp_path: Path
) -> None:
    project, bundle, tables = company
    batch = scored(project, bundle, tmp_path)
    service = Service(project, bundle, "company")
    found = answer(service, rows_of(tables))
    assert found["scores"] == batch
    assert found["quarantined"] == []
    opted_out = set(tables["customers"].loc[tables["customers"]["opt_out"], "customer_id"])
    assert opted_out
    assert not opted_out & {row["customer_id"] for row in found["scores"]}
    assert sum(row["manual_decision"] is not None for row in found["scores"]) >= 3
    assert found["rows"]["transactions"]["filtered"] == tables["transactions"]["customer_id"].isin(opted_out).sum()
    for counts in found["rows"].values():
        assert counts["read"] == sum(counts[name] for name in counts if name != "read")

    by_id = {row["customer_id"]: row for row in batch}
    for customer in [*list(by_id)[::40], *sorted(opted_out)[:2]]:  # one alone is as among all
        alone = answer(service, rows_of(tables, customer))["scores"]
        assert alone == ([by_id[customer]] if customer in by_id else [])
    buyer = next(c for c in by_id if not {c} & set(tables["customers"].query("acquisition_cost > 40")["customer_id"]))
    sold = {name: rows for name, rows in rows_of(tables, buyer).items() if name in {"as_of", "transactions"}}
    assert answer(service, sold)["rows"]["events"]["read"] == 0  # a table that is not sent has no rows


def test_feature_rows_are_refused_where_they_cannot_tell_who_wants_a_person(
    company: tuple[Project, Bundle, dict[str, pd.DataFrame]],
) -> None:
    project, bundle, _ = company
    row = dict.fromkeys((*bundle.inputs.names, *bundle.scheme.scheme.text_features), None)
    with pytest.raises(RequestError, match="no_automated_decision"):
        answer(Service(project, bundle, "company"), {"as_of": LATER, "rows": [{"customer_id": "a", **row}]})


def test_hashed_ids_are_hashed_in_the_answer(
    trained: TrainedWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIERMODEL_ID_KEY", "correct horse battery staple, and then some")
    data = trained.project.data.model_copy(update={"hash_ids": "TIERMODEL_ID_KEY"})
    project = trained.project.model_copy(update={"data": data})
    batch = scored(project, trained.trained.bundle, tmp_path)
    rows = pd.read_parquet(str(project.data.transactions.path))
    found = answer(Service(project, trained.trained.bundle, "x"), {"as_of": LATER, "transactions": as_json(rows)})
    assert sorted(found["scores"], key=lambda row: row["customer_id"]) == batch


@pytest.fixture(scope="module")
def service(trained: TrainedWorld) -> Service:
    return Service(trained.project, trained.trained.bundle, "small-world")


@pytest.fixture(scope="module")
def rows(trained: TrainedWorld) -> list[dict[str, Any]]:
    """Give the rows of the customer with the most."""
    table = pd.read_parquet(str(trained.project.data.transactions.path))
    return as_json(table[table["customer"] == table["customer"].value_counts().index[0]])


def test_bad_rows_are_told_and_the_others_scored(service: Service, rows: list[dict[str, Any]]) -> None:
    good = answer(service, {"as_of": LATER, "transactions": rows})
    bad = [{**rows[0], "day": "13.13.CANARY"}, {**rows[1], "customer": " "}, {**rows[2], "day": "1066-10-14"}]
    mixed = [*rows[:5], bad[0], *rows[5:], *bad[1:]]
    found = answer(service, {"as_of": LATER, "transactions": mixed})
    assert found["scores"] == good["scores"]
    told = [(one["row"], one["rule"], one["column"]) for one in found["quarantined"]]
    n = len(rows)
    wanted = [
        (5, "time_unparsable", "day"),
        (n + 1, "customer_id_missing", "customer"),
        (n + 2, "time_implausible", "day"),
    ]
    assert told == wanted
    assert all(one["code"].startswith("TM") and one["remedy"] for one in found["quarantined"])
    assert "CANARY" not in json.dumps(found)
    assert found["rows"]["transactions"]["quarantined"] == 3
    nobody = answer(service, {"as_of": LATER, "transactions": bad})
    assert nobody["scores"] == []
    assert len(nobody["quarantined"]) == 3


def test_rows_that_repeat_another_and_rows_to_come_are_counted(service: Service, rows: list[dict[str, Any]]) -> None:
    once_more = [*rows, rows[3], {**rows[0], "day": "2030-01-01"}]
    found = answer(service, {"as_of": LATER, "transactions": once_more})
    alone = answer(service, {"as_of": LATER, "transactions": rows})
    assert found["scores"] == alone["scores"]
    assert found["rows"]["transactions"]["deduplicated"] == 1
    assert found["rows"]["transactions"]["out_of_window"] == alone["rows"]["transactions"]["out_of_window"] + 1


def test_the_order_of_rows_and_of_fields_and_more_of_them_change_nothing(
    service: Service, rows: list[dict[str, Any]]
) -> None:
    wanted = answer(service, {"as_of": LATER, "transactions": rows})["scores"]
    turned = [{"note": n, **dict(reversed(row.items()))} for n, row in enumerate(reversed(rows))]
    assert answer(service, {"as_of": LATER, "transactions": turned})["scores"] == wanted
    as_text = [{**row, "amount": str(row["amount"]), "product": None} for row in rows]  # text of a number, and no value
    without = [{**row, "product": None} for row in rows]
    found = [answer(service, {"as_of": LATER, "transactions": each})["scores"] for each in (as_text, without)]
    assert found[0] == found[1]


def test_ids_that_are_numbers_stay_what_they_are(service: Service, rows: list[dict[str, Any]]) -> None:
    ids = [2**53 + 1, 2**63, 10**30, 7]
    for one in ids:
        found = answer(service, {"as_of": LATER, "transactions": [{**row, "customer": one} for row in rows]})
        assert [row["customer_id"] for row in found["scores"]] == [str(one)]
    several = [{**row, "customer": one} for one in (10, 9, 2) for row in rows]
    found = answer(service, {"as_of": LATER, "transactions": several})
    assert [row["customer_id"] for row in found["scores"]] == ["2", "9", "10"]


def test_currencies_without_one_of_the_project_are_refused(trained: TrainedWorld, rows: list[dict[str, Any]]) -> None:
    sold = trained.project.data.transactions
    sold = sold.model_copy(update={"columns": sold.columns.model_copy(update={"currency": "money"})})
    project = trained.project.model_copy(
        update={"data": trained.project.data.model_copy(update={"transactions": sold})}
    )
    service = Service(project, trained.trained.bundle, "x")
    one = [{**row, "money": "EUR"} for row in rows]
    assert answer(service, {"as_of": LATER, "transactions": one})["scores"]
    with pytest.raises(RequestError, match="TM2052") as refusal:
        answer(service, {"as_of": LATER, "transactions": [*one, {**rows[0], "money": "ZWL"}]})
    assert "ZWL" not in refusal.value.message


def test_expressions_over_columns_are_read_as_in_the_batch(trained: TrainedWorld, tmp_path: Path) -> None:
    table = pd.read_parquet(str(trained.project.data.transactions.path))
    table = table.assign(pieces=3, price=(table["amount"] / 3).round(4), **{"Paid at": table["day"]})
    table.drop(columns=["amount", "day"]).to_parquet(tmp_path / "t.parquet", index=False)
    columns = {"customer_id": "customer", "order_id": "order", "product_id": "product"}
    columns |= {"time": "Paid at", "amount": "pieces * price"}
    sold = {"path": str(tmp_path / "t.parquet"), "columns": columns, "where": "price > -5"}
    project = Project.model_validate({**trained.project.model_dump(exclude_none=True), "data": {"transactions": sold}})
    batch = scored(project, trained.trained.bundle, tmp_path)
    service = Service(project, trained.trained.bundle, "x")
    sent = as_json(pd.read_parquet(tmp_path / "t.parquet"))
    found = answer(service, {"as_of": LATER, "transactions": sent})
    assert found["scores"] == batch
    assert found["rows"]["transactions"]["filtered"] == (table["price"] <= -5).sum() > 0
    with pytest.raises(RequestError, match="lack price") as refusal:
        answer(
            service, {"as_of": LATER, "transactions": [{k: v for k, v in row.items() if k != "price"} for row in sent]}
        )
    assert refusal.value.field == "transactions.price"


def test_a_type_that_a_mapping_cannot_take_is_refused_by_name(service: Service, rows: list[dict[str, Any]]) -> None:
    for name, value in (("amount", True), ("day", 5)):
        with pytest.raises(RequestError, match="types that it cannot take") as refusal:
            answer(service, {"as_of": LATER, "transactions": [{**row, name: value} for row in rows]})
        assert refusal.value.field == "transactions"
