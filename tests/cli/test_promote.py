"""Promote, accept, expect, roll back and show, as typed; on a tracking store with the small world's model."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import sqlite3
from pathlib import Path

import pandas as pd
import pytest

from commands import Run
from tiermodel.tracking import comparison
from tiermodel.tracking.registry import log_training
from worlds import TrainedWorld, bare_runs, spoiled

pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),
    pytest.mark.filterwarnings("ignore:Operation with range is deprecated"),
]
WHO = ("--operator", "Ada", "--reason", "simpler rules")


class Shop:
    """A store in the current folder, in which versions of a model differ by their predictions and their design."""

    def __init__(self, world: TrainedWorld) -> None:
        self.world = world
        self.good = world.trained.out_of_fold

    def register(self, later: dict[str, pd.DataFrame] | None = None, *, seed: int = 7) -> str:
        """Register the small world's bundle with other predictions; another seed is another design."""
        predictions = later or self.good
        weak = predictions["churn"].assign(logistic_rfm=0.5, mbg_nbd=0.5)
        trained = type(self.world.trained)(
            self.world.trained.bundle, self.world.trained.accounts, {**predictions, "churn": weak}
        )
        with bare_runs():
            project = self.world.project.model_copy(update={"seed": seed})
            found = log_training(project, trained, self.world.bundle, register=True)
        assert found is not None
        return found.split("/")[1]


@pytest.fixture
def shop(trained: TrainedWorld, empty_store: Path, tmp_path: Path, cli: Run, monkeypatch: pytest.MonkeyPatch) -> Shop:
    assert cli is not None  # the commands run in an empty folder, which is the current one
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(comparison, "DRAWS_AT_MOST", 400)
    return Shop(trained)


def promoted(cli: Run, *options: str) -> dict[str, object]:
    done = cli("promote", "small-world", "--json", *options)
    assert done.code == 0, done.err
    return dict(json.loads(done.out))


def aliases() -> dict[str, str]:
    with sqlite3.connect("mlflow.db") as database:
        rows = database.execute("SELECT alias, version FROM registered_model_aliases").fetchall()
    return {str(alias): str(version) for alias, version in rows}


def test_a_design_that_is_no_better_is_refused_accepted_by_a_person_and_rolled_back(cli: Run, shop: Shop) -> None:
    assert shop.register() == "1"
    assert promoted(cli, "--expect", "none")["previous"] is None
    assert shop.register(seed=8) == "2"
    refused = cli("promote", "small-world", "--json")
    assert refused.code == 9
    told = json.loads(refused.out)
    assert (told["promoted"], told["passed"], told["champion"], told["refresh"]) == (False, False, "1", False)
    (failed,) = [check for check in told["checks"] if not check["passed"]]
    assert (failed["name"], failed["kind"]) == ("improvement", "advisory")
    assert "--accept improvement" in failed["remedy"]
    assert failed["remedy"] in refused.err

    wrong = [
        (2, "go together", ("--accept", "improvement")),
        (2, "go together", ("--operator", "Ada")),
        (2, "there is no such check", ("--accept", "taste", *WHO)),
        (2, "nobody can overrule it", ("--accept", "churn", *WHO)),
        (2, "--reason is empty", ("--accept", "improvement", "--operator", "Ada", "--reason", " ")),
        (5, "the latest versions are small-world/2, small-world/1", ("--challenger", "9")),
        (9, "version 1 is the champion, not 2 as expected", ("--expect", "2")),
        (9, "not promoted", ("--accept", "segments", *WHO)),
    ]
    for code, words, options in wrong:
        done = cli("promote", "small-world", *options)
        assert (done.code, words in done.err) == (code, True), (options, done.err)
        assert "Traceback" not in done.err
    assert aliases()["champion"] == "1"

    told = promoted(cli, "--accept", "improvement", *WHO, "--expect", "1")
    assert (told["version"], told["previous"], told["promoted"]) == ("2", "1", True)
    assert told["accepted"] == {"operator": "Ada", "reason": "simpler rules"}
    shown = json.loads(cli("show", "model", "small-world@champion").out)["promotion"]
    assert shown["accepted"] == {"operator": "Ada", "reason": "simpler rules"}
    assert [check["name"] for check in shown["checks"] if check["accepted"]] == ["improvement"]
    (card,) = [
        path.read_text() for path in Path("mlartifacts").glob("*/artifacts/card.md") if "Ada" in path.read_text()
    ]
    assert "## The gate" in card
    assert "accepted by Ada: simpler rules" in card
    with sqlite3.connect("mlflow.db") as database:
        tags = dict(database.execute("SELECT key, value FROM model_version_tags WHERE version = 2").fetchall())
    assert json.loads(tags["accepted.improvement"])["operator"] == "Ada"

    back = cli("rollback", "small-world")
    assert back.code == 0
    assert "version 1 is the champion again; version 2 was rolled back" in back.out
    assert aliases() == {"champion": "1", "challenger": "2"}
    again = cli("promote", "small-world", "--accept", "improvement", *WHO)
    assert (again.code, "rolled_back" in again.err) == (9, True)
    none = cli("rollback", "small-world")
    assert none.code == 9
    assert "version 1 is the first champion that can still be read, so there is nothing to roll back to" in none.err


