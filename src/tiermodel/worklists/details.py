"""What a list says of each of its customers beside the scores: reasons, the smallest change, what is in doubt."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from tiermodel.bundle.bundle import Bundle
from tiermodel.errors import ProjectError
from tiermodel.tiers.explain.next_tier import action_features, next_tier_actions
from tiermodel.words import words
from tiermodel.worklists.feature_table import FeatureTable
from tiermodel.worklists.files import schema_of
from tiermodel.worklists.risk_reasons import REASONS, risk_reasons

__all__ = ["with_details"]

_AMOUNT, _CHANCE = 4, 6


def with_details(name: str, rows: pd.DataFrame, known: FeatureTable, bundle: Bundle, language: str) -> pa.Table:
    """Return the table of a list: the columns of `schema_of`, one row for each of `rows`, in their order."""
    names = dict(zip(bundle.scheme.scheme.codes, bundle.scheme.scheme.names(language), strict=True))
    make = {
        "keep": _keep, "win_back": _win_back, "develop": _develop, "review": _review, "expiring_overrides": _overrides,
    }[name]  # fmt: skip
    made = rows.assign(
        rank=np.arange(1, len(rows) + 1),
        tier_name=rows["tier_code"].map(lambda code: names.get(code, code)),
        **make(rows, known, bundle, language),
    )
    schema = schema_of(name)
    columns = [pa.array(_plain(made[field.name]), field.type) for field in schema]
    return pa.table(columns, schema=schema)


def _plain(column: pd.Series) -> list[Any]:
    """Return the values of a column, None where one is missing."""
    return list(column.astype(object).where(column.notna(), None))


def _keep(rows: pd.DataFrame, known: FeatureTable, bundle: Bundle, language: str) -> dict[str, Any]:
    found = risk_reasons(bundle, known.of(rows["customer_id"].tolist()), language)
    texts = np.array(found.texts, dtype=object).reshape(len(rows), REASONS)
    none = texts == ""
    texts[none] = None
    effects = np.where(none, np.nan, found.effects)
    return {
        "value_at_risk": rows["priority"],
        **{f"risk_reason_{k + 1}": texts[:, k] for k in range(REASONS)},
        **{f"risk_effect_{k + 1}": effects[:, k] for k in range(REASONS)},
        "risk_effect_others": found.others,
    }


def _win_back(rows: pd.DataFrame, known: FeatureTable, _: Bundle, __: str) -> dict[str, Any]:
    features = known.of(rows["customer_id"].tolist())
    return {
        "expected_worth": rows["priority"],
        "chance_to_return": rows["chance_to_return"].round(_CHANCE),
        "days_since_last": features["days_since_last"].round().astype("Int64"),
    }


def _develop(rows: pd.DataFrame, known: FeatureTable, bundle: Bundle, language: str) -> dict[str, Any]:
    """Return the change that leads above the tier in force and overtakes fewest others."""
    scheme = bundle.scheme.scheme
    found = _changes(rows, known, bundle, language)
    level = {code: n for n, code in enumerate(scheme.codes)}
    now = rows.set_index("customer_id")["tier"]
    if len(found):
        reached = found["reached_code"].map(level).to_numpy()
        found = found[reached > now.reindex(found["customer_id"]).to_numpy()]
        found = found.sort_values(["customer_id", "easiness"]).groupby("customer_id").head(1)
    best = found.set_index("customer_id").reindex(rows["customer_id"])
    names = dict(zip(scheme.codes, scheme.names(language), strict=True))
    return {
        "expected_gain": rows["priority"],
        "gain_if_up": rows["gain_if_up"].round(_AMOUNT),
        "reached_code": best["reached_code"].to_numpy(),
        "reached_name": [names.get(code) for code in best["reached_code"]],
        "smallest_change": best["words"].to_numpy(),
    }


def _changes(rows: pd.DataFrame, known: FeatureTable, bundle: Bundle, language: str) -> pd.DataFrame:
    """Return the single changes that lead higher; none where no rules state at which values the level changes."""
    none = pd.DataFrame({name: pd.Series(dtype=object) for name in ("customer_id", "reached_code", "words")})
    try:
        names = action_features(bundle.scheme)
    except ProjectError:
        return none
    if not len(rows):
        return none
    own = known.of(rows["customer_id"].tolist())
    return next_tier_actions(bundle.scheme, own, bundle.features, language, known.buyers(names))


def _review(rows: pd.DataFrame, _: FeatureTable, bundle: Bundle, language: str) -> dict[str, Any]:
    scheme, wording = bundle.scheme.scheme, words(language)
    codes, names = scheme.codes, scheme.names(language)
    whys = []
    for row in rows.to_dict("records"):
        why = []
        if ".." in row["tier_set"]:
            low, high = (names[codes.index(code)] for code in row["tier_set"].split(".."))
            why.append(wording["review_set"].format(low=low, high=high))
        if not pd.isna(row["low"]):
            why.append(wording["review_line"].format(low=names[int(row["low"])], high=names[int(row["high"])]))
        if row["model_tier"] != row["tier"]:
            why.append(wording["review_rules"].format(name=names[row["model_tier"]]))
        whys.append(wording["semicolon"].join(why))
    return {
        "worth_in_doubt": rows["priority"],
        "p_other_tier": (1 - rows["p_tier"]).round(_CHANCE),
        "rules_code": [codes[int(level)] for level in rows["model_tier"]],
        "why": whys,
    }


def _overrides(rows: pd.DataFrame, _: FeatureTable, bundle: Bundle, language: str) -> dict[str, Any]:
    scheme, wording = bundle.scheme.scheme, words(language)
    names = dict(zip(scheme.codes, scheme.names(language), strict=True))
    return {
        "stable_name": [names.get(code, code) for code in rows["stable_code"]],
        "also_due": [None if pd.isna(name) else wording[f"list_{name}"] for name in rows["due"]],
    }
