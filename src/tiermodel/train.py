"""Fit everything a score depends on, from rows before one date only, and bundle it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from tiermodel.baselines import BASELINES, CHURN_BASELINES, Test
from tiermodel.bundle import Bundle, save_bundle
from tiermodel.config import Project, project_digest
from tiermodel.engines.chosen import open_history
from tiermodel.errors import DataError
from tiermodel.features.catalogue import expand
from tiermodel.features.drawn import draw_rows
from tiermodel.features.known import columns_of
from tiermodel.features.outcome import OUTCOME_COLUMNS, churn_question, outcome_span
from tiermodel.features.panel import KEYS, Tally, build_panel, one_date, snapshot_dates
from tiermodel.features.peers import fit_peers
from tiermodel.models.ahead import Ahead
from tiermodel.models.between import told_ahead
from tiermodel.models.canary import refuse_leaks
from tiermodel.models.chance import Chance
from tiermodel.models.churn import ChurnModel, at_risk, fit_churn
from tiermodel.models.contributions import importance
from tiermodel.models.inputs import Horizons, Inputs, fit_inputs, panel_matrix
from tiermodel.models.level import Calibration
from tiermodel.models.metrics import (
    auc,
    churn_metrics,
    gini,
    log_loss,
    mae,
    quadratic_weighted_kappa,
    value_metrics,
)
from tiermodel.models.prospects import fit_prospects
from tiermodel.models.proxies import proxy_scan
from tiermodel.models.slices import groups, interval, slice_figures
from tiermodel.models.tier import TierModel, fit_tier, future_levels
from tiermodel.models.upgrade import fit_upgrade, stayed_above, upgrade_span
from tiermodel.models.value import ValueModel, fit_value
from tiermodel.tables.contract import Accounting
from tiermodel.tables.history import History
from tiermodel.tiers.agreement import beside_rules
from tiermodel.tiers.assign import FittedScheme, fit_scheme
from tiermodel.tiers.ladders import typical_rhythm
from tiermodel.tiers.scheme import input_names, load_scheme
from tiermodel.tiers.search import keep_budget
from tiermodel.tiers.segment_choice import choose_segments
from tiermodel.tiers.segments import align_segments

__all__ = ["Trained", "fit_bundle", "measured", "panel_dates", "train", "training_dates"]

DRAWN_ROWS = 3_000_000
_PACKAGES = ("tiermodel", "numpy", "pandas", "scikit-learn", "lightgbm", "duckdb", "numba")
_SETTINGS = {
    "language", "currency", "timezone", "contact", "features", "outcome", "panel", "churn", "value", "upgrade",
    "segments", "models",
}  # fmt: skip
Say = Callable[[str], None]


@dataclass(frozen=True)
class Trained:
    """Hold a bundle, the accounts of the rows read, and the out-of-time predictions that set its blends, by target."""

    bundle: Bundle
    accounts: dict[str, Accounting]
    later: dict[str, pd.DataFrame]


def training_dates(project: Project, as_of: date, first_day: date) -> tuple[date, ...]:
    """List the snapshot dates whose outcome is fully observed before `as_of`; `DataError` where there is none."""
    span = timedelta(outcome_span(project))
    dates = snapshot_dates(project, as_of - span, first_day)
    if not dates:
        raise DataError(
            f"training as of {as_of} needs a snapshot at least {span.days} days earlier with some history before it, "
            f"but the data starts on {first_day}: choose a later date, or a shorter outcome.horizon_days"
        )
    return dates


def panel_dates(project: Project, as_of: date, trained_on: Iterable[date]) -> set[date]:
    """List every date that fitting needs: training dates, those where customers ended up and stayed, and `as_of`."""
    steps = timedelta(0), timedelta(outcome_span(project)), timedelta(upgrade_span(project))
    return {as_of, *(later for day in trained_on for step in steps if (later := day + step) <= as_of)}


def train(
    project: Project,
    as_of: date | str = "latest",
    *,
    history: History | None = None,
    out: str | Path | None = None,
    champion: Bundle | None = None,
    say: Say = lambda _: None,
) -> Trained:
    """Train on rows before `as_of` (`latest`: the day after the last row), and write the bundle to `out` if given.

    `history` stands in for the project's files. Segments get the names that `champion` has for the same customers.
    """
    say("reading transactions")
    history = open_history(project) if history is None else history
    now = one_date(as_of, history)
    if (now - history.last_day).days > project.panel.every_days:
        raise DataError(
            f"training as of {now} needs data up to then, but the last row is of {history.last_day}: "
            "train as of `latest`"
        )
    say(f"building snapshots up to {now}")
    tally = Tally()
    trained_on = training_dates(project, now, history.first_day)
    dates = sorted(panel_dates(project, now, trained_on))
    panel = build_panel(
        project, dates, with_outcome=True, known_until=now, drawn_before=now, history=history, tally=tally
    )
    bundle, later = fit_bundle(project, panel, now, trained_on, history.columns, say)
    if champion is not None:
        bundle = _named_as(champion, bundle, panel[panel["as_of"] == pd.Timestamp(now)])
    if out is not None:
        save_bundle(bundle, out)
    return Trained(bundle, tally.accounts, later)


def fit_bundle(
    project: Project,
    panel: pd.DataFrame,
    as_of: date,
    trained_on: Sequence[date],
    columns: Iterable[str],
    say: Say = lambda _: None,
) -> tuple[Bundle, dict[str, pd.DataFrame]]:
    """Fit scheme, models and references on a panel sorted by key, using only what is known at `as_of`.

    Rows dated after `as_of` are left aside, and so are outcomes that end after it. Models learn from the dates in
    `trained_on`, and from `panel.customers` buyers at most; other dates tell where customers ended up.
    """
    now, span = pd.Timestamp(as_of), outcome_span(project)
    drawn = draw_rows(panel, now, project.panel.customers, project.seed)
    panel, known = _as_known(drawn, now, span)
    learned = known & panel["as_of"].isin([pd.Timestamp(day) for day in trained_on]).to_numpy()
    snapshot, history = panel[panel["as_of"] == now], panel[learned]
    with threadpool_limits(limits=1):  # sums that threads share out differ in the last bits, and small ones wait
        say("fitting the scheme")
        asked = keep_budget(load_scheme(project), history, project.seed, span)
        scheme = fit_scheme(asked, snapshot, history, project.seed, span)
        tiers = _Tiers.of(project, panel, scheme, learned)
        label, names = scheme.scheme.kept_out, input_names(scheme.scheme, panel)
        aside = [*OUTCOME_COLUMNS, *([] if label is None else [label])]
        buyers = snapshot[snapshot["days_since_last"].notna()].drop(columns=aside)
        if len(buyers) > project.panel.customers:
            say(f"learning from {project.panel.customers:,} of {len(buyers):,} buyers, drawn by lot (panel.customers)")
        exposed = snapshot[at_risk(project.churn, project.outcome, snapshot)]
        inputs = fit_inputs(snapshot, names, Horizons.of(project))
        x_exposed, x_buyers = (inputs.matrix(rows) for rows in (exposed, buyers))
        ahead = told_ahead(project, panel, names, now, x_exposed, x_buyers)
        models, later = _fit_models(project, history, inputs, tiers, ahead, say)
        later["churn"] = _beside(project, history, later["churn"], scheme)
        bundle = Bundle(
            name=project.name,
            settings=_settings(project, label),
            columns=tuple(name for name in needed_columns(project, columns) if name != label),
            inputs=inputs,
            scheme=scheme,
            segments=choose_segments(project.segments, buyers, project.seed),
            peers=fit_peers(buyers, f"net_amount_{max(project.features.windows_days)}d", project.seed),
            typical_rhythm=typical_rhythm(buyers),
            facts=_facts(project, history, snapshot, as_of, later)
            | beside_rules(scheme, snapshot, project)
            | {
                "slices": _slices(history, tiers.now, scheme, later),
                "importance": importance(models.churn, models.value, x_exposed, x_buyers),
                "upgrades_not_yet_known": int(np.isnan(tiers.rose).sum()),
            }
            | _audit(project, buyers, x_buyers, inputs.all_names),
            **models._asdict(),
        )
    return bundle, later


class _Tiers(NamedTuple):
    """Hold how many tiers there are, that of each row learned from, the one it came to, and whether it rose to stay."""

    levels: int
    now: NDArray[np.int64]
    future: NDArray[np.float64]
    rose: NDArray[np.float64]

    @classmethod
    def of(cls, project: Project, panel: pd.DataFrame, scheme: FittedScheme, learned: NDArray[np.bool_]) -> Self:
        """Grade the whole panel, since its later dates tell what became of the rows learned from."""
        level, _ = scheme.assign(panel)
        future, rose = future_levels(panel, level, outcome_span(project)), stayed_above(project, panel, level)
        return cls(len(scheme.scheme.levels), level[learned], future[learned], rose[learned])


class _Models(NamedTuple):
    """Hold the models of a bundle, under its names for them."""

    churn: ChurnModel
    value: ValueModel
    tier: TierModel
    upgrade: Calibration
    prospects: Chance | None


def _fit_models(
    project: Project, history: pd.DataFrame, inputs: Inputs, tiers: _Tiers, ahead: tuple[Ahead, Ahead], say: Say
) -> tuple[_Models, dict[str, pd.DataFrame]]:
    """Fit every model on the rows learned from, once no input leaks; give their out-of-time predictions by target."""
    x, later = panel_matrix(history, inputs.names, inputs.horizons), dict[str, pd.DataFrame]()
    refuse_leaks(history, x, inputs.all_names)
    told = project, history, x, inputs.all_names
    risk, worth = ahead
    say("fitting churn risk")
    churn, later["churn"] = fit_churn(*told, risk)
    say("fitting value")
    value, later["value"] = fit_value(*told, worth)
    say("fitting the future tier")
    tier, later["tier"] = fit_tier(*told, tiers.future, tiers.levels)
    say("fitting upgrades and the conversion of prospects")
    upgrade, later["upgrade"] = fit_upgrade(*told, tiers.now, tiers.future, tiers.rose)
    prospects, later["prospects"] = fit_prospects(project, history, inputs.names)
    return _Models(churn, value, tier, upgrade, prospects), later


def _as_known(panel: pd.DataFrame, now: pd.Timestamp, span_days: int) -> tuple[pd.DataFrame, NDArray[np.bool_]]:
    """Leave out rows dated after a day and outcomes that end after it; say of which rows the outcome is known."""
    panel = panel[panel["as_of"] <= now].reset_index(drop=True)
    unknown = (panel["as_of"] + pd.Timedelta(days=span_days) > now) | panel["outcome_purchase_days"].isna()
    panel.loc[unknown, list(OUTCOME_COLUMNS)] = np.nan
    return panel, ~unknown.to_numpy()


def _named_as(champion: Bundle, bundle: Bundle, snapshot: pd.DataFrame) -> Bundle:
    buyers = snapshot[snapshot["days_since_last"].notna()]
    return replace(bundle, segments=align_segments(bundle.segments, champion.segments, buyers))


def _settings(project: Project, label: str | None) -> dict[str, Any]:
    """Keep what a score depends on, or its card tells, and what its learners were set to.

    New customers need neither label nor audited attributes.
    """
    settings = project.model_dump(mode="json", include=_SETTINGS, exclude={"features": {"audited"}})
    attributes = [name for name in settings["features"]["attributes"] if f"attribute_{name}" != label]
    return {**settings, "features": {**settings["features"], "attributes": attributes}}


def _slices(
    history: pd.DataFrame, level: NDArray[np.int64], scheme: FittedScheme, later: dict[str, pd.DataFrame]
) -> list[dict[str, Any]]:
    """Give the figures of the out-of-time predictions by group of customers, all later dates together."""
    keys = list(KEYS)
    told = history[keys].copy()
    for target, names in (("churn", ("churned", "risk")), ("value", ("value", "expected"))):
        found = later[target][[*keys, "actual", "predicted"]].set_axis([*keys, *names], axis=1)
        told = told.merge(found.astype({"as_of": told["as_of"].dtype}), on=keys, how="left")
    judged = told[["risk", "expected"]].notna().any(axis=1).to_numpy()
    by = groups(history[judged], level[judged], scheme.scheme.codes)
    return list(slice_figures(by, told[judged].astype(dict.fromkeys(told.columns[2:], np.float64))))


def _audit(project: Project, buyers: pd.DataFrame, x: NDArray[np.float64], names: list[str]) -> dict[str, Any]:
    """Say how well the inputs tell the attributes to audit by, where there are any."""
    if not project.features.audited:
        return {}
    return {"proxies": list(proxy_scan(buyers, x, names, project.seed))}


def _beside(project: Project, history: pd.DataFrame, later: pd.DataFrame, scheme: FittedScheme) -> pd.DataFrame:
    """Add what simple baselines, trained on the same earlier rows, predict for the churn model's out-of-time rows."""
    risky = history[at_risk(project.churn, project.outcome, history)]
    span = pd.Timedelta(days=outcome_span(project))
    columns: dict[str, list[pd.Series]] = {name: [] for name in BASELINES}
    for day in later["as_of"].unique():
        now = risky[risky["as_of"] == day].drop(columns=list(OUTCOME_COLUMNS))
        test = Test(project, risky[risky["as_of"] + span <= day], now, lambda frame: scheme.assign(frame)[0])
        for name, predicted in columns.items():
            predicted.append(pd.Series(CHURN_BASELINES[name](test), index=later.index[later["as_of"] == day]))
    return later.assign(**{name: pd.concat(p) if p else pd.Series(dtype=float) for name, p in columns.items()})


