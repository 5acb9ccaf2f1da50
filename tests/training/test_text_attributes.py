"""A text attribute from training to scores: no model reads it, the bundle needs it only where its scheme does."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tiermodel.bundle.bundle import Bundle, load_bundle
from tiermodel.config.project import Project, project_digest
from tiermodel.errors import DataError, ModelError
from tiermodel.features.panel import build_panel
from tiermodel.ledger.ledger import Ledger
from tiermodel.predict import predict, score
from tiermodel.tiers.explain.sql import scheme_sql
from tiermodel.tiers.schemes.load import load_preset, scheme_data
from tiermodel.training.train import Trained, train
from worlds import quick_fits, small_project, small_world

AS_OF = date(2023, 11, 1)
INDUSTRIES = np.array([" 制造 ", "金融", "零售", ""], dtype=object)
PYRAMID = scheme_data(load_preset("pyramid", [60, 365]))
VETO = {
    "name_zh": "否",
    "name_en": "no",
    "highest": "regular",
    "when": [{"feature": "attribute_region", "is": ["south"]}],
}
BAND = {"up": {"band": 0.04}, "down": {"band": 0.04}}


def made(transactions: Path, *, categories: bool, **sections: Any) -> Project:
    """Make a small world's project whose customers have an industry and a region, declared as text or not at all."""
    people = transactions.with_name("people.parquet")
    if not people.exists():
        ids = pd.read_parquet(transactions)["customer"].unique()
        place = np.arange(len(ids))
        columns = {"customer": ids, "industry": INDUSTRIES[place % 4], "region": np.where(place % 9, "north", "south")}
        pd.DataFrame(columns).to_parquet(people, index=False)
    texts = {"categories": {"industry": "industry", "region": "region"}} if categories else {}
    data = small_project(transactions).data.model_dump(mode="json", exclude_none=True)
    data["customers"] = {"path": str(people), "columns": {"customer_id": "customer"}, **texts}
    return small_project(transactions, data=data, **sections)


@pytest.fixture(scope="module")
def transactions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_world(tmp_path_factory.mktemp("categories") / "t.parquet")


@pytest.fixture(scope="module")
def stratified(transactions: Path) -> Project:
    scheme = {**PYRAMID, "strata": {"by": "industry", "at_least": 40}, "veto": [VETO], "stability": BAND}
    return made(transactions, categories=True, tiers={"scheme": scheme})


@pytest.fixture(scope="module")
def learned(stratified: Project, tmp_path_factory: pytest.TempPathFactory) -> tuple[Trained, Path]:
    out = tmp_path_factory.mktemp("bundle") / "model"
    with quick_fits():
        return train(stratified, AS_OF, out=out), out


@pytest.mark.usefixtures("quick")
def test_models_are_the_same_with_and_without_text_attributes(transactions: Path) -> None:
    tiers = {"scheme": "learned"}
    features = {"windows_days": [60, 365]}
    without = train(made(transactions, categories=False, tiers=tiers), AS_OF)
    audited = {**features, "audited": ["region", "industry"]}
    told = train(made(transactions, categories=True, tiers=tiers, features=audited), AS_OF)
    one, other = without.bundle, told.bundle
    assert one.columns == other.columns
    assert one.inputs.to_dict() == other.inputs.to_dict()
    files = [{k: v for k, v in b._files.items() if k.endswith(".txt")} for b in (one, other)]
    assert files[0] == files[1]
    assert (one.scheme, one.segments, one.scheme_version) == (other.scheme, other.segments, other.scheme_version)
    assert (one.settings, one.upgrade, one.peers) == (other.settings, other.upgrade, other.peers)
    for target, frame in without.out_of_fold.items():
        pd.testing.assert_frame_equal(frame, told.out_of_fold[target])
    slices = {(row["by"], row["group"]) for row in other.facts["slices"] if row["by"].startswith("audited")}
    assert slices == {("audited_region", "north"), ("audited_region", "south")} | {
        ("audited_industry", name) for name in ("制造", "金融", "零售", "?")
    }
    assert {row["attribute"]: row["groups"] for row in other.facts["proxies"]} == {"region": 2, "industry": 3}


