"""Names of segments in words: distinct, kept through refits, in both languages; and rules that hold what they say."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from commands import Run
from tiermodel.bundle.bundle import load_bundle, save_bundle
from tiermodel.config.project import FeatureGroup, Features
from tiermodel.config.tiers import Segments
from tiermodel.features.catalogue import expand
from tiermodel.features.measures import every_need
from tiermodel.output import to_jsonable
from tiermodel.segments.fit import align_segments, assign_segments, segment_names
from tiermodel.segments.naming import dimension_of, name_segments
from tiermodel.segments.profiles import segment_lines, sorted_profiles
from tiermodel.segments.rules import rule_text, segment_rule
from tiermodel.segments.selection import choose_segments
from tiermodel.words import words
from worlds import TrainedWorld

FEATURES = expand(Features(groups=get_args(FeatureGroup)), every_need())


def habits(shares: tuple[int, ...] = (80, 80, 80), seed: int = 3) -> pd.DataFrame:
    """Draw customers of up to three habits: rare and small, new, frequent with much spend."""
    draw = np.random.default_rng(seed)
    rows = []
    for habit, n in enumerate(shares):
        orders = np.round(np.exp((1.0, 1.2, 4.0)[habit] + draw.normal(0, 0.2, n)))
        rows.append(
            pd.DataFrame({
                "habit": habit,
                "days_since_last": np.round(np.exp((5.0, 2.0, 1.0)[habit] + draw.normal(0, 0.3, n))) + 1,
                "days_since_first": (700.0, 40.0, 650.0)[habit] + draw.integers(0, 30, n),
                "purchase_days_total": orders,
                "net_amount_total": np.round(orders * 20 * np.exp(draw.normal(0, 0.1, n)), 2),
                "order_amount_mean": np.round(20 * np.exp(draw.normal(0, 0.1, n)), 2),
                "gap_days_mean": np.where(draw.random(n) < 0.1, np.nan, (90.0, 9.0, 8.0)[habit]),
            })
        )  # fmt: skip
    frame = pd.concat(rows, ignore_index=True)
    return frame.sample(frac=1, random_state=seed).reset_index(drop=True)


def chosen(frame: pd.DataFrame, k: int = 3, method: Any = "kmeans") -> dict[str, Any]:
    state = choose_segments(Segments(method=method, groups=k), frame.drop(columns="habit"), 7)
    return dict(json.loads(json.dumps(to_jsonable(state), allow_nan=False)))


def named(state: dict[str, Any], frame: pd.DataFrame) -> dict[int, str]:
    """Tell the English name of the segment that most customers of each habit are in."""
    position = assign_segments(state, frame)
    return {
        habit: state["names"][np.bincount(position[frame["habit"] == habit]).argmax()]["en"]
        for habit in sorted(set(frame["habit"]))
    }


def test_names_say_what_sets_a_segment_apart_and_there_are_words_for_every_feature() -> None:
    frame = habits()
    state = chosen(frame)
    assert named(state, frame) == {0: "long silent, low spend", 1: "new", 2: "frequent, recently active"}
    assert {name["zh"] for name in state["names"]} == {"久未购买低额客群", "新近客群", "高频近期活跃客群"}
    for feature in FEATURES:
        dimension = dimension_of(feature.name)
        assert dimension is not None, feature.name
        assert {f"named_{dimension}_high", f"named_{dimension}_low"} <= set(words("zh")), feature.name
    spoken = [words(language)[key] for language in ("zh", "en") for key in words(language) if key.startswith("named_")]
    assert len(set(spoken)) == len(spoken)


MARKS = st.lists(
    st.tuples(
        st.sampled_from(["purchase_days_365d", "net_amount_365d", "days_since_last", "attribute_age", "odd"]),
        st.sampled_from([-2.0, -0.5, 0.5, 2.0]),
    ),
    max_size=3,
)


@given(
    st.lists(st.tuples(st.sampled_from([None, 0, 9, 40]), MARKS), max_size=9), st.sets(st.integers(0, 8), max_size=2)
)
def test_no_two_segments_have_the_same_name_in_either_language(
    drawn: list[tuple[int | None, list[tuple[str, float]]]], places: set[int]
) -> None:
    profiles = [
        {"customers": n, "marks": [{"feature": f, "difference": d} for f, d in sorted(marks, key=lambda m: -abs(m[1]))]}
        for n, marks in drawn
    ]
    old = [{"zh": "高频客群", "en": "frequent"}, {"zh": "一般客群", "en": "average"}]
    kept = {n: name for n, name in zip(sorted(places), old, strict=False) if n < len(profiles)}
    names = name_segments(profiles, kept)
    for language in ("zh", "en"):
        spoken = [name[language] for name in names if name is not None]
        assert len(set(spoken)) == len(spoken)
    for n, name in enumerate(names):
        assert (name is None) == (n not in kept and not profiles[n]["customers"])
    assert [names[n] for n in kept] == list(kept.values())


def test_a_refit_keeps_the_names_of_segments_that_are_recognisably_the_same() -> None:
    old, new = habits((80, 0, 80)), habits((70, 90, 90), seed=5)
    champion = chosen(old[old["habit"] != 1], 2)
    champion["names"] = [{"zh": "甲", "en": "first"}, {"zh": "乙", "en": "second"}]  # as an earlier fit called them
    refit = chosen(new)
    aligned = align_segments(refit, champion, new)
    found = named(aligned, new)
    assert (found[0], found[2]) == ("first", "second")
    assert found[1] == named(refit, new)[1] == "new, infrequent"
    assert len({name["zh"] for name in aligned["names"]}) == 3
    assert align_segments(refit, refit, new) == refit
    unnamed = {key: value for key, value in champion.items() if key != "names"}  # an older bundle
    assert named(align_segments(refit, unnamed, new), new) == named(refit, new)


def met(rule: dict[str, Any], frame: pd.DataFrame) -> pd.Series:
    """Apply a rule row by row, as its text reads."""

    def holds(row: pd.Series, one: dict[str, Any]) -> bool:
        x = row[one["feature"]]
        if np.isnan(x):
            return bool(one["missing"])
        return (one["low"] is None or x > one["low"]) and (one["high"] is None or x <= one["high"])

    return frame.apply(lambda row: any(all(holds(row, one) for one in path) for path in rule["paths"]), axis=1)


@pytest.mark.parametrize(("method", "k"), [("kmeans", 3), ("kmeans", 6), ("gaussian_mixture", 3)])
def test_a_rule_is_short_and_as_precise_as_it_says(method: str, k: int) -> None:
    frame = habits()
    state = chosen(frame, k, method)
    position = assign_segments(state, frame)
    for n, rule in enumerate(state["rules"]):
        inside, told = position == n, met(rule, frame).to_numpy()
        assert rule["precision"] == pytest.approx(inside[told].mean())
        assert rule["recall"] == pytest.approx(told[inside].mean())
        assert 1 <= len(rule["paths"]) <= 2
        assert all(1 <= len(path) <= 3 for path in rule["paths"])
        if k == 3:
            assert min(rule["precision"], rule["recall"]) > 0.9


def test_a_segment_in_two_places_gets_two_paths_and_neighbours_are_joined() -> None:
    frame = pd.DataFrame({"x": np.arange(300.0), "y": 1.0})
    ends = (frame["x"] < 60) | (frame["x"] > 240)  # the tree splits at 240.5, which is told as 240
    rule = segment_rule(frame, ["x", "y"], ends.to_numpy(), 5)
    assert rule is not None
    assert len(rule["paths"]) == 2
    assert (rule["precision"], rule["recall"]) == (1.0, 1.0)
    assert rule_text(rule, {}, "en") == "; rule: x ≤ 59.5; or x > 240 (precision 100%, recall 100%)"
    middle = segment_rule(frame, ["x", "y"], ~ends.to_numpy(), 5)
    assert middle is not None
    assert middle["paths"] == [[{"feature": "x", "low": 59.5, "high": 240.0, "missing": False}]]
    assert segment_rule(frame, ["y"], ends.to_numpy(), 5) is None  # nothing to split on
    assert segment_rule(frame, ["x"], np.ones(300, dtype=np.bool_), 5) is None


def test_small_segments_have_neither_name_nor_rule() -> None:
    frame = habits((80, 0, 3))
    state = chosen(frame, 2)
    assert [profile["customers"] for _, profile in sorted_profiles(state)] == [80, None]
    assert [name is None for name in state["names"]] == [rule is None for rule in state["rules"]] == [False, True]
    assert segment_lines(state, {}, "en")[-1] == "segment_2: fewer than 5 customers"


def test_lines_card_and_command_line_tell_name_and_rule(cli: Run, trained: TrainedWorld) -> None:
    state = trained.trained.bundle.segments
    assert segment_names(state)[0] == "segment_1"  # the code for joins stays
    told = {lang: json.loads(cli("show", "model", trained.bundle, "--language", lang).out) for lang in ("zh", "en")}
    card = (trained.bundle / "card.md").read_text(encoding="utf-8")
    for n, (code, profile) in enumerate(sorted_profiles(state)):
        assert told["en"]["segments"]["profiles"][code]["name"] == profile["name"] == state["names"][n]
        line = told["en"]["segments"]["words"][n + 1]
        assert line.startswith(f"{profile['name']['en']} ({code}): ")
        assert f"(precision {profile['rule']['precision']:.0%}, recall {profile['rule']['recall']:.0%})" in line
        assert f"{profile['name']['zh']}（{code}）" in told["zh"]["segments"]["words"][n + 1]
        assert f"- {line}\n" in card


def test_a_bundle_without_names_still_loads(trained: TrainedWorld, tmp_path: Any) -> None:
    bundle = trained.trained.bundle
    older = {key: value for key, value in bundle.segments.items() if key not in {"names", "rules"}}
    save_bundle(replace(bundle, segments=older), tmp_path / "bundle")
    loaded = load_bundle(tmp_path / "bundle")
    lines = segment_lines(loaded.segments, loaded.features, "en")
    assert lines[1].startswith("segment_1: ")
    assert "rule" not in lines[1]
