"""A kind of scheme is one file and two lines of registration: a toy kind goes from fit to SQL and next-tier actions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest

from schemes_made import (
    FEATURES,
    LEVELS,
    SPEND,
    WINDOWS,
    assert_equal_to_scheme,
    people,
    probes,
    tiers_in_duckdb,
    with_spend,
)
from tiermodel.arrays import Ints
from tiermodel.errors import ProjectError
from tiermodel.features.condition import Condition
from tiermodel.tiers.explain.next_tier import next_tier_actions, tier_thresholds
from tiermodel.tiers.explain.sql import DIALECTS, scheme_sql
from tiermodel.tiers.fitted_scheme import FittedScheme, fit_scheme
from tiermodel.tiers.kinds.cut_points import band_edges, level_of
from tiermodel.tiers.kinds.sql_terms import quoted, steps
from tiermodel.tiers.schemes.load import parse_scheme
from tiermodel.tiers.schemes.protocol import FitContext, SqlLevel, State, Thresholds
from tiermodel.tiers.schemes.schema import BaseScheme
from tiermodel.tiers.schemes.scheme_kinds import KINDS, SCHEMES
from tiermodel.tiers.stability.rule import replay

# what a newcomer writes in one file; there its functions stand in a module


class FixedScheme(BaseScheme):
    """Levels that start at given numbers of one feature."""

    kind: Literal["fixed"]
    feature: str
    starts: tuple[float, ...]

    def ranked(self) -> list[str]:
        """List the features that the scheme cannot do without."""
        return [self.feature]


def values_of(scheme: FixedScheme, frame: pd.DataFrame) -> Any:
    return frame[scheme.feature].to_numpy(dtype=np.float64)


class FixedKind:
    """What the toy kind answers."""

    @staticmethod
    def fit(scheme: FixedScheme, buyers: pd.DataFrame, _context: FitContext) -> State:
        """Return the starts, and those that a band makes of them."""
        return {"starts": list(scheme.starts), **band_edges(scheme, scheme.starts, values_of(scheme, buyers))}

    @staticmethod
    def assign(scheme: FixedScheme, state: State, frame: pd.DataFrame) -> tuple[Ints, Ints]:
        """Return level and rule, which are one."""
        level = level_of(state["starts"], values_of(scheme, frame))
        return level, level

    @staticmethod
    def sure_levels(scheme: FixedScheme, state: State, frame: pd.DataFrame) -> tuple[Ints, Ints]:
        """Return the levels beyond the band."""
        x = values_of(scheme, frame)
        return level_of([high for _, high in state["up"]], x), level_of([low for low, _ in state["down"]], x)

    @staticmethod
    def levels_of_rules(scheme: FixedScheme, _state: State) -> Ints:
        """Return the level of every rule."""
        return np.arange(len(scheme.bought_levels))

    @staticmethod
    def conditions(scheme: FixedScheme, state: State) -> list[list[Condition]]:
        """Return the bounds of every level."""
        edges = [-np.inf, *state["starts"], np.inf]
        return [
            [Condition(scheme.feature, low, high, low == -np.inf, closed_low=True)] for low, high in pairwise(edges)
        ]

    @staticmethod
    def thresholds(scheme: FixedScheme, state: State) -> Thresholds:
        """Return the starts."""
        return [(scheme.feature, state["starts"])]

    @staticmethod
    def sql(scheme: FixedScheme, state: State) -> SqlLevel:
        """Return the level as SQL."""
        return SqlLevel(steps(quoted(scheme.feature), ">=", state["starts"], scheme.bought_numbers), {scheme.feature})


# the two lines


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as lines:
        lines.setitem(SCHEMES, "fixed", FixedScheme)
        lines.setitem(KINDS, "fixed", FixedKind())
        yield
    assert "fixed" not in SCHEMES
    assert "fixed" not in KINDS


FIXED: dict[str, Any] = {
    "code": "f", "name_zh": "f", "name_en": "f", "kind": "fixed", "levels": LEVELS, "feature": SPEND,
    "starts": [100, 400.5],
}  # fmt: skip
BAND = {"up": {"band": 0.1}, "down": {"band": 0.1}}
VETO = {"name_zh": "否", "name_en": "no", "highest": "mid", "when": [{"feature": "days_since_last", "above": 200}]}


def fitted(frame: pd.DataFrame, **changes: Any) -> FittedScheme:
    return fit_scheme(parse_scheme({**FIXED, **changes}, "test", WINDOWS), frame, frame, 7)


def test_it_assigns_by_the_numbers_and_survives_a_round_trip() -> None:
    frame = with_spend([99.99, 100.0, 400.49, 400.5, np.nan, 500.0])
    frame.loc[5, "days_since_last"] = np.nan
    scheme = fitted(frame)
    level, rule = scheme.assign(frame)
    assert level.tolist() == [0, 1, 1, 2, 0, 0]
    assert rule.tolist() == [0, 1, 1, 2, 0, -1]
    again = FittedScheme.from_dict(json.loads(json.dumps(scheme.to_dict())))
    assert again == scheme
    data, texts = scheme.to_files()
    assert (data, texts, FittedScheme.from_files(data, {})) == (scheme.to_dict(), {}, scheme)


def test_a_prospect_and_a_veto_are_none_of_its_business() -> None:
    frame = people(300)
    levels = [{"code": "prospect", "name_zh": "p", "name_en": "p"}, *LEVELS]
    scheme = fitted(frame, levels=levels, no_purchase="prospect", veto=[VETO])
    level, rule = scheme.assign(frame)
    own, late = np.searchsorted([100, 400.5], frame[SPEND], side="right") + 1, frame["days_since_last"] > 200
    assert (late & (own > 2)).any()
    np.testing.assert_array_equal(level, np.where(late, np.minimum(own, 2), own))
    np.testing.assert_array_equal(rule == 3, late & (own > 2))
    assert_equal_to_scheme(tiers_in_duckdb(scheme, frame), scheme, frame)


def test_its_band_holds_customers_near_a_start() -> None:
    frame = people(400)
    scheme, other = fitted(frame, stability=BAND), people(300, 9)
    level, _ = scheme.assign(other)
    lowest, highest = scheme.sure_levels(other)
    assert (lowest <= level).all()
    assert (level <= highest).all()
    assert (lowest < level).any()
    assert (highest > level).any()
    ranked = np.sort(frame[SPEND])
    start = np.searchsorted(ranked, 100)
    near, far = ranked[start + 39], ranked[start + 41]  # the band is 40 of 400 customers
    assert [int(scheme.sure_levels(with_spend([x]))[0][0]) for x in (near, far)] == [0, 1]
    months = [with_spend([x]).assign(as_of=day) for x, day in ((50.0, "2023-01-01"), (near, "2023-02-01"))]
    moved = pd.concat([*months, with_spend([far]).assign(as_of="2023-03-01")]).astype({"as_of": "datetime64[s]"})
    assert [tiers.tolist() for tiers in replay(scheme, moved.reset_index(drop=True))] == [[0, 0, 1], [0, 1, 1]]


def test_its_rules_and_reasons_are_words_in_both_languages() -> None:
    frame = with_spend([50.0, 150.0, 450.0])
    scheme = fitted(frame)
    for language, entry, words in (
        ("zh", FEATURES[SPEND].zh, ["≥ 400.5", "≥ 100 且 < 400.5", "< 100 或缺失"]),
        ("en", FEATURES[SPEND].en, ["≥ 400.5", "≥ 100 and < 400.5", "< 100 or missing"]),
    ):
        lines = scheme.rules(FEATURES, language)
        said = [f"{entry} {bounds}" for bounds in words]
        assert lines == [f"{code} ({code}): {line}" for code, line in zip(("top", "mid", "low"), said, strict=True)]
        codes, known = scheme.explain(frame, scheme.assign(frame)[1], FEATURES, language)
        assert [known[row[0]] for row in codes] == said[::-1]


def test_its_sql_gives_every_row_the_tier_of_the_scheme() -> None:
    scheme = fitted(people(2000))
    frame = probes(scheme, 5_000)
    assert_equal_to_scheme(tiers_in_duckdb(scheme, frame), scheme, frame)
    assert all(SPEND in scheme_sql(scheme, dialect) for dialect in DIALECTS)


def test_what_would_move_a_customer_up_is_the_rest_to_the_next_start() -> None:
    frame = with_spend([99.99, 100.0, 400.5])
    scheme = fitted(frame)
    assert tier_thresholds(scheme) == {SPEND: [100.0, 400.5]}
    found = next_tier_actions(scheme, frame, FEATURES, "en").set_index("customer_id")
    assert found["reached_code"].to_dict() == {"c00000": "mid", "c00001": "top"}
    assert found["change"].to_dict() == {"c00000": pytest.approx(0.01), "c00001": pytest.approx(300.5)}
    assert found.loc["c00001", "words"] == f"{FEATURES[SPEND].en}: 300.5 more (100 → 400.5)"


def test_it_keeps_no_capacity_unless_something_says_who_comes_first() -> None:
    capped = [*LEVELS[:2], {**LEVELS[2], "capacity": 9}]
    with pytest.raises(ProjectError, match="nothing says who comes first"):
        fitted(people(20), levels=capped)
    fitted(people(20), levels=capped, priority=SPEND)


def test_a_kind_that_is_not_registered_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(SCHEMES, "fixed")
    with pytest.raises(ProjectError, match="'share', 'thresholds', 'rfm', 'composite', 'matrix', 'learned'"):
        parse_scheme(FIXED, "test", WINDOWS)
