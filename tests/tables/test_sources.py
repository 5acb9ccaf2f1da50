"""Hold every source to the same rows: text files, workbooks, partitions, databases, and Python's own frames."""

from __future__ import annotations

import gzip
import io
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import openpyxl
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from adbc_driver_postgresql import dbapi

from commands import Run
from servers import PASSWORD, postgresql
from tiermodel import check, open_history, score, train
from tiermodel.config.project import Project, load_project
from tiermodel.errors import DataError, OutputError, ProjectError, TierModelError
from tiermodel.features.export import write_features
from tiermodel.features.panel import build_panel
from worlds import TrainedWorld

BIG = 9_007_199_254_740_993  # 2^53 + 1, which no double holds
ROWS = [  # member, paid, amount, city
    ("00123", "2024-01-31", "12.50", "北京"),
    ("123", "2024-02-01", "-3", "São Paulo"),
    ("00123", "2024-02-29", "0.1", "北京"),
]
LATIN = [(member, paid, amount, "São Paulo") for member, paid, amount, _ in ROWS]
HEADER = ("会员", "paid", "amount", "city")
COLUMNS = {"customer_id": "会员", "time": "paid", "amount": "amount", "category": "city"}


def write_project(folder: Path, **table: Any) -> Path:
    """Write a project file as a user would, with the table's place beside the columns."""
    zone = table.pop("timezone", "UTC")
    table = {"columns": COLUMNS, **table}
    data = {"max_bad_share": table.pop("max_bad_share", 0.05), "transactions": table}
    project = {"version": 1, "name": "shop", "timezone": zone, "data": data}
    file = folder / "shop.yaml"
    file.write_text(yaml.safe_dump(project, allow_unicode=True), encoding="utf-8")
    return file


