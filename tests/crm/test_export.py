"""Exports as a user makes them: what is in the files, what changed since the last, and what is refused."""

from __future__ import annotations

import csv
import errno
import io
import json
import re
import zipfile
from hashlib import sha256
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from commands import Run
from failpoints import failing
from tiermodel import export
from tiermodel.config.packaged import packaged
from tiermodel.config.project import Features
from tiermodel.crm.manifest import Manifest
from tiermodel.crm.mapping import load_mapping
from tiermodel.errors import DataError, OutputError, ProjectError
from tiermodel.predict import score
from tiermodel.tiers.schemes.load import load_preset
from worlds import TrainedWorld

SHIPPED = sorted(packaged("mappings").glob("*.yaml"))
PICKLIST = {"type": "picklist", "column": "tier_code"}
MAPPING: dict[str, Any] = {
    "version": 1,
    "name": "sales",
    "to": "zoho",
    "audience": "sales",
    "module": "Accounts",
    "key": "Number",
    "fields": {
        "Number": {"column": "customer_id", "length": 20},
        "Tier": {
            "type": "picklist",
            "column": "tier_code",
            "options": ["A", "B"],
            "values": {"major": "A", "small": "B"},
        },
        "Graded": {"type": "date", "column": "as_of", "compare": False},
        "Reason": {"column": "reason_1", "length": 12},
        "Weight": {"type": "number", "decimals": 1, "column": "priority_weight"},
    },
    "priority": {"levels": {"major": 8, "small": 1}, "factor": "1 + coalesce(churn_risk, 0)"},
}


def scores(folder: Path, name: str = "scores.parquet", **changes: object) -> Path:
    """Write three customers with a text to make harmless, a text to cut, a text to quote, and a risk not known."""
    columns: dict[str, object] = {
        "customer_id": ["c2", "c1", "c3"],
        "as_of": ["2024-01-31"] * 3,
        "tier_code": ["small", "major", "small"],
        "reason_1": ["=1+1", "far too long to fit", 'a, "b"\nc'],
        "churn_risk": [0.25, 0.5, None],
        "phone": ["555-0001", "555-0002", "555-0003"],
        "model_version": ["shop-0123456789ab"] * 3,
    }
    frame = pd.DataFrame(columns | changes)
    path = folder / name
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path, index=False)
    return path


def mapping(folder: Path, file: str = "mapping.yaml", fields: dict[str, Any] | None = None, **changes: Any) -> Path:
    settings = {**MAPPING, **changes, "fields": {**MAPPING["fields"], **(fields or {})}}
    write_yaml(folder / file, settings)
    return folder / file


def write_yaml(path: Path, settings: dict[str, Any]) -> None:
    settings = {key: value for key, value in settings.items() if value is not None}
    path.write_text(yaml.safe_dump(settings, allow_unicode=True, sort_keys=False), encoding="utf-8")


def rows(file: Path) -> list[list[str]]:
    content = file.read_bytes()
    if file.suffix == ".zip":
        with zipfile.ZipFile(file) as archive:
            (name,) = archive.namelist()
            content = archive.read(name)
    return list(csv.reader(io.StringIO(content.decode("utf-8"))))


