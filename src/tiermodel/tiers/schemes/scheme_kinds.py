"""The registered kinds of scheme. A new kind is a file in `tiers/kinds`, and a line in each of the two tables."""

from __future__ import annotations

from typing import Any

from tiermodel.tiers.kinds import composite, rfm_matrix, share, thresholds
from tiermodel.tiers.learned import fit as learned
from tiermodel.tiers.learned.scheme import LearnedScheme
from tiermodel.tiers.schemes.protocol import SchemeKind
from tiermodel.tiers.schemes.schema import BaseScheme

__all__ = ["KINDS", "SCHEMES"]

SCHEMES: dict[str, type[BaseScheme]] = {
    "share": share.ShareScheme,
    "thresholds": thresholds.ThresholdScheme,
    "rfm": rfm_matrix.RfmScheme,
    "composite": composite.CompositeScheme,
    "matrix": rfm_matrix.MatrixScheme,
    "learned": LearnedScheme,
}
"""The data class of each kind, by the value of a scheme's key `kind`."""

KINDS: dict[str, SchemeKind[Any]] = {
    "share": share,
    "thresholds": thresholds,
    "rfm": rfm_matrix,
    "composite": composite,
    "matrix": rfm_matrix,
    "learned": learned,
}
"""The module that implements each kind."""
