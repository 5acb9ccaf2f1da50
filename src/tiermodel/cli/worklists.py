"""The verb that makes work lists from scores: lists."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tiermodel.cli.options import EXCEL, JSON, LANGUAGE, MODEL, PATH, STORE, model_folder
from tiermodel.cli.printing import print_json, progress
from tiermodel.cli.tables import print_table
from tiermodel.words import words

if TYPE_CHECKING:
    from tiermodel.worklists.lists import WorkLists

__all__ = ["lists"]


@click.command()
@click.argument("scores", type=PATH)
@MODEL
@click.option("--features", type=PATH, required=True, help="What `tiermodel features` wrote for the scores' date.")
@click.option("--ledger", type=PATH, help="A ledger: list its overrides that are about to expire, too.")
@click.option("--out", type=PATH, required=True, help="A folder for the lists.")
@click.option("--limit", type=int, default=10_000, show_default=True, help="The most customers of a list.")
@click.option(
    "--expiring-within", type=int, default=30, show_default=True, metavar="DAYS", help="When overrides are listed."
)
@EXCEL
@LANGUAGE
@STORE
@JSON
def lists(
    scores: Path,
    model: str,
    features: Path,
    ledger: Path | None,
    out: Path,
    limit: int,
    expiring_within: int,
    excel: bool,
    language: str | None,
    tracking_uri: str,
    as_json: bool,
) -> None:
    """Write lists of whom to keep, win back, develop or review.

    Each list is a CSV file and a workbook in the folder of --out. Nobody is on two lists: overrides about to expire
    come first, then win back, keep, develop and review.
    """
    from tiermodel.bundle.bundle import load_bundle
    from tiermodel.output import for_excel
    from tiermodel.tables.targets import targets
    from tiermodel.worklists.files import LOCKED, files_of
    from tiermodel.worklists.lists import lists as run_lists
    from tiermodel.worklists.membership import LISTS

    files = (path for name in LISTS for path in files_of(out, name))
    with progress() as step, for_excel(excel), targets(out / LOCKED, *files):
        bundle = load_bundle(model_folder(model, tracking_uri))
        step(words(language or bundle.language)["step_lists"])
        done = run_lists(
            scores,
            bundle,
            features,
            out,
            ledger=ledger,
            limit=limit,
            expiring_days=expiring_within,
            language=language,
        )
    if as_json:
        print_json({"out": str(out), **done.to_dict()})
    else:
        _print(done, out, language or bundle.language)


def _print(done: WorkLists, out: Path, language: str) -> None:
    say, counts = words(language), done.to_dict()
    rows = [
        {
            say["lists_list"]: say[f"list_{found.list}"],
            **{say[f"lists_{name}"]: getattr(found, name) for name in ("customers", "listed", "worth")},
        }
        for found in done.lists
    ]
    print_table(say["lists_title"].format(**counts), rows)
    for name in ("on_none", "refused", "without_reach"):
        if counts[name]:
            click.echo(say[f"lists_{name}"].format(**counts))
    click.echo(say["lists_written"].format(out=out))
