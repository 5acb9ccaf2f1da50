"""Comparison of learned tiers with tiers by rules on the same customers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from tiermodel.errors import TierModelError
from tiermodel.evaluation.metrics import quadratic_weighted_kappa
from tiermodel.features.frame import has_bought
from tiermodel.tiers.fitted_scheme import FittedScheme, fit_scheme
from tiermodel.tiers.kinds.composite import CompositeScheme
from tiermodel.tiers.schemes.load import load_preset, scheme_data
from tiermodel.tiers.schemes.protocol import LearningKind

__all__ = ["agreement", "compare_with_rules", "matching_composite"]


_PLACES = {"capacity", "managers", "customers_per_manager"}
_COMPOSITE, _OTHERS = "rfm_score", ("rfm", "pyramid")


def compare_with_rules(
    fitted: FittedScheme, snapshot: pd.DataFrame, windows_days: tuple[int, ...], seed: int
) -> dict[str, Any]:
    """Give, for a learned scheme, its agreement with a composite of the same level sizes, with RFM and the pyramid."""
    if not isinstance(fitted.kind, LearningKind):
        return {}
    level, _ = fitted.assign(snapshot)
    others: dict[str, Any] = {"composite": matching_composite(fitted, snapshot, windows_days)}
    others |= {name: load_preset(name, windows_days) for name in _OTHERS}
    found = {}
    for name, scheme in others.items():
        try:
            rules = scheme and fit_scheme(scheme, snapshot, snapshot, seed)
        except TierModelError:  # such as a feature that is not built: no rule to be compared with
            rules = None
        if rules:
            found[name] = agreement(level, fitted, rules.assign(snapshot)[0], rules)
    return {"agreement": found}


def matching_composite(
    fitted: FittedScheme, snapshot: pd.DataFrame, windows: tuple[int, ...]
) -> CompositeScheme | None:
    """Return 0.2 R + 0.3 F + 0.5 M with the levels of a fitted scheme, as large as they are on the snapshot.

    None where a level is empty there, since a composite cannot have an empty level.
    """
    bought = snapshot[has_bought(snapshot)]
    level, _ = fitted.assign(bought)
    codes = fitted.scheme.codes
    sizes = {code: float(np.mean(level == codes.index(code))) for code in fitted.scheme.bought_levels}
    if not all(sizes.values()):
        return None
    preset, own = scheme_data(load_preset(_COMPOSITE, windows)), scheme_data(fitted.scheme)
    kept = {"levels": own["levels"], "no_purchase": own["no_purchase"], "shares": sizes}
    levels = [{k: v for k, v in level_.items() if k not in _PLACES} for level_ in kept["levels"]]
    return CompositeScheme.model_validate({**preset, **kept, "levels": levels, "stability": None})


def agreement(level: Any, fitted: FittedScheme, other: Any, rules: FittedScheme) -> dict[str, Any]:
    """Return the counts of customers by pair of levels, the share in the same tier, and the weighted kappa.

    The last two are None where the schemes differ in the number of levels.
    """
    codes, theirs = fitted.scheme.codes, rules.scheme.codes
    counts = np.zeros((len(codes), len(theirs)), dtype=np.int64)
    np.add.at(counts, (level, other), 1)
    alike = len(codes) == len(theirs)
    kappa = quadratic_weighted_kappa(other, level, len(codes)) if alike else np.nan
    return {
        "figures": {
            "n": len(level),
            "equal": float(np.mean(level == other)) if alike else None,
            "qwk": None if np.isnan(kappa) else kappa,
        },
        "counts": {code: dict(zip(theirs, row.tolist(), strict=True)) for code, row in zip(codes, counts, strict=True)},
    }
