"""A graded date is corrected by a new file: later gradings give way, overrides stay, what was believed can be read."""

from __future__ import annotations

import json
import shutil
from datetime import date, timedelta
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest
import yaml

from commands import Run
from tiermodel.config.project import Project
from tiermodel.errors import ProjectError
from tiermodel.ledger.ledger import Ledger
from tiermodel.predict import score
from worlds import TrainedWorld

DAYS = tuple(date(2023, 6, 1) + timedelta(60 * k) for k in range(3))
WHY = "a wholesale invoice was booked late"


class Late(NamedTuple):
    """A world, the same with rows of two customers that came late, and a ledger of all `DAYS` without these rows."""

    early: TrainedWorld
    late: TrainedWorld
    book: Path
    who: list[str]


@pytest.fixture(scope="module")
def late(trained: TrainedWorld, tmp_path_factory: pytest.TempPathFactory) -> Late:
    folder = tmp_path_factory.mktemp("late")
    rows = pd.read_parquet(str(trained.project.data.transactions.path))
    rows = rows[rows["customer"].isin(rows["customer"].unique()[:120])]
    rows.to_parquet(folder / "early.parquet")
    score(project(trained, folder / "early.parquet"), trained.bundle, DAYS[0], folder / "s.parquet")
    scores = pd.read_parquet(folder / "s.parquet")
    who = scores.loc[scores["tier_code"] == "small", "customer_id"].astype(str).tolist()[:2]
    more = rows[rows["customer"].isin(who)].groupby("customer").head(1)
    more = more.assign(day=pd.Timestamp("2023-05-30"), amount=50_000.0, order=[f"late {n}" for n in who])
    pd.concat([rows, more]).to_parquet(folder / "late.parquet")
    early, known = (
        trained._replace(project=project(trained, folder / name)) for name in ("early.parquet", "late.parquet")
    )
    for day in DAYS:
        score(early.project, trained.bundle, day, folder / "s.parquet", ledger=folder / "book")
    return Late(early, known, folder / "book", who)


def project(world: TrainedWorld, rows: Path) -> Project:
    settings = world.project.model_dump(mode="json", exclude={"folder"}, exclude_none=True)
    settings["data"]["transactions"]["path"] = str(rows)
    return Project.model_validate(settings)


def held(book: Path, who: str, day: date, known_on: date | None = None) -> str:
    return str(Ledger(book, known_on).as_of(day).set_index("customer_id")["tier_code"].get(who))


def test_a_correction_takes_the_place_of_the_day_and_all_later_ones(late: Late, tmp_path: Path) -> None:
    book, out = tmp_path / "book", tmp_path / "s.parquet"
    shutil.copytree(late.book, book)
    written = {path.name: path.read_bytes() for path in book.iterdir()}
    before = pd.read_parquet(book / f"{DAYS[1]}.parquet")
    with pytest.raises(ProjectError, match=rf"--as-of {DAYS[0]} --ledger .* --regrade --reason TEXT"):
        score(late.late.project, late.late.bundle, DAYS[0], out, ledger=book)
    done = score(late.late.project, late.late.bundle, DAYS[0], out, ledger=book, regrade_reason=WHY).added
    assert done is not None
    assert (done.superseded, done.again) == (DAYS, DAYS[1:])
    assert Ledger(book).graded == [DAYS[0]]
    assert held(book, late.who[0], DAYS[0]) == "major"
    with pytest.raises(ProjectError, match=rf"{DAYS[1]}, {DAYS[2]} must be graded again first, in order"):
        score(late.late.project, late.late.bundle, DAYS[2], out, ledger=book)
    for n, day in enumerate(DAYS[1:]):
        done = score(late.late.project, late.late.bundle, day, out, ledger=book).added
        assert done is not None
        assert (done.superseded, done.again) == ((), DAYS[2 + n :])
    assert {name: (book / name).read_bytes() for name in written} == written  # nothing is rewritten
    for day in DAYS:  # a ledger that knew the rows from the start says the same
        score(late.late.project, late.late.bundle, day, tmp_path / "t.parquet", ledger=tmp_path / "other")
    for day in (*DAYS, DAYS[2] + timedelta(9)):
        same = [Ledger(folder).as_of(day).to_json() for folder in (book, tmp_path / "other")]
        assert same[0] == same[1]
    assert not before.empty


