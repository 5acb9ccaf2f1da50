"""The verbs that present results: report, rules, show."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import click

from tiermodel.cli.options import JSON, LANGUAGE, PATH, PROJECT, STORE, is_folder, load, model_folder, promotion_of
from tiermodel.cli.policy import show_policy
from tiermodel.cli.printing import print_json, progress
from tiermodel.cli.tables import print_table

__all__ = ["report", "rules", "show"]


@click.command()
@click.argument("sources", nargs=-1, required=True, type=PATH)
@click.option("--out", type=PATH, required=True, help="An .html file.")
@click.option("--language", type=click.Choice(["zh", "en"]), help="The language of the page.  [default: the model's]")
@click.option("--customer", metavar="ID", help="One customer of the score table: file, and letter of explanation.")
@click.option("--project", type=PATH, help="The project, for its service policy; with --customer to build features.")
@click.option("--ledger", type=PATH, help="The ledger's folder, for the tier history.  [with --customer]")
@click.option("--model", help="The bundle, for reasons and ways up.  [with --customer]")
@click.option("--features", type=PATH, help="The feature table of the same date.  [with --customer]")
@click.option("--no-ids", is_flag=True, help="Leave customer ids out of the page: ranks stand in for them.")
@STORE
def report(
    sources: Sequence[Path],
    out: Path,
    language: str | None,
    customer: str | None,
    project: Path | None,
    ledger: Path | None,
    model: str | None,
    features: Path | None,
    no_ids: bool,
    tracking_uri: str,
) -> None:
    """Make one HTML page from scores, a backtest and a model.

    Writes one file that needs no network to --out. What belongs to the sources and lies beside them, in a run folder of
    `refresh` or in the folder of a demo is used too; a folder is a source as well. What was found, and what is missing,
    is said. With --customer ID the page is about one customer, with a letter of explanation beside it.
    """
    if customer is None and any((ledger, model, features)):
        raise click.UsageError("--ledger, --model and --features go with --customer ID; here they are sources")
    if customer is not None and no_ids:
        raise click.UsageError("--no-ids leaves ids out of the page on all customers; --customer is about one")
    if customer is not None and len(sources) != 1:
        raise click.UsageError(
            "--customer needs the score table alone; give --model, --features and --ledger beside it"
        )
    from tiermodel.reporting.charts import require_library
    from tiermodel.reporting.report import customer_report
    from tiermodel.reporting.report import report as run_report
    from tiermodel.tables.targets import targets

    settings = None if project is None else load(project)
    with progress() as step, targets(out):
        if customer is None:
            require_library()
            from tiermodel.policy.service_policy import load_policy
            from tiermodel.reporting.parts import find_parts

            spoken = language or (settings.language if settings else None)
            policy = None if settings is None or not settings.policy else load_policy(settings.policy, settings.folder)
            parts = find_parts(sources)
            for line in parts.lines(spoken or parts.language or "en"):
                click.echo(line, err=True)
            step(str(out))
            run_report(list(parts.paths.values()), out, spoken, ids=not no_ids, policy=policy)
        else:
            step(str(out))
            folder = None if model is None else model_folder(model, tracking_uri)
            customer_report(
                sources[0], customer, out, project=settings, ledger=ledger, model=folder, features=features,
                language=language,
            )  # fmt: skip
    click.echo(str(out))


@click.command()
@click.argument("model")
@click.option("--format", "form", type=click.Choice(["text", "sql"]), default="text", show_default=True)
@click.option(
    "--dialect", type=click.Choice(["duckdb", "postgres", "spark", "mysql"]), default="duckdb", show_default=True
)
@click.option("--table", default="features", show_default=True, help="The feature table that the SQL reads.")
@LANGUAGE
@STORE
def rules(model: str, form: str, dialect: str, table: str, language: str | None, tracking_uri: str) -> None:
    """Print the rules that assign the tiers, in words or as SQL.

    The SQL is one statement over the table that `tiermodel features` writes; it gives every customer the tier of the
    rules, before stability, overrides and capacity.
    """
    from tiermodel.bundle.bundle import load_bundle
    from tiermodel.tiers.explain.sql import scheme_sql
    from tiermodel.words import words

    bundle = load_bundle(model_folder(model, tracking_uri))
    if form == "sql":
        click.echo(scheme_sql(bundle.scheme, dialect, table, language or bundle.language))
        return
    click.echo("\n".join(bundle.scheme.rules(bundle.features, language or bundle.language)))
    if bundle.scheme.surrogate_line("en"):
        click.echo(words(language or bundle.language)["surrogate_remedy"], err=True)


@click.group()
def show() -> None:
    """Print what there is: settings, features, schemes, a model."""


show.add_command(show_policy)


@show.command("config")
@PROJECT
def show_config(project: Path) -> None:
    """Print a project with every default filled in."""
    print_json(load(project).model_dump(mode="json", exclude={"folder"}))


@show.command("schema")
@click.argument("model")
@STORE
def show_schema(model: str, tracking_uri: str) -> None:
    """Print the columns of the score table that a model writes."""
    from tiermodel.bundle.bundle import load_bundle
    from tiermodel.predict import score_schema

    for field in score_schema(load_bundle(model_folder(model, tracking_uri))):
        click.echo(f"{field.name:24} {field.type}")


@show.command("features")
@click.argument("project", type=PATH, required=False)
@JSON
def show_features(project: Path | None, as_json: bool) -> None:
    """Print the data dictionary: of a project, or of everything that can be built."""
    from tiermodel.config.project import FeatureGroup, Features
    from tiermodel.features.catalogue import expand
    from tiermodel.features.measures import every_need
    from tiermodel.tables.history import history_columns
    from tiermodel.tiers.customer_scores import score_rows

    settings = load(project) if project else None
    chosen = settings.features if settings else Features(groups=get_args(FeatureGroup))
    columns = history_columns(settings) if settings else every_need()
    built = expand(chosen, columns)
    rows = [{"feature": f.name, "group": f.group, "unit": f.unit, "meaning": f.en, "含义": f.zh} for f in built]
    rows += score_rows(chosen.windows_days, [f.name for f in built])
    print_json(rows) if as_json else print_table(f"{len(built)} features, {len(rows) - len(built)} scores", rows)


@show.command("schemes")
def show_schemes() -> None:
    """Print the schemes that come with the package."""
    from tiermodel.config.project import Features
    from tiermodel.tiers.schemes.load import load_preset, preset_names

    schemes = [load_preset(name, Features().windows_days) for name in preset_names()]
    print_table(
        "Schemes",
        [
            {
                "scheme": s.code,
                "kind": s.kind,
                "name": s.name_en,
                "名称": s.name_zh,
                "levels": " < ".join(s.names("en")),
                "等级": " < ".join(s.names("zh")),
            }
            for s in schemes
        ],
    )


@show.command("model")
@click.argument("model")
@LANGUAGE
@STORE
def show_model(model: str, language: str | None, tracking_uri: str) -> None:
    """Print what a bundle was made from, its segments, how its weights matter, and how it did on later snapshots."""
    from tiermodel.bundle.bundle import load_bundle
    from tiermodel.segments.profiles import segment_lines, sorted_profiles
    from tiermodel.tiers.kinds.composite import sensitivity_lines

    bundle = load_bundle(model_folder(model, tracking_uri))
    record = None if is_folder(model) else promotion_of(model, tracking_uri)
    words = (bundle.features, language or bundle.language)
    state, segments = bundle.scheme.state, bundle.segments
    shown = ("method", "stability", "criteria", "champion")
    print_json(
        {
            "model_version": bundle.version,
            "scheme_version": bundle.scheme_version,
            "settings": bundle.settings,
            **bundle.facts,
            **({} if record is None else {"promotion": record}),
            "segments": {
                **{name: segments[name] for name in shown if name in segments},
                "profiles": dict(sorted_profiles(segments)),
                "words": segment_lines(segments, *words),
            },
            "sensitivity": {"changed": state.get("sensitivity", {}), "words": sensitivity_lines(state, *words)},
        }
    )


@show.command("codes")
def show_codes() -> None:
    """Print every rule that the input can break: its code, where, what is wrong, what happens, what to do."""
    from tiermodel.tables.rule_table import to_markdown

    click.echo(to_markdown())


@show.command("keys")
@click.option("--language", type=click.Choice(["zh", "en"]), default="en", show_default=True)
def show_keys(language: str) -> None:
    """Print every key of a project file: type, default, meaning."""
    from tiermodel.config.keys import to_markdown

    click.echo(to_markdown(language))
