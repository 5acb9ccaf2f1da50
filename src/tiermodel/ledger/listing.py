"""Rows of a ledger in the words that people read, and the overrides in force on a day."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

import pandas as pd

from tiermodel.ledger.ledger import Ledger
from tiermodel.words import words

__all__ = ["listed_overrides", "listed_rows", "overrides_on"]

_FURTHER = ("file", "superseded_by")


def listed_rows(rows: pd.DataFrame, language: str, names: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return rows of a ledger by the heads of their columns: customer, span, tier and what it was before, reason.

    `names` has the names of tiers by code; a code without one stands for itself.
    """
    wording, listed = words(language), []
    for row in rows.astype(object).where(rows.notna(), None).to_dict("records"):
        tier, before = (row[name] and names.get(row[name], row[name]) for name in ("tier_code", "previous_code"))
        told = {wording["ledger_customer"]: row["customer_id"], wording["ledger_from"]: row["valid_from"]}
        if "valid_to" in row:
            told[wording["ledger_until"]] = row["valid_to"]
        told[wording["ledger_tier"]] = (
            tier if before in {None, tier} else f"{before} → {tier or wording['ledger_left']}"
        )
        told[wording["ledger_reason"]] = _reason(row, wording)
        listed.append(told | {wording[f"ledger_{name}"]: row[name] for name in _FURTHER if name in row})
    return listed


def _reason(row: Mapping[Any, Any], wording: Mapping[str, str]) -> str | None:
    if row["operator"] is not None:
        told = wording["ledger_by_hand" if row["expires"] is None else "ledger_by_hand_until"]
        return told.format(operator=row["operator"], expires=row["expires"], reason=row["reason_1"])
    if row["event"] == "withdrawn":
        return wording["ledger_withdrawn"].format(reason=row["reason_1"])
    return wording["ledger_expired"] if row["event"] == "expired" else row["reason_1"]


def overrides_on(book: Ledger, day: date, within_days: int | None = None) -> pd.DataFrame:
    """Return the overrides in force on a day, the next to expire first; those without an end come last.

    Columns: `customer_id`, `tier_code`, `stable_code` (the tier beneath), `valid_from`, `expires`, `days_left`
    (missing: for good), `operator`, `reason`. With `within_days` only those that expire within so many days.
    """
    now = book.as_of(day)
    now = now[now["operator"].notna()].set_index("customer_id")
    spans = book.history()
    spans = spans[spans["customer_id"].isin(now.index) & spans["operator"].notna()]
    spans = spans[(spans["valid_from"] <= day)].groupby("customer_id").tail(1)
    found = spans.assign(stable_code=now["stable_code"].reindex(spans["customer_id"]).to_numpy())
    left = (pd.to_datetime(found["expires"]) - pd.Timestamp(day)).dt.days
    found = found.assign(days_left=left.astype("Int64"), reason=found["reason_1"])
    if within_days is not None:
        found = found[found["days_left"].notna() & (found["days_left"] <= within_days)]
    names = ["customer_id", "tier_code", "stable_code", "valid_from", "expires", "days_left", "operator", "reason"]
    return found.sort_values(["days_left", "customer_id"], na_position="last")[names].reset_index(drop=True)


def listed_overrides(found: pd.DataFrame, language: str, names: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return overrides by the heads of their columns: the tier beneath and the one set, the end, by whom and why."""
    wording = words(language)
    return [
        {
            wording["ledger_customer"]: row["customer_id"],
            wording["ledger_until"]: row["expires"],
            wording["ledger_days_left"]: row["days_left"],
            wording["ledger_tier"]: " → ".join(names.get(row[n], row[n]) for n in ("stable_code", "tier_code")),
            wording["ledger_operator"]: row["operator"],
            wording["ledger_reason"]: row["reason"],
        }
        for row in found.astype(object).where(found.notna(), None).to_dict("records")
    ]
