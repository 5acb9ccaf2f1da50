"""Watching a model: what comes in, what the tiers do, what came of past scores, and what is to be done about it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from tiermodel.arrays import Floats
from tiermodel.bundle.bundle import Bundle, bundle_of
from tiermodel.config.project import Project
from tiermodel.engines.dispatch import Rows, history_of
from tiermodel.features.dates import one_date
from tiermodel.features.outcome import Labels
from tiermodel.monitoring.alarms import Advice, Alarm, advice_on, drift_alarms, hints_of, spans_of
from tiermodel.monitoring.changes import column_changes, unknown_share
from tiermodel.monitoring.columns import TableDays, freshness, row_series, table_days
from tiermodel.monitoring.drift import STEP_DAYS, Drift, DriftTest, drift, grid, lately_days
from tiermodel.monitoring.estimated import estimates
from tiermodel.monitoring.matured import Matured, judged, kept_tables, level_spread, matured_alarms
from tiermodel.monitoring.profiles import SAMPLE, Profiles, profiles, sampled, windows_of
from tiermodel.monitoring.tier_checks import tier_checks
from tiermodel.output import to_jsonable, write_json
from tiermodel.predict.fitting_project import with_bundle_features
from tiermodel.tables.source import refuse_outputs
from tiermodel.words import notebook_table, words

__all__ = ["MonitorResult", "monitor"]

FORMAT = 1
_MATURED_SAMPLE = 20_000
_MOST_SHOWN = 12


@dataclass(frozen=True)
class MonitorResult:
    """What a run of `monitor` found: the alarms, the one thing to do, and the figures behind them.

    `figures` has the sections `hints`, `inputs`, `tiers`, `matured`, `estimates`, `freshness` and `model`, as plain
    data. A hint is no alarm yet.
    """

    project: str
    model_version: str
    as_of: date
    alarms: tuple[Alarm, ...]
    advice: Advice
    figures: dict[str, Any]
    language: str

    @property
    def verdict(self) -> str:
        """`ok`, or `act` where there is an alarm."""
        return "act" if self.alarms else "ok"

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain data, for JSON."""
        return {
            "format": FORMAT, "kind": "monitor", "project": self.project, "model_version": self.model_version,
            "as_of": str(self.as_of), "verdict": self.verdict,
            "advice": {**vars(self.advice), "text": self.advice.to_text(self.language)},
            "alarms": [alarm.to_dict(self.language) for alarm in self.alarms],
            **self.figures,
        }  # fmt: skip

    def to_json(self) -> str:
        """Return everything as JSON; the same run gives the same text."""
        return json.dumps(to_jsonable(self.to_dict()), ensure_ascii=False, indent=1, allow_nan=False) + "\n"

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the lines of `to_text`."""
        title, *lines = self.to_text().splitlines()
        return notebook_table(self.language, title, [(line.removeprefix("- "),) for line in lines])

    def to_text(self) -> str:
        """Return the result as a few lines in the project's language: alarms, advice, what is known of the model."""
        say, comma = words(self.language), words(self.language)["comma"]
        title = say["monitor_title"].format(model=self.model_version, day=self.as_of)
        lines = [title, *(f"- {alarm.to_text(self.language)}" for alarm in self.alarms)]
        lines += [] if self.alarms else [say["monitor_no_alarm"]]
        lines += [] if self.figures["inputs"]["series"] else [say["monitor_too_short"]]
        lines += [say["monitor_hint"].format(text=hint["text"]) for hint in self.figures["hints"]]
        lines.append(say["monitor_advice"].format(advice=self.advice.to_text(self.language)))
        for one in self.figures["estimates"]:
            known = "monitor_estimate" if one["checked"] else "monitor_estimate_unchecked"
            lines.append(say[known].format(**{**one, "name": say[f"monitor_{one['name']}"]}))
        last = self.figures["matured"][-1:] if self.figures["matured"] else []
        lines += [say["monitor_matured"].format(**one) for one in last if "rate" in one and "gini" in one]
        silent = [
            say["monitor_silent"].format(**{**one, "table": say[f"table_{one['table']}"]})
            for one in self.figures["freshness"]
        ]
        lines.append(say["monitor_model"].format(silent=comma.join(silent), **self.figures["model"]))
        return "\n".join(lines)


