"""The worked example of a bank: its tables, and what the preset `bank` makes of them."""

from __future__ import annotations

import shutil
from datetime import date
from pathlib import Path

import pandas as pd
import pytest

from tiermodel.config.project import load_project
from tiermodel.datasets.bank import write_bank
from tiermodel.features.frame import has_bought
from tiermodel.features.panel import build_panel
from tiermodel.tiers.fitted_scheme import fit_scheme
from tiermodel.tiers.schemes.load import load_scheme

CONFIG = Path(__file__).parents[2] / "configs" / "bank.yaml"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("example")
    (folder / "configs").mkdir()
    shutil.copy(CONFIG, folder / "configs")
    write_bank(folder / "bank", customers=600)
    return folder


def test_the_same_seed_writes_the_same_tables(folder: Path, tmp_path: Path) -> None:
    again = write_bank(tmp_path / "bank", customers=600)
    for path in (folder / "bank").iterdir():
        assert path.read_bytes() == (again / path.name).read_bytes()


def test_assets_credit_contribution_and_potential_decide(folder: Path) -> None:
    project = load_project(folder / "configs" / "bank.yaml")
    frame = build_panel(project, [date(2024, 1, 1)])
    fitted = fit_scheme(load_scheme(project), frame, frame, 7)
    standing = {key: index for key, index, _ in fitted.scheme.indexes(fitted.state)}["points:standing"]
    assert [d.feature for d in standing.dimensions] == [
        "attribute_balance", "attribute_credit_grade", "late_share_365d", "margin_365d",
    ]  # fmt: skip
    level, _ = fitted.assign(frame)
    buyers = frame.assign(level=level)[has_bought(frame)]
    means = buyers.groupby("level")[["attribute_balance", "margin_365d"]].mean()
    assert list(means.index) == [0, 1, 2, 3]
    assert means.loc[[0, 2, 3]].apply(lambda column: column.is_monotonic_increasing).all()
    promising = fitted.with_fitted_features(buyers[buyers["level"] == 1])
    assert (promising["silence_ratio"] <= 1).all()
    assert (promising["headroom_amount"] > 0).mean() > 0.5
    assert pd.Series(level).value_counts(normalize=True)[3] < 0.1
