"""What a user would pick instead, trained on the same rows at the same date, beside the model in every backtest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import lightgbm as lgb
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit

from tiermodel.config.project import Project
from tiermodel.errors import DataError
from tiermodel.features.outcome import churn_window
from tiermodel.models.btyd import BGNBD, MBGNBD, GammaGamma
from tiermodel.models.inputs import history, mean_purchase
from tiermodel.models.lifetime_value import DAYS_A_YEAR, convert_rate, discount, discounted_purchases
from tiermodel.models.linear import fit_logistic
from tiermodel.models.pareto_nbd import ParetoNBD
from tiermodel.tiers.schemes.load import load_scheme
from tiermodel.tiers.schemes.schema import input_names

__all__ = ["BASELINES", "CHURN_BASELINES", "CLV_BASELINES", "OURS", "VALUE_BASELINES", "Test"]


Floats = NDArray[np.float64]
OURS = "tiermodel"
"""What our model is called beside them: the one that is served, the blend or the only one."""


@dataclass(frozen=True)
class Test:
    """Hold what a baseline may see: past snapshots with outcomes, and the customers at the test date without theirs.

    `grade` gives snapshots their levels by the scheme fitted at the test date.
    """

    project: Project
    train: pd.DataFrame
    now: pd.DataFrame
    grade: Callable[[pd.DataFrame], NDArray[np.int64]]

    @property
    def horizon(self) -> float:
        """Give the length of the outcome window in days."""
        return float(self.project.outcome.horizon_days)

    @property
    def gap(self) -> float:
        """Give the days between the date and its outcome window."""
        return float(self.project.outcome.gap_days)

    @property
    def inputs(self) -> list[str]:
        """Name the features that our models read."""
        return list(input_names(load_scheme(self.project), self.train))

    @property
    def churned(self) -> NDArray[np.bool_]:
        """Tell which training rows churned."""
        return (self.train["outcome_churned"] == 1).to_numpy()


def _columns(frame: pd.DataFrame, names: list[str]) -> Floats:
    return frame[names].to_numpy(dtype=np.float64)


def _rate(test: Test) -> Floats:
    return np.full(len(test.now), test.churned.mean())


def _last_tier_rate(test: Test) -> Floats:
    return _by_tier(test, test.churned.astype(np.float64))


def _last_tier_value(test: Test) -> Floats:
    return _by_tier(test, test.train["outcome_value"].to_numpy(dtype=np.float64))


def _by_tier(test: Test, outcome: Floats) -> Floats:
    """Carry on the mean outcome of each tier; the mean of all counts as one customer more in each."""
    past, now = test.grade(test.train), test.grade(test.now)
    levels = int(max(past.max(), now.max())) + 1
    total, count = np.bincount(past, weights=outcome, minlength=levels), np.bincount(past, minlength=levels)
    return ((total + outcome.mean()) / (count + 1))[now]


def _logistic_all(test: Test) -> Floats:
    names = test.inputs
    return expit(fit_logistic(_columns(test.train, names), test.churned).decision(_columns(test.now, names)))


def _logistic_rfm(test: Test) -> Floats:
    longest = max(test.project.features.windows_days)
    names = ["days_since_last", f"order_count_{longest}d", f"net_amount_{longest}d", "days_since_first"]
    return expit(fit_logistic(_columns(test.train, names), test.churned).decision(_columns(test.now, names)))


def _silence(model: type[MBGNBD | ParetoNBD], test: Test) -> Floats:
    """Fit on all that the customers at the date did before it; needs no outcome. A gap is not allowed for."""
    past = history(test.now)
    first, last = churn_window(test.project.churn, test.project.outcome)
    return model.fit(*past).p_zero(last - first, *past)


def _lightgbm_default(test: Test) -> Floats:
    names = test.inputs
    data = lgb.Dataset(_columns(test.train, names), test.churned.astype(float))
    return _booster({"objective": "binary"}, data, _columns(test.now, names))


def _booster(target: Mapping[str, object], data: lgb.Dataset, x: Floats) -> Floats:
    booster = lgb.train(
        {**target, "verbosity": -1, "deterministic": True, "force_row_wise": True, "num_threads": 1}, data, 100
    )
    return np.asarray(booster.predict(x))


def _naive_rate(test: Test) -> Floats:
    """Carry on the spend of the shortest window that is at least twice the horizon (else of the longest one)."""
    windows = test.project.features.windows_days
    window = next((w for w in windows if w >= 2 * test.horizon), windows[-1])
    seen = np.minimum(test.now["days_since_first"].to_numpy(dtype=np.float64), window)
    measure = "margin" if test.project.value.measure == "margin" else "net_amount"
    return test.now[f"{measure}_{window}d"].to_numpy(dtype=np.float64) / np.maximum(seen, 1.0) * test.horizon


def _bg_nbd_gamma_gamma(test: Test) -> Floats:
    past, mean = history(test.now), mean_purchase(test.now)
    model = BGNBD.fit(*past)
    expected = model.expected_purchases(test.gap + test.horizon, *past)
    if test.gap:
        expected = expected - model.expected_purchases(test.gap, *past)
    return expected * _each(past[0], mean) * _margin_rate(test)


def _each(frequency: Floats, mean: Floats) -> Floats:
    """Give what a purchase is expected to bring."""
    try:
        return GammaGamma.fit(frequency, mean).expected_value(frequency, mean)
    except DataError:  # nobody bought twice: the mean of everybody's purchases is what is left
        return np.full(len(mean), float(np.mean(mean)))


def _annuity(test: Test) -> Floats:
    """Carry the naive rate on to the horizon of lifetime value, discounted."""
    clv, force = test.project.value.clv, np.log1p(convert_rate(test.project.value.clv.annual_rate, DAYS_A_YEAR, 1))
    days = (1 - discount(clv.horizon_days, clv.annual_rate)) / force if force else clv.horizon_days
    return _naive_rate(test) / test.horizon * days


def _discounted_bg_nbd_gamma_gamma(test: Test) -> Floats:
    """Add lifetime value up as the literature does: discounted purchases times what each is expected to bring."""
    past, mean, clv = history(test.now), mean_purchase(test.now), test.project.value.clv
    purchases = discounted_purchases(BGNBD.fit(*past), clv.horizon_days, clv.annual_rate, *past)
    return purchases * _each(past[0], mean) * _margin_rate(test)


def _margin_rate(test: Test) -> float:
    """Give everybody's margin over amount in the longest window where value is margin, else 1."""
    if test.project.value.measure == "amount":
        return 1.0
    longest = max(test.project.features.windows_days)
    return float(test.now[f"margin_{longest}d"].sum() / max(test.now[f"net_amount_{longest}d"].sum(), 1e-9))


