"""Settings that fit the data: the horizon from the gaps between purchases, the windows, and a scheme."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tiermodel.config.project import Features, Panel, Project
from tiermodel.config.tiers import Tiers
from tiermodel.errors import DataError
from tiermodel.features.dates import snapshot_dates
from tiermodel.features.outcome import Labels
from tiermodel.project_init.notes import Note
from tiermodel.quality.check import suggest_horizon
from tiermodel.quality.suitability import Finding, suitability_of
from tiermodel.tables.history import History
from tiermodel.training.dates import backtest_dates

__all__ = ["Settings", "scheme_for", "settings_for"]

_HORIZONS = (7, 14, 30, 60, 90, 120, 180, 365)
_COVERED = 0.9  # of the gaps between purchases, which a horizon should cover
_FEWEST_LABELS = 3  # snapshots to learn from before the first test date
_FEWEST_LEARNED = 300  # buyers, below whom a learned scheme had no better order than one by rules
_ONE_ORDER, _CONCENTRATED = 0.8, 0.8


@dataclass(frozen=True)
class Settings:
    """The horizon and the panel of a project, what training lacks (else empty), and notes."""

    project: Project
    lacking: tuple[Finding, ...]
    notes: tuple[Note, ...]


def settings_for(project: Project, history: History, customers: int) -> Settings:
    """Return the project with a horizon and windows that fit its history.

    The horizon is the shortest of a few round ones that covers 90 % of the gaps between a customer's purchase days; a
    shorter one where the history would leave fewer than three snapshots to learn from before the first test date, or
    training would be refused.
    """
    advice = suggest_horizon(history)
    span = (history.last_day - history.first_day).days + 1
    if advice is None:
        return Settings(_with(project, 30, span), (), (Note("horizon_unknown", {"days": 30}),))
    wanted = next((days for days in _HORIZONS if days >= advice.quantiles[_COVERED]), _HORIZONS[-1])
    tried = [days for days in reversed(_HORIZONS) if days <= wanted]
    chosen: Project | None = None
    lacking: tuple[Finding, ...] = ()
    for days in tried:
        trial = _with(project, days, span)
        if not _windows_left(trial, history):
            continue
        found = tuple(f for f in suitability_of(trial, history, customers) if f.level == "refuse")
        if chosen is None or (lacking and not found):
            chosen, lacking = trial, found
        if not found:
            break
    chosen = chosen or _with(project, tried[-1], span)
    days = chosen.outcome.horizon_days
    share = suggest_horizon(history, days)
    values: dict[str, Any] = {"days": days, "share": share.share_within if share else 0.0, "wanted": wanted}
    key = "horizon" if days == wanted else "horizon_shorter"
    return Settings(chosen, lacking, (Note(key, values),))


def _with(project: Project, days: int, span: int) -> Project:
    """Return the project with a horizon, the windows that the history can fill, and the steps of its snapshots."""
    short = (14, 30, 60) if days <= 30 else (30,)
    windows = tuple(window for window in (*short, 90, 180, 365) if window <= span) or (min(short),)
    every = min(30, days)
    return project.model_copy(update={
        "outcome": project.outcome.model_copy(update={"horizon_days": days}),
        "features": Features(windows_days=windows),
        "panel": Panel(every_days=every),
        "tiers": Tiers(scheme="learned"),
    })  # fmt: skip


def _windows_left(project: Project, history: History) -> bool:
    """Return whether snapshots to learn from are left before the first test date of a backtest of three."""
    try:
        dates = backtest_dates(project, history)
    except DataError:
        return False
    labels = Labels.of(project)
    first = dates[0].fromordinal(dates[0].toordinal() - labels.delay_days)
    learned = snapshot_dates(project.panel, labels, first, history.first_day)
    return len(dates) == project.backtest.folds and len(learned) >= _FEWEST_LABELS


def scheme_for(facts: dict[str, Any], lacking: tuple[Finding, ...]) -> tuple[str, Note]:
    """Return the preset for the data, and why.

    Learned levels where training is possible and there are 300 buyers; else levels by rules: by the share of the money
    where few have nearly all of it, by spend alone where nearly everyone bought once, by spend and activity elsewhere.

    >>> scheme_for({"buyers": 90, "one_order_share": 0.2, "top_share": 0.5}, ())[0]
    'long_tail'
    """
    values = {key: facts[key] for key in ("buyers", "one_order_share", "top_share")}
    if not lacking and facts["buyers"] >= _FEWEST_LEARNED:
        return "learned", Note("scheme_learned", values)
    if facts["one_order_share"] > _ONE_ORDER:
        return "pyramid", Note("scheme_pyramid", values)
    if facts["top_share"] >= _CONCENTRATED:
        return "abc_profit", Note("scheme_abc_profit", values)
    return "long_tail", Note("scheme_long_tail", values)
