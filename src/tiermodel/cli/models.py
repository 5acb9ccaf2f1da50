"""The verbs that train and evaluate models: demo, train, backtest, tune."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tiermodel.cli.options import AS_OF, JSON, PATH, PROJECT, load, store_option
from tiermodel.cli.printing import (
    print_accounts,
    print_chances,
    print_json,
    print_table,
    print_tiers,
    print_values,
    progress,
)

if TYPE_CHECKING:
    from tiermodel.backtesting.backtest import Backtest

__all__ = ["backtest", "demo", "train", "tune"]


_STUDY = "Where trials are kept.  [default: tune.db beside a SQLite tracking store, else in this folder]"


@click.command()
@click.option("--out", type=PATH, default=Path("tiermodel-demo"), show_default=True, help="Folder for the results.")
def demo(out: Path) -> None:
    """Run the whole line on the Complete Journey: 1.47 M real grocery lines of 2,469 households."""
    from tiermodel.demo import demo as run_demo

    with progress() as step:
        done = run_demo(out, step)
    from tiermodel.backtesting.verdict import verdict_lines

    click.echo("\n".join(verdict_lines(done.backtest, "en")))
    print_tiers(done.tiers)
    for what, where in done.files.items():
        click.echo(f"{what:12} {where}")


@click.command()
@PROJECT
@click.option("--as-of", default="latest", show_default=True, help=f"Use rows before this date only. {AS_OF}")
@click.option("--out", type=PATH, help="Folder for the bundle.  [default: models/NAME]")
@click.option("--register", is_flag=True, help="Register the model in MLflow, with the alias `challenger`.")
@JSON
def train(project: Path, as_of: str, out: Path | None, register: bool, as_json: bool) -> None:
    """Fit the scheme and the models, write the bundle, and track the run in MLflow."""
    settings = load(project)
    from tiermodel.bundle.bundle import check_bundle_folder
    from tiermodel.bundle.model_card import empty_level_lines, level_lines
    from tiermodel.segments.profiles import segment_lines
    from tiermodel.tiers.capacity import capacity_lines
    from tiermodel.tracking.store import check_store
    from tiermodel.training.train import train as run_train

    folder = out or Path("models") / settings.name
    with progress() as step:
        check_bundle_folder(folder)  # before the import of MLflow, which takes seconds
        check_store(settings.tracking.uri)
        champion = None
        if register:
            from tiermodel.tracking.experiment import prepare_experiment
            from tiermodel.tracking.registry import champion_of

            prepare_experiment(settings)
            champion = champion_of(settings)
        trained = run_train(settings, as_of, out=folder, champion=champion, progress=step)
        from tiermodel.tracking.registry import log_training

        step("tracking the run")
        tracked = log_training(settings, trained, folder, register=register)
    print_accounts(settings, trained.accounts)
    later, places = trained.bundle.facts["later"], trained.bundle.facts.get("capacity", [])
    if as_json:
        of_capacity = {"capacity": places} if places else {}
        version = trained.bundle.version
        print_json({"bundle": str(folder), "model_version": version, "run": tracked, "later": later, **of_capacity})
        return
    print_table("Out of time, on snapshots later than those trained on", [{"target": k, **v} for k, v in later.items()])
    bundle = trained.bundle
    if tried := bundle.scheme.state.get("trials"):
        print_table("Learners of the tiers, tried on later snapshots", tried)
    if rules := bundle.facts.get("agreement"):
        print_table("Learned tiers beside tiers by rules", [{"scheme": k, **v["figures"]} for k, v in rules.items()])
    scheme, language = bundle.scheme.scheme, bundle.language
    lines = [*capacity_lines(places, scheme, language), *empty_level_lines(bundle.facts, scheme, language)]
    lines += level_lines(bundle.facts["level"], language)
    click.echo("\n".join([*lines, *segment_lines(bundle.segments, bundle.features, bundle.language)]))
    click.echo(f"bundle {bundle.version} in {folder}")
    if tracked is not None:
        click.echo(f"registered as {tracked}; next: tiermodel promote {settings.name}{store_option(settings)}")


@click.command()
@PROJECT
@click.option("--out", type=PATH, help="A .json file for the results.")
@click.option("--predictions", type=PATH, help="A .parquet or .csv file for every model's predictions.")
@click.option("--details", is_flag=True, help="Print every table after the verdict.")
@JSON
def backtest(project: Path, out: Path | None, predictions: Path | None, details: bool, as_json: bool) -> None:
    """Play the past again, out of time, with the baselines beside the model; the verdict comes first."""
    settings = load(project)
    from tiermodel.backtesting.backtest import backtest as run_backtest
    from tiermodel.backtesting.verdict import verdict_lines
    from tiermodel.words import words

    with progress() as step:
        done = run_backtest(settings, out=out, predictions=predictions, progress=step)
    print_accounts(settings, done.accounts)
    if as_json:
        print_json(done.results)
        return
    click.echo("\n".join(verdict_lines(done.results, settings.language)))
    if details:
        _print_details(done, settings.language)
    else:
        click.echo(words(settings.language)["verdict_more"])


def _print_details(done: Backtest, language: str) -> None:
    """Print every table of a backtest, and each comparison that a baseline wins."""
    from tiermodel.backtesting.proposals import scheme_faults
    from tiermodel.backtesting.tiers import scheme_summary, tier_verdict
    from tiermodel.bundle.model_card import level_lines

    results = done.results
    print_chances("Churn", results["churn"])
    print_values(results["value"])
    latest = results["dates"][-1]
    print_table(f"For whom, {latest}", [row for row in results["slices"] if row["as_of"] == latest])
    print_table("With less history", results["learning_curve"])
    if results["clv"]:
        print_table("Lifetime value, discounted, against what came", results["clv"])
    print_chances("Upgrades that stay", results["upgrade"])
    print_chances("Conversion of prospects", results["prospects"])
    print_table("Schemes, judged by the value that followed: means over the dates", scheme_summary(results["tiers"]))
    print_table("tiermodel minus baseline, 95 % interval", results["comparisons"])
    lines = [f"tiers.scheme, {line}" for line in scheme_faults(results["tiers"], language)]
    lines += tier_verdict(results["comparisons"])
    lines += [f"{row['as_of']}: {line}" for row in results["level"] for line in level_lines(row, language)]
    losses = done.losses()
    verdict = "A baseline is better beyond chance:" if losses else "No baseline is better beyond chance."
    click.echo("\n".join([*lines, verdict, *losses, *results["notes"]]))


@click.command()
@PROJECT
@click.option("--as-of", help="Use rows before this date only.  [default: the first test date of the backtest]")
@click.option("--trials", type=click.IntRange(1), default=50, show_default=True, help="How many settings a target.")
@click.option("--minutes", type=click.FloatRange(0, min_open=True), default=60, show_default=True, help="Time to try.")
@click.option("--study", type=PATH, help=_STUDY)
@click.option("--out", type=PATH, help="A .yaml file for the section `models`.")
@JSON
def tune(
    project: Path, as_of: str | None, trials: int, minutes: float, study: Path | None, out: Path | None, as_json: bool
) -> None:
    """Look for better learner settings on past dates, judge them on a later one; a stopped run goes on."""
    settings = load(project)
    from tiermodel.output import check_writable
    from tiermodel.tracking.store import check_store
    from tiermodel.training.tune import tune as run_tune

    with progress() as step:
        if out is not None:
            check_writable(out)
        check_store(settings.tracking.uri)
        tuned = run_tune(settings, as_of, trials=trials, minutes=minutes, study=study, progress=step)
        if out is not None:
            tuned.save(out)
        from tiermodel.tracking.registry import log_tuning

        step("tracking the trials")
        log_tuning(settings, tuned)
    print_accounts(settings, tuned.accounts)
    if as_json:
        print_json(tuned.to_dict())
        return
    for found in tuned.found:
        print_table(f"The best of {len(found.trials)}, on dates before {tuned.judged_on}", found.settings_rows())
    verdicts = [row for found in tuned.found for row in found.verdict]
    print_table(f"Judged on {tuned.judged_on}, which no trial saw", verdicts)
    click.echo(tuned.to_yaml().rstrip())
