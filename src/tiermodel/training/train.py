"""Fit everything a score depends on, from rows before one date only, and bundle it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import pandas as pd
from threadpoolctl import threadpool_limits

from tiermodel.bundle.bundle import Bundle, save_bundle
from tiermodel.config.project import Project
from tiermodel.engines.dispatch import open_history
from tiermodel.errors import DataError
from tiermodel.evaluation.leakage import refuse_leaks
from tiermodel.features.dates import one_date
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
from tiermodel.segments.fit import align_segments
from tiermodel.segments.selection import choose_segments
from tiermodel.tables.contract import Accounting
from tiermodel.tables.history import History
from tiermodel.tiers.fitted_scheme import FittedScheme, fit_scheme
from tiermodel.tiers.lifecycle import typical_rhythm
from tiermodel.tiers.schemes.load import load_scheme
from tiermodel.tiers.stability.budget import keep_budget
from tiermodel.training.censoring import CensoredPanel, CurrentBuyers, censor
from tiermodel.training.dates import panel_dates, training_dates
from tiermodel.training.facts import Fitted, Models, collect_facts, needed_columns, recorded_settings, with_baselines

__all__ = ["Progress", "Trained", "fit_bundle", "train"]

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Trained:
    """A bundle, the accounts of the rows read, and the out-of-fold predictions that set its blends, by target."""

    bundle: Bundle
    accounts: dict[str, Accounting]
    out_of_fold: dict[str, pd.DataFrame]


def train(
    project: Project,
    as_of: date | str = "latest",
    *,
    history: History | None = None,
    out: str | Path | None = None,
    champion: Bundle | None = None,
    progress: Progress = lambda _: None,
) -> Trained:
    """Train on rows before `as_of` (`latest`: the day after the last row), and write the bundle to `out` if given.

    `history` stands in for the project's files. Segments get the names that `champion` has for the same customers.
    """
    progress("reading transactions")
    history = open_history(project) if history is None else history
    now = one_date(as_of, history)
    if (now - history.last_day).days > project.panel.every_days:
        raise DataError(
            f"training as of {now} needs data up to then, but the last row is of {history.last_day}: "
            "train as of `latest`"
        )
    progress(f"building snapshots up to {now}")
    tally = Tally()
    trained_on = training_dates(project, now, history.first_day)
    dates = sorted(panel_dates(project, now, trained_on))
    panel = build_panel(
        project, dates, with_outcome=True, known_until=now, drawn_before=now, history=history, tally=tally
    )
    bundle, out_of_fold = fit_bundle(project, panel, now, trained_on, history.columns, progress)
    if champion is not None:
        bundle = _with_segment_names_of(champion, bundle, panel[panel["as_of"] == pd.Timestamp(now)])
    if out is not None:
        save_bundle(bundle, out)
    return Trained(bundle, tally.accounts, out_of_fold)


def fit_bundle(
    project: Project,
    panel: pd.DataFrame,
    as_of: date,
    trained_on: Sequence[date],
    columns: Iterable[str],
    progress: Progress = lambda _: None,
) -> tuple[Bundle, dict[str, pd.DataFrame]]:
    """Fit scheme, models and references on a panel sorted by key, using only what is known at `as_of`.

    Rows dated after `as_of` are left aside, and so are outcomes that end after it. Models learn from the dates in
    `trained_on`, and from `panel.customers` buyers at most; other dates tell where customers ended up. Also return the
    out-of-fold predictions by target.
    """
    labels = Labels.of(project)
    known = censor(project, labels, panel, as_of, trained_on)
    with threadpool_limits(limits=1):  # sums that threads share out differ in the last bits, and small ones wait
        progress("fitting the scheme")
        scheme = _fit_scheme(project, labels, known)
        present = CurrentBuyers.of(known, scheme, labels)
        buyers, most = present.buyers, project.panel.customers
        if len(buyers) > most:
            progress(f"learning from {most:,} of {len(buyers):,} buyers, drawn by lot (panel.customers)")
        fitted = _fit_models(project, labels, known, scheme, present, progress)
        facts = collect_facts(project, labels, known, present, fitted)
        label = scheme.scheme.label_feature
        bundle = Bundle(
            name=project.name,
            settings=recorded_settings(project, label),
            columns=tuple(name for name in needed_columns(project, columns) if name != label),
            inputs=present.design,
            scheme=scheme,
            segments=choose_segments(project.segments, buyers, project.seed),
            peers=fit_peer_groups(buyers, f"net_amount_{max(project.features.windows_days)}d", project.seed),
            typical_rhythm=typical_rhythm(buyers),
            facts=facts,
            **fitted.models._asdict(),
        )
    return bundle, fitted.out_of_fold


def _fit_scheme(project: Project, labels: Labels, known: CensoredPanel) -> FittedScheme:
    """Find the stability rule that keeps the budget of moves, and fit the scheme on the snapshot and the past."""
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
    """Fit every model on the training rows, once no input leaks."""
    rows, design, learners, seed = known.training_rows, present.design, project.models, project.seed
    names, levels, delay = design.all_names, len(scheme.scheme.levels), labels.delay_days
    level, _ = scheme.assign(known.panel)  # of the whole panel: its later dates tell what became of the training rows
    tiers = TierLabels.of(known.panel, level, labels).at(known.learned)
    risk, worth = forecast_context(
        labels, project.panel.every_days, known.panel, design.names, known.day, present.x_exposed, present.x_buyers
    )
    x = design_matrix_of_panel(rows, design.names, design.horizons)
    refuse_leaks(rows, x, names)
    predictions = dict[str, pd.DataFrame]()
    progress("fitting churn risk")
    churn, predictions["churn"] = fit_churn(rows, x, names, labels.churn, learners.churn, risk, seed)
    progress("fitting value")
    value, predictions["value"] = fit_value(rows, x, names, labels.value, learners.value, worth, seed)
    progress("fitting the future tier")
    tier, predictions["tier"] = fit_tier(rows, x, names, tiers.future, levels, delay, seed)
    progress("fitting upgrades and the conversion of prospects")
    upgrade, predictions["upgrade"] = fit_upgrade(rows, x, names, tiers, delay, seed)
    prospects, predictions["prospects"] = fit_prospects(rows, design.names, delay, seed)
    predictions["churn"] = with_baselines(project, labels, known, scheme, design.names, predictions["churn"])
    return Fitted(scheme, tiers, Models(churn, value, tier, upgrade, prospects), predictions)


def _with_segment_names_of(champion: Bundle, bundle: Bundle, snapshot: pd.DataFrame) -> Bundle:
    """Name the segments of a bundle as the champion names those of the same customers."""
    buyers = snapshot[has_bought(snapshot)]
    return replace(bundle, segments=align_segments(bundle.segments, champion.segments, buyers))