def stream(project: Project, **frames: Any) -> list[dict[str, Any]]:
    history = open_history(project, **frames)
    history.account.with_stream(
        deduplicated=0, out_of_window=0, used=history.account.read - history.account.quarantined
    ).check()
    cursor = history.connection.execute(f"SELECT * FROM ({history.rows_sql}) ORDER BY ALL")
    names = [column[0] for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def plain(rows: list[dict[str, Any]]) -> list[tuple[str, date, float]]:
    return sorted((str(r["customer_id"]), date.fromordinal(719_163 + r["day"]), r["amount"] / 10_000) for r in rows)


WANTED = sorted((member, date.fromisoformat(paid), float(amount)) for member, paid, amount, _ in ROWS)


def text(rows: Sequence[tuple[str, ...]], header: tuple[str, ...] = HEADER, delimiter: str = ",") -> str:
    return "\n".join(delimiter.join(row) for row in (header, *rows)) + "\n"


@pytest.mark.parametrize(
    ("name", "encoding", "declared"),
    [
        ("a.csv", "utf-8", "utf-8"),
        ("a.csv", "utf-8-sig", "utf-8"),
        ("a.csv", "gb18030", "gb18030"),
        ("a.csv", "gb18030", "GBK"),
        ("a.csv", "utf-16", "utf-16"),
        ("a.csv", "utf-16-le", "utf-16-le"),
        ("a.csv.gz", "utf-8", "utf-8"),
        ("a.csv.gz", "gb18030", "gb18030"),
        ("a.tsv", "utf-8", "utf-8"),
        ("a.tsv.gz", "utf-16", "utf-16"),
    ],
)
def test_text_files_read_the_same_in_every_encoding_and_packing(
    tmp_path: Path, name: str, encoding: str, declared: str
) -> None:
    rows = [tuple("Taipei" if declared == "GBK" and cell == "São Paulo" else cell for cell in row) for row in ROWS]
    content = text(rows, delimiter="\t" if ".tsv" in name else ",").encode(encoding)
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    found = stream(load_project(write_project(tmp_path, path=name, encoding=declared)))
    assert plain(found) == WANTED
    assert len({row["category_key"] for row in found}) == 2


def test_latin_1_reads_the_same_and_is_never_guessed(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(text(LATIN, ("member", *HEADER[1:])).encode("latin-1"))
    columns = {**COLUMNS, "customer_id": "member"}
    file = write_project(tmp_path, path="a.csv", columns=columns, encoding="latin-1")
    assert plain(stream(load_project(file))) == WANTED
    with pytest.raises(DataError, match=r"TM1201 .*line 2, byte offset 48, e3.*data\.transactions\.encoding"):
        open_history(load_project(write_project(tmp_path, path="a.csv", columns=columns)))


def test_the_encoding_to_set_is_that_of_the_table_at_fault(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(text(ROWS), encoding="utf-8")
    (tmp_path / "costs.csv").write_bytes("会员,day,cost\nA,2024-01-31,1\n".encode("gb18030"))
    settings = yaml.safe_load(write_project(tmp_path, path="a.csv").read_text(encoding="utf-8"))
    costs = {"path": "costs.csv", "columns": {"customer_id": "会员", "time": "day", "amount": "cost"}}
    settings["data"]["costs"] = costs
    with pytest.raises(DataError, match=r"costs.csv is not UTF-8.*Set data\.costs\.encoding"):
        open_history(Project.model_validate({**settings, "folder": tmp_path}))
    costs["encoding"] = "gb18030"
    assert len(stream(Project.model_validate({**settings, "folder": tmp_path}))) == 4


@pytest.mark.parametrize("cut", [b"\xbb", b"\xbb\xa7,2024-01-31,1\n\xff"])
def test_a_file_not_in_its_declared_encoding_is_refused_at_the_byte(tmp_path: Path, cut: bytes) -> None:
    content = text(ROWS).encode("gb18030") + cut
    (tmp_path / "a.csv").write_bytes(content)
    project = load_project(write_project(tmp_path, path="a.csv", encoding="gb18030"))
    place = len(content) - 1
    with pytest.raises(DataError, match=rf"TM1201 .*line {4 + content.count(bytes([10])) - 3}, byte offset {place}, "):
        open_history(project)


# workbooks


def workbook(path: Path, rows: list[list[Any]], header: tuple[Any, ...] = HEADER) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    for row in (header, *rows):
        sheet.append(list(row))
    book.save(path)


def test_a_workbook_reads_the_same_whatever_its_cells_hold(tmp_path: Path) -> None:
    rows: list[list[Any]] = [
        ["00123", datetime(2024, 1, 31, 9, 30), "12.50", "北京"],  # noqa: DTZ001 a sheet has wall times
        [None, None, None, None],
        [123, "2024-02-01", -3, "São Paulo"],
        ["00123", date(2024, 2, 29), 0.1, "北京"],
        ["A", date(2024, 2, 29), "abc", None],
        ["A", date(2024, 2, 29), "=1/0", None],
    ]
    workbook(tmp_path / "a.xlsx", rows)
    history = open_history(load_project(write_project(tmp_path, path="a.xlsx", max_bad_share=0.9)))
    assert next((row, rule, value) for _, row, rule, _, _, value, _ in history.bad_rows()) == (
        6,
        "amount_unparsable",
        "abc",
    )
    assert history.account.quarantined == 2
    assert f"{tmp_path}/a.xlsx: skipped 1 blank rows" in history.account.warnings
    found = stream(load_project(write_project(tmp_path, path="a.xlsx", max_bad_share=0.9)))
    assert plain(found) == WANTED


def test_lines_of_one_cell_above_the_names_of_a_workbook_are_titles(tmp_path: Path) -> None:
    head: list[list[Any]] = [["Receipts", None, None, None], [None] * 4, list(HEADER)]
    rows = [["00123", date(2024, 1, 31), 12.5, "A"], ["00123", date(2024, 2, 1), "abc", "A"]]
    workbook(tmp_path / "a.xlsx", [*head, *rows], ("Shop 1", "", "", ""))
    history = open_history(load_project(write_project(tmp_path, path="a.xlsx", max_bad_share=0.9)))
    assert next((row, value) for _, row, _, _, _, value, _ in history.bad_rows()) == (6, "abc")
    assert f"{tmp_path}/a.xlsx: ignored the titles above the names of columns: 'Shop 1', 'Receipts'" in (
        history.account.warnings
    )


def test_whole_numbers_of_a_workbook_are_ids_and_those_beyond_its_precision_are_not(tmp_path: Path) -> None:
    columns = {"customer_id": "id", "time": "paid", "amount": "amount"}
    rows = [[13085, date(2024, 1, 31), 1.5], [13085, date(2024, 1, 31), 2], [str(BIG), date(2024, 1, 31), 2]]
    workbook(tmp_path / "a.xlsx", rows, ("id", "paid", "amount"))
    assert {
        r["customer_id"] for r in stream(load_project(write_project(tmp_path, path="a.xlsx", columns=columns)))
    } == {
        "13085",
        str(BIG),
    }
    workbook(tmp_path / "a.xlsx", [*rows[:2], [float(BIG), date(2024, 1, 31), 2]], ("id", "paid", "amount"))
    project = load_project(write_project(tmp_path, path="a.xlsx", columns=columns, max_bad_share=0.5))
    assert [row["customer_id"] for row in stream(project)] == [13085, 13085]
    assert [rule for _, _, rule, *_ in open_history(project).bad_rows()] == ["customer_id_not_integral"]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (("会员", "", "amount", "city"), "TM1306 .*column 2 has no name"),
        (("会员", "paid", "paid", "x"), "TM1306 .*two"),
    ],
)
def test_a_workbook_needs_a_name_for_every_column_in_use(tmp_path: Path, header: tuple[Any, ...], message: str) -> None:
    workbook(tmp_path / "a.xlsx", [["1", "2024-01-31", 1, "x"]], header)
    with pytest.raises(DataError, match=message):
        open_history(load_project(write_project(tmp_path, path="a.xlsx")))
    workbook(tmp_path / "a.xlsx", [["1", "2024-01-31", 1, "x", None]], (*HEADER, None))
    assert len(stream(load_project(write_project(tmp_path, path="a.xlsx")))) == 1


# partitioned Parquet


def test_hive_partitions_are_columns_to_map(tmp_path: Path) -> None:
    frame = pd.DataFrame(ROWS, columns=list(HEADER)).assign(amount=lambda f: f["amount"].astype(float))
    frame["year"], frame["code"] = frame["paid"].str[:4], ["007", "7", "007"]
    pq.write_to_dataset(pa.Table.from_pandas(frame), tmp_path / "sales", partition_cols=["year", "code"])
    columns = {**COLUMNS, "category": "code"}
    file = write_project(tmp_path, path="sales", columns=columns, where="year = '2024' AND code <> '8'")
    found = stream(load_project(file))
    assert plain(found) == WANTED
    assert len({row["category_key"] for row in found}) == 2  # 007 is not 7
    with pytest.raises(DataError, match="where leaves none of 3 rows"):
        open_history(load_project(write_project(tmp_path, path="sales", columns=columns, where="year > 2024")))


def test_files_with_names_are_joined_by_a_query(tmp_path: Path) -> None:
    (tmp_path / "sales.csv").write_text(text([row[:3] for row in ROWS], HEADER[:3]), encoding="utf-8")
    pq.write_table(pa.table({"member": ["00123", "123"], "city": ["北京", "x"]}), tmp_path / "members.parquet")
    query = 'SELECT s.*, m.city FROM sales s LEFT JOIN members m ON s."会员" = m.member'
    place = {"path": {"sales": "sales.csv", "members": "members.parquet"}, "query": query}
    found = stream(load_project(write_project(tmp_path, **place)))
    assert plain(found) == WANTED
    assert len({row["category_key"] for row in found}) == 2
    with pytest.raises(ProjectError, match=r"data\.transactions\.query: .*It may use: members, sales"):
        open_history(load_project(write_project(tmp_path, **{**place, "query": "SELECT * FROM sale"})))


@pytest.mark.parametrize(
    "source",
    [
        "read_text('{secret}')",
        "read_csv('{secret}')",
        "'{secret}'",
        "(FROM sales WHERE EXISTS (FROM read_blob('{secret}')))",
        "glob('{folder}/*')",
        "read_csv('http://127.0.0.1:9/x.csv')",
        "read_parquet('s3://bucket/x.parquet')",
        "sqlite_scan('{folder}/shop.db', 'sales')",
        "sniff_csv('{secret}')",
        "query('SELECT * FROM read_text(''{secret}'')')",
    ],
)
def test_a_query_reads_its_files_and_nothing_else(tmp_path: Path, source: str) -> None:
    (tmp_path / "sales.csv").write_text(text([row[:3] for row in ROWS], HEADER[:3]), encoding="utf-8")
    secret = tmp_path / "secret.csv"
    secret.write_text("会员,paid,amount\nKANARIENVOGEL,2024-01-01,1\n", encoding="utf-8")
    query = f"SELECT * FROM {source.format(secret=secret, folder=tmp_path)}"
    place = {"path": {"sales": "sales.csv"}, "query": query}
    with pytest.raises(ProjectError, match=r"data\.transactions\.query") as refused:
        open_history(load_project(write_project(tmp_path, **place)))
    assert "sales" in str(refused.value)
    assert "KANARIENVOGEL" not in str(refused.value)


@pytest.mark.parametrize("statement", ["ATTACH 'x.db'", "INSTALL httpfs", "COPY sales TO 'x.csv'", "SET threads = 1"])
def test_a_query_is_a_select(tmp_path: Path, statement: str) -> None:
    (tmp_path / "sales.csv").write_text(text([row[:3] for row in ROWS], HEADER[:3]), encoding="utf-8")
    place = {"path": {"sales": "sales.csv"}, "query": statement}
    with pytest.raises(ProjectError, match="give one SELECT"):
        open_history(load_project(write_project(tmp_path, **place)))
    assert not (tmp_path / "x.csv").exists()


def test_a_query_without_an_end_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tiermodel.tables.readers.joined.MOST_SECONDS", 0.2)
    (tmp_path / "sales.csv").write_text(text([row[:3] for row in ROWS], HEADER[:3]), encoding="utf-8")
    query = "WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n) SELECT s.* FROM sales s, n"
    place = {"path": {"sales": "sales.csv"}, "query": query}
    with pytest.raises(ProjectError, match=r"takes more than 0\.2 seconds and was stopped"):
        open_history(load_project(write_project(tmp_path, **place)))


# Python's own frames


def frames() -> Iterator[Any]:
    frame = pd.DataFrame(ROWS, columns=list(HEADER)).assign(
        paid=lambda f: pd.to_datetime(f["paid"]), amount=lambda f: f["amount"].astype(float)
    )
    table = pa.Table.from_pandas(frame, preserve_index=False)
    yield frame
    yield frame.set_index(pd.MultiIndex.from_arrays([[1, 1, 2], ["x", "y", "z"]], names=["会员", "b"]))
    yield frame.astype({"会员": "string", "city": "category"})
    yield frame.convert_dtypes(dtype_backend="pyarrow")
    yield table
    yield table.set_column(3, "city", table["city"].dictionary_encode())
    yield pa.RecordBatchReader.from_batches(table.schema, table.to_batches(max_chunksize=1))


@pytest.mark.parametrize("frame", list(frames()), ids=lambda f: type(f).__name__)
def test_frames_and_arrow_objects_stand_in_for_files(frame: Any) -> None:
    project = Project.model_validate({"version": 1, "name": "shop", "data": {"transactions": {"columns": COLUMNS}}})
    assert plain(stream(project, transactions=frame)) == WANTED


@pytest.mark.parametrize(
    ("ids", "wanted"),
    [
        (pd.Series([13085.0, 12.0, None]), [12, 13085]),
        (pd.Series([BIG, BIG - 1, None], dtype="Int64"), [BIG - 1, BIG]),
        (pd.Series([BIG, BIG - 1, None], dtype=object), [BIG - 1, BIG]),
        (pd.Series([2**70, 1, None], dtype=object), ["1", str(2**70)]),
        (pd.Series([2**64 - 1, 1], dtype="uint64"), ["1", str(2**64 - 1)]),
        (pd.Series(["00123", "123", None]), ["00123", "123"]),
        (pd.Series([Decimal("13085.00"), Decimal(12), None]), [12, 13085]),
        (pa.chunked_array([pa.array([BIG, BIG - 1])]), [BIG - 1, BIG]),
    ],
)
def test_ids_of_frames_are_exact(ids: Any, wanted: list[Any]) -> None:
    columns = {"customer_id": "id", "time": "paid", "amount": "amount"}
    data = {"max_bad_share": 0.5, "transactions": {"columns": columns}}
    project = Project.model_validate({"version": 1, "name": "shop", "data": data})
    paid, amount = [date(2024, 1, 31)] * len(ids), [1.0] * len(ids)
    given = {"id": ids, "paid": paid, "amount": amount}
    frame = pa.table(given) if isinstance(ids, pa.ChunkedArray) else pd.DataFrame(given)
    assert [row["customer_id"] for row in stream(project, transactions=frame)] == wanted


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            ["A", "B", 3],
            "TM2056 transactions in memory: column '会员' mixes types: 'A' is str, but at position 2 9 is int",
        ),
        ([1, 2, "C"], "9 is int, but at position 2 'A' is str"),
        ([BIG, 1.5, None], "9999999999999999 is int, but at position 1 9.9 is float"),
        ([date(2024, 1, 1), "x", 1], "aaaaaaaa.aaaa.* is date, but at position 1 'a' is str"),
        ([[1], {2}, 3], r"\[9\] is list, but at position 1 \{9\} is set"),
    ],
)
def test_columns_of_mixed_types_are_refused_with_the_first_odd_value(values: list[Any], message: str) -> None:
    frame = pd.DataFrame(ROWS, columns=list(HEADER)).assign(会员=pd.Series(values, dtype=object))
    project = Project.model_validate({"version": 1, "name": "shop", "data": {"transactions": {"columns": COLUMNS}}})
    with pytest.raises(DataError, match=message):
        open_history(project, transactions=frame)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (pd.DataFrame({("a", "b"): [1]}), r"TM1306 .*column 1 has no name of text: \('a', 'b'\)"),
        (pd.DataFrame([[1, 2]], columns=["a", "A"]), "TM1306 .*two columns are named 'A'"),
        (pd.DataFrame([[1, 2]], columns=["a", "_row"]), "TM1306 .*reserved"),
        (pa.table({"会员": pa.nulls(2, pa.month_day_nano_interval())}), r"TM1101 .*convert columns \['会员'\]"),
        (pd.DataFrame(columns=list(HEADER)), "TM1002 transactions in memory: there are 0 rows"),
    ],
)
def test_frames_that_cannot_be_tables_are_refused(frame: Any, message: str) -> None:
    project = Project.model_validate({"version": 1, "name": "shop", "data": {"transactions": {"columns": COLUMNS}}})
    with pytest.raises(DataError, match=message):
        open_history(project, transactions=frame)
    with pytest.raises(ProjectError, match="'invoices' is no table that the project maps"):
        open_history(project, transactions=frame, invoices=frame)
    with pytest.raises(ProjectError, match=r"data\.transactions\.path: there is none; give a file, or hand the rows"):
        open_history(project)