def _lightgbm_tweedie_default(test: Test) -> Floats:
    names = test.inputs
    data = lgb.Dataset(
        _columns(test.train, names), np.maximum(test.train["outcome_value"].to_numpy(dtype=np.float64), 0.0)
    )
    return _booster({"objective": "tweedie"}, data, _columns(test.now, names))


CHURN_BASELINES: Mapping[str, Callable[[Test], Floats]] = {
    "rate": _rate,
    "last_tier": _last_tier_rate,
    "logistic_rfm": _logistic_rfm,
    "logistic_all": _logistic_all,
    "mbg_nbd": partial(_silence, MBGNBD),
    "pareto_nbd": partial(_silence, ParetoNBD),
    "lightgbm_default": _lightgbm_default,
}
VALUE_BASELINES: Mapping[str, Callable[[Test], Floats]] = {
    "last_tier": _last_tier_value,
    "naive_rate": _naive_rate,
    "bg_nbd_gamma_gamma": _bg_nbd_gamma_gamma,
    "lightgbm_tweedie_default": _lightgbm_tweedie_default,
}
CLV_BASELINES: Mapping[str, Callable[[Test], Floats]] = {
    "naive_annuity": _annuity,
    "bg_nbd_gamma_gamma": _discounted_bg_nbd_gamma_gamma,
}
BASELINES = ("logistic_rfm", "mbg_nbd")
"""The churn baselines that training keeps beside its out-of-time predictions, for the gate."""
