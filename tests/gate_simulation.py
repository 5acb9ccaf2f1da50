"""Pairs of models whose true quality is known, as evaluations of the gate."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tiermodel.evaluation.metrics import gini, log_loss
from tiermodel.tracking import gate
from tiermodel.tracking.checks import Situation
from tiermodel.tracking.comparison import MARGIN

__all__ = ["NEVER_MOVES", "Errors", "evaluations", "passes", "twice_the_margin"]

Numbers = NDArray[np.float64]
NEVER_MOVES = {"customers": 1, "up": 0, "down": 0, "value": 1.0, "moved_value": 0.0}
_DATES = ("2024-01-01", "2024-01-31", "2024-03-01")
_SPREAD, _DRIFT = 1.8, 0.4  # log-odds between customers, and of one customer between dates
_LEVELS = (0.5, 0.8, 0.95)
_MANY = 50_000


@dataclass(frozen=True)
class Errors:
    """How far predictions are off: sd on the log-odds of churn, and on the logarithm of value."""

    churn: float = 0.25
    value: float = 0.25


def _expit(x: Numbers) -> Numbers:
    return 1 / (1 + np.exp(-x))


def _truth(draw: np.random.Generator, n: int) -> tuple[Numbers, Numbers, Numbers, Numbers]:
    """Draw log-odds and churn, and mean and value, of n customers on one date; the two go together."""
    odds = draw.normal(0.0, _SPREAD, n)
    churned = (draw.random(n) < _expit(odds)).astype(float)
    mean = np.exp(3.0 - 0.4 * odds + draw.normal(0, 0.8, n))
    value = np.where(churned == 1, 0.0, mean * draw.gamma(1.0, 1.0, n))
    return odds, churned, mean, value


@cache
def twice_the_margin(target: str, champion: Errors = Errors()) -> Errors:
    """Return the errors of a model that is worse than the champion by twice the margin in one target.

    Found by bisection on 50,000 customers.
    """
    draw = np.random.default_rng(1)
    odds, churned, mean, value = _truth(draw, _MANY)
    noise, rate = draw.normal(0, 1, _MANY), np.full(_MANY, churned.mean())

    def quality(error: float) -> float:
        if target == "churn":
            return log_loss(churned, rate) - log_loss(churned, _expit(odds + error * noise))
        return gini(value, mean * np.exp(error * noise))

    before = quality(getattr(champion, target))
    wanted, low, high = before * (1 - 2 * MARGIN), 0.0, 5.0
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if quality(middle) > wanted else (low, middle)
    return Errors(**{**vars(champion), target: low})


def evaluations(
    draw: np.random.Generator, customers: int, ours: Errors, theirs: Errors, shared: float = 0.0
) -> list[pd.DataFrame]:
    """Draw the evaluations of two models of the same customers; `shared` is how far their errors correlate."""
    odds, _, mean, _ = _truth(draw, customers)
    common = draw.normal(0, 1, (2, customers))
    tables, outcomes = [], []
    for _ in _DATES:
        now = odds + draw.normal(0, _DRIFT, customers)
        churned = (draw.random(customers) < _expit(now)).astype(float)
        value = np.where(churned == 1, 0.0, mean * draw.gamma(1.0, 1.0, customers))
        outcomes.append((now, churned, value))
    for errors in (ours, theirs):
        own = np.sqrt(shared) * common + np.sqrt(1 - shared) * draw.normal(0, 1, (2, customers))
        rows = []
        for day, (now, churned, value) in zip(_DATES, outcomes, strict=True):
            risk, worth = _expit(now + errors.churn * own[0]), mean * np.exp(errors.value * own[1])
            base = {"as_of": day, "customers": day, "key": np.arange(customers)}
            level = np.searchsorted(np.quantile(worth, _LEVELS), worth, side="right")
            tiers = {
                "level": level.astype(float),
                "tier_code": level.astype(str),
                "key_level": (level == 3).astype(float),
            }
            rows.append(
                pd.DataFrame({**base, "target": "churn", "question": "q", "actual": churned, "predicted": risk})
            )
            rows[-1] = rows[-1].assign(logistic_rfm=0.5, mbg_nbd=0.5)
            more = {"target": "value", "question": "v", "actual": value, "predicted": worth, **tiers}
            rows.append(pd.DataFrame({**base, **more}))
        tables.append(pd.concat(rows, ignore_index=True))
    return tables


def passes(
    seed: int, customers: int, ours: Errors, theirs: Errors, *, refresh: bool, shared: float = 0.0
) -> dict[str, bool]:
    """Return which checks against the champion a challenger passes in one draw, and whether all (`gate`)."""
    challenger, champion = evaluations(np.random.default_rng(seed), customers, ours, theirs, shared)
    situation = Situation(champion="1", refresh=refresh)
    against = {c.name: c.passed for c in gate._against(challenger, champion, situation, NEVER_MOVES)}
    return {**against, "gate": all(against.values())}
