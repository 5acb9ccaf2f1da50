"""Play the past again: train on what was known at each test date, predict, and compare with what happened.

Training outcomes end at or before the test date. Every model is judged on the same customers; differences come with
paired bootstrap intervals over customers. Nothing is chosen on the test dates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from tiermodel.backtest_chances import Compared, judge_prospects, judge_upgrade
from tiermodel.backtest_clv import clv_predictions
from tiermodel.backtest_tiers import TiersAhead, draws_for, tier_results, with_all_dates
from tiermodel.baselines import CHURN_BASELINES, OURS, VALUE_BASELINES, Test
from tiermodel.bundle import Bundle
from tiermodel.config import Project
from tiermodel.engines.chosen import open_history
from tiermodel.errors import DataError
from tiermodel.features.drawn import draw_rows
from tiermodel.features.outcome import OUTCOME_COLUMNS, outcome_span
from tiermodel.features.panel import KEYS, Tally, build_panel, rows_at
from tiermodel.learning_curve import learning_curve
from tiermodel.models.churn import at_risk
from tiermodel.models.metrics import (
    auc,
    churn_metrics,
    drawn,
    ece_null_band,
    gini,
    log_loss,
    mae,
    paired_interval,
    value_metrics,
)
from tiermodel.models.profit import Campaign, concentration, expected_maximum_profit
from tiermodel.models.slices import groups, slice_figures
from tiermodel.models.upgrade import upgrade_span
from tiermodel.tables.contract import Accounting
from tiermodel.tables.history import History
from tiermodel.tables.output import plain, write_json, write_table
from tiermodel.train import Say, fit_bundle, panel_dates, training_dates

__all__ = ["Backtest", "backtest", "test_dates"]

Floats = NDArray[np.float64]
DRAWN_ROWS = 10_000_000
_OF_VALUE = {"gini": gini, "mae": mae}
_COMPARED: Mapping[str, Mapping[str, Callable[[Floats, Floats], float]]] = {
    **{target: {"log_loss": log_loss, "auc": auc} for target in ("churn", "upgrade", "prospects")},
    "value": _OF_VALUE,
    "clv": _OF_VALUE,
}


@dataclass(frozen=True)
class Backtest:
    """Hold the results in the shape of DESIGN 8.4, and every model's prediction for every customer and date."""

    results: dict[str, Any]
    predictions: pd.DataFrame
    accounts: dict[str, Accounting]

    def losses(self) -> list[str]:
        """Say where a baseline is better than the model beyond chance, in words."""
        lower_is_better = {"log_loss", "mae"}
        return [
            f"{c['target']} {c['metric']} on {c['as_of']}: {c['against']} is better by {abs(c['difference']):.4f} "
            f"[{c['low']:.4f}, {c['high']:.4f}]"
            for c in self.results["comparisons"]
            if c["low"] is not None and (c["low"] > 0 if c["metric"] in lower_is_better else c["high"] < 0)
        ]


def test_dates(project: Project, history: History) -> tuple[date, ...]:
    """Give the project's test dates, or the last ones whose outcome is fully observed, `panel.every_days` apart.

    Raises `DataError` where a date's outcome window ends after the data.
    """
    last = history.last_day + timedelta(1 - outcome_span(project))
    if project.backtest.dates is None:
        every = timedelta(project.panel.every_days)
        earliest = history.first_day + timedelta(
            outcome_span(project) + min(project.panel.every_days, project.outcome.horizon_days)
        )
        dates = tuple(d for k in reversed(range(project.backtest.folds)) if (d := last - every * k) >= earliest)
        if not dates:
            raise DataError(
                f"a backtest needs {2 * outcome_span(project)} days and more of history; the data runs from "
                f"{history.first_day} to {history.last_day}: shorten outcome.horizon_days"
            )
        return dates
    late = [str(d) for d in project.backtest.dates if d > last]
    if late:
        raise DataError(
            f"backtest.dates: the outcome after {', '.join(late)} is not fully observed; the last date is {last}"
        )
    return project.backtest.dates


