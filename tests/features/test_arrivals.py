"""Rows that arrive late: no date knows a row before it arrived, and every date knows all that had arrived."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tiermodel.backtesting.backtest import backtest
from tiermodel.config.project import Project
from tiermodel.engines.duckdb import complete_until
from tiermodel.errors import DataError
from tiermodel.features.outcome import OUTCOME_COLUMNS
from tiermodel.features.panel import Tally, build_panel
from tiermodel.predict.batch import score
from tiermodel.tables.history import History, read_history
from tiermodel.training.train import train
from worlds import quick_fits, small_project, small_world

START = date(2024, 1, 1)
DATES = [START + timedelta(days) for days in (20, 40, 41, 75, 110)]
COLUMNS = {
    "transactions": {"customer_id": "id", "time": "day", "amount": "amount", "product_id": "product"},
    "events": {"customer_id": "id", "time": "day", "kind": "kind", "value": "amount"},
    "costs": {"customer_id": "id", "time": "day", "amount": "amount"},
}


def logs(seed: int) -> dict[str, pd.DataFrame]:
    """Draw tables of which half the rows arrive on their own day, the others up to 60 days later, or nobody knows."""
    draw = np.random.default_rng(seed)
    tables = {}
    for name, rows in (("transactions", 300), ("events", 120), ("costs", 60)):
        day = pd.Timestamp(START) + pd.to_timedelta(draw.integers(0, 100, rows), unit="D")
        late = np.where(draw.random(rows) < 0.5, 0, draw.integers(-1, 60, rows))
        tables[name] = pd.DataFrame({
            "id": draw.integers(1, 25, rows).astype(str),
            "day": day,
            "arrived": (day + pd.to_timedelta(late, unit="D")).where(pd.Series(draw.random(rows) > 0.05)),
            "amount": draw.integers(-20, 100, rows) / 4,
            "product": draw.integers(1, 6, rows),
            "kind": draw.choice(["visit", "survey"], rows),
        })  # fmt: skip
    return tables


def project(*, arrivals: bool, **sections: Any) -> Project:
    arrived = {"ingested_at": "arrived"} if arrivals else {}
    data: dict[str, Any] = {name: {"columns": columns | arrived} for name, columns in COLUMNS.items()}
    features = {"groups": ["rfm", "loyalty", "behaviour", "value", "engagement", "service"], "windows_days": [30, 90]}
    base = {"version": 1, "name": "shop", "data": data, "features": features, "outcome": {"horizon_days": 20}}
    return Project.model_validate({**base, **sections})


def arrived(rows: pd.DataFrame, day: date) -> pd.Series:
    """Return which rows had arrived before a day; those that do not say so arrive on their own day."""
    return rows[["day", "arrived"]].max(axis=1) < pd.Timestamp(day)


def opened(tables: dict[str, Any], *, arrivals: bool) -> History:
    return read_history(project(arrivals=arrivals), **tables)


@pytest.mark.parametrize("seed", range(3))
def test_every_date_knows_what_had_arrived_and_nothing_else(seed: int) -> None:
    tables = logs(seed)
    tally = Tally()
    panel = build_panel(project(arrivals=True), DATES, history=opened(tables, arrivals=True), tally=tally)
    found = {day: panel[panel["as_of"] == pd.Timestamp(day)].reset_index(drop=True) for day in DATES}
    assert tally.account.out_of_window > 0  # arrived after the last date
    for day in DATES:
        known = {name: rows[arrived(rows, day)] for name, rows in tables.items()}
        wanted = build_panel(project(arrivals=False), [day], history=opened(known, arrivals=False))
        pd.testing.assert_frame_equal(found[day], wanted, check_exact=True)


def test_outcomes_are_those_known_at_a_date() -> None:
    tables, known_until = logs(3), START + timedelta(75)
    history = opened(tables, arrivals=True)
    panel = build_panel(project(arrivals=True), DATES[:3], with_outcome=True, known_until=known_until, history=history)
    known = {name: rows[arrived(rows, known_until)] for name, rows in tables.items()}
    later = build_panel(project(arrivals=False), DATES[:3], with_outcome=True, history=opened(known, arrivals=False))
    outcomes = list(OUTCOME_COLUMNS)
    both = panel.merge(later, on=["customer_id", "as_of"], suffixes=("", "_wanted"), how="left")
    assert len(both) == len(panel)
    assert both[outcomes].notna().all(axis=None)
    np.testing.assert_array_equal(both[outcomes], both[[f"{name}_wanted" for name in outcomes]])


def test_rows_that_arrive_later_change_no_bit_of_an_earlier_date() -> None:
    """Law 1, of the day of arrival: rows of any day that arrive at a date or later are not known at it."""
    tables = logs(4)
    more = tables["transactions"].assign(id="1", arrived=pd.Timestamp(DATES[-1]))
    grown = {**tables, "transactions": pd.concat([tables["transactions"], more])}
    of = project(arrivals=True)
    before, after = (build_panel(of, DATES, history=opened(rows, arrivals=True)) for rows in (tables, grown))
    pd.testing.assert_frame_equal(before, after, check_exact=True)


def test_latest_is_the_first_date_that_knows_every_row() -> None:
    days = pd.to_datetime(["2024-01-01", "2024-01-02", "2024-01-03"])
    rows = pd.DataFrame({"id": "a", "day": days, "amount": 1.0, "product": 1})
    late = opened({**logs(0), "transactions": rows.assign(arrived=days + pd.Timedelta(hours=30))}, arrivals=True)
    assert (late.last_day, late.latest) == (date(2024, 1, 3), date(2024, 1, 5))
    assert complete_until(late, date(2024, 1, 4)) == date(2024, 1, 3)  # the row of the 3rd arrives on the 4th
    assert complete_until(late, late.latest) == date(2024, 1, 4)
    at_once = opened({**logs(0), "transactions": rows.assign(arrived=days)}, arrivals=True)
    assert at_once.latest == date(2024, 1, 4)


def test_a_log_that_was_loaded_in_one_go_knows_nothing_before_that() -> None:
    tables = {name: rows.assign(arrived=pd.Timestamp("2024-06-01")) for name, rows in logs(0).items()}
    told = opened(tables, arrivals=True).account.warnings
    assert any("TM2068 300 of 300 rows arrived a month and more after" in words for words in told)
    assert not any("TM2068" in words for words in opened(logs(0), arrivals=True).account.warnings)
    with pytest.raises(DataError, match="TM2071 no customer has a row before 2024-02-10"):
        build_panel(project(arrivals=True), [date(2024, 2, 10)], history=opened(tables, arrivals=True))


def test_a_backtest_learns_what_training_at_its_date_could_learn(tmp_path: Path) -> None:
    log = pd.read_parquet(small_world(tmp_path / "log.parquet", customers=200))
    log["arrived"] = log["day"] + pd.to_timedelta(np.arange(len(log)) % 4, unit="D")
    log.to_parquet(tmp_path / "log.parquet")
    columns = small_project(tmp_path).data.transactions.columns.model_dump(exclude_none=True)
    table = {"path": str(tmp_path / "log.parquet"), "columns": {**columns, "ingested_at": "arrived"}}
    shop = small_project(tmp_path, data={"transactions": table}, backtest={"dates": ["2023-09-01"]})
    with quick_fits():
        told = backtest(shop).predictions
        log[log["arrived"] < "2023-09-01"].to_parquet(tmp_path / "log.parquet")
        train(shop, as_of="2023-09-01", out=tmp_path / "bundle")
    assert read_history(shop).latest == date(2023, 9, 1)
    score(shop, tmp_path / "bundle", as_of="latest", out=tmp_path / "scores.parquet")
    scores = pd.read_parquet(tmp_path / "scores.parquet")
    both = told[told["churned"].notna()].merge(scores, on="customer_id", how="left")
    assert len(both) > 100
    np.testing.assert_array_equal(both["churn_tiermodel"].round(6), both["churn_risk"])
    np.testing.assert_array_equal(both["value_tiermodel"].round(4), both["expected_value"])
