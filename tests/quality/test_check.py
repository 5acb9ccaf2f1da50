"""Hold the check to: figures that another count gives too, a stated floor, and plain words in both languages."""

from __future__ import annotations

import json
from datetime import date, timedelta
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiermodel.config.project import Project
from tiermodel.errors import OutputError
from tiermodel.quality.check import CheckReport, check, suggest_horizon
from tiermodel.quality.suitability import FLOOR
from tiermodel.tables.history import History, read_history

START = date(2023, 1, 1)
Row = tuple[Any, int, float]


def project(folder: Path, rows: list[Row], **options: Any) -> Project:
    ids, days, amounts = zip(*rows, strict=True)
    table = {"id": ids, "when": [START + timedelta(days=day) for day in days], "amount": amounts}
    pq.write_table(pa.table(table), folder / "rows.parquet")
    columns = {"customer_id": "id", "time": "when", "amount": "amount"}
    data = {"transactions": {"path": str(folder / "rows.parquet"), "columns": columns}}
    return Project.model_validate({"version": 1, "name": "test", "data": data, **options})


def shop() -> list[Row]:
    """Give 120 customers who buy every (10 + id % 5) days for a year, the first 24 of them nine times as much.

    Every fourth leaves halfway.
    """
    return [
        (customer, day, 90.0 if customer < 24 else 10.0 + day % 7)
        for customer in range(120)
        for day in range(customer % 7, 365 if customer % 4 else 182, 10 + customer % 5)
    ]


def levels(report: CheckReport) -> dict[str, str]:
    return {finding.code: finding.level for finding in report.findings}


def test_a_sound_shop_passes(tmp_path: Path) -> None:
    report = check(project(tmp_path, shop()))
    assert not report.refused
    assert set(levels(report).values()) == {"ok"} | ({"warn"} if "windows" in levels(report) else set())
    assert (report.facts["customers"], report.facts["buyers"], report.facts["repeat_buyers"]) == (120, 120, 120)
    assert report.facts["orders"] == len(shop())
    spent = sorted(
        (sum(amount for customer, _, amount in shop() if customer == one) for one in range(120)), reverse=True
    )
    assert report.facts["top_share"] == pytest.approx(sum(spent[:24]) / sum(spent), abs=1e-5)
    ranks = sum(place * value for place, value in enumerate(reversed(spent), 1))
    assert report.facts["gini"] == pytest.approx(2 * ranks / (120 * sum(spent)) - 121 / 120, abs=1e-5)


def test_below_the_floor_is_refused_with_the_floor_in_words(tmp_path: Path) -> None:
    report = check(project(tmp_path, [(1, 0, 5.0), (1, 30, 5.0), (2, 3, 5.0)]))
    assert report.refused
    refused = {code for code, level in levels(report).items() if level == "refuse"}
    assert refused == {"buyers", "repeat_buyers", "history"}
    assert f"2 buying customers; at least {FLOOR['buyers']} are needed" in report.to_text()
    assert f"购买客户 2 位，至少需要 {FLOOR['buyers']} 位" in report.to_text("zh")
    assert report.to_text("zh").splitlines()[2].startswith("不通过")


@pytest.mark.parametrize(
    ("extra", "code"),
    [
        ([(500 + one, 20, 1.0) for one in range(600)], "one_order_share"),
        ([(7, day, 1.0 + part) for day in range(365) for part in range(4)], "largest_customer_share"),
        ([*((customer + 200, *rest) for customer, *rest in shop()), (7, 390, 1.0)], "thin_end"),
        ([(7, 364, 1.0), (7, 364, 1.0)], "duplicates"),
    ],
)
def test_each_fault_is_named(tmp_path: Path, extra: list[Row], code: str) -> None:
    found = levels(check(project(tmp_path, shop())))
    assert found.get(code, "ok") == "ok"
    assert levels(check(project(tmp_path, shop() + extra)))[code] == "warn"


@pytest.mark.parametrize(("managers", "level", "words"), [
    (3, "ok", "3 managers look after 90 customers at most; of 120 buying customers, grading decides which"),
    (4, "warn", "4 managers can look after 120 customers, and only 120 buy: all can be looked after without grading"),
])  # fmt: skip
def test_customers_are_compared_with_the_span_of_control(tmp_path: Path, managers: int, level: str, words: str) -> None:
    plain = project(tmp_path, shop())
    assert not {"span", "span_wide"} & set(levels(check(plain)))
    scheme = {
        "code": "s", "name_zh": "s", "name_en": "s", "kind": "share", "feature": "net_amount_365d",
        "levels": [
            {"code": "low", "name_zh": "低", "name_en": "low"},
            {"code": "top", "name_zh": "高", "name_en": "top", "managers": managers, "customers_per_manager": 30},
        ],
        "shares": {"low": 0.8, "top": 0.2},
    }  # fmt: skip
    team = Project.model_validate({**plain.model_dump(exclude_none=True), "tiers": {"scheme": scheme}})
    report = check(team)
    found = levels(report)
    assert found.get("span", found.get("span_wide")) == level
    assert words in report.to_text()
    assert f"{managers} 位客户经理" in report.to_text("zh")


