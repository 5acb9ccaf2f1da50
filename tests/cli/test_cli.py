"""The command line as a user runs it, the flat front, and the order of the rooms."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest
import yaml

import tiermodel
from commands import Ran, Run
from tiermodel.cli.main import run
from worlds import TrainedWorld, bare_runs

SOURCE = Path(__file__).resolve().parents[2] / "src"
HEAVY = {"mlflow", "lightgbm", "sklearn", "pandas", "duckdb", "numba", "numpy", "scipy", "matplotlib", "pyarrow"}


def write_project(trained: TrainedWorld, path: Path, **sections: Any) -> Path:
    settings = trained.project.model_dump(mode="json", exclude={"folder"}, exclude_none=True)
    settings["tracking"] = {"uri": f"sqlite:///{path.parent}/mlflow.db"}
    path.write_text(yaml.safe_dump({**settings, **sections}, allow_unicode=True), encoding="utf-8")
    return path


@pytest.fixture
def project(trained: TrainedWorld, tmp_path: Path) -> Path:
    return write_project(trained, tmp_path / "project.yaml")


def shell(*words: object, cwd: Path) -> Ran:
    env = {**os.environ, "PYTHONWARNINGS": "error", "COLUMNS": "80"}
    done = subprocess.run(  # noqa: S603
        [sys.executable, *map(str, words)], cwd=cwd, env=env, capture_output=True, text=True, timeout=120, check=False
    )
    return Ran(done.returncode, done.stdout, done.stderr)


# as processes


def test_help_is_quick_and_lists_the_verbs(tmp_path: Path) -> None:
    started = time.perf_counter()
    done = shell("-m", "tiermodel", "--help", cwd=tmp_path)
    print(f"tiermodel --help took {time.perf_counter() - started:.2f} s")  # noqa: T201
    assert (done.code, done.err) == (0, "")
    for verb in ("demo", "check", "features", "train", "backtest", "tune", "score", "promote", "report", "rules"):
        assert f"  {verb} " in done.out


def test_a_users_errors_are_one_message_each(project: Path, trained: TrainedWorld, tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    for words, code in (
        (("score", "absent.yaml", "--model", "m", "--as-of", "latest", "--out", "s.parquet"), 2),
        (("score", project, "--model", "bundle", "--as-of", "latest", "--out", "s.parquet"), 5),
    ):
        done = shell("-m", "tiermodel", *words, cwd=tmp_path)
        assert done.code == code
        assert done.out == ""
        assert "Traceback" not in done.err
        assert done.err.splitlines()[-1].startswith("tiermodel: ")
    assert trained.bundle.is_dir()


def test_importing_does_nothing(tmp_path: Path) -> None:
    for module in ("tiermodel", "tiermodel.cli"):
        code = f"import sys, {module}; print(*sorted({{m.split('.')[0] for m in sys.modules}}))"
        loaded = set(shell("-c", code, cwd=tmp_path).out.split())
        assert "tiermodel" in loaded
        assert not loaded & HEAVY, module
    assert not list(tmp_path.iterdir())


# verbs


def test_score_then_rules_then_show(cli: Run, project: Path, trained: TrainedWorld, tmp_path: Path) -> None:
    done = cli("score", project, "--model", trained.bundle, "--as-of", "2023-11-01", "--out", "s.parquet", "--json")
    assert done.code == 0
    told = json.loads(done.out)
    assert told["customers"] == sum(told["tiers"].values()) == len(pd.read_parquet(tmp_path / "s.parquet"))
    a = told["account"]
    assert a["read"] == a["used"] + a["deduplicated"] + a["quarantined"] + a["filtered"] + a["out_of_window"]
    assert "transactions: " in done.err
    done = cli("score", project, "--model", trained.bundle, "--as-of", "2023-11-01", "--out", "s.csv")
    assert "major" in done.out
    assert f"{told['customers']:,} customers in s.csv" in done.out

    rules = cli("rules", trained.bundle)
    assert (rules.code, rules.err) == (0, "")
    assert rules.out.splitlines()[0].startswith("major (major): net amount of the last 365 days ≥ ")
    assert cli("rules", trained.bundle, "--format", "text").out == rules.out
    assert cli("rules", trained.bundle, "--language", "zh").out.startswith("重要客户 (major)")

    shown = json.loads(cli("show", "model", trained.bundle).out)
    assert shown["model_version"] == trained.trained.bundle.version
    assert shown["settings"]["models"]["churn"]["trees"]["num_leaves"] is None  # it follows the number of rows
    assert shown["settings"]["models"]["value"]["tweedie_power"] == 1.2
    assert cli("show", "schema", trained.bundle).out.split()[:4] == ["customer_id", "string", "as_of", "date32[day]"]
    assert json.loads(cli("show", "config", project).out)["outcome"]["horizon_days"] == 60
    rows = json.loads(cli("show", "features", project, "--json").out)
    assert {r["feature"] for r in rows} >= set(trained.trained.bundle.inputs.names)
    assert "days_since_last" in cli("show", "features").out
    schemes = cli("show", "schemes").out
    assert all(name in schemes for name in ("pyramid", "rfm", "learned", "clusters"))


def test_features_and_check(cli: Run, project: Path, tmp_path: Path) -> None:
    done = cli("features", project, "--as-of", "2023-06-01,2023-11-01", "--out", "f.parquet", "--json")
    assert json.loads(done.out)["rows"] == len(pd.read_parquet(tmp_path / "f.parquet"))
    checked = cli("check", project, "--json")
    assert checked.code == 0, checked.err
    told = json.loads(checked.out)
    assert (told["refused"], told["facts"]["customers"]) == (False, 400)
    assert {finding["level"] for finding in told["findings"]} >= {"ok"}
    assert cli("check", project).out.startswith("400 customers, ")


@pytest.mark.usefixtures("quick")
def test_backtest_says_who_won(cli: Run, trained: TrainedWorld, tmp_path: Path) -> None:
    project = write_project(trained, tmp_path / "one.yaml", backtest={"dates": ["2023-09-01"]})
    done = cli("backtest", project, "--out", "b.json", "--predictions", "p.parquet", "--details")
    assert done.code == 0
    assert "transactions: " in done.err
    assert done.out.startswith("Backtest of small-world: 1 test dates (2023-09-01 to 2023-09-01), up to 400 customers")
    for words in ("Churn, out of time", "Value, out of time", "Schemes, judged", "baseline is better beyond chance"):
        assert words in done.out[1_000:]
    assert json.loads((tmp_path / "b.json").read_text())["dates"] == ["2023-09-01"]
    assert len(pd.read_parquet(tmp_path / "p.parquet"))
    assert cli("report", trained.bundle, "b.json", "--out", "r.html").code == 0
    assert (tmp_path / "r.html").read_text(encoding="utf-8").lstrip().lower().startswith("<!doctype html>")


@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")
@pytest.mark.filterwarnings("ignore:Operation with range is deprecated")
@pytest.mark.usefixtures("quick")
def test_train_register_promote_score_by_name(cli: Run, project: Path, empty_store: Path, tmp_path: Path) -> None:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    done = cli("train", project, "--out", "model", "--register", "--json")
    assert done.code == 0
    told = json.loads(done.out)
    assert told["bundle"] == "model"
    assert set(told["later"]) == {"churn", "value", "tier", "upgrade"}
    uri = ("--tracking-uri", f"sqlite:///{tmp_path}/mlflow.db")
    early = cli("score", project, "--model", "small-world@champion", "--as-of", "latest", "--out", "s.csv")
    assert early.code == 5, early.err
    assert "small-world@challenger" in early.err
    assert not (tmp_path / "s.csv").exists()
    assert cli("promote", "small-world", *uri).code == 0
    assert cli("score", project, "--model", "small-world@champion", "--as-of", "latest", "--out", "s.csv").code == 0
    assert set(pd.read_csv(tmp_path / "s.csv")["model_version"]) == {told["model_version"]}
    for reference in ("small-world/1", "small-world@champion"):
        assert json.loads(cli("show", "model", reference, *uri).out)["model_version"] == told["model_version"]
        assert cli("show", "schema", reference, *uri).out.startswith("customer_id ")
    by_number = cli("score", project, "--model", "small-world/1", "--as-of", "latest", "--out", "n.csv")
    assert (by_number.code, (tmp_path / "n.csv").read_bytes()) == (0, (tmp_path / "s.csv").read_bytes())
    with bare_runs():
        again = cli("train", project, "--out", "model", "--register")
    assert again.code == 0
    assert told["model_version"] in again.out
    refreshed = cli("promote", "small-world", *uri)  # the same design and data, so no worse
    assert (refreshed.code, "0 of " in refreshed.out) == (0, True), refreshed.err
    assert "version 1 is the champion again" in cli("rollback", "small-world", *uri).out
    refused = cli("promote", "small-world", *uri)
    assert refused.code == 9
    assert "rolled back" in refused.err
    assert "Traceback" not in refused.err


# refusals


def refusals(project: Path, bundle: Path) -> Iterator[tuple[int, str, tuple[object, ...]]]:
    score = ("score", project, "--model", bundle)
    yield 2, "No such command", ("scores",)
    yield 2, "Missing option '--as-of'", ("score", project, "--model", bundle, "--out", "s.parquet")
    yield 2, "No such option", (*score, "--as-of", "latest", "--out", "s.parquet", "--fast")
    yield 2, "2023-02-30", (*score, "--as-of", "2023-02-30", "--out", "s.parquet")
    yield 2, ".parquet or .csv", (*score, "--as-of", "latest", "--out", "s.xls")
    yield 2, "absent.yaml", ("backtest", "absent.yaml")
    yield 3, "no customer has a row before 2019-01-01", (*score, "--as-of", "2019-01-01", "--out", "s.parquet")
    yield 3, "no customer has a row before", ("features", project, "--as-of", "2019-01-01", "--out", "s.parquet")
    yield 5, "there is no manifest.json", ("score", project, "--model", "n", "--as-of", "latest", "--out", "s.parquet")
    yield 5, "there is no manifest.json", ("rules", "nowhere")
    yield 5, "there is no manifest.json", ("show", "model", ".")
    yield 5, "there is no manifest.json", ("show", "schema", "models/shop")
    yield 8, "there is no such database", ("show", "model", "shop/1")
    yield 7, "cannot be written", (*score, "--as-of", "latest", "--out", project / "s.parquet")


def test_refusals_have_their_code_a_reason_and_no_output(cli: Run, project: Path, trained: TrainedWorld) -> None:
    for code, words, command in refusals(project, trained.bundle):
        done = cli(*command)
        assert done.code == code, (command, done.err)
        assert words in done.err
        assert "Traceback" not in done.err
        assert done.out == ""
    assert sorted(p.name for p in project.parent.iterdir()) == ["project.yaml"]


def test_a_project_file_is_refused_by_key(cli: Run, trained: TrainedWorld, tmp_path: Path) -> None:
    for sections, words in (
        ({"outcome": {"horizon_dayz": 60}}, "horizon_days"),
        ({"seed": "abc"}, "seed"),
        ({"tiers": {"scheme": "piramid"}}, "pyramid"),
        ({"tiers": {"scheme": {"code": "x", "kind": "share"}}}, "tiers.scheme"),
    ):
        done = cli("backtest", write_project(trained, tmp_path / "bad.yaml", **sections))
        assert done.code == 2, done.err
        assert words in done.err


def test_too_many_bad_rows_are_code_4(cli: Run, trained: TrainedWorld, tmp_path: Path) -> None:
    rows = pd.read_parquet(str(trained.project.data.transactions.path))
    rows.assign(amount=rows["amount"].astype(str).where(rows.index % 9 > 0, "x")).to_csv(
        tmp_path / "r.csv", index=False
    )
    data = trained.project.data.model_dump(mode="json", exclude_none=True)
    data["transactions"]["path"] = "r.csv"
    project = write_project(trained, tmp_path / "bad.yaml", data=data)
    done = cli("score", project, "--model", trained.bundle, "--as-of", "latest", "--out", "s.parquet")
    assert done.code == 4
    assert not (tmp_path / "s.parquet").exists()


def test_a_changed_bundle_is_code_5(cli: Run, project: Path, trained: TrainedWorld, tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    for file in trained.bundle.iterdir():
        (tmp_path / "copy" / file.name).write_bytes(file.read_bytes() + b" " * (file.name == "value.txt"))
    done = cli("score", project, "--model", "copy", "--as-of", "latest", "--out", "s.parquet")
    assert (done.code, done.out) == (5, "")
    assert "value.txt changed since training" in done.err


# the flat front


def test_public_names_are_there_and_stay_what_they_are() -> None:
    assert set(tiermodel.__all__) == set(tiermodel._HOMES)
    for name in tiermodel.__all__:
        import_module(f"tiermodel.{tiermodel._HOMES[name]}")
        found = getattr(tiermodel, name)
        assert callable(found)
        assert not isinstance(found, ModuleType)
        assert found.__name__ == name
    with pytest.raises(AttributeError, match=r"no attribute 'scroe'; it has .*score"):
        _ = tiermodel.scroe


def test_a_verb_is_a_function_whichever_module_came_first() -> None:
    for name in tiermodel.__all__:
        assert find_spec(f"tiermodel.{name}") is None, f"a module {name} would take the place of the function"


def test_verbs_call_the_function_of_their_name() -> None:
    others = {"completion", "demo", "features", "ledger", "rules", "serve", "show"}
    assert set(run.commands) <= {*tiermodel.__all__, *others}
