"""Training: fit the scheme, models and references of a bundle from rows before one date only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
from threadpoolctl import threadpool_limits

from tiermodel.bundle.bundle import Bundle, check_bundle_folder, save_bundle
from tiermodel.config.project import Project, require_project
from tiermodel.engines.dispatch import Rows, history_of
from tiermodel.engines.duckdb import complete_until
from tiermodel.errors import DataError
from tiermodel.evaluation.leakage import refuse_leaks
from tiermodel.features.dates import one_date, snapshot_dates
from tiermodel.features.frame import has_bought
from tiermodel.features.outcome import Labels
from tiermodel.features.panel import Tally, build_panel
from tiermodel.models.calibration.recent import forecast_context
from tiermodel.models.churn import fit_churn
from tiermodel.models.conversion import fit_prospects
from tiermodel.models.design_matrix import design_matrix_of_panel
from tiermodel.models.future_tier import fit_tier
from tiermodel.models.potential import fit_peer_groups
from tiermodel.models.upgrade import TierLabels, fit_upgrade
from tiermodel.models.value import fit_value
from tiermodel.quality.suitability import refuse_unsuitable, suitability
from tiermodel.segments.fit import align_segments
from tiermodel.segments.selection import choose_segments
from tiermodel.tables.contract import Accounting
from tiermodel.tiers.categories import unseen_lines
from tiermodel.tiers.customer_scores import SCORES
from tiermodel.tiers.fitted_features import fit_features
from tiermodel.tiers.fitted_scheme import FittedScheme, fit_scheme
from tiermodel.tiers.lifecycle import typical_rhythm
from tiermodel.tiers.schemes.load import load_scheme
from tiermodel.tiers.stability.budget import keep_budget
from tiermodel.training.censoring import CensoredPanel, CurrentBuyers, censor
from tiermodel.training.dates import panel_dates
from tiermodel.training.facts import Fitted, Models, collect_facts, needed_columns, recorded_settings, with_baselines
from tiermodel.training.later_tiers import tier_changes, with_tiers
from tiermodel.words import numbered, words

__all__ = ["Progress", "Trained", "fit_bundle", "train"]


Progress = Callable[[str], None]
_STEPS = (2, 3, 1, 5, 5, 6, 1, 3)  # how long reading, snapshots, the fits and later tiers take beside each other


@dataclass(frozen=True)
class Trained:
    """Result of training: the bundle, the accounts of the tables read, and the out-of-fold predictions by target.

    Those of value have the tiers of their dates beside them (`LEVELS`). `changes` says who would change tier against
    the champion, as `tier_changes` does; None without one.
    """

    bundle: Bundle
    accounts: dict[str, Accounting] = field(repr=False)
    out_of_fold: dict[str, pd.DataFrame] = field(repr=False)
    changes: dict[str, Any] | None = field(default=None, repr=False)

    def _repr_html_(self) -> str:
        return self.bundle._repr_html_()


def train(
    project: Project,
    as_of: date | str = "latest",
    *,
    history: Rows = None,
    out: str | Path | None = None,
    champion: Bundle | None = None,
    progress: Progress = lambda _: None,
) -> Trained:
    """Train the scheme and models of a project on the rows before a date.

    The same data, project and seed give the same bytes on one kind of processor; on any, the same tiers, and risks
    within 0.001. What `check` refuses is refused here too, in the same words.

    Parameters
    ----------
    project
        The project whose tables are read and whose scheme and models are fitted.
    as_of
        The first day that is not known: a date, an ISO date as text, or `latest`, the day after the last row.
    history
        The project's tables, opened before, or a DataFrame of transactions, or DataFrames by the name of the table;
        without it the project's files are read.
    out
        The folder to write the bundle to; without it no file is written.
    champion
        A bundle whose segment names are kept for the same customers, and with whose tiers the new ones are compared.
    progress
        A function that takes lines on the progress.

    Returns
    -------
    Trained
        The bundle, the accounts of the tables read, and the out-of-fold predictions by target.

    Raises
    ------
    DataError
        If the rows end long before `as_of`, the history is too short, too few customers churned or bought, or an input
        leaks the outcome.
    ProjectError, OutputError
        If `out` holds anything but a bundle, or cannot be written; before any row is read.

    Examples
    --------
    >>> import pandas as pd
    >>> from tiermodel import Project, open_history, train
    >>> columns = {"customer_id": "id", "time": "day", "amount": "amount"}
    >>> data = {"transactions": {"path": "sales.csv", "columns": columns}}
    >>> project = Project.model_validate({"version": 1, "name": "shop", "data": data})
    >>> sales = pd.DataFrame({"id": ["a", "a"], "day": ["2024-01-01", "2024-03-01"], "amount": [5, 7]})
    >>> history = open_history(project, transactions=sales)
    >>> train(project, history=history)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    tiermodel.errors.DataError: 1 buying customers; at least 100 are needed
    ...

    """
    require_project(project)
    if out is not None:
        check_bundle_folder(out)
    say, step = words(project.language), numbered(progress, _STEPS)
    step(say["step_reading"])
    history = history_of(project, history)
    now = one_date(as_of, history)
    if (now - history.last_day).days > project.panel.every_days:
        raise DataError(
            f"training as of {now} needs data up to then, but the last row is of {history.last_day}: "
            "train as of `latest`"
        )
    step(say["step_snapshots_up_to"].format(day=now))
    tally = Tally()
    labels, complete = Labels.of(project), complete_until(history, now)
    trained_on = snapshot_dates(project.panel, labels, complete - timedelta(labels.delay_days), history.first_day)
    dates = sorted(panel_dates(project, now, trained_on))
    panel = build_panel(
        project, dates, with_outcome=True, known_until=now, drawn_before=now, history=history, tally=tally
    )
    refuse_unsuitable(project, suitability(project, panel, now, history.first_day, complete))
    bundle, out_of_fold = fit_bundle(project, panel, now, trained_on, history.columns, step)
    step(say["step_later_tiers"])
    rows = censor(project, labels, panel, now, trained_on).training_rows
    with threadpool_limits(limits=1):
        tiers = with_tiers(out_of_fold["value"], rows, bundle.scheme, labels.delay_days, project.seed)
    for line in unseen_lines(bundle.scheme.state, project.language):
        tally.warn(line)
    changes = None
    if champion is not None:  # the same customers keep the champion's names of segments
        snapshot = panel[panel["as_of"] == pd.Timestamp(now)].reset_index(drop=True)
        aligned = align_segments(bundle.segments, champion.segments, snapshot[has_bought(snapshot)])
        bundle = replace(bundle, segments=aligned)
        changes = tier_changes(champion, bundle, snapshot)
    if out is not None:
        save_bundle(bundle, out)
    return Trained(bundle, tally.accounts, {**out_of_fold, "value": tiers}, changes)


def fit_bundle(
    project: Project,
    panel: pd.DataFrame,
    as_of: date,
    trained_on: Sequence[date],
    columns: Iterable[str],
    progress: Progress = lambda _: None,
) -> tuple[Bundle, dict[str, pd.DataFrame]]:
    """Return the bundle fitted on a panel sorted by key, and its out-of-fold predictions by target.

    Rows dated after `as_of` are left out, and so are outcomes that end after it. Models learn from the dates in
    `trained_on`, and from `panel.customers` buyers at most; later dates serve as labels of tiers.
    """
    labels = Labels.of(project)
    known = censor(project, labels, panel, as_of, trained_on)
    with threadpool_limits(limits=1):  # with more threads sums differ in the last bits, and small ones wait
        progress(words(project.language)["step_scheme"])
        scheme = _fit_scheme(project, labels, known)
        present = CurrentBuyers.of(known, scheme, labels)
        buyers = present.buyers
        fitted = _fit_models(project, labels, known, scheme, present, progress)
        facts = collect_facts(project, labels, known, present, fitted)
        label = scheme.scheme.label_feature
        bundle = Bundle(
            name=project.name,
            settings=recorded_settings(project, label),
            columns=tuple(n for n in needed_columns(project, columns, scheme.scheme.text_features) if n != label),
            inputs=present.design,
            scheme=scheme,
            segments=choose_segments(project.segments, buyers, project.seed),
            peers=fit_peer_groups(buyers, f"net_amount_{max(project.features.windows_days)}d", project.seed),
            typical_rhythm=typical_rhythm(buyers),
            facts=facts,
            **fitted.models._asdict(),
        )
        everybody = known.snapshot[has_bought(known.snapshot)].reset_index(drop=True)
        expected = bundle.value.predict(bundle.inputs.matrix(everybody))
        scores = fit_features((s.name for s in SCORES), bundle.with_expected_growth(everybody, expected), project.seed)
        bundle = replace(bundle, scores=scores)
    return bundle, fitted.out_of_fold


def _fit_scheme(project: Project, labels: Labels, known: CensoredPanel) -> FittedScheme:
    """Return the scheme, fitted with the stability rule that keeps the budget of moves."""
    rows, seed, delay = known.training_rows, project.seed, labels.delay_days
    scheme = keep_budget(load_scheme(project), rows, seed, delay)
    return fit_scheme(scheme, known.snapshot, rows, seed, delay)


def _fit_models(
    project: Project,
    labels: Labels,
    known: CensoredPanel,
    scheme: FittedScheme,
    present: CurrentBuyers,
    progress: Progress,
) -> Fitted:
    """Return the models fitted on the training rows; `DataError` where an input leaks the outcome."""
    rows, design, learners, seed = known.training_rows, present.design, project.models, project.seed
    names, levels, delay = design.all_names, len(scheme.scheme.levels), labels.delay_days
    level, _ = scheme.assign(known.panel)  # of the whole panel: its later dates are labels of the training rows
    tiers = TierLabels.of(known.panel, level, labels).at(known.learned)
    risk, worth = forecast_context(
        labels, project.panel.every_days, known.panel, design.names, known.day, present.x_exposed, present.x_buyers
    )
    x = design_matrix_of_panel(rows, design.names, design.horizons)
    refuse_leaks(rows, x, names)
    predictions, say = dict[str, pd.DataFrame](), words(project.language)
    told = {"most": project.panel.customers, "buyers": len(present.buyers)}
    progress(say["step_churn"] + (say["step_sampled"].format(**told) if told["buyers"] > told["most"] else ""))
    churn, predictions["churn"] = fit_churn(rows, x, names, labels.churn, learners.churn, risk, seed)
    progress(say["step_value"])
    value, predictions["value"] = fit_value(rows, x, names, labels.value, learners.value, worth, seed)
    progress(say["step_tier"])
    tier, predictions["tier"], later = fit_tier(rows, x, names, tiers.future, levels, delay, seed)
    progress(say["step_upgrade"])
    upgrade, predictions["upgrade"] = fit_upgrade(rows, tiers, later, labels)
    prospects, predictions["prospects"] = fit_prospects(rows, design.names, delay, seed)
    predictions["churn"] = with_baselines(project, labels, known, scheme, design.names, predictions["churn"])
    return Fitted(scheme, tiers, Models(churn, value, tier, upgrade, prospects), predictions)
