"""Spark gives, to the bit, what DuckDB gives, however the work is cut; accounts and quarantine are the same too."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from histories import MAPPED, as_dates, random_histories, same_bits
from panels_made import DAYS, HISTORIES, OTHERS, as_file_rows, file_project, write_other_tables
from tiermodel.cli.main import main
from tiermodel.config.data import Survey
from tiermodel.config.project import Project
from tiermodel.engines import spark
from tiermodel.engines.dispatch import open_history
from tiermodel.errors import DataError, ProjectError, TooManyBadRowsError
from tiermodel.features.export import write_features
from tiermodel.features.panel import Tally, build_panel
from tiermodel.ledger.ledger import Ledger
from tiermodel.ledger.rows import table_of
from tiermodel.monitoring.outcomes import outcomes
from tiermodel.predict import score
from tiermodel.tables.history import History
from worlds import TrainedWorld, with_capacity

# a session of seconds: no page about it, no time spent on compiling well
QUICK_TO_START = (
    "--driver-java-options '-XX:TieredStopAtLevel=1 -XX:+UseSerialGC' --conf spark.ui.enabled=false "
    "--conf spark.sql.codegen.wholeStage=false --conf spark.sql.codegen.factoryMode=NO_CODEGEN"
)
JAVA = shutil.which("java") or os.environ.get("JAVA_HOME")

CUSTOM = [
    {
        "name": "thirds",
        "name_zh": "三分之一",
        "name_en": "thirds",
        "measure": "CASE WHEN amount > 5 THEN amount / 3 END",
    },
    {"name": "busy", "name_zh": "忙", "name_en": "busy", "table": "events", "measure": "length(kind)"},
    {"name": "both", "name_zh": "两者", "name_en": "both", "formula": "sqrt(thirds_90d) / busy_90d * 0.1"},
]


@pytest.fixture(scope="module")
def session() -> Iterator[Any]:
    """Start one session on two cores, on the loopback interface only, with splits and partitions of a few rows."""
    if not JAVA:
        pytest.skip("Spark needs Java, which is not on this machine")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYSPARK_SUBMIT_ARGS", f"--master local[2] {QUICK_TO_START} pyspark-shell")
        patch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
        patch.setenv("PYSPARK_PYTHON", sys.executable)
        patch.setattr(spark, "SPLIT_ROWS", 1500)
        patch.setattr(spark, "PARTITION_ROWS", 50)
        patch.setattr(spark, "PACK_BYTES", 1 << 15)
        started = spark.session()
        assert spark.session() is started
        yield started
        started.stop()


@pytest.fixture
def parts(session: Any) -> Callable[[int], None]:
    """Set the number of partitions."""
    return lambda number: session.conf.set("spark.sql.shuffle.partitions", number)


def on_spark(project: Project) -> Project:
    return project.model_copy(update={"data": project.data.model_copy(update={"engine": "spark"})})


Panel = tuple[pa.Table, dict[str, Any]]


def panel_of(project: Project, dates: tuple[date, ...], history: History | None = None) -> Panel:
    """Build a panel with its outcome, and give the accounts too."""
    tally = Tally()
    panel = build_panel(project, dates, with_outcome=True, history=history, tally=tally)
    return pa.Table.from_pandas(panel, preserve_index=False), tally.accounts


def assert_same(here: Panel, there: Panel) -> None:
    assert same_bits(here[0], there[0])
    assert here[1] == there[1]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Make a shop of every table: duplicates, bad rows, refusals, and one customer with half of the transactions."""
    folder = tmp_path_factory.mktemp("shop")
    rows = as_file_rows(HISTORIES)
    rows["arrived"] = rows["time"] + pd.to_timedelta([7 * (n % 5) for n in range(len(rows))], unit="D")
    heavy = rows[rows["customer_id"] == rows["customer_id"].value_counts().index[0]]
    copies = [heavy.assign(time=heavy["time"] + pd.Timedelta(minutes=n)) for n in range(1, 1 + len(rows) // len(heavy))]
    bad = rows.head(5).assign(amount=float("nan"))
    every = pd.concat([rows, *copies, bad, rows.head(7)])
    every.sample(frac=1, random_state=1).to_parquet(folder / "rows.parquet", row_group_size=150)
    write_other_tables(folder)
    customers = pd.read_csv(folder / "customers.csv", dtype=str)
    customers["no_contact"] = ["yes" if n % 9 == 0 else "no" for n in range(len(customers))]
    customers["industry"] = [("制造", " 金融 ", "", "café")[n % 4] for n in range(len(customers))]
    customers.to_csv(folder / "customers.csv", index=False)
    events = pd.read_csv(folder / "events.csv", dtype=str)
    events.loc[:3, "time"] = "soon"
    events.to_csv(folder / "events.csv", index=False)
    project = file_project(folder / "rows.parquet")
    assert project.data.customers is not None
    columns = project.data.customers.columns.model_copy(update={"opt_out": "no_contact"})
    table = project.data.customers.model_copy(update={"columns": columns, "categories": {"industry": "industry"}})
    late = project.data.transactions.columns.model_copy(update={"ingested_at": "arrived"})
    tables = {"customers": table, "transactions": project.data.transactions.model_copy(update={"columns": late})}
    project = project.model_copy(update={"data": project.data.model_copy(update=tables)})
    return Project.model_validate(
        {**project.model_dump(), "features": {**project.features.model_dump(), "custom": CUSTOM}}
    )


@pytest.fixture(scope="module")
def opened(shop: Project, session: Any) -> History:
    """Read the shop's tables on Spark once: that does not depend on the number of partitions."""
    assert session
    return open_history(on_spark(shop))


@pytest.fixture(scope="module")
def wanted(shop: Project, compiled: None) -> Panel:  # noqa: ARG001  compiled before
    """Build the shop's panel on DuckDB."""
    return panel_of(shop, as_dates(DAYS))


@pytest.mark.parametrize("number", [1, 2, 7])
def test_features_of_every_table_are_the_same_bits(
    shop: Project, opened: History, wanted: Panel, parts: Callable[[int], None], number: int
) -> None:
    parts(number)
    found = panel_of(on_spark(shop), as_dates(DAYS), opened)
    assert_same(wanted, found)
    accounts = found[1]
    sales = accounts["transactions"]
    assert min(sales.deduplicated, sales.filtered) > 0
    assert (sales.quarantined, accounts["events"].quarantined) == (5, 4)
    assert "opted out" in sales.warnings[-1]
    assert set(accounts) == {"transactions", *OTHERS}
    assert len(found[0]["both"].unique()) > 15
    assert set(found[0]["attribute_industry"].to_pylist()) == {"制造", "金融", None, "café"}


@pytest.mark.parametrize(("seed", "hashed"), [(1, None), (2, "TIERMODEL_TEST_KEY")])
def test_random_histories_with_whole_ids_and_rows_to_come(
    tmp_path: Path, parts: Callable[[int], None], monkeypatch: pytest.MonkeyPatch, seed: int, hashed: str | None
) -> None:
    parts(3 + seed)
    monkeypatch.setenv("TIERMODEL_TEST_KEY", "k" * 32)  # of this process; the tasks have it from the pass
    rows = as_file_rows(random_histories(seed, customers=24))
    ids = rows["customer_id"].str[2:].astype(int) * (-1) ** rows["customer_id"].str[2:].astype(int)
    for n in range(2):  # and files in folders that hold a column
        (tmp_path / f"shard={n}").mkdir()
        part = rows.assign(customer_id=ids).iloc[n::2]
        part.to_parquet(tmp_path / f"shard={n}" / "rows.parquet", row_group_size=60)
    project = file_project(tmp_path / "shard=*" / "*.parquet")
    project = project.model_copy(update={"data": project.data.model_copy(update={"hash_ids": hashed})})
    found = panel_of(on_spark(project), as_dates(DAYS[:2]))
    assert_same(panel_of(project, as_dates(DAYS[:2])), found)
    assert found[1]["transactions"].out_of_window > 0


def test_duplicates_that_are_kept_and_a_frame_in_memory(parts: Callable[[int], None]) -> None:
    parts(2)
    rows = as_file_rows(HISTORIES).head(300)
    transactions = {"duplicates": "keep", "columns": {name: name for name in MAPPED}}
    project = Project.model_validate({"version": 1, "name": "t", "data": {"transactions": transactions}})
    tables = []
    for one in (project, on_spark(project)):
        history = open_history(one, transactions=pd.concat([rows, rows.head(50)]))
        tables.append(pa.Table.from_pandas(build_panel(one, as_dates(DAYS[-1:]), history=history)))
    assert same_bits(*tables)


def test_scores_and_their_quarantine_are_the_same(
    trained: TrainedWorld, tmp_path: Path, parts: Callable[[int], None]
) -> None:
    parts(3)
    rows = pd.read_parquet(str(trained.project.data.transactions.path)).astype({"amount": str})
    bad = rows.head(4).assign(amount=["abc", "", "1e400", "=1+1"])
    pd.concat([bad, rows, rows.head(9)]).to_csv(tmp_path / "rows.csv", index=False)
    table = trained.project.data.transactions.model_copy(update={"path": str(tmp_path / "rows.csv")})
    project = trained.project.model_copy(
        update={"data": trained.project.data.model_copy(update={"transactions": table})}
    )
    here = score(project, trained.bundle, "2023-10-01", tmp_path / "duckdb.parquet")
    there = score(on_spark(project), trained.bundle, "2023-10-01", tmp_path / "spark.parquet")
    assert here == there
    assert (here.accounts["transactions"].quarantined, here.accounts["transactions"].deduplicated) == (4, 9)
    assert same_bits(pq.read_table(tmp_path / "duckdb.parquet"), pq.read_table(tmp_path / "spark.parquet"))
    beside = [(tmp_path / f"{name}.quarantine.csv").read_bytes() for name in ("duckdb", "spark")]
    assert beside[0] == beside[1]


def test_the_command_line_on_spark(
    trained: TrainedWorld,
    tmp_path: Path,
    parts: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    parts(2)
    settings = on_spark(trained.project).model_dump(mode="json", exclude={"folder"}, exclude_none=True)
    (tmp_path / "shop.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    words = ("features", "shop.yaml", "--as-of", "latest", "--out", "features.parquet")
    monkeypatch.setattr(sys, "argv", ["tiermodel", *words])
    try:
        main()
    except SystemExit as stop:
        assert stop.code in {None, 0}  # noqa: PT017
    assert "rows in features.parquet" in capsys.readouterr().out
    write_features(trained.project, "latest", tmp_path / "duckdb.parquet")
    assert same_bits(pq.read_table("features.parquet"), pq.read_table("duckdb.parquet"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["duckdb.parquet", "features.parquet", "shop.yaml"]


# refusals


def test_faults_in_a_task_are_ours(shop: Project, tmp_path: Path, session: Any) -> None:
    assert session
    table = shop.data.transactions.model_copy(update={"where": "amount < 0 or amount = 'nan'"})
    strict = shop.data.model_copy(update={"transactions": table, "max_bad_share": 0.0})
    with pytest.raises(TooManyBadRowsError, match="break the contract"):
        open_history(on_spark(shop.model_copy(update={"data": strict})))
    big = [{"customer_id": 1, "time": date(2020, 1, n), "amount": 9e11} for n in range(1, 29)] * 40
    pq.write_table(pa.Table.from_pylist(big), tmp_path / "rows.parquet")
    columns = {name: name for name in ("customer_id", "time", "amount")}
    transactions = {"path": str(tmp_path / "rows.parquet"), "columns": columns, "duplicates": "keep"}
    data = {"engine": "spark", "transactions": transactions}
    with pytest.raises(DataError, match=r"customer '1': amounts add up to .* more than 64 bits"):
        build_panel(Project.model_validate({"version": 1, "name": "t", "data": data}), [date(2021, 1, 1)])


def test_an_executor_that_does_not_see_a_file_or_has_another_version_says_so(shop: Project) -> None:
    part = open_history(shop).tables["transactions"].source.parts[0]
    with pytest.raises(DataError, match=r"does not see /nowhere.*TMPDIR"):
        spark._refuse_unseen(replace(part, path="/nowhere"))
    with pytest.raises(ProjectError, match=r"executor has duckdb .*, the driver 0\.1: install the same"):
        spark._refuse_other_versions({"duckdb": "0.1"})


def test_without_java_or_pyspark_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyspark")
    from pyspark.sql import SparkSession  # noqa: PLC0415

    monkeypatch.setattr(SparkSession, "getActiveSession", classmethod(lambda _: None))
    monkeypatch.setenv("JAVA_HOME", "/nowhere")
    with pytest.raises(ProjectError, match="needs Java 17"):
        spark.session()
    monkeypatch.setitem(sys.modules, "pyspark.sql", None)
    with pytest.raises(ProjectError, match=r"pip install 'tiermodel\[spark\]'"):
        spark.session()


def test_a_ledger_on_spark_is_that_on_duckdb(
    trained: TrainedWorld, parts: Callable[[int], None], tmp_path: Path
) -> None:
    parts(3)
    days, capped = (date(2023, 9, 1), date(2023, 11, 1)), with_capacity(trained.trained.bundle, {"major": 7})
    for name, project in (("here", trained.project), ("there", on_spark(trained.project))):
        history = open_history(project)
        for day in days:
            done = score(project, capped, day, tmp_path / "s.parquet", ledger=tmp_path / name, history=history)
            assert done.tiers["major"] == 7
    for day in days:
        one, other = (pq.read_table(tmp_path / name / f"{day}.parquet") for name in ("here", "there"))
        assert one.num_rows > 0
        assert one.equals(other)


def test_outcomes_on_spark_are_those_on_duckdb(shop: Project, parts: Callable[[int], None], tmp_path: Path) -> None:
    """An answer that is there twice, in parts of the file that different tasks read, counts once."""
    parts(3)
    assert shop.data.events is not None
    asked, people = pd.read_csv(str(shop.data.events.path), dtype=str), list(HISTORIES)
    first = as_dates(DAYS[1:2])[0]
    score = [str(n % 7) for n in range(len(people))]
    answers = pd.DataFrame({"customer_id": people, "time": str(first), "kind": "survey", "value": score})
    pd.concat([answers, *[asked] * 6, answers]).to_csv(tmp_path / "events.csv", index=False)
    events = shop.data.events.model_copy(update={"surveys": {"csat": Survey()}, "path": str(tmp_path / "events.csv")})
    project = shop.model_copy(update={"data": shop.data.model_copy(update={"events": events})})
    level = [n % 2 for n in range(len(people))]
    tiers = pd.DataFrame(
        {"customer_id": people, "event": "enter", "tier": level, "tier_code": ["ab"[n] for n in level]}
    )
    Ledger(tmp_path / "ledger").append(first, table_of(tiers.assign(stable_code="a", model_code="a")))
    names = {"here": project, "there": on_spark(project)}
    done = {name: outcomes(each, tmp_path / "ledger", tmp_path / f"{name}.csv") for name, each in names.items()}
    assert (tmp_path / "here.csv").read_bytes() == (tmp_path / "there.csv").read_bytes()
    assert json.dumps(done["here"].to_dict()) == json.dumps(done["there"].to_dict())
    told = pd.read_csv(tmp_path / "here.csv")
    assert 5 < told["csat_n"].sum() < len(people)
    assert done["here"].not_counted[0]["off_scale"] > 0
