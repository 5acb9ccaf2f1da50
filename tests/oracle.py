"""Every feature and the outcome once more, in plain slow Python, written from what the catalogue says in words.

A row is a mapping of one of the tables. Transactions: day (days since 1970-01-01), amount, cost, discount and quantity
(1/10,000), order_key, and product_key, category_key, channel_key (None where unknown). Events: kind, day, value. Costs:
day, amount. Invoices: amount, issued, due, paid, disputed. Customers: valid_from, signup, acquisition_cost,
contract_end, attribute_size. Equal rows are one row. NaN stands for "no answer".
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from fractions import Fraction
from itertools import pairwise
from statistics import fmean, pstdev
from typing import Any

from tiermodel.config.project import Project
from tiermodel.features.formula import Feature

Row = dict[str, Any]
NAN = math.nan


def features_of(rows: Iterable[Row], as_of: int, windows: Sequence[int]) -> dict[str, float] | None:
    """Give every feature of one customer as known at the start of day `as_of`; None if there was no row before."""
    tables = _tables(_distinct(rows))
    seen = min((day for table, rows in tables.items() for row in rows for day in _days_of(table, row)), default=as_of)
    if seen >= as_of:
        return None
    past = [row for row in tables["transactions"] if row["day"] < as_of]
    events = [row for row in tables["events"] if row["day"] < as_of]
    costs = [row for row in tables["costs"] if row["day"] < as_of]
    found = {**_rfm(past), **_loyalty(past, as_of), **_potential(past, as_of), **_behaviour(past), **_btyd(past, as_of)}
    found |= _season(past, as_of) | _lifecycle(past, tables["customers"], as_of, seen)
    found |= _value(past, costs, tables["customers"], as_of) | _contacts(past, events, as_of)
    found |= _credit(tables["invoices"], as_of)
    for days in windows:
        found |= _window_features(past, as_of, days) | _more_window_features(past, costs, as_of, days)
        found |= _window_contacts(events, as_of, days) | _window_credit(tables["invoices"], as_of, days)
    found["attribute_size"] = _profile(tables["customers"], as_of, "attribute_size")
    return {name: float(value) for name, value in found.items()}


def outcome_of(
    rows: Iterable[Row], as_of: int, gap: int, horizon: int, data_end: int, measure: str = "amount"
) -> tuple[float, float]:
    """Give days with a purchase and value in [as_of + gap, as_of + gap + horizon); NaN if the data ends before that."""
    if as_of + gap + horizon > data_end:
        return NAN, NAN
    rows = _tables(_distinct(rows))["transactions"]
    window = _between(rows, as_of + gap, as_of + gap + horizon)
    value = _money(window) - (_money(window, "cost") if measure == "margin" else 0)
    bought = {row["day"] for row in window if row["amount"] >= 0}
    return float(len(bought)), float(value)


def churned_of(rows: Iterable[Row], as_of: int, project: Project, data_end: int) -> float:
    """Tell whether a customer churned (1, 0) by the project's definition; NaN where that is not known, or not asked."""
    churn, outcome = project.churn, project.outcome
    gap = outcome.gap_days if churn.gap_days is None else churn.gap_days
    horizon = outcome.horizon_days if churn.horizon_days is None else churn.horizon_days
    renewal = churn.contract_renewal_days or 0
    if as_of + max(outcome.gap_days + outcome.horizon_days, gap + horizon + renewal) > data_end:
        return NAN
    tables = _tables(_distinct(rows))
    start, end = as_of + gap, as_of + gap + horizon
    if churn.contract_renewal_days is not None:
        start = _profile(tables["customers"], as_of, "contract_end", 1)
        if not as_of + gap <= start < end:  # false for NaN
            return NAN
        end = start + renewal
        if _profile(tables["customers"], end, "contract_end", 1) > start:
            return 0.0
    return float(not any(start <= row["day"] < end and row["amount"] >= 0 for row in tables["transactions"]))


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


def _tables(rows: Iterable[Row]) -> dict[str, list[Row]]:
    tables: dict[str, list[Row]] = {name: [] for name in ("transactions", "events", "costs", "invoices", "customers")}
    for row in rows:
        tables[row.get("table", "transactions")].append(row)
    return tables


def _days_of(table: str, row: Row) -> list[int]:
    """List the days on which something became known."""
    names = {"invoices": ("issued", "due", "paid", "disputed"), "customers": ("valid_from", "signup")}
    days = {name: row[name] for name in names.get(table, ("day",)) if row[name] is not None}
    if table == "invoices" and _rest(row, row["due"] + 1) == 0:
        del days["due"]  # nothing happens on the due day of an invoice that is paid
    return list(days.values())


