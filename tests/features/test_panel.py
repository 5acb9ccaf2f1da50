"""Snapshots and panels end to end: from files, and the outcome that followed."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from histories import (
    FIRST_DAY,
    WINDOWS,
    Row,
    all_rows,
    as_batches,
    as_dates,
    make_project,
    make_row,
    of_table,
    same_bits,
    small_histories,
    snapshot,
)
from panels_made import (
    DAYS,
    END,
    HISTORIES,
    OTHERS,
    SALES,
    as_file_rows,
    check_outcome,
    file_project,
    with_outcome,
    write_other_tables,
)
from tiermodel.config.project import Project
from tiermodel.engines import duckdb as duckdb_engine
from tiermodel.engines.dispatch import open_history
from tiermodel.errors import DataError, ProjectError
from tiermodel.features import stream
from tiermodel.features.dates import parse_dates, snapshot_dates
from tiermodel.features.large_customer import LargeCustomer
from tiermodel.features.outcome import OUTCOME_COLUMNS, Labels
from tiermodel.features.panel import Snapshots, Tally, build_panel, snapshot_batches
from tiermodel.tables.history import read_history

# the outcome


@pytest.mark.parametrize("measure", ["amount", "margin"])
@pytest.mark.parametrize("gap", [0, 7])
def test_outcome_equals_the_oracle(gap: int, measure: str) -> None:
    project = make_project(outcome={"horizon_days": 90, "gap_days": gap}, value={"measure": measure})
    panel = check_outcome(HISTORIES, DAYS, project, END)
    assert panel["outcome_purchase_days"].nunique() > 5


@settings(max_examples=30, deadline=None)
@given(small_histories(), st.integers(1, 60), st.integers(1, 30), st.integers(0, 9))
def test_outcome_equals_the_oracle_on_small_histories(
    histories: dict[str, list[Row]], day: int, horizon: int, gap: int
) -> None:
    project = make_project(outcome={"horizon_days": horizon, "gap_days": gap})
    check_outcome(histories, (FIRST_DAY + day, FIRST_DAY + day + 9), project, FIRST_DAY + 71)


def test_a_window_not_fully_observed_is_no_outcome() -> None:
    panel = with_outcome(HISTORIES, DAYS, make_project(), END)
    known = panel.set_index("as_of")[list(OUTCOME_COLUMNS)].notna().groupby("as_of").mean()
    assert known.to_numpy().tolist() == [[1, 1, 1]] * 3 + [[0, 0, 0]] * 2


def test_outcome_sees_its_window_only() -> None:
    project = make_project(outcome={"horizon_days": 10, "gap_days": 3})
    rows = [make_row("a", day, 10_000 * (1 + day), order=day) for day in range(100)]
    panel = with_outcome({"a": rows}, (50,), project, 100)
    assert panel["outcome_purchase_days"].tolist() == [10]
    assert panel["outcome_value"].tolist() == [sum(range(54, 64))]
    inside = [row for row in rows if row["day"] == 0 or 53 <= row["day"] < 63]
    again = with_outcome({"a": inside}, (50,), project, 100)
    assert again[list(OUTCOME_COLUMNS)].equals(panel[list(OUTCOME_COLUMNS)])


def test_asking_for_the_outcome_changes_no_feature() -> None:
    panel = with_outcome(HISTORIES, DAYS, make_project(), END)
    alone = snapshot(as_batches(all_rows(HISTORIES)), DAYS).to_pandas(date_as_object=True)
    pd.testing.assert_frame_equal(panel.drop(columns=list(OUTCOME_COLUMNS)), alone, check_exact=True)


# dates


def test_a_date_given_twice_is_one_date() -> None:
    batches = as_batches(all_rows(HISTORIES))
    assert same_bits(snapshot(batches, [DAYS[1], DAYS[0], DAYS[1]]), snapshot(batches, DAYS[:2]))


def test_no_date_is_refused() -> None:
    with pytest.raises(ProjectError, match="no date"):
        snapshot(as_batches(all_rows(HISTORIES)), [])


def test_snapshot_dates_end_at_the_last_and_have_history() -> None:
    project = make_project(panel={"every_days": 30, "snapshots": 4}, outcome={"horizon_days": 90})
    last = date(2020, 7, 1)
    assert snapshot_dates(project.panel, Labels.of(project), last, date(2019, 1, 1)) == tuple(
        last - timedelta(30 * n) for n in (3, 2, 1, 0)
    )
    assert snapshot_dates(project.panel, Labels.of(project), last, last - timedelta(60)) == (last - timedelta(30), last)
    assert snapshot_dates(project.panel, Labels.of(project), last, last - timedelta(29)) == ()


@pytest.mark.parametrize(
    ("every", "horizon", "count"),
    [(30, 30, 12), (30, 180, 12), (30, 365, 19), (7, 60, 15), (7, 180, 24), (90, 365, 12)],
)
def test_by_default_later_snapshots_follow_the_outcome_of_the_earliest(every: int, horizon: int, count: int) -> None:
    project = make_project(panel={"every_days": every}, outcome={"horizon_days": horizon})
    dates = snapshot_dates(project.panel, Labels.of(project), date(2020, 7, 1), date(2010, 1, 1))
    assert len(dates) == count
    later = [day for day in dates if day >= dates[0] + timedelta(horizon)]
    assert len(later) >= 6 or count == 24


# files


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Project:
    path = tmp_path_factory.mktemp("shop") / "rows.parquet"
    as_file_rows(HISTORIES).to_parquet(path)
    write_other_tables(path.parent)
    return file_project(path)


def test_rows_that_are_not_known_yet_are_not_counted_as_used(shop: Project) -> None:
    now, days = as_dates(DAYS)[-2], as_dates(DAYS)[:-1]
    trained, scored = Tally(), Tally()
    known = build_panel(shop, days, with_outcome=True, known_until=now, tally=trained)
    build_panel(shop, days, tally=scored)
    assert trained.accounts == scored.accounts
    assert trained.account.out_of_window > 0
    whole = build_panel(shop, days, with_outcome=True)
    there = known["outcome_purchase_days"].notna()
    pd.testing.assert_frame_equal(known[there], whole[there])


def test_panel_from_files_equals_the_stream(shop: Project) -> None:
    tally = Tally()
    panel = build_panel(shop, as_dates(DAYS), with_outcome=True, tally=tally)
    stream = with_outcome(HISTORIES, DAYS, shop, END)
    assert panel["as_of"].dtype.kind == "M"
    stream["as_of"] = pd.to_datetime(stream["as_of"]).astype(panel["as_of"].dtype)
    pd.testing.assert_frame_equal(panel, stream, check_exact=True)
    repeats = len(SALES) - len({(r["customer_id"], r["row_key"]) for r in SALES})
    assert tally.account.read == len(SALES)
    assert {name: account.read for name, account in tally.accounts.items()} == {
        name: len(of_table(HISTORIES, name)) for name in ("transactions", *OTHERS)
    }
    assert (tally.duplicates[0], tally.account.deduplicated) == (repeats, repeats)
    assert repeats > 0


def test_what_is_not_known_yet_is_no_outcome(shop: Project) -> None:
    before = as_dates([DAYS[1] + 90])[0]
    known = build_panel(shop, as_dates(DAYS[1:3]), with_outcome=True, known_until=before)
    late = build_panel(shop, as_dates(DAYS[1:3]), with_outcome=True, known_until=before - timedelta(1))
    assert known["outcome_purchase_days"].notna().groupby(known["as_of"]).mean().tolist() == [1, 0]
    assert late["outcome_purchase_days"].isna().all()


def test_number_ids_give_the_same_panel(shop: Project, tmp_path: Path) -> None:
    rows = as_file_rows(HISTORIES)
    rows.assign(customer_id=rows["customer_id"].str[2:].astype(int)).to_parquet(tmp_path / "rows.parquet")
    write_other_tables(tmp_path, lambda name: f"{int(name[2:])}.0")  # as text, and with an ending
    numbers = build_panel(file_project(tmp_path / "rows.parquet"), as_dates(DAYS))
    texts = build_panel(shop, as_dates(DAYS))
    assert set(numbers["customer_id"]) == {str(int(name[2:])) for name in texts["customer_id"]}
    numbers["customer_id"] = numbers["customer_id"].map(lambda number: f"客户{int(number):05d}")
    numbers = numbers.sort_values(["customer_id", "as_of"], ignore_index=True)
    pd.testing.assert_frame_equal(numbers, texts, check_exact=True, check_dtype=False)


def test_files_and_row_order_change_nothing(shop: Project, tmp_path: Path) -> None:
    rows = as_file_rows(HISTORIES).sample(frac=1, random_state=5)
    for n in range(3):
        rows.iloc[n::3].to_parquet(tmp_path / f"part{n}.parquet", row_group_size=50)
    write_other_tables(tmp_path)
    pd.testing.assert_frame_equal(
        build_panel(file_project(tmp_path / "*.parquet"), as_dates(DAYS)),
        build_panel(shop, as_dates(DAYS)),
        check_exact=True,
    )


def test_rows_that_do_not_fit_in_memory_are_sorted_in_ranges_of_customers(
    shop: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = build_panel(shop, as_dates(DAYS))
    monkeypatch.setattr(duckdb_engine, "_memory", lambda _: 100_000.0)
    pd.testing.assert_frame_equal(build_panel(shop, as_dates(DAYS)), whole, check_exact=True)


def test_a_customer_with_most_of_the_rows_is_sorted_and_summed_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = np.random.default_rng(5)
    sales = pd.DataFrame({
        "customer_id": np.where(draw.random(6_000) < 0.9, "m", draw.choice(list("abxyz"), 6_000)),
        "time": pd.Timestamp("2020-01-01") + pd.to_timedelta(draw.integers(0, 90, 6_000), "D"),
        "amount": draw.integers(-500, 9_000, 6_000) / 100, "order_id": draw.integers(0, 3_000, 6_000),
        "product_id": draw.choice(["p", "q", "r"], 6_000),
    })  # fmt: skip
    sales = pd.concat([sales, sales[::7]])  # rows that repeat others are told across parts
    sales.to_parquet(tmp_path / "rows.parquet")
    transactions = {"path": str(tmp_path / "rows.parquet"), "columns": {name: name for name in sales}}
    project = make_project(data={"transactions": transactions}, features={"windows_days": WINDOWS})
    days = [date(2020, 2, 1), date(2020, 4, 1)]
    whole = build_panel(project, days)
    monkeypatch.setattr(duckdb_engine, "_memory", lambda _: 200_000.0)
    monkeypatch.setattr(stream, "LARGE_ROWS", 1_000)
    parts = list[int]()
    take = LargeCustomer.take

    def counted(large: LargeCustomer, batch: pa.RecordBatch) -> pa.RecordBatch:
        parts.append(batch.num_rows)
        return take(large, batch)

    monkeypatch.setattr(LargeCustomer, "take", counted)
    pd.testing.assert_frame_equal(build_panel(project, days), whole, check_exact=True)
    assert len(parts) > 3


def test_duplicates_may_be_kept(tmp_path: Path) -> None:
    row = {"customer_id": "a", "time": datetime(2020, 1, 1), "amount": 2.5, "order_id": 1}  # noqa: DTZ001 wall time
    pq.write_table(pa.Table.from_pylist([row] * 3), tmp_path / "rows.parquet")
    transactions = {"path": str(tmp_path / "rows.parquet"), "columns": {name: name for name in row}}
    for choice, spent in (("drop", 2.5), ("keep", 7.5)):
        data = {"transactions": {**transactions, "duplicates": choice}}
        project = make_project(data=data, features={"windows_days": WINDOWS})
        panel = build_panel(project, [date(2020, 2, 1)])
        assert panel[["net_amount_total", "order_count_total"]].to_numpy().tolist() == [[spent, 1]]


def test_dates_before_all_rows_are_refused(shop: Project) -> None:
    with pytest.raises(DataError, match=r"no customer has a row before 1999-01-01.*choose a later date"):
        build_panel(shop, [date(1999, 1, 1)])


def test_parse_dates(shop: Project) -> None:
    rows = read_history(shop)
    after = rows.last_day + timedelta(1)
    assert parse_dates("latest", rows) == (after,)
    assert parse_dates(" 2017-01-05,2016-12-31 ,2017-01-05", rows) == (date(2016, 12, 31), date(2017, 1, 5))
    for wrong in ("yesterday", "2017-02-30", "", ","):
        with pytest.raises(ProjectError, match="2017-11-30"):
            parse_dates(wrong, rows)


def test_everything_is_a_number_but_the_key(shop: Project) -> None:
    panel = build_panel(shop, as_dates(DAYS[:2]))
    assert list(panel.columns[:2]) == ["customer_id", "as_of"]
    assert {str(kind) for kind in panel.dtypes[2:]} == {"float64"}
    assert not np.isinf(panel.iloc[:, 2:].to_numpy()).any()
    ordered = panel.sort_values(["customer_id", "as_of"], kind="stable")
    assert ordered.index.equals(panel.index)


def test_a_batch_of_customers_who_are_not_known_yet_reaches_no_scoring(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last ids of a customers' table are often of those who sign up after the date."""
    monkeypatch.setattr(duckdb_engine, "BATCH_ROWS", 1)
    columns = {"customer_id": "id", "time": "day", "amount": "amount"}
    people = {"path": "people.csv", "columns": {"customer_id": "id", "signup": "since"}}
    data = {"transactions": {"path": "t.csv", "columns": columns}, "customers": people}
    project = Project.model_validate({"version": 1, "name": "shop", "data": data})
    sales = pd.DataFrame({"id": ["a", "b"], "day": ["2024-01-01", "2024-01-02"], "amount": [1, 2]})
    known = pd.DataFrame({"id": ["a", "b", "z"], "since": ["2023-12-01", "2023-12-01", "2024-06-01"]})
    history = open_history(project, transactions=sales, customers=known)
    seen: list[list[str]] = []

    def note(batch: pa.RecordBatch) -> pa.RecordBatch:
        seen.append(batch["customer_id"].to_pylist())
        return batch

    snapshots = Snapshots(project, history.columns, (date(2024, 2, 1),))
    list(snapshot_batches(history, snapshots, then=note))
    assert seen == [["a"], ["b"]]
