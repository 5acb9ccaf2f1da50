"""Stability, weights and new kinds of scheme: laws, and each against plain Python or published figures."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemes_made import FEATURES, LEARNED, LEVELS, RFM, SHARE, SPEND, WINDOWS, fitted, people, scaled
from tiermodel.config.tiers import Downgrade, Stability, Upgrade
from tiermodel.errors import ProjectError
from tiermodel.tiers.fitted_features import fitted_names
from tiermodel.tiers.fitted_scheme import fit_scheme
from tiermodel.tiers.kinds.index_points import points_of
from tiermodel.tiers.schemes.load import load_preset, parse_scheme, preset_names, settle
from tiermodel.tiers.schemes.weights import ahp_weights, consistency_ratio, critic_weights, entropy_weights, thousandths
from tiermodel.tiers.stability.budget import RULES, choose, frontier, keep_budget, trials
from tiermodel.tiers.stability.rule import StabilityState, movement_shares, regrade, replay

BAND = {"up": {"band": 0.1}, "down": {"band": 0.15, "confirmations": 2}}
COMPOSITE: dict[str, Any] = {
    "code": "c", "name_zh": "c", "name_en": "c", "kind": "composite", "levels": LEVELS, "shares": SHARE["shares"],
    "dimensions": [
        {"feature": SPEND, "weight": 0.5}, {"feature": "days_since_last", "weight": 0.3, "better": "lower"},
        {"feature": "gap_days_mean", "weight": 0.2, "better": "lower"},
    ],
}  # fmt: skip
MATRIX: dict[str, Any] = {
    "code": "m", "name_zh": "m", "name_en": "m", "kind": "matrix", "levels": LEVELS,
    "axes": {
        "value": {"name_zh": "v", "name_en": "v", "feature": SPEND, "bins": 2},
        "need": {"name_zh": "n", "name_en": "n", "feature": "product_count", "bins": 2},
    },
    "cells": [
        {"name_zh": "a", "name_en": "a", "level": "top", "scores": {"value": [2], "need": [2]}},
        {"name_zh": "b", "name_en": "b", "level": "mid", "scores": {"value": [2], "need": [1]}},
        {"name_zh": "c", "name_en": "c", "level": "low", "scores": {"value": [1]}},
    ],
}  # fmt: skip
CASCADE: dict[str, Any] = {
    "code": "t", "name_zh": "t", "name_en": "t", "kind": "thresholds", "levels": LEVELS,
    "rules": [
        {"level": "top", "when": [{"feature": SPEND, "top": 0.2}, {"feature": "days_since_last", "at_most": 90}]},
        {"level": "mid", "when": [{"feature": SPEND, "at_least": 50}]},
        {"level": "low"},
    ],
}  # fmt: skip
KINDS = {"share": SHARE, "rfm": RFM, "composite": COMPOSITE, "matrix": MATRIX, "thresholds": CASCADE, "tree": LEARNED}


def steady(data: dict[str, Any], frame: pd.DataFrame) -> Any:
    return fitted({**data, "stability": BAND}, frame)


def months(n: int = 200, dates: int = 6, seed: int = 3) -> pd.DataFrame:
    """Draw customers whose spend wanders, with what followed, at monthly dates."""
    draw = np.random.default_rng(seed)
    base = people(n, seed)
    frames = []
    for k in range(dates):
        noise = draw.lognormal(0, 0.4, n)
        now = base.assign(as_of=np.datetime64("2023-01-01", "s") + np.timedelta64(30 * k, "D"))
        frames.append(
            now.assign(**{SPEND: base[SPEND] * noise, "outcome_value": base[SPEND] * draw.lognormal(0, 0.5, n)})
        )
    return pd.concat(frames, ignore_index=True).sort_values(["customer_id", "as_of"]).reset_index(drop=True)


# stability


@pytest.mark.parametrize("kind", KINDS)
def test_the_span_is_around_the_level_and_constant_input_never_moves(kind: str) -> None:
    frame = people(400)
    scheme = steady(KINDS[kind], frame)
    other = people(300, 9)
    level, _ = scheme.assign(other)
    lowest, highest = scheme.sure_levels(other)
    assert (lowest <= level).all()
    assert (level <= highest).all()
    assert ((lowest < level) | (highest > level)).any()
    again = pd.concat(
        [other.assign(as_of=np.datetime64("2023-01-01", "s") + np.timedelta64(30 * k, "D")) for k in range(5)]
    )
    tier, before = replay(scheme, again)
    np.testing.assert_array_equal(tier, before)


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_band_the_tier_is_the_level(kind: str) -> None:
    panel = months()
    scheme = fitted({**KINDS[kind], "stability": {}}, panel[panel["as_of"] == panel["as_of"].min()])
    tier, level = replay(scheme, panel)
    np.testing.assert_array_equal(tier, level)


@pytest.mark.parametrize("kind", KINDS)
def test_equal_histories_get_equal_tiers_and_order_and_company_change_nothing(kind: str) -> None:
    panel = months(120)
    scheme = steady(KINDS[kind], panel[panel["as_of"] == panel["as_of"].min()])
    twin = panel[panel["customer_id"] == "c00007"].assign(customer_id="twin")
    mixed = pd.concat([twin, panel]).sample(frac=1, random_state=1)
    tier, _ = replay(scheme, mixed)
    mixed = mixed.assign(tier=tier).sort_values("as_of")
    of = {who: rows["tier"].tolist() for who, rows in mixed.groupby("customer_id")}
    assert of["twin"] == of["c00007"]
    alone, _ = replay(scheme, twin)
    assert alone.tolist() == of["twin"]


def by_hand(rule: Stability, levels: list[tuple[int, int, int]], every: int) -> list[int]:
    """Grade one customer date by date as the docstrings say: (lowest, level, highest) of each date."""
    tiers: list[int] = []
    since, wishes = 0, [0]
    for k, (low, level, high) in enumerate(levels):
        if not tiers:
            tiers.append(level)
            continue
        now = tiers[-1]
        wishes.append(1 if low > now else -1 if high < now else 0)
        run = len(list(next(itertools.groupby(reversed(wishes)))[1])) if wishes[-1] else 0
        side = rule.up if wishes[-1] > 0 else rule.down
        allowed = bool(run) and run >= side.confirmations and every * (k - since) >= side.min_stay_days
        if wishes[-1] < 0:
            allowed = allowed and every * (run - 1) >= rule.down.grace_days
        if allowed:
            tiers.append(low if wishes[-1] > 0 else high)
            since, wishes = k, [0]
        else:
            tiers.append(now)
    return tiers


SPANS = st.lists(st.tuples(*[st.integers(0, 3)] * 3).map(lambda t: tuple(sorted(t))), min_size=1, max_size=12)


@settings(max_examples=200, deadline=None)
@given(
    SPANS,
    st.integers(1, 3),
    st.integers(1, 3),
    st.sampled_from([0, 45, 90]),
    st.sampled_from([0, 45, 90]),
    st.sampled_from([0, 30, 60]),
)
def test_grading_is_what_is_written(
    levels: list[tuple[int, int, int]], up: int, down: int, stay_up: int, stay_down: int, grace: int
) -> None:
    rule = Stability(
        up=Upgrade(confirmations=up, min_stay_days=stay_up),
        down=Downgrade(confirmations=down, min_stay_days=stay_down, grace_days=grace),
    )
    state, tiers = StabilityState.new(1), []
    for k, (low, level, high) in enumerate(levels):
        state = regrade(rule, state, np.array([level]), (np.array([low]), np.array([high])), 30 * k)
        tiers.append(int(state.tier[0]))
    assert tiers == by_hand(rule, levels, 30)


def test_movement_is_counted_as_by_hand() -> None:
    customer, day = np.repeat([0, 1, 2], 4), np.tile([0, 30, 60, 90], 3)
    tier = np.array([0, 1, 0, 0, 2, 2, 2, 2, 1, 1, 2, 1])
    moved, back = movement_shares(customer, day, tier)
    assert moved == pytest.approx(4 / 9)
    assert back == pytest.approx(2 / 3)  # three moves have a date after them; two of those go straight back


def test_the_search_keeps_the_budget_and_most_of_the_order() -> None:
    scheme, panel = parse_scheme(SHARE, "test", WINDOWS), months()
    found = trials(scheme, panel, RULES[::7])
    assert found[0].rule is None
    budget = found[0].moved_share / 2
    best = choose(found, budget)
    assert best.moved_share <= budget
    assert best.spearman == max(t.spearman for t in found if t.moved_share <= budget)
    line = frontier(found)
    assert [t.moved_share for t in line] == sorted(t.moved_share for t in line)
    assert [t.spearman for t in line] == sorted(t.spearman for t in line)
    with pytest.raises(ProjectError, match="the calmest moves"):
        choose(found, 1e-6)
    pending_moves = scheme.model_copy(update={"stability": Stability(moved_share=budget)})
    kept = keep_budget(pending_moves, panel).stability
    assert kept is not None
    assert kept.moved_share is None
    assert keep_budget(scheme, panel) == scheme


# weights


def test_saatys_own_example_of_a_hierarchy() -> None:
    matrix = [[1.0, 3.0, 5.0], [1 / 3, 1.0, 3.0], [1 / 5, 1 / 3, 1.0]]
    np.testing.assert_allclose(ahp_weights(matrix), [0.637, 0.258, 0.105], atol=1e-3)
    assert consistency_ratio(matrix) == pytest.approx(0.033, abs=2e-3)
    assert consistency_ratio([[1, 9, 1 / 9], [1 / 9, 1, 9], [9, 1 / 9, 1]]) > 1


def test_entropy_and_critic_are_the_formulas_of_their_papers() -> None:
    x = np.random.default_rng(4).random((50, 3)) ** [1, 2, 5]
    p = x / x.sum(axis=0)
    spread = 1 + (p * np.log(p)).sum(axis=0) / np.log(50)
    np.testing.assert_allclose(entropy_weights(x), spread / spread.sum())
    r = np.asarray(np.corrcoef(x.T))
    told = [x[:, j].std() * sum(1 - r[j, k] for k in range(3)) for j in range(3)]
    np.testing.assert_allclose(critic_weights(x), np.array(told) / sum(told))
    x[:, 1] = 0.5
    assert entropy_weights(x)[1] == critic_weights(x)[1] == 0


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=12))
def test_thousandths_add_up(weights: list[float]) -> None:
    whole = thousandths(weights)
    assert sum(whole) == 1000
    assert min(whole) >= 1
    assert all(abs(w - 1000 * x / sum(weights)) <= 1 + len(whole) / 2 for w, x in zip(whole, weights, strict=True))


# kinds


@pytest.mark.parametrize("missing", ["drop", "worst", "middle"])
def test_points_are_places_among_the_customers_weighed(missing: str) -> None:
    frame = people(150)
    scheme = fitted({**COMPOSITE, "missing": missing}, frame)
    found = points_of(scheme.scheme, scheme.state, frame)  # type: ignore[arg-type]
    for i in range(0, 150, 7):
        parts = []
        for d in COMPOSITE["dimensions"]:
            x, all_ = frame[d["feature"]].iloc[i], frame[d["feature"]].dropna().sort_values().tolist()
            cuts = [all_[max(int(np.ceil((k - 0.5) / 100 * len(all_) - 1e-9)) - 1, 0)] for k in range(1, 101)]
            if np.isnan(x):
                if missing != "drop":
                    parts.append((d["weight"], 0 if missing == "worst" else 50))
                continue
            lower = d.get("better") == "lower"
            parts.append((d["weight"], sum(c > x for c in cuts) if lower else sum(c < x for c in cuts)))
        assert found[i] == pytest.approx(sum(w * p for w, p in parts) / sum(w for w, _ in parts))


@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from([0.01, 1 / 3, 7.77, 12345.678]),
    st.integers(0, 5),
    st.sampled_from(["declared", "entropy", "critic"]),
)
def test_law_4_the_currency_moves_no_tier_of_a_composite(factor: float, seed: int, weights: str) -> None:
    frame = people(200, seed)
    bare = [{k: v for k, v in d.items() if k != "weight"} for d in COMPOSITE["dimensions"]]
    data = COMPOSITE if weights == "declared" else {**COMPOSITE, "weights": weights, "dimensions": bare}
    before = fitted(data, frame).assign(frame)[0]
    np.testing.assert_array_equal(fitted(data, scaled(frame, factor)).assign(scaled(frame, factor))[0], before)


def test_capacity_limits_a_level_and_the_rest_goes_below() -> None:
    capped = [*LEVELS[:2], {**LEVELS[2], "capacity": 30}]
    for data in (SHARE, COMPOSITE):
        frame = people(1000)
        sizes = np.bincount(fitted({**data, "levels": capped}, frame).assign(frame)[0], minlength=3)
        assert 20 <= sizes[2] <= 30
        assert sizes[1] + sizes[2] == pytest.approx(500, abs=15)
    with pytest.raises(ProjectError, match=r"capacity 30 of 'top' cannot be kept: 1000 customers tie at 5"):
        fitted({**SHARE, "levels": capped}, people(1000).assign(**{SPEND: 5.0}))


def test_a_bad_payer_is_held_down_whatever_the_scheme_says() -> None:
    veto = [{"name_zh": "逾期", "name_en": "overdue", "highest": "mid", "when": [{"feature": "overdue", "above": 0}]}]
    frame = people(300).assign(overdue=lambda f: np.where(np.arange(len(f)) % 3 == 0, 9.0, np.nan))
    for data in KINDS.values():
        plain, _ = fitted(data, frame.drop(columns="overdue")).assign(frame)
        scheme = fitted({**data, "veto": veto, "stability": BAND}, frame) if data is not LEARNED else None
        if scheme is None:
            continue
        level, rule = scheme.assign(frame)
        bad = (frame["overdue"] > 0).to_numpy()
        np.testing.assert_array_equal(level, np.where(bad, np.minimum(plain, 1), plain))
        assert scheme.sure_levels(frame)[1][bad].max() <= 1
        codes, words = scheme.explain(frame, rule, FEATURES, "zh")
        assert {words[c] for c in codes[level < plain, 0]} == {"逾期"}


def test_a_cascade_is_read_from_the_top() -> None:
    frame = people(500)
    scheme = fitted(CASCADE, frame)
    cut = scheme.state["rules"][0][0]["bound"]
    wanted = [
        2 if spend >= cut and last <= 90 else int(spend >= 50)
        for spend, last in zip(frame[SPEND], frame["days_since_last"], strict=True)
    ]
    assert scheme.assign(frame)[0].tolist() == wanted
    assert (frame[SPEND] >= cut).mean() == pytest.approx(0.2, abs=0.01)


def test_optional_parts_are_left_out_and_alternatives_chosen() -> None:
    scheme, left = settle(load_preset("four_indicators", WINDOWS), people().columns)
    assert left == ["profit_365d", "late_share_365d", "overdue_amount"]
    assert len(scheme.comparisons) == len(scheme.dimensions) == 2  # type: ignore[attr-defined]
    assert scheme.veto == ()
    everything = [*people().columns, "margin_365d", "late_share_365d", "overdue_amount"]
    scheme, left = settle(load_preset("four_indicators", WINDOWS), everything)
    assert (left, [d.feature for d in scheme.dimensions]) == (  # type: ignore[attr-defined]
        [], [SPEND, "margin_365d", "late_share_365d", "recent_rate_60d"],
    )  # fmt: skip


def replaced(data: dict[str, Any], **change: Any) -> dict[str, Any]:
    return {**data, **change}


BROKEN: list[tuple[dict[str, Any], str]] = [
    (replaced(MATRIX, cells=MATRIX["cells"][:2]), "value 1 need 1 belongs to no cell"),
    (replaced(MATRIX, cells=[*MATRIX["cells"], MATRIX["cells"][0]]), r"value 2 need 2 belongs to 2 cells \(a, a\)"),
    (
        replaced(MATRIX, cells=[*MATRIX["cells"][:2], {**MATRIX["cells"][2], "scores": {"size": [1]}}]),
        "'c' scores 'size'",
    ),
    (replaced(MATRIX, cells=[], combine={"rule": "sum", "at_least": {"mid": 3, "top": 9}}), "reaches 'top'"),
    (replaced(MATRIX, combine={"rule": "sum", "at_least": {"mid": 3, "top": 4}}), "either cells or a rule"),
    (replaced(CASCADE, rules=CASCADE["rules"][:2]), "the last rule has conditions"),
    (replaced(CASCADE, rules=CASCADE["rules"][::-1]), r"rule 1 \(low\) takes everybody"),
    (
        replaced(CASCADE, rules=[CASCADE["rules"][1], CASCADE["rules"][0], CASCADE["rules"][2]]),
        "write the highest level first",
    ),
    (
        replaced(
            CASCADE, rules=[{"level": "top", "when": [{"feature": SPEND, "at_least": 40}]}, *CASCADE["rules"][1:]]
        ),
        r"rule 2 \(mid\) is never met: rule 1 \(top\) takes all",
    ),
    (replaced(CASCADE, rules=[CASCADE["rules"][0], CASCADE["rules"][2]]), "no rule goes to 'mid'"),
    (replaced(COMPOSITE, dimensions=COMPOSITE["dimensions"][:2]), "weights add up to 0.8, not 1"),
    (replaced(COMPOSITE, weights="entropy"), "has a weight, but weights are found by entropy"),
    (replaced(COMPOSITE, shares=None, points={"mid": 60, "top": 40}), "'top' starts at 40, not above 'mid' at 60"),
    (
        replaced(SHARE, key_share=0.3, levels=[*LEVELS[:2], {**LEVELS[2], "key": True}]),
        "hold 0.2 of the customers, not 0.3",
    ),
    (replaced(SHARE, levels=[{**LEVELS[0], "capacity": 9}, *LEVELS[1:]]), "'low' cannot have a capacity"),
    (
        replaced(MATRIX, levels=[*LEVELS[:2], {**LEVELS[2], "capacity": 9}]),
        "capacity, and nothing says who comes first",
    ),
    (replaced(SHARE, stability={"moved_share": 0.1, "up": {"band": 0.1}}), "moved_share picks the rules"),
]


@pytest.mark.parametrize(("data", "words"), BROKEN)
def test_a_broken_scheme_is_refused_and_the_cell_named(data: dict[str, Any], words: str) -> None:
    with pytest.raises(ProjectError, match=words):
        parse_scheme(data, "test", WINDOWS)


def test_contradicting_comparisons_are_refused() -> None:
    bare = [{k: v for k, v in d.items() if k != "weight"} for d in COMPOSITE["dimensions"]]
    for matrix, words in (
        ([[1, 5, 0.2], [0.2, 1, 5], [5, 0.2, 1]], "contradict each other"),
        ([[1, 3, 5], [1, 1, 3], [0.2, 0.333, 1]], "one must be 1 over the other"),
    ):
        data = replaced(COMPOSITE, weights="ahp", comparisons=matrix, dimensions=bare)
        with pytest.raises(ProjectError, match=words):
            parse_scheme(data, "test", WINDOWS)


@pytest.mark.parametrize("name", preset_names())
def test_reasons_are_conditions_that_the_customer_meets(name: str) -> None:
    frame = people(200)
    scheme = fit_scheme(load_preset(name, WINDOWS), frame, frame, 7)
    _, rule = scheme.assign(frame)
    codes, words = scheme.explain(frame, rule, FEATURES, "en")
    frame = scheme.with_fitted_features(frame)
    named = {**{name: f.en for name, f in FEATURES.items()}, **{name: f.en for name, f in fitted_names().items()}}
    by_name = sorted(named, key=lambda name: -len(named[name]))
    checked = 0
    for i in range(0, 200, 11):
        for word in (words[c] for c in codes[i] if words[c]):
            feature = next((name for name in by_name if word.startswith(named[name] + " ")), None)
            if feature is None or feature not in frame:
                continue  # the points of a composite axis
            x, checked = frame[feature].iloc[i], checked + 1
            said = word.removeprefix(named[feature]).replace(" or missing", "").replace(",", "").split(" and ")
            if np.isnan(x):
                assert "missing" in word
                continue
            for bound in (b.split() for b in said if "not missing" not in b):
                assert {
                    ">": x > float(bound[1]),
                    "≥": x >= float(bound[1]),
                    "<": x < float(bound[1]),
                    "≤": x <= float(bound[1]),
                }[bound[0]]
    assert checked > 5 or name in {"kaism", "vip_cascade"}  # points only; and here everybody is in the lowest level
