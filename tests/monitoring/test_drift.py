"""Drift and changes of columns: what a log does by itself is no alarm, what breaks is found and named."""

from __future__ import annotations

from datetime import date, timedelta
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from tiermodel.arrays import Floats
from tiermodel.config.project import Features
from tiermodel.features.catalogue import expand
from tiermodel.monitoring.alarms import Alarm, advice_on, drift_alarms, spans_of
from tiermodel.monitoring.changes import column_changes
from tiermodel.monitoring.columns import TableDays, freshness
from tiermodel.monitoring.drift import STEP_DAYS, Drift, DriftTest, drift, grid
from tiermodel.monitoring.estimated import _checked
from tiermodel.tables.table import EPOCH

FIRST, END = date(2021, 1, 1), date(2024, 1, 10)
FEATURES = {f.name: f for f in expand(Features(windows_days=(30, 90)), ["cost", "category"])}


def nights(seed: int, names: list[str], days: int, season: float = 0.3) -> dict[str, Floats]:
    """Make daily series of slow autoregressive noise, a season and a trend, as customers who come back make them."""
    draw = np.random.default_rng(seed)
    time = np.arange(days)
    found = {}
    for n, name in enumerate(names):
        noise = np.zeros(days)
        shocks = draw.normal(0, 0.01, days)
        for k in range(1, days):
            noise[k] = 0.97 * noise[k - 1] + shocks[k] * np.sqrt(1 - 0.97**2) * 2
        found[name] = noise + season * np.cos(2 * np.pi * (time + 40 * n) / 364) + 0.0002 * n * time
    return found


def test_at(series: dict[str, Floats], day: date) -> DriftTest:
    dates = grid(day, FIRST)
    rows = [(one - FIRST).days for one in dates]
    at = {name: values[rows] for name, values in series.items()}
    return drift(at, dates, np.full(len(dates), 5000.0), FIRST, {})


test_at.__test__ = False  # type: ignore[attr-defined]
NAMES = [f"series_{n}" for n in range(30)]


def test_a_year_of_nights_without_drift_has_two_false_alarms_at_most() -> None:
    series = nights(1, NAMES, (END - FIRST).days + 1)
    alarmed = [k for k in range(365) if test_at(series, END - timedelta(k)).alarms]
    assert 1 + sum(b - a > 30 for a, b in pairwise(alarmed)) <= 2 or not alarmed


@pytest.mark.parametrize("name", ["series_3", "series_17"])
def test_a_shift_is_found_within_two_gradings_and_named_alone(name: str) -> None:
    series = nights(2, NAMES, (END - FIRST).days + 1)
    broke = END - timedelta(30)
    series[name][(broke - FIRST).days :] += 0.3
    found = test_at(series, END).alarms
    assert [one.name for one in found] == [name]
    assert found[0].shift == pytest.approx(0.3, abs=0.12)
    assert found[0].since is not None
    assert broke <= found[0].since <= broke + timedelta(2 * STEP_DAYS)


def test_a_fault_of_long_ago_does_not_hide_in_its_own_reference() -> None:
    series = nights(2, NAMES, (END - FIRST).days + 1)
    series["series_5"][(END - timedelta(55) - FIRST).days :] += 0.3
    assert [one.name for one in test_at(series, END).alarms] == ["series_5"]


def test_a_season_that_came_every_year_is_no_alarm_and_its_absence_is_one() -> None:
    series = nights(3, ["order_count_30d"], (END - FIRST).days + 1, season=0.0)
    time = np.array([(FIRST + timedelta(k)).timetuple().tm_yday for k in range((END - FIRST).days + 1)])
    came = series["order_count_30d"] + 0.8 * np.exp(-(((time - 350 + 182) % 365 - 182) ** 2) / 600)
    day = date(2023, 12, 27)
    assert not test_at({"order_count_30d": came}, day).alarms
    gone = came.copy()
    gone[(date(2023, 11, 1) - FIRST).days :] = series["order_count_30d"][(date(2023, 11, 1) - FIRST).days :]
    found = test_at({"order_count_30d": gone}, day)
    rows = [(one - FIRST).days for one in grid(day, FIRST)]
    alarms = drift_alarms(found.found, [], FEATURES, {"order_count_30d": gone[rows]})
    assert [alarm.kind for alarm in alarms] == ["season"]


