"""The verbs of the tier ledger: show, movement, forecast, override, overrides, check."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tiermodel.cli.options import JSON, PATH
from tiermodel.cli.printing import print_json
from tiermodel.cli.tables import print_table

if TYPE_CHECKING:
    from tiermodel.ledger.ledger import Ledger

__all__ = ["ledger"]


_DAY = click.DateTime(formats=["%Y-%m-%d"])
_LANGUAGE = click.option("--language", type=click.Choice(["zh", "en"]), help="[default: the ledger's]")
_LISTED = 50  # rows printed at most; --out writes all of them


def _spoken(book: Ledger, asked: str | None) -> tuple[str, dict[str, str]]:
    """Return the language asked for, by default that of the ledger, and the names of its tiers by code."""
    names = book.level_names
    language = asked or (names.language if names is not None else "en")
    return language, {} if names is None else names.in_language(language)


@click.group()
def ledger() -> None:
    """Look into a tier ledger, check it, or set a tier by hand."""


@ledger.command("show")
@click.argument("folder", type=PATH)
@click.option("--as-of", type=_DAY, help="The tiers in force on a day.  [default: every assignment, with its span]")
@click.option("--known-on", type=_DAY, help="What was believed on a day, before later corrections.")
@click.option("--superseded", is_flag=True, help="Every row written, with the correction that took its place.")
@click.option("--customer", help="One customer only.")
@click.option("--out", type=PATH, help="A .parquet or .csv file.")
@_LANGUAGE
def ledger_show(
    folder: Path,
    as_of: datetime | None,
    known_on: datetime | None,
    superseded: bool,
    customer: str | None,
    out: Path | None,
    language: str | None,
) -> None:
    """Print who was in which tier from when to when, and why."""
    import pyarrow as pa

    from tiermodel.ledger.ledger import Ledger
    from tiermodel.ledger.listing import listed_rows
    from tiermodel.output import write_table
    from tiermodel.tables.targets import targets
    from tiermodel.words import words

    if superseded and as_of is not None:
        raise click.UsageError("--superseded lists rows of every day: leave --as-of out")
    book = Ledger(folder, _date(known_on)).must_exist()
    spoken, names = _spoken(book, language)
    spans = book.written if superseded else lambda: book.history(customer)
    with targets(tables=[out]):
        rows = spans() if as_of is None else book.as_of(as_of.date())
        if customer is not None:
            rows = rows[rows["customer_id"] == customer]
        if out is not None:
            write_table(pa.Table.from_pandas(rows, preserve_index=False), out)
            click.echo(words(spoken)["ledger_written"].format(n=len(rows), out=out))
            return
    title = words(spoken)["ledger_assignments"].format(n=len(rows))
    print_table(title, listed_rows(rows.head(_LISTED), spoken, names))


def _date(given: datetime | None) -> date | None:
    return None if given is None else given.date()


@ledger.command("movement")
@click.argument("folder", type=PATH)
@click.option("--from", "start", type=_DAY, required=True, help="The day before.")
@click.option("--to", "end", type=_DAY, required=True, help="The day after.")
@click.option("--scores", type=PATH, multiple=True, help="Score tables that say what customers are worth.")
@_LANGUAGE
@JSON
def ledger_movement(
    folder: Path, start: datetime, end: datetime, scores: Sequence[Path], language: str | None, as_json: bool
) -> None:
    """Print who moved from which tier to which between two days, newcomers and leavers included."""
    from tiermodel.ledger.ledger import Ledger
    from tiermodel.ledger.movement import ledger_movement as run_movement

    found = run_movement(folder, start.date(), end.date(), scores)
    if as_json:
        print_json({"from": start.date(), "to": end.date(), "tiers": found.codes, "cells": found.cells()})
        return
    spoken, names = _spoken(Ledger(folder), language)
    print_table(f"{start.date()} → {end.date()}", found.table(spoken, names))
    click.echo(found.summary_words(spoken))


@ledger.command("forecast")
@click.argument("folder", type=PATH)
@_LANGUAGE
@JSON
def ledger_forecast(folder: Path, language: str | None, as_json: bool) -> None:
    """Print how large the tiers will be at the next grading, and how such forecasts would have done before."""
    from tiermodel.ledger.ledger import Ledger
    from tiermodel.ledger.movement import by_tier
    from tiermodel.ledger.movement import ledger_forecast as run_forecast
    from tiermodel.words import words

    found = run_forecast(folder)
    spoken, names = _spoken(Ledger(folder), language)
    if as_json:
        print_json({**vars(found), "verdict": found.verdict(spoken)})
        return
    wording = words(spoken)
    print_table(wording["ledger_after"].format(day=found.day), by_tier(found, spoken, names))
    if found.backtest:
        keys = {name: wording[f"ledger_{name}"] for name in ("day", "error", "error_as_now")}
        print_table(wording["ledger_backtest"], [{keys[k]: v for k, v in row.items()} for row in found.backtest])
    click.echo(found.verdict(spoken))


@ledger.command("override")
@click.argument("folder", type=PATH)
@click.option("--customer", required=True)
@click.option("--tier", help="The tier's code.  [default: withdraw what was set]")
@click.option("--from", "start", type=_DAY, required=True, help="The first day, after the last grading.")
@click.option("--until", type=_DAY, help="The day from which the tier of the scheme is in force again.")
@click.option("--operator", required=True, help="Who decides.")
@click.option("--reason", required=True, help="Why.")
@_LANGUAGE
def ledger_override(
    folder: Path,
    customer: str,
    tier: str | None,
    start: datetime,
    until: datetime | None,
    operator: str,
    reason: str,
    language: str | None,
) -> None:
    """Set one customer's tier by hand; it stays through every grading until it expires or is withdrawn."""
    from tiermodel.ledger.ledger import Ledger
    from tiermodel.words import words

    end, book = _date(until), Ledger(folder).must_exist()
    book.override(customer, tier, start.date(), until=end, operator=operator, reason=reason)
    spoken, names = _spoken(book, language)
    wording = words(spoken)
    held = wording["ledger_as_graded"] if tier is None else names.get(tier, tier)
    told = wording["ledger_set" if end is None else "ledger_set_until"]
    click.echo(told.format(customer=customer, tier=held, start=start.date(), end=end))


