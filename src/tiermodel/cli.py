"""The command line: parse, call the function of the same name, print. Results to stdout, progress to stderr."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from tiermodel.errors import OutputError, TierModelError

if TYPE_CHECKING:
    from tiermodel.config import Project
    from tiermodel.tables.contract import Accounting

__all__ = ["main"]

_PROJECT = click.argument("project", type=click.Path(path_type=Path))
_JSON = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
_STORE = click.option("--tracking-uri", envvar="MLFLOW_TRACKING_URI", default="sqlite:///mlflow.db", show_default=True)
_EMPTY = click.option(
    "--allow-empty", is_flag=True, help="Of transactions without a row make a table without a row, not an error."
)
_LISTED = 50  # rows printed; --out gives them all
_AS_OF = "The first instant we pretend not to know, such as 2017-11-30; `latest` is the day after the last row."


def main() -> None:
    """Run the command line; a user's error is one message and its exit code, never a traceback."""
    try:
        run(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        click.echo("stopped", err=True)
        sys.exit(130)
    except TierModelError as error:
        click.echo(f"tiermodel: {error}", err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        os._exit(0)  # the reader of our output has left; there is nobody to tell
    except OSError as error:
        click.echo(f"tiermodel: {error}", err=True)
        sys.exit(OutputError.exit_code)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tiermodel")
def run() -> None:
    """Turn a transaction log into customer tiers, churn risk and value: learned, readable, validated out of time."""


@run.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("tiermodel-demo"),
    show_default=True,
    help="Folder for the results.",
)
def demo(out: Path) -> None:
    """Run the whole line on the Complete Journey: 1.47 M real grocery lines of 2,469 households."""
    from tiermodel.demo import demo as run_demo  # noqa: PLC0415  # heavy imports wait until a command needs them

    with _progress() as say:
        done = run_demo(out, say)
    _chance_table("Churn", done.backtest["churn"])
    _value_table(done.backtest["value"])
    _tier_table(done.tiers)
    _files(done.files)


@run.command()
@_PROJECT
@_JSON
def check(project: Path, as_json: bool) -> None:
    """Report data quality and whether grading makes sense here; exit 3 if not."""
    from tiermodel.check import check as run_check  # noqa: PLC0415

    settings = _load(project)
    with _progress() as say:
        say("reading transactions")
        report = run_check(settings)
    click.echo(_dump(report.to_dict()) if as_json else report.to_text(settings.language))
    if report.refused:
        sys.exit(3)


@run.command()
@_PROJECT
@click.option("--as-of", required=True, help=f"One or more dates, separated by commas. {_AS_OF}")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="A .parquet or .csv file.")
@_EMPTY
@_JSON
def features(project: Path, as_of: str, out: Path, allow_empty: bool, as_json: bool) -> None:
    """Write every customer's features as known at each date."""
    settings = _load(project)
    from tiermodel.features.panel import write_features  # noqa: PLC0415

    with _progress() as say:
        say(f"building features as of {as_of}")
        tally = write_features(settings, as_of, out, allow_empty=allow_empty)
    _accounts(settings, tally.accounts)
    if as_json:
        click.echo(_dump({"out": str(out), "rows": tally.snapshots, **_accounts_as_data(tally.accounts)}))
    else:
        click.echo(f"{tally.snapshots:,} rows in {out}")


