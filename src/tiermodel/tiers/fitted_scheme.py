"""Fitted schemes: frozen cut points or rules that grade one customer exactly as in a batch, with reasons."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from tiermodel.arrays import Flags, Floats, Ints
from tiermodel.errors import DataError
from tiermodel.features.condition import Named
from tiermodel.features.frame import category_names, feature_names, has_bought, texts_of
from tiermodel.tiers.categories import refuse_unknown_features, states_by_stratum, unseen_values
from tiermodel.tiers.fitted_features import FITTED, FittedFeatures, fit_features, windows_of
from tiermodel.tiers.kinds import thresholds
from tiermodel.tiers.kinds.cut_points import within_reach
from tiermodel.tiers.rule_text import named, reason_table, rule_lines, stratified_lines, stratified_reasons
from tiermodel.tiers.schemes.load import Scheme, parse_scheme, scheme_data, settle
from tiermodel.tiers.schemes.protocol import (
    REASONS,
    AxisKind,
    ExplainingKind,
    FitContext,
    LearningKind,
    RankingKind,
    SchemeKind,
    State,
)
from tiermodel.tiers.schemes.scheme_kinds import KINDS

__all__ = ["FittedScheme", "fit_scheme"]


_BLOCK, _THREADS = 65_536, 2
_YEAR_DAYS = 365
_REPLAYED = 6  # half a year of monthly snapshots


@dataclass(frozen=True)
class FittedScheme:
    """A scheme with frozen cut points or rules; `state` is plain lists and numbers, as in JSON.

    A scheme with `strata` is a set of schemes without: one for each value with cut points of its own, and one, fitted
    on all customers, for the others. Each customer is graded, explained and written in SQL by exactly one of them.
    """

    scheme: Scheme
    state: dict[str, Any]

    @cached_property
    def fitted_features(self) -> FittedFeatures | None:
        """The fitted features that the scheme reads; None where it reads none."""
        return FittedFeatures.from_dict(self.state["fitted"]) if "fitted" in self.state else None

    def with_fitted_features(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return snapshot rows with the fitted features that the scheme reads as further columns."""
        return frame if self.fitted_features is None else self.fitted_features.added_to(frame)

    @cached_property
    def strata(self) -> dict[str, FittedScheme]:
        """The scheme of every stratum with cut points of its own, by value; empty without strata."""
        common = self.common.state
        return {
            value: FittedScheme(self.common.scheme, {**common, **part["state"]})
            for value, part in self.state.get("strata", {}).items()
        }

    @cached_property
    def common(self) -> FittedScheme:
        """The scheme of the customers outside of all strata, fitted on all customers; itself without strata."""
        if self.scheme.strata is None:
            return self
        state = {key: part for key, part in self.state.items() if key != "strata"}
        return FittedScheme(self.scheme.model_copy(update={"strata": None}), state)

    def parts(self, frame: pd.DataFrame) -> list[tuple[str | None, FittedScheme, Ints]]:
        """Return the schemes that grade the rows of a frame: value of the stratum (None: others), scheme, positions."""
        if self.scheme.strata is None:
            return [(None, self, np.arange(len(frame)))]
        values = list(self.strata)
        place = pd.Index(values, dtype=object).get_indexer(
            pd.Index(texts_of(frame, self.scheme.strata.feature), dtype=object)
        )
        found = [(value, self.strata[value], np.flatnonzero(place == n)) for n, value in enumerate(values)]
        return [(value, part, rows) for value, part, rows in (*found, (None, self.common, np.flatnonzero(place < 0)))]

    def _by_part(self, frame: pd.DataFrame, of_part: Callable[[FittedScheme, pd.DataFrame], tuple[Ints, Ints]]) -> Any:
        """Return two arrays of shape (rows,), found part by part."""
        found = np.empty((2, len(frame)), dtype=np.int64)
        for _, part, rows in self.parts(frame):
            if rows.size:
                found[:, rows] = of_part(part, frame.iloc[rows])
        return found[0], found[1]

    def assign(self, frame: pd.DataFrame) -> tuple[Ints, Ints]:
        """Return each row's level (0 lowest) and the index of the rule that decided, -1 where nothing was bought yet.

        The indexes of vetoes follow those of the rules; with strata they count the rules of the customer's own. Rows
        are graded in blocks, which fit into the processor's cache, on two threads.
        """
        if len(frame) <= _BLOCK:
            return self._assign(frame)
        blocks = [frame.iloc[start : start + _BLOCK] for start in range(0, len(frame), _BLOCK)]
        with ThreadPoolExecutor(_THREADS) as pool:
            levels, rules = zip(*pool.map(self._assign, blocks), strict=True)
        return np.concatenate(levels), np.concatenate(rules)

    def _assign(self, frame: pd.DataFrame) -> tuple[Ints, Ints]:
        if self.scheme.strata is not None:
            return self._by_part(frame, FittedScheme._assign)
        frame = self.with_fitted_features(frame)
        level, rule = self.kind.assign(self.scheme, self.state, frame)
        level = np.array(self.scheme.bought_numbers)[level]
        for n, (applies, highest) in enumerate(self._vetoes(frame)):
            lowered = applies & (level > highest)
            level, rule = np.where(lowered, highest, level), np.where(lowered, self.rule_count + n, rule)
        bought = has_bought(frame)
        return np.where(bought, level, self.scheme.no_purchase_level), np.where(bought, rule, -1)

    def sure_levels(self, frame: pd.DataFrame) -> tuple[Ints, Ints]:
        """Return the lowest level within the band for moving up, and the highest within the band for moving down.

        A customer has left a level upwards beyond doubt where the lowest is above it, downwards where the highest is
        below it. Both are one level from the customer's own at most, and never span a whole ladder of three levels and
        more. Without a stability rule both are the level, as they are for customers without a purchase in a year and in
        the longest window: a customer within a band could stop buying and keep a tier for good.
        """
        if self.scheme.stability is None:
            level, _ = self.assign(frame)
            return level, level
        if self.scheme.strata is not None:
            return self._by_part(frame, FittedScheme.sure_levels)
        bought, frame = has_bought(frame), self.with_fitted_features(frame)
        level, _ = self.kind.assign(self.scheme, self.state, frame)
        silent = frame["days_since_last"].to_numpy() > self.state.get("silent_after_days", np.inf)
        lowest, highest = self.kind.sure_levels(self.scheme, self.state, frame)
        numbers = np.array(self.scheme.bought_numbers)
        ends = within_reach(level, lowest, highest, len(numbers))
        lowest, highest = (numbers[np.where(silent, level, end)] for end in ends)
        for applies, cap in self._vetoes(frame):
            lowest, highest = (np.where(applies, np.minimum(end, cap), end) for end in (lowest, highest))
        nothing = self.scheme.no_purchase_level
        return np.where(bought, lowest, nothing), np.where(bought, highest, nothing)

    def priority(self, frame: pd.DataFrame) -> Floats:
        """Return who comes first where a level has fewer places than customers, higher first.

        That is the feature `priority` of the scheme, or what its kind ranks customers by. NaN for customers without a
        purchase or without a value: they come last.
        """
        first, kind, frame = self.scheme.priority, self.kind, self.with_fitted_features(frame)
        if first is not None:
            values = frame[first].to_numpy(dtype=np.float64)
        elif isinstance(kind, RankingKind):
            values = kind.ranking(self.scheme, self.state, frame)
        else:
            values = np.full(len(frame), np.nan)
        return np.where(has_bought(frame), values, np.nan)

    def memory(self, every_days: int) -> int:
        """Return how many earlier snapshots, `every_days` apart, a grading without a ledger starts from."""
        rule = self.scheme.stability
        if rule is None:
            return 1
        longest = max(rule.up.min_stay_days, rule.down.min_stay_days, rule.down.grace_days) // every_days
        return max(_REPLAYED, longest + 1, rule.up.confirmations, rule.down.confirmations)

    @property
    def kind(self) -> SchemeKind[Any]:
        """The implementation of the scheme's kind."""
        return KINDS[self.scheme.kind]

    @property
    def readable(self) -> FittedScheme:
        """The scheme itself, or the tree that imitates it where no rules can state the model."""
        surrogate = self.kind.surrogate(self.state) if isinstance(self.kind, LearningKind) else None
        if surrogate is None:
            return self
        vetoes = {"veto": self.state["veto"]} if "veto" in self.state else {}
        return FittedScheme(self.scheme, surrogate | vetoes)

    def surrogate_line(self, language: str) -> str:
        """Return a line on how closely the tree imitates the scheme; empty where rules themselves are applied."""
        kind = self.kind
        if not isinstance(kind, LearningKind) or kind.surrogate(self.state) is None:
            return ""
        return kind.surrogate_line(self.state, language)

    @property
    def rule_count(self) -> int:
        """The number of rules, of all strata together, without vetoes."""
        return (1 + len(self.strata)) * len(self.kind.levels_of_rules(self.scheme, self.state))

    def _vetoes(self, frame: pd.DataFrame) -> list[tuple[Flags, int]]:
        """Return, for each veto, the rows that it applies to, and the highest level that it leaves them."""
        pairs = zip(self.scheme.veto, self.state.get("veto", []), strict=True)
        return [(thresholds.all_hold(when, frame), self.scheme.codes.index(veto.highest)) for veto, when in pairs]

    def grades(self, frame: pd.DataFrame) -> dict[str, tuple[Ints, list[str]]]:
        """Return, for each axis of a matrix, every row's score from 0 (-1: no purchase yet) and the scores' names."""
        if not isinstance(self.kind, AxisKind):
            return {}
        scores, labels = {name: np.full(len(frame), -1) for name in self.axes}, dict[str, list[str]]()
        for _, part, rows in self.parts(frame):
            own = frame.iloc[rows]
            found = self.kind.grades(part.scheme, part.state, part.with_fitted_features(own))
            for name, (score, words) in found.items():
                scores[name][rows], labels[name] = np.where(has_bought(own), score, -1), words
        return {name: (scores[name], labels[name]) for name in self.axes}

    @property
    def axes(self) -> list[str]:
        """The names of the axes of a matrix, in order; none for another kind."""
        return list(self.kind.axes(self.scheme)) if isinstance(self.kind, AxisKind) else []

    def explain(
        self, frame: pd.DataFrame, rule: Ints, features: Mapping[str, Named], language: str
    ) -> tuple[Ints, list[str]]:
        """Return up to three reasons for every row, as positions in a list of words, shape (rows, 3), and that list.

        `rule` is the second result of `assign`. Every word that is not empty is a condition that the customer meets and
        the scheme applied.
        """
        if self.scheme.strata is not None:
            return self._stratified_reasons(frame, rule, features, language)
        table, words = reason_table(self, features, language)
        codes, kind = table[rule % len(table)], self.kind
        if not isinstance(kind, ExplainingKind):
            return codes, words
        frame, names = self.with_fitted_features(frame), named(self, features)
        reasons = kind.explain(self.scheme, self.state, frame, names, language)
        if reasons is None:
            return codes, words
        by_rule = (rule >= 0) & (rule < self.rule_count)
        return np.where(by_rule[:, None], reasons[0] + len(words), codes), [*words, *reasons[1]]

    def _stratified_reasons(
        self, frame: pd.DataFrame, rule: Ints, features: Mapping[str, Named], language: str
    ) -> tuple[Ints, list[str]]:
        """Return reasons as `explain` does; the first names the stratum whose cut point decided."""
        codes, words = np.zeros((len(frame), REASONS), dtype=np.int64), list[str]()
        for value, part, rows in self.parts(frame):
            own, texts = part.explain(frame.iloc[rows], rule[rows], features, language)
            if value is not None:
                by_rule = (rule[rows] >= 0) & (rule[rows] < part.rule_count)
                own, texts = stratified_reasons(own, texts, by_rule, value, language)
            codes[rows] = own + len(words)
            words += texts
        return codes, words

    def rules(self, features: Mapping[str, Named], language: str) -> list[str]:
        """Return every rule that a customer can meet as a line; learned rules with support, purity and value.

        Where the rules are those of a tree that imitates the scheme, the first line says so, and how closely.
        """
        if self.scheme.strata is not None:
            lines = {value: part.rules(features, language) for value, part in self.strata.items()}
            return stratified_lines(
                lines, self.common.rules(features, language), self.scheme.strata, features, language
            )
        note = self.surrogate_line(language)
        return [*([note] if note else []), *rule_lines(self.readable, features, language)]

    def to_dict(self) -> dict[str, Any]:
        """Return scheme and state as plain data."""
        return {"scheme": scheme_data(self.scheme), "state": self.state}

    def to_files(self) -> tuple[dict[str, Any], dict[str, str]]:
        """Return scheme and state as plain data with file names in place of long texts, and the texts by file name."""
        state, texts = self.kind.without_texts(self.state) if isinstance(self.kind, LearningKind) else (self.state, {})
        return {**self.to_dict(), "state": state}, texts

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> FittedScheme:
        """Return the scheme that `to_dict` wrote."""
        return cls(parse_scheme(data["scheme"], "bundle", (1,)), dict(data["state"]))

    @classmethod
    def from_files(cls, data: Mapping[str, Any], files: Mapping[str, bytes]) -> FittedScheme:
        """Return the scheme that `to_files` wrote; `KeyError` names a file that is missing."""
        fitted = cls.from_dict(data)
        if not isinstance(fitted.kind, LearningKind):
            return fitted
        return cls(fitted.scheme, fitted.kind.with_texts(fitted.state, files))


