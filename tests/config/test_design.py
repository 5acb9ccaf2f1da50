"""The design of a project: its settings without dates and paths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tiermodel.config.project import Project, design_digest
from worlds import small_project

SCHEME = {"kind": "share", "levels": [1, 2]}


def design(change: dict[str, Any] | None = None, scheme: dict[str, Any] | None = None) -> str:
    settings = small_project(Path("a.parquet")).model_dump(mode="json", exclude={"folder"}, exclude_none=True)
    for path, value in (change or {}).items():
        *above, key = path.split(".")
        section = settings
        for name in above:
            section = section.setdefault(name, {})
        section[key] = value
    return design_digest(Project.model_validate(settings), scheme or SCHEME)


@pytest.mark.parametrize(
    "change",
    [
        {"data.transactions.path": "b.parquet"},
        {"backtest.dates": ["2023-06-01"]},
        {"outcome.calendar": {"sale": ["2023-11-24"]}},
        {"tracking.uri": "sqlite:///other.db"},
        {"data.memory": "2GB"},
        {"tiers.grade": "monthly"},
    ],
)
def test_dates_paths_and_what_no_model_depends_on_are_no_design(change: dict[str, Any]) -> None:
    assert design(change) == design()


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 8},
        {"outcome.horizon_days": 30},
        {"features.windows_days": [30, 60]},
        {"data.transactions.where": "amount > 0"},
    ],
)
def test_other_settings_are_another_design(change: dict[str, Any]) -> None:
    assert design(change) != design()


def test_the_scheme_is_part_of_the_design_and_dates_in_filters_are_not() -> None:
    assert design(scheme={**SCHEME, "kind": "rfm"}) != design()
    first, later = ({"data.transactions.where": f"day >= '{day}'"} for day in ("2022-01-01", "2023-01-01"))
    assert design(first) == design(later) != design()