@run.command()
@_PROJECT
@click.option("--as-of", default="latest", show_default=True, help=f"Use rows before this date only. {_AS_OF}")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the bundle.  [default: models/NAME]")
@click.option("--register", is_flag=True, help="Register the model in MLflow, with the alias `challenger`.")
@_JSON
def train(project: Path, as_of: str, out: Path | None, register: bool, as_json: bool) -> None:
    """Fit the scheme and the models, write the bundle, and track the run in MLflow."""
    settings = _load(project)
    from tiermodel.registry import champion_of, log_training  # noqa: PLC0415
    from tiermodel.tiers.profiles import segment_lines  # noqa: PLC0415
    from tiermodel.train import train as run_train  # noqa: PLC0415

    folder = out or Path("models") / settings.name
    with _progress() as say:
        champion = champion_of(settings) if register else None
        trained = run_train(settings, as_of, out=folder, champion=champion, say=say)
        say("tracking the run")
        tracked = log_training(settings, trained, folder, register=register)
    _accounts(settings, trained.accounts)
    later = trained.bundle.facts["later"]
    if as_json:
        click.echo(
            _dump({"bundle": str(folder), "model_version": trained.bundle.version, "run": tracked, "later": later})
        )
        return
    _table("Out of time, on snapshots later than those trained on", [{"target": k, **v} for k, v in later.items()])
    bundle = trained.bundle
    if tried := bundle.scheme.state.get("trials"):
        _table("Learners of the tiers, tried on later snapshots", tried)
    if rules := bundle.facts.get("agreement"):
        _table("Learned tiers beside tiers by rules", [{"scheme": k, **v["figures"]} for k, v in rules.items()])
    click.echo("\n".join(segment_lines(bundle.segments, bundle.features, bundle.language)))
    click.echo(f"bundle {bundle.version} in {folder}")


@run.command()
@_PROJECT
@click.option("--out", type=click.Path(path_type=Path), help="A .json file for the results.")
@click.option(
    "--predictions", type=click.Path(path_type=Path), help="A .parquet or .csv file for every model's predictions."
)
@_JSON
def backtest(project: Path, out: Path | None, predictions: Path | None, as_json: bool) -> None:
    """Play the past again, out of time, with the baselines beside the model."""
    settings = _load(project)
    from tiermodel.backtest import backtest as run_backtest  # noqa: PLC0415
    from tiermodel.backtest_tiers import tier_verdict  # noqa: PLC0415

    with _progress() as say:
        done = run_backtest(settings, out=out, predictions=predictions, say=say)
    _accounts(settings, done.accounts)
    if as_json:
        click.echo(_dump(done.results))
        return
    _chance_table("Churn", done.results["churn"])
    _value_table(done.results["value"])
    latest = done.results["dates"][-1]
    _table(f"For whom, {latest}", [row for row in done.results["slices"] if row["as_of"] == latest])
    _table("With less history", done.results["learning_curve"])
    if done.results["clv"]:
        _table("Lifetime value, discounted, against what came", done.results["clv"])
    _chance_table("Upgrades that stay", done.results["upgrade"])
    _chance_table("Conversion of prospects", done.results["prospects"])
    _scheme_table(done.results["tiers"])
    _table("tiermodel minus baseline, 95 % interval", done.results["comparisons"])
    click.echo("\n".join(tier_verdict(done.results["comparisons"])))
    losses = done.losses()
    click.echo(
        "\n".join(["A baseline is better beyond chance:", *losses])
        if losses
        else "No baseline is better beyond chance."
    )


@run.command()
@_PROJECT
@click.option("--as-of", help="Use rows before this date only.  [default: the first test date of the backtest]")
@click.option("--trials", type=click.IntRange(1), default=50, show_default=True, help="How many settings a target.")
@click.option("--minutes", type=click.FloatRange(0, min_open=True), default=60, show_default=True, help="Time to try.")
@click.option("--study", type=click.Path(path_type=Path), help="Where trials are kept.  [default: tune.db]")
@click.option("--out", type=click.Path(path_type=Path), help="A .yaml file for the section `models`.")
@_JSON
def tune(
    project: Path, as_of: str | None, trials: int, minutes: float, study: Path | None, out: Path | None, as_json: bool
) -> None:
    """Look for better learner settings on past dates, judge them on a later one; a stopped run goes on."""
    settings = _load(project)
    from tiermodel.registry import log_tuning  # noqa: PLC0415
    from tiermodel.tune import tune as run_tune  # noqa: PLC0415

    with _progress() as say:
        tuned = run_tune(settings, as_of, trials=trials, minutes=minutes, study=study, say=say)
        if out is not None:
            tuned.save(out)
        say("tracking the trials")
        log_tuning(settings, tuned)
    _accounts(settings, tuned.accounts)
    if as_json:
        click.echo(_dump(tuned.to_dict()))
        return
    for found in tuned.found:
        _table(f"The best of {len(found.trials)}, on dates before {tuned.judged_on}", found.settings_rows())
    _table(f"Judged on {tuned.judged_on}, which no trial saw", [row for found in tuned.found for row in found.verdict])
    click.echo(tuned.to_yaml().rstrip())