def monitor(
    project: Project,
    model: Bundle | str | Path,
    as_of: date | str,
    *,
    scores: str | Path | None = None,
    ledger: str | Path | None = None,
    out: str | Path | None = None,
    history: Rows = None,
) -> MonitorResult:
    """Look at what comes in, at the tiers and at past scores as known at a date, and say what to do.

    Drift is judged on some thousands of customers, against what the log did before, the year before included where it
    reaches back. The alarms of one run share one budget (`tests/benchmarks/bench_monitor.py` counts false ones). No
    state is kept between runs: all references are snapshots of past dates, made again from the log.

    Parameters
    ----------
    project
        The project whose tables are read.
    model
        A bundle, or the folder of one.
    as_of
        The first day that is not known: a date, an ISO date as text, or `latest`, the day after the last row.
    scores
        A folder of kept score tables; those whose outcome windows are over are compared with what came.
    ledger
        The folder of the tier ledger, for the mix of tiers, movement and reversals.
    out
        A .json file to write.
    history
        The project's tables, opened before, or a DataFrame of transactions, or DataFrames by the name of the table;
        without it the project's files are read.

    Returns
    -------
    MonitorResult
        The verdict, alarms, advice and figures.

    Raises
    ------
    ModelError
        If the bundle cannot be read, or the project does not fit it.
    DataError
        If no customer is known at `as_of`, or the folder of scores has no score table.
    ProjectError
        If `as_of` is not one date, or there is no ledger.

    Examples
    --------
    >>> from tiermodel import Project
    >>> columns = {"customer_id": "id", "time": "day", "amount": "amount"}
    >>> data = {"transactions": {"path": "sales.csv", "columns": columns}}
    >>> project = Project.model_validate({"version": 1, "name": "shop", "data": data})
    >>> monitor(project, "no-bundle", "latest")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    tiermodel.errors.ModelError: no-bundle: there is no manifest.json, so this is no bundle; ...

    """
    bundle = bundle_of(model)
    kept = None if scores is None else Path(scores)
    history = history_of(project, history)
    fitting = with_bundle_features(project, bundle, history)
    if out is not None:
        refuse_outputs((table.source for table in history.tables.values()), Path(out))
    day, labels = one_date(as_of, history), Labels.of(project)
    learned = date.fromisoformat(str(bundle.facts["as_of"]))
    tables = table_days(history, day)
    dates = grid(day, history.first_day)
    few = sampled(history, int(bundle.facts["customers"]), SAMPLE)
    lately = lately_days(windows_of(bundle), (day - history.first_day).days)
    known = profiles(fitting, bundle, few, dates, min(learned, day), day, lately)
    known = known.at(dates, day, labels.delay_days)
    test, series = input_test(bundle, known, tables, history.first_day)
    late = freshness(tables, day)
    alarms = [Alarm("late", f"data.{row['table']}", row["last_row"], row) for row in late if row["late"]]
    changes = column_changes(tables.values(), day, learned)
    alarms += drift_alarms(test.found, changes, bundle.features, series)
    level_sd, value_sd = level_errors(bundle, known, labels.delay_days)
    foretold = estimates(known, level_sd, value_sd, labels.delay_days, old_from(bundle, history.first_day))
    found: list[Matured] = []
    if kept is not None:
        many = sampled(history, int(bundle.facts["customers"]), _MATURED_SAMPLE)
        found = judged(fitting, bundle, many, kept_tables(kept, day), day)
        alarms += matured_alarms(found, bundle, labels.delay_days, level_sd, value_sd)
    tiers: dict[str, Any] = {}
    if ledger is not None:
        tiers, moved = tier_checks(Path(ledger), day)
        alarms += moved
    figures = {
        "hints": [hint.to_dict(project.language) for hint in hints_of(test.found, alarms)],
        "inputs": _inputs(test, known),
        "tiers": tiers,
        "matured": [one.to_dict() for one in found],
        "estimates": [one.to_dict() for one in foretold],
        "freshness": [{**row, "last_row": str(row["last_row"])} for row in late],
        "model": _model(tables, learned, day),
    }
    newer = learned + timedelta(days=project.panel.every_days)
    advice = advice_on(alarms, newer if day < newer else None)
    done = MonitorResult(project.name, bundle.version, day, tuple(alarms), advice, figures, project.language)
    if out is not None:
        write_json(done.to_dict(), Path(out))
    return done


