"""Customers to learn from are drawn by lot: the same as they stream by, whatever comes later; tiers are of everyone."""

from __future__ import annotations

from datetime import date

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tiermodel.backtesting.backtest import backtest
from tiermodel.bundle.bundle import Bundle
from tiermodel.config.project import Project
from tiermodel.config.targets import LifetimeValue, Value
from tiermodel.engines.dispatch import open_history
from tiermodel.features.frame import has_bought
from tiermodel.features.panel import build_panel
from tiermodel.features.sampling import sample_batches, sample_rows
from tiermodel.training.dates import panel_dates, training_dates
from tiermodel.training.train import fit_bundle
from worlds import LAST_DAY, TrainedWorld, bare_backtests

NOT_COMPARED = LifetimeValue(horizon_days=720, annual_rate=0.1)  # longer than the log: one training less
DAYS = [date(2024, month, 1) for month in (1, 2, 3, 4)]
SEED = 7


def stacked(customers: int, buyers_share: float, days: list[date] = DAYS) -> pd.DataFrame:
    """Stack snapshots: everyone comes on one of the days, and has bought by then or never will."""
    draw = np.random.default_rng(customers)
    first, buys = draw.integers(0, len(days), customers), draw.random(customers) < buyers_share
    rows = [(f"c{c:05d}", day, 1.0 if buys[c] else np.nan) for c in range(customers) for day in days[first[c] :]]
    frame = pd.DataFrame(rows, columns=["customer_id", "as_of", "days_since_last"])
    return frame.assign(as_of=pd.to_datetime(frame["as_of"]).astype("datetime64[ms]"))


def streamed(panel: pd.DataFrame, now: date, most: int, rows: int) -> pd.DataFrame:
    """Draw from the panel as it streams by, so many rows at a time."""
    schema = pa.schema([("customer_id", pa.string()), ("as_of", pa.date32()), ("days_since_last", pa.float64())])
    table = pa.Table.from_pandas(panel, schema=schema, preserve_index=False)
    kept = sample_batches(table.to_batches(max_chunksize=rows), now, most, SEED)
    return pa.Table.from_batches(kept, schema=schema).to_pandas(date_as_object=False)


def among(panel: pd.DataFrame, now: date) -> pd.DataFrame:
    return panel[panel["as_of"] == pd.Timestamp(now)]


@example(customers=18, share=0.05, most=1, rows=1)  # a buyer is left out early who would have set the limit
@given(st.integers(1, 80), st.sampled_from([0.0, 0.05, 0.6, 1.0]), st.integers(1, 40), st.integers(1, 200))
def test_a_stream_is_drawn_from_as_a_panel_is(customers: int, share: float, most: int, rows: int) -> None:
    panel = stacked(customers, share)
    for at in (1, 2):
        found = streamed(panel, DAYS[at], most, rows)
        pd.testing.assert_frame_equal(
            found, sample_rows(panel, pd.Timestamp(DAYS[at]), most, SEED).reset_index(drop=True)
        )
        later = (sample_rows(frame, pd.Timestamp(DAYS[3]), most, SEED) for frame in (panel, found))
        whole, again = (frame.reset_index(drop=True) for frame in later)
        pd.testing.assert_frame_equal(again, whole)


def test_as_many_buyers_as_asked_are_drawn_and_others_at_their_rate() -> None:
    panel = stacked(20_000, 0.5)
    now, drawn = pd.Timestamp(DAYS[2]), sample_rows(panel, pd.Timestamp(DAYS[2]), 1_000, SEED)
    pd.testing.assert_frame_equal(drawn[drawn["as_of"] >= now], panel[panel["as_of"] >= now])
    there = among(panel, DAYS[2])
    told = there[there["customer_id"].isin(drawn.loc[drawn["as_of"] < now, "customer_id"])]
    seen_before = there["customer_id"].isin(panel.loc[panel["as_of"] < now, "customer_id"])
    rate = 1_000 / has_bought(there).sum()
    # two in three came before that day, and about as many of those drawn
    assert has_bought(told).sum() == pytest.approx(1_000 * seen_before.mean(), rel=0.1)
    assert told["days_since_last"].isna().sum() == pytest.approx(
        (there["days_since_last"].isna() & seen_before).sum() * rate, rel=0.1
    )
    few_buyers = sample_rows(stacked(20_000, 0.01), now, 1_000, SEED)
    assert few_buyers.loc[few_buyers["as_of"] < now, "customer_id"].nunique() <= 4 * 1_000


