"""A new champion is picked up while requests go on, and none of them is dropped."""

from __future__ import annotations

import http.client
import json
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from served import Server, as_json, serving, written
from tiermodel.bundle.bundle import save_bundle
from tiermodel.config.project import Project
from tiermodel.tracking.connection import opened_store
from tiermodel.tracking.registry import log_training
from worlds import TrainedWorld, bare_runs

pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),
    pytest.mark.filterwarnings("ignore:Operation with range is deprecated"),
]


class Shop:
    """A store with versions of a model that differ in the chance to stay after a rise."""

    def __init__(self, world: TrainedWorld, store: Path, folder: Path) -> None:
        shutil.copy(store, folder / "mlflow.db")
        self.folder, self.world = folder, world
        tracking = world.project.tracking.model_copy(update={"uri": f"sqlite:///{folder}/mlflow.db"})
        self.project: Project = world.project.model_copy(update={"tracking": tracking})

    def register(self, upgrade: float) -> str:
        """Register a version and give that of its bundle."""
        bundle = replace(self.world.trained.bundle, upgrade=upgrade)
        folder = save_bundle(bundle, self.folder / f"bundle-{upgrade}")
        with bare_runs():
            log_training(self.project, replace(self.world.trained, bundle=bundle), folder, register=True)
        return bundle.version

    def crown(self, version: str) -> None:
        """Set the alias, as `promote` does once the gate has let a version pass."""
        with opened_store(self.project.tracking.uri) as client:
            client.set_registered_model_alias("small-world", "champion", version)


@pytest.fixture
def shop(trained: TrainedWorld, empty_store: Path, tmp_path: Path) -> Shop:
    return Shop(trained, empty_store, tmp_path)


@pytest.fixture
def asked(trained: TrainedWorld) -> bytes:
    table = pd.read_parquet(str(trained.project.data.transactions.path))
    rows = as_json(table[table["customer"] == table["customer"].value_counts().index[0]])
    return json.dumps({"as_of": "2023-11-01", "transactions": rows}).encode()


class Client(threading.Thread):
    """A client that asks on one connection after the other, ten requests on each, until it is told to stop."""

    def __init__(self, server: Server, body: bytes) -> None:
        super().__init__()
        self.server, self.body, self.stopped = server, body, threading.Event()
        self.found: list[tuple[int, str, Any]] = []

    def run(self) -> None:
        """Ask, and note status, model and one figure of every answer."""
        for connection in self.connections():
            for _ in range(10):
                connection.request("POST", "/score", self.body, {"Content-Type": "application/json"})
                reply = connection.getresponse()
                told = json.loads(reply.read())
                versions = {row["model_version"] for row in told["scores"]} | {told["model_version"]}
                assert len(versions) == 1
                self.found.append((reply.status, versions.pop(), told["scores"][0]["upgrade_potential"]))
            connection.close()

    def wait_for(self, version: str) -> None:
        """Wait until a model has answered."""
        until = time.monotonic() + 60
        while version not in {told for _, told, _ in self.found}:
            assert time.monotonic() < until
            time.sleep(0.05)

    def connections(self) -> Iterator[http.client.HTTPConnection]:
        """Open one connection after the other."""
        while not self.stopped.is_set():
            yield self.server.connect()


def test_a_new_champion_takes_over_without_a_dropped_request(shop: Shop, asked: bytes, tmp_path: Path) -> None:
    first, second = shop.register(1.0), shop.register(0.25)
    shop.crown("1")
    with serving(tmp_path, written(shop.project, tmp_path), "--model", "small-world@champion") as server:
        assert server.ask("GET", "/readyz").json()["model_version"] == first
        client = Client(server, asked)
        client.start()
        client.wait_for(first)
        shop.crown("2")
        server.wait_for("from now on")
        assert server.ask("GET", "/readyz").json()["model_version"] == second
        client.wait_for(second)
        client.stopped.set()
        client.join()
        counts = server.ask("GET", "/metrics").body.decode()

        (shop.folder / "mlflow.db").rename(shop.folder / "gone.db")  # the registry is away: the model stays
        server.wait_for("still serving")
        assert server.ask("POST", "/score", asked).json()["model_version"] == second
    assert {status for status, _, _ in client.found} == {200}
    assert list(dict.fromkeys(version for _, version, _ in client.found)) == [first, second]
    chances = {version: chance for _, version, chance in client.found}
    assert chances[second] == pytest.approx(chances[first] / 4, abs=1e-6)
    assert "tiermodel_model_swaps_total 1.0" in counts
    assert f'tiermodel_model{{version="{second}"}} 1.0' in counts
    assert first not in counts
