"""Capacity: no more customers than places at every grading, the order in which they fill, what a scheme may say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemes_made import LEARNED, LEVELS, RFM, SHARE, SPEND, WINDOWS, fitted, people
from tiermodel.errors import DataError, ProjectError
from tiermodel.tiers.capacity import Claims, LevelPlaces, capacity_at_fit, capacity_lines, fill_levels, lots_of
from tiermodel.tiers.schemes.load import parse_scheme, scheme_data

CODES = 5  # tiers 0 to 4
TEAM = {"managers": 3, "customers_per_manager": 4}


@st.composite
def lines(draw: st.DrawFn) -> tuple[Claims, list[int], dict[int, int], float]:
    """Draw customers with ties in priority, overrides and tiers held before, and levels with few places."""
    n = draw(st.integers(0, 40))
    levels = draw(st.sampled_from([[0, 1, 2, 3, 4], [1, 2, 3, 4], [0, 1, 3, 4]]))  # the one left out: no purchase
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    priority = rng.integers(0, draw(st.sampled_from([2, 8, 1000])), n).astype(np.float64)
    priority[rng.random(n) < 0.1] = np.nan
    claims = Claims(
        rng.integers(0, CODES, n),
        rng.integers(-1, CODES, n),
        priority,
        rng.permutation(n).astype(np.uint64),
        rng.random(n) < draw(st.sampled_from([0.0, 0.2])),
    )
    capped = draw(st.sets(st.sampled_from(levels[1:])))
    places = {level: draw(st.integers(1, 8)) for level in sorted(capped)}
    return claims, levels, places, draw(st.sampled_from([0.0, 0.05, 0.3]))


def in_plain_python(claims: Claims, levels: list[int], places: dict[int, int], band: float) -> list[int]:
    """Fill the levels as the docstring says it, customer by customer."""
    people = range(len(claims.tier))
    tier = [int(t) for t in claims.tier]
    known = [p for p in claims.priority if p == p]  # noqa: PLR0124  NaN
    steps = round(band * len(known))

    def ahead(i: int) -> int:
        mine = claims.priority[i]
        return len(known) if mine != mine else sum(other > mine for other in known)  # noqa: PLR0124

    def there(i: int, level: int) -> bool:
        held = int(claims.held[i])
        return held in levels and held >= level

    for level, below in zip(reversed(levels[1:]), reversed(levels[:-1]), strict=True):
        if level not in places:
            continue
        fixed = [i for i in people if tier[i] == level and claims.fixed[i]]
        waiting = [i for i in people if tier[i] == level and not claims.fixed[i]]

        def turn(i: int, level: int = level) -> tuple[int, bool, int, int]:
            old = there(i, level)
            return ahead(i) - steps * old, not old, -int(claims.tier[i]), int(claims.lot[i])

        free = max(0, places[level] - len(fixed))
        for i in sorted(waiting, key=turn)[free:]:
            tier[i] = below
    return tier


@given(lines())
def test_levels_fill_as_in_plain_python(line: tuple[Claims, list[int], dict[int, int], float]) -> None:
    tier, _ = fill_levels(*line)
    assert tier.tolist() == in_plain_python(*line)


@given(lines())
def test_no_level_has_more_customers_than_places_except_by_hand(
    line: tuple[Claims, list[int], dict[int, int], float],
) -> None:
    claims, levels, places, _ = line
    tier, found = fill_levels(*line)
    for level, most in places.items():
        here = tier == level
        assert here.sum() <= max(most, np.count_nonzero(here & claims.fixed))
    assert [level.tier for level in found] == sorted(places, reverse=True)
    for filled in found:
        assert filled.asked - filled.no_place == np.count_nonzero(tier == filled.tier)
        assert filled.no_place == max(0, filled.asked - max(filled.places, filled.fixed))
    np.testing.assert_array_equal(tier[claims.fixed], claims.tier[claims.fixed])
    outside = ~np.isin(claims.tier, levels)
    np.testing.assert_array_equal(tier[outside], claims.tier[outside])


@given(lines())
def test_nobody_is_moved_up_and_without_a_capacity_nothing_changes(
    line: tuple[Claims, list[int], dict[int, int], float],
) -> None:
    claims, levels, _, band = line
    assert (fill_levels(*line)[0] <= claims.tier).all()
    tier, found = fill_levels(claims, levels, {}, band)
    np.testing.assert_array_equal(tier, claims.tier)
    assert found == []


@given(lines(), st.randoms(use_true_random=False))
def test_the_order_of_the_rows_changes_nothing(line: tuple[Claims, list[int], dict[int, int], float], lot: Any) -> None:
    claims, levels, places, band = line
    order = list(range(len(claims.tier)))
    lot.shuffle(order)
    at = np.array(order, dtype=np.int64)
    mixed = Claims(*(getattr(claims, name)[at] for name in Claims.__annotations__))
    tier, found = fill_levels(*line)
    again, found_again = fill_levels(mixed, levels, places, band)
    np.testing.assert_array_equal(again, tier[at])
    assert found_again == found


@given(lines())
def test_of_equals_the_one_with_the_higher_priority_is_never_below(
    line: tuple[Claims, list[int], dict[int, int], float],
) -> None:
    claims, *_ = line
    tier, _ = fill_levels(*line)
    free = np.flatnonzero(~claims.fixed)
    for i in free:
        alike = free[(claims.tier[free] == claims.tier[i]) & (claims.held[free] == claims.held[i])]
        assert (tier[alike[claims.priority[alike] < claims.priority[i]]] <= tier[i]).all()


def claims_of(priority: list[float], held: list[int]) -> Claims:
    """Give everybody tier 1, whose holders before are told by `held`; lots in the order of the rows."""
    n = len(priority)
    lots = np.arange(n, dtype=np.uint64)
    return Claims(np.ones(n, dtype=np.int64), np.array(held), np.array(priority), lots, np.zeros(n, dtype=np.bool_))


def test_who_is_there_gives_way_only_to_a_newcomer_ahead_by_more_than_the_band() -> None:
    ten = [10.0, 9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0]
    held = [-1, -1, -1, 1, -1, -1, -1, -1, -1, -1]
    newcomers, one_of_each = [0, 1], [0, 3]
    for band, inside, last in (
        (0.0, newcomers, 9.0),
        (0.1, newcomers, 9.0),
        (0.2, one_of_each, 7.0),
        (0.3, one_of_each, 10.0),  # the one at 7 is within the band of everybody, and first in line
    ):
        tier, (level,) = fill_levels(claims_of(ten, held), [0, 1], {1: 2}, band)
        assert np.flatnonzero(tier == 1).tolist() == inside, band
        assert level == LevelPlaces(1, 2, 10, 0, 8, last), band
    tier, _ = fill_levels(claims_of([5.0, 5.0, 5.0], [-1, 0, 1]), [0, 1], {1: 1}, 0.0)
    assert tier.tolist() == [0, 0, 1]  # a tie: who is there stays


def test_whoever_finds_no_place_stands_in_line_at_the_next_level() -> None:
    tier = np.array([2, 2, 2, 1, 1, 0])
    priority = np.array([9.0, 8.0, 3.0, 5.0, 4.0, 7.0])
    claims = Claims(tier, np.full(6, -1), priority, np.arange(6, dtype=np.uint64), np.zeros(6, dtype=np.bool_))
    after, found = fill_levels(claims, [0, 1, 2], {1: 2, 2: 1}, 0.0)
    assert after.tolist() == [2, 1, 0, 1, 0, 0]
    assert found == [LevelPlaces(2, 1, 3, 0, 2, 9.0), LevelPlaces(1, 2, 4, 0, 2, 5.0)]


def test_lots_differ_and_large_levels_fill() -> None:
    rng, n = np.random.default_rng(1), 20_000
    claims = Claims(
        rng.integers(0, 4, n).astype(np.int8), rng.integers(-1, 4, n).astype(np.int8), rng.random(n),
        lots_of(f"c{k}" for k in range(n)), np.zeros(n, dtype=np.bool_),
    )  # fmt: skip
    assert len(np.unique(claims.lot)) == n
    tier, _ = fill_levels(claims, [0, 1, 2, 3], {3: 1000, 2: 4000}, 0.05)
    assert np.bincount(tier).tolist()[2:] == [4000, 1000]


# what a scheme may say

MATRIX_OF_CAPACITY: list[tuple[dict[str, Any], str]] = [
    ({"levels": [*LEVELS[:2], {**LEVELS[2], "managers": 3}]}, "'top' has managers, but not customers_per_manager"),
    ({"levels": [*LEVELS[:2], {**LEVELS[2], "customers_per_manager": 3}]}, "'top' has customers_per_manager, but not"),
    ({"levels": [*LEVELS[:2], {**LEVELS[2], **TEAM, "capacity": 9}]}, "'top' has a capacity, and managers with"),
    ({"levels": [*LEVELS[:2], {**LEVELS[2], **TEAM}]}, r"says who comes first; .*priority: net_amount_\{longest\}d"),
    ({"levels": [{**LEVELS[0], **TEAM}, *LEVELS[1:]], "priority": SPEND}, "'low' cannot have a capacity"),
]


@pytest.mark.parametrize(("change", "words"), MATRIX_OF_CAPACITY)
def test_a_capacity_that_cannot_be_kept_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ProjectError, match=words):
        parse_scheme({**RFM, **change}, "test", WINDOWS)


def test_the_label_to_learn_cannot_say_who_comes_first() -> None:
    labels = {**LEARNED, "target": "labels", "label": "grade", "shares": None, "priority": "attribute_grade"}
    with pytest.raises(ProjectError, match="priority: 'attribute_grade' is the label to learn"):
        parse_scheme(labels, "test", WINDOWS)


def test_a_scheme_that_says_nothing_of_capacity_is_written_as_before() -> None:
    assert not {"priority", "managers", "customers_per_manager", "capacity"} & set(
        str(scheme_data(scheme(RFM))).split("'")
    )
    capped = [*LEVELS[:2], {**LEVELS[2], **TEAM}]
    data = {**RFM, "levels": capped, "priority": SPEND}
    assert scheme_data(parse_scheme(scheme_data(scheme(data)), "again", WINDOWS)) == scheme_data(scheme(data))
    assert scheme(data).capacities == {"low": None, "mid": None, "top": 12}


def scheme(data: dict[str, Any]) -> Any:
    return parse_scheme(data, "test", WINDOWS)


def test_the_feature_of_a_priority_must_be_built_and_known() -> None:
    data = {**RFM, "levels": [*LEVELS[:2], {**LEVELS[2], "capacity": 9}], "priority": "colour"}
    with pytest.raises(ProjectError, match="feature 'colour' is not built"):
        fitted(data, people(100))
    with pytest.raises(DataError, match=f"no customer has a '{SPEND}'"):
        fitted({**data, "priority": SPEND}, people(100).assign(**{SPEND: np.nan}))


def test_the_fit_counts_who_would_find_no_place() -> None:
    frame = people(600, prospects=20)
    shares = fitted({**SHARE, "levels": [*LEVELS[:2], {**LEVELS[2], **TEAM}]}, frame)
    (row,) = capacity_at_fit(shares, frame)
    assert row["no_place"] == 0 < row["asked"] <= row["places"] == 12  # the cut point was moved
    cells = fitted({**RFM, "levels": [*LEVELS[:2], {**LEVELS[2], **TEAM}], "priority": SPEND}, frame)
    (row,) = capacity_at_fit(cells, frame)
    top = frame[cells.assign(frame)[0] == 2]
    assert row == {
        "tier": "top", "places": 12, "asked": len(top), "fixed": 0, "no_place": len(top) - 12,
        "cut": top[SPEND].sort_values(ascending=False).iloc[11],
    }  # fmt: skip
    said = f"{len(top)} customers for them, of whom {len(top) - 12} find none and go to the next lower level"
    assert capacity_lines([row], cells.scheme, "en") == [f"top: 12 places (3 managers × 4 customers each), {said}"]
    assert "12 个名额（3 位客户经理 × 每人 4 位客户）" in capacity_lines([row], cells.scheme, "zh")[0]
    assert capacity_at_fit(fitted(RFM, frame), frame) == []


def test_the_priority_is_the_feature_the_points_or_what_the_scheme_names() -> None:
    frame = people(50, prospects=3)
    named = {**SHARE, "priority": "days_since_first"}
    np.testing.assert_array_equal(fitted(SHARE, frame).priority(frame), frame[SPEND])
    np.testing.assert_array_equal(fitted(named, frame).priority(frame), frame["days_since_first"])
    assert pd.isna(fitted(RFM, frame).priority(frame)).all()
