"""Random draws for a synthetic company: what customers are and do, a block at a time, in days from the first day."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiermodel.arrays import Floats, Ints

__all__ = [
    "BLOCK",
    "GIVEN",
    "NEVER",
    "SENT_SHARE",
    "SURNAMES",
    "Columns",
    "campaign",
    "draw_block",
    "is_campaign",
]


Draw = np.random.Generator
Columns = dict[str, NDArray[Any]]

BLOCK = 512  # customers drawn together; blocks are drawn whole, so that a larger world begins with the smaller
NEVER = 2**31 - 1
SENT_SHARE = 0.5
SURNAMES, GIVEN = "王李张刘陈杨黄赵吴周徐孙马朱胡郭何高林罗", "伟芳娜敏静丽强磊军洋勇艳杰娟涛明超霞平刚"
_CAMPAIGN_FIRST, _CAMPAIGN_EVERY = 60, 45
_CATEGORIES, _PRODUCTS = 12, 30


def is_campaign(day: Any) -> Any:
    """Return whether a campaign is sent on a day."""
    return (day >= _CAMPAIGN_FIRST) & ((day - _CAMPAIGN_FIRST) % _CAMPAIGN_EVERY == 0)


def campaign(day: int) -> int:
    """Return the number of the campaign of a day, from 0."""
    return (day - _CAMPAIGN_FIRST) // _CAMPAIGN_EVERY


def draw_block(draw: Draw, first: int, days: int, season: Floats) -> dict[str, Columns]:
    """Return what the customers of a block are, and the rows of their tables; ids are numbers from `first` on."""
    people = _draw_people(draw, days, len(season))
    customer, day = _order_days(draw, people, season)
    rows, totals = _order_lines(draw, people, customer, day, first)
    events = _events(draw, people, len(season))
    tickets = events["kind"] == "ticket"
    costs = {name: events[name][tickets] for name in ("customer", "day")}
    costs["amount"] = np.round(draw.gamma(2.0, 8.0, tickets.sum()) + 1, 2)
    made = {"transactions": rows, "events": events, "costs": costs}
    made["invoices"] = _invoices(draw, people, customer, day, totals)
    for table in made.values():
        table["customer"] = table["customer"] + first
    return {"people": people, **made}


def _draw_people(draw: Draw, days: int, end: int) -> Columns:
    """Return what customers are, in days from the first; a prospect starts `NEVER` and has left on day -1."""
    n = BLOCK
    kind = draw.random(n)
    prospect, once = kind < 0.08, (kind >= 0.08) & (kind < 0.25)
    start = (draw.random(n) * 0.85 * days).astype(np.int64)
    leave_rate = draw.gamma(2.0, 1 / 900, n)
    stay = np.where(once | prospect, 0.0, np.exp(-leave_rate))
    left = start + draw.geometric(-np.expm1(-leave_rate))
    grows = (draw.random(n) < 0.12) & ~once
    grow_day = np.where(grows, start + draw.integers(60, 500, n), NEVER)
    business = draw.random(n) < 0.1
    campaigns = campaign(end - 1) + 1 if end > _CAMPAIGN_FIRST else 0
    bought = ~prospect
    return {
        "start": np.where(bought, start, NEVER),
        "left": np.where(prospect, -1, np.where(once, start + 1, left)),
        "signup": start - draw.integers(0, 60, n),
        "rate": np.where(once | prospect, 0.0, draw.gamma(1.5, 1 / 30, n) + 0.002),
        "leave_rate": np.where(once | prospect, np.inf, leave_rate),
        "stay": stay,
        "grow_day": grow_day,
        "growth": np.where(grows, 1.5 + draw.exponential(0.8, n), 1.0),
        "order_amount": np.round(draw.lognormal(3.6, 0.9, n) * np.where(business, 6.0, 1.0), 2),
        "margin_share": draw.beta(4.0, 7.0, n),
        "return_share": draw.beta(1.0, 24.0, n),
        "response": np.where(bought & ~once, draw.beta(0.6, 4.0, n), 0.0),
        "sent": draw.random((n, campaigns)) < SENT_SHARE,
        "late_days": np.where(draw.random(n) < 0.3, draw.gamma(2.0, 12.0, n), 0.0),
        "business": business,
        "favourite": draw.integers(0, _CATEGORIES, n),
        "satisfaction": np.clip(9 - 900 * leave_rate + draw.normal(0, 1, n), 0, 10),
        "visits": draw.gamma(1.5, 1 / 20, n) + 0.01,
        "acquisition_cost": np.round(draw.gamma(3.0, 6.0, n), 2),
        "opted_out": draw.random(n) < 0.02,
        "name": draw.integers(0, len(SURNAMES) * len(GIVEN), n),
        "mobile": 13_000_000_000 + draw.integers(0, 10**9, n),
    }


def _order_days(draw: Draw, people: Columns, season: Floats) -> tuple[Ints, Ints]:
    """Return the customer and day of every order, sorted by both: first orders, orders at the rate, campaigns'."""
    summed = np.append(0.0, np.cumsum(season))
    end = np.clip(people["left"], 0, len(season))
    buyers = np.flatnonzero(people["start"] < len(season))
    start = np.minimum(people["start"] + 1, end)
    turn = np.clip(people["grow_day"], start, end)
    before = summed[turn] - summed[start]
    count = draw.poisson(people["rate"] * (before + people["growth"] * (summed[end] - summed[turn])))
    customer = np.repeat(np.arange(len(count)), count)
    place = draw.random(len(customer)) * (before + people["growth"] * (summed[end] - summed[turn]))[customer]
    later = place > before[customer]
    at = np.where(later, summed[turn][customer] + (place - before[customer]) / people["growth"][customer], 0.0)
    at = np.where(later, at, summed[start][customer] + place)
    day = np.clip(np.searchsorted(summed, at, side="right") - 1, start[customer], end[customer] - 1)
    campaign_days = np.flatnonzero(is_campaign(np.arange(len(season))))
    there = (people["start"][:, None] < campaign_days) & (campaign_days < people["left"][:, None])
    answered = there & people["sent"] & (draw.random(there.shape) < people["response"][:, None])
    people["answered"] = answered
    who, which = np.nonzero(answered)
    customer = np.concatenate([customer, buyers, who])
    day = np.concatenate([day, people["start"][buyers], campaign_days[which]])
    order = np.lexsort((day, customer))
    return customer[order], day[order]


