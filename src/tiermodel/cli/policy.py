"""The verbs of the service policy: allocate, and show policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tiermodel.cli.options import JSON, PATH, PROJECT, load
from tiermodel.cli.printing import print_json, progress
from tiermodel.cli.tables import print_table, tier_names
from tiermodel.words import words

if TYPE_CHECKING:
    from tiermodel.policy.allocate import Allocation
    from tiermodel.policy.service_policy import Policy
    from tiermodel.policy.workload import TeamLoad

__all__ = ["allocate", "show_policy"]


_LANGUAGE = click.option(
    "--language", type=click.Choice(["zh", "en"]), help="[default: the policy's, or the project's]"
)


@click.command()
@click.argument("scores", type=PATH)
@click.option("--policy", required=True, help="A policy file, or the name of one that ships.")
@click.option("--budget", required=True, metavar="AMOUNT", help="The most that all actions may cost in a period.")
@click.option("--out", type=PATH, required=True, help="A .parquet or .csv file.")
@click.option("--project", type=PATH, help="The project file: its horizon, else that of SCORES, is the period.")
@click.option("--measured", type=PATH, help="A table of a randomised trial: its effects in place of assumed gains.")
@click.option("--figure", type=PATH, help="A .png file: what other budgets would bring.")
@_LANGUAGE
@JSON
def allocate(
    scores: Path,
    policy: str,
    budget: str,
    out: Path,
    project: Path | None,
    measured: Path | None,
    figure: Path | None,
    language: str | None,
    as_json: bool,
) -> None:
    """Choose who gets which action of a policy, within a budget.

    The minimum service comes first, then what brings most beyond its cost, within the capacity of actions and teams.
    Writes one row for each customer and chosen action to the file of --out.
    """
    from tiermodel.errors import ProjectError
    from tiermodel.policy.advisory import advisory_path
    from tiermodel.policy.allocate import allocate as run_allocate
    from tiermodel.policy.service_policy import load_policy
    from tiermodel.tables.targets import targets

    if figure is not None and figure.suffix.lower() != ".png":
        raise ProjectError(f"--figure: {figure}: figures are written as .png; give this ending")
    settings = None if project is None else load(project)
    given = load_policy(policy)
    asked = language or given.language or (settings.language if settings else None)
    with progress() as step, targets(advisory_path(out), figure, tables=[out]):
        step(words(asked or "en")["step_allocating"])
        done = run_allocate(scores, given, budget, out, project=settings, measured=measured, language=asked)
        if figure is not None:
            _draw(done, figure, done.language, settings.currency if settings else None)
    if as_json:
        print_json({"out": str(out), **done.to_dict()})
    else:
        _print(done, given, out)


def _draw(done: Allocation, path: Path, language: str, currency: str | None) -> None:
    from tiermodel.reporting.figure_allocation import allocation_curve
    from tiermodel.reporting.figures import FigureStyle, save_png

    style = FigureStyle(language)
    save_png(allocation_curve(style, done.curve, done.budget, done.objective, currency or ""), path)


def _print(done: Allocation, policy: Policy, out: Path) -> None:
    language, say = done.language, words(done.language)
    title = say["allocate_title"].format(customers=done.customers, read=done.customers_read, days=done.period_days)
    heads = {"tier_code": "allocate_tier", "action": "allocate_action", "customers": "allocate_customers"}
    heads |= {name: f"allocate_{name}" for name in ("cost", "gain", "net", "return")}
    names = {code: action.name(language, code) for code, action in policy.actions.items()}
    tiers = tier_names(tuple(done.tier_names), list(done.tier_names.values()), language)
    shown = {"action": names, "tier_code": tiers}
    rows = [
        {say[heads[key]]: shown.get(key, {}).get(value, value) for key, value in row.items()}
        for row in done.by_tier_action
    ]
    print_table(title, rows)
    if policy.floor is not None:
        levels = say["comma"].join(tiers.get(code, code) for code in policy.floor.tiers)
        click.echo(say["allocate_floor"].format(action=names[policy.floor.action], tiers=levels))
    if done.period_assumed:
        click.echo(say["allocate_period_assumed"].format(days=done.period_days))
    click.echo(say["allocate_sums"].format(**done.to_dict()))
    _print_effects(done, language)
    _print_prices(done, names, language)
    if done.refused:
        click.echo(say["allocate_refused"].format(n=done.refused))
    if done.advisory is not None:
        advice = done.advisory
        if advice["customers"]:
            text = say["allocate_advisory"]
            click.echo(text.format(n=advice["customers"], loss=advice["loss"], file=out.with_name(advice["file"])))
        if advice["without_value"]:
            click.echo(say["allocate_advisory_unknown"].format(n=advice["without_value"]))
    click.echo(say["allocate_written"].format(n=sum(row["customers"] for row in done.by_action), out=out))


def _print_effects(done: Allocation, language: str) -> None:
    say = words(language)
    if done.effects["kind"] == "assumed":
        click.echo(say["allocate_assumed"])
        return
    heads = {"action": "action", "tier_code": "tier", "gain": "effect"}
    rows = [
        {say[f"allocate_{heads.get(key, key)}"]: value for key, value in row.items()}
        for row in done.effects["measured"]
    ]
    print_table(say["allocate_measured"], rows)


def _print_prices(done: Allocation, names: Mapping[str, str], language: str) -> None:
    say, prices = words(language), done.shadow_prices
    rows = [{say["allocate_of"]: say["allocate_budget"], say["allocate_brings"]: prices["budget"]}]
    for kind in ("capacity", "team", "manager"):
        for name, price in prices[kind].items():
            text = say[f"allocate_{kind}"].format(name=names.get(name, name) if kind == "capacity" else name)
            rows.append({say["allocate_of"]: text, say["allocate_brings"]: price})
    print_table(say["allocate_one_more"], rows)


@click.command("policy")
@PROJECT
@click.argument("scores", type=PATH, required=False)
@_LANGUAGE
@JSON
def show_policy(project: Path, scores: Path | None, language: str | None, as_json: bool) -> None:
    """Print a project's service policy; with SCORES, whether its managers suffice.

    Where a team has fewer places than customers, what to do about it is told.
    """
    from tiermodel.errors import ProjectError
    from tiermodel.policy.service_policy import load_policy, policy_names
    from tiermodel.policy.workload import count_tiers, workload
    from tiermodel.tiers.schemes.load import load_scheme

    settings = load(project)
    if settings.policy is None:
        ships = ", ".join(policy_names())
        raise ProjectError(f"{project}: there is no policy; add one, such as policy: retail (these ship: {ships})")
    policy, codes = load_policy(settings.policy, settings.folder), load_scheme(settings).codes
    policy.refuse_missing(codes, settings.policy)
    customers = None if scores is None else count_tiers(scores, policy)
    loads = [] if customers is None else workload(policy, codes, customers)
    if as_json:
        print_json(_as_data(policy, codes, customers, loads))
        return
    language = language or policy.language or settings.language
    print_table(
        words(language)["policy_levels"].format(name=policy.name), _level_rows(policy, codes, customers, language)
    )
    if loads:
        _print_loads(policy, loads, language)


def _as_data(
    policy: Policy, codes: Sequence[str], customers: Mapping[str, int] | None, loads: Sequence[TeamLoad]
) -> dict[str, Any]:
    levels = [
        {
            "tier_code": code,
            **policy.levels[code].model_dump(mode="json"),
            "id": policy.level_id(code),
            "team": policy.team_of(code),
            **({} if customers is None else {"customers": customers[code]}),
        }
        for code in codes
    ]
    teams = [
        {**vars(load), "fits": load.fits, "move": None if load.move is None else vars(load.move)} for load in loads
    ]
    rest = policy.model_dump(mode="json", include={"teams", "actions", "floor"})
    return {"name": policy.name, "levels": levels, "load": teams, **rest}


def _level_rows(
    policy: Policy, codes: Sequence[str], customers: Mapping[str, int] | None, language: str
) -> list[dict[str, Any]]:
    say, rows = words(language), []
    for code in reversed(codes):
        level = policy.levels[code]
        row = {
            say["policy_level"]: code,
            say["policy_id"]: policy.level_id(code),
            say["policy_name"]: level.name(language, code),
            say["policy_manager"]: say[f"policy_manager_{level.manager}"],
            say["policy_answer"]: level.answer_hours,
            say["policy_visits"]: level.visits_per_year,
            say["policy_cost"]: level.cost_per_year,
            say["policy_benefits"]: level.text(language, code),
        }
        if customers is not None:
            row[say["policy_customers"]] = customers[code]
            row[say["policy_total_cost"]] = (
                None if level.cost_per_year is None else customers[code] * level.cost_per_year
            )
        rows.append(row)
    return rows


def _print_loads(policy: Policy, loads: Sequence[TeamLoad], language: str) -> None:
    say = words(language)
    names = {code: level.name(language, code) for code, level in policy.levels.items()}
    rows = [
        {
            say["policy_team"]: team.team,
            say["policy_served"]: say["comma"].join(names[code] for code in team.levels),
            say["policy_managers"]: team.managers,
            say["policy_span"]: team.customers_per_manager,
            say["policy_places"]: team.places,
            say["policy_taken"]: team.taken,
            say["policy_fits"]: say["policy_yes" if team.fits else "policy_no"],
        }
        for team in loads
    ]
    print_table(say["policy_load"], rows)
    for team in loads:
        if not team.fits:
            over = team.taken - team.places
            text = say["policy_remedy"].format(team=team.team, over=over, managers=team.more_managers)
            if (move := team.move) is not None:
                named = {"level": names[move.level], "to": names[move.to], "customers": move.customers}
                text += say["policy_remedy_move"].format(**named)
            click.echo(text)
