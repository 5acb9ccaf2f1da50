"""Simple methods that the models are compared with, trained on the same rows at the same date."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import lightgbm as lgb
import numpy as np
import pandas as pd
from scipy.special import expit

from tiermodel.arrays import Flags, Floats, Ints
from tiermodel.config.targets import LifetimeValue
from tiermodel.errors import DataError
from tiermodel.features.outcome import Labels, LabelWindow
from tiermodel.models.btyd.bg_nbd import BGNBD, MBGNBD
from tiermodel.models.btyd.clv import DAYS_PER_YEAR, convert_rate, discount, discounted_purchases
from tiermodel.models.btyd.forecast import frequency_recency_age, mean_purchase_amount
from tiermodel.models.btyd.gamma_gamma import GammaGamma
from tiermodel.models.btyd.pareto_nbd import ParetoNBD
from tiermodel.models.calibrated_ensemble import group_rates
from tiermodel.models.learners.linear import fit_logistic

__all__ = [
    "BASELINES", "CHURN_BASELINES", "CLV_BASELINES", "OURS", "SEASON_AMOUNT", "SEASON_ORDERS", "VALUE_BASELINES",
    "BaselineTask", "seasonal_churn", "seasonal_value",
]  # fmt: skip


OURS = "tiermodel"
"""The name of the served model beside the baselines and the members of its blend."""

SEASON_ORDERS, SEASON_AMOUNT = "orders_same_season", "amount_same_season"
"""Columns of a baseline's snapshots: orders in the churn window's days of the year before, net amount in those of the
value window; NaN where the data does not go back so far."""


@dataclass(frozen=True)
class BaselineTask:
    """The data of a baseline: past snapshots with outcomes (`train`), customers at the test date without them (`now`).

    `grade` returns the levels of snapshots by the scheme fitted at the test date; `names` are the models' features,
    `windows_days` and `clv` settings of the project's sections `features` and `value`.
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
        """The length of the outcome window in days."""
        return float(self.labels.value.window.days)

    @property
    def gap(self) -> float:
        """The days between the date and its outcome window."""
        return float(self.labels.value.window.first)

    @property
    def churned(self) -> Flags:
        """Whether each training row churned."""
        return (self.train["outcome_churned"] == 1).to_numpy()

    @property
    def value(self) -> Floats:
        """The value of each training row."""
        return self.train["outcome_value"].to_numpy(dtype=np.float64)


def _columns(frame: pd.DataFrame, names: Sequence[str]) -> Floats:
    return frame[list(names)].to_numpy(dtype=np.float64)


def _by_tier(task: BaselineTask, outcome: Floats) -> Floats:
    """Return the past mean outcome of each customer's tier, to which the overall mean counts as one customer more."""
    past, now = task.grade(task.train), task.grade(task.now)
    levels = int(max(past.max(), now.max())) + 1
    total, count = np.bincount(past, weights=outcome, minlength=levels), np.bincount(past, minlength=levels)
    return ((total + outcome.mean()) / (count + 1))[now]


def _logistic(task: BaselineTask, names: Sequence[str]) -> Floats:
    return expit(fit_logistic(_columns(task.train, names), task.churned).decision(_columns(task.now, names)))


def _logistic_rfm(task: BaselineTask) -> Floats:
    longest = max(task.windows_days)
    names = ["days_since_last", f"order_count_{longest}d", f"net_amount_{longest}d", "days_since_first"]
    return _logistic(task, names)


def _p_zero(model: type[MBGNBD | ParetoNBD], task: BaselineTask) -> Floats:
    """Return P(no purchase) by a model fitted on the customers' own past; a gap is ignored."""
    past = frequency_recency_age(task.now)
    return model.fit(*past).p_zero(task.labels.churn.window.days, *past)


def _lightgbm(task: BaselineTask, y: Floats, objective: str) -> Floats:
    """Return the prediction of LightGBM with its own settings; the others make it repeatable."""
    settings = {
        "objective": objective,
        "verbosity": -1,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": 1,
    }
    booster = lgb.train(settings, lgb.Dataset(_columns(task.train, task.names), y), 100)
    return np.asarray(booster.predict(_columns(task.now, task.names)))


def _naive_rate(task: BaselineTask) -> Floats:
    """Return value per day times the horizon, from the shortest window of two horizons or else the longest window."""
    windows = task.windows_days
    window = next((w for w in windows if w >= 2 * task.horizon), windows[-1])
    seen = np.minimum(task.now["days_since_first"].to_numpy(dtype=np.float64), window)
    measure = "margin" if task.labels.value.is_margin else "net_amount"
    return task.now[f"{measure}_{window}d"].to_numpy(dtype=np.float64) / np.maximum(seen, 1.0) * task.horizon


