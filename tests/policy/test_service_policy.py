"""The policy file: what is right is read, what is wrong is named with its line; those that ship fit their schemes."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tiermodel.config.project import Features
from tiermodel.errors import ProjectError
from tiermodel.policy.service_policy import Policy, load_policy, policy_names
from tiermodel.policy.workload import Move, workload
from tiermodel.tiers.schemes.load import load_preset

SCHEMES = {"retail": "pyramid", "bank": "bank", "key_accounts": "kaism"}
PLAIN = """\
version: 1
name: shop
levels:
  small: {name_zh: 小, name_en: small, manager: self, cost_per_year: 2}
  major: {name_zh: 大, name_en: major, manager: own, effort: 2, benefits_zh: [甲, 乙], benefits_en: [a, b]}
teams:
  own: {managers: 2, customers_per_manager: 3}
actions:
  call: {name_zh: 电话, name_en: call, cost: 10, gain: 0.05 * v, tiers: [major], capacity: 5, group: contact, team: own}
  letter: {name_zh: 信, name_en: letter, cost: 1, gain: 0}
floor: {action: letter, tiers: [small]}
"""


def read(folder: Path, text: str) -> Policy:
    (folder / "policy.yaml").write_text(text, encoding="utf-8")
    return load_policy("policy.yaml", folder)


def test_a_file_is_read_with_its_defaults(tmp_path: Path) -> None:
    policy = read(tmp_path, PLAIN)
    assert (policy.period_days, policy.language) == (None, None)
    assert policy.level_id("small") == "shop.small"
    assert policy.levels["major"].text("en", "major") == "a, b"
    assert policy.levels["small"].text("zh", "small") == "小"
    assert policy.team_of("major") == "own"
    assert policy.team_of("small") is None
    assert policy.actions["letter"].gain == "0"
    assert policy.teams["own"].places == 6


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("cost: 10,", "cost: -10,", ":9:44: actions.call.cost: must be at least 0.0, got -10"),
        ("cost: 10,", "cost: 0.1234567,", "actions.call.cost: expected 6 decimals at most, got 0.1234567; round it"),
        ("cost: 10,", "cost: .nan,", ":9:44: actions.call.cost: expected a finite number, got nan"),
        ("gain: 0}", "gain: .nan}", ":10:56: actions.letter.gain: expected a number or an expression"),
        ("gain: 0}", "gain: yes}", "actions.letter.gain: expected text, got True"),
        ("tiers: [major]", "tiers: [mayor]", ":9:72: actions.call.tiers[0]: there is no level 'mayor' in levels; did"),
        ("team: own", "team: twn", "actions.call.team: there is no team 'twn' in teams; did you mean own?"),
        ("action: letter", "action: lettre", ":11:17: floor.action: there is no action 'lettre' in actions; did"),
        ("tiers: [small]", "tiers: [tiny]", "floor.tiers[0]: there is no level 'tiny' in levels; there are: small"),
        ("action: letter, ", "action: call, ", "floor.tiers[0]: actions.call.tiers lacks small"),
        ("manager: own", "manager: mine", "manager: allowed values: 'own', 'team', 'desk' or 'self'; got 'mine'"),
        ("managers: 2", "managers: two", ":7:19: teams.own.managers: expected a whole number (int), got 'two'"),
        ("effort: 2", "efort: 2", "levels.major.efort: unknown key; did you mean effort?"),
        ("capacity: 5", "capacity: 2.5", "actions.call.capacity: expected a whole number"),
        ("version: 1", "version: 9", ":1:10: version: allowed values: 1; got 9"),
        ("name_zh: 小", "id: shop.major, name_zh: 小", "'shop.major' is the id of two levels"),
        ("  own: {managers", "  own: {managers: 1, managers", "key 'managers' stands on line 7 and again on line 7"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_place_and_a_remedy(tmp_path: Path, old: str, new: str, told: str) -> None:
    assert old in PLAIN
    with pytest.raises(ProjectError) as error:
        read(tmp_path, PLAIN.replace(old, new, 1))
    assert told in str(error.value)
    assert str(tmp_path / "policy.yaml") in str(error.value)


def test_all_problems_are_told_together(tmp_path: Path) -> None:
    with pytest.raises(ProjectError) as error:
        read(tmp_path, PLAIN.replace("cost: 10", "cost: -1").replace("managers: 2", "managers: -2"))
    assert len(str(error.value).splitlines()) == 2


def test_an_unknown_name_lists_the_policies_that_ship(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match=r"'retial' is neither a policy that ships \(bank, key_accounts, retail\)"):
        load_policy("retial", tmp_path)


@pytest.mark.parametrize("name", policy_names())
def test_policies_that_ship_serve_every_level_of_their_scheme_in_both_languages(name: str) -> None:
    policy, scheme = load_policy(name), load_preset(SCHEMES[name], Features().windows_days)
    policy.refuse_missing(scheme.codes, name)
    assert set(policy.levels) == set(scheme.codes)
    for code, level in policy.levels.items():
        assert len(level.benefits_zh) == len(level.benefits_en) > 0
        assert level.name("zh", code) != level.name("en", code)
    costs = [policy.levels[code].cost_per_year or 0 for code in scheme.codes]
    assert costs == sorted(costs)
    assert policy.floor is not None


def test_a_scheme_with_other_levels_names_those_that_have_no_service() -> None:
    with pytest.raises(ProjectError, match="no service for the levels prospect, junior of the scheme; add them below"):
        load_policy("retail").refuse_missing(["prospect", "junior", "small"], "retail")


def three_levels(**teams: tuple[int, int]) -> Policy:
    levels = {
        "low": {"manager": "self"},
        "middle": {"manager": "team", "effort": 0.5},
        "high": {"manager": "own", "effort": 2},
    }
    sizes = {name: {"managers": n, "customers_per_manager": span} for name, (n, span) in teams.items()}
    return Policy.model_validate({"version": 1, "name": "three", "levels": levels, "teams": sizes})


def test_the_load_is_customers_times_effort_and_either_remedy_makes_it_fit() -> None:
    policy, codes = three_levels(own=(2, 10), team=(1, 100)), ["low", "middle", "high"]
    customers = {"low": 1000, "middle": 50, "high": 13}
    own, team = workload(policy, codes, customers)
    assert (own.taken, own.places, own.fits) == (26, 20, False)
    assert (own.more_managers, own.move) == (1, Move(3, "high", "middle"))
    assert (team.taken, team.fits, team.more_managers, team.move) == (25, True, 0, None)
    more = three_levels(own=(3, 10), team=(1, 100))
    assert all(load.fits for load in workload(more, codes, customers))
    moved = {**customers, "high": 10, "middle": 53}
    assert all(load.fits for load in workload(policy, codes, moved))
    assert not all(load.fits for load in workload(policy, codes, {**moved, "high": 11, "middle": 52}))


def test_customers_are_moved_past_a_level_that_is_full_itself() -> None:
    policy, codes = three_levels(own=(2, 10), team=(1, 25)), ["low", "middle", "high"]
    own, _ = workload(policy, codes, {"low": 1, "middle": 50, "high": 13})
    assert own.move == Move(3, "high", "low")


def test_a_level_of_the_same_team_frees_only_the_difference_of_effort() -> None:
    levels = {"low": {"manager": "own", "effort": 0.5}, "high": {"manager": "own"}}
    teams = {"own": {"managers": 1, "customers_per_manager": 10}}
    policy = Policy.model_validate({"version": 1, "name": "two", "levels": levels, "teams": teams})
    (own,) = workload(policy, ["low", "high"], {"low": 2, "high": 11})
    assert (own.taken, own.more_managers, own.move) == (12, 1, Move(4, "high", "low"))


def test_the_files_that_ship_are_in_the_wheel() -> None:
    settings = Path(__file__).parents[2] / "pyproject.toml"
    assert '"configs/policies" = "tiermodel/_data/policies"' in settings.read_text(encoding="utf-8")
    assert set(SCHEMES) == set(policy_names())
    for name in policy_names():
        text = (settings.parent / "configs" / "policies" / f"{name}.yaml").read_text(encoding="utf-8")
        assert yaml.safe_load(text)["name"] == name
