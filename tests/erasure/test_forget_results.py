"""Lists and exports, as their verbs write them, are whole after an erasure, and the next run goes on from them."""

from __future__ import annotations

import csv
import io
import json
import shutil
import zipfile
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import openpyxl
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml

from commands import Run
from conftest import Once
from failpoints import KILL, failing_everywhere
from tiermodel import export
from tiermodel.cli.main import main
from tiermodel.crm.manifest import finish_erasure
from tiermodel.features.export import write_features
from tiermodel.locks import output_lock
from tiermodel.predict import score
from tiermodel.words import words
from tiermodel.worklists.lists import lists
from worlds import TrainedWorld

DAYS = ("2023-09-01", "2023-10-01", "2023-11-01")
KEYS = {"zoho": "Customer_Number", "fxiaoke": "会员卡"}  # the second is no word by which a column of ids is known


class Night(NamedTuple):
    """A folder with ledger, scores, lists and exports of three days; a customer who is on a list."""

    folder: Path
    customer: str


def mapping(folder: Path, to: str, key: str, levels: list[str], **fields: Any) -> Path:
    columns = {key: {"column": "customer_id"}, "Tier": {"type": "picklist", "column": "tier_code", "options": levels}}
    columns |= {"Account_Value": {"type": "number", "column": "expected_value", "decimals": 0}} | fields
    settings = {"version": 1, "name": to, "to": to, "audience": "sales", "module": "Accounts", "key": key}
    settings |= {"rows_per_file": 150, "fields": columns}
    path = folder / f"{to}.yaml"
    path.write_text(yaml.safe_dump(settings, allow_unicode=True, sort_keys=False), encoding="utf-8")
    return path


def _made(trained: TrainedWorld, folder: Path) -> Path:
    bundle = trained.trained.bundle
    maps = [mapping(folder, to, key, list(bundle.scheme.scheme.codes)) for to, key in KEYS.items()]
    (folder / "run").mkdir()
    for n, day in enumerate(DAYS):
        scores = folder / "run" / f"{day}.parquet"
        score(trained.project, trained.bundle, day, scores, ledger=folder / "book")
        for path in maps:
            since = folder / "crm" / f"{path.stem}-{DAYS[n - 1]}" if n else None
            export(scores, path, folder / "crm" / f"{path.stem}-{day}", since=since)
    write_features(trained.project, DAYS[-1], folder / "run" / "features.parquet")
    lists(scores, trained.bundle, folder / "run" / "features.parquet", folder / "lists", ledger=folder / "book")
    settings = trained.project.model_dump(mode="json", exclude={"folder"}, exclude_none=True)
    (folder / "shop.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def made(trained: TrainedWorld, once: Once) -> Night:
    folder = once("erasure_results", lambda folder: _made(trained, folder))
    return Night(folder, pd.read_csv(folder / "lists" / "keep.csv")["customer_id"].iloc[1])


@pytest.fixture
def night(made: Night, cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Night:  # noqa: ARG001  its folder first
    shutil.copytree(made.folder, tmp_path / "night")
    monkeypatch.chdir(tmp_path / "night")
    return made._replace(folder=tmp_path / "night")


def forget(night: Night, customer: str | None = None) -> list[object]:
    folders = [word for name in ("run", "lists", "crm") for word in ("--in", name)]
    return ["forget", "shop.yaml", customer or night.customer, "--ledger", "book", *folders]


def table(content: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline="")))


def unpacked(path: Path) -> bytes:
    if path.suffix != ".zip":
        return path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return archive.read(archive.namelist()[0])


def audit(folder: Path) -> dict[str, Any]:
    """Check an export against its manifest, all counts and digests, and return the manifest."""
    told = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    gone = [told["gone_file"]] if told["gone_file"] else []
    for file in [*told["files"], *gone]:
        content = (folder / file["name"]).read_bytes()
        assert (file["bytes"], file["sha256"]) == (len(content), sha256(content).hexdigest()), folder
        rows = table(unpacked(folder / file["name"]))
        assert len(rows) - 1 == file["rows"]
        assert rows[0] == (told["fields"] if file not in gone else [told["key"]])
    state = folder / "customers.parquet"
    assert told["state_sha256"] == sha256(state.read_bytes()).hexdigest()
    assert told["customers"] == len(pd.read_parquet(state)) == told["new"] + told["changed"] + told["unchanged"]
    written = told["customers"] if told["everything"] else told["new"] + told["changed"]
    assert told["written"] == sum(file["rows"] for file in told["files"]) == written
    assert told["gone"] == sum(file["rows"] for file in gone)
    assert {path.name for path in folder.iterdir() if not path.name.startswith(".")} == {
        *(file["name"] for file in [*told["files"], *gone]), "customers.parquet", "manifest.json",
    }  # fmt: skip
    return told


