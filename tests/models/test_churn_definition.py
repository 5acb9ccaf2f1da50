"""What churn means in a project: its own window, only recent buyers, the end of a contract; and nothing of it leaks."""

from __future__ import annotations

import math
import shutil
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from commands import Run
from histories import FIRST_DAY, LAST_DAY, Row, later, make_profile, make_project, make_row, random_histories
from histories import small_histories as small
from panels_made import check_outcome, with_outcome
from tiermodel.bundle.bundle import load_bundle
from tiermodel.config.project import Project, load_project
from tiermodel.config.targets import Churn, Outcome
from tiermodel.errors import ProjectError
from tiermodel.features.outcome import ChurnLabel, Labels, at_risk, churn_question
from tiermodel.features.panel import build_panel
from tiermodel.predict import predict
from worlds import bare_backtests

HISTORIES = random_histories(seed=31, customers=60)
DAYS = (FIRST_DAY + 200, FIRST_DAY + 260, LAST_DAY - 100)
DEFINITIONS: list[dict[str, Any]] = [
    {"horizon_days": 20},
    {"horizon_days": 120, "gap_days": 9},
    {"gap_days": 0, "active_days": 30},
    {"contract_renewal_days": 3, "horizon_days": 130},
    {"contract_renewal_days": 5, "horizon_days": 100, "gap_days": 10},
]


# the label


@pytest.mark.parametrize("churn", DEFINITIONS, ids=str)
def test_churn_equals_the_oracle(churn: dict[str, Any]) -> None:
    project = make_project(churn=churn, outcome={"horizon_days": 60, "gap_days": 3})
    panel = check_outcome(HISTORIES, DAYS, project, LAST_DAY + 40)
    known = panel["outcome_churned"].dropna()
    assert set(known) == {0.0, 1.0}
    assert (len(known) < len(panel)) == ("contract_renewal_days" in churn)


@settings(max_examples=60, deadline=None)
@given(small(), st.integers(1, 60), st.integers(1, 30), st.integers(0, 9), st.one_of(st.none(), st.integers(1, 20)))
def test_churn_equals_the_oracle_on_small_histories(
    histories: dict[str, list[Row]], day: int, horizon: int, gap: int, renewal: int | None
) -> None:
    churn = {"horizon_days": horizon, "gap_days": gap, "contract_renewal_days": renewal}
    project = make_project(churn=churn, outcome={"horizon_days": 10})
    check_outcome(histories, (FIRST_DAY + day, FIRST_DAY + day + 9), project, FIRST_DAY + 90)


def contract(**days: int | None) -> float:
    """Judge, as of day 100, a contract that ends on day 130, within 20 days of it; `days` say what else happens."""
    rows = [make_row("a", FIRST_DAY + 50, 9, 1), make_profile("a", FIRST_DAY, contract_end=FIRST_DAY + 130)]
    if (bought := days.get("bought")) is not None:
        rows.append(make_row("a", FIRST_DAY + bought, 9, 2))
    if (told := days.get("told")) is not None:
        rows.append(make_profile("a", FIRST_DAY + told, contract_end=FIRST_DAY + (days.get("until") or 0)))
    project = make_project(churn={"contract_renewal_days": 20}, outcome={"horizon_days": 60})
    panel = with_outcome({"a": rows}, (FIRST_DAY + 100,), project, FIRST_DAY + 400)
    return float(panel["outcome_churned"].iloc[0])


def test_a_contract_is_renewed_by_a_purchase_or_a_later_end() -> None:
    assert contract() == 1
    assert contract(bought=129) == 1  # before the end is no renewal
    assert contract(bought=130) == 0
    assert contract(bought=149) == 0
    assert contract(bought=150) == 1
    assert contract(told=120, until=500) == 0
    assert contract(told=149, until=500) == 0
    assert contract(told=150, until=500) == 1  # known too late
    assert contract(told=120, until=125) == 1  # ended sooner, not renewed
    assert math.isnan(contract(told=90, until=170))  # known at the date: this one ends after the window


# the leak