@pytest.mark.usefixtures("quick")
def test_every_verb_takes_rows_from_memory_and_gives_what_files_give(trained: TrainedWorld, tmp_path: Path) -> None:
    files = trained.project
    table = files.data.transactions.model_copy(update={"path": None})
    project = files.model_copy(update={"data": files.data.model_copy(update={"transactions": table})})
    frame = pd.read_parquet(str(files.data.transactions.path))
    history = open_history(project, transactions=frame)

    of_files = check(files)
    kept = tuple(finding for finding in of_files.findings if finding.code != "no_checksums")  # memory has none to miss
    assert len(of_files.findings) == len(kept) + 1
    assert check(project, history=history).to_dict() == replace(of_files, findings=kept).to_dict()
    dates = [date(2023, 6, 30), date(2023, 9, 30)]
    pd.testing.assert_frame_equal(build_panel(project, dates, history=history), build_panel(files, dates))
    write_features(project, dates, tmp_path / "features.parquet", history=history)
    write_features(files, dates, tmp_path / "same.parquet")
    written = pd.read_parquet(tmp_path / "features.parquet")
    pd.testing.assert_frame_equal(written, pd.read_parquet(tmp_path / "same.parquet"))
    one, other = train(project, history=history).out_of_fold, train(files).out_of_fold
    assert set(one) == set(trained.trained.out_of_fold)
    for target, found in one.items():
        pd.testing.assert_frame_equal(found, other[target])
    score(project, trained.bundle, "latest", tmp_path / "scores.csv", history=history)
    score(files, trained.bundle, "latest", tmp_path / "same.csv")
    assert (tmp_path / "scores.csv").read_bytes() == (tmp_path / "same.csv").read_bytes()


