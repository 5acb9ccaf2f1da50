"""The smallest single change, of what a customer can change, that moves each customer to a higher level.

Exact, not estimated: levels change only at the cut points of the fitted scheme, so every amount at which one of them is
crossed is tried, smallest first, by grading the changed row. Only the actions declared here are tried; tenure,
attributes and habits of years are out of reach. The level is that of the rules; a stability rule may require more.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from tiermodel.arrays import Ints
from tiermodel.features.condition import Named, feature_name, number
from tiermodel.features.frame import has_bought
from tiermodel.tiers.fitted_scheme import FittedScheme
from tiermodel.tiers.kinds.thresholds import bounds_of
from tiermodel.words import words

__all__ = ["ACTIONS", "COLUMNS", "Action", "action_features", "changed", "next_tier_actions", "tier_thresholds"]


_NEVER, _FAR = np.iinfo(np.int64).max, 2.0**53
_CHUNK = 20_000
COLUMNS = (
    *("customer_id", "as_of", "tier_code", "reached_code", "easiness", "feature"),
    *("change", "value_now", "value_then", "passed_share", "words"),
)


@dataclass(frozen=True)
class Action:
    """A change that a customer can make, by the features it affects; a step is 1 / `steps` of their unit.

    New purchases lie within every window, so all windows of a measure, and its total, change by the same amount.
    """

    features: str
    steps: int
    sign: int = 1
    least: float = -np.inf


ACTIONS = (
    *(Action(rf"{name}_(\d+d|total)", 100) for name in ("net_amount", "margin", "profit")),
    *(Action(rf"{name}_(\d+d|total)", 1) for name in ("order_count", "purchase_days", "quantity")),
    *(Action(name, 1) for name in ("product_count", "category_count", "channel_count")),
    Action("order_amount_mean", 100),
    Action("days_since_last", 1, sign=-1, least=1),
)


def tier_thresholds(fitted: FittedScheme) -> dict[str, list[float]]:
    """Return the values of each feature at which a level can change; `ProjectError` where no single feature decides."""
    found: dict[str, set[float]] = {}
    for part in (fitted.common, *fitted.strata.values()):
        own = part.kind.thresholds(part.scheme, part.state)
        made = part.fitted_features.thresholds() if part.fitted_features is not None else ()
        for feature, cuts in (*own, *made, *bounds_of(c for veto in part.state.get("veto", []) for c in veto)):
            found.setdefault(feature, set()).update(float(cut) for cut in cuts if np.isfinite(cut))
    return {feature: sorted(cuts) for feature, cuts in found.items()}


def action_features(fitted: FittedScheme) -> list[str]:
    """Return the features that actions change and at whose values the level can change; raises as `tier_thresholds`."""
    return [name for name in tier_thresholds(fitted) if any(re.fullmatch(a.features, name) for a in ACTIONS)]


def changed(frame: pd.DataFrame, action: Action, steps: Ints) -> pd.DataFrame:
    """Return the rows after an action of `steps` steps each."""
    names = _linked(frame.columns, action)
    by = action.sign * steps / action.steps
    return frame.assign(**{name: np.round(frame[name].to_numpy(dtype=np.float64) + by, 6) for name in names})


def _linked(columns: Sequence[str] | pd.Index[Any], action: Action) -> list[str]:
    return [name for name in columns if re.fullmatch(action.features, name)]


def next_tier_actions(
    fitted: FittedScheme,
    frame: pd.DataFrame,
    features: Mapping[str, Named],
    language: str,
    among: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Return, for every buyer below the top level, each action that alone leads higher, with its smallest amount.

    `frame` has rows of one snapshot, `among` all buyers of that snapshot (by default, `frame` has them all).
    `passed_share` is the share of them whom the customer overtakes on the feature; `easiness` ranks a customer's
    actions by it, 1 for the smallest. Columns are `COLUMNS`.
    """
    cuts, level = tier_thresholds(fitted), fitted.assign(frame)[0]
    bought = has_bought(frame)
    rows = np.flatnonzero(bought & (level < len(fitted.scheme.codes) - 1))
    below, level_below = frame.iloc[rows].reset_index(drop=True), level[rows]
    buyers = frame[bought] if among is None else among
    own_cuts = [(part, tier_thresholds(part), mine) for _, part, mine in fitted.parts(below)]
    parts = []
    for action in ACTIONS:
        linked = [name for name in _linked(frame.columns, action) if name in cuts]
        steps = np.full(len(below), _NEVER)
        for part, of_part, mine in own_cuts:
            tried = {name: of_part[name] for name in linked if name in of_part}
            steps[mine] = _smallest_all(part, below.iloc[mine], level_below[mine], action, tried)
        if (steps < _NEVER).any():
            parts.append(_action_rows(fitted, below, level_below, action, steps, _shown(linked), buyers))
    if not parts:
        return pd.DataFrame({name: [] for name in COLUMNS})
    table = pd.concat(parts, ignore_index=True)
    table = table.sort_values(["row", "passed_share", "feature"], kind="stable").reset_index(drop=True)
    table["easiness"] = table.groupby("row").cumcount() + 1
    table["words"] = [_words(row, features, language) for row in table.itertuples()]
    return table[list(COLUMNS)]


