"""The model card of a bundle: its purpose, data, rules, quality by group of customers, limits and contact.

Its items follow article 24 of China's Personal Information Protection Law and Mitchell et al. (2019, Model Cards).
Every number comes from the bundle.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from tiermodel.config.targets import Churn, Outcome
from tiermodel.evaluation.slices import FEWEST
from tiermodel.features.formula import Feature
from tiermodel.features.outcome import churn_question
from tiermodel.output import to_jsonable
from tiermodel.segments.profiles import segment_lines
from tiermodel.tiers.capacity import capacity_lines
from tiermodel.tiers.fitted_scheme import FittedScheme
from tiermodel.tiers.schemes.schema import BaseScheme
from tiermodel.words import in_language, words

__all__ = ["empty_level_lines", "level_lines", "model_card", "number", "share_rows"]


_YEAR_DAYS = 365
_SLACK = 0.01
_TARGETS = ("churn", "value", "tier", "upgrade", "prospects")
_CELLS = ("rate", "mean_risk", "log_loss", "ece", "ece_by_chance", "value_mean", "expected_mean")
_FEW_DATES = 3


def number(value: float | None) -> str:
    """Return a number as text in four significant digits; a dash for None.

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
    """Return the card of a bundle with these parts as Markdown, in both languages, the project's language first."""
    by_group: dict[str, list[str]] = {}
    for feature in (feature for feature in features.values() if feature.unit != "text"):  # models read numbers only
        by_group.setdefault(feature.group, []).append(feature.name)
    told = to_jsonable(facts)
    churn_zh = churn_question(Churn(**settings["churn"]), Outcome(**settings["outcome"]), "zh")
    same = {
        "name": name, "number": number, "churn_zh": churn_zh, "facts": told, "settings": settings,
        "scheme": scheme.scheme, "inputs": by_group, "fewest": FEWEST,
    }  # fmt: skip
    templates = Environment(
        loader=PackageLoader("tiermodel"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True, finalize=_as_text, autoescape=False,  # noqa: S701 Markdown, read as text
    )  # fmt: skip
    languages = in_language(settings["language"], ("zh", "en"), ("en", "zh"))
    return "\n---\n\n".join(
        templates.get_template(f"card.{language}.md.j2").render(
            say=words(language),
            levels=scheme.scheme.names(language),
            figures=_figures(told, language),
            rules=scheme.rules(features, language),
            places=capacity_lines(told.get("capacity", []), scheme.scheme, language),
            segments=segment_lines(segments, features, language),
            importance=_importance(told, features, language),
            slices=[
                {**row, "by_name": _by(row, language), "cells": [number(row[key]) for key in _CELLS]}
                for row in told["slices"]
            ],
            proxies=_proxies(told, features, language),
            shares=share_rows(told, scheme.scheme, language),
            limits=[
                *empty_level_lines(told, scheme.scheme, language),
                *level_lines(told.get("level"), language),
                *_limits(told, language),
            ],
            **same,
        )
        for language in languages
    )


def _as_text(value: object) -> object:
    r"""Return a value as Markdown that is text: no tag, no link, no cell of a table, no further line.

    >>> _as_text("<b>a|b</b>\n[x](javascript:1)")
    '&lt;b>a\\|b&lt;/b> [x]\\(javascript:1)'
    """
    if not isinstance(value, str):
        return value
    text = re.sub(r"<(?=[A-Za-z/!?])", "&lt;", re.sub(r"\s*[\x00-\x1f\x7f\x85\u2028\u2029]+\s*", " ", value))
    text = re.sub(r"\](?=[\[(:])", r"]\\", text).replace("|", "\\|")
    return text.replace("`", "\\`") if text.count("`") % 2 else text


def _by(row: Mapping[str, Any], language: str) -> str:
    return words(language).get(f"by_{row['by']}", row["by"])


def _importance(
    facts: Mapping[str, Any], features: Mapping[str, Feature], language: str
) -> dict[str, list[tuple[str, str, str]]]:
    """Return the inputs that move each target most, as (name in words, size, direction)."""
    return {
        target: [
            (
                _named(r["feature"], features, language),
                number(r["size"]),
                "–" if r["direction"] is None else f"{r['direction']:+.2f}",
            )
            for r in rows
        ]
        for target, rows in facts.get("importance", {}).items()  # a bundle made by hand may lack it
    }


def _named(feature: str, features: Mapping[str, Feature], language: str) -> str:
    known = features.get(feature)
    if known is None:  # an input that is no feature: the forecast of a buy-till-you-die model
        return words(language)[f"input_{feature}"]
    return in_language(language, known.zh, known.en)


def _proxies(facts: Mapping[str, Any], features: Mapping[str, Feature], language: str) -> list[list[str]] | None:
    """Return the cells of the proxy audit, one row for each audited attribute; None without such attributes."""
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


def share_rows(facts: Mapping[str, Any], scheme: BaseScheme, language: str) -> list[list[str]]:
    """Return a row for each group of an audited attribute, and tier or service: group, which, share with interval.

    Services are told apart only where several tiers have the same one. No row where nothing is audited.
    """
    names, policies = (
        dict(zip(scheme.codes, found(language), strict=True)) for found in (scheme.names, scheme.policies)
    )
    rows = []
    for row in facts.get("shares", []):
        cells = {names[code]: share for code, share in row["tiers"].items()}
        merged = any("+" in codes for codes in row["services"])
        cells |= {policies[codes.split("+")[0]]: s for codes, s in row["services"].items()} if merged else {}
        rows += [
            [row["attribute"], row["group"], number(row["customers"]), name, _share_text(share, language)]
            for name, share in cells.items()
        ]
    return rows


def _share_text(share: list[float] | None, language: str) -> str:
    if share is None:
        return words(language)["share_hidden"]
    return "{} [{}, {}]".format(*map(number, share))


def _figures(facts: Mapping[str, Any], language: str) -> dict[str, list[str]]:
    """Return the metrics of every target as text, each with its 95 % interval where there is one."""
    found: dict[str, list[str]] = {}
    for target, figures in sorted(facts["later"].items(), key=lambda item: _TARGETS.index(item[0])):
        ends = facts["intervals"].get(target, {})
        found[target] = [
            f"{_metric(name, language)} {number(value)}"
            + (f" [{number(ends[name][0])}, {number(ends[name][1])}]" if name in ends else "")
            for name, value in sorted(figures.items())
        ]
    return found


def _metric(name: str, language: str) -> str:
    """Return the name of a metric; in English that of the results."""
    return words(language).get(f"metric_{name}", words(language)[f"figure_{name}"]) if language == "zh" else name


def empty_level_lines(facts: Mapping[str, Any], scheme: BaseScheme, language: str) -> list[str]:
    """Return a line that names the levels which no customer reached at fit; no line where each is reached."""
    names = dict(zip(scheme.codes, scheme.names(language), strict=True))
    empty = [names[code] for code in facts.get("empty_levels", [])]
    wording = words(language)
    return [wording["level_empty"].format(names=wording["comma"].join(empty))] if empty else []


def level_lines(level: Mapping[str, Any] | None, language: str) -> list[str]:
    """Return a line on how far the levels of churn and value may be off; no line where a year before was seen.

    >>> level = {"year_seen": False, "churn_points": 4.2, "value_low": -0.3, "value_high": 0.43}
    >>> level_lines(level, "en")[0][-73:]
    'may be off by ±4.2 points, total expected value by -30 % to +43 % (90 %).'
    """
    if level is None or level["year_seen"]:
        return []
    ends = {end: f"{level[f'value_{end}']:+.0%}".replace("%", " %") for end in ("low", "high")}
    return [words(language)["level_unseen"].format(churn=f"{level['churn_points']:.1f}", **ends)]


def _limits(facts: Mapping[str, Any], language: str) -> Iterator[str]:
    """Yield the limits that the training itself shows: little history, few later dates, uncalibrated groups."""
    wording = words(language)
    if facts["history_days"] < _YEAR_DAYS:
        yield wording["limit_season"].format(days=facts["history_days"])
    if len(facts["later_dates"]) < _FEW_DATES:
        yield wording["limit_dates"].format(n=len(facts["later_dates"]))
    for row in facts["slices"]:
        if row["ece"] is not None and row["ece"] > row["ece_by_chance"] + _SLACK:
            yield wording["limit_uncalibrated"].format(
                by=_by(row, language), group=row["group"], ece=number(row["ece"]), chance=number(row["ece_by_chance"])
            )
