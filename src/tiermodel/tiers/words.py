"""Write fitted schemes in words: the reasons of every rule, and the rules as lines; exact for every kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tiermodel.models.learners.readable_tree import round_readable
from tiermodel.tiers import grid
from tiermodel.tiers.conditions import Condition, Named, Words, number
from tiermodel.tiers.kinds import MatrixScheme, RfmScheme
from tiermodel.tiers.parts import Index
from tiermodel.tiers.scheme import Scheme
from tiermodel.tiers.thresholds import condition_of

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
    made = {"points": ("综合得分", "composite points"), "learned_score": ("学习得分", "learned score")}
    if isinstance(fitted.scheme, MatrixScheme):
        made |= {
            f"points:{name}": (f"{a.name_zh}得分", f"{a.name_en} points") for name, a in fitted.scheme.axes.items()
        }
    return {**features, **{key: Words(*words) for key, words in made.items()}}


def reason_table(fitted: Fitted, features: Mapping[str, Named], language: str) -> tuple[NDArray[np.int64], list[str]]:
    """Give up to three reasons for every rule, then every veto, then for who never bought: positions in the words."""
    known = named(fitted, features)
    # the last conditions of a path are the ones that set the customer apart from the nearest other level
    rows = [
        [c.text(known, language) for c in rule][-_REASONS:]
        for rule in fitted.kind.conditions(fitted.scheme, fitted.state)
    ]
    everyone_else = "不满足更高等级的条件" if language == "zh" else "meets no condition of a higher level"
    rows = [row or [everyone_else] for row in rows]
    rows += [[v.name_zh if language == "zh" else v.name_en] for v in fitted.scheme.veto]
    rows.append(["尚无购买" if language == "zh" else "no purchase yet"])
    rows = [row + [""] * (_REASONS - len(row)) for row in rows]
    words = list(dict.fromkeys(word for row in rows for word in row))
    position = {word: n for n, word in enumerate(words)}
    return np.array([[position[word] for word in row] for row in rows], dtype=np.int64), words


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
        words = _joined(rule, known, language) or ("其他" if language == "zh" else "everybody else")
        cell = f" · {cells[i]}" if scheme.kind == "matrix" and cells[i] else ""
        found.append((level, f"{names[level]} ({codes[level]}){cell}: {words}{_facts(fitted, i, language)}"))
    lines = [line for _, line in sorted(found, key=lambda pair: -pair[0])]
    return [*lines, *_veto_lines(fitted, known, language), *_index_lines(fitted, known, language)]


_LEARNERS = {"ordinal_boosting": ("有序提升树", "ordinal boosting"), "neural_network": ("神经网络", "a neural network")}


def surrogate_line(state: Mapping[str, Any], language: str) -> str:
    """Say that the rules which follow only imitate a learner, and how near they come to it."""
    zh, fidelity = language == "zh", state["fidelity"]
    learner = _LEARNERS[state["learner"]][0 if zh else 1]
    equal, kept = f"{fidelity['equal']:.1%}", fidelity["value_kept"]
    kappa = "-" if fidelity["qwk"] is None else f"{fidelity['qwk']:.3f}"
    value = ("未在后续日期检验" if zh else "not tried on later dates") if kept is None else f"{kept:.1%}"
    if zh:
        return f"等级由{learner}给出；以下规则只是其近似：等级相同 {equal}，加权 kappa {kappa}，保留所捕获价值 {value}"
    return (
        f"tiers come from {learner}; these rules only imitate it: same tier {equal}, weighted kappa {kappa}, "
        f"captured value kept {value}"
    )


def _joined(rule: list[Condition], features: Mapping[str, Named], language: str) -> str:
    return (" 且 " if language == "zh" else " and ").join(c.text(features, language) for c in rule)


def _facts(fitted: Fitted, rule: int, language: str) -> str:
    if "leaves" not in fitted.state:
        return ""
    fact = fitted.state["leaves"][rule]
    words = ("占比", "纯度", "后续价值") if language == "zh" else ("support", "purity", "value that followed")
    value = "-" if fact["value_mean"] is None else f"{round_readable(fact['value_mean']):,.10g}"
    figures = (f"{fact['support']:.1%}", f"{fact['purity']:.0%}", value)
    return f"  [{', '.join(f'{word} {figure}' for word, figure in zip(words, figures, strict=True))}]"


def _veto_lines(fitted: Fitted, features: Mapping[str, Named], language: str) -> list[str]:
    zh, scheme = language == "zh", fitted.scheme
    lines = []
    for veto, fitted_veto in zip(scheme.veto, fitted.state.get("veto", []), strict=True):
        words = _joined([condition_of(c) for c in fitted_veto], features, language)
        level = scheme.names(language)[scheme.codes.index(veto.highest)]
        head = f"一票否决（{veto.name_zh}），最高为 {level}" if zh else f"veto ({veto.name_en}), {level} at most"
        lines.append(f"{head}: {words}")
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
            name = features[d.feature].zh if language == "zh" else features[d.feature].en
            less = "" if d.better == "higher" else ("，越低越好" if language == "zh" else ", lower is better")
            parts.append(f"{weight / 1000:g} × {name} ({number(cuts[0])} … {number(cuts[-1])}{less})")
        whole = features[key].zh if language == "zh" else features[key].en
        lines.append(f"{whole} = {' + '.join(parts)}")
    return lines
