"""Levels by the score of a strong learner, cut once at numbers that hold the shares; a small tree tells it in rules."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tiermodel.models.learners import neural, ordinal
from tiermodel.tiers import leaves
from tiermodel.tiers.conditions import Condition, Named
from tiermodel.tiers.cuts import band_edges, level_of, score_cuts, share_cuts
from tiermodel.tiers.kinds import LearnedScheme
from tiermodel.tiers.lessons import Lessons, matrix
from tiermodel.tiers.parts import Score

__all__ = ["LEARNERS", "SCORE", "assign", "conditions", "explain", "fit", "levels_of_rules", "span"]

Levels = NDArray[np.int64]
Floats = NDArray[np.float64]
LEARNERS: Mapping[str, Any] = {"ordinal_boosting": ordinal, "neural_network": neural}
SCORE = "learned_score"
_SPLITS = (0.10, 0.25, 0.50, 0.75, 0.90)
_REASONS = 3


def fit(scheme: LearnedScheme, learner: str, lessons: Lessons, snapshot: pd.DataFrame, seed: int) -> dict[str, Any]:
    """Fit the learner, cut its score on a snapshot so that the levels hold their shares, and have a tree imitate it."""
    names, levels = lessons.names, len(scheme.bought_levels)
    model = LEARNERS[learner].fit(lessons.x, lessons.wanted, levels, names, seed)
    state: dict[str, Any] = {"learner": learner, "names": names, "model": model}
    values = _score(state, snapshot)
    shares = dict(zip(scheme.bought_levels, lessons.shares, strict=True))
    state["level_cuts"] = share_cuts(shares, values, capacity=scheme.capacities)
    state |= band_edges(scheme, state["level_cuts"], values)
    state["splits"] = [_splits(name, snapshot) for name in names]
    score = _score(state, lessons.frame)
    told = Lessons(lessons.frame, names, level_of(state["level_cuts"], score), None, lessons.shares)
    return state | {"surrogate": leaves.imitate(scheme, told, score, seed)}


def _splits(name: str, frame: pd.DataFrame) -> list[float]:
    values = frame[name].to_numpy(dtype=np.float64)
    if np.isnan(values).all():
        return [0.0] * len(_SPLITS)
    return score_cuts(Score(feature=name, bins=len(_SPLITS) + 1, quantiles=_SPLITS), values)


def _score(state: dict[str, Any], frame: pd.DataFrame) -> Floats:
    names = state["names"]
    score: Floats = LEARNERS[state["learner"]].score(state["model"], names, matrix(frame, names))
    return score


def assign(_scheme: LearnedScheme, state: dict[str, Any], frame: pd.DataFrame) -> tuple[Levels, Levels]:
    """Give every buyer's level among `bought_levels`, and the rule: the level itself."""
    level = level_of(state["level_cuts"], _score(state, frame))
    return level, level


def span(_scheme: LearnedScheme, state: dict[str, Any], frame: pd.DataFrame) -> tuple[Levels, Levels]:
    """Give the lowest level within the band for moving up, and the highest within the band for moving down."""
    values = _score(state, frame)
    return level_of([high for _, high in state["up"]], values), level_of([low for low, _ in state["down"]], values)


def levels_of_rules(scheme: LearnedScheme, _state: dict[str, Any]) -> Levels:
    """Give the level of every rule: its own number."""
    return np.arange(len(scheme.bought_levels))


def conditions(_scheme: LearnedScheme, state: dict[str, Any]) -> list[list[Condition]]:
    """List each rule's condition: the score."""
    edges = [-np.inf, *state["level_cuts"], np.inf]
    return [[Condition(SCORE, low, high, closed_low=True)] for low, high in pairwise(edges)]


def explain(
    _scheme: LearnedScheme, state: dict[str, Any], frame: pd.DataFrame, features: Mapping[str, Named], language: str
) -> tuple[Levels, list[str]]:
    """Give the three features that moved the score most, as bounds within which the customer lies, and which way.

    A bound is one of the values with 10, 25, 50, 75 and 90 % of the customers at fit at or below.
    """
    names = state["names"]
    x = matrix(frame, names)
    pulls = LEARNERS[state["learner"]].pulls(state["model"], names, x)
    strongest = np.argsort(-np.abs(pulls), axis=1, kind="stable")[:, :_REASONS]
    ways = ("（拉低）", "（提升）") if language == "zh" else (" (lowers it)", " (raises it)")
    words: list[str] = []
    first = []
    for name, cuts in zip(names, state["splits"], strict=True):
        edges = [-np.inf, *cuts, np.inf]
        bounds = [Condition(name, low, high) for low, high in pairwise(edges)]
        bounds.append(Condition(name, np.inf, -np.inf, missing=True))
        first.append(len(words))
        words += [c.text(features, language) + way for c in bounds for way in ways]
    codes = np.full((len(frame), _REASONS), len(words))
    for k in range(strongest.shape[1]):
        for j in np.unique(strongest[:, k]):
            rows = np.flatnonzero(strongest[:, k] == j)
            value, pull, cuts = x[rows, j], pulls[rows, j], state["splits"][j]
            place = np.where(np.isnan(value), len(cuts) + 1, np.searchsorted(cuts, value, side="left"))
            codes[rows, k] = np.where(pull == 0, len(words), first[j] + 2 * place + (pull > 0))
    return codes, [*words, ""]
