"""Profit of retention campaigns by churn risk, the risk from which a contact pays, and the concentration of value.

A campaign contacts the riskiest customers. A contact costs `contact`. A churner accepts the incentive with probability
γ, stays, and is worth `value` less the incentive; a customer who would have stayed takes the incentive as well. The
measures are those of Verbeke et al. (2012, maximum profit) and Verbraken, Verbeke and Baesens (2013, expected maximum
profit, γ ~ Beta), per customer of the base. Equal risks are contacted together, so the order of rows changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import betainc

from tiermodel.arrays import Column, Floats
from tiermodel.config.targets import Campaign as CampaignCosts
from tiermodel.errors import DataError
from tiermodel.evaluation.metrics import (
    check_probabilities,
    gini_coefficient,
    herfindahl,
    pair,
    pareto_share,
    whale_curve,
)

__all__ = [
    "Campaign", "Profit", "concentration", "contact_threshold", "decile_ratio", "expected_maximum_profit",
    "maximum_profit", "profit_curve",
]  # fmt: skip


@dataclass(frozen=True)
class Campaign:
    """A retention campaign: value of a kept customer, cost of incentive and contact, and γ ~ Beta(alpha, beta).

    The amounts are in one currency. By default costs are in the literature's proportions: an incentive of a twentieth
    of the value, a contact of a two-hundredth.
    """

    value: float = 200.0
    incentive: float = 10.0
    contact: float = 1.0
    alpha: float = 6.0
    beta: float = 14.0

    def __post_init__(self) -> None:
        """Raise `DataError` for negative costs, and for `alpha` or `beta` not above zero."""
        if not (self.incentive >= 0 and self.contact >= 0 and self.alpha > 0 and self.beta > 0):
            raise DataError(f"{self} is no campaign: costs start at 0, alpha and beta above 0")

    @property
    def accepted(self) -> float:
        """The mean share of contacted churners who accept and stay.

        >>> Campaign().accepted
        0.3
        """
        return self.alpha / (self.alpha + self.beta)

    @classmethod
    def of(cls, settings: CampaignCosts) -> Campaign:
        """Return the campaign with the costs of a project."""
        accepted = cls.alpha + cls.beta  # as sure of the share as the literature is
        share = settings.accepted_share
        return cls(cls.value, settings.incentive, settings.contact, accepted * share, accepted * (1 - share))

    @classmethod
    def in_proportion(cls, value: float) -> Campaign:
        """Return the campaign with the usual costs in proportion to a customer's value.

        >>> Campaign.in_proportion(400).incentive
        20.0
        """
        return cls(value, value / 20, value / 200)


class Profit(NamedTuple):
    """The profit of a campaign per customer of the base, and the share of customers to contact for it."""

    profit: float
    share: float


def expected_maximum_profit(actual: Column, predicted: Column, campaign: Campaign = Campaign()) -> Profit:
    """Return the mean of the best campaign's profit over the unknown acceptance γ; `actual` is 1 for a churner, else 0.

    For each γ the best threshold is a corner of the convex hull of (stayers, churners contacted); between two values of
    γ at which the corner changes, profit is linear in γ, so the mean over Beta(alpha, beta) is a sum of incomplete beta
    functions. A constant risk has two corners, nobody and everybody.

    >>> perfect = np.array([0, 0, 1, 1])
    >>> round(expected_maximum_profit(perfect, 0.1 + 0.8 * perfect).profit, 6)
    28.0
    """
    y, p = _checked(actual, predicted)
    stayers, churners = _hull(*(column / len(y) for column in _by_risk(p, 1 - y, y)))
    gain, loss = campaign.value - campaign.incentive, campaign.incentive + campaign.contact
    if gain <= 0:  # a kept customer is worth no more than the offer: nobody is contacted
        return Profit(0.0, 0.0)
    with np.errstate(divide="ignore"):
        slope = np.diff(stayers) / np.diff(churners)
    edges = np.clip(np.r_[0.0, (campaign.contact + loss * slope) / gain, 1.0], 0.0, 1.0)
    chance = np.diff(betainc(campaign.alpha, campaign.beta, edges))
    mean = campaign.accepted * np.diff(betainc(campaign.alpha + 1, campaign.beta, edges))
    profit = (gain * mean - campaign.contact * chance) @ churners - loss * (chance @ stayers)
    return Profit(float(profit), float(chance @ (churners + stayers)))


def maximum_profit(
    actual: Column, predicted: Column, campaign: Campaign = Campaign(), value: ArrayLike | None = None
) -> Profit:
    """Return the largest profit of a campaign at the mean acceptance, and the share contacted; never below 0.

    `value` is the value of each customer, instead of `campaign.value` for all.
    """
    shares, profit = profit_curve(actual, predicted, campaign, value)
    best = int(np.argmax(profit))
    return Profit(float(profit[best]), float(shares[best]))


def profit_curve(
    actual: Column, predicted: Column, campaign: Campaign = Campaign(), value: ArrayLike | None = None
) -> tuple[Floats, Floats]:
    """Return (share contacted, profit per customer of the base) at the mean acceptance, riskiest contacted first.

    >>> shares, profit = profit_curve(np.array([1, 0]), np.array([0.9, 0.1]))
    >>> shares.tolist(), profit.tolist()
    ([0.0, 0.5, 1.0], [0.0, 28.0, 22.5])
    """
    y, p = _checked(actual, predicted)
    worth = np.broadcast_to(np.asarray(campaign.value if value is None else value, dtype=np.float64), y.shape)
    kept = campaign.accepted * (worth - campaign.incentive) - campaign.contact
    each = y * kept - (1 - y) * (campaign.incentive + campaign.contact)
    count, earned = _by_risk(p, np.ones(len(p)), each)
    return count / len(p), earned / len(p)


def contact_threshold(value: ArrayLike, campaign: Campaign = Campaign()) -> Floats:
    """Return, for customers worth `value`, the churn risk from which a contact pays; inf where it never does.

    >>> contact_threshold([200, 20, -5]).round(3).tolist()
    [0.164, 0.846, inf]
    """
    worth = np.asarray(value, dtype=np.float64)
    kept_more = campaign.accepted * (worth - campaign.incentive) + campaign.incentive
    needed = campaign.incentive + campaign.contact
    return np.where(kept_more >= needed, needed / np.where(kept_more > 0, kept_more, 1.0), np.inf)


def concentration(values: Column) -> dict[str, float]:
    """Return measures of the concentration of value; `whale_peak` is the maximum of the whale curve.

    >>> round(concentration(np.array([120.0, 30.0, 0.0, 0.0, -50.0]))["whale_peak"], 6)
    1.5
    """
    return {
        "gini": gini_coefficient(values),
        "top_fifth_share": pareto_share(values),
        "herfindahl": herfindahl(values),
        "decile_ratio": decile_ratio(values),
        "whale_peak": float(np.max(whale_curve(values)[1])),
    }


def decile_ratio(values: Column) -> float:
    """Return the value of the best tenth of customers over that of the worst; NaN where the latter is not above zero.

    Reichheld (1996) found 5 to 10. Where a tenth falls inside a customer, that customer counts in part.

    >>> decile_ratio(np.arange(1.0, 11.0))
    10.0
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    at, total = np.arange(len(ordered) + 1), np.r_[0.0, np.cumsum(ordered)]
    worst = float(np.interp(len(ordered) / 10, at, total))
    best = float(total[-1] - np.interp(len(ordered) * 0.9, at, total))
    return best / worst if worst > 0 else float("nan")


