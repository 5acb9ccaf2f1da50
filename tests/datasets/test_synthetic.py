"""The seeded world: its data follow its truth, a seed gives the same bits, and models come near what can be known."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from tiermodel.config.project import Project, load_project
from tiermodel.datasets.synthetic import World, make_world
from tiermodel.evaluation.metrics import auc, log_loss
from tiermodel.features.panel import build_panel
from tiermodel.predict import predict
from tiermodel.training.train import train
from worlds import quick_fits

AS_OF, HORIZON, END = date(2023, 7, 1), 60, pd.Timestamp(2024, 1, 1)


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(seed=11, customers=3_000)


@pytest.fixture(scope="module")
def sales(world: World) -> pd.DataFrame:
    return world.tables["transactions"].to_pandas()


@pytest.fixture(scope="module")
def project(world: World, tmp_path_factory: pytest.TempPathFactory) -> Project:
    return load_project(world.write(tmp_path_factory.mktemp("world")))


def silent(sales: pd.DataFrame, customers: pd.Index, as_of: date, days: int) -> NDArray[np.float64]:
    """Tell from the rows who bought nothing in a window."""
    since, until = pd.Timestamp(as_of), pd.Timestamp(as_of + timedelta(days))
    bought = sales[(sales["amount"] > 0) & (sales["time"] >= since) & (sales["time"] < until)]
    return (~customers.isin(set(bought["customer_id"]))).astype(np.float64)


# the same again


def test_a_seed_gives_the_same_bits_and_another_does_not(world: World) -> None:
    again, other = make_world(seed=11, customers=3_000), make_world(seed=12, customers=3_000)
    for name, table in world.tables.items():
        assert again.tables[name].equals(table)
        assert not other.tables[name].equals(table)
    pd.testing.assert_frame_equal(again.truth, world.truth, check_exact=True)


def test_fewer_customers_are_the_first_of_more(world: World) -> None:
    few = make_world(seed=11, customers=700)
    pd.testing.assert_frame_equal(few.truth, world.truth.iloc[:700], check_exact=True)
    for name, table in few.tables.items():
        more = world.tables[name].to_pandas()
        more = more[more["customer_id"].isin(set(few.truth.index))].reset_index(drop=True)
        pd.testing.assert_frame_equal(table.to_pandas(), more, check_exact=True, check_dtype=False)


# the data follow the truth


def test_nobody_buys_before_the_start_or_after_leaving(world: World, sales: pd.DataFrame) -> None:
    bought = sales[sales["amount"] > 0].join(world.truth, on="customer_id")
    assert (bought["time"] >= bought["start"]).all()
    assert (bought["time"] < bought["left"]).all()
    first = bought.groupby("customer_id")["time"].min().dt.normalize()
    pd.testing.assert_series_equal(
        first, world.truth["start"].reindex(first.index), check_names=False, check_dtype=False
    )
    prospects = world.truth.index[world.truth["start"].isna()]
    assert not prospects.isin(sales["customer_id"]).any()
    assert prospects.isin(world.tables["events"].to_pandas()["customer_id"]).mean() > 0.5


def test_rates_amounts_margins_and_returns_are_those_of_the_truth(world: World, sales: pd.DataFrame) -> None:
    truth = world.truth.assign(end=world.truth["left"].where(lambda day: day < END, END))
    orders = sales[sales["amount"] > 0].groupby("customer_id")["order_id"].nunique().reindex(truth.index, fill_value=0)
    steady = truth["grow_day"].isna() & (truth["rate"] > 0)
    days = (truth["end"] - truth["start"]).dt.days - 1
    campaigns = days / 45 / 2 * truth["response"]
    wanted = (1 + truth["rate"] * days + campaigns)[steady]
    assert orders[steady].sum() == pytest.approx(wanted.sum(), rel=0.03)
    frequent = steady & (truth["rate"] * days > 20)
    assert np.corrcoef(orders[frequent] / days[frequent], truth["rate"][frequent])[0, 1] > 0.9
    assert orders[(truth["rate"] == 0) & truth["start"].notna()].unique().tolist() == [1]
    bought, returned = sales[sales["amount"] > 0], sales[sales["amount"] < 0]
    every = bought.join(truth, on="customer_id")
    assert 1 - every["cost"].sum() / every["amount"].sum() == pytest.approx(
        np.average(every["margin_share"], weights=every["amount"]), abs=0.005
    )
    assert len(returned) / len(bought) == pytest.approx(every["return_share"].mean(), rel=0.08)
    by_order = every.groupby("order_id").agg({"amount": "sum", "order_amount": "first"})
    assert (by_order["amount"] / by_order["order_amount"]).mean() == pytest.approx(1, abs=0.02)


def test_some_grow_and_some_pay_late(world: World, sales: pd.DataFrame) -> None:
    growers = world.truth[world.truth["grow_day"].notna()]
    every = sales[sales["amount"] > 0].join(
        growers[["grow_day", "growth", "start", "left"]], on="customer_id", how="inner"
    )
    half = pd.Timedelta(days=60)
    seen = every["left"].sub(every["grow_day"]) >= half
    seen &= every["grow_day"].sub(every["start"]) >= half
    near = every[seen & (every["grow_day"] + half <= pd.Timestamp(world.last_day))]
    after = near["time"].between(near["grow_day"], near["grow_day"] + half).sum()
    before = near["time"].between(near["grow_day"] - half, near["grow_day"]).sum()
    assert after / before > 1.5
    bills = world.tables["invoices"].to_pandas().join(world.truth, on="customer_id")
    assert bills["business"].all()
    late = (pd.to_datetime(bills["paid"]) - pd.to_datetime(bills["due"])).dt.days
    assert late[bills["late_days"] == 0].median() < 0 < late[bills["late_days"] > 20].median()
    assert pd.to_datetime(bills["paid"]).max() <= pd.Timestamp(world.last_day)
    assert bills["paid"].isna().any()


def test_campaigns_are_answered_as_often_as_the_truth_says(world: World) -> None:
    events = world.tables["events"].to_pandas().join(world.truth, on="customer_id")
    there = events["time"].between(events["start"] + pd.Timedelta(days=1), events["left"], inclusive="left")
    sent, answered = events[there & (events["kind"] == "campaign")], events[events["kind"] == "response"]
    assert len(answered) == pytest.approx(sent["response"].sum(), rel=0.1)
    assert sent["response"].max() > 5 * sent["response"].median()


# the probabilities are right


@pytest.mark.parametrize("given", ["truth", "history"])
@pytest.mark.parametrize("gap", [0, 20])
def test_what_is_said_to_be_likely_happens_as_often(
    world: World, sales: pd.DataFrame, given: Literal["truth", "history"], gap: int
) -> None:
    said = world.p_silent(AS_OF, HORIZON, gap, given=given)
    happened = silent(sales, said.index, AS_OF + timedelta(gap), HORIZON)
    for part in np.array_split(np.argsort(said.to_numpy(), kind="stable"), 6):
        error = 4 * np.sqrt((said.iloc[part] * (1 - said.iloc[part])).sum()) / len(part)
        assert abs(said.iloc[part].mean() - happened[part].mean()) <= error + 1e-9


def test_knowing_more_is_better(world: World, sales: pd.DataFrame) -> None:
    truth, history = (world.p_silent(AS_OF, HORIZON, given=g) for g in ("truth", "history"))
    happened = silent(sales, truth.index, AS_OF, HORIZON)
    constant = np.full(len(happened), happened.mean())
    losses = [log_loss(happened, p) for p in (truth.to_numpy(), history.to_numpy(), constant)]
    assert losses == sorted(losses)
    gone = world.truth["left"].reindex(truth.index) < pd.Timestamp(AS_OF)
    np.testing.assert_allclose(truth[gone], 1)


def test_value_is_that_of_the_rows_and_near_what_was_expected(world: World, sales: pd.DataFrame) -> None:
    since, until = pd.Timestamp(AS_OF), pd.Timestamp(AS_OF + timedelta(HORIZON))
    inside = sales[(sales["time"] >= since) & (sales["time"] < until)]
    found = world.value(AS_OF, HORIZON)
    by_customer = inside.groupby("customer_id")["amount"].sum().reindex(found.index, fill_value=0)
    np.testing.assert_allclose(found, by_customer, atol=1e-6)
    expected, margin = world.expected_value(AS_OF, HORIZON), world.expected_value(AS_OF, HORIZON, "margin")
    assert found.sum() == pytest.approx(expected.sum(), rel=0.1)
    assert world.value(AS_OF, HORIZON, "margin").sum() == pytest.approx(margin.sum(), rel=0.12)
    assert world.value(world.last_day, 100).sum() > 0  # beyond what the tables show
    with pytest.raises(ValueError, match="more future_days"):
        world.value(world.last_day, 400)


def test_true_tiers_have_their_shares(world: World) -> None:
    tier, worth = world.tier(AS_OF, HORIZON), world.expected_value(AS_OF, HORIZON)
    above = [(tier >= level).mean() for level in (1, 2, 3)]
    np.testing.assert_allclose(above, [0.2, 0.05, 0.01], atol=1 / len(tier))
    assert worth.groupby(tier).min().iloc[1:].gt(worth.groupby(tier).max().iloc[:-1].to_numpy()).all()
    assert worth[tier >= 1].sum() / worth.sum() > 0.5  # a few bring most


# the tables as a company has them


def test_every_table_is_read_whole(world: World, project: Project) -> None:
    panel = build_panel(project, [AS_OF])
    known = set(world.truth.index[~world.truth["opted_out"]])
    assert set(panel["customer_id"]) <= known
    assert {"net_amount_total", "visit_count_total"} & set(panel.columns)
    assert any(name.startswith("客户") or "客户" in name for name in panel["customer_id"])


def test_csv_says_the_same_as_parquet(tmp_path: Path) -> None:
    few = make_world(seed=11, customers=500)
    same, project = (load_project(few.write(tmp_path / kind, kind)) for kind in ("csv", "parquet"))
    pd.testing.assert_frame_equal(build_panel(same, [AS_OF]), build_panel(project, [AS_OF]), check_exact=True)


# models


def test_a_model_beats_chance_and_nears_but_does_not_pass_what_can_be_known(tmp_path: Path) -> None:
    # without a season, which half a year of snapshots cannot know; of purchases alone, as the bound is
    world = make_world(seed=11, customers=3_000, season=0.0)
    found = load_project(world.write(tmp_path)).model_dump()
    found |= {"features": {"windows_days": [60, 365]}, "panel": {"every_days": 30, "snapshots": 6}}
    found["data"] = {"transactions": found["data"]["transactions"]}
    quick = Project.model_validate(found)
    with quick_fits("models.churn"):  # only its risks are judged
        bundle = train(quick, AS_OF).bundle
    scored = predict(bundle, build_panel(quick, [AS_OF])).set_index("customer_id")["churn_risk"].dropna()
    said = scored.to_numpy()
    truth = world.p_silent(AS_OF, HORIZON).reindex(scored.index).to_numpy()
    known = world.p_silent(AS_OF, HORIZON, given="history").reindex(scored.index).to_numpy()

    def losses(predicted: NDArray[np.float64]) -> NDArray[np.float64]:
        """Judge by the true probabilities: less noise than what happened once, and the same in expectation."""
        p = np.clip(predicted, 1e-6, 1 - 1e-6)
        return -(truth * np.log(p) + (1 - truth) * np.log(1 - p))

    worse, chance = losses(said) - losses(known), losses(np.full(len(truth), truth.mean()))
    assert worse.mean() > -3 * worse.std() / np.sqrt(len(truth))
    assert losses(said).mean() < chance.mean()
    assert (chance - losses(said)).mean() / (chance - losses(known)).mean() > 0.8
    assert auc((truth > 0.5).astype(float), said) > 0.8
    for part in np.array_split(np.argsort(said, kind="stable"), 5):  # calibration against the truth
        error = 4 * truth[part].std() / np.sqrt(len(part))
        assert abs(said[part].mean() - truth[part].mean()) < 0.02 + error
