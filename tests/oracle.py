"""Every feature and the outcome once more, in plain slow Python, written from what the catalogue says in words.

A row is a mapping: day (days since 1970-01-01), amount, cost and discount (1/10,000 of a currency unit), order_key, and
product_key, category_key (None where unknown). Equal rows are one row. NaN stands for "no answer".
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from fractions import Fraction
from itertools import pairwise
from statistics import fmean, pstdev
from typing import Any

Row = dict[str, Any]
NAN = math.nan


def features_of(rows: Iterable[Row], as_of: int, windows: Sequence[int]) -> dict[str, float] | None:
    """Give every feature of one customer as known at the start of day `as_of`; None if there was no row before."""
    past = [row for row in _distinct(rows) if row["day"] < as_of]
    if not past:
        return None
    found = {**_rfm(past), **_loyalty(past, as_of), **_potential(past, as_of)}
    for days in windows:
        found |= _window_features(past, as_of, days)
    return {name: float(value) for name, value in found.items()}


def outcome_of(
    rows: Iterable[Row], as_of: int, gap: int, horizon: int, data_end: int, measure: str = "amount"
) -> tuple[float, float]:
    """Give days with a purchase and value in [as_of + gap, as_of + gap + horizon); NaN if the data ends before that."""
    if as_of + gap + horizon > data_end:
        return NAN, NAN
    rows = _distinct(rows)
    window = _between(rows, as_of + gap, as_of + gap + horizon)
    value = _money(window) - (_money(window, "cost") if measure == "margin" else 0)
    bought = {row["day"] for row in window if row["amount"] >= 0}
    return float(len(bought)), float(value)


def _rfm(past: list[Row]) -> dict[str, Any]:
    bought = [row for row in past if row["amount"] >= 0]
    returned = [row for row in past if row["amount"] < 0]
    orders = {row["order_key"] for row in bought}
    gross, net, discount = _money(bought), _money(past), _money(past, "discount")
    last = max((row["day"] for row in bought), default=None)
    return {
        "order_count_total": len(orders),
        "net_amount_total": net,
        "order_amount_mean": net / len(orders) if orders else NAN,
        "last_day_amount": _money(row for row in past if row["day"] == last) if bought else NAN,
        "lines_per_order": Fraction(len(bought), len(orders)) if orders else NAN,
        "return_count_total": len({row["order_key"] for row in returned}),
        "return_amount_ratio": -_money(returned) / gross if gross > 0 else NAN,
        "discount_share": discount / (net + discount) if net + discount > 0 else NAN,
    }


def _loyalty(past: list[Row], as_of: int) -> dict[str, Any]:
    bought = [row for row in past if row["amount"] >= 0]
    days = sorted({row["day"] for row in bought})
    gaps = [later - earlier for earlier, later in pairwise(days)]
    since_last = as_of - days[-1] if days else NAN
    mean = Fraction(sum(gaps), len(gaps)) if gaps else NAN
    deviation = pstdev(gaps) if gaps else NAN
    orders = _order_days(past)
    products = [row["product_key"] for row in bought if row.get("product_key") is not None]
    blocks_seen = {(day - days[0]) // 30 for day in days}
    blocks_begun = len(range(days[0], as_of, 30)) if days else 0
    return {
        "days_since_last": since_last,
        "days_since_first": as_of - days[0] if days else NAN,
        "purchase_days_total": len(days),
        "gap_days_mean": mean,
        "gap_days_std": deviation,
        "gap_variation": deviation / mean if gaps else NAN,
        "gap_days_last": gaps[-1] if gaps else NAN,
        "gap_days_max": max(gaps, default=NAN),
        "overdue_ratio": since_last / mean if gaps else NAN,
        "overdue_max_ratio": since_last / max(gaps) if gaps else NAN,
        "active_share": Fraction(len(blocks_seen), blocks_begun) if days else NAN,
        "orders_decayed_30d": math.fsum(0.5 ** ((as_of - day) / 30) for day in orders),
        "orders_decayed_90d": math.fsum(0.5 ** ((as_of - day) / 90) for day in orders),
        "weekend_share": fmean(_is_weekend(day) for day in orders) if orders else NAN,
        "product_count": len(set(products)),
        "product_repeat_share": Fraction(len(products) - len(set(products)), len(products)) if products else NAN,
        "category_count": len({row["category_key"] for row in bought if row.get("category_key") is not None}),
    }


def _potential(past: list[Row], as_of: int) -> dict[str, Any]:
    days = sorted({row["day"] for row in past if row["amount"] >= 0})
    month = _money(_between(past, as_of - 30, as_of))
    blocks: dict[int, list[Row]] = {}
    for row in past:
        if days and row["day"] >= days[0]:
            blocks.setdefault((row["day"] - days[0]) // 30, []).append(row)
    best = max((_money(block) for block in blocks.values()), default=NAN)
    return {
        "amount_decayed_90d": math.fsum(row["amount"] / 10_000 * 0.5 ** ((as_of - row["day"]) / 90) for row in past),
        "peak_day_amount": max((_money(row for row in past if row["day"] == day) for day in days), default=NAN),
        "peak_month_amount": best,
        "peak_ratio": month / best if days and best > 0 else NAN,
    }


def _window_features(past: list[Row], as_of: int, days: int) -> dict[str, Any]:
    now, before = _between(past, as_of - days, as_of), _between(past, as_of - 2 * days, as_of - days)
    order_days = _order_days(past)
    orders_now = sum(as_of - days <= day < as_of for day in order_days)
    orders_before = sum(as_of - 2 * days <= day < as_of - days for day in order_days)
    all_days = {row["day"] for row in past if row["amount"] >= 0}
    days_now = [day for day in all_days if day >= as_of - days]
    usual_rate = Fraction(len(all_days), as_of - min(all_days)) if all_days else NAN
    return {
        f"order_count_{days}d": orders_now,
        f"net_amount_{days}d": _money(now),
        f"margin_{days}d": _money(now) - _money(now, "cost"),
        f"purchase_days_{days}d": len(days_now),
        f"amount_change_{days}d": _change(_money(now), _money(before)),
        f"order_change_{days}d": _change(Fraction(orders_now), Fraction(orders_before)),
        f"recent_rate_{days}d": Fraction(len(days_now), min(days, as_of - min(all_days))) / usual_rate
        if all_days
        else NAN,
        f"new_product_count_{days}d": _count_new(past, "product_key", as_of - days),
        f"new_category_count_{days}d": _count_new(past, "category_key", as_of - days),
    }


def _distinct(rows: Iterable[Row]) -> list[Row]:
    """Keep one of equal rows."""
    kept: list[Row] = []
    for row in rows:
        if row not in kept:
            kept.append(row)
    return kept


def _between(rows: Iterable[Row], start: int, end: int) -> list[Row]:
    return [row for row in rows if start <= row["day"] < end]


def _money(rows: Iterable[Row], column: str = "amount") -> Fraction:
    return Fraction(sum(row.get(column, 0) for row in rows), 10_000)


def _order_days(rows: Iterable[Row]) -> list[int]:
    """List the day of every order: the day of its first purchase line."""
    first: dict[object, int] = {}
    for row in rows:
        if row["amount"] >= 0:
            first[row["order_key"]] = min(row["day"], first.get(row["order_key"], row["day"]))
    return list(first.values())


def _count_new(rows: Iterable[Row], column: str, start: int) -> int:
    bought = [row for row in rows if row["amount"] >= 0 and row.get(column) is not None]
    before = {row[column] for row in bought if row["day"] < start}
    return len({row[column] for row in bought} - before)


def _is_weekend(day: int) -> bool:
    return (date(1970, 1, 1) + timedelta(day)).isoweekday() in {6, 7}


def _change(now: Fraction, before: Fraction) -> Fraction | float:
    size = abs(now) + abs(before)
    return (now - before) / size if size > 0 else NAN
