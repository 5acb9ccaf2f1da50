"""Tracking, registering, the gate and resolving, on one real SQLite store."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import shutil
import socket
import sqlite3
import time
from contextlib import nullcontext
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

import numpy as np
import pandas as pd
import pytest
import yaml

from tiermodel import locks
from tiermodel.bundle.bundle import load_bundle
from tiermodel.config.project import Project
from tiermodel.errors import GateError, ModelError, OutputBusyError, TierModelError, TrackingError
from tiermodel.evaluation.metrics import churn_metrics, value_metrics
from tiermodel.features.panel import build_panel
from tiermodel.mlflow_flavor import FLAVOR, trusted_bundle
from tiermodel.predict import predict
from tiermodel.tracking import comparison, connection, promotion
from tiermodel.tracking import store as store_module
from tiermodel.tracking.artifacts import EVALUATION, draw_evaluation, evaluation_table, learner_metrics
from tiermodel.tracking.descriptions import described, out_of_time
from tiermodel.tracking.experiment import experiment_of
from tiermodel.tracking.gate import judge
from tiermodel.tracking.promotion import gate, promote
from tiermodel.tracking.registry import log_training, resolve_model
from tiermodel.tracking.verdict import Acceptance, Verdict
from worlds import ID_MARK, TrainedWorld, bare_runs, spoiled

import mlflow  # isort: skip  # after our registry, which settles its environment
from mlflow.pyfunc.scoring_server import invocations  # isort: skip

# MLflow's own use of SQLAlchemy, and its test of column names under pandas 3, when a test calls MLflow itself.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),
    pytest.mark.filterwarnings("ignore:Operation with range is deprecated"),
]


@pytest.fixture(autouse=True)
def fewer_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep intervals quick; what the tests compare differs clearly."""
    monkeypatch.setattr(comparison, "DRAWS_AT_MOST", 400)


class Store:
    """One SQLite store with the small world's model registered in it."""

    def __init__(self, folder: Path, world: TrainedWorld) -> None:
        self.folder, self.world, self.uri = folder, world, f"sqlite:///{folder}/mlflow.db"
        self.client = mlflow.MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
        self.first = self.log(world.project.name, in_full=True)

    def project(self, name: str) -> Project:
        """Give the small world's project under another name, tracked in this store."""
        tracking = self.world.project.tracking.model_copy(update={"uri": self.uri, "experiment": "tests"})
        return self.world.project.model_copy(update={"name": name, "tracking": tracking})

    def log(self, name: str, later: dict[str, pd.DataFrame] | None = None, *, in_full: bool = False) -> str:
        """Register the same bundle again, under a name, with other out-of-time predictions or settings.

        Unless `in_full`, without pictures and without the runs of the learners.
        """
        world = self.world.trained
        predictions = later or world.out_of_fold
        weak = predictions["churn"].assign(logistic_rfm=0.5, mbg_nbd=0.5)  # the gate's baselines are not at test here
        trained = type(world)(world.bundle, world.accounts, {**predictions, "churn": weak})
        with nullcontext() if in_full else bare_runs():
            found = log_training(self.project(name), trained, self.world.bundle, register=True)
        assert found is not None
        return found

    def log_again(self, name: str, reference: str) -> None:
        """Register under another name what is logged already, as `NAME/VERSION`: logging takes seconds."""
        logged = self.client.get_model_version(*reference.split("/"))
        if not self.client.search_registered_models(f"name = '{name}'"):
            self.client.create_registered_model(name)
        source = self.client.get_model_version_download_uri(logged.name, logged.version)
        made = self.client.create_model_version(name, source, logged.run_id, model_id=logged.model_id)
        self.client.set_registered_model_alias(name, "challenger", str(made.version))

    def run(self, reference: str) -> Any:
        """Give the run behind `NAME/VERSION`."""
        name, version = reference.split("/")
        return self.client.get_run(self.client.get_model_version(name, version).run_id)

    def register_folder(self, name: str, folder: Path) -> str:
        """Register a folder as it is, as somebody else could."""
        self.client.create_registered_model(name)
        made = self.client.create_model_version(name, folder.as_uri())
        return f"{name}/{made.version}"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, trained: TrainedWorld, empty_store: Path) -> Store:
    folder = tmp_path_factory.mktemp("a store")
    shutil.copy(empty_store, folder / "mlflow.db")
    return Store(folder, trained)


