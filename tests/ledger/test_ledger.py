"""The tier ledger: as-of against a diary in plain Python, overrides until they expire, replays, nothing rewritten."""

from __future__ import annotations

import itertools
import shutil
from datetime import date, timedelta
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from tiermodel.bundle.bundle import load_bundle
from tiermodel.cli.main import run
from tiermodel.config.tiers import Downgrade, Stability, Upgrade
from tiermodel.errors import DataError, OutputError, ProjectError
from tiermodel.features.panel import build_panel
from tiermodel.ledger.ledger import Ledger
from tiermodel.ledger.rows import SCHEMA, table_of
from tiermodel.predict import score
from tiermodel.tiers.stability.rule import replay
from tiermodel.training.train import train
from worlds import TrainedWorld, quick_fits

DAYS = tuple(date(2023, 6, 1) + timedelta(60 * k) for k in range(4))
STABLE = Stability(up=Upgrade(band=0.05), down=Downgrade(band=0.05, confirmations=2))


@pytest.fixture(scope="module")
def steady(trained: TrainedWorld, tmp_path_factory: pytest.TempPathFactory) -> TrainedWorld:
    """Train the small world again with a stability rule."""
    folder = tmp_path_factory.mktemp("steady")
    tiers = trained.project.tiers.model_copy(update={"stability": STABLE})
    project = trained.project.model_copy(update={"tiers": tiers})
    with quick_fits():
        return TrainedWorld(project, train(project, out=folder / "bundle"), folder / "bundle")


def graded(world: TrainedWorld, folder: Path, days: tuple[date, ...] = DAYS) -> dict[date, pd.DataFrame]:
    """Score date after date with one ledger."""
    scores = {}
    for day in days:
        score(world.project, world.bundle, day, folder / "s.parquet", ledger=folder / "book")
        scores[day] = pd.read_parquet(folder / "s.parquet").set_index("customer_id")
    return scores


class Kept(NamedTuple):
    """A folder with a ledger, and the scores of each of `DAYS` that went into it."""

    folder: Path
    scores: dict[date, pd.DataFrame]


@pytest.fixture(scope="module")
def kept(steady: TrainedWorld, tmp_path_factory: pytest.TempPathFactory) -> Kept:
    """Keep a ledger over all dates; the tests that share it must not change it."""
    folder = tmp_path_factory.mktemp("kept")
    return Kept(folder, graded(steady, folder))


def test_as_of_gives_on_any_day_the_tier_of_the_last_grading(kept: Kept) -> None:
    scores, book = kept.scores, Ledger(kept.folder / "book")
    for n, day in enumerate(DAYS):
        for later in (0, 1, 59 if n < 3 else 900):
            held = book.as_of(day + timedelta(later)).set_index("customer_id")["tier_code"]
            assert held.to_dict() == scores[day]["tier_code"].astype(str).to_dict()
    assert book.as_of(DAYS[0] - timedelta(1)).empty
    moved = [
        (scores[b]["tier"] != scores[a]["tier"].reindex(scores[b].index)).sum() for a, b in itertools.pairwise(DAYS)
    ]
    history = book.history()
    assert len(history) == len(scores[DAYS[0]]) + sum(moved)
    spans = history.groupby("customer_id")
    assert (spans["valid_to"].shift(0).isna().groupby(history["customer_id"]).sum() == 1).all()
    for _, rows in spans:
        assert rows["valid_from"].tolist()[1:] == rows["valid_to"].tolist()[:-1]


def test_the_ledger_gives_what_a_replay_of_the_snapshots_gives(steady: TrainedWorld, kept: Kept) -> None:
    bundle = load_bundle(steady.bundle)
    first = DAYS[0] - timedelta(60 * bundle.scheme.memory(60))
    scores = kept.scores
    panel = build_panel(steady.project, [first + timedelta(60 * k) for k in range(bundle.scheme.memory(60) + 4)])
    tier, level = replay(bundle.scheme, panel)
    assert (tier != level).sum() > 10
    panel = panel.assign(tier=tier, level=level)
    for day in DAYS:
        rows = panel[panel["as_of"] == pd.Timestamp(day)].set_index("customer_id")
        assert rows["tier"].to_dict() == scores[day]["tier"].to_dict()
        assert rows["level"].to_dict() == scores[day]["model_tier"].to_dict()
    last = scores[DAYS[-1]]
    assert last["previous_tier"].dropna().to_dict() == scores[DAYS[-2]]["tier"].astype(float).to_dict()
    held = last[last["tier"] != last["model_tier"]]
    assert held["reason_1"].str.startswith("kept by the stability rule; the rules say").all()


