"""The search of one target: settings are proposed, measured on earlier dates, and the best is judged on the last date.

Optuna's tree-structured Parzen estimator (Bergstra et al. 2011) proposes settings; the models themselves, trained and
tested on rolling dates, measure them.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy.special import expit
from sqlalchemy.exc import SQLAlchemyError

from tiermodel.arrays import Floats
from tiermodel.config.learners import Models, Trees
from tiermodel.config.project import Project, project_digest
from tiermodel.errors import DataError, OutputError, ProjectError
from tiermodel.evaluation.bootstrap import paired_bootstrap
from tiermodel.evaluation.metrics import auc, gini, log_loss, mae
from tiermodel.features.frame import has_bought
from tiermodel.features.outcome import Labels, at_risk
from tiermodel.locks import SQLITE, database_of, first_line
from tiermodel.models.btyd.forecast import BTYD_INPUTS
from tiermodel.models.calibration.logit import intercept_for_rate, log_odds
from tiermodel.models.calibration.recent import (
    ForecastContext,
    PartialWindow,
    partial_churn_windows,
    partial_value_windows,
)
from tiermodel.models.churn import fit_churn
from tiermodel.models.learners.boosting import with_default_sizes
from tiermodel.models.value import fit_value, squared_errors
from tiermodel.tiers.schemes.load import load_scheme
from tiermodel.tiers.schemes.schema import input_names
from tiermodel.words import words

__all__ = ["Found", "Search", "Target", "changed", "nested", "open_optuna", "open_storage", "study_file"]


Target = Literal["churn", "value"]
Settings = dict[str, float]
_TREES = {
    "learning_rate": (0.01, 0.1),
    "num_leaves": (4, 64),
    "min_data_in_leaf": (10, 300),
    "feature_fraction": (0.2, 1.0),
    "lambda_l2": (0.1, 100.0),
}
_SPACE: Mapping[Target, Mapping[str, tuple[float, float]]] = {
    "churn": {**_TREES, "logistic_c": (0.001, 1.0)},
    "value": {**_TREES, "ridge_alpha": (10.0, 10_000.0), "tweedie_power": (1.05, 1.8)},
}
"""The bounds of the search, on a logarithmic scale; whole bounds mean a whole number."""


def _cut_rmse(actual: Floats, predicted: Floats) -> float:
    """Return the root mean squared error of amounts capped at the 99.9 % quantile, as in the value model's blend."""
    return float(np.sqrt(squared_errors(predicted, actual).mean()))


_METRICS: Mapping[Target, Mapping[str, Callable[[Floats, Floats], float]]] = {
    "churn": {"log_loss": log_loss, "auc": auc},
    "value": {"cut_rmse": _cut_rmse, "gini": gini, "mae": mae},
}
"""The metrics that compare the settings found with the project's; the first decides, and lower is better."""


@dataclass(frozen=True)
class Found:
    """Result of one target's search.

    `trials` starts with the project's own settings, the defaults of the search; each has `number`, `error` and
    `settings`. `settings` are the best ones ({}: the project's own). `verdict` has a row for each metric: both figures,
    their difference (found minus defaults) and its 95 % bootstrap interval over customers.
    """

    target: Target
    metric: str
    trials: list[dict[str, Any]]
    settings: Settings
    verdict: list[dict[str, Any]]

    def settings_rows(self) -> list[dict[str, Any]]:
        """Return two rows, the defaults and the settings found, with their errors on the earlier dates."""
        best = min(self.trials, key=lambda trial: trial["error"])  # the first of equals
        pairs = (("defaults", self.trials[0]), ("found", best))
        return [
            {"target": self.target, "settings": name, self.metric: trial["error"], **trial["settings"]}
            for name, trial in pairs
        ]

    @property
    def better(self) -> bool:
        """Whether the settings found beat the project's: the 95 % interval of the first metric is below zero."""
        return bool(self.settings) and self.verdict[0]["high"] < 0

    def words(self, language: str = "en") -> str:
        """Return the verdict as a sentence."""
        say, first = words(language), self.verdict[0]
        named = (f"target_{self.target}", f"metric_{first['metric']}")
        target, metric = map(say.__getitem__, named) if language == "zh" else (self.target, first["metric"])
        if not self.settings:
            return say["tune_no_trial"].format(target=target)
        which = "tune_better" if self.better else "tune_worse" if first["low"] > 0 else "tune_as_good"
        ends = {name: f"{first[name]:+.4g}" for name in ("difference", "low", "high")}
        return say[which].format(target=target, metric=metric, **ends)


