"""The data class of the kind `learned`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tiermodel.features.condition import Named, Words
from tiermodel.tiers.schemes.conditions import Share
from tiermodel.tiers.schemes.schema import BaseScheme, check_shares
from tiermodel.words import words

__all__ = ["SCORE", "LearnedScheme"]


SCORE = "learned_score"


class LearnedScheme(BaseScheme):
    """Levels learned from the value that followed, from labels or from clusters, by a tree or a stronger learner.

    `label` names the one of `features.attributes` that holds the tier which the business gave a customer, by its number
    (0 lowest). A tree of few leaves is its own rules; a stronger learner gives a score, cut at the shares, and a tree
    that imitates it. `auto` chooses the learner by its metrics on later snapshots of the training data.
    """

    kind: Literal["learned"]
    target: Literal["future_value", "clusters", "labels"] = "future_value"
    label: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")] | None = None
    learner: Literal["tree", "ordinal_boosting", "neural_network", "auto"] = "tree"
    shares: dict[str, Share] | None = None
    max_leaves: Annotated[int, Field(ge=2, le=64)] = 12
    min_leaf_share: Annotated[float, Field(gt=0, le=0.5)] = 0.02

    @property
    def label_feature(self) -> str | None:
        """The feature that holds the labels; None without labels."""
        return None if self.label is None else f"attribute_{self.label}"

    @property
    def ranks_customers(self) -> bool:
        """Whether the kind ranks customers by a number of its own: by the score of a strong learner."""
        return self.learner in {"ordinal_boosting", "neural_network"}

    @property
    def made_names(self) -> dict[str, Named]:
        """The name of the score."""
        return {SCORE: Words(*(words(language)["learned_score"] for language in ("zh", "en")))}

    def ranked(self) -> Iterable[str]:
        """Return the features without which the scheme cannot be fitted."""
        return [] if self.label_feature is None else [self.label_feature]

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
        if self.strata is not None:
            raise ValueError(
                "strata: a learned scheme has no cut points to find by stratum; remove strata, or take a scheme of "
                "kind share, rfm, matrix, composite or thresholds"
            )
        if self.max_leaves < len(self.bought_levels):
            raise ValueError(f"max_leaves: {self.max_leaves} leaves cannot make {len(self.bought_levels)} levels")
        return self