@run.command()
@_PROJECT
@click.option("--model", required=True, help="A bundle's folder, or NAME@champion or NAME/VERSION from the registry.")
@click.option("--as-of", required=True, help=_AS_OF)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="A .parquet or .csv file.")
@click.option(
    "--ledger", type=click.Path(path_type=Path), help="A folder: start from the tiers in it, add the new ones."
)
@_EMPTY
@_JSON
def score(
    project: Path, model: str, as_of: str, out: Path, ledger: Path | None, allow_empty: bool, as_json: bool
) -> None:
    """Score every customer, old and new, as of a date."""
    settings = _load(project)
    from tiermodel.predict import score as run_score  # noqa: PLC0415

    with _progress() as say:
        folder = _model(model, settings.tracking.uri)
        say(f"scoring as of {as_of}")
        scored = run_score(settings, folder, as_of, out, ledger=ledger, allow_empty=allow_empty)
    _accounts(settings, scored.accounts)
    if as_json:
        click.echo(
            _dump(
                {
                    "out": str(out),
                    "customers": scored.customers,
                    "tiers": scored.tiers,
                    "ledger_rows": scored.ledger_rows,
                    **_accounts_as_data(scored.accounts),
                }
            )
        )
        return
    _tier_table(scored.tiers)
    click.echo(f"{scored.customers:,} customers in {out}")
    if ledger is not None:
        click.echo(f"{scored.ledger_rows:,} changes added to {ledger}")


@run.command()
@_PROJECT
@click.option("--model", required=True, help="A bundle's folder, or NAME@champion or NAME/VERSION from the registry.")
@click.option("--as-of", required=True, help=_AS_OF)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="A .parquet or .csv file.")
@click.option("--language", type=click.Choice(["zh", "en"]), help="[default: the model's]")
def upgrades(project: Path, model: str, as_of: str, out: Path, language: str | None) -> None:
    """Write what would move each customer up: the smallest change of one thing that the customer can change."""
    settings = _load(project)
    from tiermodel.predict import upgrades as run_upgrades  # noqa: PLC0415

    with _progress() as say:
        folder = _model(model, settings.tracking.uri)
        say(f"grading as of {as_of}")
        rows, customers = run_upgrades(settings, folder, as_of, out, language=language)
    click.echo(f"{rows:,} ways up for {customers:,} customers in {out}")


@run.command()
@click.argument("name")
@click.option("--challenger", help="The version to promote.  [default: the alias `challenger`]")
@_STORE
@_JSON
def promote(name: str, challenger: str | None, tracking_uri: str, as_json: bool) -> None:
    """Make the challenger the champion if it passes the gate; exit 9 and the reasons if not."""
    from tiermodel.registry import promote as run_promote  # noqa: PLC0415

    with _progress() as say:
        say("comparing challenger and champion")
        done = run_promote(name, challenger, tracking_uri=tracking_uri)
    click.echo(_dump(vars(done)) if as_json else done.to_text())


@run.command()
@click.argument("sources", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="An .html file.")
@click.option("--language", type=click.Choice(["zh", "en"]), help="The language of the page.  [default: the model's]")
def report(sources: Sequence[Path], out: Path, language: str | None) -> None:
    """Make one HTML page from scores, a backtest, a model, or all of them."""
    from tiermodel.report import report as run_report  # noqa: PLC0415

    with _progress() as say:
        say("drawing")
        run_report(sources, out, language)
    click.echo(str(out))