@pytest.fixture(scope="module")
def snapshot(trained: TrainedWorld) -> pd.DataFrame:
    as_of = pd.Timestamp(trained.trained.bundle.facts["as_of"]).date()
    return build_panel(trained.project, [as_of])


def model_folder(store: Store) -> Path:
    version = store.client.get_model_version(*store.first.split("/"))
    uri = store.client.get_model_version_download_uri(version.name, str(version.version))
    return Path(mlflow.artifacts.download_artifacts(uri, tracking_uri=store.uri))


# what a run holds


def test_a_run_holds_parameters_metrics_per_date_digest_and_model(store: Store, trained: TrainedWorld) -> None:
    run, facts = store.run(store.first), trained.trained.bundle.facts
    assert run.info.status == "FINISHED"
    assert run.data.params["outcome.horizon_days"] == "60"
    assert run.data.params["seed"] == "7"
    assert run.data.tags["bundle"] == trained.trained.bundle.version
    assert run.data.tags["panel_digest"] == facts["panel_digest"]
    assert run.inputs.dataset_inputs[0].dataset.digest == facts["panel_digest"][:36]
    assert run.data.metrics["churn/log_loss/all"] == pytest.approx(facts["later"]["churn"]["log_loss"])
    history = store.client.get_metric_history(run.info.run_id, "churn/log_loss")
    days = sorted((d - pd.Timestamp(0)).days for d in trained.trained.out_of_fold["churn"]["as_of"].unique())
    assert sorted(point.step for point in history) == days
    assert len(days) > 1
    assert {"value/gini", "value/mae", "tier/qwk", "churn/ece"} <= set(run.data.metrics)


def children(store: Store) -> list[Any]:
    """Give the runs below the first training."""
    run = store.run(store.first)
    below = f"tags.mlflow.parentRunId = '{run.info.run_id}'"
    found: list[Any] = store.client.search_runs([run.info.experiment_id], below)
    return found


def test_below_a_training_there_is_a_run_for_each_learner_and_date(store: Store, trained: TrainedWorld) -> None:
    run, facts = store.run(store.first), trained.trained.bundle.facts
    version = trained.trained.bundle.version.removeprefix("small-world-")
    assert run.info.run_name == f"small-world · {facts['as_of']} · {version}"
    assert run.data.tags["kind"] == "training"
    learners = {
        "churn": ("tiermodel", "logistic", "compact", "trees", "btyd", "pareto", "logistic_rfm", "mbg_nbd"),
        "value": ("tiermodel", "ridge", "trees", "btyd"),
        "tier": ("tiermodel",),
        "upgrade": ("tiermodel",),
        "prospects": ("tiermodel",),
    }
    later = trained.trained.out_of_fold
    days = {target: [str(day.date()) for day in later[target]["as_of"].unique()] for target in learners}
    wanted = [f"{t} · {name} · {day}" for t, names in learners.items() for name in names for day in days[t]]
    found = children(store)
    assert sorted(child.info.run_name for child in found) == sorted(wanted)
    for child in found:
        tags = child.data.tags
        assert child.info.status == "FINISHED"
        assert child.info.run_name == f"{tags['target']} · {tags['learner']} · {tags['date']}"
        assert child.data.params == {name: tags[name] for name in ("target", "learner", "date")}
        assert tags["kind"] == "learner"
        assert {tags[name] == facts[name] for name in ("as_of", "panel_digest", "project_digest")} == {True}
    roles = {child.data.tags["learner"]: child.data.tags["role"] for child in found}
    assert [name for name, role in roles.items() if role == "served"] == ["tiermodel"]
    assert {name for name, role in roles.items() if role == "baseline"} == {"logistic_rfm", "mbg_nbd"}


def test_the_measures_of_a_learner_are_those_of_its_predictions_in_the_evaluation(store: Store) -> None:
    kept = pd.read_parquet(run_folder(store) / "evaluation.parquet")
    for child in children(store):
        tags = child.data.tags
        rows = kept[(kept["target"] == tags["target"]) & (kept["as_of"] == tags["date"])]
        column = {"served": "predicted", "member": f"member_{tags['learner']}", "baseline": tags["learner"]}
        actual, predicted = rows["actual"].to_numpy(), rows[column[tags["role"]]].to_numpy()
        measure = {"churn": churn_metrics, "value": value_metrics, "upgrade": churn_metrics}.get(tags["target"])
        if measure is None:
            assert child.data.metrics["tier/n"] == len(rows) > 0
            assert -1 <= child.data.metrics["tier/qwk"] <= 1
        else:
            wanted = {f"{tags['target']}/{name}": x for name, x in measure(actual, predicted).items()}
            assert child.data.metrics == pytest.approx(wanted)


