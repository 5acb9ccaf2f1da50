"""The columns of the score table that a service policy sets: its text, its id and its name for each customer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from tiermodel.config.project import Project
from tiermodel.policy.service_policy import Policy, load_policy

__all__ = ["ServiceColumns", "service_columns"]

_ADDED = ("policy_id", "policy_name")


@dataclass(frozen=True)
class ServiceColumns:
    """The columns `policy`, `policy_id` and `policy_name` for the tiers of a scheme, in a language."""

    policy: Policy
    codes: tuple[str, ...]
    language: str

    def schema(self, scores: pa.Schema) -> pa.Schema:
        """Return the columns of a score table with those of the policy, which come last."""
        return pa.schema([*scores, *((name, pa.string()) for name in _ADDED)], metadata=scores.metadata)

    def of_level(self, code: str) -> dict[str, str]:
        """Return the service of one tier by column."""
        level = self.policy.levels[code]
        found = (level.text(self.language, code), self.policy.level_id(code), level.name(self.language, code))
        return dict(zip(("policy", *_ADDED), found, strict=True))

    def added(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield batches of scores with the service of each customer's tier."""
        levels = [(code, self.policy.levels[code]) for code in self.codes]
        texts = pa.array([level.text(self.language, code) for code, level in levels], pa.string())
        ids = pa.array([self.policy.level_id(code) for code in self.codes], pa.string())
        names = pa.array([level.name(self.language, code) for code, level in levels], pa.string())
        for batch in batches:
            tier = pc.index_in(batch["tier_code"], pa.array(self.codes, pa.string()))
            place = batch.schema.get_field_index("policy")
            known = batch.set_column(place, "policy", texts.take(tier))
            for name, column in zip(_ADDED, (ids, names), strict=True):
                known = known.append_column(name, column.take(tier))
            yield known


def service_columns(project: Project, codes: Iterable[str]) -> ServiceColumns | None:
    """Return the columns of the project's policy for the levels of a scheme; None where the project has no policy.

    Raises `ProjectError` for a policy that is wrong, or lacks a level.
    """
    if project.policy is None:
        return None
    policy = load_policy(project.policy, project.folder)
    levels = tuple(codes)
    policy.refuse_missing(levels, project.policy)
    return ServiceColumns(policy, levels, project.language)
