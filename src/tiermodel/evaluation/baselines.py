"""What a user would pick instead, trained on the same rows at the same date, beside the model in every backtest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import lightgbm as lgb
import numpy as np
import pandas as pd
from scipy.special import expit

from tiermodel.arrays import Flags, Floats, Ints
from tiermodel.config.project import LifetimeValue
from tiermodel.errors import DataError
from tiermodel.features.outcome import Labels
from tiermodel.models.btyd.bg_nbd import BGNBD, MBGNBD
from tiermodel.models.btyd.clv import DAYS_A_YEAR, convert_rate, discount, discounted_purchases
from tiermodel.models.btyd.forecast import frequency_recency_age, mean_purchase
from tiermodel.models.btyd.gamma_gamma import GammaGamma
from tiermodel.models.btyd.pareto_nbd import ParetoNBD
from tiermodel.models.learners.linear import fit_logistic

__all__ = ["BASELINES", "CHURN_BASELINES", "CLV_BASELINES", "OURS", "VALUE_BASELINES", "BaselineTask"]


OURS = "tiermodel"
"""What our model is called beside them: the one that is served, the blend or the only one."""


@dataclass(frozen=True)
class BaselineTask:
    """What a baseline may see: past snapshots with outcomes, and the customers at the test date without theirs.

    `grade` returns the levels of snapshots by the scheme fitted at the test date; `names` are the features that models
    read, `windows_days` and `clv` are of the project's sections `features` and `value`.
    """

    labels: Labels
    train: pd.DataFrame
    now: pd.DataFrame
    grade: Callable[[pd.DataFrame], Ints]
    names: Sequence[str]
    windows_days: Sequence[int]
    clv: LifetimeValue

    @property
    def horizon(self) -> float:
        """Return the length of the outcome window in days."""
        return float(self.labels.value.window.days)

    @property
    def gap(self) -> float:
        """Return the days between the date and its outcome window."""
        return float(self.labels.value.window.first)

    @property
    def churned(self) -> Flags:
        """Tell which training rows churned."""
        return (self.train["outcome_churned"] == 1).to_numpy()


def _columns(frame: pd.DataFrame, names: Sequence[str]) -> Floats:
    return frame[list(names)].to_numpy(dtype=np.float64)


def _rate(task: BaselineTask) -> Floats:
    return np.full(len(task.now), task.churned.mean())


def _last_tier_rate(task: BaselineTask) -> Floats:
    return _by_tier(task, task.churned.astype(np.float64))


def _last_tier_value(task: BaselineTask) -> Floats:
    return _by_tier(task, task.train["outcome_value"].to_numpy(dtype=np.float64))


def _by_tier(task: BaselineTask, outcome: Floats) -> Floats:
    """Carry on the mean outcome of each tier; the mean of all counts as one customer more in each."""
    past, now = task.grade(task.train), task.grade(task.now)
    levels = int(max(past.max(), now.max())) + 1
    total, count = np.bincount(past, weights=outcome, minlength=levels), np.bincount(past, minlength=levels)
    return ((total + outcome.mean()) / (count + 1))[now]


def _logistic_all(task: BaselineTask) -> Floats:
    names = task.names
    return expit(fit_logistic(_columns(task.train, names), task.churned).decision(_columns(task.now, names)))


def _logistic_rfm(task: BaselineTask) -> Floats:
    longest = max(task.windows_days)
    names = ["days_since_last", f"order_count_{longest}d", f"net_amount_{longest}d", "days_since_first"]
    return expit(fit_logistic(_columns(task.train, names), task.churned).decision(_columns(task.now, names)))


def _silence(model: type[MBGNBD | ParetoNBD], task: BaselineTask) -> Floats:
    """Fit on all that the customers at the date did before it; needs no outcome. A gap is not allowed for."""
    past = frequency_recency_age(task.now)
    return model.fit(*past).p_zero(task.labels.churn.window.days, *past)


def _lightgbm_default(task: BaselineTask) -> Floats:
    names = task.names
    data = lgb.Dataset(_columns(task.train, names), task.churned.astype(float))
    return _booster({"objective": "binary"}, data, _columns(task.now, names))


def _booster(target: Mapping[str, object], data: lgb.Dataset, x: Floats) -> Floats:
    booster = lgb.train(
        {**target, "verbosity": -1, "deterministic": True, "force_row_wise": True, "num_threads": 1}, data, 100
    )
    return np.asarray(booster.predict(x))


def _naive_rate(task: BaselineTask) -> Floats:
    """Carry on the spend of the shortest window that is at least twice the horizon (else of the longest one)."""
    windows = task.windows_days
    window = next((w for w in windows if w >= 2 * task.horizon), windows[-1])
    seen = np.minimum(task.now["days_since_first"].to_numpy(dtype=np.float64), window)
    measure = "margin" if task.labels.value.is_margin else "net_amount"
    return task.now[f"{measure}_{window}d"].to_numpy(dtype=np.float64) / np.maximum(seen, 1.0) * task.horizon


def _bg_nbd_gamma_gamma(task: BaselineTask) -> Floats:
    past, mean = frequency_recency_age(task.now), mean_purchase(task.now)
    model = BGNBD.fit(*past)
    expected = model.expected_purchases(task.gap + task.horizon, *past)
    if task.gap:
        expected = expected - model.expected_purchases(task.gap, *past)
    return expected * _each(past[0], mean) * _margin_rate(task)


def _each(frequency: Floats, mean: Floats) -> Floats:
    """Return what a purchase is expected to bring."""
    try:
        return GammaGamma.fit(frequency, mean).expected_value(frequency, mean)
    except DataError:  # nobody bought twice: the mean of everybody's purchases is what is left
        return np.full(len(mean), float(np.mean(mean)))


def _annuity(task: BaselineTask) -> Floats:
    """Carry the naive rate on to the horizon of lifetime value, discounted."""
    clv, force = task.clv, np.log1p(convert_rate(task.clv.annual_rate, DAYS_A_YEAR, 1))
    days = (1 - discount(clv.horizon_days, clv.annual_rate)) / force if force else clv.horizon_days
    return _naive_rate(task) / task.horizon * days


def _discounted_bg_nbd_gamma_gamma(task: BaselineTask) -> Floats:
    """Add lifetime value up as the literature does: discounted purchases times what each is expected to bring."""
    past, mean, clv = frequency_recency_age(task.now), mean_purchase(task.now), task.clv
    purchases = discounted_purchases(BGNBD.fit(*past), clv.horizon_days, clv.annual_rate, *past)
    return purchases * _each(past[0], mean) * _margin_rate(task)


def _margin_rate(task: BaselineTask) -> float:
    """Return everybody's margin over amount in the longest window where value is margin, else 1."""
    if not task.labels.value.is_margin:
        return 1.0
    longest = max(task.windows_days)
    return float(task.now[f"margin_{longest}d"].sum() / max(task.now[f"net_amount_{longest}d"].sum(), 1e-9))


