"""Rules as SQL, executed: the scheme's tier for every row, on DuckDB, PostgreSQL, MariaDB and Spark's grammar."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlglot

from mariadb import Mariadb, installed, mariadb
from postgres import binaries, postgres
from schemes_made import FRAME, LEARNED, SHARE, WINDOWS, assert_equal_to_scheme, probes, tiers_in_duckdb
from tiermodel.errors import ProjectError
from tiermodel.tiers.explain.sql import scheme_sql
from tiermodel.tiers.fitted_scheme import FittedScheme, fit_scheme
from tiermodel.tiers.learned.score import LEARNERS
from tiermodel.tiers.schemes.load import load_preset, parse_scheme, preset_names

VETO: dict[str, Any] = {
    **SHARE,
    "code": "veto",
    "veto": [{"name_zh": "否", "name_en": "no", "highest": "mid", "when": [{"feature": "gap_days_mean", "above": 30}]}],
}
SCHEMES = {name: load_preset(name, WINDOWS) for name in preset_names()}
SCHEMES |= {"veto": parse_scheme(VETO, "test", WINDOWS), "tree": parse_scheme(LEARNED, "test", WINDOWS)}
SCHEMES |= {name: parse_scheme({**LEARNED, "learner": name}, "test", WINDOWS) for name in LEARNERS}


@cache
def fitted_as(name: str) -> FittedScheme:
    return fit_scheme(SCHEMES[name], FRAME, FRAME, 7)


@pytest.mark.parametrize("name", SCHEMES)
def test_duckdb_gives_every_row_the_tier_of_the_scheme(name: str) -> None:
    fitted = fitted_as(name)
    frame = probes(fitted, 5_000)
    assert_equal_to_scheme(tiers_in_duckdb(fitted, frame), fitted, frame)


@pytest.mark.parametrize("name", ["learned", "rfm", "rfm_score", "five_levels", "pyramid"])
def test_a_hundred_thousand_rows_give_no_mismatch(name: str) -> None:
    fitted = fitted_as(name)
    frame = probes(fitted, 100_000)
    assert_equal_to_scheme(tiers_in_duckdb(fitted, frame), fitted, frame)


@pytest.mark.parametrize("name", ["kaism", "five_levels", "learned"])
def test_a_feature_file_read_in_place_gives_every_row_the_tier_of_the_scheme(name: str, tmp_path: Path) -> None:
    fitted = fitted_as(name)  # Parquet keeps bounds of a column, without its NaN, by which DuckDB answers comparisons
    frame = FRAME.assign(customer_id=[f"p{i:06d}" for i in range(len(FRAME))])
    assert frame["days_since_last"].isna().any()
    columns = {n: pa.array(frame[n].to_numpy(), from_pandas=frame[n].dtype != np.float64) for n in frame}
    pq.write_table(pa.table(columns), tmp_path / "features.parquet")
    with duckdb.connect() as connection:
        connection.execute(f"CREATE VIEW features AS SELECT * FROM '{tmp_path / 'features.parquet'}'")
        assert_equal_to_scheme(connection.sql(scheme_sql(fitted)).df(), fitted, frame)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    if binaries() is None:
        pytest.skip("PostgreSQL is not installed")
    with postgres() as address:
        yield address


def test_postgresql_gives_every_row_the_tier_of_the_scheme(server: str) -> None:
    import adbc_driver_postgresql.dbapi as adbc  # noqa: PLC0415

    with adbc.connect(server) as connection, connection.cursor() as cursor:
        for name in SCHEMES:
            fitted = fitted_as(name)
            frame = probes(fitted, 100_000 if name == "learned" else 4_000)
            table = pa.Table.from_pandas(frame, preserve_index=False)
            # NaN as NaN, as other writers leave it
            spend = pa.array(frame["net_amount_365d"].to_numpy(), from_pandas=False)
            table = table.set_column(table.column_names.index("net_amount_365d"), "net_amount_365d", spend)
            cursor.adbc_ingest("features", table, mode="replace")
            connection.commit()
            cursor.execute(scheme_sql(fitted, "postgres"))
            assert_equal_to_scheme(cursor.fetch_arrow_table().to_pandas(), fitted, frame)


@pytest.fixture(scope="module")
def mysql() -> Iterator[Mariadb]:
    """Run the MySQL that Debian has: MariaDB."""
    if not installed():
        pytest.skip("MariaDB is not installed")
    with mariadb() as server:
        yield server


def tiers_in_mysql(server: Mariadb, fitted: FittedScheme, frame: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """Run the rules over a table of the rows, whose missing values are NULL, since MySQL knows no NaN."""
    texts = set(fitted.scheme.text_features) & set(frame.columns)
    kinds = {name: "VARCHAR(80)" if name in {"customer_id", *texts} else "DOUBLE" for name in frame.columns}
    kinds["as_of"] = "DATE"
    written = frame.assign(as_of=frame["as_of"].dt.strftime("%Y-%m-%d"))
    file = folder / "rows.tsv"
    lines = [
        "\t".join("\\N" if pd.isna(cell) else str(cell) for cell in row) for row in written.itertuples(index=False)
    ]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    columns = ", ".join(f"`{name}` {kind}" for name, kind in kinds.items())
    rows = server.run(
        f"DROP TABLE IF EXISTS features; CREATE TABLE features ({columns}) CHARACTER SET utf8mb4;"
        f"LOAD DATA LOCAL INFILE '{file}' INTO TABLE features CHARACTER SET utf8mb4;"
        f"{scheme_sql(fitted, 'mysql')}"
    )
    found = pd.DataFrame(rows, columns=["customer_id", "as_of", "tier", "tier_code"])
    return found.assign(tier=found["tier"].astype(int))


def finite(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with the largest numbers in place of infinite ones, which MySQL does not know."""
    return frame.replace({np.inf: 1e300, -np.inf: -1e300})


