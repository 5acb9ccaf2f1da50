"""Backtest: train on what was known at each test date, predict, and compare with the outcome.

Training outcomes end at or before the test date. Every model predicts the same customers; differences have paired
bootstrap intervals over customers. Nothing is chosen on the test dates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from threadpoolctl import threadpool_limits

from tiermodel.arrays import Flags, Floats
from tiermodel.backtesting.clv import clv_predictions
from tiermodel.backtesting.learning_curve import learning_curve
from tiermodel.backtesting.panels import as_known_at, needed_dates
from tiermodel.backtesting.season import same_season, with_season
from tiermodel.backtesting.tier_value import draws_for
from tiermodel.backtesting.tiers import TierForecasts, tier_results, with_all_dates
from tiermodel.backtesting.upgrade_conversion import Compared, judge_prospects, judge_upgrade
from tiermodel.backtesting.verdict import comparison_words, losing, named_comparison
from tiermodel.bundle.bundle import Bundle
from tiermodel.config.project import Project, require_project
from tiermodel.engines.dispatch import Rows, history_of
from tiermodel.engines.duckdb import complete_until
from tiermodel.errors import DataError
from tiermodel.evaluation.baselines import (
    CHURN_BASELINES,
    OURS,
    VALUE_BASELINES,
    BaselineTask,
    seasonal_churn,
    seasonal_value,
)  # fmt: skip
from tiermodel.evaluation.bootstrap import bootstrap_values, draw_count, paired_interval
from tiermodel.evaluation.metrics import auc, churn_metrics, ece_null_band, gini, log_loss, mae, value_metrics
from tiermodel.evaluation.profit import Campaign, concentration, expected_maximum_profit
from tiermodel.evaluation.slices import groups, slice_figures
from tiermodel.features.frame import KEYS, has_bought, rows_at
from tiermodel.features.outcome import OUTCOME_COLUMNS, Labels, at_risk
from tiermodel.features.panel import Tally, build_panel
from tiermodel.features.sampling import sample_rows
from tiermodel.models.value_spread import Outlook
from tiermodel.output import staged, to_jsonable, write_json, write_table
from tiermodel.tables.contract import Accounting
from tiermodel.tables.history import History
from tiermodel.tables.source import refuse_outputs
from tiermodel.training.dates import backtest_dates, panel_dates, training_dates
from tiermodel.training.train import Progress, fit_bundle
from tiermodel.words import notebook_table, numbered, words

__all__ = ["Backtest", "backtest"]


DRAWN_ROWS = 10_000_000
_OF_VALUE = {"gini": gini, "mae": mae}
_COMPARED: Mapping[str, Mapping[str, Callable[[Floats, Floats], float]]] = {
    **{target: {"log_loss": log_loss, "auc": auc} for target in ("churn", "upgrade", "prospects")},
    "value": _OF_VALUE,
    "clv": _OF_VALUE,
}


@dataclass(frozen=True)
class Backtest:
    """Result of a backtest.

    `results` is the content of `backtest.json`: settings, test dates, and lists of metrics by kind. `predictions` has
    one row for each customer and date, with the labels and every model's predictions (NaN: not in that comparison).
    """

    results: dict[str, Any]
    predictions: pd.DataFrame
    accounts: dict[str, Accounting]
    language: str = "en"

    def __repr__(self) -> str:
        """Return one line: `results` are hundreds of figures."""
        dates = self.results["dates"]
        return f"<Backtest of {self.results['project']}: {len(dates)} test dates, {len(self.predictions)} predictions>"

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the metrics of churn and value of every model at every date."""
        say, heads = words(self.language), ("auc", "log_loss", "gini", "mae")
        rows = [
            (f"{target} {row['as_of']} {row['model']}", *(row.get(name) for name in heads))
            for target in ("churn", "value")
            for row in self.results[target]
        ]
        title = say["shown_backtest"].format(name=self.results["project"])
        return notebook_table(self.language, title, rows, ("", *heads))

    def losses(self, language: str = "en") -> list[str]:
        """Return one line of text for each comparison in which a baseline is better than the model beyond chance."""
        lost = (c for c in self.results["comparisons"] if losing(c))
        said = words(language)["details_loss"]
        return [said.format(**named_comparison(c, language), words=comparison_words(c, language)) for c in lost]