def everything(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_only_mapped_columns_leave_typed_harmless_and_in_order(tmp_path: Path, ending: str) -> None:
    done = export(scores(tmp_path, f"scores.{ending}"), mapping(tmp_path), tmp_path / "out", to="zoho")
    assert [file.name for file in done.files] == ["accounts_0001.zip"]
    assert rows(tmp_path / "out" / "accounts_0001.zip") == [
        ["Number", "Tier", "Graded", "Reason", "Weight"],
        ["c1", "A", "2024-01-31", "far too lon…", "12.0"],
        ["c2", "B", "2024-01-31", "'=1+1", "1.3"],
        ["c3", "B", "2024-01-31", 'a, "b" c', "1.0"],
    ]
    assert not any(b"555-" in content for content in everything(tmp_path / "out").values())


def test_the_manifest_tells_what_is_there(tmp_path: Path) -> None:
    given, out = scores(tmp_path), tmp_path / "out"
    done = export(given, mapping(tmp_path), out)
    assert Manifest.model_validate_json((out / "manifest.json").read_bytes()) == done
    assert (done.project, done.mapping, done.audience, done.as_of) == ("shop", "sales", "sales", "2024-01-31")
    assert (done.customers, done.new, done.written, done.gone) == (3, 3, 3, 0)
    assert done.scores_sha256 == sha256(given.read_bytes()).hexdigest()
    (file,) = done.files
    content = (out / file.name).read_bytes()
    assert (file.rows, file.bytes, file.sha256) == (3, len(content), sha256(content).hexdigest())
    assert str(tmp_path) not in (out / "manifest.json").read_text(encoding="utf-8")


def test_the_same_customers_give_the_same_bytes_in_any_order(tmp_path: Path) -> None:
    given, chosen = scores(tmp_path), mapping(tmp_path)
    export(given, chosen, tmp_path / "one")
    first = everything(tmp_path / "one")
    export(given, chosen, tmp_path / "one")
    assert everything(tmp_path / "one") == first
    shuffled = pd.read_parquet(given).iloc[::-1]
    shuffled.to_parquet(tmp_path / "turned.parquet", index=False)
    export(tmp_path / "turned.parquet", chosen, tmp_path / "two")
    second = everything(tmp_path / "two")
    assert {name for name in first if first[name] != second[name]} == {"manifest.json"}  # the digest of the scores


def test_only_what_changed_is_written_and_who_is_gone_is_told(tmp_path: Path) -> None:
    chosen = mapping(tmp_path)
    export(scores(tmp_path), chosen, tmp_path / "one")
    later = scores(
        tmp_path, "later.parquet", customer_id=["c1", "c2", "=c4"], as_of=["2024-02-29"] * 3,
        tier_code=["small", "small", "major"], reason_1=["far too long to fit", "=1+1", "x"], churn_risk=[0.5, 0.25, 0],
    )  # fmt: skip
    done = export(later, chosen, tmp_path / "two", since=tmp_path / "one")
    assert (done.customers, done.new, done.changed, done.unchanged, done.gone) == (3, 1, 1, 1, 1)
    assert [row[0] for row in rows(tmp_path / "two" / "accounts_0001.zip")] == ["Number", "'=c4", "c1"]
    assert rows(tmp_path / "two" / "gone.csv") == [["Number"], ["c3"]]
    assert done.since == sha256((tmp_path / "one" / "manifest.json").read_bytes()).hexdigest()

    again = export(later, chosen, tmp_path / "three", since=tmp_path / "two")
    assert (again.written, again.unchanged, again.files, again.gone_file) == (0, 3, [], None)
    assert sorted(everything(tmp_path / "three")) == ["customers.parquet", "manifest.json"]

    other = mapping(tmp_path, fields={"Reason": {"column": "reason_1", "length": 200}})
    full = export(later, other, tmp_path / "four", since=tmp_path / "three")
    assert (full.everything, full.written, full.changed) == (True, 3, 1)


def test_files_stay_within_rows_and_bytes(tmp_path: Path) -> None:
    ids = [f"c{number:05}" for number in range(25_001)]
    wide = {"customer_id": ids, "tier_code": ["small"] * len(ids), "note": ["客" * 400] * len(ids)}
    pd.DataFrame(wide).to_parquet(tmp_path / "many.parquet", index=False)
    fields = {"Number": {"column": "customer_id"}}
    short = {**MAPPING, "fields": fields, "priority": None}
    (tmp_path / "short.yaml").write_text(
        yaml.safe_dump({k: v for k, v in short.items() if v}, sort_keys=False), encoding="utf-8"
    )
    done = export(tmp_path / "many.parquet", tmp_path / "short.yaml", tmp_path / "short")
    assert [file.rows for file in done.files] == [25_000, 1]
    short["fields"] = {**fields, "Note": {"column": "note"}}
    (tmp_path / "long.yaml").write_text(
        yaml.safe_dump({k: v for k, v in short.items() if v}, sort_keys=False), encoding="utf-8"
    )
    done = export(tmp_path / "many.parquet", tmp_path / "long.yaml", tmp_path / "long")
    assert sum(file.rows for file in done.files) == len(ids)
    assert len(done.files) == 2
    found = []
    for file in done.files:
        with zipfile.ZipFile(tmp_path / "long" / file.name) as archive:
            (entry,) = archive.infolist()
            assert entry.file_size <= 25_000_000
            assert entry.date_time == (1980, 1, 1, 0, 0, 0)
        found += rows(tmp_path / "long" / file.name)[1:]
    assert [row[0] for row in found] == ids


def test_fxiaoke_gets_its_own_labels_with_a_byte_order_mark(tmp_path: Path, cli: Run) -> None:
    fields = {"客户编号": {"column": "customer_id"}, "级别": MAPPING["fields"]["Tier"]}
    settings = {**MAPPING, "to": "fxiaoke", "key": "客户编号", "fields": fields, "rows_per_file": 2, "language": "zh"}
    write_yaml(tmp_path / "m.yaml", settings | {"priority": None})
    scores(tmp_path)
    ran = cli(
        "export",
        tmp_path / "scores.parquet",
        "--to",
        "fxiaoke",
        "--mapping",
        tmp_path / "m.yaml",
        "--out",
        tmp_path / "o",
    )
    assert ran.code == 0, ran.err
    assert "导出 3 位客户，供sales使用" in ran.out
    assert (tmp_path / "o" / "accounts_0001.csv").read_bytes() == "\ufeff客户编号,级别\nc1,A\nc2,B\n".encode()
    assert (tmp_path / "o" / "accounts_0002.csv").read_bytes() == "\ufeff客户编号,级别\nc3,B\n".encode()


@pytest.mark.parametrize(
    ("changes", "error", "told"),
    [
        ({"fields": {"Tier": {**MAPPING["fields"]["Tier"], "values": {"major": "A"}}}}, ProjectError,
         "fields.Tier.values lacks the levels small of the column tier_code; add small: OPTION"),
        ({"priority": {"levels": {"major": 8}}}, ProjectError, "priority.levels lacks small; add small: WEIGHT"),
        ({"fields": {"Phone": {"column": "fone"}}}, ProjectError, "no column 'fone'; did you mean phone?"),
        ({"fields": {"Phone": {"column": "phone", "type": "number"}}}, ProjectError, "fields.Phone.column: 'phone' is"),
        ({"fields": {"Phone": {"column": "phone", "type": "date"}}}, DataError, "is no date: '555-0002'"),
        ({"priority": {"levels": {"major": 8, "small": 1}, "factor": "churn_risk"}}, DataError,
         "priority.factor 'churn_risk' is missing, negative or infinite for 1 customers, such as 'c3'"),
        ({"priority": None}, ProjectError, "has no column 'priority_weight'; add priority: {levels: …}"),
        ({"fields": {"Number": {"column": "customer_id", "length": 1}}}, DataError, "longer than 1 characters"),
        ({"fields": {"客户": {"column": "phone"}}}, ProjectError, "fields.客户: Zoho wants the API name"),
        ({"fields": {"Tier": {"type": "picklist", "column": "tier_code", "options": ["A", "B"],
                              "values": {"major": "A", "small": "C"}}}}, ProjectError, "no option 'C' in options"),
        ({"fields": {"Tier": {"type": "picklist", "column": "tier_code"}}}, ProjectError, "needs the options"),
        ({"fields": {"Tier": {**PICKLIST, "options": ["=A"]}}}, ProjectError, "'=A' begins"),
        ({"fields": {"Phone": {"column": "phone", "decimals": 2}}}, ProjectError, "decimals: belongs to type: number"),
        ({"key": "Numbre"}, ProjectError, "key: there is no field 'Numbre' in fields; did you mean Number?"),
        ({"key": "Reason"}, ProjectError, "the key is text, column customer_id; got reason_1"),
        ({"rows_per_file": 25_001}, ProjectError, "rows_per_file: zoho takes 25000 rows a file at most"),
        ({"to": "fxiaoke"}, ProjectError, "rows_per_file: this key is required for fxiaoke"),
        ({"fields": {f"F{n}": {"column": "phone"} for n in range(200)}}, ProjectError, "205 fields, and zoho"),
        ({"project": "bank"}, ProjectError, "the mapping is for bank, and"),
        ({"audience": None}, ProjectError, "audience: this key is required"),
        ({"secret": 1}, ProjectError, "secret: unknown key"),
    ],
)  # fmt: skip
def test_a_mapping_that_does_not_fit_is_told_with_its_key_and_nothing_is_written(
    tmp_path: Path, changes: dict[str, Any], error: type[Exception], told: str
) -> None:
    with pytest.raises(error) as raised:
        export(scores(tmp_path), mapping(tmp_path, **changes), tmp_path / "out")
    assert told in str(raised.value)
    assert (
        "mapping.yaml" in str(raised.value)
        or "scores.parquet" in str(raised.value)
        or "priority" in told
        or "fields" in told
    )
    assert not (tmp_path / "out").exists()


def test_a_level_that_no_customer_has_today_must_be_mapped_too(tmp_path: Path) -> None:
    chances: dict[str, Any] = {f"p_{code}": [0.1, 0.1, 0.1] for code in ("major", "small", "regular")}
    with pytest.raises(ProjectError, match=r"fields\.Tier\.values lacks the levels regular"):
        export(scores(tmp_path, **chances), mapping(tmp_path), tmp_path / "out")


def test_keys_that_become_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"fields\.Number is the same for the customers 'c1' and 'c1 '"):
        export(scores(tmp_path, customer_id=["c1", "c1 ", "c3"]), mapping(tmp_path), tmp_path / "out")


