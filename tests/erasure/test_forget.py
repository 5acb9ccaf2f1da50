"""One person is erased whole, everywhere, and nobody else is touched."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from pathlib import Path
from typing import NamedTuple

import openpyxl
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from commands import Run
from failpoints import KILL, failing_everywhere
from tiermodel.bundle.bundle import load_bundle
from tiermodel.cli.main import main
from tiermodel.erasure.person import person_of
from tiermodel.erasure.tables import rows_without
from tiermodel.ledger.check import check_ledger
from tiermodel.ledger.ledger import Ledger
from tiermodel.tables.privacy import public_ids
from worlds import TrainedWorld

DAYS = ("2023-05-02", "2023-06-01", "2023-07-01")
KEY = "a secret of thirty-two characters at least"


class Shop(NamedTuple):
    """A folder with a ledger, corrected and overridden, and with results of every kind; the one to be forgotten."""

    folder: Path
    project: Path
    bundle: Path
    customer: str
    public: str
    other: str


def run_in(folder: Path, *words: object) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("sys.argv", ["tiermodel", *map(str, words)])
        main()


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "hashed"])
def shop(request: pytest.FixtureRequest, trained: TrainedWorld, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    hashed = bool(request.param)
    folder = tmp_path_factory.mktemp("erasure")
    here = folder / "here"
    here.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIERMODEL_ID_KEY", KEY)
        rows = pd.read_parquet(str(trained.project.data.transactions.path))
        few = rows[rows["customer"].isin(rows["customer"].unique()[:40])]
        bad = few.head(1).assign(amount=float("nan"))
        pd.concat([few, bad]).to_csv(folder / "rows.csv", index=False)
        settings = trained.project.model_dump(mode="json", exclude={"folder"}, exclude_none=True)
        settings["data"]["transactions"]["path"] = str(folder / "rows.csv")
        settings["data"] |= {"hash_ids": "TIERMODEL_ID_KEY"} if hashed else {}
        (folder / "shop.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
        score = ["score", folder / "shop.yaml", "--model", trained.bundle, "--ledger", "book"]
        for day in DAYS:
            run_in(here, *score, "--as-of", day, "--out", "run/s.parquet")
        run_in(here, *score, "--as-of", DAYS[1], "--out", "run/again.csv", "--regrade", "--reason", "late rows")
        run_in(here, *score, "--as-of", DAYS[2], "--out", "run/s.parquet")
        customer, other = map(str, pd.unique(few["customer"])[:2])
        key = KEY.encode() if hashed else None
        public, beside = public_ids(pa.array([customer, other]), key).to_pylist()
        set_by_hand = ["ledger", "override", "book", "--operator", "Ana"]
        tier = load_bundle(trained.bundle).scheme.scheme.codes[-1]
        run_in(here, *set_by_hand, "--customer", public, "--tier", tier, "--from", "2023-07-02", "--reason", "asked")
        why = f"as {public} has it"
        run_in(here, *set_by_hand, "--customer", beside, "--tier", tier, "--from", "2023-07-02", "--reason", why)
        _other_results(here, public)
    return Shop(here, folder / "shop.yaml", trained.bundle, customer, public, beside)


def _other_results(here: Path, public: str) -> None:
    """Write what lists, exports and reports write: CSV with localised heads, workbooks, archives, JSON, pages."""
    scores = pd.read_parquet(here / "run" / "s.parquet")
    (here / "out").mkdir()
    few = scores[["customer_id", "tier_code", "churn_risk"]]
    few.rename(columns={"customer_id": "客户"}).to_csv(here / "out" / "keep.csv", index=False)
    few.to_excel(here / "out" / "keep.xlsx", index=False)
    with zipfile.ZipFile(here / "out" / "crm.zip", "w") as packed:
        packed.writestr("contacts.csv", few.to_csv(index=False))
    listed = {"customers": few.to_dict("records"), "first": public, "by": {public: 1, "x": 2}}
    (here / "out" / "keep.json").write_text(json.dumps(listed), encoding="utf-8")
    digest = hashlib.sha256((here / "out" / "keep.csv").read_bytes()).hexdigest()
    (here / "out" / "manifest.json").write_text(json.dumps({"keep.csv": digest}), encoding="utf-8")
    (here / "out" / "page.html").write_text(f"<p>Call <bdi>{public}</bdi></p>", encoding="utf-8")
    (here / "out" / "other.html").write_text("<p>Nobody</p>", encoding="utf-8")


@pytest.fixture
def here(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TIERMODEL_ID_KEY", KEY)
    shutil.copytree(shop.folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    """Give the bytes of every file, those in archives and of packed columns too."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found[str(path.relative_to(folder))] = path.read_bytes()
        if path.suffix in {".xlsx", ".zip"}:
            with zipfile.ZipFile(path) as packed:
                found |= {f"{path.name}/{name}": packed.read(name) for name in packed.namelist()}
        if path.suffix == ".parquet":
            table, notes = pq.read_table(path), pq.read_schema(path).metadata
            found[f"{path.name}/rows"] = f"{table.to_pylist()} {notes}".encode()
    return found


