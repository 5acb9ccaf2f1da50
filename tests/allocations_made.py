"""Small random allocation problems as files, and the best allocation of each by trying all, in plain Python."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

__all__ = ["Case", "brute_force", "draw_case", "recomputed", "write_case"]

TIERS = ("small", "middle", "large")
Row = dict[str, Any]


@dataclass
class Case:
    """A problem: the policy as plain data, the rows of SCORES, the budget, and each gain as (factor, column)."""

    policy: Row
    rows: list[Row]
    budget: float
    gains: dict[str, tuple[float, str]] = field(default_factory=dict)

    def gain(self, action: str, row: Row) -> float:
        """Tell what the action would bring the customer."""
        factor, column = self.gains[action]
        return float(factor if not column else factor * row[column])

    def may(self, action: str, row: Row) -> bool:
        """Whether the customer may get the action, by tier, consent and the action's own condition."""
        spec = self.policy["actions"][action]
        refused = row.get("opt_out") is True or row.get("consent", True) is not True
        within = "where" not in spec or row["risk"] >= 0.5
        left_out = "exclude" in spec and row["worth"] < 3
        return not refused and row["tier_code"] in spec.get("tiers", TIERS) and within and not left_out


def draw_case(seed: int) -> Case:
    """Draw a problem with groups, capacities, teams, a floor and a budget, each in most cases; some are infeasible."""
    draw = random.Random(seed)  # noqa: S311
    names = [f"a{n}" for n in range(draw.randint(1, 4))]
    teams = {"own": {"managers": draw.randint(0, 2), "customers_per_manager": draw.randint(1, 3)}}
    actions, gains = {}, {}
    for name in names:
        gains[name] = draw.choice([(draw.randint(0, 12), ""), (draw.choice([0.1, 0.5, 1.25]), "worth"), (9.0, "risk")])
        factor, column = gains[name]
        spec: Row = {"cost": draw.choice([0, 1, 2, 2.5, 0.1, 7]), "gain": f"{factor} * {column}" if column else factor}
        chosen = [("group", draw.choice("xy"), 0.6), ("team", "own", 0.4), ("capacity", draw.randint(0, 3), 0.5)]
        chosen += [("tiers", draw.sample(TIERS, draw.randint(1, 3)), 0.4), ("where", "risk >= 0.5", 0.2)]
        chosen += [("exclude", "worth < 3", 0.2)]
        spec |= {key: value for key, value, chance in chosen if draw.random() < chance}
        actions[name] = spec
    policy: Row = {
        "version": 1,
        "name": "drawn",
        "levels": {tier: {"name_zh": tier, "name_en": tier} for tier in TIERS},
    }
    policy |= {"teams": teams, "actions": actions}
    if draw.random() < 0.4:
        action = draw.choice(names)
        policy["floor"] = {"action": action, "tiers": actions[action].get("tiers", list(TIERS))[:2]}
        actions[action] = {k: v for k, v in actions[action].items() if k not in {"where", "exclude"}}
    rows = [_row(draw, f"c{n}") for n in range(draw.randint(1, 4))]
    for flag in ("opt_out", "consent"):
        if draw.random() < 0.3:
            rows = [{**row, flag: draw.random() < (0.2 if flag == "opt_out" else 0.8)} for row in rows]
    return Case(policy, rows, draw.choice([0, 1, 3, 5.5, 8.1, 20, 100]), gains)


def _row(draw: random.Random, name: str) -> Row:
    return {
        "customer_id": name,
        "tier_code": draw.choice(TIERS),
        "worth": draw.choice([0, 2, 4, 10, 17.5]),
        "risk": draw.choice([0.0, 0.25, 0.5, 1.0]),
    }


