"""Tables on the terminal: heads and names in the project's language, as many columns as fit, else one record a row."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from tiermodel.words import words

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["figures_in", "print_table", "tier_names"]

_UNLIMITED = 200  # a file or a pipe has no width, and rich would fold tables at 80 characters
_NAMES = {"model": "model_", "against": "model_", "metric": "metric_", "target": "target_", "by": "by_",
          "learner": "learner_", "settings": "figure_"}  # fmt: skip
_TIERS = frozenset({"tier", "from", "to", "group", "level"})


def tier_names(codes: Sequence[str], names: Sequence[str], language: str) -> dict[str, str]:
    """Return what the tiers are called in a table: in Chinese by name and code, in English by code.

    >>> tier_names(["small"], ["小客户"], "zh"), tier_names(["small"], ["small"], "en")
    ({'small': '小客户 (small)'}, {})
    """
    return {code: f"{name} ({code})" for code, name in zip(codes, names, strict=True)} if language == "zh" else {}


def figures_in(
    language: str, rows: Sequence[Mapping[str, Any]], tiers: Mapping[str, str] | None = None
) -> list[dict[str, Any]]:
    """Return rows of figures with their heads, models, metrics and tiers in the language; English ones are codes.

    >>> figures_in("zh", [{"metric": "log_loss", "low": -0.1}])
    [{'指标': '对数损失', '下限': -0.1}]
    """
    if language != "zh":
        return [dict(row) for row in rows]
    say, names = words(language), tiers or {}
    return [
        {say.get(f"figure_{key}", key): _named(key, value, say, names) for key, value in row.items()} for row in rows
    ]


def _named(key: str, value: Any, say: Mapping[str, str], tiers: Mapping[str, str]) -> Any:
    if isinstance(value, bool):
        return say["policy_yes" if value else "policy_no"]
    if not isinstance(value, str):
        return value
    if key in _TIERS:
        return tiers.get(value, value)
    if key not in _NAMES:
        return value.replace(" (ours)", say["ours"]).replace("all dates", say["all_dates"])
    base, _, days = value.rpartition("_")
    if days[:-1].isdigit() and f"model_{base}" in say:
        return say["verdict_days"].format(say[f"model_{base}"], days[:-1])
    return say.get(f"{_NAMES[key]}{value}", value)


def print_table(
    title: str, rows: Sequence[Mapping[str, Any]], language: str = "en", keep: Collection[str] = ()
) -> None:
    """Print rows as a table of every column that any row has; a missing value is shown as `-`.

    On a terminal too narrow for it, columns that are not in `keep` are left out from the right, and named beneath;
    where that is not enough, or `keep` is empty, each row is printed as a record instead.
    """
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else _UNLIMITED)
    names = list(dict.fromkeys(name for row in rows for name in row))
    heads = {figures_in(language, [{name: None}])[0].popitem()[0] for name in keep} | set(keep)
    shown, left_out = list(names), list[str]()
    while len(shown) > 1 and not _fits(rows, shown, console.width):
        spare = [name for name in shown if name not in heads]
        if not keep or not spare:
            break
        left_out.insert(0, spare[-1])
        shown.remove(spare[-1])
    if len(shown) < 2 or _fits(rows, shown, console.width):
        console.print(_table(title, rows, shown))
    else:
        left_out = []
        click.echo("\n".join(_records(title, rows, names)))
    if left_out:
        say = words(language)
        click.echo(say["columns_left_out"].format(say["comma"].join(left_out)))


def _fits(rows: Sequence[Mapping[str, Any]], names: Sequence[str], width: int) -> bool:
    """Return whether a table fits, its heads folded at two lines and one column of text, the widest, at a third."""
    from rich.cells import cell_len

    widths = [
        max(-(-cell_len(str(name)) // 2), *(cell_len(_cell(row.get(name))) for row in rows), 0) + 3 for name in names
    ]
    widest = max(widths, default=0)
    return sum(widths) + 1 - widest + min(widest, max(28, width // 3)) <= width


def _table(title: str, rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Table:
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for name in names:
        numeric = all(isinstance(row.get(name), int | float | None) for row in rows)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(row.get(name)) for name in names))
    return table


def _records(title: str, rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    lines = [title]
    for row in rows:
        known = [(name, _cell(row[name])) for name in names if row.get(name) is not None]
        lines += ["", *(f"  {name}: {value}" for name, value in known)]
    return lines


def _cell(value: Any) -> str:
    """Return a value as a table shows it: as many digits as tell something, no more.

    >>> [_cell(value) for value in (0.12345, -0.0252, 8.7217, 36.0, 2050.84, 1234567.8, 0.0, 0.000012, True, None)]
    ['0.1235', '-0.0252', '8.722', '36', '2,050.8', '1,234,568', '0', '1.2e-05', 'True', '-']
    """
    if value is None or value != value:  # noqa: PLR0124  NaN is not known
        return "-"
    if not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
    if value == int(value):
        return f"{value:,.0f}"
    size = abs(value)
    digits = 4 if size < 1 else 3 if size < 10 else 2 if size < 100 else 1 if size < 10_000 else 0
    return f"{value:,.{digits}f}" if size >= 0.00005 else f"{value:.1e}"
