"""The ranges of scores: one outside of its own never leaves."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tiermodel.arrays import Flags, Floats
from tiermodel.errors import ModelError

__all__ = ["refuse_beyond"]

_INF = float("inf")
_RANGES = {"churn_risk": (0.0, 1.0), "upgrade_potential": (0.0, 1.0), "conversion_chance": (0.0, 1.0)}
_BY_PREFIX = {"p_": (0.0, 1.0), "score_": (0.0, 100.0)}
_NOT_BELOW_ZERO = {"potential"}


def _range(name: str) -> tuple[float, float]:
    for prefix, limits in _BY_PREFIX.items():
        if name.startswith(prefix):
            return limits
    return _RANGES.get(name, (0.0 if name in _NOT_BELOW_ZERO else -_INF, _INF))


def refuse_beyond(where: object, columns: Mapping[str, Floats], known: Mapping[str, Flags]) -> None:
    """Raise `ModelError` for a score outside of its range, infinite, or NaN where it has to be known.

    `columns` have the names of the score table; `known` are the rows in which a score has to be known, all rows may
    lack the others.
    """
    for name, values in columns.items():
        low, high = _range(name)
        wrong = ~((values >= low) & (values <= high) & np.isfinite(values))
        wrong &= known[name] if name in known else ~np.isnan(values)
        if wrong.any():
            at = int(np.flatnonzero(wrong)[0])
            limits = "finite" if high == _INF else f"{low:g} to {high:g}"
            raise ModelError(
                f"{where}: {name} is {values[at]:g} at position {at}, not {limits}: the bundle is damaged, or the "
                "features are beyond any that it can score; train it again, or build the features again"
            )