def input_test(
    bundle: Bundle, known: Profiles, tables: dict[str, TableDays], first_day: date
) -> tuple[DriftTest, dict[str, Floats]]:
    """Return the drift of features, scores and rows, all tested together, and the series behind it."""
    series = {**known.series, **row_series(tables, known.dates)}
    spans = spans_of(bundle.features.values(), max(windows_of(bundle)), bundle.scheme.scheme.codes)
    return drift(series, known.dates, known.customers, first_day, spans), series


def old_from(bundle: Bundle, first_day: date) -> date:
    """Return the day from which on a log is as long as the longest window of a model's features."""
    return first_day + timedelta(max(windows_of(bundle)))


def level_errors(bundle: Bundle, known: Profiles, delay_days: int) -> tuple[float, float]:
    """Return how far the levels of risk and value may be off at a date: log-odds and logarithm, standard deviations.

    The model states it for the window after its training; a level that has aged is off by what levels of this log
    changed in the time until a label is known.
    """
    s = known.sums
    with np.errstate(invalid="ignore", divide="ignore"):
        rate, risk = s["churned"] / s["at_risk_known"], s["risk_known"] / s["at_risk_known"]
        churn = np.log(rate / (1 - rate)) - np.log(risk / (1 - risk))
        value = np.log(s["actual"] / s["expected_known"])
    steps = -(-delay_days // STEP_DAYS)
    # the last windows may be those that are judged
    spread = (level_spread(np.where(np.isfinite(one), one, np.nan)[: -2 * steps], steps) for one in (churn, value))
    of_churn, of_value = spread
    return float(np.hypot(bundle.churn.level.sd, of_churn)), float(np.hypot(bundle.value.level.sd, of_value))


def _inputs(test: DriftTest, known: Profiles) -> dict[str, Any]:
    """Return the figures of the drift test: how much was compared with how many past dates, the largest shifts."""
    largest = sorted(test.found, key=lambda one: -one.strength)[:_MOST_SHOWN]
    return {
        "customers": int(known.customers[-1]),
        "series": len(test.found),
        "past_dates": test.past_dates,
        "largest": [_shown(one) for one in largest],
    }


def _shown(one: Drift) -> dict[str, Any]:
    numbers = {"shift": one.shift, "limit": one.limit, "value": one.value, "expected": one.expected}
    since = None if one.since is None else str(one.since)
    return {"name": one.name, **{k: round(v, 4) for k, v in numbers.items()}, "season": one.season, "since": since}


def _model(tables: dict[str, TableDays], learned: date, day: date) -> dict[str, Any]:
    """Return the age of the model, and the share of rows whose category it has never seen, by column."""
    unknown = {
        f"data.{name}.columns.{column}": round(share, 4)
        for name, table in tables.items()
        for column in table.counted
        if not np.isnan(share := unknown_share(table, column, learned, day))
    }
    return {"trained_as_of": str(learned), "age_days": (day - learned).days, "unknown_values": unknown}
