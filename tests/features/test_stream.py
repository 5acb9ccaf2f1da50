"""The walk: exact whatever the batches, the order within a day, the other dates and the future are."""

from __future__ import annotations

import errno
import random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from histories import (
    COLUMNS,
    FIRST_DAY,
    LAST_DAY,
    Row,
    all_rows,
    as_batches,
    as_dates,
    make_project,
    make_row,
    random_histories,
    same_bits,
    small_histories,
    snapshot,
    sorted_table,
)
from tiermodel.errors import DataError, OutputError
from tiermodel.features.large_customer import LargeCustomer
from tiermodel.features.measures import MEASURES
from tiermodel.features.panel import Snapshots
from tiermodel.features.stream import RHYTHM, Chunk, Plan, Request, walk, whole_customers

ROWS = all_rows(random_histories(seed=5, customers=40))
DAYS = (FIRST_DAY + 40, FIRST_DAY + 200, FIRST_DAY + 230, LAST_DAY + 10)
COUNT = Request("order_count", None, 0)
SPENT = Request("net_amount", None, 0)


def read(chunk: Chunk, name: str) -> list[float]:
    values: list[float] = chunk.rhythm[RHYTHM.index(name)].tolist()
    return values


# regrouping of batches


def in_memory(batches: list[pa.RecordBatch]) -> list[pa.Table]:
    return [table for table in whole_customers(batches) if isinstance(table, pa.Table)]