@pytest.mark.parametrize("churn", DEFINITIONS, ids=str)
def test_rows_after_the_span_change_nothing_and_no_feature_sees_the_label(churn: dict[str, Any]) -> None:
    project = make_project(churn=churn)
    end = DAYS[0] + Labels.of(project).delay_days
    cut = {c: [row for row in rows if _day(row) < end] for c, rows in HISTORIES.items()}
    after = {c: rows + [later(r, end - FIRST_DAY) for r in HISTORIES[c] if _dated(r)] for c, rows in cut.items()}
    one, other = (with_outcome(rows, DAYS[:1], project, end) for rows in (cut, after))
    pd.testing.assert_frame_equal(one, other, check_exact=True)
    features = [name for name in one if not str(name).startswith("outcome_")]
    plain = with_outcome(cut, DAYS[:1], make_project(), end)
    pd.testing.assert_frame_equal(one[features], plain[features], check_exact=True)
    assert with_outcome(cut, DAYS[:1], project, end - 1)["outcome_churned"].isna().all()


def _dated(row: Row) -> bool:
    return row["table"] != "customers" or row["valid_from"] is not None


def _day(row: Row) -> int:
    days = [row.get(name) for name in ("day", "valid_from", "issued")]
    return next((day for day in days if day is not None), FIRST_DAY)


# who is at risk


def test_at_risk_are_recent_buyers_whose_contract_ends_in_the_window() -> None:
    frame = pd.DataFrame({
        "days_since_last": [np.nan, 5, 5, 5, 5, 5, 50],
        "contract_days_left": [40, 9, 10, 39, 40, np.nan, 20],
    })  # fmt: skip
    outcome = Outcome(horizon_days=90)
    assert at_risk(ChurnLabel.of(Churn(), outcome), frame).tolist() == [False] + [True] * 6
    assert at_risk(ChurnLabel.of(Churn(active_days=5), outcome), frame).tolist() == [False] + [True] * 5 + [False]
    churn = Churn(active_days=30, gap_days=10, horizon_days=30, contract_renewal_days=14)
    assert at_risk(ChurnLabel.of(churn, outcome), frame).tolist() == [False, False, True, True, False, False, False]


def test_the_question_is_said_in_words() -> None:
    project = make_project(outcome={"horizon_days": 90, "gap_days": 7})
    assert churn_question(project.churn, project.outcome) == "no purchase in the 90 days that follow a gap of 7 days"
    assert churn_question(project.churn, project.outcome, "zh") == "某日之后间隔 7 天起 90 天内没有购买"
    churn = {"contract_renewal_days": 30, "gap_days": 0, "horizon_days": 60, "active_days": 365}
    project = make_project(churn=churn)
    assert churn_question(project.churn, project.outcome) == (
        "no renewal within 30 days of contracts that end in the 60 days that follow a gap of 0 days, "
        "customers of the last 365 days"
    )
    assert churn_question(project.churn, project.outcome, "zh") == (
        "合同在某日起 60 天内到期、且到期后 30 天内未续（仅限此前 365 天内有购买的客户）"
    )


def test_contracts_need_to_be_mapped_with_the_day_they_were_known() -> None:
    data = make_project().model_dump(exclude={"folder"}, exclude_none=True)
    for missing in ("contract_end", "valid_from"):
        columns = {k: v for k, v in data["data"]["customers"]["columns"].items() if k != missing}
        customers = {**data["data"]["customers"], "columns": columns}
        with pytest.raises(ValueError, match=r"contract_renewal_days needs data\.customers\.columns\.contract_end"):
            Project.model_validate({
                **data, "data": {**data["data"], "customers": customers}, "churn": {"contract_renewal_days": 30},
            })  # fmt: skip


# as a user runs it


def subscribers(folder: Path) -> Path:
    """Write a shop of monthly subscribers whose contracts run for 120 days and are renewed by those who bought lately.

    A customer who does not renew buys no more; one in ten buys too little in the last 60 days and then leaves.
    """
    draw, first, days = np.random.default_rng(5), pd.Timestamp("2022-01-01"), 720
    orders, profiles = [], []
    for number in range(500):
        start = int(draw.integers(0, 300))
        while start < days:
            leaves = draw.random() < 0.3
            end = start + 120
            bought = start + np.sort(draw.choice(120 if not leaves else 60, 6 if not leaves else 4, replace=False))
            orders += [
                (f"S{number:04d}", first + pd.Timedelta(days=int(d)), 20.0 + number % 7) for d in [start, *bought]
            ]
            profiles.append((f"S{number:04d}", first + pd.Timedelta(days=start), first + pd.Timedelta(days=end)))
            if leaves:
                break
            start = end
    frame = pd.DataFrame(orders, columns=["id", "day", "amount"])
    frame[frame["day"] < first + pd.Timedelta(days=days)].to_parquet(folder / "orders.parquet")
    pd.DataFrame(profiles, columns=["id", "since", "ends"]).query("since < '2023-12-22'").to_parquet(
        folder / "customers.parquet"
    )
    project = {
        "version": 1,
        "name": "subscribers",
        "data": {
            "transactions": {
                "path": "orders.parquet",
                "columns": {"customer_id": "id", "time": "day", "amount": "amount"},
            },
            "customers": {
                "path": "customers.parquet",
                "columns": {"customer_id": "id", "valid_from": "since", "contract_end": "ends"},
            },
        },
        "features": {"windows_days": [60, 365]},
        "outcome": {"horizon_days": 60},
        "panel": {"every_days": 40, "snapshots": 4},
        "churn": {"horizon_days": 40, "contract_renewal_days": 15},
        "backtest": {"folds": 1},
    }
    (folder / "project.yaml").write_text(yaml.safe_dump(project), encoding="utf-8")
    return folder / "project.yaml"