def backtest(
    project: Project,
    *,
    history: History | None = None,
    out: str | Path | None = None,
    predictions: str | Path | None = None,
    say: Say = lambda _: None,
) -> Backtest:
    """Backtest churn, value and tiers at every test date; write results and predictions if asked.

    `history` stands in for the project's files.
    """
    say("reading transactions")
    history = open_history(project) if history is None else history
    dates = test_dates(project, history)
    trained_on = {day: training_dates(project, day, history.first_day) for day in dates}
    needed = _needed(project, history, trained_on)
    say(f"building {len(needed)} snapshots")
    tally = Tally()
    panel = build_panel(
        project, sorted(needed), with_outcome=True, drawn_before=min(dates), history=history, tally=tally
    )
    results = _no_results(project, dates)
    frames = []
    with threadpool_limits(limits=1):  # as in training
        for day in dates:
            say(f"{day}: training")
            known = draw_rows(panel, pd.Timestamp(day), project.panel.customers, project.seed)
            bundle, frame = _one_date(project, known, day, trained_on[day], history.columns, results, say)
            frames.append(frame)
        say(f"{dates[-1]}: learning from less history")
        curve = learning_curve(project, known, dates[-1], trained_on[dates[-1]], bundle, results["notes"])
        results["learning_curve"] += curve
    frames.append(_lifetime(project, history, results, say))
    results["comparisons"] = with_all_dates(results["comparisons"])
    done = Backtest(plain(results), pd.concat(frames, ignore_index=True), tally.accounts)
    if out is not None:
        write_json(done.results, Path(out))
    if predictions is not None:
        write_table(pa.Table.from_pandas(done.predictions, preserve_index=False), Path(predictions))
    return done


def _needed(project: Project, history: History, trained_on: Mapping[date, Sequence[date]]) -> set[date]:
    """List the dates of the panel: those of training, of what came, and the two before that tell who moved."""
    end, every = history.last_day + timedelta(1), timedelta(project.panel.every_days)
    span, stayed = timedelta(outcome_span(project)), timedelta(upgrade_span(project))
    needed = set[date]()
    for day, learned in trained_on.items():
        needed |= panel_dates(project, day, learned) | {day + span, day - every, day - 2 * every}
        needed |= {day + stayed} if day + stayed <= end else set()
    return needed


def _no_results(project: Project, dates: Sequence[date]) -> dict[str, Any]:
    """Begin the results: what was asked, and a list for every kind of figure."""
    kinds = (
        "churn", "value", "clv", "concentration", "slices", "learning_curve", "tiers", "upgrade", "prospects",
        "comparisons", "notes",
    )  # fmt: skip
    return {
        "project": project.name,
        "horizon_days": project.outcome.horizon_days,
        "gap_days": project.outcome.gap_days,
        "value_measure": project.value.measure,
        "dates": [str(day) for day in dates],
        **{kind: [] for kind in kinds},
    }


def _one_date(
    project: Project, panel: pd.DataFrame, day: date, trained_on: Sequence[date], columns: Iterable[str],
    results: dict[str, Any], say: Say,
) -> tuple[Bundle, pd.DataFrame]:  # fmt: skip
    """Train as of one date, predict its customers, add the figures to `results`, give the model and predictions."""
    known = rows_at(panel, panel_dates(project, day, trained_on))
    bundle, _ = fit_bundle(project, known, day, trained_on, columns)
    say(f"{day}: baselines and intervals")
    snapshot, past = rows_at(panel, [day]).reset_index(drop=True), rows_at(panel, trained_on)
    bought = snapshot["days_since_last"].notna().to_numpy()
    customers, x = snapshot[bought].reset_index(drop=True), bundle.inputs.matrix(snapshot)
    exposed, churn, value = _predictions(project, bundle, past, customers, x[bought])
    frame = _side_by_side(customers, exposed, churn, value, bundle)
    churned, worth = frame["churned"].to_numpy()[exposed], frame["value"].to_numpy()
    results["churn"] += _churn_figures(day, churned, churn, float(value[OURS].mean()))
    results["value"] += [
        {"model": name, "as_of": str(day), "n": len(p), **value_metrics(worth, p)} for name, p in value.items()
    ]
    results["concentration"].append({"as_of": str(day), **concentration(worth)})
    ahead = TiersAhead.of(project, panel, snapshot, x, bundle)
    results["slices"] += _slices(frame, bundle, customers, ahead.held[bought])
    (ours, *others), against = tier_results(project, panel, day, bundle, results["notes"])
    results["tiers"] += [ours | ahead.figures(), *others]
    results["comparisons"] += against
    results["comparisons"] += _compare(project, "churn", day, churned, churn)
    results["comparisons"] += _compare(project, "value", day, worth, value)
    upgrade, prospects = judge_upgrade(project, panel, day, bundle, ahead.p), judge_prospects(panel, past, day, bundle)
    frame = _add_chances(project, "upgrade", day, upgrade, results, frame)
    return bundle, _add_chances(project, "prospects", day, prospects, results, frame)


