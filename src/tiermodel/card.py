"""Write a bundle's model card: what it is for, from which data, how good for whom, its limits, and whom to ask.

The items are those that article 24 of China's Personal Information Protection Law and Mitchell et al. (2019, Model
Cards) ask for, in Chinese and in English, the project's language first. Every number comes from the bundle.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from tiermodel.evaluation.slices import FEWEST
from tiermodel.features.formula import Feature
from tiermodel.output import to_jsonable
from tiermodel.tiers.assign import FittedScheme
from tiermodel.tiers.profiles import segment_lines
from tiermodel.words import words

__all__ = ["model_card", "number"]

_YEAR_DAYS = 365
_SLACK = 0.01
_TARGETS = ("churn", "value", "tier", "upgrade", "prospects")
_CELLS = ("rate", "mean_risk", "log_loss", "ece", "ece_by_chance", "value_mean", "expected_mean")
_LIMITS = {
    "zh": {
        "season": "数据不足一年（{days} 天），没有见过的季节会使流失率和价值的总水平偏离。",
        "dates": "只有 {n} 个检验日，检验日之间的差异看不全。",
        "uncalibrated": "{by} {group}：校准误差 {ece} 超出偶然上限 {chance}，该群体的流失风险不宜直接当作概率。",
    },
    "en": {
        "season": "The data span {days} days, less than a year: seasons not seen move the level of churn and value.",
        "dates": "There are only {n} later dates, too few to see how dates differ.",
        "uncalibrated": "{by} {group}: the calibration error {ece} is beyond chance ({chance}), so do not read this "
        "group's risk as a probability.",
    },
}
_FEW_DATES = 3


def number(value: float | None) -> str:
    """Show a figure in four significant digits, as the card does.

    >>> number(0.29541), number(12345.678), number(None)
    ('0.2954', '12346', '–')
    """
    if value is None:
        return "–"
    return f"{value:.0f}" if abs(value) >= 1e4 else f"{value:.4g}"


def model_card(
    name: str,
    settings: Mapping[str, Any],
    facts: Mapping[str, Any],
    features: Mapping[str, Feature],
    scheme: FittedScheme,
    segments: Mapping[str, Any],
) -> str:
    """Give the card of a bundle with these parts in both languages as Markdown, the project's language first."""
    by_group: dict[str, list[str]] = {}
    for feature in features.values():
        by_group.setdefault(feature.group, []).append(feature.name)
    told = to_jsonable(facts)
    same = {
        "name": name, "number": number, "churn_zh": _churn_in_chinese(settings), "facts": told, "settings": settings,
        "scheme": scheme.scheme, "inputs": by_group, "figures": _figures(told), "fewest": FEWEST,
    }  # fmt: skip
    templates = Environment(
        loader=PackageLoader("tiermodel"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True, autoescape=False,  # noqa: S701 Markdown, read as text
    )  # fmt: skip
    languages = ("zh", "en") if settings["language"] == "zh" else ("en", "zh")
    return "\n---\n\n".join(
        templates.get_template(f"card.{language}.md.j2").render(
            levels=scheme.scheme.names(language),
            rules=scheme.rules(features, language),
            segments=segment_lines(segments, features, language),
            importance=_importance(told, features, language),
            slices=[
                {**row, "by_name": _by(row, language), "cells": [number(row[key]) for key in _CELLS]}
                for row in told["slices"]
            ],
            proxies=_proxies(told, features, language),
            limits=list(_limits(told, language)),
            **same,
        )
        for language in languages
    )


def _by(row: Mapping[str, Any], language: str) -> str:
    return words(language).get(f"by_{row['by']}", row["by"])


def _importance(
    facts: Mapping[str, Any], features: Mapping[str, Feature], language: str
) -> dict[str, list[tuple[str, str, str]]]:
    """Name the inputs that move each target most, in words, with size and direction."""
    return {
        target: [
            (
                _named(r["feature"], features, language),
                number(r["size"]),
                "–" if r["direction"] is None else f"{r['direction']:+.2f}",
            )
            for r in rows
        ]
        for target, rows in facts.get("importance", {}).items()  # as figures, bundles made by hand may lack it
    }


def _named(feature: str, features: Mapping[str, Feature], language: str) -> str:
    known = features.get(feature)
    if known is None:  # what a buy-till-you-die model expects
        return words(language)[f"input_{feature}"]
    return known.zh if language == "zh" else known.en


def _proxies(facts: Mapping[str, Any], features: Mapping[str, Feature], language: str) -> list[list[str]] | None:
    """Give the cells of what the inputs tell of each audited attribute; None where there is none to audit by."""
    if "proxies" not in facts:
        return None
    return [
        [
            row["attribute"], number(row["customers"]), words(language)[f"told_by_{row['metric']}"],
            f"{number(row['told'])} [{number(row['low'])}, {number(row['high'])}]", number(row["chance"]),
            words(language)["semicolon"].join(
                f"{_named(one['feature'], features, language)} {number(one['told'])}" for one in row["inputs"]
            ) or words(language)["told_by_chance"],
        ]
        for row in facts["proxies"]
    ]  # fmt: skip


def _churn_in_chinese(settings: Mapping[str, Any]) -> str:
    """Say what churn means; in English the facts do."""
    churn, outcome = settings["churn"], settings["outcome"]
    gap = outcome["gap_days"] if churn["gap_days"] is None else churn["gap_days"]
    days = churn["horizon_days"] or outcome["horizon_days"]
    window = f"某日{f'之后间隔 {gap} 天起' if gap else '起'} {days} 天内"
    renewal, active = churn["contract_renewal_days"], churn["active_days"]
    what = f"{window}不再购买" if renewal is None else f"合同在{window}到期、且到期后 {renewal} 天内未续"
    return what + ("" if active is None else f"（仅限此前 {active} 天内有购买的客户）")


def _figures(facts: Mapping[str, Any]) -> dict[str, list[str]]:
    """Show every figure of every target, with its interval where there is one."""
    found: dict[str, list[str]] = {}
    for target, figures in sorted(facts["later"].items(), key=lambda item: _TARGETS.index(item[0])):
        ends = facts["intervals"].get(target, {})
        found[target] = [
            f"{name} {number(value)}" + (f" [{number(ends[name][0])}, {number(ends[name][1])}]" if name in ends else "")
            for name, value in sorted(figures.items())
        ]
    return found


def _limits(facts: Mapping[str, Any], language: str) -> Iterator[str]:
    """Say what the run itself shows to be weak."""
    say = _LIMITS[language]
    if facts["history_days"] < _YEAR_DAYS:
        yield say["season"].format(days=facts["history_days"])
    if len(facts["later_dates"]) < _FEW_DATES:
        yield say["dates"].format(n=len(facts["later_dates"]))
    for row in facts["slices"]:
        if row["ece"] is not None and row["ece"] > row["ece_by_chance"] + _SLACK:
            yield say["uncalibrated"].format(
                by=_by(row, language),
                group=row["group"],
                ece=number(row["ece"]),
                chance=number(row["ece_by_chance"]),
            )
