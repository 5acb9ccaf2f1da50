"""Figures by group: who is in which, what is shown of whom, and attributes that only the audit sees."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiermodel.bundle.bundle import load_bundle
from tiermodel.evaluation.bootstrap import cluster_draws, cluster_interval
from tiermodel.evaluation.slices import FEWEST, MOST_TEXTS, groups, slice_figures
from tiermodel.training.train import train
from worlds import audited_project, small_world


def told(n: int) -> pd.DataFrame:
    rng = np.random.default_rng(n)
    risk, expected = rng.uniform(0.1, 0.9, n), rng.gamma(2.0, 20.0, n)
    return pd.DataFrame({
        "churned": (rng.random(n) < risk).astype(float), "risk": risk, "value": expected * rng.lognormal(0, 0.3, n),
        "expected": expected, "low": 0.6 * expected, "high": 1.6 * expected, "held": rng.random(n) < 0.9,
    })  # fmt: skip


def test_small_groups_are_not_shown_and_prospects_have_no_risk() -> None:
    frame = told(100)
    frame.loc[:9, ["churned", "risk"]] = np.nan
    names = np.array(["a"] * (100 - FEWEST + 1) + ["b"] * (FEWEST - 1))
    group = pd.Series(pd.Categorical(names, categories=["a", "b", "never"]))
    (row,) = slice_figures({"kind": group}, frame)
    mine = frame[:71]
    assert (row["by"], row["group"], row["n"]) == ("kind", "a", 71)
    assert row["rate"] == pytest.approx(mine["churned"].mean())
    assert row["value_coverage"] == pytest.approx(mine["value"].between(mine["low"], mine["high"]).mean())
    assert row["tier_coverage"] == pytest.approx(mine["held"].mean())
    none = next(iter(slice_figures({"kind": group}, frame.assign(risk=np.nan))))
    assert none["rate"] is None
    assert none["n"] == 71


@given(st.lists(st.one_of(st.floats(-5, 5), st.just(np.nan)), min_size=1, max_size=60))
def test_every_customer_is_in_one_group_of_an_attribute(values: list[float]) -> None:
    frame = pd.DataFrame({"purchase_days_total": 1.0, "days_since_first": 5.0, "audited_x": values})
    group = groups(frame, np.zeros(len(values), dtype=np.int64), ["only"])["audited_x"]
    assert group.notna().all()
    assert ((group == "?").to_numpy() == np.isnan(values)).all()
    known = pd.Series(values).groupby(group.astype(str).to_numpy()).agg(["min", "max"]).drop(index="?", errors="ignore")
    spans = known.sort_values("min").to_numpy()
    assert (spans[:-1, 1] < spans[1:, 0]).all()  # groups of values do not overlap


@given(st.lists(st.sampled_from(["north", "south", "", "?", "…", None]), min_size=1, max_size=60))
def test_a_text_attribute_gives_a_group_of_each_value(values: list[str | None]) -> None:
    column = pd.Series(values, dtype="str")
    frame = pd.DataFrame({"purchase_days_total": 1.0, "days_since_first": 5.0, "audited_x": column})
    group = groups(frame, np.zeros(len(values), dtype=np.int64), ["only"])["audited_x"]
    assert group.tolist() == [value or "?" for value in values]


def test_the_rarest_values_of_a_text_attribute_are_one_group() -> None:
    values = [f"v{n:03d}" for n in range(2 * MOST_TEXTS) for _ in range(1 + (n < MOST_TEXTS))]
    frame = pd.DataFrame({"purchase_days_total": 1.0, "days_since_first": 5.0, "audited_x": values})
    group = groups(frame, np.zeros(len(values), dtype=np.int64), ["only"])["audited_x"]
    assert group.tolist() == [value if value < f"v{MOST_TEXTS:03d}" else "…" for value in values]


def test_intervals_draw_customers_with_all_their_rows() -> None:
    customer = np.repeat(np.arange(50), 4)
    for seed in range(5):
        rows = cluster_draws(customer)(np.random.default_rng(seed))
        assert (np.bincount(customer[rows], minlength=50) % 4 == 0).all()
    value = np.repeat(np.random.default_rng(1).normal(size=50), 4)
    low, high = cluster_interval(lambda y: float(y.mean()), [value], customer, draws=400, seed=0)
    naive = 1.96 * value.std() / np.sqrt(200)
    assert 1.6 < (high - low) / (2 * naive) < 2.4  # four rows of one customer are one observation: twice as wide


@pytest.mark.usefixtures("quick")
def test_an_audited_attribute_is_shown_and_never_read(tmp_path: Path) -> None:
    rows = pd.read_parquet(small_world(tmp_path / "t.parquet"))
    people = pd.DataFrame({"customer": rows["customer"].unique()})
    people["age"] = np.where(np.arange(len(people)) % 2, 30, 60)
    audited = audited_project(tmp_path / "t.parquet", people)
    blind = audited.model_copy(update={"features": audited.features.model_copy(update={"audited": ()})})
    one, other = train(audited, out=tmp_path / "audited"), train(blind)
    assert one.bundle.churn == other.bundle.churn
    assert one.bundle.inputs.names == other.bundle.inputs.names
    shown = [(row["group"], row["n"]) for row in one.bundle.facts["slices"] if row["by"] == "audited_age"]
    assert [group for group, _ in shown] == ["30", "60"]
    assert sum(n for _, n in shown) == len(one.out_of_fold["value"])
    assert not [row for row in other.bundle.facts["slices"] if row["by"].startswith("audited")]
    assert "| audited_age 30 |" in (tmp_path / "audited" / "card.md").read_text()
    assert load_bundle(tmp_path / "audited").columns == other.bundle.columns  # scoring needs no attribute