@pytest.mark.parametrize("name", SCHEMES)
def test_mysql_gives_every_row_the_tier_of_the_scheme(name: str, mysql: Mariadb, tmp_path: Path) -> None:
    fitted = fitted_as(name)
    frame = finite(probes(fitted, 2_000))
    assert_equal_to_scheme(tiers_in_mysql(mysql, fitted, frame, tmp_path), fitted, frame)


def test_mysql_tells_zero_from_nothing_and_texts_by_case(mysql: Mariadb, tmp_path: Path) -> None:
    strata = {"by": "region", "at_least": 50}
    data = {**SHARE, "code": "by_region", "strata": strata}
    regions = np.array(["华东", "Retail", "retail"])[np.arange(len(FRAME)) % 3]
    spend = FRAME["net_amount_365d"] * np.where(regions == "retail", 50.0, np.where(regions == "华东", 3.0, 1.0))
    frame = FRAME.assign(attribute_region=pd.Series(regions, dtype="str"), net_amount_365d=spend)
    fitted = fit_scheme(parse_scheme(data, "test", WINDOWS), frame, frame, 7)
    assert set(fitted.strata) == {"华东", "Retail", "retail"}
    odd = frame.assign(customer_id=[f"p{n:06d}" for n in range(len(frame))])
    odd.loc[::5, "net_amount_365d"] = 0.0
    odd.loc[1::5, "net_amount_365d"] = np.nan
    odd.loc[2::7, "attribute_region"] = None
    assert_equal_to_scheme(tiers_in_mysql(mysql, fitted, odd, tmp_path), fitted, odd)


@pytest.mark.parametrize("name", SCHEMES)
def test_spark_reads_what_is_written_for_it(name: str) -> None:
    text = scheme_sql(fitted_as(name), "spark", "graded.features")
    assert sqlglot.parse_one(text, read="spark").sql("spark") == sqlglot.transpile(text, read="spark", write="spark")[0]
    assert '"' not in text


def test_names_are_quoted_and_what_cannot_be_written_is_refused() -> None:
    assert 'FROM "my schema"."feature table"' in scheme_sql(fitted_as("pyramid"), table="my schema.feature table")
    with pytest.raises(ProjectError, match="dialect 'oracle': rules are written for duckdb, postgres, spark, mysql"):
        scheme_sql(fitted_as("pyramid"), "oracle")
    assert json.dumps(fitted_as("kaism").to_dict())