@run.command()
@click.argument("model")
@click.option("--format", "form", type=click.Choice(["text", "sql"]), default="text", show_default=True)
@click.option("--dialect", type=click.Choice(["duckdb", "postgres", "spark"]), default="duckdb", show_default=True)
@click.option("--table", default="features", show_default=True, help="The feature table that the SQL reads.")
@click.option("--language", type=click.Choice(["zh", "en"]), help="[default: the model's]")
@_STORE
def rules(model: str, form: str, dialect: str, table: str, language: str | None, tracking_uri: str) -> None:
    """Print the rules that assign the tiers, in words or as one SQL statement over the feature table."""
    from tiermodel.bundle import load_bundle  # noqa: PLC0415
    from tiermodel.tiers.sql import scheme_sql  # noqa: PLC0415

    bundle = load_bundle(_model(model, tracking_uri))
    if form == "sql":
        click.echo(scheme_sql(bundle.scheme, dialect, table))
        return
    click.echo("\n".join(bundle.scheme.rules(bundle.features, language or bundle.language)))


@run.group()
def ledger() -> None:
    """Look into a tier ledger, or set a customer's tier by hand."""


_DAY = click.DateTime(formats=["%Y-%m-%d"])


@ledger.command("show")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--as-of", type=_DAY, help="The tiers in force on a day.  [default: every assignment, with its span]")
@click.option("--customer", help="One customer only.")
@click.option("--out", type=click.Path(path_type=Path), help="A .parquet or .csv file.")
def ledger_show(folder: Path, as_of: datetime | None, customer: str | None, out: Path | None) -> None:
    """Print who was in which tier from when to when, and why."""
    import pyarrow as pa  # noqa: PLC0415

    from tiermodel.ledger import Ledger  # noqa: PLC0415
    from tiermodel.tables.output import write_table  # noqa: PLC0415

    book = Ledger(folder).must_exist()
    rows = book.history(customer) if as_of is None else book.as_of(as_of.date())
    if customer is not None:
        rows = rows[rows["customer_id"] == customer]
    if out is not None:
        write_table(pa.Table.from_pandas(rows, preserve_index=False), out)
        click.echo(f"{len(rows):,} assignments in {out}")
        return
    keys = (
        "customer_id",
        "valid_from",
        "valid_to",
        "tier_code",
        "previous_code",
        "event",
        "reason_1",
        "operator",
        "expires",
    )
    listed = rows.astype(object).where(rows.notna(), None).head(_LISTED).to_dict("records")
    _table(f"{len(rows):,} assignments", [{k: row[k] for k in keys if k in row} for row in listed])


@ledger.command("movement")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--from", "start", type=_DAY, required=True, help="The day before.")
@click.option("--to", "end", type=_DAY, required=True, help="The day after.")
@click.option(
    "--scores", type=click.Path(path_type=Path), multiple=True, help="Score tables that say what customers are worth."
)
@click.option("--language", type=click.Choice(["zh", "en"]), default="en", show_default=True)
@_JSON
def ledger_movement(
    folder: Path, start: datetime, end: datetime, scores: Sequence[Path], language: str, as_json: bool
) -> None:
    """Print who moved from which tier to which between two days, newcomers and leavers included."""
    from tiermodel.movement import ledger_movement as run_movement  # noqa: PLC0415

    found = run_movement(folder, start.date(), end.date(), scores)
    if as_json:
        click.echo(_dump({"from": start.date(), "to": end.date(), "tiers": found.codes, "cells": found.cells()}))
        return
    _table(f"{start.date()} → {end.date()}", found.table(language))
    click.echo(found.summary_words(language))


