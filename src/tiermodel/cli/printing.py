"""Printing: tables and JSON on stdout, accounts of rows and progress on stderr."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from tiermodel.cli.tables import figures_in, print_table
from tiermodel.words import visible, words

__all__ = [
    "accounts_as_data",
    "added_as_data",
    "print_accounts",
    "print_added",
    "print_capacity",
    "print_chances",
    "print_json",
    "print_shadow",
    "print_tiers",
    "print_values",
    "progress",
]


_COUNTED = ("read", "used", "deduplicated", "quarantined", "filtered", "out_of_window")

if TYPE_CHECKING:
    from datetime import date
    from pathlib import Path

    from tiermodel.config.project import Project
    from tiermodel.ledger.rows import Added
    from tiermodel.tables.contract import Accounting


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """Yield a function that shows the current step on stderr: a spinner and a clock on a terminal, lines elsewhere."""
    started = time.monotonic()

    def told(step: str) -> str:
        return step + _time_left(step, time.monotonic() - started)

    if not sys.stderr.isatty():
        yield lambda step: click.echo(f"[{time.monotonic() - started:6.1f} s] {told(step)}", err=True)
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting")
        yield lambda step: bar.update(task, description=told(step))


def _time_left(told: str, seconds: float) -> str:
    """Return about how long the rest takes, for a text that tells how much is done, after a tenth of it.

    >>> _time_left("5/9 (40 %) training", 60), _time_left("reading", 3)
    (' · 1 min 30 s', '')
    """
    found = re.search(r"\d+/\d+ \((\d+) %\)", told)
    if found is None or int(found[1]) < 10 or seconds < 5:
        return ""
    minutes, rest = divmod(max(round(seconds * (100 - int(found[1])) / int(found[1]), -1), 10), 60)
    return f" · {minutes:.0f} min {rest:.0f} s" if minutes else f" · {rest:.0f} s"


def print_accounts(project: Project, accounts: Mapping[str, Accounting], *, needs: bool = False) -> None:
    """Print to stderr how every row of every table was used, and which feature groups cannot be built."""
    from tiermodel.features.export import left_out_words
    from tiermodel.tables.rules import RULES
    from tiermodel.words import in_language

    say, language = words(project.language), project.language
    for table, account in accounts.items():
        counts = {name: getattr(account, name) for name in _COUNTED}
        click.echo(say["account_line"].format(table=say[f"table_{table}"], **counts), err=True)
        for rule, n in account.rules.items():
            one = RULES[rule]
            told = in_language(language, f"{one.wrong_zh}（{one.code} {rule}）", f"{one.wrong_en} ({one.code} {rule})")
            click.echo("  " + say["account_rule"].format(n=n, rule=told), err=True)
        for warning in account.warnings:
            click.echo(visible(f"  {warning}"), err=True)
    if told := left_out_words(project, needs=needs):
        click.echo(told, err=True)


def accounts_as_data(accounts: Mapping[str, Accounting]) -> dict[str, Any]:
    """Return, for JSON, the account of the transactions and the accounts of every table by name."""
    return {"account": vars(accounts["transactions"]), "accounts": {name: vars(a) for name, a in accounts.items()}}


def print_added(added: Added, day: date | None, ledger: Path | None, language: str) -> None:
    """Print what a grading added to a ledger: changes of tier, further rows, and the gradings that it superseded."""
    wording, moves = words(language), sum(added.moves.values())
    if added.next_grading is not None:
        click.echo(wording["ledger_not_graded"].format(day=day, ledger=ledger, next=added.next_grading))
        return
    lines = [wording["ledger_added"].format(moves=moves, ledger=ledger, **added.moves)]
    if added.rows > moves:
        lines.append(wording["ledger_pending"].format(n=added.rows - moves))
    for key, days in (("ledger_superseded", added.superseded), ("ledger_again", added.again)):
        if days:
            lines.append(wording[key].format(days=wording["comma"].join(map(str, days))))
    click.echo("\n".join(lines))


def added_as_data(added: Added | None) -> dict[str, Any]:
    """Return, for JSON, what a grading added to a ledger; `ledger_rows` is null without a ledger."""
    if added is None:
        return {"ledger_rows": None}
    days = {"superseded": list(map(str, added.superseded)), "grade_again": list(map(str, added.again))}
    after = None if added.next_grading is None else str(added.next_grading)
    return {"ledger_rows": added.rows, "ledger_moves": added.moves, **days, "next_grading": after}


def print_chances(what: str, rows: Sequence[Mapping[str, Any]], language: str) -> None:
    """Print the metrics of predicted probabilities, one line for each model and date; nothing without rows."""
    keys = ("model", "as_of", "n", "rate", "auc", "average_precision", "log_loss", "brier", "ece", "ece_by_chance")
    if rows:
        shown = figures_in(language, [{k: row[k] for k in keys} for row in rows])
        print_table(words(language)[f"title_{what}"], shown, language, ("model", "as_of", "auc", "log_loss", "ece"))


def print_values(rows: Sequence[Mapping[str, Any]], language: str) -> None:
    """Print the metrics of predicted values, one line for each model and date."""
    keys = ("model", "as_of", "n", "gini", "spearman", "mae", "rmse", "bias", "decile_mape")
    shown = figures_in(language, [{k: row[k] for k in keys} for row in rows])
    print_table(words(language)["title_values"], shown, language, ("model", "as_of", "gini", "spearman", "mae"))


def print_tiers(tiers: Mapping[str, int], language: str, names: Mapping[str, str] | None = None) -> None:
    """Print the number and the share of customers in each tier, highest tier first, in `names` by code."""
    total = max(sum(tiers.values()), 1)
    rows = [{"tier": code, "customers": n, "share": f"{n / total:.1%}"} for code, n in tiers.items()]
    print_table(words(language)["title_tiers"], figures_in(language, rows[::-1], names))


def print_capacity(levels: Sequence[Mapping[str, Any]], language: str, names: Mapping[str, str] | None = None) -> None:
    """Print how the levels with a capacity filled, and how many customers found no place; nothing without levels."""
    if levels:
        print_table(words(language)["title_capacity"], figures_in(language, levels, names), language)


def print_shadow(found: Mapping[str, Any], out: Path, language: str, names: Mapping[str, str] | None = None) -> None:
    """Print how a shadow's scores differ: the matrix of tiers with customers and value, and what is in which file."""
    from tiermodel.predict.shadow import shadow_paths

    wording = words(language)
    print_table(
        wording["shadow_matrix"].format(shadow=found["shadow_version"]), figures_in(language, found["matrix"], names)
    )
    if not found["same_levels"]:
        click.echo(wording["shadow_other_levels"])
    else:
        moved = found["up"] + found["down"]
        told = {"moved": moved, "share": moved / max(found["customers"], 1), **found}
        told["value_share"] = found["moved_value"] / found["value"] if found["value"] else 0.0
        click.echo(wording["shadow_moved"].format(**told))
    if found["compared"] != "tier":
        click.echo(wording["shadow_by_rules"])
    for key in ("churn_risk", "expected_value"):
        if found[key]["customers"]:
            click.echo(wording[f"shadow_{key}"].format(**found[key]))
    scores, changes, summary = shadow_paths(out)
    click.echo(wording["shadow_files"].format(scores=scores, changes=changes, summary=summary))


def print_json(data: Any) -> None:
    """Print data as JSON: numbers unrounded, dates as text, NaN as null."""
    from tiermodel.output import to_jsonable

    click.echo(visible(json.dumps(to_jsonable(data), ensure_ascii=False, indent=1, allow_nan=False, default=str)))