def test_tables_tell_for_whom_it_is_right_and_what_inputs_tell_of_audited_attributes(
    store: Store, audited: TrainedWorld
) -> None:
    project = audited.project.model_copy(update={"name": "audited", "tracking": store.project("audited").tracking})
    with bare_runs():
        assert log_training(project, audited.trained, audited.bundle, register=False) is None
    first = store.run(store.first).info
    where = "attributes.run_name LIKE 'audited%' AND tags.kind = 'training'"
    (run,) = store.client.search_runs([first.experiment_id], where)
    slices = same_table(store, "slices", first.run_id, store.world)
    assert set(slices["by"]) == {"purchase_days", "tenure_days", "tier"}
    slices = same_table(store, "slices", run.info.run_id, audited)
    assert set(slices["by"]) > {"purchase_days", "tenure_days", "tier", "audited_coin", "audited_income"}
    proxies = same_table(store, "proxies", run.info.run_id, audited)
    assert list(proxies["attribute"]) == ["coin", "income"]
    assert "proxies.json" not in {file.path for file in store.client.list_artifacts(first.run_id)}


def same_table(store: Store, name: str, run_id: str, world: TrainedWorld) -> pd.DataFrame:
    """Load a table of a run as MLflow's own reader does; it is the bundle's."""
    logged = store.client.get_run(run_id).data.tags["mlflow.loggedArtifacts"]
    assert {"path": f"{name}.json", "type": "table"} in json.loads(logged)  # what MLflow shows as a table
    table = pd.read_json(store.client.download_artifacts(run_id, f"{name}.json"), orient="split")
    facts = world.trained.bundle.facts[name]
    assert list(table) == list(facts[0])
    for row, wanted in zip(table.to_dict("records"), facts, strict=True):
        for key, value in wanted.items():
            if value is None:
                assert pd.isna(row[key]), key
            elif isinstance(value, list):
                assert [dict(one) for one in row[key]] == [{**one, "told": pytest.approx(one["told"])} for one in value]
            else:
                assert row[key] == (pytest.approx(value) if isinstance(value, float) else value), key
    return table


def test_pictures_are_the_same_bytes_again(store: Store, trained: TrainedWorld, tmp_path: Path) -> None:
    draw_evaluation(trained.project, trained.trained.bundle, trained.trained.out_of_fold, tmp_path)
    drawn = sorted(tmp_path.iterdir())
    assert len(drawn) == 5
    for path in drawn:
        assert path.read_bytes() == (run_folder(store) / "figures" / path.name).read_bytes(), path.name


