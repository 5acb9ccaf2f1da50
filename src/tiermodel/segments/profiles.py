"""Profiles of segments: their size, and the features that set them apart from all buyers, as data and in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from tiermodel.arrays import Flags, Floats, Ints
from tiermodel.features.condition import Named, feature_name
from tiermodel.features.frame import feature_names
from tiermodel.models.learners.preprocessing import signed_log
from tiermodel.segments.fit import segment_count, segment_names
from tiermodel.segments.naming import name_segments
from tiermodel.segments.rules import rule_text, segment_rule
from tiermodel.words import words

__all__ = ["SMALLEST", "described", "profiles_of", "segment_lines", "sorted_profiles"]


SMALLEST = 5
"""Segments of fewer customers are not described: a median of a few would reveal what one of them did."""
_MARKS, _LEAST, _ALIKE = 3, 0.3, 0.8
_CORRELATED = 20_000


def described(state: Mapping[str, Any], frame: pd.DataFrame, labels: Ints) -> dict[str, Any]:
    """Return the profiles of segments of buyers, their names in both languages, and a short rule for each.

    Rules are on the features that the segments were made from.
    """
    profiles = profiles_of(state, frame, labels)
    of_segments = profiles[: segment_count(state)]
    rules = [
        segment_rule(frame, state["features"], labels == n, SMALLEST) if profile["customers"] else None
        for n, profile in enumerate(of_segments)
    ]
    return {"profiles": profiles, "names": name_segments(of_segments, {}), "rules": rules}


def profiles_of(state: Mapping[str, Any], frame: pd.DataFrame, labels: Ints) -> list[dict[str, Any]]:
    """Return a profile of every segment of buyers: share, customers, and up to three features that set it apart most.

    The difference of a feature is the mean of its signed logarithm in the segment less that of all buyers, in standard
    deviations, 0.3 at least; of features with a correlation above 0.8 only one is listed. Medians and means
    leave out missing values. A segment of fewer than `SMALLEST` customers has no figures (None).
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


def _standard(x: Floats) -> Floats:
    """Return standardised signed logarithms; a missing value is at the mean."""
    z = signed_log(x)
    known = z[~np.isnan(z)]
    if known.size == 0 or np.ptp(known) == 0:
        return np.zeros(len(z))
    return np.where(np.isnan(z), 0.0, (z - known.mean()) / known.std())


def _strongest(apart: Floats, alike: Floats) -> list[int]:
    """Return the columns with the largest differences, without those correlated with one chosen before."""
    chosen: list[int] = []
    for j in np.argsort(-np.abs(apart), kind="stable"):
        if len(chosen) == _MARKS or abs(apart[j]) < _LEAST:
            break
        if not (np.nan_to_num(alike[j, chosen]) > _ALIKE).any():
            chosen.append(int(j))
    return chosen


def _mark(frame: pd.DataFrame, name: str, inside: Flags, difference: float) -> dict[str, Any]:
    return {
        "feature": name,
        "difference": difference,
        "median": float(frame[name][inside].median()),
        "median_all": float(frame[name].median()),
        "mean": float(frame[name][inside].mean()),
        "mean_all": float(frame[name].mean()),
    }


def sorted_profiles(state: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return each segment's code and profile, by number; nothing where segments were not described.

    A profile has the `name` in both languages and the `rule`; None where the bundle has none.
    """
    profiles = state.get("profiles", [])
    beside = (state.get(key, []) for key in ("names", "rules"))  # neither for segment_0, nor in older bundles
    names, rules = ([*found, *[None] * (len(profiles) - len(found))] for found in beside)
    told = [{**p, "name": name, "rule": rule} for p, name, rule in zip(profiles, names, rules, strict=True)]
    pairs = zip(segment_names(state), told, strict=False)
    return sorted(pairs, key=lambda pair: int(pair[0].rpartition("_")[2]))


def segment_lines(state: Mapping[str, Any], features: Mapping[str, Named], language: str) -> list[str]:
    """Return lines of text: how the segments were found and how stable they are, then one line for each."""
    if "profiles" not in state:
        return []
    wording = words(language)
    head = wording["segments_head"].format(
        method=wording[f"method_{state.get('method', 'kmeans')}"],
        groups=segment_count(state),
        stability=state["stability"],
    )
    if "champion" in state:
        head += wording["segments_champion"].format(agreement=state["champion"]["agreement"])
    lines = [f"{_called(code, p, language)}: {_words(p, features, language)}" for code, p in sorted_profiles(state)]
    return [head, *lines]


def _called(code: str, profile: Mapping[str, Any], language: str) -> str:
    wording, name = words(language), profile["name"]
    if name is None and code != "segment_0":
        return code
    return wording["segment_named"].format(code=code, name=wording["segment_none"] if name is None else name[language])


def _words(profile: Mapping[str, Any], features: Mapping[str, Named], language: str) -> str:
    wording = words(language)
    if profile["customers"] is None or profile["customers"] == 0:
        return wording["segment_small"].format(n=SMALLEST)
    size = wording["segment_size"].format(customers=profile["customers"], share=profile["share"])
    marks = [
        wording["segment_high" if mark["difference"] > 0 else "segment_low"].format(
            name=feature_name(mark["feature"], features, language),
            figures=_figures(mark, language),
        )
        for mark in profile["marks"]
    ]
    rule = "" if profile["rule"] is None else rule_text(profile["rule"], features, language)
    return size + wording["semicolon"] + (wording["clause"].join(marks) or wording["segment_average"]) + rule


def _figures(mark: Mapping[str, Any], language: str) -> str:
    """Return the medians of a mark, or the means where the medians are equal; nothing where neither shows it."""
    for kind in ("median", "mean"):  # older bundles have no means
        here, everybody = mark.get(kind), mark.get(f"{kind}_all")
        if here is not None and everybody is not None and (here - everybody) * mark["difference"] > 0:
            texts = _number(here), _number(everybody)
            if texts[0] != texts[1]:
                return words(language)[f"segment_{kind}"].format(here=texts[0], everybody=texts[1])
    return ""


def _number(value: float) -> str:
    return f"{float(f'{value:.3g}'):,.10g}"