def fit_scheme(
    scheme: Scheme, snapshot: pd.DataFrame, history: pd.DataFrame, seed: int, label_delay_days: int | None = None
) -> FittedScheme:
    """Return a scheme fitted on the latest snapshot; a learned one on past snapshots with observed outcomes too.

    Both frames are panels sorted by customer and date. Optional parts of the scheme whose feature is not built are left
    out; `left_out` in the state lists these features, `unseen_values` the values of text attributes that conditions
    name and no customer has. `label_delay_days` is as in `FitContext`. Raises `ProjectError` where the scheme needs a
    feature that is not built, `DataError` where nobody in the snapshot bought.
    """
    bought = snapshot[has_bought(snapshot)]
    if bought.empty:
        raise DataError(
            f"scheme {scheme.code}: none of {len(snapshot)} customers has bought; "
            "check that data.transactions.columns.amount is above zero for a purchase"
        )
    mentioned = _fitted_features_in(scheme)
    fitted = fit_features(mentioned, bought, seed)
    built = [*feature_names(snapshot), *category_names(snapshot)]
    scheme, left = settle(scheme, built if fitted is None else [*built, *fitted.names])
    if (read := _fitted_features_in(scheme)) != mentioned:  # alternatives and optional parts are left out
        fitted = fit_features(read, bought, seed)
    if fitted is not None:
        bought = fitted.added_to(bought)
    refuse_unknown_features(scheme, bought)
    unseen = unseen_values(scheme, snapshot)
    context = FitContext(history, seed, label_delay_days)
    state = _fit_state(scheme, bought, context)
    if fitted is not None:
        state["fitted"] = fitted.to_dict()
    if scheme.strata is not None:
        within = replace(context, common=state)
        strata = states_by_stratum(scheme, bought, state, lambda rows: _fit_state(scheme, rows, within))
        state = {**state, "strata": strata}
    if left:
        state["left_out"] = left
    if unseen:
        state["unseen_values"] = unseen
    return FittedScheme(scheme, state)


def _fitted_features_in(scheme: Scheme) -> set[str]:
    return _features_in(scheme.model_dump()) & set(FITTED)


def _features_in(part: Any) -> set[str]:
    """Return the features that a scheme names, every alternative included."""
    if isinstance(part, Mapping):
        own = {name.strip() for name in str(part.get("feature", "")).split("|")}
        return own.union(*map(_features_in, part.values()))
    return set().union(*map(_features_in, part)) if isinstance(part, list | tuple) else set()


def _fit_state(scheme: Scheme, buyers: pd.DataFrame, context: FitContext) -> State:
    """Return the state of a scheme, without its strata, fitted on some buyers."""
    state = KINDS[scheme.kind].fit(scheme, buyers, context)
    if scheme.veto:
        state["veto"] = [[thresholds.fit_condition(scheme, when, buyers) for when in v.when] for v in scheme.veto]
    if scheme.stability is not None:
        # a year at least, since some buy once a year
        state["silent_after_days"] = max([_YEAR_DAYS, *windows_of(feature_names(buyers))])
    return state