@settings(max_examples=50, deadline=None)
@given(small_histories(), st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_whole_customers_splits_none_and_loses_no_row(histories: dict[str, list[Row]], sizes: list[int]) -> None:
    batches = as_batches(all_rows(histories), sizes)
    tables = in_memory(batches)
    assert pa.concat_tables(tables).equals(pa.Table.from_batches(batches))
    seen = [set(table["customer_id"].to_pylist()) for table in tables]
    assert sum(map(len, seen)) == len(histories)


def test_whole_customers_holds_one_customer_back_and_no_more() -> None:
    rows = [make_row(f"c{n}", day, 1, day) for n in range(4) for day in range(6)]
    assert [t.num_rows for t in in_memory(as_batches(rows, [1]))] == [6, 6, 6, 6]
    assert [t.num_rows for t in in_memory(as_batches(rows, [3]))] == [6, 6, 6, 6]
    assert [t.num_rows for t in in_memory(as_batches(rows, [100]))] == [18, 6]


def test_whole_customers_skips_empty_batches() -> None:
    batch = as_batches(ROWS, [10_000])[0]
    assert list(whole_customers([])) == []
    assert list(whole_customers([batch.slice(0, 0)])) == []
    assert pa.concat_tables(whole_customers([batch.slice(0, 0), batch, batch.slice(0, 0)])).num_rows == batch.num_rows


# customers on disk


def sums_of(table: pa.Table | LargeCustomer, plan: Plan) -> list[Any]:
    chunk = walk(table, plan)
    latest = [found.to_pylist() if isinstance(found, pa.Array) else found.tolist() for found in chunk.latest]
    counted = chunk.rows_used.tolist(), chunk.rows_duplicate.tolist()
    return [
        chunk.customers.to_pylist(),
        chunk.as_of.tolist(),
        chunk.sums.tobytes(),
        chunk.rhythm.tobytes(),
        latest,
        counted,
    ]


@settings(max_examples=40, deadline=None)
@given(small_histories(), st.integers(1, 9), st.integers(1, 12))
def test_a_customer_on_disk_has_the_same_bits(histories: dict[str, list[Row]], size: int, large: int) -> None:
    rows, plan = all_rows(histories), Snapshots(make_project(), COLUMNS, as_dates(DAYS)).plan
    for found in whole_customers(as_batches(rows + rows[::3], [size]), large):
        if isinstance(found, LargeCustomer):
            customer = found.customers[0].as_py()
            whole = sorted_table(row for row in rows + rows[::3] if row["customer_id"] == customer)
            assert found.rows + found.duplicates.sum() == whole.num_rows > large
            assert repr(sums_of(found, plan)) == repr(sums_of(whole, plan))  # NaN is NaN
            assert repr(sums_of(found.to_table(), plan)[:-1]) == repr(sums_of(whole, plan)[:-1])


def test_whole_customers_loses_no_row_with_customers_on_disk() -> None:
    for size, large in ((1, 1), (3, 2), (50, 10), (1_000, 5), (7, 10_000)):
        batches = as_batches(ROWS, [size])
        found = list(whole_customers(batches, large))
        tables = [one.to_table() if isinstance(one, LargeCustomer) else one for one in found]
        repeated = sum(int(one.duplicates.sum()) for one in found if isinstance(one, LargeCustomer))
        assert sum(table.num_rows for table in tables) + repeated == sum(batch.num_rows for batch in batches)
        ids = [set(table["customer_id"].to_pylist()) for table in tables]
        assert sum(map(len, ids)) == len(set.union(*ids))


def test_sums_beyond_64_bits_and_days_out_of_order_are_refused_on_disk_too() -> None:
    huge = as_batches([make_row("c1", day, 4_000_000_000_000_000_000, day) for day in range(4)], [2])
    (large,) = whole_customers(huge, 1)
    with pytest.raises(DataError, match="TM2044 customer 'c1'"):
        walk(large, Plan((10,), (SPENT,)))
    back = as_batches([make_row("c1", day, 1, day) for day in (1, 2, 3)], [1])
    with pytest.raises(DataError, match="not sorted"):
        list(whole_customers([back[2], back[1], back[0]], 1))


def test_a_full_disk_for_a_large_customer_names_the_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tiermodel.features.large_customer.tempfile.TemporaryFile", full)
    with pytest.raises(OutputError, match="cannot be written: No space left on device"):
        list(whole_customers(as_batches(ROWS, [50]), 3))


# bits


@pytest.mark.parametrize("sizes", [[1], [2, 3], [17], [500, 1], [10_000]])
def test_batch_sizes_change_no_bit(sizes: list[int]) -> None:
    assert same_bits(snapshot(as_batches(ROWS, sizes), DAYS), snapshot(as_batches(ROWS), DAYS))


def test_row_order_within_a_day_changes_no_bit() -> None:
    table = sorted_table(ROWS).drop_columns("row_key").to_pandas()
    shuffled = table.sample(frac=1, random_state=1).sort_values(["customer_id", "day"], kind="stable")
    assert not shuffled.reset_index(drop=True).equals(table)
    one, other = (pa.Table.from_pandas(t, preserve_index=False).to_batches() for t in (table, shuffled))
    assert same_bits(snapshot(one, DAYS), snapshot(other, DAYS))


def test_several_dates_in_one_pass_equal_each_date_alone() -> None:
    together = snapshot(as_batches(ROWS), DAYS)
    alone = pa.concat_tables(snapshot(as_batches(ROWS), [day]) for day in DAYS)
    keys = [("customer_id", "ascending"), ("as_of", "ascending")]
    assert same_bits(together, alone.sort_by(keys))


@settings(max_examples=30, deadline=None)
@given(small_histories(), st.integers(1, 70))
def test_rows_after_the_dates_change_no_bit(histories: dict[str, list[Row]], day: int) -> None:
    every = as_batches(all_rows(histories))
    known = [batch.filter(pc.less(batch["day"], FIRST_DAY + day)) for batch in every]
    assert same_bits(snapshot(every, [FIRST_DAY + day]), snapshot(known, [FIRST_DAY + day]))


def test_numbers_and_texts_as_ids_give_the_same_figures() -> None:
    numbered = [row | {"customer_id": int(row["customer_id"][2:]) - 20} for row in ROWS]
    one, other = snapshot(as_batches(numbered), DAYS), snapshot(as_batches(ROWS), DAYS)
    assert one["customer_id"].to_pylist() == [str(int(i[2:]) - 20) for i in other["customer_id"].to_pylist()]
    assert same_bits(one.drop_columns("customer_id"), other.drop_columns("customer_id"))


# what is counted


def test_dates_before_the_first_row_have_no_snapshot() -> None:
    rows = [make_row("a", 100, 10_000, 1), make_row("b", 110, 20_000, 1)]
    chunk = walk(sorted_table(rows), Plan((100, 101, 111), (SPENT,)))
    assert chunk.as_of.tolist() == [101, 111, 111]
    assert chunk.customer.tolist() == [0, 0, 1]
    assert chunk.sums.tolist() == [[1, 1, 2]]
    assert chunk.customers.to_pylist() == ["a", "b"]


def test_windows_take_their_first_day_and_leave_their_last() -> None:
    rows = [make_row("a", day, 1, day) for day in range(10)]
    requests = (Request("order_count", -3, 0), Request("order_count", -6, -3), Request("order_count", 0, 2), COUNT)
    assert walk(sorted_table(rows), Plan((8,), requests)).sums[:, 0].tolist() == [3, 3, 2, 8]


def test_an_order_over_several_days_counts_on_its_first() -> None:
    rows = [make_row("a", day, 100, 7) for day in (1, 5, 9)]
    plan = Plan((5, 20), (Request("order_count", -4, 0), Request("purchase_days", -15, 0)))
    assert walk(sorted_table(rows), plan).sums.tolist() == [[1, 0], [1, 2]]


def test_equal_rows_count_once_and_are_tallied() -> None:
    row, other = make_row("a", 3, 500, 1), make_row("a", 3, 700, 1)
    chunk = walk(sorted_table([row, other, row, row, make_row("b", 3, 500, 1)]), Plan((9,), (SPENT,)))
    assert chunk.sums.tolist() == [[0.12, 0.05]]
    assert (chunk.rows_used[0], chunk.rows_duplicate[0]) == (3, 2)


def test_without_row_keys_equal_rows_are_kept() -> None:
    table = sorted_table([make_row("a", 3, 500, 1)] * 3).drop_columns("row_key")
    chunk = walk(table, Plan((9,), (SPENT, COUNT)))
    assert chunk.sums.tolist() == [[0.15], [1]]
    assert (chunk.rows_used[0], chunk.rows_duplicate[0]) == (3, 0)


def test_rows_that_no_date_looks_at_are_not_used() -> None:
    table = sorted_table([make_row("a", day, 1, day) for day in range(10)])
    assert walk(table, Plan((4,), (COUNT,))).rows_used[0] == 4
    plan = Plan((2, 4), (COUNT, Request("order_count", 1, 3)))
    assert (plan.end, walk(table, plan).rows_used[0]) == (7, 7)


def test_a_best_block_may_be_a_loss() -> None:
    rows = [make_row("a", 0, 100, 1), make_row("a", 1, -300, 2), make_row("a", 40, -50, 3)]
    chunk = walk(sorted_table(rows), Plan((10, 50), (COUNT,)))
    assert read(chunk, "amount_peak_block") == [-0.02, -0.005]
    assert read(chunk, "active_blocks") == [1, 1]


def test_rhythm_is_empty_without_a_purchase() -> None:
    chunk = walk(sorted_table([make_row("a", 0, -100, 1)]), Plan((30,), (COUNT,)))
    zero = {"first_seen", "gap_square_sum", "active_blocks", "orders_decayed_30d", "orders_decayed_90d"}
    values = {name: read(chunk, name)[0] for name in RHYTHM}
    assert {name for name, value in values.items() if value == 0} == zero
    assert {name for name, value in values.items() if np.isnan(value)} == set(RHYTHM) - zero - {"amount_decayed_90d"}
    assert values["amount_decayed_90d"] == pytest.approx(-0.01 * 0.5 ** (1 / 3), rel=1e-15)


def test_a_customer_of_many_rows_and_batches() -> None:
    draw = random.Random(2)  # noqa: S311 test data
    n = 300_000
    day = np.sort(np.array([draw.randrange(1_000) for _ in range(n)], np.int32))
    order = np.arange(n, dtype=np.int64) // 3 * (1 << 33)  # keys that differ in their high bits only
    columns = {"customer_id": pa.array(["whale"] * n), "day": day, "amount": np.full(n, 25), "order_key": order}
    table = pa.table({**columns, "product_key": np.arange(n) % 1_000})
    requests = (COUNT, SPENT, Request("new_product_count", None, 0), Request("purchase_days", None, 0))
    (whole,) = whole_customers(table.to_batches(max_chunksize=10_000))
    chunk = walk(whole, Plan((2_000,), requests))
    assert chunk.sums[:, 0].tolist() == [n // 3, n * 0.0025, 1_000, 1_000]


# refusals


def test_overflow_is_refused_and_names_the_customer() -> None:
    rows = [make_row("ok", day, 5, day) for day in range(5)] + [make_row("rich", day, 2**61, day) for day in range(5)]
    with pytest.raises(DataError, match=r"customer 'rich': amounts add up to 1\.15e\+15.*larger unit"):
        walk(sorted_table(rows), Plan((9,), (SPENT,)))
    losses = [row | {"amount": -row["amount"]} for row in rows]
    with pytest.raises(DataError, match="customer 'rich'"):
        walk(sorted_table(losses), Plan((9,), (SPENT,)))


def test_large_amounts_of_different_customers_are_fine() -> None:
    rows = [make_row(f"c{n}", 1, 2**61, 1) for n in range(9)]
    assert walk(sorted_table(rows), Plan((9,), (SPENT,))).sums.tolist() == [[2**61 / 10_000] * 9]


@pytest.mark.parametrize("step", [3, 1_000])
def test_a_stream_not_sorted_by_customer_is_refused(step: int) -> None:
    batches = as_batches(ROWS, [step])
    with pytest.raises(DataError, match="not sorted by customer"):
        snapshot([*batches[5:], *batches[:5]] if len(batches) > 5 else batches * 2, DAYS)


def test_a_customer_not_sorted_by_day_is_refused() -> None:
    table = sorted_table([make_row("a", day, 1, 1) for day in range(5)] + [make_row("b", 0, 1, 1)])
    with pytest.raises(DataError, match="not sorted by customer and day"):
        walk(table.take([0, 1, 3, 2, 4, 5]), Plan((9,), (COUNT,)))


def test_plan_lists_each_measure_once() -> None:
    plan = Plan((10, 20), (COUNT, SPENT, Request("order_count", -5, 0)))
    assert plan.measures == ("order_count", "net_amount")
    assert plan.end == 20
    assert set(plan.measures) <= set(MEASURES)
