"""The policy file: the service of each level, the teams, the catalogue of actions, and the minimum service."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from tiermodel.config.data import Section, Text
from tiermodel.config.packaged import packaged
from tiermodel.config.validation import checked, nearest
from tiermodel.config.yaml_reader import Loc, YamlSource, shown
from tiermodel.errors import ProjectError
from tiermodel.words import in_language, words

__all__ = ["Action", "Floor", "Policy", "PolicyLevel", "Team", "load_policy", "policy_names"]

DECIMALS = 6
"""The most decimals of a cost, so that sums of costs are exact."""


def _exact(amount: float) -> float:
    if -int(Decimal(repr(amount)).normalize().as_tuple().exponent) > DECIMALS:
        raise ValueError(f"expected {DECIMALS} decimals at most, got {amount!r}; round it")
    return amount


def _as_expression(value: object) -> object:
    """Return a number as the expression that it is; a yes/no value and a list stay what they are, and are refused."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise ValueError(f"expected a number or an expression over the columns of the scores, got {value}")
        return repr(value)
    return value


_Name = Annotated[str, Field(pattern=r"^[^\W_][\w.-]{0,39}$")]
_Count = Annotated[int, Field(strict=True, ge=0)]
_Amount = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
_Cost = Annotated[_Amount, AfterValidator(_exact)]


class _Named(Section):
    """A part with a name in both languages; without one, its key is its name."""

    name_zh: Text | None = None
    name_en: Text | None = None

    def name(self, language: str, key: str) -> str:
        """Return the name in a language."""
        return in_language(language, self.name_zh or self.name_en, self.name_en or self.name_zh) or key


class PolicyLevel(_Named):
    """The service of a level: who looks after its customers, how soon they answer, and what a customer costs a year.

    `manager` says who: a manager of the customer's `own`, a `team`, the service `desk`, or the customers themselves
    (`self`). The team of that name, where there is one, has a place for each customer, or for `effort` of one:
    2 for customers who take the work of two, 0.5 for those who take half of it.
    """

    id: Text | None = None
    manager: Literal["own", "team", "desk", "self"] = "self"
    effort: Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)] = 1.0
    answer_hours: Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)] | None = None
    visits_per_year: _Amount = 0.0
    benefits_zh: tuple[Text, ...] = ()
    benefits_en: tuple[Text, ...] = ()
    cost_per_year: _Cost | None = None

    def text(self, language: str, key: str) -> str:
        """Return the benefits in one line; the name where there are none."""
        benefits = in_language(language, self.benefits_zh or self.benefits_en, self.benefits_en or self.benefits_zh)
        return words(language)["comma"].join(benefits) or self.name(language, key)


class Team(Section):
    """A team: its managers, and the span of control, the most customers of each."""

    managers: _Count
    customers_per_manager: Annotated[int, Field(strict=True, ge=1)]

    @property
    def places(self) -> int:
        """The most customers, or actions, of the team."""
        return self.managers * self.customers_per_manager


class Action(_Named):
    """Something that can be done for a customer in the period, with what it costs and what it is assumed to bring.

    `gain` is an SQL expression over the columns of the scores. Only customers of `tiers` (default: every one) for whom
    `where` is true and `exclude` is not may get it; at most `capacity` of them, and no more than the `team` has places.
    A customer gets one action of a `group` at most.
    """

    cost: _Cost
    gain: Annotated[Text, BeforeValidator(_as_expression)]
    tiers: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    where: Text | None = None
    exclude: Text | None = None
    capacity: _Count | None = None
    team: str | None = None
    group: Text | None = None


class Floor(Section):
    """The minimum service: the action that every customer of these tiers gets before anything else is considered."""

    action: str
    tiers: Annotated[tuple[str, ...], Field(min_length=1)]