def named_in(folder: Path, shop: Shop) -> list[str]:
    """Grep for the id and its hash in every byte."""
    ids = {shop.customer.encode(), shop.public.encode()}
    return [name for name, content in contents(folder).items() if any(one in content for one in ids)]


def forget(shop: Shop, *more: object) -> list[object]:
    return ["forget", shop.project, shop.customer, "--ledger", "book", "--in", "run", "--in", "out", *more]


def without(shop: Shop, path: Path) -> pd.DataFrame:
    frame = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    return frame[frame["customer_id"] != shop.public].reset_index(drop=True)


def test_nothing_names_the_person_afterwards_and_everybody_else_stays(shop: Shop, here: Path, cli: Run) -> None:
    before = {path: path.read_bytes() for path in here.rglob("*") if path.is_file()}
    tables = [*here.glob("run/*.parquet"), here / "run" / "again.csv"]
    rest = {path: without(shop, path) for path in tables}
    history = Ledger("book").history()
    assert len(named_in(here, shop)) > 10
    rows = shop.project.with_name("rows.csv").read_bytes()

    ran = cli(*forget(shop))

    assert ran.code == 0, ran.err
    assert named_in(here, shop) == []
    for path, expected in rest.items():
        pd.testing.assert_frame_equal(without(shop, path), expected)
        assert len(expected) == 39
    theirs = history[history["customer_id"] != shop.public].reset_index(drop=True)
    now = Ledger("book").history()
    mark = now["reason_1"].str.contains("已删除|erased", regex=True)
    assert mark.sum() == 1
    told = theirs["reason_1"].str.replace(shop.public, now.loc[mark, "reason_1"].iloc[0].split()[1], regex=False)
    pd.testing.assert_frame_equal(now, theirs.assign(reason_1=told))
    assert shop.project.with_name("rows.csv").read_bytes() == rows
    assert "yours" in ran.out or "归您所有" in ran.out
    assert (here / "out" / "other.html").read_bytes() == before[here / "out" / "other.html"]
    assert not (here / "out" / "page.html").exists()
    checked = check_ledger("book")
    assert not checked.faults
    assert checked.counts["erased"] == 1


def test_other_formats_lose_the_row_and_nothing_else(shop: Shop, here: Path, cli: Run) -> None:
    expected = without(shop, here / "run" / "s.parquet")[["customer_id", "tier_code", "churn_risk"]]
    assert cli(*forget(shop)).code == 0
    for found in (
        pd.read_csv("out/keep.csv").rename(columns={"客户": "customer_id"}),
        pd.read_excel("out/keep.xlsx", engine="openpyxl"),
        pd.read_csv("out/crm.zip"),
    ):
        pd.testing.assert_frame_equal(found, expected, check_dtype=False)
    assert openpyxl.load_workbook("out/keep.xlsx").active.max_row == 40
    listed = json.loads(Path("out/keep.json").read_text(encoding="utf-8"))
    assert len(listed["customers"]) == 39
    assert listed["first"] is None
    assert listed["by"] == {"x": 2}
    digest = hashlib.sha256(Path("out/keep.csv").read_bytes()).hexdigest()
    assert json.loads(Path("out/manifest.json").read_text(encoding="utf-8")) == {"keep.csv": digest}


