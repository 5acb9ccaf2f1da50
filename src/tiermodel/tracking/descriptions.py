"""What MLflow shows of a model: descriptions in the project's language, tags to search by; none names a customer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import date, timedelta
from statistics import fmean

from tiermodel.backtesting.verdict import model_name
from tiermodel.bundle.bundle import Bundle
from tiermodel.evaluation.baselines import OURS
from tiermodel.tracking.artifacts import LearnerMetrics
from tiermodel.tracking.verdict import Verdict
from tiermodel.words import words

__all__ = ["GATE", "NOT_JUDGED", "SEARCHABLE", "described", "gate_tag", "out_of_time", "searchable"]

GATE, NOT_JUDGED = "gate_verdict", "not judged"
"""The tag of the gate's verdict on runs and versions, and its value before there is one."""

SEARCHABLE = ("horizon_days", "scheme", "data_first_day", "data_last_day")
"""The tags of `searchable`."""

_LONGEST = 5000  # the most characters that MLflow keeps
_COMPARED = {"churn": ("log_loss", min), "value": ("gini", max)}


def described(bundle: Bundle, name: str, verdict: Iterable[str]) -> str:
    """Return a description in Markdown of a bundle that is registered under a name.

    It tells the purpose, the data, the lines of the verdict, how to load it, and the rules of the tiers.
    """
    say, facts = words(bundle.language), bundle.facts
    levels = say["comma"].join(reversed(bundle.scheme.scheme.names(bundle.language)))
    first, last = _span(bundle)
    told = {
        "name": name, "levels": levels, "days": bundle.settings["outcome"]["horizon_days"], "first": first,
        "last": last, "customers": facts["customers"], "scheme": bundle.scheme_version, "bundle": bundle.version,
    }  # fmt: skip
    parts = [say[f"mlflow_{part}"].format(**told) for part in ("purpose", "data")]
    parts.append("\n".join([say["mlflow_verdict"], "", *verdict]))
    parts.append(say["mlflow_use"].format(**told))
    rules = [f"- {line}" for line in bundle.scheme.rules(bundle.features, bundle.language)]
    return _cut([*"\n\n".join([*parts, say["mlflow_rules"]]).splitlines(), "", *rules], say["mlflow_more"])


def _cut(lines: Sequence[str], more: str) -> str:
    """Return the lines as text that MLflow takes, whole lines only."""
    text = "\n".join(lines)
    if len(text) <= _LONGEST:
        return text
    room = text[: _LONGEST - len(more) - 1]
    return f"{room[: room.rfind(chr(10))]}\n{more}"


def out_of_time(bundle: Bundle, name: str, found: Iterable[LearnerMetrics]) -> list[str]:
    """Return how a training did on later dates beside the strongest simple baseline, and that the gate is yet to come.

    Figures are means over the dates.
    """
    say, found = words(bundle.language), list(found)
    lines = [f"- {line}" for target in _COMPARED for line in _beside_baselines(bundle.language, target, found)]
    dates = say["comma"].join(bundle.facts["later_dates"]) or "–"
    return [say["mlflow_later"].format(dates=dates), *lines, say["mlflow_not_judged"].format(name=name)]


def _beside_baselines(language: str, target: str, found: Sequence[LearnerMetrics]) -> Iterator[str]:
    metric, better = _COMPARED[target]
    by_learner: dict[str, list[float]] = {}
    for one in found:
        if one.target == target and one.role != "member" and metric in one.metrics:
            by_learner.setdefault(one.learner, []).append(one.metrics[metric])
    means = {name: fmean(values) for name, values in by_learner.items()}
    ours = means.pop(OURS, None)
    if ours is None:
        return
    say = words(language)
    told = say[f"mlflow_{target}"].format(ours=ours)
    if means:
        best = better(means, key=lambda name: means[name])
        told += say["mlflow_baseline"].format(name=model_name(best, say), theirs=means[best])
    yield told


def searchable(bundle: Bundle) -> dict[str, str]:
    """Return the tags by which a run or a version is found: horizon, scheme, and the first and last day of its data."""
    first, last = _span(bundle)
    horizon = str(bundle.settings["outcome"]["horizon_days"])
    return dict(zip(SEARCHABLE, (horizon, bundle.scheme.scheme.code, first, last), strict=True))


def _span(bundle: Bundle) -> tuple[str, str]:
    """Return the day of the first purchase, and the last day before the date as of which the bundle was trained."""
    as_of = date.fromisoformat(bundle.facts["as_of"])
    return str(as_of - timedelta(bundle.facts["history_days"])), str(as_of - timedelta(1))


def gate_tag(verdict: Verdict) -> str:
    """Return a verdict of the gate as a tag: passed, accepted by whom, or refused, with the checks that failed."""
    if not verdict.passed:
        return f"refused: {', '.join(verdict.refused)}"
    if verdict.acceptance is not None and verdict.accepted:
        return f"accepted by {verdict.acceptance.operator}: {', '.join(verdict.accepted)}"
    return "passed"