def digests(folder: Path, pattern: str) -> set[str]:
    return {sha256(path.read_bytes()).hexdigest() for path in folder.glob(pattern)}


def named(folder: Path, customer: str) -> list[str]:
    """Name the files that have an id in their bytes, those of archives and Parquet columns too."""
    found = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        contents = [path.read_bytes()]
        if path.suffix in {".xlsx", ".zip"}:
            with zipfile.ZipFile(path) as archive:
                contents += [archive.read(name) for name in archive.namelist()]
        if path.suffix == ".parquet":
            contents.append(str(pq.read_table(path).to_pylist()).encode())
        if any(customer.encode() in content for content in contents):
            found.append(str(path.relative_to(folder)))
    return found


def test_every_result_is_whole_without_the_person(night: Night, cli: Run) -> None:
    before = {path: audit(path) for path in sorted(Path("crm").iterdir())}
    assert len(named(night.folder, night.customer)) > 12
    ran = cli(*forget(night))
    assert ran.code == 0, ran.err
    assert "CRM" in ran.out
    assert named(night.folder, night.customer) == []
    for folder, old in before.items():
        new = audit(folder)
        assert new["customers"] == old["customers"] - 1
        assert new["scores_sha256"] in digests(night.folder, "run/*.parquet")
        assert new["since"] is None or new["since"] in digests(night.folder, "crm/*/manifest.json")
    keep = pd.read_csv("lists/keep.csv", dtype=str)
    sheet = list(openpyxl.load_workbook("lists/keep.xlsx").active.values)
    say = words("en")
    assert [say[f"list_{name}"] for name in keep.columns] == list(sheet[0])
    assert [row[1] for row in sheet[1:]] == keep["customer_id"].tolist()


@pytest.mark.parametrize("to", list(KEYS))
def test_the_next_export_goes_on_and_takes_its_own_folder(night: Night, cli: Run, to: str) -> None:
    assert cli(*forget(night)).code == 0
    last, scores = f"crm/{to}-{DAYS[2]}", f"run/{DAYS[2]}.parquet"
    words = ["export", scores, "--to", to, "--mapping", f"{to}.yaml"]
    erased = {path.name: unpacked(path) for path in Path(last).iterdir() if path.suffix in {".csv", ".zip"}}
    told = audit(Path(last))
    again = cli(*words, "--since", f"crm/{to}-{DAYS[1]}", "--out", last)
    assert again.code == 0, again.err
    found = audit(Path(last))
    same = ("customers", "new", "changed", "unchanged", "written", "gone", "since", "scores_sha256")
    assert {name: found[name] for name in same} == {name: told[name] for name in same}
    lines = [line for name in sorted(erased) for line in table(erased[name])[1:]]
    assert sorted(lines) == sorted(
        line for path in Path(last).iterdir() if path.suffix in {".csv", ".zip"} for line in table(unpacked(path))[1:]
    )
    quiet = cli(*words, "--since", last, "--out", "crm/next")
    assert quiet.code == 0, quiet.err
    assert audit(Path("crm/next"))["unchanged"] == told["customers"]