@ledger.command("forecast")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--language", type=click.Choice(["zh", "en"]), default="en", show_default=True)
@_JSON
def ledger_forecast(folder: Path, language: str, as_json: bool) -> None:
    """Print how large the tiers will be at the next grading, and how such forecasts would have done before."""
    from tiermodel.movement import by_tier  # noqa: PLC0415
    from tiermodel.movement import ledger_forecast as run_forecast  # noqa: PLC0415

    found = run_forecast(folder)
    if as_json:
        click.echo(_dump({**vars(found), "verdict": found.verdict(language)}))
        return
    _table(f"After {found.day}", by_tier(found))
    if found.backtest:
        _table("Forecasts of the past, errors as shares of the customers", found.backtest)
    click.echo(found.verdict(language))


@ledger.command("override")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--customer", required=True)
@click.option("--tier", help="The tier's code.  [default: withdraw what was set]")
@click.option("--from", "start", type=_DAY, required=True, help="The first day, after the last grading.")
@click.option("--until", type=_DAY, help="The day from which the tier of the scheme is in force again.")
@click.option("--operator", required=True, help="Who decides.")
@click.option("--reason", required=True, help="Why.")
def ledger_override(
    folder: Path, customer: str, tier: str | None, start: datetime, until: datetime | None, operator: str, reason: str
) -> None:
    """Set one customer's tier by hand; it stays through every grading until it expires or is withdrawn."""
    from tiermodel.ledger import Ledger  # noqa: PLC0415

    end = None if until is None else until.date()
    Ledger(folder).must_exist().override(customer, tier, start.date(), until=end, operator=operator, reason=reason)
    click.echo(f"{customer}: {tier or 'as graded'} from {start.date()}" + ("" if end is None else f" until {end}"))


@run.group()
def show() -> None:
    """Print what there is: a project's settings, the score table, the features, the schemes, a model."""


@show.command("config")
@_PROJECT
def show_config(project: Path) -> None:
    """Print a project with every default filled in."""
    click.echo(_dump(_load(project).model_dump(mode="json", exclude={"folder"})))


@show.command("schema")
@click.argument("model")
@_STORE
def show_schema(model: str, tracking_uri: str) -> None:
    """Print the columns of the score table that a model writes."""
    from tiermodel.bundle import load_bundle  # noqa: PLC0415
    from tiermodel.predict import score_schema  # noqa: PLC0415

    for field in score_schema(load_bundle(_model(model, tracking_uri))):
        click.echo(f"{field.name:24} {field.type}")


@show.command("features")
@click.argument("project", type=click.Path(path_type=Path), required=False)
@_JSON
def show_features(project: Path | None, as_json: bool) -> None:
    """Print the data dictionary: of a project, or of everything that can be built."""
    from tiermodel.config import FeatureGroup, Features  # noqa: PLC0415
    from tiermodel.features.catalogue import expand  # noqa: PLC0415
    from tiermodel.features.measures import every_need  # noqa: PLC0415
    from tiermodel.tables.history import history_columns  # noqa: PLC0415

    settings = _load(project) if project else None
    chosen = settings.features if settings else Features(groups=get_args(FeatureGroup))
    columns = history_columns(settings) if settings else every_need()
    rows = [
        {"feature": f.name, "group": f.group, "unit": f.unit, "meaning": f.en, "含义": f.zh}
        for f in expand(chosen, columns)
    ]
    click.echo(_dump(rows)) if as_json else _table(f"{len(rows)} features", rows)