# databases


def test_sqlite_reads_the_same_with_cells_of_any_type(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "shop.db")) as database:
        database.execute("CREATE TABLE sales (member, paid, amount, city, big INTEGER, mixed)")
        extra = [(BIG, "x"), (BIG - 1, 2), (None, 2.5)]
        rows = [(*row, *more) for row, more in zip(ROWS, extra, strict=True)]
        database.executemany("INSERT INTO sales VALUES (?, ?, ?, ?, ?, ?)", rows)
        database.commit()
    query = 'SELECT member AS "会员", paid, amount, city, big, mixed FROM sales -- all'
    place = {"path": "sqlite:///shop.db", "query": query}
    assert plain(stream(load_project(write_project(tmp_path, **place)))) == WANTED
    columns = {**COLUMNS, "customer_id": "big"}
    found = stream(load_project(write_project(tmp_path, **place, columns=columns, max_bad_share=0.5)))
    assert [row["customer_id"] for row in found] == [BIG - 1, BIG]
    file = write_project(tmp_path, **place, columns={**COLUMNS, "amount": "amount * 2"})
    assert sum(row["amount"] for row in stream(load_project(file))) == 192_000


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"path": "sqlite:///none.db"}, DataError, r"TM1004 data\.transactions\.path: .*none.db does not exist"),
        ({"path": "sqlite:///text.db"}, DataError, "TM1006 .*text.db is not an SQLite database"),
        ({"query": "SELECT * FROM nowhere"}, ProjectError, r"data\.transactions\.query: SQLite refuses.*no such table"),
        ({"query": "DELETE FROM sales"}, ProjectError, r"data\.transactions\.query: SQLite refuses it"),
        ({"query": "SELECT 1 AS paid WHERE false"}, ProjectError, "TM1307"),
    ],
)
def test_what_sqlite_refuses_is_said(
    tmp_path: Path, change: dict[str, str], error: type[TierModelError], message: str
) -> None:
    (tmp_path / "text.db").write_text("no database, but long enough to be looked at by its first hundred bytes" * 3)
    with closing(sqlite3.connect(tmp_path / "shop.db")) as database:
        database.execute("CREATE TABLE sales (member)")
    place = {"path": "sqlite:///shop.db", "query": "SELECT * FROM sales", **change}
    with pytest.raises(error, match=message):
        open_history(load_project(write_project(tmp_path, **place)))


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgresql() as url:
        with dbapi.connect(url) as database, database.cursor() as cursor:
            cursor.execute(
                'CREATE TABLE sales ("会员" text, paid timestamptz, amount numeric(12, 2), city text, big bigint)'
            )
            for place, (member, paid, amount, city) in enumerate(ROWS):
                values = f"'{member}', '{paid} 12:00:00+08', {amount}, '{city}', {BIG - place % 2}"
                cursor.execute(f"INSERT INTO sales VALUES ({values})")
            cursor.execute(
                "CREATE TABLE many AS SELECT 'C' || n % 50000 AS id, timestamp '2024-01-01' "
                "+ n % 300 * interval '1 day' AS paid, n % 1000 / 10.0::float8 AS amount, "
                "repeat(md5(n::text), 16) AS note "
                "FROM generate_series(1, 250000) AS n"
            )
            database.commit()
        yield url


