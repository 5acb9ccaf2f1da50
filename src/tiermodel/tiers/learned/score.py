"""Levels by the score of a strong learner, cut once so that they hold the shares; an imitating tree gives the rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from tiermodel.arrays import Floats, Ints
from tiermodel.errors import ProjectError
from tiermodel.features.condition import Condition, Named
from tiermodel.models.learners import neural, ordinal
from tiermodel.tiers.kinds import cut_points
from tiermodel.tiers.learned import tree
from tiermodel.tiers.learned.scheme import SCORE, LearnedScheme
from tiermodel.tiers.learned.training_set import TrainingSet, matrix
from tiermodel.tiers.schemes.protocol import REASONS, Thresholds
from tiermodel.tiers.schemes.schema import Score
from tiermodel.words import words

__all__ = [
    "LEARNERS",
    "SPLITS",
    "assign",
    "conditions",
    "explain",
    "fit",
    "levels_of_rules",
    "ranking",
    "sure_levels",
    "surrogate_line",
    "thresholds",
    "with_texts",
    "without_texts",
]

LEARNERS: Mapping[str, Any] = {"ordinal_boosting": ordinal, "neural_network": neural}
SPLITS = (0.10, 0.25, 0.50, 0.75, 0.90)
"""The shares of customers at fit below the bounds of reasons."""


def fit(
    scheme: LearnedScheme, learner: str, training: TrainingSet, snapshot: pd.DataFrame, seed: int
) -> dict[str, Any]:
    """Return the fitted learner, the cut points of its score on a snapshot, and the tree that imitates the score."""
    names, levels = training.names, len(scheme.bought_levels)
    model = LEARNERS[learner].fit(training.x, training.target_level, levels, names, seed)
    state: dict[str, Any] = {"learner": learner, "names": names, "model": model}
    values = _score(state, snapshot)
    shares = dict(zip(scheme.bought_levels, training.shares, strict=True))
    state["level_cuts"] = cut_points.share_cuts(shares, values, capacity=scheme.capacities)
    state |= cut_points.band_edges(scheme, state["level_cuts"], values)
    state["splits"] = [_splits(name, snapshot) for name in names]
    score = _score(state, training.frame)
    by_score = replace(training, target_level=cut_points.level_of(state["level_cuts"], score), rank=None)
    # The tree learns the levels, not the score: an order has nearly all its spread among the many customers of low
    # levels, so that no leaf would be as small as the highest level, and the rules would not tell who is in it.
    return state | {"surrogate": tree.grow(scheme, by_score, seed)}


def _splits(name: str, frame: pd.DataFrame) -> list[float]:
    values = frame[name].to_numpy(dtype=np.float64)
    if np.isnan(values).all():
        return [0.0] * len(SPLITS)
    return cut_points.score_cuts(Score(feature=name, bins=len(SPLITS) + 1, quantiles=SPLITS), values)


def ranking(_scheme: LearnedScheme, state: dict[str, Any], frame: pd.DataFrame) -> Floats:
    """Return every buyer's score."""
    return _score(state, frame)


def _score(state: dict[str, Any], frame: pd.DataFrame) -> Floats:
    names = state["names"]
    score: Floats = LEARNERS[state["learner"]].score(state["model"], names, matrix(frame, names))
    return score


def assign(_scheme: LearnedScheme, state: dict[str, Any], frame: pd.DataFrame) -> tuple[Ints, Ints]:
    """Return every buyer's level among `bought_levels`, and the rule: the level itself."""
    level = cut_points.level_of(state["level_cuts"], _score(state, frame))
    return level, level


def sure_levels(_scheme: LearnedScheme, state: dict[str, Any], frame: pd.DataFrame) -> tuple[Ints, Ints]:
    """Return the lowest level within the band for moving up, and the highest within the band for moving down."""
    return cut_points.sure_levels_of(state, _score(state, frame))


def levels_of_rules(scheme: LearnedScheme, _state: dict[str, Any]) -> Ints:
    """Return the level of every rule: its own number."""
    return np.arange(len(scheme.bought_levels))


def conditions(_scheme: LearnedScheme, state: dict[str, Any]) -> list[list[Condition]]:
    """Return every rule's condition: bounds on the score."""
    return cut_points.level_conditions(SCORE, state["level_cuts"])


def explain(
    _scheme: LearnedScheme, state: dict[str, Any], frame: pd.DataFrame, features: Mapping[str, Named], language: str
) -> tuple[Ints, list[str]]:
    """Return the three features with the largest attributions, as bounds on the customer's value, with the direction.

    A bound is one of the values with 10, 25, 50, 75 and 90 % of the customers at fit at or below.
    """
    names = state["names"]
    x = matrix(frame, names)
    attributions = LEARNERS[state["learner"]].attributions(state["model"], names, x)
    strongest = np.argsort(-np.abs(attributions), axis=1, kind="stable")[:, :REASONS]
    ways = (words(language)["lowers_score"], words(language)["raises_score"])
    texts: list[str] = []
    first = []
    for name, cuts in zip(names, state["splits"], strict=True):
        first.append(len(texts))
        texts += [c.text(features, language) + way for c in cut_points.ranges(name, cuts) for way in ways]
    codes = np.full((len(frame), REASONS), len(texts))
    for k in range(strongest.shape[1]):
        for j in np.unique(strongest[:, k]):
            rows = np.flatnonzero(strongest[:, k] == j)
            place, attribution = cut_points.range_of(state["splits"][j], x[rows, j]), attributions[rows, j]
            codes[rows, k] = np.where(attribution == 0, len(texts), first[j] + 2 * place + (attribution > 0))
    return codes, [*texts, ""]


def thresholds(scheme: LearnedScheme, _state: dict[str, Any]) -> Thresholds:
    """Raise `ProjectError`: a score depends on all features together."""
    raise ProjectError(
        f"scheme {scheme.code}: its levels follow no rules on single features, so there is no change to name"
    )


def surrogate_line(state: Mapping[str, Any], language: str) -> str:
    """Return a line of text: the rules imitate a learner, and how closely they agree with it."""
    wording, fidelity = words(language), state["fidelity"]
    equal, kept = f"{fidelity['equal']:.1%}", fidelity["value_kept"]
    kappa = "-" if fidelity["qwk"] is None else f"{fidelity['qwk']:.3f}"
    value = wording["surrogate_untested"] if kept is None else f"{kept:.1%}"
    return wording["surrogate"].format(
        learner=wording[f"learner_{state['learner']}"], equal=equal, kappa=kappa, value=value
    )


def without_texts(state: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the state with file names in place of the text of boosted trees, and the texts by file name."""
    model = state["model"]
    if "trees" not in model:
        return state, {}
    names = [None if text is None else f"scheme_{k}.txt" for k, text in enumerate(model["trees"])]
    texts = {name: text for name, text in zip(names, model["trees"], strict=True) if name is not None}
    return {**state, "model": {**model, "trees": names}}, texts


def with_texts(state: dict[str, Any], files: Mapping[str, bytes]) -> dict[str, Any]:
    """Return the state with the texts in place of their file names."""
    model = state["model"]
    if "trees" not in model:
        return state
    trees = [None if name is None else files[name].decode() for name in model["trees"]]
    return {**state, "model": {**model, "trees": trees}}