def _by_risk(risk: Floats, *columns: Floats) -> tuple[Floats, ...]:
    """Return columns cumulated from the riskiest customer down, starting at nobody; equal risks are one step."""
    order = np.argsort(-risk, kind="stable")
    last = np.flatnonzero(np.r_[risk[order][1:] != risk[order][:-1], True])
    return tuple(np.r_[0.0, np.cumsum(column[order])[last]] for column in columns)


def _checked(actual: Column, predicted: Column) -> tuple[Floats, Floats]:
    y, p = pair(actual, predicted)
    check_probabilities(y, p)
    return y, p


def _hull(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Return the corners of the upper convex hull of points whose x and y never fall (Andrew 1979)."""
    kept: list[int] = []
    for k in range(len(x)):
        while len(kept) > 1 and not _turns_right(x, y, kept[-2], kept[-1], k):
            kept.pop()
        kept.append(k)
    if len(kept) > 1 and y[kept[-1]] == y[kept[-2]]:
        kept.pop()  # contacting more stayers for no churner never pays
    return x[kept], y[kept]


def _turns_right(x: Floats, y: Floats, i: int, j: int, k: int) -> bool:
    return bool((x[j] - x[i]) * (y[k] - y[i]) < (y[j] - y[i]) * (x[k] - x[i]))