def test_without_later_predictions_there_is_nothing_to_judge_and_the_inputs_are_drawn(
    trained: TrainedWorld, tmp_path: Path
) -> None:
    nothing = {target: frame.head(0) for target, frame in trained.trained.out_of_fold.items()}
    assert list(learner_metrics(nothing)) == []
    assert evaluation_table(trained.project, nothing).empty
    draw_evaluation(trained.project, trained.trained.bundle, nothing, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["importance.png"]


def test_artifacts_lie_beside_the_database(store: Store) -> None:
    assert run_folder(store).is_relative_to(store.folder / "mlartifacts")
    figures = {f"{name}.png" for name in ("calibration", "concentration", "gains", "importance", "residuals")}
    wanted = {"card.md", "evaluation.parquet", "figures", "report.html", "slices.json"}
    assert {path.name for path in run_folder(store).iterdir()} == wanted
    assert {path.name for path in (run_folder(store) / "figures").iterdir()} == figures


def run_folder(store: Store) -> Path:
    uri = store.run(store.first).info.artifact_uri
    return Path(mlflow.artifacts.download_artifacts(uri, tracking_uri=store.uri))


def test_no_artifact_and_no_row_of_the_database_names_a_customer(store: Store, trained: TrainedWorld) -> None:
    files = [path for path in store.folder.rglob("*") if path.is_file()]
    assert any(path.name == "MLmodel" for path in files)
    assert any(path.name == "mlflow.db" for path in files)
    assert [path for path in files if ID_MARK.encode() in path.read_bytes()] == []
    tables = [pd.read_parquet(path).astype(str) for path in files if path.suffix == ".parquet"]  # may be compressed
    assert tables
    assert not any(table.apply(lambda column: column.str.contains(ID_MARK)).any(axis=None) for table in tables)
    assert ID_MARK in pd.read_parquet(str(trained.project.data.transactions.path))["customer"].iloc[0]


def test_a_filter_that_may_name_customers_is_not_logged(store: Store) -> None:
    assert "data.transactions.where" not in store.run(store.first).data.params
    assert "data.transactions.columns.amount" in store.run(store.first).data.params


def test_the_model_brings_no_code_and_no_pickle(store: Store) -> None:
    folder = model_folder(store)
    assert {path.name for path in folder.rglob("*")} >= {"MLmodel", "bundle.json"}
    assert [p.name for p in folder.rglob("*") if p.suffix in {".pkl", ".py", ".joblib", ".skops"}] == []
    pins = (folder / "requirements.txt").read_text().split()
    assert f"lightgbm=={version('lightgbm')}" in pins
    assert all("==" in pin for pin in pins)


def test_a_folder_that_is_not_the_trained_bundle_is_refused(store: Store, trained: TrainedWorld) -> None:
    other = type(trained.trained.bundle)(**{**vars_of(trained.trained.bundle), "name": "another"})
    changed = type(trained.trained)(other, trained.trained.accounts, trained.trained.out_of_fold)
    with pytest.raises(ModelError, match="was trained"):
        log_training(store.project("another"), changed, trained.bundle, register=True)


def vars_of(bundle: Any) -> dict[str, Any]:
    return {name: getattr(bundle, name) for name in type(bundle).__dataclass_fields__}


def test_without_register_nothing_is_registered(store: Store, trained: TrainedWorld) -> None:
    with bare_runs():
        assert log_training(store.project("unregistered"), trained.trained, trained.bundle, register=False) is None
    with pytest.raises(ModelError, match="no model of that name"):
        resolve_model("unregistered@challenger", store.uri)


# loading


def test_mlflow_loads_the_champion_and_scores_as_predict_does(
    store: Store, snapshot: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "champion" not in store.client.get_registered_model(store.world.project.name).aliases:
        promote(store.world.project.name, tracking_uri=store.uri)
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    mlflow.set_tracking_uri(store.uri)
    try:
        model = mlflow.pyfunc.load_model(f"models:/{store.world.project.name}@champion")
    finally:
        mlflow.set_tracking_uri(None)
    wanted = predict(load_bundle(store.world.bundle), snapshot)
    pd.testing.assert_frame_equal(model.predict(snapshot), wanted, check_dtype=False)
    reordered = snapshot[sorted(snapshot.columns, reverse=True)]
    pd.testing.assert_frame_equal(model.predict(reordered), wanted, check_dtype=False)
    features = snapshot.drop(columns=["customer_id", "as_of"])
    pd.testing.assert_series_equal(model.predict(features)["churn_risk"], wanted["churn_risk"])
    with pytest.raises(Exception, match="net_amount_total"):
        model.predict(snapshot.drop(columns="net_amount_total"))


def test_the_model_in_mlflow_takes_numbers_of_any_type(store: Store, snapshot: pd.DataFrame) -> None:
    mlflow.set_tracking_uri(store.uri)
    try:
        model = mlflow.pyfunc.load_model(f"models:/{store.first}")
    finally:
        mlflow.set_tracking_uri(None)
    wanted = model.predict(snapshot)
    whole = snapshot.assign(order_count_total=snapshot["order_count_total"].astype("int64"))
    for frame in (whole, snapshot.convert_dtypes(dtype_backend="pyarrow"), snapshot.convert_dtypes()):
        pd.testing.assert_frame_equal(model.predict(frame), wanted, check_dtype=False)
    with pytest.raises(ModelError, match="'order_count_total' holds other values than numbers"):
        model.predict(snapshot.assign(order_count_total="many"))


def test_a_served_model_takes_its_example_whole_numbers_and_nulls(
    store: Store, snapshot: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    folder = model_folder(store)
    model = mlflow.pyfunc.load_model(str(folder))
    schema = model.metadata.get_input_schema()

    def answered(body: str) -> pd.DataFrame:
        """Send a body to what `mlflow models serve` runs."""
        answer = invocations(body, "application/json", model, schema)
        assert answer.status == 200, answer.response
        return pd.DataFrame(json.loads(answer.response)["predictions"])

    (example,) = answered((folder / "serving_input_example.json").read_text()).to_dict("records")
    assert (example["customer_id"], example["as_of"][:10]) == ("C-1", "2025-07-31")
    assert 0 <= example["churn_risk"] <= 1

    rows = snapshot.head(5).drop(columns=["as_of"])
    count, gap = "order_count_total", "gap_days_mean"
    rows = rows.assign(**{gap: [7.0, np.nan, np.nan, 3.0, 2.0]})[["customer_id", *model_inputs(folder)]]
    records = json.loads(rows.to_json(orient="records"))
    for record in records:  # whole numbers, and a column that is missing in most rows
        record |= {count: int(record[count]), gap: None if record[gap] is None else int(record[gap])}
    wanted = predict(load_bundle(store.world.bundle), rows)
    found = answered(json.dumps({"dataframe_records": records}))
    assert found["churn_risk"].tolist() == pytest.approx(wanted["churn_risk"].tolist())
    assert found["tier_code"].tolist() == wanted["tier_code"].tolist()
    nothing = answered(json.dumps({"dataframe_records": [{**record, gap: None} for record in records]}))
    assert nothing["churn_risk"].between(0, 1).all()


def model_inputs(folder: Path) -> list[str]:
    return list(load_bundle(folder / "data" / "bundle").inputs.names)


def test_what_mlflow_shows_tells_purpose_verdict_and_rules(store: Store) -> None:
    name = store.world.project.name
    run, version = store.run(store.first), store.client.get_model_version(*store.first.split("/"))
    bundle = store.world.trained.bundle
    kept = {"horizon_days": "60", "scheme": "pyramid", "gate_verdict": run.data.tags["gate_verdict"]}
    for tags in (run.data.tags, version.tags):
        assert {key: tags[key] for key in kept} == kept
        days = pd.read_parquet(str(store.world.project.data.transactions.path))["day"]
        first, last = pd.Timestamp(tags["data_first_day"]), pd.Timestamp(tags["data_last_day"])
        assert first >= pd.Timestamp(days.min()).normalize()
        assert last == pd.Timestamp(bundle.facts["as_of"]) - pd.Timedelta(days=1)
    rules = bundle.scheme.rules(bundle.features, bundle.language)
    for told in (run.data.tags["mlflow.note.content"], version.description,
                 store.client.get_registered_model(name).description):  # fmt: skip
        assert "**Purpose.**" in told
        assert "60 days that follow" in told
        assert "**Verdict.**" in told
        assert f"- {rules[0]}" in told
    experiment = store.client.get_experiment(run.info.experiment_id)
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    page = (run_folder(store) / "report.html").read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>")


def test_descriptions_are_in_the_projects_language_and_cut_at_whole_lines(store: Store) -> None:
    chinese = replace(store.world.trained.bundle, settings={**store.world.trained.bundle.settings, "language": "zh"})
    found = list(learner_metrics(store.world.trained.out_of_fold))
    lines = out_of_time(chinese, "shop", found)
    told = described(chinese, "shop", lines)
    assert "**用途**　把 shop 的客户分为" in told
    assert re.search(r"流失对数损失 0\.\d{4}，最强基线 .* 0\.\d{4}", told)
    assert "上线审核：尚未进行" in told
    long = described(chinese, "shop", ["行" * 400] * 20)
    assert len(long) <= 5000
    assert long.endswith("\n……其余见 card.md")


def test_the_verdict_of_the_gate_is_a_tag_and_in_the_descriptions(store: Store) -> None:
    good = store.world.trained.out_of_fold
    store.log("told", good)
    assert store.run("told/1").data.tags["gate_verdict"] == "not judged"
    promote("told", tracking_uri=store.uri)
    store.log("told", spoiled(good, "churn"))
    with pytest.raises(GateError):
        promote("told", tracking_uri=store.uri)
    first, second = (store.client.get_model_version("told", number) for number in ("1", "2"))
    assert first.tags["gate_verdict"] == store.run("told/1").data.tags["gate_verdict"] == "passed"
    assert second.tags["gate_verdict"].startswith("refused: ")
    (passed,) = store.client.search_model_versions("name = 'told' AND tags.gate_verdict = 'passed'")
    assert passed.version == first.version
    assert "passed churn" in first.description or "passed signal" in first.description
    assert store.client.get_registered_model("told").description == first.description


def test_a_card_is_written_where_the_store_is_now(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "there"
    shutil.copytree(store.folder, folder)
    with sqlite3.connect(folder / "mlflow.db") as database:  # it was made in a folder that is gone
        move = "UPDATE runs SET artifact_uri = replace(artifact_uri, ?, 'file:///gone/away')"
        database.execute(move, [store.folder.as_uri()])
    run = store.run(store.first).info.run_id
    with connection.opened_store(f"sqlite:///{folder}/mlflow.db") as client:
        connection.put_text(client, run, "card.md", "new")
    assert (folder / "mlartifacts" / run / "artifacts" / "card.md").read_text() == "new"
    assert not Path("/gone").exists()


def test_a_store_that_moved_with_its_files_is_read_where_it_is_now(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "old"
    folder.mkdir()
    for name in ("mlflow.db", "mlartifacts"):
        copy = shutil.copytree if name == "mlartifacts" else shutil.copy
        copy(store.folder / name, folder / name)
    with sqlite3.connect(folder / "mlflow.db") as database:  # as if it had been made there
        places = (
            ("logged_models", "artifact_location"),
            ("model_versions", "storage_location"),
            ("runs", "artifact_uri"),
            ("experiments", "artifact_location"),
        )
        for table, column in places:
            database.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", [str(store.folder), str(folder)])
            database.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)",
                             [store.folder.as_uri(), folder.as_uri()])  # fmt: skip
    folder.rename(tmp_path / "new")
    uri = f"sqlite:///{tmp_path}/new/mlflow.db"
    assert (resolve_model(store.first, uri) / "bundle.json").is_file()
    tracking = store.project("moved").tracking.model_copy(update={"uri": uri})
    moved = store.project("moved").model_copy(update={"tracking": tracking})
    with connection.opened_store(uri) as client:
        run = client.create_run(experiment_of(client, moved))
        client.log_text(run.info.run_id, "now", "note.txt")
    assert (tmp_path / "new" / "mlartifacts" / run.info.run_id / "artifacts" / "note.txt").is_file()
    assert not folder.exists()
    shutil.rmtree(tmp_path / "new" / "mlartifacts")
    with pytest.raises(TrackingError, match=r"the store moved: .*Copy the folder mlartifacts beside the database too"):
        resolve_model(store.first, uri)


def test_a_store_is_made_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("tiermodel.disk.rename", killed)
        with pytest.raises(KeyboardInterrupt), connection.opened_store(uri, create=True):
            pass
    assert not (tmp_path / "mlflow.db").exists(), "half a store would never open again"
    with connection.opened_store(uri, create=True) as client:
        assert client.search_registered_models() == []
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".new"] == []


def test_an_experiment_deleted_in_mlflow_is_restored(store: Store) -> None:
    project = store.project("restored")
    with connection.opened_store(store.uri) as client:
        found = experiment_of(client, project)
        client.delete_experiment(found)
        assert experiment_of(client, project) == found
        assert client.get_experiment(found).lifecycle_stage == "active"


def test_a_model_is_resolved_by_alias_by_version_and_by_folder(store: Store, trained: TrainedWorld) -> None:
    name = trained.project.name
    for reference in (f"{name}@challenger", store.first, f"models:/{name}@challenger"):
        assert load_bundle(resolve_model(reference, store.uri)).version == trained.trained.bundle.version
    assert resolve_model(str(trained.bundle), "sqlite:////nowhere/x.db") == trained.bundle


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("small-world@nobody", "small-world@challenger"),
        ("small-world/99", "small-world/99 is not registered"),
        ("unknown@champion", "no model of that name"),
        ("no/such/folder", "no such folder"),
        ("a' or 1=1@champion", "no such folder"),
    ],
)
def test_an_unknown_model_is_refused(store: Store, reference: str, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        resolve_model(reference, store.uri)


EVIL = "import pathlib, os\npathlib.Path(os.environ['MARKER']).touch()\ndef _load_pyfunc(path):\n    return None\n"
FORGED: list[tuple[str, dict[str, object]]] = [
    ("loader_module", {"loader_module": "evil_loader"}),
    ("loader_module", {"loader_module": None}),
    ("code", {"code": "code"}),
    ("model_code_path", {"model_code_path": "code/evil_loader.py"}),
    ("python_model", {"python_model": "python_model.pkl"}),
    ("data: ../", {"data": "../outside"}),
    ("data: /", {"data": "/tmp"}),  # noqa: S108
]


@pytest.mark.parametrize("case", range(len(FORGED)))
def test_a_forged_model_is_refused_before_anything_runs(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: int
) -> None:
    words, change = FORGED[case]
    marker, folder = tmp_path / "marker", tmp_path / "model"
    monkeypatch.setenv("MARKER", str(marker))
    shutil.copytree(model_folder(store), folder)
    (folder / "code").mkdir()
    for path in (tmp_path / "evil_loader.py", folder / "code" / "evil_loader.py"):
        path.write_text(EVIL)
    monkeypatch.syspath_prepend(str(tmp_path))
    description = yaml.safe_load((folder / "MLmodel").read_text())
    description["flavors"]["python_function"].update(change)
    (folder / "MLmodel").write_text(yaml.safe_dump(description))
    reference = store.register_folder(f"forged-{case}", folder)
    with pytest.raises(ModelError, match="nothing was loaded") as refusal:
        resolve_model(reference, store.uri)
    assert words in str(refusal.value)
    assert not marker.exists()


@pytest.mark.parametrize(
    "text", ["", "[1, 2]", "flavors: 3", "flavors: {sklearn: {}}", "!!python/object/apply:os.getpid []", "a: [", "{{"]
)
def test_a_description_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "MLmodel").write_text(text)
    with pytest.raises(ModelError, match="nothing was loaded"):
        trusted_bundle(tmp_path, "x")