def backtest(
    project: Project,
    *,
    history: Rows = None,
    out: str | Path | None = None,
    predictions: str | Path | None = None,
    progress: Progress = lambda _: None,
) -> Backtest:
    """Train, predict and compare with baselines at every test date of a project.

    Parameters
    ----------
    project : Project
        Its section `backtest` sets the test dates.
    history : History, DataFrame or mapping, optional
        Tables that are read and checked already, a DataFrame of transactions, or DataFrames by the name of the table;
        by default the project's files.
    out, predictions : str or Path, optional
        Files for the results (JSON) and the predictions (Parquet or CSV).
    progress : callable
        Receives a text at every step.

    Returns
    -------
    Backtest
        Metrics and comparisons of every model and date, and all predictions.

    Raises
    ------
    DataError
        Where the data is too short to train before a test date and to observe its outcome.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from tiermodel import load_project, make_world
    >>> with TemporaryDirectory() as folder:
    ...     backtest(load_project(make_world(customers=20, days=90).write(folder)))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    tiermodel.errors.DataError: a backtest needs 150 days and more of history; the data runs from 2022-01-...

    """
    require_project(project)
    say = words(project.language)
    progress(say["step_reading"])
    history = history_of(project, history)
    outputs = (None if path is None else Path(path) for path in (out, predictions))
    refuse_outputs((table.source for table in history.tables.values()), *outputs)
    dates = backtest_dates(project, history)
    trained_on = {day: training_dates(project, complete_until(history, day), history.first_day) for day in dates}
    needed = needed_dates(project, history, trained_on)
    step = numbered(
        progress, (3, *(8, 10) * len(dates), 2, 8)
    )  # as long as snapshots, dates, curve, lifetime value take
    step(say["step_snapshots"].format(n=len(needed)))
    tally = Tally()
    panel = build_panel(
        project, sorted(needed), with_outcome=True, drawn_before=min(dates), history=history, tally=tally
    )
    asked = {*dates, *(day for learned in trained_on.values() for day in learned)}
    season = same_season(project, asked, history, min(dates))

    def known_at(day: date) -> pd.DataFrame:
        known = sample_rows(panel, pd.Timestamp(day), project.panel.customers, project.seed)
        return as_known_at(project, history, known, day, trained_on[day], min(dates))

    results = _no_results(project)
    with threadpool_limits(limits=1):  # as in training: sums split over threads differ in their last bits
        frames = _every_date(project, known_at, season, trained_on, history.columns, results, step)
    frames.append(_lifetime(project, history, results, step))
    results["comparisons"] = with_all_dates(results["comparisons"])
    done = Backtest(to_jsonable(results), pd.concat(frames, ignore_index=True), tally.accounts, project.language)
    with staged() as files:
        if out is not None:
            write_json(done.results, Path(out), into=files)
        if predictions is not None:
            rows = pa.Table.from_pandas(done.predictions, preserve_index=False)
            write_table(rows, Path(predictions), into=files)
    return done


def _no_results(project: Project) -> dict[str, Any]:
    """Return results without figures: the settings, and an empty list of dates and for every kind of figure."""
    kinds = (
        "dates", "churn", "value", "level", "clv", "concentration", "slices", "learning_curve", "tiers", "upgrade",
        "prospects",
        "comparisons", "notes",
    )  # fmt: skip
    return {
        "project": project.name,
        "horizon_days": project.outcome.horizon_days,
        "gap_days": project.outcome.gap_days,
        "value_measure": project.value.measure,
        **{kind: [] for kind in kinds},
    }


def _every_date(
    project: Project, known_at: Callable[[date], pd.DataFrame], season: pd.DataFrame,
    trained_on: Mapping[date, Sequence[date]], columns: Iterable[str], results: dict[str, Any], progress: Progress,
) -> list[pd.DataFrame]:  # fmt: skip
    """Train as of every test date and add the metrics to `results`; return the predictions.

    `known_at` returns the panel of a test date. A date before which too little is known to train is left out with a
    note. Raises the `DataError` of the last date where all are.
    """
    say, frames, refused = words(project.language), list[pd.DataFrame](), list[DataError]()
    for day, learned in trained_on.items():
        progress(say["step_training"].format(day=day))
        known = known_at(day)
        try:
            bundle, _ = fit_bundle(project, rows_at(known, panel_dates(project, day, learned)), day, learned, columns)
        except DataError as error:
            refused.append(error)
            results["notes"].append(say["note_backtest_left_out"].format(day=day, error=error))
            continue
        results["dates"].append(str(day))
        progress(say["step_baselines"].format(day=day))
        frames.append(_one_date(project, known, season, day, learned, bundle, results))
        curve = partial(learning_curve, project, known, day, learned, bundle, results["notes"])
    if not frames:
        raise refused[-1]
    progress(say["step_less_history"].format(day=results["dates"][-1]))
    results["learning_curve"] += curve()
    return frames