def test_grading_again_changes_nothing_and_nothing_is_rewritten(
    steady: TrainedWorld, kept: Kept, trained: TrainedWorld, tmp_path: Path
) -> None:
    first = kept.scores
    shutil.copytree(kept.folder / "book", tmp_path / "book")
    before = {file.name: file.read_bytes() for file in (tmp_path / "book").iterdir()}
    again = graded(steady, tmp_path, DAYS[-1:])
    pd.testing.assert_frame_equal(again[DAYS[-1]], first[DAYS[-1]])
    assert {file.name: file.read_bytes() for file in (tmp_path / "book").iterdir()} == before
    with pytest.raises(ProjectError, match="a ledger goes forward only"):
        graded(steady, tmp_path, DAYS[:1])
    with pytest.raises(ProjectError, match="a ledger is never rewritten"):
        graded(trained, tmp_path, DAYS[-1:])
    assert graded(steady, tmp_path / "other")[DAYS[-1]].equals(first[DAYS[-1]])
    with pytest.raises(ProjectError, match="no part of a tier ledger"):
        Ledger(tmp_path)


def test_an_override_stays_through_gradings_until_it_expires(steady: TrainedWorld, kept: Kept, tmp_path: Path) -> None:
    plain = kept.scores
    graded(steady, tmp_path, DAYS[:1])
    who = str(plain[DAYS[0]].index[plain[DAYS[0]]["tier_code"] == "small"][0])
    start, end = DAYS[0] + timedelta(10), DAYS[1] + timedelta(30)
    Ledger(tmp_path / "book").override(who, "major", start, until=end, operator="li", reason="signed a contract")
    scores = graded(steady, tmp_path, DAYS[1:])
    assert scores[DAYS[1]].loc[who, "tier_code"] == "major"
    assert scores[DAYS[1]].loc[who, "reason_1"] == "set by hand"
    assert scores[DAYS[1]]["model_tier"].to_dict()[who] == plain[DAYS[1]]["model_tier"].to_dict()[who]
    for day in DAYS[2:]:  # beneath the override, the grading went on
        assert scores[day]["tier"].to_dict() == plain[day]["tier"].to_dict()
    book = Ledger(tmp_path / "book")

    def held(day: date) -> str:
        return str(book.as_of(day).set_index("customer_id").loc[who, "tier_code"])

    assert [held(start - timedelta(1)), held(start), held(DAYS[1]), held(end - timedelta(1))] == [
        "small",
        *["major"] * 3,
    ]
    assert held(end) == str(plain[DAYS[1]].loc[who, "tier_code"])
    rows = book.history(who)
    assert rows[rows["operator"] == "li"][["valid_from", "valid_to", "reason_1"]].to_numpy().tolist() == [
        [start, end, "signed a contract"]
    ]


def test_an_override_can_be_withdrawn_and_bad_ones_are_refused(steady: TrainedWorld, tmp_path: Path) -> None:
    scores = graded(steady, tmp_path, DAYS[:1])[DAYS[0]]
    who, book, day = str(scores.index[0]), Ledger(tmp_path / "book"), DAYS[0] + timedelta(1)
    told = {"until": None, "operator": "li", "reason": "why not"}
    for words, kind, change in (
        ("starts after the last grading", ProjectError, {"start": DAYS[0]}),
        ("never holds", ProjectError, {"until": day}),
        ("an operator and a reason", ProjectError, {"operator": " "}),
        ("ever in tier 'vip'; there are", ProjectError, {"code": "vip"}),
        ("customer 'nobody' is not in", DataError, {"customer": "nobody"}),
    ):
        with pytest.raises(kind, match=words):
            book.override(**{"customer": who, "code": "major", "start": day, **told, **change})  # type: ignore[arg-type]
    book.override(who, "major", day, until=None, operator="li", reason="why not")
    assert book.as_of(day).set_index("customer_id").loc[who, "tier_code"] == "major"
    book.override(who, None, day + timedelta(1), until=None, operator="wu", reason="a mistake")
    held = book.as_of(day + timedelta(1)).set_index("customer_id")["tier_code"].to_dict()
    assert held[who] == scores["tier_code"].to_dict()[who]


