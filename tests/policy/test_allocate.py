"""Allocations: equal to brute force, certified where large, the same whatever the order of rows; bad input is named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from allocations_made import brute_force, draw_case, recomputed, write_case
from commands import Run
from tiermodel.errors import ProjectError, TierModelError
from tiermodel.policy import solve
from tiermodel.policy.allocate import Allocation, allocate
from tiermodel.policy.exact import best_allocation, best_counts, best_of_kinds
from tiermodel.policy.lagrangian import allocated, find_prices, polished
from tiermodel.policy.problem import Limit, Problem
from tiermodel.policy.scores import HORIZON_NOTE, LANGUAGE_NOTE

LEVELS = {tier: {"name_zh": f"{tier}级", "name_en": tier, "cost_per_year": 365} for tier in ("small", "major")}
COLUMNS = ["customer_id", "tier_code", "action", "cost", "gain", "why"]


def write_policy(folder: Path, **parts: Any) -> Path:
    path = folder / "policy.yaml"
    path.write_text(yaml.safe_dump({"version": 1, "name": "p", "levels": LEVELS, **parts}), encoding="utf-8")
    return path


def write_scores(folder: Path, **columns: Any) -> Path:
    path = folder / "scores.csv"
    rows = len(next(iter(columns.values())))
    frame = {"customer_id": [f"{n:03}" for n in range(rows)], "tier_code": ["small"] * rows, **columns}
    pd.DataFrame(frame).to_csv(path, index=False)
    return path


def read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype={"customer_id": str})


@pytest.mark.parametrize("seed", range(100_000, 100_015))
def test_an_allocation_by_files_is_the_best_of_all(tmp_path: Path, seed: int) -> None:
    case, ending = draw_case(seed), (".csv", ".parquet")[seed % 2]
    scores, policy = write_case(case, tmp_path, ending)
    best, out = brute_force(case), tmp_path / f"out{ending}"
    if best is None:
        with pytest.raises(ProjectError, match="floor asks for"):
            allocate(scores, policy, case.budget, out)
        assert not out.exists()
        return
    found = allocate(scores, policy, case.budget, out)
    written = read(out) if ending == ".csv" else pd.read_parquet(out)
    assert list(written.columns) == COLUMNS
    assert recomputed(case, written) == pytest.approx(best, abs=1e-9)
    assert found.objective == pytest.approx(best, abs=1e-9)
    assert found.exact
    assert found.bound >= found.objective
    assert found.cost == pytest.approx(written["cost"].sum())
    assert found.customers == written["customer_id"].nunique()


def random_problem(draw: np.random.Generator, customers: int, *, tied: bool) -> Problem:
    actions = int(draw.integers(1, 7))
    cost = draw.integers(0, 9, actions)
    if tied:
        gain = np.broadcast_to(draw.integers(0, 15, actions).astype(float), (customers, actions))
    else:
        gain = draw.lognormal(2, 1, (customers, actions))
    may = (draw.random((customers, actions)) < 0.8) & (gain > cost)
    starts = np.unique(np.r_[0, draw.integers(0, actions + 1, 2), actions])
    limits = [
        Limit("capacity", str(n), int(draw.integers(0, customers)), (n,)) for n in range(actions) if draw.random() < 0.5
    ]
    limits.append(Limit("team", "t", int(draw.integers(0, customers)), tuple(range(0, actions, 2))))
    budget = int(draw.integers(0, 4 * customers))
    return Problem(np.where(may, gain - cost, -np.inf), cost, budget, starts, tuple(limits)).reachable()


@given(seed=st.integers(0, 10**9), customers=st.integers(1, 60), tied=st.booleans())
@settings(max_examples=40)
def test_prices_bound_every_allocation_and_lead_near_the_best(seed: int, customers: int, tied: bool) -> None:
    problem = random_problem(np.random.default_rng(seed), customers, tied=tied)
    prices = find_prices(problem)
    chosen = allocated(problem, prices)
    exact = best_allocation(problem, 10_000)
    assert exact is not None
    best, bound = problem.value(exact[0]), exact[1]
    again = polished(problem, prices, chosen, 100)
    assert problem.value(again) >= problem.value(chosen)
    for found in (chosen, again, exact[0]):
        assert (problem.left(found.sum(axis=0)) >= 0).all()
        assert np.isfinite(problem.net[found]).all()
        assert all(
            (found[:, a:b].sum(axis=1) <= 1).all() for a, b in zip(problem.starts, problem.starts[1:], strict=False)
        )
    assert problem.value(chosen) <= best + 1e-6
    assert best <= bound + 1e-6
    assert best <= prices.bound + 1e-6
    # what prices lose is the fraction of a few customers
    most = np.where(np.isfinite(problem.net), problem.net, 0).max(initial=0)
    assert prices.bound - problem.value(chosen) <= (2 + len(problem.limits)) * most + 1e-6


@pytest.mark.parametrize("seed", range(4))
def test_the_bound_and_the_prices_are_those_of_the_relaxation(seed: int) -> None:
    problem = random_problem(np.random.default_rng(seed), 80, tied=False)
    prices = find_prices(problem)
    rows, actions = np.nonzero(np.isfinite(problem.net))
    groups = np.searchsorted(problem.starts, actions, side="right") - 1
    place = np.unique(rows * 10 + groups, return_inverse=True)[1]
    once = np.zeros((place.max() + 1, len(rows)))
    once[place, np.arange(len(rows))] = 1
    sides, upper = np.vstack([once, problem.use[:, actions]]), np.r_[np.ones(len(once)), problem.room]
    found = linprog(-problem.net[rows, actions], A_ub=sides, b_ub=upper, bounds=(0, None), method="highs")
    assert prices.bound == pytest.approx(-found.fun, rel=1e-6)
    spare = found.ineqlin.residual[len(once) :] > 1e-6
    assert prices.resources[spare] == pytest.approx(0, abs=1e-4)
    assert prices.resources[~spare].max(initial=0) > 0 or not (~spare).any()


def test_prices_alone_come_within_a_thousandth_and_say_what_one_more_would_bring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = write_scores(tmp_path, v=np.random.default_rng(3).lognormal(3, 1, 900))
    actions = {
        f"a{n}": {"cost": cost, "gain": f"{0.1 * (n + 1)} * v", "group": "g"} for n, cost in enumerate((1, 2, 3))
    }
    actions["a2"]["team"] = "own"

    def run(managers: int, budget: float) -> Allocation:
        teams = {"own": {"managers": managers, "customers_per_manager": 10}}
        return allocate(scores, write_policy(tmp_path, actions=actions, teams=teams), budget, tmp_path / "out.csv")

    exact = run(4, 700)
    assert exact.exact
    monkeypatch.setattr(solve, "_EXACT_CUSTOMERS", 0)
    found = run(4, 700)
    written = read(tmp_path / "out.csv")
    assert not found.exact
    assert 0 <= found.gap < 1e-3
    assert found.objective <= exact.objective + 1e-9
    assert exact.objective <= found.bound + 1e-9
    assert (written["action"] == "a2").sum() == 40
    assert written["cost"].sum() <= 700
    assert (written["gain"] - written["cost"]).sum() == pytest.approx(found.objective)
    assert set(written["why"]) == {
        "gain less cost is the highest of the actions to choose from",
        "a2 would bring more here, but its budget or places bring more with others",
    }
    prices = found.shadow_prices
    assert run(4, 720).objective - found.objective == pytest.approx(20 * prices["budget"], rel=0.1)
    assert 0.8 * prices["manager"]["own"] < run(5, 700).objective - found.objective <= 1.02 * prices["manager"]["own"]
    assert prices["manager"]["own"] == pytest.approx(10 * prices["team"]["own"])


@pytest.mark.parametrize("seed", range(20))
def test_customers_who_gain_the_same_are_allocated_exactly_as_kinds(seed: int) -> None:
    draw = np.random.default_rng(seed)
    kinds = np.where(draw.random((3, 4)) < 0.3, -np.inf, draw.integers(1, 300, (3, 4)).astype(float))
    limits = (Limit("capacity", "a", int(draw.integers(0, 9)), (0,)),)
    budget = int(draw.integers(50, 2000))
    problem = Problem(kinds[draw.integers(0, 3, 30)], np.array([7, 29, 60, 120]), budget, np.array([0, 2, 4]), limits)
    every, grouped = best_allocation(problem, 2_000), best_of_kinds(problem, 2_000, 500)
    assert every is not None
    assert grouped is not None
    assert problem.value(grouped[0]) == pytest.approx(problem.value(every[0]))
    assert (problem.left(grouped[0].sum(axis=0)) >= 0).all()
    assert (grouped[0][:, :2].sum(axis=1) <= 1).all()
    assert (grouped[0][:, 2:].sum(axis=1) <= 1).all()
    assert best_of_kinds(problem, 2_000, 1) is None


def test_a_dear_action_for_many_alike_leaves_no_gap(tmp_path: Path) -> None:
    """The bound of prices is not reached: the budget is no multiple of what is best for its cost."""
    actions = {"visit": {"cost": 250, "gain": 550, "group": "g"}, "call": {"cost": 120, "gain": 260, "group": "g"}}
    write_policy(tmp_path, actions=actions)
    write_scores(tmp_path, customer_id=[f"c{n}" for n in range(1_100)], tier_code=["small"] * 1_100)
    done = allocate(tmp_path / "scores.csv", tmp_path / "policy.yaml", "2110", tmp_path / "o.csv")
    best = max(300 * v + 140 * c for v in range(9) for c in range(18) if 250 * v + 120 * c <= 2110)
    assert done.objective == best
    assert done.gap == pytest.approx(0, abs=1e-9)


def test_rows_in_another_order_give_the_same_bytes(tmp_path: Path) -> None:
    scores = write_scores(tmp_path, v=np.random.default_rng(1).lognormal(2, 1, 60), expected_value=np.arange(60.0))
    actions = {"call": {"cost": 2, "gain": "v", "capacity": 7}, "gift": {"cost": 3, "gain": "2 * v", "capacity": 5}}
    policy, files = write_policy(tmp_path, actions=actions), ("a.csv", "a.advisory.csv")
    allocate(scores, policy, 40, tmp_path / "a.csv")
    before = [(tmp_path / name).read_bytes() for name in files]
    pd.read_csv(scores, dtype=str).sample(frac=1, random_state=0).to_csv(scores, index=False)
    allocate(scores, policy, 40, tmp_path / "a.csv")
    assert [(tmp_path / name).read_bytes() for name in files] == before


def test_the_dear_action_is_taken_where_it_brings_more_than_the_cheap_one(tmp_path: Path, cli: Run) -> None:
    actions = {
        "dear": {"cost": 10_000, "gain": 24_000, "group": "g"},
        "cheap": {"cost": 2_000, "gain": 8_000, "group": "g"},
    }
    write_policy(tmp_path, actions=actions)
    write_scores(tmp_path, v=[1])
    ran = cli("allocate", "scores.csv", "--policy", "policy.yaml", "--budget", "10000", "--out", "o.csv", "--json")
    assert ran.code == 0, ran.err
    told = json.loads(ran.out)
    assert (told["objective"], told["bound"], told["cost"], told["customers"]) == (14_000, 14_000, 10_000, 1)
    assert {"by_action", "by_tier", "shadow_prices", "curve"} <= set(told)
    assert read(tmp_path / "o.csv")["action"].tolist() == ["dear"]


def test_nothing_is_done_that_does_not_pay_but_for_the_floor_which_comes_first(tmp_path: Path) -> None:
    scores = write_scores(tmp_path, tier_code=["small", "small", "major"], v=[5, 50, 10])
    actions = {
        "letter": {"cost": 1, "gain": 0, "tiers": ["small"], "group": "g"},
        "call": {"cost": 10, "gain": "v", "group": "g"},
    }
    policy = write_policy(tmp_path, actions=actions, floor={"action": "letter", "tiers": ["small"]})
    found = allocate(scores, policy, 11, tmp_path / "o.csv")
    written = read(tmp_path / "o.csv")
    assert written["action"].tolist() == ["letter", "letter"]  # a call of 10 for 10 brings nothing
    small = {"customers": 2, "actions": 2, "cost": 2, "gain": 0, "net": -2, "return": 0}
    nothing = {**dict.fromkeys(small, 0), "return": None}
    assert {row["tier_code"]: row for row in found.by_tier} == {
        "small": {"tier_code": "small", **small},
        "major": {"tier_code": "major", **nothing},
    }
    by_action = {row["action"]: (row["customers"], row["net"]) for row in found.by_action}
    assert by_action == {"letter": (2, -2), "call": (0, 0)}
    assert found.objective == -2
    assert written["why"].unique().tolist() == ["the minimum service: every customer of the tier gets it"]


def test_who_opted_out_or_did_not_consent_gets_nothing_not_even_the_floor(tmp_path: Path) -> None:
    flags = {"opt_out": ["no", "yes", "", "perhaps", "0"], "consent": ["yes", "yes", "1", "yes", ""]}
    scores = write_scores(tmp_path, v=[9] * 5, **flags)
    policy = write_policy(
        tmp_path,
        actions={"call": {"cost": 1, "gain": "v"}, "letter": {"cost": 0.5, "gain": 0}},
        floor={"action": "letter", "tiers": ["small"]},
    )
    found = allocate(scores, policy, 100, tmp_path / "o.csv")
    assert set(read(tmp_path / "o.csv")["customer_id"]) == {"000", "002"}
    assert (found.refused, found.customers, found.customers_read) == (3, 2, 5)


def test_who_asked_for_no_automated_decision_gets_the_minimum_service_only(tmp_path: Path) -> None:
    scores = write_scores(tmp_path, v=[9] * 3, manual_decision=["", "waits for a person", ""])
    policy = write_policy(
        tmp_path,
        actions={"call": {"cost": 1, "gain": "v"}, "letter": {"cost": 0.5, "gain": 0}},
        floor={"action": "letter", "tiers": ["small"]},
    )
    allocate(scores, policy, 100, tmp_path / "o.csv")
    given = read(tmp_path / "o.csv").groupby("customer_id")["action"].agg(sorted).to_dict()
    assert given == {"000": ["call", "letter"], "001": ["letter"], "002": ["call", "letter"]}


def test_customers_who_cost_more_than_they_bring_are_listed_for_a_person_to_decide(tmp_path: Path, cli: Run) -> None:
    write_scores(tmp_path, expected_value=[1, 100, None, 89, 90])
    write_policy(tmp_path, actions={"call": {"cost": 1, "gain": 0}}, period_days=90)
    words = ("allocate", "scores.csv", "--policy", "policy.yaml", "--budget", "5", "--out", "o.csv")
    ran = cli(*words)
    assert "2 customers cost 90.00 more to serve" in ran.out
    assert "each needs a named approval" in ran.out
    assert "1 customers have no expected value" in ran.out
    listed = pd.read_csv(tmp_path / "o.advisory.csv", dtype={"customer_id": str})
    assert listed["customer_id"].tolist() == ["000", "003"]
    assert listed["difference"].tolist() == [-89, -1]
    assert listed[["approved_by", "approved_on"]].isna().all(axis=None)
    assert read(tmp_path / "o.csv").empty  # nothing follows from the list
    write_scores(tmp_path, expected_value=[100])
    assert cli(*words).code == 0
    assert not (tmp_path / "o.advisory.csv").exists()


@pytest.mark.parametrize(
    ("changes", "columns", "budget", "code", "told"),
    [
        (
            {},
            {"tier_code": ["small", "gold", "small"]},
            "9",
            3,
            "tier_code gold of 1 customers is no level of policy p",
        ),
        ({}, {"v": [1, None, 3]}, "9", 3, "actions.call.gain: 'v' is missing for 1 of 3 customers who may get call"),
        ({}, {"v": [1, "inf", 3]}, "9", 3, "actions.call.gain: 'v' is infinite for 1 of 3"),
        ({}, {"v": ["a", "b", "c"]}, "9", 2, "actions.call.gain: 'v' is VARCHAR, not a number"),
        ({}, {"customer_id": ["1", "1", "2"]}, "9", 3, "customer '1' has 2 rows"),
        ({}, {"customer_id": ["1", "", "2"]}, "9", 3, "customer_id is empty in 1 rows"),
        ({"gain": "w * 2"}, {}, "9", 2, "actions.call.gain: 'w * 2': there is no column 'w'"),
        ({"gain": "sum(v)"}, {}, "9", 2, "actions.call.gain: 'sum(v)' is neither a column nor an SQL expression"),
        ({"gain": "(select 1)"}, {}, "9", 2, "a subquery is not allowed"),
        ({"gain": "random()"}, {}, "9", 2, "random does not give the same value on every run"),
        ({"where": "v"}, {}, "9", 2, "actions.call.where: 'v' is DOUBLE, not a condition"),
        ({"tiers": ["gold"]}, {}, "9", 2, "actions.call.tiers[0]: there is no level 'gold'"),
        ({"cost": -1}, {}, "9", 2, "actions.call.cost: must be at least 0"),
        ({}, {}, "-1", 2, "--budget: expected an amount from 0 on, got -1"),
        ({}, {}, "nan", 2, "--budget: expected an amount"),
        ({}, {}, "much", 2, "--budget: expected an amount"),
    ],
)
def test_bad_input_is_named_and_nothing_is_written(
    tmp_path: Path, cli: Run, changes: Any, columns: Any, budget: str, code: int, told: str
) -> None:
    write_scores(tmp_path, **{"v": [1, 2, 3], **columns})
    write_policy(tmp_path, actions={"call": {"cost": 1, "gain": "v", **changes}})
    ran = cli("allocate", "scores.csv", "--policy", "policy.yaml", "--budget", budget, "--out", "o.csv")
    assert (ran.code, told in ran.err) == (code, True), ran.err
    assert "Traceback" not in ran.err
    assert {path.name for path in tmp_path.iterdir()} == {"scores.csv", "policy.yaml"}


def test_a_missing_gain_is_no_matter_where_the_customer_may_not_get_the_action(tmp_path: Path) -> None:
    scores = write_scores(tmp_path, v=[1, None, 3])
    policy = write_policy(tmp_path, actions={"call": {"cost": 1, "gain": "v", "where": "v is not null"}})
    assert allocate(scores, policy, 9, tmp_path / "o.csv").customers == 1


def test_a_floor_that_does_not_fit_names_every_constraint_it_clashes_with(tmp_path: Path) -> None:
    scores = write_scores(tmp_path, v=[1] * 5)
    letter = {"cost": 2.5, "gain": 0, "capacity": 4, "team": "own"}
    policy = write_policy(
        tmp_path,
        actions={"letter": letter},
        teams={"own": {"managers": 1, "customers_per_manager": 3}},
        floor={"action": "letter", "tiers": ["small"]},
    )
    with pytest.raises(ProjectError) as error:
        allocate(scores, policy, 12, tmp_path / "o.csv")
    for told in (
        "floor asks for letter for 5 customers of small",
        "it costs 12.5, above --budget 12: raise the budget to 12.5",
        "actions.letter.capacity is 4: raise it to 5",
        "teams.own has 3 places",
    ):
        assert told in str(error.value)
    policy = write_policy(
        tmp_path,
        actions={"letter": {"cost": 1, "gain": 0, "where": "v > 1"}},
        floor={"action": "letter", "tiers": ["small"]},
    )
    with pytest.raises(
        ProjectError, match=r"actions.letter.where or exclude keeps it from 5 of them, first customer '000'"
    ):
        allocate(scores, policy, 100, tmp_path / "o.csv")


def test_sums_of_costs_are_exact(tmp_path: Path) -> None:
    scores = write_scores(tmp_path, v=[1] * 3)
    policy = write_policy(tmp_path, actions={"call": {"cost": 0.1, "gain": "v"}})
    assert allocate(scores, policy, "0.3", tmp_path / "o.csv").customers == 3  # 0.1 + 0.1 + 0.1 > 0.3 in binary
    assert allocate(scores, policy, "0.29999", tmp_path / "o.csv").customers == 2


def test_the_curve_rises_from_the_floor_to_all_that_pays_and_is_drawn(tmp_path: Path, cli: Run) -> None:
    draw = np.random.default_rng(5)
    write_scores(tmp_path, v=draw.lognormal(2, 1, 80))
    actions = {"call": {"cost": 4, "gain": "v", "group": "g"}, "gift": {"cost": 9, "gain": "1.5 * v", "group": "g"}}
    write_policy(
        tmp_path,
        actions={**actions, "letter": {"cost": 0.5, "gain": 0}},
        floor={"action": "letter", "tiers": ["small"]},
    )
    words = ("allocate", "scores.csv", "--policy", "policy.yaml", "--budget", "160", "--out", "o.csv")
    ran = cli(*words, "--figure", "curve.png", "--json")
    assert ran.code == 0, ran.err
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    told = json.loads(ran.out)
    curve = told["curve"]
    assert curve[0]["budget"] == 40
    assert all(point["cost"] <= point["budget"] + 1e-9 for point in curve)
    objectives = [point["objective"] for point in curve]
    assert objectives == sorted(objectives)
    assert all(point["objective"] <= point["bound"] + 1e-9 for point in curve)
    slopes = np.diff(objectives) / np.diff([point["budget"] for point in curve])
    assert slopes[0] > slopes[4] > slopes[-1] >= 0
    everything = allocate(tmp_path / "scores.csv", tmp_path / "policy.yaml", 1e6, tmp_path / "all.csv")
    assert objectives[-1] == pytest.approx(everything.objective)
    assert cli(*words, "--figure", "curve.pdf").code == 2


def test_texts_are_in_the_language_asked_for(tmp_path: Path, cli: Run) -> None:
    write_scores(tmp_path, v=[5])
    write_policy(
        tmp_path, actions={"call": {"name_zh": "回访", "name_en": "a call", "cost": 1, "gain": "v"}}, language="zh"
    )
    words = ("allocate", "scores.csv", "--policy", "policy.yaml", "--budget", "5", "--out", "o.csv")
    ran = cli(*words)
    assert "收益是策略文件中的假设，不是测得的效果。" in ran.out
    assert "回访" in ran.out
    assert read(tmp_path / "o.csv")["why"][0] == "可选行动中收益减成本最高"
    ran = cli(*words, "--language", "en")
    assert "Gains are assumptions of the policy file, not measured effects." in ran.out
    assert "uplift" not in ran.out


def test_texts_are_in_the_language_of_the_scores_and_tiers_have_their_names(tmp_path: Path, cli: Run) -> None:
    columns = {"customer_id": ["1", "2"], "tier_code": ["small"] * 2, "tier_name": ["小客户"] * 2, "v": [5.0, 6.0]}
    table = pa.table(columns).replace_schema_metadata({LANGUAGE_NOTE: "zh", HORIZON_NOTE: "30"})
    pq.write_table(table, tmp_path / "scores.parquet")
    letter = {"name_zh": "简报", "name_en": "a letter", "cost": 0.5, "gain": 0}
    write_policy(tmp_path, actions={"letter": letter}, floor={"action": "letter", "tiers": ["small"]})
    words = ("--policy", "policy.yaml", "--budget", "5", "--out", "o.csv")
    ran = cli("allocate", "scores.parquet", *words)
    assert "每 30 天" in ran.out
    assert "小客户 (small)" in ran.out
    assert "简报是最低服务：小客户 (small)的每位客户先得到它，不论收益。" in ran.out
    assert read(tmp_path / "o.csv")["why"][0] == "最低服务：该等级的每位客户都有"
    ran = cli("allocate", "scores.parquet", *words, "--language", "en")
    assert "a letter is the minimum service: every customer of small gets it first, whatever it brings." in ran.out
    odd: list[dict[str, Any]] = [
        {},
        {LANGUAGE_NOTE: "x", HORIZON_NOTE: "-3"},
        {LANGUAGE_NOTE: b"\xff", HORIZON_NOTE: "0"},
    ]
    for note in (*odd, {HORIZON_NOTE: "9" * 5_000}):  # not notes of ours: as if there were none
        pq.write_table(table.replace_schema_metadata(note), tmp_path / "scores.parquet")
        found = allocate(tmp_path / "scores.parquet", tmp_path / "policy.yaml", 5, tmp_path / "o.csv")
        assert (found.language, found.period_days, found.period_assumed) == ("en", 90, True)


def test_an_output_never_replaces_the_scores(tmp_path: Path) -> None:
    scores, policy = write_scores(tmp_path, v=[5]), write_policy(tmp_path, actions={"call": {"cost": 1, "gain": "v"}})
    with pytest.raises(TierModelError, match="one of the inputs"):
        allocate(scores, policy, 5, scores)


def test_the_period_is_the_policys_or_the_projects_horizon(tmp_path: Path, cli: Run) -> None:
    from histories import make_project  # noqa: PLC0415

    project = make_project()
    project = project.model_copy(update={"outcome": project.outcome.model_copy(update={"horizon_days": 30})})
    scores, policy = write_scores(tmp_path, expected_value=[31, 29]), tmp_path / "policy.yaml"
    write_policy(tmp_path, actions={"call": {"cost": 1, "gain": 0}})
    for given_project, days, listed in ((project, 30, 1), (None, 90, 2)):
        found = allocate(scores, policy, 5, tmp_path / "o.csv", project=given_project)
        assert found.period_days == days
        assert found.advisory is not None
        assert found.advisory["customers"] == listed
        assert found.period_assumed == (given_project is None)
    assert replace(found, bound=0.0).gap == 0
    words = ("--policy", policy, "--budget", "5", "--out", "o.csv")
    assert "90 are assumed. Give --project" in cli("allocate", scores, *words).out


def test_customers_whom_nothing_can_be_done_for_may_be_the_last_kind() -> None:
    one, use = np.array([2.0]), np.array([[1]])
    found = best_counts(one, use, np.array([5]), np.array([0]), np.array([3, 4]), 10)
    assert found.tolist() == [3]
