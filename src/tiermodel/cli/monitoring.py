"""The verbs that watch: outcomes of gradings, and the monitor of a model."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tiermodel.cli.options import AS_OF, JSON, MODEL, PATH, PROJECT, SHOW_VALUES, load, model_folder
from tiermodel.cli.printing import print_json, progress
from tiermodel.cli.tables import print_table
from tiermodel.words import words

if TYPE_CHECKING:
    from tiermodel.config.project import Project
    from tiermodel.monitoring.monitor import MonitorResult
    from tiermodel.monitoring.outcomes import Outcomes

__all__ = ["monitor", "outcomes"]

_SHOWN = ("customers", "retained_share", "contribution", "value_share", "complaints", "moved_up", "moved_down")
_SEEN = 0.0005  # the least share that is no 0.0 %
_COUNTS = {"customers", "complaints", "moved_up", "moved_down", "customers_with_cac"}
_PAYBACK = (
    *("customers_with_cac", "acquisition_cost", "value_to_date", "value_to_cac", "paid_back_share", "payback_days"),
)


@click.command()
@PROJECT
@click.option("--ledger", type=PATH, required=True, help="The folder of the ledger.")
@click.option("--out", type=PATH, required=True, help="A .parquet or .csv file.")
@click.option("--smallest", type=int, default=5, show_default=True, help="The fewest customers of which is told.")
@JSON
@SHOW_VALUES
def outcomes(project: Path, ledger: Path, out: Path, smallest: int, as_json: bool) -> None:
    """Write what came of each tier after each grading.

    Writes one row for each grading and tier whose outcome window is over to the file of --out: retention, value,
    contribution, complaints, moves. Gradings whose window is not over are named.
    """
    settings = load(project)
    from tiermodel.monitoring.outcomes import outcomes as run_outcomes
    from tiermodel.monitoring.outcomes import outcomes_beside
    from tiermodel.tables.targets import targets

    with progress() as step, targets(*outcomes_beside(out), tables=[out], project=settings):
        step(words(settings.language)["step_outcomes"])
        done = run_outcomes(settings, ledger, out, smallest=smallest)
    if as_json:
        print_json({"out": str(out), **done.to_dict()})
        return
    _print(done, out, settings.language)


def _print(done: Outcomes, out: Path, language: str) -> None:
    """Print the last grading, what is not told and why, and what was left out."""
    say, day, base = words(language), done.gradings[-1], done.base[-1]
    lines = [row for row in done.tiers if row["graded"] == day]
    if "cost_to_serve" in done.lacking:
        say = {**say, "outcomes_contribution": say["outcomes_contribution_before"]}
    _print_rows(say["outcomes_title"].format(day=day), say["outcomes_tier"], f"name_{language}", _SHOWN, lines, say)
    if not math.isnan(base["whale_peak"]):
        told = "outcomes_whale" if base["whale_loss"] >= _SEEN else "outcomes_no_whale"
        click.echo(say[told].format(**base))
    channels = [row for row in done.channels if row["graded"] == day]
    if channels:
        named = [{**row, "channel": row["channel"] or say["outcomes_no_channel"]} for row in channels]
        _print_rows(say["outcomes_payback"], say["outcomes_channel"], "channel", _PAYBACK, named, say)
        click.echo(say["outcomes_payback_note"])
    for name in done.lacking:
        click.echo(say[f"outcomes_lacks_{name}"])
    for survey in done.not_counted:
        if survey["off_scale"] or survey["without_score"]:
            low, high = survey["scale"]
            click.echo(say["outcomes_not_counted"].format(low=low, high=high, **survey))
    if done.not_over:
        click.echo(say["outcomes_not_over"].format(days=say["comma"].join(map(str, done.not_over))))
    if done.unknown:
        click.echo(say["outcomes_unknown"].format(n=done.unknown))
    click.echo(say["outcomes_written"].format(n=len(done.tiers), out=out))


def _print_rows(
    title: str, head: str, name: str, shown: tuple[str, ...], lines: list[dict[str, Any]], say: Mapping[str, str]
) -> None:
    rows = [
        {head: row[name], **{say[f"outcomes_{key}"]: _shown(key, row[key]) for key in shown if key in row}}
        for row in lines
    ]
    print_table(title, rows)


def _shown(key: str, value: float) -> float | None:
    if math.isnan(value):
        return None
    return int(value) if key in _COUNTS else value


@click.command()
@PROJECT
@MODEL
@click.option("--as-of", required=True, help=AS_OF)
@click.option("--scores", type=PATH, help="A folder of kept score tables, to compare with what came.")
@click.option("--ledger", type=PATH, help="The folder of the ledger, to look at tiers and movement.")
@click.option("--out", type=PATH, help="A .json file for the result.")
@JSON
@SHOW_VALUES
def monitor(
    project: Path, model: str, as_of: str, scores: Path | None, ledger: Path | None, out: Path | None, as_json: bool
) -> None:
    """Watch a model: drift, past scores, movement, and what to do.

    Prints only what is beyond chance, with advice. Exit 9 where something is to be done, 0 where nothing is.
    """
    settings = load(project)
    from tiermodel.errors import GateError
    from tiermodel.monitoring.monitor import monitor as run_monitor
    from tiermodel.tables.targets import targets

    with progress() as step, targets(out, project=settings):
        folder = model_folder(model, settings.tracking.uri)
        step(words(settings.language)["step_monitor"].format(as_of))
        done = run_monitor(settings, folder, as_of, scores=scores, ledger=ledger, out=out)
        not_tracked = _tracked(settings, done)
    if as_json:
        click.echo(done.to_json(), nl=False)
    else:
        click.echo(done.to_text())
        if out is not None:
            click.echo(words(settings.language)["monitor_written"].format(out=out))
    if not_tracked:
        click.echo(words(settings.language)["monitor_not_tracked"].format(why=not_tracked), err=True)
    if done.alarms:
        sys.exit(GateError.exit_code)


def _tracked(settings: Project, done: MonitorResult) -> str:
    """Track the run where there is a store that answers, and return why not elsewhere: watching needs no store."""
    from tiermodel.errors import TrackingError
    from tiermodel.locks import database_of

    database = database_of(settings.tracking.uri)
    if database is not None and not database.is_file():  # seconds of import for nothing
        return f"{database}: there is no such database"
    from tiermodel.tracking.registry import log_monitoring

    try:
        log_monitoring(settings, done)
    except TrackingError as error:
        return str(error)
    return ""