class Policy(Section):
    """A checked policy file.

    Costs and gains of actions, and the budget, are per period: `period_days`, by default the project's horizon.
    `cost_per_year` of a level is what serving one customer costs beside the actions; no budget has to cover it.
    """

    version: Literal[1]
    name: _Name
    language: Literal["zh", "en"] | None = None
    period_days: Annotated[int, Field(strict=True, ge=1, le=3660)] | None = None
    levels: Annotated[dict[_Name, PolicyLevel], Field(min_length=1)]
    teams: dict[_Name, Team] = Field(default_factory=dict)
    actions: Annotated[dict[_Name, Action], Field(max_length=50)] = Field(default_factory=dict)
    floor: Floor | None = None

    def level_id(self, code: str) -> str:
        """Return the id of a level's service, by default the names of the policy and of the level."""
        return self.levels[code].id or f"{self.name}.{code}"

    def team_of(self, code: str) -> str | None:
        """Return the team that serves a level; None where none of its kind has a size."""
        kind = self.levels[code].manager
        return kind if kind in self.teams else None

    def refuse_missing(self, codes: Iterable[str], where: str) -> None:
        """Raise ProjectError that names the levels of a scheme for which there is no service; `where` is the file."""
        if missing := [code for code in codes if code not in self.levels]:
            raise ProjectError(
                f"policy: {where} has no service for the levels {', '.join(missing)} of the scheme; add them below "
                f"levels, which has {', '.join(self.levels)}"
            )


def policy_names() -> list[str]:
    """Return the names of the policies that come with the package, sorted."""
    return sorted(path.stem for path in packaged("policies").glob("*.yaml"))


def load_policy(given: str | Path, folder: Path | None = None) -> Policy:
    """Return a policy by the path of its file (relative to `folder`), or by the name of one that ships.

    Raises ProjectError: one line for each problem, with file:line:column, key, value at fault and remedy.

    >>> load_policy("bank").levels["vip"].manager
    'own'
    """
    source = YamlSource(_path(given, folder), "policy file")
    document = source.read()
    policy = checked(Policy, document, source)
    for loc, problem in _loose_ends(policy):
        source.note(source.place(loc, of_key=False), loc, problem)
    source.refuse_problems()
    return policy


def _path(given: str | Path, folder: Path | None) -> Path:
    if not isinstance(given, str | Path):
        raise TypeError(f"policy: expected a path or the name of a policy, got {type(given).__name__} {shown(given)}")
    if str(given) in policy_names():
        return packaged("policies") / f"{given}.yaml"
    path = (folder or Path()) / given
    if not path.is_file():
        raise ProjectError(
            f"policy: {str(given)!r} is neither a policy that ships ({', '.join(policy_names())}) nor a file at {path}"
        )
    return path


def _loose_ends(policy: Policy) -> Iterator[tuple[Loc, str]]:
    """Yield the place and the problem of each name that leads nowhere, and of ids that two levels share."""
    ids = [policy.level_id(code) for code in policy.levels]
    for code in policy.levels:
        if ids.count(policy.level_id(code)) > 1:
            yield ("levels", code, "id"), f"{policy.level_id(code)!r} is the id of two levels; give each its own"
    for code, action in policy.actions.items():
        yield from _unknown(("actions", code, "tiers"), "level", action.tiers or (), policy.levels)
        if action.team is not None and action.team not in policy.teams:
            yield ("actions", code, "team"), _unknown_words("team", action.team, policy.teams)
    if policy.floor is not None:
        yield from _loose_floor(policy, policy.floor)


def _loose_floor(policy: Policy, floor: Floor) -> Iterator[tuple[Loc, str]]:
    yield from _unknown(("floor", "tiers"), "level", floor.tiers, policy.levels)
    action = policy.actions.get(floor.action)
    if action is None:
        yield ("floor", "action"), _unknown_words("action", floor.action, policy.actions)
    elif action.tiers is not None:
        for place, tier in enumerate(floor.tiers):
            if tier in policy.levels and tier not in action.tiers:
                problem = f"actions.{floor.action}.tiers lacks {tier}, whose customers are to get it; add it there"
                yield ("floor", "tiers", place), problem


def _unknown(loc: Loc, what: str, names: Iterable[str], known: Iterable[str]) -> Iterator[tuple[Loc, str]]:
    for place, name in enumerate(names):
        if name not in known:
            yield (*loc, place), _unknown_words(what, name, known)


def _unknown_words(what: str, name: str, known: Iterable[str]) -> str:
    near = nearest(name, known)
    hint = f"did you mean {near}?" if near else f"there are: {', '.join(known) or 'none'}"
    return f"there is no {what} {shown(name)} in {what}s; {hint}"
