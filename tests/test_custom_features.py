"""A project with features of its own, as a user runs it: dictionary, train, rules, score, serve, reasons."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from commands import Run
from schemes_made import LEVELS, SHARES
from served import as_json, written
from tiermodel.bundle.bundle import load_bundle
from tiermodel.config.project import load_project
from tiermodel.serving.service import Service
from worlds import quick_fits, small_project, small_world

CUSTOM: list[dict[str, Any]] = [
    {"name": "big_lines", "name_zh": "大额行数", "name_en": "big lines", "unit": "count",
     "measure": "(amount >= 25)::INTEGER", "windows_days": [90]},
    {"name": "big_share", "name_zh": "大额占比", "name_en": "share of big lines", "unit": "share",
     "formula": "big_lines_90d / order_count_90d"},
]  # fmt: skip
SCHEME = {"code": "own", "name_zh": "自有", "name_en": "own", "kind": "share", "feature": "big_lines_total",
          "levels": LEVELS, "shares": SHARES}  # fmt: skip
Once = Callable[[str, Callable[[Path], Any]], Any]


@pytest.fixture(scope="module")
def shop(once: Once, compiled: None) -> Path:  # noqa: ARG001  compiled before
    """Train a shop whose scheme reads a custom feature; give its folder."""
    return Path(once("custom", _trained))


def _trained(folder: Path) -> str:
    from tiermodel.training.train import train  # noqa: PLC0415

    features = {"windows_days": [60, 365], "custom": CUSTOM}
    transactions = small_world(folder / "t.parquet", customers=250)
    project = small_project(transactions, features=features, tiers={"scheme": SCHEME}, language="zh")
    written(project, folder)
    with quick_fits():
        train(load_project(folder / "shop.yaml"), "2023-09-01", out=folder / "model")
    return str(folder)


def test_the_dictionary_and_the_rules_have_its_names(shop: Path, cli: Run) -> None:
    shown = json.loads(cli("show", "features", shop / "shop.yaml", "--json").out)
    named = {row["feature"]: row for row in shown}
    assert named["big_share"]["含义"] == "大额占比"
    assert named["big_lines_90d"]["meaning"] == "big lines in the last 90 days"
    assert {named[name]["group"] for name in ("big_lines_90d", "big_lines_total", "big_share")} == {"custom"}
    told = cli("rules", shop / "model", "--format", "text")
    assert "累计大额行数" in told.out, told.err
    assert "big_lines_total" in cli("rules", shop / "model", "--format", "sql").out


def test_scores_are_those_of_the_server_and_say_the_reasons(shop: Path, cli: Run, tmp_path: Path) -> None:
    out = tmp_path / "scores.parquet"
    ran = cli("score", shop / "shop.yaml", "--model", shop / "model", "--as-of", "2023-11-01", "--out", out)
    assert ran.code == 0, ran.err
    scores = pd.read_parquet(out)
    assert scores["tier"].nunique() == 3
    assert scores["reason_1"].str.contains("累计大额行数").all()
    bundle = load_bundle(shop / "model")
    assert {"big_lines_90d", "big_lines_total", "big_share"} <= set(bundle.inputs.names)
    assert "custom_big_lines" in bundle.columns
    rows = as_json(pd.read_parquet(shop / "t.parquet"))
    service = Service(load_project(shop / "shop.yaml"), bundle, "own")
    body = json.dumps({"as_of": "2023-11-01", "transactions": rows}).encode()
    answered = pd.DataFrame(json.loads(service.answer(body))["scores"])
    for column in ("tier", "churn_risk", "expected_value", "reason_1"):
        assert answered[column].tolist() == scores[column].tolist(), column
    built = tmp_path / "f.parquet"
    assert cli("features", shop / "shop.yaml", "--as-of", "2023-11-01", "--out", built).code == 0
    raw = pd.read_parquet(shop / "t.parquet").query("day < '2023-11-01' and amount >= 25")
    wanted = pd.read_parquet(built).set_index("customer_id")["big_lines_total"]
    assert (wanted == raw.groupby("customer").size().reindex(wanted.index, fill_value=0)).all()


def test_another_measure_of_the_name_is_refused(shop: Path, cli: Run, tmp_path: Path) -> None:
    settings = yaml.safe_load((shop / "shop.yaml").read_text("utf-8"))
    shutil.copy(shop / "t.parquet", tmp_path)
    for change, words in (
        ([{**CUSTOM[0], "measure": "(amount >= 30)::INTEGER"}, CUSTOM[1]], "was trained with (amount >= 25)::INTEGER"),
        ([], "needs features.custom.big_lines, which the project does not map"),
    ):
        file = tmp_path / "other.yaml"
        file.write_text(yaml.safe_dump({**settings, "features": {**settings["features"], "custom": change}}), "utf-8")
        ran = cli("score", file, "--model", shop / "model", "--as-of", "2023-11-01", "--out", tmp_path / "s.parquet")
        assert ran.code == 5
        assert words in ran.err
