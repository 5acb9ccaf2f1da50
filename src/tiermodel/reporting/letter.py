"""Reasons of a tier as a letter tells them: the customer's own figure and the bounds of the rule, with units."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tiermodel.features.condition import Named, feature_name, number
from tiermodel.features.formula import Feature
from tiermodel.words import words

__all__ = ["plain_reasons"]

_NUMBER = r"-?[\d,]+(?:\.\d+)?(?:e[+-]?\d+)?"
_DECIMALS = {"amount": 2, "days": 0, "count": 0, "share": 3}
_MOST_DECIMALS = 9


@dataclass(frozen=True)
class _Told:
    """What a reason says of a feature: the feature's name as written, its bounds as signs and numbers, and the rest."""

    name: str
    bounds: list[tuple[str, float]]
    missing: bool
    rest: str


def plain_reasons(
    reasons: Iterable[str], own: Mapping[str, float], features: Mapping[str, Named], currency: str, language: str
) -> list[str]:
    """Return each reason as a sentence; one that is no bound on a feature stays as it is.

    `own` has the customer's values by feature; a feature that it lacks is told without one. Shares are told in percent.

    >>> from tiermodel.features.condition import Words
    >>> plain_reasons(["orders so far > 3"], {"n": 7}, {"n": Words("累计订单数", "orders so far")}, "", "en")
    ['Orders so far: 7, which meets the rule “above 3”']

    """
    by_name = {feature_name(code, features, language): code for code in features}
    sentences = []
    for reason in reasons:
        told = _read(reason, language)
        codes = [] if told is None else [name for name in by_name if told.name.endswith(name)]
        code = by_name[max(codes, key=len)] if codes else None
        sentences.append(reason if told is None else _sentence(told, code, own, features, currency, language))
    return sentences


def _read(reason: str, language: str) -> _Told | None:
    """Return what a condition's text says; None for a text of another kind."""
    wording = words(language)
    joined, missing = re.escape(wording["and"]), re.escape(wording["or_missing"])
    found = re.fullmatch(
        rf"(.+?) (?=[<>≤≥] )(?:([>≥]) ({_NUMBER}))?(?:{joined})?(?:([<≤]) ({_NUMBER}))?({missing})?(?:(?![\d.,])(.*))?",
        reason,
    )
    if found is None:
        return None
    pairs = [(found[2], found[3]), (found[4], found[5])]
    bounds = [(sign, float(text.replace(",", ""))) for sign, text in pairs if sign]
    return _Told(found[1], bounds, found[6] is not None, found[7] or "")


def _sentence(
    told: _Told,
    code: str | None,
    own: Mapping[str, float],
    features: Mapping[str, Named],
    currency: str,
    language: str,
) -> str:
    wording, feature = words(language), None if code is None else features[code]
    unit = feature.unit if isinstance(feature, Feature) else ""
    bounds = [
        wording[f"letter_bound_{_SIGNS[sign]}"].format(value=_measured(bound, unit, currency, language))
        for sign, bound in told.bounds
    ]
    rule = wording["letter_bounds_and"].join(bounds) + (wording["letter_or_missing"] if told.missing else "")
    name = told.name[:1].upper() + told.name[1:]
    value = None if code is None else own.get(code)
    if value is None:
        return wording["letter_reason_rule"].format(name=name, rule=rule, rest=told.rest)
    shown = (
        wording["letter_not_recorded"]
        if value != value  # noqa: PLR0124  NaN
        else _measured(_rounded(value, told, unit), unit, currency, language)
    )
    return wording["letter_reason_own"].format(name=name, own=shown, rule=rule, rest=told.rest)


_SIGNS = {">": "above", "≥": "at_least", "<": "below", "≤": "at_most"}


def _rounded(value: float, told: _Told, unit: str) -> float:
    """Return a value with the digits that people read, and as many more as it takes to stay within the bounds."""
    within = {">": float.__gt__, "≥": float.__ge__, "<": float.__lt__, "≤": float.__le__}
    for decimals in range(_DECIMALS.get(unit, 2), _MOST_DECIMALS):
        rounded = round(float(value), decimals)
        if all(within[sign](rounded, bound) for sign, bound in told.bounds):
            return rounded
    return float(value)


def _measured(value: float, unit: str, currency: str, language: str) -> str:
    """Return a number with its unit: days, money, percent, or none."""
    wording = words(language)
    if unit == "share":
        return wording["letter_percent"].format(value=number(round(100 * value, _MOST_DECIMALS)))
    if unit == "days":
        return wording["letter_days"].format(value=number(value))
    if unit == "amount" and currency:
        code = wording["letter_yuan"] if currency == "CNY" else currency
        shown = f"{value:,.2f}" if value == round(value, 2) else number(value)
        return wording["letter_money"].format(value=shown.removesuffix(".00"), currency=code)
    return number(value)