def test_postgresql_reads_the_same(server: str, tmp_path: Path) -> None:
    place = {"path": server, "query": "SELECT * FROM sales -- all", "timezone": "Asia/Shanghai"}
    assert plain(stream(load_project(write_project(tmp_path, **place)))) == WANTED
    file = write_project(tmp_path, **place, columns={**COLUMNS, "customer_id": "big", "amount": "amount * 2"})
    found = stream(load_project(file))
    assert [row["customer_id"] for row in found] == [BIG - 1, BIG, BIG]
    assert sum(row["amount"] for row in found) == 192_000


def test_a_query_of_postgresql_is_a_source_for_the_command_line(server: str, tmp_path: Path, cli: Run) -> None:
    write_project(tmp_path, path=server, query="SELECT * FROM sales", timezone="Asia/Shanghai")
    done = cli("features", "shop.yaml", "--as-of", "2024-03-01", "--out", "features.csv")
    assert done.code == 0, done.err
    assert "transactions: 3 read = 3 used" in done.err
    assert '"00123"' in (tmp_path / "features.csv").read_text()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ((PASSWORD, f"{PASSWORD}-not"), OutputError, "does not let us in: password authentication failed"),
        (("/postgres", "/nowhere"), OutputError, 'does not let us in: database "nowhere" does not exist'),
        (("SELECT", "SELEKT"), ProjectError, r"data\.transactions\.query: .* refuses it: syntax error"),
        (("SELECT * FROM sales", "DELETE FROM sales"), ProjectError, "refuses it: cannot execute DELETE"),
        (("SELECT *", "SELECT amount / 0 AS amount"), ProjectError, "refuses it: division by zero"),
        (("SELECT *", "SELECT city, *"), DataError, "TM1306 .*two columns are named 'city'"),
    ],
)
def test_what_postgresql_refuses_is_said_without_the_password(
    server: str, tmp_path: Path, cli: Run, change: tuple[str, str], error: type[TierModelError], message: str
) -> None:
    place = {"path": server, "query": "SELECT * FROM sales"}
    write_project(tmp_path, **{key: value.replace(*change) for key, value in place.items()})
    done = cli("check", "shop.yaml")
    assert done.code == error.exit_code
    assert "Traceback" not in done.err
    assert PASSWORD not in done.err + done.out
    with pytest.raises(error, match=message):
        open_history(load_project(tmp_path / "shop.yaml"))


