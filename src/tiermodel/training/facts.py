"""Facts of a bundle for the model card and the tracking store: its origin and its out-of-fold metrics."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tiermodel.arrays import Ints
from tiermodel.config.project import Project, project_digest
from tiermodel.evaluation import metrics
from tiermodel.evaluation.attribution import importance
from tiermodel.evaluation.baselines import BASELINES, CHURN_BASELINES, BaselineTask
from tiermodel.evaluation.bootstrap import cluster_interval, draw_count
from tiermodel.evaluation.proxy_audit import proxy_scan
from tiermodel.evaluation.slices import groups, slice_figures
from tiermodel.evaluation.tier_shares import tier_shares
from tiermodel.features.catalogue import expand
from tiermodel.features.formula import columns_of
from tiermodel.features.frame import KEYS
from tiermodel.features.outcome import OUTCOME_COLUMNS, Labels, at_risk, churn_question
from tiermodel.models.calibrated_ensemble import CalibratedEnsemble
from tiermodel.models.churn import ChurnModel
from tiermodel.models.future_tier import TierModel
from tiermodel.models.upgrade import TierLabels
from tiermodel.models.value import ValueModel
from tiermodel.tiers.capacity import capacity_at_fit
from tiermodel.tiers.explain.rule_comparison import compare_with_rules
from tiermodel.tiers.fitted_scheme import FittedScheme
from tiermodel.training.censoring import CensoredPanel, CurrentBuyers

__all__ = ["Fitted", "Models", "collect_facts", "metrics_for", "needed_columns", "recorded_settings", "with_baselines"]


RECORDED_PACKAGES = ("tiermodel", "numpy", "pandas", "scikit-learn", "lightgbm", "duckdb", "numba")
DRAWN_ROWS = 3_000_000
_NORMAL = 1.645  # standard deviations on either side that hold 90 % of a normal distribution
_INTERVALS = {"churn": (metrics.log_loss, metrics.auc), "value": (metrics.gini, metrics.mae)}
_SETTINGS = {
    "language", "currency", "timezone", "contact", "features", "outcome", "panel", "churn", "value", "upgrade",
    "segments", "models",
}  # fmt: skip


class Models(NamedTuple):
    """The models of a bundle, named as in the bundle; `prospects` is None where too few converted."""

    churn: ChurnModel
    value: ValueModel
    tier: TierModel
    upgrade: float
    prospects: CalibratedEnsemble | None


class Fitted(NamedTuple):
    """The scheme, the tiers of the training rows, the models, and their out-of-fold predictions by target."""

    scheme: FittedScheme
    tiers: TierLabels
    models: Models
    out_of_fold: dict[str, pd.DataFrame]


def collect_facts(
    project: Project, labels: Labels, known: CensoredPanel, present: CurrentBuyers, fitted: Fitted
) -> dict[str, Any]:
    """Return the facts of a bundle, which depend on the data alone: no time of day, no path, no customer."""
    scheme, tiers, models, out_of_fold = fitted
    return {
        **_origin(project, labels, known),
        **_out_of_fold_metrics(project.seed, out_of_fold),
        **compare_with_rules(scheme, known.snapshot, project.features.windows_days, project.seed),
        **_capacity(scheme, known.snapshot),
        **_empty_levels(scheme, known.snapshot),
        "slices": _slices(known.training_rows, tiers.now, scheme, out_of_fold),
        "importance": importance(models.churn, models.value, present.x_exposed, present.x_buyers),
        "level": _level(models, present),
        "upgrades_not_yet_known": int(np.isnan(tiers.rose).sum()),
        **_audit(project, present, scheme),
    }


def _origin(project: Project, labels: Labels, known: CensoredPanel) -> dict[str, Any]:
    """Return the facts on the data, the project and the versions."""
    rows, snapshot = known.training_rows, known.snapshot
    dates = sorted(rows["as_of"].dt.date.unique())
    return {
        "as_of": str(known.day.date()),
        "first_snapshot": str(dates[0]),
        "last_snapshot": str(dates[-1]),
        "snapshots": len(dates),
        "customers": len(snapshot),
        "history_days": int(np.nanmax(snapshot["days_since_first"].to_numpy(dtype=np.float64), initial=0.0)),
        "churn_means": churn_question(project.churn, project.outcome),
        "customers_at_risk": int(at_risk(labels.churn, snapshot).sum()),
        "training_rows": len(rows),
        "training_customers": rows["customer_id"].nunique(),
        "project_digest": project_digest(project),
        "panel_digest": _panel_digest(rows, snapshot),
        "seed": project.seed,
        "versions": {name: version(name) for name in RECORDED_PACKAGES},
    }


def _out_of_fold_metrics(seed: int, out_of_fold: dict[str, pd.DataFrame]) -> dict[str, Any]:
    """Return the metrics of out-of-fold predictions, their dates and their intervals."""
    days = [day for target in ("churn", "value") for day in out_of_fold[target]["as_of"].unique()]
    return {
        "later": {
            target: metrics_for(target, frame["actual"].to_numpy(), frame["predicted"].to_numpy())
            for target in ("churn", "upgrade", "prospects", "value", "tier")
            if len(frame := out_of_fold[target])
        },
        "later_dates": sorted({str(day.date()) for day in days}),
        "intervals": {target: _intervals(target, out_of_fold[target], seed) for target in ("churn", "value")},
    }


def metrics_for(target: str, actual: NDArray[Any], predicted: NDArray[Any]) -> dict[str, float]:
    """Return the metrics of the predictions of a target."""
    if target == "value":
        return metrics.value_metrics(actual, predicted)
    if target != "tier":
        return metrics.churn_metrics(actual, predicted)
    levels = int(max(actual.max(), predicted.max())) + 1
    return {"n": len(actual), "qwk": metrics.quadratic_weighted_kappa(actual, predicted, levels)}


def _intervals(target: str, predictions: pd.DataFrame, seed: int) -> dict[str, list[float]]:
    """Return 95 % cluster bootstrap intervals of the metrics of out-of-fold predictions."""
    if predictions.empty:
        return {}
    columns = [predictions[name].to_numpy(dtype=np.float64) for name in ("actual", "predicted")]
    customer = pd.factorize(predictions["customer_id"])[0]
    draws = draw_count(len(predictions), DRAWN_ROWS, 50, 400)
    return {
        metric.__name__: list(cluster_interval(metric, columns, customer, draws=draws, seed=seed))
        for metric in _INTERVALS[target]
    }


def _slices(
    training_rows: pd.DataFrame, level: Ints, scheme: FittedScheme, out_of_fold: dict[str, pd.DataFrame]
) -> list[dict[str, Any]]:
    """Return the metrics of out-of-fold predictions by group of customers, all dates together."""
    keys = list(KEYS)
    rows = training_rows[keys].copy()
    for target, names in (("churn", ("churned", "risk")), ("value", ("value", "expected"))):
        frame = out_of_fold[target][[*keys, "actual", "predicted"]].set_axis([*keys, *names], axis=1)
        rows = rows.merge(frame.astype({"as_of": rows["as_of"].dtype}), on=keys, how="left")
    predicted = rows[["risk", "expected"]].notna().any(axis=1).to_numpy()
    by = groups(training_rows[predicted], level[predicted], scheme.scheme.codes)
    return list(slice_figures(by, rows[predicted].astype(dict.fromkeys(rows.columns[2:], np.float64))))


def _level(models: Models, present: CurrentBuyers) -> dict[str, Any]:
    """Return how far the levels may be off, 90 %: mean churn risk, in points, and the total value, as shares of it.

    `year_seen` is whether the log shows the same days a year before.
    """
    churn, value = models.churn.level, models.value.level
    risk = models.churn.predict(present.x_exposed)
    points = 100 * _NORMAL * churn.sd * float(np.mean(risk * (1 - risk))) if len(risk) else 0.0
    low, high = (float(np.expm1(sign * _NORMAL * value.sd)) for sign in (-1, 1))
    return {
        "year_seen": churn.year_seen and value.year_seen,
        "churn_points": round(points, 2),
        "value_low": round(low, 4),
        "value_high": round(high, 4),
    }


def _empty_levels(scheme: FittedScheme, snapshot: pd.DataFrame) -> dict[str, Any]:
    """Return the codes of the levels that no customer of the latest snapshot reaches; {} where each is reached."""
    reached = {scheme.scheme.codes[n] for n in np.unique(scheme.assign(snapshot)[0])}
    empty = [code for code in scheme.scheme.bought_levels if code not in reached]
    return {"empty_levels": empty} if empty else {}


def _capacity(scheme: FittedScheme, snapshot: pd.DataFrame) -> dict[str, Any]:
    """Return how the levels with a capacity fill on the latest snapshot; {} where no level has one."""
    filled = capacity_at_fit(scheme, snapshot)
    return {"capacity": filled} if filled else {}


def _audit(project: Project, present: CurrentBuyers, scheme: FittedScheme) -> dict[str, Any]:
    """Return how well the inputs predict the attributes to audit by, and who of each group is in which tier.

    {} where there are none.
    """
    if not project.features.audited:
        return {}
    levels = scheme.scheme
    tier, _ = scheme.assign(present.buyers)
    return {
        "proxies": list(proxy_scan(present.buyers, present.x_buyers, present.design.all_names, project.seed)),
        "shares": list(tier_shares(present.buyers, tier, levels.codes, levels.policies(project.language))),
    }


def with_baselines(
    project: Project,
    labels: Labels,
    known: CensoredPanel,
    scheme: FittedScheme,
    names: tuple[str, ...],
    predictions: pd.DataFrame,
) -> pd.DataFrame:
    """Return out-of-fold churn predictions beside those of simple baselines trained on the same rows."""
    rows = known.training_rows
    risky = rows[at_risk(labels.churn, rows)]
    delay = pd.Timedelta(days=labels.delay_days)
    columns: dict[str, list[pd.Series]] = {name: [] for name in BASELINES}
    for day in predictions["as_of"].unique():
        now = risky[risky["as_of"] == day].drop(columns=list(OUTCOME_COLUMNS))
        past = risky[risky["as_of"] + delay <= day]
        windows, clv = project.features.windows_days, project.value.clv
        task = BaselineTask(labels, past, now, lambda frame: scheme.assign(frame)[0], names, windows, clv)
        index = predictions.index[predictions["as_of"] == day]
        for name, predicted in columns.items():
            predicted.append(pd.Series(CHURN_BASELINES[name](task), index=index))
    return predictions.assign(**{name: pd.concat(p) if p else pd.Series(dtype=float) for name, p in columns.items()})


def needed_columns(project: Project, columns: Iterable[str], texts: Collection[str] = ()) -> tuple[str, ...]:
    """Return the optional columns, of those mapped, that a feature of the project reads.

    Of text attributes only those are needed whose features are in `texts`: models read none of them.
    """
    features = expand(project.features.model_copy(update={"audited": ()}), columns)
    needed = (f for f in features if f.unit != "text" or f.name in texts)
    return tuple(sorted(set().union(*map(columns_of, needed))))


def recorded_settings(project: Project, label: str | None) -> dict[str, Any]:
    """Return the sections of the project that scores, the model card and tuning depend on.

    Neither the attribute `label` nor audited attributes are included: rows to score need none of them.
    """
    features = {"audited"} if project.features.custom else {"audited", "custom"}
    aside: dict[str, Any] = {"features": features} | ({} if project.outcome.calendar else {"outcome": {"calendar"}})
    settings = project.model_dump(mode="json", include=_SETTINGS, exclude=aside)
    attributes = [name for name in settings["features"]["attributes"] if f"attribute_{name}" != label]
    return {**settings, "features": {**settings["features"], "attributes": attributes}}


def _panel_digest(*frames: pd.DataFrame) -> str:
    digest = hashlib.sha256()
    for frame in frames:
        digest.update(pd.util.hash_pandas_object(frame, index=False).to_numpy().tobytes())
    return digest.hexdigest()
