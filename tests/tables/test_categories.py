"""Text attributes from the customers' table: declared, trimmed, as of their day, refused where they are no groups."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tiermodel.config.project import Project
from tiermodel.errors import DataError, ProjectError, TooManyBadRowsError
from tiermodel.features.catalogue import expand
from tiermodel.features.export import write_features
from tiermodel.features.frame import category_names, feature_names
from tiermodel.features.panel import build_panel
from tiermodel.tables.categories import MOST_VALUES
from tiermodel.tables.history import History, read_history

SALES = pd.DataFrame({"id": list("aabc"), "day": ["2024-01-05", "2024-03-05", "2024-01-20", "2024-02-01"], "amount": 5})
TWO = pd.DataFrame({
    "id": ["a", "a", "b", "c"],
    "since": ["2024-01-01", "2024-02-15", "2024-01-01", "2024-01-01"],
    "industry": ["  制造 ", "金融", " \u3000", "cafe\u0301"],
    "size": [1.0, 2.0, 3.0, None],
})  # fmt: skip


def project(
    categories: dict[str, str],
    attributes: dict[str, str] | None = None,
    columns: tuple[str, ...] = ("since",),
    **more: Any,
) -> Project:
    customers = {
        "columns": {"customer_id": "id", **dict(zip(("valid_from",), columns, strict=False))},
        "categories": categories,
        "attributes": attributes or {},
    }
    transactions = {"columns": {"customer_id": "id", "time": "day", "amount": "amount"}}
    data = {"transactions": transactions, "customers": customers, **more.pop("data", {})}
    return Project.model_validate({"version": 1, "name": "shop", "data": data, **more})


def opened(settings: Project, customers: pd.DataFrame) -> History:
    return read_history(settings, transactions=SALES, customers=customers)


def panel(settings: Project, customers: pd.DataFrame, *days: date) -> pd.DataFrame:
    return build_panel(settings, list(days), history=opened(settings, customers))


def test_a_text_is_trimmed_and_known_from_its_day_on() -> None:
    found = panel(project({"industry": "industry"}), TWO, date(2024, 2, 15), date(2024, 2, 16))
    values = found["attribute_industry"].fillna("-")
    assert values.tolist() == ["制造", "金融", "-", "-", "caf\u00e9", "caf\u00e9"]
    assert category_names(found) == ["attribute_industry"]
    assert "attribute_industry" not in feature_names(found)


def test_without_a_day_a_text_holds_always_and_whole_numbers_may_be_codes() -> None:
    codes = pd.DataFrame({"id": ["a", "b"], "region": [10, 20]})
    found = panel(project({"region": "region"}, columns=()), codes, date(2024, 1, 6), date(2024, 4, 1))
    values = found["attribute_region"].fillna("-")
    assert values.tolist() == ["10", "10", "20", "-"]  # b and c are known later


def test_a_text_of_the_file_is_a_column_of_the_feature_table_and_of_the_catalogue(tmp_path: Path) -> None:
    settings = project({"industry": "industry"}, features={"audited": ["industry"], "windows_days": [30]})
    history = opened(settings, TWO)
    write_features(settings, "2024-03-01", tmp_path / "f.csv", history=history)
    table = pd.read_csv(tmp_path / "f.csv", dtype=str, keep_default_na=False)
    assert table["attribute_industry"].tolist() == ["金融", "", "caf\u00e9"]
    assert table["audited_industry"].tolist() == table["attribute_industry"].tolist()
    last = [(f.name, f.group, f.unit) for f in expand(settings.features, history.columns)][-2:]
    assert last == [(f"{prefix}_industry", "attribute", "text") for prefix in ("attribute", "audited")]


def test_rows_that_repeat_another_are_one_row_and_another_text_is_another_row() -> None:
    twice = pd.concat([TWO, TWO.iloc[[0]]])
    days = (date(2024, 4, 1),)
    settings = project({"industry": "industry"})
    pd.testing.assert_frame_equal(panel(settings, twice, *days), panel(settings, TWO, *days))


def test_text_that_is_no_group_is_refused_with_examples() -> None:
    many = pd.DataFrame(
        {"id": [f"x{n}" for n in range(MOST_VALUES + 1)], "street": [f"road {n:04d}" for n in range(1001)]}
    )
    with pytest.raises(
        DataError, match=r"TM2057 data\.customers\.categories\.street \(street\) .* 1,000 .*'aaaa 9999'"
    ):
        opened(project({"street": "street"}, columns=()), many)
    assert opened(project({"street": "street"}, columns=()), many.head(MOST_VALUES)).columns >= {"text_street"}
    masking = project({"street": "street"}, columns=(), data={"hash_ids": "TIERMODEL_TEST_KEY"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIERMODEL_TEST_KEY", "k" * 32)
        with pytest.raises(DataError, match="TM2057") as error:
            opened(masking, many)
    assert "road" not in str(error.value)


def test_numbers_are_no_text_and_text_is_no_number() -> None:
    with pytest.raises(ProjectError, match=r"TM2055 data\.customers\.categories\.size: 'size' is DOUBLE, not text"):
        opened(project({"size": "size"}), TWO)
    settings = project({}, {"industry": "industry"}, features={"attributes": ["industry"]})
    with pytest.raises(DataError, match=r"TM2055\): .*declare text under data\.customers\.categories"):
        opened(settings, TWO.assign(industry="制造"))
    with pytest.raises(TooManyBadRowsError, match=r"TM2055\): .*declare text under data\.customers\.categories"):
        opened(settings, TWO.assign(industry=["1", "2", "3", "制造"]))


def test_a_text_is_never_named_as_an_input_and_has_one_name() -> None:
    with pytest.raises(ValueError, match=r"attributes: 'industry' is text \(data.customers.categories\)"):
        project({"industry": "industry"}, features={"attributes": ["industry"]})
    with pytest.raises(ValueError, match="'size' is one of attributes too"):
        project({"size": "industry"}, {"size": "size"})
    with pytest.raises(ValueError, match="name categories in lower case"):
        project({"Industry": "industry"})
    with pytest.raises(ValueError, match="audited: 'sector' is not one of"):
        project({"industry": "industry"}, features={"audited": ["sector"]})
