"""The verb that makes a project file of raw exports: init."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from unicodedata import east_asian_width

import click

from tiermodel.cli.options import JSON, PATH
from tiermodel.cli.printing import print_json, progress
from tiermodel.words import words

if TYPE_CHECKING:
    from tiermodel.project_init.init import Initialised

__all__ = ["init"]

_MOST_WIDTH = 100
_OPENING, _CLOSING = frozenset("（《「【“"), frozenset("，。；：、！？）》」】”")


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE…")
@click.option(
    "--out", type=PATH, default=Path("shop.yaml"), show_default=True, help="The project file; never overwritten."
)
@click.option("--language", type=click.Choice(["zh", "en"]), help="[default: that of the headers]")
@click.option("--customer", metavar="COLUMN", help="The customers' ids: a column, or SQL over columns.")
@click.option("--time", metavar="COLUMN", help="The day of each row, likewise.")
@click.option("--amount", metavar="COLUMN", help="The money of each row, likewise.")
@JSON
def init(
    files: tuple[str, ...],
    out: Path,
    language: str | None,
    customer: str | None,
    time: str | None,
    amount: str | None,
    as_json: bool,
) -> None:
    """Write a commented project file for raw exports.

    It says what columns mean, the horizon and a scheme, and is checked at once. A file that is there is not replaced.
    """
    from tiermodel.project_init.init import init as run_init
    from tiermodel.tables.targets import targets

    named = {"customer_id": customer, "time": time, "amount": amount}
    with progress() as step, targets(out):
        columns = {role: text for role, text in named.items() if text is not None}
        made = run_init(files, out, language=language, columns=columns, progress=step)
    if as_json:
        print_json(_as_data(made))
    else:
        click.echo("\n".join(_lines(made)))
    if made.fault is not None:
        click.echo(f"tiermodel: {made.fault}", err=True)
        sys.exit(made.fault.exit_code)


def _lines(made: Initialised) -> Iterator[str]:
    language = made.project.language
    say, width = words(language), min(shutil.get_terminal_size().columns, _MOST_WIDTH)
    yield say["init_assumed"]
    for note in made.notes:
        yield from wrapped(note.text(language), width, "- ")
    yield ""
    yield from wrapped(say["init_written"].format(path=made.path), width)
    path = shlex.quote(str(made.path))
    if made.report is None:
        yield from wrapped(say["init_fault"].format(path=made.path), width)
        return
    yield ""
    refused = made.report.refused
    yield from wrapped(say["init_check_refused" if refused else "init_check_ok"], width)
    said = {note.values.get("note") for note in made.notes}  # what the readers told of the sample, they tell of all
    for finding in made.report.findings:
        if finding.level != "ok" and not any(one and str(finding.values.get("note")).endswith(one) for one in said):
            yield from wrapped(f"{say[f'check_is_{finding.level}'].strip()}: {finding.text(language)}", width, "- ")
    yield ""
    yield say["init_next"]
    verbs = (
        [f"check {path}"]
        if refused
        else [f"backtest {path} --out backtest.json", f"train {path} --out models/{made.project.name}"]
    )
    yield from (f"  tiermodel {verb}" for verb in verbs)


def wrapped(text: str, width: int, mark: str = "") -> Iterator[str]:
    """Yield a text in lines of a width, where Chinese characters take two columns; the first begins with a mark.

    >>> list(wrapped("客户等级 is a tier", 10, "- "))
    ['- 客户等级', '  is a', '  tier']
    >>> list(wrapped("客户等级，升级（降级）", 8))  # no line begins with a mark that closes
    ['客户等', '级，升级', '（降级）']
    """
    indent, line, used = " " * len(mark), mark, len(mark)
    for word in _pieces(text):
        size = sum(2 if east_asian_width(letter) in "WF" else 1 for letter in word)
        if used + len(word.rstrip()) + size - len(word) > width and line.strip() not in {"", mark.strip()}:
            yield line.rstrip()
            line, used = indent, len(indent)
        if line == indent and not word.strip():
            continue
        line, used = line + word, used + size
    if line.strip():
        yield line.rstrip()


def _pieces(text: str) -> Iterator[str]:
    """Yield words with the space behind them, and Chinese characters one by one, with the marks that no line parts."""
    word = ""
    for letter, following in zip(text, f"{text[1:]} ", strict=True):
        wide = east_asian_width(letter) in "WF"
        if wide and word and letter not in _CLOSING and word not in _OPENING:
            yield word
            word = ""
        word += letter
        if (wide and letter not in _OPENING and following not in _CLOSING) or letter == " ":
            yield word
            word = ""
    if word:
        yield word


def _as_data(made: Initialised) -> dict[str, object]:
    assumed = [{"code": note.key, "text": note.text(made.project.language)} for note in made.notes]
    check = made.report.to_dict() if made.report is not None else None
    return {"project": str(made.path), "language": made.project.language, "assumed": assumed, "check": check}
