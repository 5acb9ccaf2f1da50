"""Grading dates: nightly scores between them move nobody, and confirmations count gradings however often one scores."""

from __future__ import annotations

import json
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from commands import Run
from schemes_made import SHARE, SPEND, fitted, people
from tiermodel.config.project import Project, load_project, project_digest
from tiermodel.config.tiers import EveryDays, GradingDates, Tiers
from tiermodel.errors import ProjectError
from tiermodel.ledger.calendar import before_scoring, is_grading, next_grading
from tiermodel.ledger.ledger import Ledger
from tiermodel.ledger.rows import graded_rows, position_in
from tiermodel.tiers.stability.grading import Grading, grade
from worlds import TrainedWorld

days = st.dates(date(2020, 1, 1), date(2030, 12, 31))
rhythms = st.sampled_from(["weekly", "monthly", "quarterly", EveryDays(every_days=10)])
CODES, YEAR = ["low", "mid", "top"], [date(2024, 1, 1) + timedelta(n) for n in range(366)]
RULE = {
    "up": {"band": 0.02, "confirmations": 2},
    "down": {"band": 0.02, "confirmations": 2, "min_stay_days": 70, "grace_days": 40},
}


@given(days, rhythms)
def test_the_next_grading_is_the_first_day_of_the_next_period(last: date, dates: GradingDates) -> None:
    due = next_grading(dates, last)
    if isinstance(dates, EveryDays):
        assert due == last + timedelta(10)
    elif dates == "weekly":
        assert (due.weekday(), 0 < (due - last).days <= 7) == (0, True)
    else:
        assert due.day == 1
        assert due > last >= (pd.Timestamp(due) - pd.DateOffset(months=3 if dates == "quarterly" else 1)).date()
        assert dates == "monthly" or due.month in {1, 4, 7, 10}
    assert not is_grading(dates, [last], due - timedelta(1)) or due - timedelta(1) == last
    assert is_grading(dates, [last], due)
    assert is_grading(dates, [last, due], last)  # what is graded stays graded
    assert is_grading(None, [last], last + timedelta(1))
    assert is_grading(dates, [], last)


def test_the_project_says_when(tmp_path: Path) -> None:
    plain = {"version": 1, "name": "shop", "data": {"transactions": {"path": "s.csv", "columns": {
        "customer_id": "id", "time": "day", "amount": "amount"}}}}  # fmt: skip
    for value in ("weekly", "monthly", "quarterly", {"every_days": 14}):
        (tmp_path / "p.yaml").write_text(yaml.safe_dump({**plain, "tiers": {"grade": value}}))
        project = load_project(tmp_path / "p.yaml")
        assert project.tiers.grade == (EveryDays.model_validate(value) if isinstance(value, dict) else value)
        assert project_digest(project) == project_digest(Project.model_validate(plain))  # no model depends on it
    for wrong in ("daily", 30, {"every_days": 0}, {"every_days": 5, "x": 1}, ["monthly"], {"every_days": "7"}):
        with pytest.raises(ValidationError, match="expected weekly, monthly, quarterly or"):
            Tiers.model_validate({"grade": wrong})
        (tmp_path / "p.yaml").write_text(yaml.safe_dump({**plain, "tiers": {"grade": wrong}}))
        with pytest.raises(ProjectError, match=r"tiers\.grade") as refused:
            load_project(tmp_path / "p.yaml")
        assert len(str(refused.value).splitlines()) == 1


def scored(book: Ledger, scheme: Any, frame: pd.DataFrame, day: date, dates: GradingDates) -> Grading:
    """Score one day as `score` does: grade where it is due, and add that to the ledger."""
    before = before_scoring(book, day, dates)
    done = grade(scheme, frame, None, position_in(before, frame["customer_id"], CODES))
    if before.grades:
        texts = dict.fromkeys(("reason_1", "reason_2", "reason_3", "scheme_version", "model_version"), "x")
        told = pa.RecordBatch.from_pandas(frame[["customer_id"]].assign(**texts))
        rows = graded_rows(told, done, CODES, before)
        book.append(day, pa.Table.from_batches([rows]))
    return done


