"""What the verbs share: options that mean the same everywhere, how a project or a model is found, how results look."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from tiermodel.config.project import Project
    from tiermodel.tables.contract import Accounting

__all__ = [
    "AS_OF", "EMPTY", "JSON", "LANGUAGE", "PATH", "PROJECT", "STORE", "accounts_as_data", "load", "model_folder",
    "print_accounts", "print_chances", "print_json", "print_table", "print_tiers", "print_values", "progress",
]  # fmt: skip

PATH = click.Path(path_type=Path)
PROJECT = click.argument("project", type=PATH)
JSON = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
STORE = click.option("--tracking-uri", envvar="MLFLOW_TRACKING_URI", default="sqlite:///mlflow.db", show_default=True)
EMPTY = click.option(
    "--allow-empty", is_flag=True, help="Of transactions without a row make a table without a row, not an error."
)
LANGUAGE = click.option("--language", type=click.Choice(["zh", "en"]), help="[default: the model's]")
AS_OF = "The first instant we pretend not to know, such as 2017-11-30; `latest` is the day after the last row."


def load(path: Path) -> Project:
    """Load a project file."""
    from tiermodel.config.project import load_project

    return load_project(path)


def model_folder(reference: str, tracking_uri: str) -> Path:
    """Find a bundle's folder; only NAME@alias and NAME/number, where no such path is there, are worth the registry."""
    if Path(reference).exists() or not re.fullmatch(r"(models:/)?[\w.-]+(@[\w-]+|/\d+)", reference):
        return Path(reference)
    from tiermodel.registry import resolve_model

    return resolve_model(reference, tracking_uri)


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """Say what is being done: a spinner with the time taken on a terminal, plain lines elsewhere."""
    started = time.monotonic()
    if not sys.stderr.isatty():
        yield lambda words: click.echo(f"[{time.monotonic() - started:6.1f} s] {words}", err=True)
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting")
        yield lambda words: bar.update(task, description=words)


def print_accounts(project: Project, accounts: Mapping[str, Accounting]) -> None:
    """Say on stderr what became of every row of every table, and what the project leaves out."""
    from tiermodel.features.export import left_out_words

    for table, account in accounts.items():
        click.echo(
            f"{table}: {account.read:,} read = {account.used:,} used + {account.deduplicated:,} duplicate "
            f"+ {account.quarantined:,} quarantined + {account.filtered:,} filtered "
            f"+ {account.out_of_window:,} out of window",
            err=True,
        )
        for words in (*(f"{n:,} rows: {rule}" for rule, n in account.rules.items()), *account.warnings):
            click.echo(f"  {words}", err=True)
    if words := left_out_words(project):
        click.echo(words, err=True)


def accounts_as_data(accounts: Mapping[str, Accounting]) -> dict[str, Any]:
    """Give the account of the transactions, and those of every table."""
    return {"account": vars(accounts["transactions"]), "accounts": {name: vars(a) for name, a in accounts.items()}}


def print_chances(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print how well chances came true, a model and date a line; nothing where nothing was judged."""
    keys = ("model", "as_of", "n", "rate", "auc", "average_precision", "log_loss", "brier", "ece", "ece_by_chance")
    if rows:
        print_table(f"{title}, out of time", [{k: row[k] for k in keys} for row in rows])


def print_values(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print how well values were foretold, a model and date a line."""
    keys = ("model", "as_of", "n", "gini", "spearman", "mae", "rmse", "bias", "decile_mape")
    print_table("Value, out of time", [{k: row[k] for k in keys} for row in rows])


def print_tiers(tiers: Mapping[str, int]) -> None:
    """Print how many customers are in each tier, the highest first."""
    total = max(sum(tiers.values()), 1)
    print_table(
        "Tiers",
        [{"tier": code, "customers": n, "share": f"{n / total:.1%}"} for code, n in reversed(list(tiers.items()))],
    )


def print_table(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows as a table with the columns that any of them has; `-` where a row has none."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    names = list(dict.fromkeys(name for row in rows for name in row))
    for name in names:
        numeric = all(isinstance(row.get(name), int | float | None) for row in rows)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(row.get(name)) for name in names))
    # a file or a pipe has no width: give tables the room they need
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.4f}" if abs(value) < 100 else f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def print_json(data: Any) -> None:
    """Print what a machine reads: numbers as they are, dates as text, and no NaN, which JSON does not know."""
    from tiermodel.output import to_jsonable

    click.echo(json.dumps(to_jsonable(data), ensure_ascii=False, indent=1, allow_nan=False, default=str))
