"""Who asks for no automated decision is scored, has the lowest service, and waits for a person."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import yaml

from commands import Run
from tiermodel.bundle.bundle import load_bundle
from tiermodel.config.project import Project, project_digest
from worlds import TrainedWorld

DAYS = ("2023-06-01", "2023-07-01")


@pytest.fixture
def shop(trained: TrainedWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Give a project with a table of customers: one asked, one asked and no longer does, one wrote something else."""
    rows = pd.read_parquet(str(trained.project.data.transactions.path))
    rows[rows["customer"].isin(rows["customer"].unique()[:40])].to_csv(tmp_path / "rows.csv", index=False)
    names = [str(name) for name in rows["customer"].unique()[:40]]
    asked = [(names[0], "2023-01-01", "no"), (names[0], "2023-02-01", "yes"), (names[1], "2023-01-01", "yes")]
    asked += [(names[1], "2023-02-01", "no"), (names[2], "2023-01-01", "perhaps")]
    asked += [(name, "2023-01-01", "no") for name in names[3:]]
    pd.DataFrame(asked, columns=["id", "since", "manual"]).to_csv(tmp_path / "people.csv", index=False)
    settings = trained.project.model_dump(mode="json", exclude={"folder"}, exclude_none=True)
    settings["data"]["transactions"]["path"] = str(tmp_path / "rows.csv")
    settings["data"]["customers"] = {
        "path": str(tmp_path / "people.csv"),
        "columns": {"customer_id": "id", "valid_from": "since", "no_automated_decision": "manual"},
    }
    (tmp_path / "shop.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return names


def test_who_asked_waits_for_a_person_with_the_lowest_service(shop: list[str], trained: TrainedWorld, cli: Run) -> None:
    score = ["score", "shop.yaml", "--model", trained.bundle, "--ledger", "book"]
    ran = cli(*score, "--as-of", DAYS[0], "--out", "first.parquet")
    assert ran.code == 0, ran.err
    assert "2 customers asked for no automated decision: 2 of those scored" in ran.err
    first = pd.read_parquet("first.parquet").set_index("customer_id")
    assert first.columns[-1] == "manual_decision"
    waiting = first["manual_decision"].notna()
    assert set(first.index[waiting]) == {shop[0], shop[2]}
    lowest = load_bundle(trained.bundle).scheme.scheme.policies(trained.project.language)[0]
    assert set(first.loc[waiting, "policy"]) == {lowest}
    by_tier = first[~waiting].groupby("tier")["policy"].nunique()
    assert (by_tier == 1).all()
    assert len(first) == 40

    code = load_bundle(trained.bundle).scheme.scheme.codes[-1]
    by_hand = ("--operator", "Ana", "--reason", "looked at it")
    assert (
        cli("ledger", "override", "book", "--customer", shop[0], "--tier", code, "--from", "2023-06-02", *by_hand).code
        == 0
    )
    ran = cli(*score, "--as-of", DAYS[1], "--out", "second.parquet")
    assert "1 of those scored" in ran.err
    second = pd.read_parquet("second.parquet").set_index("customer_id")
    assert second["manual_decision"].nunique() == 2
    assert second.loc[shop[0], "policy"] == load_bundle(trained.bundle).scheme.scheme.policies("en")[-1]
    assert second.loc[shop[2], "policy"] == lowest


def test_the_column_is_part_of_the_digest_where_it_is_mapped(trained: TrainedWorld) -> None:
    people = {"path": "people.csv", "columns": {"customer_id": "id", "opt_out": "no"}}
    data = trained.project.model_dump(mode="json", exclude={"folder"}, exclude_none=True)
    data["data"]["customers"] = people
    plain = Project.model_validate(data)
    people["columns"] = {**people["columns"], "no_automated_decision": "manual"}  # type: ignore[dict-item]
    assert project_digest(Project.model_validate(data)) != project_digest(plain)