def _predictions(
    project: Project, bundle: Bundle, past: pd.DataFrame, customers: pd.DataFrame, x: Floats
) -> tuple[NDArray[np.bool_], dict[str, Floats], dict[str, Floats]]:
    """Tell which buyers are at risk, and give what every model says of their churn, and of the value of all buyers."""
    hidden = customers.assign(**dict.fromkeys(OUTCOME_COLUMNS, np.nan))  # baselines must not see what they predict
    past = past[past["days_since_last"].notna()]
    exposed, then = (at_risk(project.churn, project.outcome, rows) for rows in (hidden, past))
    everyone = Test(project, past, hidden, lambda frame: bundle.scheme.assign(frame)[0])
    risky = Test(project, past[then], hidden[exposed], everyone.grade)
    churn = {OURS: bundle.churn.predict(x[exposed])}
    churn |= {name: baseline(risky) for name, baseline in CHURN_BASELINES.items()}
    value = {OURS: bundle.value.predict(x)}
    value |= {name: baseline(everyone) for name, baseline in VALUE_BASELINES.items()}
    return exposed, churn, value


def _side_by_side(
    customers: pd.DataFrame,
    exposed: NDArray[np.bool_],
    churn: Mapping[str, Floats],
    value: Mapping[str, Floats],
    bundle: Bundle,
) -> pd.DataFrame:
    """Put what happened, every model's prediction and our interval of the value beside each other, a row a buyer."""
    frame = customers[list(KEYS)].assign(churned=customers["outcome_churned"], value=customers["outcome_value"])
    for name, p in churn.items():
        frame.loc[exposed, f"churn_{name}"] = p
    for name, p in value.items():
        frame[f"value_{name}"] = p
    frame["value_low"], frame["value_high"] = bundle.value.interval(value[OURS])
    return frame


def _churn_figures(
    day: date, churned: Floats, predicted: Mapping[str, Floats], worth: float
) -> Iterator[dict[str, Any]]:
    """Give the figures of every model of churn, customers being worth as much each, so that models compare."""
    campaign = Campaign.in_proportion(max(worth, 0.0))
    for name, p in predicted.items():
        earned = expected_maximum_profit(churned, p, campaign)
        yield {
            "model": name, "as_of": str(day), **churn_metrics(churned, p), "ece_by_chance": _ece_by_chance(p),
            "empc": earned.profit, "empc_share": earned.share, "mean_risk": float(p.mean()),
        }  # fmt: skip


def _slices(frame: pd.DataFrame, bundle: Bundle, customers: pd.DataFrame, held: Floats) -> Iterator[dict[str, Any]]:
    """Give our figures by group; sets of tiers and intervals of value should hold nine of ten in every tier.

    `held` tells of the customers of `frame` whether the set of tiers held the one that came.
    """
    told = pd.DataFrame({
        "churned": frame["churned"], "risk": frame[f"churn_{OURS}"], "value": frame["value"],
        "expected": frame[f"value_{OURS}"], "low": frame["value_low"], "high": frame["value_high"], "held": held,
    })  # fmt: skip
    by = groups(customers, bundle.scheme.assign(customers)[0], bundle.scheme.scheme.codes)
    for row in slice_figures(by, told):
        yield {"as_of": str(frame["as_of"].iloc[0].date()), **row}


def _add_chances(
    project: Project, target: str, day: date, found: Compared | str, results: dict[str, Any], frame: pd.DataFrame
) -> pd.DataFrame:
    """Add the figures of upgrades or prospects to the results, or the note why there are none, and the predictions."""
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


def _lifetime(project: Project, history: History, results: dict[str, Any], say: Say) -> pd.DataFrame:
    """Add the figures of lifetime value where the log is long enough, else a note; give the predictions."""
    try:
        day, frame = clv_predictions(project, history, say)
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
    """Give the calibration error that chance alone gives a perfect model with these predictions."""
    return ece_null_band(predicted, draws=int(np.clip(DRAWN_ROWS / max(len(predicted), 1), 50, 500)))


def _compare(
    project: Project, target: str, day: date, actual: Floats, predicted: Mapping[str, Floats]
) -> Iterator[dict[str, Any]]:
    """Compare the model with each baseline: metric(model) - metric(baseline), with a 95 % interval."""
    draws = draws_for(len(actual))
    measured = {
        (name, metric): drawn(function, actual, p, draws=draws, seed=project.seed)
        for name, p in predicted.items()
        for metric, function in _COMPARED[target].items()
    }
    for against in predicted:
        if against == OURS:
            continue
        for metric in _COMPARED[target]:
            difference, low, high = paired_interval(measured[OURS, metric], measured[against, metric])
            yield {
                "target": target, "metric": metric, "against": against, "as_of": str(day),
                "difference": difference, "low": low, "high": high, "draws": draws,
            }  # fmt: skip
