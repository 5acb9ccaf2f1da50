"""Write fitted schemes in words: the reasons of every rule, and the rules as lines; exact for every kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tiermodel.features.tree import round_readable
from tiermodel.tiers import grid
from tiermodel.tiers.conditions import Condition, Named, Words, number
from tiermodel.tiers.kinds import MatrixScheme, RfmScheme
from tiermodel.tiers.parts import Index
from tiermodel.tiers.scheme import Scheme
from tiermodel.tiers.thresholds import condition_of
from tiermodel.words import in_language, words

__all__ = ["Fitted", "named", "reason_table", "rule_lines", "surrogate_line"]

_REASONS = 3


class Fitted(Protocol):
    """Have a scheme, its frozen state, and the module of its kind."""

    @property
    def scheme(self) -> Scheme:
        """Give the scheme."""

    @property
    def state(self) -> dict[str, Any]:
        """Give the frozen state."""

    @property
    def kind(self) -> Any:
        """Give the module of the scheme's kind."""


def named(fitted: Fitted, features: Mapping[str, Named]) -> dict[str, Named]:
    """Add names for what the scheme itself makes: points, and the points of an axis."""
    zh, en = words("zh"), words("en")
    made = {key: (zh[key], en[key]) for key in ("points", "learned_score")}
    if isinstance(fitted.scheme, MatrixScheme):
        made |= {
            f"points:{name}": (zh["axis_points"].format(name=a.name_zh), en["axis_points"].format(name=a.name_en))
            for name, a in fitted.scheme.axes.items()
        }
    return {**features, **{key: Words(*pair) for key, pair in made.items()}}


def reason_table(fitted: Fitted, features: Mapping[str, Named], language: str) -> tuple[NDArray[np.int64], list[str]]:
    """Give up to three reasons for every rule, then every veto, then for who never bought: positions in the words."""
    known = named(fitted, features)
    # the last conditions of a path are the ones that set the customer apart from the nearest other level
    rows = [
        [c.text(known, language) for c in rule][-_REASONS:]
        for rule in fitted.kind.conditions(fitted.scheme, fitted.state)
    ]
    rows = [row or [words(language)["no_condition"]] for row in rows]
    rows += [[in_language(language, v.name_zh, v.name_en)] for v in fitted.scheme.veto]
    rows.append([words(language)["no_purchase_yet"]])
    rows = [row + [""] * (_REASONS - len(row)) for row in rows]
    texts = list(dict.fromkeys(text for row in rows for text in row))
    position = {text: n for n, text in enumerate(texts)}
    return np.array([[position[text] for text in row] for row in rows], dtype=np.int64), texts


def rule_lines(fitted: Fitted, features: Mapping[str, Named], language: str) -> list[str]:
    """Write every rule that a customer can meet as one line, highest level first; a cascade keeps its order."""
    scheme, state, known = fitted.scheme, fitted.state, named(fitted, features)
    names, codes = scheme.names(language), scheme.codes
    levels = fitted.kind.levels_of_rules(scheme, state)
    cells = grid.cell_names(scheme, language) if isinstance(scheme, RfmScheme | MatrixScheme) else []
    found = []
    for i, rule in enumerate(fitted.kind.conditions(scheme, state)):
        if any(condition.impossible for condition in rule):
            continue
        level = codes.index(scheme.bought_levels[int(levels[i])])
        text = _joined(rule, known, language) or words(language)["everybody_else"]
        cell = f" · {cells[i]}" if scheme.kind == "matrix" and cells[i] else ""
        found.append((level, f"{names[level]} ({codes[level]}){cell}: {text}{_facts(fitted, i, language)}"))
    lines = [line for _, line in sorted(found, key=lambda pair: -pair[0])]
    return [*lines, *_veto_lines(fitted, known, language), *_index_lines(fitted, known, language)]


def surrogate_line(state: Mapping[str, Any], language: str) -> str:
    """Say that the rules which follow only imitate a learner, and how near they come to it."""
    say, fidelity = words(language), state["fidelity"]
    equal, kept = f"{fidelity['equal']:.1%}", fidelity["value_kept"]
    kappa = "-" if fidelity["qwk"] is None else f"{fidelity['qwk']:.3f}"
    value = say["surrogate_untested"] if kept is None else f"{kept:.1%}"
    return say["surrogate"].format(learner=say[f"learner_{state['learner']}"], equal=equal, kappa=kappa, value=value)


def _joined(rule: list[Condition], features: Mapping[str, Named], language: str) -> str:
    return words(language)["and"].join(c.text(features, language) for c in rule)


def _facts(fitted: Fitted, rule: int, language: str) -> str:
    if "leaves" not in fitted.state:
        return ""
    fact = fitted.state["leaves"][rule]
    value = "-" if fact["value_mean"] is None else f"{round_readable(fact['value_mean']):,.10g}"
    told = words(language)["rule_facts"].format(support=fact["support"], purity=fact["purity"], value=value)
    return f"  [{told}]"


def _veto_lines(fitted: Fitted, features: Mapping[str, Named], language: str) -> list[str]:
    scheme, lines = fitted.scheme, []
    for veto, fitted_veto in zip(scheme.veto, fitted.state.get("veto", []), strict=True):
        text = _joined([condition_of(c) for c in fitted_veto], features, language)
        level = scheme.names(language)[scheme.codes.index(veto.highest)]
        name = in_language(language, veto.name_zh, veto.name_en)
        lines.append(f"{words(language)['veto'].format(name=name, level=level)}: {text}")
    return lines


def _index_lines(fitted: Fitted, features: Mapping[str, Named], language: str) -> list[str]:
    """Write what the points are made of: every dimension with its weight and the span of its cut points."""
    scheme, lines = fitted.scheme, []
    indexes: list[tuple[str, Index, Mapping[str, Any]]] = []
    if isinstance(scheme, Index):
        indexes.append(("points", scheme, fitted.state))
    if isinstance(scheme, MatrixScheme):
        indexes += [
            (f"points:{name}", axis.index, fitted.state["points"][name])
            for name, axis in scheme.axes.items()
            if axis.index is not None
        ]
    for key, index, state in indexes:
        parts = []
        for d, weight, cuts in zip(index.dimensions, state["weights"], state["cuts"], strict=True):
            name = in_language(language, features[d.feature].zh, features[d.feature].en)
            less = "" if d.better == "higher" else words(language)["lower_is_better"]
            parts.append(f"{weight / 1000:g} × {name} ({number(cuts[0])} … {number(cuts[-1])}{less})")
        whole = in_language(language, features[key].zh, features[key].en)
        lines.append(f"{whole} = {' + '.join(parts)}")
    return lines