def _lightgbm_tweedie_default(task: BaselineTask) -> Floats:
    names = task.names
    data = lgb.Dataset(
        _columns(task.train, names), np.maximum(task.train["outcome_value"].to_numpy(dtype=np.float64), 0.0)
    )
    return _booster({"objective": "tweedie"}, data, _columns(task.now, names))


CHURN_BASELINES: Mapping[str, Callable[[BaselineTask], Floats]] = {
    "rate": _rate,
    "last_tier": _last_tier_rate,
    "logistic_rfm": _logistic_rfm,
    "logistic_all": _logistic_all,
    "mbg_nbd": partial(_silence, MBGNBD),
    "pareto_nbd": partial(_silence, ParetoNBD),
    "lightgbm_default": _lightgbm_default,
}
VALUE_BASELINES: Mapping[str, Callable[[BaselineTask], Floats]] = {
    "last_tier": _last_tier_value,
    "naive_rate": _naive_rate,
    "bg_nbd_gamma_gamma": _bg_nbd_gamma_gamma,
    "lightgbm_tweedie_default": _lightgbm_tweedie_default,
}
CLV_BASELINES: Mapping[str, Callable[[BaselineTask], Floats]] = {
    "naive_annuity": _annuity,
    "bg_nbd_gamma_gamma": _discounted_bg_nbd_gamma_gamma,
}
BASELINES = ("logistic_rfm", "mbg_nbd")
"""The churn baselines that training keeps beside its out-of-time predictions, for the gate."""
