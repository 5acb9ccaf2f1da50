"""The baseline of the same season a year before: sums that pandas gives too, of the date's own past only."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tiermodel.backtesting.season import same_season, with_season
from tiermodel.config.project import Project
from tiermodel.config.targets import LifetimeValue
from tiermodel.engines.dispatch import open_history
from tiermodel.evaluation.baselines import SEASON_AMOUNT, SEASON_ORDERS, BaselineTask, seasonal_churn, seasonal_value
from tiermodel.features.outcome import Labels
from worlds import FIRST_DAY, small_project, small_world

pytestmark = pytest.mark.usefixtures("compiled")
DAYS = (date(2023, 3, 1), date(2023, 9, 1))


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    return pd.read_parquet(small_world(tmp_path_factory.mktemp("season") / "t.parquet", customers=60))


def shop(**sections: object) -> Project:
    return small_project(Path("t.parquet"), **sections)


def season_of(project: Project, rows: pd.DataFrame, *days: date) -> pd.DataFrame:
    return same_season(project, days, open_history(project, transactions=rows), max(days))


@pytest.mark.parametrize("gap", [0, 20])
def test_sums_are_those_of_pandas(rows: pd.DataFrame, gap: int) -> None:
    found = season_of(shop(outcome={"horizon_days": 60, "gap_days": gap}), rows, *DAYS)
    assert set(found["as_of"]) == set(pd.to_datetime(list(DAYS)))
    for day in DAYS:
        start = pd.Timestamp(day - timedelta(365 - gap))
        inside = rows[(rows["day"] >= start) & (rows["day"] < start + pd.Timedelta(days=60))]
        known = found[found["as_of"] == pd.Timestamp(day)].set_index("customer_id")
        assert set(known.index) == set(rows.loc[rows["day"] < pd.Timestamp(day), "customer"])
        spent = inside.groupby("customer")["amount"].sum().reindex(known.index, fill_value=0.0)
        bought = inside[inside["amount"] >= 0].groupby("customer")["order"].nunique().reindex(known.index, fill_value=0)
        assert bought.sum() > 20
        np.testing.assert_allclose(known[SEASON_AMOUNT], spent, atol=1e-6)
        np.testing.assert_array_equal(known[SEASON_ORDERS], bought)


def test_later_rows_change_nothing(rows: pd.DataFrame) -> None:
    before = rows[rows["day"] < pd.Timestamp(DAYS[0])]
    pd.testing.assert_frame_equal(season_of(shop(), before, DAYS[0]), season_of(shop(), rows, DAYS[0]))


def test_without_a_year_before_there_is_none(rows: pd.DataFrame) -> None:
    a_year_in = FIRST_DAY + timedelta(365)  # the log begins on the first day, or soon after
    first = rows["day"].min().date()
    found = season_of(shop(), rows, first + timedelta(364), first + timedelta(365), *DAYS)
    assert found["as_of"].min() == pd.Timestamp(first + timedelta(365)) >= pd.Timestamp(a_year_in)
    assert season_of(shop(outcome={"horizon_days": 365}), rows, *DAYS).empty
    keys = found[["customer_id", "as_of"]].assign(n=1)
    joined = with_season(keys, season_of(shop(), rows, first + timedelta(30)))
    assert joined[[SEASON_ORDERS, SEASON_AMOUNT]].isna().all(axis=None)
    assert joined["n"].sum() == len(found)


def task(train: pd.DataFrame, now: pd.DataFrame) -> BaselineTask:
    labels = Labels.of(shop())
    return BaselineTask(labels, train, now, lambda frame: np.zeros(len(frame), int), [], (365,), LifetimeValue(
        horizon_days=365, annual_rate=0.1))  # fmt: skip


def test_churn_is_the_rate_of_those_who_did_as_much_a_year_before() -> None:
    train = pd.DataFrame({
        SEASON_ORDERS: [1.0] * 500 + [0.0] * 500 + [0.0] * 500 + [np.nan] * 900,
        "days_since_first": [600.0] * 1000 + [300.0] * 1400,
        "outcome_churned": [1.0] * 100 + [0.0] * 400 + [1.0] * 400 + [0.0] * 100 + [1.0] * 250 + [0.0] * 1150,
    })  # fmt: skip
    now = pd.DataFrame({SEASON_ORDERS: [2.0, 0.0, 0.0, 0.0], "days_since_first": [306.0, 400.0, 305.0, 20.0]})
    p = seasonal_churn(task(train, now))["same_season"]
    np.testing.assert_allclose(p, [0.2, 0.8, 0.5, 0.5], atol=0.02)  # shrunk a little; bought, did not, newer, newer
    assert seasonal_churn(task(train[1500:], now)) == {}  # no training snapshot has a year before it
    assert seasonal_churn(task(train, now.assign(**{SEASON_ORDERS: np.nan}))) == {}


def test_value_is_what_was_spent_a_year_before() -> None:
    now = pd.DataFrame({
        SEASON_AMOUNT: [120.0, -5.0, 0.0, 0.0], "days_since_first": [400.0, 400.0, 400.0, 100.0],
        "net_amount_365d": [900.0, 900.0, 900.0, 50.0],
    })  # fmt: skip
    value = seasonal_value(task(now, now))["same_season"]
    np.testing.assert_allclose(value, [120.0, -5.0, 0.0, 50.0 / 100 * 60])  # who is newer: the past rate
    assert seasonal_value(task(now, now.assign(**{SEASON_AMOUNT: np.nan}))) == {}
