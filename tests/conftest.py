"""Fixtures that several test files share."""

from __future__ import annotations

import fcntl
import os
import pickle
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from threadpoolctl import ThreadpoolController, threadpool_limits

from tiermodel.config.project import Project
from tiermodel.training.train import train

# what is heavy is imported where it is needed: the process that hands out the tests needs none of it
if TYPE_CHECKING:
    from commands import Run
    from tiermodel.config.project import Project
    from worlds import TrainedWorld

# a busy machine is no fault of the code; the gate tries the same examples every time, elsewhere new ones are tried
settings.register_profile("here", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("here")

PROCESSES = 2  # more ask for more memory than a small machine has; `-n` on the command line says otherwise
LONGEST = (
    "test_spark", "test_tune", "test_privacy", "test_learned", "test_churn_definition", "test_cli", "test_bad_inputs",
    "test_registry", "test_sampling", "test_synthetic", "test_segments", "test_models", "test_sql", "test_sources",
    "test_report", "test_panel", "test_backtest", "test_laws", "test_upgrade_conversion", "test_tables",
)  # fmt: skip
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Share the files of a run out between processes; a file that is run alone needs no other process."""
    files = {arg.split("::")[0] for arg in config.args}
    return 0 if len(files) == 1 and Path(*files).suffix == ".py" else PROCESSES


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the files that take longest, so that no process is left alone with one at the end."""
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Compute on one thread, as training does: threads that share out a few rows only wait for each other."""
    from tiermodel.models.btyd import likelihood  # noqa: PLC0415

    with threadpool_limits(limits=1), pytest.MonkeyPatch.context() as patch:
        # the same limit, but the libraries are looked for once and not in each of a training's dozens of fits
        patch.setattr(likelihood, "threadpool_limits", ThreadpoolController().limit)
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real data beside the checkout; skip where it is not there."""
    if not SHARED.is_dir():
        pytest.skip(f"real data is not at {SHARED}")
    return SHARED


Once = Callable[[str, Callable[[Path], Any]], Any]


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """Make something once for all processes of a run: the first to need it makes it, the others wait and read it."""
    root = tmp_path_factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root  # each process has a folder of its own in it

    def made(name: str, make: Callable[[Path], Any]) -> Any:
        folder, kept = root / name, root / f"{name}.pickle"
        with (root / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not kept.exists():
                folder.mkdir()
                kept.write_bytes(pickle.dumps(make(folder)))
            return pickle.loads(kept.read_bytes())  # noqa: S301  our own bytes

    return made


@pytest.fixture(scope="session")
def compiled(once: Once) -> None:
    """Compile the walk over the rows once: what one process has compiled the others read from Numba's cache."""
    once("compiled", _compiled)


def _compiled(_: Path) -> None:
    from histories import make_project  # noqa: PLC0415
    from panels_made import DAYS, END, HISTORIES, with_outcome  # noqa: PLC0415

    with_outcome(HISTORIES, DAYS[:1], make_project(), END)


@pytest.fixture(scope="session")
def trained(once: Once, compiled: None) -> TrainedWorld:  # noqa: ARG001  compiled before
    """Train once on a small world; the tests that share it must not change its files."""
    return once("world", _trained)


def _trained(folder: Path) -> TrainedWorld:
    from worlds import small_project, small_world  # noqa: PLC0415

    return _world(small_project(small_world(folder / "transactions.parquet")), folder / "bundle")


def _world(project: Project, bundle: Path) -> TrainedWorld:
    from worlds import TrainedWorld  # noqa: PLC0415

    trained = train(project, out=bundle)
    return TrainedWorld(project, replace(trained, bundle=replace(trained.bundle)), bundle)  # without cached properties


@pytest.fixture(scope="session")
def audited(once: Once) -> TrainedWorld:
    """Train where three attributes are audited: one that amounts betray, one that nothing tells, one known of few.

    The tests that share it must not change its files.
    """
    return once("audited", _audited)


def _audited(folder: Path) -> TrainedWorld:
    import numpy as np  # noqa: PLC0415
    import pandas as pd  # noqa: PLC0415

    from worlds import audited_project, small_world  # noqa: PLC0415

    rows = pd.read_parquet(small_world(folder / "t.parquet"))
    usual = rows[rows["amount"] > 0].groupby("customer")["amount"].mean()
    people = pd.DataFrame({"customer": usual.index, "coin": np.random.default_rng(5).integers(0, 2, len(usual))})
    people["income"] = np.where(usual > usual.median(), 2, 1)
    people["rare"] = np.where(np.arange(len(people)) < 20, np.arange(len(people)), np.nan)
    return _world(audited_project(folder / "t.parquet", people), folder / "bundle")


@pytest.fixture
def quick(trained: TrainedWorld) -> Iterator[None]:  # noqa: ARG001  the shared world is trained before, in full
    """Fit quickly in this test, where how good the models are does not matter."""
    from worlds import quick_fits  # noqa: PLC0415

    with quick_fits():
        yield


@pytest.fixture(scope="session")
def empty_store(once: Once) -> Path:
    """Make an empty tracking store to copy: MLflow takes seconds for each new one."""
    return once("store", _store)


def _store(folder: Path) -> Path:
    from tiermodel.tracking.connection import opened_store  # noqa: PLC0415

    path = folder / "mlflow.db"
    with opened_store(f"sqlite:///{path}", create=True):
        return path


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run a command in this process as the console script does, in an empty folder."""
    from commands import run_command  # noqa: PLC0415

    monkeypatch.chdir(tmp_path)
    return partial(run_command, capsys, monkeypatch)
