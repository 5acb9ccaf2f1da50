"""The stages of a refresh, in their order: each writes its part of the run's folder whole, and says what it did."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from tiermodel.bundle.bundle import Bundle, save_bundle
from tiermodel.crm.export import export
from tiermodel.errors import DataError, GateError, ProjectError, TrackingError
from tiermodel.features.export import write_features
from tiermodel.jobs.manifest import StageRecord
from tiermodel.jobs.run import MODEL, SCORES, Run, mapping_of
from tiermodel.ledger.calendar import next_grading
from tiermodel.ledger.ledger import Ledger
from tiermodel.monitoring.monitor import monitor
from tiermodel.output import write_json
from tiermodel.policy.service_policy import load_policy
from tiermodel.predict import score
from tiermodel.predict.fitting_project import with_bundle_features
from tiermodel.quality.check import check
from tiermodel.reporting.charts import require_library
from tiermodel.reporting.report import report
from tiermodel.tracking.experiment import prepare_experiment
from tiermodel.tracking.promotion import promote, promotion_record
from tiermodel.tracking.registry import log_monitoring, log_training
from tiermodel.tracking.verdict import Verdict
from tiermodel.training.train import train
from tiermodel.words import words
from tiermodel.worklists.lists import lists

__all__ = ["STAGES", "why_train"]

_VERDICT = "promote.json"


def _check(run: Run) -> StageRecord:
    """Check the data; raises DataError where they are refused."""
    found = check(run.project, history=run.history)
    write_json(found.to_dict(), run.folder / "check.json")
    if found.refused:
        told = [finding.text(run.project.language) for finding in found.findings if finding.level == "refuse"]
        raise DataError("\n".join(["the data check refuses these data:", *(f"- {line}" for line in told)]))
    counts = {name: value for name, value in vars(found.accounting).items() if isinstance(value, int)}
    warned = [finding.text(run.project.language) for finding in found.findings if finding.level == "warn"]
    return StageRecord(stage="check", said=tuple(warned), counts=counts)


def _monitor(run: Run) -> StageRecord:
    """Watch the champion, with the scores of earlier runs and the ledger; the run goes on whatever is found."""
    if run.champion is None:
        return StageRecord(stage="monitor", skipped=words(run.project.language)["refresh_train_first"])
    kept = any((run.root / str(found.as_of) / SCORES).is_file() for found in run.earlier)
    done = monitor(
        run.project,
        run.champion,
        run.day,
        scores=run.root if kept else None,
        ledger=run.ledger if run.ledger.is_dir() else None,
        out=run.folder / "monitor.json",
        history=run.history,
    )
    said = done.to_text().splitlines()
    try:
        log_monitoring(run.project, done)
    except TrackingError as error:  # watching needs no store
        said.append(str(error))
    counts = {"advice": done.advice.kind, "alarms": len(done.alarms)}
    return StageRecord(stage="monitor", exit=GateError.exit_code if done.alarms else 0, said=tuple(said), counts=counts)


def why_train(run: Run) -> tuple[bool, str]:
    """Return whether a challenger is to be trained, and why, or why not, in the project's language."""
    due, why = _due(run)
    if due and run.champion is not None and training_day(run) == _learned(run.champion):
        day = _learned(run.champion) + _step(run.champion)
        return False, words(run.project.language)["refresh_train_waits"].format(why=why, day=day)
    return due, why


