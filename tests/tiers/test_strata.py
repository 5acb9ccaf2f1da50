"""Cut points by stratum: whose they are, the laws of tiers within a stratum, SQL, words, reasons, what is refused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemes_made import (
    DAYS,
    LEARNED,
    LEVELS,
    RFM,
    SHARE,
    SHARES,
    SPEND,
    WINDOWS,
    assert_equal_to_scheme,
    fitted,
    people,
    probes,
    scaled,
    tiers_in_duckdb,
)
from tiermodel.config.project import Features
from tiermodel.errors import ProjectError
from tiermodel.features.catalogue import expand
from tiermodel.features.measures import every_need
from tiermodel.tiers.explain.next_tier import ACTIONS, next_tier_actions, tier_thresholds
from tiermodel.tiers.explain.next_tier import changed as after
from tiermodel.tiers.explain.sql import scheme_sql
from tiermodel.tiers.fitted_scheme import FittedScheme
from tiermodel.tiers.schemes.load import load_preset, parse_scheme, preset_names, scheme_data
from tiermodel.tiers.stability.rule import replay

INDUSTRY = "attribute_industry"
FEATURES = {f.name: f for f in expand(Features(windows_days=WINDOWS), {*every_need(), "text_industry"})}
FACTORS = {"制造": 40.0, "金融": 6.0, "o'零售": 1.0, "tiny": 9.0}
STRATA = {"strata": {"by": "industry", "at_least": 50}}
BAND = {"up": {"band": 0.1}, "down": {"band": 0.1}}
VETO = {"name_zh": "否", "name_en": "no", "highest": "mid", "when": [{"feature": "days_since_last", "top": 0.2}]}
DIMENSIONS = [
    {"feature": SPEND},
    {"feature": "days_since_last", "better": "lower"},
    {"feature": "gap_days_mean", "better": "lower"},
]
INDEX = {"weights": "entropy", "dimensions": DIMENSIONS[1:]}
COMPOSITE: dict[str, Any] = {
    "code": "c", "name_zh": "c", "name_en": "c", "kind": "composite", "levels": LEVELS, "shares": SHARES,
    "weights": "entropy", "dimensions": DIMENSIONS,
}  # fmt: skip
MATRIX: dict[str, Any] = {
    "code": "m", "name_zh": "m", "name_en": "m", "kind": "matrix", "levels": LEVELS,
    "axes": {
        "value": {"name_zh": "v", "name_en": "v", "feature": SPEND, "bins": 2, "cuts": "jenks"},
        "need": {"name_zh": "n", "name_en": "n", "bins": 2, "index": INDEX},
    },
    "combine": {"rule": "sum", "at_least": {"mid": 3, "top": 4}},
}  # fmt: skip
CASCADE: dict[str, Any] = {
    "code": "t", "name_zh": "t", "name_en": "t", "kind": "thresholds", "levels": LEVELS,
    "rules": [
        {"level": "top", "when": [{"feature": SPEND, "top": 0.2}, {"feature": "days_since_last", "at_most": 200}]},
        {"level": "mid", "when": [{"feature": DAYS, "top": 0.5}]},
        {"level": "low"},
    ],
}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "share": SHARE, "rfm": RFM, "composite": COMPOSITE, "matrix": MATRIX, "thresholds": CASCADE,
    "veto": {**SHARE, "veto": [VETO]},
}  # fmt: skip


def shop(n: int = 1200, seed: int = 3, prospects: int = 30) -> pd.DataFrame:
    """Draw customers of three industries that differ much in what they spend, a few of a fourth, and some unknown."""
    draw = np.random.default_rng(seed)
    industry = draw.choice(np.array([*FACTORS, None], dtype=object), n, p=[0.3, 0.3, 0.25, 0.02, 0.13])
    frame = people(n, seed, prospects=prospects)
    factor = np.array([FACTORS.get(value, 2.0) for value in industry])
    money = [name for name in frame.columns if "amount" in name]
    frame = frame.assign(**{name: np.round(frame[name] * factor, 2) for name in money})
    return frame.assign(**{INDUSTRY: pd.Series(industry, dtype="str")})


FRAME = shop()
OTHERS = shop(700, 8).assign(customer_id=[f"n{n:05d}" for n in range(700)])
OTHERS.loc[::9, INDUSTRY] = "never seen"


def stratified(kind: str, frame: pd.DataFrame = FRAME, **changes: Any) -> FittedScheme:
    return fitted({**KINDS[kind], **STRATA, **changes}, frame)


def own_rows(frame: pd.DataFrame, value: str | None) -> pd.DataFrame:
    large = list(FACTORS)[:3]
    rows = frame[INDUSTRY] == value if value is not None else ~frame[INDUSTRY].isin(large)
    return frame[rows].reset_index(drop=True)


@pytest.mark.parametrize("kind", ["share", "rfm", "thresholds", "veto"])
def test_each_customer_is_graded_as_by_a_scheme_of_the_own_stratum(kind: str) -> None:
    scheme = stratified(kind)
    assert list(scheme.strata) == sorted(list(FACTORS)[:3])  # not the few of the fourth
    for value in (*scheme.strata, None):
        fit_on = FRAME if value is None else own_rows(FRAME, value)
        alone, rows = fitted(KINDS[kind], fit_on), own_rows(OTHERS, value)
        for found, wanted in zip(scheme.assign(rows), alone.assign(rows), strict=True):
            np.testing.assert_array_equal(found, wanted)
        assert len(rows) > 50


@pytest.mark.parametrize("kind", ["composite", "matrix"])
def test_points_are_the_same_in_every_stratum_and_cut_points_are_not(kind: str) -> None:
    scheme, plain = stratified(kind), fitted(KINDS[kind], FRAME)
    assert scheme.common == plain
    for part in scheme.strata.values():
        same = {"cuts", "weights"} if kind == "composite" else {"points"}
        assert all(part.state[name] == plain.state[name] for name in same)
    starts = [part.state["level_cuts" if kind == "composite" else "cuts"] for part in scheme.strata.values()]
    assert len({json.dumps(one) for one in starts}) == len(starts)
    written = scheme.to_dict()["state"]["strata"]["制造"]["state"]
    assert not {"weights", "points"} & set(written)  # what is common is written once


@pytest.mark.parametrize("kind", ["share", "composite"])
def test_in_every_stratum_levels_hold_their_shares(kind: str) -> None:
    scheme = stratified(kind)
    level, _ = scheme.assign(FRAME)
    bought = FRAME[SPEND].notna().to_numpy()
    for value in scheme.strata:
        mine = level[bought & (FRAME[INDUSTRY] == value).to_numpy()]
        np.testing.assert_allclose(np.bincount(mine, minlength=3) / len(mine), list(SHARES.values()), atol=0.012)
    plain, _ = fitted(KINDS[kind], FRAME).assign(FRAME)
    rich = bought & (FRAME[INDUSTRY] == "制造").to_numpy()
    assert np.mean(plain[rich] == 2) > 0.3  # without strata the top level is the industry's that spends most


@pytest.mark.parametrize("kind", KINDS)
def test_one_customer_is_graded_as_in_the_batch_after_a_round_trip(kind: str) -> None:
    scheme = stratified(kind, stability=BAND)
    again = FittedScheme.from_dict(json.loads(json.dumps(scheme.to_dict())))
    assert again == scheme
    whole = [*scheme.assign(OTHERS), *scheme.sure_levels(OTHERS)]
    order = np.random.default_rng(1).permutation(len(OTHERS))
    shuffled = [*again.assign(OTHERS.iloc[order]), *again.sure_levels(OTHERS.iloc[order])]
    for one, other in zip(whole, shuffled, strict=True):
        np.testing.assert_array_equal(one[order], other)
    for n in range(0, len(OTHERS), 41):
        row = OTHERS.iloc[[n]]
        assert [int(x[0]) for x in (*again.assign(row), *again.sure_levels(row))] == [int(x[n]) for x in whole]


@pytest.mark.parametrize("kind", KINDS)
def test_equal_histories_in_one_stratum_get_equal_tiers(kind: str) -> None:
    numbers = [name for name in FRAME.columns if name not in {"customer_id", "as_of", INDUSTRY}]
    twins = OTHERS.assign(**{name: OTHERS[name].to_numpy()[np.arange(len(OTHERS)) // 2 * 2] for name in numbers})
    twins[INDUSTRY] = OTHERS[INDUSTRY].to_numpy()[np.arange(len(OTHERS)) // 2 * 2]
    level, _ = stratified(kind).assign(twins)
    np.testing.assert_array_equal(level[::2], level[1::2])


@pytest.mark.parametrize("kind", ["share", "rfm", "composite"])
@settings(max_examples=5, deadline=None)
@given(st.sampled_from([2.0, 1024.0, 7.0, 100.0]))
def test_another_currency_leaves_every_tier_as_it_is(kind: str, factor: float) -> None:
    level, _ = stratified(kind).assign(FRAME)
    money = scaled(FRAME, factor)
    np.testing.assert_array_equal(stratified(kind, money).assign(money)[0], level)


@pytest.mark.parametrize("kind", KINDS)
def test_sql_gives_every_row_the_tier_of_the_scheme(kind: str) -> None:
    scheme = stratified(kind)
    odd = probes(scheme, 3_000)
    draw = np.random.default_rng(2)
    values = draw.choice(np.array([*FACTORS, "never seen", "", None], dtype=object), len(odd))
    for frame in (OTHERS, odd.assign(**{INDUSTRY: pd.Series(values, dtype="str")})):
        frame = frame.assign(customer_id=[f"p{n:06d}" for n in range(len(frame))])  # noqa: PLW2901
        assert_equal_to_scheme(tiers_in_duckdb(scheme, frame), scheme, frame)
    for dialect in ("postgres", "spark"):
        assert INDUSTRY in scheme_sql(scheme, dialect)


def test_the_points_of_a_composite_are_written_once_in_sql() -> None:
    assert scheme_sql(stratified("composite")).count("attribute_industry") < 8


@pytest.mark.parametrize("kind", KINDS)
def test_the_band_is_that_of_the_stratum(kind: str) -> None:
    scheme = stratified(kind, stability=BAND)
    level, _ = scheme.assign(OTHERS)
    lowest, highest = scheme.sure_levels(OTHERS)
    assert (lowest <= level).all()
    assert (level <= highest).all()
    for value in scheme.strata:
        mine = (OTHERS[INDUSTRY] == value).to_numpy()
        part = scheme.strata[value].sure_levels(own_rows(OTHERS, value))
        np.testing.assert_array_equal(lowest[mine], part[0])
        np.testing.assert_array_equal(highest[mine], part[1])
        assert (lowest[mine] < highest[mine]).any()
    months = pd.concat([OTHERS.assign(as_of=pd.Timestamp(day)) for day in ("2023-01-01", "2023-02-01", "2023-03-01")])
    constant = months.sort_values(["customer_id", "as_of"], kind="stable").reset_index(drop=True)
    tiers, _ = replay(scheme, constant)
    assert (tiers.reshape(-1, 3) == tiers.reshape(-1, 3)[:, :1]).all()  # constant input never moves a tier


def test_rules_in_words_say_whose_they_are() -> None:
    scheme = stratified("veto")
    for language, whose, others in (
        ("zh", "客户属性 industry 为 制造 ｜ ", "客户属性 industry 为其他值或缺失 ｜ "),
        ("en", "attribute industry is 制造 | ", "attribute industry is another or missing | "),
    ):
        lines = scheme.rules(FEATURES, language)
        own = scheme.strata["制造"].rules(FEATURES, language)
        assert [line for line in lines if line.startswith(whose)] == [whose + line for line in own]
        common = scheme.common.rules(FEATURES, language)
        assert [line for line in lines if line.startswith(others)] == [others + line for line in common]
        assert len(lines) == 4 * len(own)
    bounds = [{"level": "top", "when": [{"feature": SPEND, "above": 9}]},
              {"level": "mid", "when": [{"feature": DAYS, "above": 3}]}]  # fmt: skip
    fixed = {**CASCADE, "rules": [*bounds, {"level": "low"}]}
    same = fitted({**fixed, **STRATA}, FRAME)
    assert same.rules(FEATURES, "zh") == fitted(fixed, FRAME).rules(FEATURES, "zh")  # equal everywhere: written once
    composite = stratified("composite").rules(FEATURES, "zh")
    assert sum(line.startswith("综合得分 = ") for line in composite) == 1


@pytest.mark.parametrize("language", ["zh", "en"])
def test_reasons_are_those_of_the_stratum_and_the_first_names_it(language: str) -> None:
    scheme = stratified("veto")
    level, rule = scheme.assign(OTHERS)
    codes, words = scheme.explain(OTHERS, rule, FEATURES, language)
    first = np.array(words, dtype=object)[codes[:, 0]]
    vetoed = rule == 3
    assert set(first[vetoed]) == {"否" if language == "zh" else "no"}
    for value, part in [*scheme.strata.items(), (None, scheme.common)]:
        rows = (
            np.flatnonzero(OTHERS[INDUSTRY] == value)
            if value
            else np.flatnonzero(~OTHERS[INDUSTRY].isin(list(scheme.strata)))
        )
        bought = rows[(rule[rows] >= 0) & ~vetoed[rows]]
        wanted = part.kind.conditions(part.scheme, part.state)
        told = {"zh": f"（{value}）", "en": f" ({value})"}[language] if value else ""
        assert first[bought].tolist() == [wanted[k][0].text(FEATURES, language) + told for k in rule[bought]]
    assert set(first[rule < 0]) == {"尚未购买" if language == "zh" else "no purchase yet"}
    assert level.max() == 2


@pytest.mark.parametrize("kind", ["composite", "rfm"])
def test_reasons_of_kinds_with_several_conditions(kind: str) -> None:
    scheme = stratified(kind)
    _, rule = scheme.assign(OTHERS)
    codes, words = scheme.explain(OTHERS, rule, FEATURES, "en")
    texts = np.array(words, dtype=object)[codes]
    mine = (OTHERS[INDUSTRY] == "金融").to_numpy() & (rule >= 0)
    assert all(text.endswith(" (金融)") for text in texts[mine, 0])
    assert not any("金融" in text for text in texts[mine, 1:].ravel())


@pytest.mark.parametrize("kind", ["share", "composite", "thresholds"])
def test_what_leads_higher_is_measured_by_the_own_stratum(kind: str) -> None:
    scheme = stratified(kind)
    rows = OTHERS.head(200)
    found = next_tier_actions(scheme, rows, FEATURES, "en")
    assert found["customer_id"].nunique() > 30
    assert not found["feature"].str.startswith("attribute").any()
    now = scheme.assign(rows)[0]
    place = pd.Index(rows["customer_id"]).get_indexer(pd.Index(found["customer_id"]))
    for action in ACTIONS:
        mine = found[found["feature"].str.fullmatch(action.features)]
        at = place[mine.index]
        steps = np.rint(np.abs(mine["change"].to_numpy(dtype=float)) * action.steps).astype(np.int64)
        if len(mine):
            assert (scheme.assign(after(rows.iloc[at], action, steps))[0] > now[at]).all()
            assert (scheme.assign(after(rows.iloc[at], action, steps - 1))[0] <= now[at]).all()
    if kind == "share":
        cuts = {float(cut) for part in (scheme.common, *scheme.strata.values()) for cut in part.state["cuts"]}
        assert tier_thresholds(scheme) == {SPEND: sorted(cuts)}


def test_a_stratum_of_too_few_or_without_a_needed_feature_has_the_cut_points_of_all() -> None:
    few = stratified("share", strata={"by": "industry", "at_least": 400})
    assert few.strata == {}
    plain = fitted(SHARE, FRAME)
    np.testing.assert_array_equal(few.assign(OTHERS)[0], plain.assign(OTHERS)[0])
    assert_equal_to_scheme(tiers_in_duckdb(few, OTHERS.sort_values("customer_id").reset_index(drop=True)), few,
                           OTHERS.sort_values("customer_id").reset_index(drop=True))  # fmt: skip
    assert few.rules(FEATURES, "en") == plain.rules(FEATURES, "en")
    lacking = FRAME.assign(gap_days_mean=FRAME["gap_days_mean"].where(FRAME[INDUSTRY] != "金融"))
    ranked = fitted({**SHARE, **STRATA, "feature": "gap_days_mean"}, lacking)
    assert sorted(ranked.strata) == sorted({"制造", "o'零售"})
    nobody = FRAME.assign(**{INDUSTRY: pd.Series([None] * len(FRAME), dtype="str")})
    np.testing.assert_array_equal(stratified("share", nobody).assign(OTHERS)[0], plain.assign(OTHERS)[0])
    assert [stratified("share").state["strata"][v]["buyers"] for v in ("制造", "金融")] == [
        int((FRAME[SPEND].notna() & (FRAME[INDUSTRY] == v)).sum()) for v in ("制造", "金融")
    ]


def test_what_cannot_be_stratified_is_refused() -> None:
    with pytest.raises(ProjectError, match="a learned scheme has no cut points to find by stratum"):
        parse_scheme({**LEARNED, **STRATA}, "test", WINDOWS)
    capped = [*LEVELS[:2], {**LEVELS[2], "capacity": 9}]
    with pytest.raises(ProjectError, match="'top' has a capacity, which cut points by industry cannot keep"):
        parse_scheme({**SHARE, **STRATA, "levels": capped}, "test", WINDOWS)
    for bad, words in (
        ({"by": "Industry"}, "strata.by"),
        ({"by": "industry", "at_least": 9}, "strata.at_least"),
        ({}, "by"),
    ):
        with pytest.raises(ProjectError, match=words):
            parse_scheme({**SHARE, "strata": bad}, "test", WINDOWS)
    with pytest.raises(ProjectError, match=r"text attribute 'attribute_sector' is not built"):
        stratified("share", strata={"by": "sector"})
    with pytest.raises(ProjectError, match=r"'attribute_industry' is a number, and is read as text"):
        stratified("share", FRAME.assign(**{INDUSTRY: 1.0}))


@pytest.mark.parametrize("name", preset_names())
def test_without_strata_a_scheme_is_written_as_before(name: str) -> None:
    assert "strata" not in json.dumps(scheme_data(load_preset(name, WINDOWS)))


def test_a_scheme_without_strata_is_its_own_only_part() -> None:
    plain = fitted(SHARE, FRAME)
    assert plain.strata == {}
    assert plain.common is plain
    assert plain.rule_count == 3
    assert stratified("share").rule_count == 12
    (part,) = plain.parts(OTHERS)
    assert part[:2] == (None, plain)