def test_the_command_line_shows_and_overrides(steady: TrainedWorld, tmp_path: Path) -> None:
    scores = graded(steady, tmp_path, DAYS[:1])[DAYS[0]]
    who, book = str(scores.index[0]), str(tmp_path / "book")
    run_cli = CliRunner().invoke
    shown = run_cli(run, ["ledger", "show", book, "--as-of", str(DAYS[0]), "--customer", who])
    assert who in shown.output
    day, end = str(DAYS[0] + timedelta(1)), str(DAYS[0] + timedelta(9))
    told = [
        "--customer",
        who,
        "--from",
        day,
        "--until",
        end,
        "--operator",
        "li",
        "--reason",
        "a friend",
        "--tier",
        "major",
    ]
    assert run_cli(run, ["ledger", "override", book, *told]).output == f"{who}: major from {day} until {end}\n"
    out = tmp_path / "spans.csv"
    assert "assignments in" in run_cli(run, ["ledger", "show", book, "--out", str(out)]).output
    assert "a friend" in out.read_text()
    with pytest.raises(ProjectError, match="is no ledger yet"):
        run_cli(run, ["ledger", "show", str(tmp_path / "none")], catch_exceptions=False)


def test_who_is_gone_leaves_the_ledger(steady: TrainedWorld, tmp_path: Path) -> None:
    scores = graded(steady, tmp_path, DAYS[:2])
    gone = str(scores[DAYS[0]].index[0])
    book, day = Ledger(tmp_path / "book"), DAYS[1] + timedelta(60)
    before = book.before(day).rows
    stay = before.filter(pc.not_equal(before["customer_id"], gone))
    assert book.append(day, stay).moves == {"enter": 0, "up": 0, "down": 0, "exit": 1}
    assert gone not in set(book.as_of(day)["customer_id"])
    assert gone in set(book.as_of(day - timedelta(1))["customer_id"])


def test_hashed_ids_make_the_same_ledger_without_the_ids(
    steady: TrainedWorld, kept: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIERMODEL_ID_KEY", "a key of thirty-two characters, or more than that")
    plain = kept.scores
    data = steady.project.data.model_copy(update={"hash_ids": "TIERMODEL_ID_KEY"})
    hashed = steady._replace(project=steady.project.model_copy(update={"data": data}))
    scores = graded(hashed, tmp_path / "hashed", DAYS[:3])
    for day in DAYS[:3]:
        assert len(scores[day]) == len(plain[day])
        assert scores[day]["tier"].value_counts().to_dict() == plain[day]["tier"].value_counts().to_dict()
        held = Ledger(tmp_path / "hashed" / "book").as_of(day).set_index("customer_id")["tier_code"]
        assert held.to_dict() == scores[day]["tier_code"].astype(str).to_dict()
    assert not any("ID-ZQX" in customer for customer in Ledger(tmp_path / "hashed" / "book").history()["customer_id"])


def test_a_grading_from_a_file_is_that_from_a_table(tmp_path: Path) -> None:
    """`score` keeps the rows of a grading on disk; the comparison with what was before spills within its memory."""
    rows, later = many_rows(tmp_path / "now[1].parquet", "low"), many_rows(tmp_path / "later.parquet", "top")
    books = [Ledger(tmp_path / name) for name in ("a", "b")]
    for day, file in zip(DAYS, (rows, later), strict=False):
        added = [book.append(day, given) for book, given in zip(books, (file, pq.read_table(file)), strict=True)]
        assert added[0] == added[1]
    files = [[path.read_bytes() for path in sorted((tmp_path / name).glob("*.parquet"))] for name in ("a", "b")]
    assert files[0] == files[1]
    assert len(files[0]) == 2


def test_a_comparison_beyond_memory_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tiermodel.ledger.ledger._MEMORY", "1MB")
    with pytest.raises(OutputError, match=r"the grading of .* cannot be compared with .*Out of Memory.* Set TMPDIR"):
        Ledger(tmp_path / "book").append(DAYS[0], many_rows(tmp_path / "rows.parquet", "low"))
    assert not list((tmp_path / "book").glob("*.parquet"))


def many_rows(file: Path, code: str) -> Path:
    """Write the rows of a grading of 20,000 customers; half of them have the tier `code`."""
    customers = [f"c{number:06d}" for number in range(20_000)]
    rows = pd.DataFrame({"customer_id": customers, "event": "stay", "tier": 1, "reason_1": "x" * 40})
    rows["tier_code"] = rows["stable_code"] = rows["model_code"] = ["mid", code] * 10_000
    pq.write_table(table_of(rows.reindex(columns=SCHEMA.names)), file)
    return file