def test_who_was_erased_stays_out_until_that_is_revoked(shop: Shop, here: Path, cli: Run) -> None:
    assert cli(*forget(shop)).code == 0
    grade = ["score", shop.project, "--model", shop.bundle, "--ledger", "book", "--out", "run/next.parquet"]
    ran = cli(*grade, "--as-of", "2023-08-01")
    assert ran.code == 0, ran.err
    assert named_in(here, shop) == []
    assert len(pd.read_parquet("run/next.parquet")) == 39
    assert cli("ledger", "check", "book").code == 0
    again = cli(*grade, "--as-of", DAYS[0], "--regrade", "--reason", "from the start")
    assert again.code == 0, again.err
    assert not check_ledger("book").faults
    assert named_in(here, shop) == []

    assert cli(*forget(shop, "--revoke")).code == 0
    assert cli(*forget(shop, "--revoke")).code == 3
    assert cli(*grade, "--as-of", DAYS[1]).code == 0
    assert set(Ledger("book").history(shop.public)["event"]) == {"enter"}
    assert not check_ledger("book").faults


def test_the_same_command_again_changes_nothing(shop: Shop, here: Path, cli: Run) -> None:
    assert cli(*forget(shop)).code == 0
    first = contents(here)
    assert cli(*forget(shop)).code == 0
    assert contents(here) == first


def test_each_file_is_old_or_new_wherever_a_run_ends(
    shop: Shop, here: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    if shop.public != shop.customer:
        pytest.skip("the steps are those of plain ids")
    for name in ("keep.xlsx", "crm.zip", "other.html", "keep.json", "manifest.json"):
        (here / "out" / name).unlink()
    shutil.rmtree(here / "run")
    old = tmp_path_factory.mktemp("old") / "here"
    new, work = old.with_name("new"), old.with_name("work")
    for folder in (old, new, work):
        shutil.copytree(here, folder, ignore=shutil.ignore_patterns("rows.csv"))
    words = ["forget", shop.project, shop.customer, "--ledger", "book", "--in", "out", "--json"]
    run_in(new, *words)
    before, after, steps, states = contents(old / "out"), contents(new / "out"), 0, set()
    for failed in failing_everywhere(work, words, KILL):
        steps += 1
        for name, content in before.items():
            path = work / "out" / name
            assert (path.read_bytes() if path.exists() else None) in (content, after.get(name)), (failed, name)
        history = Ledger(work / "book").history()
        states.add(shop.public in set(history["customer_id"]))
        assert history["customer_id"].nunique() == 40 - (shop.public not in set(history["customer_id"]))
        if steps % 9 == 0:
            assert not check_ledger(work / "book").faults, failed
            run_in(work, *words)
            assert named_in(work, shop) == []
        shutil.rmtree(work)
        shutil.copytree(old, work)
    assert states == {True, False}
    assert steps > 20


def test_what_would_do_harm_is_refused(shop: Shop, here: Path, cli: Run) -> None:
    before = contents(here)
    nobody = cli("forget", shop.project, "nobody", "--ledger", "book", "--in", "run")
    assert nobody.code == 3
    assert "nobody" in nobody.err
    sources = cli(*forget(shop, "--in", shop.project.parent))
    assert sources.code == 2
    assert "rows.csv" in sources.err
    assert cli(*forget(shop, "--in", "nowhere")).code == 2
    assert contents(here) == before


def test_what_is_left_is_named(shop: Shop, here: Path, cli: Run) -> None:
    (here / "run" / "notes.txt").write_text(f"call {shop.public}", encoding="utf-8")
    ran = cli(*forget(shop))
    assert ran.code == 9
    assert "notes.txt" in ran.err


def test_a_short_number_is_looked_for_in_columns_of_ids_only(trained: TrainedWorld) -> None:
    person = person_of(trained.project, "12")
    rows = pa.record_batch({
        "customer_id": pa.array([12, 112, 3]), "net_amount": pa.array(["12", "12", "7"]),
        "reason_1": pa.array(["spent 12", "spent 12", "x"]),
    })  # fmt: skip
    assert rows_without(rows, person).to_pylist() == [
        {"customer_id": 112, "net_amount": "12", "reason_1": "spent 12"},
        {"customer_id": 3, "net_amount": "7", "reason_1": "x"},
    ]
