"""Customer scores 客户评分 from 0 to 100: loyalty, willingness, need for service, credit, importance and potential.

A score is an index of several parts, each ranked among the buyers at fit. Parts whose table or column is not mapped are
left out and the others weigh more; a score without any part is not known. Scores are columns of the score table and can
be read by conditions, axes and dimensions of schemes, all but the potential; no model reads them.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

from tiermodel.tiers.schemes.load import settle_part
from tiermodel.tiers.schemes.schema import Index
from tiermodel.words import words

__all__ = [
    "EXPECTED_GROWTH",
    "HEADROOM",
    "POTENTIAL",
    "SCORES",
    "SILENCE",
    "WILLINGNESS",
    "CustomerScore",
    "index_of_score",
    "score_rows",
]


SILENCE = "silence_ratio"
"""Days since the last purchase over the customer's own rhythm: silent above 1, lost above 2."""
HEADROOM = "headroom_amount"
"""How far the spend lies below the upper quartile of similar customers; 0 for lost customers."""
EXPECTED_GROWTH = "expected_growth_amount"
"""Expected value less the value of an equal time before; known once the value model is."""
POTENTIAL = "score_potential"
WILLINGNESS = "score_willingness"


class Part(NamedTuple):
    """A feature of a score, its weight, and the better end; `|` separates alternatives, the first that is built."""

    feature: str
    weight: float
    better: str = "higher"


@dataclass(frozen=True)
class CustomerScore:
    """A score: its column, its names, its parts, and what has to be mapped for it."""

    name: str
    zh: str
    en: str
    parts: tuple[Part, ...]
    needs: str


SCORES: tuple[CustomerScore, ...] = (
    CustomerScore("score_loyalty", "忠诚度评分", "loyalty", (
        Part("active_share", 0.25), Part(SILENCE, 0.20, "lower"), Part("purchase_days_{longest}d", 0.15),
        Part("gap_variation", 0.10, "lower"), Part("product_repeat_share", 0.10),
        Part("complaints_per_order", 0.10, "lower"), Part("referral_count_total", 0.10),
    ), "transactions"),
    CustomerScore(WILLINGNESS, "合作意愿评分", "willingness to cooperate", (
        Part("response_ratio_{longest}d", 0.40), Part("meeting_count_{longest}d", 0.20),
        Part("visit_count_{longest}d", 0.20), Part("attribute_renewals", 0.20),
    ), "data.events of kinds campaign and response, meeting or visit, or the attribute renewals"),
    CustomerScore("score_service_need", "服务需求评分", "need for service", (
        Part("ticket_count_{longest}d", 0.35), Part("complaint_count_{longest}d", 0.25),
        Part("return_ratio_{longest}d | return_ratio_total | return_count_total", 0.25),
        Part("attribute_customisation", 0.15),
    ), "transactions with returns, data.events of kinds ticket and complaint, or the attribute customisation"),
    CustomerScore("score_credit", "信用评分", "credit", (
        Part("late_share_{longest}d", 0.25, "lower"), Part("days_late_mean", 0.15, "lower"),
        Part("overdue_amount", 0.25, "lower"), Part("dispute_ratio", 0.05, "lower"),
        Part("attribute_credit_grade", 0.20), Part("attribute_risk_appetite", 0.05, "lower"),
        Part("attribute_income_volatility", 0.05, "lower"),
    ), "data.invoices, or the attributes credit_grade, risk_appetite and income_volatility"),
    CustomerScore("score_importance", "重要性评分", "importance", (
        Part("margin_total | net_amount_total", 0.40), Part("days_since_first", 0.15), Part("active_share", 0.25),
        Part("attribute_wallet_share | attribute_market_share", 0.20),
    ), "transactions"),
    CustomerScore(POTENTIAL, "潜力评分", "potential", (
        Part(EXPECTED_GROWTH, 0.5), Part(HEADROOM, 0.5),
    ), "transactions"),
)  # fmt: skip
"""The scores in the order of their columns. Weights are those of declared judgement, not fitted."""


def score_rows(windows_days: Collection[int], built: Collection[str]) -> list[dict[str, str]]:
    """Return a row of the data dictionary for each score: its parts with weight and direction, or what it lacks."""
    rows = []
    for score in SCORES:
        index = index_of_score(score, windows_days, [*built, SILENCE, HEADROOM, EXPECTED_GROWTH])
        texts = {}
        for language in ("zh", "en"):
            wording = words(language)
            if index is None:
                texts[language] = wording["score_lacks"].format(needs=score.needs)
                continue
            lower = wording["lower_is_better"]
            parts = [f"{d.weight:.2f} × {d.feature}{lower if d.better == 'lower' else ''}" for d in index.dimensions]
            texts[language] = " + ".join(parts)
        rows.append({
            "feature": score.name, "group": "score", "unit": "0–100", "meaning": f"{score.en}: {texts['en']}",
            "含义": f"{score.zh}：{texts['zh']}",
        })  # fmt: skip
    return rows


def index_of_score(score: CustomerScore, windows_days: Collection[int], built: Collection[str]) -> Index | None:
    """Return the index of a score on the features that are built; None where none of its parts is."""
    parts = [{**part._asdict(), "optional": True} for part in score.parts]
    index = {"weights": "declared", "dimensions": parts, "best_ties": True}
    settled = settle_part(index, windows_days, built)
    return Index.model_validate(settled) if settled["dimensions"] else None