def test_a_year_of_nights_gives_the_tiers_and_moves_of_twelve_months(tmp_path: Path) -> None:
    draw = np.random.default_rng(5)
    base = people(40, 5)
    scheme = fitted({**SHARE, "stability": RULE}, base)
    wander = np.exp(np.cumsum(draw.normal(0, 0.12, (len(YEAR), len(base))), axis=0))
    nightly, monthly = Ledger(tmp_path / "nightly"), Ledger(tmp_path / "monthly")
    late = len(base) - 4  # the last ones come in the middle of March
    seen = 0
    for n, day in enumerate(YEAR):
        if n % 4 and day.day != 1:  # every fourth night tells as much
            continue
        there = base.assign(**{SPEND: base[SPEND] * wander[n], "as_of": pd.Timestamp(day).to_datetime64()})
        there = there if n > 75 else there.head(late)
        done = scored(nightly, scheme, there, day, "monthly")
        if day.day == 1:
            same = scored(monthly, scheme, there, day, None)
            assert done.tier.tolist() == same.tier.tolist()
            last = dict(zip(there["customer_id"], done.tier, strict=True))
        else:  # who is in the ledger keeps the tier; who is new has the level of the rules
            held = [last.get(who, level) for who, level in zip(there["customer_id"], done.level, strict=True)]
            assert done.tier.tolist() == held
            assert done.before[:late].tolist() == done.tier[:late].tolist()
            seen += int((done.tier != done.level).sum())
    assert seen > 75
    assert nightly.graded == monthly.graded == [day for day in YEAR if day.day == 1]
    files = [{path.name: path.read_bytes() for path in book.folder.iterdir()} for book in (nightly, monthly)]
    assert files[0] == files[1]
    moves = nightly.query("select event, count(*)::integer as n from rows group by event").set_index("event")["n"]
    assert moves["up"] > 5
    assert moves["down"] > 3


def test_between_gradings_risk_is_new_and_tiers_are_those_of_the_ledger(
    trained: TrainedWorld, tmp_path: Path, cli: Run
) -> None:
    settings = trained.project.model_dump(mode="json", exclude={"folder"}, exclude_none=True)
    settings["tiers"]["grade"] = "monthly"
    (tmp_path / "shop.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")

    def score(day: str, *more: object) -> Any:
        words = ("score", "shop.yaml", "--model", trained.bundle, "--as-of", day, "--out", "s.parquet")
        ran = cli(*words, "--ledger", "book", *more)
        return ran, pd.read_parquet("s.parquet").set_index("customer_id")

    _, first = score("2023-02-01")
    files = {path.name: path.read_bytes() for path in Path("book").iterdir()}
    ran, between = score("2023-02-26")
    assert "2023-02-26 is no grading date: tiers are those of book; the first scoring from 2023-03-01 on" in ran.out
    assert {path.name: path.read_bytes() for path in Path("book").iterdir()} == files
    both = first.index.intersection(between.index)
    assert between.loc[both, "tier"].equals(first.loc[both, "tier"])
    assert set(between.loc[both, "movement"]) == {"same"}
    assert (between.loc[both, "churn_risk"] != first.loc[both, "churn_risk"]).mean() > 0.5
    other = between.loc[both][between.loc[both, "tier"] != between.loc[both, "model_tier"]]
    assert len(other) > 3
    assert other["reason_1"].str.startswith("the tier of the last grading; the rules now say").all()
    new = between.index.difference(first.index)
    assert len(new) > 0
    assert between.loc[new, "tier"].equals(between.loc[new, "model_tier"])
    assert set(between.loc[new, "movement"]) == {"new"}
    data = json.loads(score("2023-02-26", "--json")[0].out)
    assert (data["ledger_rows"], data["next_grading"], data["grade_again"]) == (0, "2023-03-01", [])
    # an override holds on the next night
    told = ("--tier", "major", "--from", "2023-02-15", "--operator", "li", "--reason", "x")
    assert cli("ledger", "override", "book", "--customer", new[0], *told).code == 3  # not in the ledger yet
    who = first.index[first["tier"] == 0][0]
    assert cli("ledger", "override", "book", "--customer", who, *told).code == 0
    assert score("2023-02-26")[1].loc[who, ["tier_code", "reason_1"]].tolist() == ["major", "set by hand"]
    # the next month grades, an earlier night can be scored again, and a day is graded when it is asked for
    assert "changes of tier added to book" in score("2023-03-03")[0].out
    assert Ledger("book").graded == [date(2023, 2, 1), date(2023, 3, 3)]
    ran, again = score("2023-02-26")
    assert ran.code == 0
    assert again["tier"].drop(who).equals(between["tier"].drop(who))
    assert score("2023-03-20", "--regrade", "--reason", "the prices changed")[0].code == 0
    assert [str(day) for day in Ledger("book").graded] == ["2023-02-01", "2023-03-03", "2023-03-20"]
    assert Ledger("book").files[-1].notes["reason"] == "the prices changed"
    assert cli("ledger", "check", "book").code == 0
    assert set(new) <= set(Ledger("book").as_of(date(2023, 3, 3))["customer_id"])
