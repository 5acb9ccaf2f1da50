"""Every feature of the catalogue against the oracle, and the catalogue against itself."""

from __future__ import annotations

import math
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from histories import (
    COLUMNS,
    FIRST_DAY,
    GROUPS,
    LAST_DAY,
    WINDOWS,
    Row,
    all_rows,
    as_batches,
    random_histories,
    small_histories,
    snapshot,
)
from oracle import agree, features_of, spent_by
from tiermodel.config.project import Features
from tiermodel.features.catalogue import CATALOGUE, CORE, expand
from tiermodel.features.formula import Feature, needs_of
from tiermodel.features.stream import Request
from tiermodel.tables.table import EPOCH

CHOSEN = Features(groups=GROUPS, windows_days=WINDOWS, attributes=("size",))
FEATURES = {feature.name: feature for feature in expand(CHOSEN, COLUMNS)}
DAYS = (
    FIRST_DAY,
    FIRST_DAY + 1,
    FIRST_DAY + 6,
    FIRST_DAY + 100,
    FIRST_DAY + 216,
    17_500,
    17_700,
    LAST_DAY + 1,
    LAST_DAY + 400,
)
Answers = dict[tuple[str, int], dict[str, float]]


def expected(histories: dict[str, list[Row]], days: tuple[int, ...]) -> Answers:
    answers = {(who, day): features_of(rows, day, WINDOWS) for who, rows in histories.items() for day in days}
    return {key: values for key, values in answers.items() if values is not None}


def given_by_pass(histories: dict[str, list[Row]], days: tuple[int, ...]) -> Answers:
    rows = snapshot(as_batches(all_rows(histories)), days).to_pylist()
    return {(row.pop("customer_id"), (row.pop("as_of") - EPOCH).days): row for row in rows}


@cache
def both() -> tuple[dict[str, list[Row]], Answers, Answers]:
    histories = random_histories(seed=11, customers=84)
    return histories, given_by_pass(histories, DAYS), expected(histories, DAYS)


def test_the_same_customers_are_known_at_the_same_dates() -> None:
    _, found, wanted = both()
    assert list(found) == sorted(wanted)
    assert len(wanted) > 250


def test_the_oracle_knows_the_same_features() -> None:
    _, _, wanted = both()
    assert set(next(iter(wanted.values()))) == set(FEATURES)


@pytest.mark.parametrize("name", FEATURES)
def test_feature_equals_the_oracle(name: str) -> None:
    histories, found, wanted = both()
    wrong = [
        (key, found[key][name], wanted[key][name])
        for key in wanted
        if not agree(FEATURES[name], found[key][name], wanted[key][name], spent_by(histories[key[0]]))
    ]
    assert not wrong


@pytest.mark.parametrize("name", FEATURES)
def test_feature_takes_several_values(name: str) -> None:
    _, _, wanted = both()
    assert len({values[name] for values in wanted.values() if not math.isnan(values[name])}) > 1


@settings(max_examples=60, deadline=None)
@given(small_histories(), st.integers(0, 80), st.integers(1, 40))
def test_features_equal_the_oracle_on_small_histories(histories: dict[str, list[Row]], day: int, step: int) -> None:
    days = (FIRST_DAY + day, FIRST_DAY + day + step)
    found, wanted = given_by_pass(histories, days), expected(histories, days)
    assert list(found) == sorted(wanted)
    wrong = [
        (key, name, found[key][name], value)
        for key, values in wanted.items()
        for name, value in values.items()
        if not agree(FEATURES[name], found[key][name], value, spent_by(histories[key[0]]))
    ]
    assert not wrong


def test_catalogue_is_a_dictionary_in_two_languages() -> None:
    names = [feature.name for feature in CATALOGUE]
    assert len(set(names)) == len(names)
    for feature in CATALOGUE:
        assert ("{w}" in feature.name) == ("{w}" in feature.zh) == ("{w}" in feature.en), feature.name
        assert any("一" <= letter <= "鿿" for letter in feature.zh), feature.name
        assert feature.en.isascii(), feature.name
        assert feature.name.isidentifier() or "{w}" in feature.name


@pytest.mark.parametrize("unit", ["days", "count", "amount", "share"])
def test_suffix_says_the_unit(unit: str) -> None:
    named = {name: feature.unit for name, feature in FEATURES.items() if name.endswith(f"_{unit}")}
    assert set(named.values()) <= {unit}, named


def test_a_plain_project_has_forty_features() -> None:
    bare = expand(Features(), [])
    assert len(bare) >= 40
    assert not {"margin_30d", "product_count", "category_count", "discount_share"} & {f.name for f in bare}
    assert [
        f.name for f in expand(Features(groups=("value",), windows_days=(30,)), ["cost"]) if f.name.startswith("margin")
    ] == ["margin_30d", "margin_total", "margin_share_30d", "margin_share_total"]
    chosen = expand(Features(groups=("loyalty",), windows_days=(30,)), COLUMNS)
    core = {name.format(w=30) for name in CORE}
    assert {f.name for f in chosen if f.group != "loyalty"} <= core <= {f.name for f in chosen}


def test_requests_are_what_the_formula_reads() -> None:
    change = [FEATURES["order_change_30d"]]
    assert needs_of(change)[0] == (Request("order_count", -30, 0), Request("order_count", -60, -30))
    assert needs_of([FEATURES["net_amount_total"]])[0] == (Request("net_amount", None, 0),)


@pytest.mark.parametrize("span", [{"ago": -1}, {"days": 30, "ago": -30}, {"days": -5}, {"days": 0}])
def test_a_formula_that_looks_past_its_date_is_refused(span: dict[str, int]) -> None:
    leak = Feature("leak", "rfm", "count", "泄漏", "leak", lambda known, _: known.sum("order_count", **span))
    with pytest.raises(ValueError, match="order_count"):
        needs_of([leak])


def test_regular_gaps_have_no_spread() -> None:
    rows = random_histories(seed=3, customers=1)
    table = snapshot(as_batches(all_rows(rows)), [LAST_DAY])
    assert table["gap_days_std"].to_pylist() == [0.0]
    assert table["gap_days_mean"].to_pylist() == [14.0]