def _shown(linked: Collection[str]) -> str:
    """Return the feature that names an action: that of the shortest window."""
    days = {name: int(found[1]) if (found := re.search(r"_(\d+)d$", name)) else 10**6 for name in linked}
    return min(linked, key=days.__getitem__)


def _smallest_all(
    fitted: FittedScheme, frame: pd.DataFrame, level: Ints, action: Action, cuts: Mapping[str, list[float]]
) -> Ints:
    """Return the steps of `_smallest`, chunk by chunk; `_NEVER` without cut points."""
    steps = np.full(len(frame), _NEVER)
    for start in range(0, len(frame) if cuts else 0, _CHUNK):
        part = slice(start, start + _CHUNK)
        steps[part] = _smallest(fitted, frame.iloc[part].reset_index(drop=True), level[part], action, cuts)
    return steps


def _smallest(
    fitted: FittedScheme, frame: pd.DataFrame, level: Ints, action: Action, cuts: Mapping[str, list[float]]
) -> Ints:
    """Return the smallest sufficient number of steps of each row; `_NEVER` where no number is enough.

    Tried are the steps at which a cut point is crossed, and one step before and after, since a bound may lie on either
    side of its cut point.
    """
    tries = np.sort(np.concatenate([_crossings(frame, action, f, c) for f, c in cuts.items()], axis=1), axis=1)
    if fitted.scheme.monotone:
        return _halved(fitted, frame, level, action, tries)
    steps, open_rows = np.full(len(frame), _NEVER), np.arange(len(frame))
    for k in range(tries.shape[1]):
        now = tries[open_rows, k]
        rows = open_rows[(now < _NEVER) & ((k == 0) | (now != tries[open_rows, max(k - 1, 0)]))]
        if rows.size:
            up = _levels(fitted, frame, action, rows, tries[rows, k]) > level[rows]
            steps[rows[up]] = tries[rows[up], k]
        open_rows = open_rows[(steps[open_rows] == _NEVER) & (now < _NEVER)]
    return steps


def _levels(fitted: FittedScheme, frame: pd.DataFrame, action: Action, rows: Ints, steps: Ints) -> Ints:
    return fitted.assign(changed(frame.iloc[rows], action, steps))[0]


def _crossings(frame: pd.DataFrame, action: Action, feature: str, cuts: Sequence[float]) -> Ints:
    """Return, for each row and cut point, the steps just before, at and after it; `_NEVER` where impossible."""
    x = frame[feature].to_numpy(dtype=np.float64)[:, None]
    exact = np.ceil(np.round(action.sign * (np.array(cuts) - x) * action.steps, 6))
    around = np.concatenate([exact - 1, exact, exact + 1], axis=1)
    possible = (around > 0) & (around < _FAR) & (x + action.sign * around / action.steps >= action.least)
    return np.where(possible, np.where(possible, around, 0.0).astype(np.int64), _NEVER)


def _halved(fitted: FittedScheme, frame: pd.DataFrame, level: Ints, action: Action, tries: Ints) -> Ints:
    """Return the steps of `_smallest` by bisection, which a monotone scheme allows."""
    # `low` ends at the first sufficient try, or at the count of possible tries where none is enough
    low, high = np.zeros(len(frame), dtype=np.int64), (tries < _NEVER).sum(axis=1)
    while (rows := np.flatnonzero(low < high)).size:
        middle = (low[rows] + high[rows]) // 2
        up = _levels(fitted, frame, action, rows, tries[rows, middle]) > level[rows]
        high[rows[up]], low[rows[~up]] = middle[up], middle[~up] + 1
    padded = np.column_stack([tries, np.full(len(frame), _NEVER)])
    return padded[np.arange(len(frame)), low]


def _action_rows(
    fitted: FittedScheme, frame: pd.DataFrame, level: Ints, action: Action, steps: Ints,
    feature: str, buyers: pd.DataFrame,
) -> pd.DataFrame:  # fmt: skip
    rows = np.flatnonzero(steps < _NEVER)
    reached = _levels(fitted, frame, action, rows, steps[rows])
    now = frame[feature].to_numpy(dtype=np.float64)[rows]
    then = changed(frame.iloc[rows], action, steps[rows])[feature].to_numpy()
    all_of_it = np.sort(buyers[feature].dropna().to_numpy(dtype=np.float64))
    places = [np.searchsorted(all_of_it, x, side="left") for x in (now, then)]
    codes = np.array(fitted.scheme.codes, dtype=object)
    return pd.DataFrame({
        "row": rows,
        "customer_id": frame["customer_id"].to_numpy()[rows],
        "as_of": frame["as_of"].to_numpy()[rows],
        "tier_code": codes[level[rows]],
        "reached_code": codes[reached],
        "feature": feature,
        "change": action.sign * steps[rows] / action.steps,
        "value_now": now,
        "value_then": then,
        "passed_share": np.abs(places[1] - places[0]) / len(all_of_it),
    })  # fmt: skip


def _words(row: Any, features: Mapping[str, Named], language: str) -> str:
    name = feature_name(row.feature, features, language)
    by, now, then = number(abs(row.change)), number(round(row.value_now, 2)), number(round(row.value_then, 2))
    key = "upgrade_more" if row.change > 0 else "upgrade_fewer"
    return words(language)[key].format(name=name, by=by, now=now, then=then)
