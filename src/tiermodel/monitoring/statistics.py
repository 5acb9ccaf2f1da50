"""Intervals of shares and of survey scores, from counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from tiermodel.evaluation.bootstrap import interval

__all__ = ["Score", "survey_score", "wilson"]

_Z = 1.959963984540054
_DRAWS, _SEED = 2_000, 0
_TOP = 0.75  # of the way from the lowest to the highest answer: 4 and 5 of five
_PROMOTER, _DETRACTOR = 9, 6


class Score(NamedTuple):
    """The result of a question: the number of answers, the score, and its 95 % interval."""

    n: int
    score: float
    low: float
    high: float


def wilson(hits: float, n: float) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson 1927); NaN without an observation.

    >>> [round(end, 4) for end in wilson(8, 10)]
    [0.4902, 0.9433]
    """
    if n == 0:
        return float("nan"), float("nan")
    share, denominator = hits / n, 1 + _Z**2 / n
    middle = (share + _Z**2 / (2 * n)) / denominator
    half = _Z * np.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2)) / denominator
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))


def survey_score(kind: str, answers: Mapping[float, int], scale: tuple[float, float]) -> Score:
    """Return the score of a question from the number of customers' answers by value; NaN without an answer.

    `csat` is the share of satisfied answers, the upper quarter of the scale, with Wilson's interval; `nps` is the share
    of 9 and 10 less that of 0 to 6, times 100; any other question has the mean answer. Their intervals are percentiles
    of 2,000 bootstrap samples.

    >>> survey_score("nps", {10: 6, 7: 2, 0: 2}, (0, 10)).score
    40.0
    """
    n = sum(answers.values())
    if not n:
        return Score(0, float("nan"), float("nan"), float("nan"))
    values, counts = (np.array(part, dtype=np.float64) for part in zip(*sorted(answers.items()), strict=True))
    if kind == "csat":
        hits = float(counts[_is_satisfied(values, scale)].sum())
        return Score(n, hits / n, *wilson(hits, n))
    if kind == "nps":
        values = 100.0 * ((values >= _PROMOTER).astype(np.float64) - (values <= _DETRACTOR))
    draws = np.random.default_rng(_SEED).multinomial(n, counts / n, _DRAWS) @ values / n
    return Score(n, float(counts @ values / n), *interval(draws))


def _is_satisfied(values: np.ndarray, scale: tuple[float, float]) -> np.ndarray:
    """Return which answers are satisfied: those in the upper quarter of the scale."""
    low, high = scale
    satisfied: np.ndarray = values >= low + _TOP * (high - low)
    return satisfied
