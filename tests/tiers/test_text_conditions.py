"""Conditions on text attributes: in rules and vetoes, as words, reasons and SQL, and what is refused by name."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from postgres import binaries, postgres
from schemes_made import LEVELS, SHARE, SPEND, WINDOWS, assert_equal_to_scheme, fitted, people, tiers_in_duckdb
from tiermodel.config.project import Features, Project
from tiermodel.errors import DataError, ProjectError
from tiermodel.features.catalogue import expand
from tiermodel.features.measures import every_need
from tiermodel.tiers.categories import unseen_lines
from tiermodel.tiers.explain.next_tier import next_tier_actions, tier_thresholds
from tiermodel.tiers.explain.sql import scheme_sql
from tiermodel.tiers.fitted_scheme import FittedScheme
from tiermodel.tiers.kinds.thresholds import ThresholdScheme
from tiermodel.tiers.schemes.conditions import When
from tiermodel.tiers.schemes.load import load_scheme, parse_scheme, scheme_data

INDUSTRY = "attribute_industry"
FEATURES = {f.name: f for f in expand(Features(windows_days=WINDOWS), {*every_need(), "text_industry"})}
ODD = ['o\'brien & "co"', "back\\slash", "a;b--c", "%_", "换行\n符"]
VALUES = ["制造", "金融", "零售", *ODD]
CASCADE: dict[str, Any] = {
    "code": "t", "name_zh": "t", "name_en": "t", "kind": "thresholds", "levels": LEVELS,
    "rules": [
        {"level": "top", "when": [{"feature": INDUSTRY, "is": ["制造", "金融"]}, {"feature": SPEND, "at_least": 50}]},
        {"level": "mid", "when": [{"feature": INDUSTRY, "is_not": ["零售", ODD[0]]}, {"feature": SPEND, "top": 0.5}]},
        {"level": "low"},
    ],
}  # fmt: skip


def with_industry(n: int = 800, seed: int = 4, prospects: int = 20) -> pd.DataFrame:
    draw = np.random.default_rng(seed)
    values = draw.choice(np.array([*VALUES, None], dtype=object), n)
    return people(n, seed, prospects=prospects).assign(**{INDUSTRY: pd.Series(values, dtype="str")})


FRAME = with_industry()


def changed(**rule: Any) -> dict[str, Any]:
    given = {"feature": INDUSTRY, "is": "制造", **rule}
    when = {key: value for key, value in given.items() if value is not None}
    spend = {"level": "mid", "when": [{"feature": SPEND, "top": 0.5}]}
    return {**CASCADE, "rules": [{"level": "top", "when": [when]}, spend, {"level": "low"}]}


def test_a_rule_takes_the_customers_with_one_of_its_values_and_no_others() -> None:
    scheme = fitted(CASCADE, FRAME)
    level, rule = scheme.assign(FRAME)
    industry, spend = FRAME[INDUSTRY], FRAME[SPEND]
    bought = spend.notna()
    top = industry.isin(["制造", "金融"]) & (spend >= 50)
    bound = scheme.state["rules"][1][1]["bound"]
    mid = industry.notna() & ~industry.isin(["零售", ODD[0]]) & (spend >= bound)
    wanted = np.where(~bought, 0, np.where(top, 2, np.where(mid, 1, 0)))
    np.testing.assert_array_equal(level, wanted)
    np.testing.assert_array_equal(rule, np.where(~bought, -1, 2 - wanted))
    assert min(np.bincount(level)) > 40


def test_missing_and_empty_values_meet_a_condition_only_where_it_says_so() -> None:
    frame = people(6).assign(**{SPEND: 1.0})
    frame[INDUSTRY] = ["制造", "金融", None, np.nan, "", "制造"]
    for given, wanted in (
        ({"is": "制造"}, [1, 0, 0, 0, 0, 1]),
        ({"is": "制造", "missing": True}, [1, 0, 1, 1, 1, 1]),
        ({"is": None, "is_not": "制造"}, [0, 1, 0, 0, 0, 0]),
        ({"is": None, "is_not": ["制造"], "missing": True}, [0, 1, 1, 1, 1, 0]),
    ):
        data = changed(**given)
        data["rules"][1]["when"] = [{"feature": SPEND, "above": 5}]
        scheme = fitted(data, frame)
        assert (scheme.assign(frame)[0] == 2).astype(int).tolist() == wanted
        assert_equal_to_scheme(tiers_in_duckdb(scheme, frame), scheme, frame)


def test_one_customer_is_graded_as_in_the_batch_and_the_scheme_survives_json() -> None:
    scheme = fitted({**CASCADE, "stability": {"up": {"band": 0.1}, "down": {"band": 0.1}}}, FRAME)
    again = FittedScheme.from_dict(json.loads(json.dumps(scheme.to_dict())))
    assert again == scheme
    level, _ = scheme.assign(FRAME)
    alone = [int(again.assign(FRAME.iloc[[n]])[0][0]) for n in range(0, len(FRAME), 7)]
    assert alone == level[::7].tolist()
    pd.testing.assert_series_equal(
        pd.Series(again.assign(FRAME.assign(**{INDUSTRY: FRAME[INDUSTRY].astype("category")}))[0]), pd.Series(level)
    )


def test_a_value_has_no_band() -> None:
    scheme = fitted({**changed(), "stability": {"up": {"band": 0.1}, "down": {"band": 0.1}}}, FRAME)
    lowest, highest = scheme.sure_levels(FRAME)
    inside = (FRAME[INDUSTRY] == "制造") & FRAME[SPEND].notna()
    assert (lowest[inside] == 2).all()
    assert (highest[~inside] < 2).all()


VETO = {"name_zh": "否", "name_en": "no", "highest": "low", "when": [{"feature": INDUSTRY, "is": [ODD[0], ODD[1]]}]}


@pytest.mark.parametrize(
    "data", [CASCADE, changed(), changed(**{"is": None, "is_not": VALUES[1:]}), {**SHARE, "veto": [VETO]}]
)
def test_sql_gives_every_row_the_tier_of_the_scheme(data: dict[str, Any]) -> None:
    scheme = fitted(data, FRAME)
    frame = pd.concat([FRAME, with_industry(500, 9).assign(**{INDUSTRY: "new"})], ignore_index=True)
    frame = frame.assign(customer_id=[f"p{n:06d}" for n in range(len(frame))])
    frame.loc[::11, INDUSTRY] = ""
    assert_equal_to_scheme(tiers_in_duckdb(scheme, frame), scheme, frame)
    for dialect in ("postgres", "spark"):
        assert INDUSTRY in scheme_sql(scheme, dialect)


def test_postgresql_reads_odd_values_as_they_are() -> None:
    if binaries() is None:
        pytest.skip("PostgreSQL is not installed")
    import adbc_driver_postgresql.dbapi as adbc  # noqa: PLC0415
    import pyarrow as pa  # noqa: PLC0415

    scheme = fitted({**CASCADE, "veto": [VETO]}, FRAME)
    with postgres() as address, adbc.connect(address) as connection, connection.cursor() as cursor:
        cursor.adbc_ingest("features", pa.Table.from_pandas(FRAME, preserve_index=False), mode="replace")
        connection.commit()
        cursor.execute(scheme_sql(scheme, "postgres"))
        assert_equal_to_scheme(cursor.fetch_arrow_table().to_pandas(), scheme, FRAME)


def test_spark_writes_a_backslash_as_one() -> None:
    text = scheme_sql(fitted({**SHARE, "veto": [VETO]}, FRAME), "spark")
    assert r"'back\\slash'" in text
    assert r"'o\'brien" in text


def test_rules_and_reasons_name_attribute_and_values() -> None:
    scheme = fitted({**CASCADE, "veto": [VETO]}, FRAME)
    assert scheme.rules(FEATURES, "zh")[0].startswith("top (top): 客户属性 industry 为 制造 或 金融 且 ")
    assert scheme.rules(FEATURES, "en")[1].startswith(f"mid (mid): attribute industry is not 零售, {ODD[0]} and ")
    assert scheme.rules(FEATURES, "zh")[-1] == f"等级上限（否）：最高 low: 客户属性 industry 为 {ODD[0]} 或 {ODD[1]}"
    codes, words = scheme.explain(FRAME, scheme.assign(FRAME)[1], FEATURES, "en")
    first = np.array(words, dtype=object)[codes[:, 0]]
    level = scheme.assign(FRAME)[0]
    assert set(first[level == 2]) == {"attribute industry is 制造 or 金融"}


def when(**given: Any) -> When:
    return When.model_validate({"feature": INDUSTRY, **given})


def test_what_a_condition_on_text_implies() -> None:
    a, ab, not_ab, not_a = when(**{"is": "a"}), when(**{"is": ["a", "b"]}), when(is_not=["a", "b"]), when(is_not=["a"])
    pairs = {"a→ab": (a, ab), "ab→a": (ab, a), "not_ab→not_a": (not_ab, not_a), "not_a→not_ab": (not_a, not_ab)}
    pairs |= {"a→not_a": (a, not_a), "c→not_ab": (when(**{"is": "c"}), not_ab), "not_a→ab": (not_a, ab)}
    pairs |= {"bound": (a, When(feature=INDUSTRY, at_least=1)), "back": (When(feature=INDUSTRY, at_least=1), a)}
    pairs |= {
        "missing": (when(**{"is": "a", "missing": True}), ab),
        "missing too": (a, when(**{"is": "a", "missing": True})),
    }
    implied = {name for name, (one, other) in pairs.items() if one.implies(other)}
    assert implied == {"a→ab", "not_ab→not_a", "c→not_ab", "missing too"}
    first = {"level": "top", "when": [{"feature": INDUSTRY, "is": ["a", "b"]}]}
    second = {"level": "mid", "when": [{"feature": INDUSTRY, "is": "b"}, {"feature": SPEND, "above": 1}]}
    twice = [first, second, {"level": "low"}]
    with pytest.raises(ProjectError, match=r"rule 2 \(mid\) is never met: rule 1 \(top\) takes all"):
        parse_scheme({**CASCADE, "rules": twice}, "test", WINDOWS)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"is": []}, "one value or more"),
        ({"is": [" "]}, "one value or more"),
        ({"is": ["a", " a "]}, "'a' is there twice"),
        ({"is": [1]}, "valid string"),
        ({"is_not": "b"}, "needs one of .*is, is_not"),
        ({"above": 1}, "needs one of"),
    ],
)
def test_a_condition_that_does_not_hold_together_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ProjectError, match=words):
        parse_scheme(changed(**given), "test", WINDOWS)


def test_text_and_numbers_are_not_read_as_each_other() -> None:
    with pytest.raises(ProjectError, match=r"'attribute_industry' is text \(data.customers.categories\)"):
        fitted({**SHARE, "feature": INDUSTRY}, FRAME)
    with pytest.raises(ProjectError, match=f"'{SPEND}' is a number, and is read as text"):
        fitted(changed(feature=SPEND), FRAME)
    both = {**CASCADE, "veto": [{**VETO, "when": [{"feature": INDUSTRY, "above": 1}]}]}
    with pytest.raises(ProjectError, match=r"'attribute_industry' is text"):
        fitted(both, FRAME)
    with pytest.raises(
        ProjectError, match=r"text attribute 'attribute_sector' is not built; there are \['attribute_ind"
    ):
        fitted(changed(feature="attribute_sector"), FRAME)
    with pytest.raises(DataError, match="no customer has a 'gap_days_mean'"):
        fitted({**SHARE, "feature": "gap_days_mean"}, FRAME.assign(gap_days_mean=np.nan))


def test_an_optional_condition_is_left_out_where_the_attribute_is_not_mapped() -> None:
    data = changed(optional=True)
    data["rules"][0]["when"].append({"feature": SPEND, "above": 1e9})
    scheme = fitted(data, FRAME.drop(columns=INDUSTRY))
    assert scheme.state["left_out"] == [INDUSTRY]
    assert scheme.scheme.text_features == []
    assert (scheme.assign(FRAME)[0] < 2).all()
    assert fitted(data, FRAME).scheme.text_features == [INDUSTRY]


def test_a_value_that_nobody_has_is_told_with_those_that_there_are() -> None:
    scheme = fitted(changed(**{"is": ["制造", "制造业"]}), FRAME)
    (line,) = unseen_lines(scheme.state, "en")
    assert line.startswith("tiers.scheme: no customer has attribute_industry '制造业'; there are '制造', ")
    assert "'金融'" in line
    assert not unseen_lines(fitted(changed(), FRAME).state, "en")
    assert "unseen_values" not in fitted(changed(), FRAME).state
    nobody = fitted(changed(), FRAME.assign(**{INDUSTRY: pd.Series([None] * len(FRAME), dtype="str")}))
    (line,) = unseen_lines(nobody.state, "en")
    assert line == "tiers.scheme: no customer has attribute_industry '制造'; there are none"


def test_a_value_written_another_way_is_a_typing_error() -> None:
    frame = FRAME.assign(**{INDUSTRY: FRAME[INDUSTRY].replace({"制造": "Retail", "金融": "RETAIL"})})
    with pytest.raises(
        ProjectError, match=r"no customer has attribute_industry 'retail', but there is 'RETAIL': write"
    ):
        fitted(changed(**{"is": ["retail"]}), frame)
    later = frame[frame[INDUSTRY] != "Retail"]
    both = fitted(changed(**{"is": ["Retail", "RETAIL"]}), later)  # both are written: no error
    assert unseen_lines(both.state, "en")


def test_what_leads_higher_never_is_another_attribute() -> None:
    scheme = fitted({**CASCADE, "veto": [VETO]}, FRAME)
    assert set(tier_thresholds(scheme)) == {SPEND}
    found = next_tier_actions(scheme, FRAME, FEATURES, "en")
    assert len(found)
    assert not found["feature"].str.startswith("attribute").any()


def test_a_scheme_without_text_is_written_as_before() -> None:
    data = scheme_data(
        parse_scheme({**SHARE, "veto": [{**VETO, "when": [{"feature": SPEND, "above": 1}]}]}, "t", WINDOWS)
    )
    assert not {"is", "is_not", "is_one_of", "strata"} & {*data, *data["veto"][0]["when"][0]}
    text = scheme_data(parse_scheme(CASCADE, "t", WINDOWS))
    assert text["rules"][0]["when"][0]["is"] == ["制造", "金融"]
    assert isinstance(parse_scheme(text, "again", (1,)), ThresholdScheme)
    assert parse_scheme(text, "again", (1,)) == parse_scheme(CASCADE, "t", WINDOWS)


def test_a_project_is_told_which_attribute_its_scheme_needs() -> None:
    columns = {"customer_id": "id", "time": "day", "amount": "amount"}

    def project(scheme: dict[str, Any] | str, more: dict[str, Any], **customers: Any) -> Project:
        data = {"transactions": {"path": "a.csv", "columns": columns}}
        data |= {"customers": {"path": "b.csv", "columns": {"customer_id": "id"}, **customers}}
        return Project.model_validate({"version": 1, "name": "shop", "data": data, "tiers": {"scheme": scheme, **more}})

    with pytest.raises(
        ProjectError, match=r"'industry' is read as text, but it is not one of data.customers.categories \[\]"
    ):
        load_scheme(project(CASCADE, {}))
    strata = {**SHARE, "strata": {"by": "sector"}}
    with pytest.raises(ProjectError, match=r"'sector' is read as text, .* \['industry'\]; map its column there"):
        load_scheme(project(strata, {}, categories={"industry": "industry"}))
    assert load_scheme(project(CASCADE, {}, categories={"industry": "industry"})).text_features == [INDUSTRY]
    assert load_scheme(project(changed(optional=True), {})).text_features == [INDUSTRY]
    by = {"strata": {"by": "industry", "at_least": 80}}
    preset = load_scheme(project("pyramid", by, categories={"industry": "industry"}))
    assert (preset.code, preset.text_features) == ("pyramid", [INDUSTRY])
    own = load_scheme(project({**SHARE, "strata": {"by": "industry"}}, by, categories={"industry": "industry"}))
    assert own.strata is not None
    assert own.strata.at_least == 80  # that of the project replaces the scheme's own
    with pytest.raises(ProjectError, match=r"tiers: .*a learned scheme has no cut points to find by stratum"):
        load_scheme(project("learned", by, categories={"industry": "industry"}))
