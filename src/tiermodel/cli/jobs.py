"""The verb of the nightly job: refresh."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tiermodel.cli.options import AS_OF, JSON, PROJECT, SHOW_VALUES, load
from tiermodel.cli.printing import print_json, progress
from tiermodel.cli.tables import print_table
from tiermodel.words import words

if TYPE_CHECKING:
    from tiermodel.jobs.manifest import StageRecord
    from tiermodel.jobs.refresh import Plan, Refreshed

__all__ = ["refresh"]


@click.command()
@PROJECT
@click.option("--as-of", default="latest", show_default=True, help=AS_OF)
@click.option(
    "--dry-run", is_flag=True, help="Print what would be done, and the time and disk it takes; write nothing."
)
@JSON
@SHOW_VALUES
def refresh(project: Path, as_of: str, dry_run: bool, as_json: bool) -> None:
    """Bring everything up to a date, as a nightly job.

    Checks the data, trains where due, promotes, scores, writes lists, exports and the report. Made for schedulers: the
    same date again does nothing, a killed run goes on where it was. Exit 9 where monitoring or the gate said no; scores
    and lists are written all the same.
    """
    from tiermodel.jobs.refresh import plan
    from tiermodel.jobs.refresh import refresh as run_refresh

    settings = load(project)
    if dry_run:
        planned = plan(settings, as_of)
        print_json(planned.to_dict()) if as_json else _print_plan(planned, settings.language)
        return
    with progress() as step:
        done = run_refresh(settings, as_of, progress=lambda name: step(words(settings.language)[f"stage_{name}"]))
    if as_json:
        print_json({"folder": str(done.folder), "ran": list(done.ran), **done.manifest.model_dump(mode="json")})
    else:
        _print(done, settings.language)
    sys.exit(done.exit_code)


def _print_plan(planned: Plan, language: str) -> None:
    say = words(language)
    rows = [
        {
            say["refresh_stage"]: say[f"stage_{stage['stage']}"],
            say["refresh_what"]: _what(stage, language),
            say["refresh_seconds"]: stage["seconds"],
        }
        for stage in planned.stages
    ]
    print_table(say["refresh_plan"].format(folder=planned.folder), rows)
    sizes = {name: f"{getattr(planned, name) / 1e6:,.0f}" for name in ("bytes", "free")}
    click.echo(say["refresh_disk"].format(**sizes))
    takes = say["refresh_unknown"] if planned.seconds is None else say["refresh_takes"]
    click.echo(takes.format(seconds=planned.seconds))


def _what(stage: dict[str, Any], language: str) -> str:
    say = words(language)
    state = say["refresh_done" if stage["done"] else "refresh_runs" if stage["runs"] else "refresh_not"]
    return state if stage["why"] is None else say["refresh_because"].format(what=state, why=stage["why"])


def _print(done: Refreshed, language: str) -> None:
    say = words(language)
    rows = [
        {
            say["refresh_stage"]: say[f"stage_{record.stage}"],
            say["refresh_what"]: _result(record, language),
            say["refresh_seconds"]: record.seconds if record.skipped is None else None,
        }
        for record in done.manifest.stages
    ]
    print_table(say["refresh_title"].format(folder=done.folder), rows)
    for record in done.manifest.stages:
        if record.said and record.exit:
            click.echo("\n".join(record.said))
    if not done.ran:
        click.echo(say["refresh_nothing"].format(day=done.manifest.as_of))


def _result(record: StageRecord, language: str) -> str:
    say = words(language)
    if record.skipped is not None:
        return say["refresh_because"].format(what=say["refresh_not"], why=record.skipped)
    counts = {name: value for name, value in record.counts.items() if isinstance(value, int | str)}
    if record.exit:
        return say["refresh_no"].format(code=record.exit)
    if "customers" in counts:
        return say["refresh_customers"].format(n=counts["customers"])
    return (
        ", ".join(str(counts[name]) for name in ("registered", "model", "champion") if name in counts)
        or say["refresh_ok"]
    )
