"""The verbs that train and evaluate models: demo, train, backtest, tune."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tiermodel.cli.options import AS_OF, JSON, PATH, PROJECT, SHOW_VALUES, load, store_option
from tiermodel.cli.printing import (
    print_accounts,
    print_chances,
    print_json,
    print_tiers,
    print_values,
    progress,
)
from tiermodel.cli.tables import figures_in, print_table, tier_names
from tiermodel.words import words

if TYPE_CHECKING:
    from tiermodel.backtesting.backtest import Backtest
    from tiermodel.bundle.bundle import Bundle
    from tiermodel.config.project import Project

__all__ = ["backtest", "demo", "train", "tune"]


_STUDY = "Where trials are kept.  [default: tune.db beside a SQLite tracking store, else in this folder]"


@click.command()
@click.option("--out", type=PATH, default=Path("tiermodel-demo"), show_default=True, help="Folder for the results.")
def demo(out: Path) -> None:
    """Run everything once on real data of 2,469 households.

    Trains, backtests, scores and reports on the Complete Journey, 1.47 M lines of groceries, within minutes, and writes
    all of it to the folder of --out.
    """
    from tiermodel.demo import demo as run_demo

    with progress() as step:
        done = run_demo(out, step)
    from tiermodel.backtesting.verdict import verdict_lines

    click.echo("\n".join(verdict_lines(done.backtest, "en")))
    print_tiers(done.tiers, "en")
    for what, where in done.files.items():
        click.echo(f"{what:12} {where}")


@click.command()
@PROJECT
@click.option("--as-of", default="latest", show_default=True, help=f"Use rows before this date only. {AS_OF}")
@click.option("--out", type=PATH, help="Folder for the bundle.  [default: models/NAME]")
@click.option("--register", is_flag=True, help="Register the model in MLflow, with the alias `challenger`.")
@click.option("--details", is_flag=True, help="Print every metric, and the learners that were tried.")
@JSON
@SHOW_VALUES
def train(project: Path, as_of: str, out: Path | None, register: bool, details: bool, as_json: bool) -> None:
    """Fit tiers and models, and judge them on later dates.

    Writes the bundle, a folder that `score` reads, to --out, and records the run in MLflow. With --register the model
    also becomes the challenger of the registry, which `promote` judges.
    """
    settings = load(project)
    from tiermodel.bundle.bundle import check_bundle_folder
    from tiermodel.bundle.model_card import empty_level_lines, level_lines
    from tiermodel.segments.profiles import segment_lines
    from tiermodel.tables.targets import targets
    from tiermodel.tiers.capacity import capacity_lines
    from tiermodel.tracking.store import check_store
    from tiermodel.training.train import train as run_train

    folder = out or Path("models") / settings.name
    check_bundle_folder(folder)  # before the import of MLflow, which takes seconds
    with progress() as step, targets(folders=[folder], project=settings):
        check_store(settings.tracking.uri)
        champion = None
        if register:
            from tiermodel.tracking.experiment import prepare_experiment
            from tiermodel.tracking.registry import champion_of

            prepare_experiment(settings)
            champion = champion_of(settings)
        trained = run_train(settings, as_of, out=folder, champion=champion, progress=step)
        from tiermodel.tracking.registry import log_training

        step(words(settings.language)["step_tracking"])
        tracked = log_training(settings, trained, folder, register=register)
    print_accounts(settings, trained.accounts)
    later, places = trained.bundle.facts["later"], trained.bundle.facts.get("capacity", [])
    if as_json:
        of_capacity = {"capacity": places} if places else {}
        version = trained.bundle.version
        print_json({"bundle": str(folder), "model_version": version, "run": tracked, "later": later, **of_capacity})
        return
    bundle, language, say = trained.bundle, settings.language, words(settings.language)
    if details:
        _print_training(bundle, language)
    else:
        print_table(say["title_later"], _headline(later, language))
    scheme = bundle.scheme.scheme
    lines = [*capacity_lines(places, scheme, language), *empty_level_lines(bundle.facts, scheme, language)]
    lines += level_lines(bundle.facts["level"], language)
    if imitated := bundle.scheme.surrogate_line(language):
        lines += [imitated, say["surrogate_remedy"]]
    click.echo("\n".join([*lines, *segment_lines(bundle.segments, bundle.features, language)]))
    click.echo(say["train_bundle"].format(version=bundle.version, folder=folder))
    if tracked is not None:
        command = f"tiermodel promote {settings.name}{store_option(settings)}"
        click.echo(say["train_registered"].format(tracked=tracked, command=command))


def _headline(later: Mapping[str, Mapping[str, Any]], language: str) -> list[dict[str, Any]]:
    """Return the metric by which each target is read first: one that tells how good its ranking or its level is."""
    first = {"churn": ("auc", "log_loss"), "value": ("gini", "mae"), "tier": ("qwk",), "upgrade": ("auc", "log_loss")}
    rows = [
        {"target": target, "metric": metric, "found": figures[metric]}
        for target, figures in later.items()
        for metric in first.get(target, ("auc", "log_loss"))
        if metric in figures
    ]
    return figures_in(language, rows)


def _print_training(bundle: Bundle, language: str) -> None:
    """Print every table of a training: all metrics, the learners tried, learned tiers beside tiers by rules."""
    say = words(language)
    later = [{"target": target, **figures} for target, figures in bundle.facts["later"].items()]
    print_table(say["title_later"], figures_in(language, later), language)
    if tried := bundle.scheme.state.get("trials"):
        print_table(say["title_learners"], figures_in(language, tried), language)
    if rules := bundle.facts.get("agreement"):
        beside = [{"scheme": k, **v["figures"]} for k, v in rules.items()]
        print_table(say["title_agreement"], figures_in(language, beside), language)


@click.command()
@PROJECT
@click.option("--out", type=PATH, help="A .json file for the results.")
@click.option("--predictions", type=PATH, help="A .parquet, .csv or .xlsx file for every model's predictions.")
@click.option("--details", is_flag=True, help="Print every table after the verdict.")
@JSON
@SHOW_VALUES
def backtest(project: Path, out: Path | None, predictions: Path | None, details: bool, as_json: bool) -> None:
    """Train at past dates and compare with what followed.

    Prints a verdict of about ten lines: are risk, value and tiers better than simple baselines beyond chance? With
    --details every table follows; --out writes every figure, --predictions every prediction.
    """
    settings = load(project)
    from tiermodel.backtesting.backtest import backtest as run_backtest
    from tiermodel.backtesting.verdict import verdict_lines
    from tiermodel.tables.targets import targets

    with progress() as step, targets(out, tables=[predictions], project=settings):
        done = run_backtest(settings, out=out, predictions=predictions, progress=step)
    print_accounts(settings, done.accounts)
    if as_json:
        print_json(done.results)
        return
    click.echo("\n".join(verdict_lines(done.results, settings.language)))
    click.echo("\n".join(done.results["notes"]), nl=bool(done.results["notes"]))
    if details:
        _print_details(done, settings)
    else:
        click.echo(words(settings.language)["verdict_more"])


def _print_details(done: Backtest, project: Project) -> None:
    """Print every table of a backtest, and each comparison that a baseline wins."""
    from tiermodel.backtesting.proposals import scheme_faults
    from tiermodel.backtesting.tiers import scheme_summary, tier_verdict
    from tiermodel.bundle.model_card import level_lines
    from tiermodel.tiers.schemes.load import load_scheme

    language, scheme = project.language, load_scheme(project)
    results, say = done.results, words(language)
    names = tier_names(scheme.codes, scheme.names(language), language)
    print_chances("churn", results["churn"], language)
    print_values(results["value"], language)
    latest = results["dates"][-1]
    slices = [row for row in results["slices"] if row["as_of"] == latest]
    whom = ("by", "group", "n", "rate", "mean_risk", "ece")
    print_table(say["title_slices"].format(latest), figures_in(language, slices, names), language, whom)
    if results["learning_curve"]:
        print_table(say["title_curve"], figures_in(language, results["learning_curve"]), language)
    if results["clv"]:
        print_table(say["title_clv"], figures_in(language, results["clv"]), language, ("model", "as_of", "mae"))
    print_chances("upgrade", results["upgrade"], language)
    print_chances("prospects", results["prospects"], language)
    schemes = figures_in(language, scheme_summary(results["tiers"]))
    kept = ("scheme", "key_customers_share", "value_capture_top", "better", "worse")
    print_table(say["title_schemes"], schemes, language, kept)
    compared = ("target", "metric", "against", "difference", "low", "high")
    print_table(say["title_comparisons"], figures_in(language, results["comparisons"]), language, compared)
    lines = [f"tiers.scheme, {line}" for line in scheme_faults(results["tiers"], language)]
    lines += tier_verdict(results["comparisons"], language)
    lines += [f"{row['as_of']}: {line}" for row in results["level"] for line in level_lines(row, language)]
    losses = done.losses(language)
    verdict = say["details_losses" if losses else "details_no_losses"]
    click.echo("\n".join([*lines, verdict, *losses]))


@click.command()
@PROJECT
@click.option("--as-of", help="Use rows before this date only.  [default: the first test date of the backtest]")
@click.option("--trials", type=click.IntRange(1), default=50, show_default=True, help="How many settings a target.")
@click.option("--minutes", type=click.FloatRange(0, min_open=True), default=60, show_default=True, help="Time to try.")
@click.option("--study", type=PATH, help=_STUDY)
@click.option("--out", type=PATH, help="A .yaml file for the section `models`.")
@JSON
@SHOW_VALUES
def tune(
    project: Path, as_of: str | None, trials: int, minutes: float, study: Path | None, out: Path | None, as_json: bool
) -> None:
    """Look for better settings of the learners on past dates.

    Judges them on a later date and prints the section `models` for the project file; settings that are not better
    beyond chance stay comments. Trials are kept, so that a stopped run goes on where it was.
    """
    settings = load(project)
    from tiermodel.tables.targets import targets
    from tiermodel.tracking.store import check_store
    from tiermodel.training.tune import tune as run_tune

    with progress() as step, targets(out, project=settings):
        check_store(settings.tracking.uri)
        tuned = run_tune(settings, as_of, trials=trials, minutes=minutes, study=study, progress=step)
        if out is not None:
            tuned.save(out)
        from tiermodel.tracking.registry import log_tuning

        step(words(settings.language)["step_trials"])
        log_tuning(settings, tuned)
    print_accounts(settings, tuned.accounts)
    if as_json:
        print_json(tuned.to_dict())
        return
    say, language = words(settings.language), settings.language
    for found in tuned.found:
        best = figures_in(language, found.settings_rows())
        print_table(say["tune_best"].format(n=len(found.trials), day=tuned.judged_on), best, language)
    verdicts = figures_in(language, [row for found in tuned.found for row in found.verdict])
    kept = ("target", "metric", "difference", "low", "high")
    print_table(say["tune_judged"].format(tuned.judged_on), verdicts, language, kept)
    click.echo(tuned.to_yaml(language).rstrip())
