"""The verbs that read a project's tables: check, features, score, upgrades."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from tiermodel.cli.options import (
    AS_OF,
    EMPTY,
    EXCEL,
    JSON,
    LANGUAGE,
    MODEL,
    PATH,
    PROJECT,
    SHOW_VALUES,
    load,
    model_folder,
)
from tiermodel.cli.printing import (
    accounts_as_data,
    added_as_data,
    print_accounts,
    print_added,
    print_capacity,
    print_json,
    print_shadow,
    print_tiers,
    progress,
)
from tiermodel.cli.tables import tier_names
from tiermodel.words import visible, words

__all__ = ["check", "features", "score", "upgrades"]


_AS_OF = click.option("--as-of", required=True, help=AS_OF)
_OUT = click.option("--out", type=PATH, required=True, help="A .parquet, .csv or .xlsx file.")


@click.command()
@PROJECT
@JSON
@SHOW_VALUES
def check(project: Path, as_json: bool) -> None:
    """Report whether the data are good, and grading makes sense.

    Reads every table of PROJECT and prints findings, gravest first: rows that break a rule with what to do about each,
    columns that look like personal data, and what training needs. Writes nothing. Exit 3 where the data are refused.
    """
    from tiermodel.quality.check import check as run_check

    settings = load(project)
    with progress() as step:
        step(words(settings.language)["step_reading"])
        report = run_check(settings)
    print_json(report.to_dict()) if as_json else click.echo(visible(report.to_text(settings.language)))
    if report.refused:
        sys.exit(3)


@click.command()
@PROJECT
@click.option("--as-of", required=True, help=f"One or more dates, separated by commas. {AS_OF}")
@_OUT
@EXCEL
@EMPTY
@JSON
@SHOW_VALUES
def features(project: Path, as_of: str, out: Path, excel: bool, allow_empty: bool, as_json: bool) -> None:
    """Write every customer's features as known at each date.

    Writes one row for each customer and date to the file of --out, and bad rows with their remedies to
    NAME.quarantine.csv beside it. No feature sees a row of the date itself or later.
    """
    settings = load(project)
    from tiermodel.features.export import quarantine_beside, write_features
    from tiermodel.output import for_excel
    from tiermodel.tables.targets import targets

    written = targets(quarantine_beside(out), tables=[out], project=settings)
    with progress() as step, for_excel(excel), written:
        step(words(settings.language)["step_features"].format(as_of))
        tally = write_features(settings, as_of, out, allow_empty=allow_empty)
    print_accounts(settings, tally.accounts, needs=True)
    if as_json:
        print_json({"out": str(out), "rows": tally.snapshots, **accounts_as_data(tally.accounts)})
    else:
        click.echo(words(settings.language)["features_rows"].format(n=tally.snapshots, out=out))


@click.command()
@PROJECT
@MODEL
@_AS_OF
@_OUT
@click.option("--ledger", type=PATH, help="A folder: start from the tiers in it, add the new ones.")
@click.option("--regrade", is_flag=True, help="Correct the ledger: grade a day again, and put off all later gradings.")
@click.option("--reason", help="Why; the ledger keeps it.  [with --regrade]")
@click.option("--shadow", metavar="MODEL", help="Another model: its scores, and who would move, go beside --out.")
@EXCEL
@EMPTY
@JSON
@SHOW_VALUES
def score(
    project: Path,
    model: str,
    as_of: str,
    out: Path,
    ledger: Path | None,
    regrade: bool,
    reason: str | None,
    shadow: str | None,
    excel: bool,
    allow_empty: bool,
    as_json: bool,
) -> None:
    """Score every customer, old and new, as of a date.

    Writes one row for each customer to the file of --out: tier and why, churn risk, expected value, service. Bad rows
    go to NAME.quarantine.csv beside it. With --ledger the tiers that were in force count, and changes are added.
    Exit 5 where the model is refused, 4 where more rows are bad than data.max_bad_share allows.
    """
    if regrade != (reason is not None):
        raise click.UsageError("--regrade and --reason TEXT go together")
    settings = load(project)
    from tiermodel.bundle.bundle import load_bundle
    from tiermodel.features.export import quarantine_beside
    from tiermodel.output import for_excel
    from tiermodel.predict import score as run_score
    from tiermodel.predict.shadow import shadow_paths
    from tiermodel.tables.targets import targets

    more = () if shadow is None else shadow_paths(out)
    books = () if ledger is None else (ledger,)
    written = targets(quarantine_beside(out), *more, tables=[out], inside=books, project=settings)
    with progress() as step, for_excel(excel), written:
        bundle = load_bundle(model_folder(model, settings.tracking.uri))
        other = None if shadow is None else model_folder(shadow, settings.tracking.uri)
        step(words(settings.language)["step_scoring"].format(as_of))
        scored = run_score(
            settings, bundle, as_of, out, ledger=ledger, regrade_reason=reason, shadow=other, allow_empty=allow_empty
        )  # fmt: skip
    print_accounts(settings, scored.accounts)
    added, say = scored.added, words(settings.language)
    if scored.trained_later:
        click.echo(say["score_trained_later"].format(as_of), err=True)
    if as_json:
        counts = {name: getattr(scored, name) for name in ("customers", "tiers", "capacity", "trained_later")}
        beside = {} if scored.shadow is None else {"shadow": scored.shadow}
        print_json({"out": str(out), **counts, **beside, **added_as_data(added), **accounts_as_data(scored.accounts)})
        return
    scheme = bundle.scheme.scheme
    names = tier_names(scheme.codes, scheme.names(settings.language), settings.language)
    print_tiers(scored.tiers, settings.language, names)
    print_capacity(scored.capacity, settings.language, names)
    click.echo(say["scored_rows"].format(n=scored.customers, out=out))
    if added is not None:
        print_added(added, scored.day, ledger, settings.language)
    if scored.shadow is not None:
        print_shadow(scored.shadow, out, settings.language, names)


@click.command()
@PROJECT
@MODEL
@_AS_OF
@_OUT
@EXCEL
@LANGUAGE
@SHOW_VALUES
def upgrades(project: Path, model: str, as_of: str, out: Path, excel: bool, language: str | None) -> None:
    """Write what would move each customer up a tier.

    Writes to the file of --out, for each customer, the smallest change of one thing that the customer can change.
    """
    settings = load(project)
    from tiermodel.features.panel import Tally
    from tiermodel.output import for_excel
    from tiermodel.predict import upgrades as run_upgrades
    from tiermodel.tables.targets import targets

    tally = Tally()
    with progress() as step, for_excel(excel), targets(tables=[out], project=settings):
        folder = model_folder(model, settings.tracking.uri)
        step(words(settings.language)["step_grading"].format(as_of))
        rows, customers = run_upgrades(settings, folder, as_of, out, language=language, tally=tally)
    print_accounts(settings, tally.accounts)
    click.echo(words(settings.language)["upgrades_rows"].format(rows=rows, customers=customers, out=out))