def _bg_nbd_gamma_gamma(task: BaselineTask) -> Floats:
    past, mean = frequency_recency_age(task.now), mean_purchase_amount(task.now)
    model = BGNBD.fit(*past)
    expected = model.expected_purchases(task.gap + task.horizon, *past)
    if task.gap:
        expected = expected - model.expected_purchases(task.gap, *past)
    return expected * _each(past[0], mean) * _margin_rate(task)


def _each(frequency: Floats, mean: Floats) -> Floats:
    """Return the expected amount of a purchase; where nobody bought twice, the mean over all customers."""
    try:
        return GammaGamma.fit(frequency, mean).expected_value(frequency, mean)
    except DataError:  # nobody bought twice
        return np.full(len(mean), float(np.mean(mean)))


def _annuity(task: BaselineTask) -> Floats:
    """Return the naive rate over the horizon of lifetime value, discounted."""
    clv, force = task.clv, np.log1p(convert_rate(task.clv.annual_rate, DAYS_PER_YEAR, 1))
    days = (1 - discount(clv.horizon_days, clv.annual_rate)) / force if force else clv.horizon_days
    return _naive_rate(task) / task.horizon * days


def _discounted_bg_nbd_gamma_gamma(task: BaselineTask) -> Floats:
    """Return the usual lifetime value: discounted purchases times the expected amount of a purchase."""
    past, mean, clv = frequency_recency_age(task.now), mean_purchase_amount(task.now), task.clv
    purchases = discounted_purchases(BGNBD.fit(*past), clv.horizon_days, clv.annual_rate, *past)
    return purchases * _each(past[0], mean) * _margin_rate(task)


def _margin_rate(task: BaselineTask) -> float:
    """Return everybody's margin over amount in the longest window where value is margin, else 1."""
    if not task.labels.value.is_margin:
        return 1.0
    longest = max(task.windows_days)
    return float(task.now[f"margin_{longest}d"].sum() / max(task.now[f"net_amount_{longest}d"].sum(), 1e-9))


def seasonal_churn(task: BaselineTask) -> dict[str, Floats]:
    """Return the past churn rate of customers who did as much in the same season a year before, by baseline name.

    They bought in the same days of the year before, or did not, or were no customers yet. Rates are those of training
    snapshots with a year of data before them; without any, or without a year before the date, there is no prediction.
    """
    known = task.train[SEASON_ORDERS].notna().to_numpy()
    if not known.any() or task.now[SEASON_ORDERS].isna().any():
        return {}
    window = task.labels.churn.window
    then, now = _in_season(task.train[known], window), _in_season(task.now, window)
    return {"same_season": group_rates(then, task.churned[known], now)}


def seasonal_value(task: BaselineTask) -> dict[str, Floats]:
    """Return what each customer spent in the same season a year before, by baseline name; none without a year before.

    Customers who were none yet have the naive rate.
    """
    spent = task.now[SEASON_AMOUNT].to_numpy(dtype=np.float64)
    if np.isnan(spent).any():
        return {}
    window = task.labels.value.window
    return {"same_season": np.where(_is_newer(task.now, window), _naive_rate(task), spent * _margin_rate(task))}


def _in_season(frame: pd.DataFrame, window: LabelWindow) -> Ints:
    """Return 2 for customers who bought in the same season a year before, 1 for those who did not, 0 for newer ones."""
    return np.where(_is_newer(frame, window), 0, 1 + (frame[SEASON_ORDERS] > 0).to_numpy())


def _is_newer(frame: pd.DataFrame, window: LabelWindow) -> Flags:
    """Return whether each customer's first purchase came after the same season of the year before."""
    return (frame["days_since_first"] <= DAYS_PER_YEAR - window.last).to_numpy()


Baselines = Mapping[str, Callable[[BaselineTask], Floats]]
CHURN_BASELINES: Baselines = {
    "rate": lambda task: np.full(len(task.now), task.churned.mean()),
    "last_tier": lambda task: _by_tier(task, task.churned.astype(np.float64)),
    "logistic_rfm": _logistic_rfm,
    "logistic_all": lambda task: _logistic(task, task.names),
    "mbg_nbd": partial(_p_zero, MBGNBD),
    "pareto_nbd": partial(_p_zero, ParetoNBD),
    "lightgbm_default": lambda task: _lightgbm(task, task.churned.astype(np.float64), "binary"),
}
VALUE_BASELINES: Baselines = {
    "last_tier": lambda task: _by_tier(task, task.value),
    "naive_rate": _naive_rate,
    "bg_nbd_gamma_gamma": _bg_nbd_gamma_gamma,
    "lightgbm_tweedie_default": lambda task: _lightgbm(task, np.maximum(task.value, 0.0), "tweedie"),
}
CLV_BASELINES: Baselines = {"naive_annuity": _annuity, "bg_nbd_gamma_gamma": _discounted_bg_nbd_gamma_gamma}
BASELINES = ("logistic_rfm", "mbg_nbd")
"""The churn baselines that training keeps beside its out-of-fold predictions, for the gate."""