def test_a_young_log_is_not_judged_by_windows_longer_than_itself() -> None:
    assert spans_of(FEATURES.values(), 90)["net_amount_90d"] == 90
    assert spans_of(FEATURES.values(), 90)["amount_change_90d"] == 180
    spans = spans_of(expand(Features(windows_days=(30,), groups=("season",)), ["cost"]), 365)
    assert spans["amount_year_change_30d"] == 394 + 365  # a second Christmas to compare with a first one
    assert spans["order_count_year_ago_30d"] > 10_000
    dates = grid(date(2021, 9, 1), FIRST)
    values = {"net_amount_90d": np.linspace(0, 3, len(dates)), "net_amount_30d": np.zeros(len(dates))}
    found = drift(values, dates, np.full(len(dates), 5000.0), FIRST, {"net_amount_90d": 170, "net_amount_30d": 30})
    assert [one.name for one in found.found] == ["net_amount_30d"]


def daily(rows: pd.DataFrame) -> TableDays:
    """Make what `table_days` reads from rows of day, amount and category."""
    by = rows.groupby("day")
    days = pd.DataFrame({"n": by.size(), "bad": 0})
    columns = {
        "amount": pd.DataFrame({
            "n": by["amount"].count(), "low": by["amount"].min(), "high": by["amount"].max(), "sum": by["amount"].sum()
        }),
        "category": by["category"].agg(["count", "min", "max"]).set_axis(["n", "low", "high"], axis=1),
    }  # fmt: skip
    counted = rows.pivot_table(index="day", columns="category", values="amount", aggfunc="size", fill_value=0)
    return TableDays("transactions", days, columns, {"category": counted})


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    draw = np.random.default_rng(8)
    last = (END - EPOCH).days
    day = np.sort(draw.integers(last - 400, last, 8000))
    category = draw.choice(["tea", "rice", "oil", "rare"], len(day), p=[0.5, 0.3, 0.19, 0.01])
    return pd.DataFrame({"day": day, "amount": draw.integers(1, 90, len(day)) * 10_000, "category": category})


LEARNED = END - timedelta(90)


def test_sound_columns_have_not_changed(rows: pd.DataFrame) -> None:
    assert column_changes([daily(rows)], END, LEARNED) == []


def test_a_stuck_column_is_named_with_its_value_and_day(rows: pd.DataFrame) -> None:
    broken, since = rows.copy(), (END - EPOCH).days - 20
    broken.loc[broken["day"] >= since, "amount"] = 70_000
    [found] = column_changes([daily(broken)], END, LEARNED)
    assert (found.kind, found.column, found.after) == ("stuck", "amount", "7")
    assert found.since == END - timedelta(20)


def test_a_renamed_value_is_told_from_one_that_is_gone(rows: pd.DataFrame) -> None:
    late = rows["day"] >= (END - EPOCH).days - 20
    renamed, gone = rows.copy(), rows[~(late & (rows["category"] == "oil"))]
    renamed.loc[late & (rows["category"] == "oil"), "category"] = "cooking oil"
    [one] = column_changes([daily(renamed)], END, LEARNED)
    assert (one.kind, one.before, one.after) == ("renamed", "oil", "cooking oil")
    [other] = column_changes([daily(gone)], END, LEARNED)
    assert (other.kind, other.before) == ("vanished", "oil")


def test_what_the_model_has_learned_is_no_change(rows: pd.DataFrame) -> None:
    broken = rows.copy()
    broken.loc[broken["day"] >= (END - EPOCH).days - 120, "amount"] = 70_000
    assert column_changes([daily(broken)], END, LEARNED) == []


def test_rows_that_stopped_are_late_by_what_was_usual(rows: pd.DataFrame) -> None:
    weekly = rows[rows["day"] % 7 == 0]
    assert not freshness({"t": daily(weekly)}, END)[0]["late"]
    [late] = freshness({"t": daily(weekly[weekly["day"] < (END - EPOCH).days - 30])}, END)
    assert late["late"]
    assert late["longest_before"] == 6