def training_day(run: Run) -> date:
    """Return the date as of which a challenger is trained: the last one whose snapshots have dates of the champion's.

    Models that are judged on the same customers and dates can be told apart by far smaller differences.
    """
    if run.champion is None:
        return run.day
    learned, step = _learned(run.champion), _step(run.champion)
    return learned + step * max((run.day - learned) // step, 0)


def _learned(champion: Bundle) -> date:
    return date.fromisoformat(str(champion.facts["as_of"]))


def _step(champion: Bundle) -> timedelta:
    return timedelta(champion.settings["panel"]["every_days"])


def _due(run: Run) -> tuple[bool, str]:
    say, wanted, last = words(run.project.language), run.project.refresh.train, run.last_trained
    if run.champion is None:
        return True, say["refresh_train_first"]
    learned = _learned(run.champion)
    last = learned if last is None else max(last, learned)
    if wanted.schedule is not None and run.day >= next_grading(wanted.schedule, last):
        return True, say["refresh_train_schedule"].format(last=last)
    if wanted.max_age_days is not None and (run.day - learned).days >= wanted.max_age_days <= (run.day - last).days:
        return True, say["refresh_train_age"].format(days=(run.day - learned).days, most=wanted.max_age_days)
    alarm = run.manifest.record("monitor")
    if wanted.on_alarm and alarm is not None and alarm.counts.get("advice") == "retrain":
        if run.day - last >= timedelta(run.project.panel.every_days):
            return True, say["refresh_train_alarm"]
        return False, say["refresh_train_lately"].format(last=last)
    return False, say["refresh_train_not_due"].format(last=last)


def _train(run: Run) -> StageRecord:
    """Train and register a challenger where one is due."""
    due, why = why_train(run)
    if not due:
        return StageRecord(stage="train", skipped=why)
    prepare_experiment(run.project)  # before the fit, not after it
    folder = run.folder / "challenger"
    trained = train(run.project, training_day(run), out=folder, champion=run.champion, history=run.history)
    registered = log_training(run.project, trained, folder, register=True)
    run.manifest = run.manifest.model_copy(update={"trained": True})
    return StageRecord(stage="train", said=(why,), counts={"registered": registered, "bundle": trained.bundle.version})


def _promote(run: Run) -> StageRecord:
    """Promote the challenger that this run trained; where the gate says no, a champion stays, and the run goes on."""
    made = run.manifest.record("train")
    if made is None or made.skipped is not None:
        return StageRecord(stage="promote", skipped=words(run.project.language)["refresh_nothing_trained"])
    name, _, number = str(made.counts["registered"]).rpartition("/")
    verdict = run.folder / _VERDICT
    if run.champion is not None and run.champion.version == made.counts["bundle"]:  # promoted before a kill
        kept = promotion_record(made.counts["registered"], run.project.tracking.uri)
        if kept is not None:
            del kept["rolled_back"]
            write_json({**kept, "previous": kept["champion"], "promoted": True}, verdict)
        return StageRecord(stage="promote", counts={"champion": number})
    try:
        done = promote(name, number, tracking_uri=run.project.tracking.uri)
    except GateError as refusal:
        if run.champion is None:
            raise
        if isinstance(refusal.verdict, Verdict):
            write_json({**refusal.verdict.to_dict(), "promoted": False}, verdict)
        return StageRecord(stage="promote", exit=refusal.exit_code, said=tuple(str(refusal).splitlines()))
    write_json(done.to_dict(), verdict)
    return StageRecord(stage="promote", said=tuple(done.to_text().splitlines()), counts={"champion": number})


def _model(run: Run) -> StageRecord:
    """Put the champion into the folder, so that all that follows is of one model, whatever is promoted meanwhile."""
    vars(run).pop("champion", None)  # this run may have promoted another
    if run.champion is None:
        raise GateError(f"{run.project.name}: there is no champion; run `tiermodel refresh` again")
    save_bundle(run.champion, run.folder / MODEL)
    run.manifest = run.manifest.model_copy(update={"model": run.champion.version})
    return StageRecord(stage="model", counts={"model": run.champion.version})


def _score(run: Run) -> StageRecord:
    """Score every customer, and grade where the project's grading dates say so."""
    done = score(run.project, run.model, run.day, run.scores, history=run.history, ledger=run.ledger)
    counts: dict[str, Any] = {"customers": done.customers, "tiers": done.tiers}
    if done.added is not None:
        counts |= {"added_to_ledger": done.added.rows, "moves": dict(done.added.moves)}
    return StageRecord(stage="score", counts=counts)


def _features(run: Run) -> StageRecord:
    """Write the features of the model, from which lists and the report tell reasons."""
    project = with_bundle_features(run.project, run.model, run.history)
    done = write_features(project, [run.day], run.features, history=run.history)
    return StageRecord(stage="features", counts={"customers": done.snapshots})


def _lists(run: Run) -> StageRecord:
    """Make the work lists."""
    if not run.project.refresh.lists:
        return StageRecord(stage="lists", skipped="refresh.lists: false")
    done = lists(run.scores, run.model, run.features, run.folder / "lists", ledger=run.ledger)
    counts = {found.list: found.customers for found in done.lists}
    return StageRecord(stage="lists", counts={"customers": done.customers, **counts, "on_none": done.on_none})


def _exports(run: Run) -> StageRecord:
    """Write what changed since the last complete run for every mapping."""
    if not run.project.refresh.exports:
        return StageRecord(stage="exports", skipped="refresh.exports: []")
    counts = {}
    for mapping in run.project.refresh.exports:
        name = Path(mapping).stem
        before = None if run.before is None else run.root / str(run.before.as_of) / "exports" / name
        since = before if before is not None and before.is_dir() else None
        done = export(run.scores, mapping_of(run.project, mapping), run.folder / "exports" / name, since=since)
        counts[name] = {key: getattr(done, key) for key in ("customers", "new", "changed", "unchanged", "gone")}
    return StageRecord(stage="exports", counts=counts)


def _report(run: Run) -> StageRecord:
    """Draw the page; without the charting library the run goes on, and says what installs it."""
    try:
        require_library()
    except ProjectError as lacking:
        return StageRecord(stage="report", skipped=str(lacking))
    beside = [run.folder / name for name in ("monitor.json", "check.json", _VERDICT)]
    sources = [run.scores, run.features, run.folder / MODEL, *(path for path in beside if path.is_file())]
    if Ledger(run.ledger).graded:
        sources.append(run.ledger)
    project = run.project
    policy = load_policy(project.policy, project.folder) if project.policy else None
    report(sources, run.folder / "report.html", project.language, policy=policy)
    return StageRecord(stage="report")


STAGES: Mapping[str, Callable[[Run], StageRecord]] = {
    "check": _check,
    "monitor": _monitor,
    "train": _train,
    "promote": _promote,
    "model": _model,
    "score": _score,
    "features": _features,
    "lists": _lists,
    "exports": _exports,
    "report": _report,
}
"""The stages by name, in their order."""
