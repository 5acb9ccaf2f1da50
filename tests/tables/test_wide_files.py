"""Hold a CSV of very many columns, of which only the mapped ones are copied, to the same table as Parquet."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from commands import Run
from tiermodel import open_history
from tiermodel.config.project import Project, load_project
from tiermodel.errors import ProjectError
from tiermodel.tables.readers import csv_file

OTHERS = 600


def wide(rows: int = 40) -> pd.DataFrame:
    """Return rows with 600 columns that nobody maps, of which the last holds addresses of mail."""
    table: dict[str, Any] = {
        "who": [f"c{n % 7}" for n in range(rows)],
        "at": [f"2024-01-{1 + n % 28:02d}" for n in range(rows)],
        "Paid": [f"{n}.50" for n in range(rows)],
        "net": ["0.50"] * rows,
    }
    table |= {f"x{k}": [f"{n * k % 10}" for n in range(rows)] for k in range(OTHERS)}
    table["note"] = [f"person{n}@example.com" for n in range(rows)]
    return pd.DataFrame(table)


def project_of(folder: Path, path: str | list[str], **more: Any) -> Path:
    columns = {"customer_id": "who", "time": "at", "amount": "paid - net"}  # the file says Paid
    data = {"transactions": {"path": path, "columns": columns} | more, "max_bad_share": 0.5}
    file = folder / "wide.yaml"
    file.write_text(yaml.safe_dump({"version": 1, "name": "wide", "data": data}), encoding="utf-8")
    return file


def open_columns(file: Path) -> list[tuple[Any, ...]]:
    history = open_history(load_project(file))
    return history.connection.execute(f"DESCRIBE {history.tables['transactions'].source.view}").fetchall()


def rows_of(project: Project) -> list[tuple[Any, ...]]:
    history = open_history(project)
    select = f"SELECT customer_id, day, amount FROM ({history.rows_sql}) ORDER BY ALL"
    return history.connection.execute(select).fetchall()


def test_rows_are_those_of_the_same_table_as_parquet(tmp_path: Path) -> None:
    table = wide()
    table.to_csv(tmp_path / "rows.csv", index=False)
    table.to_parquet(tmp_path / "rows.parquet")
    found = [
        rows_of(load_project(project_of(tmp_path, f"rows.{kind}", where="x1 <> '3'"))) for kind in ("csv", "parquet")
    ]
    assert found[0] == found[1]
    assert len(found[0]) == 36


def test_only_what_the_project_names_is_copied(tmp_path: Path) -> None:
    wide().to_csv(tmp_path / "rows.csv", index=False)
    history = open_history(load_project(project_of(tmp_path, "rows.csv", where="x1 <> '3'")))
    source = history.tables["transactions"].source
    names = {name for name, *_ in history.connection.execute(f"DESCRIBE {source.view}").fetchall()}
    assert names == {"who", "at", "Paid", "net", "x1", "_file", "_row", "_tm_whole_row"}


def test_names_with_quotes_and_spaces_are_found(tmp_path: Path) -> None:
    table = wide().rename(columns={"who": 'the "who"', "x1": 'x "1', "x2": "fields", "x3": "day of x"})
    table.to_csv(tmp_path / "rows.csv", index=False)
    columns = {"customer_id": 'the "who"', "time": "at", "amount": "paid - net", "order_id": 'fields || "x ""1"'}
    file = project_of(tmp_path, "rows.csv", columns=columns)
    source = open_history(load_project(file)).tables["transactions"].source
    found = [name for name, *_ in open_columns(file)]
    assert found[:5] == ['the "who"', "at", "Paid", "net", 'x "1']
    assert "fields" in found
    assert "day of x" not in found
    assert len(source.columns) == 605


def test_rows_are_duplicates_only_where_every_column_is_equal(tmp_path: Path, cli: Run) -> None:
    table = wide(20)
    again = table.head(5).copy()
    again.loc[0, "x599"] = "other"  # a column that nothing maps
    table.to_csv(tmp_path / "a.csv", index=False)
    again[again.columns[::-1]].to_csv(tmp_path / "b.csv", index=False)  # columns in another order
    done = cli("check", project_of(tmp_path, ["a.csv", "b.csv"]))
    assert "25 read = 21 used + 4 deduplicated" in done.out


def test_rows_cut_wrongly_are_told_with_their_lines(tmp_path: Path) -> None:
    table = wide(12)
    table.loc[2, "x5"] = "two\nlines"
    table.loc[4, "x5"] = 'a "word"'
    table.to_csv(tmp_path / "rows.csv", index=False, quoting=csv.QUOTE_MINIMAL)
    lines = (tmp_path / "rows.csv").read_text().split("\n")
    lines[8] = lines[8].replace(",0,", ',0"x,', 1)  # a quote within a field that is not quoted
    lines[9] = lines[9].replace(",0,", ",\0,", 1)
    lines[10] += ",one,more"
    (tmp_path / "rows.csv").write_text("\n".join(lines))
    source = open_history(load_project(project_of(tmp_path, "rows.csv"))).tables["transactions"].source
    assert [(record.line, record.rule) for record in source.rejected] == [
        (9, "stray_quote"),
        (10, "nul_byte"),
        (11, "field_extra"),
    ]
    assert source.line(source.files[0], 4) == 6  # after the record of two lines


def test_columns_that_nobody_maps_are_searched_for_personal_data(tmp_path: Path, cli: Run) -> None:
    wide().to_csv(tmp_path / "rows.csv", index=False)
    said = cli("check", project_of(tmp_path, "rows.csv")).out
    assert "transactions.note looks like e-mail addresses (100% of 40 values sampled)" in said


def test_an_unknown_column_is_told_with_some_of_those_there_are(tmp_path: Path) -> None:
    wide().to_csv(tmp_path / "rows.csv", index=False)
    with pytest.raises(ProjectError, match=r"there is no column 'paidd'; did you mean 'Paid'\?.* and 505 more"):
        open_history(load_project(project_of(tmp_path, "rows.csv", where="paidd > 1")))


def test_narrow_files_are_copied_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_file, "_WIDE", 10_000)
    wide().to_csv(tmp_path / "rows.csv", index=False)
    source = open_history(load_project(project_of(tmp_path, "rows.csv"))).tables["transactions"].source
    assert source.head is None