@dataclass(frozen=True)
class Search:
    """The search of one target: its Optuna study, the rows to search on, and the rows of the last date, which judges.

    `x` and `last_x` are the design matrices of `rows` and `last`, with the columns `names`; `partial_windows` returns
    the outcome windows that were partly over at a date.
    """

    optuna: Any
    project: Project
    target: Target
    study: Any
    rows: pd.DataFrame
    x: Floats
    names: list[str]
    last: pd.DataFrame
    last_x: Floats
    partial_windows: Callable[[pd.Timestamp], Sequence[PartialWindow]]

    @classmethod
    def open(
        cls, optuna: Any, project: Project, target: Target, storage: Any, panel: pd.DataFrame, x: Floats
    ) -> Search:
        """Return the search on a panel; a study of the same project and rows is resumed."""
        labels, judge = Labels.of(project), panel["as_of"].max()
        searched = (panel["as_of"] + pd.Timedelta(days=labels.delay_days) <= judge).to_numpy()
        rows, seen = panel[searched].reset_index(drop=True), x[searched]
        tested = at_risk(labels.churn, panel) if target == "churn" else has_bought(panel)
        tested = tested & (panel["as_of"] == judge).to_numpy()
        digest = hashlib.sha256(project_digest(project).encode() + version("tiermodel").encode())
        digest.update(pd.util.hash_pandas_object(rows, index=False).to_numpy().tobytes())
        name = f"{project.name}/{target}/{digest.hexdigest()[:16]}"
        study = optuna.create_study(storage=storage, study_name=name, load_if_exists=True)
        for trial in study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):  # a run that was stopped
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL, skip_if_finished=True)
        last, names = panel[tested].reset_index(drop=True), input_names(load_scheme(project), panel)
        windows = partial_churn_windows if target == "churn" else partial_value_windows
        partial_windows = cache(partial(windows, labels, panel, names))
        return cls(optuna, project, target, study, rows, seen, [*names, *BTYD_INPUTS], last, x[tested], partial_windows)

    def done(self) -> list[Any]:
        """Return the finished trials; the first has the project's own settings."""
        return list(self.study.get_trials(deepcopy=False, states=(self.optuna.trial.TrialState.COMPLETE,)))

    def step(self) -> None:
        """Measure one more trial.

        The proposal depends on the seed and the finished trials only, so a run that was stopped goes on with the same
        trials.
        """
        tried = len(self.done())
        space = self._space()
        if not tried:
            error, given = self._error(self.project), self._given()
            self.study.add_trial(self.optuna.create_trial(params=given, distributions=space, value=error))
            return
        self.study.sampler = self.optuna.samplers.TPESampler(seed=self.project.seed + tried)
        trial = self.study.ask(space)
        self.study.tell(trial, self._error(changed(self.project, self.target, _rounded(trial.params))))

    def words(self) -> str:
        """Return a text with the error of the best trial and that of the project's settings."""
        errors = [trial.value for trial in self.done()]
        return f"best {min(errors):.5g}, the project's settings {errors[0]:.5g}"

    def finish(self, trials: int) -> Found:
        """Return the best of the first trials, compared with the project's settings on the last date."""
        done = self.done()[: trials + 1]
        best = min(range(len(done)), key=lambda k: done[k].value)  # the first of equals: the project's own
        settings = _rounded(done[best].params) if best else {}
        listed = [
            {"number": k, "error": trial.value, "settings": _rounded(trial.params)} for k, trial in enumerate(done)
        ]
        own = self._predict(self.project)
        found = self._predict(changed(self.project, self.target, settings)) if settings else own
        actual = _actual(self.target, self.last)
        verdict = []
        for metric, function in _METRICS[self.target].items():
            difference, low, high = paired_bootstrap(function, actual, found, own, seed=self.project.seed)
            verdict.append({
                "target": self.target, "metric": metric, "defaults": function(actual, own),
                "found": function(actual, found), "difference": difference, "low": low, "high": high,
            })  # fmt: skip
        return Found(self.target, next(iter(_METRICS[self.target])), listed, settings, verdict)

    def _fit(self, project: Project, x: Floats) -> Any:
        labels, rows, inputs, names = Labels.of(project), self.rows, self.x, self.names
        context = ForecastContext(self.last["as_of"].iloc[0], x, (), self.partial_windows, labels.calendar)
        if self.target == "churn":
            return fit_churn(rows, inputs, names, labels.churn, project.models.churn, context, project.seed)
        return fit_value(rows, inputs, names, labels.value, project.models.value, context, project.seed)

    def _predict(self, project: Project) -> Floats:
        model, _ = self._fit(project, self.last_x)
        return np.asarray(model.predict(self.last_x))

    def _error(self, project: Project) -> float:
        """Return the out-of-fold error on earlier dates, of predictions shifted to each date's observed base rate.

        No setting decides the base rate of a window, so it must not decide between settings.
        """
        _, predictions = self._fit(project, self.last_x[:0])
        if not len(predictions):
            delay = Labels.of(project).delay_days
            raise DataError(
                f"tuning needs a date to test on before {self.last['as_of'].iloc[0].date()}, which judges: bring "
                f"{delay} days more of history, or shorten outcome.horizon_days"
            )
        level = _exact_chance if self.target == "churn" else _exact_total
        days = [day for _, day in predictions.groupby("as_of")]
        actual = [day["actual"].to_numpy(dtype=np.float64) for day in days]
        exact = [level(day["predicted"].to_numpy(dtype=np.float64), a) for day, a in zip(days, actual, strict=True)]
        if self.target == "churn":
            return float(np.mean([log_loss(a, p) for a, p in zip(actual, exact, strict=True)]))
        return _cut_rmse(np.concatenate(actual), np.concatenate(exact))

    def _space(self) -> dict[str, Any]:
        whole, real = self.optuna.distributions.IntDistribution, self.optuna.distributions.FloatDistribution
        return {
            name: (whole if isinstance(low, int) else real)(low, high, log=True)
            for name, (low, high) in _SPACE[self.target].items()
        }

    def _given(self) -> Settings:
        """Return the project's own settings, clipped to the bounds of the search."""
        section = getattr(self.project.models, self.target)
        trees = with_default_sizes(section.trees, len(self.rows))
        have = {**section.model_dump(exclude={"trees"}), **trees.model_dump()}
        return {name: min(max(have[name], low), high) for name, (low, high) in _SPACE[self.target].items()}