def test_another_flavor_beside_ours_is_refused(store: Store, tmp_path: Path) -> None:
    description = yaml.safe_load((model_folder(store) / "MLmodel").read_text())
    assert description["flavors"]["python_function"]["loader_module"] == FLAVOR
    description["flavors"]["sklearn"] = {
        "pickled_model": "model.skops",
        "skops_trusted_types": ["subprocess.getoutput"],
    }
    (tmp_path / "MLmodel").write_text(yaml.safe_dump(description))
    with pytest.raises(ModelError, match="flavor sklearn"):
        trusted_bundle(tmp_path, "x")


def test_a_changed_registered_bundle_is_refused_on_loading(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model_folder(store), folder)
    trees = folder / "data" / "bundle" / "churn.txt"
    trees.write_text(trees.read_text().replace("leaf_value=0", "leaf_value=1", 1) + "\n")
    with pytest.raises(ModelError, match=r"churn\.txt changed"):
        load_bundle(resolve_model(store.register_folder("changed", folder), store.uri))


# promoting


def champion(store: Store, name: str) -> dict[str, str]:
    return {alias: str(version) for alias, version in store.client.get_registered_model(name).aliases.items()}


def test_promotion_moves_the_aliases_and_refusal_leaves_them(store: Store) -> None:
    good = store.world.trained.out_of_fold
    store.log("promoted", spoiled(good, "churn"))
    store.client.set_registered_model_alias("promoted", "champion", "1")
    store.log("promoted", good)
    done = promote("promoted", tracking_uri=store.uri)
    assert (done.version, done.previous) == ("2", "1")
    assert "passed churn: churn log loss" in done.to_text()
    assert champion(store, "promoted") == {"champion": "2", "previous": "1", "challenger": "2"}
    with pytest.raises(GateError, match="champion already"):
        promote("promoted", tracking_uri=store.uri)
    store.log("promoted", spoiled(good, "churn"))
    with pytest.raises(GateError, match="version 3 is not promoted, version 2 stays champion") as refusal:
        promote("promoted", tracking_uri=store.uri)
    assert refusal.value.exit_code == 9
    assert "FAILED churn (blocking): churn log loss" in str(refusal.value)
    assert isinstance(refusal.value.verdict, Verdict)
    assert {"churn", "margin"} <= set(refusal.value.verdict.refused)
    again = gate("promoted", "1", tracking_uri=store.uri)
    assert (again.passed, again.situation.champion) == (False, "2")
    assert champion(store, "promoted")["champion"] == "2"
    with pytest.raises(ModelError, match="promoted/9"):
        promote("promoted", "9", tracking_uri=store.uri)