def _order_lines(draw: Draw, people: Columns, customer: Ints, day: Ints, first: int) -> tuple[Columns, Floats]:
    """Return the lines of the orders and of returns as rows, and the total of every order."""
    of_customer = np.arange(len(customer)) - np.searchsorted(customer, customer)
    number = (customer + first) * 10_000 + of_customer
    wanted = people["order_amount"][customer] * draw.lognormal(-0.125, 0.5, len(customer))
    lines = 1 + np.minimum(draw.poisson(1.0, len(customer)), 9)
    order = np.repeat(np.arange(len(customer)), lines)
    share = draw.gamma(2.0, 1.0, len(order))
    amount = np.maximum(np.round(wanted[order] * share / np.bincount(order, share)[order], 2), 0.01)
    who = customer[order]
    category = (people["favourite"][who] + (4 * draw.random(len(who)) ** 2).astype(np.int64)) % _CATEGORIES
    returned = draw.random(len(who)) < people["return_share"][who]
    rows = {
        "customer": who,
        "day": day[order],
        "second": np.repeat(draw.integers(8 * 3600, 21 * 3600, len(customer)), lines),
        "order_id": number[order],
        "amount": amount,
        "product_id": category * 100 + (_PRODUCTS * draw.random(len(who)) ** 2).astype(np.int64),
        "category": category,
        "quantity": 1 + draw.poisson(0.5, len(who)),
        "cost": np.round(amount * (1 - people["margin_share"][who]) * draw.uniform(0.9, 1.1, len(who)), 2),
        "discount": np.where(draw.random(len(who)) < 0.2, np.round(amount / 9, 2), 0.0),
        "channel": np.repeat(draw.integers(0, 3, len(customer)), lines),
    }
    back = {name: column[returned] for name, column in rows.items()}
    back["day"] = back["day"] + draw.integers(1, 21, returned.sum())
    back |= {name: -back[name] for name in ("amount", "quantity", "cost", "discount")}
    return {name: np.concatenate([rows[name], back[name]]) for name in rows}, np.bincount(order, amount).astype(
        np.float64
    )


def _events(draw: Draw, people: Columns, end: int) -> Columns:
    """Return visits, complaints, tickets and surveys until a customer leaves, and campaigns sent and answered."""
    prospect = people["left"] < 0
    until = np.where(prospect, people["signup"] + 1 + draw.geometric(1 / 120, BLOCK), people["left"])
    begin = np.maximum(people["signup"], 0)
    span = np.maximum(np.minimum(until, end) - begin, 0)
    parts: list[tuple[Ints, Ints, str]] = []
    for kind, rate in (
        ("visit", people["visits"]),
        ("complaint", np.full(BLOCK, 0.001)),
        ("ticket", np.full(BLOCK, 0.002)),
        ("survey", np.where(prospect, 0.0, 0.002)),
    ):
        who = np.repeat(np.arange(BLOCK), draw.poisson(rate * span))
        parts.append((who, begin[who] + (draw.random(len(who)) * span[who]).astype(np.int64), kind))
    days = _CAMPAIGN_FIRST + _CAMPAIGN_EVERY * np.arange(people["sent"].shape[1])
    for kind, happened in (
        ("campaign", people["sent"] & (people["signup"][:, None] < days)),
        ("response", people["answered"]),
    ):
        who, which = np.nonzero(happened)
        parts.append((who, days[which], kind))
    customer = np.concatenate([who for who, _, _ in parts])
    kinds = np.repeat(np.array([kind for _, _, kind in parts], dtype=object), [len(who) for who, _, _ in parts])
    score = np.clip(np.round(people["satisfaction"][customer] + draw.normal(0, 1, len(customer))), 0, 10)
    return {
        "customer": customer,
        "day": np.concatenate([day for _, day, _ in parts]),
        "second": draw.integers(0, 86_400, len(customer)),
        "kind": kinds,
        "value": np.where(kinds == "survey", score, np.nan),
    }


def _invoices(draw: Draw, people: Columns, customer: Ints, day: Ints, totals: Floats) -> Columns:
    """Return one invoice for every order of a business: due after 30 days, paid about then or late, rarely disputed."""
    billed = people["business"][customer]
    who, issued = customer[billed], day[billed]
    late = np.round(people["late_days"][who] + draw.normal(-3, 4, len(who))).astype(np.int64)
    disputed = draw.random(len(who)) < 0.02
    return {
        "customer": who,
        "day": issued,
        "amount": np.round(totals[billed], 2),
        "due": issued + 30,
        "paid": np.maximum(issued + 30 + late, issued),
        "disputed": np.where(disputed, issued + draw.integers(2, 30, len(who)), NEVER),
    }
