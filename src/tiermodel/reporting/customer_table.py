"""The page's table of customers: whom to contact first, with reasons of the tier beside reasons of the risk."""

from __future__ import annotations

from typing import Any

import numpy as np

from tiermodel.errors import TierModelError
from tiermodel.reporting.customer import read_features
from tiermodel.reporting.customers import policies, segment_names, stage_codes
from tiermodel.reporting.inputs import ReportInputs
from tiermodel.words import words
from tiermodel.worklists.risk_reasons import risk_reasons

__all__ = ["ROWS", "customer_table"]

ROWS = 1_500
"""The most customers that a page lists; the score table has all of them."""


def customer_table(inputs: ReportInputs, names: list[str], language: str, *, ids: bool) -> dict[str, Any]:
    """Return the customers with the highest value at risk, who have not left yet first; without `ids` by rank only."""
    scores, wording = inputs.scores, words(language)
    assert scores is not None  # noqa: S101
    stage = stage_codes(scores["lifecycle_stage"])
    at_risk = (scores["churn_risk"] * scores["expected_value"]).to_numpy(dtype=np.float64)
    order = np.lexsort((np.arange(len(scores)), -np.nan_to_num(at_risk, nan=-np.inf), (stage == "churned").to_numpy()))
    chosen = scores.iloc[order[:ROWS]]
    risks = _risk_reasons(inputs, chosen["customer_id"].tolist(), language)
    services, segments = policies(inputs, language), segment_names(inputs, language)
    rows = []
    for k, row in zip(order[:ROWS], chosen.to_dict("records"), strict=True):
        before = row["previous_tier"]
        moved = "new" if np.isnan(before) else ("down", "same", "up")[int(np.sign(row["tier"] - before)) + 1]
        told = wording[f"lifecycle_{stage.iloc[k]}"] if stage.iloc[k] else ""
        rows.append({
            "customer": row["customer_id"] if ids else "", "tier": row["tier"], "name": names[row["tier"]],
            "segment": segments.get(row.get("segment", ""), row.get("segment", "")), "stage": told,
            "risk": row["churn_risk"],
            "value": row["expected_value"], "low": row["expected_value_low"], "high": row["expected_value_high"],
            "at_risk": float(at_risk[k]), "movement": wording[f"movement_{moved}"], "policy": services[row["tier"]],
            "reasons": wording["semicolon"].join(r for n in (1, 2, 3) if (r := row[f"reason_{n}"])),
            "risks": wording["semicolon"].join(risks.get(row["customer_id"], ())),
        })  # fmt: skip
    return {
        "rows": rows, "ids": ids, "all": len(scores), "has_risks": bool(risks),
        "has_segments": any(row["segment"] for row in rows),
        "filters": {
            "name": names[::-1],
            **{key: list(dict.fromkeys(row[key] for row in rows if row[key])) for key in ("stage", "movement")},
        },
        "other_language": inputs.bundle is not None and inputs.bundle.language != language,
    }  # fmt: skip


def _risk_reasons(inputs: ReportInputs, customers: list[str], language: str) -> dict[str, tuple[str, ...]]:
    """Return up to two reasons of the churn risk by customer; none without the bundle that scored and its features."""
    if inputs.bundle is None or inputs.scores is None or "features" not in inputs.places:
        return {}
    if inputs.bundle.version != inputs.scores["model_version"].iloc[0]:
        return {}
    frame = read_features(inputs.places["features"], None, None, str(inputs.scores["as_of"].iloc[0]))
    if frame is None or frame.empty:
        return {}
    frame = frame.assign(customer_id=frame["customer_id"].astype(str)).set_index("customer_id", drop=False)
    bought = inputs.scores.set_index("customer_id")["churn_risk"].notna()
    mine = [c for c in customers if bought[c] and c in frame.index]
    try:
        found = risk_reasons(inputs.bundle, frame.loc[mine].reset_index(drop=True), language)
    except (TierModelError, KeyError):  # a feature table of a project with other features: it still draws the map
        return {}
    return {c: tuple(text for text in texts[:2] if text) for c, texts in zip(mine, found.texts, strict=True)}
