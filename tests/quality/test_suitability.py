"""Suitability: check foretells what train refuses, in the same words and in the project's language."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tiermodel.config.project import Project
from tiermodel.engines.dispatch import open_history
from tiermodel.errors import DataError
from tiermodel.quality.check import check
from tiermodel.training.train import train
from worlds import small_project, small_world

pytestmark = pytest.mark.usefixtures("compiled")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    return pd.read_parquet(small_world(tmp_path_factory.mktemp("suitable") / "t.parquet", customers=150))


def refusals(project: Project, rows: pd.DataFrame) -> list[str]:
    """Give the findings that refuse, of which train's error must consist."""
    history = open_history(project, transactions=rows)
    found = [f.text(project.language) for f in check(project, history=history).findings if f.level == "refuse"]
    with pytest.raises(DataError) as error:
        train(project, history=history)
    assert str(error.value).splitlines() == found
    return found


@pytest.mark.parametrize(
    ("sections", "days", "words"),
    [
        ({}, 80, ["80 days of history; at least 120 are needed"]),
        ({"language": "zh"}, 80, ["历史 80 天，至少需要 120 天"]),
        ({"outcome": {"horizon_days": 300}, "panel": {"every_days": 30}}, 500, ["500 days of history; at least 600"]),
        ({"churn": {"horizon_days": 400}}, 430, ["430 days of history; at least 460 are needed"]),
        ({"tiers": {"scheme": "pyramid", "stability": {"moved_share": 0.2}}, "panel": {"snapshots": 2}}, 730,
         ["2 snapshot dates to choose a stability rule on"]),
    ],
)  # fmt: skip
def test_train_refuses_in_the_words_of_check(
    rows: pd.DataFrame, sections: dict[str, Any], days: int, words: list[str]
) -> None:
    start = rows["day"].min()
    kept = rows[rows["day"] < start + pd.Timedelta(days=days)]
    kept = pd.concat([kept, kept.iloc[-1:].assign(day=start + pd.Timedelta(days=days - 1), order="last")])
    found = refusals(small_project(Path("t.parquet"), **sections), kept)
    for text in words:
        assert any(line.startswith(text) for line in found), found


def test_each_lack_is_named(rows: pd.DataFrame) -> None:
    project = small_project(Path("t.parquet"))
    once = rows.drop_duplicates("customer")
    assert refusals(project, once)[0].startswith("0 customers bought twice or more; at least 50 are needed")
    few = rows[rows["customer"].isin(rows["customer"].unique()[:90])]
    assert refusals(project, few) == ["90 buying customers; at least 100 are needed"]
    assert "0 customer snapshots brought more than nothing" in refusals(project, rows.assign(amount=0.0))[-1]
    weekly = pd.DataFrame({"customer": [f"C{n:03d}" for n in range(120)]}).merge(
        pd.DataFrame({"day": pd.date_range("2022-01-01", periods=104, freq="7D")}), how="cross"
    )
    loyal = weekly.assign(amount=9.9, order=[f"o{n}" for n in range(len(weekly))], product="p")
    assert refusals(project, loyal)[0].startswith("0 of 360 customer snapshots churned")
