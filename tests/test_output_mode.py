"""Outputs have a stated mode: that of the process for new files, that of what they replace, or the one asked for."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
import yaml

from commands import Run
from tiermodel.output import atomic_folder, write_json
from worlds import TrainedWorld

MODE = "TIERMODEL_OUTPUT_MODE"
POLICY = (
    "version: 1\nname: x\nlevels: {LEVELS}\nactions: {call: {name_zh: a, name_en: a, cost: 1, gain: expected_value}}\n"
)


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def modes(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): oct(stat.S_IMODE(path.stat().st_mode)) for path in folder.rglob("*")}


@pytest.mark.parametrize(("mask", "file", "inner"), [(0o022, "0o644", "0o755"), (0o077, "0o600", "0o700"),
                                                     (0o002, "0o664", "0o775")])  # fmt: skip
def test_new_outputs_have_the_mode_of_the_process(mask: int, file: str, inner: str, tmp_path: Path) -> None:
    with umask(mask):
        write_json(1, tmp_path / "a.json")
        with atomic_folder(tmp_path / "folder") as temporary:
            (temporary / "b").write_text("b")
    assert modes(tmp_path) == {"a.json": file, "folder": inner, "folder/b": file}


def test_what_is_replaced_keeps_its_mode(tmp_path: Path) -> None:
    with umask(0o022):
        for _ in range(2):
            write_json(1, tmp_path / "a.json")
            with atomic_folder(tmp_path / "folder") as temporary:
                (temporary / "b").write_text("b")
            for name, mode in (("a.json", 0o640), ("folder", 0o750), ("folder/b", 0o600)):
                assert (tmp_path / name).stat().st_mode & 0o777 in {mode, 0o644, 0o755}
                (tmp_path / name).chmod(mode)
        write_json(2, tmp_path / "a.json")
    assert modes(tmp_path) == {"a.json": "0o640", "folder": "0o750", "folder/b": "0o600"}


@pytest.mark.usefixtures("quick")
def test_every_verb_writes_with_the_mode_that_is_asked(
    trained: TrainedWorld, tmp_path: Path, cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = trained.project.model_dump(mode="json", exclude_unset=True)
    rows = tmp_path / "rows.csv"
    frame = pd.read_parquet(str(trained.project.data.transactions.path))
    frame.to_csv(rows, index=False)
    with rows.open("a") as file:
        file.write("ID-1,x,o,1,p\n")
    settings["data"]["transactions"]["path"] = "rows.csv"
    (tmp_path / "shop.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    codes = trained.trained.bundle.scheme.scheme.codes
    levels = ", ".join(f"{code}: {{}}" for code in codes)
    (tmp_path / "policy.yaml").write_text(POLICY.replace("LEVELS", levels), encoding="utf-8")
    given = set(modes(tmp_path))
    monkeypatch.setenv(MODE, "0600")
    with umask(0o022):
        for line in (
            "train shop.yaml --out out/model",
            "features shop.yaml --as-of 2023-11-01 --out out/features.parquet",
            "score shop.yaml --model out/model --as-of 2023-11-01 --out out/scores.csv --ledger out/ledger",
            "lists out/scores.csv --model out/model --features out/features.parquet --out out/lists",
            "export out/scores.csv --to csv --mapping csv_service --out out/crm",
            "allocate out/scores.csv --policy policy.yaml --budget 50 --out out/actions.csv",
            "upgrades shop.yaml --model out/model --as-of 2023-11-01 --out out/upgrades.xlsx",
            "report out/scores.csv out/model --out out/report.html",
        ):
            done = cli(*line.split())
            assert done.code == 0, (line, done.err)
    made = {name: mode for name, mode in modes(tmp_path).items() if name not in given and not name.endswith(".lock")}
    files = {name for name in made if (tmp_path / name).is_file()}
    assert {"out/scores.csv", "out/features.quarantine.csv", "out/report.html", "out/model/card.md"} <= files
    assert {made[name] for name in files} == {"0o600"}
    assert {made[name] for name in made if name not in files} == {"0o700"}


@pytest.mark.parametrize("mode", ["two", "0400", "9", "0o600", "1777", "-600"])
def test_a_mode_that_is_none_names_the_variable(
    mode: str, tmp_path: Path, cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MODE, mode)
    done = cli("show", "schemes")
    assert (done.code, f"{MODE}='{mode}'" in done.err) == (2, True), done.err
    assert not list(tmp_path.iterdir())