def test_other_folders_are_refused_and_left_as_they_are(tmp_path: Path, cli: Run) -> None:
    given, chosen, one = scores(tmp_path), mapping(tmp_path), tmp_path / "one"
    bank = scores(tmp_path, "bank.parquet", model_version=["bank-0123456789ab"] * 3)
    export(given, chosen, one)
    before = everything(one)

    def refused(file: Path, used: Path, *words: object) -> tuple[int, str]:
        ran = cli("export", file, "--to", "zoho", "--mapping", used, *words)
        assert "Traceback" not in ran.err
        return ran.code, ran.err

    new = tmp_path / "new"
    code, said = refused(bank, chosen, "--out", new, "--since", one)
    assert (code, "is an export of the project shop, and this one is of bank" in said) == (2, True)
    code, said = refused(bank, chosen, "--out", one)
    assert (code, "is an export of the project shop" in said) == (2, True)
    other = mapping(tmp_path, "other.yaml", name="service")
    code, said = refused(given, other, "--out", new, "--since", one)
    assert (code, "of the mapping sales, and this one is of service" in said) == (2, True)
    code, said = refused(given, chosen, "--out", new, "--since", tmp_path / "none")
    assert (code, "is no export" in said) == (2, True)
    code, said = refused(given, chosen, "--out", tmp_path)
    assert (code, "is the current folder, or holds it" in said) == (2, True)
    code, said = refused(given, chosen, "--out", one, "--since", one)
    assert (code, "the export that --since names" in said) == (2, True)
    earlier = scores(tmp_path, "earlier.parquet", as_of=["2023-01-31"] * 3)
    code, said = refused(earlier, chosen, "--out", new, "--since", one)
    assert (code, "later than those given (2023-01-31)" in said) == (3, True)
    ran = cli("export", given, "--to", "csv", "--mapping", chosen, "--out", new)
    assert (ran.code, "give --to zoho" in ran.err) == (2, True)
    assert everything(one) == before
    (one / "customers.parquet").write_bytes(b"changed")
    code, said = refused(given, chosen, "--out", new, "--since", one)
    assert (code, "customers.parquet is missing, or not what manifest.json says" in said) == (3, True)
    (one / "note.txt").write_text("mine", encoding="utf-8")
    code, said = refused(given, chosen, "--out", one)
    assert (code, "holds what is no export" in said) == (2, True)
    assert not new.exists()