@show.command("schemes")
def show_schemes() -> None:
    """Print the schemes that come with the package."""
    from tiermodel.config import Features  # noqa: PLC0415
    from tiermodel.tiers.scheme import load_preset, preset_names  # noqa: PLC0415

    schemes = [load_preset(name, Features().windows_days) for name in preset_names()]
    _table(
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
@click.option("--language", type=click.Choice(["zh", "en"]), help="[default: the model's]")
@_STORE
def show_model(model: str, language: str | None, tracking_uri: str) -> None:
    """Print what a bundle was made from, its segments, how its weights matter, and how it did on later snapshots."""
    from tiermodel.bundle import load_bundle  # noqa: PLC0415
    from tiermodel.tiers.composite import sensitivity_lines  # noqa: PLC0415
    from tiermodel.tiers.profiles import segment_lines, sorted_profiles  # noqa: PLC0415

    bundle = load_bundle(_model(model, tracking_uri))
    words = (bundle.features, language or bundle.language)
    state, segments = bundle.scheme.state, bundle.segments
    told = ("method", "stability", "criteria", "champion")
    click.echo(
        _dump(
            {
                "model_version": bundle.version,
                "scheme_version": bundle.scheme_version,
                "settings": bundle.settings,
                **bundle.facts,
                "segments": {
                    **{name: segments[name] for name in told if name in segments},
                    "profiles": dict(sorted_profiles(segments)),
                    "words": segment_lines(segments, *words),
                },
                "sensitivity": {"changed": state.get("sensitivity", {}), "words": sensitivity_lines(state, *words)},
            }
        )
    )


def _load(path: Path) -> Project:
    from tiermodel.config import load_project  # noqa: PLC0415

    return load_project(path)


def _model(reference: str, tracking_uri: str) -> Path:
    """Find a bundle's folder; only NAME@alias and NAME/number, where no such path is there, are worth the registry."""
    if Path(reference).exists() or not re.fullmatch(r"(models:/)?[\w.-]+(@[\w-]+|/\d+)", reference):
        return Path(reference)
    from tiermodel.registry import resolve_model  # noqa: PLC0415

    return resolve_model(reference, tracking_uri)


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """Say what is being done: a spinner with the time taken on a terminal, plain lines elsewhere."""
    started = time.monotonic()
    if not sys.stderr.isatty():
        yield lambda words: click.echo(f"[{time.monotonic() - started:6.1f} s] {words}", err=True)
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting")
        yield lambda words: bar.update(task, description=words)


def _accounts(project: Project, accounts: Mapping[str, Accounting]) -> None:
    from tiermodel.features.panel import left_out_words  # noqa: PLC0415

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


def _accounts_as_data(accounts: Mapping[str, Accounting]) -> dict[str, Any]:
    """Give the account of the transactions, and those of every table."""
    return {"account": vars(accounts["transactions"]), "accounts": {name: vars(a) for name, a in accounts.items()}}


def _chance_table(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    keys = ("model", "as_of", "n", "rate", "auc", "average_precision", "log_loss", "brier", "ece", "ece_by_chance")
    if rows:
        _table(f"{title}, out of time", [{k: row[k] for k in keys} for row in rows])


def _value_table(rows: Sequence[Mapping[str, Any]]) -> None:
    keys = ("model", "as_of", "n", "gini", "spearman", "mae", "rmse", "bias", "decile_mape")
    _table("Value, out of time", [{k: row[k] for k in keys} for row in rows])


def _scheme_table(rows: Sequence[Mapping[str, Any]]) -> None:
    from tiermodel.backtest_tiers import scheme_summary  # noqa: PLC0415

    _table("Schemes, judged by the value that followed: means over the dates", scheme_summary(rows))


def _tier_table(tiers: Mapping[str, int]) -> None:
    total = max(sum(tiers.values()), 1)
    _table(
        "Tiers",
        [{"tier": code, "customers": n, "share": f"{n / total:.1%}"} for code, n in reversed(list(tiers.items()))],
    )


def _files(files: Mapping[str, str]) -> None:
    for what, where in files.items():
        click.echo(f"{what:12} {where}")


def _table(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

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


def _dump(data: Any) -> str:
    from tiermodel.tables.output import plain  # noqa: PLC0415

    return json.dumps(plain(data), ensure_ascii=False, indent=1, allow_nan=False, default=str)
