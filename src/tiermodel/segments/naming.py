"""Names of segments in words, made from the features on which they differ most from all customers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tiermodel.words import in_language, words

__all__ = ["dimension_of", "name_segments"]


_DIMENSIONS: Mapping[str, tuple[str, ...]] = {
    "recency": ("days_since_last", "overdue_ratio", "overdue_max_ratio", "silence_score"),
    "due": ("days_until_due", "contract_days_left"),
    "tenure": (
        *("days_since_first", "days_known", "days_since_signup", "days_signup_", "active_span_share"),
        *("btyd_age_days", "btyd_recency_days"),
    ),
    "season": (
        *("order_count_year_ago_", "net_amount_year_ago_", "amount_year_change_", "same_quarter_share"),
        "quarter_concentration",
    ),
    "contact_age": tuple(
        f"days_since_{kind}" for kind in ("visit", "click", "campaign", "response", "meeting", "referral")
    ),
    "contact": ("visit_", "click_", "campaign_", "response_", "meeting_", "referral_", "orders_per_visit"),
    "trouble_age": ("days_since_complaint", "days_since_ticket", "days_since_survey"),
    "trouble": ("complaint", "ticket"),
    "survey": ("survey_",),
    "late": ("late_share_", "days_late_", "days_to_pay_", "overdue_", "dispute_", "days_since_payment"),
    "invoices": ("invoice_", "open_amount"),
    "gap_spread": ("gap_days_std", "gap_variation"),
    "gap": ("gap_days_",),
    "trend": ("amount_change_", "order_change_", "recent_rate_", "amount_share_", "peak_ratio"),
    "order": (
        *("order_amount_mean", "last_day_amount", "last_to_mean_ratio", "btyd_spend_mean", "lines_per_order"),
        *("quantity_", "orders_per_purchase_day"),
    ),
    "frequency": ("purchase_days_", "order_count_", "orders_decayed_", "active_share", "btyd_frequency"),
    "margin": ("margin_", "profit_"),
    "service_cost": ("service_cost_",),
    "acquisition": ("acquisition_cost", "amount_to_acquisition_ratio", "payback_"),
    "spend": ("net_amount_", "amount_decayed_", "amount_per_", "peak_"),
    "breadth": ("product_count", "category_count", "new_product_count_", "new_category_count_", "channel_count"),
    "focus": ("product_concentration", "category_concentration", "channel_concentration"),
    "repeat": ("product_repeat_share", "rebuy_share_"),
    "discount": ("discount_",),
    "return": ("return_",),
    "weekend": ("weekend_share",),
}
"""What features tell, by the beginning of their names; the first that fits counts."""
_NEAR = 0.5  # a second feature is part of the name where its difference is at least half of the largest


def dimension_of(feature: str) -> str | None:
    """Return what a feature tells, such as `frequency`; None for an attribute of the customer, for which no word is.

    >>> dimension_of("purchase_days_365d"), dimension_of("overdue_amount"), dimension_of("attribute_age")
    ('frequency', 'late', None)
    """
    return next((name for name, beginnings in _DIMENSIONS.items() if feature.startswith(beginnings)), None)


def name_segments(
    profiles: Sequence[Mapping[str, Any]], kept: Mapping[int, Mapping[str, str]]
) -> list[dict[str, str] | None]:
    """Return the name of every segment in both languages, by `zh` and `en`, no two of them the same.

    `kept` has the names that stay, by position. The others have words for the one or two features of `profiles` that
    differ most, or for more where that name is taken; a number follows where no words are left. None for a segment that
    is too small to be described.
    """
    taken = {language: {name[language] for name in kept.values()} for language in ("zh", "en")}
    found: list[dict[str, str] | None] = []
    for position, profile in enumerate(profiles):
        name: Mapping[str, str] | None = kept.get(position)
        if name is None and profile["customers"]:
            free = (n for n in _candidates(profile["marks"]) if not any(n[text] in taken[text] for text in taken))
            name = next(free)
            for language, names in taken.items():
                names.add(name[language])
        found.append(None if name is None else dict(name))
    return found


def _candidates(marks: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, str]]:
    """Yield names, the best first: of the largest differences, of others, and the first again with a number."""
    distinct: dict[str, Mapping[str, Any]] = {}
    for mark in marks:  # the largest difference first
        distinct.setdefault(dimension_of(mark["feature"]) or mark["feature"], mark)
    chosen = list(distinct.values())
    near = len(chosen) > 1 and abs(chosen[1]["difference"]) >= _NEAR * abs(chosen[0]["difference"])
    first = _name(chosen[: 2 if near else 1], "")
    yield first
    for places in ((0, 1), (0, 2), (0, 1, 2), (1, 2)):
        if max(places) < len(chosen):
            yield _name([chosen[n] for n in places], "")
    number = 1
    while True:
        number += 1
        yield _name(chosen[: 2 if near else 1], f" {number}")


def _name(marks: Sequence[Mapping[str, Any]], number: str) -> dict[str, str]:
    found = {}
    for language in ("zh", "en"):
        wording = words(language)
        parts = [_word(mark, language) for mark in marks] or [wording["named_average"]]
        found[language] = wording["named"].format(words=in_language(language, "", ", ").join(parts), number=number)
    return found


def _word(mark: Mapping[str, Any], language: str) -> str:
    wording, end = words(language), "high" if mark["difference"] > 0 else "low"
    dimension = dimension_of(mark["feature"])
    if dimension is None:
        return wording[f"named_other_{end}"].format(name=mark["feature"].removeprefix("attribute_"))
    return wording[f"named_{dimension}_{end}"]
