"""Frames in and frames out: the verbs in Python without a file, and what they say of objects that do not fit."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pandas as pd
import pytest

import tiermodel as tm
from tiermodel.errors import ProjectError
from tiermodel.features.export import write_features
from worlds import LAST_DAY, TrainedWorld

DAY = "2023-11-01"
POLICY = """
version: 1
name: shop
levels: {}
actions:
  call: {name_zh: 回访, name_en: call, cost: 1, gain: 0.1 * expected_value}
"""


@pytest.fixture(scope="module")
def sales(trained: TrainedWorld) -> pd.DataFrame:
    return pd.read_parquet(str(trained.project.data.transactions.path))


@pytest.fixture(scope="module")
def in_memory(trained: TrainedWorld) -> tm.Project:
    """Give the project without a path: its rows come as frames only."""
    sold = trained.project.data.transactions.model_copy(update={"path": None})
    return trained.project.model_copy(update={"data": trained.project.data.model_copy(update={"transactions": sold})})


@pytest.fixture(scope="module")
def scores(trained: TrainedWorld, in_memory: tm.Project, sales: pd.DataFrame) -> pd.DataFrame:
    return tm.score(in_memory, trained.trained.bundle, DAY, history=sales)


def read(path: Path) -> pd.DataFrame:
    return pd.read_parquet(path, dtype_backend="numpy_nullable")


def same(frame: pd.DataFrame, file: Path) -> None:
    """Compare a frame with what the verb writes: every column, type and value."""
    frame.attrs.clear()
    frame.to_parquet(file.with_suffix(".own.parquet"), index=False)
    found, wanted = read(file.with_suffix(".own.parquet")), read(file)
    for name in ("as_of", "graded"):
        if name in wanted:
            wanted[name] = pd.to_datetime(wanted[name]).astype(found[name].dtype)
    pd.testing.assert_frame_equal(found, wanted, check_exact=True)


def test_scores_are_a_frame_that_equals_the_file(trained: TrainedWorld, scores: pd.DataFrame, tmp_path: Path) -> None:
    written = tm.score(trained.project, trained.bundle, date(2023, 11, 1), tmp_path / "s.parquet")
    assert written.customers == len(scores) > 200
    assert scores["as_of"].unique().tolist() == [pd.Timestamp(DAY)]
    assert scores.attrs["warnings"] == list(written.accounts["transactions"].warnings)
    same(scores.copy(), tmp_path / "s.parquet")


def test_upgrades_are_a_frame(
    trained: TrainedWorld, in_memory: tm.Project, sales: pd.DataFrame, tmp_path: Path
) -> None:
    found = tm.upgrades(in_memory, trained.trained.bundle, DAY, history={"transactions": sales})
    rows, customers = tm.upgrades(trained.project, trained.bundle, DAY, tmp_path / "u.parquet")
    assert (len(found), found["customer_id"].nunique()) == (rows, customers)
    same(found, tmp_path / "u.parquet")


def test_lists_and_allocation_take_frames_and_give_frames(
    trained: TrainedWorld, in_memory: tm.Project, sales: pd.DataFrame, scores: pd.DataFrame, tmp_path: Path
) -> None:
    bundle = trained.trained.bundle
    features = tm.build_panel(in_memory, DAY, history=sales)
    found = tm.lists(scores, bundle, features)
    tm.score(trained.project, bundle, DAY, tmp_path / "s.parquet")
    write_features(trained.project, DAY, tmp_path / "f.parquet")
    counts = tm.lists(tmp_path / "s.parquet", bundle, tmp_path / "f.parquet", tmp_path / "lists")
    assert {one.list: one.listed for one in counts.lists} == {name: len(rows) for name, rows in found.items()}
    keep = pd.read_csv(tmp_path / "lists" / "keep.csv", dtype={"customer_id": str})
    assert found["keep"]["customer_id"].tolist() == keep["customer_id"].tolist()
    (tmp_path / "policy.yaml").write_text(
        POLICY.replace("{}", "{" + ", ".join(f"{c}: {{}}" for c in bundle.scheme.scheme.codes) + "}"), "utf-8"
    )
    chosen = tm.allocate(scores, tmp_path / "policy.yaml", 50)
    sums = tm.allocate(tmp_path / "s.parquet", tmp_path / "policy.yaml", 50, tmp_path / "a.parquet")
    assert len(chosen) == sums.customers == 50
    same(chosen, tmp_path / "a.parquet")


def test_outcomes_are_a_frame(
    trained: TrainedWorld, in_memory: tm.Project, sales: pd.DataFrame, tmp_path: Path
) -> None:
    for day in ("2023-06-01", "2023-08-01"):
        tm.score(in_memory, trained.trained.bundle, day, ledger=tmp_path / "ledger", history=sales)
    found = tm.outcomes(in_memory, tmp_path / "ledger", history=sales)
    written = tm.outcomes(trained.project, tmp_path / "ledger", tmp_path / "o.parquet")
    assert len(found) == len(written.tiers)
    same(found, tmp_path / "o.parquet")


def test_dates_are_dates_texts_and_instants(in_memory: tm.Project, sales: pd.DataFrame) -> None:
    history = tm.open_history(in_memory, transactions=sales)
    wanted = tm.build_panel(in_memory, [date(2023, 6, 1), date(2023, 11, 1)], history=history)
    days = ["2023-06-01", DAY]
    several: list[Any] = [
        ",".join(days),
        [DAY, date(2023, 6, 1)],
        np.array(days, "datetime64[D]"),
        pd.to_datetime(days),
    ]
    for given in several:
        pd.testing.assert_frame_equal(tm.build_panel(in_memory, given, history=history), wanted)
    for one in (DAY, date(2023, 11, 1), datetime(2023, 11, 1), pd.Timestamp(DAY), np.datetime64(DAY)):  # noqa: DTZ001
        panel = tm.build_panel(in_memory, one, history=history)  # type: ignore[arg-type]
        assert panel["as_of"].unique().tolist() == [pd.Timestamp(DAY)]
    latest = tm.build_panel(in_memory, "latest", known_until="latest", with_outcome=True, history=history)
    assert latest["as_of"].max() == pd.Timestamp(LAST_DAY) + pd.Timedelta(days=1)


def test_results_show_themselves_in_a_notebook(
    trained: TrainedWorld, in_memory: tm.Project, sales: pd.DataFrame, tmp_path: Path
) -> None:
    bundle, zh = trained.trained.bundle, in_memory.model_copy(update={"language": "zh", "name": "<b>x</b>"})
    codes = ", ".join(f"{code}: {{}}" for code in bundle.scheme.scheme.codes)
    (tmp_path / "policy.yaml").write_text(POLICY.replace("levels: {}", f"levels: {{{codes}}}"), "utf-8")
    scored = tm.score(trained.project, bundle, DAY, tmp_path / "s.parquet", ledger=tmp_path / "ledger")
    write_features(trained.project, DAY, tmp_path / "f.parquet")
    shown: dict[str, Any] = {
        "bundle": bundle,
        "trained": trained.trained,
        "project": zh,
        "scored": scored,
        "check": tm.check(zh, history=sales),
        "monitor": tm.monitor(in_memory, bundle, DAY, history=sales),
        "allocation": tm.allocate(
            tmp_path / "s.parquet", tmp_path / "policy.yaml", 50, tmp_path / "a.parquet", language="zh"
        ),
        "lists": tm.lists(tmp_path / "s.parquet", bundle, tmp_path / "f.parquet", tmp_path / "lists"),
        "outcomes": tm.outcomes(in_memory, tmp_path / "ledger", tmp_path / "o.parquet", history=sales),
    }
    pages = {name: one._repr_html_() for name, one in shown.items()}
    for name, page in pages.items():
        tree = ET.fromstring(page)  # noqa: S314  made here
        assert tree.tag == "table", name
        assert tree.attrib["lang"] == ("zh" if name in {"project", "check", "allocation"} else "en")
        assert len(page) < 20_000
        assert "<script" not in page
    assert "&lt;b&gt;x" in pages["project"]
    assert "预测期" in pages["project"]
    assert "数据检查" in pages["check"]
    assert bundle.version in pages["bundle"] == pages["trained"]
    assert f"{scored.customers:,}" in pages["scored"]
    assert all(code in pages["scored"] for code in scored.tiers)
    assert "收益减成本" in pages["allocation"]


def test_a_model_is_one_line_at_the_prompt_and_names_complete_before_they_are_loaded(trained: TrainedWorld) -> None:
    bundle = tm.load_bundle(trained.bundle)
    assert repr(bundle) == (
        f"<Bundle {bundle.version}: {bundle.scheme_version}, as of {bundle.facts['as_of']}, "
        f"{bundle.facts['customers']} customers>"
    )
    assert repr(trained.trained) == f"Trained(bundle={bundle!r})"
    assert set(tm.__all__) <= set(dir(tm))


def test_no_password_is_shown_in_a_notebook(in_memory: tm.Project) -> None:
    url = {"path": "postgresql://me:hush@db/shop", "query": "SELECT 1"}
    sold = in_memory.data.transactions.model_copy(update=url)
    page = in_memory.model_copy(update={"data": in_memory.data.model_copy(update={"transactions": sold})})._repr_html_()
    assert "postgresql://me:" in page
    assert "hush" not in page


ANY: Any = tm  # what no type checker lets pass
Call = Callable[[TrainedWorld, pd.DataFrame], Any]


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda w, _: ANY.score("shop.yaml", w.bundle, DAY), TypeError, r"load it: load_project\('shop.yaml'\)"),
        (lambda w, _: ANY.train(w.bundle), TypeError, "expected a Project, got PosixPath"),
        (lambda *_: ANY.check({"version": 1}), TypeError, "expected a Project, got dict"),
        (lambda w, _: ANY.score(w.project, w.trained, DAY), TypeError, r"got Trained; it has one: pass its \.bundle"),
        (lambda w, s: ANY.score(w.project, s, DAY), TypeError, "expected a bundle, or the folder of one, got Data"),
        (lambda w, _: ANY.score(w.project, w.bundle, 20231101), TypeError, "as_of: expected a date, got int 20231101"),
        (lambda w, _: ANY.score(w.project, w.bundle, None), TypeError, "write '2017-11-30' or 'latest'"),
        (lambda w, _: ANY.score(w.project, w.bundle, DAY, shadow=w.bundle), ProjectError, "name a file"),
        (lambda w, _: ANY.build_panel(w.project, 5), TypeError, "expected a date, or several, got int 5"),
        (lambda w, _: ANY.build_panel(w.project, "soon"), ProjectError, "write dates as 2017-11-30"),
        (lambda w, _: ANY.train(w.project, history=[1]), TypeError, "history: expected what open_history.*list"),
        (lambda w, s: ANY.train(w.project, history=s.drop(columns="amount")), ProjectError, "no column 'amount'"),
        (lambda w, s: ANY.train(w.project, history={"sales": s}), ProjectError, "'sales' is no table that"),
        (lambda w, _: ANY.lists([1], w.bundle, "f.parquet"), TypeError, "scores: expected a DataFrame or the path"),
        (lambda w, s: ANY.lists(s, w.bundle, s), tm.TierModelError, "tier_code"),
        (lambda *_: ANY.allocate(None, "retail", 5), TypeError, "scores: expected a DataFrame or the path.*NoneType"),
    ],
)  # fmt: skip
def test_wrong_objects_get_a_sentence(
    trained: TrainedWorld, sales: pd.DataFrame, call: Call, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        call(trained, sales)