def test_no_message_repeats_the_password_of_a_url_that_cannot_be_read(tmp_path: Path, cli: Run) -> None:
    for place in (
        {"path": f"mysql://shop:{PASSWORD}@127.0.0.1/shop", "query": "SELECT 1"},
        {"path": f"postgresql://shop:{PASSWORD}@127.0.0.1/shop"},
        {"path": [f"postgresql://shop:{PASSWORD}@127.0.0.1/shop"], "query": "SELECT 1"},
        {"path": f"postgresql://shop:{PASSWORD}@127.0.0.1:port/shop", "query": "SELECT 1"},
        {"path": f"postgresql://shop:{PASSWORD}@[::1/shop", "query": "SELECT 1"},
    ):
        write_project(tmp_path, **place)
        done = cli("check", "shop.yaml")
        assert done.code in {2, 7}, done
        assert "Traceback" not in done.err
        assert PASSWORD not in done.err + done.out
    for path in (f"postgresql://shop:{PASSWORD}@host/shop", f"postgresql://host/shop?password={PASSWORD}&user=shop"):
        write_project(tmp_path, path=path, query="SELECT 1")
        shown = cli("show", "config", "shop.yaml").out
        assert '"postgresql://' in shown
        assert PASSWORD not in shown


STREAM = """
import resource, sys
from tiermodel import load_project, open_history
open_history(load_project(sys.argv[1]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
history = open_history(load_project(sys.argv[2]))
assert history.account.read == 250_000
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def sqlite_with_many(folder: Path) -> str:
    with closing(sqlite3.connect(folder / "many.db")) as database:
        database.execute(
            "CREATE TABLE many AS WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 250000) "
            "SELECT 'C' || n % 50000 AS id, date('2024-01-01', '+' || (n % 300) || ' days') AS paid, "
            "n % 1000 / 10.0 AS amount, hex(zeroblob(256)) || n AS note FROM r"
        )
        database.commit()
    return f"sqlite:///{folder}/many.db"


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_large_query_is_streamed(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    url = sqlite_with_many(tmp_path) if kind == "sqlite" else request.getfixturevalue("server")
    projects = []
    for name, limit in (("few", " LIMIT 1000"), ("many", "")):
        (tmp_path / name).mkdir()
        table = {
            "path": url,
            "query": f"SELECT id, paid, amount, note FROM many{limit}",
            "columns": {"customer_id": "id", "time": "paid", "amount": "amount"},
        }
        data = {"memory": "50MB", "transactions": table}
        file = tmp_path / name / "shop.yaml"
        file.write_text(yaml.safe_dump({"version": 1, "name": "shop", "data": data}))
        projects.append(str(file))
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", STREAM, *projects], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    # the rows are 130 MB, and twice that as Python's objects
    assert int(done.stdout) / 1024 < 120, f"{done.stdout} KiB more for 250,000 rows than for 1,000"


# standard input


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.parquet", "a.xlsx"])
def test_standard_input_gives_the_bytes_that_a_file_gives(
    name: str, tmp_path: Path, cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [*ROWS, *[("B", "2024-01-31", "1", "x")] * 30, ("B", "2024-02-30", "1", "x")]
    columns = dict(zip(HEADER, map(list, zip(*rows, strict=True)), strict=True))
    content = text(rows).encode()
    if name.endswith(".parquet"):
        pq.write_table(pa.table(columns), tmp_path / name)
    elif name.endswith(".xlsx"):
        workbook(tmp_path / name, [list(row) for row in rows])
    else:
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    write_project(tmp_path, path=name)
    assert cli("features", "shop.yaml", "--as-of", "2024-03-01", "--out", "file.parquet").code == 0
    write_project(tmp_path, path="-")
    stdin = io.TextIOWrapper(io.BytesIO((tmp_path / name).read_bytes()))
    monkeypatch.setattr(sys, "stdin", stdin)
    done = cli("features", "shop.yaml", "--as-of", "2024-03-01", "--out", "pipe.parquet")
    assert done.code == 0, done.err
    assert (tmp_path / "pipe.parquet").read_bytes() == (tmp_path / "file.parquet").read_bytes()
    quarantine = (tmp_path / "file.quarantine.csv").read_text().replace(f"{tmp_path}/{name}", "standard input")
    assert (tmp_path / "pipe.quarantine.csv").read_text() == quarantine