def found(name: str, shift: float, since: date | None = END) -> Drift:
    return Drift(name, shift, 0.0, 0.2, season=False, since=since)


def test_features_of_one_column_are_one_alarm_and_the_suspect_column_is_named() -> None:
    judged = [found("margin_share_30d", 1.0), found("margin_30d", 0.5), found("mean:transactions.amount", 0.19, None)]
    features = {f.name: f for f in expand(Features(groups=("value",), windows_days=(30,)), ["cost"])}
    [alarm] = drift_alarms(judged, [], features, {one.name: np.zeros(3) for one in judged})
    assert alarm.subject == "data.transactions.columns.amount"
    assert alarm.figures["feature"] == "margin_share_30d"
    assert alarm.effects == ("margin_30d",)


def test_features_of_sound_columns_are_told_with_the_rows_they_moved_with() -> None:
    judged = [found("rows:transactions", -1.0), found("margin_30d", -0.5), found("order_count_30d", -0.6)]
    [alarm] = drift_alarms(judged, [], FEATURES, {one.name: np.zeros(3) for one in judged})
    assert (alarm.kind, alarm.subject) == ("rows", "data.transactions")
    assert set(alarm.effects) == {"margin_30d", "order_count_30d"}


def test_customers_without_a_feature_are_told_as_a_share() -> None:
    one = Drift("missing:order_change_30d", 2.0, 1.0, 0.5, season=False, since=END)
    [alarm] = drift_alarms([one], [], FEATURES, {one.name: np.zeros(3)})
    assert "70.8% of the customers have no order_change_30d, expected 23.0%" in alarm.to_text("en")


def test_a_season_seen_for_the_first_time_widens_the_limits_of_its_kind() -> None:
    series = nights(4, NAMES, (END - FIRST).days + 1, season=0.0)
    day = date(2022, 9, 1)
    quiet = {one.name: one.limit for one in test_at(series, day).found}
    for values in series.values():
        values[330:400] += 0.5  # a first season, in the first winter
    surprised = {one.name: one.limit for one in test_at(series, day).found}
    assert all(surprised[name] > 2 * quiet[name] for name in NAMES)


def test_features_of_old_rows_and_of_the_calendar_are_not_judged() -> None:
    features = [f for f in expand(Features(windows_days=(30, 90)), []) if "year_ago" in f.name or "same_q" in f.name]
    dates = grid(END, FIRST)
    series = {f.name: np.arange(len(dates), dtype=float) for f in features}
    assert series
    assert drift(series, dates, np.full(len(dates), 5000.0), FIRST, spans_of(features, 90)).found == ()


def test_nine_in_ten_estimates_hold_what_comes() -> None:
    held, draw = [], np.random.default_rng(9)
    for _ in range(200):
        actual = 0.4 * np.exp(draw.normal(0, 0.1, 40))
        known = np.where(np.arange(40) < 39, actual, np.nan)
        value, stated = np.full(40, 0.4), np.full(40, 0.1)
        one = _checked("log_loss", value, stated, known, STEP_DAYS, np.ones(40, np.bool_))
        assert one is not None
        held.append(one.low <= actual[-1] <= one.high)
    assert 0.84 <= np.mean(held) <= 0.95


def test_advice_names_the_first_thing_to_do() -> None:
    kinds = ["mix", "level_churn", "stuck"]
    got = [advice_on([Alarm(kind, "here") for kind in kinds[: n + 1]]).kind for n in range(3)]
    assert [advice_on([]).kind, *got] == ["nothing", "redesign", "retrain", "column"]


def test_a_model_that_knows_all_there_is_is_not_to_be_retrained() -> None:
    drifted, day = Alarm("level_churn", "here"), date(2024, 2, 1)
    advice = advice_on([drifted], day)
    assert (advice.kind, advice.subject) == ("wait", "2024-02-01")
    assert "2024-02-01" in advice.to_text("en")
    assert advice_on([drifted, Alarm("stuck", "here")], day).kind == "column"
    assert advice_on([], day).kind == "nothing"