def needed_columns(project: Project, columns: Iterable[str]) -> tuple[str, ...]:
    """List the optional columns, of those mapped, that an input of the project stands on."""
    inputs = project.features.model_copy(update={"audited": ()})
    return tuple(sorted(set().union(*map(columns_of, expand(inputs, columns)))))


def _facts(
    project: Project, history: pd.DataFrame, snapshot: pd.DataFrame, as_of: date, later: dict[str, pd.DataFrame]
) -> dict[str, Any]:
    """Note what the bundle was made from and how it did on later snapshots; no clock, no path, no customer."""
    dates = sorted(history["as_of"].dt.date.unique())
    frames = {target: later[target] for target in ("churn", "upgrade", "prospects", "value", "tier")}
    days = [day for target in ("churn", "value") for day in later[target]["as_of"].unique()]
    return {
        "as_of": str(as_of),
        "first_snapshot": str(dates[0]),
        "last_snapshot": str(dates[-1]),
        "snapshots": len(dates),
        "customers": len(snapshot),
        "history_days": int(np.nanmax(snapshot["days_since_first"].to_numpy(dtype=np.float64), initial=0.0)),
        "churn_means": churn_question(project),
        "customers_at_risk": int(at_risk(project.churn, project.outcome, snapshot).sum()),
        "training_rows": len(history),
        "training_customers": history["customer_id"].nunique(),
        "project_digest": project_digest(project),
        "panel_digest": _panel_digest(history, snapshot),
        "seed": project.seed,
        "versions": {name: version(name) for name in _PACKAGES},
        "later": {
            target: measured(target, frame["actual"].to_numpy(), frame["predicted"].to_numpy())
            for target, frame in frames.items()
            if len(frame)
        },
        "later_dates": sorted({str(day.date()) for day in days}),
        "intervals": {target: _intervals(target, later[target], project.seed) for target in ("churn", "value")},
    }


