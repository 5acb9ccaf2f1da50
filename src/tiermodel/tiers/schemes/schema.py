"""The schema of schemes: levels and scored dimensions, each of which validates itself."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

import pandas as pd
from pydantic import Field, model_validator

from tiermodel.config.tiers import Stability, Strata
from tiermodel.features.condition import Named
from tiermodel.features.frame import feature_names
from tiermodel.tiers.schemes.conditions import Data, Number, Share, Veto, When
from tiermodel.tiers.schemes.level import Level
from tiermodel.tiers.schemes.weights import consistency_ratio
from tiermodel.words import in_language

__all__ = ["Axis", "BaseScheme", "Dimension", "Index", "Score", "check_shares", "input_names"]


_MOST_INCONSISTENT = 0.10  # the limit of Saaty (1980)


class BaseScheme(Data):
    """A scheme of any kind: ordered levels, the level of customers without a purchase, vetoes, stability rule."""

    monotone: ClassVar[bool] = False
    """Whether a larger change never lowers the level, so that bisection finds the smallest sufficient change."""

    code: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,40}$")]
    name_zh: str
    name_en: str
    levels: Annotated[tuple[Level, ...], Field(min_length=2, max_length=12)]
    no_purchase: str | None = None
    """The level of customers without a purchase, whatever their features; the lowest where it is not set."""
    key_share: Share | None = None
    """The share of customers that the key levels should hold; checked against `shares`."""
    veto: tuple[Veto, ...] = ()
    stability: Stability | None = None
    priority: str | None = None
    """The feature that says who comes first, higher first, where a level has fewer places than customers."""
    strata: Strata | None = None
    """The text attribute by whose values cut points are found apart."""
    kind: str

    @property
    def label_feature(self) -> str | None:
        """The feature that holds the label to learn, which no model may read; None for most schemes."""
        return None

    @property
    def ranks_customers(self) -> bool:
        """Whether the kind ranks customers by a number of its own, so that a capacity needs no `priority`."""
        return False

    @property
    def made_names(self) -> Mapping[str, Named]:
        """The names of quantities in conditions that are not features, such as points."""
        return {}

    def given_conditions(self) -> Iterable[When]:
        """Return every condition of the scheme."""
        return (when for veto in self.veto for when in veto.when)

    @property
    def text_features(self) -> list[str]:
        """The text attributes that the scheme reads, sorted."""
        texts = {when.feature for when in self.given_conditions() if when.text is not None}
        return sorted(texts | ({self.strata.feature} if self.strata is not None else set()))

    def rule_names(self, _language: str) -> list[str]:
        """Return a name for every rule, empty for a rule without one; an empty list for most schemes."""
        return []

    def indexes(self, _state: dict[str, Any]) -> Sequence[tuple[str, Index, Mapping[str, Any]]]:
        """Return every index of the scheme: its key in `made_names`, the index, and its fitted state."""
        return ()

    @model_validator(mode="after")
    def _levels_hold_together(self) -> Self:
        codes = self.codes
        for name, values in (("code", codes), ("name_zh", self.names("zh")), ("name_en", self.names("en"))):
            twice = sorted({v for v in values if values.count(v) > 1})
            if twice:
                raise ValueError(f"levels: {name} {twice[0]!r} is used twice")
        if self.no_purchase is not None and self.no_purchase not in codes:
            raise ValueError(f"no_purchase: {self.no_purchase!r} is not a level; levels are {', '.join(codes)}")
        keys = [level.key for level in self.levels]
        if keys != sorted(keys):
            lowest = codes[keys.index(True)]
            raise ValueError(
                f"levels: {lowest!r} is a key level but a higher level is not; levels go from lowest to highest"
            )
        self._vetoes_name_levels()
        self._capacities_are_feasible()
        return self

    def _vetoes_name_levels(self) -> None:
        for veto in self.veto:
            if veto.highest not in self.bought_levels:
                raise ValueError(
                    f"veto: {veto.name_en!r} holds customers at {veto.highest!r}, which is not a level of customers "
                    "who bought"
                )

    def _capacities_are_feasible(self) -> None:
        if self.priority is not None and self.priority == self.label_feature:
            raise ValueError(f"priority: {self.priority!r} is the label to learn, which scores cannot know")
        capped = [code for code, places in self.capacities.items() if places is not None]
        if not capped:
            return
        lowest = self.bought_levels[0]
        if lowest in capped or self.no_purchase in capped:
            at = lowest if lowest in capped else self.no_purchase
            raise ValueError(f"levels: {at!r} cannot have a capacity: who finds no place above has to go there")
        if self.priority is None and not self.ranks_customers:
            raise ValueError(
                f"levels: {capped[0]!r} has a capacity, and nothing says who comes first; add a feature to rank by, "
                "higher first, such as `priority: net_amount_{longest}d`"
            )
        if self.strata is not None:
            raise ValueError(
                f"levels: {capped[0]!r} has a capacity, which cut points by {self.strata.by} cannot keep: each stratum "
                "has cut points of its own; remove capacity or strata"
            )

    @property
    def codes(self) -> list[str]:
        """The codes of the levels, lowest first."""
        return [level.code for level in self.levels]

    def policies(self, language: str) -> list[str]:
        """Return the service of each level, lowest first, in the language as far as it is given."""
        return [in_language(language, level.policy_zh or level.policy, level.policy) for level in self.levels]

    def names(self, language: str) -> list[str]:
        """Return the names of the levels, lowest first."""
        return [in_language(language, level.name_zh, level.name_en) for level in self.levels]

    @property
    def no_purchase_level(self) -> int:
        """The position, among all levels, of the level for customers without a purchase."""
        return 0 if self.no_purchase is None else self.codes.index(self.no_purchase)

    @property
    def bought_levels(self) -> list[str]:
        """The codes of the levels that customers with a purchase can reach, lowest first."""
        return [code for code in self.codes if code != self.no_purchase]

    @property
    def bought_numbers(self) -> list[int]:
        """The position, among all levels, of each of `bought_levels`."""
        return [self.codes.index(code) for code in self.bought_levels]

    @property
    def capacities(self) -> dict[str, int | None]:
        """The most customers that every level takes, by code; None: any number."""
        return {level.code: level.places for level in self.levels}

    def ordered(self, shares: Mapping[str, float]) -> dict[str, float]:
        """Return shares in the order of the levels, lowest first."""
        return {code: shares[code] for code in self.bought_levels}

    def ranked(self) -> Iterable[str]:
        """Return the features without which the scheme cannot be fitted."""
        return ()


def check_shares(shares: Mapping[str, float], scheme: BaseScheme) -> None:
    """Raise `ValueError` for shares that miss a level, name an unknown level or do not add up."""
    levels = scheme.bought_levels
    if set(shares) != set(levels):
        missing, unknown = ([c for c in some if c not in other] for some, other in ((levels, shares), (shares, levels)))
        raise ValueError(f"shares: missing {missing}, not a level {unknown}; each of {levels} needs one")
    total = sum(shares.values())
    if abs(total - 1) > 1e-9:
        raise ValueError(f"shares: they add up to {total:g}, not 1")
    key = sum(shares.get(level.code, 0) for level in scheme.levels if level.key)
    if scheme.key_share is not None and abs(key - scheme.key_share) > 1e-9:
        raise ValueError(f"key_share: the key levels hold {key:g} of the customers, not {scheme.key_share:g}")


class Dimension(Data):
    """One feature of an index, scored from 0 to 100 by its rank among the customers at fit; `weight` if declared."""

    feature: str
    weight: Share | None = None
    better: Literal["higher", "lower"] = "higher"
    optional: bool = False


class Index(Data):
    """A weighted mean of dimensions, in points from 0 to 100; weights are declared, or by entropy, CRITIC or AHP.

    Entropy (Shannon) and CRITIC (Diakoulaki, Mavrotas and Papayannakis 1995) weight a dimension by how well it
    discriminates between customers; `comparisons` is the matrix of pairwise comparisons of an analytic hierarchy
    process (Saaty 1980), in the order of the dimensions. A missing dimension is left out of a customer's mean (`drop`),
    or counts as 0 (`worst`) or 50 (`middle`). With `best_ties`, customers who tie at the better end of a dimension
    where lower is better, such as those without any overdue amount, get all its points.
    """

    dimensions: Annotated[tuple[Dimension, ...], Field(max_length=12)]
    weights: Literal["declared", "entropy", "critic", "ahp"] = "declared"
    comparisons: tuple[tuple[Annotated[float, Field(gt=0, le=9)], ...], ...] | None = None
    missing: Literal["drop", "worst", "middle"] = "drop"
    best_ties: bool = False

    @model_validator(mode="after")
    def _weights_hold_together(self) -> Self:
        names, n = [d.feature for d in self.dimensions], len(self.dimensions)
        if len(set(names)) < n:
            raise ValueError(f"dimensions: {max(names, key=names.count)!r} is there twice")
        if self.weights == "declared":
            self._declared_weights_add_up()
        elif declared := [d.feature for d in self.dimensions if d.weight is not None]:
            raise ValueError(f"dimensions: {declared[0]!r} has a weight, but weights are found by {self.weights}")
        if (self.comparisons is not None) != (self.weights == "ahp"):
            raise ValueError("comparisons: weights: ahp needs them, and nothing else does")
        self._comparisons_hold_together()
        return self

    def _declared_weights_add_up(self) -> None:
        if lacking := [d.feature for d in self.dimensions if d.weight is None]:
            raise ValueError(f"dimensions: {lacking[0]!r} has no weight")
        total = sum(d.weight or 0.0 for d in self.dimensions)
        if self.dimensions and abs(total - 1) > 1e-6:
            raise ValueError(f"dimensions: weights add up to {total:g}, not 1")

    def _comparisons_hold_together(self) -> None:
        matrix, names = self.comparisons, [d.feature for d in self.dimensions]
        if matrix is None:
            return
        if len(matrix) != len(names) or any(len(row) != len(names) for row in matrix):
            raise ValueError(f"comparisons: {len(names)} dimensions need {len(names)} rows of {len(names)} numbers")
        for (i, a), (j, b) in itertools.combinations_with_replacement(enumerate(names), 2):
            if abs(matrix[i][j] * matrix[j][i] - 1) > 0.02:
                raise ValueError(
                    f"comparisons: {a!r} over {b!r} is {matrix[i][j]:g}, the other way {matrix[j][i]:g}; "
                    "one must be 1 over the other"
                )
        ratio = consistency_ratio(matrix)
        if ratio > _MOST_INCONSISTENT:
            raise ValueError(
                f"comparisons: they contradict each other (consistency ratio {ratio:.2f}, at most 0.10 is usual)"
            )


class Score(Data):
    """A feature scored from 1 to `bins`: at given cut points, or fitted as quantiles or Jenks natural breaks.

    `quantiles` are cumulated shares for unequal bins, such as [0.5, 0.8] for the lower half, the next 30 % and the
    rest. A `sharp` score has no band, whatever the stability rule.
    """

    feature: str
    better: Literal["higher", "lower"] = "higher"
    bins: Annotated[int, Field(ge=2, le=10)] = 5
    cuts: tuple[Number, ...] | Literal["quantile", "jenks"] = "quantile"
    quantiles: tuple[Annotated[float, Field(gt=0, lt=1)], ...] | None = None
    sharp: bool = False

    @model_validator(mode="after")
    def _cuts_ascend(self) -> Self:
        if self.quantiles is not None and self.cuts != "quantile":
            raise ValueError("quantiles: they need cuts: quantile")
        for what, given in (("cuts", self.cuts), ("quantiles", self.quantiles)):
            if not isinstance(given, tuple):
                continue
            if len(given) != self.bins - 1:
                raise ValueError(f"{what}: {self.bins} bins need {self.bins - 1} cut points, not {len(given)}")
            if any(a >= b for a, b in itertools.pairwise(given)):
                raise ValueError(f"{what}: {list(given)} do not increase")
        return self


class Axis(Score):
    """One axis of a matrix: a scored feature, or the points of an index of several dimensions.

    `labels` name the scores, lowest first, in the column `grade_<axis>` of the score table.
    """

    name_zh: str
    name_en: str
    feature: str = ""
    index: Index | None = None
    labels: tuple[str, ...] | None = None

    @model_validator(mode="after")
    def _a_label_for_every_score(self) -> Self:
        if self.labels is not None and len(set(self.labels)) != self.bins:
            raise ValueError(f"labels: {list(self.labels)} do not name each of {self.bins} scores differently")
        return self

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if bool(self.feature) == (self.index is not None):
            raise ValueError(f"axes: {self.name_en!r} needs either a feature or an index")
        return self


def input_names(scheme: BaseScheme, panel: pd.DataFrame) -> tuple[str, ...]:
    """Return the features of a panel that models, baselines and tuning read: all but the label feature."""
    return tuple(name for name in feature_names(panel) if name != scheme.label_feature)
