"""Tell segments in words: how many customers, and what sets them apart from the mean, in the catalogue's words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tiermodel.features.panel import feature_names
from tiermodel.models.learners.preprocessing import signed_log
from tiermodel.tiers.conditions import Named
from tiermodel.tiers.segments import segment_names

__all__ = ["SMALLEST", "profiles_of", "segment_lines", "sorted_profiles"]

SMALLEST = 5
"""Groups of fewer customers are not described: a median of a few would tell what one of them did."""
_MARKS, _LEAST, _ALIKE = 3, 0.3, 0.8
_CORRELATED = 20_000
_METHODS = {
    "kmeans": ("k均值", "k-means"),
    "gaussian_mixture": ("高斯混合", "Gaussian mixture"),
    "hdbscan": ("密度聚类 HDBSCAN", "HDBSCAN (density)"),
}


def profiles_of(state: Mapping[str, Any], frame: pd.DataFrame, labels: NDArray[np.int64]) -> list[dict[str, Any]]:
    """Describe every group of buyers: share, customers, and up to three features that set it apart most.

    A difference is that of the mean of a feature's signed logarithm, in its standard deviations over all buyers, 0.3 at
    least; features that go together (correlation above 0.8) count once. Medians are of those who have a value.
    """
    names = feature_names(frame)
    z = np.column_stack([_standard(frame[name].to_numpy(dtype=np.float64)) for name in names])
    step = max(1, len(z) // _CORRELATED)
    varies = z.std(axis=0) > 0
    alike = np.eye(len(names))
    alike[np.ix_(varies, varies)] = np.abs(np.corrcoef(z[::step, varies] + 0.0, rowvar=False))
    found = []
    for position in range(len(segment_names(state))):
        inside = labels == position
        customers = int(inside.sum())
        profile: dict[str, Any] = {"share": customers / len(frame), "customers": customers, "marks": []}
        if customers < SMALLEST:
            profile |= {"share": None, "customers": None if customers else 0}
        else:
            apart = z[inside].mean(axis=0)
            profile["marks"] = [_mark(frame, names[j], inside, float(apart[j])) for j in _strongest(apart, alike)]
        found.append(profile)
    return found if found[-1]["customers"] != 0 else found[:-1]


def _standard(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standardise signed logarithms; who has no value is at the mean."""
    z = signed_log(x)
    known = z[~np.isnan(z)]
    if known.size == 0 or np.ptp(known) == 0:
        return np.zeros(len(z))
    return np.where(np.isnan(z), 0.0, (z - known.mean()) / known.std())


def _strongest(apart: NDArray[np.float64], alike: NDArray[np.float64]) -> list[int]:
    chosen: list[int] = []
    for j in np.argsort(-np.abs(apart), kind="stable"):
        if len(chosen) == _MARKS or abs(apart[j]) < _LEAST:
            break
        if not (np.nan_to_num(alike[j, chosen]) > _ALIKE).any():
            chosen.append(int(j))
    return chosen


def _mark(frame: pd.DataFrame, name: str, inside: NDArray[np.bool_], difference: float) -> dict[str, Any]:
    return {
        "feature": name,
        "difference": difference,
        "median": float(frame[name][inside].median()),
        "median_all": float(frame[name].median()),
    }


def sorted_profiles(state: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Give each group's name and profile, by name; none where groups were not described."""
    pairs = zip(segment_names(state), state.get("profiles", []), strict=False)
    return sorted(pairs, key=lambda pair: int(pair[0].rpartition("_")[2]))


def segment_lines(state: Mapping[str, Any], features: Mapping[str, Named], language: str) -> list[str]:
    """Write how the segments were found, how stable they are, and one line for each group."""
    if "profiles" not in state:
        return []
    zh = language == "zh"
    method = _METHODS[state.get("method", "kmeans")][0 if zh else 1]
    groups, draws = len(segment_names(state)) - 1, f"{state['stability']:.2f}"
    head = (
        f"{method}，{groups} 群，重抽样稳定性（调整兰德指数）{draws}"
        if zh
        else f"{method}, {groups} groups, stability under resampling (adjusted Rand index) {draws}"
    )
    if "champion" in state:
        told = state["champion"]
        agreement = f"{told['agreement']:.2f}"
        words = f"，与现役模型一致性 {agreement}" if zh else f", agreement with the champion {agreement}"
        head += words
    return [head, *(f"{name}: {_words(profile, features, zh)}" for name, profile in sorted_profiles(state))]


def _words(profile: Mapping[str, Any], features: Mapping[str, Named], zh: bool) -> str:
    if profile["customers"] is None or profile["customers"] == 0:
        return f"少于 {SMALLEST} 位客户" if zh else f"fewer than {SMALLEST} customers"
    size = f"{profile['customers']:,} 位客户，{profile['share']:.1%}" if zh else (
        f"{profile['customers']:,} customers, {profile['share']:.1%}"
    )  # fmt: skip
    marks = [_mark_words(mark, features, zh) for mark in profile["marks"]]
    near = "与平均相近" if zh else "near the mean in everything"
    return f"{size}{'；' if zh else '; '}{('，' if zh else ', ').join(marks) or near}"


def _mark_words(mark: Mapping[str, Any], features: Mapping[str, Named], zh: bool) -> str:
    entry = features.get(mark["feature"])
    name = mark["feature"] if entry is None else entry.zh if zh else entry.en
    high = mark["difference"] > 0
    here, everybody = _number(mark["median"]), _number(mark["median_all"])
    if zh:
        return f"{name}{'高' if high else '低'}（中位数 {here}，全体 {everybody}）"
    return f"{'high' if high else 'low'} {name} (median {here}, all {everybody})"


def _number(value: float | None) -> str:
    return "–" if value is None or np.isnan(value) else f"{float(f'{value:.3g}'):,.10g}"
