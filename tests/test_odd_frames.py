"""Odd frames give the right result or a refusal in a sentence, never an error of pandas, Arrow or DuckDB."""

from __future__ import annotations

import uuid
from datetime import date, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import tiermodel as tm
from tiermodel.errors import DataError, ProjectError

DAY = date(2024, 3, 1)
WHEN = pd.to_datetime(["2024-01-01", "2024-01-02", "2024-02-01"])


class Thing:
    """A value that no table keeps."""


@pytest.fixture(scope="module")
def project() -> tm.Project:
    columns = {"customer_id": "id", "time": "when", "amount": "amount"}
    data = {"transactions": {"columns": columns}, "max_bad_share": 0.9}
    return tm.Project.model_validate({"version": 1, "name": "x", "data": data, "features": {"windows_days": [365]}})


def frame(**columns: Any) -> pd.DataFrame:
    return pd.DataFrame({"id": ["A", "B", "A"], "when": WHEN, "amount": [1.0, 2.0, 3.0], **columns})


def customers(project: tm.Project, rows: Any) -> dict[Any, float]:
    found = tm.build_panel(project, DAY, history=rows)
    return dict(zip(found["customer_id"], found["net_amount_365d"], strict=True))


TEXT, NUMBER = {"A": 4.0, "B": 2.0}, {"1": 4.0, "2": 2.0}
RIGHT: dict[str, tuple[pd.DataFrame, Any]] = {
    "index of several levels": (frame().set_index(pd.MultiIndex.from_tuples([(1, 2), (1, 3), (1, 2)])), TEXT),
    "index of the same name": (frame().set_index(pd.Index([7, 7, 7], name="id")), TEXT),
    "categories": (frame().astype({"id": "category", "amount": "category"}), TEXT),
    "nullable integers": (frame(id=pd.array([1, 2, 1], "Int64")), NUMBER),
    "nullable text": (frame(id=pd.array(["A", "B", "A"], "string")), TEXT),
    "Arrow's types": (frame().convert_dtypes(dtype_backend="pyarrow"), TEXT),
    "a time zone": (frame(when=WHEN.tz_localize("UTC")), TEXT),
    "bytes": (frame(id=[b"A", b"B", b"A"]), TEXT),
    "whole floats": (frame(id=[1.0, 2.0, 1.0]), NUMBER),
    "floats with NaN": (frame(id=[1.0, np.nan, 1.0]), {"1": 4}),
    "NA": (frame(id=["A", pd.NA, "A"]), {"A": 4}),
    "decimals": (frame(amount=[Decimal("1.5"), Decimal(2), Decimal("2.5")]), TEXT),
    "sparse": (frame(amount=pd.arrays.SparseArray([1.0, 2.0, 3.0])), TEXT),
    "dates": (frame(when=[one.date() for one in WHEN]), TEXT),
    "texts of dates": (frame(when=["2024-01-01", "2024-01-02", "2024-02-01"]), TEXT),
    "UUIDs": (frame(id=[uuid.UUID(int=n) for n in (1, 2, 1)]), {str(uuid.UUID(int=1)): 4, str(uuid.UUID(int=2)): 2}),
    "an infinite amount": (frame(amount=[np.inf, 2.0, 3.0]), {"A": 3, "B": 2}),
}


@pytest.mark.parametrize("name", RIGHT)
def test_an_odd_frame_gives_what_a_plain_one_gives(project: tm.Project, name: str) -> None:
    rows, wanted = RIGHT[name]
    assert {str(who): sum_ for who, sum_ in customers(project, rows).items()} == wanted


HALF = pd.Series(["\ud800", "B", "A"], dtype=object)
REFUSED: dict[str, tuple[Any, str]] = {
    "no columns": (pd.DataFrame(), "TM1306 .*there is no column"),
    "rows without columns": (frame()[[]], "TM1306 .*there is no column"),
    "no rows": (frame().head(0), "TM1002"),
    "columns twice": (frame().set_axis(["id", "when", "when"], axis=1), "TM1306 .*two columns are named 'when'"),
    "columns of several levels": (frame().set_axis(pd.MultiIndex.from_product([["a"], list("xyz")]), axis=1), "TM1306"),
    "columns that are numbers": (frame().set_axis([0, 1, 2], axis=1), "TM1306 .*no name of text"),
    "mixed types": (frame(amount=[1, "2", None]), "TM2056 .*mixes types: 1 is int, but at position 1 '2' is str"),
    "complex": (frame(amount=[1j, 2j, 3j]), "TM2056 .*holds values of complex"),
    "objects": (frame(id=[Thing(), Thing(), Thing()]), "TM2056 .*holds values of Thing"),
    "half a character": (frame(id=HALF), "TM2056 .*half a character"),
    "periods": (frame(when=pd.PeriodIndex(WHEN, freq="M")), r"TM2056 .*\['when'\].dt.to_timestamp"),
    "time spans": (frame(when=pd.to_timedelta([1, 2, 3], "D")), "TM2063"),
    "times of day": (frame(when=[time(1)] * 3), "TM2063"),
    "lists as ids": (frame(id=[["A"], ["B"], ["A"]]), "customer_id: 'id' is VARCHAR.*map an expression"),
    "mappings as amounts": (frame(amount=[{"a": 1}] * 3), "TM2045"),
    "arrays as amounts": (frame(amount=[np.array([1, 2])] * 3), "TM2045"),
    "no time at all": (frame(when=[pd.NaT] * 3), "No row is good"),
    "huge whole numbers": (frame(amount=[10**30] * 3), "TM2044"),
    "an unknown table": ({"shops": frame()}, "'shops' is no table"),
    "columns for tables": (frame().to_dict("list"), "is no table"),
    "a table that is None": ({"transactions": None}, "there is none; give a file"),
    "Arrow columns twice": ({"transactions": pa.table([["A"], ["B"]], names=["id", "id"])}, "TM1306"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_odd_frame_is_right_or_refused_in_a_sentence(project: tm.Project, name: str) -> None:
    rows, says = REFUSED[name]
    with pytest.raises((DataError, ProjectError), match=says):
        tm.build_panel(project, DAY, history=rows)


OBJECTS: list[Any] = [5, 1.5, object(), ["a.csv", None], [], "shop.yaml"]


@pytest.mark.parametrize("given", OBJECTS, ids=lambda given: type(given).__name__)
def test_what_is_no_project_no_policy_and_no_table_is_told(project: tm.Project, given: Any) -> None:
    for verb in (tm.check, tm.train, tm.backtest, tm.refresh, tm.tune):
        with pytest.raises(TypeError, match="expected a Project, got"):
            verb(given)
    with pytest.raises(TypeError, match="history: expected"):
        tm.check(project, history=given)
    if not isinstance(given, str):
        with pytest.raises(TypeError, match="expected"):
            tm.allocate(frame(), given, 5)


@pytest.mark.parametrize("given", ["scores.parquet", 5, None])
def test_what_is_no_list_of_sources_is_told(given: Any, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"expected a list of paths, such as \['scores.parquet'\], got "):
        tm.report(given, tmp_path / "page.html")


def test_what_is_no_bundle_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="expected a bundle, got int"):
        tm.save_bundle(5, tmp_path / "model")  # type: ignore[arg-type]
    assert not (tmp_path / "model").exists()