def test_default_dates_constant_amounts_and_leading_zeros_are_named(tmp_path: Path) -> None:
    since_1970 = (date(1970, 1, 1) - START).days
    rows = [(f"{customer:05d}", day, 10.0) for customer, day, _ in shop()]
    rows += [(str(customer), since_1970, 10.0) for customer in range(110)]
    found = check(project(tmp_path, rows))
    named = {code for code, level in levels(found).items() if level == "warn"}
    assert {"default_date", "amounts_constant", "leading_zeros", "silent_days"} <= named
    assert found.facts["leading_zero_pairs"] == 110


def test_only_returns_do_not_break_the_figures(tmp_path: Path) -> None:
    report = check(project(tmp_path, [(1, 0, -5.0), (2, 9, -5.0)]))
    assert report.refused
    assert (report.facts["buyers"], report.facts["return_share"], report.facts["gini"]) == (0, 1.0, 0.0)
    assert report.horizon is None


def test_report_is_json_and_accounts_for_every_row(tmp_path: Path) -> None:
    rows = [*shop(), *shop()[:9], (1, 5, float("nan"))]
    report = check(project(tmp_path, rows))
    found = json.loads(json.dumps(report.to_dict(), ensure_ascii=False))
    assert found["accounting"]["read"] == len(rows)
    assert (found["accounting"]["deduplicated"], found["accounting"]["quarantined"]) == (9, 1)
    assert "1 rows: NaN or infinity, amount_not_finite (TM2042)" in report.to_text()
    assert found["horizon"]["quantiles"]["90%"] == 14


@settings(max_examples=20, deadline=None)
@given(visits=st.lists(st.tuples(st.integers(1, 4), st.integers(0, 200)), min_size=1, max_size=60, unique=True))
def test_horizon_quantiles_are_those_of_the_sorted_gaps(
    tmp_path_factory: pytest.TempPathFactory, visits: list[tuple[int, int]]
) -> None:
    rows: list[Row] = [(customer, day, 1.0) for customer, day in visits]
    advice = suggest_horizon(read_history(project(tmp_path_factory.mktemp("gaps"), rows)), horizon_days=30)
    gaps: list[int] = []
    for customer in range(1, 5):
        days = sorted(day for one, day in visits if one == customer)
        gaps += [later - day for day, later in pairwise(days)]
    if not gaps:
        assert advice is None
        return
    assert advice is not None
    gaps.sort()
    for share, days_within in advice.quantiles.items():
        assert sum(gap <= days_within for gap in gaps) >= share * len(gaps)
        assert sum(gap < days_within for gap in gaps) < share * len(gaps)
    assert advice.share_within == sum(gap <= 30 for gap in gaps) / len(gaps)
    span = max(day for _, day in visits) - min(day for _, day in visits) + 1
    assert advice.suggested_days % 7 == 0
    assert 7 <= advice.suggested_days <= max(7, span // 3)


def test_memory_that_ends_is_an_output_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def open_with_little(settings: Project) -> History:
        found = read_history(settings)
        found.connection.execute("SET memory_limit = '1MB'; SET max_temp_directory_size = '0MB'")
        return found

    settings = project(tmp_path, [(customer, customer % 99, 1.0) for customer in range(50_000)])
    monkeypatch.setattr(import_module("tiermodel.quality.check"), "read_history", open_with_little)
    with pytest.raises(OutputError, match=r"Raise data\.memory"):
        check(settings)


def test_online_retail_suits_and_shows_its_concentration(shared_data: Path) -> None:
    columns = {"customer_id": "Customer ID", "time": "InvoiceDate", "order_id": "Invoice", "amount": "Quantity * Price"}
    path = str(shared_data / "online_retail_2009_2010" / "transactions.parquet")
    table = {"path": path, "columns": columns, "where": '"Customer ID" is not null'}
    report = check(Project.model_validate({"version": 1, "name": "retail", "data": {"transactions": table}}))
    assert not report.refused
    assert report.facts["customers"] == 4_383
    assert report.facts["top_share"] == pytest.approx(0.7355, abs=1e-4)
    assert report.accounting.deduplicated == 6_771