def test_a_killed_run_leaves_an_export_old_or_new(night: Night, tmp_path: Path) -> None:
    """Whatever a kill leaves, `export --since` and the same command again go on from."""
    for folder in [path for path in Path("crm").iterdir() if path.name != f"zoho-{DAYS[0]}"]:
        shutil.rmtree(folder)
    shutil.rmtree("lists")
    (old, work), steps, states = (tmp_path / "old", tmp_path / "work"), 0, list[bool]()
    scores = night.folder / "run" / f"{DAYS[1]}.parquet"
    shutil.copytree(night.folder, old, ignore=shutil.ignore_patterns("run"))
    shutil.copytree(old, work)
    exported = work / "crm" / f"zoho-{DAYS[0]}"
    customers = audit(exported)["customers"]
    command: list[object] = ["forget", "shop.yaml", night.customer, "--ledger", "book", "--in", "crm", "--json"]
    for failed in failing_everywhere(work, command, KILL):
        steps += 1
        if steps % 8 == 0:
            export(scores, work / "zoho.yaml", work / "next", since=exported)
        else:
            finish_erasure(exported)
        told = audit(exported)["customers"]
        states.append(told == customers - 1)
        assert told == customers - states[-1], failed
        if steps % 8 == 0:
            main_in(work, command)
            assert named(work / "crm", night.customer) == named(work / "book", night.customer) == []
            assert audit(exported)["customers"] == customers - 1
            assert not [path for path in work.rglob(".*") if path.suffix != ".lock"], failed
        shutil.rmtree(work)
        shutil.copytree(old, work)
    assert states == sorted(states)
    assert set(states) == {False, True}
    assert steps > 20


def main_in(folder: Path, command: list[object]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("sys.argv", ["tiermodel", *map(str, command)])
        main()


def test_a_killed_run_among_lists_leaves_each_file_old_or_new(night: Night, tmp_path: Path) -> None:
    for name in ("crm", "run"):
        shutil.rmtree(name)
    old, new, work = tmp_path / "old", tmp_path / "new", tmp_path / "work"
    for path in Path("lists").iterdir():
        path.unlink() if path.stem != "keep" else None
    for folder in (old, new, work):
        shutil.copytree(night.folder, folder)
    command: list[object] = ["forget", "shop.yaml", night.customer, "--ledger", "book", "--in", "lists", "--json"]
    main_in(new, command)
    states = set()
    for failed in failing_everywhere(work, command, KILL):
        for name in ("keep.csv", "keep.xlsx"):
            content = (work / "lists" / name).read_bytes()
            assert content in {(folder / "lists" / name).read_bytes() for folder in (old, new)}, failed
            states.add(content)
        shutil.rmtree(work)
        shutil.copytree(old, work)
    assert len(states) == 4


def test_locks_of_killed_runs_go_and_those_of_other_runs_stay(night: Night) -> None:
    stale, held = Path("lists/.keep.csv.lock"), Path("lists/.other.csv.lock")
    stale.touch()
    with output_lock(Path("lists/other.csv").absolute()):
        main_in(night.folder, ["forget", "shop.yaml", night.customer, "--ledger", "book", "--in", "lists", "--json"])
        assert held.exists()
    assert not stale.exists()
    assert not held.exists()


@pytest.mark.parametrize("to", list(KEYS))
def test_a_short_number_is_found_by_the_key_alone(
    made: Night, tmp_path: Path, cli: Run, monkeypatch: pytest.MonkeyPatch, to: str
) -> None:
    """An export names the column of ids itself: the same number elsewhere is an amount."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(made.folder / "shop.yaml", tmp_path)
    shutil.copytree(made.folder / "book", tmp_path / "book")
    path = mapping(tmp_path, to, KEYS[to], ["a"])
    frame = pd.DataFrame({"customer_id": ["42", "7", "8"], "tier_code": "a", "expected_value": [7.0, 42.0, 1.0]})
    (tmp_path / "run").mkdir()
    frame.to_parquet("run/1.parquet")
    export("run/1.parquet", path, "crm/1")
    frame[:2].assign(expected_value=[5.0, 42.0]).to_parquet("run/2.parquet")
    export("run/2.parquet", path, "crm/2", since="crm/1")
    for customer, counts in (("42", (1, 0, 0, 1)), ("8", (1, 0, 0, 0))):
        ran = cli("forget", "shop.yaml", customer, "--ledger", "book", "--in", "run", "--in", "crm")
        assert ran.code == 0, ran.err
        audit(Path("crm/1"))
        told = audit(Path("crm/2"))
        assert (told["unchanged"], told["new"], told["changed"], told["gone"]) == counts
    rows = table(unpacked(Path("crm/1") / audit(Path("crm/1"))["files"][0]["name"]))
    assert rows[1:] == [["7", "a", "42"]]
