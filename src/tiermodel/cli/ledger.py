"""The verbs of a tier ledger: show, movement, forecast, override."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import click

from tiermodel.cli.options import JSON, PATH
from tiermodel.cli.printing import print_json, print_table

__all__ = ["ledger"]


_DAY = click.DateTime(formats=["%Y-%m-%d"])
_COLUMNS = (
    *("customer_id", "valid_from", "valid_to", "tier_code", "previous_code"),
    *("event", "reason_1", "operator", "expires"),
)
_LISTED = 50  # rows printed at most; --out writes all of them


@click.group()
def ledger() -> None:
    """Look into a tier ledger, or set a customer's tier by hand."""


@ledger.command("show")
@click.argument("folder", type=PATH)
@click.option("--as-of", type=_DAY, help="The tiers in force on a day.  [default: every assignment, with its span]")
@click.option("--known-on", type=_DAY, help="What was believed on a day, before later corrections.")
@click.option("--superseded", is_flag=True, help="Every row written, with the correction that took its place.")
@click.option("--customer", help="One customer only.")
@click.option("--out", type=PATH, help="A .parquet or .csv file.")
def ledger_show(
    folder: Path,
    as_of: datetime | None,
    known_on: datetime | None,
    superseded: bool,
    customer: str | None,
    out: Path | None,
) -> None:
    """Print who was in which tier from when to when, and why."""
    import pyarrow as pa

    from tiermodel.ledger.ledger import Ledger
    from tiermodel.output import write_table

    if superseded and as_of is not None:
        raise click.UsageError("--superseded lists rows of every day: leave --as-of out")
    book = Ledger(folder, None if known_on is None else known_on.date()).must_exist()
    spans = book.written if superseded else lambda: book.history(customer)
    rows = spans() if as_of is None else book.as_of(as_of.date())
    if customer is not None:
        rows = rows[rows["customer_id"] == customer]
    if out is not None:
        write_table(pa.Table.from_pandas(rows, preserve_index=False), out)
        click.echo(f"{len(rows):,} assignments in {out}")
        return
    listed = rows.astype(object).where(rows.notna(), None).head(_LISTED).to_dict("records")
    print_table(f"{len(rows):,} assignments", [{k: row[k] for k in _COLUMNS if k in row} for row in listed])


@ledger.command("movement")
@click.argument("folder", type=PATH)
@click.option("--from", "start", type=_DAY, required=True, help="The day before.")
@click.option("--to", "end", type=_DAY, required=True, help="The day after.")
@click.option("--scores", type=PATH, multiple=True, help="Score tables that say what customers are worth.")
@click.option("--language", type=click.Choice(["zh", "en"]), default="en", show_default=True)
@JSON
def ledger_movement(
    folder: Path, start: datetime, end: datetime, scores: Sequence[Path], language: str, as_json: bool
) -> None:
    """Print who moved from which tier to which between two days, newcomers and leavers included."""
    from tiermodel.ledger.movement import ledger_movement as run_movement

    found = run_movement(folder, start.date(), end.date(), scores)
    if as_json:
        print_json({"from": start.date(), "to": end.date(), "tiers": found.codes, "cells": found.cells()})
        return
    print_table(f"{start.date()} → {end.date()}", found.table(language))
    click.echo(found.summary_words(language))


@ledger.command("forecast")
@click.argument("folder", type=PATH)
@click.option("--language", type=click.Choice(["zh", "en"]), default="en", show_default=True)
@JSON
def ledger_forecast(folder: Path, language: str, as_json: bool) -> None:
    """Print how large the tiers will be at the next grading, and how such forecasts would have done before."""
    from tiermodel.ledger.movement import by_tier
    from tiermodel.ledger.movement import ledger_forecast as run_forecast

    found = run_forecast(folder)
    if as_json:
        print_json({**vars(found), "verdict": found.verdict(language)})
        return
    print_table(f"After {found.day}", by_tier(found))
    if found.backtest:
        print_table("Forecasts of the past, errors as shares of the customers", found.backtest)
    click.echo(found.verdict(language))


@ledger.command("override")
@click.argument("folder", type=PATH)
@click.option("--customer", required=True)
@click.option("--tier", help="The tier's code.  [default: withdraw what was set]")
@click.option("--from", "start", type=_DAY, required=True, help="The first day, after the last grading.")
@click.option("--until", type=_DAY, help="The day from which the tier of the scheme is in force again.")
@click.option("--operator", required=True, help="Who decides.")
@click.option("--reason", required=True, help="Why.")
def ledger_override(
    folder: Path, customer: str, tier: str | None, start: datetime, until: datetime | None, operator: str, reason: str
) -> None:
    """Set one customer's tier by hand; it stays through every grading until it expires or is withdrawn."""
    from tiermodel.ledger.ledger import Ledger

    end = None if until is None else until.date()
    Ledger(folder).must_exist().override(customer, tier, start.date(), until=end, operator=operator, reason=reason)
    click.echo(f"{customer}: {tier or 'as graded'} from {start.date()}" + ("" if end is None else f" until {end}"))