@pytest.mark.usefixtures("quick")
def test_contracts_are_trained_scored_and_backtested(cli: Run, empty_store: Path, tmp_path: Path) -> None:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    file = subscribers(tmp_path)
    assert cli("train", file, "--as-of", "2023-12-01", "--out", "model").code == 0
    assert cli("score", file, "--model", "model", "--as-of", "2023-12-01", "--out", "scores.parquet").code == 0
    project, bundle = load_project(file), load_bundle(tmp_path / "model")
    frame = build_panel(project, [date(2023, 12, 1)])
    inside = frame["contract_days_left"].between(0, 39)
    scores = pd.read_parquet(tmp_path / "scores.parquet").set_index("customer_id").loc[frame["customer_id"]]
    assert 20 < inside.sum() < len(frame) / 2
    np.testing.assert_array_equal(scores["churn_risk"].notna(), inside)  # nobody else is asked: missing, not 0
    np.testing.assert_array_equal(scores["risk_band"].notna(), inside)
    assert scores["expected_value"].notna().all()
    assert bundle.facts["customers_at_risk"] == inside.sum()
    assert "no renewal within 15 days of contracts" in (tmp_path / "model" / "card.md").read_text(encoding="utf-8")
    silent = frame["days_since_last"] > 50
    assert scores.loc[(inside & silent).to_numpy(), "churn_risk"].mean() > 0.6
    assert scores.loc[(inside & ~silent).to_numpy(), "churn_risk"].mean() < 0.35
    with bare_backtests():
        ran = cli("backtest", file, "--out", "b.json", "--predictions", "p.parquet")
    assert ran.code == 0, ran.err
    played = pd.read_parquet(tmp_path / "p.parquet")
    pending_moves = played[played["churn_tiermodel"].notna()]
    day = date(2023, 12, 22) - timedelta(Labels.of(project).delay_days)
    then = build_panel(project, [day]).set_index("customer_id")["contract_days_left"]
    assert set(pending_moves["customer_id"]) == set(then.index[then.between(0, 39)])
    assert set(pending_moves["churned"]) == {0.0, 1.0}
    assert 0.15 < pending_moves["churned"].mean() < 0.5


def test_a_definition_with_a_wrong_key_names_the_line(tmp_path: Path) -> None:
    text = subscribers(tmp_path).read_text(encoding="utf-8")
    (tmp_path / "bad.yaml").write_text(text.replace("contract_renewal_days: 15", "contract_renewal_days: 0"))
    with pytest.raises(
        ProjectError, match=r"bad\.yaml:\d+:\d+: churn\.contract_renewal_days: must be at least 1, got 0"
    ):
        load_project(tmp_path / "bad.yaml")


@pytest.mark.usefixtures("quick")
def test_scores_of_a_shorter_churn_window_are_lower_where_more_is_asked(tmp_path: Path) -> None:
    file = subscribers(tmp_path)
    project = load_project(file).model_copy(update={"churn": Churn(horizon_days=10, active_days=100)})
    longer = project.model_copy(update={"churn": Churn(horizon_days=60, active_days=100)})
    from tiermodel.training.train import train  # noqa: PLC0415 heavy

    frame = build_panel(project, [date(2023, 11, 1)])
    short, long = (predict(train(p, date(2023, 11, 1)).bundle, frame)["churn_risk"] for p in (project, longer))
    np.testing.assert_array_equal(short.notna(), frame["days_since_last"] <= 100)
    assert short.mean() > long.mean() + 0.1  # silence of ten days is likelier than of sixty
