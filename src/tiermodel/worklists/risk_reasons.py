"""Why a customer's churn risk is high: exact contributions, summed by what features tell, in words.

Contributions to the log-odds of churning add up to the risk (`evaluation.attribution`). Many features tell the same of
a customer, such as the days since the last purchase and their ratio to the mean gap; their contributions are summed,
which stays exact, and the sum is told by the features that a person knows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tiermodel.arrays import Floats
from tiermodel.bundle.bundle import Bundle
from tiermodel.evaluation.attribution import churn_contributions
from tiermodel.features.condition import feature_name
from tiermodel.features.formula import Feature
from tiermodel.models.btyd.forecast import BTYD_INPUTS
from tiermodel.segments.naming import dimension_of
from tiermodel.words import words

__all__ = ["REASONS", "RiskReasons", "risk_reasons", "topic_of"]

REASONS = 3
_RHYTHM, _SPEND = "rhythm", "spend"
_JOINED = {
    **dict.fromkeys(("recency", "due", "gap", "gap_spread"), _RHYTHM), "order": _SPEND, "focus": "breadth",
    "repeat": "breadth", "contact_age": "contact", "trouble_age": "trouble", "invoices": "late",
}  # fmt: skip
"""What tells the same of a customer as something else."""
_INPUTS = dict.fromkeys(BTYD_INPUTS, _RHYTHM) | {BTYD_INPUTS[2]: _SPEND, "contract_days_left": "contract"}
_NO_FACTS = (
    *("orders_decayed_", "amount_decayed_", "amount_year_change_", "btyd_", "silence_score", "active_share"),
    *("recent_rate_", "amount_share_", "peak_ratio", "last_to_mean_ratio", "same_quarter_share", "gap_variation"),
)
"""The features, by the beginning of their names, that say nothing to who has not read their definition."""
_CHANGE = re.compile(r"(?:amount|order)_change_(\d+)d")
_DECIMALS, _ROWS = 6, 2_000
_LEAST = 0.01  # a contribution that changes the odds by less than one in a hundred is no reason


@dataclass(frozen=True)
class RiskReasons:
    """The reasons of each row in words, and their contributions in log-odds, both of shape (rows, `REASONS`).

    A row has fewer where fewer topics raise its risk: then the text is empty and the contribution 0. `others` is the
    sum of the baseline and of all other contributions, so that the sum of a row is the log-odds of its risk.
    """

    texts: list[tuple[str, ...]]
    effects: Floats
    others: Floats


def topic_of(feature: str) -> str:
    """Return what an input of the churn model tells of a customer; an attribute tells of itself.

    >>> topic_of("overdue_ratio"), topic_of("pareto_p_zero"), topic_of("net_amount_30d"), topic_of("attribute_age")
    ('rhythm', 'rhythm', 'spend', 'attribute_age')
    """
    if feature in _INPUTS:
        return _INPUTS[feature]
    told = dimension_of(feature)
    return feature if told is None else _JOINED.get(told, told)


def risk_reasons(bundle: Bundle, frame: pd.DataFrame, language: str) -> RiskReasons:
    """Return the reasons of the churn risk of rows with the bundle's features, all of which are at risk."""
    parts = [
        _reasons(bundle, frame.iloc[start : start + _ROWS], language) for start in range(0, max(len(frame), 1), _ROWS)
    ]
    texts = [row for part in parts for row in part.texts]
    return RiskReasons(
        texts, np.concatenate([part.effects for part in parts]), np.concatenate([part.others for part in parts])
    )


def _reasons(bundle: Bundle, frame: pd.DataFrame, language: str) -> RiskReasons:
    x, names = bundle.inputs.matrix(frame), bundle.inputs.all_names
    if not len(frame):
        return RiskReasons([], np.empty((0, REASONS)), np.empty(0))
    baseline, each = churn_contributions(bundle.churn, x)
    topics = list(dict.fromkeys(map(topic_of, names)))
    columns = {topic: [j for j, name in enumerate(names) if topic_of(name) == topic] for topic in topics}
    sums = np.column_stack([each[:, columns[topic]].sum(axis=1) for topic in topics])
    order = np.argsort(-sums, axis=1, kind="stable")[:, :REASONS]
    effects = np.zeros((len(frame), REASONS))
    largest = np.take_along_axis(sums, order, axis=1)
    effects[:, : order.shape[1]] = np.where(largest >= _LEAST, largest, 0.0)
    tellers = [_Teller(topic, columns[topic], names, bundle.features, language) for topic in topics]
    texts = [
        tuple(
            tellers[topic].text(x[row], each[row]) if effects[row, place] > 0 else ""
            for place, topic in enumerate(order[row])
        )
        for row in range(len(frame))
    ]
    others = baseline + sums.sum(axis=1) - effects.sum(axis=1)
    return RiskReasons(texts, effects.round(_DECIMALS), others.round(_DECIMALS))


class _Teller:
    """The words of one topic, for a row of inputs and its contributions."""

    def __init__(
        self, topic: str, columns: list[int], names: list[str], features: Mapping[str, Feature], language: str
    ) -> None:
        self._wording, self._topic, self._names = words(language), topic, names
        self._columns = [j for j in columns if names[j] in features and not names[j].startswith(_NO_FACTS)]
        self._labels = {name: feature_name(name, features, language) for name in names}
        self._units: dict[str, str] = {name: feature.unit for name, feature in features.items()}

    def text(self, x: Floats, contributions: Floats) -> str:
        """Return the topic, and the feature of it that weighs most, with its value."""
        if self._topic == _RHYTHM:
            return self._rhythm(x)
        topic = "" if self._topic in self._names else self._wording[f"risk_topic_{self._topic}"]
        known = [j for j in self._columns if not np.isnan(x[j])]
        if not known:
            return topic or self._wording["risk_unknown"].format(name=self._labels[self._topic])
        most = max(known, key=lambda j: contributions[j])
        if change := _CHANGE.fullmatch(self._names[most]):
            told = self._wording["risk_less" if x[most] < 0 else "risk_more"]
            return told.format(days=change[1])
        fact = f"{self._labels[self._names[most]]} {self._value(most, x[most])}"
        return self._wording["risk_reason"].format(topic=topic, fact=fact) if topic else fact

    def _rhythm(self, x: Floats) -> str:
        since, gap = (x[self._names.index(name)] for name in ("days_since_last", "gap_days_mean"))
        if np.isnan(gap):
            return self._wording["risk_one_day"].format(since=since)
        told = self._wording["risk_silent" if since > gap else "risk_seldom"]
        return told.format(since=since, gap=max(gap, 1.0))

    def _value(self, column: int, value: float) -> str:
        unit = self._units[self._names[column]]
        if unit == "share":
            return f"{value:.0%}"
        return f"{value:,.0f}" if unit == "days" or value == round(value) else f"{value:,.2f}"
