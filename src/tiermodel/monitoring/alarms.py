"""Alarms: drifts and changes that have one cause are one alarm, named by what a person can look at, and one advice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import numpy as np

from tiermodel.arrays import Floats
from tiermodel.features.formula import Feature, columns_of, needs_of
from tiermodel.monitoring.changes import ColumnChange
from tiermodel.monitoring.drift import LAG_DAYS, STEP_DAYS, YEAR_DAYS, Drift
from tiermodel.monitoring.profiles import ACTIVE, MISSING, RETURNING, SCORES, TIER
from tiermodel.tables.history import project_key
from tiermodel.words import words

__all__ = ["Advice", "Alarm", "advice_on", "drift_alarms", "hints_of", "spans_of"]

_COLUMN = {
    "stuck", "missing", "renamed", "vanished", "new", "column_mean", "column_unknown", "column_bad", "rows", "late",
    "features", "season",
}  # fmt: skip
"""The kinds of alarm that are to be looked for in a table."""
_TIERS = {"mix", "movement", "reversals"}
_ROWS_OF_PURCHASES = "rows:transactions"
_PURCHASES, _AMOUNT = "data.transactions", "data.transactions.columns.amount"
_ROWS = {"mean": "column_mean", "unknown": "column_unknown", "bad": "column_bad", "rows": "rows"}
_FIRST_EVER = {"new_product_count"}
"""Measures of some days that need all days before, too."""
_NEVER = 1_000_000
_SHOWN = 3
_SUSPECT = 0.5  # of its limit: less says nothing of which column broke
_HINT = 2.0  # standard deviations: one series alone, one night in forty by chance


@dataclass(frozen=True)
class Alarm:
    """One thing that is beyond chance: its kind, what it is about, since when (None: not known), and its figures.

    `effects` are the names of features and scores that moved with it.
    """

    kind: str
    subject: str
    since: date | None = None
    figures: Mapping[str, Any] = field(default_factory=dict)
    effects: tuple[str, ...] = ()

    def to_text(self, language: str) -> str:
        """Return the alarm as a sentence."""
        wording = words(language)
        since = wording["monitor_since"].format(day=self.since) if self.since else ""
        kind = f"{self.kind}_share" if self.figures.get("unit") == "share" else self.kind
        told = wording[f"monitor_alarm_{kind}"].format(subject=self.subject, since=since, **self.figures)
        if not self.effects:
            return told
        shown = wording["comma"].join(self.effects[:_SHOWN])
        more = len(self.effects) - _SHOWN
        return told + wording["monitor_effects" if more <= 0 else "monitor_effects_more"].format(shown=shown, more=more)

    def to_dict(self, language: str) -> dict[str, Any]:
        """Return the alarm as plain data, with its sentence."""
        since = None if self.since is None else str(self.since)
        return {
            "kind": self.kind, "subject": self.subject, "since": since, "figures": dict(self.figures),
            "effects": list(self.effects), "text": self.to_text(language),
        }  # fmt: skip


@dataclass(frozen=True)
class Advice:
    """The one thing to do: nothing, look at a column, retrain, wait or redesign the scheme; and what it is about."""

    kind: str
    subject: str = ""

    def to_text(self, language: str) -> str:
        """Return the advice as a sentence."""
        return words(language)[f"monitor_advice_{self.kind}"].format(subject=self.subject)


def advice_on(alarms: Sequence[Alarm], nothing_newer_before: date | None = None) -> Advice:
    """Return what to do first: a broken column spoils a new model too, and a new model may mend the tiers.

    Before the day `nothing_newer_before` a new model would learn from what the present one knows: waiting is advised.
    """
    for alarm in alarms:
        if alarm.kind in _COLUMN:
            return Advice("column", alarm.subject)
    if any(alarm.kind not in _TIERS for alarm in alarms):
        return Advice("retrain") if nothing_newer_before is None else Advice("wait", str(nothing_newer_before))
    return Advice("redesign" if alarms else "nothing")


def spans_of(features: Iterable[Feature], longest: int, tiers: Iterable[str] = ()) -> dict[str, int]:
    """Return how old a log must be for each feature and score to mean what it does later, in days.

    It is as far as a feature looks back. One that reads the whole history changes with every day that a log gets
    longer, and is taken to be what it is once the log is as old as the `longest` window; so are the scores and the
    shares of `tiers`, which are made of such features. One that compares with rows of a year ago has a season of its
    own, and needs a year more. A feature of rows that are all older than the reference says nothing of what comes in:
    no log is old enough for it.
    """
    found = dict.fromkeys((*SCORES, ACTIVE, *tiers), longest)
    for feature in features:
        sums = needs_of([feature])[0]
        whole = not sums or any(r.start is None or r.measure in _FIRST_EVER for r in sums)
        old = [r.end <= -LAG_DAYS for r in sums]
        spans = [-r.start for r in sums if r.start is not None]
        span = max([longest * whole, *spans])
        yearly = any(old) and span >= YEAR_DAYS
        found[feature.name] = _NEVER if old and all(old) else span + YEAR_DAYS * yearly
    return found


def drift_alarms(
    judged: Sequence[Drift],
    changes: Sequence[ColumnChange],
    features: Mapping[str, Feature],
    series: Mapping[str, Floats],
) -> list[Alarm]:
    """Return the alarms behind drifts and changes of columns, each with the features that moved by its cause.

    `judged` are all series, those within their limits too: of several columns that a feature is made of, the one whose
    rows are farthest off is named.
    """
    drifted = sorted((one for one in judged if one.since is not None), key=lambda one: -one.strength)
    suspects = _suspects(judged, changes)
    by_source: dict[str, list[Drift]] = {}
    scores, rows, back = list[Drift](), list[Drift](), list[Drift]()
    for one in drifted:
        name = one.name.rpartition(":")[2]
        if name in features:
            by_source.setdefault(_source(features[name], suspects), []).append(one)
        elif one.name.partition(":")[0] in _ROWS:
            rows.append(one)
        else:
            (back if name in {RETURNING, ACTIVE} else scores).append(one)
    found = [_of_change(change, by_source) for change in changes]
    rows = [one for one in rows if not _told(one, changes)]
    season = _season([*by_source.get(_PURCHASES, []), *back, *rows], series)
    if season is not None:
        found.append(Alarm("season", _PURCHASES, season.since, {}, _of_purchases(by_source)))
        rows, back = [one for one in rows if one.name != _ROWS_OF_PURCHASES], []
    found += [_of_rows(one, by_source) for one in rows if one.name != _ROWS_OF_PURCHASES]
    if back or any(one.name == _ROWS_OF_PURCHASES for one in rows):
        _gather(by_source, suspects)
    found += [_of_rows(one, by_source) for one in rows if one.name == _ROWS_OF_PURCHASES]
    found += _of_features(by_source, back)
    moved = tuple(one.name for one in scores)
    if found and moved:
        found[0] = Alarm(**{**vars(found[0]), "effects": (*found[0].effects, *moved)})
    elif moved:
        found.append(Alarm("scores", _named(scores[0]), scores[0].since, _figures(scores[0]), moved[1:]))
    return found


def hints_of(judged: Sequence[Drift], alarms: Sequence[Alarm]) -> list[Alarm]:
    """Return what is not beyond its limit, but would be if it were the only thing looked at: fewer who come back.

    It is the first sign of churn that rises, before any label of it is known; it is told, and changes no verdict.
    """
    told = {alarm.kind for alarm in alarms}
    low = [one for one in judged if one.name == RETURNING and one.shift < -_HINT * one.sd]
    if not low or told & {"returning_less", "season"}:
        return []
    figures = {"share": round(_share(low[0].value), 4), "expected": round(_share(low[0].expected), 4)}
    return [Alarm("returning_less", _PURCHASES, None, figures)]


def _suspects(judged: Sequence[Drift], changes: Sequence[ColumnChange]) -> dict[str, float]:
    """Return how far the rows of each column are off, by its key; a column that changed is farthest."""
    found: dict[str, float] = {}
    for one in judged:
        table, _, column = one.name.rpartition(":")[2].partition(".")
        if one.name.partition(":")[0] in _ROWS and column:
            key = _key(table, column)
            found[key] = max(found.get(key, 0.0), one.strength)
    return found | {_key(change.table, change.column): float("inf") for change in changes}


def _source(feature: Feature, suspects: Mapping[str, float]) -> str:
    """Return the key of the project file whose rows a feature is made of, of several the most suspect."""
    keys = [project_key(column) for column in sorted(columns_of(feature))]
    amounts = any("amount" in request.measure for request in needs_of([feature])[0]) or feature.unit == "amount"
    elsewhere = any(not key.startswith(_PURCHASES) for key in keys)
    if (amounts or "amount" in feature.name) and not elsewhere:
        keys.append(_AMOUNT)
    keys = keys or [_PURCHASES]
    return max(keys, key=lambda key: found if (found := suspects.get(key, 0.0)) >= _SUSPECT else 0.0)


def _key(table: str, column: str) -> str:
    if column.startswith(("attribute_", "text_")):
        return project_key(column)
    return f"data.{table}.columns.{column}"


def _told(one: Drift, changes: Sequence[ColumnChange]) -> bool:
    """Return whether a drift of rows is of a column that is named already for a change."""
    table, _, column = one.name.rpartition(":")[2].partition(".")
    return any(change.table == table and change.column == column for change in changes)


def _effects(by_source: dict[str, list[Drift]], key: str) -> tuple[str, ...]:
    """Return the features that moved by a cause, and take them from those that still need one."""
    taken = by_source.pop(key, [])
    if key.startswith("data.events"):
        for other in [source for source in by_source if source.startswith("data.events")]:
            taken += by_source.pop(other)
    return _names(taken)


def _names(drifts: Iterable[Drift]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(one.name.removeprefix(MISSING) for one in drifts))


def _of_change(change: ColumnChange, by_source: dict[str, list[Drift]]) -> Alarm:
    key = _key(change.table, change.column)
    figures = {"before": change.before, "after": change.after, "share": round(change.share, 4)}
    effects = _effects(by_source, key)
    if change.column == "amount":
        effects += _effects(by_source, _AMOUNT)
    return Alarm(change.kind, key, change.since, figures, effects)


def _of_rows(one: Drift, by_source: dict[str, list[Drift]]) -> Alarm:
    what, _, where = one.name.partition(":")
    table, _, column = where.partition(".")
    if what == "mean":
        figures = {"change": round(one.value / one.expected - 1, 4)}
    elif what == "rows":
        figures = {"change": round(float(np.expm1(one.shift)), 4)}
    else:
        figures = {"share": round(_share(one.value), 4), "expected": round(_share(one.expected), 4)}
    key = _key(table, column) if column else f"data.{table}"
    return Alarm(_ROWS[what], key, one.since, figures, _effects(by_source, key))


def _gather(by_source: dict[str, list[Drift]], suspects: Mapping[str, float]) -> None:
    """Move features of columns that are themselves as ever to the purchases: how many rows came is behind them."""
    columns = [source for source in by_source if source.startswith(_PURCHASES) and source != _PURCHASES]
    for source in columns:
        if suspects.get(source, 0.0) < _SUSPECT:
            by_source.setdefault(_PURCHASES, []).extend(by_source.pop(source))


def _of_purchases(by_source: dict[str, list[Drift]]) -> tuple[str, ...]:
    """Return the features of how often and for how much customers buy, and take them from those that need a cause."""
    return _names([*by_source.pop(_PURCHASES, []), *by_source.pop(_AMOUNT, [])])


def _season(drifted: Sequence[Drift], series: Mapping[str, Floats]) -> Drift | None:
    """Return the strongest of the drifts where one of how often customers buy is a season that has not come."""
    of_pace = [one for one in drifted if one.name.partition(":")[0] not in _ROWS or one.name == _ROWS_OF_PURCHASES]
    absent = any(one.season and _season_absent(series[one.name]) for one in of_pace)
    return max(of_pace, key=lambda one: one.strength) if absent else None


def _of_features(by_source: dict[str, list[Drift]], back: list[Drift]) -> list[Alarm]:
    """Return the alarms of features that no column explains: of who comes back, else of the source they share."""
    found = []
    if back:
        one = max(back, key=lambda one: one.strength)
        shares = {"share": round(_share(one.value), 4), "expected": round(_share(one.expected), 4)}
        kind = ("returning_less" if one.shift < 0 else "returning_more") if one.name == RETURNING else "active"
        found.append(Alarm(kind, _PURCHASES, one.since, shares, _of_purchases(by_source)))
    for source, drifts in sorted(by_source.items(), key=lambda item: -max(one.strength for one in item[1])):
        first = max(drifts, key=lambda one: one.strength)
        since = min(one.since for one in drifts if one.since is not None)
        figures: dict[str, Any] = {**_figures(first), "feature": _named(first)}
        found.append(Alarm("features", source, since, figures, _names(one for one in drifts if one is not first)))
    return found


def _season_absent(values: Floats) -> bool:
    """Return whether a series moved a year ago in eight weeks, and this year has done so by less than four tenths."""
    steps, year = LAG_DAYS // STEP_DAYS, YEAR_DAYS // STEP_DAYS
    if len(values) <= steps + year:
        return False
    now, then = values[-1] - values[-1 - steps], values[-1 - year] - values[-1 - year - steps]
    return bool(abs(then) >= 0.1 and abs(now / then) < 0.4)


def _named(one: Drift) -> str:
    return one.name.removeprefix(MISSING).removeprefix(TIER)


def _figures(one: Drift) -> dict[str, Any]:
    """Return the figures of a drift: shares as such, all else in standard deviations."""
    is_share = one.name.startswith((MISSING, TIER))
    value, expected = (_share(x) if is_share else x for x in (one.value, one.expected))
    return {
        "value": round(value, 4), "expected": round(expected, 4), "shift": round(value - expected, 4),
        "limit": round(one.limit, 4), "unit": "share" if is_share else "sd",
    }  # fmt: skip


def _share(arc: float) -> float:
    """Return the share of which `2 arcsin sqrt share` is given."""
    return float(np.sin(np.clip(arc / 2, 0, np.pi / 2)) ** 2)