@ledger.command("overrides")
@click.argument("folder", type=PATH)
@click.option("--as-of", type=_DAY, help="The day.  [default: that of the last grading or override]")
@click.option("--expiring-within", type=click.IntRange(min=0), help="Only those that expire within so many days.")
@_LANGUAGE
@JSON
def ledger_overrides(
    folder: Path, as_of: datetime | None, expiring_within: int | None, language: str | None, as_json: bool
) -> None:
    """Print the overrides in force on a day, the next to expire first."""
    from tiermodel.ledger.ledger import Ledger
    from tiermodel.ledger.listing import listed_overrides, overrides_on
    from tiermodel.words import words

    book = Ledger(folder).must_exist()
    day = max(file.day for file in book.files) if as_of is None else as_of.date()
    found = overrides_on(book, day, expiring_within)
    if as_json:
        print_json({"as_of": day, "overrides": found.astype(object).where(found.notna(), None).to_dict("records")})
        return
    spoken, names = _spoken(book, language)
    if found.empty:
        click.echo(words(spoken)["ledger_no_overrides"].format(day=day))
        return
    title = words(spoken)["ledger_overrides"].format(n=len(found), day=day)
    print_table(title, listed_overrides(found, spoken, names))


@ledger.command("check")
@click.argument("folder", type=PATH)
@_LANGUAGE
@JSON
def ledger_check(folder: Path, language: str | None, as_json: bool) -> None:
    """Prove that a ledger can be read and holds together; exit 5 if not."""
    from tiermodel.errors import LedgerError
    from tiermodel.ledger.check import check_ledger, refuse_faults
    from tiermodel.ledger.ledger import Ledger

    found = check_ledger(folder)
    if as_json:
        print_json({"counts": found.counts, "first": found.first, "last": found.last, "faults": found.faults})
        sys.exit(LedgerError.exit_code if found.faults else 0)
    refuse_faults(folder, found)
    click.echo(found.to_text(_spoken(Ledger(folder), language)[0]))