def test_a_refresh_needs_no_person_and_rolls_back_twice(cli: Run, shop: Shop) -> None:
    for version in ("1", "2", "3"):
        assert shop.register() == version
        assert promoted(cli)["version"] == version
    assert aliases() == {"champion": "3", "previous": "2", "challenger": "3"}
    assert promoted_is_refresh(cli)
    assert "2 is the champion again" in cli("rollback", "small-world").out
    assert json.loads(cli("rollback", "small-world", "--json").out)["version"] == "1"
    assert aliases() == {"champion": "1", "challenger": "3"}


def promoted_is_refresh(cli: Run) -> bool:
    return bool(json.loads(cli("show", "model", "small-world/3").out)["promotion"]["refresh"])


def test_without_a_champion_the_way_on_is_told_and_works(cli: Run, shop: Shop, tmp_path: Path) -> None:
    project = tmp_path / "shop.yaml"
    settings = shop.world.project.model_dump(mode="json", exclude={"folder"}, exclude_none=True)
    project.write_text(json.dumps(settings))
    score = ("score", project, "--as-of", "latest", "--out", "s.parquet", "--model")
    nobody = cli(*score, "small-world@champion")
    assert nobody.code == 5
    assert "no model of that name is registered" in nobody.err
    bad = shop.register(spoiled(shop.good, "churn", 6.0))
    early = cli(*score, "small-world@champion")
    assert early.code == 5
    assert "run `tiermodel promote small-world`" in early.err
    assert f"--model small-world/{bad}" in early.err
    refused = cli("promote", "small-world")
    assert refused.code == 9
    assert "there is no champion still" in refused.err
    assert f"score with --model small-world/{bad}" in refused.err
    assert cli(*score, f"small-world/{bad}").code == 0
    empty = {target: frame.iloc[:0] for target, frame in shop.good.items()}
    short = shop.register(empty)
    refused = cli("promote", "small-world")
    assert (refused.code, "train again once the log reaches 20" in refused.err) == (9, True)
    assert promoted(cli, "--accept", "evaluation", *WHO)["version"] == short
    assert shop.register() == str(int(short) + 1)
    assert promoted(cli, "--accept", "movement", *WHO)["previous"] == short
    assert cli("rollback", "nobody").code == 5


def promote_alone(told: Path, version: str) -> None:
    """Promote in a process of its own, what is said going to a file, and exit as the command does."""
    from tiermodel.cli.main import main  # noqa: PLC0415

    with told.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        import sys  # noqa: PLC0415

        sys.argv = ["tiermodel", "promote", "small-world", "--challenger", version, "--expect", "1"]
        main()


def test_of_four_promoters_at_once_one_wins(cli: Run, shop: Shop, tmp_path: Path) -> None:
    shop.register()
    promoted(cli)
    versions = [shop.register() for _ in range(4)]
    fork = multiprocessing.get_context("fork")
    runs = [fork.Process(target=promote_alone, args=(tmp_path / version, version)) for version in versions]
    for run in runs:
        run.start()
    for run in runs:
        run.join(timeout=120)
    codes = sorted(run.exitcode or 0 for run in runs)
    told = [(tmp_path / version).read_text() for version in versions]
    assert codes[0] == 0, told
    assert set(codes[1:]) <= {6, 9}, told
    winner = versions[[run.exitcode for run in runs].index(0)]
    assert aliases()["champion"] == winner