def _one_date(
    project: Project, panel: pd.DataFrame, season: pd.DataFrame, day: date, trained_on: Sequence[date],
    bundle: Bundle, results: dict[str, Any],
) -> pd.DataFrame:  # fmt: skip
    """Predict the customers of a date, add the metrics to `results`; return the predictions."""
    say = words(project.language)
    snapshot, past = rows_at(panel, [day]).reset_index(drop=True), rows_at(panel, trained_on)
    bought = has_bought(snapshot)
    customers, x = snapshot[bought].reset_index(drop=True), bundle.inputs.matrix(snapshot)
    seasonal = with_season(past, season), with_season(customers, season)
    expected = bundle.value.outlook(x[bought])
    exposed, churn, value = _predictions(project, bundle, *seasonal, x[bought], expected.mean)
    if not churn:
        results["notes"].append(say["note_backtest_nobody"].format(day=day))
    lacking = [name for name, by in (("churn", churn), ("value", value)) if by and "same_season" not in by]
    if lacking:
        named = [say[f"target_{name}"] for name in lacking] if project.language == "zh" else lacking
        told = say["note_backtest_no_season"].format(day=day, targets=say["comma"].join(named))
        results["notes"].append(told)
    frame = _prediction_table(customers, exposed, churn, value, expected)
    churned, worth = frame["churned"].to_numpy()[exposed], frame["value"].to_numpy()
    results["churn"] += _churn_figures(day, churned, churn, float(value[OURS].mean()))
    results["value"] += [
        {"model": name, "as_of": str(day), "n": len(p)}
        | value_metrics(worth, p, expected.median if name == OURS else None)
        for name, p in value.items()
    ]
    results["level"].append({"as_of": str(day), **bundle.facts["level"]})
    results["concentration"].append({"as_of": str(day), **concentration(worth)})
    forecasts = TierForecasts.of(project, panel, snapshot, x, bundle)
    results["slices"] += _slices(frame, bundle, customers, forecasts.held[bought])
    (ours, *others), against = tier_results(project, panel, day, bundle, results["notes"])
    results["tiers"] += [ours | forecasts.figures(), *others]
    results["comparisons"] += against
    results["comparisons"] += _compare(project, "churn", day, churned, churn)
    results["comparisons"] += _compare(project, "value", day, worth, value, {(OURS, "mae"): expected.median})
    upgrade = judge_upgrade(project, panel, day, bundle, forecasts.p)
    frame = _add_chances(project, "upgrade", day, upgrade, results, frame)
    prospects = judge_prospects(panel, past, day, bundle)
    return _add_chances(project, "prospects", day, prospects, results, frame)


def _predictions(
    project: Project, bundle: Bundle, past: pd.DataFrame, customers: pd.DataFrame, x: Floats, expected: Floats
) -> tuple[Flags, dict[str, Floats], dict[str, Floats]]:
    """Return which buyers are at risk, every model's churn risk of these, and every model's value of all buyers.

    `expected` is the value that the bundle's model expects of them.
    """
    labels = Labels.of(project)
    hidden = customers.assign(**dict.fromkeys(OUTCOME_COLUMNS, np.nan))  # baselines must not see the labels
    past = past[has_bought(past)]
    exposed, then = (at_risk(labels.churn, rows) for rows in (hidden, past))
    windows, clv, names = project.features.windows_days, project.value.clv, bundle.inputs.names
    everyone = BaselineTask(labels, past, hidden, lambda frame: bundle.scheme.assign(frame)[0], names, windows, clv)
    risky = replace(everyone, train=past[then], now=hidden[exposed])
    churn = dict[str, Floats]()
    if exposed.any():
        churn[OURS] = bundle.churn.predict(x[exposed])
        churn |= {name: baseline(risky) for name, baseline in CHURN_BASELINES.items()} | seasonal_churn(risky)
    value = {OURS: expected}
    value |= {name: baseline(everyone) for name, baseline in VALUE_BASELINES.items()} | seasonal_value(everyone)
    return exposed, churn, value


def _prediction_table(
    customers: pd.DataFrame, exposed: Flags, churn: Mapping[str, Floats], value: Mapping[str, Floats], expected: Outlook
) -> pd.DataFrame:
    """Return one row for each buyer: labels, every model's predictions, median and interval of the model's value."""
    frame = customers[list(KEYS)].assign(churned=customers["outcome_churned"], value=customers["outcome_value"])
    frame[f"churn_{OURS}"] = np.nan  # where nobody is at risk
    for name, p in churn.items():
        frame.loc[exposed, f"churn_{name}"] = p
    for name, p in value.items():
        frame[f"value_{name}"] = p
    return frame.assign(value_low=expected.low, value_high=expected.high, value_median=expected.median)