def test_what_was_believed_on_a_day_can_be_read(late: Late, tmp_path: Path, cli: Run) -> None:
    book, out = tmp_path / "book", tmp_path / "s.parquet"
    shutil.copytree(late.book, book)
    score(late.late.project, late.late.bundle, DAYS[0], out, ledger=book, regrade_reason=WHY)
    who = late.who[0]
    assert held(book, who, DAYS[0]) == "major"
    for known in (DAYS[0], DAYS[1], DAYS[2] - timedelta(1)):  # it was corrected after the last grading
        assert held(book, who, DAYS[0], known) == "small"
        old = Ledger(late.book).as_of(known).to_json()
        assert Ledger(book, known).as_of(known).to_json() == old
    assert held(book, who, DAYS[0], DAYS[2]) == "major"
    told = cli("ledger", "show", book, "--as-of", DAYS[0], "--known-on", DAYS[1], "--customer", who)
    assert "small" in told.out
    assert "major" in cli("ledger", "show", book, "--as-of", DAYS[0], "--customer", who).out
    shown = cli("ledger", "show", book, "--customer", who, "--superseded", "--out", "rows.csv")
    assert shown.code == 0
    rows = pd.read_csv("rows.csv")
    assert rows.loc[rows["tier_code"] == "small", "superseded_by"].unique().tolist() == [f"{DAYS[0]}.r1"]
    assert rows.loc[rows["tier_code"] == "major", "superseded_by"].isna().all()
    ran = cli("ledger", "show", book, "--known-on", DAYS[0] - timedelta(1))
    assert (ran.code, f"before {DAYS[0]}; give a later --known-on" in ran.err) == (2, True)
    # a correction of the correction keeps both
    score(late.early.project, late.early.bundle, DAYS[0], out, ledger=book, regrade_reason="no, it was not")
    assert held(book, who, DAYS[0]) == "small"
    assert sorted(path.name for path in book.iterdir())[:3] == [
        f"{DAYS[0]}.parquet", f"{DAYS[0]}.r1.parquet", f"{DAYS[0]}.r2.parquet"
    ]  # fmt: skip
    # the same correction again changes nothing
    done = score(
        late.early.project, late.early.bundle, DAYS[0], out, ledger=book, regrade_reason="no, it was not"
    ).added
    assert done is not None
    assert (done.superseded, len(list(book.iterdir()))) == ((), 5)


def test_overrides_after_the_day_stay_over_the_corrected_state(late: Late, tmp_path: Path) -> None:
    book, out, day = tmp_path / "book", tmp_path / "s.parquet", DAYS[0] + timedelta(3)
    score(late.early.project, late.early.bundle, DAYS[0], out, ledger=book)
    by, until = late.who[0], DAYS[1] + timedelta(10)
    Ledger(book).override(by, "regular", day, until=until, operator="li", reason="a promise")
    score(late.early.project, late.early.bundle, DAYS[1], out, ledger=book)
    score(late.late.project, late.late.bundle, DAYS[0], out, ledger=book, regrade_reason=WHY)
    assert [held(book, by, d) for d in (DAYS[0], day, DAYS[1])] == ["major", "regular", "regular"]
    assert held(book, by, until) == "major"  # and not the tier that the customer had when it was set
    score(late.late.project, late.late.bundle, DAYS[1], out, ledger=book)
    row = pd.read_parquet(out).set_index("customer_id").loc[by]
    assert (row["tier_code"], row["reason_1"], row["model_tier"]) == ("regular", "set by hand", 3)
    assert held(book, by, until) == "major"
    spans = Ledger(book).history(by)
    assert spans["tier_code"].tolist() == ["major", "regular", "major"]
    assert spans["valid_to"].tolist()[:-1] == spans["valid_from"].tolist()[1:] == [day, until]


def test_the_command_line_corrects(late: Late, tmp_path: Path, cli: Run) -> None:
    shutil.copytree(late.book, tmp_path / "book")
    settings = late.late.project.model_dump(mode="json", exclude={"folder"}, exclude_none=True)
    (tmp_path / "shop.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    words = ("score", "shop.yaml", "--model", late.late.bundle, "--as-of", DAYS[1], "--out", "s.csv")
    for wrong in (("--regrade",), ("--reason", "x"), ("--regrade", "--reason", " ")):
        assert cli(*words, "--ledger", "book", *wrong).code == 2
    assert cli(*words, "--regrade", "--reason", "x").code == 2  # no ledger
    assert not Path("s.csv").exists()
    ran = cli(*words, "--ledger", "book", "--regrade", "--reason", WHY)
    assert ran.code == 0
    assert f"superseded by this correction: the gradings of {DAYS[1]}, {DAYS[2]}" in ran.out
    assert f"to be graded again, in this order: {DAYS[2]}" in ran.out
    data = json.loads(cli(*words, "--ledger", "book", "--regrade", "--reason", "again", "--json").out)
    assert (data["superseded"], data["grade_again"]) == ([str(DAYS[1])], [str(DAYS[2])])
    assert data["ledger_rows"] >= sum(data["ledger_moves"].values())
    # a day between gradings is graded when it is asked for, and with a reason only
    between = [*words[:5], DAYS[0] + timedelta(7), *words[6:], "--ledger", "book"]
    assert cli(*between).code == 2
    assert cli(*between, "--regrade", "--reason", "an audit").code == 0
    assert Ledger("book").graded == [DAYS[0], DAYS[0] + timedelta(7)]