def measured(target: str, actual: NDArray[Any], predicted: NDArray[Any]) -> dict[str, float]:
    """Give the figures by which the predictions of a target are judged; tiers by their order."""
    if target == "value":
        return value_metrics(actual, predicted)
    if target != "tier":
        return churn_metrics(actual, predicted)
    levels = int(max(actual.max(), predicted.max())) + 1
    return {"n": len(actual), "qwk": quadratic_weighted_kappa(actual, predicted, levels)}


def _intervals(target: str, later: pd.DataFrame, seed: int) -> dict[str, list[float]]:
    """Give 95 % intervals of the figures of out-of-time predictions, customers drawn again."""
    if later.empty:
        return {}
    columns = [later[name].to_numpy(dtype=np.float64) for name in ("actual", "predicted")]
    customer = pd.factorize(later["customer_id"])[0]
    draws = int(np.clip(DRAWN_ROWS / len(later), 50, 400))
    metrics = {"churn": {"log_loss": log_loss, "auc": auc}, "value": {"gini": gini, "mae": mae}}[target]
    return {name: list(interval(metric, columns, customer, draws=draws, seed=seed)) for name, metric in metrics.items()}


def _panel_digest(*frames: pd.DataFrame) -> str:
    digest = hashlib.sha256()
    for frame in frames:
        digest.update(pd.util.hash_pandas_object(frame, index=False).to_numpy().tobytes())
    return digest.hexdigest()