def _actual(target: Target, rows: pd.DataFrame) -> Floats:
    column = rows["outcome_churned"] if target == "churn" else rows["outcome_value"]
    return np.asarray(column, dtype=np.float64)


def _exact_chance(predicted: Floats, actual: Floats) -> Floats:
    """Return probabilities shifted in log-odds so that their mean is the observed rate."""
    odds = log_odds(predicted)
    return np.asarray(expit(odds + intercept_for_rate(odds, float(actual.mean()))))


def _exact_total(predicted: Floats, actual: Floats) -> Floats:
    """Return predicted amounts scaled to the observed total."""
    return predicted * (max(float(actual.sum()), 0.0) / max(float(predicted.sum()), 1e-9))


def _rounded(settings: Mapping[str, float]) -> Settings:
    """Return settings with three significant digits, so that the settings reported are those that were tried."""
    return {name: value if isinstance(value, int) else float(f"{value:.3g}") for name, value in settings.items()}


def nested(settings: Mapping[str, float]) -> dict[str, Any]:
    """Return settings in the shape of their section in the project file."""
    trees = {name: value for name, value in settings.items() if name in Trees.model_fields}
    return {**({"trees": trees} if trees else {}), **{k: v for k, v in settings.items() if k not in trees}}


def changed(project: Project, target: Target, settings: Mapping[str, float]) -> Project:
    """Return the project with other settings for one target."""
    models = project.models.model_dump()
    new = nested(settings)
    models[target] = {**models[target], **new, "trees": {**models[target]["trees"], **new.get("trees", {})}}
    return project.model_copy(update={"models": Models.model_validate(models)})


def open_optuna() -> Any:
    """Return the module Optuna, an optional dependency; `ProjectError` where it is not installed."""
    try:
        optuna = importlib.import_module("optuna")
    except ImportError:
        raise ProjectError("tuning needs: pip install 'tiermodel[tune]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def study_file(project: Project, study: str | Path | None) -> Path:
    """Return the file of the studies: `study`, else `tune.db` beside a SQLite store or in the current folder."""
    if study is not None:
        return Path(study).absolute()
    database = database_of(project.tracking.uri)
    return (Path() if database is None else database.parent).absolute() / "tune.db"


@contextmanager
def open_storage(optuna: Any, file: Path) -> Iterator[Any]:
    """Open the file of the studies; its faults are raised as `OutputError`."""
    try:
        storage = optuna.storages.RDBStorage(f"{SQLITE}{file}")
        try:
            yield storage
        finally:
            storage.engine.dispose()
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError, OSError) as error:
        words = f"trials cannot be kept there ({first_line(error)})"
        raise OutputError(f"{file}: {words}; choose another file with --study") from None
