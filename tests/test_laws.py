"""The laws of DESIGN, section 9, as properties: of features first; what is scored has its laws below."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from histories import (
    COLUMNS,
    FIRST_DAY,
    GROUPS,
    WINDOWS,
    Row,
    all_rows,
    as_batches,
    as_dates,
    later,
    make_row,
    same_bits,
    small_histories,
    snapshot,
)
from tiermodel.config.project import Features
from tiermodel.features import catalogue
from tiermodel.features.catalogue import expand
from tiermodel.features.formula import Feature

FEATURES = expand(Features(windows_days=WINDOWS, groups=GROUPS, attributes=("size",)), COLUMNS)
AMOUNTS = [feature.name for feature in FEATURES if feature.unit == "amount"]
OTHERS = ["customer_id", "as_of", *(feature.name for feature in FEATURES if feature.unit != "amount")]
DATES = (FIRST_DAY + 35, FIRST_DAY + 71)


def panel(histories: dict[str, list[Row]]) -> pa.Table:
    return snapshot(as_batches(all_rows(histories)), DATES)


# 1. Rows at or after as_of never change a feature.


@settings(max_examples=30, deadline=None)
@given(small_histories(), small_histories())
def test_law_1_the_future_changes_no_bit(histories: dict[str, list[Row]], more: dict[str, list[Row]]) -> None:
    dated = (row for row in all_rows(more) if row["customer_id"] in histories and row.get("valid_from", 0) is not None)
    shifted = [later(row, 71) for row in dated]
    rows = all_rows(histories)
    assert same_bits(snapshot(as_batches(rows + shifted), DATES), snapshot(as_batches(rows), DATES))


@settings(max_examples=30, deadline=None)
@given(small_histories(), st.sampled_from([None, 0, 5]))
def test_law_1_what_becomes_of_an_invoice_later_changes_no_bit(
    histories: dict[str, list[Row]], days: int | None
) -> None:
    def told(row: Row) -> Row:
        fates = {n: None if days is None else DATES[1] + days for n in ("paid", "disputed") if n in row}
        return row | {name: fate for name, fate in fates.items() if row[name] is None or row[name] >= DATES[1]}

    changed = {who: [told(row) for row in rows] for who, rows in histories.items()}
    known = pc.field("as_of") == as_dates(DATES[1:])[0]
    assert same_bits(panel(changed).filter(known), panel(histories).filter(known))


def test_law_1_a_planted_future_column_fails_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    leak = Feature("orders_next_30d", "rfm", "count", "未来", "future", lambda k, _: k.sum("order_count", 30, -30))
    monkeypatch.setattr(catalogue, "CATALOGUE", (*catalogue.CATALOGUE, leak))
    with pytest.raises(ValueError, match="order_count"):
        snapshot(as_batches([make_row("a", FIRST_DAY, 1, 1)]), DATES)


# 2. One record = the batch; order and chunking change nothing.


@settings(max_examples=30, deadline=None)
@given(small_histories(), st.lists(st.integers(1, 7), min_size=1, max_size=4), st.integers(0, 99))
def test_law_2_order_and_chunking_change_no_bit(histories: dict[str, list[Row]], sizes: list[int], seed: int) -> None:
    rows = all_rows(histories)
    random.Random(seed).shuffle(rows)  # noqa: S311 test data
    assert same_bits(snapshot(as_batches(rows, sizes), DATES), panel(histories))


@settings(max_examples=30, deadline=None)
@given(small_histories())
def test_law_2_one_customer_alone_is_the_same(histories: dict[str, list[Row]]) -> None:
    alone = [panel({customer: rows}) for customer, rows in histories.items()]
    assert same_bits(pa.concat_tables(alone).combine_chunks(), panel(histories))


# 4. Scaling the currency scales amounts and nothing else.


def scaled(histories: dict[str, list[Row]], factor: int) -> dict[str, list[Row]]:
    money = ("amount", "cost", "discount", "acquisition_cost", "paid_amount")

    def times(row: Row) -> Row:
        return row | {name: row[name] * factor for name in money if row.get(name) is not None}

    return {who: [times(row) for row in rows] for who, rows in histories.items()}


@settings(max_examples=30, deadline=None)
@given(small_histories(), st.sampled_from([2, 8, 1024]))
def test_law_4_a_power_of_two_scales_every_bit(histories: dict[str, list[Row]], factor: int) -> None:
    before, after = panel(histories), panel(scaled(histories, factor))
    assert same_bits(before.select(OTHERS), after.select(OTHERS))
    for name in AMOUNTS:
        np.testing.assert_array_equal(after[name].to_numpy(), before[name].to_numpy() * factor)


@settings(max_examples=30, deadline=None)
@given(small_histories(), st.sampled_from([3, 7, 100]))
def test_law_4_any_factor_scales_amounts(histories: dict[str, list[Row]], factor: int) -> None:
    before, after = panel(histories), panel(scaled(histories, factor))
    for name in OTHERS[2:]:
        np.testing.assert_allclose(after[name].to_numpy(), before[name].to_numpy(), rtol=1e-9, atol=1e-9)
    for name in AMOUNTS:
        np.testing.assert_allclose(after[name].to_numpy(), before[name].to_numpy() * factor, rtol=1e-12, atol=1e-9)