def test_text_attributes_are_part_of_the_digest_of_a_project(transactions: Path) -> None:
    plain, with_text = (made(transactions, categories=on) for on in (False, True))
    assert project_digest(plain) != project_digest(with_text)


def test_scores_are_those_of_the_stratum_one_record_is_the_batch_and_sql_agrees(
    learned: tuple[Trained, Path], stratified: Project, tmp_path: Path
) -> None:
    bundle = load_bundle(learned[1])
    assert bundle.scheme == learned[0].bundle.scheme
    assert {"text_industry", "text_region"} <= set(bundle.columns)
    assert sorted(bundle.scheme.strata) == sorted(["制造", "金融", "零售"])
    score(stratified, bundle, AS_OF, tmp_path / "s.parquet")
    table = pd.read_parquet(tmp_path / "s.parquet")
    panel = build_panel(stratified, [AS_OF])
    level, _ = bundle.scheme.assign(panel)
    np.testing.assert_array_equal(table["model_tier"], level)
    assert set(panel["attribute_industry"].dropna()) == set(bundle.scheme.strata)
    alone = [int(predict(bundle, panel.iloc[[n]])["model_tier"].iloc[0]) for n in range(0, len(panel), 29)]
    assert alone == level[::29].tolist()
    import duckdb  # noqa: PLC0415

    with duckdb.connect() as connection:
        connection.from_df(panel).create_view("features")
        found = connection.sql(scheme_sql(bundle.scheme)).df().sort_values("customer_id")
    np.testing.assert_array_equal(found["tier"], level)


def test_a_served_record_is_read_as_the_tables_are(learned: tuple[Trained, Path], stratified: Project) -> None:
    bundle = learned[0].bundle
    panel = build_panel(stratified, [AS_OF])
    whole = predict(bundle, panel)
    padded = panel.assign(attribute_industry=" " + panel["attribute_industry"].fillna("") + "\t")
    pd.testing.assert_frame_equal(predict(bundle, padded), whole)
    numbers = panel.assign(attribute_industry=1.0)
    with pytest.raises(DataError, match="feature 'attribute_industry' is not text in every row: at position 0 it is"):
        predict(bundle, numbers)
    with pytest.raises(ModelError, match="attribute_industry"):
        predict(bundle, panel.drop(columns="attribute_industry"))


def test_a_project_that_no_longer_maps_the_attribute_is_told_its_key(
    learned: tuple[Trained, Path], transactions: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        ModelError, match=r"needs data\.customers\.categories\.industry, data\.customers\.categories\.reg"
    ):
        score(made(transactions, categories=False), learned[0].bundle, AS_OF, tmp_path / "s.parquet")


@pytest.mark.usefixtures("quick")
def test_a_value_that_nobody_has_is_a_warning_of_training(transactions: Path) -> None:
    veto = {**VETO, "when": [{"feature": "attribute_region", "is": ["sooth"]}]}
    done = train(made(transactions, categories=True, tiers={"scheme": {**PYRAMID, "veto": [veto]}}), AS_OF)
    lines = [line for line in done.accounts["transactions"].warnings if "sooth" in line]
    assert lines == ["tiers.scheme: no customer has attribute_region 'sooth'; there are 'south', 'north'"]


def test_the_card_names_the_text_that_the_rules_read(learned: tuple[Trained, Path]) -> None:
    card = (learned[1] / "card.md").read_text(encoding="utf-8")
    assert (
        "Text attributes that the rules of the tiers read, and no model does: attribute_industry, attribute_region."
        in card
    )
    assert "等级规则读取的文本属性（模型不读取）：attribute_industry、attribute_region。" in card
    assert "- attribute (" not in card  # among the inputs


def test_the_ledger_starts_from_the_tiers_of_the_stratum(
    learned: tuple[Trained, Path], stratified: Project, tmp_path: Path
) -> None:
    bundle: Bundle = learned[0].bundle
    for day in (date(2023, 9, 1), AS_OF):
        score(stratified, bundle, day, tmp_path / "s.parquet", ledger=tmp_path / "ledger")
    assert Ledger(tmp_path / "ledger").before(date(2023, 12, 1)) is not None
    assert (pd.read_parquet(tmp_path / "s.parquet")["movement"] == "same").mean() > 0.8
