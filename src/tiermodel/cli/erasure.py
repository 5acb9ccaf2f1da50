"""The verb that erases one person: forget."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from tiermodel.cli.options import JSON, PATH, PROJECT, load
from tiermodel.cli.printing import print_json, progress
from tiermodel.words import words

__all__ = ["forget"]


@click.command()
@PROJECT
@click.argument("customer", metavar="ID")
@click.option("--ledger", type=PATH, required=True, help="The folder of the ledger.")
@click.option(
    "--in", "folders", type=PATH, multiple=True, help="A folder of scores, lists, exports or reports; repeat."
)
@click.option("--revoke", is_flag=True, help="Let the person's later rows in again; what was erased stays so.")
@JSON
def forget(project: Path, customer: str, ledger: Path, folders: tuple[Path, ...], revoke: bool, as_json: bool) -> None:
    """Erase one person from a ledger and from files.

    Rows of the person leave the ledger and every file of the folders that --in names; exit 9 if a file is left to look
    at. ID is written as in the project's tables. The tables themselves are yours, and are not touched.
    """
    settings = load(project)
    from tiermodel.erasure.forget import forget as run_forget
    from tiermodel.ledger.ledger import Ledger
    from tiermodel.output import check_writable
    from tiermodel.tables.targets import targets

    with progress() as step, targets(inside=[Ledger(ledger).must_exist().folder]):
        for folder in folders:
            check_writable(folder / "any")
        step(words(settings.language)["step_erasing"])
        done = run_forget(settings, customer, ledger, folders, revoke=revoke)
    wording = words(settings.language)
    if as_json:
        print_json({"rows": done.rows, "removed": done.pages, "left": done.left, "short_number": done.short})
    elif revoke:
        click.echo(wording["erased_revoked"].format(customer=customer))
    else:
        lines = [wording["erased_rows"].format(file=file, n=n) for file, n in done.rows.items()]
        lines += [wording["erased_page"].format(file=file) for file in done.pages]
        again = f"tiermodel forget {project} ID --ledger {ledger} --revoke"
        lines += [wording["erased_kept_out"].format(command=again), wording["erased_sources"]]
        lines += [wording["erased_short"]] * done.short
        click.echo("\n".join(lines))
    if done.left:
        click.echo(wording["erased_left"].format(files=", ".join(done.left)), err=True)
        sys.exit(9)