def test_a_champion_that_changed_meanwhile_stops_the_promotion(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    good = store.world.trained.out_of_fold
    store.log("raced", spoiled(good, "churn"))
    store.client.set_registered_model_alias("raced", "champion", "1")
    store.log_again("raced", "raced/1")
    store.log_again("raced", store.first)

    def slow_judge(*evaluations: Any) -> Any:
        store.client.set_registered_model_alias("raced", "champion", "2")
        return judge(*evaluations)

    monkeypatch.setattr(promotion, "judge", slow_judge)
    with pytest.raises(GateError, match="changed while the gate was at work"):
        promote("raced", tracking_uri=store.uri)
    assert champion(store, "raced")["champion"] == "2"


def test_a_model_without_an_evaluation_is_refused(store: Store) -> None:
    reference = store.register_folder("foreign", model_folder(store))
    with pytest.raises(GateError, match=r"no readable evaluation\.parquet"):
        promote("foreign", reference.split("/")[1], tracking_uri=store.uri)


def test_an_older_evaluation_without_baselines_serves_a_champion_not_a_challenger(store: Store) -> None:
    older = store.log("older", spoiled(store.world.trained.out_of_fold, "churn"))
    uri = store.run(older).info.artifact_uri
    file = Path(url2pathname(urlparse(uri).path)) / "evaluation.parquet"
    pd.read_parquet(file)[list(EVALUATION)].to_parquet(file, index=False)
    with pytest.raises(GateError, match=r"lack the baselines logistic_rfm, mbg_nbd.*train it again"):
        promote("older", tracking_uri=store.uri)
    store.client.set_registered_model_alias("older", "champion", "1")
    store.log_again("older", store.first)
    with pytest.raises(GateError, match="how many customers would change tier is not known"):
        promote("older", tracking_uri=store.uri)  # the older evaluation has no tiers
    seen = Acceptance(("movement",), "Ada", "the tables were compared")
    assert promote("older", tracking_uri=store.uri, acceptance=seen).previous == "1"
    pd.DataFrame({"other": [1.0]}).to_parquet(file, index=False)
    with pytest.raises(GateError, match=r"has the columns \['other'\]"):
        promote("older", "1", tracking_uri=store.uri)


def test_two_runs_do_not_share_a_sqlite_store(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "WAIT_SECONDS", 0.2)
    with (
        locks.database_lock(store.folder / "mlflow.db"),
        pytest.raises(OutputBusyError, match="in use by another run"),
    ):
        promote("promoted", tracking_uri=store.uri)


# stores


def open_store(uri: str, told: Path) -> None:
    """Open a store in a process of its own, everything said going to a file."""
    with told.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        with connection.opened_store(uri, create=True) as client:
            assert client.search_registered_models() == []


def test_a_fresh_store_opened_by_two_processes_is_made_once_and_in_silence(tmp_path: Path) -> None:
    fork, uri = multiprocessing.get_context("fork"), f"sqlite:///{tmp_path}/new/mlflow.db"
    told = [tmp_path / "told_0", tmp_path / "told_1"]
    runs = [fork.Process(target=open_store, args=(uri, file)) for file in told]
    for run in runs:
        run.start()
    for run in runs:
        run.join(timeout=60)
    assert [run.exitcode for run in runs] == [0, 0]
    assert [file.read_text() for file in told] == ["", ""]


def test_a_relative_store_starts_at_the_current_directory(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(store.folder / "mlflow.db", tmp_path / "copy.db")
    monkeypatch.chdir(tmp_path)
    assert (resolve_model(store.first, "sqlite:///copy.db") / "bundle.json").is_file()


def test_the_tracking_address_of_the_process_is_left_as_it_was(store: Store) -> None:
    resolve_model(store.first, store.uri)
    assert not mlflow.is_tracking_uri_set()


def refused(uri: str) -> str:
    started = time.monotonic()
    with pytest.raises(TierModelError) as refusal:
        resolve_model("small-world@champion", uri)
    assert isinstance(refusal.value, TrackingError)
    assert time.monotonic() - started < 10
    return str(refusal.value)


def test_a_server_that_does_not_answer_is_told_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "ANSWER_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        assert "timed out" in refused(f"http://127.0.0.1:{port}")
    assert "refused" in refused(f"http://127.0.0.1:{port}")


def test_a_store_that_is_none_is_told_without_the_password(tmp_path: Path) -> None:
    (tmp_path / "broken.db").write_bytes(b"not a database, but long enough to be looked at" * 99)
    assert "broken.db" in refused(f"sqlite:///{tmp_path}/broken.db")
    assert "no such database" in refused(f"sqlite:///{tmp_path}/missing.db")
    assert not (tmp_path / "missing.db").exists()
    assert "secret" not in refused("gopher://user:secret@example.invalid/store")
    assert "tracking.uri" in refused("http://[")
