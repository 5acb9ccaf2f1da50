"""The verbs that change which model is the champion: promote, rollback."""

from __future__ import annotations

import click

from tiermodel.cli.options import JSON, STORE
from tiermodel.cli.printing import print_json, progress
from tiermodel.errors import GateError

__all__ = ["promote", "rollback"]


@click.command()
@click.argument("name")
@click.option("--challenger", help="The version to promote.  [default: the alias `challenger`]")
@click.option("--expect", metavar="VERSION", help="Only if this is the champion now (`none`: none is).")
@click.option("--accept", multiple=True, metavar="CHECK", help="An advisory check that may fail; repeatable.")
@click.option("--operator", help="Who accepts it; kept with the version.  [with --accept]")
@click.option("--reason", help="Why; kept with the version.  [with --accept]")
@STORE
@JSON
def promote(
    name: str,
    challenger: str | None,
    expect: str | None,
    accept: tuple[str, ...],
    operator: str | None,
    reason: str | None,
    tracking_uri: str,
    as_json: bool,
) -> None:
    """Make the challenger the champion if it passes the gate.

    Prints what each check found. Exit 9 where the gate refuses, with the reasons and what to do about each; a person
    may accept advisory checks that failed, by --accept.
    """
    if {operator is not None, reason is not None} != {bool(accept)}:
        raise click.UsageError("--accept CHECK, --operator WHO and --reason WHY go together")
    from tiermodel.tracking.store import check_store
    from tiermodel.tracking.verdict import Acceptance, Verdict

    check_store(tracking_uri, create=False)  # before the import of MLflow, which takes seconds
    from tiermodel.tracking.promotion import promote as run_promote

    acceptance = Acceptance(accept, str(operator), str(reason)) if accept else None
    with progress() as step:
        step(name)
        try:
            done = run_promote(name, challenger, tracking_uri=tracking_uri, expect=expect, acceptance=acceptance)
        except GateError as refusal:
            if as_json and isinstance(refusal.verdict, Verdict):
                print_json({**refusal.verdict.to_dict(), "promoted": False})
            raise
    print_json(done.to_dict()) if as_json else click.echo(done.to_text())


@click.command()
@click.argument("name")
@STORE
@JSON
def rollback(name: str, tracking_uri: str, as_json: bool) -> None:
    """Make the champion before the present one the champion again.

    Called once more, it goes back to the one before that. Exit 9 where there is none.
    """
    from tiermodel.tracking.store import check_store

    check_store(tracking_uri, create=False)
    from tiermodel.tracking.promotion import rollback as run_rollback

    done = run_rollback(name, tracking_uri=tracking_uri)
    print_json(done.to_dict()) if as_json else click.echo(done.to_text())
