"""Fitted schemes as text: the reasons of every rule, and the rules as lines; exact for every kind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from tiermodel.arrays import Flags, Ints
from tiermodel.config.tiers import Strata
from tiermodel.features.condition import Condition, Named, feature_name, number
from tiermodel.tiers.fitted_features import fitted_names
from tiermodel.tiers.kinds.thresholds import condition_of
from tiermodel.tiers.schemes.protocol import REASONS, LearningKind, SchemeKind
from tiermodel.tiers.schemes.schema import BaseScheme
from tiermodel.words import in_language, words

__all__ = ["Fitted", "named", "reason_table", "rule_lines", "stratified_lines", "stratified_reasons"]


class Fitted(Protocol):
    """A scheme with its frozen state and the implementation of its kind."""

    @property
    def scheme(self) -> BaseScheme:
        """The scheme."""

    @property
    def state(self) -> dict[str, Any]:
        """The frozen state."""

    @property
    def kind(self) -> SchemeKind[Any]:
        """The implementation of the scheme's kind."""


def named(fitted: Fitted, features: Mapping[str, Named]) -> dict[str, Named]:
    """Return the names of all features, of fitted ones, and of quantities that the scheme makes, such as points."""
    return {**features, **fitted_names(), **fitted.scheme.made_names}


def reason_table(fitted: Fitted, features: Mapping[str, Named], language: str) -> tuple[Ints, list[str]]:
    """Return up to three reasons for every rule, then for every veto, then for customers without a purchase.

    Reasons are positions in the list of words, shape (rules + vetoes + 1, 3).
    """
    rows = [row + [""] * (REASONS - len(row)) for row in _reasons(fitted, features, language)]
    texts = list(dict.fromkeys(text for row in rows for text in row))
    position = {text: n for n, text in enumerate(texts)}
    return np.array([[position[text] for text in row] for row in rows], dtype=np.int64), texts


def _reasons(fitted: Fitted, features: Mapping[str, Named], language: str) -> Iterator[list[str]]:
    wording, known = words(language), named(fitted, features)
    for rule in fitted.kind.conditions(fitted.scheme, fitted.state):
        # the last conditions of a path separate the customer from the nearest other level
        yield [c.text(known, language) for c in rule[-REASONS:]] or [wording["no_condition"]]
    yield from ([in_language(language, v.name_zh, v.name_en)] for v in fitted.scheme.veto)
    yield [wording["no_purchase_yet"]]


def rule_lines(fitted: Fitted, features: Mapping[str, Named], language: str) -> list[str]:
    """Return every rule that a customer can meet as a line, highest level first; a cascade keeps its order."""
    scheme, state, known = fitted.scheme, fitted.state, named(fitted, features)
    names, codes = scheme.names(language), scheme.codes
    levels = fitted.kind.levels_of_rules(scheme, state)
    rule_names = scheme.rule_names(language)
    facts = fitted.kind.rule_facts(state, language) if isinstance(fitted.kind, LearningKind) else []
    found = []
    for i, rule in enumerate(fitted.kind.conditions(scheme, state)):
        if any(condition.impossible and not condition.missing for condition in rule):
            continue
        level = codes.index(scheme.bought_levels[int(levels[i])])
        text = _joined(rule, known, language) or words(language)["everybody_else"]
        name = f" · {rule_names[i]}" if rule_names and rule_names[i] else ""
        found.append((level, f"{names[level]} ({codes[level]}){name}: {text}{f'  [{facts[i]}]' if facts else ''}"))
    lines = [line for _, line in sorted(found, key=lambda pair: -pair[0])]
    return [*lines, *_veto_lines(fitted, known, language), *_index_lines(fitted, known, language)]


def stratified_lines(
    by_value: Mapping[str, list[str]],
    rest: list[str],
    strata: Strata,
    features: Mapping[str, Named],
    language: str,
) -> list[str]:
    """Return the lines of every stratum, then those of all others, each with its customers; equal last lines once."""
    wording, name = words(language), feature_name(strata.feature, features, language)
    shared = _shared_end([*by_value.values(), rest])
    lines = []
    for value, own in by_value.items():
        lines += [wording["stratum"].format(name=name, value=value, rule=line) for line in own[: len(own) - shared]]
    lines += [wording["stratum_rest"].format(name=name, rule=line) for line in rest[: len(rest) - shared]]
    return [*lines, *rest[len(rest) - shared :]]


def _shared_end(lists: Sequence[list[str]]) -> int:
    """Return how many last lines are the same in all lists.

    >>> _shared_end([["a", "c", "d"], ["b", "c", "d"]]), _shared_end([["a"], ["b"]])
    (2, 0)
    """
    alike = (len(set(lines)) == 1 for lines in zip(*(reversed(own) for own in lists), strict=False))
    return next((n for n, same in enumerate(alike) if not same), min(map(len, lists)))


def stratified_reasons(
    codes: Ints, texts: list[str], by_rule: Flags, value: str, language: str
) -> tuple[Ints, list[str]]:
    """Return reasons of a stratum; the first says so where a rule decided, so not a veto."""
    wording = words(language)["stratum_reason"]
    named_texts = [wording.format(reason=text, value=value) if text else text for text in texts]
    first = np.where(by_rule, codes[:, 0] + len(texts), codes[:, 0])
    return np.column_stack([first, codes[:, 1:]]), [*texts, *named_texts]


def _joined(rule: list[Condition], features: Mapping[str, Named], language: str) -> str:
    return words(language)["and"].join(c.text(features, language) for c in rule)


def _veto_lines(fitted: Fitted, features: Mapping[str, Named], language: str) -> list[str]:
    scheme, lines = fitted.scheme, []
    for veto, fitted_veto in zip(scheme.veto, fitted.state.get("veto", []), strict=True):
        text = _joined([condition_of(c) for c in fitted_veto], features, language)
        level = scheme.names(language)[scheme.codes.index(veto.highest)]
        name = in_language(language, veto.name_zh, veto.name_en)
        lines.append(f"{words(language)['veto'].format(name=name, level=level)}: {text}")
    return lines


def _index_lines(fitted: Fitted, features: Mapping[str, Named], language: str) -> list[str]:
    """Return, as text, the dimensions of every index with their weights and the ranges of their cut points."""
    lines = []
    for key, index, state in fitted.scheme.indexes(fitted.state):
        parts = []
        for d, weight, cuts in zip(index.dimensions, state["weights"], state["cuts"], strict=True):
            name = in_language(language, features[d.feature].zh, features[d.feature].en)
            less = "" if d.better == "higher" else words(language)["lower_is_better"]
            parts.append(f"{weight / 1000:g} × {name} ({number(cuts[0])} … {number(cuts[-1])}{less})")
        whole = in_language(language, features[key].zh, features[key].en)
        lines.append(f"{whole} = {' + '.join(parts)}")
    return lines