def _churn_figures(
    day: date, churned: Floats, predicted: Mapping[str, Floats], worth: float
) -> Iterator[dict[str, Any]]:
    """Yield the metrics of every churn model; for profit each customer is worth `worth`, so that models compare."""
    campaign = Campaign.in_proportion(max(worth, 0.0))
    for name, p in predicted.items():
        earned = expected_maximum_profit(churned, p, campaign)
        yield {
            "model": name, "as_of": str(day), **churn_metrics(churned, p), "ece_by_chance": _ece_by_chance(p),
            "empc": earned.profit, "empc_share": earned.share, "mean_risk": float(p.mean()),
        }  # fmt: skip


def _slices(frame: pd.DataFrame, bundle: Bundle, customers: pd.DataFrame, held: Floats) -> Iterator[dict[str, Any]]:
    """Yield the model's metrics by group; tier sets and value intervals should cover nine of ten in every tier.

    `held` is whether the tier set of each row of `frame` covers the observed tier (1, 0; NaN if not known).
    """
    rows = pd.DataFrame({
        "churned": frame["churned"], "risk": frame[f"churn_{OURS}"], "value": frame["value"],
        "expected": frame[f"value_{OURS}"], "low": frame["value_low"], "high": frame["value_high"], "held": held,
        "median": frame["value_median"],
    })  # fmt: skip
    by = groups(customers, bundle.scheme.assign(customers)[0], bundle.scheme.scheme.codes)
    for row in slice_figures(by, rows):
        yield {"as_of": str(frame["as_of"].iloc[0].date()), **row}


def _add_chances(
    project: Project, target: str, day: date, found: Compared | str, results: dict[str, Any], frame: pd.DataFrame
) -> pd.DataFrame:
    """Add the metrics of upgrades or conversion, or a note, to `results`; return `frame` with the predictions."""
    if isinstance(found, str):
        results["notes"] += [found] if found else []
        return frame
    results[target] += [
        {"model": name, "as_of": str(day), **churn_metrics(found.actual, p), "ece_by_chance": _ece_by_chance(p)}
        for name, p in found.predicted.items()
    ]
    results["comparisons"] += _compare(project, target, day, found.actual, found.predicted)
    columns = {target: found.actual, **{f"{target}_{name}": p for name, p in found.predicted.items()}}
    return frame.merge(found.keys.assign(**columns), on=list(KEYS), how="outer")


def _lifetime(project: Project, history: History, results: dict[str, Any], progress: Progress) -> pd.DataFrame:
    """Add the metrics of lifetime value, or a note where the log is too short, to `results`; return predictions."""
    try:
        day, frame = clv_predictions(project, history, progress)
    except DataError as error:
        results["notes"].append(str(error))
        return pd.DataFrame()
    actual = frame["actual"].to_numpy()
    predicted = {name: frame[name].to_numpy() for name in frame.columns.drop([*KEYS, "actual"])}
    results["clv"] = [
        {"model": name, "as_of": str(day), "n": len(p), **project.value.clv.model_dump(), **value_metrics(actual, p)}
        for name, p in predicted.items()
    ]
    results["comparisons"] += _compare(project, "clv", day, actual, predicted)
    return frame.rename(columns={name: "clv" if name == "actual" else f"clv_{name}" for name in frame.columns[2:]})


def _ece_by_chance(predicted: Floats) -> float:
    """Return the calibration error that a perfectly calibrated model stays under in 95 % of samples."""
    return ece_null_band(predicted, draws=draw_count(len(predicted), DRAWN_ROWS, 50, 500))


def _compare(
    project: Project, target: str, day: date, actual: Floats, predicted: Mapping[str, Floats],
    instead: Mapping[tuple[str, str], Floats] | None = None,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Yield metric(model) - metric(baseline) with its 95 % interval, for each baseline and metric.

    `instead` are predictions for one model and metric that take the place of the model's others.
    """
    draws, special = draws_for(len(actual)), instead or {}
    resampled = {
        (name, metric): bootstrap_values(
            function, actual, special.get((name, metric), p), draws=draws, seed=project.seed
        )
        for name, p in predicted.items()
        for metric, function in _COMPARED[target].items()
    }
    for against in predicted:
        if against == OURS:
            continue
        for metric in _COMPARED[target]:
            difference, low, high = paired_interval(resampled[OURS, metric], resampled[against, metric])
            yield {
                "target": target, "metric": metric, "against": against, "as_of": str(day),
                "difference": difference, "low": low, "high": high, "draws": draws,
            }  # fmt: skip