def test_another_seed_draws_others_and_other_customers_change_no_lot() -> None:
    panel, now = stacked(3_000, 1.0), pd.Timestamp(DAYS[3])
    drawn, other = (
        set(sample_rows(panel, now, 500, seed).loc[lambda f: f["as_of"] < now, "customer_id"]) for seed in (1, 2)
    )
    assert 0 < len(drawn & other) < 0.5 * len(drawn)
    fewer = panel[panel["customer_id"] < "c01500"]
    kept = set(sample_rows(fewer, now, 500, 1).loc[lambda f: f["as_of"] < now, "customer_id"])
    assert {one for one in drawn if one < "c01500"} <= kept


def of_few(project: Project, customers: int = 150) -> Project:
    return project.model_copy(update={"panel": project.panel.model_copy(update={"customers": customers})})


def panel_of(project: Project, drawn_before: date | None = None) -> pd.DataFrame:
    history = open_history(project)
    dates = sorted(panel_dates(project, LAST_DAY, training_dates(project, LAST_DAY, history.first_day)))
    return build_panel(
        project, dates, with_outcome=True, known_until=LAST_DAY, drawn_before=drawn_before, history=history
    )


def fitted(project: Project, panel: pd.DataFrame, said: list[str]) -> Bundle:
    history = open_history(project)
    learned = training_dates(project, LAST_DAY, history.first_day)
    return fit_bundle(project, panel, LAST_DAY, learned, history.columns, said.append)[0]


@pytest.mark.usefixtures("quick")
def test_models_learn_from_those_drawn_and_tiers_are_of_everyone(trained: TrainedWorld) -> None:
    panel, said = panel_of(trained.project), list[str]()
    few, everyone = (fitted(project, panel, said) for project in (of_few(trained.project), trained.project))
    buyers = among(panel, LAST_DAY)["days_since_last"].notna().sum()
    assert [words for words in said if "drawn" in words] == [
        f"fitting churn risk, learning from 150 of {buyers} buyers, drawn by lot (panel.customers)"
    ]
    assert few.facts["training_customers"] <= 150 < everyone.facts["training_customers"]
    assert few.facts["customers"] == everyone.facts["customers"] == len(among(panel, LAST_DAY))
    assert few.scheme.state == everyone.scheme.state
    assert few.segments == everyone.segments
    assert few.churn != everyone.churn
    less = panel_of(of_few(trained.project), drawn_before=LAST_DAY)
    assert len(less) < len(panel)
    assert fitted(of_few(trained.project), less, said) == few


@pytest.mark.usefixtures("quick")
def test_a_backtest_learns_from_those_drawn_and_judges_on_everyone(
    trained: TrainedWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tiermodel.backtesting.tiers.preset_names", lambda: ["pyramid"])  # no scheme is looked at
    monkeypatch.setattr("tiermodel.backtesting.backtest.learning_curve", lambda *_: [])
    dates = trained.project.backtest.model_copy(update={"dates": (date(2023, 9, 1), date(2023, 10, 1))})
    panel = trained.project.panel.model_copy(update={"snapshots": 2})
    plain = trained.project.model_copy(update={"backtest": dates, "panel": panel, "value": Value(clv=NOT_COMPARED)})
    with bare_backtests():
        of_all, of_those = backtest(plain), backtest(of_few(plain))
    keys = ["customer_id", "as_of", "churned", "value"]
    pd.testing.assert_frame_equal(of_those.predictions[keys], of_all.predictions[keys])
    for day in ("2023-09-01", "2023-10-01"):
        rates = [
            next(row["mean_risk"] for row in done.results["churn"] if row["model"] == "rate" and row["as_of"] == day)
            for done in (of_all, of_those)
        ]
        assert rates[0] != rates[1]  # baselines learn from the same customers as the model
