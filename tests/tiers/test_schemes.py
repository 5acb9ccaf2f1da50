"""Schemes as data, frozen cut points and rules: against brute force, one record as the batch, ties alike."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemes_made import (
    DAYS,
    FEATURES,
    LEARNED,
    LEVELS,
    RFM,
    SHARE,
    SHARES,
    SPEND,
    WINDOWS,
    fitted,
    people,
    said,
    scaled,
    with_spend,
)
from tiermodel.config.project import Project
from tiermodel.errors import DataError, ProjectError
from tiermodel.features.condition import Condition, number
from tiermodel.models.learners.readable_tree import round_readable
from tiermodel.segments.fit import assign_segments, fit_segments
from tiermodel.tiers.fitted_scheme import FittedScheme, fit_scheme
from tiermodel.tiers.learned import tree
from tiermodel.tiers.schemes.load import load_preset, load_scheme, parse_scheme, preset_names
from tiermodel.tiers.schemes.scheme_kinds import KINDS
from worlds import small_project

# schemes as data


@pytest.mark.parametrize("windows", [(30,), (30, 90, 180, 365), (7, 730)])
@pytest.mark.parametrize("name", preset_names())
def test_every_preset_loads_for_any_windows_and_survives_a_round_trip(name: str, windows: tuple[int, ...]) -> None:
    scheme = load_preset(name, windows)
    assert scheme.code == name
    assert "{" not in scheme.model_dump_json().replace('{"', "")
    assert parse_scheme(scheme.model_dump(mode="json"), "again", (1,)) == scheme


def without(key: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda data: {k: v for k, v in data.items() if k != key}


def cells(change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> dict[str, Any]:
    return {**RFM, "cells": change([dict(cell) for cell in RFM["cells"]])}


BAD: list[tuple[dict[str, Any] | list[Any] | None, str]] = [
    (cells(lambda c: c[:-1]), "R3 F1 M3 belongs to no cell"),
    (cells(lambda c: [*c, {**c[0], "name_en": "twice", "m": [1]}]), r"R1 F1 M1 belongs to 2 cells \(a, twice\)"),
    (cells(lambda c: [{**c[0], "level": "vip"}, *c[1:]]), "'a' goes to 'vip'"),
    (cells(lambda c: [{**c[0], "r": [0, 1, 2]}, *c[1:]]), "'a' has R0, but scores go from 1 to 3"),
    ({**RFM, "no_purchase": "low"}, "'a' goes to 'low'"),
    ({**RFM, "m": {**RFM["m"], "cuts": [20, 10]}}, r"\[20.0, 10.0\] do not increase"),
    ({**RFM, "m": {**RFM["m"], "cuts": [10, 10]}}, "do not increase"),
    ({**RFM, "m": {**RFM["m"], "cuts": [10]}}, "3 bins need 2 cut points, not 1"),
    ({**RFM, "m": {**RFM["m"], "cuts": [10, float("nan")]}}, r"m\.cuts"),
    ({**RFM, "m": {**RFM["m"], "cuts": [10, float("inf")]}}, r"m\.cuts"),
    ({**RFM, "m": {**RFM["m"], "cuts": "kmeans"}}, r"m\.cuts"),
    ({**SHARE, "shares": {**SHARES, "top": 0.3}}, "add up to 1.1, not 1"),
    ({**SHARE, "shares": {"low": 0.5, "top": 0.5}}, r"missing \['mid'\]"),
    ({**SHARE, "shares": {**SHARES, "vip": 0.1}}, r"not a level \['vip'\]"),
    ({**SHARE, "shares": {**SHARES, "low": 0.0}}, r"shares\.low"),
    ({**SHARE, "levels": [*LEVELS[:2], {**LEVELS[2], "code": "low"}]}, "code 'low' is used twice"),
    ({**SHARE, "levels": [*LEVELS[:2], {**LEVELS[2], "name_zh": "low"}]}, "name_zh 'low' is used twice"),
    ({**SHARE, "levels": [{**LEVELS[0], "key": True}, *LEVELS[1:]]}, "'low' is a key level but a higher level is not"),
    ({**SHARE, "levels": [{**LEVELS[0], "code": "A B"}, *LEVELS[1:]]}, r"levels\.0\.code"),
    ({**SHARE, "no_purchase": "none"}, "no_purchase: 'none' is not a level; levels are low, mid, top"),
    ({**SHARE, "colour": "red"}, "colour"),
    (without("feature")(SHARE), "feature: Field required"),
    (without("kind")(SHARE), "kind"),
    ({**LEARNED, "shares": None}, "target future_value needs a share"),
    ({**LEARNED, "target": "clusters"}, "leave shares out"),
    ({**LEARNED, "max_leaves": 2}, "2 leaves cannot make 3 levels"),
    ([SHARE], "test: "),
    (None, "test: "),
]


@pytest.mark.parametrize(("data", "words"), BAD)
def test_a_scheme_that_does_not_hold_together_is_refused_by_name(data: Any, words: str) -> None:
    with pytest.raises(ProjectError, match=words):
        parse_scheme(data, "test", WINDOWS)


def test_a_scheme_is_a_preset_a_file_or_the_data_itself(tmp_path: Path) -> None:
    def project(scheme: Any) -> Project:
        made = small_project(tmp_path / "rows.parquet", tiers={"scheme": scheme})
        return made.model_copy(update={"folder": tmp_path})

    (tmp_path / "mine.yaml").write_text(
        'code: mine\nname_zh: 我\nname_en: mine\nkind: share\nfeature: "net_amount_{longest}d"\n'
        "levels: [{code: a, name_zh: 甲, name_en: a}, {code: b, name_zh: 乙, name_en: b}]\nshares: {a: 0.8, b: 0.2}\n"
    )
    assert load_scheme(project("mine.yaml")).model_dump()["feature"] == SPEND
    assert load_scheme(project(SHARE)) == parse_scheme(SHARE, "test", WINDOWS)
    assert load_scheme(project("rfm")).kind == "rfm"
    with pytest.raises(ProjectError, match=r"pyramid.*rfm.*nor a file at .*piramid"):
        load_scheme(project("piramid"))
    (tmp_path / "bad.yaml").write_text("code: [")
    with pytest.raises(ProjectError, match=r"bad\.yaml"):
        load_scheme(project("bad.yaml"))


def test_a_feature_that_is_not_there_is_named() -> None:
    with pytest.raises(ProjectError, match=r"'net_amount_9d' is not built; there are days_since_last"):
        fitted({**SHARE, "feature": "net_amount_9d"}, people())
    with pytest.raises(ProjectError, match="outcome_value"):  # never ranked by what is not known yet
        fitted({**SHARE, "feature": "outcome_value"}, people())
    with pytest.raises(DataError, match="none of 30 customers has bought"):
        fitted(SHARE, people(30, prospects=30))
    with pytest.raises(DataError, match="no customer has a 'gap_days_mean'"):
        fitted({**SHARE, "feature": "gap_days_mean"}, people().assign(gap_days_mean=np.nan))
    with pytest.raises(DataError, match="too few to learn 8 leaves"):
        fitted(LEARNED, people(15))


# share


def wanted_by_count(values: list[float]) -> list[int]:
    """Rank by hand: a customer is in the top levels if fewer than the share spend more; ties go to the nearer side."""
    n = len(values)

    def inside(share: float) -> list[bool]:
        sizes = sorted({sum(v >= cut for v in values) for cut in values})
        size = next(s for s in sizes if s >= share * n - 1e-9)
        block = sum(v == sorted(values, reverse=True)[size - 1] for v in values)
        if block > 1 and size > block and share * n - (size - block) < size - share * n - 1e-9:
            size -= block
        lowest = sorted(values, reverse=True)[size - 1]
        return [v >= lowest for v in values]

    top, above_low = inside(0.2), inside(0.5)
    return [2 if t else int(m) for t, m in zip(top, above_low, strict=True)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-3, 40).map(float), min_size=1, max_size=40))
def test_shares_of_customers_are_those_counted_by_hand(values: list[float]) -> None:
    frame = with_spend(values)
    assert fitted(SHARE, frame).assign(frame)[0].tolist() == wanted_by_count(values)


def test_shares_are_met_where_nothing_ties() -> None:
    frame = with_spend(list(np.random.default_rng(0).permutation(1000) + 0.25))
    level, rule = fitted(SHARE, frame).assign(frame)
    assert np.bincount(level).tolist() == [500, 300, 200]
    np.testing.assert_array_equal(level, rule)


def test_many_ties_leave_no_level_to_those_who_spent_nothing() -> None:
    frame = with_spend([0.0] * 60 + list(range(1, 41)))
    assert np.bincount(fitted(SHARE, frame).assign(frame)[0]).tolist() == [60, 20, 20]


def test_shares_of_value_stop_where_the_cumulated_value_does() -> None:
    frame = with_spend([50.0, 30.0, 10.0, 6.0, 4.0, -20.0])
    level, _ = fitted({**SHARE, "of": "value", "shares": {"low": 0.05, "mid": 0.15, "top": 0.8}}, frame).assign(frame)
    assert level.tolist() == [2, 2, 1, 1, 0, 0]


@pytest.mark.parametrize("data", [SHARE, {**SHARE, "of": "value"}, RFM])
def test_twenty_identical_customers_share_a_level(data: dict[str, Any]) -> None:
    frame = pd.concat([people(40), *([people(1, seed=5)] * 20)], ignore_index=True)
    level, rule = fitted(data, frame).assign(frame)
    assert len(set(level[40:])) == 1
    assert len(set(rule[40:])) == 1
    alike = pd.concat([people(1)] * 20, ignore_index=True)
    assert len(set(fitted(data, alike).assign(alike)[0])) == 1


def test_cut_points_are_the_roundest_numbers_between_neighbours_and_read_as_applied() -> None:
    frame = with_spend([12345.67, 12345.66, 700.0, 300.0, 1.0])
    scheme = fitted({**SHARE, "shares": {"low": 0.6, "mid": 0.2, "top": 0.2}}, frame)
    assert scheme.state["cuts"] == [10000.0, 12345.67]
    assert scheme.assign(frame)[0].tolist() == [2, 1, 0, 0, 0]
    assert scheme.rules(FEATURES, "en")[0] == "top (top): net amount of the last 365 days ≥ 12,345.67"


def test_without_a_value_nobody_is_on_top() -> None:
    frame = people().assign(gap_days_mean=lambda f: f["gap_days_mean"])
    alone = frame["gap_days_mean"].isna().to_numpy()
    share = fitted({**SHARE, "feature": "gap_days_mean"}, frame)
    assert set(share.assign(frame)[0][alone]) == {0}
    assert "or missing" in share.rules(FEATURES, "en")[-1]
    rfm = fitted({**RFM, "m": {"feature": "gap_days_mean", "bins": 3}}, frame)
    assert set(rfm.assign(frame)[1][alone] % 3) == {0}


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 5), st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=2, unique=True))
def test_more_spend_is_never_a_lower_level(seed: int, pair: list[float]) -> None:
    for data in (SHARE, {**SHARE, "of": "value"}, RFM):
        scheme = fitted(data, people(80, seed))
        twins = pd.concat([people(1)] * 2, ignore_index=True).assign(**{SPEND: sorted(pair)})
        lower, higher = scheme.assign(twins)[0]
        assert lower <= higher


# RFM


def scores_by_hand(values: np.ndarray, bins: int, *, lower_is_better: bool) -> list[int]:
    """Score by sorting: the k-th cut is the smallest value that k/bins of the customers do not exceed."""
    cuts = [min(c for c in values if np.mean(values <= c) >= k / bins - 1e-12) for k in range(1, bins)]
    ranks = [sum(v > c for c in cuts) for v in values]
    return [bins - r if lower_is_better else 1 + r for r in ranks]


@settings(max_examples=25, deadline=None)
@given(st.integers(3, 60), st.integers(0, 99))
def test_rfm_scores_are_those_found_by_hand(n: int, seed: int) -> None:
    frame = people(n, seed)
    level, rule = fitted(RFM, frame).assign(frame)
    r = scores_by_hand(frame["days_since_last"].to_numpy(), 3, lower_is_better=True)
    f = scores_by_hand(frame[DAYS].to_numpy(), 3, lower_is_better=False)
    m = scores_by_hand(frame[SPEND].to_numpy(), 3, lower_is_better=False)
    assert rule.tolist() == [(a - 1) * 9 + (b - 1) * 3 + c - 1 for a, b, c in zip(r, f, m, strict=True)]
    assert level.tolist() == [int(a == 3) + int(c == 3) for a, c in zip(r, m, strict=True)]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 60).map(float), min_size=1, max_size=11), st.integers(2, 4))
def test_jenks_breaks_are_the_best_of_all(values: list[float], bins: int) -> None:
    def within(groups: list[np.ndarray]) -> float:
        return sum(float(np.sum((g - g.mean()) ** 2)) for g in groups if g.size)

    x = np.sort(values)
    classes = min(bins, len(np.unique(x)))
    splits = itertools.combinations(range(1, len(x)), classes - 1)
    best = min(within(np.split(x, list(split))) for split in splits)
    cells_ = [{"name_zh": "a", "name_en": "a", "level": "low", "r": [1, 2, 3], "f": [1, 2, 3]}]
    data = {**RFM, "m": {"feature": SPEND, "bins": bins, "cuts": "jenks"}}
    data["cells"] = [{**cells_[0], "m": list(range(1, bins + 1))}]
    frame = with_spend(values)
    score = fitted(data, frame).assign(frame)[1] % bins
    found = within([frame[SPEND].to_numpy()[score == s] for s in range(bins)])
    assert found <= best + 1e-6
    assert len(set(score)) == classes


def test_the_best_score_highest_however_many_tie_below() -> None:
    frame = with_spend([0.0] * 70 + [10.0] * 20 + [99.0] * 10)
    m = fitted({**RFM, "m": {"feature": SPEND, "bins": 3}}, frame).assign(frame)[1] % 3 + 1
    assert m.tolist() == [1] * 70 + [3] * 30


@pytest.mark.parametrize("name", preset_names())
def test_scoring_a_few_again_or_one_alone_changes_nothing(name: str) -> None:
    frame = people(prospects=20)
    scheme = fit_scheme(load_preset(name, WINDOWS), frame, frame, 7)
    level, rule = scheme.assign(frame)
    for rows in ([0], [599], range(100), range(0, 600, 7)):
        again = scheme.assign(frame.iloc[list(rows)].reset_index(drop=True))
        np.testing.assert_array_equal(again[0], level[list(rows)])
        np.testing.assert_array_equal(again[1], rule[list(rows)])
    assert set(level[:20]) == {0}
    assert set(rule[:20]) == {-1}
    np.testing.assert_array_equal(FittedScheme.from_dict(scheme.to_dict()).assign(frame)[0], level)


def test_who_never_bought_is_decided_by_the_rule_alone() -> None:
    levels = [{"code": "prospect", "name_zh": "潜在", "name_en": "prospect"}, *LEVELS]
    frame = people(100, prospects=30)
    level, rule = fitted({**SHARE, "levels": levels, "no_purchase": "prospect"}, frame).assign(frame)
    assert set(level[:30]) == {0}
    assert np.bincount(level[30:]).tolist() == [0, 35, 21, 14]
    codes, words = fitted(SHARE, frame).explain(frame, rule, FEATURES, "en")
    assert [words[c] for c in codes[:30, 0]] == ["no purchase yet"] * 30


# learned, against the rules as people read them


def holds(condition: Condition, x: float) -> bool:
    """Apply one condition as its docstring says."""
    if np.isnan(x):
        return condition.missing
    return condition.low <= x < condition.high if condition.closed_low else condition.low < x <= condition.high


def on_the_edges(frame: pd.DataFrame, scheme: FittedScheme) -> pd.DataFrame:
    """Add customers exactly on every threshold and a hair beside it, and customers without a value."""
    tree, rows = scheme.state["tree"], [frame]
    for name, threshold in zip(tree["feature"], tree["threshold"], strict=True):
        if name is not None:
            beside = (threshold, np.nextafter(threshold, np.inf), np.nextafter(threshold, -np.inf))
            rows += [frame.head(20).assign(**{name: x}) for x in beside]
    rows += [frame.head(50).assign(**{name: np.nan}) for name in scheme.state["may_miss"]]
    return pd.concat(rows, ignore_index=True)


@pytest.mark.parametrize("target", ["future_value", "clusters"])
def test_each_customer_meets_one_rule_and_it_is_the_one_applied(target: str) -> None:
    extra = {"shares": None} if target == "clusters" else {}
    scheme = fitted({**LEARNED, "target": target, **extra}, people(900))
    frame = on_the_edges(people(300, 2), scheme)
    level, rule = scheme.assign(frame)
    rules = tree.conditions(scheme.scheme, scheme.state)  # type: ignore[arg-type]
    assert scheme.state["may_miss"] or target == "future_value"
    for i, (_, row) in enumerate(frame.iterrows()):
        met = [n for n, conditions in enumerate(rules) if all(holds(c, row[c.feature]) for c in conditions)]
        assert met == [rule[i]]
        assert level[i] == scheme.state["level"][rule[i]]


@pytest.mark.parametrize("data", [SHARE, RFM, LEARNED, {**SHARE, "feature": "gap_days_mean"}])
def test_what_is_printed_is_what_is_applied(data: dict[str, Any]) -> None:
    scheme = fitted(data, people(400))
    lines, printed = scheme.rules(FEATURES, "en"), {}
    for n, conditions in enumerate(KINDS[data["kind"]].conditions(scheme.scheme, scheme.state)):
        texts = [c.text(FEATURES, "en") for c in conditions]
        if any(": " + " and ".join(texts) in line for line in lines):
            printed[n] = [
                (c.feature, text.removeprefix(FEATURES[c.feature].en))
                for c, text in zip(conditions, texts, strict=True)
            ]
    assert len(printed) == len(lines)
    frame = people(200, 3)
    _, rule = scheme.assign(frame)
    for i, (_, row) in enumerate(frame.iterrows()):
        met = [n for n, said_ in printed.items() if all(said(words, row[name]) for name, words in said_)]
        assert met == [rule[i]]


def test_no_printed_rule_is_one_that_nobody_can_meet() -> None:
    frame = with_spend([0.0] * 70 + [10.0] * 20 + [99.0] * 10)
    lines = fitted({**RFM, "m": {"feature": SPEND, "bins": 3}}, frame).rules(FEATURES, "en")
    bounds = [line.split("365 days ")[-1] for line in lines]
    assert set(bounds) == {"≤ 0", "> 0"}


def test_levels_are_ordered_by_the_value_that_followed() -> None:
    frame = people(2000)
    scheme = fitted(LEARNED, frame)
    level, _ = scheme.assign(frame)
    means = [frame["outcome_value"][level == k].mean() for k in range(3)]
    assert means == sorted(means)
    leaves = sorted(zip(scheme.state["level"], (leaf["value_mean"] for leaf in scheme.state["leaves"]), strict=True))
    assert [value for _, value in leaves] == pytest.approx(sorted(value for _, value in leaves))
    np.testing.assert_allclose(np.bincount(level) / len(level), list(SHARES.values()), atol=0.12)
    assert sum(leaf["support"] for leaf in scheme.state["leaves"]) == pytest.approx(1)


def test_clusters_are_numbered_by_spend() -> None:
    frame = people(500)
    state = fit_segments(frame, 4, 7)
    segment = assign_segments(state, frame)
    means = [frame["net_amount_total"][segment == k].mean() for k in range(4)]
    assert means == sorted(means)
    alone = [int(assign_segments(state, frame.iloc[[i]])[0]) for i in range(0, 500, 25)]
    assert alone == segment[::25].tolist()


# laws


@settings(max_examples=20, deadline=None)
@given(st.sampled_from([0.01, 1 / 3, 2, 7.77, 100, 12345.678]), st.integers(0, 9))
def test_law_4_the_currency_moves_no_tier_of_share_and_rfm(factor: float, seed: int) -> None:
    frame = people(200, seed)
    jenks = {**RFM, "m": {**RFM["m"], "cuts": "jenks"}}
    for data in (SHARE, {**SHARE, "of": "value"}, RFM, jenks):
        before = fitted(data, frame).assign(frame)[0]
        np.testing.assert_array_equal(fitted(data, scaled(frame, factor)).assign(scaled(frame, factor))[0], before)


@pytest.mark.parametrize("name", preset_names())
@pytest.mark.parametrize("constant", ["net_amount_total", SPEND, DAYS, "days_since_last", "gap_days_mean", "all"])
def test_law_3_constant_columns_crash_nothing_and_move_nobody(name: str, constant: str) -> None:
    frame = people(120)
    numbers = list(frame.columns.drop(["customer_id", "as_of"]))
    frame[numbers if constant == "all" else [constant]] = np.nan if constant == "gap_days_mean" else 3.0
    scheme = fit_scheme(load_preset(name, WINDOWS), frame, frame, 7)
    level, _ = scheme.assign(frame)
    if constant == "all":
        assert len(set(level)) == 1
    assert scheme.rules(FEATURES, "zh")
    codes, words = scheme.explain(frame, scheme.assign(frame)[1], FEATURES, "zh")
    assert codes.shape == (len(frame), 3)
    assert codes.max() < len(words)
    assert (codes[:, 0] >= 0).all()


@given(st.floats(-1e12, 1e12))
def test_numbers_are_printed_with_every_digit(value: float) -> None:
    assert float(number(value).replace(",", "")) == value
    assert round_readable(value, 17) == pytest.approx(value)


def test_conditions_are_said_in_both_languages() -> None:
    condition = Condition("gap_days_mean", 3, 7.5, missing=True)
    assert condition.text(FEATURES, "en").endswith("> 3 and ≤ 7.5 or missing")
    assert condition.text(FEATURES, "zh").endswith("> 3 且 ≤ 7.5 或缺失")
    assert Condition("unheard_of").text(FEATURES, "en") == "unheard_of not missing"
