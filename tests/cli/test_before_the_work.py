"""What would fail in the end is said in the beginning: train, tune, promote, rollback, refresh read no row before."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from commands import Run
from privileges import read_only, run_without_privileges
from tiermodel.tracking import store
from worlds import small_project

WORK = {
    "train": ("train", "shop.yaml", "--register", "--out", "models/shop"),
    "tune": ("tune", "shop.yaml", "--out", "models.yaml"),
    "refresh": ("refresh", "shop.yaml"),
}


@pytest.fixture
def shop(empty_store: Path, tmp_path: Path, cli: Run) -> Callable[..., Path]:
    """Make a project whose rows are a trap: who opens them fails with another exit code than the test asks for."""
    assert cli is not None  # in an empty folder, which is the current one
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    project = small_project(Path("never-read.parquet"), name="shop")
    settings = project.model_dump(mode="json", exclude={"folder"}, exclude_none=True)

    def made(uri: str = "sqlite:///mlflow.db") -> Path:
        settings["tracking"] = {"uri": uri}
        (tmp_path / "shop.yaml").write_text(json.dumps(settings))
        return tmp_path

    return made


def test_the_trap_works(cli: Run, shop: Callable[..., Path]) -> None:
    shop()
    for words in WORK.values():
        assert cli(*words).code == 3, words


@pytest.fixture
def dead() -> Iterator[str]:
    """Give the address of a server that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        yield f"http://ada:Geheim-8713@127.0.0.1:{silent.getsockname()[1]}"


@pytest.mark.parametrize("verb", [*WORK, "promote", "rollback"])
def test_a_server_that_does_not_answer(
    cli: Run, shop: Callable[..., Path], dead: str, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "ANSWER_SECONDS", 0.3)
    folder = shop(dead)
    done = cli(*WORK.get(verb, (verb, "shop", "--tracking-uri", dead)))
    assert done.code == 8, done.err
    assert "no answer within 0.3 s; check tracking.uri" in done.err
    assert "Geheim" not in done.err + done.out
    assert {path.name for path in folder.iterdir()} == {"mlflow.db", "shop.yaml"}


@pytest.mark.parametrize("verb", [*WORK, "promote", "rollback"])
def test_a_read_only_store(shop: Callable[..., Path], verb: str) -> None:
    folder = shop()
    (folder / "store").mkdir()
    (folder / "mlflow.db").rename(folder / "store" / "mlflow.db")
    shop("sqlite:///store/mlflow.db")
    read_only(folder / "store")
    folder.chmod(0o777)
    code, said = run_without_privileges(
        WORK.get(verb, (verb, "shop", "--tracking-uri", "sqlite:///store/mlflow.db")), folder
    )
    assert (code, "Traceback" in said) == (8, False), said
    assert "sqlite:///store/mlflow.db" in said
    assert "readonly" in said or "cannot be written" in said


@pytest.mark.parametrize("verb", list(WORK))
def test_an_output_folder_that_is_read_only(shop: Callable[..., Path], verb: str) -> None:
    folder = shop("sqlite:///store/mlflow.db")
    (folder / "store").mkdir()
    (folder / "mlflow.db").rename(folder / "store" / "mlflow.db")
    for one in (folder / "store", folder / "store" / "mlflow.db"):
        one.chmod(0o777)
    read_only(folder)
    (folder / "store").chmod(0o777)
    code, said = run_without_privileges(WORK[verb], folder)
    assert (code, "Traceback" in said) == (7, False), said
    assert "cannot be written: Permission denied" in said


def test_a_bundle_folder_that_holds_something_else(cli: Run, shop: Callable[..., Path]) -> None:
    folder = shop()
    (folder / "models").mkdir()
    (folder / "models" / "notes.txt").write_text("mine")
    done = cli("train", "shop.yaml", "--out", "models")
    assert done.code == 2
    assert "holds something that is no bundle" in done.err


def test_a_store_that_moved_away_is_told_with_its_remedy(cli: Run, shop: Callable[..., Path]) -> None:
    folder = shop()
    (folder / "mlflow.db").rename(folder / "moved.db")
    done = cli("promote", "shop")
    assert done.code == 8
    assert "where the store moved, name its new place in tracking.uri or --tracking-uri" in done.err


def test_nothing_stays_of_the_trial(shop: Callable[..., Path]) -> None:
    folder = shop()
    before = {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    store.check_store(f"sqlite:///{folder}/mlflow.db")
    store.check_store(f"sqlite:///{folder}/new/mlflow.db")
    assert {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert not (folder / "new").exists()