def _value(past: list[Row], costs: list[Row], customers: list[Row], as_of: int) -> dict[str, Any]:
    net, margin = _money(past), _money(past) - _money(past, "cost")
    acquisition = _profile(customers, as_of, "acquisition_cost")
    bought = [row["day"] for row in past if row["amount"] >= 0]
    known = acquisition > 0
    left = NAN if math.isnan(acquisition) else max(acquisition - margin, 0)
    return {
        "margin_total": margin,
        "margin_share_total": margin / net if net > 0 else NAN,
        "service_cost_total": _money(costs),
        "service_cost_ratio": _money(costs) / net if net > 0 else NAN,
        "profit_total": margin - _money(costs),
        "acquisition_cost": acquisition,
        "amount_to_acquisition_ratio": net / acquisition if known else NAN,
        "payback_ratio": margin / acquisition if known else NAN,
        "payback_days_left": left * (as_of - min(bought)) / margin if bought and margin > 0 else NAN,
    }


def _behaviour(past: list[Row]) -> dict[str, Any]:
    bought = [row for row in past if row["amount"] >= 0]
    orders, days = {row["order_key"] for row in bought}, {row["day"] for row in bought}
    net, returns = _money(past), {row["order_key"] for row in past if row["amount"] < 0}
    last = _money(row for row in past if days and row["day"] == max(days))
    quantity = _money(bought, "quantity")
    return {
        "orders_per_purchase_day": Fraction(len(orders), len(days)) if days else NAN,
        "last_to_mean_ratio": last / (net / len(days)) if days and net > 0 else NAN,
        "return_ratio_total": Fraction(len(returns), len(orders)) if orders else NAN,
        "quantity_per_order": quantity / len(orders) if orders else NAN,
        "quantity_per_line": quantity / len(bought) if bought else NAN,
        "discount_line_share": Fraction(sum(row["discount"] > 0 for row in bought), len(bought)) if bought else NAN,
        "product_concentration": _concentration(row["product_key"] for row in bought),
        "category_concentration": _concentration(row["category_key"] for row in bought),
        "channel_concentration": _concentration(row["channel_key"] for row in bought),
        "channel_count": len({row["channel_key"] for row in bought} - {None}),
    }


def _btyd(past: list[Row], as_of: int) -> dict[str, Any]:
    days = sorted({row["day"] for row in past if row["amount"] >= 0})
    if not days:
        return dict.fromkeys(("btyd_frequency", "btyd_recency_days", "btyd_age_days", "btyd_spend_mean"), NAN) | {
            "amount_per_30d": NAN
        }
    later = _money(row for row in past if row["day"] != days[0])
    return {
        "btyd_frequency": len(days) - 1,
        "btyd_recency_days": days[-1] - days[0],
        "btyd_age_days": as_of - days[0],
        "btyd_spend_mean": later / (len(days) - 1) if len(days) > 1 else NAN,
        "amount_per_30d": _money(past) / (as_of - days[0]) * 30,
    }


def _season(past: list[Row], as_of: int) -> dict[str, Any]:
    quarters = [_quarter(day) for day in _order_days(past)]
    return {
        "same_quarter_share": Fraction(quarters.count(_quarter(as_of)), len(quarters)) if quarters else NAN,
        "quarter_concentration": _concentration(quarters),
    }


def _lifecycle(past: list[Row], customers: list[Row], as_of: int, seen: int) -> dict[str, Any]:
    days = sorted({row["day"] for row in past if row["amount"] >= 0})
    gaps = [later - earlier for earlier, later in pairwise(days)]
    mean, deviation = (Fraction(sum(gaps), len(gaps)), pstdev(gaps)) if gaps else (NAN, NAN)
    signup = max((r["signup"] for r in customers if r["signup"] is not None and r["signup"] < as_of), default=NAN)
    end = _profile(customers, as_of, "contract_end", scale=1)
    return {
        "days_known": as_of - seen,
        "days_since_signup": as_of - signup,
        "days_signup_to_purchase": days[0] - signup if days else NAN,
        "contract_days_left": end - as_of,
        "active_span_share": Fraction(days[-1] - days[0], as_of - days[0]) if days else NAN,
        "days_until_due": days[-1] + mean - as_of if gaps else NAN,
        "silence_score": (as_of - days[-1] - mean) / deviation if gaps and deviation > 0 else NAN,
    }