@pytest.mark.parametrize("step", range(1, 14))
def test_a_full_disk_leaves_the_export_before(tmp_path: Path, step: int) -> None:
    chosen, out = mapping(tmp_path), tmp_path / "out"
    export(scores(tmp_path), chosen, out)
    before = everything(out)
    later = scores(tmp_path, "later.parquet", reason_1=["x", "y", "z"])
    with failing(step, errno.ENOSPC) as taken:
        try:
            export(later, chosen, out)
        except OutputError:
            assert everything(out) == before
        else:
            assert len(taken) < step or everything(out) != before
    assert not [path.name for path in tmp_path.iterdir() if path.name.endswith(".tmp")]


def test_json_has_the_manifest(tmp_path: Path, cli: Run) -> None:
    given, chosen = scores(tmp_path), mapping(tmp_path)
    ran = cli("export", given, "--to", "zoho", "--mapping", chosen, "--out", tmp_path / "o", "--json")
    told = json.loads(ran.out)
    assert told.pop("out") == str(tmp_path / "o")
    assert told == json.loads((tmp_path / "o" / "manifest.json").read_bytes())


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_mappings_that_ship_take_real_scores_of_the_preset_they_are_for(
    path: Path, trained: TrainedWorld, tmp_path: Path
) -> None:
    out = tmp_path / "scores.parquet"
    score(trained.project, trained.bundle, "2023-12-31", out)
    done, read = export(out, path, tmp_path / "export"), load_mapping(path)
    given = pd.read_parquet(out)
    assert read.name == path.stem
    assert (done.project, done.written) == (trained.project.name, len(given))
    written = [row for file in done.files for row in rows(tmp_path / "export" / file.name)[1:]]
    assert [row[0] for row in written] == sorted(given["customer_id"])
    if read.priority is not None:
        assert set(read.priority.levels) == set(load_preset("pyramid", Features().windows_days).codes)
        place = list(read.fields).index(
            next(name for name, field in read.fields.items() if field.column == "priority_weight")
        )
        risk = given.sort_values("customer_id").set_index("customer_id")
        expected = risk["tier_code"].astype(str).map(read.priority.levels).astype(float) * (
            1 + risk["churn_risk"].fillna(0)
        )
        assert [float(row[place]) for row in written] == pytest.approx(expected.tolist(), abs=0.0051)


def test_the_files_that_ship_are_in_the_wheel() -> None:
    settings = Path(__file__).parents[2] / "pyproject.toml"
    assert '"configs/mappings" = "tiermodel/_data/mappings"' in settings.read_text(encoding="utf-8")
    assert {path.stem for path in SHIPPED} >= {"zoho_accounts", "fxiaoke_customers", "csv_service"}


def test_an_example_that_does_not_fit_says_how_to_copy_it(tmp_path: Path, cli: Run) -> None:
    given = scores(tmp_path, tier_code=["gold", "gold", "silver"])
    ran = cli("export", given, "--to", "zoho", "--mapping", "zoho_accounts", "--out", tmp_path / "new")
    assert ran.code == 2
    assert "zoho_accounts: priority.levels lacks gold, silver; add gold: WEIGHT" in ran.err
    said = r"cp (\S+zoho_accounts\.yaml) \. and fit the copy; then --mapping zoho_accounts\.yaml"
    (copied,) = re.findall(said, ran.err)
    assert Path(copied).is_file()