def write_case(case: Case, folder: Path, ending: str) -> tuple[Path, Path]:
    """Write SCORES and the policy; give their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    scores, policy = folder / f"scores{ending}", folder / "policy.yaml"
    frame = pd.DataFrame(case.rows)
    frame.to_csv(scores, index=False) if ending == ".csv" else frame.to_parquet(scores, index=False)
    policy.write_text(yaml.safe_dump(case.policy), encoding="utf-8")
    return scores, policy


def brute_force(case: Case) -> float | None:
    """Return the best sum of gain less cost over all allocations; None where the floor does not fit."""
    actions, floor = case.policy["actions"], case.policy.get("floor")
    exact = {name: Fraction(str(spec["cost"])) for name, spec in actions.items()}
    room = {("budget", ""): Fraction(str(case.budget))}
    room |= {("capacity", n): Fraction(spec["capacity"]) for n, spec in actions.items() if "capacity" in spec}
    room |= {("team", n): Fraction(t["managers"] * t["customers_per_manager"]) for n, t in case.policy["teams"].items()}
    everyone = []
    for row in case.rows:
        must = floor is not None and row["tier_code"] in floor["tiers"] and not _refused(row)
        options = [(sum(case.gain(a, row) - float(exact[a]) for a in bag), bag) for bag in _bags(case, row, must=must)]
        everyone.append(options)
    best: float | None = None
    for combination in itertools.product(*everyone):
        value = sum(option[0] for option in combination)
        if best is not None and value <= best:
            continue
        used = dict.fromkeys(room, Fraction(0))
        for action in (a for _, bag in combination for a in bag):
            used["budget", ""] += exact[action]
            for resource in (("capacity", action), ("team", actions[action].get("team", ""))):
                if resource in used:
                    used[resource] += 1
        if all(used[resource] <= room[resource] for resource in room):
            best = value
    return best


def _refused(row: Row) -> bool:
    return row.get("opt_out") is True or row.get("consent", True) is not True


def _bags(case: Case, row: Row, *, must: bool) -> Iterator[tuple[str, ...]]:
    """Yield every set of actions that a customer may have: the floor's first, the others only where they pay."""
    actions, floor = case.policy["actions"], case.policy.get("floor", {}).get("action")
    names = [n for n in actions if case.may(n, row)]
    for size in range(len(names) + 1):
        for bag in itertools.combinations(names, size):
            groups = [actions[n]["group"] for n in bag if "group" in actions[n]]
            pays = all(case.gain(n, row) > actions[n]["cost"] for n in bag if not (must and n == floor))
            if len(set(groups)) == len(groups) and pays and (floor in bag or not must):
                yield bag


def recomputed(case: Case, written: pd.DataFrame) -> float:
    """Return the sum of gain less cost of a written allocation, after holding it against every rule of the case."""
    people, actions = {row["customer_id"]: row for row in case.rows}, case.policy["actions"]
    floor = case.policy.get("floor")
    assert not written.duplicated(["customer_id", "action"]).any()
    spent, used = Fraction(0), dict.fromkeys([*actions, "own"], 0)
    groups = set()
    row: Any
    for row in written.itertuples():
        person, spec = people[row.customer_id], actions[row.action]
        assert case.may(row.action, person)
        assert (row.tier_code, row.cost, row.gain) == (person["tier_code"], spec["cost"], case.gain(row.action, person))
        asked = floor is not None and row.action == floor["action"] and person["tier_code"] in floor["tiers"]
        assert asked or row.gain > row.cost
        assert row.why
        if "group" in spec:
            assert (row.customer_id, spec["group"]) not in groups
            groups.add((row.customer_id, spec["group"]))
        spent += Fraction(str(spec["cost"]))
        used[row.action] += 1
        used["own"] += spec.get("team") == "own"
    assert spent <= Fraction(str(case.budget))
    assert all(used[name] <= spec.get("capacity", 99) for name, spec in actions.items())
    team = case.policy["teams"]["own"]
    assert used["own"] <= team["managers"] * team["customers_per_manager"]
    if floor is not None:
        have = set(written["customer_id"][written["action"] == floor["action"]])
        wanted = {c for c, row in people.items() if row["tier_code"] in floor["tiers"] and not _refused(row)}
        assert wanted <= have
    return float((written["gain"] - written["cost"]).sum())