def _contacts(past: list[Row], events: list[Row], as_of: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    kinds = ("visit", "click", "campaign", "response", "meeting", "complaint", "ticket", "referral", "survey")
    of = {kind: [row for row in events if row["kind"] == kind] for kind in kinds}
    for kind, rows in of.items():
        found[f"{kind}_count_total"] = len(rows)
        found[f"days_since_{kind}"] = as_of - max(row["day"] for row in rows) if rows else NAN
    orders = len({row["order_key"] for row in past if row["amount"] >= 0})
    last = max(of["survey"], key=lambda row: row["day"], default={"value": None})["value"]
    return found | {
        "response_ratio_total": Fraction(len(of["response"]), len(of["campaign"])) if of["campaign"] else NAN,
        "orders_per_visit": Fraction(orders, len(of["visit"])) if of["visit"] else NAN,
        "complaints_per_order": Fraction(len(of["complaint"]), orders) if orders else NAN,
        "tickets_per_order": Fraction(len(of["ticket"]), orders) if orders else NAN,
        "survey_score_last": NAN if last is None else Fraction(last, 10_000),
        "survey_score_mean": _mean_score(of["survey"]),
    }


def _mean_score(surveys: list[Row]) -> Fraction | float:
    scores = [row["value"] for row in surveys if row["value"] is not None]
    return Fraction(sum(scores), 10_000 * len(scores)) if scores else NAN


def _window_contacts(events: list[Row], as_of: int, days: int) -> dict[str, Any]:
    now, before = _between(events, as_of - days, as_of), _between(events, as_of - 2 * days, as_of - days)

    def count(rows: list[Row], kind: str) -> int:
        return sum(row["kind"] == kind for row in rows)

    kinds = ("visit", "click", "campaign", "response", "meeting", "complaint", "ticket", "referral", "survey")
    sent = count(now, "campaign")
    return {f"{kind}_count_{days}d": count(now, kind) for kind in kinds} | {
        f"response_ratio_{days}d": Fraction(count(now, "response"), sent) if sent else NAN,
        f"visit_change_{days}d": _change(Fraction(count(now, "visit")), Fraction(count(before, "visit"))),
        f"survey_score_mean_{days}d": _mean_score([row for row in now if row["kind"] == "survey"]),
    }


def _credit(invoices: list[Row], as_of: int) -> dict[str, Any]:
    issued = [row for row in invoices if row["issued"] < as_of]
    paid = [row for row in invoices if row["paid"] is not None and row["paid"] < as_of]
    due = [row for row in invoices if row["due"] < as_of]
    overdue = [row for row in due if _rest(row, as_of) > 0]
    disputed = [row for row in invoices if row["disputed"] is not None and row["disputed"] < as_of]
    past_due = Fraction(sum(_rest(row, as_of) for row in overdue), 10_000)
    still_open = _money(issued) - sum(Fraction(row["amount"] - _rest(row, as_of), 10_000) for row in paid)
    return {
        "open_amount": still_open,
        "overdue_amount": past_due,
        "overdue_count": len(overdue),
        "overdue_days_mean": Fraction(sum(as_of - row["due"] for row in overdue), len(overdue)) if overdue else NAN,
        "overdue_amount_ratio": past_due / still_open if still_open > 0 else NAN,
        "late_share_total": Fraction(sum(r["paid"] > r["due"] for r in paid), len(paid)) if paid else NAN,
        "days_late_mean": Fraction(sum(max(r["paid"] - r["due"], 0) for r in paid), len(paid)) if paid else NAN,
        "days_to_pay_mean": Fraction(sum(r["paid"] - r["issued"] for r in paid), len(paid)) if paid else NAN,
        "days_since_payment": as_of - max(r["paid"] for r in paid) if paid else NAN,
        "dispute_ratio": Fraction(len(disputed), len(issued)) if issued else NAN,
    }


def _rest(invoice: Row, as_of: int) -> int:
    """Return what is not paid of an invoice before a date; what was paid too much does not count."""
    if invoice["paid"] is None or invoice["paid"] >= as_of:
        return int(invoice["amount"])
    return 0 if invoice["paid_amount"] is None else max(int(invoice["amount"] - invoice["paid_amount"]), 0)


def _window_credit(invoices: list[Row], as_of: int, days: int) -> dict[str, Any]:
    def within(name: str) -> list[Row]:
        return [row for row in invoices if row[name] is not None and as_of - days <= row[name] < as_of]

    issued, paid = within("issued"), within("paid")
    return {
        f"invoice_count_{days}d": len(issued),
        f"invoice_amount_{days}d": _money(issued),
        f"late_share_{days}d": Fraction(sum(r["paid"] > r["due"] for r in paid), len(paid)) if paid else NAN,
        f"days_late_mean_{days}d": Fraction(sum(max(r["paid"] - r["due"], 0) for r in paid), len(paid))
        if paid
        else NAN,
        f"days_to_pay_mean_{days}d": Fraction(sum(r["paid"] - r["issued"] for r in paid), len(paid)) if paid else NAN,
        f"dispute_count_{days}d": len(within("disputed")),
    }


def _more_window_features(past: list[Row], costs: list[Row], as_of: int, days: int) -> dict[str, Any]:
    now = _between(past, as_of - days, as_of)
    bought = [row for row in now if row["amount"] >= 0]
    order_days = [day for day in _order_days(past) if day >= as_of - days]
    orders, net, margin = len(order_days), _money(now), _money(now) - _money(now, "cost")
    spent, discount = _money(_between(costs, as_of - days, as_of)), _money(now, "discount")
    products = [row["product_key"] for row in bought if row["product_key"] is not None]
    new, total = _count_new(past, "product_key", as_of - days), _money(past)
    year = {
        f"order_count_year_ago_{days}d": sum(as_of - 365 <= day < as_of - 365 + days for day in _order_days(past)),
        f"net_amount_year_ago_{days}d": _money(_between(past, as_of - 365, as_of - 365 + days)),
    }
    change = {f"amount_year_change_{days}d": _change(net, _money(_between(past, as_of - 365 - days, as_of - 365)))}
    return (
        (year if days < 365 else {})
        | (change if days <= 365 else {})
        | {
            f"margin_share_{days}d": margin / net if net > 0 else NAN,
            f"service_cost_{days}d": spent,
            f"profit_{days}d": margin - spent,
            f"amount_share_{days}d": net / total if total > 0 else NAN,
            f"order_amount_mean_{days}d": net / orders if orders else NAN,
            f"lines_per_order_{days}d": Fraction(len(bought), orders) if orders else NAN,
            f"weekend_share_{days}d": Fraction(sum(map(_is_weekend, order_days)), orders) if orders else NAN,
            f"return_ratio_{days}d": Fraction(_new_returns(past, as_of - days), orders) if orders else NAN,
            f"quantity_{days}d": _money(bought, "quantity"),
            f"discount_share_{days}d": discount / (net + discount) if net + discount > 0 else NAN,
            f"rebuy_share_{days}d": Fraction(len(products) - new, len(products)) if products else NAN,
        }
    )


def _new_returns(past: list[Row], start: int) -> int:
    """Count the orders whose first return lies on or after a day."""
    first: dict[object, int] = {}
    for row in past:
        if row["amount"] < 0:
            first[row["order_key"]] = min(row["day"], first.get(row["order_key"], row["day"]))
    return sum(day >= start for day in first.values())


def _profile(customers: list[Row], as_of: int, column: str, scale: int = 10_000) -> Any:
    """Read a column of the profile that holds at the date: the one with the latest day of validity."""
    held = [row for row in customers if row["valid_from"] is None or row["valid_from"] < as_of]
    latest = max(held, key=lambda row: -math.inf if row["valid_from"] is None else row["valid_from"], default={})
    return NAN if latest.get(column) is None else Fraction(latest[column], scale)


def _concentration(things: Iterable[object]) -> Fraction | float:
    """Sum the squared shares of what is known (Herfindahl and Hirschman)."""
    counts = Counter(thing for thing in things if thing is not None)
    return Fraction(sum(n * n for n in counts.values()), counts.total() ** 2) if counts else NAN


def _quarter(day: int) -> int:
    return ((date(1970, 1, 1) + timedelta(day)).month - 1) // 3


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


def agree(feature: Feature, found: float, wanted: float, spent: float) -> bool:
    """Ask sums to be equal; quotients, roots and decayed sums may differ by rounding, against what was summed."""
    if math.isnan(wanted) or math.isnan(found):
        return math.isnan(wanted) and math.isnan(found)
    words = ("mean", "std", "decayed", "per_30d", "days_left", "until_due")
    rounded = feature.unit in {"ratio", "share"} or any(word in feature.name for word in words)
    if not rounded:
        return found == wanted
    return math.isclose(
        found, wanted, rel_tol=1e-12, abs_tol=1e-12 * max(1.0, spent) if "decayed" in feature.name else 1e-12
    )


def spent_by(rows: Iterable[Row]) -> float:
    """Add up what moved, in currency units."""
    return float(sum(abs(row["amount"]) for row in rows if "amount" in row) / 10_000)
