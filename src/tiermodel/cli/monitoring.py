"""The verbs that look back at what came of gradings: outcomes."""

from __future__ import annotations

import math
from pathlib import Path

import click

from tiermodel.cli.options import JSON, PATH, PROJECT, load
from tiermodel.cli.printing import print_json, print_table, progress
from tiermodel.words import words

__all__ = ["outcomes"]

_SHOWN = ("customers", "retained_share", "contribution", "value_share", "complaints", "moved_up", "moved_down")


@click.command()
@PROJECT
@click.option("--ledger", type=PATH, required=True, help="The folder of the ledger.")
@click.option("--out", type=PATH, required=True, help="A .parquet or .csv file.")
@click.option("--smallest", type=int, default=5, show_default=True, help="The fewest customers of which is told.")
@JSON
def outcomes(project: Path, ledger: Path, out: Path, smallest: int, as_json: bool) -> None:
    """Write what came of each tier, one row for each grading and tier whose outcome window is over."""
    settings = load(project)
    from tiermodel.monitoring.outcomes import outcomes as run_outcomes

    with progress() as step:
        step("looking at what followed each grading")
        done = run_outcomes(settings, ledger, out, smallest=smallest)
    if as_json:
        print_json({"out": str(out), **done.to_dict()})
        return
    say = words(settings.language)
    for day in done.gradings[-1:]:
        rows = [
            {
                say["outcomes_tier"]: row["tier_code"],
                **{say[f"outcomes_{name}"]: _shown(row[name]) for name in _SHOWN if name in row},
            }
            for row in done.tiers
            if row["graded"] == day
        ]
        print_table(say["outcomes_title"].format(day=day), rows)
    base = done.base[-1]
    if not math.isnan(base["whale_peak"]):
        click.echo(say["outcomes_whale"].format(**base))
    if done.not_over:
        click.echo(say["outcomes_not_over"].format(days=say["comma"].join(map(str, done.not_over))))
    if done.unknown:
        click.echo(say["outcomes_unknown"].format(n=done.unknown))
    click.echo(say["outcomes_written"].format(n=len(done.tiers), out=out))


def _shown(value: float) -> float | None:
    return None if math.isnan(value) else value
