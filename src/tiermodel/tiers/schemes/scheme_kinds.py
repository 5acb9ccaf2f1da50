"""The kinds of scheme as data: share, thresholds, rfm, composite, matrix, learned; each proves that it is whole."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from tiermodel.tiers.schemes.schema import Axis, BaseScheme, Data, Index, Number, Score, Share, When, check_shares

__all__ = [
    "Cell",
    "CompositeScheme",
    "LearnedScheme",
    "MatrixScheme",
    "RfmScheme",
    "ShareScheme",
    "ThresholdScheme",
]


class ShareScheme(BaseScheme):
    """Give each level a share of the customers, or of the cumulated value, ranked by one feature."""

    kind: Literal["share"]
    feature: str
    of: Literal["customers", "value"] = "customers"
    shares: dict[str, Share]

    @model_validator(mode="after")
    def _shares_add_up(self) -> Self:
        check_shares(self.shares, self)
        return self

    def ranked(self) -> Iterable[str]:
        """List the features that the scheme cannot do without."""
        return [self.feature]


class CompositeScheme(BaseScheme, Index):
    """Rank customers by the points of an index; levels hold shares of them, or start at given points."""

    kind: Literal["composite"]
    shares: dict[str, Share] | None = None
    points: dict[str, Annotated[float, Field(gt=0, lt=100)]] | None = None

    @model_validator(mode="after")
    def _levels_are_cut(self) -> Self:
        if (self.shares is None) == (self.points is None):
            raise ValueError("shares: a composite needs either shares, or the points at which each level starts")
        if self.shares is not None:
            check_shares(self.shares, self)
        if self.points is not None:
            if list(self.points) != self.bought_levels[1:]:
                raise ValueError(f"points: give the start of each of {self.bought_levels[1:]}, in this order")
            for (low, a), (high, b) in itertools.pairwise(self.points.items()):
                if a >= b:
                    raise ValueError(f"points: {high!r} starts at {b:g}, not above {low!r} at {a:g}")
        if not self.dimensions:
            raise ValueError("dimensions: none of them is built")
        return self

    def ranked(self) -> Iterable[str]:
        """List the features that the scheme cannot do without."""
        return [d.feature for d in self.dimensions]


class Rule(Data):
    """Send whoever meets every condition to a level; without conditions, everybody who is left."""

    level: str
    when: tuple[When, ...] = ()
    optional: bool = False


class ThresholdScheme(BaseScheme):
    """Grade by a cascade of readable conditions, highest level first; the first rule that holds decides."""

    kind: Literal["thresholds"]
    rules: Annotated[tuple[Rule, ...], Field(min_length=2)]

    @model_validator(mode="after")
    def _rules_are_ordered_exclusive_complete(self) -> Self:
        for n, rule in enumerate(self.rules, 1):
            if rule.level not in self.bought_levels:
                raise ValueError(
                    f"rules: rule {n} goes to {rule.level!r}, which is not a level of customers who bought"
                )
            if not rule.when and n < len(self.rules):
                raise ValueError(f"rules: rule {n} ({rule.level}) takes everybody, so the rules after it are never met")
            if n > 1 and self.codes.index(rule.level) > self.codes.index(self.rules[n - 2].level):
                above = self.rules[n - 2].level
                raise ValueError(f"rules: rule {n} ({rule.level}) stands below {above}; write the highest level first")
            for m, earlier in enumerate(self.rules[: n - 1], 1):
                if not any(w.optional for w in earlier.when) and all(
                    any(mine.implies(theirs) for mine in rule.when) for theirs in earlier.when
                ):
                    raise ValueError(
                        f"rules: rule {n} ({rule.level}) is never met: rule {m} ({earlier.level}) takes all"
                    )
        if self.rules[-1].when:
            raise ValueError("rules: the last rule has conditions; whoever meets none needs one without")
        unreachable = [code for code in self.bought_levels if code not in {rule.level for rule in self.rules}]
        if unreachable:
            raise ValueError(f"rules: no rule goes to {unreachable[0]!r}")
        return self

    def ranked(self) -> Iterable[str]:
        """List the features that the scheme cannot do without."""
        return dict.fromkeys(w.feature for rule in self.rules for w in rule.when)


class Cell(Data):
    """Name the customers whose scores lie in the given sets, and their level."""

    name_zh: str
    name_en: str
    level: str
    r: tuple[int, ...]
    f: tuple[int, ...]
    m: tuple[int, ...]

    def at(self, axis: str) -> tuple[int, ...]:
        """List the scores on an axis."""
        return tuple(getattr(self, axis))


class MatrixCell(Data):
    """Name the customers whose scores lie in the given sets, and their level; an axis not named may be anything."""

    name_zh: str
    name_en: str
    level: str
    scores: dict[str, tuple[int, ...]]

    def at(self, axis: str) -> tuple[int, ...]:
        """List the scores on an axis."""
        return self.scores.get(axis, tuple(range(1, 11)))


class GridScheme(BaseScheme):
    """Map every combination of scores to one level."""

    @property
    def grid(self) -> Mapping[str, Score]:
        """Give the axes by name, in order."""
        raise NotImplementedError

    def word(self, axis: str, score: int) -> str:
        """Write a score as errors and names do."""
        return f"{axis} {score}"

    def ranked(self) -> Iterable[str]:
        """List the features that the scheme cannot do without."""
        for axis in self.grid.values():
            index = getattr(axis, "index", None)
            yield from [axis.feature] if index is None else [d.feature for d in index.dimensions]

    def combinations(self) -> Iterable[tuple[int, ...]]:
        """List every combination of scores, the last axis fastest."""
        return itertools.product(*(range(1, axis.bins + 1) for axis in self.grid.values()))

    def _check_cells(self, cells: Iterable[Any]) -> None:
        axes = self.grid
        for cell in cells:
            if cell.level not in self.bought_levels:
                raise ValueError(
                    f"cells: {cell.name_en!r} goes to {cell.level!r}, which is not a level of customers who bought"
                )
            for name, axis in axes.items():
                unknown = [] if name not in getattr(cell, "scores", axes) else [
                    s for s in cell.at(name) if not 1 <= s <= axis.bins
                ]  # fmt: skip
                if unknown:
                    word = self.word(name, unknown[0])
                    raise ValueError(f"cells: {cell.name_en!r} has {word}, but scores go from 1 to {axis.bins}")
        for scores in self.combinations():
            found = [c.name_en for c in cells if all(s in c.at(a) for s, a in zip(scores, axes, strict=True))]
            if len(found) != 1:
                where = " ".join(self.word(a, s) for a, s in zip(axes, scores, strict=True))
                what = "no cell" if not found else f"{len(found)} cells ({', '.join(found)})"
                raise ValueError(f"cells: {where} belongs to {what}; each combination needs exactly one")


class RfmScheme(GridScheme):
    """Score recency, frequency and money, and map every combination of scores to one named cell."""

    kind: Literal["rfm"]
    r: Score
    f: Score
    m: Score
    cells: tuple[Cell, ...]

    @property
    def grid(self) -> Mapping[str, Score]:
        """Give the axes by name, in order."""
        return {"r": self.r, "f": self.f, "m": self.m}

    def word(self, axis: str, score: int) -> str:
        """Write a score as errors and names do."""
        return f"{axis.upper()}{score}"

    @model_validator(mode="after")
    def _cells_partition_the_scores(self) -> Self:
        self._check_cells(self.cells)
        return self


class Combination(Data):
    """Combine the scores of all axes into one number, and say from which number on each level starts."""

    rule: Literal["sum", "lowest", "highest", "median"]
    at_least: dict[str, Number]


class MatrixScheme(GridScheme):
    """Score two or three axes, and map each combination of scores to one named cell, or combine them by a rule."""

    kind: Literal["matrix"]
    axes: Annotated[dict[str, Axis], Field(min_length=2, max_length=3)]
    cells: tuple[MatrixCell, ...] = ()
    combine: Combination | None = None

    @property
    def grid(self) -> Mapping[str, Score]:
        """Give the axes by name, in order."""
        return self.axes

    @model_validator(mode="after")
    def _cells_partition_the_scores(self) -> Self:
        if bool(self.cells) == (self.combine is not None):
            raise ValueError("cells: a matrix needs either cells or a rule to combine the scores")
        for cell in self.cells:
            if unknown := [axis for axis in cell.scores if axis not in self.axes]:
                raise ValueError(f"cells: {cell.name_en!r} scores {unknown[0]!r}; axes are {', '.join(self.axes)}")
        if self.cells:
            self._check_cells(self.cells)
        if self.combine is not None:
            starts = self.combine.at_least
            if list(starts) != self.bought_levels[1:]:
                raise ValueError(f"combine: give the start of each of {self.bought_levels[1:]}, in this order")
            reached = {self.combined(scores) for scores in self.combinations()}
            empty = [c for c in self.bought_levels if c not in reached]
            if empty:
                raise ValueError(f"combine: no combination of scores reaches {empty[0]!r}")
        return self

    def combined(self, scores: tuple[int, ...]) -> str:
        """Give the level of a combination of scores by the rule."""
        if self.combine is None:
            raise TypeError("the scheme has cells")
        ranked = sorted(scores)
        numbers = {
            "sum": sum(ranked),
            "lowest": ranked[0],
            "highest": ranked[-1],
            "median": ranked[(len(ranked) - 1) // 2],
        }
        number = numbers[self.combine.rule]
        return self.bought_levels[sum(number >= start for start in self.combine.at_least.values())]


class LearnedScheme(BaseScheme):
    """Learn levels from the value that followed, from labels, or from clusters, by a tree or a stronger learner.

    `label` names the one of `features.attributes` that holds the tier which the business gave a customer, by its number
    (0 lowest). The tree of few leaves is its own rules; a stronger learner gives a score, cut at the shares, and a tree
    that imitates it. `auto` chooses the learner by what it captured on later snapshots before the training's end.
    """

    kind: Literal["learned"]
    target: Literal["future_value", "clusters", "labels"] = "future_value"
    label: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")] | None = None
    learner: Literal["tree", "ordinal_boosting", "neural_network", "auto"] = "tree"
    shares: dict[str, Share] | None = None
    max_leaves: Annotated[int, Field(ge=2, le=64)] = 12
    min_leaf_share: Annotated[float, Field(gt=0, le=0.5)] = 0.02

    @property
    def kept_out(self) -> str | None:
        """Name the feature that holds the labels, if any."""
        return None if self.label is None else f"attribute_{self.label}"

    def ranked(self) -> Iterable[str]:
        """List the features that the scheme cannot do without."""
        return [] if self.kept_out is None else [self.kept_out]

    @model_validator(mode="after")
    def _target_and_shares_fit(self) -> Self:
        if (self.label is not None) != (self.target == "labels"):
            raise ValueError("label: target labels needs one of features.attributes, and no other target does")
        if self.target == "future_value" and self.shares is None:
            raise ValueError("shares: target future_value needs a share for every level")
        if self.target == "clusters" and self.shares is not None:
            raise ValueError("shares: clusters find their own sizes; leave shares out")
        if self.shares is not None:
            check_shares(self.shares, self)
        if self.max_leaves < len(self.bought_levels):
            raise ValueError(f"max_leaves: {self.max_leaves} leaves cannot make {len(self.bought_levels)} levels")
        return self
